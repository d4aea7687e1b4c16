"""The test: rows of a table → questions in several wordings, and what the answers are worth."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from taskmill.errors import ConfigError, InputError
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
_WRITTEN = re.compile(r"""\s*(?:\[\s*|\{\s*['"]text['"]\s*:\s*(?:array\()?\[\s*)['"]""")
"""How a list of answers, or SQuAD's structure, begins in a cell of CSV."""
_ARRAY = re.compile(r"""['"]\s+['"]""")
"""What stands between the texts of an array of numpy's that was written as text."""


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

    Raises InputError that names file and row for what cannot be a question of the task type, ConfigError for
    labels of a test that has none.
    """
    files = table_files(target.test)
    rows = [(f"{name}, row {i}", row) for name in files for i, row in enumerate(read_records(name))]
    if not rows:
        raise InputError(f"{target.test} holds no row; give a table with context, question and answers")
    labelled = isinstance(get(target.task), LabelType)
    found = dict.fromkeys(_question(where, row, target, labelled) for where, row in rows)
    if labelled and target.labels:
        found = dict.fromkeys(_numbered(list(found), target))
    if target.labels and not labelled:
        raise ConfigError(f"labels: a test of {target.task} has answers, not labels; leave them out")
    labels = _labels(list(found), target) if labelled else ()
    by_chance = sorted(found, key=lambda q: (draw(seed, q.id, "prove question"), q.id))
    return Test(target.task, by_chance, labels, len(rows))


def _question(where: str, row: Mapping[str, Any], target: Target, labelled: bool) -> Question:
    context = _first(row, _CONTEXT)
    question = _first(row, _QUESTION)
    try:
        golds = _golds(row.get("label") if labelled else next((row[n] for n in _GOLDS if n in row), None))
    except ValueError:
        raise InputError(
            f"{where}: the answers are a structure written as text; save the table as Parquet or JSON Lines"
        ) from None
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
        there = ", ".join(row)
        raise InputError(
            f"{where}: no text in {', '.join(missing)}; a test of {target.task} needs it, so rename a column "
            f"(there are {there}) or leave out such rows"
        )
    golds = tuple(dict.fromkeys(golds))
    if labelled and len(golds) > 1:
        raise InputError(
            f"{where}: {len(golds)} labels; a question of {target.task} has one, so keep one or leave it out"
        )
    return Question(_id(context, question, golds), context, question, golds)


def _first(row: Mapping[str, Any], names: Sequence[str]) -> str:
    value = next((row[name] for name in names if row.get(name)), "")
    return value.strip() if isinstance(value, str) else ""


def _golds(value: Any) -> list[str] | tuple[str, ...]:
    """Return the right answers in a cell: a text, a number, a list, or SQuAD's {text: […]}.

    A table that had a gap holds whole numbers as 1.0; nan is a gap. Lists may be written as text, as CSV has
    them: ValueError for one that cannot be read.
    """
    if isinstance(value, Mapping):
        return _golds(value.get("text"))
    if isinstance(value, list):
        return [gold for one in value for gold in _golds(one)]
    if isinstance(value, float):
        value = None if math.isnan(value) else int(value) if value.is_integer() else value
    text = "" if value is None else str(value).strip()
    if _WRITTEN.match(text):
        return _golds(_unwritten(text))
    return [text] if text else []


def _unwritten(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        if _ARRAY.search(text):  # Python would join its texts into one
            raise
    try:
        return ast.literal_eval(text)
    except (SyntaxError, RecursionError) as error:
        raise ValueError(text) from error


def _numbered(questions: Sequence[Question], target: Target) -> Sequence[Question]:
    """Return questions with the user's labels in place of their numbers, where no label is a number."""
    there = {q.golds[0] for q in questions}
    if not all(map(_is_number, there)) or any(map(_is_number, target.labels)):
        return questions
    known = {str(number): label for number, label in enumerate(target.labels)}
    other = sorted(there - set(known))
    if other:
        raise InputError(
            f"{target.test}: there is a label {other[0]}, and --labels names 0 to {len(known) - 1}; "
            "name all labels in the order of their numbers"
        )
    named = [(q, known[q.golds[0]]) for q in questions]
    return [replace(q, id=_id(q.context, q.question, (gold,)), golds=(gold,)) for q, gold in named]


def _is_number(label: str) -> bool:
    return re.fullmatch(r"-?\d+", label) is not None


def _id(context: str, question: str, golds: Sequence[str]) -> str:
    return content_id(context, question, *golds)[:24]


def _labels(questions: Sequence[Question], target: Target) -> tuple[str, ...]:
    """Return the label set: the user's, else what is there, in the order of the type's own meanings.

    Numbers say nothing to a model or of their order, so they are labels only if the user says so.
    """
    there = {q.golds[0] for q in questions}
    if target.labels:
        other = sorted(there - set(target.labels))
        if other:
            raise InputError(
                f"{target.test}: the label {other[0]!r} is none of {', '.join(target.labels)}; "
                "name all with --labels, or drop its rows"
            )
        return _in_order(target.labels, target.task)
    if not 2 <= len(there) <= MOST_LABELS:
        raise InputError(
            f"{target.test} has {len(there)} different labels; a labelled test has 2 to {MOST_LABELS}"
        )
    if all(map(_is_number, there)):
        raise InputError(
            f"{target.test}: its labels are numbers ({', '.join(sorted(there)[:5])}); say what they mean "
            "with --labels, in their order from 0, or name the numbers themselves to ask for them as they are"
        )
    return _in_order(sorted(there), target.task)


def _in_order(labels: Sequence[str], name: str) -> tuple[str, ...]:
    """Return labels in the order of the type's own meanings, those without one behind as they came."""
    task = get(name)
    assert isinstance(task, LabelType)
    place = {label: task.meaning(label) for label in labels}
    return tuple(sorted(labels, key=lambda label: (place[label] is None, place[label] or 0)))


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
