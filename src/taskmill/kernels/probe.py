"""Runs of words that texts share with an index of 5-grams, found by sparse probing.

The index is the line of the 32-bit hashes of all 5-grams of its parts, in the order of the words. Two texts
share n >= 5 words in a row exactly where n - 4 neighbouring 5-grams agree, so one index serves every n, and
whoever looks for n words needs to probe only every (n - 4)th 5-gram of a text. A probe is one hash and one
bit of a bitmap that stays in the cache; only hits go to the table. A run of n words is as good as a hash of
32 * (n - 4) bits: 128 bits for eight words.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numba
import numpy as np

from taskmill.kernels.plain import mix
from taskmill.kernels.text import GRAM, Parts
from taskmill.kernels.words import _BASE, Words, chunks, on_all_cores

__all__ = ["Clusters", "Runs", "Table", "clusters", "runs", "table"]

Array = np.ndarray[Any, Any]

_SPARSE = 5  # a bitmap of 2**5 bits for each key: 3 % of the misses look like hits; 4 MB for 1M keys
_BITS = (16, 28)  # least and most address bits of the bitmap: 8 kB to 32 MB
_ROOM = 256  # matches a worker has room for before its lists grow
_GONE = 11
"""Neighbouring misses after which a cluster ends (allenai/decon, config/default.yaml:
max_consecutive_misses)."""

_ANSWER_NEAR = 20
"""Words round a question in which its answer must stand, at the least; twice its own length if that is more
(allenai/decon, config/default.yaml: min_short_answer_distance, in tokens)."""

_PASSAGE_NEAR = 100
"""The same for passages (chosen: decon's documents name such a distance but not its value)."""


class Table(NamedTuple):
    """Where each distinct gram stands: `places[first[k]:first[k + 1]]` for the key `keys[k]`."""

    keys: Array
    first: Array
    places: Array
    buckets: Array
    bitmap: Array
    bits: int


class Runs(NamedTuple):
    """Shared runs: text `row`, `place` of the run's first gram in the index, `at` its first word in the
    text, `grams` its length. int64, in the order of the texts.
    """

    row: Array
    place: Array
    at: Array
    grams: Array


class Clusters(NamedTuple):
    """Stretches of a text that match a question: `row`, `part`, words `start` to `end`, and the weighted
    shares found of the question, of the best answer and of the best passage (-1: the item has none).
    """

    row: Array
    part: Array
    start: Array
    end: Array
    shares: Array


class _Scale(NamedTuple):
    weights: Array
    totals: Array
    floor: float


class _Text(NamedTuple):
    """One text in the kernels: all words, the first of its own, its grams in `line`, their number."""

    words: Any
    begin: Any
    line: Any
    count: Any


def table(parts: Parts, wanted: Array) -> Table:
    """Return the table of the grams of those parts for which `wanted` (bool, one for each part) holds.

    Parts of fewer than five words are never in it.
    """
    keep = np.flatnonzero((wanted & (parts.words >= GRAM))[parts.owner])
    order = keep[np.argsort(parts.grams[keep], kind="stable")]
    grams = parts.grams[order]
    begins = np.flatnonzero(np.concatenate(([len(grams) > 0], grams[1:] != grams[:-1])))
    keys = grams[begins]
    first = np.append(begins, len(grams)).astype(np.int64)
    bits = int(np.clip(np.ceil(np.log2(max(len(keys), 1))) + _SPARSE, *_BITS))
    bitmap = np.zeros(1 << (bits - 6), np.uint64)
    spots = (keys >> np.uint32(32 - bits)).astype(np.int64)
    np.bitwise_or.at(bitmap, spots >> 6, np.uint64(1) << (spots & 63).astype(np.uint64))
    tops = (keys >> np.uint32(32 - bits + _SPARSE)).astype(np.int64)
    buckets = np.searchsorted(tops, np.arange((1 << (bits - _SPARSE)) + 1)).astype(np.int32)
    return Table(keys, first, order.astype(np.int64), buckets, bitmap, bits)


def runs(found: Words, parts: Parts, look: Table, need: Array) -> Runs:
    """Return every longest run that a text shares with a part of the table, if it is `need[part]` grams long.

    `need` (int64, grams) must be 1 or more for the parts of the table: the least of them is the distance of
    the probes, so that none is stepped over.
    """
    step = int(need[parts.owner[look.places]].min()) if len(look.places) else 1
    made: dict[int, Array] = {}

    def work(a: int, b: int) -> None:
        made[a] = _runs(found.hashes, found.rows, a, b, step, look, parts, need)

    on_all_cores(work, chunks(np.diff(found.rows)))
    whole = np.concatenate([np.zeros((4, 0), np.int64), *(made[a] for a in sorted(made))], axis=1)
    return Runs(whole[0], whole[1], whole[2], whole[3])


def clusters(
    found: Words, parts: Parts, look: Table, weights: Array, totals: Array, step: int, hot: int, floor: float
) -> Clusters:
    """Return the stretches of texts that match at least `floor` of a question, by decon's rule.

    Every `step`th gram is probed; from a hit, unless it stands in more than `hot` places, the stretch grows
    both ways until eleven neighbouring grams miss. `weights` (of each key) and `totals` (of each part, over
    its distinct grams) are inverse document frequencies. `look` holds the parts of all kinds.
    """
    made: dict[int, tuple[Array, Array]] = {}
    scale = _Scale(weights, totals, floor)

    def work(a: int, b: int) -> None:
        made[a] = _clusters(found.hashes, found.rows, a, b, step, hot, look, parts, scale)

    # A piece for each core: every piece marks what it counted in a list as long as the index.
    on_all_cores(work, chunks(np.diff(found.rows), os.cpu_count() or 1))
    order = sorted(made)
    whole = np.concatenate([np.zeros((4, 0), np.int64), *(made[a][0] for a in order)], axis=1)
    shares = np.concatenate([np.zeros((3, 0)), *(made[a][1] for a in order)], axis=1)
    return Clusters(whole[0], whole[1], whole[2], whole[3], shares)


@numba.njit(nogil=True, cache=True, inline="always")
def _gram(words: Any, at: Any, size: Any) -> Any:
    value = np.uint64(0)
    for i in range(size):
        value = value * _BASE + words[at + i]
    return np.uint32(mix(value) >> np.uint64(32))


@numba.njit(nogil=True, cache=True, inline="always")
def _likely(gram: Any, look: Any) -> Any:
    """Return a gram's bit in the bitmap: 0 if it is no key."""
    spot = np.int64(gram >> np.uint32(32 - look.bits))
    return (look.bitmap[spot >> 6] >> np.uint64(spot & 63)) & np.uint64(1)


@numba.njit(nogil=True, cache=True, inline="always")
def _any_likely(words: Any, begin: Any, count: Any, step: Any, look: Any) -> Any:
    """Say whether any probe of a text may be a key. Without a branch, so that the probes wait together."""
    found = np.uint64(0)
    for at in range(0, count, step):
        found |= _likely(_gram(words, begin + at, GRAM), look)
    return found != 0


@numba.njit(nogil=True, cache=True, inline="always")
def _key(gram: Any, look: Any) -> Any:
    """Return the number of a gram's key, or -1."""
    if not _likely(gram, look):
        return -1
    bucket = np.int64(gram >> np.uint32(32 - look.bits)) >> _SPARSE
    for k in range(look.buckets[bucket], look.buckets[bucket + 1]):
        if look.keys[k] == gram:
            return k
    return -1


@numba.njit(nogil=True, cache=True)
def _more(old: Any) -> Any:
    new = np.empty((old.shape[0], 2 * old.shape[1]), old.dtype)
    new[:, : old.shape[1]] = old
    return new


@numba.njit(nogil=True, cache=True)
def _longest(rows: Any, first: int, last: int) -> Any:
    most = 0
    for row in range(first, last):
        most = max(most, rows[row + 1] - rows[row])
    return most


@numba.njit(nogil=True, cache=True)
def _line(words: Any, begin: Any, count: Any, line: Any) -> None:
    """Write the grams of one text."""
    for i in range(count):
        line[i] = _gram(words, begin + i, GRAM)


@numba.njit(nogil=True, cache=True)
def _run(line: Any, count: Any, at: Any, place: Any, low: Any, high: Any, step: Any, grams: Any) -> Any:
    """Return (grams before, grams from here on) of the run through a hit; (…, 0) if it was seen before."""
    back = 0
    while back < step and back < at and place - back > low and line[at - back - 1] == grams[place - back - 1]:
        back += 1
    if back == step:
        return back, 0
    ahead = 1
    while at + ahead < count and place + ahead < high and line[at + ahead] == grams[place + ahead]:
        ahead += 1
    return back, ahead


@numba.njit(nogil=True, cache=True)
def _runs(words: Any, rows: Any, first: int, last: int, step: int, look: Any, parts: Any, need: Any) -> Any:
    out = np.empty((4, _ROOM), np.int64)
    size = 0
    line = np.empty(_longest(rows, first, last) + 1, np.uint32)
    for row in range(first, last):
        begin = rows[row]
        count = rows[row + 1] - begin - (GRAM - 1)
        if not _any_likely(words, begin, count, step, look):
            continue
        filled = False
        for at in range(0, count, step):
            key = _key(_gram(words, begin + at, GRAM), look)
            if key < 0:
                continue
            if not filled:
                _line(words, begin, count, line)
                filled = True
            for i in range(look.first[key], look.first[key + 1]):
                place = look.places[i]
                part = parts.owner[place]
                low, high = parts.first[part], parts.first[part + 1]
                back, ahead = _run(line, count, at, place, low, high, step, parts.grams)
                if ahead and back + ahead >= need[part]:
                    if size == out.shape[1]:
                        out = _more(out)
                    out[0, size], out[1, size] = row, place - back
                    out[2, size], out[3, size] = at - back, back + ahead
                    size += 1
    return out[:, :size].copy()


@numba.njit(nogil=True, cache=True)
def _inside(look: Any, key: Any, low: Any, high: Any) -> Any:
    """Return the first place of a key from `low` up to `high`, or -1."""
    a, end = look.first[key], look.first[key + 1]
    b = end
    while a < b:
        middle = (a + b) // 2
        if look.places[middle] < low:
            a = middle + 1
        else:
            b = middle
    if a < end and look.places[a] < high:
        return look.places[a]
    return -1


@numba.njit(nogil=True, cache=True)
def _fresh(gram: Any, low: Any, high: Any, look: Any, weights: Any, stamps: Any, stamp: Any) -> Any:
    """Return the weight of a gram in a part's places: -1 if it is not there, 0 if it was counted before."""
    key = _key(gram, look)
    if key < 0:
        return -1.0
    place = _inside(look, key, low, high)
    if place < 0:
        return -1.0
    if stamps[place] == stamp:
        return 0.0
    stamps[place] = stamp
    return weights[key]


@numba.njit(nogil=True, cache=True)
def _grow(
    text: Any, at: Any, way: Any, low: Any, high: Any, look: Any, weights: Any, stamps: Any, stamp: Any
) -> Any:
    """Walk from a hit one way; return (the last gram that matched, the weight of what was new)."""
    last, missed, weight, i = at, 0, 0.0, at
    while 0 <= i < text.count and missed < _GONE:
        new = _fresh(text.line[i], low, high, look, weights, stamps, stamp)
        if new < 0.0:
            missed += 1
        else:
            missed, last = 0, i
            weight += new
        i += way
    return last, weight


@numba.njit(nogil=True, cache=True)
def _beside(
    text: Any, start: Any, end: Any, part: Any, look: Any, parts: Any, scale: Any, stamps: Any, stamp: Any
) -> Any:
    """Return the share of an answer or passage found near a question's words `start` to `end`."""
    size = parts.words[part]
    near = max(2 * size, _ANSWER_NEAR if parts.kinds[part] == 1 else _PASSAGE_NEAR)
    low, high = parts.first[part], parts.first[part + 1]
    left, right = max(0, start - near), min(text.count + GRAM - 1, end + near)
    if size < GRAM:
        for i in range(text.begin + left, text.begin + right - size + 1):
            if _gram(text.words, i, size) == parts.grams[low]:
                return 1.0
        return 0.0
    weight = 0.0
    for i in range(left, right - GRAM + 1):
        weight += max(0.0, _fresh(text.line[i], low, high, look, scale.weights, stamps, stamp))
    return weight / scale.totals[part]


@numba.njit(nogil=True, cache=True)
def _score(
    text: Any,
    at: Any,
    part: Any,
    look: Any,
    parts: Any,
    scale: Any,
    stamps: Any,
    stamp: Any,
    found: Any,
    shares: Any,
) -> Any:
    """Grow a stretch from a question's hit, fill its columns; return (last gram, newest stamp, take it)."""
    low, high = parts.first[part], parts.first[part + 1]
    stamp += 1
    end, right = _grow(text, at, 1, low, high, look, scale.weights, stamps, stamp)
    start, left = _grow(text, at, -1, low, high, look, scale.weights, stamps, stamp)
    share = (left + right) / scale.totals[part]
    if share < scale.floor:
        return end, stamp, False
    found[1], found[2], found[3] = part, start, end + GRAM
    shares[0], shares[1], shares[2] = share, -1.0, -1.0
    for other in range(parts.own[parts.items[part]], parts.own[parts.items[part] + 1]):
        kind = parts.kinds[other]
        if kind and parts.words[other]:
            stamp += 1
            share = _beside(text, start, end + GRAM, other, look, parts, scale, stamps, stamp)
            shares[kind] = max(shares[kind], share)
    return end, stamp, True


@numba.njit(nogil=True, cache=True)
def _clusters(
    words: Any, rows: Any, first: int, last: int, step: int, hot: int, look: Any, parts: Any, scale: Any
) -> Any:
    out, shares = np.empty((4, _ROOM), np.int64), np.empty((3, _ROOM), np.float64)
    size, stamp = 0, 0
    line = np.empty(_longest(rows, first, last) + 1, np.uint32)
    stamps = np.zeros(len(parts.grams), np.int64)
    seen = np.full((2, len(parts.kinds)), -1, np.int64)  # the row and the end of each part's last stretch
    for row in range(first, last):
        count = rows[row + 1] - rows[row] - (GRAM - 1)
        if not _any_likely(words, rows[row], count, step, look):
            continue
        text = _Text(words, rows[row], line, count)
        at, filled = 0, False
        while at < count:
            key = _key(_gram(words, rows[row] + at, GRAM), look)
            at_once = key >= 0 and look.first[key + 1] - look.first[key] > hot
            if key >= 0 and not at_once:
                if not filled:
                    _line(words, rows[row], count, line)
                    filled = True
                for i in range(look.first[key], look.first[key + 1]):
                    part = parts.owner[look.places[i]]
                    if parts.kinds[part] or (seen[0, part] == row and seen[1, part] >= at):
                        continue
                    if size == out.shape[1]:
                        out, shares = _more(out), _more(shares)
                    end, stamp, take = _score(
                        text, at, part, look, parts, scale, stamps, stamp, out[:, size], shares[:, size]
                    )
                    seen[0, part], seen[1, part] = row, end
                    if take:
                        out[0, size] = row
                        size += 1
            at += 1 if at_once else step
    return out[:, :size].copy(), shares[:, :size].copy()
