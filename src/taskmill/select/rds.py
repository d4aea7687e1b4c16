"""Towards something: RDS+ takes the rows nearest to a target's queries, herding those that keep the mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from taskmill.errors import InputError, UsageError
from taskmill.select import Budget, Needs, Pool, Selection, Selector, fill
from taskmill.select.deita import Spending

__all__ = ["Herding", "Rds", "herd", "round_robin"]

Array = np.ndarray[Any, Any]


def round_robin(scores: Sequence[Array], rank: Array, count: int) -> tuple[Array, Array]:
    """Return (rows, turns): each task in turn takes the best row by its own scores that nobody took.

    `scores`: float32 [n], one array a task; `rank` (int64 [n]) settles ties, the smaller first. Stops at
    `count` rows or when all are taken. `turns` (int64) says whose turn it was.
    """
    rows = min(count, len(rank))
    taken = np.zeros(len(rank), bool)
    orders = [_best(own, rank, rows) for own in scores]
    ahead = [0] * len(scores)
    chosen, turns = np.empty(rows, np.int64), np.empty(rows, np.int64)
    for at in range(rows):
        task = at % len(scores)
        while taken[orders[task][ahead[task]]]:
            ahead[task] += 1
        row = orders[task][ahead[task]]
        chosen[at], turns[at], taken[row] = row, task, True
    return chosen, turns


def _best(scores: Array, rank: Array, count: int) -> Array:
    """Return the `count` best rows in order: no task can be asked for more before the choice is full."""
    if count < len(scores):
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        rows = np.flatnonzero(scores >= least)
    else:
        rows = np.arange(len(scores))
    return rows[np.lexsort((rank[rows], -scores[rows]))][:count]


@dataclass(frozen=True)
class Rds(Selector):
    """RDS+ (Ivison et al. 2025, 2503.01807): the rows nearest to any query, the tasks of the queries in turn.

    The paper's vectors are the position-weighted last hidden states of the base model: `hidden:MODEL`.
    """

    uses: ClassVar[tuple[str, ...]] = ("embeddings", "target")

    def pick(self, pool: Pool, budget: Budget, seed: int) -> Selection:
        """Return rows as the tasks take them; a score is the largest cosine to a query of the task.

        A task is a group of the target (all of it, if it has none); tasks take turns in order of name. Rows
        without a vector come last. Raises UsageError without a target, InputError if no query has a vector.
        """
        from taskmill.kernels.distances import nearest

        vectors = pool.vectors("rds")
        if pool.target is None:
            raise UsageError("rds needs the queries to come near to; give a file of them with --target")
        tasks = _queries(pool.target)
        if tasks and next(iter(tasks.values())).shape[1] != vectors.shape[1]:
            raise InputError("the target's vectors are of another width than the pool's; embed both alike")
        scores = [np.where(pool.empty, -2.0, nearest(vectors, own)[0]) for own in tasks.values()]
        free = np.setdiff1d(np.arange(len(pool)), pool.start)
        most = len(free) if budget.tokens is not None else budget.costs(pool)[1]
        picks, turns = round_robin([own[free] for own in scores], pool.rank[free], most)
        rows = free[picks]
        cosines = np.array([scores[task][row] for task, row in zip(turns, rows, strict=True)])
        order = np.concatenate([pool.start, rows])
        best = np.max(scores, axis=0)[pool.start]
        evidence = {"tasks": list(tasks), "queries": sum(map(len, tasks.values()))}
        return fill(pool, budget, order, np.maximum(np.concatenate([best, cosines]), -1.0), evidence)

    def needs(self, rows: int, width: int, picks: int) -> Needs:
        """Two numbers a row and task; the queries are not known here: 500 in 5 tasks are assumed."""
        return Needs(120.0 * rows, 500.0 * rows * width)


def _queries(target: Pool) -> dict[str, Array]:
    """Return the vectors of each task's queries, tasks in order of name; a query without one is left out."""
    vectors = target.vectors("rds")
    names = np.array(
        [""] * len(target) if target.groups is None else [str(name) for name in target.groups.to_pylist()]
    )
    some = ~target.empty
    tasks = {str(name): np.ascontiguousarray(vectors[(names == name) & some]) for name in np.unique(names)}
    tasks = {name: own for name, own in tasks.items() if len(own)}
    if not tasks:
        raise InputError("no row of the target has a vector; give texts that are not empty")
    return tasks


def herd(vectors: Array, rank: Array, given: Sequence[int] = ()) -> Iterator[tuple[int, float]]:
    """Yield (row, score), all rows in the end: those whose running mean stays nearest to the mean of all.

    Herding (Welling 2009, in a linear feature space): row t + 1 has the largest product with
    (t + 1) · mean − sum of the t rows before; ties go to the smaller `rank`. The `given` rows are taken
    first. `vectors`: float32 [n, d]; n · d multiply-adds for each row.
    """
    from taskmill.kernels.distances import means, products_with

    towards = products_with(vectors, means(vectors, np.zeros(len(vectors), np.int64), 1)[0][0])
    score, taken = towards.copy(), np.zeros(len(vectors), bool)
    by_rank = np.argsort(rank)
    for at in range(len(vectors)):
        if at < len(given):
            row = int(given[at])
        else:
            open_score = np.where(taken, -np.inf, score)[by_rank]
            row = int(by_rank[np.argmax(open_score)])  # argmax takes the first of equal ones
        yield row, float(score[row])
        taken[row] = True
        score += towards - products_with(vectors, vectors[row].astype(np.float64))


@dataclass(frozen=True)
class Herding(Selector):
    """Rows whose mean follows the mean of the pool: a baseline for all that claim to cover it."""

    uses: ClassVar[tuple[str, ...]] = ("embeddings",)

    def pick(self, pool: Pool, budget: Budget, seed: int) -> Selection:
        """Return rows by herding; a score is the product that won. Rows without a vector come last."""
        vectors = pool.vectors("herding")
        some = np.flatnonzero(~pool.empty | np.isin(np.arange(len(pool)), pool.start))
        place = np.full(len(pool), -1, np.int64)
        place[some] = np.arange(len(some))
        rows, scores, spending = [], [], Spending(pool, budget)
        for row, score in herd(vectors[some], pool.rank[some], place[pool.start].tolist()):
            rows.append(int(some[row]))
            scores.append(score)
            spending.pay(rows[-1])
            if spending.over:
                break
        late = np.setdiff1d(np.arange(len(pool)), some)
        late = late[np.argsort(pool.rank[late])]
        order = np.concatenate([np.array(rows, np.int64), late])
        return fill(pool, budget, order, np.array(scores + [0.0] * len(late)))

    def needs(self, rows: int, width: int, picks: int) -> Needs:
        """A float64 or five for each row; every pick looks at every row."""
        return Needs(60.0 * rows, float(rows) * picks * width)
