"""What tells equal and nearly equal texts without the texts: 128-bit keys and MinHash bands.

Nearness is the Jaccard similarity of two texts' sets of word n-grams. Candidates are rows that share a band
of their MinHash signatures (Broder 1997; bands: Leskovec, Rajaraman & Ullman, *Mining of Massive Datasets*,
§3.4); `kernels.rivals` verifies each pair on the whole sets. 16 bytes a row are held, and 8 a band.

Plain permutations, not one-permutation hashing: with 16 lanes of 32-bit arithmetic 80 of them cost less than
the tokenising, and a text of a few n-grams needs no densification.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numba
import numpy as np
import pyarrow as pa
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from taskmill.kernels.matrix import spread
from taskmill.kernels.plain import eight, mix
from taskmill.kernels.words import Words, buffers, chunks, ngrams, on_all_cores, words

__all__ = [
    "Bands",
    "Sketch",
    "bands_for",
    "blocks",
    "in_one_piece",
    "keys_of",
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


_SLOTS = 16
"""Hashes computed at once: a register of AVX-512."""


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
    """Return a 128-bit key of each text's bytes (uint64 [n, 2]); nulls are empty texts.

    Two different texts have one key with a chance of 2**-128: among 10**9 rows, of 10**-21 for any two.
    """
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
    slots = -(-bands.number * bands.width // _SLOTS) * _SLOTS  # whole vectors; what is over is not read
    random = np.random.Generator(np.random.PCG64(seed))
    factors, shifts = random.integers(0, 1 << 32, (2, slots), np.uint32)
    factors |= np.uint32(1)
    n = len(texts)
    found = Sketch(np.empty((n, 2), np.uint64), np.empty((bands.number, n), np.uint64), np.empty(n, np.int32))
    for first, last in blocks(texts):
        part = texts.slice(first, last - first)
        own = words(part)
        grams, rows = ngrams(own, size)
        counts = np.diff(own.rows)
        keys, sizes = found.keys[first:last], found.sizes[first:last]
        sizes[:] = np.maximum(counts - size + 1, 1)
        keys[:] = keys_of(part, own)
        out = found.bands[:, first:last]
        work = partial(_minhash, grams, rows, keys, factors, shifts, bands.width, out)
        on_all_cores(work, chunks(sizes))
    return found


def keys_of(texts: pa.Array, own: Words) -> Array:
    """Return a 128-bit key of each text's words, or of its bytes where it has none (uint64 [n, 2])."""
    keys = word_keys(own)
    bare = np.flatnonzero(np.diff(own.rows) == 0)
    if len(bare):
        keys[bare] = text_keys(texts.take(pa.array(bare)))
    return keys


def word_keys(found: Words) -> Array:
    """Return a 128-bit key of each row's words in their order (uint64 [n, 2])."""
    keys = np.empty((len(found.rows) - 1, 2), np.uint64)
    on_all_cores(partial(_word_keys, found.hashes, found.rows, keys), chunks(np.diff(found.rows)))
    return keys


def blocks(texts: pa.Array) -> Iterator[tuple[int, int]]:
    """Yield runs of rows of about BLOCK bytes."""
    _, offsets = buffers(texts)
    row, rows = 0, len(texts)
    while row < rows:
        last = int(np.searchsorted(offsets, offsets[row] + BLOCK, "right")) - 1
        last = min(max(last, row + 1), rows)
        yield row, last
        row = last


# The kernels.

_FACTOR_1 = np.uint64(0x9E3779B185EBCA87)  # odd constants of xxHash64
_FACTOR_2 = np.uint64(0xC2B2AE3D27D4EB4F)


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
            # Each half takes in the other, so that a difference must cancel in both at once.
            one = _stir(one, eight(data, at), _FACTOR_1) + two
            two = _stir(two, eight(data, at + 8), _FACTOR_2) ^ one
            at += 16
        rest, shift = np.uint64(0), np.uint64(0)
        while at < end:  # the length is in `one`: nothing is lost by filling up with zeros
            rest |= np.uint64(data[at]) << shift
            shift += np.uint64(8)
            at += 1
            if shift == np.uint64(64):
                one = _stir(one + two, rest, _FACTOR_1)
                rest, shift = np.uint64(0), np.uint64(0)
        two = _stir(two + one, rest, _FACTOR_2)
        _close(one, two, keys, row)


@numba.njit(nogil=True, cache=True)
def _same(data: Any, offsets: Any, left: Any, right: Any, same: Any, first: int, last: int) -> None:
    for pair in range(first, last):
        a, b = offsets[left[pair]], offsets[right[pair]]
        size = offsets[left[pair] + 1] - a
        equal = size == offsets[right[pair] + 1] - b
        i = 0
        while equal and i + 8 <= size:
            equal = eight(data, a + i) == eight(data, b + i)
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


@intrinsic
def _least(context: Any, values: Any, many: Any, factors: Any, shifts: Any, slot: Any, out: Any) -> Any:
    """Write the least hashes of `values[:many]` (uint32) into the 16 slots of `out` from `slot` on.

    Written in the compiler's own terms, so that they stay in a register while the values go by.
    """
    sixteen = ir.VectorType(ir.IntType(32), _SLOTS)

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data, factor, shift, least = (
            context.make_array(signature.args[k])(context, builder, arguments[k]).data for k in (0, 2, 3, 5)
        )
        slots = [
            builder.bitcast(builder.gep(place, [arguments[4]]), sixteen.as_pointer())
            for place in (factor, shift, least)
        ]
        factor, shift = (builder.load(place, align=4) for place in slots[:2])
        found = cgutils.alloca_once_value(builder, ir.Constant(sixteen, [0xFFFFFFFF] * _SLOTS))
        with cgutils.for_range(builder, arguments[1]) as loop:
            one = spread(builder, builder.load(builder.gep(data, [loop.index])), sixteen)
            hashed = builder.add(builder.mul(one, factor), shift)
            before = builder.load(found)
            smaller = builder.icmp_unsigned("<", hashed, before)
            builder.store(builder.select(smaller, hashed, before), found)
        builder.store(builder.load(found), slots[2], align=4)
        return context.get_dummy_value()

    return types.void(values, types.int64, factors, shifts, types.int64, out), build


@numba.njit(nogil=True, cache=True)
def _minhash(
    grams: Any, rows: Any, keys: Any, factors: Any, shifts: Any, width: int, bands: Any, first: int, last: int
) -> None:
    least = np.empty(len(factors), np.uint32)
    most = 1
    for row in range(first, last):
        most = max(most, rows[row + 1] - rows[row])
    values = np.empty(most, np.uint32)
    for row in range(first, last):
        start, many = rows[row], rows[row + 1] - rows[row]
        for i in range(many):
            values[i] = np.uint32(grams[start + i] >> np.uint64(32))
        if many == 0:
            values[0], many = np.uint32(keys[row, 0] >> np.uint64(32)), 1
        for slot in range(0, len(factors), _SLOTS):
            _least(values, many, factors, shifts, slot, least)
        for band in range(len(bands)):
            key = np.uint64(band)
            for slot in range(band * width, (band + 1) * width):
                key = _stir(key, np.uint64(least[slot]), _FACTOR_1)
            bands[band, row] = mix(key)
