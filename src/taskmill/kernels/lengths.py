"""The estimated tokens of many texts at once, read from Arrow's buffers: what `ingest.tokens` counts."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from taskmill.kernels.words import chunks, on_all_cores

__all__ = ["costs"]

Array = np.ndarray[Any, Any]


def costs(data: Array, offsets: Array, prices: Array, discount: int) -> Array:
    """Return the sum of the prices of each row's bytes (int64).

    `data` and `offsets`: rows of UTF-8 (`kernels.words.buffers`); `prices`: of each of the 256 bytes;
    `discount`: what each Devanagari letter (E0 A4 or E0 A5 in front) costs less.
    """
    found = np.zeros(len(offsets) - 1, np.int64)
    parts = chunks(np.diff(offsets))
    on_all_cores(lambda a, b: _costs(data, offsets, prices, discount, a, b, found), parts)
    return found


@numba.njit(nogil=True, cache=True)
def _costs(data: Array, offsets: Array, prices: Array, discount: int, a: int, b: int, found: Array) -> None:
    for row in range(a, b):
        total = 0
        end = offsets[row + 1]
        for i in range(offsets[row], end):
            total += prices[data[i]]
            if data[i] == 0xE0 and i + 1 < end and data[i + 1] & 0xFE == 0xA4:
                total -= discount
        found[row] = total
