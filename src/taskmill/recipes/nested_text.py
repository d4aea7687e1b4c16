"""The text in the columns of a table, however it is nested: strings, lists, structs, maps, chat messages."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from taskmill.errors import InputError
from taskmill.recipes.tables import column, is_list, is_text

__all__ = ["LABELS", "joined_text", "strings", "text_columns"]

LABELS = frozenset(
    (
        *("id", "qid", "task", "task_name", "meta", "language", "lang", "licence", "license", "url", "uri"),
        *("dataset", "config", "split", "source", "origin", "template", "model", "call", "seed"),
        *("category", "subject"),
    )
)
"""Columns that describe a row rather than being its text."""

_ROLES = frozenset(("role", "from", "type"))  # of a chat message: who speaks


def text_columns(schema: pa.Schema, named: Sequence[str], where: str) -> tuple[list[str], list[str]]:
    """Return (columns to look into, what is not looked at, as `column` or `column.field`).

    Without `named` columns all that hold text are looked into but for LABELS. Raises UsageError for a named
    column that is not there or holds no text, InputError if no column holds any.
    """
    empty = schema.empty_table()
    for name in named:
        kind = column(empty, name, where, "--text").type
        if not _leaves(name, kind)[0]:
            column(empty, name, where, "--text", text=True)
    looked: list[str] = []
    beside: list[str] = []
    for field in schema:
        inside, left = _leaves(field.name, field.type)
        if field.name in named or (not named and field.name not in LABELS and inside):
            looked.append(field.name)
            beside += left
        elif inside or left:
            beside.append(field.name)
    if not looked:
        kinds = ", ".join(f"{f.name} ({f.type})" for f in schema)
        raise InputError(f"{where} has no column of text to look into; its columns are {kinds or 'none'}")
    return sorted(looked, key=list(named).index) if named else looked, beside


def _leaves(path: str, kind: pa.DataType) -> tuple[list[str], list[str]]:
    """Return (what holds text, what is left out) of a column: fields that are labels or cannot be read."""
    if isinstance(kind, pa.BaseExtensionType):
        return _leaves(path, kind.storage_type)
    if is_text(kind):
        return [path], []
    if is_list(kind):
        return _leaves(path, kind.value_type)
    if pa.types.is_map(kind):
        return _leaves(path, kind.item_type)
    if pa.types.is_struct(kind):
        looked: list[str] = []
        beside: list[str] = []
        for field in kind:
            inside, left = _leaves(f"{path}.{field.name}", field.type)
            if field.name in LABELS | _ROLES:
                inside, left = [], inside + left
            looked += inside
            beside += left
        return looked, beside
    unreadable = pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    return [], [path] if unreadable else []


def strings(cells: pa.ChunkedArray) -> pa.Array:
    """Return a column that holds text as one text for each row: its parts in order, a line each."""
    whole = pa.concat_arrays(cells.chunks) if cells.num_chunks else pa.array([], cells.type)
    return _strings(whole)


def _strings(cells: pa.Array) -> pa.Array:
    kind = cells.type
    if isinstance(kind, pa.BaseExtensionType):
        return _strings(cells.storage)
    if pa.types.is_fixed_size_list(kind):
        return _strings(cells.cast(pa.large_list(kind.value_type)))
    if is_list(kind) or pa.types.is_map(kind):
        values = _strings(cells.items if pa.types.is_map(kind) else cells.values)
        offsets = cells.offsets.cast(pa.int64())
        lists = pa.LargeListArray.from_arrays(offsets, pc.fill_null(values, ""))
        joined = pc.binary_join(lists, pa.scalar("\n", pa.large_string()))
        return pc.if_else(cells.is_valid(), joined, pa.scalar(None, pa.large_string()))
    if pa.types.is_struct(kind):
        fields = [f.name for f in kind if f.name not in LABELS | _ROLES and _leaves(f.name, f.type)[0]]
        return joined_text([_strings(pc.struct_field(cells, name)) for name in fields])
    return cells.cast(pa.large_string())


def joined_text(columns: Sequence[pa.Array]) -> pa.Array:
    """Return columns of text as one, a line each; nulls are empty lines."""
    if len(columns) == 1:
        return pc.fill_null(columns[0], "")
    return pc.binary_join_element_wise(
        *columns, pa.scalar("\n", pa.large_string()), null_handling="replace", null_replacement=""
    )
