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

Name = tuple[str, str]
"""Task and id of an item: graded outputs may number the items of each task anew."""

_MARKS = ("accuracy", "f1", "rouge_l")


def compare_runs(one: str, two: str, *, confidence: float = 0.95, seed: int = 0) -> dict[str, Any]:
    """Compare run two with run one on the items both have answered.

    Returns {"one", "two", "suites": {NAME: {"difference", "low", "high", "p", "wins", "losses", "n",
    "only_one", "only_two", "tasks": {…}}}}: of accuracies, and under "f1" or "rouge_l" the same of that mark
    where the suite has it. Differences are two less one, in the suite's first average. Graded outputs are
    runs like any other. Raises InputError for a folder that is no finished evaluation, or runs without a
    common item.
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
    one: Mapping[Name, Mapping[str, Any]],
    two: Mapping[Name, Mapping[str, Any]],
    shared: list[Name],
    confidence: float,
    seed: int,
) -> dict[str, Any]:
    by_task: dict[str, list[Name]] = defaultdict(list)
    for item in shared:
        if list(one[item]["target"]) != list(two[item]["target"]):
            raise InputError(
                f"{name}: item {item[1]} of {item[0]} has other answers in the two runs; "
                "they are of other data"
            )
        by_task[item[0]].append(item)
    there = [mark for mark in _MARKS if all(mark in run[i] for run in (one, two) for i in shared)]

    def of(run: Mapping[Name, Mapping[str, Any]], mark: str) -> dict[str, list[float]]:
        return {task: [run[i][mark] for i in own] for task, own in by_task.items()}

    tasks = [Task(task, len(own)) for task, own in by_task.items()]
    kind, weights = next(iter(AVERAGES.get(get(name).average).means(tasks).items()))
    first, second = of(one, "accuracy"), of(two, "accuracy")
    each = {task: paired(first, second, {task: 1.0}, confidence=confidence, seed=seed) for task in by_task}
    whole = {
        mark: paired(of(one, mark), of(two, mark), weights, confidence=confidence, seed=seed)
        for mark in there
    }
    return {
        "average": kind,
        **whole.pop("accuracy"),
        **whole,
        "only_one": len(one) - len(shared),
        "only_two": len(two) - len(shared),
        "tasks": each,
    }


def _rows(folder: str) -> dict[str, dict[Name, dict[str, Any]]]:
    """Return suite → item → its row in the main wording, each mark the mean over its outputs."""
    path = Path(folder)
    results = read_json(path / "results.json")
    if not results or not (path / "items.parquet").exists():
        raise InputError(
            f"{folder} is no finished evaluation (it has no results.json); run its command again"
        )
    columns = ["suite", "id", "task", "phrasing", "target", *_MARKS]
    there = pq.read_schema(path / "items.parquet").names
    outputs: dict[tuple[str, Name], list[dict[str, Any]]] = defaultdict(list)
    for row in pq.read_table(path / "items.parquet", columns=[c for c in columns if c in there]).to_pylist():
        if not row.get("phrasing"):  # graded outputs are of one suite, and have no wordings
            outputs[row.get("suite") or results["suite"], (row["task"], row["id"])].append(row)
    found: dict[str, dict[Name, dict[str, Any]]] = defaultdict(dict)
    for (suite, item), own in outputs.items():
        marks = {
            mark: sum(row[mark] for row in own) / len(own)
            for mark in _MARKS
            if all(row.get(mark) is not None for row in own)
        }
        found[suite][item] = {"target": own[0]["target"], **marks}
    return found
