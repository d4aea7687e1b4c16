"""A page of figures and tables, with bars for intervals: what several journeys' reports are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from taskmill.durable import atomic_write
from taskmill.export.urls import hide_secrets_within
from taskmill.report.page import render

__all__ = ["Figure", "Section", "bar", "settings", "write_page"]


@dataclass(frozen=True, slots=True)
class Figure:
    """A number of the headline row."""

    label: str
    value: str
    note: str = ""


@dataclass(slots=True)
class Section:
    """A table: its head, and rows of cells, each with a bar (see `bar`) where `bars` is set."""

    title: str
    note: str
    head: Sequence[str]
    rows: list[dict[str, Any]] = field(default_factory=list)
    bars: bool = False

    def add(self, *cells: object, bar: Mapping[str, float] | None = None) -> None:
        """Add a row."""
        self.rows.append({"cells": [str(cell) for cell in cells], "bar": dict(bar) if bar else None})


def bar(at: float, low: float, high: float, least: float = 0.0, most: float = 1.0) -> dict[str, float]:
    """Return where a mark and its interval stand between `least` and `most`, in percent of the frame."""
    wide = (most - least) or 1.0
    place = [100 * min(max((x - least) / wide, 0.0), 1.0) for x in (at, low, high)]
    return {"at": round(place[0], 2), "from": round(place[1], 2), "width": round(place[2] - place[1], 2)}


def settings(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return a configuration flat, as people read it; what is empty is left out."""
    shown: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            shown |= settings(value, f"{key} ")
        elif value not in ("", None, [], ()):
            listed = isinstance(value, list | tuple)
            shown[prefix + key] = ", ".join(map(str, value)) if listed else str(value)
    return shown


def write_page(
    path: Path,
    kind: str,
    figures: Sequence[Figure],
    sections: Sequence[Section],
    *,
    facts: Mapping[str, object],
    about: Mapping[str, Mapping[str, object]],
    notes: Sequence[str] = (),
    samples: Sequence[str] = (),
    samples_note: str = "",
) -> Path:
    """Write a page at `path` and return it; addresses with keys in them are hidden."""
    slots: dict[str, Any] = {
        "name": path.resolve().parent.name,
        "kind": kind,
        "facts": {key: str(value) for key, value in facts.items() if value not in ("", None)},
        "notes": [note for note in notes if note],
        "figures": [asdict(figure) for figure in figures],
        "sections": [asdict(section) for section in sections],
        "samples": list(samples),
        "samples_note": samples_note,
        "about": {title: {k: str(v) for k, v in own.items()} for title, own in about.items()},
    }
    atomic_write(path, render("pages.html.j2", hide_secrets_within(slots)).encode())
    return path
