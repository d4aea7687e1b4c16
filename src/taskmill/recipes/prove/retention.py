"""What a student has forgotten: general questions and general text, before its training and after."""

from __future__ import annotations

import math
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

__all__ = ["Probes", "judged", "probes"]

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
    found: Mapping[str, Any] = packaged("taskmill.recipes.prove", "probes.yaml")
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


def judged(
    units: Mapping[str, Sequence[Mapping[str, Any]]],
    base: Mapping[str, Any],
    max_forgetting: float,
    max_perplexity: float,
) -> dict[str, Any]:
    """Return what each arm's students have kept, and whether all are within the bounds.

    `units`: arm → its students, each with `probe` (share of the general questions) and `losses` (summed
    nats and tokens of each text); means over an arm's students are held against `base`. The arm tapt is
    shown and not judged: it is what others are compared with.
    """
    whole = _kept(base)
    arms, failed = {}, []
    for arm, students in units.items():
        kept = [_kept(student) for student in students]
        probe = sum(k["probe"] for k in kept) / len(kept)
        perplexity = math.exp(sum(math.log(k["perplexity"]) for k in kept) / len(kept))
        line = {
            "probe": round(probe, 6),
            "perplexity": round(perplexity, 4),
            "forgotten": round(whole["probe"] - probe, 6),
            "perplexity_factor": round(perplexity / whole["perplexity"], 4),
        }
        within = line["forgotten"] <= max_forgetting and line["perplexity_factor"] <= max_perplexity
        arms[arm] = {**line, "within": within}
        if not within and arm != "tapt":
            failed.append(arm)
    bounds = {"max_forgetting": max_forgetting, "max_perplexity": max_perplexity}
    shown = {"probe": round(whole["probe"], 6), "perplexity": round(whole["perplexity"], 4)}
    return {"passed": not failed, "failed": failed, "bounds": bounds, "base": shown, "arms": arms}


def _kept(unit: Mapping[str, Any]) -> dict[str, float]:
    tokens = sum(count for _, count in unit["losses"])
    loss = sum(nats for nats, _ in unit["losses"]) / max(tokens, 1)
    return {"probe": float(unit["probe"]), "perplexity": math.exp(min(loss, 700.0))}
