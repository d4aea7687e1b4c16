"""What the formats made of rows share: which value of a row is the text, and what is wrong if none is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from taskmill.ingest.config import IngestConfig
from taskmill.ingest.reader import Fault, Text
from taskmill.record import Reason
from taskmill.registry import nearest

__all__ = ["label", "missing_column", "row_text"]

_SHOWN = 12


@lru_cache(maxsize=64)
def _missing(column: str, columns: tuple[str, ...]) -> str:
    shown = ", ".join(map(repr, columns[:_SHOWN])) + (", …" if len(columns) > _SHOWN else "")
    there = f"there are {shown}" if columns else "there are none"
    return f"no column {column!r} ({there}); set text_column.{nearest(column, columns)}"


def missing_column(column: str, columns: Iterable[str]) -> str:
    """Say that `column` is missing, which columns there are and which one may be meant."""
    return _missing(column, tuple(map(str, columns)))


def label(value: object) -> str:
    """Return a title, language or licence as text; null, lists and objects count as none."""
    return value if isinstance(value, str) else str(value) if isinstance(value, int | float) else ""


def row_text(row: Mapping[str, Any], index: int, config: IngestConfig) -> Text | Fault:
    """Return the text of a row given as a mapping, with the labels its other columns hold."""
    place = f"#row={index}"
    text = row.get(config.text_column)
    if type(text) is not str:
        if config.text_column not in row:
            return Fault(
                Reason.MISSING_COLUMN, f"row {index}: {missing_column(config.text_column, row)}", place
            )
        if text is None:
            return Fault(Reason.NULL_TEXT, f"row {index}: {config.text_column!r} is null", place)
        kind = type(text).__name__
        return Fault(
            Reason.UNREADABLE, f"row {index}: {config.text_column!r} holds a {kind}, not text", place
        )
    get = row.get
    return Text(
        text,
        place,
        label(get(config.title_column)),
        label(get(config.language_column)),
        label(get(config.licence_column)),
    )
