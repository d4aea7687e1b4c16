"""The plain selectors: by chance, by chance in every group alike, and by length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from taskmill.errors import UsageError
from taskmill.select import Budget, Pool, Selection, Selector, fill, generator, interleave

__all__ = ["Length", "Random", "Stratified", "by_chance", "by_group", "group_numbers"]

Array = np.ndarray[Any, Any]

Pick = Callable[..., Selection]
"""(group, budget, rows of it that are chosen already) → the choice within the group, as places of it."""


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
    prefix; what a group has not enough rows for, or rejects, goes to the others. Of a budget of tokens each
    group has its share, and what other groups leave over. The evidence has that of each group, by name.
    Raises UsageError without groups, or with rows that are chosen already.
    """
    if len(pool.start):
        raise UsageError("quotas and rows chosen before do not go together; leave out --group-by or --start")
    groups, names = group_numbers(pool)
    costs, _ = budget.costs(pool)
    members = [pool.by_id[groups[pool.by_id] == g] for g in range(len(names))]

    def pick(g: int, part: Budget, start: Array | None = None) -> Selection:
        own = pool.take(members[g])
        own = own if start is None else replace(own, start=start)
        return selector.pick(own, part, seed)

    sizes = np.array([int(costs[own].sum()) for own in members])
    weights = np.ones_like(sizes) if equal else sizes
    share = _rows_of_groups if budget.tokens is None else _tokens_of_groups
    quotas, chosen = share(pool, budget, groups, members, equal, pick)
    evidence = {
        "groups": len(names),
        "quotas": {name: int(quotas[g]) for g, name in enumerate(names)},
        "by group": {names[g]: dict(own.evidence) for g, own in sorted(chosen.items()) if own.evidence},
    }
    if not any(len(own.rows) for own in chosen.values()):
        return Selection(np.zeros(0, np.int64), np.zeros(0), evidence)
    picked, scores, turn, group = [], [], [], []
    for g, own in sorted(chosen.items()):
        mine = members[g][own.rows]
        picked.append(mine)
        scores.append(own.scores)
        # The middle of the place a row takes within its group's share.
        turn.append((np.cumsum(costs[mine]) - costs[mine] / 2) / max(1, weights[g]))
        group.append(np.full(len(mine), g))
    order = np.lexsort((np.concatenate(group), np.concatenate(turn)))
    return Selection(np.concatenate(picked)[order], np.concatenate(scores)[order], evidence)


def _rows_of_groups(
    pool: Pool, budget: Budget, groups: Array, members: list[Array], equal: bool, pick: Pick
) -> tuple[Array, dict[int, Selection]]:
    """Return (quotas, the choice of each group) for a budget of rows.

    A group that gives fewer rows than its quota has rejected the others: its later turns go to the rest.
    """
    _, limit = budget.costs(pool)
    turns = groups[pool.by_id][interleave(groups[pool.by_id], equal)]
    sizes = np.array([len(own) for own in members])
    within = np.empty(len(turns), np.int64)
    within[np.argsort(turns, kind="stable")] = np.concatenate([np.arange(size) for size in sizes])
    chosen: dict[int, Selection] = {}
    while True:
        quotas = np.bincount(turns[within < sizes[turns]][:limit], minlength=len(members))
        more = [g for g, quota in enumerate(quotas.tolist()) if quota > _picked(chosen, g)]
        if not more:
            return quotas, chosen
        for g in more:
            chosen[g] = pick(g, Budget(rows=int(quotas[g])))
            if len(chosen[g].rows) < quotas[g]:
                sizes[g] = len(chosen[g].rows)


def _picked(chosen: dict[int, Selection], g: int) -> int:
    return len(chosen[g].rows) if g in chosen else 0


def _tokens_of_groups(
    pool: Pool, budget: Budget, groups: Array, members: list[Array], equal: bool, pick: Pick
) -> tuple[Array, dict[int, Selection]]:
    """Return (quotas, the choice of each group) for a budget of tokens.

    Smaller groups come first and leave what they have over to the next; what is left in the end is offered
    to all once more, so that no row that fits is left out but by its selector.
    """
    costs, limit = budget.costs(pool)
    sizes = np.array([int(costs[own].sum()) for own in members])
    quotas = _token_quotas(sizes, np.ones_like(sizes) if equal else sizes, limit)
    chosen: dict[int, Selection] = {}
    order, left = np.argsort(sizes, kind="stable").tolist(), 0
    for offered in (quotas, np.zeros_like(quotas)):
        for g in order:
            left += int(offered[g])
            early = chosen[g].rows if g in chosen else np.zeros(0, np.int64)
            rest = np.delete(members[g], early)
            if not len(rest) or costs[rest].min() > left:
                continue
            spent = int(costs[members[g][early]].sum())
            chosen[g] = pick(g, Budget(tokens=spent + left), early if len(early) else None)
            left -= int(costs[members[g][chosen[g].rows]].sum()) - spent
    return quotas, chosen


def _token_quotas(sizes: Array, weights: Array, limit: int) -> Array:
    """Return how much of `limit` each group gets by weight, none more than its size (int64)."""
    quotas, left = np.zeros(len(sizes), np.int64), limit
    order = np.argsort(sizes / np.maximum(weights, 1), kind="stable")
    for i, g in enumerate(order.tolist()):
        whole = int(weights[order[i:]].sum())
        quotas[g] = min(int(sizes[g]), left * int(weights[g]) // whole) if whole else 0
        left -= int(quotas[g])
    return quotas
