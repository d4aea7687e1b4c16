"""SELECTION.report.html: where the chosen rows lie, and what they are worth beside chance and length.

The page is self-contained and shows points, never all rows: its size does not grow with the pool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from taskmill.durable import atomic_write
from taskmill.export.urls import hide_secrets_within
from taskmill.report.page import render
from taskmill.report.pages import settings
from taskmill.report.words import compact, duration, thousands

__all__ = ["panels", "table_of_measures", "write_selection_report"]

Array = np.ndarray[Any, Any]

_TITLES = {
    "rows": "rows",
    "tokens": "tokens",
    "covering_radius": "covering radius",
    "mean_distance": "mean distance to a chosen row",
    "near_duplicates": "near duplicates among the chosen",
}
_SHARES = ("near_duplicates", "coverage")


def panels(points: Mapping[str, Array]) -> list[dict[str, str]]:
    """Return the geometry of the two maps: the pool, and on it the choice or rows by chance.

    A map is 100 by 100; points are a path of strokes of no length, drawn round.
    """
    if not points:
        return []
    pool = _dots(points["pool"])
    titles = {"chosen": "the choice", "random": "as many tokens by chance"}
    return [
        {"name": name, "title": title, "pool": pool, "dots": _dots(points[name])}
        for name, title in titles.items()
        if name in points
    ]


def _dots(points: Array) -> str:
    placed = np.round(points * [96, -96] + [2, 98], 1)
    unique = dict.fromkeys((float(x), float(y)) for x, y in placed)
    return "".join(f"M{x:g} {y:g}h0" for x, y in unique)


def table_of_measures(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a line for each measure: its cells, one a choice, with the length of their bars in percent."""
    lines = []
    measures: Mapping[str, Mapping[str, Any]] = record["measures"]
    chosen = next(iter(measures))
    for key in measures[chosen]:
        values = {name: own.get(key) for name, own in measures.items()}
        if all(value is None for value in values.values()):
            continue
        most = max((value for value in values.values() if value is not None), default=0) or 1
        draws = record["random_draws"].get(key)
        beats = record["beats_every_draw"].get(key)
        lines.append(
            {
                "title": _TITLES.get(key, key),
                "cells": [
                    {
                        "name": name,
                        "value": _shown(key, value),
                        "bar": 0 if value is None else round(100 * value / most, 1),
                        "range": f"{_shown(key, draws['least'])} – {_shown(key, draws['largest'])}"
                        if name == "random" and draws
                        else "",
                    }
                    for name, value in values.items()
                ],
                "verdict": {True: "better than every draw", False: "not better than every draw"}.get(
                    beats, ""
                ),
                "better": beats is True,
            }
        )
    return lines


def _shown(key: str, value: float | None) -> str:
    if value is None:
        return "–"
    if key in ("rows", "tokens"):
        return thousands(value)
    return f"{100 * value:.1f} %" if key.startswith(_SHARES) else f"{value:.4f}"


def write_selection_report(path: Path, record: Mapping[str, Any], points: Mapping[str, Array]) -> Path:
    """Write the page of a selection and return its path.

    `record`: what SELECTION.report.json holds. `points`: coordinates 0 to 1 of the pool, the choice and a
    choice by chance, float64 [n, 2] each; empty without embeddings.
    """
    record = hide_secrets_within(dict(record))
    config = record["config"]
    slots = {
        "name": path.name.removesuffix(".report.html"),
        "config": config,
        "record": record,
        "figures": _figures(record),
        "panels": panels(points),
        "lines": table_of_measures(record),
        "names": list(record["measures"]),
        "groups": _rows_of_groups(record["groups"]),
        "settings": settings(config),
        # Quotas are what the table of groups shows as chosen.
        "selector": _plain({key: own for key, own in record["selector"].items() if key != "quotas"}),
        "overlap": {key: f"{100 * share:.2f} %" for key, share in record["overlap"].items()},
        "pool": _plain(record["pool"]),
    }
    atomic_write(path, render("selection.html.j2", slots).encode())
    return path


def _figures(record: Mapping[str, Any]) -> Sequence[Mapping[str, str]]:
    pool, chosen, predicted = record["pool"], record["chosen"], record["predicted"]
    verdicts = [v for v in record["beats_every_draw"].values() if v is not None]
    share = 100 * chosen["rows"] / max(1, pool["rows"])
    return [
        {"label": "chosen", "value": thousands(chosen["rows"]), "note": f"{share:.2f} % of the rows"},
        {"label": "pool", "value": compact(pool["rows"]), "note": f"{compact(pool['tokens'])} tokens"},
        {
            "label": "tokens",
            "value": compact(chosen["tokens"]),
            "note": f"budget {record['config']['budget']}",
        },
        {
            "label": "beats chance",
            "value": f"{sum(verdicts)} of {len(verdicts)}",
            "note": f"measures, against each of {record['config']['draws']} draws",
        },
        {
            "label": "time",
            "value": duration(record["seconds"]["select"]),
            "note": f"{duration(record['seconds']['all'])} with the evidence",
        },
        {"label": "work", "value": compact(predicted["operations"]), "note": "multiply-adds, predicted"},
    ]


def _rows_of_groups(groups: Mapping[str, Mapping[str, int]], most: int = 40) -> list[dict[str, Any]]:
    largest = sorted(groups.items(), key=lambda item: (-item[1]["rows"], item[0]))[:most]
    shares = [100 * counts["chosen"] / max(1, counts["rows"]) for _, counts in largest]
    most_share = max(shares, default=0) or 1
    return [
        {"name": name or "(none)", **counts, "share": share, "bar": round(100 * share / most_share, 1)}
        for (name, counts), share in zip(largest, shares, strict=True)
    ]


def _plain(evidence: Mapping[str, Any], most: int = 30) -> dict[str, str]:
    """Return evidence as lines of a table: what stands within is named by its path, long lists are cut."""
    lines: dict[str, str] = {}
    for key, value in evidence.items():
        name = str(key).replace("_", " ")
        if isinstance(value, Mapping):
            lines |= {f"{name}: {inner}": found for inner, found in _plain(value, most).items()}
        elif isinstance(value, list):
            if value:
                lines[name] = ", ".join(map(_one, value[:5])) + (
                    f" and {n} more" if (n := len(value) - 5) > 0 else ""
                )
        else:
            lines[name] = thousands(value) if isinstance(value, int) and value is not True else str(value)
    left = len(lines) - most
    return lines if left <= 0 else dict(list(lines.items())[:most]) | {"…": f"{left} more in the JSON report"}


def _one(value: Any) -> str:
    return ": ".join(map(str, value.values())) if isinstance(value, Mapping) else str(value)
