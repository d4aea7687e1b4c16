"""Tables as text, CSV and TSV, streamed with bounded memory."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from taskmill.ingest.config import IngestConfig
from taskmill.ingest.plain import encoding_of
from taskmill.ingest.reader import MEGABYTE, Fault, FaultError, SourceFile, Text
from taskmill.ingest.rows import missing_column
from taskmill.record import Reason

__all__ = ["read_csv", "read_tsv"]

_SNIFFED = 4096
_SKIP = 1 << 20
_TOO_LONG = "field larger than field limit"


def read_csv(file: SourceFile, config: IngestConfig) -> Iterator[Text | Fault]:
    """Yield one text for each row after the header; `#row=` counts rows from 0."""
    return _read(file, config, ",")


def read_tsv(file: SourceFile, config: IngestConfig) -> Iterator[Text | Fault]:
    """Yield one text for each row after the header; cells may be quoted as in CSV."""
    return _read(file, config, "\t")


def _read(file: SourceFile, config: IngestConfig, delimiter: str) -> Iterator[Text | Fault]:
    limit = config.max_line_mb * MEGABYTE
    with file.open() as binary:
        encoding = encoding_of(binary.peek(_SNIFFED)[:_SNIFFED])
        # A byte that is not UTF-8 becomes a lone surrogate, so that only its own row is lost.
        escape = "surrogateescape" if encoding.startswith("utf-8") else "strict"
        with io.TextIOWrapper(binary, encoding, errors=escape, newline="") as stream:
            # The module's limit is global: raised while this file is read, then put back.
            before = csv.field_size_limit(limit)
            try:
                yield from _rows(_Lines(stream, limit), delimiter, config)
            finally:
                csv.field_size_limit(before)


class _Lines:
    """Lines of bounded length; one that is longer is replaced by an empty one and sets `cut`."""

    def __init__(self, stream: io.TextIOWrapper, limit: int) -> None:
        self._stream = stream
        self._limit = limit
        self.cut = False

    def __iter__(self) -> Iterator[str]:
        while line := self._stream.readline(self._limit + 1):
            if len(line) > self._limit:
                self.cut = True
                while not line.endswith(("\n", "\r")) and (line := self._stream.readline(_SKIP)):
                    pass
                line = "\n"
            yield line


def _rows(lines: _Lines, delimiter: str, config: IngestConfig) -> Iterator[Text | Fault]:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(reader)]
    except StopIteration:
        raise FaultError(Reason.EMPTY, "the file is empty") from None
    except csv.Error as error:
        raise FaultError(Reason.UNREADABLE, f"the header cannot be read: {error}") from None
    wanted = (config.title_column, config.language_column, config.licence_column)
    if config.text_column not in header:
        raise FaultError(Reason.MISSING_COLUMN, missing_column(config.text_column, header))
    column = header.index(config.text_column)
    labels = [header.index(name) if name and name in header else -1 for name in wanted]
    index = -1
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            index += 1
            yield _bad_row(error, index, line, config)
            continue
        if not row and not lines.cut:
            continue
        index += 1
        if lines.cut:
            lines.cut = False
            yield _too_large(index, line, config)
            continue
        if len(row) <= column:
            detail = f"row {index} (line {line}) has {len(row)} of {len(header)} cells"
            yield Fault(Reason.NULL_TEXT, detail, f"#row={index}")
            continue
        title, language, licence = (row[i] if 0 <= i < len(row) else "" for i in labels)
        yield Text(row[column], f"#row={index}", title, language, licence)
    if index < 0:
        yield Fault(Reason.EMPTY, "the file has a header but no rows")


def _bad_row(error: csv.Error, index: int, line: int, config: IngestConfig) -> Fault:
    if _TOO_LONG in str(error):
        return _too_large(index, line, config)
    detail = f"row {index} (line {line}) is not valid: {error}; check its quotes"
    return Fault(Reason.UNREADABLE, detail, f"#row={index}")


def _too_large(index: int, line: int, config: IngestConfig) -> Fault:
    detail = f"row {index} (line {line}) is longer than {config.max_line_mb} MB; is a quote left open?"
    return Fault(Reason.TOO_LARGE, detail, f"#row={index}")
