"""Experiments that train students: how fast they are, what time there is, and each a folder written last.

LTD, proofs, continual pre-training and learning in stages lay out their own students; what is common to
them stands here. A student's key is a hash of what it learns, how, and what it is asked. So a killed run
goes on with the student it was at, and another layout in the same folder uses those that are there.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from taskmill.recipes.session import OnProgress, Progress
from taskmill.record import Document, Example
from taskmill.store import read_json, write_json
from taskmill.train.loop import OnStep
from taskmill.train.student import Item, Outcome

__all__ = ["ROOM", "TRIED_ITEMS", "TRIED_TOKENS", "Learner", "Row", "Speed", "measured", "trained"]

Row = Example | Document
"""What a student learns: an example, or a document word by word."""

TRIED_TOKENS = 2048
"""Tokens the measurement of speed trains on (chosen: some steps, under half a minute on two cores)."""

TRIED_ITEMS = 10
"""Items it is asked."""

ROOM = 0.9
"""Share of a time budget that is planned for (chosen: the measured speed is some percent off)."""


class Learner(Protocol):
    """What is trained and asked: `taskmill.train.student.Student`, or a test's stand-in.

    `name` says everything that decides the outcome besides rows, times, seed and where it begins.
    """

    name: str

    def lengths(self, rows: Iterable[Row]) -> list[int | str]:
        """Return the tokens of each row, or why it cannot be trained on."""
        ...

    def learn(
        self,
        rows: Sequence[Row],
        items: Sequence[Item],
        seed: int,
        times: float,
        folder: Path,
        on_step: OnStep | None = None,
        begin: Path | None = None,
        texts: Sequence[str] = (),
    ) -> Outcome:
        """Train on the rows in `folder`, going on where it was stopped; answer items, take texts' losses."""
        ...


class Speed(NamedTuple):
    """Seconds: to load a model and all else a student takes, to answer an item, to train on a token."""

    unit: float
    item: float
    token: float


def measured(
    run: Path,
    learner: Learner,
    rows: Sequence[Row],
    items: Sequence[Item],
    seed: int,
    texts: Sequence[str] = (),
) -> Speed:
    """Return the learner's speed as plan.json has it, or by a small training on the first rows that fit.

    A text whose loss is taken counts as an item. Nothing of the training stays in the folder.
    """
    known = read_json(run / "plan.json")
    if known.get("student") == learner.name and "speed" in known:
        return Speed(**known["speed"])
    taken: list[Row] = []
    total = 0
    for row, tokens in zip(rows, learner.lengths(rows), strict=True):
        if isinstance(tokens, int) and (not taken or total + tokens <= TRIED_TOKENS):
            taken.append(row)
            total += tokens
    work = run / "speed"
    shutil.rmtree(work, ignore_errors=True)
    outcome = learner.learn(taken, items, seed, 1.0, work, texts=texts)
    shutil.rmtree(work, ignore_errors=True)
    return Speed(
        round(max(0.0, outcome.all_s - outcome.train_s - outcome.answer_s), 3),
        round(outcome.answer_s / max(1, len(items) + len(texts)), 5),
        round(outcome.train_s / max(1, total), 7),
    )


class Keyed(Protocol):
    """A student to be: its key says all that decides what it becomes."""

    @property
    def key(self) -> str:
        """The hash."""
        ...


Unit = TypeVar("Unit", bound=Keyed)


def trained(
    folder: Path,
    units: Sequence[Unit],
    make: Callable[[Unit, Path, OnStep], Mapping[str, Any]],
    seconds: Callable[[Unit], float],
    named: Callable[[Unit], str],
    report: OnProgress,
    *,
    whole: Callable[[Unit], bool] = lambda unit: True,
    keep: Callable[[Unit], bool] = lambda unit: False,
    place: str = "",
) -> tuple[dict[str, dict[str, Any]], int]:
    """Make the units that are not there, in their order; return (what each unit.json holds, how many were).

    `make` trains one in the folder it is given and returns what its unit.json is to hold; the file is written
    when all of it is there. The folder of the training stays where `keep` says so. A unit that is there is
    made again if it is not `whole`. `seconds` foresees, `named` says in a few words which one it is.
    """
    done: dict[str, dict[str, Any]] = {}
    for unit in units:
        known = read_json(folder / unit.key[:16] / "unit.json")
        if known.get("key") == unit.key and whole(unit):
            done[unit.key] = known
    waiting = [unit for unit in units if unit.key not in done]
    left = sum(map(seconds, waiting))
    for unit in waiting:
        note = f"{place}{named(unit)}, {left / 60:.0f} min left"
        at = Progress("students", len(done), len(units), note=note)
        report(at)
        own = folder / unit.key[:16]
        known = {"key": unit.key, **make(unit, own / "training", _steps(at, report))}
        write_json(own / "unit.json", known)
        if not keep(unit):
            shutil.rmtree(own / "training", ignore_errors=True)
        done[unit.key] = known
        left -= seconds(unit)
    report(Progress("students", len(done), len(units), note=place))
    return done, len(waiting)


def _steps(at: Progress, report: OnProgress) -> OnStep:
    def on_step(step: int, total: int, loss: float, tokens_per_s: float, eta_s: float) -> None:
        report(replace(at, note=f"{at.note}; step {step} of {total}, loss {loss:.3f}"))

    return on_step
