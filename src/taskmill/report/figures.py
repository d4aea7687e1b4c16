"""The page's numbers: headline figures, the funnel and the yield of each task type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from taskmill.export.folder import batches, stages
from taskmill.report.samples import Dropped, Kept
from taskmill.report.words import compact, duration, thousands

__all__ = ["figures", "funnel", "reason_colours", "yields"]

_COLOURS = 8


def figures(manifest: Mapping[str, Any], accepted: int) -> list[dict[str, str]]:
    """Return the headline figures: a label, a number and one line that puts it in proportion."""
    calls = manifest.get("calls") or {}
    tokens = manifest.get("tokens") or {}
    seconds, cost = manifest.get("elapsed_s"), manifest.get("cost")
    prompt, completion = tokens.get("prompt"), tokens.get("completion")
    made, total = calls.get("made"), calls.get("total")
    asked = [t.get("asked") for t in (manifest.get("tasks") or {}).values() if t.get("asked")]
    all_tokens = None if prompt is None and completion is None else (prompt or 0) + (completion or 0)
    paid = f"{thousands(calls.get('reused') or 0)} reused, {thousands(calls.get('failed') or 0)} failed"
    per_thousand = f"{1000 * cost / accepted:.2f} per 1,000 examples" if cost and accepted else ""
    rate = f"{completion / seconds:,.0f} tok/s written" if completion and seconds else ""
    return [
        _figure(
            "Accepted", thousands(accepted), f"{thousands(sum(asked))} asked for" if asked else "examples"
        ),
        _figure("Model calls", thousands(made), paid if total is not None else ""),
        _figure("Tokens", compact(all_tokens), f"{compact(prompt)} read, {compact(completion)} written"),
        _figure("Cost", "–" if cost is None else f"{cost:,.2f}", per_thousand or "not priced"),
        _figure("Time", duration(seconds), rate),
        _figure(
            "Throughput",
            compact(60 * accepted / seconds if seconds else None),
            "examples per minute",
        ),
    ]


def _figure(label: str, value: str, note: str) -> dict[str, str]:
    return {"label": label, "value": value, "note": note if value != "–" else ""}


def _by_count(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def funnel(run: Path, manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return in, kept and dropped by reason of each stage: as recorded, or else counted."""
    recorded = manifest.get("funnel") or {
        stage.name: {"kept": _rows(stage.kept), "dropped": _reasons(stage.dropped)} for stage in stages(run)
    }
    rows = []
    for name, counts in recorded.items():
        dropped, kept = _by_count(counts.get("dropped") or {}), counts.get("kept") or 0
        rows.append(
            {
                "name": name,
                "in": counts.get("in", kept + sum(dropped.values())),
                "kept": kept,
                "dropped": dropped,
            }
        )
    return rows


def _rows(files: Iterable[Path]) -> int:
    return sum(pq.read_metadata(path).num_rows for path in files)


def _reasons(files: list[Path]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for batch in batches(files, ["reason"], 65536) if files else ():
        counts.update({e["values"]: e["counts"] for e in pc.value_counts(batch.column(0)).to_pylist()})
    return counts


def yields(manifest: Mapping[str, Any], kept: Kept, dropped: Dropped) -> list[dict[str, Any]]:
    """Return accepted and dropped by reason of each task type: as recorded, or else counted."""
    recorded = manifest.get("tasks") or {}
    rows = []
    for name in sorted({*recorded, *kept.tasks, *(task for task in dropped.tasks if task)}):
        entry = recorded.get(name) or {}
        reasons = _by_count(entry.get("dropped") or dropped.tasks.get(name) or {})
        accepted = entry.get("accepted", kept.tasks[name])
        attempts = accepted + sum(reasons.values())
        rows.append(
            {
                "name": name,
                "kept": accepted,
                "dropped": reasons,
                "asked": entry.get("asked"),
                "requests": entry.get("requests"),
                "drafts": entry.get("drafts"),
                "shortfall": entry.get("shortfall") or "",
                "rate": 100 * accepted / attempts if attempts else 0.0,
            }
        )
    return rows


def reason_colours(*groups: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Give each reason a colour class, the most frequent reasons the most distinct ones."""
    totals: Counter[str] = Counter()
    for group in groups:
        for entry in group:
            totals.update(entry["dropped"])
    return {reason: f"r{min(i, _COLOURS - 1)}" for i, reason in enumerate(_by_count(totals))}
