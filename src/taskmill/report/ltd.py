"""report.html of an LTD experiment: mark by share of the data, the smallest sufficient share, the claims."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from taskmill.durable import atomic_write
from taskmill.export.urls import hide_secrets_within
from taskmill.report.page import render
from taskmill.report.pages import settings
from taskmill.report.words import compact, duration, thousands

__all__ = ["curves", "write_ltd_report"]

_COLOURS = ("kept", "r2", "r1", "r3", "r0", "r5", "r4", "r6")
"""Classes of the page's colours, the core-set's first."""


def curves(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the geometry of the plot of marks by ratio, in percent of its frame; empty without arms.

    The horizontal axis is logarithmic. `lines`: for each arm its polyline ("x,y x,y …"), its points, and for
    the core-set and its controls the band of their intervals as a polygon. `fitted`: their
    learning curves. `bars`: levels of all rows, of all
    rows less epsilon, of the base.
    """
    arms: Sequence[Mapping[str, Any]] = record["arms"]
    if not arms:
        return {}
    full, base = record["full"]["mean"], record["base"]["mean"]
    bars = {
        "all rows, and less epsilon": full,
        "": full - record["config"]["epsilon"],
        "not trained": base,
    }
    fitted = {name: found["line"] for name, found in record["curves"].items() if found["line"]}
    heights = [*bars.values(), *(a["low"] for a in arms), *(a["high"] for a in arms)]
    heights += [point["value"] for line in fitted.values() for point in line]
    low, high = min(heights), max(heights)
    room = (high - low) * 0.05 or 0.05
    low, high = low - room, high + room
    ratios = sorted({a["ratio"] for a in arms})
    first, last = math.log10(ratios[0]), math.log10(ratios[-1])

    def x(ratio: float) -> float:
        return round(100 * (math.log10(ratio) - first) / (last - first), 2) if last > first else 50.0

    def y(mark: float) -> float:
        return float(round(100 * (high - mark) / (high - low), 2))

    lines = [
        _line(arm, own, _COLOURS[at % len(_COLOURS)], x, y)
        for at, (arm, own) in enumerate(_by_arm(arms).items())
    ]
    ticks = [low + (high - low) * share for share in (0.05, 0.35, 0.65, 0.95)]
    colours = {line["name"]: line["colour"] for line in lines}
    return {
        "lines": lines,
        "fitted": [
            {"colour": colours[name], "line": " ".join(f"{x(p['ratio'])},{y(p['value'])}" for p in line)}
            for name, line in fitted.items()
        ],
        "bars": [{"name": name, "y": y(mark), "mark": mark} for name, mark in bars.items()],
        "ticks": [{"y": y(tick), "mark": tick} for tick in ticks],
        "ratios": [{"x": x(ratio), "ratio": f"{ratio:g}"} for ratio in ratios],
    }


def _line(
    arm: tuple[str, str, str],
    own: Sequence[Mapping[str, Any]],
    colour: str,
    x: Callable[[float], float],
    y: Callable[[float], float],
) -> dict[str, Any]:
    plain = arm[:2] == ("target", "all")
    band = [(x(a["ratio"]), y(a["high"])) for a in own]
    band += [(x(a["ratio"]), y(a["low"])) for a in reversed(own)]
    points = [{"x": x(a["ratio"]), "y": y(a["mean"]), **a} for a in own]
    return {
        "name": _name(*arm),
        "colour": colour,
        "line": " ".join(f"{p['x']},{p['y']}" for p in points),
        "band": " ".join(f"{px},{py}" for px, py in band) if plain else "",
        "dashed": not plain,
        "points": points,
    }


def _by_arm(arms: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str, str], list[Mapping[str, Any]]]:
    """Return each arm's lines by ratio; the task's own rows of all templates first."""
    found: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for arm in sorted(arms, key=lambda a: (a["scope"] != "target", a["templates"] != "all")):
        found.setdefault((arm["scope"], arm["templates"], arm["selector"]), []).append(arm)
    return {arm: sorted(own, key=lambda a: float(a["ratio"])) for arm, own in found.items()}


def _name(scope: str, templates: str, selector: str) -> str:
    which = "" if scope == "target" else ", rows of all tasks"
    words = "" if templates == "all" else f", {templates} template{'s' if templates != '1' else ''}"
    return f"{selector}{which}{words}"


def write_ltd_report(path: Path, record: Mapping[str, Any]) -> Path:
    """Write the page of an LTD experiment and return its path. `record`: what result.json holds."""
    record = hide_secrets_within(dict(record))
    slots = {
        "name": path.resolve().parent.name,
        "record": record,
        "config": record["config"],
        "figures": _figures(record),
        "plot": curves(record),
        "arms": [(_name(*arm), line) for arm, own in _by_arm(record["arms"]).items() for line in own],
        "learned": [{"selector": selector, **found} for selector, found in record["curves"].items()],
        "tested": [{"selector": selector, **found} for selector, found in record["sufficient"].items()],
        "settings": settings(record["config"]),
    }
    atomic_write(path, render("ltd.html.j2", slots).encode())
    return path


def _figures(record: Mapping[str, Any]) -> list[dict[str, str]]:
    config, thinned = record["config"], record["thinned"]
    first = config["selectors"][0]
    enough = record["sufficient"][first]["ratio"]
    claim = f"of {first} is within {config['epsilon']:g}, at {100 * config['confidence']:g} % confidence"
    full = record["full"]
    return [
        {"label": "enough", "value": f"{enough:g} %" if enough else "none", "note": claim},
        {
            "label": "all rows",
            "value": f"{full['mean']:.3f}",
            "note": f"{full['low']:.3f} – {full['high']:.3f}",
        },
        {"label": "not trained", "value": f"{record['base']['mean']:.3f}", "note": "the same student before"},
        {
            "label": "region",
            "value": thousands(thinned["rows"]),
            "note": f"rows of {thousands(record['rows']['pool'])}, {compact(thinned['tokens'])} tokens",
        },
        {
            "label": "test",
            "value": thousands(record["items"]["scored"]),
            "note": f"rows, {record['items']['of_choices']} by choice; {config['seeds']} seeds",
        },
        {
            "label": "students",
            "value": thousands(record["units"]["all"]),
            "note": f"{duration(record['seconds']['students'])}; {duration(record['estimate_s'])} foreseen",
        },
    ]
