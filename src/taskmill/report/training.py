"""Training folder → report.html: the loss curve, the counts and the recipe, on one self-contained page.

It can be written while the run works: it shows what log.jsonl has so far.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from taskmill.durable import atomic_write
from taskmill.errors import InputError
from taskmill.report.page import render
from taskmill.report.words import compact, duration, thousands
from taskmill.store import read_json

__all__ = ["curve", "write_training_report"]

_POINTS = 400
"""Points of the drawn curve: more than a screen shows; longer runs are averaged into so many."""

_WINDOW = 0.05
"""Share of the steps the smooth line averages over."""


def curve(log: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the geometry of the loss curve, in percent of its frame, of the lines of a log.

    `train` and `smooth` are polylines ("x,y x,y …"), `valid` points with their loss. Empty before the
    first step.
    """
    train = [(line["step"], line["loss"]) for line in log if "loss" in line]
    valid = [(line["step"], line["valid_loss"]) for line in log if "valid_loss" in line]
    if not train:
        return {}
    smooth = _averaged(train, max(1, round(_WINDOW * len(train))))
    every = -(-len(train) // _POINTS)
    thin = [(part[-1][0], sum(y for _, y in part) / len(part)) for part in _parts(train, every)]
    heights = [y for _, y in [*smooth, *valid, *thin]]
    low, high = min(heights), max(heights)
    room = (high - low) * 0.05 or 0.1
    low, high, last = low - room, high + room, train[-1][0]

    def place(step: float, loss: float) -> tuple[float, float]:
        return round(100 * step / last, 2), round(100 * (high - loss) / (high - low), 2)

    def line(points: Sequence[tuple[int, float]]) -> str:
        return " ".join("{},{}".format(*place(*point)) for point in points)

    ticks = [low + (high - low) * share for share in (0.05, 0.5, 0.95)]
    return {
        "train": line(thin),
        "smooth": line([part[-1] for part in _parts(smooth, every)]),
        "valid": [{"step": s, "loss": y, "x": place(s, y)[0], "y": place(s, y)[1]} for s, y in valid],
        "valid_line": line(valid),
        "ticks": [{"y": place(0, tick)[1], "loss": tick} for tick in ticks],
        "steps": last,
    }


def _averaged(points: Sequence[tuple[int, float]], window: int) -> list[tuple[int, float]]:
    """Return the mean of each point and the `window` - 1 before it."""
    found, total = [], 0.0
    for i, (step, value) in enumerate(points):
        total += value - (points[i - window][1] if i >= window else 0.0)
        found.append((step, total / min(i + 1, window)))
    return found


def _parts(points: Sequence[tuple[int, float]], size: int) -> list[Sequence[tuple[int, float]]]:
    return [points[i : i + size] for i in range(0, len(points), size)]


def write_training_report(out: Path) -> Path:
    """Write OUT/report.html from the run's log and record, and return its path.

    Raises InputError if `out` is no training folder.
    """
    out = Path(out)
    if not (out / "run.json").exists():
        raise InputError(f"{out} is no training folder: it has no run.json; give the --out of a training run")
    run, log = read_json(out / "run.json"), _log(out / "log.jsonl")
    record = next(
        (found for name in ("adapter", "model") if (found := read_json(out / name / "taskmill.json"))), {}
    )
    recipe = dict(record.get("recipe") or run.get("config", {}))
    if "prefix" in record:
        recipe["prefix"] = "{used}: {why}".format(**record["prefix"])
    slots = {
        "name": out.resolve().name,
        "base": run.get("base", {}),
        "done": bool(record),
        "figures": _figures(record, record.get("counts") or run.get("data", {}), log),
        "curve": curve(log),
        "counts": record.get("counts") or run.get("data", {}),
        "recipe": {key: value for key, value in recipe.items() if value != ""},
        "versions": record.get("versions", {}),
        "weights": record.get("weights", {}),
    }
    path = out / "report.html"
    atomic_write(path, render("training.html.j2", slots).encode())
    return path


def _log(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a log; the last may be half-written while the run works."""
    found: list[dict[str, Any]] = []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def _figures(
    record: Mapping[str, Any], counts: Mapping[str, Any], log: Sequence[Mapping[str, Any]]
) -> list[dict[str, str]]:
    last: Mapping[str, Any] = next((line for line in reversed(log) if "loss" in line), {})
    valid = [line["valid_loss"] for line in log if "valid_loss" in line]
    steps, tokens = record.get("steps", last.get("step")), record.get("tokens", last.get("tokens"))
    seconds = record.get("elapsed_s", last.get("elapsed_s"))
    refused = counts.get("refused", 0)
    fell = f"from {valid[0]:.3f}" if len(valid) > 1 else "before training"
    return [
        {
            "label": "validation loss",
            "value": f"{valid[-1]:.3f}" if valid else "–",
            "note": fell if valid else "none",
        },
        {"label": "training loss", "value": f"{last['loss']:.3f}" if last else "–", "note": "last step"},
        {"label": "steps", "value": thousands(steps), "note": ""},
        {
            "label": "tokens read",
            "value": compact(tokens),
            "note": f"{compact(counts.get('supervised'))} to learn in all rows",
        },
        {"label": "rows", "value": thousands(counts.get("train")), "note": f"{thousands(refused)} refused"},
        {
            "label": "time",
            "value": duration(seconds),
            "note": f"{compact(record.get('tokens_per_s'))} tokens/s",
        },
    ]
