"""A learning curve: how marks grow with the rows that were learned, and how many rows a mark takes.

The curve is mark(n) = a - b * n^-c, the power law that learning curves follow over orders of magnitude
(Hestness and others, arXiv 1712.00409): `a` is what no number of rows passes, `b` the distance from it at one
row, `c` how fast it shrinks. For a given c the best a and b are a least-squares line, so only c is searched:
on a grid, then by golden section. Intervals come from a bootstrap that resamples seeds and items apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from taskmill.errors import InputError
from taskmill.evaluate.crossed import crossed
from taskmill.ids import draw

__all__ = ["DRAWS", "LEAST_SIZES", "Curve", "Estimate", "crossed", "fit", "resampled"]

Array = np.ndarray[Any, Any]

DRAWS = 1_000
"""Resamples, each fitted (chosen: the ends of a 95 % interval then move by 6 % of its width when drawn anew,
less than what a curve of three numbers is wrong by)."""

LEAST_SIZES = 4
"""Different sizes below which no curve is fitted: three would be met exactly by its three numbers."""

SLOWEST, FASTEST = 0.05, 4.0
"""Bounds of c (chosen: slower is a straight line over the logarithm of n, faster a step at the least n)."""

_GRID = 96
"""Values of c that are tried first (chosen: neighbours differ by 5 %, and between them the error has one
valley)."""

_STEPS = 24
"""Golden sections: 0.618^24 of a step of the grid is below 1e-6 of c."""

_GOLDEN = (5**0.5 - 1) / 2


class Estimate(NamedTuple):
    """A number with its two-sided interval; `high` may be infinite."""

    value: float
    low: float
    high: float


def resampled(marks: Sequence[Array], draws: int, seed: int) -> Array:
    """Return the mean mark of each size in each resample: float64 [draws, sizes].

    `marks`: for each size float64 [seeds, items] (or [seeds]). Where all sizes have as many seeds and items
    these are drawn together, because the same items are answered at all sizes; else each size by itself.
    """
    whole = [_matrix(own) for own in marks]
    means = np.empty((draws, len(whole)))
    alike = len({own.shape for own in whole}) == 1
    held: tuple[Array, Array] | None = None
    for at, own in enumerate(whole):
        if held is None or not alike:
            seeds, items = own.shape
            name = "curve" if alike else f"curve {at}"
            stream = np.random.Generator(np.random.PCG64(draw(seed, f"{name} {seeds} {items}", "curve")))
            held = crossed(seeds, items, draws, stream)
        means[:, at] = np.einsum("bi,bi->b", held[0] @ own, held[1]) / own.size
    return means


def _matrix(marks: Array) -> Array:
    own = np.asarray(marks, np.float64)
    return own[:, None] if own.ndim == 1 else own


@dataclass(frozen=True, eq=False)
class Curve:
    """mark(n) = a - b * n^-c for n rows, fitted to the `means` at `sizes` (float64, ascending).

    `why` says why no number of rows can be told from it ("" if one can). `draws` (float64 [resamples, 3]): a,
    b and c of each resample. `misfit`: the largest distance of a mean from the curve.
    """

    a: float
    b: float
    c: float
    sizes: Array
    means: Array
    misfit: float
    confidence: float
    draws: Array
    why: str = ""

    def at(self, rows: float) -> Estimate:
        """Return the mark that so many rows give."""
        found = self.draws[:, 0] - self.draws[:, 1] * float(rows) ** -self.draws[:, 2]
        return self._estimate(self.a - self.b * float(rows) ** -self.c, found)

    def numbers(self) -> dict[str, Estimate]:
        """Return a, b and c with their intervals."""
        own = (self.a, self.b, self.c)
        return {name: self._estimate(own[i], self.draws[:, i]) for i, name in enumerate("abc")}

    def needed(self, mark: float) -> Estimate | None:
        """Return how many rows give this mark: infinite if the curve never reaches it, None if undecided.

        Above the largest size it is extrapolated; what is below the smallest one is not told apart from it.
        """
        if self.why:
            return None
        a, b, c = (np.append(own, self.draws[:, i]) for i, own in enumerate((self.a, self.b, self.c)))
        with np.errstate(divide="ignore", over="ignore"):
            rows = np.where(a > mark, (b / np.maximum(a - mark, 0)) ** (1 / c), np.inf)
        return self._rows(rows)

    def enough(self, epsilon: float) -> Estimate | None:
        """Return how many rows come within `epsilon` of what the largest size gives, or None if undecided.

        Nothing is extrapolated: the answer lies between the smallest and the largest size.
        """
        if self.why:
            return None
        b, c = (np.append(own, self.draws[:, i]) for i, own in ((1, self.b), (2, self.c)))
        with np.errstate(divide="ignore", over="ignore"):
            rows = (self.sizes[-1] ** -c + epsilon / b) ** (-1 / c)
        return self._rows(np.minimum(rows, self.sizes[-1]))

    def _rows(self, rows: Array) -> Estimate:
        own = np.maximum(rows, self.sizes[0])
        return self._estimate(float(own[0]), own[1:])

    def _estimate(self, value: float, found: Array) -> Estimate:
        tail = (1 - self.confidence) / 2
        # Of two neighbours one: between a number and infinity there is no mean.
        low = np.quantile(found, tail, method="lower")
        high = np.quantile(found, 1 - tail, method="higher")
        return Estimate(float(value), float(low), float(high))


def fit(
    sizes: Sequence[float] | Array,
    marks: Sequence[Array],
    *,
    most: float = 1.0,
    confidence: float = 0.95,
    seed: int = 0,
    draws: int = DRAWS,
    resamples: Array | None = None,
) -> Curve:
    """Fit a curve to the marks of students that learned so many rows.

    `sizes`: rows (or tokens), above 0; `marks`: for each size float64 [seeds, items] (or [seeds]), the same
    items in the same order for all. `most`: the best mark there is, which `a` does not pass. Sizes weigh
    alike: their spread, from a few seeds, is known too poorly to weigh by. `resamples`: the mean of each
    size in each resample (float64 [resamples, sizes]), where a mark is no mean over items (macro-F1).

    The curve is undecided (`why`) with fewer than `LEAST_SIZES` different sizes, or where no growth is
    proved: the slope over the logarithm of the size is not above 0 at `confidence`.

    Raises InputError for sizes that are not above 0, or another number of marks than of sizes.
    """
    order = np.argsort(np.asarray(sizes, np.float64), kind="stable")
    rows = np.asarray(sizes, np.float64)[order]
    own = [_matrix(marks[i]) for i in order] if len(marks) == len(rows) else []
    if not len(rows) or not own or not (rows > 0).all() or not all(part.size for part in own):
        raise InputError("a learning curve needs sizes above 0 and marks for each of them")
    means = np.array([part.mean() for part in own])
    found = resampled(own, draws, seed) if resamples is None else resamples[:, order]
    best = _fitted(rows, np.vstack([means, found]), most)
    a, b, c = best[0].tolist()
    misfit = float(np.abs(means - (a - b * rows**-c)).max())
    return Curve(a, b, c, rows, means, misfit, confidence, best[1:], _undecided(rows, found, confidence))


def _undecided(rows: Array, means: Array, confidence: float) -> str:
    different = len(np.unique(rows))
    if different < LEAST_SIZES:
        return f"a curve takes {LEAST_SIZES} different sizes or more; here are {different}"
    logs = np.log(rows) - np.log(rows).mean()
    least = float(np.quantile(means @ logs, (1 - confidence) / 2))
    if least <= 0:
        return f"no growth is proved at {100 * confidence:g} % confidence: more rows may not help at all"
    return ""


def _fitted(rows: Array, means: Array, most: float) -> Array:
    """Return a, b and c of each line of means (float64 [lines, sizes] → [lines, 3])."""
    scaled = rows / rows[-1]  # so that n^-c is near 1 for all c
    grid = np.geomspace(SLOWEST, FASTEST, _GRID)
    errors = np.stack([_line(scaled ** -np.full((1, 1), c), means, most)[2] for c in grid])
    place = np.argmin(errors, axis=0)
    low = np.log(grid[np.maximum(place - 1, 0)])
    high = np.log(grid[np.minimum(place + 1, _GRID - 1)])

    def error(logs: Array) -> Array:
        return _line(scaled ** -np.exp(logs)[:, None], means, most)[2]

    for _ in range(_STEPS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        nearer = error(left) <= error(right)
        low, high = np.where(nearer, low, left), np.where(nearer, right, high)
    c = np.exp((low + high) / 2)
    a, b, _ = _line(scaled ** -c[:, None], means, most)
    return np.stack([a, b * rows[-1] ** c, c], axis=1)


def _line(powers: Array, means: Array, most: float) -> tuple[Array, Array, Array]:
    """Return (a, b, squared error) of the best a - b * powers with b of 0 or more and a of `most` at most.

    `powers` (float64 [lines or 1, sizes]), `means` [lines, sizes].
    """
    middle, height = powers.mean(axis=1, keepdims=True), means.mean(axis=1)
    away = powers - middle
    b = -(away * means).sum(axis=1) / np.maximum((away * away).sum(axis=1), 1e-300)
    b = np.maximum(b, 0.0)
    a = height + b * middle[:, 0]
    over = a > most
    if over.any():
        bound = ((most - means) * powers).sum(axis=1) / (powers * powers).sum(axis=1)
        b = np.where(over, np.maximum(bound, 0.0), b)
        a = np.where(over, most, a)
    error = ((means - a[:, None] + b[:, None] * powers) ** 2).sum(axis=1)
    return a, b, error
