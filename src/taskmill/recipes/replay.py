"""Which earlier tasks to train on again: those of a registry, ranked against new ones, within a budget."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from taskmill.durable import cache_folder
from taskmill.errors import ConfigError, InputError, UsageError
from taskmill.grow.registry import Registry, Version
from taskmill.grow.replay import STRATEGIES, Tasks, order, score, spend
from taskmill.ids import content_id, draw
from taskmill.ingest import count_tokens
from taskmill.recipes.check_tasks import holds_proposals, read_tasks
from taskmill.recipes.layouts import has_layout
from taskmill.recipes.pool import strings
from taskmill.recipes.tables import check_out, read_table
from taskmill.recipes.task_rows import Row, read_task_rows
from taskmill.record import EXAMPLE_SCHEMA, Dropped, Example, examples
from taskmill.render import answer, prompt
from taskmill.select import Budget, Pool, make
from taskmill.select.embed import embedding
from taskmill.store import write_parquet
from taskmill.synthesize.proposals import mark_of

__all__ = ["Ranking", "ReplayConfig", "ordered", "replay", "tasks_of"]

Array = np.ndarray[Any, Any]

SELECTORS = ("k-center", "herding")
"""Strategies that are selectors, with the tasks' instructions as pool."""


class Ranking(NamedTuple):
    """Tasks in the order of replay, the score of each task (float64), and their shares of the budget.

    `shares` is None where all tasks get alike.
    """

    order: list[int]
    scores: Array
    shares: Array | None = None


def ordered(strategy: str, earlier: Tasks, new: Tasks, seed: int) -> Ranking:
    """Return all earlier tasks in the order in which a strategy replays them; none for `none`.

    k-center begins from the new tasks: it takes what is farthest from them and from each other. Its score is
    that distance, herding's the product that won. InsCL's scores are its shares of the budget too.
    """
    if strategy == "none" or not len(earlier.ids):
        return Ranking([], np.zeros(len(earlier.ids)))
    if strategy in SELECTORS:
        return _selected(strategy, earlier, new, seed)
    scores = score(strategy, earlier, new, seed)
    # A task at no distance at all still gets something: shares are never 0.
    shares = np.maximum(scores, 1e-6) if strategy == "inscl" else None
    return Ranking(order(earlier.ids, scores), scores, shares)


def _selected(strategy: str, earlier: Tasks, new: Tasks, seed: int) -> Ranking:
    begin = strategy == "k-center"
    vectors = np.vstack([new.instructions, earlier.instructions]) if begin else earlier.instructions
    # A task of both may have one name: the prefixes keep them apart and in one order.
    names = [f"0 {name}" for name in new.ids] if begin else []
    first = len(names)
    ids = pa.array([*names, *(f"1 {name}" for name in earlier.ids)], pa.string())
    start = np.arange(first, dtype=np.int64)
    pool = Pool(ids, np.ones(len(ids), np.int64), vectors, start=start)
    chosen = make(strategy).pick(pool, Budget(rows=len(ids)), seed)
    rows = chosen.rows[first:] - first
    scores = np.zeros(len(earlier.ids))
    scores[rows] = chosen.scores[first:]
    return Ranking([int(row) for row in rows], scores)


def tasks_of(
    among: Sequence[int], rows: Sequence[Row], vectors: Array, wordings: Array
) -> tuple[Tasks, list[list[int]]]:
    """Return the tasks of some rows, by name, and the rows of each (in order of id).

    `vectors`: of each row's text; `wordings`: of its instruction; a task has each different
    one once.
    """
    groups: dict[str, list[int]] = {}
    for i in sorted(among, key=lambda i: rows[i].example.id):
        groups.setdefault(rows[i].task, []).append(i)
    groups = dict(sorted(groups.items()))
    own = [distinct_wordings(rows, group) for group in groups.values()]
    data = np.array([vectors[group].mean(axis=0, dtype=np.float64) for group in groups.values()], np.float32)
    texts = [" ".join(rows[i].instruction for i in first) for first in own]
    return Tasks(list(groups), [wordings[first] for first in own], texts, data), list(groups.values())


def distinct_wordings(rows: Sequence[Row], group: Sequence[int]) -> list[int]:
    """Return the first row of each different instruction, at most `WORDINGS`, in order of the instruction."""
    first: dict[str, int] = {}
    for i in group:
        first.setdefault(rows[i].instruction, i)
    return [first[text] for text in sorted(first)][:WORDINGS]


WORDINGS = 64
"""Wordings of a task that are compared (chosen: templates have some ten; instructions that quote their row
would make thousands)."""


# a registry's tasks against a file of new ones


@dataclass(frozen=True, slots=True)
class ReplayConfig:
    """A registry and new tasks in, the earlier tasks to train on again out."""

    registry: str = field(default="", metadata={"help": "folder of the registry whose tasks may be replayed"})
    new: str = field(
        default="",
        metadata={"help": "the new tasks: proposals, a table of instruction data, or a version's folder"},
    )
    strategy: str = field(
        default="instruction-diverse",
        metadata={"help": "how earlier tasks are ranked", "choices": STRATEGIES},
    )
    budget: str = field(
        default="", metadata={"help": "how much: tasks as 8, tokens as 2000tok, or both as 8,2000tok"}
    )
    version: int = field(default=0, metadata={"help": "version of the registry; 0: the last"})
    per_task: int = field(default=0, metadata={"help": "most rows of a task, by chance; 0: all of them"})
    embedder: str = field(
        default="auto", metadata={"help": "what embeds instructions and rows, as in select"}
    )
    task_column: str = field(
        default="",
        metadata={"help": "column that names a new row's task; default: task, task_name or dataset"},
    )
    seed: int = field(default=0, metadata={"help": "decides everything that is left to chance"})

    def __post_init__(self) -> None:
        for name in ("registry", "new"):
            if not getattr(self, name):
                raise UsageError(f"--{name} is missing; see taskmill grow replay --help")
        _ = self.limits

    @property
    def limits(self) -> tuple[int | None, int | None]:
        """The most tasks and the most tokens. Raises ConfigError for a budget that is none."""
        found: dict[str, int] = {}
        for part in self.budget.split(","):
            read = re.fullmatch(r"\s*([0-9]+)\s*(tok|tokens)?\s*", part)
            if not read or not int(read[1]):
                raise ConfigError(f"budget: {self.budget!r} is none; write tasks as 8, 2000tok, or 8,2000tok")
            kind = "tokens" if read[2] else "tasks"
            if kind in found:
                raise ConfigError(f"budget: {self.budget!r} gives {kind} twice; write 8,2000tok")
            found[kind] = int(read[1])
        return found.get("tasks"), found.get("tokens")


SAMPLED = 64
"""Rows of a task whose mean vector stands for its data (chosen: the mean of 64 is within 0.1 of all)."""


class _Task(NamedTuple):
    """A task of a registry: its id, dataset, name, instruction, and how its rows are marked."""

    id: str
    dataset: str
    name: str
    instruction: str
    template: str


def replay(config: ReplayConfig, out: str | Path | None = None) -> dict[str, Any]:
    """Rank a registry's tasks against new ones, and return what is replayed within the budget.

    With `out` (a Parquet file) its rows are written there, in order of id. A task that the new rows have is
    no earlier one. Raises UsageError and InputError for what is not there or cannot be read.
    """
    version = Registry(config.registry).existing().version(config.version or None)
    path = None if out is None else check_out(out, [config.new], "grow replay", file=True)
    rows = _new_rows(config)
    known = {row.task for row in rows}
    earlier = [task for task in _registered(version) if task.template not in known]
    data: dict[str, list[Row]] = {}
    if config.strategy == "data-diverse":
        data = {task.id: _rows_of(version, task, config.seed, SAMPLED) for task in earlier}
    old, new = _both(earlier, rows, data, config)
    ranking = ordered(config.strategy, old, new, config.seed)
    chosen = _within(version, earlier, ranking, config)
    lines: list[dict[str, Any]] = [
        {
            "task": earlier[place].id,
            "dataset": earlier[place].dataset,
            "task_name": earlier[place].name,
            "instruction": earlier[place].instruction,
            "rank": rank,
            "score": round(float(ranking.scores[place]), 9),
            "rows": len(own),
            "tokens": sum(map(_tokens, own)),
        }
        for rank, (place, own) in enumerate(chosen.items())
    ]
    if path is not None:
        ids = {row.example.id for own in chosen.values() for row in own}
        write_parquet(path, _table(version, ids, {earlier[place].dataset for place in chosen}))
    return {
        "strategy": config.strategy,
        "budget": config.budget,
        "registry": config.registry,
        "version": version.number,
        "earlier_tasks": len(earlier),
        "new_tasks": len(new.ids),
        "replayed": lines,
        "rows": sum(map(len, chosen.values())),
        "tokens": sum(line["tokens"] for line in lines),
    }


def _within(
    version: Version, earlier: Sequence[_Task], ranking: Ranking, config: ReplayConfig
) -> dict[int, list[Row]]:
    """Return the tasks (by place) that the budget has room for, best first, with their rows."""
    tasks, limit = config.limits
    found: dict[int, list[Row]] = {}
    costs: list[list[int]] = []
    spent = 0
    for place in ranking.order[:tasks]:
        if tasks is None and limit is not None and spent >= limit:
            break  # rows of later tasks need not be read
        found[place] = _rows_of(version, earlier[place], config.seed, config.per_task)
        costs.append([_tokens(row) for row in found[place]])
        spent += sum(costs[-1])
    shares = None if ranking.shares is None else [float(ranking.shares[place]) for place in found]
    chosen = spend(costs, tasks=tasks, limit=limit, shares=shares)
    within = {
        place: [own[at] for at in places] for (place, own), places in zip(found.items(), chosen, strict=True)
    }
    return {place: own for place, own in within.items() if own}


def _registered(version: Version) -> list[_Task]:
    """Return the tasks of a version that have rows, in order of id."""
    found = []
    for name, entry in version.datasets.items():
        if entry.rows:
            for task in version.record(name)["tasks"]:
                if task["rows"]:
                    template = mark_of(task["task_name"], task["id"])
                    found.append(_Task(task["id"], name, task["task_name"], task["instruction"], template))
    return sorted(found)


def _new_rows(config: ReplayConfig) -> list[Row]:
    """Return the rows of the new tasks; of proposals, which have none, a row without a response each."""
    path = Path(config.new)
    texts: list[str | None]
    if path.suffix in (".json", ".jsonl") and path.is_file() and holds_proposals(path):
        read: list[Any] = [one.row if isinstance(one, Dropped) else one for one, _ in read_tasks(path)]
        texts = [task.instruction for task in read]
    else:
        table = read_table([config.new])
        if has_layout(table.column_names):
            return read_task_rows([config.new], config.task_column)
        if "instruction" not in table.column_names:
            raise InputError(f"{config.new}: no column instruction; give proposals or instruction data")
        texts = strings(table["instruction"]).to_pylist()
    found = []
    for i, text in enumerate(texts):
        if not text or not text.strip():
            raise InputError(f"{config.new}: row {i} (counted from 0) has no instruction; mend or drop it")
        found.append(Row(Example(content_id(text), "", "", text, ""), content_id(text), text, ()))
    return found


def _rows_of(version: Version, task: _Task, seed: int, count: int) -> list[Row]:
    """Return the rows of a task by chance, `count` of them (0: all)."""
    found: list[Row] = []
    for part in version.kept(task.dataset):
        table = pq.read_table(part)
        own = table.filter(
            pc.equal(pc.struct_field(table["origin"].combine_chunks(), "template"), task.template)
        )
        found += [Row(e, task.id, task.instruction, (e.response,)) for e in examples(own)]
    found.sort(key=lambda row: (draw(seed, row.example.id, "replay row"), row.example.id))
    return found[:count] if count else found


def _tokens(row: Row) -> int:
    return count_tokens(f"{prompt(row.example)}\n{answer(row.example)}")


def _both(
    earlier: Sequence[_Task], rows: Sequence[Row], data: Mapping[str, Sequence[Row]], config: ReplayConfig
) -> tuple[Tasks, Tasks]:
    """Return the earlier and the new tasks with their vectors, made by one embedder."""
    own = [row for task in earlier for row in data.get(task.id, ())]
    texts = [f"{r.example.instruction}\n{r.example.context}\n{r.example.response}" for r in (*own, *rows)]
    wordings = [*(task.instruction for task in earlier), *(row.instruction for row in rows)]
    fit = pa.array([*texts, *wordings], pa.large_string())
    # Rows are embedded for the one strategy that looks at them.
    vectors = embedding(
        pa.array(texts if data else wordings[len(earlier) :]), config.embedder, cache_folder(), fit
    )
    named = embedding(pa.array(wordings), config.embedder, cache_folder(), fit).vectors
    new, _ = tasks_of(range(len(rows)), rows, vectors.vectors[len(own) :], named[len(earlier) :])
    means = None
    if data:
        ends = np.cumsum([0, *(len(data[task.id]) for task in earlier)])
        means = np.array([vectors.vectors[a:b].mean(axis=0) for a, b in pairwise(ends.tolist())], np.float32)
    old = Tasks(
        [task.id for task in earlier],
        [named[i : i + 1] for i in range(len(earlier))],
        [task.instruction for task in earlier],
        means,
    )
    return old, new


def _table(version: Version, ids: set[str], datasets: set[str]) -> pa.Table:
    """Return the rows of these ids, in order of id."""
    wanted = pa.array(sorted(ids), pa.string())
    tables = [EXAMPLE_SCHEMA.empty_table()]
    for name in sorted(datasets):
        for part in version.kept(name):
            table = pq.read_table(part)
            tables.append(table.filter(pc.is_in(table["id"], wanted)))
    return pa.concat_tables(tables).sort_by("id")
