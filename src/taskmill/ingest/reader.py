"""The contract of a reader, what it is given and what it returns; the registry of readers by suffix."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, Protocol, cast

from taskmill.ingest.config import IngestConfig
from taskmill.record import Reason
from taskmill.registry import Registry

__all__ = [
    "MEGABYTE",
    "READERS",
    "Fault",
    "FaultError",
    "Reader",
    "SourceFile",
    "Text",
    "read_bounded",
    "read_whole",
]

MEGABYTE = 1_000_000


class Text(NamedTuple):
    """One text of a file. `place` is what identifies it within the file, such as `#row=12`."""

    text: str
    place: str = ""
    title: str = ""
    language: str = ""
    licence: str = ""
    meta: str = "{}"


class Fault(NamedTuple):
    """Why a file or a row of it gives no text; `detail` says where and what to do."""

    reason: Reason
    detail: str
    place: str = ""


class FaultError(Exception):
    """Raised by a reader where a file cannot be read any further; becomes one Dropped."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to read, wherever it lies: `uri` names it in records, `size` is -1 where unknown."""

    uri: str
    suffix: str
    size: int
    opener: Callable[[], BinaryIO]

    def open(self) -> io.BufferedReader:
        """Open for reading bytes; the result can peek, and seek unless it is a pipe or compressed."""
        file = self.opener()
        return file if isinstance(file, io.BufferedReader) else io.BufferedReader(cast(Any, file))


class Reader(Protocol):
    """Reads one file. Ids, offsets, chunking, length limits and licences are added by the caller."""

    def __call__(self, file: SourceFile, config: IngestConfig) -> Iterator[Text | Fault]:
        """Yield the texts of `file` in order, a Fault for each row that has none; may raise FaultError."""
        ...


READERS: Registry[Reader] = Registry(
    "reader",
    {
        suffix: f"taskmill.ingest.{entry}"
        for entry, suffixes in {
            "plain:read_plain": (".txt", ".text", ".md", ".markdown", ".rst"),
            "markup:read_html": (".html", ".htm"),
            "pdf:read_pdf": (".pdf",),
            "zipped:read_docx": (".docx",),
            "zipped:read_epub": (".epub",),
            "lines:read_jsonl": (".jsonl", ".ndjson"),
            "lines:read_json": (".json",),
            "tables:read_csv": (".csv",),
            "tables:read_tsv": (".tsv",),
            "columns:read_parquet": (".parquet",),
            "columns:read_arrow": (".arrow", ".feather"),
        }.items()
        for suffix in suffixes
    },
)


def read_whole(file: SourceFile, config: IngestConfig) -> bytes:
    """Return the bytes of a format that cannot be streamed; raises FaultError if there are too many."""
    if file.size > config.max_file_mb * MEGABYTE:
        raise _too_large(config)
    with file.open() as stream:
        return read_bounded(stream, config)


def read_bounded(stream: io.BufferedReader, config: IngestConfig) -> bytes:
    """Return the bytes of an open stream; raises FaultError if there are none or too many."""
    limit = config.max_file_mb * MEGABYTE
    data = stream.read(limit + 1)
    if len(data) > limit:
        raise _too_large(config)
    if not data:
        raise FaultError(Reason.EMPTY, "the file is empty")
    return data


def _too_large(config: IngestConfig) -> FaultError:
    detail = f"larger than {config.max_file_mb} MB; split it or raise max_file_mb"
    return FaultError(Reason.TOO_LARGE, detail)
