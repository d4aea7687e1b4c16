"""What an LTD experiment trains: all its students, laid out before the first, and the time they take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from taskmill.budget import seconds_of
from taskmill.errors import UsageError
from taskmill.ids import content_id, draw
from taskmill.recipes.ltd.config import LtdConfig
from taskmill.recipes.ltd.evidence import FULL, Arm
from taskmill.recipes.ltd.rows import Data, Region, beginning, order
from taskmill.recipes.students import ROOM, Learner, Speed
from taskmill.train.student import Item

__all__ = ["Grid", "Unit", "laid_out", "seconds", "thinned", "unit_seconds"]

Array = np.ndarray[Any, Any]

LEAST_SHARE = 0.02
"""Share of the pool below which thinning it is refused (chosen: the small ratios would have no row left)."""


@dataclass(frozen=True)
class Unit:
    """One student: the rows (indices into the pool, by id) it learns, how often, and the seed."""

    key: str
    rows: tuple[int, ...]
    tokens: int
    seed: int
    times: float


@dataclass(frozen=True)
class Grid:
    """All that is to be trained. `cells`: arm and ratio → the key of its unit for each seed."""

    units: Mapping[str, Unit]
    cells: Mapping[tuple[Arm, float], list[str]]
    full: list[str]
    base: str
    skipped: list[dict[str, Any]]


def laid_out(config: LtdConfig, data: Data, found: Region, learner: Learner) -> Grid:
    """Return the grid of all rows. Raises UsageError for what cannot be chosen by; nothing is trained."""
    return _grid(config, data, found, np.ones(len(data.pool), bool), learner)


def thinned(
    grid: Grid, config: LtdConfig, data: Data, found: Region, learner: Learner, speed: Speed
) -> tuple[Array, Grid]:
    """Return (the rows that take part (bool), the grid): fewer rows, by chance, where time is limited.

    `grid` is that of all rows.
    """
    alive = np.ones(len(data.pool), bool)
    limit = seconds_of(config.budget)
    if seconds(grid, speed, data) <= limit:
        return alive, grid
    fixed = len(grid.units) * (speed.unit + speed.item * len(data.items))
    growing = seconds(grid, speed, data) - fixed
    share = (ROOM * limit - fixed) / growing
    if share < LEAST_SHARE:
        raise UsageError(
            f"{len(grid.units)} students take {fixed:.0f} s without their training, and {growing:.0f} s to "
            f"train; give a larger --budget, or fewer --ratios, --seeds, --selectors or --test-rows"
        )
    chance = [draw(config.train.seed, str(name), "ltd thin") / 2**63 for name in data.pool.ids]
    alive = np.array(chance) < share
    if not (alive & found.rows).any():
        raise UsageError(f"in {config.budget} no row of the region can be kept; give a larger --budget")
    return alive, _grid(config, data, found, alive, learner)


def seconds(grid: Grid, speed: Speed, data: Data) -> float:
    """Return about how long all units take, none of them done."""
    return sum(unit_seconds(unit, speed, data) for unit in grid.units.values())


def unit_seconds(unit: Unit, speed: Speed, data: Data) -> float:
    """Return about how long a unit takes."""
    return speed.unit + speed.item * len(data.items) + speed.token * unit.tokens * unit.times


def _grid(config: LtdConfig, data: Data, found: Region, alive: Array, learner: Learner) -> Grid:
    """Lay out all units. An arm gets, at a ratio, as many tokens as that share of the whole region has.

    The rows are the longest beginning of the arm's order within them. A ratio at which an arm has fewer
    tokens, or no row that fits, is skipped with the reason.
    """
    inside, everything = found.rows & alive, alive
    full_tokens = int(data.pool.tokens[inside].sum())
    marked = content_id(*(_item_id(item) for item in data.items))
    units: dict[str, Unit] = {}
    cells: dict[tuple[Arm, float], list[str]] = {}
    skipped: list[dict[str, Any]] = []

    def add(rows: Array, seed: int) -> str:
        ordered = sorted(rows.tolist(), key=lambda row: int(data.pool.rank[row]))
        tokens = int(data.pool.tokens[ordered].sum()) if ordered else 0
        times = full_tokens / tokens if config.match == "tokens" and tokens else 1.0
        content = content_id(*(data.digests[row] for row in ordered))
        key = content_id(learner.name, content, marked, str(seed), f"{times!r}")
        units[key] = Unit(key, tuple(ordered), tokens, seed, times)
        return key

    seeds = range(config.train.seed, config.train.seed + config.seeds)
    base = add(np.zeros(0, np.int64), config.train.seed)
    full = [add(np.flatnonzero(inside), seed) for seed in seeds]
    limits = {ratio: int(full_tokens * ratio / FULL + 1e-6) for ratio in config.percents}
    for arm in map(Arm._make, product(config.scopes, config.templates, config.selectors)):
        wide = inside if arm.scope == "target" else everything
        made: list[dict[float, Array | str]] = []
        for seed in seeds:
            rows = np.flatnonzero(wide & _of_templates(data, wide, arm.templates, seed))
            ordered, _ = order(data, rows, arm.selector, seed, max(limits.values()), found.cluster)
            made.append({r: _part(ordered, data.pool.tokens, limit) for r, limit in limits.items()})
        for ratio in limits:
            parts = [own[ratio] for own in made]
            why = next((part for part in parts if isinstance(part, str)), "")
            if why:
                skipped.append({**arm._asdict(), "ratio": ratio, "why": why})
            else:
                cells[arm, ratio] = [add(np.asarray(p), s) for p, s in zip(parts, seeds, strict=True)]
    return Grid(units, cells, full, base, skipped)


def _part(ordered: Array, tokens: Array, limit: int) -> Array | str:
    total = int(tokens[ordered].sum())
    if total < limit:
        return f"it has {total} tokens of {limit}"
    rows = beginning(ordered, tokens, limit)
    return rows if len(rows) else f"its first row is longer than {limit} tokens"


def _of_templates(data: Data, inside: Array, templates: str, seed: int) -> Array:
    """Return the rows (bool) of the templates drawn for each task: one for every seed anew."""
    if templates == "all":
        return np.ones(len(data.pool), bool)
    there = {(data.tasks[row], data.templates[row]) for row in np.flatnonzero(inside).tolist()}
    drawn: dict[str, list[str]] = {}
    for task, name in sorted(there, key=lambda pair: (draw(seed, "\x1f".join(pair), "ltd template"), pair)):
        drawn.setdefault(task, []).append(name)
    kept = {(task, name) for task, names in drawn.items() for name in names[: int(templates)]}
    return np.array([pair in kept for pair in zip(data.tasks, data.templates, strict=True)])


def _item_id(item: Item) -> str:
    e = item.example
    return content_id(e.task, e.instruction, e.context, e.response, *item.choices)
