"""General questions and general text that ship with the package: what a student may have forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from taskmill.config import packaged
from taskmill.errors import InputError
from taskmill.ids import draw
from taskmill.ingest.records import read_records
from taskmill.recipes.tables import table_files
from taskmill.record import Example
from taskmill.train.student import Item

__all__ = ["Probes", "probes"]

GENERAL = 50
"""Rows of a user's general text that are read, by chance (chosen: a perplexity within some percent)."""


@dataclass(frozen=True)
class Probes:
    """What is asked of every student besides the test: questions with ends to choose from, and texts."""

    items: list[Item]
    texts: list[str]

    def right(self, answers: Sequence[str]) -> float:
        """Return the share of the questions that were answered rightly."""
        hits = [a == item.example.response for a, item in zip(answers, self.items, strict=True)]
        return sum(hits) / len(hits)


@cache
def _own() -> Mapping[str, Any]:
    found: Mapping[str, Any] = packaged("taskmill.recipes", "general.yaml")
    return found


def probes(general: str, seed: int) -> Probes:
    """Return the probes: our own questions, and the texts of a table (column text), else our own.

    Raises InputError for a table without text.
    """
    items = []
    for number, (beginning, right, *wrong) in enumerate(_own()["questions"]):
        example = Example(f"probe/{number}", "", "", f"Complete the sentence: {beginning} …", right)
        items.append(Item(example, (right, *wrong)))
    if not general:
        return Probes(items, list(_own()["texts"]))
    rows = [row for name in table_files(general) for row in read_records(name)]
    texts = sorted({row["text"] for row in rows if isinstance(row.get("text"), str) and row["text"].strip()})
    if not texts:
        raise InputError(f"{general} has no row with a text; give a table with a column text")
    return Probes(items, sorted(texts, key=lambda text: (draw(seed, text, "prove general"), text))[:GENERAL])
