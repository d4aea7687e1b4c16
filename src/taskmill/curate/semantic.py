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
from taskmill.kernels.matrix import WIDE, pack, panels

__all__ = ["EXACT_ROWS", "semantic_duplicates"]

Array = np.ndarray[Any, Any]

EXACT_ROWS = 200_000
"""Chosen: twice the work of 100k rows squared is still under a minute on two cores."""

HEAD = 63
"""Principal coordinates in the bound (chosen: a quarter of a usual embedding holds most of its length, and
with the length of the rest there are 64, which are summed in one run)."""

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
    in_place: bool = False,
) -> Duplicates:
    """Find rows of `vectors` (float [n, d]) at a cosine of `threshold` (-1..1) to a row that is kept.

    `order` (int64 [n]): rows in order of preference; default: as they stand. A zero vector says nothing: it
    is kept and nobody's duplicate. Above `exact_rows` rows the candidates come from cells that `seed` draws.
    `in_place`: the vectors, float32 and in order of preference, are worked on where they stand, which may be
    a file that is mapped into memory, and are others afterwards.

    Raises UsageError for a threshold out of range or vectors that are no matrix, InputError for a vector
    that holds no number (the message names its row).
    """
    if not -1 <= threshold <= 1:
        raise UsageError(f"a cosine threshold lies between -1 and 1, {threshold:g} does not")
    if vectors.ndim != 2 or not vectors.shape[1]:
        raise UsageError(f"embeddings have one row of numbers for each text, not the shape {vectors.shape}")
    unit, lengths = unit_rows(np.ascontiguousarray(vectors), in_place)
    wrong = np.flatnonzero(~np.isfinite(lengths))
    if len(wrong):
        raise InputError(f"the vector of row {wrong[0]} holds NaN or infinity; compute it again")
    order = np.arange(len(vectors)) if order is None else np.asarray(order, np.int64)
    live = order[lengths[order] > 0]
    unit = _closed_up(unit, live) if in_place else unit[live]
    best, found = np.arange(len(live)), np.zeros(len(live))
    if len(live) > 1:
        _search(unit, threshold, _cells(unit, exact_rows, seed), best, found)
    survivor, similarity = np.arange(len(vectors)), np.zeros(len(vectors))
    survivor[live], similarity[live] = live[best], found
    return judged(survivor, similarity)


def _closed_up(unit: Array, live: Array) -> Array:
    """Move some rows (ascending) to the front, in place, and return those."""
    for start in range(0, len(live) if len(live) < len(unit) else 0, _TILE):
        part = live[start : start + _TILE]
        unit[start : start + len(part)] = unit[part]
    return unit[: len(live)]


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


class _Kept:
    """The rows kept so far, by cell: their numbers, and what bounds their cosines."""

    def __init__(self, cells: _Cells, width: int) -> None:
        sizes = np.diff(cells.starts)
        self._starts, self._counts = cells.starts, np.zeros(len(sizes), np.int64)
        self._rows = np.empty(int(sizes.sum()), np.int64)
        self._panels = np.concatenate(([0], np.cumsum(-(-sizes // WIDE))))
        self._bounding = np.zeros((int(self._panels[-1]), width, WIDE), np.float32)

    def of(self, cell: int) -> tuple[Array, Array]:
        """Return (panels, rows)."""
        start, panel = self._starts[cell], self._panels[cell]
        rows = self._rows[start : start + self._counts[cell]]
        return self._bounding[panel : panel - (-len(rows) // WIDE)], rows

    def add(self, cell: int, rows: Array, bounding: Array) -> None:
        """Add rows that come after those that are there."""
        at = self._counts[cell]
        self._rows[self._starts[cell] + at :][: len(rows)] = rows
        pack(bounding, at, self._bounding[self._panels[cell] : self._panels[cell + 1]])
        self._counts[cell] += len(rows)


def _search(unit: Array, threshold: float, cells: _Cells, best: Array, found: Array) -> None:
    """Fill `best` and `found`: blocks of rows in order, each against those kept before it, then itself."""
    n, limit = len(unit), threshold - _SLACK
    bounding = _bounding(unit)
    count = len(cells.starts) - 1
    block = 1024 if count == 1 else 4096  # with many cells, large enough that each has several rows of it
    kept = _Kept(cells, bounding.shape[1])
    ahead = cells.starts[:-1].copy()  # for each cell, its first row that no block has had yet
    for start in range(0, n, block):
        end = min(start + block, n)
        own = np.arange(start, end)
        held: dict[int, Array] = {}
        for cell in range(count):
            low = ahead[cell]
            ahead[cell] += np.searchsorted(cells.rows[low : cells.starts[cell + 1]], end)
            if ahead[cell] > low:
                rows = held[cell] = cells.rows[low : ahead[cell]]
                right, before = kept.of(cell)
                first_matches(bounding[rows], right, limit, threshold, unit, rows, before, best, found)
        mine = bounding[start:end]
        first_matches(mine, panels(mine), limit, threshold, unit, own, own, best, found)
        for cell, rows in held.items():
            stay = rows[best[rows] == rows]
            kept.add(cell, stay, bounding[stay])
