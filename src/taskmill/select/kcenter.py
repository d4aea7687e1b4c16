"""k-center: rows spread out so that no row of the pool is far from a chosen one (farthest-first traversal).

Sener & Savarese (arXiv 1708.00489), the core of LTD (arXiv 2305.09246). The choice is at most twice as far
from the farthest row as the best one of that size. It is the plain algorithm's, evaluated lazily.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from taskmill.errors import ConfigError
from taskmill.kernels.distances import TIE, means, neighbours, products_with
from taskmill.kernels.farthest import farthest_first
from taskmill.select import Budget, Needs, Pool, Selection, Selector, fill, generator

__all__ = ["KCenter", "RobustKCenter"]

Array = np.ndarray[Any, Any]

FIRST = 2.0
"""Score of the first row: the largest distance of two unit vectors, since nothing was chosen before it."""

LAZY = 0.2
"""Share of all distances that lazy evaluation computes (13.7 to 14.9 % measured at 30,000 x 384, 150 picks;
with some room)."""


@dataclass(frozen=True)
class KCenter(Selector):
    """Farthest first. The score is the distance to the nearest row chosen before, 2 for the first.

    It begins with the row nearest to the mean (`medoid`), with the one farthest from it, or with one by
    chance; after the rows of `pool.start`, if there are any. Ties go to the smaller id. Rows that are the
    same as a chosen one (cosine above 1 - 1e-6) come when no other is left, in order of id, then those
    whose vector is zero; their score is 0.
    """

    first: str = field(
        default="medoid", metadata={"help": "the first row", "choices": ("medoid", "farthest", "random")}
    )
    uses: ClassVar[tuple[str, ...]] = ("embeddings",)

    def pick(self, pool: Pool, budget: Budget, seed: int) -> Selection:
        """Return rows farthest first; raises UsageError if the pool has no embeddings."""
        return self._spread(pool, budget, seed, ~pool.empty, {})

    def needs(self, rows: int, width: int, picks: int) -> Needs:
        """One value, two numbers and a place in a heap for each row, and a copy of the chosen rows."""
        return Needs(40.0 * rows + 4.0 * width * picks, rows * width * (2 + LAZY * picks))

    def _spread(
        self, pool: Pool, budget: Budget, seed: int, live: Array, evidence: dict[str, Any]
    ) -> Selection:
        vectors = pool.vectors("k-center")
        costs, limit = budget.costs(pool)
        start = self.opening(pool, budget, seed, live)
        rows, products = np.zeros(0, np.int64), np.zeros(0)
        if len(start):
            rows, products = farthest_first(vectors, start, live.copy(), costs, limit, pool.rank)
        distances = np.sqrt(np.maximum(2.0 - 2.0 * products, 0.0))
        distances[:1] = FIRST
        chosen = np.zeros(len(pool), bool)
        chosen[rows] = True
        rest = pool.by_id[~chosen[pool.by_id]]
        rest = np.concatenate([rest[live[rest]], rest[~live[rest]]])
        evidence = {**evidence, "covering": len(rows), "zero vectors": _named(pool, pool.empty)}
        order, scores = np.concatenate([rows, rest]), np.concatenate([distances, np.zeros(len(rest))])
        return fill(pool, budget, order, scores, evidence)

    def opening(self, pool: Pool, budget: Budget, seed: int, live: Array | None = None) -> Array:
        """Return the rows it begins with (int64): those chosen already, or the first one; none if none fits.

        `live`: rows that may be the first (bool; default: those with a vector).
        """
        vectors = pool.vectors("k-center")
        if len(pool.start):
            return fill(pool, budget, pool.start, np.zeros(len(pool.start))).rows
        costs, limit = budget.costs(pool)
        live = ~pool.empty if live is None else live
        able = live & (costs <= limit)
        return np.array([self._first(pool, vectors, live, able, seed)] if able.any() else [], np.int64)

    def _first(self, pool: Pool, vectors: Array, live: Array, able: Array, seed: int) -> int:
        """Return the row to begin with, among those that can be afforded."""
        if self.first == "random":
            among = pool.by_id[able[pool.by_id]]
            return int(among[generator(seed, "k-center first").integers(len(among))])
        mean = means(vectors, np.where(live, 0, -1), 1)[0][0]
        like = products_with(vectors, mean) * (-1.0 if self.first == "farthest" else 1.0)
        like[~able] = -np.inf
        close = np.flatnonzero(like >= like.max() - TIE)
        return int(close[np.argmin(pool.rank[close])])


@dataclass(frozen=True)
class RobustKCenter(KCenter):
    """k-center that leaves outliers for the end: rows whose k-th nearest neighbour is farthest away.

    Plain k-center likes outliers best: 50 of them among 5,050 rows were all among 100 chosen. Here the
    given share of rows with the emptiest neighbourhoods comes last, after everything else. Neighbours are
    looked for in a sample of the pool (all of it where it is not larger).
    """

    trim: float = field(default=0.02, metadata={"help": "share of the rows that count as outliers"})
    neighbours: int = field(default=10, metadata={"help": "which neighbour's distance is compared"})
    sample: int = field(default=4096, metadata={"help": "rows among which neighbours are looked for"})

    def __post_init__(self) -> None:
        if not 0 <= self.trim < 1:
            raise ConfigError(f"k-center-robust: trim={self.trim} must be a share of 0 or more, and below 1")
        if self.neighbours < 1 or self.sample <= self.neighbours:
            raise ConfigError("k-center-robust: sample must be larger than neighbours, and those 1 or more")

    def pick(self, pool: Pool, budget: Budget, seed: int) -> Selection:
        """Return rows farthest first, the outliers last."""
        outlying = self.outliers(pool, seed)
        evidence = {"trimmed": int(outlying.sum()), "outliers": _named(pool, outlying)}
        return self._spread(pool, budget, seed, ~(pool.empty | outlying), evidence)

    def needs(self, rows: int, width: int, picks: int) -> Needs:
        """As k-center, and the products with the sample and its list of neighbours."""
        plain = super().needs(rows, width, picks)
        sample = min(rows, self.sample)
        lists = 12.0 * rows * self.neighbours + 4.0 * sample * width
        return Needs(plain.bytes + lists, plain.operations + rows * width * sample)

    def outliers(self, pool: Pool, seed: int) -> Array:
        """Return the rows that count as outliers (bool): `trim` of those with a vector, rounded down."""
        vectors, outlying = pool.vectors("k-center-robust"), np.zeros(len(pool), bool)
        among = pool.by_id[~pool.empty[pool.by_id]]
        count = int(self.trim * len(among))
        if not count:
            return outlying
        drawn = generator(seed, "k-center neighbourhoods").permutation(len(among))[: self.sample]
        sample = among[np.sort(drawn)]
        size = min(self.neighbours, len(sample) - 1)
        if size < 1:
            return outlying
        _, products = neighbours(vectors, among, sample, pool.rank, size)
        farthest = np.lexsort((pool.rank[among], products[:, -1]))
        outlying[among[farthest[:count]]] = True
        return outlying


def _named(pool: Pool, rows: Array, most: int = 20) -> list[str]:
    """Return the ids of the first of these rows (bool)."""
    return [str(pool.ids[int(row)]) for row in pool.by_id[rows[pool.by_id]][:most]]
