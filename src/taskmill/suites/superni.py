"""Super-NaturalInstructions (Wang et al. 2022): 119 test tasks, 12 categories, the first 100 of each task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from taskmill.suites.base import Item, Rows, Shot, Suite, cell, texts

__all__ = ["CATEGORIES", "EXACT", "FIRST", "SUPERNI", "TEST_TASKS"]

EXACT = frozenset(
    (
        "Textual Entailment", "Cause Effect Classification", "Coreference Resolution",
        "Dialogue Act Recognition", "Answerability Classification", "Word Analogy",
    )
)  # fmt: skip
"""Categories scored by exact match; the six others by ROUGE-L (Wang et al. 2022, section 5)."""

CATEGORIES = EXACT | {
    "Overlap Extraction", "Keyword Tagging", "Question Rewriting", "Title Generation", "Data to Text",
    "Grammar Error Correction",
}  # fmt: skip
"""The categories of the English test tasks: a task of another one is no test task."""

TEST_TASKS = 119
"""Tasks of the official test list: what coverage is stated against."""

FIRST = 100
"""Test instances of a task: its first ones, which upstream has balanced by label."""


def _read(file: str, rows: Rows, beside: Rows) -> list[Item]:
    about = {str(row.get("task")): row for row in beside}
    counts: Counter[str] = Counter()
    items = []
    for task, given, outputs, own in _instances(file, rows):
        known = own or about.get(task, {})
        if known.get("split", "test") != "test" or counts[task] >= FIRST:
            continue
        counts[task] += 1
        fields = {"definition": _definition(known), "input": given.strip()}
        name = f"superni/{task}/{counts[task] - 1:04}"
        items.append(Item(name, task, fields, outputs, group=_category(known)))
    return items


def _instances(file: str, rows: Rows) -> Iterator[tuple[str, str, tuple[str, ...], Mapping[str, Any]]]:
    """Yield (task, input, outputs, the task's own record or {}) of upstream task files or of flat rows."""
    for number, row in enumerate(rows):
        if "Instances" in row:
            task = str(row.get("task") or file)
            for at, one in enumerate(row["Instances"]):
                given = cell(one, ("input",), f"{file}: {task}", at)
                yield task, str(given), texts(cell(one, ("output",), f"{file}: {task}", at)), row
            continue
        given = cell(row, ("input",), file, number)
        outputs = texts(cell(row, ("outputs", "output"), file, number))
        yield str(cell(row, ("task",), file, number)), str(given), outputs, {}


def _definition(known: Mapping[str, Any]) -> str:
    found = known.get("definition", known.get("Definition", ""))
    return " ".join(texts(found)).strip()


def _category(known: Mapping[str, Any]) -> str:
    found = texts(known.get("categories", known.get("Categories", "")))
    return found[0] if found else ""


def _shots(file: str, rows: Rows, seed: int) -> dict[str, list[Shot]]:
    """Return the positive examples of each task."""
    del file, seed
    found = {}
    for row in rows:
        if "Positive Examples" in row:
            pairs = [(one.get("input", ""), one.get("output", "")) for one in row["Positive Examples"]]
        else:
            pairs = list(
                zip(texts(row.get("positive_inputs")), texts(row.get("positive_outputs")), strict=False)
            )
        found[str(row.get("task"))] = [
            Shot({"definition": "", "input": str(given).strip(), "answer": " ".join(texts(said)).strip()})
            for given, said in pairs
        ]
    return found


SUPERNI = Suite(
    "superni", "Super-NaturalInstructions, test tasks", ("instances.parquet", "superni/instances.parquet"),
    _read, "superni", "text", "rouge", "categories", upstream=("task*.json", "tasks/task*.json"),
    dev=("tasks.parquet", "superni/tasks.parquet"), shots=_shots, k=2, max_tokens=128,
)  # fmt: skip
