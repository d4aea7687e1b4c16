"""Layouts of instruction data: which columns are instruction, passage and response; rows as Examples."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from taskmill.errors import InputError
from taskmill.recipes.tables import fitted, is_list, is_text, with_ids
from taskmill.record import EXAMPLE_SCHEMA, Example
from taskmill.record import examples as read_examples
from taskmill.registry import nearest
from taskmill.render import (
    END_TOKENS,
    PLACEHOLDER,
    SLOT,
    escape,
    from_messages,
    from_sharegpt,
    has_placeholder,
)

__all__ = [
    "LAYOUTS",
    "are_own",
    "as_examples",
    "as_parts",
    "has_layout",
    "layouts_of",
    "part_columns",
    "with_answer",
    "without_end_tokens",
]

LAYOUTS: Mapping[str, tuple[str, str, str]] = {
    "examples": ("instruction", "context", "response"),
    "alpaca": ("instruction", "input", "output"),
    "prompt-completion": ("prompt", "", "completion"),
    "prompt-response": ("prompt", "", "response"),
    "question-answer": ("question", "context", "answer"),
    "p3": ("inputs_pretokenized", "", "targets_pretokenized"),
    "inputs-targets": ("inputs", "", "targets"),
    "instruction-response": ("instruction", "", "response"),
    "messages": ("messages", "", ""),
    "sharegpt": ("conversations", "", ""),
    "bonito": ("input", "", "output"),
}
"""Common layouts of instruction data: the columns of instruction, passage and response."""

_WHICH = frozenset(("label", "correct_answer_id", "answer_index", "correct"))
"""Columns beside which `answers` are choices, of which not all are right."""

_OPTIONAL = {"alpaca": "input", "question-answer": "context"}


def _layouts(names: Sequence[str]) -> list[str]:
    """Return the layouts whose columns are there, those that come first in LAYOUTS first."""
    return [
        layout
        for layout, columns in LAYOUTS.items()
        if all(c in names for c in columns if c and c != _OPTIONAL.get(layout))
    ]


def has_layout(names: Sequence[str]) -> bool:
    """Say whether columns of these names are in a layout of instruction data."""
    return bool(_layouts(names))


def layouts_of(names: Sequence[str]) -> list[str]:
    """Return the layouts that columns are in, of which each row has the first that is filled.

    Raises InputError naming the known layouts if it is none.
    """
    found = _layouts(names)
    if not found:
        known = "; ".join(", ".join(filter(None, columns)) for columns in LAYOUTS.values())
        near = nearest("instruction", names)
        raise InputError(f"no known layout in the columns {', '.join(names)}.{near} Known: {known}")
    return found


def with_answer(table: pa.Table) -> pa.Table:
    """Return questions whose right answers stand in `answers` (a list, SQuAD's structure) with an `answer`.

    It is the first of them, empty where there is none. A table in a known layout stays as it is, and so does
    one of which another column says which of the answers is right.
    """
    names = set(table.column_names)
    if not {"question", "answers"} <= names or _WHICH & names or has_layout(table.column_names):
        return table
    first = [_text(cell) for cell in table["answers"].to_pylist()]
    return table.append_column("answer", pa.array(first, pa.large_string()))


def are_own(table: pa.Table) -> bool:
    """Say whether all rows are examples of taskmill's own, with provenance."""
    there = set(EXAMPLE_SCHEMA.names) <= set(table.column_names)
    return there and not table["instruction"].null_count


def as_examples(table: pa.Table, *, whole: bool = False, own: bool | None = None) -> Iterator[Example]:
    """Yield each row as an Example, whatever layout it is in; ids are those of the table.

    Of a chat the last exchange is the instruction and response; with `whole`, all turns before the last are
    the instruction. Passages of a column of their own are quoted by a placeholder in front, as in examples of
    taskmill's own. `own` is what `are_own` says of all rows, where these are some of them only. Raises
    InputError for columns in no known layout, and for a chat that cannot be read.
    """
    found = layouts_of(table.column_names)
    ids = with_ids(table)["id"].cast(pa.string()).to_pylist()
    if are_own(table) if own is None else own:
        rows = fitted(table.select(EXAMPLE_SCHEMA.names), EXAMPLE_SCHEMA, "the examples")
        yield from read_examples(rows, provenance=False)
        return
    columns = {c for layout in found for c in LAYOUTS[layout]} | {"options"}
    start = 0
    for batch in table.select([c for c in table.column_names if c in columns]).to_batches(2048):
        for name, row in zip(ids[start : start + len(batch)], batch.to_pylist(), strict=True):
            listed = row.get("options")
            choices = tuple(map(str, listed)) if isinstance(listed, list) else ()
            yield Example(name, "", *_parts(name, _filled(row, found), row, whole), choices)
        start += len(batch)


def _filled(row: Mapping[str, Any], found: Sequence[str]) -> str:
    """Return the first layout of which the row has the instruction and the response, else the first."""
    if len(found) == 1:
        return found[0]
    for layout in found:
        head, _, tail = LAYOUTS[layout]
        if row.get(head) is not None and row.get(tail or head) is not None:
            return layout
    return found[0]


def _parts(name: str, layout: str, row: Mapping[str, Any], whole: bool) -> tuple[str, str, str]:
    """Return (context, instruction, response) of a row."""
    if layout in ("messages", "sharegpt"):
        asked, answered = _whole_chat(row) if whole else _last_exchange(name, layout, row)
        return "", escape(asked), answered
    head, passage, tail = LAYOUTS[layout]
    context = _text(row.get(passage)) if passage else ""
    asked = _text(row.get(head))
    if layout != "examples" or (context and not has_placeholder(asked)):  # of other tools: a column beside it
        asked = f"{PLACEHOLDER}\n\n{escape(asked)}" if context else escape(asked)
    return context, asked, _text(row.get(tail))


def _last_exchange(name: str, layout: str, row: Mapping[str, Any]) -> tuple[str, str]:
    try:
        pairs = from_messages(row["messages"]) if layout == "messages" else from_sharegpt(row)
    except (InputError, KeyError, TypeError) as error:
        raise InputError(f"row {name}: the chat cannot be read ({error})") from None
    return pairs[-1] if pairs else ("", "")


def _whole_chat(row: Mapping[str, Any]) -> tuple[str, str]:
    turns = [_text(turn) for turn in row.get("messages") or row.get("conversations") or ()]
    return "\n\n".join(turns[:-1]), turns[-1] if turns else ""


def _text(value: Any) -> str:
    """Return the text of a cell: of several right answers the first, of messages all."""
    if isinstance(value, Mapping):
        return _text(next((value[key] for key in ("content", "value", "text") if key in value), None))
    if isinstance(value, list):
        if value and isinstance(value[0], Mapping):
            return "\n\n".join(map(_text, value))
        value = value[0] if value else ""
    return "" if value is None else str(value)


_PARTS = ("instruction", "context", "response")
_SPECIAL = "[<{]\u2060*[|{]"  # where `escape` may have something to do


def as_parts(table: pa.Table, own: bool | None = None) -> pa.Table:
    """Return instruction, context and response of each row as text, whatever layout it is in, chats whole.

    `own`: as in `as_examples`.
    """
    found = layouts_of(table.column_names)
    if are_own(table) if own is None else own:
        return table.select(_PARTS)
    columns = _columns(table, found[0], alone=len(found) == 1)
    if columns is None:
        rows = list(as_examples(table, whole=True, own=False))
        columns = [pa.array([getattr(e, part) for e in rows], pa.large_string()) for part in _PARTS]
    return pa.table(columns, list(_PARTS))


def part_columns(names: Sequence[str]) -> list[str]:
    """Return the columns that `as_parts` reads of a table with these columns."""
    read = {column for layout in layouts_of(names) for column in LAYOUTS[layout]}
    return [name for name in names if name in read]


def _columns(table: pa.Table, layout: str, alone: bool) -> list[pa.ChunkedArray] | None:
    """Return what `as_parts` does without a loop over rows, or None if some row must be looked at."""
    head, passage, tail = LAYOUTS[layout]
    there = [table[name] for name in (head, tail, passage) if name in table.column_names]
    if not tail or not all(is_text(column.type) for column in there):
        return None
    if not alone and (there[0].null_count or there[1].null_count):  # in another layout, maybe
        return None
    asked, answered, *rest = (pc.fill_null(column.cast(pa.large_string()), "") for column in there)
    context = rest[0] if rest else pa.chunked_array([pa.array([""] * len(table), pa.large_string())])
    front = pc.not_equal(context, "")
    changed = pa.scalar(True)
    if layout == "examples":
        front = pc.and_(front, pc.invert(pc.match_substring_regex(asked, SLOT)))
        changed = front
    if pc.any(pc.and_(pc.match_substring_regex(asked, _SPECIAL), changed)).as_py():
        return None
    mark, nothing = (pa.scalar(text, pa.large_string()) for text in (f"{PLACEHOLDER}\n\n", ""))
    return [pc.if_else(front, pc.binary_join_element_wise(mark, asked, nothing), asked), context, answered]


_END = rf"(?:{'|'.join(map(re.escape, END_TOKENS))})\s*$"


def without_end_tokens(table: pa.Table) -> tuple[pa.Table, pa.Array]:
    """Return rows without the tokens by which a model ends its text, and what was taken off each (or null).

    Only the end of the response (of a chat: of its last turn) is looked at; what is left and what was taken
    off make the input again.
    """
    ends: list[str | None] = [None] * len(table)
    names = dict.fromkeys(LAYOUTS[one][2] or LAYOUTS[one][0] for one in layouts_of(table.column_names))
    for name in names:
        if _may_end(table[name]):
            at, kind = table.column_names.index(name), table[name].type
            table = table.set_column(at, name, pa.array(_cut(table[name].to_pylist(), ends), kind))
    return table, pa.array(ends, pa.string())


def _cut(cells: list[Any], ends: list[str | None]) -> list[Any]:
    """Take end tokens off the cells (texts or chats), and write into `ends` what they were."""
    for row, cell in enumerate(cells):
        last = cell[-1] if cell and isinstance(cell, list) else None
        key = "value" if isinstance(last, dict) and "value" in last else "content"
        text = last.get(key) if isinstance(last, dict) else cell
        bare = _bare(text) if isinstance(text, str) else ""
        if not isinstance(text, str) or bare == text or ends[row] is not None:
            continue
        ends[row] = text[len(bare) :]
        if last is None:
            cells[row] = bare
        else:
            last[key] = bare
    return cells


def _bare(text: str) -> str:
    """Return a text without end tokens and the white space before and after them."""
    bare = text
    while True:
        end = bare.rstrip()
        token = next((token for token in END_TOKENS if end.endswith(token)), "")
        if not token:
            return bare.rstrip() if bare != text else text
        bare = end[: -len(token)]


def _may_end(values: pa.ChunkedArray) -> bool:
    """Say whether an end token stands in texts or messages at all: most tables have none."""
    while is_list(values.type):
        values = pc.list_flatten(values)
    if pa.types.is_struct(values.type):
        names = [f.name for f in values.type if f.name in ("content", "value") and is_text(f.type)]
        return any(_may_end(pc.struct_field(values, name)) for name in names)
    if not is_text(values.type):
        return False
    return bool(pc.any(pc.match_substring_regex(values, _END)).as_py())
