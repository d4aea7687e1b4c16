"""What a score proves: bootstrap intervals within tasks, and paired tests of two runs on the same items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from taskmill.ids import draw

__all__ = ["DRAWS", "Interval", "bootstrap", "mcnemar", "of_task", "paired"]

Array = np.ndarray[Any, Any]

DRAWS = 4_000
"""Resamples (chosen: the ends of a 95 % interval then move by 3 % of its width when they are drawn anew)."""


FEWEST = 10
"""Items from which on a task is resampled on its own (chosen: a bootstrap of fewer is too narrow). Smaller
tasks are one stratum together, which errs on the wide side (collapsed strata, Cochran 1977, 5A.12)."""


_CLOSE = 1e-9
"""Means this near are one: shares that add up to 1 do so to their last digit only."""


class Interval(NamedTuple):
    """A mean and its two-sided interval."""

    mean: float
    low: float
    high: float

    def rounded(self) -> dict[str, float]:
        """Return it by name, as it stands in reports."""
        return {name: round(value, 6) for name, value in self._asdict().items()}


def _resampled(values: Sequence[float] | Array, name: str, seed: int) -> Array:
    """Return the means of `DRAWS` resamples of values (float64 [DRAWS]).

    How often each different value is drawn is multinomial, which is the bootstrap of the items exactly, and
    costs the number of different values instead of items. `name` makes tasks independent of each other.
    """
    different, counts = np.unique(np.asarray(values, np.float64), return_counts=True)
    n = int(counts.sum())
    stream = np.random.Generator(np.random.PCG64(draw(seed, f"{name} {n}", "evaluation bootstrap")))
    found: Array = stream.multinomial(n, counts / n, DRAWS) @ different / n
    return found


def bootstrap(
    values: Mapping[str, Sequence[float] | Array],
    weights: Mapping[str, float],
    *,
    confidence: float,
    seed: int,
    name: str = "",
) -> Interval:
    """Return the weighted mean of task means with its percentile interval, items resampled within tasks.

    Where all marks are 0, or all 1, it is Wilson's for Kish's effective number of items: resamples would
    give none.

    `values`: task → the marks of its items; `weights`: task → share, adding up to 1.
    """
    mean = sum(share * float(np.mean(values[task])) for task, share in weights.items())
    small = [task for task in weights if len(values[task]) < FEWEST]
    total = np.zeros(DRAWS)
    for task, share in weights.items():
        if len(values[task]) >= FEWEST:
            total += share * _resampled(values[task], f"{name} {task}", seed)
    if small:
        items = sum(len(values[task]) for task in small)
        # An item's part in the whole, times the items: their mean is the small tasks' part of the mean.
        parts = [np.asarray(values[t], np.float64) * weights[t] / len(values[t]) * items for t in small]
        total += _resampled(np.concatenate(parts), f"{name} small tasks", seed)
    tail = (1 - confidence) / 2
    low, high = np.quantile(total, [tail, 1 - tail])
    if high - low < _CLOSE and min(abs(mean), abs(1 - mean)) < _CLOSE:
        return _wilson(
            float(round(mean)), 1 / sum(share**2 / len(values[t]) for t, share in weights.items()), confidence
        )
    return Interval(float(mean), float(low), float(high))


def of_task(values: Sequence[float], *, confidence: float, seed: int, name: str) -> Interval:
    """Return the mean of one task: with Wilson's interval (1927) where marks are 0 or 1, else a bootstrap's.

    Wilson's is not empty where all items are right, or wrong; a bootstrap's would be.
    """
    if not set(values) <= {0.0, 1.0}:
        return bootstrap({name: values}, {name: 1.0}, confidence=confidence, seed=seed)
    return _wilson(sum(values) / len(values), len(values), confidence)


def _wilson(share: float, n: float, confidence: float) -> Interval:
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half))


def mcnemar(one: Sequence[float], two: Sequence[float]) -> float:
    """Return the exact two-sided p-value of McNemar's test on items marked 0 or 1 in both runs.

    Under the null, each item that only one run has right is that of either with even odds (McNemar 1947).
    """
    first = sum(a > b for a, b in zip(one, two, strict=True))
    second = sum(a < b for a, b in zip(one, two, strict=True))
    n, least = first + second, min(first, second)
    total = term = 1
    for i in range(1, least + 1):
        term = term * (n - i + 1) // i
        total += term
    return min(1.0, 2 * total / 2**n) if n < 1000 else _ratio(2 * total, n)


def _ratio(count: int, n: int) -> float:
    """Return count / 2**n for integers too large for floats."""
    shift = max(0, count.bit_length() - 60)
    return min(1.0, float(np.ldexp(float(count >> shift), shift - n)))


def _flips(differences: Array, name: str, seed: int) -> float:
    """Return the two-sided p-value of a sign-flip permutation test of the mean difference."""
    observed = abs(differences.sum())
    stream = np.random.Generator(np.random.PCG64(draw(seed, name, "sign flips")))
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    if not len(sizes):
        return 1.0
    sums = (2 * stream.binomial(counts, 0.5, (DRAWS, len(counts))) - counts) @ sizes
    # The observed order is one of them: a permutation p-value is never 0 (Phipson and Smyth 2010).
    return float((1 + int((np.abs(sums) >= observed - 1e-12).sum())) / (DRAWS + 1))


def paired(
    one: Mapping[str, Sequence[float]],
    two: Mapping[str, Sequence[float]],
    weights: Mapping[str, float],
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Return how run two differs from run one: task → marks of the same items in the same order in both.

    `difference` is that of the weighted mean with its paired bootstrap interval; `p` is McNemar's exact test
    over all items where marks are 0 or 1, else that of flipped signs; `wins` and `losses` count items.
    """
    differences = {
        task: np.asarray(two[task], np.float64) - np.asarray(one[task], np.float64) for task in weights
    }
    whole = bootstrap(differences, weights, confidence=confidence, seed=seed, name="paired")
    if not any(own.any() for own in differences.values()):  # equal marks: either may be ahead by as much
        whole = whole._replace(low=-whole.high)
    a = [value for task in weights for value in one[task]]
    b = [value for task in weights for value in two[task]]
    binary = set(a) | set(b) <= {0.0, 1.0}
    p = mcnemar(a, b) if binary else _flips(np.concatenate(list(differences.values())), "items", seed)
    return {
        "n": len(a),
        "difference": round(whole.mean, 6),
        "low": round(whole.low, 6),
        "high": round(whole.high, 6),
        "wins": sum(y > x for x, y in zip(a, b, strict=True)),
        "losses": sum(y < x for x, y in zip(a, b, strict=True)),
        "p": p,
        "test": "exact McNemar" if binary else f"{DRAWS} sign flips",
    }
