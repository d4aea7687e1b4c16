"""What the answers prove: scores, effects and their intervals, over the test's questions and the seeds.

An arm's outcome is an array [seeds, wordings, questions]: marks from 0 to 1, or indices of the labels that
were said. Its score is the mean over seeds and wordings of the metric over the questions. Resamples draw
questions and seeds, the same for all arms, so that a difference of two arms is a paired one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from taskmill.evaluate.crossed import crossed
from taskmill.ids import draw

__all__ = ["Outcomes", "effects", "macro_f1", "mean_of", "ranked", "scores", "shown", "verdict_of"]

Array = np.ndarray[Any, Any]

DRAWS = 4_000
"""Resamples (chosen: the ends of a 95 % interval then move by 3 % of its width when they are drawn anew)."""

_ORDER = ("ours+replay", "ours", "", "ours-unfiltered", "random", "tapt", "none")
"""An effect is what an arm earlier here has over a later one; "" stands for tables of the user's own."""

_BASELINES = ("none", "tapt", "random")

LEAST_QUESTIONS = 6
"""Questions below which nothing is decided: were an arm better on all of five, chance alone would do as well
in 2 · 0.5⁵ = 6 % of all cases (two-sided sign test), which no interval of their resamples shows."""


@dataclass(frozen=True)
class Outcomes:
    """An arm's outcomes on one test; of a labelled one also `gold` (int64 [questions]) and its `labels`."""

    values: Array
    gold: Array
    labels: int = 0

    def resampled(self, of_seeds: Array, of_items: Array) -> Array:
        """Return the score (float64 [draws]) under weights of seeds [draws, seeds] and questions [draws, n].

        An arm with one seed (nothing is trained) is the same for every seed.
        """
        seeds, wordings, items = self.values.shape
        flat = self.values.reshape(seeds * wordings, items)
        found = _f1(flat, self.gold, self.labels, of_items) if self.labels else of_items @ flat.T
        if not self.labels:
            found = found / of_items.sum(axis=1, keepdims=True)
        by_seed = found.reshape(len(found), seeds, wordings).mean(axis=2)
        if seeds == 1:
            return np.asarray(by_seed[:, 0])
        return np.asarray((by_seed * of_seeds).sum(axis=1) / of_seeds.sum(axis=1))

    def of_seeds(self, seeds: int) -> list[float]:
        """Return the score of each of `seeds` seeds."""
        weights = np.ones((1, self.values.shape[2]))
        one = [Outcomes(v[None], self.gold, self.labels) for v in self.values]
        found = [float(own.resampled(np.ones((1, 1)), weights)[0]) for own in one]
        return found if len(found) == seeds else found * seeds


def macro_f1(gold: Array, said: Array, labels: int) -> float:
    """Return the mean over the labels of F1; a label that neither side has counts 0, as in scikit-learn."""
    return float(_f1(said[None].astype(np.float64), gold, labels, np.ones((1, len(gold))))[0, 0])


def _f1(said: Array, gold: Array, labels: int, weights: Array) -> Array:
    """Return macro-F1 [draws, lines] of lines of labels [lines, n] under weights of questions [draws, n]."""
    total = np.zeros((len(weights), len(said)))
    for label in range(labels):
        is_said, is_gold = (said == label), (gold == label)
        hits = weights @ (is_said & is_gold).T
        both = weights @ is_said.T + (weights @ is_gold)[:, None]
        total += np.divide(2 * hits, both, out=np.zeros_like(total), where=both > 0)
    return total / labels


@lru_cache(maxsize=8)
def _weights(seeds: int, items: int, seed: int, name: str, students: str) -> tuple[Array, Array]:
    """Return how often each resample holds each seed and each question, the plain sample first."""
    found = []
    for what, count in ((f"students of {students}", seeds), (f"questions of {name}", items)):
        chance = draw(seed, f"{what} {count}", "prove bootstrap")
        times, _ = crossed(count, 1, DRAWS, np.random.Generator(np.random.PCG64(chance)))
        found.append(np.vstack([np.ones((1, count)), times]))
    return found[0], found[1]


def scores(
    arms: Mapping[str, Outcomes], seeds: int, seed: int, name: str, students: str = ""
) -> dict[str, Array]:
    """Return each arm's score, float64 [1 + DRAWS]: of the sample itself, then of its resamples.

    Seeds and questions are resampled apart and crossed (the pigeonhole bootstrap of Owen, 2007, which errs
    on the wide side). `name` makes the resamples of one target's questions independent of another's,
    `students` (default: the same) those of its seeds: targets that the same students answer share them.
    """
    items = next(iter(arms.values())).values.shape[2]
    of_seeds, of_items = _weights(seeds, items, seed, name, students or name)
    return {arm: outcomes.resampled(of_seeds, of_items) for arm, outcomes in arms.items()}


def mean_of(targets: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Return each arm's mean score over targets, resample by resample."""
    return {arm: np.mean([target[arm] for target in targets], axis=0) for arm in targets[0]}


def shown(found: Array, confidence: float) -> tuple[float, list[float]]:
    """Return (the value, its two-sided percentile interval) of [1 + DRAWS] values, rounded."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(found[1:], [tail, 1 - tail])
    return round(float(found[0]), 6), [round(float(low), 6), round(float(high), 6)]


def ranked(arms: Sequence[str]) -> list[str]:
    """Return arms with what is to be proved first and what it is held against last."""
    return sorted(arms, key=lambda arm: _ORDER.index(arm if arm in _ORDER else ""))


def effects(found: Mapping[str, Array], confidence: float) -> dict[str, dict[str, Any]]:
    """Return what each arm has over each later one (`ranked`), with its paired interval."""
    arms = ranked(list(found))
    lines = {}
    for i, one in enumerate(arms):
        for two in arms[i + 1 :]:
            delta, interval = shown(found[one] - found[two], confidence)
            lines[f"{one}-{two}"] = {"delta": delta, "interval": interval}
    return lines


def verdict_of(
    found: Mapping[str, Array],
    gain: float,
    confidence: float,
    metric: str,
    about: str = "",
    questions: int = LEAST_QUESTIONS,
) -> tuple[str, str]:
    """Return (helps, does not help or undecided; the verdict in plain words) of the first arm.

    It helps if its interval over every baseline (none, tapt, random; else over every other arm) is above 0;
    it does not if one of them ends below `gain`. An interval without width over equal scores decides nothing:
    no resample of answers that are all marked alike can differ. Fewer `questions` than
    LEAST_QUESTIONS decide nothing either.
    """
    arms = ranked(list(found))
    first, others = arms[0], arms[1:]
    if first == "ours+replay" and "ours" in others:  # the question is about ours; replay is a variant of it
        first, others = "ours", [arm for arm in arms if arm != "ours"]
    against = [arm for arm in others if arm in _BASELINES] or others
    parts, states = [], []
    for other in others:
        delta, (low, high) = shown(found[first] - found[other], confidence)
        no_gain = low < high < gain
        state = "better" if low > 0 else "worse" if high < 0 else "no gain" if no_gain else "undecided"
        if other in against:
            states.append(state)
        parts.append(f"{state} than {other}" if state in ("better", "worse") else f"{state} against {other}")
        spread = f"interval {low:+.3f} to {high:+.3f}" if low < high else "the same in every resample"
        parts[-1] += f" ({delta:+.3f}, {spread})"
    if all(state == "better" for state in states):
        word = "helps"
    elif any(state in ("worse", "no gain") for state in states):
        word = "does not help"
    else:
        word = "undecided"
    if questions < LEAST_QUESTIONS:
        word = "undecided"
        about += f", as {questions} of the {LEAST_QUESTIONS} questions were asked that a verdict takes"
    score, (low, high) = shown(found[first], confidence)
    spread = f"{low:.3f} to {high:.3f}" if low < high else "every answer marked alike"
    head = f"{first} {word}{about}: {metric} {score:.3f} ({spread})"
    return word, f"{head}; {', '.join(parts)}; intervals at {100 * confidence:g} %."
