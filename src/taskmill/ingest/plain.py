"""Plain text, Markdown and reStructuredText: the file is the text, unaltered."""

from __future__ import annotations

import codecs
from collections.abc import Iterator

from taskmill.ingest.config import IngestConfig
from taskmill.ingest.reader import Fault, FaultError, SourceFile, Text, read_whole
from taskmill.record import Reason

__all__ = ["decode", "encoding_of", "read_plain"]

# Longer marks first: the mark of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def encoding_of(data: bytes) -> str:
    """Return the encoding the byte order mark declares, else UTF-8; raises FaultError for binary data."""
    for mark, name in _MARKS:
        if data.startswith(mark):
            return name
    if b"\0" in data:
        raise FaultError(Reason.BINARY, f"byte {data.index(0)} is NUL: this is no text file")
    return "utf-8"


def decode(data: bytes) -> str:
    """Decode UTF-8, or UTF-16 and UTF-32 with a byte order mark; raises FaultError. Line ends are kept."""
    encoding = encoding_of(data)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        name = encoding.removesuffix("-sig").upper()
        raise FaultError(
            Reason.UNDECODABLE, f"byte {error.start} is not valid {name}; convert the file to UTF-8"
        ) from None


def read_plain(file: SourceFile, config: IngestConfig) -> Iterator[Text | Fault]:
    """Yield the whole file as one text."""
    yield Text(decode(read_whole(file, config)))
