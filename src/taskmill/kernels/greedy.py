"""Facility location: the rows that represent all others best, one after another, without most of the work."""

from __future__ import annotations

import os
from typing import Any

import numba
import numpy as np

from taskmill.kernels.distances import TIE, products, row_parts
from taskmill.kernels.farthest import sink
from taskmill.kernels.words import on_all_cores

__all__ = ["Graph", "all_pairs", "facilities", "transposed"]

Array = np.ndarray[Any, Any]
Graph = tuple[Array, Array, Array]
"""Who is near to whom, by column: (ends, rows, likeness); column j is `ends[j]:ends[j + 1]` of the others."""

_TILE = 128


@numba.njit(nogil=True, cache=True)
def _all_pairs(vectors: Any, first: int, last: int, out: Any) -> None:
    """Fill the rows `first` to `last` from the diagonal on, and the columns that mirror them."""
    size = vectors.shape[0]
    tile = np.empty((_TILE, _TILE), np.float32)
    for a in range(first, last, _TILE):
        b = min(a + _TILE, last)
        for c in range(a, size, _TILE):
            d = min(c + _TILE, size)
            products(vectors, a, b, vectors, c, d, tile)
            for i in range(a, b):
                for j in range(c, d):
                    out[i, j] = max(np.float32(0), tile[i - a, j - c])
            for j in range(c, d):
                for i in range(a, min(b, j)):
                    out[j, i] = out[i, j]


def all_pairs(vectors: Array) -> Array:
    """Return the likeness of all pairs: the product, 0 where it is negative; float32 [n, n]."""
    size = len(vectors)
    out = np.empty((size, size), np.float32)
    # Pieces of whole tiles; the first rows have the longest way to the end, so there are many pieces.
    step = _TILE * max(1, size // (_TILE * 16 * (os.cpu_count() or 1)))
    on_all_cores(
        lambda a, b: _all_pairs(vectors, a, b, out),
        [(a, min(a + step, size)) for a in range(0, size, step)],
    )
    return out


def transposed(found: Array, values: Array) -> Graph:
    """Return the graph of lists of neighbours (int64 and float32 [n, k]); every row is in its own list."""
    size, count = found.shape
    keep = (found >= 0) & (values > 0)
    to = np.concatenate([found[keep], np.arange(size)])
    rows = np.concatenate([np.repeat(np.arange(size), count).reshape(size, count)[keep], np.arange(size)])
    likeness = np.concatenate([values[keep], np.ones(size, np.float32)])
    order = np.lexsort((rows, to))
    ends = np.concatenate(([0], np.cumsum(np.bincount(to, minlength=size))))
    return ends, rows[order], likeness[order]


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def _gain_of(likeness: Any, best: Any) -> Any:
    total = 0.0
    for i in range(best.shape[0]):
        # The difference of two float32 is not one itself: rounded, it would decide between near equals.
        total += max(0.0, np.float64(likeness[i]) - np.float64(best[i]))
    return total


@numba.njit(nogil=True, cache=True)
def _gain(dense: Any, ends: Any, rows: Any, likeness: Any, best: Any, j: int) -> float:
    """Return by how much row j would raise the sum of `best`."""
    if dense.shape[0]:
        return float(_gain_of(dense[j], best))
    total = 0.0
    for at in range(ends[j], ends[j + 1]):
        total += max(0.0, np.float64(likeness[at]) - np.float64(best[rows[at]]))
    return total


@numba.njit(nogil=True, cache=True)
def _take(dense: Any, ends: Any, rows: Any, likeness: Any, best: Any, j: int) -> None:
    if dense.shape[0]:
        for i in range(best.shape[0]):
            best[i] = max(best[i], dense[j, i])
    else:
        for at in range(ends[j], ends[j + 1]):
            best[rows[at]] = max(best[rows[at]], likeness[at])


@numba.njit(nogil=True, cache=True)
def _gains(
    dense: Any, ends: Any, rows: Any, likeness: Any, best: Any, first: int, last: int, key: Any
) -> None:
    for j in range(first, last):
        key[j] = -_gain(dense, ends, rows, likeness, best, j)


@numba.njit(nogil=True, cache=True)
def _next(
    dense: Any, ends: Any, rows: Any, likeness: Any, best: Any, cost: Any, left: int, place: Any,
    key: Any, stamp: Any, count: int, heap: Any, size: int,
) -> tuple[int, int]:  # fmt: skip
    """Return (the row of largest gain or -1, the size of the heap without it); ties go by place.

    `key`: minus the gain when it was last computed, at the time `stamp`; gains only fall.
    """
    found, first = 0, np.inf
    while size > 0:
        row = heap[0]
        if found and key[row] > first + TIE * max(1.0, -first):
            break
        gone = cost[row] > left
        if not gone and stamp[row] != count:
            key[row], stamp[row] = -_gain(dense, ends, rows, likeness, best, row), count
            sink(heap, size, key, 0)
            continue
        size -= 1
        heap[0] = heap[size]
        sink(heap, size, key, 0)
        if gone:
            heap[size] = heap[size + found]
        else:
            heap[size], found, first = row, found + 1, min(first, key[row])
    if not found or -first <= TIE:
        return -1, size
    winner = size
    for at in range(size + 1, size + found):
        if place[heap[at]] < place[heap[winner]]:
            winner = at
    row, heap[winner] = heap[winner], heap[size]
    for at in range(size + 1, size + found):  # the others go back
        other, hole = heap[at], size
        while hole > 0 and key[heap[(hole - 1) // 2]] > key[other]:
            heap[hole] = heap[(hole - 1) // 2]
            hole = (hole - 1) // 2
        heap[hole] = other
        size += 1
    return row, size


def facilities(
    dense: Array, graph: Graph, start: Array, live: Array, cost: Array, limit: int, place: Array
) -> tuple[Array, Array, Array]:
    """Return (rows, gains, likeness): again and again the row that adds most to the sum of likenesses.

    The sum is over all live rows of the likeness of the nearest chosen row (float32, returned for each).
    `dense`: float32 [n, n], symmetric, none negative; or empty, and then `graph` holds the pairs that count.
    `start`, `live`, `cost`, `limit`, `place`: as in `farthest_first`, but `start` may be empty. It ends
    when nothing can be afforded or nothing adds more than 1e-9.
    """
    size = len(live)
    # A row without a place among the others is represented from the beginning.
    best = np.where(live, np.float32(0), np.float32(1))
    rows, gains = [], []
    for row in start.tolist():
        rows.append(row)
        gains.append(float(_gain(dense, *graph, best, row)))
        _take(dense, *graph, best, row)
    left, able = limit - int(cost[start].sum()), live.copy()
    able[start] = False
    key = np.empty(size, np.float64)
    on_all_cores(lambda a, b: _gains(dense, *graph, best, a, b, key), row_parts(size, size))
    heap = np.flatnonzero(able)
    heap = np.append(heap[np.argsort(key[heap], kind="stable")], 0)  # sorted is a heap; a place to spare
    stamp, at = np.full(size, len(rows), np.int64), len(heap) - 1
    while left > 0:
        row, at = _next(
            dense, *graph, best, cost, left, place, key, stamp, len(rows), heap, at
        )  # fmt: skip
        if row < 0:
            break
        rows.append(row)
        gains.append(-key[row])
        _take(dense, *graph, best, row)
        left -= int(cost[row])
    return np.array(rows, np.int64), np.array(gains), best
