"""Hashed n-grams of many texts, and what is read off them: counts, sums of a table, projected TF-IDF.

The n-grams of a row are its words and its pairs of neighbouring words, as `kernels.words` hashes them. Texts
are read a block at a time, so that the 64-bit hashes of a large column never exist at once. No result depends
on the blocks or on the number of threads: each row is summed alone, in a fixed order.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taskmill.kernels.plain import mix
from taskmill.kernels.words import Words, chunks, on_all_cores, words

__all__ = ["Frequencies", "Grams", "counts", "frequencies", "grams", "means", "project", "sums"]

Array = np.ndarray[Any, Any]

BLOCK = 32 << 20
"""Bytes of text whose words are held at once (chosen: about 100 MB of hashes, hundreds of rows per core)."""

FREQUENCY_BITS = 20
"""Document frequencies have 2**20 buckets (chosen: 8 MB per core; most vocabularies collide little)."""


class Grams(NamedTuple):
    """Bucket numbers of all rows' n-grams in one line. `buckets[rows[i]:rows[i + 1]]` are those of row i.

    A row of w words has 2w - 1: its words, then its pairs. uint16 up to 65,536 buckets, else uint32.
    """

    buckets: Array
    rows: Array


class Frequencies(NamedTuple):
    """In how many of `rows` texts an n-gram of each bucket occurs (int64 [2**FREQUENCY_BITS])."""

    rows: int
    counts: Array


def grams(texts: pa.Array | pa.ChunkedArray, buckets: int) -> Grams:
    """Return the words and word pairs of a string column as bucket numbers below `buckets` (at most 2**32).

    Nulls count as empty. The bucket of a hash h is floor(h / 2**32 * buckets / 2**32), as even as h.
    """
    kind = np.uint16 if buckets <= 1 << 16 else np.uint32
    parts, sizes = [np.zeros(0, kind)], [np.zeros(1, np.int64)]
    for block in _blocks(texts):
        found = words(block)
        size = _sizes(found)
        parts.append(_hashed(found, size, np.uint64(buckets), kind))
        sizes.append(size)
    return Grams(np.concatenate(parts), np.cumsum(np.concatenate(sizes)))


def counts(found: Grams, buckets: int) -> Array:
    """Return how many n-grams fall into each bucket (int64 [buckets])."""
    parts = _even(len(found.buckets))
    own = {part: np.zeros(buckets, np.int64) for part in parts}  # integers: any order of addition is equal
    on_all_cores(lambda a, b: _count(found.buckets, a, b, own[(a, b)]), parts)
    total: Array = np.sum([np.zeros(buckets, np.int64), *own.values()], axis=0)
    return total


def sums(found: Grams, table: Array) -> Array:
    """Return for each row the sum of `table` (float64 [buckets]) over its n-grams (float64 [n])."""
    total = np.zeros(len(found.rows) - 1)
    table = np.ascontiguousarray(table, np.float64)
    on_all_cores(
        lambda a, b: _sum(found.buckets, found.rows, table, a, b, total), chunks(np.diff(found.rows))
    )
    return total


def frequencies(texts: pa.Array | pa.ChunkedArray) -> Frequencies:
    """Return the document frequencies of a string column's words and word pairs."""
    total = np.zeros(1 << FREQUENCY_BITS, np.int64)
    for block in _blocks(texts):
        total += _block_frequencies(*_sorted_grams(block))
    return Frequencies(len(texts), total)


def project(texts: pa.Array | pa.ChunkedArray, known: Frequencies, width: int = 256) -> Array:
    """Return TF-IDF vectors of a string column under a signed random projection (float32 [n, width]).

    Weight of an n-gram: (1 + ln tf) · (ln((1 + N) / (1 + df)) + 1), sublinear tf and the smoothed idf of
    scikit-learn's TfidfTransformer. Its `width` signs (a multiple of 64) are bits of its hash, so there is no
    matrix; inner products are kept within about 1/√width (Achlioptas 2003: Johnson-Lindenstrauss with
    coins). Rows have unit length; a row without words is zero.
    """
    idf = (np.log((1 + known.rows) / (1 + known.counts)) + 1).astype(np.float32)
    vectors = np.zeros((len(texts), width), np.float32)
    start = 0
    for block in _blocks(texts):
        _block_projection(*_sorted_grams(block), idf, vectors[start : start + len(block)])
        start += len(block)
    return vectors


def means(ids: Array, rows: Array, table: Array) -> Array:
    """Return for each row the unit vector along the mean of `table` at its ids (float32 [n, d]).

    `ids[rows[i]:rows[i + 1]]` (int64) are those of row i; `table` is float32. A row without ids is zero.
    """
    vectors = np.zeros((len(rows) - 1, table.shape[1]), np.float32)
    on_all_cores(lambda a, b: _mean(ids, rows, table, a, b, vectors), chunks(np.diff(rows)))
    return vectors


def _blocks(texts: pa.Array | pa.ChunkedArray) -> Iterator[pa.Array | pa.ChunkedArray]:
    """Cut a column into runs of rows of about BLOCK bytes."""
    column = texts.cast(pa.large_string())
    sizes = pc.fill_null(pc.binary_length(column), 0).to_numpy(zero_copy_only=False)
    ahead = np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))
    start = 0
    while start < len(sizes):
        end = max(start + 1, int(np.searchsorted(ahead, ahead[start] + BLOCK, side="right")) - 1)
        yield column.slice(start, end - start)
        start = end


def _even(length: int) -> list[tuple[int, int]]:
    """Cut a line of numbers into one run for each core."""
    cuts = np.unique(np.linspace(0, length, (os.cpu_count() or 1) + 1, dtype=np.int64)).tolist()
    return list(pairwise(cuts))


def _sizes(found: Words) -> Array:
    size: Array = np.maximum(2 * np.diff(found.rows) - 1, 0)
    return size


def _hashed(found: Words, size: Array, buckets: np.uint64, kind: type) -> Array:
    rows = np.concatenate(([0], np.cumsum(size)))
    out: Array = np.empty(int(rows[-1]), kind)
    on_all_cores(lambda a, b: _bucket(found.hashes, found.rows, rows, buckets, a, b, out), chunks(size))
    return out


def _sorted_grams(block: pa.Array | pa.ChunkedArray) -> tuple[Array, Array]:
    """Return (hashes, rows): the 64-bit n-grams of each row in ascending order, so that equal ones meet."""
    found = words(block)
    size = _sizes(found)
    rows = np.concatenate(([0], np.cumsum(size)))
    out = np.empty(int(rows[-1]), np.uint64)
    on_all_cores(lambda a, b: _sort(found.hashes, found.rows, rows, a, b, out), chunks(size))
    return out, rows


def _block_frequencies(hashes: Array, rows: Array) -> Array:
    parts = chunks(np.diff(rows), os.cpu_count() or 1)
    own = {part: np.zeros(1 << FREQUENCY_BITS, np.int64) for part in parts}
    on_all_cores(lambda a, b: _frequency(hashes, rows, a, b, own[(a, b)]), parts)
    total: Array = np.sum([np.zeros(1 << FREQUENCY_BITS, np.int64), *own.values()], axis=0)
    return total


def _block_projection(hashes: Array, rows: Array, idf: Array, vectors: Array) -> None:
    on_all_cores(lambda a, b: _project(hashes, rows, idf, a, b, vectors), chunks(np.diff(rows)))


# The kernels. Integers are kept unsigned: numba turns a mixture of int64 and uint64 into a float.

_BASE = np.uint64(0x9E3779B97F4A7C15)  # that of kernels.words: a pair's hash is that of `ngrams(found, 2)`
_HALF = np.uint64(32)
_SHIFT = np.uint64(64 - FREQUENCY_BITS)


@numba.njit(nogil=True, cache=True, inline="always")
def _pair(first: Any, second: Any) -> Any:
    return mix(first * _BASE + second)


@numba.njit(nogil=True, cache=True)
def _bucket(hashes: Any, word_rows: Any, rows: Any, buckets: Any, first: int, last: int, out: Any) -> None:
    for row in range(first, last):
        begin, at = word_rows[row], rows[row]
        count = word_rows[row + 1] - begin
        for i in range(count):
            out[at + i] = ((hashes[begin + i] >> _HALF) * buckets) >> _HALF
        for i in range(count - 1):
            value = _pair(hashes[begin + i], hashes[begin + i + 1])
            out[at + count + i] = ((value >> _HALF) * buckets) >> _HALF


@numba.njit(nogil=True, cache=True)
def _count(buckets: Any, first: int, last: int, out: Any) -> None:
    for i in range(first, last):
        out[buckets[i]] += 1


@numba.njit(nogil=True, cache=True)
def _sum(buckets: Any, rows: Any, table: Any, first: int, last: int, out: Any) -> None:
    for row in range(first, last):
        total = 0.0
        for i in range(rows[row], rows[row + 1]):
            total += table[buckets[i]]
        out[row] = total


@numba.njit(nogil=True, cache=True)
def _sort(hashes: Any, word_rows: Any, rows: Any, first: int, last: int, out: Any) -> None:
    for row in range(first, last):
        begin, at = word_rows[row], rows[row]
        count = word_rows[row + 1] - begin
        for i in range(count):
            out[at + i] = hashes[begin + i]
        for i in range(count - 1):
            out[at + count + i] = _pair(hashes[begin + i], hashes[begin + i + 1])
        out[at : rows[row + 1]].sort()


@numba.njit(nogil=True, cache=True)
def _frequency(hashes: Any, rows: Any, first: int, last: int, out: Any) -> None:
    for row in range(first, last):
        for i in range(rows[row], rows[row + 1]):
            # Ascending hashes have ascending buckets: two n-grams of a row in one bucket count once.
            if i == rows[row] or hashes[i] >> _SHIFT != hashes[i - 1] >> _SHIFT:
                out[hashes[i] >> _SHIFT] += 1


@numba.njit(nogil=True, cache=True)
def _project(hashes: Any, rows: Any, idf: Any, first: int, last: int, out: Any) -> None:
    for row in range(first, last):
        at, end, line = rows[row], rows[row + 1], out[row]
        while at < end:
            value, times = hashes[at], 1
            while at + times < end and hashes[at + times] == value:
                times += 1
            at += times
            weight = np.float32((1.0 + np.log(times)) * idf[value >> _SHIFT])
            for part in range(len(line) // 64):
                signs = mix(value + np.uint64(part + 1) * _BASE)
                for bit in range(64):
                    sign = np.float32(np.int64((signs >> np.uint64(bit)) & np.uint64(1)))
                    line[64 * part + bit] += weight * (np.float32(1.0) - np.float32(2.0) * sign)
        _normalise(line)


@numba.njit(nogil=True, cache=True)
def _mean(ids: Any, rows: Any, table: Any, first: int, last: int, out: Any) -> None:
    for row in range(first, last):
        line = out[row]
        for i in range(rows[row], rows[row + 1]):
            for column in range(len(line)):
                line[column] += table[ids[i], column]
        _normalise(line)  # the direction of the sum is that of the mean


@numba.njit(nogil=True, cache=True)
def _normalise(line: Any) -> None:
    square = 0.0
    for value in line:
        square += np.float64(value) * np.float64(value)
    if square > 0.0:
        scale = 1.0 / np.sqrt(square)
        for i in range(len(line)):
            line[i] = np.float32(line[i] * scale)
