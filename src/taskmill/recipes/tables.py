"""Tables that commands over finished data read: files and run folders, as one Arrow table with ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from taskmill.errors import InputError, UsageError
from taskmill.ingest.records import find_tables, read_records
from taskmill.record import EXAMPLE_SCHEMA, Example
from taskmill.record import examples as read_examples
from taskmill.registry import nearest
from taskmill.render import PLACEHOLDER, escape, from_messages, from_sharegpt
from taskmill.store import parts

__all__ = ["as_examples", "layout_of", "read_file", "read_table", "table_files", "with_ids"]


def table_files(source: str) -> list[str]:
    """Return the files of a source: those of a run's last finished stage, or what a path or glob names.

    A folder that `curate`, `dedup` or `decontaminate` wrote stands for its kept rows.
    """
    folder = Path(source)
    if (folder / "kept.parquet").exists():
        if not (folder / "report.json").exists():
            raise InputError(f"{source} is unfinished (it has no report.json); run its command again first")
        return [str(folder / "kept.parquet")]
    if not (folder / "manifest.json").exists():
        return find_tables([source])
    stages = [p for p in folder.glob("[0-9]*-*") if (p / "stage.json").exists() and parts(p / "kept")]
    if not stages:
        raise InputError(f"{source} is a run in which no stage is finished; run its command again first")
    last = max(stages, key=lambda p: int(p.name.partition("-")[0]))
    return [str(p) for p in parts(last / "kept")]


def read_table(sources: Sequence[str]) -> pa.Table:
    """Return the rows of all sources as one table; columns that a source lacks are null.

    Raises UsageError without a source, InputError naming the file that cannot be read.
    """
    if not sources:
        raise UsageError("no data is given; name a Parquet or JSONL file, or a run folder")
    tables = [read_file(name) for source in sources for name in table_files(source)]
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise InputError(f"{', '.join(sources)} do not fit together: {str(error).splitlines()[0]}") from None


def read_file(name: str) -> pa.Table:
    """Return the rows of one table file; raises InputError if it cannot be read."""
    if not name.endswith(".parquet"):
        return _columns(name)
    try:
        return pq.read_table(name)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{name} cannot be read: {str(error).splitlines()[0]}") from None


def _columns(name: str) -> pa.Table:
    """Read a file of objects; a key that some rows lack is null there."""
    rows = list(read_records(name))
    columns = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        try:
            columns[key] = pa.array([row.get(key) for row in rows])
        except (pa.ArrowException, OverflowError) as error:
            raise InputError(
                f"{name}: {key!r} mixes kinds of values ({str(error).splitlines()[0]})"
            ) from None
    return pa.table(columns)


def with_ids(table: pa.Table, added: Sequence[str] = ()) -> pa.Table:
    """Return the rows with ids: row numbers as text where they have none.

    Raises InputError if a column of `added`, which the output gets, is there already, or ids are no text.
    """
    taken = [name for name in added if name in table.column_names]
    if taken:
        raise InputError(f"the input has a column {taken[0]!r}, which the output gets; rename it")
    if "id" not in table.column_names:
        return table.add_column(0, "id", pa.array(map(str, range(len(table))), pa.string()))
    kind = table["id"].type
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise InputError(f"ids are texts or whole numbers, not {kind}; rename the column `id`")
    return table


LAYOUTS: Mapping[str, tuple[str, str, str]] = {
    "examples": ("instruction", "context", "response"),
    "alpaca": ("instruction", "input", "output"),
    "prompt-completion": ("prompt", "", "completion"),
    "question-answer": ("question", "context", "answer"),
    "inputs-targets": ("inputs", "", "targets"),
    "instruction-response": ("instruction", "", "response"),
    "messages": ("messages", "", ""),
    "sharegpt": ("conversations", "", ""),
}
"""Common layouts of instruction data: the columns of instruction, passage and response."""

_OPTIONAL = ("input", "context")


def layout_of(names: Sequence[str]) -> str:
    """Return the layout that columns are in; raises InputError naming the layouts if it is none."""
    for layout, columns in LAYOUTS.items():
        needed = [c for c in columns if c and (layout == "examples" or c not in _OPTIONAL)]
        if all(c in names for c in needed):
            return layout
    known = "; ".join(", ".join(filter(None, columns)) for columns in LAYOUTS.values())
    near = nearest("instruction", names)
    raise InputError(f"no known layout in the columns {', '.join(names)}.{near} Known: {known}")


def as_examples(table: pa.Table) -> Iterator[Example]:
    """Yield each row as an Example, whatever layout it is in; ids are those of the table.

    Of a chat the last exchange is the instruction and response. Passages of a column of their own are quoted
    by a placeholder in front, as in examples of taskmill's own.
    """
    layout = layout_of(table.column_names)
    ids = table["id"].cast(pa.string()).to_pylist()
    if layout == "examples" and set(EXAMPLE_SCHEMA.names) <= set(table.column_names):
        yield from read_examples(table.select(EXAMPLE_SCHEMA.names).cast(EXAMPLE_SCHEMA), provenance=False)
        return
    columns = [c for c in LAYOUTS[layout] if c in table.column_names]
    options = "options" if "options" in table.column_names else ""
    chosen = table.select([*columns, *([options] if options else [])])
    start = 0
    for batch in chosen.to_batches(2048):
        for name, row in zip(ids[start : start + len(batch)], batch.to_pylist(), strict=True):
            yield _example(name, layout, row)
        start += len(batch)


def _example(name: str, layout: str, row: Mapping[str, Any]) -> Example:
    options = row.get("options")
    listed = tuple(map(str, options)) if isinstance(options, list) else ()
    if layout in ("messages", "sharegpt"):
        try:
            pairs = from_messages(row["messages"]) if layout == "messages" else from_sharegpt(row)
        except (InputError, KeyError, TypeError) as error:
            raise InputError(f"row {name}: the chat cannot be read ({error})") from None
        asked, answered = pairs[-1] if pairs else ("", "")
        return Example(name, "", "", escape(asked), answered, listed)
    head, passage, tail = LAYOUTS[layout]
    context = _text(row.get(passage)) if passage else ""
    asked = escape(_text(row.get(head))) if layout != "examples" else _text(row.get(head))
    if context and layout != "examples":
        asked = f"{PLACEHOLDER}\n\n{asked}"
    return Example(name, "", context, asked, _text(row.get(tail)), listed)


def _text(value: Any) -> str:
    if isinstance(value, list):  # several right answers: the first
        value = value[0] if value else ""
    return "" if value is None else str(value)
