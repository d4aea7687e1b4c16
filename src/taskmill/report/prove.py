"""report.html of a proof: the verdict, a forest plot of effects, the size curve, what was forgotten."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from taskmill.durable import atomic_write
from taskmill.export.urls import hide_secrets_within
from taskmill.report.page import render
from taskmill.report.pages import settings
from taskmill.report.words import compact, duration, thousands

__all__ = ["forest", "rows_needed", "size_curve", "write_prove_report"]


_MADE = {"ours", "ours-unfiltered", "ours+replay"}
"""Arms whose rows the generator writes."""


def forest(effects: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the geometry of a forest plot of effects, in percent of its width, with nothing at `zero`."""
    ends = [0.0, *(end for line in effects.values() for end in line["interval"])]
    low, high = min(ends), max(ends)
    room = (high - low) * 0.05 or 0.05
    low, high = low - room, high + room

    def x(value: float) -> float:
        return float(round(100 * (value - low) / (high - low), 2))

    lines = []
    for name, line in effects.items():
        left, right = line["interval"]
        state = "good" if left > 0 else "bad" if right < 0 else "dim"
        lines.append(
            {"name": name, "x": x(line["delta"]), "left": x(left), "width": round(x(right) - x(left), 2),
             "state": state, **line}
        )  # fmt: skip
    return {"lines": lines, "zero": x(0.0)}


def size_curve(points: Sequence[Mapping[str, Any]], levels: Mapping[str, float]) -> dict[str, Any]:
    """Return the geometry of the plot of the score by rows (logarithmic), in percent; empty without points.

    `levels`: other arms' scores, drawn as lines across.
    """
    if len(points) < 2:
        return {}
    heights = [*levels.values(), *(end for p in points for end in p["interval"])]
    low, high = min(heights), max(heights)
    room = (high - low) * 0.05 or 0.05
    low, high = low - room, high + room
    first, last = math.log10(points[0]["rows"]), math.log10(points[-1]["rows"])

    def x(rows: float) -> float:
        return round(100 * (math.log10(rows) - first) / (last - first), 2) if last > first else 50.0

    def y(score: float) -> float:
        return float(round(100 * (high - score) / (high - low), 2))

    band = [(x(p["rows"]), y(p["interval"][1])) for p in points]
    band += [(x(p["rows"]), y(p["interval"][0])) for p in reversed(points)]
    ticks = [low + (high - low) * share for share in (0.05, 0.35, 0.65, 0.95)]
    return {
        "line": " ".join(f"{x(p['rows'])},{y(p['score'])}" for p in points),
        "band": " ".join(f"{px},{py}" for px, py in band),
        "points": [{**p, "x": x(p["rows"]), "y": y(p["score"])} for p in points],
        "levels": [{"name": name, "y": y(score), "score": score} for name, score in levels.items()],
        "ticks": [{"y": y(tick), "score": tick} for tick in ticks],
    }


def rows_needed(needed: Mapping[str, float | None], most: int) -> str:
    """Return in words how many rows a score takes. `needed`: None is never; `most`: the most rows tried."""
    value, low, high = (needed[name] for name in ("value", "low", "high"))
    ends = [f"{end:,.0f}" if end is not None else "never" for end in (low, high)]
    if value is None:
        return f"The curve does not reach {needed['score']:g} (interval: {ends[0]} to {ends[1]})."
    beyond = f"; more than the {most:,} tried, so it is extrapolated" if value > most else ""
    takes = f"A score of {needed['score']:g} takes {value:,.0f} rows by the curve"
    return f"{takes} ({ends[0]} to {ends[1]}){beyond}."


def write_prove_report(path: Path, record: Mapping[str, Any]) -> Path:
    """Write the page of a proof and return its path. `record`: what record.json holds."""
    record = hide_secrets_within(dict(record))
    result = record["result"]
    slots = {
        "name": path.resolve().parent.name,
        "record": record,
        "result": result,
        "config": record["config"],
        "makes": bool(_MADE & set(result["arms"])),
        "shared": "targets" in result and not {"tapt", *_MADE} & set(result["arms"]),
        "figures": _figures(record),
        "overall": forest(result["effects"]) if "targets" in result else {},
        "matrix": _matrix(result) if "targets" in result else [],
        "targets": [
            _target(name, result.get("targets", {}).get(name, result), details, record["targets"][name])
            for name, details in record["details"].items()
        ],
        "settings": settings(record["config"]),
    }
    atomic_write(path, render("prove.html.j2", slots).encode())
    return path


def _matrix(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the lines of the table of arms by targets: scores, and what each arm has over the last one.

    The last is `none` where that is an arm. Each line ends with the mean over the targets.
    """
    columns = [*result["targets"].items(), ("mean", result)]  # a target may be called mean as well
    arms = result["arms"]
    last = next(two for two in arms if all(f"{two}-{one}" not in result["effects"] for one in arms))
    lines = []
    for arm in arms:
        cells = []
        for name, one in columns:
            effect = one["effects"].get(f"{arm}-{last}")
            low, high = effect["interval"] if effect else (0.0, 0.0)
            state = "good" if low > 0 else "bad" if high < 0 else "dim"
            cells.append(
                {"target": name, "score": one["arms"][arm]["score"], "effect": effect, "state": state}
            )
        kept = result["retention"]["arms"].get(arm)
        lines.append({"arm": arm, "cells": cells, "kept": kept, "last": last})
    return lines


def _target(
    name: str, result: Mapping[str, Any], details: Mapping[str, Any], plan: Mapping[str, Any]
) -> dict[str, Any]:
    levels = {arm: line["score"] for arm, line in result["arms"].items() if arm != "ours"}
    needed = details["fit"].get("needed")
    return {
        "name": name,
        "result": result,
        "details": details,
        "plan": plan,
        "forest": forest(result["effects"]),
        "curve": size_curve(details["curve"], levels),
        "needed": rows_needed(needed, details["curve"][-1]["rows"]) if needed else "",
    }


def _figures(record: Mapping[str, Any]) -> list[dict[str, str]]:
    result, config = record["result"], record["config"]
    found = []
    # The page sets off its first figure: the arm that the verdict is about.
    for arm in sorted(result["arms"], key=lambda arm: not result["verdict"].startswith(f"{arm} ")):
        score, (low, high) = result["arms"][arm]["score"], result["arms"][arm]["interval"]
        note = f"{low:.3f} – {high:.3f}" if low < high else "no spread"
        found.append({"label": arm, "value": f"{score:.3f}", "note": note})
    questions = sum(one["questions"] for one in record["details"].values())
    wordings = max(plan["wordings"] for plan in record["targets"].values())
    read = max(line["read"] for one in record["details"].values() for line in one["learned"].values())
    kept = result["retention"]["passed"]
    return [
        *found,
        {
            "label": "test",
            "value": thousands(questions),
            "note": f"questions in {wordings} wordings, {config['seeds']} seeds",
        },
        {"label": "learned", "value": compact(read), "note": "tokens by each student"},
        {
            "label": "general knowledge",
            "value": "kept" if kept else "lost",
            "note": "within the bounds" if kept else "see below",
        },
        {
            "label": "time",
            "value": duration(record["seconds"]),
            "note": f"this session; {duration(record['estimate_s'])} foreseen in all",
        },
    ]
