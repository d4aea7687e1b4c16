"""The task types' own checks as a filter over batches, exact duplicates, and the cap at the target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from taskmill.record import VERDICT_SCHEMA, Example, Reason, dropped_schema, examples
from taskmill.tasks import get
from taskmill.tasks.base import Rejected

__all__ = ["Settle", "check", "judge"]


def check(example: Example) -> Rejected | None:
    """Return why an example is not a valid one of its task type, or None."""
    return get(example.task).check(example)


def judge(table: pa.Table) -> pa.Table:
    """Return the verdicts on a table of examples, row by row."""
    found = [check(e) for e in examples(table, provenance=False)]
    reasons = [str(r.reason) if r else None for r in found]
    details = [r.detail if r else None for r in found]
    rows = len(found)
    columns = [["check"] * rows, reasons, details, [None] * rows]
    return pa.Table.from_arrays(
        [pa.array(c, f.type) for c, f in zip(columns, VERDICT_SCHEMA, strict=True)], schema=VERDICT_SCHEMA
    )


class Settle:
    """Decides over judged rows in order of id: drops exact duplicates, and what is over the target.

    Equal examples have equal ids and stand next to each other; the first in the stage's order stays.
    """

    def __init__(self, target: int = 0) -> None:
        """`target` accepted examples per task type are kept, all if 0."""
        self.target = target
        self.accepted: Counter[str] = Counter()
        self._last = ""

    def split(self, rows: pa.Table, verdicts: pa.Table) -> tuple[pa.Table, pa.Table]:
        """Return (kept rows, dropped rows with their reasons)."""
        ids, tasks = rows["id"].to_pylist(), rows["task"].to_pylist()
        reasons = verdicts["reason"].to_pylist()
        details = verdicts["detail"].to_pylist()
        filters = verdicts["filter"].to_pylist()
        for i, (name, task) in enumerate(zip(ids, tasks, strict=True)):
            if reasons[i] is not None:
                continue
            if name == self._last:
                filters[i], reasons[i], details[i] = (
                    "duplicate",
                    str(Reason.DUPLICATE),
                    "an equal example is kept",
                )
            elif self.target and self.accepted[task] >= self.target:
                filters[i], reasons[i] = "target", str(Reason.OVER_TARGET)
                details[i] = f"{self.target} were asked for and are kept"
                self._last = name
            else:
                self.accepted[task] += 1
                self._last = name
        keep = pa.array([r is None for r in reasons])
        schema = dropped_schema(rows.schema)
        new: Mapping[str, list[str | None]] = {"filter": filters, "reason": reasons, "detail": details}
        judged = rows
        for f in schema:
            if f.name in new:
                judged = judged.append_column(f, pa.array(new[f.name], f.type))
        judged = judged.append_column(schema.field("score"), verdicts["score"])
        return rows.filter(keep), judged.filter(pc.invert(keep))
