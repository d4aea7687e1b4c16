"""The trainings of an experiment in stages: a tree, in which strategies share what they have in common."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from taskmill.durable import atomic_write
from taskmill.ids import content_id
from taskmill.recipes.continual.config import ContinualConfig
from taskmill.recipes.continual.rows import Data, replayed
from taskmill.recipes.session import OnProgress, Progress
from taskmill.record import Example
from taskmill.store import read_json
from taskmill.tasks.metrics import rouge_l
from taskmill.train.loop import OnStep
from taskmill.train.student import Item, Outcome

__all__ = ["Learner", "Speed", "Tree", "Unit", "laid_out", "measured", "seconds", "trained"]

TRIED_TOKENS = 2048
"""Tokens the measurement of speed trains on (chosen: some steps, under half a minute on two cores)."""

TRIED_ITEMS = 8
"""Items it answers."""


class Learner(Protocol):
    """What is trained and scored: `taskmill.train.student.Student`, or a test's stand-in.

    `name` says everything that decides the outcome besides rows, times, seed and the adapter it begins from.
    """

    name: str

    def lengths(self, examples: Iterable[Example]) -> list[int | str]:
        """Return the tokens of each example, or why it cannot be trained on."""
        ...

    def learn(
        self,
        rows: Sequence[Example],
        items: Sequence[Item],
        seed: int,
        times: float,
        folder: Path,
        on_step: OnStep | None = None,
        begin: Path | None = None,
    ) -> Outcome:
        """Train on the rows in `folder` from the adapter in `begin`, then answer the items."""
        ...


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


class Speed(NamedTuple):
    """Seconds: to load a model and all else a unit takes, to answer an item, to train on a token."""

    unit: float
    item: float
    token: float


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


def measured(folder: Path, data: Data, learner: Learner, seed: int) -> Speed:
    """Return the speed as plan.json has it, or measure it by a small training on rows of the first stage."""
    known = read_json(folder / "plan.json")
    if known.get("student") == learner.name:
        return Speed(**known["speed"])
    tried, tokens = [], 0
    for i in data.train[0]:
        tried.append(i)
        tokens += data.tokens[i]
        if tokens >= TRIED_TOKENS:
            break
    items = [Item(data.rows[i].example) for i in (*data.test, *data.held[0])][:TRIED_ITEMS]
    work = folder / "speed"
    shutil.rmtree(work, ignore_errors=True)
    outcome = learner.learn([data.rows[i].example for i in tried], items, seed, 1.0, work)
    shutil.rmtree(work, ignore_errors=True)
    return Speed(
        round(max(0.0, outcome.all_s - outcome.train_s - outcome.answer_s), 3),
        round(outcome.answer_s / len(items), 5),
        round(outcome.train_s / max(1, tokens), 7),
    )


def trained(
    folder: Path, tree: Tree, data: Data, learner: Learner, speed: Speed, report: OnProgress
) -> tuple[dict[str, dict[str, Any]], int]:
    """Return (what each unit's unit.json holds, how many were made now), earlier stages first.

    Adapters of all stages but the last stay, so that further strategies and stages go on from them. One that
    is missing is trained again.
    """
    done: dict[str, dict[str, Any]] = {}
    waiting: list[Unit] = []
    parents = {unit.parent for unit in tree.units.values()}
    for unit in sorted(tree.units.values(), key=lambda u: (u.stage, u.seed, u.key)):
        known = read_json(folder / unit.name / "unit.json")
        if known.get("key") == unit.key:
            done[unit.key] = known
        else:
            waiting.append(unit)
    made = len(waiting)
    while waiting:
        unit = waiting.pop(0)
        parent = tree.units.get(unit.parent)
        if parent is not None and not _adapter(folder / parent.name).exists():
            waiting[:0] = [parent, unit]
            done.pop(parent.key, None)
            continue
        note = (
            f"stage {unit.stage + 1}, seed {unit.seed}, {seconds([unit, *waiting], speed) / 60:.0f} min left"
        )
        at = Progress("students", len(done), len(tree.units), note=note)
        report(at)
        done[unit.key] = _one(folder, unit, parent, data, learner, at, report, unit.key in parents)
    report(Progress("students", len(done), len(tree.units)))
    return done, made


def _adapter(place: Path) -> Path:
    return place / "training" / "adapter" / "taskmill.json"


def _one(
    folder: Path, unit: Unit, parent: Unit | None, data: Data, learner: Learner, at: Progress,
    report: OnProgress, keep: bool,
) -> dict[str, Any]:  # fmt: skip
    """Train and score one unit; its marker is written when all of it is there."""

    def on_step(step: int, total: int, loss: float, tokens_per_s: float, eta_s: float) -> None:
        note = f"{at.note}; step {step} of {total}, loss {loss:.3f}"
        report(Progress(at.stage, at.done, at.total, note=note))

    place = folder / unit.name
    place.mkdir(parents=True, exist_ok=True)
    rows = [data.rows[i].example for i in unit.rows]
    items = [Item(data.rows[i].example) for i in unit.scored]
    begin = folder / parent.name / "training" if parent is not None else None
    outcome = learner.learn(rows, items, unit.seed, unit.times, place / "training", on_step, begin)
    golds = [data.rows[i].golds for i in unit.scored]
    known = {
        "key": unit.key,
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
    atomic_write(place / "unit.json", (json.dumps(known, indent=1, ensure_ascii=False) + "\n").encode())
    if not keep:
        shutil.rmtree(place / "training", ignore_errors=True)
    return known
