"""The words of many texts as 64-bit hashes, with their places: what n-gram methods are built on.

`kernels.text` says what a word is. The texts are read straight from Arrow's buffers, row by row, on
all cores; results do not depend on how many.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, NamedTuple

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taskmill.kernels import plain
from taskmill.kernels.plain import mix
from taskmill.kernels.text import BASE, OFFSET, PRIME, characters

__all__ = ["Words", "chunks", "ngrams", "on_all_cores", "words"]

Array = np.ndarray[Any, Any]


class Words(NamedTuple):
    """Words of all rows in one line. `hashes[rows[i]:rows[i + 1]]` are those of row i (uint64).

    `starts` and `ends` (int32): where each word lies in its row's UTF-8 bytes.
    """

    hashes: Array
    starts: Array
    ends: Array
    rows: Array


def words(texts: pa.Array | pa.ChunkedArray, places: bool = False) -> Words:
    """Return the words of a string column; nulls count as empty. Without `places` starts and ends are empty.

    Two different words have equal hashes with a chance of 2**-64 for a pair.
    """
    data, offsets = buffers(texts)
    kinds, lower = characters()
    rows = np.zeros(len(offsets), np.int64)
    parts = chunks(np.diff(offsets))
    on_all_cores(lambda a, b: _count(data, offsets, kinds, a, b, rows), parts)
    np.cumsum(rows, out=rows)
    total = int(rows[-1])
    hashes = np.empty(total, np.uint64)
    starts = np.empty(total if places else 0, np.int32)
    ends = np.empty_like(starts)
    on_all_cores(lambda a, b: _fill(data, offsets, kinds, lower, a, b, rows, hashes, starts, ends), parts)
    return Words(hashes, starts, ends, rows)


def ngrams(found: Words, size: int) -> tuple[Array, Array]:
    """Return (hashes, rows): the n-grams of each row in order (uint64), laid out as words are.

    A row of fewer words than `size` has none. The hash is a polynomial over the words' hashes, mixed.
    """
    counts = np.maximum(np.diff(found.rows) - size + 1, 0)
    rows = np.concatenate(([0], np.cumsum(counts)))
    hashes = np.empty(int(rows[-1]), np.uint64)
    on_all_cores(lambda a, b: _ngrams(found.hashes, found.rows, rows, size, a, b, hashes), chunks(counts))
    return hashes, rows


def buffers(texts: pa.Array | pa.ChunkedArray) -> tuple[Array, Array]:
    """Return (bytes, offsets) of a string column as it stands, read-only; no copy where it is in one piece.

    Nulls are empty rows; dictionary-encoded columns are spread out.
    """
    column = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    if isinstance(column, pa.ChunkedArray):  # over 2 GB in one column
        column = pa.concat_arrays([_text(c).cast(pa.large_string()) for c in column.chunks])
    column = _text(column)
    if column.null_count:
        column = pc.fill_null(column, "")
    _, offsets, data = column.buffers()
    bytes_, bounds = np.zeros(0, np.uint8), np.zeros(1, np.int64)
    if offsets is not None and len(column):
        kind = np.int64 if pa.types.is_large_string(column.type) else np.int32
        own = np.frombuffer(offsets, kind)[column.offset : column.offset + len(column) + 1]
        bounds = own.astype(np.int64, copy=False)
    if data is not None:
        bytes_ = np.frombuffer(data, np.uint8)
    for array in (bytes_, bounds):  # always, so that kernels are compiled for one kind of array
        array.flags.writeable = False
    return bytes_, bounds


def _text(column: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return column
    return column.cast(pa.large_string())


def chunks(sizes: Array, pieces: int = 0) -> list[tuple[int, int]]:
    """Cut rows into runs of about equal size: four for each core, so that no core waits for long."""
    pieces = pieces or 4 * (os.cpu_count() or 1)
    ahead = np.concatenate(([0], np.cumsum(sizes + 1)))
    cuts = np.searchsorted(ahead, np.linspace(0, ahead[-1], pieces + 1))
    cuts[0], cuts[-1] = 0, len(sizes)
    bounds = np.unique(cuts).tolist()
    return [(a, b) for a, b in pairwise(bounds) if a < b]


def on_all_cores(work: Callable[[int, int], object], parts: list[tuple[int, int]]) -> None:
    """Call `work(start, end)` for every part; the kernels let go of the interpreter's lock."""
    if len(parts) < 2:
        for part in parts:
            work(*part)
        return
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda part: work(*part), parts))


# The kernels. Integers are kept unsigned: numba turns a mixture of int64 and uint64 into a float.

_OFFSET, _PRIME, _BASE = np.uint64(OFFSET), np.uint64(PRIME), np.uint64(BASE)


@numba.njit(nogil=True, cache=True, inline="always")
def _read(data: Any, at: Any, end: Any, kinds: Any) -> Any:
    """Return (bytes of the character, its kind, its code point)."""
    first = np.int64(data[at])
    if first < 0x80:
        if (97 <= first <= 122) or (48 <= first <= 57) or (65 <= first <= 90):
            return np.int64(1), np.int64(1), first
        return np.int64(1), np.int64(0), first
    size, point = np.int64(1), first
    if first >= 0xF0:
        size, point = np.int64(4), first & 0x07
    elif first >= 0xE0:
        size, point = np.int64(3), first & 0x0F
    elif first >= 0xC0:
        size, point = np.int64(2), first & 0x1F
    else:  # the middle of a character: not UTF-8
        return np.int64(1), np.int64(0), first
    size = min(size, end - at)
    for i in range(1, size):
        point = (point << 6) | np.int64(data[at + i] & 0x3F)
    if point < len(kinds):
        return size, np.int64(kinds[point]), point
    return size, np.int64(2 if point <= 0x3FFFF else 0), point


@numba.njit(nogil=True, cache=True, inline="always")
def _eat(value: Any, byte: Any) -> Any:
    return (value ^ np.uint64(byte)) * _PRIME


@numba.njit(nogil=True, cache=True, inline="always")
def _take(value: Any, point: Any, lower: Any) -> Any:
    """Take the UTF-8 bytes of a character in lower case into a hash."""
    if point < 0x80:
        return _eat(value, point + 32 if 65 <= point <= 90 else point)
    if point < len(lower):
        point = np.int64(lower[point])
    if point < 0x80:  # the Kelvin sign
        return _eat(value, point)
    if point < 0x800:
        return _eat(_eat(value, 0xC0 | (point >> 6)), 0x80 | (point & 0x3F))
    if point < 0x10000:
        value = _eat(_eat(value, 0xE0 | (point >> 12)), 0x80 | ((point >> 6) & 0x3F))
        return _eat(value, 0x80 | (point & 0x3F))
    value = _eat(_eat(value, 0xF0 | (point >> 18)), 0x80 | ((point >> 12) & 0x3F))
    return _eat(_eat(value, 0x80 | ((point >> 6) & 0x3F)), 0x80 | (point & 0x3F))


@numba.njit(nogil=True, cache=True)
def _count(data: Any, offsets: Any, kinds: Any, first: int, last: int, rows: Any) -> None:
    for row in range(first, last):
        rows[row + 1] = plain.count(data, offsets[row], offsets[row + 1])
        if rows[row + 1] < 0:
            rows[row + 1] = _count_any(data, offsets[row], offsets[row + 1], kinds)


@numba.njit(nogil=True, cache=True)
def _count_any(data: Any, at: Any, end: Any, kinds: Any) -> Any:
    count, inside = 0, False
    while at < end:
        size, kind, _ = _read(data, at, end, kinds)
        if kind == 3:
            kind = np.int64(1 if inside else 0)
        if kind == 2 or (kind == 1 and not inside):
            count += 1
        inside = kind == 1
        at += size
    return count


@numba.njit(nogil=True, cache=True)
def _fill(
    data: Any,
    offsets: Any,
    kinds: Any,
    lower: Any,
    first: int,
    last: int,
    rows: Any,
    hashes: Any,
    starts: Any,
    ends: Any,
) -> None:
    most = 0
    for row in range(first, last):
        most = max(most, rows[row + 1] - rows[row])
    opened, closed = np.empty(most, np.int64), np.empty(most, np.int64)
    for row in range(first, last):
        begin, end, own = offsets[row], offsets[row + 1], hashes[rows[row] : rows[row + 1]]
        if plain.count(data, begin, end) >= 0:
            plain.fill(data, begin, end, opened, closed, own)
        else:
            _fill_any(data, begin, end, kinds, lower, opened, closed, own)
        if len(starts):
            for i in range(len(own)):
                starts[rows[row] + i], ends[rows[row] + i] = opened[i] - begin, closed[i] - begin


@numba.njit(nogil=True, cache=True)
def _fill_any(
    data: Any, at: Any, end: Any, kinds: Any, lower: Any, starts: Any, ends: Any, hashes: Any
) -> None:
    """Write the words of any text: where in `data` each starts and ends, and its hash."""
    number, inside, value = 0, False, _OFFSET
    while at < end or inside:
        size, kind, point = np.int64(1), np.int64(0), np.int64(0)  # the end separates as well
        if at < end:
            size, kind, point = _read(data, at, end, kinds)
        if kind == 3:
            kind = np.int64(1 if inside else 0)
        if inside and kind != 1:
            hashes[number], ends[number] = mix(value), at
            number += 1
        if kind == 2 or (kind == 1 and not inside):
            value, starts[number] = _OFFSET, at
        if kind:
            value = _take(value, point, lower)
        if kind == 2:
            hashes[number], ends[number] = mix(value), at + size
            number += 1
        inside = kind == 1
        at += size


@numba.njit(nogil=True, cache=True)
def _ngrams(words: Any, word_rows: Any, rows: Any, size: int, first: int, last: int, hashes: Any) -> None:
    power = np.uint64(1)
    for _ in range(size - 1):
        power *= _BASE
    for row in range(first, last):
        at, number = word_rows[row], rows[row]
        value = np.uint64(0)
        for i in range(word_rows[row + 1] - at):
            if i >= size:
                value -= words[at + i - size] * power
            value = value * _BASE + words[at + i]
            if i >= size - 1:
                hashes[number] = mix(value)
                number += 1
