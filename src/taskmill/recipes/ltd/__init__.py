"""LTD: how little of a pool does one task need? The question of arXiv 2305.09246, for a pool of one's own.

Embed the pool, cluster it, find the region of the target task, put its rows in the order of a core-set, train
a student on the beginning of that order at each ratio, and score it on held-out rows of the task, beside
students on as many tokens by chance.

    DIR/  plan.json        what is trained, and the time it takes as measured here
          order.parquet    id, cluster, in_region, rank, score: smaller core-sets are beginnings of it
          dropped.parquet  rows that no student may see, with the reason
          units/KEY/       one student: unit.json has its answers and marks and is written last
          core.parquet     the rows of the smallest sufficient core-set, if there is one
          result.json, report.html

A unit's key is a hash of what it is trained on and how. So a killed run goes on with the unit it was at, and
another grid of ratios or seeds uses the units it shares with the last one.
"""

from __future__ import annotations

import math
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from taskmill.config import to_mapping
from taskmill.evaluate.crossed import interval, shown
from taskmill.recipes.ltd.config import LtdConfig
from taskmill.recipes.ltd.evidence import Arm, claims, curve, smallest, table
from taskmill.recipes.ltd.grid import Grid, Unit, laid_out, seconds, thinned, unit_seconds
from taskmill.recipes.ltd.rows import Data, Region, beginning, order, read, region
from taskmill.recipes.session import OnProgress, Progress, ignore
from taskmill.recipes.students import TRIED_ITEMS, TRIED_TOKENS, Learner, Speed, measured, trained
from taskmill.recipes.tables import check_out
from taskmill.record import Example
from taskmill.report.ltd import write_ltd_report
from taskmill.store import Run, write_json, write_parquet
from taskmill.train.loop import OnStep
from taskmill.train.student import Item, metric

__all__ = ["LtdConfig", "ltd"]

Array = np.ndarray[Any, Any]


def ltd(
    config: LtdConfig,
    out: str | Path,
    on_progress: OnProgress | None = None,
    *,
    student: Learner | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Run the experiment in folder `out`, or go on with it, and return what result.json holds.

    With `dry_run` return the plan and its time only; a small training measures the speed for it.

    Raises UsageError, InputError, MissingExtra or BackendError before anything is trained, RunFolderError if
    the folder is in use or holds something else.
    """
    report, began = on_progress or ignore, time.monotonic()
    with _folder(check_out(out, [config.source, *config.target], "ltd")) as run:
        learner = student or _student(config)
        report(Progress("read rows"))
        data = read(config, learner.lengths)
        report(Progress("find the task", 0, len(data.pool)))
        found = region(data, config)
        report(Progress("order the rows", 0, len(data.pool)))
        everything = laid_out(config, data, found, learner)  # what is wrong shows before anything is trained
        report(Progress("measure the speed"))
        speed = measured(run.path, learner, *_tried(config, data, found), config.train.seed)
        alive, grid = thinned(everything, config, data, found, learner, speed)
        plan = _plan(config, data, found, grid, alive, learner, speed)
        write_json(run.path / "plan.json", plan)
        if dry_run:
            return plan
        for name in ("result.json", "report.html", "core.parquet", "order.parquet", "dropped.parquet"):
            (run.path / name).unlink(missing_ok=True)  # an older result must not stand beside new units
        write_parquet(run.path / "dropped.parquet", data.dropped)
        write_parquet(run.path / "order.parquet", _order_table(config, data, found, alive))
        done, made = _trained(run.path, config, data, grid, learner, speed, report)
        record = plan | _judged(config, data, grid, done)
        record["units"] = {"all": len(grid.units), "made": made, "reused": len(grid.units) - made}
        record["seconds"] = {
            "students": round(sum(unit["all_s"] for unit in done.values()), 1),
            "session": round(time.monotonic() - began, 1),
        }
        core = _core(record, config, data, grid)
        if core is not None:
            write_parquet(run.path / "core.parquet", core)
        write_json(run.path / "result.json", record)
        write_ltd_report(run.path / "report.html", record)
        return record


@contextmanager
def _folder(path: Path) -> Iterator[Run]:
    """Open the experiment's folder; one that an error leaves without anything in it is removed again."""
    with Run(path) as run:
        try:
            yield run
        except BaseException:
            if [one.name for one in path.iterdir()] == [".lock"]:
                shutil.rmtree(path, ignore_errors=True)
            raise


def _student(config: LtdConfig) -> Learner:
    from taskmill.train.student import Student

    return Student(config.recipe, config.layout, config.norm, config.max_new_tokens)


def _plan(
    config: LtdConfig, data: Data, found: Region, grid: Grid, alive: Array, learner: Learner, speed: Speed
) -> dict[str, Any]:
    inside = found.rows & alive
    return {
        "command": "ltd",
        "config": to_mapping(config),
        "student": learner.name,
        "rows": dict(data.counts),
        "region": dict(found.evidence),
        "thinned": {
            "share": round(float(alive.mean()), 6),
            "rows": int(inside.sum()),
            "tokens": int(data.pool.tokens[inside].sum()),
        },
        "items": {
            "scored": len(data.items),
            "of_choices": sum(bool(item.choices) for item in data.items),
            "metrics": dict(Counter(map(metric, data.items))),
        },
        "speed": speed._asdict(),
        "units": {"all": len(grid.units)},
        "estimate_s": round(seconds(grid, speed, data), 1),
        "skipped": grid.skipped,
    }


# the students


def _tried(config: LtdConfig, data: Data, found: Region) -> tuple[list[Example], list[Item]]:
    """Return what the speed is measured by: rows of the region by chance, and some items."""
    rows, seed = np.flatnonzero(found.rows), config.train.seed
    ordered, _ = order(data, rows, "random", seed, TRIED_TOKENS, found.cluster)
    part = beginning(ordered, data.pool.tokens, TRIED_TOKENS)
    tried = (part if len(part) else ordered[:1]).tolist()
    return [data.examples[row] for row in tried], data.items[:TRIED_ITEMS]


def _trained(
    folder: Path,
    config: LtdConfig,
    data: Data,
    grid: Grid,
    learner: Learner,
    speed: Speed,
    report: OnProgress,
) -> tuple[dict[str, dict[str, Any]], int]:
    """Return (what each unit's unit.json holds, how many were made now); the smallest come first."""

    def make(unit: Unit, work: Path, on_step: OnStep) -> dict[str, Any]:
        rows = [data.examples[row] for row in unit.rows]
        outcome = learner.learn(rows, data.items, unit.seed, unit.times, work, on_step)
        told = {"rows": len(unit.rows), "tokens": unit.tokens, "seed": unit.seed, "times": unit.times}
        return {**told, **asdict(outcome)}

    return trained(
        folder / "units",
        sorted(grid.units.values(), key=lambda u: (u.tokens * u.times, u.tokens, u.seed, u.key)),
        make,
        lambda unit: unit_seconds(unit, speed, data),
        lambda unit: f"{unit.tokens} tokens, seed {unit.seed}",
        report,
        keep=lambda unit: config.keep,
    )


# what they prove


def _judged(
    config: LtdConfig, data: Data, grid: Grid, done: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return means, smallest sufficient ratios, learning curves and claims, each with its interval."""
    seed, confidence, first = config.train.seed, config.confidence, config.selectors[0]
    marks = {cell: _marks(done, keys) for cell, keys in grid.cells.items()}
    full, base = _marks(done, grid.full), _marks(done, [grid.base])
    lines = table(marks, confidence, seed)
    for line in lines:
        keys = grid.cells[Arm(line["scope"], line["templates"], line["selector"]), line["ratio"]]
        line["rows"] = round(float(np.mean([done[key]["rows"] for key in keys])), 1)
        line["tokens"] = round(float(np.mean([done[key]["tokens"] for key in keys])), 1)
    enough: dict[str, Any] = {}
    learned: dict[str, Any] = {}
    for selector in config.selectors:
        own = {r: found for (arm, r), found in marks.items() if arm == Arm("target", "all", selector)}
        ratio, tested = smallest(own, full, config.epsilon, confidence, seed)
        enough[selector] = {"ratio": ratio, "tested": tested}
        if own:
            rows = {line["ratio"]: line["rows"] for line in lines if _is_core(line, selector)}
            points = {r: (rows[r], found) for r, found in own.items()}
            learned[selector] = curve(points, config.epsilon, confidence, seed)
    return {
        "full": shown(interval(full, confidence, seed)),
        "base": shown(interval(base, confidence, seed)),
        "arms": lines,
        "sufficient": enough,
        "curves": learned,
        "claims": claims(marks, full, base, first, config.epsilon, confidence, seed),
    }


def _is_core(line: Mapping[str, Any], selector: str) -> bool:
    return (line["scope"], line["templates"], line["selector"]) == ("target", "all", selector)


def _marks(done: Mapping[str, Mapping[str, Any]], keys: Sequence[str]) -> Array:
    """Return the marks of units, float64 [units, items]."""
    return np.array([done[key]["marks"] for key in keys], np.float64)


def _order_table(config: LtdConfig, data: Data, found: Region, alive: Array) -> pa.Table:
    """Return every row of the pool with its cluster, and its place in the core-set's order if it has one."""
    pool = data.pool
    rows = np.flatnonzero(found.rows & alive)
    total = int(pool.tokens[rows].sum())
    ordered, scores = order(data, rows, config.selectors[0], config.train.seed, total, found.cluster)
    rank, score = np.full(len(pool), -1, np.int64), np.full(len(pool), math.nan)
    rank[ordered], score[ordered] = np.arange(len(ordered)), scores
    by = pool.by_id
    return pa.table(
        {
            "id": pool.ids.take(by),
            "cluster": pa.array(found.cluster[by], pa.int64()),
            "in_region": pa.array(found.rows[by], pa.bool_()),
            "rank": pa.array(rank[by], pa.int64(), mask=rank[by] < 0),
            "score": pa.array(score[by], pa.float64(), mask=rank[by] < 0),
        }
    )


def _core(record: Mapping[str, Any], config: LtdConfig, data: Data, grid: Grid) -> pa.Table | None:
    """Return the pool's rows of the smallest sufficient core-set, as they were read."""
    first = config.selectors[0]
    ratio = record["sufficient"][first]["ratio"]
    if ratio is None or data.pool.table is None:
        return None
    unit = grid.units[grid.cells[Arm("target", "all", first), ratio][0]]
    return data.pool.table.take(list(unit.rows))
