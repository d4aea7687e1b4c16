"""Selection: from a pool of rows, an ordered choice within a budget of rows, a share of them, or tokens.

A selector puts rows in order; what it chooses for a budget is the beginning of that order. So of rows, or a
share of them, the choice for a smaller budget is a prefix of the choice for a larger one. Of tokens it need
not be: a row that does not fit into what is left is passed over and the next one is tried, so that a smaller
budget may hold rows that a larger one has spent on longer ones. Nothing depends on the order of the pool's
rows: what is equal is decided by id, what is random is drawn by seed over the rows in order of id.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taskmill.config import build
from taskmill.errors import InputError, UsageError
from taskmill.ids import draw
from taskmill.registry import Registry

__all__ = [
    "SELECTORS",
    "Budget",
    "Needs",
    "Pool",
    "Selection",
    "Selector",
    "fill",
    "generator",
    "interleave",
    "make",
    "unit_rows",
]

Array = np.ndarray[Any, Any]

_BLOCK = 65536
"""Rows whose lengths are looked at at a time (chosen: 64k x 384 float64 squares would be 200 MB; einsum
makes none)."""

UNIT = 1e-4
"""A row whose squared length is this near 1 counts as a unit vector and is left alone (chosen: rounding to
float16 moves it by 1e-3 of a component, to float32 by 1e-7)."""


@dataclass(frozen=True, eq=False)
class Pool:
    """Rows to choose from. All columns have as many entries as `ids`; `None` is a column that is not there.

    `ids`: different strings. `tokens`: int64, what a row costs in a token budget. `embeddings`: float32
    [n, d]; made unit length here, a zero vector stays one. `texts`: the rows as text. `groups`: a name for
    each row. `table`: the rows as they were read, for selectors that want other columns. `start`: int64
    indices of rows that are chosen already; they come first in every selection and count. `target`: rows
    that the choice shall resemble (a pool of its own).

    Raises InputError for ids that repeat, and for a vector that is not finite, naming the row.
    """

    ids: pa.Array
    tokens: Array
    embeddings: Array | None = None
    texts: pa.Array | None = None
    groups: pa.Array | None = None
    table: pa.Table | None = None
    start: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    target: Pool | None = None

    def __post_init__(self) -> None:
        for name in ("tokens", "embeddings", "texts", "groups", "table"):
            column = getattr(self, name)
            if column is not None and len(column) != len(self.ids):
                raise InputError(f"{name} has {len(column)} entries for {len(self.ids)} ids")
        sorted_ids = self.ids.take(self.by_id)
        if len(sorted_ids) > 1:
            same = pc.equal(sorted_ids[1:], sorted_ids[:-1])
            if pc.any(same).as_py():
                twice = sorted_ids[pc.index(same, True).as_py()]
                raise InputError(f"the id {str(twice)!r} occurs twice; give every row an id of its own")
        object.__setattr__(self, "tokens", np.asarray(self.tokens, np.int64))
        object.__setattr__(self, "start", np.asarray(self.start, np.int64))
        if self.embeddings is not None:
            object.__setattr__(self, "embeddings", unit_rows(self.embeddings, self.ids))

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def by_id(self) -> Array:
        """The rows in order of their ids (int64)."""
        return np.asarray(pc.sort_indices(self.ids), np.int64)

    @cached_property
    def rank(self) -> Array:
        """The place of each row in the order of ids (int64): the smaller one wins a tie."""
        place = np.empty(len(self), np.int64)
        place[self.by_id] = np.arange(len(self))
        return place

    @cached_property
    def empty(self) -> Array:
        """The rows whose vector is zero (bool): they have no place among the others."""
        if self.embeddings is None:
            return np.zeros(len(self), bool)
        return np.asarray(~self.embeddings.any(axis=1), bool)

    def vectors(self, method: str) -> Array:
        """Return the embeddings; raises UsageError, naming the method that needs them, if there are none."""
        if self.embeddings is None:
            raise UsageError(f"{method} needs embeddings; name their column with --embeddings or give --text")
        return self.embeddings

    def take(self, rows: Array) -> Pool:
        """Return the pool of these rows, in this order."""
        place = np.full(len(self), -1, np.int64)
        place[rows] = np.arange(len(rows))
        start = place[self.start]
        return Pool(
            self.ids.take(rows),
            self.tokens[rows],
            None if self.embeddings is None else self.embeddings[rows],
            None if self.texts is None else self.texts.take(rows),
            None if self.groups is None else self.groups.take(rows),
            None if self.table is None else self.table.take(rows),
            start[start >= 0],
            self.target,
        )


def unit_rows(vectors: Array, ids: pa.Array, in_place: bool = False) -> Array:
    """Return rows of length 1 (float32 [n, d], C order), a zero vector as it is.

    A copy is made only where a row must change and they may not be changed `in_place`. Raises InputError,
    naming the row, for a vector that is not finite.
    """
    unit = np.ascontiguousarray(vectors, np.float32)
    if unit.ndim != 2:
        raise InputError(f"embeddings must be a matrix of one row for each id, not of shape {unit.shape}")
    owned = in_place or unit is not vectors
    for begin in range(0, len(unit), _BLOCK):
        block = unit[begin : begin + _BLOCK]
        squares = np.einsum("nd,nd->n", block, block, dtype=np.float64)
        wrong = np.flatnonzero(~np.isfinite(squares))
        if len(wrong):
            name = ids[begin + int(wrong[0])].as_py()
            raise InputError(f"the vector of row {name!r} is not finite; mend or drop that row")
        off = np.flatnonzero((np.abs(squares - 1) > UNIT) & (squares > 0))
        if len(off):
            if not owned:
                unit, owned = unit.copy(), True
                block = unit[begin : begin + _BLOCK]
            wide = block[off].astype(np.float64)
            block[off] = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return unit


@dataclass(frozen=True)
class Budget:
    """How much may be chosen: so many rows, a share of the rows, or so many tokens (one of the three)."""

    rows: int | None = None
    share: Fraction | None = None
    tokens: int | None = None

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read `500`, `0.5%` or `20000tok`; raises UsageError for anything else, and for nothing."""
        found = re.fullmatch(r"\s*([0-9][0-9_,]*(?:\.[0-9]+)?)\s*(%|tok|tokens)?\s*", text)
        number = Fraction(found[1].replace("_", "").replace(",", "")) if found else Fraction(0)
        unit = found[2] if found else None
        if not found or (unit != "%" and number.denominator > 1) or (unit == "%" and number > 100):
            raise UsageError(f"the budget {text!r} is none; write rows as 500, a share as 0.5%, or 20000tok")
        if not number:
            raise UsageError(f"the budget {text!r} chooses nothing; give one above 0")
        if unit == "%":
            return cls(share=number / 100)
        return cls(tokens=int(number)) if unit else cls(rows=int(number))

    def costs(self, pool: Pool) -> tuple[Array, int]:
        """Return (what each row costs, what may be spent in all): int64, tokens or ones.

        A share is rounded to the nearest row, halves up, and is one row at least.
        """
        if self.tokens is not None:
            return np.maximum(pool.tokens, 1), self.tokens  # an empty row still takes a place
        count = self.rows or 0
        if self.share is not None:
            count = max(1, int(self.share * len(pool) + Fraction(1, 2)))
        return np.ones(len(pool), np.int64), count

    def expected_rows(self, pool: Pool) -> int:
        """Return about how many rows will be chosen; exact for rows and shares."""
        costs, limit = self.costs(pool)
        if self.tokens is None or not len(pool):
            return min(limit, len(pool))
        return min(len(pool), -(-limit * len(pool) // int(costs.sum())))


@dataclass(frozen=True, eq=False)
class Selection:
    """Chosen rows, best first: `rows` (int64 indices into the pool) and `scores` (float64, the gain of each).

    `evidence` is what the selector has to say about it, in plain values that JSON can hold.
    """

    rows: Array
    scores: Array
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Needs:
    """What a selector will take beside the pool itself: bytes of memory, and multiply-adds."""

    bytes: float = 0.0
    operations: float = 0.0


class Selector:
    """A way to choose. Its settings are the fields of a frozen dataclass, each with a default.

    `uses` names what it takes from the pool beside ids and tokens: "embeddings", "texts", "groups",
    "target", "table".
    """

    uses: ClassVar[tuple[str, ...]] = ()

    def pick(self, pool: Pool, budget: Budget, seed: int) -> Selection:
        """Return the choice; equal arguments give equal choices, in whatever order the pool's rows come."""
        raise NotImplementedError

    def needs(self, rows: int, width: int, picks: int) -> Needs:
        """Return an upper estimate for a pool of `rows` vectors of `width`, of which `picks` are chosen."""
        return Needs(32.0 * rows, float(rows))


SELECTORS: Registry[type[Selector]] = Registry(
    "selector",
    {
        "random": "taskmill.select.simple:Random",
        "stratified": "taskmill.select.simple:Stratified",
        "length": "taskmill.select.simple:Length",
        "k-center": "taskmill.select.kcenter:KCenter",
        "k-center-robust": "taskmill.select.kcenter:RobustKCenter",
        "k-means": "taskmill.select.kmeans:KMeans",
        "density": "taskmill.select.density:Density",
        "facility-location": "taskmill.select.facility:FacilityLocation",
        "dsir": "taskmill.select.dsir:Dsir",
        "score": "taskmill.select.deita:ByScore",
        "deita": "taskmill.select.deita:Deita",
        "semdedup": "taskmill.select.semdedup:SemDedup",
        "rds": "taskmill.select.rds:Rds",
        "herding": "taskmill.select.rds:Herding",
        "ifd": "taskmill.select.likelihood:Ifd",
        "perplexity": "taskmill.select.likelihood:Perplexity",
    },
)
"""Name → selector, a dataclass of its settings."""


def make(name: str, settings: Mapping[str, Any] | None = None) -> Selector:
    """Return a selector by name with these settings.

    Raises UnknownName for a name nobody registered, ConfigError for a setting it does not have.
    """
    return build(SELECTORS.get(name), settings or {}, f"{name}: ")


def generator(seed: int, purpose: str, name: str = "") -> np.random.Generator:
    """Return a stream of random numbers; give out its numbers to rows in order of id (`pool.by_id`)."""
    return np.random.Generator(np.random.PCG64(draw(seed, name, purpose)))


def fill(
    pool: Pool,
    budget: Budget,
    order: Array,
    scores: Array,
    evidence: Mapping[str, Any] | None = None,
) -> Selection:
    """Return what fits of rows in order: `order` (int64 row indices) with a score for each place of it.

    The rows of `pool.start` come first. A row that does not fit into what is left is passed over.
    """
    costs, limit = budget.costs(pool)
    if len(pool.start):
        known = dict(zip(order.tolist(), scores.tolist(), strict=True))
        rest = ~np.isin(order, pool.start)
        early = np.array([known.get(row, 0.0) for row in pool.start.tolist()])
        order = np.concatenate([pool.start, order[rest]])
        scores = np.concatenate([early, scores[rest]])
    taken = _fitting(costs[order], limit)
    return Selection(order[taken].astype(np.int64), scores[taken].astype(np.float64), dict(evidence or {}))


def _fitting(costs: Array, limit: int) -> Array:
    """Return the places taken when costs are paid in order and what does not fit is passed over."""
    if not len(costs):
        return np.zeros(0, np.int64)
    cheapest = np.minimum.accumulate(costs[::-1])[::-1]  # of this place and all after it
    taken: list[Array] = []
    at, left = 0, limit
    while at < len(costs) and cheapest[at] <= left:
        if costs[at] > left:
            # The next place that fits: looked for in growing steps, the row may be far away.
            step = 64
            while not (costs[at : at + step] <= left).any():
                at, step = at + step, step * 2
            at += int(np.argmax(costs[at : at + step] <= left))
        run = int(np.searchsorted(np.cumsum(costs[at : at + 4096]), left, side="right"))
        taken.append(np.arange(at, at + run))
        left -= int(costs[at : at + run].sum())
        at += run
    return np.concatenate(taken) if taken else np.zeros(0, np.int64)


def interleave(groups: Array, equal: bool = False) -> Array:
    """Return an order of places that gives every group its share in every prefix.

    `groups` (int64): the group of each place; within a group the given order is kept. Shares follow the
    sizes of the groups (the divisor method of Webster and Sainte-Laguë: the n-th of a group of size s comes
    at (2n - 1) / s, so a longer prefix never takes a row back), or are `equal`; ties go to the smaller
    number of group. A group that is used up leaves its turns to the others.
    """
    order = np.argsort(groups, kind="stable")
    sizes = np.bincount(groups) if len(groups) else np.zeros(0, np.int64)
    begins = np.concatenate(([0], np.cumsum(sizes)))
    within = np.empty(len(groups), np.int64)
    within[order] = np.arange(len(groups)) - begins[groups[order]]
    turn = within.astype(np.float64) if equal else (2 * within + 1) / sizes[groups]
    return np.lexsort((groups, turn))
