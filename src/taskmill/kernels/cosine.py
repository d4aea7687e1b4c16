"""Pairs of unit vectors at or above a cosine, decided in float64 whatever library made the first guess."""

from __future__ import annotations

from functools import partial
from typing import Any

import numba
import numpy as np

from taskmill.kernels.words import chunks, on_all_cores

__all__ = ["first_matches", "unit_rows"]

Array = np.ndarray[Any, Any]

_STEP = 64
"""Products looked at together: comparing and counting is done sixteen at a time."""


def unit_rows(vectors: Array) -> tuple[Array, Array]:
    """Return (rows at length one as float32 [n, d], their lengths as float64 [n]); zero rows stay zero."""
    unit = np.empty(vectors.shape, np.float32)
    lengths = np.empty(len(vectors))
    on_all_cores(partial(_unit_rows, vectors, unit, lengths), chunks(np.full(len(vectors), vectors.shape[1])))
    return unit, lengths


def first_matches(
    bounds: Array,
    limit: float,
    threshold: float,
    vectors: Array,
    rows: Array,
    columns: Array,
    best: Array,
    score: Array,
) -> None:
    """Find for each of `rows` the first of `columns` that is its own best and at a cosine of `threshold`.

    `bounds` (float32 [rows, columns]) is at least each cosine up to `limit - threshold`; `rows` and `columns`
    are numbers of `vectors`, columns ascending. `best` (int64: a row's own number while it has no match) and
    `score` are only changed to an earlier match. Rows must not be among the columns before them undecided.
    """
    work = partial(_first_matches, bounds, limit, threshold, vectors, rows, columns, best, score)
    if bounds.size < 1 << 20 or rows is columns:
        work(0, len(rows))
    else:
        on_all_cores(work, chunks(np.full(len(rows), len(columns))))


@numba.njit(nogil=True, cache=True)
def _unit_rows(vectors: Any, unit: Any, lengths: Any, first: int, last: int) -> None:
    for row in range(first, last):
        total = 0.0
        for i in range(vectors.shape[1]):
            total += np.float64(vectors[row, i]) * np.float64(vectors[row, i])
        lengths[row] = np.sqrt(total)
        for i in range(vectors.shape[1]):
            unit[row, i] = vectors[row, i] / lengths[row] if total > 0 else 0.0


@numba.njit(nogil=True, cache=True, inline="always")
def _cosine(vectors: Any, a: Any, b: Any) -> Any:
    total = 0.0
    for i in range(vectors.shape[1]):
        total += np.float64(vectors[a, i]) * np.float64(vectors[b, i])
    return total


@numba.njit(nogil=True, cache=True)
def _first_matches(
    bounds: Any,
    limit: float,
    threshold: float,
    vectors: Any,
    rows: Any,
    columns: Any,
    best: Any,
    score: Any,
    first: int,
    last: int,
) -> None:
    floor = np.float32(limit)
    for i in range(first, last):
        row = rows[i]
        for start in range(0, len(columns), _STEP):
            if columns[start] >= best[row]:
                break
            end = min(start + _STEP, len(columns))
            hits = 0
            for j in range(start, end):
                hits += bounds[i, j] >= floor
            if hits == 0:
                continue
            for j in range(start, end):
                column = columns[j]
                if column >= best[row]:
                    break
                if bounds[i, j] >= floor and best[column] == column:
                    cosine = _cosine(vectors, row, column)
                    if cosine >= threshold:
                        best[row], score[row] = column, cosine
                        break
