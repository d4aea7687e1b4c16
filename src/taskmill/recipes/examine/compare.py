"""Two examinations of the same texts → how far the pairs of the second synthesizer are better."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from taskmill.errors import InputError
from taskmill.evaluate.intervals import paired
from taskmill.store import read_json

__all__ = ["compare_examinations"]

Text = tuple[str, str, str]
"""(split, dataset, text)"""


def compare_examinations(one: str, two: str, *, confidence: float = 0.95, seed: int = 0) -> dict[str, Any]:
    """Compare the pair F1 of examination two with that of one on the texts both have.

    Returns {"one", "two", "pair_f1": {split: {way: {"against", "difference", "low", "high", "p", "wins",
    "losses", "n", "datasets": {…}}}}, "only_one", "only_two"}. Differences are two less one, datasets
    weighing the same. A few-shot way that the first has not (a generator of task types) is held against its
    `zero`. Raises InputError for a folder that is no finished examination, or without a common text.
    """
    first, second = _marks(one), _marks(two)
    texts = [{text for own in run.values() for text in own} for run in (first, second)]
    shared = texts[0] & texts[1]
    if not shared:
        raise InputError(f"{one} and {two} have no text in common; examine the same sources with one seed")
    found: dict[str, dict[str, Any]] = {}
    for split in sorted({text[0] for text in shared}):
        for way, own in second.items():
            against = way if way in first else "zero"
            both = sorted(t for t in own if t[0] == split and t in first.get(against, {}))
            if both:
                line = _paired(_of(first[against], both), _of(own, both), confidence, seed)
                found.setdefault(split, {})[way] = {"against": against, **line}
    alone = {"only_one": len(texts[0] - shared), "only_two": len(texts[1] - shared)}
    return {"one": one, "two": two, "pair_f1": found, **alone}


def _of(marks: Mapping[Text, float], texts: list[Text]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for text in texts:
        found[text[1]].append(marks[text])
    return dict(found)


def _paired(
    one: Mapping[str, list[float]], two: Mapping[str, list[float]], confidence: float, seed: int
) -> dict[str, Any]:
    whole = paired(one, two, {name: 1 / len(one) for name in one}, confidence=confidence, seed=seed)
    each = {name: paired(one, two, {name: 1.0}, confidence=confidence, seed=seed) for name in one}
    return {**whole, "datasets": each}


def _marks(folder: str) -> dict[str, dict[Text, float]]:
    """Return way → text → pair F1."""
    path = Path(folder)
    if read_json(path / "result.json").get("command") != "examine" or not (path / "pairs.parquet").exists():
        raise InputError(
            f"{folder} is no finished examination (it has no result.json); run its command again"
        )
    found: dict[str, dict[Text, float]] = defaultdict(dict)
    columns = ["dataset", "split", "text", "way", "f1"]
    for row in pq.read_table(path / "pairs.parquet", columns=columns).to_pylist():
        found[row["way"]][row["split"], row["dataset"], row["text"]] = row["f1"]
    return dict(found)
