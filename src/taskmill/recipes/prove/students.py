"""The students of an experiment, each a folder that is written last or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from taskmill.ids import content_id
from taskmill.recipes.general import Probes
from taskmill.recipes.prove.arms import Portion, Stock, portions, sized
from taskmill.recipes.prove.config import ProveConfig
from taskmill.recipes.session import OnProgress
from taskmill.recipes.students import Learner, Speed, trained
from taskmill.train.loop import OnStep
from taskmill.train.student import Item

__all__ = ["Grid", "Unit", "grid_of", "learned", "unit_seconds"]


@dataclass(frozen=True)
class Unit:
    """One student: what it learns, and with which seed."""

    key: str
    portion: Portion
    seed: int


@dataclass(frozen=True)
class Grid:
    """All students of a target: by key; the keys of each arm's and of each size's, one for each seed.

    `skipped`: sizes that are larger than what the arm ours may learn.
    """

    units: Mapping[str, Unit]
    arms: Mapping[str, list[str]]
    sizes: Mapping[int, list[str]]
    skipped: list[int]


def grid_of(
    config: ProveConfig,
    found: Mapping[str, Stock],
    learner: Learner,
    items: Sequence[Item],
    general: Probes,
    rows: int = 0,
) -> Grid:
    """Lay out all students of a target (`rows`: see `portions`). What is not trained is one for all seeds."""
    questions = content_id(
        *(
            content_id(e.instruction, e.context, e.response, *choices)
            for e, choices in [*items, *general.items]
        ),
        *general.texts,
    )
    units: dict[str, Unit] = {}

    def add(portion: Portion, seed: int) -> str:
        key = content_id(learner.name, questions, *portion.keys, str(seed), f"{portion.times!r}")
        units[key] = Unit(key, portion, seed)
        return key

    first = config.train.seed
    arms: dict[str, list[str]] = {arm: [] for arm in config.names}
    sizes: dict[int, list[str]] = {}
    base = add(Portion(), first)  # what an arm has forgotten is held against it, whether it is an arm or not
    for seed in range(first, first + config.seeds):
        for arm, portion in portions(config, found, seed, rows).items():
            arms[arm].append(add(portion, seed) if portion.rows else base)
    wanted = sorted({int(size) for size in config.sizes})
    most = len(found["ours"].rows[: config.rows or None]) if wanted else 0
    there = [size for size in wanted if size <= most]
    for size in there:
        own = [sized(config, found, seed, size) for seed in range(first, first + config.seeds)]
        sizes[size] = [add(portion, seed) for seed, portion in enumerate(own, first)]
    arms = {arm: keys[:1] if arm == "none" else keys for arm, keys in arms.items()}
    return Grid(units, {"": [base], **arms}, sizes, [size for size in wanted if size not in there])


def unit_seconds(unit: Unit, speed: Speed, prompts: int) -> float:
    """Return about how long a student takes."""
    return speed.unit + speed.item * prompts + speed.token * unit.portion.tokens * unit.portion.times


def learned(
    folder: Path,
    grid: Grid,
    items: Sequence[Item],
    learner: Learner,
    general: Probes,
    keep: bool,
    speed: Speed,
    report: OnProgress,
    place: str = "",
) -> tuple[dict[str, dict[str, Any]], int]:
    """Return (what each student's unit.json holds, how many were made now), seed after seed."""
    named = {key: arm or "none" for arm, keys in grid.arms.items() for key in keys}
    named |= {key: f"{size} rows" for size, keys in grid.sizes.items() for key in keys if key not in named}
    asked = [*items, *general.items]

    def make(unit: Unit, work: Path, on_step: OnStep) -> dict[str, Any]:
        own, texts = unit.portion, general.texts
        outcome = learner.learn(own.rows, asked, unit.seed, own.times, work, on_step, texts=texts)
        made = asdict(outcome)
        del made["marks"]  # by one gold answer; the test has all of them
        return {
            "rows": len(own.rows),
            "tokens": own.tokens,
            "times": own.times,
            "seed": unit.seed,
            **made,
            "answers": outcome.answers[: len(items)],
            "probe": general.right(outcome.answers[len(items) :]),
        }

    return trained(
        folder,
        sorted(grid.units.values(), key=lambda u: (u.seed, u.portion.tokens, u.key)),
        make,
        lambda unit: unit_seconds(unit, speed, len(asked)),
        lambda unit: f"{named[unit.key]}, seed {unit.seed}",
        report,
        keep=lambda unit: keep,
        place=place,
    )
