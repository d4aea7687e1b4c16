"""Which row goes for which: rows that share a MinHash band, judged by their true Jaccard similarity.

Rows linked by shared bands make components, and no row is compared with one outside of its own. So components
are judged apart from each other, as many at a time as `BATCH` allows, and only those rows' n-grams are held.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numba
import numpy as np
import pyarrow as pa

from taskmill.kernels.graph import firsts, join
from taskmill.kernels.near import Sketch, blocks, keys_of
from taskmill.kernels.words import chunks, ngrams, on_all_cores, words

__all__ = ["Linked", "Sets", "linked", "nearest_before", "put_sets", "sets_of", "settled"]

Array = np.ndarray[Any, Any]

SORTED = 1 << 26
"""Rows times bands sorted at once (chosen: sorting holds 32 bytes for each, 2 GB)."""

BATCH = 1 << 24
"""Numbers of 8 bytes held of the rows that are judged at once (chosen: n-grams and buckets of 128 MB)."""


class Linked(NamedTuple):
    """Rows that share a band with another: `rows` (int64 [m]), component by component.

    Component c is `rows[starts[c]:starts[c + 1]]`, in order of preference. `same` (int64 [n]): for each row
    the first of equal words; only such first rows are linked.
    """

    same: Array
    rows: Array
    starts: Array


class Sets(NamedTuple):
    """Sorted distinct n-gram hashes: those of text i are `hashes[begins[i]:begins[i] + sizes[i]]`."""

    hashes: Array
    begins: Array
    sizes: Array


def nearest_before(
    texts: pa.Array, found: Sketch, size: int, threshold: float, order: Array
) -> tuple[Array, Array]:
    """Return (survivor of each row, similarity to it): the row itself and 0 where it survives.

    Rows are judged in `order` (int64, every row once): a row goes if its words are those of a row before it,
    or if its Jaccard similarity to a *survivor* before it, one that shares a band, is at least `threshold`.
    The first such survivor in the order is named. So no row goes for a row that goes itself, and no chain
    of small steps joins what is different.
    """
    links = linked(found, order)

    def sets(first: int, last: int) -> Sets:
        return sets_of(texts.take(pa.array(links.rows[first:last])), size)

    return settled(found, links, sets, threshold)


def linked(found: Sketch, order: Array) -> Linked:
    """Return the rows that share a band, by sorting each band; `order` as in `nearest_before`."""
    same = firsts(found.keys, order)
    distinct = order[same[order] == order]  # here rows are named by their place in this list
    shared, parent = np.zeros(len(distinct), np.bool_), np.arange(len(distinct))
    links: dict[int, tuple[Array, Array]] = {}

    def sort(first: int, last: int) -> None:
        for band in range(first, last):
            keys = found.bands[band][distinct]
            by_key = np.argsort(keys)
            keys = keys[by_key]
            equal = keys[1:] == keys[:-1]
            links[band] = by_key[:-1][equal], by_key[1:][equal]

    count = len(found.bands)
    step = max(1, min(os.cpu_count() or 1, SORTED // max(1, len(distinct))))
    for start in range(0, count, step):
        on_all_cores(sort, [(band, band + 1) for band in range(start, min(start + step, count))])
        for band in sorted(links):
            left, right = links.pop(band)
            shared[left] = shared[right] = True
            join(parent, left, right)
    members = np.flatnonzero(shared)
    members = members[np.argsort(parent[members], kind="stable")]  # within a component in their order
    starts = np.flatnonzero(np.concatenate(([True], np.diff(parent[members]) != 0, [True])))
    return Linked(same, distinct[members], starts if len(members) else np.zeros(1, np.int64))


def sets_of(texts: pa.Array, size: int) -> Sets:
    """Return the sets of n-grams of texts, each in a place for as many hashes as `Sketch.sizes` says."""
    hashes, sizes = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    slots = [np.zeros(1, np.int64)]
    for first, last in blocks(texts):
        part = texts.slice(first, last - first)
        own = words(part)
        grams, rows = ngrams(own, size)
        room = np.maximum(np.diff(rows), 1)
        begins = np.concatenate(([0], np.cumsum(room)))
        into, counts = np.empty(int(begins[-1]), np.uint64), np.empty(len(part), np.int64)
        work = partial(_distinct, grams, rows, keys_of(part, own), begins, into, counts)
        on_all_cores(work, chunks(room))
        hashes.append(into)
        sizes.append(counts)
        slots.append(room)
    return Sets(np.concatenate(hashes), np.cumsum(np.concatenate(slots)), np.concatenate(sizes))


def put_sets(own: Sets, places: Array, into: Sets) -> None:
    """Write sets to their places (int64) among those of all linked rows, which may be mapped from a file."""
    into.sizes[places] = own.sizes
    _put(*own, into.begins[places], into.hashes)


def settled(
    found: Sketch, links: Linked, sets: Callable[[int, int], Sets], threshold: float
) -> tuple[Array, Array]:
    """Return what `nearest_before` does; `sets(a, b)` gives the n-grams of `links.rows[a:b]`."""
    rows = len(links.same)
    survivor, score = np.arange(rows), np.zeros(rows)
    for first, last in _batches(found, links):
        own = links.rows[links.starts[first] : links.starts[last]]
        starts = links.starts[first : last + 1] - links.starts[first]
        held = sets(int(links.starts[first]), int(links.starts[last]))
        best, similarity = _settle_all(_buckets(found.bands[:, own]), starts, held, threshold)
        lost = best != np.arange(len(best))
        survivor[own[lost]] = own[best[lost]]
        score[own[lost]] = similarity[lost]
    repeated = np.flatnonzero(links.same != np.arange(rows))
    same = links.same[repeated]
    score[repeated] = np.where(survivor[same] == same, 1.0, score[same])
    survivor[repeated] = survivor[same]
    return survivor, score


def _batches(found: Sketch, links: Linked) -> Iterator[tuple[int, int]]:
    """Yield runs of components that need about BATCH numbers to be judged; a larger one is a run alone."""
    if not len(links.rows):
        return
    costs = np.add.reduceat(found.sizes[links.rows] + 3 * np.int64(len(found.bands)), links.starts[:-1])
    ahead = np.concatenate(([0], np.cumsum(costs)))
    first = 0
    while first < len(costs):
        last = int(np.searchsorted(ahead, ahead[first] + BATCH, "right")) - 1
        last = max(last, first + 1)
        yield first, last
        first = last


def _buckets(bands: Array) -> Array:
    """Return the bucket of each band and row (int64 [bands, rows]), numbered through; -1: it is alone."""
    buckets = np.full(bands.shape, -1, np.int64)

    def sort(first: int, last: int) -> None:
        for band in range(first, last):
            order = np.argsort(bands[band])
            keys = bands[band][order]
            follows = np.concatenate(([False], keys[1:] == keys[:-1]))
            member = follows | np.append(follows[1:], False)
            buckets[band, order[member]] = np.cumsum(member & ~follows)[member] - 1

    on_all_cores(sort, [(band, band + 1) for band in range(len(bands))])
    ahead = 0
    for band in range(len(bands)):
        own: Array = buckets[band]
        own[own >= 0] += ahead
        ahead = max(ahead, int(own.max(initial=-1)) + 1)
    return buckets


def _settle_all(buckets: Array, starts: Array, sets: Sets, threshold: float) -> tuple[Array, Array]:
    """Judge components apart from each other, on all cores."""
    rows = int(starts[-1])
    best, similarity = np.arange(rows), np.zeros(rows)
    heads = np.full(int(buckets.max()) + 1, -1, np.int64)
    nexts = np.full(buckets.shape, -1, np.int64)
    seen = np.full(rows, -1, np.int64)
    work = partial(_settle, starts, buckets, heads, nexts, seen, *sets, threshold, best, similarity)
    on_all_cores(work, chunks(np.diff(starts)))
    return best, similarity


# The kernels.


@numba.njit(nogil=True, cache=True)
def _put(hashes: Any, begins: Any, sizes: Any, places: Any, into: Any) -> None:
    for row in range(len(sizes)):
        for i in range(sizes[row]):
            into[places[row] + i] = hashes[begins[row] + i]


@numba.njit(nogil=True, cache=True)
def _distinct(
    grams: Any, rows: Any, keys: Any, begins: Any, hashes: Any, sizes: Any, first: int, last: int
) -> None:
    """Write the sorted set of each row's n-grams."""
    most = 1
    for row in range(first, last):
        most = max(most, rows[row + 1] - rows[row])
    places, ordered = np.empty(2 * most + 3, np.int64), np.empty(most, np.uint64)
    for row in range(first, last):
        start, end, to = rows[row], rows[row + 1], begins[row]
        if start == end:
            hashes[to], sizes[row] = keys[row, 0], 1
            continue
        _sort(grams[start:end], places, ordered)
        count = 0
        for value in ordered[: end - start]:
            if count == 0 or hashes[to + count - 1] != value:
                hashes[to + count] = value
                count += 1
        sizes[row] = count


@numba.njit(nogil=True, cache=True)
def _sort(values: Any, places: Any, ordered: Any) -> None:
    """Write well-mixed values in ascending order: by leading bits, about one a place, then by insertion.

    `places` has room for two numbers a value and three more.
    """
    bits = 1
    while 1 << (bits + 1) <= 2 * len(values):
        bits += 1
    shift = np.uint64(64 - bits)
    places[: (1 << bits) + 1] = 0
    for value in values:
        places[np.int64(value >> shift) + 1] += 1
    for place in range(1 << bits):
        places[place + 1] += places[place]
    for value in values:
        bucket = np.int64(value >> shift)
        ordered[places[bucket]] = value
        places[bucket] += 1
    for i in range(1, len(values)):
        value, at = ordered[i], i
        while at > 0 and ordered[at - 1] > value:
            ordered[at] = ordered[at - 1]
            at -= 1
        ordered[at] = value


@numba.njit(nogil=True, cache=True)
def _jaccard(hashes: Any, a: int, a_size: int, b: int, b_size: int, threshold: float) -> Any:
    """Return the similarity of two sorted sets, or 0 as soon as it cannot reach the threshold."""
    need = threshold / (1 + threshold) * (a_size + b_size) - 1e-6
    i, j, shared = 0, 0, 0
    while i < a_size and j < b_size:
        if shared + min(a_size - i, b_size - j) < need:
            return 0.0
        x, y = hashes[a + i], hashes[b + j]
        shared += x == y
        i += x <= y
        j += y <= x
    return shared / (a_size + b_size - shared)


@numba.njit(nogil=True, cache=True)
def _settle(
    starts: Any,
    buckets: Any,
    heads: Any,
    nexts: Any,
    seen: Any,
    hashes: Any,
    begins: Any,
    sizes: Any,
    threshold: float,
    best: Any,
    similarity: Any,
    first: int,
    last: int,
) -> None:
    """Judge the rows of some components in order. The survivors of a bucket form a list from `heads`."""
    rivals = np.empty(64, np.int64)
    for row in range(starts[first], starts[last]):
        count = 0
        for band in range(len(buckets)):
            rival = heads[buckets[band, row]] if buckets[band, row] >= 0 else -1
            while rival >= 0:
                if seen[rival] != row:
                    seen[rival] = row
                    if count == len(rivals):
                        rivals = np.concatenate((rivals, np.empty_like(rivals)))
                    rivals[count] = rival
                    count += 1
                rival = nexts[band, rival]
        for rival in np.sort(rivals[:count]):
            score = _jaccard(hashes, begins[row], sizes[row], begins[rival], sizes[rival], threshold)
            if score >= threshold:
                best[row], similarity[row] = rival, score
                break
        if best[row] == row:
            for band in range(len(buckets)):
                bucket = buckets[band, row]
                if bucket >= 0:
                    nexts[band, row] = heads[bucket]
                    heads[bucket] = row
