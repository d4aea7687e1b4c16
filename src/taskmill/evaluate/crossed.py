"""Intervals of marks of several students on the same items: a bootstrap over items and seeds.

Marks are matrices of seeds by items, 0 to 1. Two arms are always compared on the same items and seeds.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from taskmill.ids import draw

__all__ = ["Interval", "contrast", "crossed", "interval", "shown"]

Array = np.ndarray[Any, Any]

DRAWS = 5_000
"""Resamples (chosen: a 5 % point then moves by 3 % of the mean's own spread when they are drawn anew)."""

DISCORD = 0.5**0.5
"""Marks by which two items that nobody saw differ, one up and one down: the square root of a half gives a
paired comparison the spread of Agresti and Min (2005), who add a half to each of its four cells. Without them
two students that agree on ten items would be proved equal."""

_PIECE = 500
"""Resamples computed at once (chosen: 500 x 10,000 items are 40 MB)."""


class Interval(NamedTuple):
    """A mean with its two-sided interval, and the one-sided lower bound, at one confidence."""

    mean: float
    low: float
    high: float
    least: float


def crossed(seeds: int, items: int, count: int, stream: np.random.Generator) -> tuple[Array, Array]:
    """Return how often each resample holds each seed and each item: uint16 [count, seeds], [count, items].

    Seeds and items are drawn apart and crossed: the pigeonhole bootstrap of Owen (2007), which errs on the
    wide side.
    """
    found = [stream.multinomial(n, np.full(n, 1 / n), count).astype(np.uint16) for n in (seeds, items)]
    return found[0], found[1]


def interval(values: Array, confidence: float, seed: int) -> Interval:
    """Return the mean of `values` (float64 [seeds, items]) and its bootstrap interval.

    Seeds and items are resampled apart and crossed (`crossed`), and percentiles taken. With
    one seed the interval says nothing about the luck of training.
    """
    values = np.atleast_2d(np.asarray(values, np.float64))
    seeds, items = values.shape
    of_seeds, of_items = _resamples(seeds, items, seed)
    means = np.empty(DRAWS)
    for at in range(0, DRAWS, _PIECE):
        piece = slice(at, at + _PIECE)
        means[piece] = np.einsum("bi,bi->b", of_seeds[piece] @ values, of_items[piece]) / (seeds * items)
    tail = (1 - confidence) / 2
    low, high, least = np.quantile(means, [tail, 1 - tail, 1 - confidence])
    return Interval(float(values.mean()), float(low), float(high), float(least))


def contrast(differs: Array, confidence: float, seed: int) -> Interval:
    """Return the mean of differences of marks (float64 [seeds, items]) and its interval, with `DISCORD`."""
    unseen = np.tile([DISCORD, -DISCORD], (len(differs), 1))
    found = interval(np.hstack([differs, unseen]), confidence, seed)
    return found._replace(mean=float(differs.mean()))


@lru_cache(maxsize=4)
def _resamples(seeds: int, items: int, seed: int) -> tuple[Array, Array]:
    """Return how often each resample holds each seed and each item: uint16 [DRAWS, seeds], [DRAWS, items]."""
    stream = np.random.Generator(np.random.PCG64(draw(seed, f"{seeds} {items}", "ltd bootstrap")))
    return crossed(seeds, items, DRAWS, stream)


def shown(found: Interval) -> dict[str, float]:
    """Return an interval as plain numbers that JSON can hold."""
    return {key: round(value, 6) for key, value in found._asdict().items()}
