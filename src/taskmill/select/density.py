"""Density: rows from crowded places of the embedding space are kept less often (arXiv 2402.09668).

The density of a place is estimated with a sketch of counters: many times the space is cut by random planes,
and a row's density is the mean share of rows that fall into its pieces (the RACE sketch).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from taskmill.errors import ConfigError
from taskmill.kernels.distances import row_parts
from taskmill.kernels.matrix import panels, products
from taskmill.kernels.words import on_all_cores
from taskmill.select import Budget, Needs, Pool, Selection, Selector, fill, generator

__all__ = ["Density"]

Array = np.ndarray[Any, Any]

_ROWS = 1024


@dataclass(frozen=True)
class Density(Selector):
    """Rows by chance without repetition, each with a weight of one over its density (the score).

    Two rows at an angle t share a piece with the chance (1 - t/pi)^planes. Zero vectors come last.
    """

    sketches: int = field(default=128, metadata={"help": "how often the space is cut into pieces"})
    planes: int = field(
        default=8,
        metadata={"help": "planes of each cut, 16 at most: more of them see only near neighbours"},
    )
    uses: ClassVar[tuple[str, ...]] = ("embeddings",)

    def __post_init__(self) -> None:
        if self.sketches < 1 or not 1 <= self.planes <= 16:
            raise ConfigError("density: sketches must be 1 or more, planes 1 to 16")

    def pick(self, pool: Pool, budget: Budget, seed: int) -> Selection:
        """Return rows by chance, the rare ones first; raises UsageError if the pool has no embeddings."""
        density = self.densities(pool, seed)
        # Gumbel's trick: the largest of log weight + noise are a weighted draw without replacement.
        noise = np.empty(len(pool))
        noise[pool.by_id] = generator(seed, "density draw").gumbel(size=len(pool))
        keys = noise - np.log(density)
        keys[pool.empty] = -np.inf
        order = np.lexsort((pool.rank, -keys))
        placed = density[~pool.empty]
        evidence = {
            "densest": round(float(placed.max(initial=0.0)), 6),
            "median density": round(float(np.median(placed)), 6) if len(placed) else 0.0,
        }
        return fill(pool, budget, order, np.where(pool.empty, 0.0, 1.0 / density)[order], evidence)

    def densities(self, pool: Pool, seed: int) -> Array:
        """Return the estimated density of each row's place (float64, 1 where all rows are alike)."""
        vectors = pool.vectors("density")
        draws = generator(seed, "density planes")
        planes = draws.standard_normal((self.sketches * self.planes, vectors.shape[1])).astype(np.float32)
        right = panels(planes)
        pieces = np.empty((len(pool), self.sketches), np.uint16)
        powers = (1 << np.arange(self.planes)).astype(np.uint16)

        def cut(first: int, last: int) -> None:
            out = np.empty((_ROWS, len(planes)), np.float32)
            for a in range(first, last, _ROWS):
                b = min(a + _ROWS, last)
                products(vectors, a, b, right, 0, len(planes), out)
                sides = (out[: b - a] > 0).reshape(b - a, self.sketches, self.planes)
                pieces[a:b] = (sides * powers).sum(axis=2, dtype=np.uint16)

        on_all_cores(cut, row_parts(len(pool), vectors.shape[1] * len(planes)))
        placed = ~pool.empty
        total = np.zeros(len(pool), np.int64)
        for sketch in range(self.sketches):
            column = pieces[:, sketch]
            total += np.bincount(column[placed], minlength=1 << self.planes)[column]
        return np.maximum(total, 1) / (self.sketches * max(1, int(placed.sum())))

    def needs(self, rows: int, width: int, picks: int) -> Needs:
        """Two bytes a row and sketch; every row against every plane."""
        planes = self.sketches * self.planes
        return Needs(rows * (2.0 * self.sketches + 48.0), float(rows) * width * planes)
