"""report.html of learning in stages: the matrix of each strategy, transfer, forgetting, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from taskmill.durable import atomic_write
from taskmill.export.urls import hide_secrets_within
from taskmill.report.page import render
from taskmill.report.words import duration, thousands

__all__ = ["write_continual_report"]


def write_continual_report(path: Path, record: Mapping[str, Any]) -> Path:
    """Write the page of an experiment in stages and return its path. `record`: what result.json holds."""
    record = hide_secrets_within(dict(record))
    slots = {
        "name": path.resolve().parent.name,
        "record": record,
        "config": record["config"],
        "figures": _figures(record),
        "rows": _rows(record),
        "stages": [Path(source).name for source in record["config"]["stages"]],
        "settings": {k: v for k, v in record["config"].items() if v not in ("", [], {}) and k != "train"},
    }
    atomic_write(path, render("continual.html.j2", slots).encode())
    return path


def _figures(record: Mapping[str, Any]) -> list[dict[str, str]]:
    own = record["strategies"]
    least = max(own, key=lambda name: own[name]["bwt"]["mean"])
    units, seconds = record["units"], record["seconds"]["students"]
    rows = record["rows"]
    found = [
        {
            "label": "forgets least",
            "value": least,
            "note": f"mean BWT {100 * own[least]['bwt']['mean']:+.2f}",
        },
        {"label": "stages", "value": str(len(rows["tasks"])), "note": f"{sum(rows['tasks'])} tasks"},
        {
            "label": "held out",
            "value": thousands(sum(rows["held"])),
            "note": f"rows; {rows['test']} of unseen tasks",
        },
        {"label": "trainings", "value": thousands(units["all"]), "note": f"{duration(seconds)} in all"},
    ]
    if all("test" in one for one in own.values()):
        best = max(own, key=lambda name: own[name]["test"]["mean"])
        note = f"ROUGE-L {100 * own[best]['test']['mean']:.2f}"
        found.insert(1, {"label": "best on unseen tasks", "value": best, "note": note})
    return found


def _rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a line for each strategy: after each stage test, holdout and the stages before it; measures."""
    lines = []
    for name, own in record["strategies"].items():
        cells = []
        for t, stage in enumerate(own["matrix"]):
            previous = [_cell(stage[str(j)]) for j in range(t)]
            test = _cell(stage["test"]) if record["rows"]["test"] else None
            cells.append({"test": test, "holdout": _cell(stage[str(t)]), "previous": previous})
        measures = {key: _cell(own[key]) for key in ("bwt", "fwt", "forgetting", "average") if key in own}
        lines.append({"name": name, "cells": cells, "measures": measures})
    return lines


def _cell(found: Mapping[str, float]) -> dict[str, str]:
    return {key: f"{100 * found[key]:.2f}" for key in ("mean", "low", "high")}
