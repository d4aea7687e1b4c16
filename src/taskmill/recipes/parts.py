"""A pool that is larger than the memory: ids and lengths are read, vectors go to a file, sorted by part.

Parquet is read twice, a batch at a time: once for what is small, once for the vectors (or for the text, which
is embedded). What is held in memory for a row is its id, its length and its groups, never its vector or text.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from taskmill.errors import InputError, UsageError
from taskmill.recipes.pool import Columns, Rows, check_counted, matrix, strings, texts_of, token_counts
from taskmill.recipes.scratch import gathered, numbers, vectors_of
from taskmill.recipes.tables import column, fitted, read_schema, table_files, unified, with_ids
from taskmill.select import unit_rows
from taskmill.select.parts import part_of

__all__ = ["Mapped", "mapped"]

Array = np.ndarray[Any, Any]

_BATCH = 4096
"""Rows read at a time (chosen: 16 MB of vectors of 1,024 numbers)."""

Embed = Callable[[Iterator[pa.Array]], Callable[[pa.Array], Array]]
"""(all texts, in pieces, read once at most) → a function from texts to vectors."""


@dataclass(frozen=True, eq=False)
class Mapped:
    """`rows`, sorted by part; part i is `bounds[i]` to `bounds[i + 1]`.

    Their vectors (unit rows, float32) stand in the file `path`, of which `rows.vectors` is a view. Texts are
    not held: `rows.texts` is None, and `rows.table` has the columns only whose coverage is reported.
    """

    rows: Rows
    path: Path
    bounds: Array


@contextmanager
def mapped(
    source: str, columns: Columns, keep: Sequence[str], parts: int, folder: Path, embed: Embed,
    counted: str = "",
) -> Iterator[Mapped]:  # fmt: skip
    """Read a pool in pieces; its files stand in `folder`, which is removed at the end.

    `keep`: columns whose coverage is reported, where they are there; `counted`: as in `read_rows`. Raises
    UsageError for a pool that is not of Parquet, InputError as `read_rows` does.
    """
    files = table_files(source)
    other = [name for name in files if not name.endswith(".parquet")]
    if other:
        raise UsageError(f"--parts reads Parquet a piece at a time, and {other[0]} is none; convert it first")
    shutil.rmtree(folder, ignore_errors=True)  # what a killed run left
    folder.mkdir(parents=True)
    try:
        pool = _Pool(files, source, _schema(files, source, columns), columns, counted)
        yield _mapped(pool, keep, parts, folder, embed)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, eq=False)
class _Pool:
    """What a pool is read from: its files with one schema over them, and which columns are what."""

    files: Sequence[str]
    source: str
    schema: pa.Schema
    columns: Columns
    counted: str = ""

    def pieces(self, names: Sequence[str]) -> Iterator[pa.Table]:
        """Yield the rows of all files with these columns, a batch at a time."""
        schema = pa.schema([self.schema.field(name) for name in names])
        for name in self.files:
            # With its defaults the reader keeps all that it has read until the end.
            with pq.ParquetFile(name, pre_buffer=False, buffer_size=1 << 20) as file:
                there = [column for column in names if column in file.schema_arrow.names]
                batches = file.iter_batches(_BATCH, columns=there)
                while (batch := _next(name, batches)) is not None:
                    yield fitted(pa.Table.from_batches([batch]), schema, name)

    def texts(self) -> Iterator[pa.Array]:
        """Yield the texts of all rows, a batch at a time."""
        for piece in self.pieces([n for n in self.schema.names if n != self.columns.embeddings]):
            found = texts_of(piece, self.columns.text, self.source)
            if found is None:
                raise UsageError(f"{self.source}: no text to embed; name it with --text")
            yield found


def _next(name: str, batches: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
    try:
        return next(batches, None)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{name} cannot be read: {str(error).splitlines()[0]}") from None


def _schema(files: Sequence[str], source: str, columns: Columns) -> pa.Schema:
    """Return the schema over all files; refuses columns that are not there or not of their kind."""
    schema = unified({name: read_schema(name) for name in files})
    flags = {"--text": columns.text, "--tokens": columns.tokens, "--embeddings": columns.embeddings}
    for flag, name in (flags | {"--id": columns.id if columns.id != "id" else ""}).items():
        if name:
            column(schema.empty_table(), name, source, flag)
    if columns.embeddings:  # refuses what is no list of numbers
        matrix([pa.array([], schema.field(columns.embeddings).type)], 0)
    return schema


def _mapped(pool: _Pool, keep: Sequence[str], parts: int, folder: Path, embed: Embed) -> Mapped:
    rows = _small(pool, [name for name in pool.schema.names if name in keep])
    part = part_of(rows.ids, parts)
    order = np.argsort(part, kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    path = folder / "vectors.f32"
    vectors = _vectors(pool, rows.ids, place, path, embed)
    bounds = np.concatenate(([0], np.cumsum(np.bincount(part, minlength=parts))))
    rows = Rows(rows.table.take(order), rows.ids.take(order), None, rows.tokens[order], vectors, None)
    return Mapped(rows, path, bounds)


def _small(pool: _Pool, keep: Sequence[str]) -> Rows:
    """Read what is held of each row: id, length, and the columns to `keep`."""
    columns, names = pool.columns, pool.schema.names
    wanted = [name for name in names if name in (columns.id, columns.tokens, *keep)]
    if not columns.tokens:  # lengths are estimated from the text, of which any column may be a part
        wanted = [name for name in names if name != columns.embeddings]
    ids, lengths, tables, count = [], [np.zeros(0, np.int64)], [], 0
    for piece in pool.pieces(wanted or names):
        named = with_ids(piece, f"{pool.source}, from row {count} on", name=columns.id, first=count)
        own = strings(named[columns.id])
        texts = None if columns.tokens else texts_of(piece, columns.text, pool.source)
        ids.append(own)
        lengths.append(token_counts(piece, columns.tokens, texts, own, pool.source, pool.counted))
        tables.append(pa.table({name: strings(piece[name]).dictionary_encode() for name in keep}))
        count += len(piece)
    if not count:
        raise InputError(f"{pool.source}: no rows in it; name a table with rows")
    whole, tokens = pa.concat_arrays(ids), np.concatenate(lengths)
    check_counted(tokens, pool.source, pool.counted)
    table = pa.concat_tables(tables).unify_dictionaries() if keep else pa.table({"id": whole})
    return Rows(table, whole, None, tokens, None, None)


def _vectors(pool: _Pool, ids: pa.Array, place: Array, path: Path, embed: Embed) -> Array:
    """Write the vectors (read, or of the texts) to their places in a file; return the file as a matrix."""
    whole, at = np.zeros((0, 0), np.float32), 0
    for block in _blocks(pool, ids, embed):
        if not at:
            whole = numbers(path, np.float32, (len(ids), block.shape[1]))
        own = ids[at : at + len(block)]
        whole[place[at : at + len(block)]] = unit_rows(block, own, in_place=True)
        at += len(block)
    return whole


def _blocks(pool: _Pool, ids: pa.Array, embed: Embed) -> Iterator[Array]:
    """Yield the vectors of all rows, a piece at a time; raises InputError for one of another width."""
    name = pool.columns.embeddings
    if name:
        yield from vectors_of((piece[name] for piece in pool.pieces([name])), lambda row: ids[row].as_py())
        return
    encode = embed(pool.texts())
    yield from (encode(texts) for texts in gathered(pool.texts()))
