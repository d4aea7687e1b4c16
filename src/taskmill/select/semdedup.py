"""SemDeDup: rows that say the same as another row come last (Abbas et al. 2023, arXiv 2303.09540).

Rows are cut into clusters; in a cluster they stand in order of their distance from its centre, the farthest
first (of two alike, the paper keeps the one less like the centre); a row's redundancy is its largest cosine
to a row before it. The paper drops what is above 1 − ε and chooses ε so that the wanted number is left: that
is, the rows of least redundancy are kept. So rows are chosen in order of redundancy, and the duplicates of
any ε are the end of that order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from taskmill.errors import UsageError
from taskmill.select import Budget, Needs, Pool, Selection, Selector, fill

__all__ = ["SemDedup", "redundancy"]

Array = np.ndarray[Any, Any]

BLOCK = 8192
"""Rows for each cluster if the number of clusters is not given (chosen: the paper has 440M rows in 50,000
clusters, 8,800 each; a pool of one cluster is compared completely)."""

_ROWS = 1024
"""Rows compared with all before them at a time (chosen: their products among themselves are 4 MB)."""


def redundancy(vectors: Array) -> Array:
    """Return for each row its largest product with a row before it (float32 [n]; -inf for the first).

    `vectors`: float32 [n, d], in the order in which rows are kept. n² · d / 2 multiply-adds, little memory.
    """
    from taskmill.kernels.distances import nearest
    from taskmill.kernels.matrix import panels, products

    found = np.full(len(vectors), -np.inf, np.float32)
    inside = np.empty((_ROWS, _ROWS), np.float32)
    for start in range(0, len(vectors), _ROWS):
        block = np.ascontiguousarray(vectors[start : start + _ROWS])
        size = len(block)
        products(block, 0, size, panels(block), 0, size, inside)
        inside[:size, :size][np.triu_indices(size)] = -np.inf  # itself, and what comes after it
        own = inside[:size, :size].max(axis=1)
        found[start : start + size] = np.maximum(own, nearest(block, vectors[:start])[0])
    return found


@dataclass(frozen=True)
class SemDedup(Selector):
    """Rows by how little they repeat others."""

    uses: ClassVar[tuple[str, ...]] = ("embeddings",)

    epsilon: float = field(
        default=0.05, metadata={"help": "a row above a cosine of 1 - epsilon to one before it is a duplicate"}
    )
    clusters: int = field(
        default=0, metadata={"help": "clusters compared within; 1: all with all, 0: one for every 8,192 rows"}
    )

    def pick(self, pool: Pool, budget: Budget, seed: int) -> Selection:
        """Return rows by redundancy, the least first; a score is 1 minus it, 2 for a cluster's first row.

        Ties go by id. A row near one that is chosen already is as redundant as that says. Rows without a
        vector come last. The evidence counts duplicates in the pool and in the choice.
        """
        if not 0 <= self.epsilon <= 1 or self.clusters < 0:
            raise UsageError("semdedup: epsilon is between 0 and 1, the number of clusters 0 or more")
        from taskmill.kernels.distances import COVERED

        vectors = pool.vectors("semdedup")
        count = self.clusters or max(1, round(len(pool) / BLOCK))
        closest = np.full(len(pool), -1.0)
        for rows in _ordered(pool, count, seed):
            closest[rows] = np.maximum(redundancy(vectors[rows]), -1.0)
        if len(pool.start):
            closest = np.maximum(closest, _likeness(vectors, vectors[pool.start]))
        closest[pool.empty | (closest >= COVERED)] = 1.0  # the same but for rounding: ties, which go by id
        order = np.lexsort((pool.rank, closest, pool.empty))
        same = (closest > 1.0 - self.epsilon) & ~pool.empty
        same[pool.start] = False
        found = fill(pool, budget, order, 1.0 - closest[order])
        evidence = {
            "clusters": count,
            "epsilon": self.epsilon,
            "duplicates": int(same.sum()),
            "duplicates_chosen": int(same[found.rows].sum()),
        }
        return Selection(found.rows, found.scores, evidence)

    def needs(self, rows: int, width: int, picks: int) -> Needs:
        """A cluster's rows once more; every pair of rows in it, and k-means where there are several."""
        count = self.clusters or max(1, round(rows / BLOCK))
        pairs = float(rows) * rows / count / 2
        grouping = 20.0 * rows * count if count > 1 else 0.0
        return Needs(4.0 * width * rows / count + 80.0 * rows, (pairs + grouping) * width)


def _likeness(vectors: Array, others: Array) -> Array:
    from taskmill.kernels.distances import nearest

    return np.asarray(nearest(vectors, others)[0], np.float64)


def _ordered(pool: Pool, count: int, seed: int) -> list[Array]:
    """Return the rows of each cluster, the least like its centre first; a row without a vector is in none."""
    from taskmill.kernels.distances import means, products_with
    from taskmill.select.kmeans import cluster

    vectors = pool.vectors("semdedup")
    if count == 1:
        group = np.where(pool.empty, -1, 0)
        centres = means(vectors, group, 1)[0]
    else:
        found = cluster(pool, count, seed)
        group, centres = found.group, found.centres.astype(np.float64)
    ordered = []
    for number, middle in enumerate(centres):
        rows = np.flatnonzero(group == number)
        like = products_with(np.ascontiguousarray(vectors[rows]), middle)
        ordered.append(rows[np.lexsort((pool.rank[rows], like))])
    return ordered
