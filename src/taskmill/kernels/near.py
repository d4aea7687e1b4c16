"""Equal and nearly equal texts: 128-bit keys, MinHash bands, and the true Jaccard of candidate pairs.

Nearness is the Jaccard similarity of two texts' sets of word n-grams. Candidates are rows that share a band
of their MinHash signatures (Broder 1997; bands: Leskovec, Rajaraman & Ullman, *Mining of Massive Datasets*,
§3.4); every pair that counts is verified on the whole sets. Hashes are held, not texts: 16 bytes a row and
8 a band, and the n-grams of rows that share a band with another.

Plain permutations, not one-permutation hashing: with 16 lanes of 32-bit arithmetic 80 of them cost less than
the tokenising, and a text of a few n-grams needs no densification.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numba
import numpy as np
import pyarrow as pa
from numba.core import types
from numba.extending import intrinsic

from taskmill.kernels.graph import components, firsts
from taskmill.kernels.words import Words, buffers, chunks, mix, ngrams, on_all_cores, words

__all__ = [
    "Bands",
    "Sketch",
    "bands_for",
    "in_one_piece",
    "nearest_before",
    "same_texts",
    "sketch",
    "text_keys",
    "word_keys",
]

Array = np.ndarray[Any, Any]

BLOCK = 32 << 20
"""Bytes of text sketched at a time (chosen: its words and n-grams take three times that)."""

MOST_BANDS = 16
"""Chosen: at a threshold of 0.8, bands of six; pairs at 0.5 are candidates in one case of five."""

RECALL = 0.98
"""Chosen: share of pairs exactly at the threshold that share a band; it is higher above (0.9996 at 0.9)."""


class Bands(NamedTuple):
    """`number` bands of `width` MinHash values each."""

    number: int
    width: int

    def chance(self, similarity: float) -> float:
        """Return the chance that two texts of this Jaccard similarity become candidates."""
        return float(1 - (1 - similarity**self.width) ** self.number)


def bands_for(threshold: float, recall: float = RECALL) -> Bands:
    """Return the widest bands, then the fewest, that find pairs at the threshold with this chance."""
    for width in range(12, 0, -1):
        for number in range(1, MOST_BANDS + 1):
            if Bands(number, width).chance(threshold) >= recall:
                return Bands(number, width)
    return Bands(4 * MOST_BANDS, 1)  # below 0.22: more single values, until then nobody needs them


class Sketch(NamedTuple):
    """What is held of n texts.

    `keys` uint64 [n, 2], equal where the words are; `bands` uint64 [number, n]; `sizes` int32 [n]: how many
    n-grams a text has, repeated ones counted.
    """

    keys: Array
    bands: Array
    sizes: Array


def in_one_piece(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return a string column as one array without nulls (they become empty texts)."""
    data, offsets = buffers(texts)
    return pa.LargeStringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(data))


def text_keys(texts: pa.Array) -> Array:
    """Return a 128-bit key of each text's bytes (uint64 [n, 2]); nulls are empty texts."""
    data, offsets = buffers(texts)
    keys = np.empty((len(offsets) - 1, 2), np.uint64)
    on_all_cores(partial(_text_keys, data, offsets, keys), chunks(np.diff(offsets)))
    return keys


def same_texts(texts: pa.Array, left: Array, right: Array) -> Array:
    """Say for each pair of rows whether the texts are the same, byte for byte."""
    data, offsets = buffers(texts)
    same = np.empty(len(left), np.bool_)
    sizes = np.diff(offsets)[left] if len(left) else np.zeros(0, np.int64)
    on_all_cores(partial(_same, data, offsets, left, right, same), chunks(sizes))
    return same


def sketch(texts: pa.Array, size: int, bands: Bands, seed: int = 0) -> Sketch:
    """Return keys and band hashes of texts, for n-grams of `size` words.

    A text of fewer words is one n-gram: itself. A text without words has its bytes as its only word.
    """
    slots = -(-bands.number * bands.width // 16) * 16  # whole vectors; what is over is not read
    random = np.random.Generator(np.random.PCG64(seed))
    factors, shifts = random.integers(0, 1 << 32, (2, slots), np.uint32)
    factors |= np.uint32(1)
    n = len(texts)
    found = Sketch(np.empty((n, 2), np.uint64), np.empty((bands.number, n), np.uint64), np.empty(n, np.int32))
    for first, last in _blocks(texts):
        part = texts.slice(first, last - first)
        own = words(part)
        grams, rows = ngrams(own, size)
        counts = np.diff(own.rows)
        keys, sizes = found.keys[first:last], found.sizes[first:last]
        sizes[:] = np.maximum(counts - size + 1, 1)
        keys[:] = word_keys(own)
        bare = np.flatnonzero(counts == 0)
        if len(bare):
            keys[bare] = text_keys(part.take(pa.array(bare)))
        out = found.bands[:, first:last]
        work = partial(_minhash, grams, rows, keys, factors, shifts, bands.width, out)
        on_all_cores(work, chunks(sizes))
    return found


def word_keys(found: Words) -> Array:
    """Return a 128-bit key of each row's words in their order (uint64 [n, 2])."""
    keys = np.empty((len(found.rows) - 1, 2), np.uint64)
    on_all_cores(partial(_word_keys, found.hashes, found.rows, keys), chunks(np.diff(found.rows)))
    return keys


def _blocks(texts: pa.Array) -> Iterator[tuple[int, int]]:
    """Yield runs of rows of about BLOCK bytes."""
    _, offsets = buffers(texts)
    row, rows = 0, len(texts)
    while row < rows:
        last = int(np.searchsorted(offsets, offsets[row] + BLOCK, "right")) - 1
        last = min(max(last, row + 1), rows)
        yield row, last
        row = last


def nearest_before(
    texts: pa.Array, found: Sketch, size: int, threshold: float, order: Array
) -> tuple[Array, Array]:
    """Return (survivor of each row, similarity to it): the row itself and 0 where it survives.

    Rows are judged in `order` (int64, every row once): a row goes if its words are those of a row before it,
    or if its Jaccard similarity to a *survivor* before it, one that shares a band, is at least `threshold`.
    The first such survivor in the order is named. So no row goes for a row that goes itself, and no chain
    of small steps joins what is different.
    """
    same = firsts(found.keys, order)
    distinct = order[same[order] == order]  # from here on rows are named by their place in this list
    buckets, root = _buckets(found.bands, distinct)
    shared = np.flatnonzero((buckets >= 0).any(axis=0)) if len(buckets) else np.zeros(0, np.int64)
    sets = _sets(texts, distinct[shared], found, size)
    best, similarity = _settle_all(buckets[:, shared], root[shared], sets, threshold)
    survivor, score = np.arange(len(texts)), np.zeros(len(texts))
    lost = best != np.arange(len(best))
    survivor[distinct[shared[lost]]] = distinct[shared[best[lost]]]
    score[distinct[shared[lost]]] = similarity[lost]
    repeated = np.flatnonzero(same != np.arange(len(same)))
    score[repeated] = np.where(survivor[same[repeated]] == same[repeated], 1.0, score[same[repeated]])
    survivor[repeated] = survivor[same[repeated]]
    return survivor, score


def _buckets(bands: Array, distinct: Array) -> tuple[Array, Array]:
    """Return (bucket of each band and row, component of each row) by sorting each band.

    Buckets (int64 [bands, rows]) are numbered through all bands; -1: no other row shares the band.
    """
    count, rows = len(bands), len(distinct)
    buckets = np.full((count, rows), -1, np.int64)
    if not rows:
        return buckets, distinct
    links: list[tuple[Array, Array]] = [(distinct, distinct)] * count

    def sort(first: int, last: int) -> None:
        for band in range(first, last):
            keys = bands[band, distinct]
            order = np.argsort(keys)
            keys = keys[order]
            equal = keys[1:] == keys[:-1]
            follows = np.concatenate(([False], equal))
            member = follows | np.append(equal, False)
            number = np.cumsum(member & ~follows) - 1
            buckets[band, order[member]] = number[member]
            links[band] = (order[:-1][equal], order[1:][equal])

    on_all_cores(sort, [(i, i + 1) for i in range(count)])
    ahead = np.cumsum([0, *(int(b.max(initial=-1)) + 1 for b in buckets)])
    for band in range(count):
        buckets[band][buckets[band] >= 0] += ahead[band]
    left, right = (np.concatenate([pair[side] for pair in links]) for side in (0, 1))
    return buckets, components(rows, left, right)


class _Sets(NamedTuple):
    """Sorted distinct n-gram hashes: those of row i are `hashes[begins[i]:begins[i] + sizes[i]]`."""

    hashes: Array
    begins: Array
    sizes: Array


def _sets(texts: pa.Array, rows: Array, found: Sketch, size: int) -> _Sets:
    begins = np.concatenate(([0], np.cumsum(found.sizes[rows], dtype=np.int64)))
    sets = _Sets(np.empty(int(begins[-1]), np.uint64), begins, np.empty(len(rows), np.int64))
    _, offsets = buffers(texts)
    ahead = np.concatenate(([0], np.cumsum(np.diff(offsets)[rows])))
    cuts = np.unique([*np.searchsorted(ahead, np.arange(0, ahead[-1], BLOCK)), len(rows)])
    for first, last in pairwise(cuts.tolist()):
        own = words(texts.take(pa.array(rows[first:last])))
        grams, places = ngrams(own, size)
        keys = found.keys[rows[first:last]]
        work = partial(_distinct, grams, places, keys, sets.begins[first:], sets.hashes, sets.sizes[first:])
        on_all_cores(work, chunks(np.diff(places)))
    return sets


def _settle_all(buckets: Array, root: Array, sets: _Sets, threshold: float) -> tuple[Array, Array]:
    """Judge the components of rows that share bands apart from each other, on all cores."""
    rows = len(root)
    members = np.argsort(root, kind="stable")  # within a component, rows stay in their order
    starts = np.flatnonzero(np.concatenate(([True], np.diff(root[members]) != 0, [True])))
    best, similarity = np.arange(rows), np.zeros(rows)
    if not rows:
        return best, similarity
    heads = np.full(int(buckets.max()) + 1, -1, np.int64)
    nexts = np.full(buckets.shape, -1, np.int64)
    seen = np.full(rows, -1, np.int64)
    work = partial(_settle, members, starts, buckets, heads, nexts, seen, *sets, threshold, best, similarity)
    on_all_cores(work, chunks(np.diff(starts)))
    return best, similarity


# The kernels.

_FACTOR_1 = np.uint64(0x9E3779B185EBCA87)  # odd constants of xxHash64
_FACTOR_2 = np.uint64(0xC2B2AE3D27D4EB4F)


@intrinsic
def _eight(context: Any, data: Any, at: Any) -> Any:
    """Load eight bytes from `data[at]` on, aligned or not."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.gep(array.data, [arguments[1]])
        word = context.get_value_type(types.uint64).as_pointer()
        return builder.load(builder.bitcast(place, word), align=1)

    return types.uint64(data, types.int64), build


@numba.njit(nogil=True, cache=True, inline="always")
def _stir(value: Any, word: Any, factor: Any) -> Any:
    value = (value ^ word) * factor
    return (value << np.uint64(31)) | (value >> np.uint64(33))


@numba.njit(nogil=True, cache=True, inline="always")
def _close(one: Any, two: Any, keys: Any, row: Any) -> None:
    """Spread two halves over the key; no two pairs of halves give one key."""
    keys[row, 0] = mix(one ^ mix(two))
    keys[row, 1] = mix(two + keys[row, 0])


@numba.njit(nogil=True, cache=True)
def _text_keys(data: Any, offsets: Any, keys: Any, first: int, last: int) -> None:
    for row in range(first, last):
        at, end = offsets[row], offsets[row + 1]
        one, two = np.uint64(end - at), _FACTOR_2
        while at + 16 <= end:
            one = _stir(one, _eight(data, at), _FACTOR_1)
            two = _stir(two, _eight(data, at + 8), _FACTOR_2)
            at += 16
        rest, shift = np.uint64(0), np.uint64(0)
        while at < end:  # the length is in `one`: nothing is lost by filling up with zeros
            rest |= np.uint64(data[at]) << shift
            shift += np.uint64(8)
            at += 1
            if shift == np.uint64(64):
                one = _stir(one, rest, _FACTOR_1)
                rest, shift = np.uint64(0), np.uint64(0)
        two = _stir(two, rest, _FACTOR_2)
        _close(one, two, keys, row)


@numba.njit(nogil=True, cache=True)
def _same(data: Any, offsets: Any, left: Any, right: Any, same: Any, first: int, last: int) -> None:
    for pair in range(first, last):
        a, b = offsets[left[pair]], offsets[right[pair]]
        size = offsets[left[pair] + 1] - a
        equal = size == offsets[right[pair] + 1] - b
        i = 0
        while equal and i + 8 <= size:
            equal = _eight(data, a + i) == _eight(data, b + i)
            i += 8
        while equal and i < size:
            equal = data[a + i] == data[b + i]
            i += 1
        same[pair] = equal


@numba.njit(nogil=True, cache=True)
def _word_keys(hashes: Any, rows: Any, keys: Any, first: int, last: int) -> None:
    for row in range(first, last):
        one, two = np.uint64(rows[row + 1] - rows[row]), _FACTOR_2
        for i in range(rows[row], rows[row + 1]):
            one = _stir(one, hashes[i], _FACTOR_1)
            two = two * _FACTOR_2 + hashes[i]
        _close(one, two, keys, row)


@numba.njit(nogil=True, cache=True)
def _minhash(
    grams: Any, rows: Any, keys: Any, factors: Any, shifts: Any, width: int, bands: Any, first: int, last: int
) -> None:
    least = np.empty(len(factors), np.uint32)
    for row in range(first, last):
        least[:] = np.uint32(0xFFFFFFFF)
        start, end = rows[row], rows[row + 1]
        for i in range(start, max(end, start + 1)):
            value = np.uint32((grams[i] if start < end else keys[row, 0]) >> np.uint64(32))
            for slot in range(len(factors)):
                hashed = np.uint32(value * factors[slot] + shifts[slot])
                least[slot] = min(least[slot], hashed)
        for band in range(len(bands)):
            key = np.uint64(band)
            for slot in range(band * width, (band + 1) * width):
                key = _stir(key, np.uint64(least[slot]), _FACTOR_1)
            bands[band, row] = mix(key)


@numba.njit(nogil=True, cache=True)
def _distinct(
    grams: Any, rows: Any, keys: Any, begins: Any, hashes: Any, sizes: Any, first: int, last: int
) -> None:
    """Write the sorted set of each row's n-grams."""
    for row in range(first, last):
        start, end, to = rows[row], rows[row + 1], begins[row]
        if start == end:
            hashes[to], sizes[row] = keys[row, 0], 1
            continue
        ordered = np.sort(grams[start:end])
        count = 0
        for value in ordered:
            if count == 0 or hashes[to + count - 1] != value:
                hashes[to + count] = value
                count += 1
        sizes[row] = count


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
    members: Any,
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
    for row in members[starts[first] : starts[last]]:
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
