"""k-means: clusters of rows, and from each those nearest to its centre (one way of LTD, arXiv 2305.09246)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np

from taskmill.errors import ConfigError
from taskmill.kernels.distances import COVERED, means, nearest, products_with
from taskmill.select import Budget, Needs, Pool, Selection, Selector, fill, generator, interleave

__all__ = ["Clusters", "KMeans", "cluster"]

Array = np.ndarray[Any, Any]

SEEDING = 32
"""Rows for each cluster among which the first centres are drawn (chosen: with all 100,000 rows the seeding of
316 clusters takes as long as 10 rounds of k-means; a sample of 32 a cluster meets every cluster of a third
of the mean size with a chance above 0.9999)."""


class Clusters(NamedTuple):
    """Where rows belong: `group` (int64, -1 for a zero vector), `distance` to its centre, `centres`."""

    group: Array
    distance: Array
    centres: Array


def cluster(pool: Pool, count: int, seed: int, iterations: int = 20) -> Clusters:
    """Return at most `count` clusters of the pool's vectors: Lloyd's rounds from centres drawn by k-means++.

    A cluster that lost all its rows takes over the row that is farthest from its centre. There are fewer
    clusters where there are fewer different vectors. Ends early once no row moves.
    """
    vectors = pool.vectors("k-means")
    placed = pool.by_id[~pool.empty[pool.by_id]]
    centres = _seeds(vectors, placed, min(count, len(placed)), generator(seed, "k-means seeds"))
    group, distance = np.full(len(pool), -1, np.int64), np.zeros(len(pool))
    if not len(centres):
        return Clusters(group, distance, centres)
    for _ in range(max(1, iterations)):
        shift = 0.5 * np.einsum("kd,kd->k", centres, centres, dtype=np.float64)
        likeness, found = nearest(vectors, centres, shift.astype(np.float32))
        found[pool.empty] = -1
        # |x - c|^2 = 1 - 2 (x.c - |c|^2 / 2) for a unit vector x
        distance = np.sqrt(np.maximum(1.0 - 2.0 * likeness.astype(np.float64), 0.0))
        distance[pool.empty] = 0.0
        _repair(found, distance, len(centres), pool.rank)
        if np.array_equal(found, group):
            break
        group = found
        centres = means(vectors, group, len(centres))[0].astype(np.float32)
    return Clusters(group, distance, centres)


def _seeds(vectors: Array, placed: Array, count: int, stream: np.random.Generator) -> Array:
    """Draw centres among the rows, each with a chance that grows with its squared distance to the others.

    Arthur & Vassilvitskii, k-means++ (SODA 2007).
    """
    sample = placed[np.sort(stream.permutation(len(placed))[: max(count * SEEDING, 1024)])]
    among = np.ascontiguousarray(vectors[sample])
    squares = np.ones(len(sample))
    chosen: list[int] = []
    while len(chosen) < count:
        ahead = np.cumsum(squares)
        if ahead[-1] <= 0:  # all that is left is the same as a chosen row
            break
        pick = int(np.searchsorted(ahead, stream.random() * ahead[-1], side="right"))
        chosen.append(min(pick, len(sample) - 1))
        products = products_with(among, among[chosen[-1]].astype(np.float64))
        products[products >= COVERED] = 1.0
        squares = np.minimum(squares, 2.0 - 2.0 * products) if len(chosen) > 1 else 2.0 - 2.0 * products
        squares = np.maximum(squares, 0.0)
    return among[chosen]


def _repair(group: Array, distance: Array, count: int, rank: Array) -> None:
    """Give each cluster without rows the row farthest from its centre, of a cluster that keeps another."""
    sizes = np.bincount(group[group >= 0], minlength=count)
    missing = np.flatnonzero(sizes == 0).tolist()
    if not missing:
        return
    for row in np.lexsort((rank, -distance)).tolist():
        if not missing or distance[row] <= np.sqrt(2.0 - 2.0 * COVERED):
            return
        if group[row] >= 0 and sizes[group[row]] > 1:
            sizes[group[row]] -= 1
            group[row], distance[row] = missing.pop(0), 0.0


@dataclass(frozen=True)
class KMeans(Selector):
    """Clusters take turns, each with the row nearest to its centre that is left (or one by chance).

    Turns follow the clusters' sizes, or are equal: with as many clusters as rows are wanted, that is one row
    of each, the nearest to its centre. The number of clusters does not depend on the budget, so that a
    smaller budget is a prefix. The score is minus the distance to the centre. Zero vectors come last.
    """

    clusters: int = field(
        default=0, metadata={"help": "number of clusters; 0: the square root of the number of rows"}
    )
    within: str = field(
        default="centroid",
        metadata={"help": "which row of a cluster comes first", "choices": ("centroid", "random")},
    )
    quota: str = field(
        default="proportional",
        metadata={"help": "turns of the clusters", "choices": ("proportional", "equal")},
    )
    iterations: int = field(default=20, metadata={"help": "rounds of k-means at most"})
    uses: ClassVar[tuple[str, ...]] = ("embeddings",)

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ConfigError("k-means: iterations must be 1 or more")

    def pick(self, pool: Pool, budget: Budget, seed: int) -> Selection:
        """Return rows near the centres; raises UsageError if the pool has no embeddings."""
        found = cluster(pool, self._count(len(pool)), seed, self.iterations)
        first = found.distance
        if self.within == "random":
            first = np.empty(len(pool))
            first[pool.by_id] = generator(seed, "k-means rows").random(len(pool))
        order = np.lexsort((pool.rank, first))
        last = order[found.group[order] < 0]
        order = order[found.group[order] >= 0]
        # Larger clusters first, so that ties of turns go to them.
        sizes = np.bincount(found.group[order], minlength=len(found.centres))
        number = np.empty(len(sizes), np.int64)
        number[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
        turns = order[interleave(number[found.group[order]], self.quota == "equal")]
        rows = np.concatenate([turns, last])
        evidence = {
            "clusters": int((sizes > 0).sum()),
            "smallest": int(sizes.min(initial=len(pool))),
            "largest": int(sizes.max(initial=0)),
            "mean distance": round(float(found.distance[order].mean()), 6) if len(order) else 0.0,
        }
        return fill(pool, budget, rows, -found.distance[rows], evidence)

    def needs(self, rows: int, width: int, picks: int) -> Needs:
        """The centres with their sums on each thread; every row against every centre in each round."""
        count = self._count(rows)
        return Needs(48.0 * rows + 100.0 * count * width, float(rows) * width * count * self.iterations)

    def _count(self, rows: int) -> int:
        return min(rows, self.clusters or max(1, round(rows**0.5)))
