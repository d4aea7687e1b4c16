"""Which source and row a draw of a mixture is, computed from its number alone.

Two permutations and a tree: a window of draws is shuffled, the tree hands draws to sources so that each keeps
its share at every point, and the rows of a source come in a new shuffled order in each pass.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from taskmill.kernels.plain import mix
from taskmill.kernels.text import MIX_1, MIX_2

__all__ = ["draws", "permuted", "tree_of"]

Array = np.ndarray[Any, Any]

_M_1, _M_2 = np.uint64(MIX_1), np.uint64(MIX_2)
_STEP = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio: consecutive keys lie far apart
_TOGETHER = 32
"""Draws whose steps down the tree are mixed (chosen: while one waits, the processor works on the others)."""

_ONE, _ZERO = np.uint64(1), np.uint64(0)


@numba.njit(nogil=True, cache=True, inline="always")
def _permute(value: Any, size: Any, bits: Any, key: Any) -> Any:
    """Return the place of `value` in a permutation of 0 … size - 1; `bits`: so many hold size - 1.

    Multiplying by an odd number, adding, and folding the high half into the low one are each one-to-one on
    that many bits, so four rounds of them are too; what falls behind the end goes round again.
    """
    mask = (_ONE << bits) - _ONE
    half = (bits + _ONE) >> _ONE
    first, second = mix(key), mix(key + _STEP)
    while True:
        value = ((value + first) * _M_1) & mask
        value ^= value >> half
        value = ((value + second) * _M_2) & mask
        value ^= value >> half
        value = ((value ^ (first >> np.uint64(32))) * _M_2) & mask
        value ^= value >> half
        value = ((value ^ (second >> np.uint64(32))) * _M_1) & mask
        value ^= value >> half
        if value < size:
            return value


@numba.njit(nogil=True, cache=True, inline="always")
def _bits(size: Any) -> Any:
    found = _ZERO
    while (_ONE << found) < size:
        found += _ONE
    return found


@numba.njit(nogil=True, cache=True)
def permuted(size: int, key: int) -> Array:
    """Return the whole permutation of 0 … size - 1 that `key` stands for."""
    found = np.empty(size, np.int64)
    bits = _bits(np.uint64(size))
    for i in range(size):
        found[i] = np.int64(_permute(np.uint64(i), np.uint64(size), bits, np.uint64(key)))
    return found


@numba.njit(nogil=True, cache=True)
def tree_of(counts: Array, sources: Array) -> Array:
    """Return the Huffman tree over `sources` with these draws, which come in order of their draws.

    As `draws` reads it, the root first. Merged nodes come in order of their draws too, so the two smallest of
    all are always at the front of one of two queues.
    """
    inner = max(len(counts) - 1, 0)
    tree = np.empty((inner, 4), np.int64)
    leaf, node = 0, 0
    for made in range(inner):
        for side in (1, 0):  # the smaller one goes right; of equal ones a leaf, which keeps the tree flat
            if leaf < len(counts) and (node == made or counts[leaf] <= tree[inner - 1 - node, 3]):
                child, count = ~sources[leaf], counts[leaf]
                leaf += 1
            else:
                child, count = inner - 1 - node, tree[inner - 1 - node, 3]
                node += 1
            at = inner - 1 - made
            tree[at, side] = child
            tree[at, 3] = count if side else tree[at, 3] + count
            tree[at, 2] = count
    return tree


@numba.njit(nogil=True, cache=True, error_model="numpy")
def draws(
    numbers: Array,
    begin: int,
    total: int,
    window: int,
    key: int,
    tree: Array,
    sizes: Array,
    keys: Array,
    sources: Array,
    rows: Array,
    passes: Array,
) -> None:
    """Write source, row and pass of each draw. `numbers` may be empty: then they are begin, begin + 1, ….

    `tree` (int64 [nodes, 4]): left child, right child, draws below the left child, draws below the node; a
    child below 0 is the source ~child. `sizes` (uint64): rows of each source; `keys` (uint64): one for each.
    """
    in_order = len(numbers) == 0
    last_window, bits, length = np.uint64(0xFFFFFFFFFFFFFFFF), _ZERO, _ZERO
    window_key, wide = _ZERO, np.uint64(window)
    widths = np.empty(len(sizes), np.uint64)
    for s in range(len(sizes)):
        widths[s] = _bits(sizes[s])
    nth, nodes = np.empty(_TOGETHER, np.uint64), np.empty(_TOGETHER, np.int64)
    for block in range(0, len(sources), _TOGETHER):
        many = min(_TOGETHER, len(sources) - block)
        for k in range(many):
            number = np.uint64(begin + block + k) if in_order else np.uint64(numbers[block + k])
            if wide > _ONE:
                at = number // wide
                if at != last_window:
                    last_window = at
                    length = min(wide, np.uint64(total) - at * wide)
                    bits = _bits(length)
                    window_key = mix(np.uint64(key) + at * _STEP)
                number = at * wide + _permute(number - at * wide, length, bits, window_key)
            nth[k], nodes[k] = number, 0
        _walk(tree, nth, nodes, many)
        for k in range(many):
            source = ~nodes[k]
            size = sizes[source]
            once = nth[k] // size
            sources[block + k] = source
            passes[block + k] = once
            place = nth[k] - once * size
            rows[block + k] = np.int64(
                _permute(place, size, widths[source], mix(keys[source] + once * _STEP))
            )


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _walk(tree: Array, nth: Array, nodes: Array, many: int) -> None:
    """Lead draws from the root to their leaves, each a step at a time, so that the steps overlap.

    In: the number of each draw. Out: the leaf, and how many draws of that leaf come before.
    """
    left_over = many
    while left_over:
        left_over = 0
        for k in range(many):
            node = nodes[k]
            if node >= 0:
                left, whole = np.uint64(tree[node, 2]), np.uint64(tree[node, 3])
                scaled = nth[k] * left + (whole >> _ONE)
                before = scaled // whole  # of the draws before this one, those that went left
                goes = scaled - before * whole + left >= whole
                nth[k] = before if goes else nth[k] - before
                node = tree[node, 0 if goes else 1]
                nodes[k] = node
                left_over += node >= 0
