"""Farthest-first traversal: the rows of the plain greedy algorithm, without most of its work."""

from __future__ import annotations

import os
from typing import Any

import numba
import numpy as np

from taskmill.kernels.distances import COVERED, TIE, dot, exact, rounding, row_parts
from taskmill.kernels.words import on_all_cores

__all__ = ["farthest_first", "rise", "sink"]

Array = np.ndarray[Any, Any]

_BATCH = 32
"""Candidates each thread brings up to date before some of them are chosen (chosen: about six are chosen
from so many, so that threads meet a sixth as often; results do not depend on it)."""

# Each row carries `best`, its largest product with the chosen rows it was held against so far: the first
# `seen` of them. It can only grow, so a row whose old value is above another's up-to-date one need not be
# looked at (Minoux' lazy evaluation). Each thread has a heap of its rows, smallest value first. A round:
# every thread brings the front of its heap up to date; then one goes through those candidates and chooses
# as long as the best of them is surely ahead of all that stayed in the heaps.


@numba.njit(nogil=True, cache=True)
def sink(heap: Any, size: int, key: Any, at: int) -> None:
    """Let the row at place `at` of a heap (least key first) sink to where it belongs."""
    row = heap[at]
    value = key[row]
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and key[heap[child + 1]] < key[heap[child]]:
            child += 1
        if key[heap[child]] >= value:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = row


@numba.njit(nogil=True, cache=True)
def rise(heap: Any, key: Any, at: int) -> None:
    """Let the row at place `at` of a heap rise to where it belongs."""
    row = heap[at]
    value = key[row]
    while at > 0:
        above = (at - 1) // 2
        if key[heap[above]] <= value:
            break
        heap[at] = heap[above]
        at = above
    heap[at] = row


@numba.njit(nogil=True, cache=True)
def _begin(vectors: Any, one: Any, first: int, last: int, live: Any, best: Any, heap: Any) -> int:
    """Hold all live rows of a part against the first chosen one and make the part's heap; return its size."""
    size = 0
    for row in range(first, last):
        if live[row]:
            best[row] = dot(vectors[row], one)
            heap[size] = row
            size += 1
    for at in range(size // 2 - 1, -1, -1):
        sink(heap, size, best, at)
    return size


@numba.njit(nogil=True, cache=True)
def _front(
    vectors: Any, centres: Any, count: int, cost: Any, left: int, slack: float, live: Any, best: Any,
    near: Any, seen: Any, heap: Any, ends: Any,
) -> None:  # fmt: skip
    """Bring the front of a heap up to date. `ends`: where the heap ends, and the candidates behind it.

    Candidates are at least `_BATCH` rows, and all within `slack` of the first: what stays behind is above.
    """
    size, found = ends[0], 0
    for at in range(size, ends[1]):  # what was not chosen of the last candidates goes back
        row = heap[at]
        if live[row]:
            heap[size] = row
            rise(heap, best, size)
            size += 1
    first = np.float32(np.inf)
    while size > 0:
        row = heap[0]
        if found >= _BATCH and best[row] > first + slack:
            break
        # A row too long for what is left is so for good.
        gone = cost[row] > left
        if not gone:
            limit = np.float32(np.inf)
            if size > 1:
                limit = best[heap[1]]
            if size > 2:
                limit = min(limit, best[heap[2]])
            at, value = seen[row], best[row]
            while at < count and value <= limit:
                product = dot(vectors[row], centres[at])
                if product > value:
                    value, near[row] = product, at
                at += 1
            best[row], seen[row] = value, at
            gone = value >= COVERED - slack and exact(vectors[row], centres[near[row]]) >= COVERED
            if not gone and (at < count or value > limit):
                sink(heap, size, best, 0)
                continue
        size -= 1
        heap[0] = heap[size]
        sink(heap, size, best, 0)
        if gone:
            live[row] = False
            heap[size] = heap[size + found]
        else:
            heap[size] = row
            first = min(first, best[row])
            found += 1
    ends[0], ends[1] = size, size + found


@numba.njit(nogil=True, cache=True)
def _largest(vector: Any, centres: Any, count: int, value: Any, slack: float) -> float:
    """Return the largest product with the chosen rows in float64; `value` is the one in float32."""
    largest = -np.inf
    for j in range(count):
        if dot(vector, centres[j]) >= value - slack:
            largest = max(largest, exact(vector, centres[j]))
    return largest


@numba.njit(nogil=True, cache=True)
def _winner(
    vectors: Any, centres: Any, count: int, candidates: Any, live: Any, best: Any, place: Any,
    low: Any, slack: float,
) -> tuple[int, float]:  # fmt: skip
    """Return the candidate farthest from all chosen rows, and its largest product; ties by place."""
    values = np.full(len(candidates), np.inf)
    for i, row in enumerate(candidates):
        if live[row] and best[row] <= low + slack:
            values[i] = _largest(vectors[row], centres, count, best[row], slack)
    winner, least = -1, values.min()
    for i, row in enumerate(candidates):
        if values[i] <= least + TIE and (winner < 0 or place[row] < place[winner]):
            winner = row
    return winner, least


@numba.njit(nogil=True, cache=True)
def _lowest(
    candidates: Any, live: Any, cost: Any, left: int, best: Any, slack: float
) -> tuple[Any, int, int]:
    """Return (least value, a row that has it, how many are within `slack` of it) of what can be chosen."""
    low, winner, close = np.float32(np.inf), -1, 0
    for row in candidates:
        if cost[row] > left:
            live[row] = False
        if live[row] and best[row] < low:
            low, winner = best[row], row
    for row in candidates:
        if live[row] and best[row] <= low + slack:
            close += 1
    return low, winner, close


@numba.njit(nogil=True, cache=True)
def _choose(
    vectors: Any, centres: Any, count: int, cost: Any, left: int, slack: float, live: Any, best: Any,
    near: Any, seen: Any, candidates: Any, behind: float, place: Any, rows: Any, values: Any,
) -> tuple[int, int, bool]:  # fmt: skip
    """Choose among candidates while the best of them is ahead of `behind`, the least of all others.

    Returns (chosen so far, what is left, whether all that remains is covered).
    """
    while count < len(rows):
        low, winner, close = _lowest(candidates, live, cost, left, best, slack)
        if winner < 0 or low + slack >= behind:
            break
        if close > 1 or low >= COVERED - slack:
            winner, value = _winner(vectors, centres, count, candidates, live, best, place, low, slack)
            if value >= COVERED:
                return count, left, True
        rows[count], live[winner] = winner, False
        values[count] = exact(vectors[winner], centres[near[winner]])
        centres[count] = vectors[winner]
        left -= cost[winner]
        for row in candidates:
            if live[row]:
                product = dot(vectors[row], centres[count])
                if product > best[row]:
                    best[row], near[row] = product, count
                seen[row] = count + 1
        count += 1
    return count, left, False


@numba.njit(nogil=True, cache=True)
def _given(vectors: Any, start: Any, centres: Any, values: Any) -> None:
    """Take the rows chosen before as centres, with the largest product of each with those ahead of it."""
    for i in range(len(start)):
        best, near = np.float32(-np.inf), 0
        for j in range(i):
            product = dot(vectors[start[i]], centres[j])
            if product > best:
                best, near = product, j
        centres[i] = vectors[start[i]]
        values[i] = exact(vectors[start[i]], centres[near]) if i else -1.0


def farthest_first(
    vectors: Array, start: Array, live: Array, cost: Array, limit: int, place: Array
) -> tuple[Array, Array]:
    """Return (rows, products): again and again the row whose nearest chosen row is farthest away.

    `vectors`: unit rows, float32 [n, d]. `start`: rows chosen already (int64, one at least; all paid for).
    `live`: rows that may be chosen (bool); it is used up. `cost` and `limit`: what each row costs and what
    may be spent; a row that costs more than is left is passed over. `place` breaks ties, the smaller wins.
    A product is the row's largest with those before it (float64), -1 for the first. It ends early when all
    that remains costs too much or is the same as a chosen row (a product of COVERED or more).

    The rows are those of the plain algorithm: values closer than float32 can tell are held against each
    other in float64.
    """
    size, width = vectors.shape
    slack = rounding(width) + 2 * TIE
    room = min(size, len(start) + 1024)
    centres, values = np.empty((room, width), np.float32), np.empty(room)
    rows = np.empty(room, np.int64)
    rows[: len(start)] = start
    _given(vectors, start, centres, values)
    live[start] = False
    left, count = limit - int(cost[start].sum()), len(start)
    best, near = np.empty(size, np.float32), np.zeros(size, np.int32)
    seen = np.ones(size, np.int32)
    # One heap for each core: more of them would each keep candidates up to date that are far behind.
    parts = row_parts(size, width, os.cpu_count() or 1)
    heaps = {part: np.empty(part[1] - part[0] + 1, np.int64) for part in parts}
    ends = {part: np.zeros(2, np.int64) for part in parts}

    def begin(a: int, b: int) -> None:
        ends[a, b][:] = _begin(vectors, centres[0], a, b, live, best, heaps[a, b])

    def front(a: int, b: int) -> None:
        _front(
            vectors, centres, count, cost, left, slack, live, best, near, seen, heaps[a, b], ends[a, b]
        )  # fmt: skip

    on_all_cores(begin, parts)
    covered = False
    while left > 0 and not covered:
        if count == len(rows):
            if count == size:
                break
            room = min(size, 2 * count)
            centres, values, rows = (_grown(old, room) for old in (centres, values, rows))
        on_all_cores(front, parts)
        candidates = np.concatenate([heaps[p][ends[p][0] : ends[p][1]] for p in parts])
        if not len(candidates):
            break
        tops = [best[heaps[p][0]] for p in parts if ends[p][0]]
        count, left, covered = _choose(
            vectors, centres, count, cost, left, slack, live, best, near, seen, candidates,
            float(min(tops, default=np.inf)), place, rows, values,
        )  # fmt: skip
    return rows[:count].copy(), values[:count].copy()


def _grown(old: Array, room: int) -> Array:
    new = np.empty((room, *old.shape[1:]), old.dtype)
    new[: len(old)] = old
    return new
