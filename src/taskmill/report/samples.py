"""One pass over the rows: lengths and counts of all of them, a small sample to show.

The sample of a group is its rows of smallest id. Ids are hashes of content, so it is a random sample,
and the same one on every machine.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taskmill.errors import RunFolderError
from taskmill.export.folder import Stage, batches, stages
from taskmill.export.urls import hide_secrets
from taskmill.render import fill
from taskmill.report.words import cut, highlight

__all__ = ["Dropped", "Kept", "dropped_samples", "scan_kept"]

_KEPT = 60
_PER_REASON = 8
_BATCH = 16_384
# Stands for the passage in an instruction until the page shows it as a tag: a private-use character.
_SLOT = "\ue0cc"
_LENGTHS = {"passage": "context", "instruction": "instruction", "response": "response"}


@dataclass
class Kept:
    """What the accepted examples look like."""

    rows: int = 0
    tasks: Counter[str] = field(default_factory=Counter)
    lengths: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Dropped:
    """What was dropped: sample groups per stage and reason, and counts by task type."""

    groups: list[dict[str, Any]] = field(default_factory=list)
    tasks: dict[str, Counter[str]] = field(default_factory=dict)


class _Smallest:
    """Keeps the `limit` rows of smallest id of each group."""

    def __init__(self, column: str, limit: int) -> None:
        self.column = column
        self.limit = limit
        self.held: dict[str, pa.Table] = {}

    def add(self, batch: pa.RecordBatch) -> None:
        table = pa.Table.from_batches([batch])
        for group in pc.unique(table[self.column]).to_pylist():
            rows = table.filter(pc.equal(table[self.column], group))
            if group in self.held:
                rows = pa.concat_tables([self.held[group], rows])
            chosen = pc.select_k_unstable(rows, self.limit, [("id", "ascending")])
            # `take` copies: a slice would keep the whole batch alive.
            self.held[group] = rows.take(chosen)

    def rows(self, group: str, limit: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.held[group].slice(0, limit).to_pylist()
        return found


def scan_kept(run: Path) -> Kept:
    """Measure the accepted examples of the last stage that has any, and sample them over all task types."""
    holders = [stage for stage in stages(run) if stage.holds_examples]
    kept = Kept()
    if not holders:
        return kept
    smallest = _Smallest("task", _KEPT)
    lengths: dict[str, list[np.ndarray[Any, Any]]] = {name: [] for name in _LENGTHS}
    for batch in batches(holders[-1].kept, size=_BATCH):
        kept.rows += batch.num_rows
        kept.tasks.update(batch.column("task").to_pylist())
        for name, column in _LENGTHS.items():
            lengths[name].append(pc.utf8_length(batch.column(column)).to_numpy(zero_copy_only=False))
        smallest.add(batch)
    kept.lengths = {name: np.concatenate(found) for name, found in lengths.items() if found}
    share = _KEPT // max(1, len(smallest.held)) or 1
    chosen = [row for task in sorted(smallest.held) for row in smallest.rows(task, share)]
    kept.samples = [_example(row) for row in sorted(chosen, key=lambda row: str(row["id"]))[:_KEPT]]
    return kept


def dropped_samples(run: Path) -> Dropped:
    """Sample the dropped rows of each stage by reason, most frequent reason first; count them by task."""
    found = Dropped()
    for stage in stages(run):
        smallest, counts = _Smallest("reason", _PER_REASON), Counter[str]()
        for batch in _dropped(stage):
            reasons = batch.column("reason").to_pylist()
            counts.update(reasons)
            if "task" in batch.schema.names:
                for task, reason in zip(batch.column("task").to_pylist(), reasons, strict=True):
                    found.tasks.setdefault(task, Counter())[reason] += 1
            smallest.add(batch)
        for reason, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
            rows = [_dropped_row(row) for row in smallest.rows(reason, _PER_REASON)]
            found.groups.append({"stage": stage.name, "reason": reason, "count": n, "rows": rows})
    return found


def _dropped(stage: Stage) -> Iterator[pa.RecordBatch]:
    files = stage.dropped
    if files:
        try:
            yield from batches(files, size=_BATCH)
        except pa.ArrowInvalid as error:
            raise RunFolderError(f"{stage.folder}/dropped is damaged ({error}); repeat the run") from None


def _example(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page shows of an example."""
    context, response = row["context"] or "", row["response"] or ""
    before, span, after = highlight(context, response)
    origin, source = row["origin"] or {}, row["source"] or {}
    asked = fill(row["instruction"] or "", _SLOT)
    return {
        "id": row["id"],
        "task": row["task"] or "",
        "parts": cut(asked, 900).split(_SLOT),
        "brief": cut(" ".join(asked.replace(_SLOT, " ").split()), 200),
        "response": cut(response, 900),
        "options": [cut(option, 200) for option in row["options"] or ()],
        "answer_index": row["answer_index"],
        "rationale": cut(row["rationale"] or "", 600),
        "before": before,
        "span": span,
        "after": after,
        "provenance": _provenance(source, origin),
    }


def _provenance(source: Mapping[str, Any], origin: Mapping[str, Any]) -> list[tuple[str, str]]:
    place = source.get("url") or "/".join(
        str(source[key])
        for key in ("dataset", "config", "split", "row")
        if source.get(key) not in ("", None, -1)
    )
    span = f"{source['start']:,}–{source['end']:,}" if source.get("end") else ""
    found = {
        "source": place,
        "characters": span,
        "licence": source.get("licence") or "unknown",
        "model": origin.get("model"),
        "template": origin.get("template"),
        "method": origin.get("method"),
        "seed": origin.get("seed"),
        "call": origin.get("call"),
    }
    return [(name, hide_secrets(str(value))) for name, value in found.items() if value not in ("", None)]


def _dropped_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page shows of a dropped example or document."""
    shown = {
        "id": row["id"],
        "filter": row["filter"] or "",
        "detail": cut(hide_secrets(row["detail"] or ""), 300),
    }
    shown["score"] = "" if row["score"] is None else f"{row['score']:.3g}"
    if "instruction" in row:
        passage = cut(row["context"] or "", 320)
        instruction = cut(fill(row["instruction"] or "", _SLOT), 400).replace(_SLOT, "[passage]")
        return shown | {
            "task": row["task"] or "",
            "passage": passage,
            "instruction": instruction,
            "response": cut(row["response"] or _raw(row), 400),
        }
    place = hide_secrets((row.get("source") or {}).get("uri") or "")
    return shown | {"task": "", "passage": cut(row.get("text") or "", 320), "place": place}


def _raw(row: Mapping[str, Any]) -> str:
    """Return the model's unread reply, where the stage kept one in `meta`."""
    try:
        meta = json.loads(row.get("meta") or "{}")
    except ValueError:
        return ""
    raw = meta.get("raw") if isinstance(meta, dict) else None
    return raw if isinstance(raw, str) else ""
