"""The test: rows of a table → questions in several wordings, and what the answers are worth."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from taskmill.errors import InputError
from taskmill.ids import content_id, draw
from taskmill.ingest.records import read_records
from taskmill.recipes.prove.config import Target, prompts
from taskmill.recipes.tables import table_files
from taskmill.record import Example
from taskmill.render import escape
from taskmill.tasks import get
from taskmill.tasks.labels import LabelType, enumerate_labels
from taskmill.tasks.metrics import squad_f1
from taskmill.train.student import Item

__all__ = ["Question", "Test", "asked", "read_test"]

Array = np.ndarray[Any, Any]

MOST_LABELS = 50
"""Different labels up to which a column of labels is one (chosen: OPP-115 has 10, DBpedia 14)."""

_CONTEXT = ("context", "passage", "text", "premise", "evidence")
_QUESTION = ("question", "hypothesis", "claim", "statement")
_GOLDS = ("answers", "answer")
_SLOT = re.compile(r"\{(question|labels)\}")


@dataclass(frozen=True, slots=True)
class Question:
    """One row of the test. `golds` are all its right answers, of a labelled type the one label."""

    id: str
    context: str
    question: str
    golds: tuple[str, ...]


@dataclass(frozen=True)
class Test:
    """A test: its questions, in an order by chance, and the label set of a labelled type (else ())."""

    task: str
    questions: list[Question]
    labels: tuple[str, ...]
    read: int = 0

    def first(self, most: int) -> Test:
        """Return the first questions as a test of their own (all for 0), by id; more of them hold these."""
        return replace(self, questions=sorted(self.questions[: most or None], key=lambda q: q.id))

    @property
    def metric(self) -> str:
        """What an arm's score is: token F1 after SQuAD over all golds, or macro-F1 of the labels."""
        return "macro-F1" if self.labels else "token F1"

    @property
    def wordings(self) -> Sequence[str]:
        """The test prompts of the type."""
        return prompts()[self.task]

    def graded(self, answers: Sequence[str]) -> Array:
        """Return what answers are worth, [wordings, questions]: marks (float64), or indices of labels.

        `answers` are those to `asked(test)`, in its order.
        """
        each = len(self.wordings)
        golds = [q.golds for q in self.questions for _ in range(each)]
        if self.labels:
            index = {label: i for i, label in enumerate(self.labels)}
            flat = np.array([index[answer] for answer in answers], np.float64)
        else:
            flat = np.array([squad_f1(a, g) for a, g in zip(answers, golds, strict=True)], np.float64)
        return flat.reshape(len(self.questions), each).T

    @property
    def gold(self) -> Array:
        """The index of each question's right label (int64), all 0 where there are no labels."""
        index = {label: i for i, label in enumerate(self.labels)}
        return np.array([index[q.golds[0]] if self.labels else 0 for q in self.questions], np.int64)


def read_test(target: Target, seed: int) -> Test:
    """Read the test's table; equal questions count once.

    Raises InputError that names file and row for what cannot be a question of the task type.
    """
    files = table_files(target.test)
    rows = [(f"{name}, row {i}", row) for name in files for i, row in enumerate(read_records(name))]
    if not rows:
        raise InputError(f"{target.test} holds no row; give a table with context, question and answers")
    labelled = isinstance(get(target.task), LabelType)
    found = dict.fromkeys(_question(where, row, target, labelled) for where, row in rows)
    labels = _labels(list(found), target) if labelled else ()
    by_chance = sorted(found, key=lambda q: (draw(seed, q.id, "prove question"), q.id))
    return Test(target.task, by_chance, labels, len(rows))


def _question(where: str, row: Mapping[str, Any], target: Target, labelled: bool) -> Question:
    context = _first(row, _CONTEXT)
    question = _first(row, _QUESTION)
    golds = _golds(row.get("label")) if labelled else _golds(next((row[n] for n in _GOLDS if n in row), None))
    needs_one = any("{question}" in wording for wording in prompts()[target.task])
    missing = [
        name
        for name, there in (
            ("context", context),
            ("question", question or not needs_one),
            ("label" if labelled else "answers", golds),
        )
        if not there
    ]
    if missing:
        raise InputError(f"{where}: no text in {', '.join(missing)}; a test of {target.task} needs it")
    golds = tuple(dict.fromkeys(golds))
    return Question(content_id(context, question, *golds)[:24], context, question, golds)


def _first(row: Mapping[str, Any], names: Sequence[str]) -> str:
    value = next((row[name] for name in names if row.get(name)), "")
    return value.strip() if isinstance(value, str) else ""


def _golds(value: Any) -> list[str] | tuple[str, ...]:
    """Return the right answers in a cell: a text, a number, a list, or SQuAD's {text: […]}."""
    if isinstance(value, Mapping):
        return _golds(value.get("text"))
    if isinstance(value, list):
        return [gold for one in value for gold in _golds(one)]
    text = "" if value is None else str(value).strip()
    return [text] if text else []


def _labels(questions: Sequence[Question], target: Target) -> tuple[str, ...]:
    """Return the label set: the user's, else what is there, in the order of the type's own meanings."""
    there = {q.golds[0] for q in questions}
    if target.labels:
        other = sorted(there - set(target.labels))
        if other:
            raise InputError(
                f"{target.test}: the label {other[0]!r} is none of {', '.join(target.labels)}; "
                "name all with --labels, or drop its rows"
            )
        return target.labels
    if not 2 <= len(there) <= MOST_LABELS:
        raise InputError(
            f"{target.test} has {len(there)} different labels; a labelled test has 2 to {MOST_LABELS}"
        )
    task = get(target.task)
    assert isinstance(task, LabelType)
    place = {label: task.meaning(label) for label in there}
    return tuple(sorted(there, key=lambda label: (place[label] is None, place[label] or 0, label)))


def asked(test: Test) -> list[Item]:
    """Return the questions as a student gets them: each in every wording, one after the other."""
    said = enumerate_labels(test.labels) if test.labels else ""
    items = []
    for q in test.questions:
        slots = {"question": escape(q.question), "labels": escape(said)}
        for number, wording in enumerate(test.wordings):
            words = _SLOT.sub(lambda m: slots[m[1]], wording)  # noqa: B023 - called at once
            example = Example(f"{q.id}/{number}", test.task, q.context, words, q.golds[0], test.labels)
            items.append(Item(example, test.labels))
    return items
