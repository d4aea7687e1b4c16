"""The examples of a dataset's tasks, written in one pass over its rows."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import tee

import pyarrow as pa
import pyarrow.compute as pc

from taskmill.ids import draw
from taskmill.ingest import count_tokens
from taskmill.ingest.metadata import read_rows
from taskmill.record import DatasetMeta, Dropped, Example, Reason
from taskmill.store import StageWriter
from taskmill.synthesize.instances import instances
from taskmill.synthesize.proposals import Proposal, mark_of
from taskmill.synthesize.task_evidence import columns_of

__all__ = ["draw_examples", "write_examples"]

REPEATED = "another row says the same"


@dataclass
class _Drawn:
    """The examples of one task that come first by chance, at most `limit` of them."""

    limit: int
    seed: int
    held: dict[str, Example] = field(default_factory=dict)
    worst: list[tuple[int, str]] = field(default_factory=list)

    def add(self, one: Example) -> Dropped | None:
        """Take an example, and return the one that has to go for it (maybe itself)."""
        if one.id in self.held:
            return Dropped(one, "instances", Reason.DUPLICATE, REPEATED)
        self.held[one.id] = one
        heapq.heappush(self.worst, (-draw(self.seed, one.id, "instance"), one.id))
        if len(self.worst) <= self.limit:
            return None
        gone = self.held.pop(heapq.heappop(self.worst)[1])
        return Dropped(gone, "instances", Reason.OVER_TARGET, f"over {self.limit} a task")


def draw_examples(
    writer: StageWriter, meta: DatasetMeta, tasks: Sequence[Proposal], *, limit: int, budget: int, seed: int
) -> None:
    """Write the examples of all tasks over a dataset, in one pass over its rows.

    `limit`: rows of a task, drawn by the seed (0: all of them, equal ones too); `budget`: most tokens of an
    input. Of equal examples the first is kept. Memory is that of a batch, and of `limit` rows a task.
    """
    drawn = [_Drawn(limit, seed) for _ in tasks]
    batches = tee(
        read_rows(meta, columns_of(tasks, meta)), max(1, len(tasks))
    )  # read in step: one batch held
    streams = [
        instances(task, meta, rows, budget, count_tokens) for task, rows in zip(tasks, batches, strict=False)
    ]
    for made in zip(*streams, strict=True):
        for own, some in zip(drawn, made, strict=True):
            writer.count(len(some))
            writer.drop([one for one in some if isinstance(one, Dropped)])
            kept = [one for one in some if isinstance(one, Example)]
            if not limit:
                writer.keep(kept)
                continue
            writer.drop([gone for gone in map(own.add, kept) if gone is not None])
    for own in drawn:
        writer.keep(list(own.held.values()))


def write_examples(
    writer: StageWriter, meta: DatasetMeta, tasks: Sequence[Proposal], *, limit: int, budget: int, seed: int
) -> dict[str, int]:
    """Write the examples as `draw_examples` does, each once, and finish the stage; return task id → rows."""
    draw_examples(writer, meta, tasks, limit=limit, budget=budget, seed=seed)
    counts: Counter[str] = Counter()

    def once(rows: pa.Table) -> pa.Table:
        """Keep the first of rows of one id (they are sorted), and count what stays by its task."""
        ids = rows["id"].combine_chunks()
        if len(ids) > 1:
            same = pa.concat_arrays([pa.array([False]), pc.equal(ids[1:], ids[:-1])])
            if pc.any(same).as_py():
                writer.drop_table(_repeated(rows.filter(same)))
                rows = rows.filter(pc.invert(same))
        templates = pc.struct_field(rows["origin"].combine_chunks(), "template")
        counts.update({entry["values"]: entry["counts"] for entry in pc.value_counts(templates).to_pylist()})
        return rows

    writer.finish("", once)
    return {task.id: counts[mark_of(task.task_name, task.id)] for task in tasks}


def _repeated(rows: pa.Table) -> pa.Table:
    count = len(rows)
    for name, value in (
        ("filter", "instances"),
        ("reason", str(Reason.DUPLICATE)),
        ("detail", REPEATED),
    ):
        rows = rows.append_column(name, pa.array([value] * count, pa.string()))
    return rows.append_column("score", pa.nulls(count, pa.float64()))
