"""Rows of instruction data with the task each belongs to, whatever layout they are in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from taskmill.errors import InputError
from taskmill.recipes.layouts import are_own, as_examples, without_end_tokens
from taskmill.recipes.pool import strings
from taskmill.recipes.tables import column, is_list, read_table
from taskmill.record import Example
from taskmill.render import PLACEHOLDER

__all__ = ["Row", "read_task_rows"]

TASKS = ("task", "task_name", "taskname", "dataset", "source.dataset")
"""Columns that name a row's task where no other is named; a nested one as `struct.field`."""

METHOD = "dynosaur"
"""What the rows of a registry say of how they were made."""

GOLDS = ("references", "outputs", "golds")
"""Columns that list a row's right answers, where it has several."""


class Row(NamedTuple):
    """An example, the name of its task, the wording of the task's instruction, and its right answers."""

    example: Example
    task: str
    instruction: str
    golds: tuple[str, ...]


def read_task_rows(sources: Sequence[str], task_column: str = "") -> list[Row]:
    """Read tables, run folders or folders of a registry's versions.

    The task is a column's (by default that of the dataset's task a row was made by, else the first of `TASKS`
    that is there), else the instruction itself is what rows of one task share. Right answers are the column's
    of `GOLDS`, else the response. Raises UsageError for a column that is not there, InputError for rows that
    cannot be read.
    """
    table = read_table(sources)
    where = ", ".join(sources)
    names = _names(table, task_column, where)
    grown = [] if task_column else _grown(table)
    worded = strings(table["instruction"]).to_pylist() if "instruction" in table.column_names else None
    listed = [c for c in GOLDS if c in table.column_names]
    golds = _listed(table[listed[0]]) if listed else None
    bare, _ = without_end_tokens(table)
    found = []
    for i, example in enumerate(as_examples(bare, whole=True)):
        wording = str((worded[i] if worded else None) or example.instruction)
        wording = wording.replace(PLACEHOLDER, "").strip()
        if not wording:
            raise InputError(f"{where}: row {example.id} has no instruction; mend or drop it")
        task = (grown[i] if grown else None) or (names[i] if names else None) or wording
        answers = tuple(golds[i]) if golds and golds[i] else (example.response,)
        found.append(Row(example, task, wording, answers))
    return found


def _grown(table: pa.Table) -> list[str | None]:
    """Return the task over a dataset's fields by which each row was made, None for other rows."""
    if not are_own(table):
        return []
    origin = table["origin"].combine_chunks()
    made = pc.equal(pc.struct_field(origin, "method"), METHOD)
    found: list[str | None] = pc.if_else(made, pc.struct_field(origin, "template"), None).to_pylist()
    return found


def _names(table: pa.Table, wanted: str, where: str) -> list[str | None] | None:
    for name in [wanted] if wanted else TASKS:
        head, _, inner = name.partition(".")
        if not wanted and head not in table.column_names:
            continue
        own = column(table, head, where, "--task-column")
        if inner and pa.types.is_struct(own.type):
            own = pc.struct_field(own, inner)
        listed: list[str | None] = strings(own).to_pylist()
        return listed
    return None


def _listed(values: pa.ChunkedArray) -> list[list[str]] | None:
    if not is_list(values.type):
        return None
    return [[str(v) for v in own or () if v is not None] for own in values.to_pylist()]
