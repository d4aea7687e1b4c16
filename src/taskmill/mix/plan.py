"""How many rows of each task a mixture has: shares and limits → counts, and where each runs out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, inf
from typing import Any

import numpy as np

from taskmill.errors import ConfigError, UsageError
from taskmill.mix.source import Mixture, Source, leaves
from taskmill.mix.weights import Task, shares

__all__ = ["Plan", "apportioned", "make_plan", "nested"]

Array = np.ndarray[Any, Any]

_CLOSE = 1e-9
"""Two counts this near are one: shares are sums of fractions, whose last digits depend on the order."""

_MOST = 1 << 53
"""Most rows of a mixture: above, a double no longer tells one row from the next."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A mixture of `counts.sum()` rows, of `asked` ones.

    For each task: `shares` before and after caps, `limits` (most draws), `available` (rows of one pass: the
    cap, at most), `exhausted` (the number of draws after which it has none left at its share; infinite: it
    lasts). `ended`: the task whose policy ended the mixture, or -1.
    """

    asked: int
    counts: Array
    before: Array
    shares: Array
    limits: Array
    available: Array
    exhausted: Array
    ended: int = -1

    @property
    def rows(self) -> int:
        """Return how many rows are drawn."""
        return int(self.counts.sum())


def make_plan(mixture: Mixture, tasks: Sequence[Task], *, rows: int = 0, epochs: float = 0) -> Plan:
    """Plan a mixture of so many `rows`, or so many `epochs` of the rows there are (of each task, the cap).

    With neither: one epoch, or where `mixture.until` says. Counts are the largest-remainder allocation down
    the tree: no source and no task is further than one row from its share. Raises UsageError if the sources
    that come once hold more than `rows`, and for more rows than can be counted; ConfigError or InputError for
    sources that cannot be drawn.
    """
    if rows and epochs:
        raise UsageError("--rows and --epochs both say how much is drawn; give one of them")
    if not (rows < _MOST and epochs * max(sum(task.rows for task in tasks), 1) < _MOST):  # nan is not, either
        given = f"--rows {rows}" if rows else f"--epochs {epochs:g}"
        raise UsageError(f"{given}: a mixture has fewer than {_MOST:,} rows; give a smaller number")
    of = {leaf.name: leaf for leaf in leaves(mixture.root)}
    sources = [of[task.source] for task in tasks]
    size = np.array([task.rows for task in tasks], np.int64)
    available = np.array(
        [min(t.rows, s.cap or t.rows) for t, s in zip(tasks, sources, strict=True)], np.int64
    )
    passes = max(1, ceil(epochs))
    limits = np.array([_limit(s, int(n), passes) for s, n in zip(sources, available, strict=True)])
    fixed = _fixed(sources, tasks, available)
    asked = rows or _asked(mixture, tasks, available, limits, fixed, epochs)
    free = asked - int(fixed.sum())
    if free < 0:
        raise UsageError(
            f"sources that come once, or with a count, hold {int(fixed.sum()):,} rows, more than the "
            f"{asked:,} asked for; ask for more with --rows, or give them another policy"
        )
    share = shares(mixture, tasks, free)
    limits = np.where((size == 0) | (share == 0), 0.0, limits)
    stops = np.array([source.policy.name == "stop" for source in sources], bool) & (share > 0)
    spent, points, ended = _fill(share, limits, free, stops)
    counts = nested(spent, limits, tasks) + fixed
    whole = int(counts.sum())
    # Sources of fixed counts are spread over the whole mixture.
    points = np.where(fixed > 0, float(whole), points * (whole / max(whole - int(fixed.sum()), 1)))
    last = whole if ended >= 0 else max(whole, asked)
    points = np.where(points > last + _CLOSE, inf, points)
    before = shares(mixture, tasks, free, capped=False)
    return Plan(asked, counts, before, share, np.where(fixed > 0, fixed, limits), available, points, ended)


def _limit(source: Source, available: int, passes: int) -> float:
    if source.policy.name == "repeat":
        return available * source.policy.times if source.policy.times else inf
    return float(available * passes)


def _fixed(sources: Sequence[Source], tasks: Sequence[Task], available: Array) -> Array:
    """Return the rows of tasks whose number the weights do not decide."""
    found = np.zeros(len(tasks), np.int64)
    names = np.array([task.source for task in tasks], object)
    for source in dict.fromkeys(sources):
        own = np.flatnonzero(names == source.name)
        if source.count is None:
            if source.fixed:
                found[own] = available[own]
            continue
        rows = available[own]
        wanted = source.count if isinstance(source.count, int) else floor(source.count * rows.sum() + _CLOSE)
        keys = [tasks[i].key for i in own.tolist()]
        found[own] = apportioned(rows * (wanted / max(rows.sum(), 1)), np.full(len(own), inf), keys)
    return found


def _asked(
    mixture: Mixture, tasks: Sequence[Task], available: Array, limits: Array, fixed: Array, epochs: float
) -> int:
    """Return how many rows are meant where no number of rows is given."""
    free = np.where(fixed > 0, 0, available)
    if epochs or not mixture.until or not free.any():
        return round((epochs or 1) * int(free.sum())) + int(fixed.sum())
    share = shares(mixture, tasks, int(free.sum()))
    drawn = (share > 0) & (free > 0)
    if mixture.until == "first-empty":
        return floor(float((available[drawn] / share[drawn]).min()) + _CLOSE) + int(fixed.sum())
    if not np.isinf(limits[drawn]).all():
        raise ConfigError("until: all-seen draws small sources again; give them `policy: repeat`")
    return ceil(float((available[drawn] / share[drawn]).max()) - _CLOSE) + int(fixed.sum())


def _fill(share: Array, limits: Array, rows: int, stops: Array) -> tuple[Array, Array, int]:
    """Spend `rows` draws by shares, a task that reaches its limit leaving the rest to the others.

    Returns the draws of each task (not whole), the draws after which each reaches its limit, and the task
    whose policy ends it all before `rows` are drawn, or -1.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        times = np.where(share > 0, limits / np.where(share > 0, share, 1), inf)
    order = np.argsort(times, kind="stable")
    # When task k reaches its limit: what all before it gave, and what the others did by their share.
    limits_first = np.cumsum(np.where(np.isinf(times[order]), 0, limits[order]))
    rest = np.maximum(share.sum() - np.cumsum(share[order]), 0)
    moments = times[order]
    drawn = np.full(len(order), inf)
    ends = ~np.isinf(moments)
    drawn[ends] = limits_first[ends] + moments[ends] * rest[ends]
    points = np.empty(len(order))
    points[order] = drawn
    ended = -1
    if stops.any():
        first = int(np.flatnonzero(stops)[np.argmin(points[stops])])
        if floor(points[first] + _CLOSE) < rows:
            rows, ended = floor(points[first] + _CLOSE), first
    time = _moment(order, moments, drawn, share, limits, float(rows))
    return np.minimum(limits, share * time), points, ended


def _moment(order: Array, moments: Array, drawn: Array, share: Array, limits: Array, rows: float) -> float:
    """Return the time at which `rows` draws are made (a task gets share × time, up to its limit)."""
    k = int(np.searchsorted(drawn, rows - _CLOSE))
    left = float(share[order[k:]].sum())
    if left <= 0:  # all are at their limits
        return float(moments[k - 1]) if k else 0.0
    time = (rows - float(limits[order[:k]].sum())) / left
    return min(time, float(moments[k]))


def nested(wanted: Array, limits: Array, tasks: Sequence[Task]) -> Array:
    """Round draws of tasks to whole numbers of the same sum, down the tree of sources.

    First among the sources at the top, then inside each. A count that is its draws rounded up or down can
    always be made up of parts that are theirs rounded so: every node of the tree is within one row of its
    draws, where a single allocation over all tasks takes the rows of sources with many small ones.
    """
    found = np.zeros(len(tasks), np.int64)
    _descend(found, list(range(len(tasks))), 0, round(float(wanted.sum())), (wanted, limits, tasks))
    return found


def _descend(
    found: Array, own: Sequence[int], depth: int, total: int, draws: tuple[Array, Array, Sequence[Task]]
) -> None:
    """Write into `found` the counts of the tasks `own`, which share a path of `depth` parts: `total` rows."""
    wanted, limits, tasks = draws
    parts: dict[str, list[int]] = {}
    for i in own:
        path = tasks[i].source.split("/")
        parts.setdefault(path[depth] if depth < len(path) else tasks[i].key, []).append(i)
    sums = np.array([wanted[part].sum() for part in parts.values()])
    most = np.array([limits[part].sum() for part in parts.values()])
    for part, count in zip(parts.values(), apportioned(sums, most, list(parts), total).tolist(), strict=True):
        if len(part) == 1:
            found[part[0]] = count
        else:
            _descend(found, part, depth + 1, count, draws)


def apportioned(wanted: Array, limits: Array, names: Sequence[str], total: int | None = None) -> Array:
    """Round draws to whole numbers: the largest remainders go up, equal ones by name.

    `total`: what they sum to, the sum of the draws rounded up or down; without it, to the nearest.
    """
    down = np.floor(wanted + _CLOSE)
    over = round(float(wanted.sum() if total is None else total) - float(down.sum()))
    rest = np.where(down < limits, wanted - down, -1.0)
    ranks = sorted(range(len(wanted)), key=lambda i: (-round(float(rest[i]), 9), names[i]))
    for i in ranks[: max(over, 0)]:
        if rest[i] >= 0:
            down[i] += 1
    return down.astype(np.int64)
