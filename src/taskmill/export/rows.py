"""Kept Examples → rows of an export format: the format's columns, then where each row comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pyarrow as pa

from taskmill.errors import UnknownName
from taskmill.export.folder import batches
from taskmill.record import Reason, draw
from taskmill.registry import nearest
from taskmill.render import FORMATS, turn_problem

__all__ = ["OWN_COLUMNS", "Columns", "Rows", "schema_of", "to_batch"]

Row = dict[str, Any]
Columns = dict[str, list[Any]]

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


def to_batch(columns: Columns, schema: pa.Schema) -> pa.RecordBatch:
    """Turn columns into an Arrow batch (chats are built from flat columns: four times the speed)."""
    arrays = []
    for field in schema:
        values = columns[field.name]
        flat = pa.types.is_string(field.type)
        arrays.append(pa.array(values, field.type) if flat else _chats(values, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _chats(chats: list[list[dict[str, str]]], kind: pa.ListType) -> pa.ListArray:
    offsets = [0]
    for chat in chats:
        offsets.append(offsets[-1] + len(chat))
    fields = [kind.value_type.field(i) for i in range(kind.value_type.num_fields)]
    turns = [turn for chat in chats for turn in chat]
    names = [field.name for field in fields]
    flat = [pa.array([turn[name] for turn in turns], pa.string()) for name in names]
    return pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.StructArray.from_arrays(flat, fields=fields)
    )


class Rows:
    """The rows of an export, a batch of columns at a time, with counts of what was taken and refused."""

    def __init__(
        self, files: list[Path], format: str, *, thinking: bool = False, test_share: float = 0.0
    ) -> None:
        self.schema = schema_of(format)
        self.layout_columns: list[str] = self.schema.names[: -len(OWN_COLUMNS)]
        self.splits = ("train", "test") if test_share else ("train",)
        self.refused: Counter[str] = Counter()
        self.licences: Counter[str] = Counter()
        self.tasks: Counter[str] = Counter()
        self.templates: Counter[str] = Counter()
        self.models: Counter[str] = Counter()
        self._files = files
        self._layout = FORMATS[format]
        self._thinking = thinking
        # Compared with 63-bit hashes.
        self._test_below = int(test_share * (1 << 63))

    def __iter__(self) -> Iterator[dict[str, Columns]]:
        """Yield, per batch, the columns of each of `splits`: train and, if a share was asked for, test."""
        for batch in batches(self._files):
            texts = [_Texts._make(row) for row in zip(*_lists(batch, _Texts._fields), strict=True)]
            rows = [self._layout(row, thinking=self._thinking) for row in texts]
            problems = [_problem(row) for row in rows]
            if any(problems):
                self.refused.update(problem for problem in problems if problem)
                taken = [problem is None for problem in problems]
                batch = batch.filter(pa.array(taken))
                rows = list(compress(rows, taken))
            sources, origins = _structs(batch.column("source")), _structs(batch.column("origin"))
            self._count(batch, sources, origins)
            columns = {name: [row[name] for row in rows] for name in self.layout_columns}
            columns["id"], columns["task_type"] = _lists(batch, ("id", "task"))
            columns["source"] = [_locator(source) for source in sources]
            columns["meta"] = _metas(batch, sources, origins)
            yield self._divide(columns, sources)

    def _count(self, batch: pa.RecordBatch, sources: list[Row], origins: list[Row]) -> None:
        self.tasks.update(batch.column("task").to_pylist())
        self.licences.update([source.get("licence", "") for source in sources])
        self.templates.update([origin.get("template", "") for origin in origins])
        self.models.update([origin.get("model", "") for origin in origins])

    def _divide(self, columns: Columns, sources: list[Row]) -> dict[str, Columns]:
        """Divide rows among the splits by the hash of their passage, so that no passage is in both."""
        if not self._test_below:
            return {"train": columns}
        passages = [source.get("document") or row for source, row in zip(sources, columns["id"], strict=True)]
        test = [draw(0, passage, "split") < self._test_below for passage in passages]
        train = [not flag for flag in test]
        return {
            split: {name: list(compress(values, mask)) for name, values in columns.items()}
            for split, mask in (("train", train), ("test", test))
        }


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


class _Texts(NamedTuple):
    """The columns of an Example that a layout reads; ten times as fast to make as the dataclass."""

    context: str
    instruction: str
    response: str
    rationale: str


def _lists(batch: pa.RecordBatch, names: tuple[str, ...]) -> list[list[Any]]:
    return [batch.column(name).to_pylist() for name in names]


def _structs(column: pa.StructArray) -> list[Row]:
    """Return a struct column's values as dicts without empty and zero fields (row 0 of a data set stays)."""
    filled: dict[str, list[Any]] = {}
    for field, part in zip(column.type, column.flatten(), strict=True):
        values = part.to_pylist()
        if field.name == "row":
            values = [None if v == -1 else v for v in values]
        # Most fields are empty in a whole batch (a span has no data set): skip them here, not per row.
        if any(values) or 0 in values:
            filled[field.name] = values
    if not filled:
        return [{} for _ in range(len(column))]
    names = list(filled)
    return [
        dict(zip(names, row, strict=True))
        if all(row)
        else {n: v for n, v in zip(names, row, strict=True) if v or (v == 0 and n == "row")}
        for row in zip(*filled.values(), strict=True)
    ]


def _locator(source: Row) -> str:
    """Return a row's place in one line: `url#char=start,end` (RFC 5147) or `dataset/config/split/row`."""
    if "dataset" in source:
        return "/".join(str(source[k]) for k in ("dataset", "config", "split", "row") if k in source)
    url: str = source.get("url", "")
    return f"{url}#char={source.get('start', 0)},{source['end']}" if url and "end" in source else url


def _metas(batch: pa.RecordBatch, sources: list[Row], origins: list[Row]) -> list[str]:
    """Return the provenance objects as JSON: the record's own names, empty fields left out."""
    extra = _lists(batch, ("options", "answer_index", "rationale", "meta"))
    found = []
    for source, origin, options, index, rationale, meta in zip(sources, origins, *extra, strict=True):
        entry: Row = {"source": source, "origin": origin}
        if options:
            entry["options"], entry["answer_index"] = options, index
        if rationale:
            entry["rationale"] = rationale
        if meta and meta != "{}":
            entry["meta"] = orjson.Fragment(meta)
        found.append(orjson.dumps(entry).decode())
    return found
