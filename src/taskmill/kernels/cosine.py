"""Pairs of unit vectors at or above a cosine, decided in float64 whatever library made the first guess."""

from __future__ import annotations

from functools import partial
from typing import Any

import numba
import numpy as np

from taskmill.kernels.distances import row_parts
from taskmill.kernels.matrix import products
from taskmill.kernels.words import chunks, on_all_cores

__all__ = ["first_matches", "unit_rows"]

Array = np.ndarray[Any, Any]

_LINES, _STEP = 96, 128
"""Rows and columns whose products are looked at together (chosen: 50 kB, which stay in the cache)."""


def unit_rows(vectors: Array, in_place: bool = False) -> tuple[Array, Array]:
    """Return (rows at length one as float32 [n, d], their lengths as float64 [n]); zero rows stay zero.

    `in_place`: the rows, float32, are changed where they stand.
    """
    unit = vectors if in_place else np.empty(vectors.shape, np.float32)
    lengths = np.empty(len(vectors))
    on_all_cores(partial(_unit_rows, vectors, unit, lengths), chunks(np.full(len(vectors), vectors.shape[1])))
    return unit, lengths


def first_matches(
    bounding: Array,
    right: Array,
    limit: float,
    threshold: float,
    vectors: Array,
    rows: Array,
    columns: Array,
    best: Array,
    score: Array,
) -> None:
    """Find for each of `rows` the first of `columns` that is its own best and at a cosine of `threshold`.

    `rows` and `columns` are numbers of `vectors`, columns ascending. The product of a line of `bounding`
    (float32, one for each row) with one of `right` (`panels` of one for each column) is at least their cosine
    up to `limit - threshold`. `best` (int64: a row's own number while it has no match) and `score` are only
    changed to an earlier match. Rows must not be among the columns before them undecided.
    """
    work = partial(_first_matches, bounding, right, limit, threshold, vectors, rows, columns, best, score)
    on_all_cores(
        work, [(0, len(rows))] if rows is columns else row_parts(len(rows), bounding.shape[1] * len(columns))
    )


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


@numba.njit(nogil=True, cache=True, fastmath={"nnan"}, inline="always")
def _any_at(values: Any, floor: Any) -> Any:
    """Say whether a value is at least `floor`."""
    most = values[0]
    for value in values:
        most = max(most, value)
    return most >= floor


@numba.njit(nogil=True, cache=True)
def _first_matches(
    bounding: Any,
    right: Any,
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
    tile = np.empty((_LINES, _STEP), np.float32)
    for a in range(first, last, _LINES):
        b = min(a + _LINES, last)
        before = best[rows[a:b]].max()
        for c in range(0, len(columns), _STEP):
            if columns[c] >= before:
                break
            d = min(c + _STEP, len(columns))
            products(bounding, a, b, right, c, d, tile)
            for i in range(a, b):
                row = rows[i]
                if columns[c] >= best[row] or not _any_at(tile[i - a, : d - c], floor):
                    continue
                for j in range(c, d):
                    column = columns[j]
                    if column >= best[row]:
                        break
                    if tile[i - a, j - c] >= floor and best[column] == column:
                        cosine = _cosine(vectors, row, column)
                        if cosine >= threshold:
                            best[row], score[row] = column, cosine
                            break
