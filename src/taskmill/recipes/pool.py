"""A table or a run folder → a pool to select from: ids, lengths, texts, vectors, groups."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from taskmill.errors import InputError, UsageError
from taskmill.ingest.tokens import count_tokens
from taskmill.recipes.tables import read_file, table_files
from taskmill.record import EXAMPLE_SCHEMA, examples
from taskmill.registry import nearest
from taskmill.render import answer, prompt

__all__ = ["Columns", "Rows", "matrix", "read_rows", "strings"]

Array = np.ndarray[Any, Any]

_BATCH = 16384


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a pool are what."""

    id: str = field(default="id", metadata={"help": "column of ids; without it rows are numbered"})
    text: str = field(
        default="",
        metadata={"help": "column of text; default: `text`, or prompt and response of our own examples"},
    )
    embeddings: str = field(
        default="", metadata={"help": "column of vectors; without it the text is embedded"}
    )
    tokens: str = field(default="", metadata={"help": "column of token counts; default: estimated from text"})
    group: str = field(default="", metadata={"help": "column of groups for quotas", "flag": "group-by"})


@dataclass(frozen=True, eq=False)
class Rows:
    """What was read: `table` holds all columns but the vectors, which are `vectors` (float32 [n, d])."""

    table: pa.Table
    ids: pa.Array
    texts: pa.Array | None
    tokens: Array
    vectors: Array | None
    groups: pa.Array | None


def read_rows(source: str, columns: Columns, numbered: str = "") -> Rows:
    """Read a table (Parquet, JSON Lines, CSV), a folder of them, or a run folder's last examples.

    Ids of numbered rows begin with `numbered`. Raises UsageError for a column that is not there, naming the
    nearest one, and InputError for a value that is not of its kind, naming the row.
    """
    files = table_files(source)
    table, vectors = _read(files, columns)
    if not table.num_rows:
        raise InputError(f"{source} holds no rows")
    for name in (columns.text, columns.tokens, columns.group):
        if name:
            _column(table, name, source)
    if columns.id in table.column_names:
        ids = strings(table[columns.id])
        if ids.null_count:
            row = pc.index(ids.is_null(), True).as_py()
            raise InputError(f"{source}: row {row} has no {columns.id!r}; give it one or drop the row")
    else:
        ids = pa.array([f"{numbered}{i}" for i in range(table.num_rows)])
    texts = _texts(table, columns.text)
    return Rows(
        table,
        ids,
        texts,
        _lengths(table, columns.tokens, texts, ids),
        vectors,
        strings(table[columns.group]) if columns.group else None,
    )


def _read(files: Sequence[str], columns: Columns) -> tuple[pa.Table, Array | None]:
    """Return all columns but the vectors, and those as one matrix, never held twice."""
    if not all(name.endswith(".parquet") for name in files):
        table = pa.concat_tables([read_file(name) for name in files], promote_options="permissive")
        if not columns.embeddings:
            return table, None
        column = _column(table, columns.embeddings, files[0])
        return table.drop_columns([columns.embeddings]), matrix(column.chunks, len(table))
    try:
        schemas = [pq.read_schema(name) for name in files]
        if columns.embeddings:
            for name, schema in zip(files, schemas, strict=True):
                _column(schema.empty_table(), columns.embeddings, name)
        others = [name for name in schemas[0].names if name != columns.embeddings]
        table = pa.concat_tables([pq.read_table(name, columns=others) for name in files])
        if not columns.embeddings:
            return table, None
        batches = (
            batch.column(0)
            for name in files
            for batch in pq.ParquetFile(name).iter_batches(_BATCH, columns=[columns.embeddings])
        )
        return table, matrix(batches, table.num_rows)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{files[0]} cannot be read: {str(error).splitlines()[0]}") from None


def matrix(batches: Iterable[pa.Array], rows: int) -> Array:
    """Return columns of lists of numbers as one matrix, float32 [rows, width].

    Raises InputError, naming the row, for a missing vector or one of another width.
    """
    whole: Array | None = None
    at = 0
    for batch in batches:
        if not (_is_list(batch.type) and _is_number(batch.type.value_type)):
            raise InputError(f"the column of vectors holds {batch.type}; it must hold lists of numbers")
        lengths = pc.fill_null(pc.list_value_length(batch), -1).to_numpy(zero_copy_only=False)
        if whole is None and len(lengths):
            whole = np.empty((rows, max(int(lengths.max()), 0)), np.float32)
        if whole is None:
            continue
        wrong = np.flatnonzero(lengths != whole.shape[1])
        if len(wrong) or not whole.shape[1]:
            row = at + int(wrong[0]) if len(wrong) else at
            length = max(int(lengths[row - at]), 0)
            raise InputError(
                f"row {row} (counted from 0) has a vector of {length} numbers where others have "
                f"{whole.shape[1]}; mend or drop that row"
            )
        values = batch.flatten()
        if values.null_count:  # a missing number is not finite either
            values = pc.fill_null(values.cast(pa.float32()), float("nan"))
        numbers = values.to_numpy(zero_copy_only=False)
        whole[at : at + len(batch)] = numbers.reshape(len(batch), whole.shape[1])
        at += len(batch)
    return np.zeros((rows, 0), np.float32) if whole is None else whole


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _column(table: pa.Table, name: str, source: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        known = ", ".join(table.column_names)
        raise UsageError(
            f"{source} has no column {name!r}.{nearest(name, table.column_names)} It has: {known}"
        )
    return table[name]


def strings(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array of strings; nulls stay, what is no plain value is written out."""
    try:
        found = column.cast(pa.string())
    except pa.ArrowException:  # lists, structs: as they are written
        found = pa.chunked_array([pa.array([None if v is None else str(v) for v in column.to_pylist()])])
    whole = found.combine_chunks()
    return pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole


def _texts(table: pa.Table, name: str) -> pa.Array | None:
    """Return the text of each row; of our own examples that is what a student is trained on."""
    if name or "text" in table.column_names:
        return strings(table[name or "text"])
    if set(EXAMPLE_SCHEMA.names) <= set(table.column_names):
        own = table.select(EXAMPLE_SCHEMA.names).cast(EXAMPLE_SCHEMA)
        return pa.array(f"{prompt(e)}\n{answer(e)}" for e in examples(own, provenance=False))
    return None


def _lengths(table: pa.Table, name: str, texts: pa.Array | None, ids: pa.Array) -> Array:
    """Return the tokens of each row: as given, else estimated, else one a row."""
    if name:
        column = table[name].combine_chunks()
        if not pa.types.is_integer(column.type):
            raise InputError(f"the column {name!r} holds {column.type}; token counts are whole numbers")
        bad = pc.fill_null(pc.less(column, 0), True)
        if pc.any(bad).as_py():
            row = ids[pc.index(bad, True).as_py()].as_py()
            raise InputError(f"row {row!r} has no token count of 0 or more in {name!r}; mend or drop it")
        return np.asarray(column, np.int64)
    if texts is None:
        return np.ones(table.num_rows, np.int64)
    return np.fromiter((count_tokens(t.as_py() or "") for t in texts), np.int64, len(texts))
