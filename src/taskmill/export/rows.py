"""Kept Examples → rows of an export format: the format's columns, then where each row comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pyarrow as pa

from taskmill.errors import UnknownName
from taskmill.export.folder import batches
from taskmill.record import Reason, draw
from taskmill.registry import nearest
from taskmill.render import FORMATS, turn_problem

__all__ = ["OWN_COLUMNS", "Row", "Rows", "schema_of", "to_batch"]

Row = dict[str, Any]

OWN_COLUMNS = ("id", "task_type", "source", "meta")
"""Our own columns. All are strings: no loader can infer another type from a lucky first row."""

_TEXT_COLUMNS = {
    "prompt-completion": ("prompt", "completion"),
    "alpaca": ("instruction", "input", "output"),
    "bonito": ("input", "output"),
    "text": ("text",),
}
_CHAT_COLUMNS = {
    "messages": ("messages", ("role", "content")),
    "sharegpt": ("conversations", ("from", "value")),
}


def schema_of(format: str) -> pa.Schema:
    """Return the Arrow schema of an export format; raises UnknownName for any other name."""
    if format in _CHAT_COLUMNS:
        name, keys = _CHAT_COLUMNS[format]
        own = [(name, pa.list_(pa.struct([(key, pa.string()) for key in keys])))]
    elif format in _TEXT_COLUMNS:
        own = [(name, pa.string()) for name in _TEXT_COLUMNS[format]]
    else:
        raise UnknownName(
            f"no export format is called {format!r}.{nearest(format, FORMATS)} Known: {', '.join(FORMATS)}"
        )
    return pa.schema([*own, *((name, pa.string()) for name in OWN_COLUMNS)])


def to_batch(rows: list[Row], schema: pa.Schema) -> pa.RecordBatch:
    """Turn rows into an Arrow batch (chats are built from flat columns: four times the speed)."""
    columns = []
    for field in schema:
        values = [row[field.name] for row in rows]
        columns.append(
            pa.array(values, field.type) if pa.types.is_string(field.type) else _chats(values, field.type)
        )
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _chats(chats: list[list[dict[str, str]]], kind: pa.ListType) -> pa.ListArray:
    offsets = [0]
    for chat in chats:
        offsets.append(offsets[-1] + len(chat))
    fields = [kind.value_type.field(i) for i in range(kind.value_type.num_fields)]
    flat = [pa.array([turn[f.name] for chat in chats for turn in chat], f.type) for f in fields]
    return pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.StructArray.from_arrays(flat, fields=fields)
    )


class Rows:
    """The rows of an export, a batch at a time, with counts of what was taken and refused."""

    def __init__(
        self, files: list[Path], format: str, *, thinking: bool = False, test_share: float = 0.0
    ) -> None:
        self.schema = schema_of(format)
        self.refused: Counter[str] = Counter()
        self.licences: Counter[str] = Counter()
        self.tasks: Counter[str] = Counter()
        self.templates: Counter[str] = Counter()
        self.models: Counter[str] = Counter()
        self.splits = ("train", "test") if test_share else ("train",)
        self._files = files
        self._layout = FORMATS[format]
        self._thinking = thinking
        # Compared with 63-bit hashes.
        self._test_below = int(test_share * (1 << 63))

    def __iter__(self) -> Iterator[dict[str, list[Row]]]:
        """Yield, per batch, the rows of each of `splits`: train and, if a share was asked for, test."""
        for batch in batches(self._files):
            splits: dict[str, list[Row]] = {name: [] for name in self.splits}
            taken: list[tuple[str, str, str, str]] = []
            for example, source, origin in _read(batch):
                row = self._layout(example, thinking=self._thinking)
                problem = _problem(row)
                if problem:
                    self.refused[problem] += 1
                    continue
                get = origin.get
                taken.append((source.get("licence", ""), example.task, get("template", ""), get("model", "")))
                row["id"] = example.id
                row["task_type"] = example.task
                row["source"] = _locator(source)
                row["meta"] = orjson.dumps(_meta(example, source, origin)).decode()
                splits[self._split(source.get("document") or example.id)].append(row)
            counters = (self.licences, self.tasks, self.templates, self.models)
            for counter, values in zip(counters, zip(*taken, strict=True), strict=False):
                counter.update(values)
            yield splits

    def _split(self, group: str) -> str:
        """Return the split of a passage: by its hash, so that no passage is in both."""
        return "test" if self._test_below and draw(0, group, "split") < self._test_below else "train"


def _problem(row: Row) -> Reason | None:
    """Return why a trainer would skip the row without telling."""
    if "messages" in row:
        return turn_problem(row["messages"])
    if "conversations" in row:
        asked, answered = (turn["value"] for turn in row["conversations"])
    elif "text" in row:
        return None if row["text"].strip() else Reason.EMPTY
    else:
        *asking, answered = row.values()
        asked = "".join(asking)
    if not asked.strip():
        return Reason.EMPTY
    return None if answered.strip() else Reason.EMPTY_REPLY


class _Example(NamedTuple):
    """The columns of an Example that a row is made of; ten times as fast to make as the dataclass."""

    id: str
    task: str
    context: str
    instruction: str
    response: str
    options: list[str]
    answer_index: int | None
    rationale: str
    meta: str


def _read(batch: pa.RecordBatch) -> Iterator[tuple[_Example, Row, Row]]:
    """Yield each row's texts, source and origin, the latter two without their empty fields."""
    plain = zip(*(batch.column(name).to_pylist() for name in _Example._fields), strict=True)
    sources, origins = _structs(batch.column("source")), _structs(batch.column("origin"))
    return zip(map(_Example._make, plain), sources, origins, strict=True)


def _structs(column: pa.StructArray) -> Iterator[Row]:
    """Yield a struct column's values as dicts without empty and zero fields (row 0 of a data set stays)."""
    filled: dict[str, list[Any]] = {}
    for field, part in zip(column.type, column.flatten(), strict=True):
        values = part.to_pylist()
        if field.name == "row":
            values = [None if v == -1 else v for v in values]
        # Most fields are empty in a whole batch (a span has no data set): skip them here, not per row.
        if any(values) or 0 in values:
            filled[field.name] = values
    names = list(filled)
    for row in zip(*filled.values(), strict=True) if filled else [()] * len(column):
        found = dict(zip(names, row))  # noqa: B905 - a hot line, and the lengths are equal by construction
        yield found if all(row) else {n: v for n, v in found.items() if v or (v == 0 and n == "row")}


def _locator(source: Row) -> str:
    """Return a row's place in one line: `url#char=start,end` (RFC 5147) or `dataset/config/split/row`."""
    if "dataset" in source:
        return "/".join(str(source[k]) for k in ("dataset", "config", "split", "row") if k in source)
    url: str = source.get("url", "")
    return f"{url}#char={source.get('start', 0)},{source['end']}" if url and "end" in source else url


def _meta(example: _Example, source: Row, origin: Row) -> Row:
    """Return the provenance object: the record's own names, empty fields left out."""
    found: Row = {"source": source, "origin": origin}
    if example.options:
        found["options"] = example.options
        found["answer_index"] = example.answer_index
    if example.rationale:
        found["rationale"] = example.rationale
    if example.meta and example.meta != "{}":
        found["meta"] = orjson.Fragment(example.meta)
    return found
