"""Marks of items → a mark for each task → the averages that circulate, each under its own name.

An average is a weighted mean of task means, so that its interval follows from the tasks' own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from taskmill.registry import Registry
from taskmill.suites.base import Item
from taskmill.suites.bbh import ALGORITHMIC, FAMILIES
from taskmill.suites.superni import CATEGORIES, EXACT, TEST_TASKS

__all__ = ["AVERAGES", "NORMALISED", "Average", "Task", "chance", "normalised", "normalised_average"]


class Task(NamedTuple):
    """What an average needs to know of a task: its name, its number of items and its category."""

    name: str
    n: int
    group: str = ""


Weights = Mapping[str, float]
"""task → weight; they add up to 1."""


class Average(NamedTuple):
    """Named means of a suite's tasks; the first is the `overall` of its results."""

    name: str
    means: Callable[[Sequence[Task]], dict[str, Weights]]
    version: int = 1


def _even(names: Sequence[str]) -> Weights:
    return {name: 1 / len(names) for name in names}


def _micro(tasks: Sequence[Task]) -> Weights:
    total = sum(task.n for task in tasks)
    return {task.name: task.n / total for task in tasks}


def _macro(tasks: Sequence[Task]) -> Weights:
    return _even([task.name for task in tasks])


def _items(tasks: Sequence[Task]) -> dict[str, Weights]:
    return {"micro": _micro(tasks), "macro": _macro(tasks)}


def _tasks(tasks: Sequence[Task]) -> dict[str, Weights]:
    return {"macro": _macro(tasks), "micro": _micro(tasks)}


def _bbh(tasks: Sequence[Task]) -> dict[str, Weights]:
    """27 files, 23 tasks (the sizes of two families together), and the two halves of the files."""
    names = [task.name for task in tasks]
    family = {name: next((f for f in FAMILIES if name.startswith(f)), name) for name in names}
    sizes = {one: sum(f == one for f in family.values()) for one in family.values()}
    found: dict[str, Weights] = {
        "macro": _even(names),
        "tasks_23": {name: 1 / len(sizes) / sizes[family[name]] for name in names},
        "micro": _micro(tasks),
    }
    algorithmic = [name for name in names if name in ALGORITHMIC]
    nlp = [name for name in names if name not in ALGORITHMIC]
    found |= {"nlp": _even(nlp)} if nlp else {}
    return found | ({"algorithmic": _even(algorithmic)} if algorithmic else {})


def _languages(tasks: Sequence[Task]) -> dict[str, Weights]:
    """The mean over languages without English, where there are others; and over all."""
    others = [task.name for task in tasks if task.name.rpartition(".")[2] not in ("en", "english")]
    found = {"macro_without_english": _even(others)} if others else {}
    return found | _tasks(tasks)


def _categories(tasks: Sequence[Task]) -> dict[str, Weights]:
    """All items alike, as upstream; the tasks of each category; the two kinds of category."""
    found: dict[str, Weights] = _items(tasks)
    for group in sorted({task.group for task in tasks if task.group}):
        found[f"category: {group}"] = _micro([task for task in tasks if task.group == group])
    exact = [task for task in tasks if task.group in EXACT]
    free = [task for task in tasks if task.group in CATEGORIES - EXACT]
    found |= {"exact-match categories": _micro(exact)} if exact else {}
    return found | ({"ROUGE-L categories": _micro(free)} if free else {})


AVERAGES: Registry[Average] = Registry("average")
for _one in (
    Average("items", _items),
    Average("tasks", _tasks),
    Average("mmlu", _tasks),
    Average("bbh", _bbh),
    Average("languages", _languages),
    Average("categories", _categories),
):
    AVERAGES.register(_one.name, _one)

COVERAGE = {"bbh": 27, "mmlu": 57, "categories": TEST_TASKS}
"""Tasks of the whole benchmark, by average."""


def chance(items: Sequence[Item]) -> float:
    """Return what guessing scores: the mean over items of right options / options, 0 for free answers."""
    return sum(max(1, len(i.gold)) / len(i.options) if i.options else 0.0 for i in items) / len(items)


def normalised(score: float, guessing: float) -> float:
    """Return 100 · (score − chance) / (1 − chance): 0 is chance, 100 all right (Chung et al. 2022)."""
    return 100 * (score - guessing) / (1 - guessing) if guessing < 1 else 0.0


NORMALISED = (
    ("mmlu",), ("mmlu-cot",), ("bbh",), ("bbh-cot",), ("tydiqa", "xquad"), ("mgsm-native-cot", "mgsm-en-cot"),
)  # fmt: skip
"""The six scores of the Flan evaluation; any suite of a group stands for it."""


def normalised_average(suites: Mapping[str, Mapping[str, Any]]) -> float | None:
    """Return the Flan papers' normalised average of six suites' results, None if one of the six is missing.

    Each suite's score is the mean over its tasks of the score above chance, chance being each task's own;
    English is left out of those by language. Source: Chung et al. 2022 (2210.11416), section 3.
    """
    found = []
    for group in NORMALISED:
        name = next((one for one in group if one in suites), None)
        if name is None or suites[name].get("normalised") is None:
            return None
        found.append(float(suites[name]["normalised"]))
    return sum(found) / len(found)
