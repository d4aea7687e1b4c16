"""By score alone; and score, then distance: a row is kept only if it is far enough from those kept before.

DEITA (Liu et al. 2023, 2312.15685): the score is complexity × quality, a row is kept while its largest cosine
to the kept ones is below 0.9. The published filter lets rejected rows of a batch block later ones, so that
its choice changes with the batch size; here the batch is only a unit of work.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from taskmill.errors import InputError, UsageError
from taskmill.select import Budget, Needs, Pool, Selection, Selector, fill

__all__ = ["ByScore", "Deita", "Spending", "column_scores", "spread"]

Array = np.ndarray[Any, Any]


class Spending:
    """What is left of a budget while rows are chosen one after another, as `fill` will choose them."""

    def __init__(self, pool: Pool, budget: Budget) -> None:
        self._costs, self._left = budget.costs(pool)
        self._least = int(self._costs.min(initial=1))

    def pay(self, row: int) -> None:
        """Pay for a row if it fits."""
        if self._costs[row] <= self._left:
            self._left -= int(self._costs[row])

    @property
    def over(self) -> bool:
        """Whether no row of the pool fits any more."""
        return self._left < self._least


def spread(
    vectors: Array, order: Array, threshold: float, given: int = 0, batch: int = 1024
) -> Iterator[tuple[int, bool]]:
    """Yield (row, kept) for the rows of `order`, one after the other; the caller may stop at any time.

    A row is kept if its product with every row kept before it is below `threshold`; the first `given` rows
    are kept in any case. `vectors`: float32 [n, d], unit rows. Costs n · kept · d multiply-adds; `batch` rows
    are compared at a time and the answer does not depend on it.
    """
    from taskmill.kernels.distances import nearest
    from taskmill.kernels.matrix import panels, products

    kept = np.empty((0, vectors.shape[1]), np.float32)
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        block = np.ascontiguousarray(vectors[rows])
        far = nearest(block, kept)[0] < threshold
        inside = np.empty((len(rows), len(rows)), np.float32)
        products(block, 0, len(rows), panels(block), 0, len(rows), inside)
        own: list[int] = []
        for at, row in enumerate(rows.tolist()):
            keep = start + at < given or bool(far[at] and (inside[at, own] < threshold).all())
            if keep:
                own.append(at)
            yield row, keep
        kept = np.concatenate([kept, block[own]])


def column_scores(pool: Pool, columns: tuple[str, ...], method: str) -> Array:
    """Return the product of the pool's score columns (float64 [n]).

    Raises UsageError for a column that is not there, InputError for a row without a finite score, by its id.
    """
    scores = np.ones(len(pool))
    for name in columns:
        if pool.table is None or name not in pool.table.column_names:
            there = ", ".join(pool.table.column_names) if pool.table is not None else "none"
            raise UsageError(
                f"{method}: no column {name!r} to score by; name one with --set scores=COLUMN. "
                f"Columns: {there}"
            )
        kind = pool.table[name].type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            raise UsageError(f"{method}: column {name!r} holds {kind}, not numbers; name a column of scores")
        values = pool.table[name].cast(pa.float64()).to_numpy()
        wrong = np.flatnonzero(~np.isfinite(values))
        if len(wrong):
            row = pool.ids[int(wrong[0])].as_py()
            raise InputError(f"row {row!r} has no number in column {name!r}; score or drop it first")
        scores = scores * values
    return scores


@dataclass(frozen=True)
class ByScore(Selector):
    """Rows by the value of a column: a model's uncertainty, a judge's score, whatever was measured before.

    With the entropy or 1 - margin of a model's labels it is uncertainty sampling (Lewis and Gale 1994,
    cmp-lg/9407020). The score is the value.
    """

    uses: ClassVar[tuple[str, ...]] = ("table",)

    scores: tuple[str, ...] = field(
        default=("score",), metadata={"help": "columns whose product is a row's score"}
    )
    keep: str = field(default="largest", metadata={"help": "which rows", "choices": ("largest", "smallest")})

    def pick(self, pool: Pool, budget: Budget, seed: int) -> Selection:
        """Return the rows by score; equal ones go by id, and the seed plays no part."""
        values = column_scores(pool, self.scores, "score")
        order = np.lexsort((pool.rank, values if self.keep == "smallest" else -values))
        return fill(pool, budget, order, values[order])


@dataclass(frozen=True)
class Deita(Selector):
    """Rows by score, far enough from one another."""

    uses: ClassVar[tuple[str, ...]] = ("embeddings", "table")

    scores: tuple[str, ...] = field(
        default=("score",),
        metadata={"help": "columns whose product is a row's score, e.g. complexity,quality"},
    )
    threshold: float = field(
        default=0.9,
        metadata={"help": "a row is kept while its cosine to all kept rows is below (DEITA: 0.9)"},
    )
    batch: int = field(default=1024, metadata={"help": "rows compared at a time; changes no result"})

    def pick(self, pool: Pool, budget: Budget, seed: int) -> Selection:
        """Return the kept rows by score; if all are kept and the budget is not full, the others by score.

        Equal scores go by id. Rows that are chosen already block those that are near them. Rows without a
        vector come last.
        """
        if not 0 < self.threshold <= 1 or self.batch < 1:
            raise UsageError("deita: the threshold is a cosine above 0 and at most 1, the batch 1 or more")
        vectors, values = pool.vectors("deita"), column_scores(pool, self.scores, "deita")
        ranked = np.lexsort((pool.rank, -values))
        ranked = ranked[~np.isin(ranked, pool.start)]
        order = np.concatenate([pool.start, ranked[~pool.empty[ranked]]])
        spending = Spending(pool, budget)
        kept: list[int] = []
        near: list[int] = []
        for row, keep in spread(vectors, order, self.threshold, len(pool.start), self.batch):
            (kept if keep else near).append(row)
            if keep:
                spending.pay(row)
            if spending.over:
                break
        else:
            kept += [*near, *ranked[pool.empty[ranked]].tolist()]
        chosen = np.array(kept, np.int64)
        found = fill(pool, budget, chosen, values[chosen])
        over = int(np.isin(found.rows, np.array(near, np.int64)).sum())
        evidence = {"threshold": self.threshold, "near_a_kept_row": len(near), "near_and_chosen": over}
        return Selection(found.rows, found.scores, evidence)

    def needs(self, rows: int, width: int, picks: int) -> Needs:
        """The kept rows once more, and every row against them in the worst case."""
        own = 4.0 * (2 * picks * width + self.batch * (self.batch + width))
        return Needs(own + 40.0 * rows, float(rows) * picks * width)
