"""Stages of rows, what is held out of them, and the order in which a strategy replays their tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from taskmill.durable import cache_folder
from taskmill.errors import InputError
from taskmill.ids import content_id, draw
from taskmill.recipes.continual.config import ContinualConfig
from taskmill.recipes.replay import ordered, tasks_of
from taskmill.recipes.task_rows import Row, read_task_rows
from taskmill.record import Example
from taskmill.select.embed import embedding

__all__ = ["Data", "Lengths", "read", "replayed"]

Array = np.ndarray[Any, Any]

Lengths = Callable[[Iterable[Example]], list[int | str]]
"""Examples → tokens of each as the student reads it, or why it cannot be trained on it."""


@dataclass(frozen=True)
class Data:
    """All rows. `train[s]`, `held[s]`: the numbers of the rows of stage s; `test`: those of unseen tasks.

    `tokens`: what each row costs; `vectors` and `wordings`: of its text and of its task's instruction.
    """

    rows: Sequence[Row]
    tokens: Sequence[int]
    train: Sequence[Sequence[int]]
    held: Sequence[Sequence[int]]
    test: Sequence[int]
    vectors: Array
    wordings: Array
    counts: Mapping[str, Any]

    def digest(self, row: int) -> str:
        """Return the content of a row as a hash."""
        return _content(self.rows[row])


def _content(row: Row) -> str:
    e = row.example
    return content_id(e.instruction, e.context, e.response, *row.golds)


def read(config: ContinualConfig, lengths: Lengths) -> Data:
    """Read the stages and the unseen tasks.

    A row that an earlier stage has is no part of a later one, so that a registry's versions are stages as
    they are. It is told by its texts: rows of tables without ids are numbered from 0 in each. Raises
    InputError for a stage without a row to train on, for one without tasks, and for a test task that a stage
    has.
    """
    rows: list[Row] = []
    stages: list[list[int]] = []
    seen: set[str] = set()
    refused = repeated = 0
    for source in config.stages:
        own = read_task_rows([source], config.task_column)
        readable = [isinstance(n, int) for n in lengths(r.example for r in own)]
        contents = [_content(r) for r in own]
        told = zip(own, contents, readable, strict=True)
        fresh = [r for r, content, fits in told if fits and content not in seen]
        refused += readable.count(False)
        repeated += readable.count(True) - len(fresh)
        seen.update(contents)
        if not fresh:
            raise InputError(f"{source}: no row of it is new and can be trained on; give a stage with rows")
        stages.append(list(range(len(rows), len(rows) + len(fresh))))
        rows += fresh
    held = [
        _held(rows, stage, config.holdout, config.train.seed, config.stages[i])
        for i, stage in enumerate(stages)
    ]
    known = {rows[i].task for stage in stages for i in stage}
    test: list[int] = []
    for source in config.test:
        own = read_task_rows([source], config.task_column)
        both = sorted(known & {r.task for r in own})
        if both:
            raise InputError(f"{source}: the task {both[0]!r} is in a stage too; test on tasks no stage has")
        own = [r for r, n in zip(own, lengths(r.example for r in own), strict=True) if isinstance(n, int)]
        test += range(len(rows), len(rows) + len(own))
        rows += own
    test = _drawn(rows, test, config.test_rows, config.train.seed, "continual test")
    away = {i for part in held for i in part}
    train = [[i for i in stage if i not in away] for stage in stages]
    texts = pa.array([f"{r.example.instruction}\n{r.example.context}\n{r.example.response}" for r in rows])
    wordings = pa.array([r.instruction for r in rows])
    counts = {
        "refused": refused,
        "repeated": repeated,
        "tasks": [len({rows[i].task for i in stage}) for stage in stages],
        "train": [len(part) for part in train],
        "held": [len(part) for part in held],
        "test": len(test),
        "test_tasks": len({rows[i].task for i in test}),
    }
    tokens = [n if isinstance(n, int) else 0 for n in lengths(r.example for r in rows)]
    counts["tokens"] = [sum(tokens[i] for i in part) for part in train]
    found = embedding(texts, config.embedder, cache_folder())
    counts["embedder"] = found.name
    named = embedding(wordings, config.embedder, cache_folder(), fit=texts).vectors
    return Data(rows, tokens, train, held, test, found.vectors, named, counts)


def _held(rows: Sequence[Row], stage: Sequence[int], count: int, seed: int, source: str) -> list[int]:
    """Return the rows held out of a stage: task by task in turn, never the last of a task."""
    sizes: dict[str, int] = {}
    for i in stage:
        sizes[rows[i].task] = sizes.get(rows[i].task, 0) + 1
    first = {
        task: min((i for i in stage if rows[i].task == task), key=lambda i: rows[i].example.id)
        for task in sizes
    }
    found = _drawn(rows, [i for i in stage if i != first[rows[i].task]], count, seed, "continual holdout")
    if not found:
        raise InputError(f"{source}: every task has one row only, so none can be held out; give more rows")
    return found


def _drawn(rows: Sequence[Row], among: Sequence[int], count: int, seed: int, purpose: str) -> list[int]:
    """Return `count` rows by chance, the tasks in turn, in order of id."""
    by_task: dict[str, list[int]] = {}
    for i in sorted(among, key=lambda i: (draw(seed, rows[i].example.id, purpose), rows[i].example.id)):
        by_task.setdefault(rows[i].task, []).append(i)
    ranked = sorted(
        (place, draw(seed, task, purpose), task, i)
        for task, own in by_task.items()
        for place, i in enumerate(own)
    )
    return sorted((i for *_, i in ranked[:count]), key=lambda i: rows[i].example.id)


def replayed(
    data: Data, stage: int, strategy: str, seed: int, config: ContinualConfig
) -> tuple[list[int], list[str]]:
    """Return (the rows replayed at a stage, their tasks as ranked): of all earlier stages' training rows."""
    from taskmill.grow.replay import spend

    if strategy == "none" or not stage:
        return [], []
    before = [i for part in data.train[:stage] for i in part]
    earlier, own_rows = tasks_of(before, data.rows, data.vectors, data.wordings)
    new, _ = tasks_of(data.train[stage], data.rows, data.vectors, data.wordings)
    ranking = ordered(strategy, earlier, new, seed)
    names = [earlier.ids[i] for i in ranking.order]
    groups = []
    for i in ranking.order:
        purpose = "replay row"
        by_chance = sorted(
            own_rows[i], key=lambda r: (draw(seed, data.rows[r].example.id, purpose), data.rows[r].example.id)
        )
        groups.append(by_chance)
    budget = config.replay
    limit = budget.limit(sum(data.tokens[i] for i in data.train[stage]))
    shares = [ranking.shares[i] for i in ranking.order] if ranking.shares is not None else None
    places = spend(
        [[data.tokens[r] for r in own] for own in groups], tasks=budget.tasks, limit=limit, shares=shares
    )
    rows = [groups[i][at] for i, own in enumerate(places) for at in own]
    return rows, [name for name, own in zip(names, places, strict=False) if own]
