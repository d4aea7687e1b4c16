"""Rows of annotated datasets with all their columns: Parquet, Arrow, JSON (Lines), CSV, Hub."""

from __future__ import annotations

import csv
import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from glob import glob
from itertools import chain
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from taskmill.errors import InputError
from taskmill.ingest.hub import open_hub

__all__ = ["SUFFIXES", "find_tables", "read_records", "unique_names"]

_BATCH = 1000
SUFFIXES = (".parquet", ".arrow", ".feather", ".jsonl", ".ndjson", ".json", ".csv", ".tsv")
_CELL = 100_000_000  # characters of one CSV cell


def find_tables(patterns: Sequence[str], root: str = "") -> list[str]:
    """Return the table files that paths, folders and globs name, sorted, each once; `hf:` sources stay.

    Raises InputError for a pattern that finds nothing.
    """
    found: dict[str, None] = {}
    for pattern in patterns:
        if pattern.startswith("hf:"):
            found[pattern] = None
            continue
        path = pattern if os.path.isabs(pattern) or not root else os.path.join(root, pattern)
        names = sorted(glob(path, recursive=True))
        names = [n for name in names for n in (_inside(name) if os.path.isdir(name) else [name])]
        if not names:
            hint = "" if not root or path == pattern else f"; paths are taken from {root} (--data)"
            raise InputError(f"{path or 'an empty name'}: no such file or folder{hint}")
        found.update(dict.fromkeys(names))
    return list(found)


def _inside(folder: str) -> list[str]:
    files = sorted(str(p) for p in Path(folder).rglob("*") if p.name.removesuffix(".gz").endswith(SUFFIXES))
    if not files:
        raise InputError(f"{folder} holds no table ({', '.join(SUFFIXES)})")
    return files


def read_records(source: str, split: str = "train", columns: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Yield the rows of one table as mappings, streamed.

    Of formats in columns only `columns` are read where some are named. A second column of a name is called
    `NAME_2`. Raises InputError that names the file and the row for what cannot be read.
    """
    if source.startswith("hf:"):
        yield from _hub(source, split)
        return
    name = source.removesuffix(".gz")
    try:
        if name.endswith(".parquet"):
            yield from _parquet(source, columns)
        elif name.endswith((".arrow", ".feather")):
            yield from _batches(_arrow(source), columns)
        elif name.endswith((".jsonl", ".ndjson")):
            yield from _lines(source)
        elif name.endswith(".json"):
            yield from _json(source)
        elif name.endswith((".csv", ".tsv")):
            yield from _csv(source, "\t" if name.endswith(".tsv") else ",")
        else:
            raise InputError(f"{source}: not a table this reads ({', '.join(SUFFIXES)})")
    except (pa.ArrowException, OSError, EOFError, zlib.error) as error:  # the last two: torn .gz
        if isinstance(error, FileNotFoundError):
            raise InputError(f"{source}: no such file") from None
        detail = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"{source} cannot be read: {detail}; write or fetch it again") from None


def _parquet(source: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(source, pre_buffer=False) as file:
        own = file.schema_arrow.names
        # Columns are asked for by name, so that a file with equal names can only be read as a whole.
        asked = [name for name in columns if name in own] if len(set(own)) == len(own) else []
        yield from _batches(file.iter_batches(batch_size=_BATCH, columns=asked or None), columns)


def _arrow(source: str) -> Iterator[pa.RecordBatch]:
    with pa.OSFile(source) as file:
        if file.read(6) == b"ARROW1":
            file.seek(0)
            table = pa.ipc.open_file(file)
            yield from (table.get_batch(i) for i in range(table.num_record_batches))
        else:
            file.seek(0)
            yield from pa.ipc.open_stream(file)


def _batches(batches: Iterable[pa.RecordBatch], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    for batch in batches:
        if len(set(batch.schema.names)) < batch.num_columns:
            batch = batch.rename_columns(unique_names(batch.schema.names))
        asked = [name for name in columns if name in batch.schema.names]
        for start in range(0, batch.num_rows, _BATCH):
            part = batch.slice(start, _BATCH)
            yield from (part.select(asked) if asked else part).to_pylist()


def unique_names(names: Sequence[str]) -> list[str]:
    """Return column names of which each stands once: the second `x` is `x_2`."""
    found: dict[str, None] = {}
    for name in names:
        number, new = 1, name
        while new in found:
            number += 1
            new = f"{name}_{number}"
        found[new] = None
    return list(found)


def _open(source: str) -> Any:
    return gzip.open(source, "rb") if source.endswith(".gz") else open(source, "rb")


def _lines(source: str) -> Iterator[dict[str, Any]]:
    with _open(source) as stream:
        for i, line in enumerate(stream):
            if line.isspace():
                continue
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise InputError(
                    f"{source}: line {i + 1} is not valid JSON: {error}; mend or drop it"
                ) from None
            if not isinstance(row, dict):
                raise InputError(
                    f"{source}: line {i + 1} holds a {type(row).__name__}, not an object; mend it"
                )
            yield row


def _json(source: str) -> Iterator[dict[str, Any]]:
    with _open(source) as stream:
        try:
            loaded = json.load(stream)
        except ValueError as error:
            raise InputError(f"{source} is not valid JSON: {error}; mend it") from None
    rows = loaded.get("data") if isinstance(loaded, dict) else loaded
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{source}: neither a list of objects nor an object with such a list as 'data'")
    yield from rows


def _csv(source: str, delimiter: str) -> Iterator[dict[str, Any]]:
    opened = gzip.open if source.endswith(".gz") else open
    before = csv.field_size_limit(_CELL)
    try:
        with opened(source, "rt", encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, delimiter=delimiter, strict=True)
            reader.fieldnames = unique_names(reader.fieldnames or ())
            for i, row in enumerate(reader):
                if None in row:
                    raise InputError(
                        f"{source}: row {i} (counted from 0) has more cells than the header; quote its texts"
                    )
                yield dict(row)
    except UnicodeDecodeError as error:
        raise InputError(f"{source} is no UTF-8 text ({error}); write it in UTF-8") from None
    except csv.Error as error:
        raise InputError(f"{source}: line {reader.reader.line_num}: {error}; mend it") from None
    finally:
        csv.field_size_limit(before)


def _hub(source: str, split: str) -> Iterator[dict[str, Any]]:
    first, rest = open_hub(source, split)
    for table in chain([first] if first is not None else [], rest):
        yield from table.to_pylist()
