"""The trainings of an experiment in stages: a tree, in which strategies share what they have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskmill.ids import content_id
from taskmill.recipes.continual.config import ContinualConfig
from taskmill.recipes.continual.rows import Data, replayed
from taskmill.recipes.session import OnProgress
from taskmill.recipes.students import TRIED_ITEMS, Learner, Speed, trained
from taskmill.record import Example
from taskmill.store import read_json
from taskmill.tasks.metrics import rouge_l
from taskmill.train.loop import OnStep
from taskmill.train.student import Item

__all__ = ["Tree", "Unit", "laid_out", "learned", "seconds", "tried"]


@dataclass(frozen=True)
class Unit:
    """One stage of one student: what it learns after the stage of `parent` ("" before the first).

    `rows`: the stage's and the replayed ones, in order of id; `scored`: what it answers; `read`: tokens that
    pass through the model; `replay`: the tasks replayed.
    """

    key: str
    parent: str
    stage: int
    rows: tuple[int, ...]
    scored: tuple[int, ...]
    seed: int
    times: float
    read: int
    replay: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.key[:16]


@dataclass(frozen=True)
class Tree:
    """All units by key, and strategy → for each seed the key of every stage's unit. `base` is untrained."""

    units: Mapping[str, Unit]
    paths: Mapping[str, Sequence[Sequence[str]]]
    base: str


def laid_out(config: ContinualConfig, data: Data, learner: Learner) -> Tree:
    """Return every unit of the experiment.

    At a stage all strategies read equally many tokens: those of the stage and of the replay budget. Where
    replayed rows do not fill that, or none are replayed, the rows are read that much more often.
    """
    units: dict[str, Unit] = {}
    digests = [data.digest(row) for row in range(len(data.rows))]

    def add(
        parent: str, stage: int, rows: Sequence[int], seed: int, read: int, replay: Sequence[str] = ()
    ) -> str:
        ordered = sorted(rows, key=lambda i: (data.rows[i].example.id, i))
        held = range(len(data.held)) if stage < 0 else range(stage + 1)
        scored = [*data.test, *(i for s in held for i in data.held[s])]
        own = sum(data.tokens[i] for i in ordered)
        times = read / own if own else 1.0
        told = [content_id(*(digests[i] for i in some)) for some in (ordered, scored)]
        key = content_id(learner.name, parent, *told, str(seed), f"{times!r}")
        units[key] = Unit(key, parent, stage, tuple(ordered), tuple(scored), seed, times, read, tuple(replay))
        return key

    first = config.train.seed
    base = add("", -1, [], first, 0)
    paths: dict[str, list[list[str]]] = {}
    for strategy in config.strategies:
        paths[strategy] = []
        for seed in range(first, first + config.seeds):
            path: list[str] = []
            for stage, own in enumerate(data.train):
                tokens = sum(data.tokens[i] for i in own)
                extra = config.replay.limit(tokens) if stage else 0
                again, tasks = replayed(data, stage, strategy, seed, config)
                path.append(add(path[-1] if path else "", stage, [*own, *again], seed, tokens + extra, tasks))
            paths[strategy].append(path)
    return Tree(units, paths, base)


def seconds(units: Iterable[Unit], speed: Speed) -> float:
    """Return about how long these units take."""
    return sum(speed.unit + speed.item * len(u.scored) + speed.token * u.read for u in units)


def tried(data: Data) -> tuple[list[Example], list[Item]]:
    """Return what the speed is measured by: rows of the first stage, and some items."""
    items = [Item(data.rows[i].example) for i in (*data.test, *data.held[0])][:TRIED_ITEMS]
    return [data.rows[i].example for i in data.train[0]], items


def learned(
    folder: Path, tree: Tree, data: Data, learner: Learner, speed: Speed, report: OnProgress
) -> tuple[dict[str, dict[str, Any]], int]:
    """Return (what each unit's unit.json holds, how many were made now), earlier stages first.

    Adapters of all stages but the last stay, so that further strategies and stages go on from them. One that
    is missing is trained again where a stage that is still to be learned begins from it.
    """
    units = sorted(tree.units.values(), key=lambda u: (u.stage, u.seed, u.key))
    parents = {unit.parent for unit in units}
    wanted = _wanted(folder, tree, units)

    def make(unit: Unit, work: Path, on_step: OnStep) -> dict[str, Any]:
        parent = tree.units.get(unit.parent)
        begin = folder / parent.name / "training" if parent is not None else None
        rows = [data.rows[i].example for i in unit.rows]
        items = [Item(data.rows[i].example) for i in unit.scored]
        outcome = learner.learn(rows, items, unit.seed, unit.times, work, on_step, begin)
        golds = [data.rows[i].golds for i in unit.scored]
        return {
            "parent": unit.parent,
            "stage": unit.stage,
            "seed": unit.seed,
            "rows": len(unit.rows),
            "times": unit.times,
            "read": unit.read,
            "replay": list(unit.replay),
            "answers": outcome.answers,
            "marks": [
                max((rouge_l(answer, gold) for gold in own), default=0.0)
                for answer, own in zip(outcome.answers, golds, strict=True)
            ],
            "train_s": outcome.train_s,
            "answer_s": outcome.answer_s,
            "all_s": outcome.all_s,
            "record": dict(outcome.record),
        }

    return trained(
        folder,
        units,
        make,
        lambda unit: seconds([unit], speed),
        lambda unit: f"stage {unit.stage + 1}, seed {unit.seed}",
        report,
        whole=lambda unit: unit.key not in wanted,
        keep=lambda unit: unit.key in parents,
    )


def _wanted(folder: Path, tree: Tree, units: Sequence[Unit]) -> set[str]:
    """Return the keys of units that are not there, or from whose missing adapter one of them begins."""
    found = {u.key for u in units if read_json(folder / u.name / "unit.json").get("key") != u.key}
    for unit in reversed(units):  # later stages first: what they need may need an earlier one
        parent = tree.units.get(unit.parent)
        if unit.key in found and parent is not None:
            adapter = folder / parent.name / "training" / "adapter" / "taskmill.json"
            if not adapter.exists():
                found.add(parent.key)
    return found
