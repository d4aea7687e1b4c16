"""Tables in columns, Parquet and Arrow (Feather), read batch by batch."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from taskmill.ingest.config import IngestConfig
from taskmill.ingest.reader import MEGABYTE, Fault, FaultError, SourceFile, Text
from taskmill.ingest.rows import label, missing_column
from taskmill.record import Reason

__all__ = ["batch_texts", "read_arrow", "read_parquet", "wanted_columns"]

_BATCH = 1000  # rows


def read_parquet(file: SourceFile, config: IngestConfig) -> Iterator[Text | Fault]:
    """Yield one text for each row, reading the needed columns only."""
    import pyarrow.parquet as pq

    with file.open() as stream:
        # Without these two, memory grows with the size of a row group.
        table = pq.ParquetFile(_seekable(stream), pre_buffer=False, buffer_size=MEGABYTE)
        columns = wanted_columns(table.schema_arrow, config)
        yield from batch_texts(table.iter_batches(batch_size=_BATCH, columns=columns), config)


def read_arrow(file: SourceFile, config: IngestConfig) -> Iterator[Text | Fault]:
    """Yield one text for each row of an Arrow file or stream."""
    with file.open() as stream:
        _seekable(stream)
        is_file = stream.read(6) == b"ARROW1"
        stream.seek(0)
        batches = _file_batches(stream, config) if is_file else _stream_batches(stream, config)
        yield from batch_texts(batches, config)


def _file_batches(stream: io.BufferedReader, config: IngestConfig) -> Iterator[pa.RecordBatch]:
    schema = pa.ipc.open_file(stream).schema
    chosen = sorted(schema.get_field_index(name) for name in wanted_columns(schema, config))
    stream.seek(0)
    table = pa.ipc.open_file(stream, options=pa.ipc.IpcReadOptions(included_fields=chosen))
    for i in range(table.num_record_batches):
        yield table.get_batch(i)


def _stream_batches(stream: io.BufferedReader, config: IngestConfig) -> Iterator[pa.RecordBatch]:
    table = pa.ipc.open_stream(stream)
    wanted_columns(table.schema, config)
    yield from table


def _seekable(stream: io.BufferedReader) -> io.BufferedReader:
    if not stream.peek(1):
        raise FaultError(Reason.EMPTY, "the file is empty")
    if not stream.seekable():
        raise FaultError(Reason.UNREADABLE, "this format cannot be read through gzip; decompress it first")
    return stream


def wanted_columns(schema: pa.Schema, config: IngestConfig) -> list[str]:
    """Return the columns to read; raises FaultError if the text column is missing or holds no text."""
    if config.text_column not in schema.names:
        raise FaultError(Reason.MISSING_COLUMN, missing_column(config.text_column, schema.names))
    kind = schema.field(config.text_column).type
    values = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = ("string", "large_string", "string_view", "binary", "large_binary", "null")
    if str(values) not in tests:
        raise FaultError(
            Reason.UNREADABLE, f"column {config.text_column!r} holds {kind}, not text; set text_column"
        )
    names = (config.text_column, config.title_column, config.language_column, config.licence_column)
    return [name for name in dict.fromkeys(names) if name in schema.names]


def batch_texts(batches: Iterable[pa.RecordBatch], config: IngestConfig) -> Iterator[Text | Fault]:
    """Yield one text for each row of `batches`; `#row=` counts from 0."""
    index = 0
    for batch in batches:
        texts = _values(batch, config.text_column)
        names = (config.title_column, config.language_column, config.licence_column)
        labels = [_values(batch, name) if name in batch.schema.names else None for name in names]
        for i, text in enumerate(texts):
            place = f"#row={index}"
            if isinstance(text, bytes):
                text = _decoded(text)
            if isinstance(text, str):
                yield Text(text, place, *(label(values[i]) if values else "" for values in labels))
            elif text is None:
                yield Fault(Reason.NULL_TEXT, f"row {index}: {config.text_column!r} is null", place)
            else:
                yield Fault(
                    Reason.UNDECODABLE, f"row {index}: {config.text_column!r} is not valid UTF-8", place
                )
            index += 1
    if index == 0:
        yield Fault(Reason.EMPTY, "the file has no rows")


def _values(batch: pa.RecordBatch, name: str) -> list[Any]:
    column = batch.column(batch.schema.get_field_index(name))
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:  # Arrow does not check UTF-8 when it reads
        values = [_one(value) for value in column]
    return values


def _one(value: pa.Scalar) -> Any:
    try:
        return value.as_py()
    except UnicodeDecodeError:
        return ...


def _decoded(value: bytes) -> Any:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return ...
