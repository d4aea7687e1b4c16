"""Dot products of many vectors: nearest centres, neighbours, means.

A product of two rows has the same bits wherever the rows stand and however the work is divided, so that
results depend neither on the order of rows nor on the number of threads (`kernels.matrix`).
"""

from __future__ import annotations

import os
from typing import Any

import numba
import numpy as np

from taskmill.kernels.matrix import DEPTH, panels, products
from taskmill.kernels.words import chunks, on_all_cores

__all__ = [
    "COVERED",
    "TIE",
    "covariance",
    "means",
    "nearest",
    "nearest_distance",
    "neighbours",
    "products_with",
    "rounding",
    "row_parts",
]

Array = np.ndarray[Any, Any]

COVERED = 1.0 - 1e-6
"""Cosine from which on two rows count as the same (chosen: two float32 unit vectors that are equal may differ
from 1 by 2e-7; 1e-6 is a distance of 0.0014)."""

TIE = 1e-9
"""Cosines that differ by less are a tie and go by id (chosen: far above the rounding of a float64 sum of a
thousand products, 1e-13, far below that of float32)."""

_FIXED = np.float32(2.0**38)
"""Unit of the fixed-point sums: integers add up to the same total in any order. 33 million rows fit."""

_SMALL = 1 << 22
"""Multiply-adds below which a second thread costs more than it helps (chosen: a millisecond's work)."""

_CLOSE = 0.99
"""Cosine above which all centres that may be the nearest are measured (chosen: below it, at a distance of
0.14, the rounding of a product moves a distance by less than 1e-6)."""

_LINES, _TILE = 96, 256
"""Rows and others whose products are looked at together (chosen: 100 kB beside the rows in the cache)."""


def rounding(width: int) -> float:
    """Return by how much two products of unit rows by `dot` may be off: sums of eight lanes or more."""
    return float(2 * (width / 8 + 8) * 2.0**-24)


def _off(width: int) -> float:
    """Return how far a product by `products` may be from one by `dot`."""
    return rounding(width) + float((DEPTH + width / DEPTH) * 2.0**-24)


def row_parts(rows: int, width: int, pieces: int = 0) -> list[tuple[int, int]]:
    """Cut rows into runs for `on_all_cores`: one run if there is little to do for each."""
    if rows * width < _SMALL:
        return [(0, rows)] if rows else []
    return chunks(np.zeros(rows, np.int8), pieces)


# Products


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"}, inline="never")
def dot(x: Any, y: Any) -> Any:
    total = np.float32(0)
    for t in range(x.shape[0]):
        total += x[t] * y[t]
    return total


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"}, inline="never")
def exact(x: Any, y: Any) -> Any:
    """Return the product in float64: the judge of ties."""
    total = 0.0
    for t in range(x.shape[0]):
        total += np.float64(x[t]) * np.float64(y[t])
    return total


@numba.njit(nogil=True, cache=True)
def _nearest(vectors: Any, first: int, last: int, centres: Any, shift: Any, best: Any, index: Any) -> None:
    tile = np.empty((_LINES, _TILE), np.float32)
    for a in range(first, last, _LINES):
        b = min(a + _LINES, last)
        for c in range(0, len(shift), _TILE):
            d = min(c + _TILE, len(shift))
            products(vectors, a, b, centres, c, d, tile)
            for i in range(a, b):
                for j in range(c, d):
                    value = tile[i - a, j - c] - shift[j]
                    if value > best[i]:
                        best[i], index[i] = value, j


def nearest(vectors: Array, centres: Array, shift: Array | None = None) -> tuple[Array, Array]:
    """Return (largest product with any centre, its number) for each row: float32 and int64.

    `shift` (float32, one a centre) is taken off first: with half the centres' squared lengths the nearest
    by distance is found. The first centre of several equal ones wins. Without centres: -inf and -1.
    """
    best = np.full(len(vectors), -np.inf, np.float32)
    index = np.full(len(vectors), -1, np.int64)
    less = np.zeros(len(centres), np.float32) if shift is None else shift
    right = panels(centres)
    parts = row_parts(len(vectors), vectors.shape[1] * len(centres))
    on_all_cores(lambda a, b: _nearest(vectors, a, b, right, less, best, index), parts)
    return best, index


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"}, inline="never")
def _square(x: Any, y: Any) -> Any:
    """Return the squared distance in float64: 0 for equal rows, whatever their length was rounded to."""
    total = 0.0
    for t in range(x.shape[0]):
        difference = np.float64(x[t]) - np.float64(y[t])
        total += difference * difference
    return total


@numba.njit(nogil=True, cache=True)
def _nearest_distance(
    vectors: Any, first: int, last: int, centres: Any, like: Any, index: Any, slack: float, out: Any
) -> None:
    for i in range(first, last):
        least = _square(vectors[i], centres[index[i]])
        if least and like[i] > _CLOSE:
            for j in range(centres.shape[0]):
                if dot(vectors[i], centres[j]) >= like[i] - slack:
                    least = min(least, _square(vectors[i], centres[j]))
        out[i] = np.sqrt(least)


def nearest_distance(vectors: Array, centres: Array) -> Array:
    """Return the distance of each row to its nearest centre (float64 [n]); unit rows, one centre at least.

    Found by products in float32, measured in float64: the distance of equal rows is 0, where the root of
    2 minus twice their product would be 0.0003.
    """
    like, index = nearest(vectors, centres)
    out = np.empty(len(vectors))
    parts = row_parts(len(vectors), vectors.shape[1] * len(centres))
    slack = _off(vectors.shape[1])
    on_all_cores(lambda a, b: _nearest_distance(vectors, a, b, centres, like, index, slack, out), parts)
    return out


@numba.njit(nogil=True, cache=True)
def _neighbours(
    mine: Any, first: int, last: int, own: Any, others: Any, names: Any, place: Any, found: Any, values: Any
) -> None:
    """Keep the largest products of each row, best first, equal ones by place; not the row's own."""
    size = found.shape[1]
    tile = np.empty((_LINES, _TILE), np.float32)
    for a in range(first, last, _LINES):
        b = min(a + _LINES, last)
        for c in range(0, len(names), _TILE):
            d = min(c + _TILE, len(names))
            products(mine, a, b, others, c, d, tile)
            for i in range(a, b):
                for j in range(c, d):
                    value, name = tile[i - a, j - c], names[j]
                    if value < values[i, size - 1] or name == own[i]:
                        continue
                    at = size
                    while at > 0 and (
                        values[i, at - 1] < value
                        or (values[i, at - 1] == value and place[found[i, at - 1]] > place[name])
                    ):
                        at -= 1
                    if at < size:
                        for k in range(size - 1, at, -1):
                            values[i, k], found[i, k] = values[i, k - 1], found[i, k - 1]
                        values[i, at], found[i, at] = value, name


def neighbours(
    vectors: Array, of: Array | None, among: Array | None, place: Array, size: int
) -> tuple[Array, Array]:
    """Return the `size` rows `among` some that are nearest to each of the rows `of`, and their products.

    `of` and `among`: row numbers (int64), or all rows. int64 and float32 [len(of), size], nearest first,
    ties by `place` (a number for each row of `vectors`); a row is left out of its own list. Where there are
    fewer, the rest is -1 with a product of -inf.
    """
    own = np.arange(len(vectors)) if of is None else of
    names = np.arange(len(vectors)) if among is None else among
    mine = vectors if of is None else np.ascontiguousarray(vectors[of])
    others = panels(vectors if among is None else vectors[among])
    found = np.full((len(own), size), -1, np.int64)
    values = np.full((len(own), size), -np.inf, np.float32)
    parts = row_parts(len(own), vectors.shape[1] * len(names))
    on_all_cores(lambda a, b: _neighbours(mine, a, b, own, others, names, place, found, values), parts)
    return found, values


@numba.njit(nogil=True, cache=True)
def _sum(vectors: Any, first: int, last: int, group: Any, total: Any) -> None:
    for i in range(first, last):
        if group[i] >= 0:
            row, sums = vectors[i], total[group[i]]
            for t in range(row.shape[0]):
                sums[t] += np.int64(row[t] * _FIXED)


@numba.njit(nogil=True, cache=True)
def _products_with(vectors: Any, first: int, last: int, one: Any, out: Any) -> None:
    for i in range(first, last):
        out[i] = exact(vectors[i], one)


def means(vectors: Array, group: Array, count: int) -> tuple[Array, Array]:
    """Return (mean of each group's rows, their number): float64 [count, d] and int64, in any order the same.

    `group` (int64): the group of each row, -1 for none. The mean of no rows is zero.
    """
    parts = row_parts(len(vectors), vectors.shape[1], os.cpu_count() or 1)
    totals = {part: np.zeros((count, vectors.shape[1]), np.int64) for part in parts}
    on_all_cores(lambda a, b: _sum(vectors, a, b, group, totals[a, b]), parts)
    whole = sum(totals.values(), np.zeros((count, vectors.shape[1]), np.int64))
    sizes = np.bincount(group[group >= 0], minlength=count)
    return whole / (float(_FIXED) * np.maximum(sizes, 1)[:, None]), sizes


def products_with(vectors: Array, one: Array) -> Array:
    """Return the products of all rows with one vector, in float64."""
    out = np.empty(len(vectors), np.float64)
    parts = row_parts(len(vectors), vectors.shape[1])
    on_all_cores(lambda a, b: _products_with(vectors, a, b, one, out), parts)
    return out


@numba.njit(nogil=True, cache=True)
def _outer(vectors: Any, first: int, last: int, total: Any) -> None:
    for i in range(first, last):
        row = vectors[i]
        for s in range(row.shape[0]):
            sums, one = total[s], np.float64(row[s]) * np.float64(_FIXED)
            for t in range(s + 1):
                sums[t] += np.int64(one * row[t])


def covariance(vectors: Array) -> tuple[Array, Array]:
    """Return (mean, covariance) of unit rows: float64 [d] and [d, d], in any order of rows the same."""
    count, width = vectors.shape
    parts = row_parts(count, width * width, os.cpu_count() or 1)
    totals = {part: np.zeros((width, width), np.int64) for part in parts}
    on_all_cores(lambda a, b: _outer(vectors, a, b, totals[a, b]), parts)
    lower = sum(totals.values(), np.zeros((width, width), np.int64)) / (float(_FIXED) * max(1, count))
    middle = means(vectors, np.zeros(count, np.int64), 1)[0][0]
    return middle, np.tril(lower) + np.tril(lower, -1).T - np.outer(middle, middle)
