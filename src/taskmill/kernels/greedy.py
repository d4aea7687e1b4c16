"""Facility location: the rows that represent all others best, one after another, without most of the work."""

from __future__ import annotations

import os
from functools import partial
from typing import Any, NamedTuple

import numba
import numpy as np

from taskmill.kernels.distances import TIE, row_parts
from taskmill.kernels.farthest import rise, sink
from taskmill.kernels.matrix import panels, products
from taskmill.kernels.words import on_all_cores

__all__ = ["Graph", "all_pairs", "facilities", "transposed"]

Array = np.ndarray[Any, Any]
Graph = tuple[Array, Array, Array]
"""Who is near to whom, by column: (ends, rows, likeness); column j is `ends[j]:ends[j + 1]` of the others."""

_TILE = 192

_MOST = 512
"""Most gains brought up to date at a time (chosen: some milliseconds' work where all pairs are held)."""


@numba.njit(nogil=True, cache=True)
def _all_pairs(vectors: Any, right: Any, first: int, last: int, out: Any) -> None:
    """Fill the rows `first` to `last` from the diagonal on, and the columns that mirror them."""
    size = vectors.shape[0]
    tile = np.empty((_TILE, _TILE), np.float32)
    for a in range(first, last, _TILE):
        b = min(a + _TILE, last)
        for c in range(a, size, _TILE):
            d = min(c + _TILE, size)
            products(vectors, a, b, right, c, d, tile)
            for i in range(b - a):
                line, given = out[a + i, c:d], tile[i, : d - c]
                for j in range(d - c):
                    line[j] = max(np.float32(0), given[j])
            if c > a:
                for j in range(d - c):
                    line = out[c + j, a:b]
                    for i in range(b - a):
                        line[i] = max(np.float32(0), tile[i, j])


def all_pairs(vectors: Array) -> Array:
    """Return the likeness of all pairs: the product, 0 where it is negative; float32 [n, n]."""
    size = len(vectors)
    out, right = np.empty((size, size), np.float32), panels(vectors)
    # Pieces of whole tiles; the first rows have the longest way to the end, so there are many pieces.
    step = _TILE * max(1, size // (_TILE * 16 * (os.cpu_count() or 1)))
    on_all_cores(
        lambda a, b: _all_pairs(vectors, right, a, b, out),
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


class _Log(NamedTuple):
    """What the last choices changed: `best[rows[i]]` rose from `old[i]` to `new[i]`.

    Entry `begins[q - state[0]]` is the first of choice number q; `state` holds (the first choice that is in
    the log, the number of entries).
    """

    rows: Array
    old: Array
    new: Array
    begins: Array
    state: Array


def _log(size: int) -> _Log:
    """Return an empty log for `size` rows.

    Chosen: room for a quarter of them; to go through more, which lie apart, is no quicker than a new sum.
    """
    room = size // 4 + 1
    return _Log(
        np.empty(room, np.int64), np.empty(room, np.float32), np.empty(room, np.float32),
        np.empty(room, np.int64), np.zeros(2, np.int64),
    )  # fmt: skip


@numba.njit(nogil=True, cache=True)
def _write(line: Any, best: Any, number: int, log: Any) -> None:
    """Enter in the log what a choice changes; older ones are dropped where there is no room."""
    changed, state = 0, log.state
    for i in range(best.shape[0]):
        changed += line[i] > best[i]
    if state[1] + changed > len(log.rows) or number - state[0] >= len(log.begins):
        state[0], state[1] = number, 0
    if changed > len(log.rows):
        state[0] = number + 1
        return
    log.begins[number - state[0]] = state[1]
    for i in range(best.shape[0]):
        if line[i] > best[i]:
            at = state[1]
            log.rows[at], log.old[at], log.new[at] = i, best[i], line[i]
            state[1] += 1


@numba.njit(nogil=True, cache=True)
def _loss(line: Any, since: int, log: Any) -> float:
    """Return by how much the gain of a row fell since choice number `since`."""
    total = 0.0
    for at in range(log.begins[since - log.state[0]], log.state[1]):
        likeness = np.float64(line[log.rows[at]])
        total += max(0.0, likeness - log.old[at]) - max(0.0, likeness - log.new[at])
    return total


@numba.njit(nogil=True, cache=True)
def _take(dense: Any, ends: Any, rows: Any, likeness: Any, best: Any, j: int, number: int, log: Any) -> None:
    """Choose row j as number `number`."""
    if dense.shape[0]:
        _write(dense[j], best, number, log)
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
def _renew(
    dense: Any, ends: Any, rows: Any, likeness: Any, best: Any, key: Any, stamp: Any, count: int, log: Any,
    old: Any, first: int, last: int,
) -> None:  # fmt: skip
    """Bring the gains of `old[first:last]` up to date, by what changed since or as a new sum."""
    for row in old[first:last]:
        if dense.shape[0] and stamp[row] >= log.state[0]:
            key[row] += _loss(dense[row], stamp[row], log)
        else:
            key[row] = -_gain(dense, ends, rows, likeness, best, row)
        stamp[row] = count


@numba.njit(nogil=True, cache=True)
def _stale(cost: Any, left: int, key: Any, stamp: Any, count: int, heap: Any, size: int, old: Any) -> Any:
    """Take rows of old gains off the heap's front into `old`; return (their number, size of the heap)."""
    found = 0
    while size > 0 and found < len(old):
        row = heap[0]
        gone = cost[row] > left
        if not gone and stamp[row] == count:
            break
        size -= 1
        heap[0] = heap[size]
        sink(heap, size, key, 0)
        if not gone:
            old[found] = row
            found += 1
    return found, size


@numba.njit(nogil=True, cache=True)
def _back(old: Any, found: int, key: Any, heap: Any, size: int) -> int:
    for row in old[:found]:
        heap[size] = row
        rise(heap, key, size)
        size += 1
    return size


@numba.njit(nogil=True, cache=True)
def _next(
    dense: Any, ends: Any, rows: Any, likeness: Any, best: Any, cost: Any, left: int, place: Any,
    key: Any, stamp: Any, count: int, heap: Any, size: int, log: Any,
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
            _renew(dense, ends, rows, likeness, best, key, stamp, count, log, heap, 0, 1)
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


def _refreshed(
    dense: Array, graph: Graph, best: Array, cost: Array, left: int, key: Array, stamp: Array, count: int,
    heap: Array, size: int, log: _Log, old: Array,
) -> int:  # fmt: skip
    """Bring gains up to date until the front of the heap is, more and more of them at a time, on all cores.

    Some are renewed in vain, but their number depends on nothing but the data. Return the heap's size.
    """
    many = 16
    while True:
        found, size = _stale(cost, left, key, stamp, count, heap, size, old[:many])
        if not found:
            return size
        work = partial(_renew, dense, *graph, best, key, stamp, count, log, old)
        on_all_cores(work, row_parts(found, len(best)))
        size = _back(old, found, key, heap, size)
        many = min(2 * many, len(old))


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
    log = _log(size)
    rows: list[int] = []
    gains: list[float] = []
    for row in start.tolist():
        gains.append(float(_gain(dense, *graph, best, row)))
        _take(dense, *graph, best, row, len(rows), log)
        rows.append(row)
    left, able = limit - int(cost[start].sum()), live.copy()
    able[start] = False
    key = np.empty(size, np.float64)
    on_all_cores(lambda a, b: _gains(dense, *graph, best, a, b, key), row_parts(size, size))
    heap = np.flatnonzero(able)
    heap = np.append(heap[np.argsort(key[heap], kind="stable")], 0)  # sorted is a heap; a place to spare
    stamp, at = np.full(size, len(rows), np.int64), len(heap) - 1
    old = np.empty(_MOST, np.int64)
    while left > 0:
        at = _refreshed(dense, graph, best, cost, left, key, stamp, len(rows), heap, at, log, old)
        row, at = _next(
            dense, *graph, best, cost, left, place, key, stamp, len(rows), heap, at, log
        )  # fmt: skip
        if row < 0:
            break
        gains.append(-key[row])
        _take(dense, *graph, best, row, len(rows), log)
        rows.append(row)
        left -= int(cost[row])
    return np.array(rows, np.int64), np.array(gains), best
