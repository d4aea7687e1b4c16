"""Which source and row a draw of a mixture is, computed from its number alone.

Two permutations and a tree: a window of draws is shuffled, the tree hands draws to sources so that each keeps
its share at every point, and the rows of a source come in a new shuffled order in each pass.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from taskmill.kernels.text import MIX_1, MIX_2
from taskmill.kernels.words import mix

__all__ = ["draws", "permuted"]

Array = np.ndarray[Any, Any]

_M_1, _M_2 = np.uint64(MIX_1), np.uint64(MIX_2)
_STEP = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio: consecutive keys lie far apart
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
    for i in range(len(sources)):
        number = np.uint64(begin + i) if in_order else np.uint64(numbers[i])
        if wide > _ONE:
            at = number // wide
            if at != last_window:
                last_window = at
                length = min(wide, np.uint64(total) - at * wide)
                bits = _bits(length)
                window_key = mix(np.uint64(key) + at * _STEP)
            number = at * wide + _permute(number - at * wide, length, bits, window_key)
        node = np.int64(0) if len(tree) else np.int64(-1)
        while node >= 0:
            left, whole = np.uint64(tree[node, 2]), np.uint64(tree[node, 3])
            scaled = number * left + (whole >> _ONE)
            before = scaled // whole  # of the draws before this one, those that went left
            goes = scaled - before * whole + left >= whole
            number = before if goes else number - before
            node = tree[node, 0 if goes else 1]
        source = ~node
        size = sizes[source]
        once = number // size
        sources[i] = source
        passes[i] = once
        place = number - once * size
        rows[i] = np.int64(_permute(place, size, widths[source], mix(keys[source] + once * _STEP)))
