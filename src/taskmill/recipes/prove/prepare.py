"""What is known before anything is trained: the test, the pool without it, the speed, the plan."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil, isfinite
from pathlib import Path
from typing import Any

from taskmill.budget import seconds_of
from taskmill.config import to_mapping
from taskmill.errors import InputError, UsageError
from taskmill.ids import content_id
from taskmill.ingest import fingerprint
from taskmill.recipes.general import Probes
from taskmill.recipes.prove.arms import Passages, Stock, make, passages, stocks
from taskmill.recipes.prove.config import ProveConfig, Target
from taskmill.recipes.prove.items import Test, asked, read_test
from taskmill.recipes.prove.overlap import Guard
from taskmill.recipes.prove.plan import (
    TRIED_PASSAGES,
    Making,
    Sizes,
    Watch,
    as_record,
    chosen,
    seconds,
)
from taskmill.recipes.session import OnProgress, Progress
from taskmill.recipes.students import TRIED_ITEMS, Learner, Row, Speed, measured
from taskmill.record import Document, Example
from taskmill.store import read_json, write_json

__all__ = ["Side", "planned", "side_of"]


@dataclass(frozen=True)
class Side:
    """What is known of a target before anything is trained."""

    target: Target
    test: Test
    guard: Guard
    pool: Passages


def side_of(config: ProveConfig, target: Target, general: Probes) -> Side:
    """Read a target's test, and its passages if an arm needs them, without the test and the general texts.

    Raises UsageError and InputError for what is missing or cannot be read.
    """
    if config.uses_pool and not target.text:
        raise UsageError("no passages are given; name a table with a column text with --text")
    test = read_test(target, config.train.seed)
    guard = Guard(test.questions, general.texts)
    pool = passages(target, guard, config.train.seed) if config.uses_pool else Passages([], [], 0, {})
    return Side(target, test, guard, pool)


def planned(
    folder: Path,
    config: ProveConfig,
    sides: Sequence[Side],
    learner: Learner,
    general: Probes,
    began: float,
    report: OnProgress,
) -> dict[str, Any]:
    """Return the plan as plan.json has it for the same experiment, or measure and make it."""
    same = _identity(config, [side.target for side in sides], learner)
    known = read_json(folder / "plan.json")
    if known.get("same") == same:
        return known
    limit = seconds_of(config.budget)
    tried = [_tried(folder, config, side, learner, report) for side in sides]
    left = (limit - (time.monotonic() - began)) / len(sides)
    found = {}
    # Students that all targets share are trained once: each target bears its part.
    parts = 1 if config.uses_pool else len(sides)
    probes = ceil(len(general.items) / parts)
    for side, (speed, making, most) in zip(sides, tried, strict=True):
        part = speed._replace(unit=speed.unit / parts, token=speed.token / parts)
        rest = (part, making), (len(side.test.wordings), probes)
        sizes = chosen(config, *rest[0], most, left, *rest[1]) if isfinite(limit) else most
        found[side.target.name] = {
            **as_record(speed, making, sizes, most),
            "estimate_s": round(seconds(config, *rest[0], sizes, *rest[1]), 1),
            "task": side.target.task,
            "metric": side.test.metric,
            "labels": list(side.test.labels),
            "wordings": len(side.test.wordings),
            "questions": {"read": side.test.read, "different": len(side.test.questions)},
            "pool": {"read": side.pool.read, "left": len(side.pool.kept)},
        }
    plan = {
        "command": "prove",
        "same": same,
        "config": to_mapping(config),
        "student": learner.name,
        "targets": found,
        "estimate_s": round(sum(one["estimate_s"] for one in found.values()), 1),
    }
    write_json(folder / "plan.json", plan)
    return plan


def _identity(config: ProveConfig, targets: Sequence[Target], learner: Learner) -> str:
    files = [*(t.test for t in targets), *(t.text for t in targets if config.uses_pool), *config.tables]
    settings = {**to_mapping(config), "targets": [asdict(t) for t in targets]}
    return content_id(learner.name, json.dumps(settings, sort_keys=True), fingerprint(files))


def _tried(
    folder: Path, config: ProveConfig, side: Side, learner: Learner, report: OnProgress
) -> tuple[Speed, Making, Sizes]:
    """Return the student's speed, the generator's, and the most that can be used of pool and test."""
    report(Progress("measure the speed", note=side.target.name))
    pool = side.pool.kept[: config.passages or None]
    test = side.test.first(config.test_items)
    rows: Sequence[Row] = pool[:TRIED_PASSAGES]
    making, most = Making(), Sizes(len(pool), len(test.questions))
    if config.makes:
        rows, making = _tried_making(folder, config, side, pool[:TRIED_PASSAGES], report)
    elif config.given:
        rows, count = _smallest(config, stocks(pool, None, config, side.guard, learner.lengths)[0])
        most = most._replace(passages=count)
    lengths = [n for n in learner.lengths(rows) if isinstance(n, int)]
    making = making._replace(tokens=round(sum(lengths) / max(1, len(lengths)), 2))
    items = asked(test.first(TRIED_ITEMS))[:TRIED_ITEMS]
    speed = measured(folder, learner, rows, items, config.train.seed)
    return speed, making, most


def _smallest(config: ProveConfig, found: Mapping[str, Stock]) -> tuple[Sequence[Row], int]:
    """Return the rows of the table that says how much is read, about, and how many of them may be learned."""

    def size(name: str) -> int:
        return min(config.rows or len(found[name].rows), len(found[name].rows))

    def tokens(name: str) -> float:
        return sum(found[name].tokens) / len(found[name].tokens) * size(name)

    first = min((name for name in found if name != "tapt"), key=lambda name: (tokens(name), name))
    return found[first].rows, size(first)


def _tried_making(
    folder: Path, config: ProveConfig, side: Side, pool: Sequence[Document], report: OnProgress
) -> tuple[list[Example], Making]:
    """Return the rows made of a few passages, and what making takes and gives."""
    watch, started = Watch(report), time.monotonic()
    # In a place of its own: a dry run in a finished folder leaves the run that made its rows as it is.
    place = folder / side.target.name / "tried"
    kept, _ = make(pool, config, side.target, side.test, place, folder / "ledger", watch)
    if not kept:
        raise InputError(
            f"{side.target.text}: no row was accepted of {len(pool)} passages; look at "
            f"{place / 'synth' / 'report.html'} for the reasons"
        )
    taken = watch.seconds(len(pool), time.monotonic() - started)
    return kept, Making(round(taken, 4), round(len(kept) / len(pool), 4))
