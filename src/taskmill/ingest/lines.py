"""JSON Lines, streamed with bounded memory, and JSON files that hold one list of objects."""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import Iterator
from typing import Any

import orjson

from taskmill.ingest.config import IngestConfig
from taskmill.ingest.plain import decode, encoding_of
from taskmill.ingest.reader import MEGABYTE, Fault, FaultError, SourceFile, Text, read_whole
from taskmill.ingest.rows import row_text
from taskmill.record import Reason

__all__ = ["parse_lines", "read_json", "read_jsonl"]

_SKIP = 1 << 20
_SNIFFED = 4096


def read_jsonl(file: SourceFile, config: IngestConfig) -> Iterator[Text | Fault]:
    """Yield one text for each line; `#row=` counts lines from 0, empty ones included."""
    with file.open() as stream:
        yield from parse_lines(stream, config)


def parse_lines(stream: io.BufferedReader, config: IngestConfig) -> Iterator[Text | Fault]:
    """Yield one text for each line of an open stream of JSON Lines."""
    limit = config.max_line_mb * MEGABYTE
    if not encoding_of(stream.peek(_SNIFFED)[:_SNIFFED]).startswith("utf-8"):
        raise FaultError(Reason.UNDECODABLE, "JSON Lines are UTF-8, this is not; convert the file")
    index = -1
    empty = True
    while line := stream.readline(limit + 1):
        index += 1
        if len(line) > limit:
            while not line.endswith(b"\n") and (line := stream.readline(_SKIP)):
                pass
            detail = f"line {index + 1} is longer than {config.max_line_mb} MB; split it or raise max_line_mb"
            yield Fault(Reason.TOO_LARGE, detail, f"#row={index}")
            empty = False
            continue
        if index == 0:
            line = line.removeprefix(codecs.BOM_UTF8)
        if line.isspace() or not line:
            continue
        empty = False
        yield _line_text(line, index, config)
    if empty:
        yield Fault(Reason.EMPTY, "the file has no rows")


def _line_text(line: bytes, index: int, config: IngestConfig) -> Text | Fault:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        # orjson refuses NaN, huge integers and halves of surrogate pairs, which common writers produce.
        try:
            row = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            detail = (
                f"line {index + 1}: byte {error.start} of it is not valid UTF-8; convert the file to UTF-8"
            )
            return Fault(Reason.UNDECODABLE, detail, f"#row={index}")
        except (ValueError, RecursionError) as error:
            return Fault(Reason.UNREADABLE, f"line {index + 1} is not valid JSON: {error}", f"#row={index}")
    if not isinstance(row, dict):
        kind = type(row).__name__
        return Fault(
            Reason.UNREADABLE, f"line {index + 1} holds a {kind}, not a JSON object", f"#row={index}"
        )
    return row_text(row, index, config)


def read_json(file: SourceFile, config: IngestConfig) -> Iterator[Text | Fault]:
    """Yield one text for each object of the list that the file is or holds."""
    text = decode(read_whole(file, config))
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        hint = "; is it JSON Lines? Then name it .jsonl" if "Extra data" in str(error) else ""
        raise FaultError(Reason.UNREADABLE, f"not valid JSON: {error}{hint}") from None
    rows = _rows(value)
    if rows is None:
        raise FaultError(
            Reason.UNREADABLE,
            "neither a list of objects nor an object with 'data' or one list; convert it to JSON Lines",
        )
    if not rows:
        yield Fault(Reason.EMPTY, "the file has no rows")
    for index, row in enumerate(rows):
        if isinstance(row, dict):
            yield row_text(row, index, config)
        else:
            detail = f"row {index} is a {type(row).__name__}, not a JSON object"
            yield Fault(Reason.UNREADABLE, detail, f"#row={index}")


def _rows(value: Any) -> list[Any] | None:
    if isinstance(value, dict):
        lists = [v for v in value.values() if isinstance(v, list)]
        value = (
            value["data"] if isinstance(value.get("data"), list) else lists[0] if len(lists) == 1 else None
        )
    return value if isinstance(value, list) else None
