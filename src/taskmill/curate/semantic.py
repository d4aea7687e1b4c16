"""Semantic duplicates: rows whose embeddings have a cosine at or above a threshold.

As with near duplicates, a row goes only for a row that is kept and stands before it in the order of
preference, so a dense region of meaning keeps a row and no chain of small steps empties it.

The search is exact up to `EXACT_ROWS` rows and does not compute all products: after a rotation to the
principal axes, the first coordinates and the length of the rest bound every cosine from above
(Cauchy-Schwarz: x.y <= head(x).head(y) + |tail(x)| |tail(y)|), and one matrix product gives both terms. Only
pairs whose bound reaches the threshold are computed whole, in float64 and by one loop, so that no library
and no number of threads moves a pair across the threshold. With more rows, a row is compared with those
before it in its two nearest cells only; what that finds is verified in the same way.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from taskmill.curate.dedup import Duplicates, judged
from taskmill.errors import InputError, UsageError
from taskmill.ids import draw
from taskmill.kernels.cosine import first_matches, unit_rows

__all__ = ["EXACT_ROWS", "semantic_duplicates"]

Array = np.ndarray[Any, Any]

EXACT_ROWS = 200_000
"""Chosen: twice the work of 100k rows squared is still under a minute on two cores."""

HEAD = 64
"""Principal coordinates in the bound (chosen: a quarter of a usual embedding holds most of its length)."""

_SLACK = 1e-4
"""Taken off the threshold where float32 products are compared with it: ten times their error."""

_CELL = 1000
"""Rows for each cell (chosen: a cell's products stay in the cache)."""

_TILE = 2048


def semantic_duplicates(
    vectors: Array,
    threshold: float = 0.9,
    *,
    order: Array | None = None,
    seed: int = 0,
    exact_rows: int = EXACT_ROWS,
) -> Duplicates:
    """Find rows of `vectors` (float [n, d]) at a cosine of `threshold` (-1..1) to a row that is kept.

    `order` (int64 [n]): rows in order of preference; default: as they stand. A zero vector says nothing: it
    is kept and nobody's duplicate. Above `exact_rows` rows the candidates come from cells that `seed` draws.

    Raises UsageError for a threshold out of range or vectors that are no matrix, InputError for a vector
    that holds no number (the message names its row).
    """
    if not -1 <= threshold <= 1:
        raise UsageError(f"a cosine threshold lies between -1 and 1, {threshold:g} does not")
    if vectors.ndim != 2 or not vectors.shape[1]:
        raise UsageError(f"embeddings have one row of numbers for each text, not the shape {vectors.shape}")
    unit, lengths = unit_rows(np.ascontiguousarray(vectors))
    wrong = np.flatnonzero(~np.isfinite(lengths))
    if len(wrong):
        raise InputError(f"the vector of row {wrong[0]} holds NaN or infinity; compute it again")
    order = np.arange(len(vectors)) if order is None else np.asarray(order, np.int64)
    live = order[lengths[order] > 0]
    unit = unit[live]
    best, found = np.arange(len(live)), np.zeros(len(live))
    if len(live) > 1:
        _search(unit, threshold, _cells(unit, exact_rows, seed), best, found)
    survivor, similarity = np.arange(len(vectors)), np.zeros(len(vectors))
    survivor[live], similarity[live] = live[best], found
    return judged(survivor, similarity)


class _Cells(NamedTuple):
    """Rows by cell: those of cell c are `rows[starts[c]:starts[c + 1]]`, ascending."""

    rows: Array
    starts: Array


def _cells(unit: Array, exact_rows: int, seed: int) -> _Cells:
    """Put every row into one cell, or into those of its two nearest pivots: rows drawn by the seed."""
    n = len(unit)
    if n <= exact_rows:
        return _Cells(np.arange(n), np.array([0, n]))
    count = max(2, n // _CELL)
    random = np.random.Generator(np.random.PCG64(draw(seed, "", "semantic cells")))
    pivots = unit[np.sort(random.choice(n, count, replace=False))].T
    cells = np.empty((n, 2), np.int64)
    for start in range(0, n, _TILE):
        near = unit[start : start + _TILE] @ pivots
        cells[start : start + _TILE] = np.argpartition(near, count - 2, axis=1)[:, -2:]
    flat = cells.ravel()
    by_cell = np.argsort(flat, kind="stable")
    return _Cells(by_cell // 2, np.concatenate(([0], np.cumsum(np.bincount(flat, minlength=count)))))


def _bounding(unit: Array) -> Array:
    """Return vectors whose products bound those of `unit` from above (float32 [n, at most HEAD + 1])."""
    if unit.shape[1] <= HEAD + 1:
        return unit
    sample = unit[:: max(1, len(unit) // 20_000)].astype(np.float64)
    _, axes = np.linalg.eigh(sample.T @ sample)
    head = unit @ axes[:, -HEAD:].astype(np.float32)
    tail = np.sqrt(np.maximum(1 - np.einsum("ij,ij->i", head, head, dtype=np.float64), 0))
    return np.column_stack([head, tail.astype(np.float32)])


def _search(unit: Array, threshold: float, cells: _Cells, best: Array, found: Array) -> None:
    """Fill `best` and `found`: blocks of rows in order, each against what stands before it, then itself."""
    n, limit = len(unit), threshold - _SLACK
    bounding = _bounding(unit)
    count = len(cells.starts) - 1
    one = count == 1
    block = 1024 if one else 4096  # with many cells, large enough that each has several rows of it
    packed = bounding if one else bounding[cells.rows]
    ahead = cells.starts[:-1].copy()  # for each cell, its first row that no block has had yet
    for start in range(0, n, block):
        end = min(start + block, n)
        for cell in range(count):
            low, mid = cells.starts[cell], ahead[cell]
            high = mid + np.searchsorted(cells.rows[mid : cells.starts[cell + 1]], end)
            ahead[cell] = high
            for tile in range(low, mid, _TILE) if high > mid else ():
                stop = min(tile + _TILE, mid)
                first_matches(
                    packed[mid:high] @ packed[tile:stop].T,
                    limit, threshold, unit, cells.rows[mid:high], cells.rows[tile:stop], best, found,
                )  # fmt: skip
        own = np.arange(start, end)
        mine = bounding[start:end]
        first_matches(mine @ mine.T, limit, threshold, unit, own, own, best, found)
