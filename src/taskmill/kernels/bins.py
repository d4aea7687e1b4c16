"""Bin packing of lengths, and copying spans of tokens to their places."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from taskmill.kernels.plain import lowest
from taskmill.kernels.words import chunks, on_all_cores

__all__ = ["best_fit", "best_fit_pairs", "by_bin", "copy_spans", "next_fit", "next_fit_pairs"]

Array = np.ndarray[Any, Any]


@numba.njit(nogil=True, cache=True)
def next_fit(lengths: Array, room: int, bins: Array) -> int:
    """Write the bin of each length with one open bin at a time; return how many bins there are."""
    used, left = 0, 0
    for i in range(len(lengths)):
        if lengths[i] > left:
            used += 1
            left = room
        left -= lengths[i]
        bins[i] = used - 1
    return used


@numba.njit(nogil=True, cache=True)
def best_fit(lengths: Array, room: int, bins: Array) -> int:
    """Write the bin of each length, placed in turn where it leaves least room; return the number of bins.

    Open bins stand in a stack for each room they have left, and a bit says which stacks hold any: the best
    bin for a length is at the first bit from it on, some words of 64 away at most.
    """
    head = np.full(room + 1, -1, np.int32)  # the last bin with so much room
    under = np.empty(len(lengths), np.int32)  # the bin below each in its stack
    words = np.zeros((room >> 6) + 1, np.uint64)
    used = 0
    for at in range(len(lengths)):
        length = int(lengths[at])
        left = _first_bit(words, length)
        if left < 0:
            found, left = used, room
            used += 1
        else:
            found = int(head[left])
            head[left] = under[found]
            if head[left] < 0:
                words[left >> 6] &= ~(np.uint64(1) << np.uint64(left & 63))
        bins[at] = found
        left -= length
        if left > 0:
            under[found] = head[left]
            head[left] = found
            words[left >> 6] |= np.uint64(1) << np.uint64(left & 63)
    return used


@numba.njit(nogil=True, cache=True)
def _first_bit(words: Array, start: int) -> int:
    """Return the first set bit from `start` on, or -1."""
    at = start >> 6
    word = words[at] & (~np.uint64(0) << np.uint64(start & 63))
    while word == 0:
        at += 1
        if at == len(words):
            return -1
        word = words[at]
    return int((at << 6) + lowest(word))


@numba.njit(nogil=True, cache=True)
def next_fit_pairs(inputs: Array, targets: Array, room: int, target_room: int, bins: Array) -> int:
    """Do as `next_fit` for rows of two lengths, each with a room of its own."""
    used, left, target_left = 0, 0, 0
    for i in range(len(inputs)):
        if used == 0 or inputs[i] > left or targets[i] > target_left:
            used += 1
            left, target_left = room, target_room
        left -= inputs[i]
        target_left -= targets[i]
        bins[i] = used - 1
    return used


@numba.njit(nogil=True, cache=True)
def best_fit_pairs(inputs: Array, targets: Array, room: int, target_room: int, most: int, bins: Array) -> int:
    """Write the bin of each row of two lengths, placed in turn in the fitting one with least room left.

    Room counts as the sum of both shares that are left. `most` bins are open at a time; before another is
    opened, the one with least room is closed.
    """
    left, target_left = np.zeros(most, np.int64), np.zeros(most, np.int64)
    number = np.zeros(most, np.int64)
    opened, used = 0, 0
    for i in range(len(inputs)):
        found, fullest = -1, 0
        best, least = 3.0, 3.0
        for k in range(opened):
            rest = left[k] / room + target_left[k] / target_room
            if rest < least:
                fullest, least = k, rest
            if rest < best and inputs[i] <= left[k] and targets[i] <= target_left[k]:
                found, best = k, rest
        if found < 0:
            found = opened if opened < most else fullest
            opened = min(opened + 1, most)
            left[found], target_left[found], number[found] = room, target_room, used
            used += 1
        left[found] -= inputs[i]
        target_left[found] -= targets[i]
        bins[i] = number[found]
    return used


@numba.njit(nogil=True, cache=True)
def by_bin(bins: Array, order: Array, starts: Array, rows: Array) -> None:
    """Write into `rows` the numbers of `order`, bin by bin; `starts[b]` is where bin b begins."""
    place = starts.copy()
    for at in range(len(order)):
        row = order[at]
        rows[place[bins[row]]] = row
        place[bins[row]] += 1


def copy_spans(source: Array, begins: Array, lengths: Array, target: Array, places: Array) -> None:
    """Copy `source[begins[i] : begins[i] + lengths[i]]` to `target[places[i] : …]` for all i."""
    if len(begins):
        on_all_cores(lambda a, b: _copy(source, begins, lengths, target, places, a, b), chunks(lengths))


@numba.njit(nogil=True, cache=True)
def _copy(source: Array, begins: Array, lengths: Array, target: Array, places: Array, a: int, b: int) -> None:
    for i in range(a, b):
        size = lengths[i]
        given = source[begins[i] : begins[i] + size]
        taken = target[places[i] : places[i] + size]
        for k in range(size):  # over views: a loop that the compiler turns into moves of whole registers
            taken[k] = given[k]
