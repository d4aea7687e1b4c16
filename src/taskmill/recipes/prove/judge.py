"""What an experiment comes to: scores, what one arm has over another, what was forgotten, the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np

from taskmill.evaluate.curves import Estimate, fit
from taskmill.recipes.prove.config import ProveConfig, Target
from taskmill.recipes.prove.evidence import Outcomes, effects, mean_of, scores, shown, verdict_of
from taskmill.recipes.prove.items import Test
from taskmill.recipes.prove.retention import judged
from taskmill.recipes.prove.students import Grid

__all__ = ["Judged", "judge", "together"]

Done = Mapping[str, Mapping[str, Any]]
Array = np.ndarray[Any, Any]


class Judged:
    """A target's result, with the resampled scores that a mean over targets needs."""

    def __init__(self, result: dict[str, Any], details: dict[str, Any], found: dict[str, Array]) -> None:
        self.result, self.details, self.found = result, details, found


def judge(
    config: ProveConfig,
    target: Target,
    test: Test,
    grid: Grid,
    done: Done,
    overlap: Mapping[str, Any],
    unread: int = 0,
) -> Judged:
    """Return what the students of one target show. `unread`: questions that are too long for them."""
    outcomes = {arm: _outcomes(test, done, keys) for arm, keys in grid.arms.items() if arm}
    seed, confidence = config.train.seed, config.confidence
    shared = "" if config.uses_pool else "all targets"
    found = scores(outcomes, config.seeds, seed, target.name, shared)
    about = f" on {target.name}" if target.name else ""
    asked = len(test.questions)
    state, verdict = verdict_of(found, config.gain, confidence, test.metric, about, asked)
    retention = _retention(config, grid, done)
    arms = {}
    for arm, outcome in outcomes.items():
        score, interval = shown(found[arm], confidence)
        by_seed = [round(value, 6) for value in outcome.of_seeds(config.seeds)]
        arms[arm] = {"score": score, "interval": interval, "seeds": by_seed}
    curve, fitted = _curve(config, target, test, grid, done)
    result = {
        "arms": arms,
        "effects": effects(found, confidence),
        "retention": retention,
        "overlap": dict(overlap),
        "verdict": " ".join([verdict, *_notes(config, target, test, retention, unread, grid.skipped)]),
    }
    details = {
        "state": state,
        "metric": test.metric,
        "questions": len(test.questions),
        "unread": unread,
        "wordings": _by_wording(outcomes),
        "learned": {
            arm: _learned(done, keys, config.recipe.resolved().epochs)
            for arm, keys in grid.arms.items()
            if arm
        },
        "curve": curve,
        "fit": fitted,
        "skipped_sizes": grid.skipped,
        "note": target.note,
    }
    return Judged(result, details, found)


def _outcomes(test: Test, done: Done, keys: Sequence[str]) -> Outcomes:
    values = np.stack([test.graded(done[key]["answers"]) for key in keys])
    return Outcomes(values, test.gold, len(test.labels))


def _retention(config: ProveConfig, grid: Grid, done: Done) -> dict[str, Any]:
    units = {arm: [done[key] for key in keys] for arm, keys in grid.arms.items() if arm not in ("", "none")}
    return judged(units, done[grid.arms[""][0]], config.max_forgetting, config.max_perplexity)


def _by_wording(outcomes: Mapping[str, Outcomes]) -> dict[str, list[float]]:
    """Return each arm's score in each wording."""
    found = {}
    for arm, whole in outcomes.items():
        seeds, wordings, items = whole.values.shape
        parts = [Outcomes(whole.values[:, [w]], whole.gold, whole.labels) for w in range(wordings)]
        ones = np.ones((1, seeds)), np.ones((1, items))
        found[arm] = [round(float(part.resampled(*ones)[0]), 6) for part in parts]
    return found


def _learned(done: Done, keys: Sequence[str], epochs: float) -> dict[str, float]:
    """Return means over an arm's students: rows, their tokens, times read, tokens read in all, seconds."""
    own = [done[key] for key in keys]
    return {
        "rows": round(float(np.mean([u["rows"] for u in own])), 1),
        "tokens": round(float(np.mean([u["tokens"] for u in own])), 1),
        "times": round(epochs * float(np.mean([u["times"] for u in own])), 4),
        "read": round(epochs * float(np.mean([u["tokens"] * u["times"] for u in own])), 1),
        "seconds": round(float(np.mean([u["all_s"] for u in own])), 1),
    }


def _curve(
    config: ProveConfig, target: Target, test: Test, grid: Grid, done: Done
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return (the score of the arm ours by the number of its rows, smallest first; the curve through it)."""
    if not grid.sizes:
        return [], {}
    sizes, whole = dict(grid.sizes), grid.arms["ours"]
    sizes[round(float(np.mean([done[key]["rows"] for key in whole])))] = whole
    lines, marks, draws = [], [], []
    for size, keys in sorted(sizes.items()):
        outcome = _outcomes(test, done, keys)
        found = scores({"ours": outcome}, config.seeds, config.train.seed, target.name)["ours"]
        score, interval = shown(found, config.confidence)
        by_seed = [round(value, 6) for value in outcome.of_seeds(config.seeds)]
        lines.append({"rows": size, "score": score, "interval": interval, "seeds": by_seed})
        marks.append(np.array(by_seed))
        draws.append(found[1:])
    # Macro-F1 is no mean over questions, so the resampled scores are handed over rather than the marks.
    curve = fit(sorted(sizes), marks, confidence=config.confidence, resamples=np.stack(draws, axis=1))
    numbers = {name: _estimate(found) for name, found in curve.numbers().items()}
    enough = curve.enough(config.gain)
    fitted = {**numbers, "why": curve.why, "enough": _estimate(enough) if enough else None}
    if config.reach:
        needed = curve.needed(config.reach)
        fitted["needed"] = {"score": config.reach, **_estimate(needed)} if needed else None
    return lines, fitted


def _estimate(found: Estimate) -> dict[str, float | None]:
    """Return an estimate as JSON can hold it: infinity is null."""
    return {key: round(value, 6) if isfinite(value) else None for key, value in found._asdict().items()}


def _notes(
    config: ProveConfig,
    target: Target,
    test: Test,
    retention: Mapping[str, Any],
    unread: int,
    skipped: Sequence[int],
) -> list[str]:
    """Return what a reader of the verdict must know besides."""
    notes = [f"{len(test.questions)} questions in {len(test.wordings)} wordings, {config.seeds} seeds."]
    if unread:
        notes.append(
            f"{unread} of them are too long for the student and count as answered wrongly or blindly."
        )
    notes += _one_seed(config)
    if skipped:
        notes.append(f"Sizes not tried, for want of rows: {', '.join(map(str, skipped))}.")
    if target.note:
        notes.append(target.note)
    notes.append(_forgotten(retention))
    return notes


def _one_seed(config: ProveConfig) -> list[str]:
    return ["With one seed the intervals know nothing of the luck of training."] if config.seeds < 2 else []


def _forgotten(retention: Mapping[str, Any]) -> str:
    if retention["passed"]:
        return "General knowledge is kept within the bounds."
    arms = []
    for arm in retention["failed"]:
        line = retention["arms"][arm]
        arms.append(
            f"{arm} lost {100 * line['forgotten']:.0f} of 100 general questions and its perplexity on "
            f"general text grew {line['perplexity_factor']:.2f}-fold"
        )
    bounds = retention["bounds"]
    return (
        f"Too much was forgotten: {'; '.join(arms)} (bounds {100 * bounds['max_forgetting']:g} and "
        f"{bounds['max_perplexity']:g}-fold)."
    )


def together(config: ProveConfig, found: Mapping[str, Judged]) -> dict[str, Any]:
    """Return {result, details, exit}: of one target its own, of several the mean over them and each."""
    results = {name: one.result for name, one in found.items()}
    details = {name: one.details for name, one in found.items()}
    if len(found) == 1:
        (result,) = results.values()
    else:
        result = _mean(config, found) | {"targets": results}
    passed = result["retention"]["passed"]
    code, reason = (0, "done") if passed else (3, _forgotten(result["retention"]))
    return {"result": result, "details": details, "exit": {"code": code, "reason": reason}}


def _mean(config: ProveConfig, found: Mapping[str, Judged]) -> dict[str, Any]:
    confidence = config.confidence
    mean = mean_of([one.found for one in found.values()])
    results = [one.result for one in found.values()]
    arms = {}
    for arm, values in mean.items():
        score, interval = shown(values, confidence)
        of_seeds = np.mean([result["arms"][arm]["seeds"] for result in results], axis=0)
        by_seed = [round(float(value), 6) for value in of_seeds]
        arms[arm] = {"score": score, "interval": interval, "seeds": by_seed}
    _, verdict = verdict_of(
        mean,
        config.gain,
        confidence,
        "mean score",
        f" on the mean of {len(found)} targets",
        sum(one.details["questions"] for one in found.values()),
    )
    retention = _worst([result["retention"] for result in results])
    each = ", ".join(f"{name}: {one.details['state']}" for name, one in found.items())
    notes = [*_one_seed(config), _forgotten(retention)]
    return {
        "arms": arms,
        "effects": effects(mean, confidence),
        "retention": retention,
        "overlap": {name: one.result["overlap"] for name, one in found.items()},
        "verdict": " ".join([verdict, f"By target: {each}.", *notes]),
    }


def _worst(kept: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the retention over targets: each arm's worst, which a mean would hide."""
    arms = {}
    for arm in kept[0]["arms"]:
        lines = [one["arms"][arm] for one in kept]
        arms[arm] = {
            "probe": min(line["probe"] for line in lines),
            "perplexity": max(line["perplexity"] for line in lines),
            "forgotten": max(line["forgotten"] for line in lines),
            "perplexity_factor": max(line["perplexity_factor"] for line in lines),
            "within": all(line["within"] for line in lines),
        }
    failed = [arm for arm in arms if any(arm in one["failed"] for one in kept)]
    return {**kept[0], "passed": not failed, "failed": failed, "arms": arms}
