"""What the marks of all stages prove: the matrix, transfer and forgetting with intervals, and a verdict.

Marks are matrices of seeds by items, 0 to 1; two strategies are compared on the same items and seeds.
Intervals resample seeds and items apart and crossed, as in `ltd`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from taskmill.evaluate.crossed import contrast, interval, shown
from taskmill.grow.continual import best_before

__all__ = ["PAPER", "judged"]

Array = np.ndarray[Any, Any]

Marks = Sequence[Mapping[str, Array]]
"""After each stage: "test" and "0", "1", … (the held-out rows of a stage) → float64 [seeds, items]."""

PAPER = {
    "bwt": ("instruction-diverse", "data-diverse", "instruction-support", "instruction-similar", "none"),
    "test": ("instruction-support", "instruction-diverse", "data-diverse", "instruction-similar", "none"),
}
"""Strategies from best to worst in Dynosaur's published table (T5-3B, one seed): mean backward transfer after
stage 3, and ROUGE-L on the test tasks after stage 3."""

MEASURES = ("bwt", "fwt", "forgetting", "average", "test")


def judged(
    marks: Mapping[str, Marks], base: Mapping[str, Array] | None, confidence: float, seed: int
) -> dict[str, Any]:
    """Return each strategy's matrix and measures with intervals, all contrasts, and the verdict.

    `marks`: strategy → marks after each stage; `base`: those of the student before any training.
    """
    last = len(next(iter(marks.values()))) - 1
    values = {name: _measures(own, last) for name, own in marks.items()}
    strategies = {
        name: {
            "matrix": [
                {part: shown(interval(found, confidence, seed)) for part, found in stage.items()}
                for stage in own
            ],
            "bwt_of_stages": [
                shown(interval(own[last][str(j)] - own[j][str(j)], confidence, seed)) for j in range(last)
            ],
            **{
                key: shown(interval(found, confidence, seed)) | {"of_seeds": _of_seeds(found)}
                for key, found in values[name].items()
            },
        }
        for name, own in marks.items()
    }
    contrasts = {
        key: [
            {"one": one, "two": two, **shown(contrast(values[one][key] - values[two][key], confidence, seed))}
            for one, two in combinations(marks, 2)
            if key in values[one]
        ]
        for key in MEASURES
    }
    return {
        "strategies": strategies,
        "base": {part: shown(interval(found, confidence, seed)) for part, found in (base or {}).items()},
        "contrasts": contrasts,
        "verdict": _verdict(strategies, contrasts),
        "paper": {key: _held_to(PAPER[key], key, strategies, contrasts[key]) for key in PAPER},
    }


def _measures(own: Marks, last: int) -> dict[str, Array]:
    """Return for each measure values [seeds, items] whose mean it is."""
    changes = [own[last][str(j)] - own[j][str(j)] for j in range(last)]
    found = {"bwt": _evenly(changes), "average": _evenly([own[last][str(j)] for j in range(last + 1)])}
    lost = []
    for j in range(last):
        means = np.array(
            [[own[t][str(i)].mean() if i <= t else np.nan for i in range(last)] for t in range(last)]
        )
        lost.append(own[best_before(means, last, j)][str(j)] - own[last][str(j)])
    found["forgetting"] = _evenly(lost)
    if own[last]["test"].shape[1]:
        found |= {"fwt": own[last]["test"] - own[0]["test"], "test": own[last]["test"]}
    return found


def _evenly(parts: Sequence[Array]) -> Array:
    """Join the items of stages so that their mean is the mean of the stages' means."""
    total = sum(part.shape[1] for part in parts)
    return np.concatenate([part * (total / (len(parts) * part.shape[1])) for part in parts], axis=1)


def _of_seeds(values: Array) -> list[float]:
    return [round(float(mean), 6) for mean in values.mean(axis=1)]


def _between(contrasts: Sequence[Mapping[str, Any]], one: str, two: str) -> dict[str, float]:
    """Return by how much `one` is above `two`, with its interval."""
    for line in contrasts:
        if (line["one"], line["two"]) == (one, two):
            return {key: line[key] for key in ("mean", "low", "high")}
        if (line["one"], line["two"]) == (two, one):
            return {"mean": -line["mean"], "low": -line["high"], "high": -line["low"]}
    raise KeyError((one, two))


def _verdict(strategies: Mapping[str, Any], contrasts: Mapping[str, Any]) -> list[str]:
    """Say in words which strategy forgets least, which gains most on unseen tasks, and what is proved."""
    lines = [_best("bwt", "forgets least", "mean backward transfer", strategies, contrasts)]
    if all("test" in own for own in strategies.values()):
        lines.append(_best("test", "does best on unseen tasks", "ROUGE-L", strategies, contrasts))
    if "none" in strategies and len(strategies) > 1:
        helped = [
            name
            for name in strategies
            if name != "none" and _between(contrasts["bwt"], name, "none")["low"] > 0
        ]
        said = f"{_list(helped)} forget{'s' if len(helped) == 1 else ''} less than no replay" if helped else (
            "no strategy is shown to forget less than no replay"
        )  # fmt: skip
        lines.append(f"At this size {said}.")
    return lines


def _best(
    key: str, claim: str, measure: str, strategies: Mapping[str, Any], contrasts: Mapping[str, Any]
) -> str:
    ranked = sorted(strategies, key=lambda name: (-strategies[name][key]["mean"], name))
    first, own = ranked[0], strategies[ranked[0]][key]
    value = f"{measure} {100 * own['mean']:.2f}, {100 * own['low']:.2f} to {100 * own['high']:.2f}"
    beaten = [name for name in ranked[1:] if _between(contrasts[key], first, name)["low"] > 0]
    open_ = [name for name in ranked[1:] if name not in beaten]
    said = f"{first} {claim} ({value})"
    if beaten:
        said += f"; its lead over {_list(beaten)} is proved"
    if open_:
        said += f"; over {_list(open_)} it is not proved"
    return f"{said}."


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1] if names else ""


def _held_to(
    paper: Sequence[str], key: str, strategies: Mapping[str, Any], contrasts: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return how many pairs stand in the paper's order here, and how many are proved, either way."""
    there = [name for name in paper if name in strategies and key in strategies[name]]
    pairs = [(one, two, _between(contrasts, one, two)) for one, two in combinations(there, 2)]
    return {
        "order": there,
        "here": sorted(there, key=lambda name: (-strategies[name][key]["mean"], name)),
        "pairs": len(pairs),
        "same": sum(found["mean"] > 0 for *_, found in pairs),
        "proved_same": sum(found["low"] > 0 for *_, found in pairs),
        "proved_other": sum(found["high"] < 0 for *_, found in pairs),
    }
