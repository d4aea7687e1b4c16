"""The order of a mixture: draw i is computed from (counts, seed, i), never from the draws before it.

So resuming needs one integer, and how many workers or machines share the draws changes nothing: each takes
its own numbers. With S sources a draw costs O(log S).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from taskmill.errors import ConfigError
from taskmill.ids import draw

__all__ = ["LONGEST", "WINDOW", "Draws", "Order"]

Array = np.ndarray[Any, Any]

WINDOW = 1024
"""Draws that are shuffled together (chosen: more than the machines or rows of a batch that stride through
them, so that none sees a pattern; few, so that every share holds all along)."""

LONGEST = 2**32 - 1
"""Most draws of one order: products of two such numbers fit 64 bits."""


class Draws(NamedTuple):
    """Some draws: `source` (int32), `row` of that source (int64), which pass over it this is (int32)."""

    source: Array
    row: Array
    passes: Array


class Order:
    """An order of `sum(counts)` draws in which source s comes `counts[s]` times.

    The rows of a source come without repetition until all have been drawn, then again in another order.
    At every multiple of WINDOW (of every draw, if `stratified`) each source has had its share of the draws,
    within two rows: the tree is a Huffman tree, where a rounding of half a row at a node reaches a leaf
    shrunk by the weights between, and those grow at least as the Fibonacci numbers (their sum is below 3.36).
    """

    def __init__(
        self,
        counts: Sequence[int] | Array,
        sizes: Sequence[int] | Array,
        names: Sequence[str],
        seed: int,
        *,
        stratified: bool = False,
    ) -> None:
        """Make the order of sources with these draws (`counts`), rows (`sizes`) and different `names`.

        The names, not the places in the lists, decide what is drawn. Raises ConfigError for draws of a source
        without rows, or for more draws than LONGEST.
        """
        self.counts = np.asarray(counts, np.int64)
        self.total = int(self.counts.sum())
        self.sizes = np.asarray(sizes, np.uint64)
        empty = np.flatnonzero((self.counts > 0) & (self.sizes == 0))
        if len(empty):
            raise ConfigError(f"{names[int(empty[0])]} has no rows to draw; leave it out")
        if self.total > LONGEST:
            raise ConfigError(f"{self.total:,} draws are more than {LONGEST:,}; mix fewer at a time")
        self.window = 1 if stratified else WINDOW
        self.key = draw(seed, "", "mix window")
        self.keys = np.array([draw(seed, name, "mix rows") for name in names], np.uint64)
        self.tree = _tree(self.counts, names)

    def take(self, start: int, stop: int) -> Draws:
        """Return draws `start` to `stop`, as if they were part of the whole."""
        if not 0 <= start <= stop <= self.total:
            raise IndexError(f"draws {start} to {stop} of {self.total}")
        return self._draws(np.empty(0, np.int64), start, stop - start)

    def at(self, numbers: Sequence[int] | Array) -> Draws:
        """Return the draws of these numbers: every eighth, say, for one of eight machines."""
        wanted = np.ascontiguousarray(numbers, np.int64)
        if len(wanted) and not (wanted.min() >= 0 and wanted.max() < self.total):
            raise IndexError(f"a draw outside 0 to {self.total - 1}")
        return self._draws(wanted, 0, len(wanted))

    def _draws(self, numbers: Array, begin: int, count: int) -> Draws:
        from taskmill.kernels.interleave import draws
        from taskmill.kernels.words import on_all_cores

        found = Draws(np.empty(count, np.int32), np.empty(count, np.int64), np.empty(count, np.int32))

        def part(a: int, b: int) -> None:
            draws(
                numbers[a:b], begin + a, self.total, self.window, self.key, self.tree, self.sizes, self.keys,
                *(array[a:b] for array in found),
            )  # fmt: skip

        step = 1 << 18  # chosen: some milliseconds each, so that threads cost nothing and cores end together
        on_all_cores(part, [(a, min(a + step, count)) for a in range(0, count, step)])
        return found


def _tree(counts: Array, names: Sequence[str]) -> Array:
    """Return the Huffman tree over the sources that are drawn (`kernels.interleave.tree_of`)."""
    from taskmill.kernels.interleave import tree_of

    drawn = sorted(np.flatnonzero(counts).tolist(), key=lambda s: (int(counts[s]), names[s]))
    if len(drawn) == 1:  # it takes every draw: a node whose right side is never reached
        return np.array([[~drawn[0], ~drawn[0], 1, 1]], np.int64)
    sources = np.array(drawn, np.int64)
    found: Array = tree_of(counts[sources], sources)
    return found
