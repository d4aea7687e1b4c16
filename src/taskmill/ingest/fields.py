"""The fields of a dataset, told from its values: types, closed sets of values, and what is no content.

Types: text, int, float, bool, label (a class, stored as a number), time, bytes, image, audio, mixed, null,
`list<…>` and `struct<name: …, …>`.

A field is hidden by its type or by how its values are spread, never by a part of its name: `evidence` and
`video_id` are judged alike.
"""

from __future__ import annotations

import datetime
import decimal
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from taskmill.record import FieldMeta
from taskmill.templates.values import LONGEST_LABEL, MOST_LABELS, REPEATED, as_text, is_closed, spelled

__all__ = ["HEAD", "Declared", "Spread", "describe"]

HEAD = 1000
"""Most rows that types and samples are told from (chosen: kinds of values show early)."""

UNIQUE = 0.95
"""Share of distinct values above which a field of codes or numbers identifies its row (issue, §1)."""

ENOUGH = 20
"""Least rows to judge a spread by (chosen: in fewer, everything is unique)."""

_SAMPLES, _SAMPLE_LENGTH = 3, 200
_UUID = re.compile(r"\{?[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\}?|[0-9a-f]{16,128}", re.IGNORECASE)
_CODE = re.compile(r"(?=[^\d]*\d)[\w./:#@+=-]{4,}")
"""A word with a digit in it and no space: `train_12`, `56be4db0acb8`, `q-1/a`."""
_CODE_LENGTH = 8
"""Characters from which words of one length, no two alike, are codes (chosen: lists of words vary)."""
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_ADDRESS = re.compile(r"(?:https?|ftp|s3|gs|file)://\S+|www\.\S+")
_PATH = re.compile(r"(?:/|\./|[A-Za-z]:\\)?(?:[\w.-]+[/\\])+[\w.-]+")

Declared = tuple[str, tuple[str, ...]]
"""(type, label names) as a card declares a field."""


def type_of(value: Any) -> str:
    """Return the type of one value."""
    for kinds, name in _KINDS:
        if isinstance(value, kinds):
            return name
    if isinstance(value, Mapping):
        if set(value) == {"bytes", "path"}:
            return "image"
        if set(value) >= {"array", "sampling_rate"}:
            return "audio"
        return "struct<" + ", ".join(f"{name}: {type_of(inner)}" for name, inner in value.items()) + ">"
    if isinstance(value, Sequence):
        return f"list<{joined(type_of(inner) for inner in value[:20])}>"
    return "null" if value is None else "mixed"


_KINDS: tuple[tuple[Any, str], ...] = (
    (str, "text"),
    (bool, "bool"),
    (int, "int"),
    ((float, decimal.Decimal), "float"),
    ((bytes, bytearray, memoryview), "bytes"),
    ((datetime.datetime, datetime.date, datetime.time, datetime.timedelta), "time"),
)


def joined(types: Iterable[str]) -> str:
    """Return the type of values of several types; structs and lists of different content keep the longer."""
    found = set(types) - {"null"}
    if not found:
        return "null"
    if len(found) == 1:
        return found.pop()
    if found == {"int", "float"}:
        return "float"
    if all(name.startswith("list<") for name in found) or all(name.startswith("struct<") for name in found):
        return max(found, key=lambda name: (name.count("null") == 0, len(name), name))
    return "mixed"


def _numbers_in_text(values: Sequence[Any]) -> str:
    """Return int or float where every text is a number (as in CSV), else text."""
    texts = [value for value in values if value.strip()]
    if not texts or not all(_NUMBER.fullmatch(text.strip()) for text in texts):
        return "text"
    return "int" if all(text.strip().lstrip("+-").isdigit() for text in texts) else "float"


def describe(
    name: str, head: Sequence[Any], declared: Declared | None = None, csv: bool = False
) -> FieldMeta:
    """Return a field as the first rows' values show it; `Spread` says later what all rows show.

    `csv`: all values are texts, and numbers are told from them.
    """
    values = [value for value in head if value is not None and value != "" and value == value]
    type = joined(type_of(value) for value in values)
    if csv and type == "text":
        type = _numbers_in_text(values)
    labels: tuple[str, ...] = ()
    if declared:
        kind, names = declared
        if kind == "label" and names and type in ("int", "text"):
            labels = names
            type = "label" if type == "int" else "text"
        elif kind in ("image", "audio") and type not in ("text", "int", "float"):
            type = kind
    if type in ("null", "bytes", "image", "audio"):
        return FieldMeta(name, type, hidden="holds no values" if type == "null" else f"holds {type}")
    samples = tuple(dict.fromkeys(_shown(value, labels) for value in values[:50]))[:_SAMPLES]
    return FieldMeta(name, type, labels, samples, _identifies(values, type))


def _shown(value: Any, labels: Sequence[str]) -> str:
    if labels and isinstance(value, int) and 0 <= value < len(labels):
        return labels[value]
    return as_text(value)[:_SAMPLE_LENGTH]


def _identifies(values: Sequence[Any], type: str) -> str:
    """Return why values tell the row and nothing else, or ""."""
    if type not in ("text", "int"):
        return ""
    texts = [as_text(value) for value in values]
    distinct = len(set(texts)) / max(len(texts), 1)
    if type == "text" and texts and _share(_UUID, texts) > UNIQUE:
        return "hashes or uuids"
    if type == "text" and texts and _share(_ADDRESS, texts) > UNIQUE:
        return "addresses"
    if type == "text" and len(texts) >= ENOUGH and distinct > 0.5 and _share(_PATH, texts) > UNIQUE:
        return "paths"  # more than half of them different: `food/drink` is a class
    if len(texts) < ENOUGH or distinct <= UNIQUE:
        return ""
    if type == "int":
        steps = {int(b) - int(a) for a, b in pairwise(texts)}
        return "row numbers" if len(steps) == 1 or _counts_up(steps) else ""
    alike = len({len(text) for text in texts}) == 1 and len(texts[0]) >= _CODE_LENGTH
    coded = _share(_CODE, texts) > UNIQUE or (alike and not any(" " in text for text in texts))
    return "codes, another in each row" if coded else ""


def _counts_up(steps: set[int]) -> bool:
    # Ids of a shortened table skip some numbers; amounts of things do not come in order.
    return min(steps) > 0


def _share(pattern: re.Pattern[str], texts: Sequence[str]) -> float:
    return sum(pattern.fullmatch(text) is not None for text in texts) / len(texts)


class Spread:
    """How the values of one field are spread over all rows: its closed set, or that it is constant."""

    def __init__(self, field: FieldMeta, head: Sequence[Any]) -> None:
        self.field = field
        self.rows = 0
        self.counts: Counter[str] = Counter()
        texts = [as_text(value) for value in head if not isinstance(value, list | dict)]
        small = len(set(texts)) <= MOST_LABELS and all(len(text) <= LONGEST_LABEL for text in texts)
        constant = len(set(texts)) == 1
        self.open = field.type in ("text", "int", "bool", "label", "float", "mixed", "time") and (
            small or constant
        )
        self.open = self.open and not field.hidden

    def add(self, values: Iterable[Any]) -> None:
        """Count the values of more rows; a field of too many values is given up."""
        self.counts.update(_shown(value, self.field.labels) for value in values if value is not None)
        if len(self.counts) > 4 * MOST_LABELS:
            self.open = False

    def result(self) -> FieldMeta:
        """Return the field with the values that occur, sorted, or with the reason why it is hidden.

        A class stored as a number keeps all its names in their order: the number is the place of the name.
        """
        field = self.field
        if not self.open:
            return field if field.type == "label" else replace(field, labels=())
        found = {text: n for text, n in self.counts.items() if text}
        names = spelled(found)
        if len(found) == 1 and sum(found.values()) >= 2:
            return replace(field, labels=(), hidden="the same in every row")
        if field.type == "label":
            return field
        declared = bool(field.labels) and set(field.labels).issuperset(names)
        rows = REPEATED * len(names) if declared else sum(found.values())
        closed = is_closed(names, rows) and (declared or field.type not in ("float", "time"))
        return replace(field, labels=tuple(names) if closed else ())
