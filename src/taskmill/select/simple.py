"""The plain selectors: by chance, by chance in every group alike, and by length."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from taskmill.errors import UsageError
from taskmill.select import Budget, Pool, Selection, Selector, fill, generator, interleave

__all__ = ["Length", "Random", "Stratified", "by_chance", "by_group", "group_numbers"]

Array = np.ndarray[Any, Any]


def by_chance(pool: Pool, seed: int, purpose: str) -> tuple[Array, Array]:
    """Return (rows in an order by chance, the number drawn for each): all rows, least number first."""
    drawn = generator(seed, purpose).random(len(pool))
    order = np.argsort(drawn, kind="stable")
    return pool.by_id[order], drawn[order]


def group_numbers(pool: Pool) -> tuple[Array, list[str]]:
    """Return (group of each row, names): numbered by name, a null is a group of its own, named "".

    Raises UsageError if the pool has no groups.
    """
    if pool.groups is None:
        raise UsageError("the rows have no groups; name their column with --group-by")
    names = sorted({"" if name is None else str(name) for name in pool.groups.unique().to_pylist()})
    number = {name: i for i, name in enumerate(names)}
    encoded = pool.groups.dictionary_encode()
    known = [number["" if name is None else str(name)] for name in encoded.dictionary.to_pylist()]
    index = encoded.indices.fill_null(len(known)).to_numpy(zero_copy_only=False)
    return np.array([*known, number.get("", 0)], np.int64)[index], names


@dataclass(frozen=True)
class Random(Selector):
    """Rows by chance, every one as likely as another. The score is 1 minus the number drawn."""

    def pick(self, pool: Pool, budget: Budget, seed: int) -> Selection:
        """Return rows by chance."""
        order, drawn = by_chance(pool, seed, "select random")
        return fill(pool, budget, order, 1.0 - drawn)


@dataclass(frozen=True)
class Stratified(Selector):
    """Rows by chance, every group with its share at every budget. The score is 1 minus the number drawn."""

    quota: str = field(
        default="proportional",
        metadata={"help": "shares of the groups", "choices": ("proportional", "equal")},
    )
    uses: ClassVar[tuple[str, ...]] = ("groups",)

    def pick(self, pool: Pool, budget: Budget, seed: int) -> Selection:
        """Return rows by chance within each group, the groups taking turns."""
        order, drawn = by_chance(pool, seed, "select stratified")
        groups, names = group_numbers(pool)
        turns = interleave(groups[order], self.quota == "equal")
        return fill(pool, budget, order[turns], 1.0 - drawn[turns], {"groups": len(names)})


@dataclass(frozen=True)
class Length(Selector):
    """The longest rows by tokens, or the shortest; ties go to the smaller id. The score is the length.

    A filter by length is the one plain rule that helps weak base models on large pools (arXiv 2410.09335).
    """

    keep: str = field(default="longest", metadata={"help": "which rows", "choices": ("longest", "shortest")})

    def pick(self, pool: Pool, budget: Budget, seed: int) -> Selection:
        """Return the rows by length; the seed plays no part."""
        tokens = pool.tokens if self.keep == "shortest" else -pool.tokens
        order = np.lexsort((pool.rank, tokens))
        return fill(pool, budget, order, pool.tokens[order].astype(np.float64))


def by_group(selector: Selector, pool: Pool, budget: Budget, seed: int, equal: bool = False) -> Selection:
    """Return the selector's choice within each group, the groups with quotas, and taking turns.

    Quotas are `equal` or follow the groups' sizes, in rows or in tokens, as the budget is. The groups'
    parts of a budget of rows add up to it and grow with it (see `interleave`), so a smaller budget is a
    prefix. Of a budget of tokens each group has its share, and what a smaller group leaves over.
    Raises UsageError without groups, or with rows that are chosen already.
    """
    if len(pool.start):
        raise UsageError("quotas and rows chosen before do not go together; leave out --group-by or --start")
    groups, names = group_numbers(pool)
    costs, limit = budget.costs(pool)
    rows = [pool.by_id[groups[pool.by_id] == g] for g in range(len(names))]
    sizes = np.array([int(costs[own].sum()) for own in rows])
    weights = np.ones_like(sizes) if equal else sizes
    quotas = _token_quotas(sizes, weights, limit)
    if budget.tokens is None:
        turns = interleave(groups[pool.by_id], equal)[:limit]
        quotas = np.bincount(groups[pool.by_id][turns], minlength=len(names))
    picked, scores, turn, group, left = [], [], [], [], 0
    for g in np.argsort(sizes, kind="stable").tolist():
        quota = int(quotas[g]) + (left if budget.tokens is not None else 0)
        if not quota:
            continue
        own = Budget(rows=quota) if budget.tokens is None else Budget(tokens=quota)
        chosen = selector.pick(pool.take(rows[g]), own, seed)
        mine = rows[g][chosen.rows]
        left = quota - int(costs[mine].sum())
        picked.append(mine)
        scores.append(chosen.scores)
        # The middle of the place a row takes within its group's share.
        turn.append((np.cumsum(costs[mine]) - costs[mine] / 2) / weights[g])
        group.append(np.full(len(mine), g))
    evidence = {"groups": len(names), "quotas": {names[g]: int(quotas[g]) for g in range(len(names))}}
    if not picked:
        return Selection(np.zeros(0, np.int64), np.zeros(0), evidence)
    order = np.lexsort((np.concatenate(group), np.concatenate(turn)))
    return Selection(np.concatenate(picked)[order], np.concatenate(scores)[order], evidence)


def _token_quotas(sizes: Array, weights: Array, limit: int) -> Array:
    """Return how much of `limit` each group gets by weight, none more than its size (int64)."""
    quotas, left = np.zeros(len(sizes), np.int64), limit
    order = np.argsort(sizes / np.maximum(weights, 1), kind="stable")
    for i, g in enumerate(order.tolist()):
        whole = int(weights[order[i:]].sum())
        quotas[g] = min(int(sizes[g]), left * int(weights[g]) // whole) if whole else 0
        left -= int(quotas[g])
    return quotas
