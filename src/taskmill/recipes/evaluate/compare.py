"""Two evaluated runs on the same items → differences with paired intervals and tests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from taskmill.errors import InputError
from taskmill.evaluate.averages import AVERAGES, Task
from taskmill.evaluate.intervals import paired
from taskmill.store import read_json
from taskmill.suites import get

__all__ = ["compare_runs"]

Rows = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""suite → item's id → its row in the main wording, accuracy being the mean over its outputs."""


def compare_runs(one: str, two: str, *, confidence: float = 0.95, seed: int = 0) -> dict[str, Any]:
    """Compare run two with run one on the items both have answered.

    Returns {"one", "two", "suites": {NAME: {"difference", "low", "high", "p", "wins", "losses", "n",
    "only_one", "only_two", "tasks": {…}}}}. Differences are two less one, in the suite's first average.
    Raises InputError for a folder that is no finished evaluation, or runs without a common item.
    """
    first, second = _rows(one), _rows(two)
    suites = {}
    for name in [n for n in first if n in second]:
        shared = sorted(set(first[name]) & set(second[name]))
        if not shared:
            continue
        suites[name] = _suite(name, first[name], second[name], shared, confidence, seed)
    if not suites:
        raise InputError(
            f"{one} and {two} have no item in common; evaluate the same suites with the same seed"
        )
    return {"one": one, "two": two, "suites": suites}


def _suite(
    name: str,
    one: Mapping[str, Mapping[str, Any]],
    two: Mapping[str, Mapping[str, Any]],
    shared: list[str],
    confidence: float,
    seed: int,
) -> dict[str, Any]:
    by_task: dict[str, list[str]] = defaultdict(list)
    for item in shared:
        if list(one[item]["target"]) != list(two[item]["target"]):
            raise InputError(f"{name}: item {item} has other answers in the two runs; they are of other data")
        by_task[one[item]["task"]].append(item)
    marks = [{t: [run[i]["accuracy"] for i in own] for t, own in by_task.items()} for run in (one, two)]
    tasks = [Task(task, len(own)) for task, own in by_task.items()]
    kind, weights = next(iter(AVERAGES.get(get(name).average).means(tasks).items()))
    first, second = marks
    whole = paired(first, second, weights, confidence=confidence, seed=seed)
    each = {task: paired(first, second, {task: 1.0}, confidence=confidence, seed=seed) for task in by_task}
    return {
        "average": kind,
        **whole,
        "only_one": len(one) - len(shared),
        "only_two": len(two) - len(shared),
        "tasks": each,
    }


def _rows(folder: str) -> dict[str, dict[str, dict[str, Any]]]:
    path = Path(folder)
    if not read_json(path / "results.json") or not (path / "items.parquet").exists():
        raise InputError(
            f"{folder} is no finished evaluation (it has no results.json); run its command again"
        )
    columns = ["suite", "id", "task", "phrasing", "target", "accuracy"]
    found: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    outputs: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in pq.read_table(path / "items.parquet", columns=columns).to_pylist():
        if row["phrasing"] == 0:
            found[row["suite"]][row["id"]] = row
            outputs[row["suite"], row["id"]].append(row["accuracy"])
    for (suite, item), own in outputs.items():
        found[suite][item]["accuracy"] = sum(own) / len(own)
    return found
