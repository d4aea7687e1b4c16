"""Vectors turned before distances are measured in them: fewer numbers, and directions that count alike.

The numbers of a language model's vectors say much the same: a few directions hold most of the spread and
decide every distance. Whitening (PCA: the directions of largest spread, each scaled to the same spread) or a
projection on random signs (Achlioptas 2003: cosines are kept within about 1/√width) come first, the choice
second (CRDS, arXiv 2602.13773).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from taskmill.errors import InputError, UsageError
from taskmill.kernels.distances import covariance, row_parts
from taskmill.kernels.matrix import panels, products
from taskmill.kernels.words import on_all_cores
from taskmill.select import generator

__all__ = ["SAMPLE", "Turn", "signs", "whitening"]

Array = np.ndarray[Any, Any]

SAMPLE = 16_384
"""Rows whose spread is looked at (chosen: 40 for each of 384 directions)."""

FLAT = 1e-6
"""Share of the largest spread below which a direction holds rounding only (chosen: float32 rounds squares of
unit vectors by 1e-7)."""

_ROWS = 1024


@dataclass(frozen=True, eq=False)
class Turn:
    """A linear map of vectors: `middle` (float32 [d]) is taken away, `directions` are float32 [k, d]."""

    middle: Array
    directions: Array

    @property
    def width(self) -> int:
        """How many numbers a turned vector has."""
        return len(self.directions)

    def apply(self, vectors: Array, out: Array | None = None) -> Array:
        """Return the turned rows (float32 [n, k], not of unit length), in `out` if it is given.

        A zero vector stays one: it has no place. The bits of a row do not depend on the other rows.
        """
        turned = np.empty((len(vectors), self.width), np.float32) if out is None else out
        directions = panels(self.directions)

        def turn(first: int, last: int) -> None:
            part = np.empty((_ROWS, self.width), np.float32)
            for a in range(first, last, _ROWS):
                b = min(a + _ROWS, last)
                block = np.ascontiguousarray(vectors[a:b] - self.middle)
                products(block, 0, b - a, directions, 0, self.width, part)
                turned[a:b] = part[: b - a]
                turned[a:b][~vectors[a:b].any(axis=1)] = 0

        on_all_cores(turn, row_parts(len(vectors), vectors.shape[1] * self.width))
        return turned


def whitening(sample: Array, count: int) -> Turn:
    """Return the map to the `count` directions in which unit rows (float32 [n, d]) spread most, made alike.

    Fewer where the rows spread in fewer. Raises InputError if they do not spread at all. The map is the same
    for the same rows in any order.
    """
    placed = sample[sample.any(axis=1)]
    middle, spread = covariance(np.ascontiguousarray(placed))
    sizes, axes = np.linalg.eigh(spread)
    sizes, axes = sizes[::-1], axes[:, ::-1].T
    if not len(placed) or sizes[0] <= FLAT:
        raise InputError("all vectors are alike: there is no direction to whiten; leave out --whiten")
    kept = sizes[: min(count, len(sizes))]
    kept = kept[kept > FLAT * sizes[0]]
    directions = axes[: len(kept)] / np.sqrt(kept)[:, None]
    # Coarser than the last bits of the eigenvectors, which depend on the machine's LAPACK and its threads.
    step = 2.0 ** (np.floor(np.log2(np.abs(directions).max(axis=1, keepdims=True))) - 20)
    directions = np.round(directions / step) * step
    return Turn(middle.astype(np.float32), np.ascontiguousarray(directions, np.float32))


def signs(width: int, count: int, seed: int) -> Turn:
    """Return the projection of vectors of `width` numbers on `count` random directions of +1 and -1.

    Raises UsageError if that is no projection to fewer numbers.
    """
    if count >= width:
        raise UsageError(f"--project {count}: the vectors have {width} numbers; project them to fewer")
    drawn = generator(seed, "projection").integers(0, 2, (count, width)) * 2 - 1
    return Turn(np.zeros(width, np.float32), np.ascontiguousarray(drawn / np.sqrt(count), np.float32))
