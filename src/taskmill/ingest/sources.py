"""Read sources of every kind into Documents: dispatch, ids, offsets, chunking, limits."""

from __future__ import annotations

import codecs
import io
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, cast

from taskmill.errors import TaskmillError
from taskmill.ingest.chunking import chunk
from taskmill.ingest.config import IngestConfig
from taskmill.ingest.hub import parse_hub, read_hub
from taskmill.ingest.lines import parse_lines
from taskmill.ingest.plain import decode
from taskmill.ingest.reader import READERS, Fault, FaultError, SourceFile, Text, read_bounded
from taskmill.ingest.walk import Skipped, check_source, find_files
from taskmill.record import Document, Dropped, Reason, Span, content_id

__all__ = ["read_sources"]

_STDIN = "-"
_HUB = "hf:"
# Thai, Lao, Khmer, kana, Han and Hangul: scripts of which a character says more than a letter.
_DENSE = re.compile(
    "[\u0e00-\u0eff\u1100-\u11ff\u1780-\u17ff\u3040-\u30ff\u3130-\u318f\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]"
)


def read_sources(sources: Sequence[str], config: IngestConfig) -> Iterator[Document | Dropped]:
    """Read files, folders, URLs, `hf:` datasets and `-` (standard input) into Documents, in the order given.

    What cannot be used is yielded as Dropped with a reason. Raises InputError if a source does not exist.
    Duplicates are not removed.
    """
    if isinstance(sources, str):
        sources = [sources]
    for source in sources:
        if source.startswith(_HUB):
            parse_hub(source)
        elif source != _STDIN:
            check_source(source)
    return _limited(_read_all(sources, config), config.limit)


def _limited(items: Iterator[Document | Dropped], limit: int) -> Iterator[Document | Dropped]:
    kept = 0
    for item in items:
        yield item
        if isinstance(item, Document):
            kept += 1
            if kept == limit:  # a limit of 0 is never met
                return


def _read_all(sources: Sequence[str], config: IngestConfig) -> Iterator[Document | Dropped]:
    for source in sources:
        if source.startswith(_HUB):
            yield from _documents(source, read_hub(source, config), config)
            continue
        if source == _STDIN:
            yield from _documents(source, _read_stdin(config), config)
            continue
        for file in find_files(source, config):
            if isinstance(file, Skipped):
                yield _dropped(file.uri, file.fault)
            else:
                yield from _documents(file.uri, _read_file(file, config), config)


def _read_file(file: SourceFile, config: IngestConfig) -> Iterator[Text | Fault]:
    yield from READERS.get(file.suffix)(file, config)


def _read_stdin(config: IngestConfig) -> Iterator[Text | Fault]:
    """Read JSON Lines if the first character that is no space is a brace, else one text."""
    stream: io.BufferedReader = io.BufferedReader(cast(Any, sys.stdin.buffer))
    try:
        if stream.peek(1).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{"):
            yield from parse_lines(stream, config)
        else:
            yield Text(decode(read_bounded(stream, config)))
    finally:
        stream.detach()  # standard input stays open, it is not ours


def _dropped(uri: str, fault: Fault) -> Dropped:
    place = uri + fault.place
    row = Document(content_id(place, fault.reason), "", Span(place))
    return Dropped(row, "ingest", fault.reason, f"{uri}: {fault.detail}")


def _documents(uri: str, texts: Iterator[Text | Fault], config: IngestConfig) -> Iterator[Document | Dropped]:
    """Turn what a reader yields into records; the one place where a failing reader becomes a Dropped."""
    try:
        for item in texts:
            if isinstance(item, Fault):
                yield _dropped(uri, item)
            else:
                yield from _chunks(uri, item, config)
    except TaskmillError:
        raise
    except FaultError as error:
        yield _dropped(uri, Fault(error.reason, error.detail))
    except Exception as error:  # readers meet every kind of damage, and one file must not end the run
        detail = f"reading stopped here ({type(error).__name__}: {error}); check that the file is whole"
        yield _dropped(uri, Fault(Reason.UNREADABLE, detail))


def _chunks(uri: str, item: Text, config: IngestConfig) -> Iterator[Document | Dropped]:
    text, place, title, language, licence, meta = item
    if not text or text.isspace():
        yield _dropped(uri, Fault(Reason.EMPTY, f"{_where(place)}there is no text", place))
        return
    if not text.isascii() and (at := _lone_surrogate(text)) >= 0:
        detail = f"{_where(place)}character {at} is not valid Unicode; write the file as UTF-8"
        yield _dropped(uri, Fault(Reason.UNDECODABLE, detail, place))
        return
    whole = content_id(text)
    title = _clean(title)
    language = _clean(language) or config.language
    licence = _clean(licence) or config.licence
    for start, end in chunk(text, config.chunk_tokens, config.overlap):
        part = text[start:end]
        span = Span(uri + place, start, end, whole)
        if end - start < config.min_chars and _weight(part) < config.min_chars:
            row = Document(content_id(span.uri, Reason.TOO_SHORT, str(start)), part, span)
            detail = f"{uri}: {_where(place)}{end - start} characters are fewer than min_chars"
            yield Dropped(row, "ingest", Reason.TOO_SHORT, detail)
            continue
        part_id = whole if end - start == len(text) else content_id(part)
        yield Document(part_id, part, span, title, language, licence, meta)


def _weight(text: str) -> int:
    """Return the number of characters, each of a script without spaces counted three times.

    Such a character says about as much as three letters (chosen), so that `min_chars` drops Chinese
    fragments and not Chinese sentences. Hangul, which has spaces, is as dense and counts with them.
    """
    return len(text) + (0 if text.isascii() else 2 * len(_DENSE.findall(text)))


def _where(place: str) -> str:
    return f"{place.lstrip('#').replace('=', ' ')}: " if place else ""


def _lone_surrogate(text: str) -> int:
    """Return where the text holds half of a surrogate pair, which no encoding can write, or -1."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return error.start
    return -1


def _clean(value: str) -> str:
    return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
