"""A table or a run folder → a pool to select from: ids, lengths, texts, vectors, groups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from taskmill.errors import InputError, UsageError
from taskmill.ingest.tokens import count_tokens
from taskmill.recipes.layouts import as_examples, has_layout
from taskmill.recipes.tables import (
    column,
    is_list,
    joined,
    number_rest,
    read_file,
    read_schema,
    table_files,
    with_ids,
)
from taskmill.render import answer, prompt

__all__ = ["Columns", "Rows", "check_counted", "matrix", "read_rows", "strings", "texts_of", "token_counts"]

Array = np.ndarray[Any, Any]

_BATCH = 16384


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a pool are what."""

    id: str = field(default="id", metadata={"help": "column of ids; without it rows are numbered"})
    text: str = field(
        default="",
        metadata={"help": "column of text; default: `text`, or prompt and response of instruction data"},
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


def read_rows(source: str, columns: Columns, numbered: str = "", *, counted: str = "") -> Rows:
    """Read a table (Parquet, JSON Lines, CSV), a folder of them, or a run folder's last examples.

    Ids of numbered rows begin with `numbered`. `counted` says what needs token counts (`--budget 20000tok`):
    rows without counts and text are refused then, and are one token each else.

    Raises UsageError for a column that is not there, naming the nearest one, and InputError for a value that
    is not of its kind, naming the row.
    """
    table, vectors = _read(table_files(source), columns, source)
    if not table.num_rows:
        raise InputError(f"{source}: no rows in it; name a table with rows")
    if columns.id != "id":
        column(table, columns.id, source, "--id")
    ids = strings(with_ids(table, source, name=columns.id, prefix=numbered)[columns.id])
    texts = texts_of(table, columns.text, source)
    groups = strings(column(table, columns.group, source, "--group-by")) if columns.group else None
    tokens = token_counts(table, columns.tokens, texts, ids, source, counted)
    check_counted(tokens, source, counted)
    return Rows(table, ids, texts, tokens, vectors, groups)


def _read(files: Sequence[str], columns: Columns, source: str) -> tuple[pa.Table, Array | None]:
    """Return all columns but the vectors, and those as one matrix, never held twice."""
    if not columns.embeddings:
        return joined(number_rest({name: read_file(name) for name in files}, columns.id)), None
    schemas = {name: read_schema(name) for name in files}
    for name, schema in schemas.items():
        column(schema.empty_table(), columns.embeddings, name, "--embeddings")
    rest = {name: [n for n in schema.names if n != columns.embeddings] for name, schema in schemas.items()}
    tables = {name: read_file(name, rest[name]) for name in files}
    table = joined(number_rest(tables, columns.id))
    if not table.num_columns:  # rows of no columns are lost in between
        table = pa.table({"row": np.arange(sum(map(len, tables.values())))})
    return table, matrix(_vectors(files, columns.embeddings), table.num_rows)


def _vectors(files: Sequence[str], name: str) -> Iterator[pa.Array]:
    for file in files:
        if not file.endswith(".parquet"):
            yield from read_file(file)[name].chunks
            continue
        try:
            # With its default the reader keeps all that it has read until the end.
            for batch in pq.ParquetFile(file, pre_buffer=False).iter_batches(_BATCH, columns=[name]):
                yield batch.column(0)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{file} cannot be read: {str(error).splitlines()[0]}") from None


def matrix(batches: Iterable[pa.Array], rows: int) -> Array:
    """Return columns of lists of numbers as one matrix, float32 [rows, width].

    Raises InputError, naming the row, for a missing vector or one of another width.
    """
    whole: Array | None = None
    at = 0
    for batch in batches:
        if not (is_list(batch.type) and _is_number(batch.type.value_type)):
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


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def strings(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array of strings; nulls stay, what is no plain value is written out."""
    try:
        found = column.cast(pa.string())
    except pa.ArrowException:  # lists, structs: as they are written
        found = pa.chunked_array([pa.array([None if v is None else str(v) for v in column.to_pylist()])])
    whole = found.combine_chunks()
    return pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole


def texts_of(table: pa.Table, name: str, source: str = "the pool") -> pa.Array | None:
    """Return the text of each row; of instruction data that is what a student is trained on."""
    if name or "text" in table.column_names:
        return strings(column(table, name or "text", source, "--text"))
    if has_layout(table.column_names):
        texts = (f"{prompt(e)}\n{answer(e)}" for e in as_examples(table, whole=True))
        return pa.array(texts, pa.string())
    return None


def token_counts(
    table: pa.Table, name: str, texts: pa.Array | None, ids: pa.Array, source: str, counted: str = ""
) -> Array:
    """Return the tokens of each row: as given, else estimated, else one a row, or refused if `counted`."""
    if name:
        counts = column(table, name, source, "--tokens").combine_chunks()
        if not pa.types.is_integer(counts.type):
            raise InputError(f"the column {name!r} holds {counts.type}; token counts are whole numbers")
        bad = pc.fill_null(pc.less(counts, 0), True)
        if pc.any(bad).as_py():
            row = ids[pc.index(bad, True).as_py()].as_py()
            raise InputError(f"row {row!r} has no token count of 0 or more in {name!r}; mend or drop it")
        return np.asarray(counts, np.int64)
    if texts is None:
        check_counted(np.zeros(0, np.int64), source, counted)
        return np.ones(table.num_rows, np.int64)
    return np.fromiter((count_tokens(t.as_py() or "") for t in texts), np.int64, len(texts))


def check_counted(tokens: Array, source: str, counted: str) -> None:
    """Raise UsageError if tokens are `counted` and no row has any: a budget of them would choose all."""
    if counted and not tokens.any():
        raise UsageError(
            f"{counted} counts tokens, and {source} has no text to count them in; "
            "name its column with --text, or a column of counts with --tokens"
        )
