"""Facility location: the rows that represent the whole pool best.

The value of a choice is the sum, over all rows, of the likeness (cosine, 0 where negative) of the nearest
chosen row. The greedy choice reaches 1 - 1/e of the best value (Nemhauser, Wolsey & Fisher 1978).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from taskmill.kernels.distances import nearest, neighbours
from taskmill.kernels.greedy import Graph, all_pairs, facilities, transposed
from taskmill.select import Budget, Needs, Pool, Selection, Selector, fill

__all__ = ["FacilityLocation"]

Array = np.ndarray[Any, Any]

ALL_PAIRS = 24_000
"""Rows up to which all pairs are held (chosen: 2.3 GB; twice the rows would be 9.2 GB)."""

NEIGHBOURS = 64
"""Neighbours each row is held against in larger pools (the upper end of what is usual, 32 to 64)."""


@dataclass(frozen=True)
class FacilityLocation(Selector):
    """Greedy facility location, evaluated lazily. The score is what a row adds to the value.

    Up to 24,000 rows all pairs count; in larger pools only each row's 64 nearest. Ties go to the smaller
    id. Rows that add nothing come last, in order of id.
    """

    neighbours: int = field(
        default=0, metadata={"help": "nearest rows that count for each row; 0: all, 64 above 24,000 rows"}
    )
    uses: ClassVar[tuple[str, ...]] = ("embeddings",)

    def pick(self, pool: Pool, budget: Budget, seed: int) -> Selection:
        """Return the rows that represent most; the seed plays no part."""
        vectors = pool.vectors("facility-location")
        costs, limit = budget.costs(pool)
        start = fill(pool, budget, pool.start, np.zeros(len(pool.start))).rows
        count = self._neighbours(len(pool))
        dense, graph = np.zeros((0, 0), np.float32), _none()
        if count:
            graph = transposed(*neighbours(vectors, None, None, pool.rank, count))
        else:
            dense = all_pairs(vectors)
        live = ~pool.empty
        rows, gains, likeness = facilities(dense, graph, start, live, costs, limit, pool.rank)
        if count and len(rows):  # what the choice is worth when all pairs count
            likeness = np.maximum(nearest(vectors, vectors[rows])[0], 0)
        chosen = np.zeros(len(pool), bool)
        chosen[rows] = True
        rest = pool.by_id[~chosen[pool.by_id]]
        value = float(likeness[live].sum(dtype=np.float64)) if len(rows) else 0.0
        evidence = {"value": round(value, 6), "of at most": int(live.sum()), "neighbours": count or "all"}
        order, scores = np.concatenate([rows, rest]), np.concatenate([gains, np.zeros(len(rest))])
        return fill(pool, budget, order, scores, evidence)

    def needs(self, rows: int, width: int, picks: int) -> Needs:
        """All pairs once, half of them computed; or the lists of neighbours, from all pairs."""
        count = self._neighbours(rows)
        if count:
            return Needs(rows * (60.0 * count + 64.0), float(rows) * rows * width)
        return Needs(4.0 * rows * rows + 64.0 * rows, rows * rows * (width / 2.0 + 4.0))

    def _neighbours(self, rows: int) -> int:
        count = self.neighbours or (NEIGHBOURS if rows > ALL_PAIRS else 0)
        return count if count < rows - 1 else 0


def _none() -> Graph:
    return np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
