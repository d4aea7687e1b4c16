"""What marks of students prove: bootstrap over test items and seeds, the smallest sufficient ratio, claims.

Marks are matrices of seeds by items, 0 to 1. Two arms are always compared on the same items and seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from taskmill.evaluate.crossed import contrast, interval, shown
from taskmill.evaluate.curves import Curve, Estimate, fit

__all__ = [
    "Arm",
    "Marks",
    "claims",
    "curve",
    "smallest",
    "table",
]

Array = np.ndarray[Any, Any]

_POINTS = 24
"""Points of a curve that is drawn (chosen: the eye sees no corners)."""

FULL = 100.0
"""The ratio, in percent, that the others are held against."""


class Arm(NamedTuple):
    """A way to choose rows: of the target's region or of all, of how many templates, by which selector."""

    scope: str
    templates: str
    selector: str


Marks = Mapping[tuple[Arm, float], Array]
"""(arm, ratio in percent) → marks, float64 [seeds, items]."""


def smallest(
    marks: Mapping[float, Array], full: Array, epsilon: float, confidence: float, seed: int
) -> tuple[float | None, list[dict[str, Any]]]:
    """Return (the smallest ratio that is within `epsilon` of `full`, a line for each ratio below 100 %).

    A ratio is within it if the one-sided lower bound of its difference is not below -epsilon. Ratios are
    tested from the largest down, and the first that fails ends it: in that order the chance of any false
    "enough" stays at 1 - confidence without a correction (fixed-sequence testing, Maurer, Hothorn and
    Lehmacher 1995). Ratios below it are shown with what they would have had, `tested` False.
    """
    lines, found, going = [], None, True
    for ratio in sorted((r for r in marks if r < FULL), reverse=True):
        differs = contrast(marks[ratio] - full, confidence, seed)
        within = differs.least >= -epsilon
        lines.append({"ratio": ratio, **shown(differs), "within": within, "tested": going})
        going = going and within
        found = ratio if going else found
    return found, lines


def curve(
    points: Mapping[float, tuple[float, Array]], epsilon: float, confidence: float, seed: int
) -> dict[str, Any]:
    """Return the learning curve through an arm's marks, and how many rows come within `epsilon` of its last.

    `points`: ratio → (rows, marks float64 [seeds, items]). Nothing is said beyond the ratios that were tried.
    `line` is the curve where there is one; `why` says why `enough` is not known.
    """
    ratios = sorted(points)
    sizes, marks = zip(*(points[ratio] for ratio in ratios), strict=True)
    found = fit(sizes, marks, confidence=confidence, seed=seed)
    enough = found.enough(epsilon)
    needed = f"{enough.value:.0f} rows ({enough.low:.0f} to {enough.high:.0f})" if enough else ""
    return {
        "says": f"{needed} come within {epsilon:g} of all" if enough else f"undecided, {found.why}",
        "why": found.why,
        **{name: _estimated(one) for name, one in found.numbers().items()},
        "misfit": round(found.misfit, 6),
        "enough": _estimated(enough) if enough else None,
        "line": [] if found.why else _line(found, ratios, sizes),
    }


def _line(found: Curve, ratios: Sequence[float], rows: Sequence[float]) -> list[dict[str, float]]:
    """Return points of the curve at even steps of the ratio's logarithm, with its interval."""
    steps = np.geomspace(ratios[0], ratios[-1], _POINTS)
    sizes = np.exp(np.interp(np.log(steps), np.log(ratios), np.log(rows)))
    return [
        {"ratio": round(ratio, 6), "rows": round(size, 2), **_estimated(found.at(size))}
        for ratio, size in zip(steps.tolist(), sizes.tolist(), strict=True)
    ]


def _estimated(found: Estimate) -> dict[str, float]:
    return {key: round(value, 6) for key, value in found._asdict().items()}


def table(marks: Marks, confidence: float, seed: int) -> list[dict[str, Any]]:
    """Return a line for each arm and ratio: its mean mark, interval, and the mean of each seed."""
    return [
        {
            **arm._asdict(),
            "ratio": ratio,
            **shown(interval(own, confidence, seed)),
            "of_seeds": [round(float(mean), 6) for mean in own.mean(axis=1)],
        }
        for (arm, ratio), own in sorted(marks.items())
    ]


def claims(
    marks: Marks, full: Array, base: Array, first: str, epsilon: float, confidence: float, seed: int
) -> list[dict[str, Any]]:
    """Return the paper's claims and the controls, each with a verdict and the comparisons behind it.

    `full`, `base`: marks after training on all of the task's region, and before any. `first`: the selector
    whose order is the core-set. Where an arm could not be given as many tokens as the other, the ratio is
    not in `marks`. A verdict rests on the mean difference over all ratios that two arms share.
    """
    known = {arm for arm, _ in marks}
    core = Arm("target", "all", first)
    found = [_claim("training on the task helps", [("all of it", full - base)], confidence, seed)]
    for other in sorted({a.selector for a in known} - {first}):
        pairs = _pairs(marks, core, core._replace(selector=other), below=FULL)
        found.append(_claim(f"{first} beats {other}", pairs, confidence, seed))
    for arm in sorted(a for a in known if a.scope == "target"):
        wide = arm._replace(scope="all")
        if wide in known:
            pairs = _pairs(marks, arm, wide)
            name = f"one task's rows beat all tasks' ({_wordings(arm)}, {arm.selector})"
            found.append(_claim(name, pairs, confidence, seed))
    for arm in sorted(a for a in known if a.templates != "all"):
        whole = arm._replace(templates="all")
        if whole in known:
            verb = "is" if arm.templates == "1" else "are"
            name = f"{_wordings(arm)} {verb} enough ({arm.scope} rows, {arm.selector})"
            found.append(_claim(name, _pairs(marks, arm, whole), confidence, seed, epsilon))
    return found


def _wordings(arm: Arm) -> str:
    return f"{arm.templates} template" if arm.templates == "1" else f"{arm.templates} templates"


def _pairs(marks: Marks, one: Arm, two: Arm, below: float = 2 * FULL) -> list[tuple[str, Array]]:
    """Return (ratio, marks of one minus marks of two) for each ratio both have."""
    shared = sorted(r for arm, r in marks if arm == one and (two, r) in marks and r < below)
    return [(f"{ratio:g} %", marks[one, ratio] - marks[two, ratio]) for ratio in shared]


def _claim(
    name: str, pairs: Sequence[tuple[str, Array]], confidence: float, seed: int, epsilon: float | None = None
) -> dict[str, Any]:
    lines = [{"at": at, **shown(contrast(differs, confidence, seed))} for at, differs in pairs]
    if not pairs:
        return {"claim": name, "verdict": "not tried", "over_all": None, "at": []}
    whole = contrast(np.mean([differs for _, differs in pairs], axis=0), confidence, seed)
    if epsilon is None:
        verdict = "holds" if whole.low > 0 else "fails" if whole.high < 0 else "undecided"
    else:  # enough: not worse by more than epsilon
        verdict = "holds" if whole.least >= -epsilon else "fails" if whole.high < -epsilon else "undecided"
    return {"claim": name, "verdict": verdict, "over_all": shown(whole), "at": lines}
