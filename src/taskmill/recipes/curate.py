"""Curation of finished instruction data: every filter's score is stored, thresholds decide.

    OUT/  kept.parquet  dropped.parquet  scores.parquet  report.json

Given such a folder again, the rows are decided on anew by its stored scores. `report.json` is written last:
without it the folder is unfinished.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from taskmill.curate.filters import FILTERS, decide, score, thresholds
from taskmill.durable import atomic_write
from taskmill.errors import ConfigError, InputError, UsageError
from taskmill.recipes.session import OnProgress, Progress, ignore
from taskmill.recipes.tables import as_examples, read_table, with_ids
from taskmill.store import read_json, write_parquet

__all__ = ["CurateConfig", "curate"]

_ADDED = ("reason", "filter", "detail", "score")
_BEAT = 2000


@dataclass(frozen=True, slots=True)
class CurateConfig:
    """Instruction data in; rows that pass every filter out."""

    sources: tuple[str, ...] = field(
        default=(), metadata={"help": "tables, run folders, or a folder this command wrote"}
    )
    filters: tuple[str, ...] = field(
        default=(), metadata={"help": "filters that are scored; default: all there are"}
    )
    set: dict[str, tuple[str, ...]] = field(
        default_factory=dict, metadata={"help": "threshold of a filter, as grounded=0.9; may be repeated"}
    )


def curate(config: CurateConfig, out: str | Path, on_progress: OnProgress | None = None) -> dict[str, Any]:
    """Score rows, decide, and write kept, dropped, scores and report; return the report.

    Raises UsageError for a filter or threshold that does not exist, InputError for data that cannot be read.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; choose another --out")
    given = {name: _number(name, text) for name, text in config.set.items()}
    earlier = _earlier(config, given)
    if earlier is not None:
        table, scores = earlier
    else:
        names = list(config.filters) or FILTERS.names()
        thresholds(given, names)  # a wrong name is an error before the work, not after it
        table = with_ids(read_table(config.sources), _ADDED)
        scores = _scored(table, names, on_progress or ignore)
    limits = thresholds(given, scores.column_names[1:])
    return _decide(folder, table, scores, limits)


def _number(name: str, value: Sequence[str]) -> float:
    try:
        return float(value[0] if len(value) == 1 else "")
    except ValueError:
        raise ConfigError(f"--set {name}={','.join(value)}: a threshold is a number") from None


def _earlier(config: CurateConfig, given: Mapping[str, float]) -> tuple[pa.Table, pa.Table] | None:
    """Return (rows, scores) of a folder this command wrote, if that is the source."""
    if len(config.sources) != 1 or not (Path(config.sources[0]) / "scores.parquet").exists():
        return None
    folder = Path(config.sources[0])
    if not read_json(folder / "report.json"):
        raise InputError(f"{folder} is unfinished (it has no report.json); run its command again first")
    if config.filters:
        raise UsageError("--filters belongs to the first time: stored scores are decided on by --set")
    scores = pq.read_table(folder / "scores.parquet")
    thresholds(given, scores.column_names[1:])
    dropped = pq.read_table(folder / "dropped.parquet").drop_columns(list(_ADDED))
    rows = pa.concat_tables([pq.read_table(folder / "kept.parquet"), dropped])
    order = pc.index_in(scores["id"], rows["id"].combine_chunks().cast(pa.string()))
    return rows.take(order), scores


def _scored(table: pa.Table, names: Sequence[str], on_progress: OnProgress) -> pa.Table:
    filters = [FILTERS.get(name) for name in names]
    columns: list[list[float | None]] = [[] for _ in filters]
    for number, example in enumerate(as_examples(table), 1):
        for column, value in zip(columns, score(example, filters), strict=True):
            column.append(value)
        if number % _BEAT == 0 or number == len(table):
            on_progress(Progress("curate", number, len(table)))
    ids = table["id"].cast(pa.string())
    return pa.table(
        {"id": ids, **{n: pa.array(c, pa.float64()) for n, c in zip(names, columns, strict=True)}}
    )


def _decide(folder: Path, table: pa.Table, scores: pa.Table, limits: Mapping[str, float]) -> dict[str, Any]:
    failed = [
        decide({k: v for k, v in row.items() if k != "id"}, limits)
        for batch in scores.to_batches(4096)
        for row in batch.to_pylist()
    ]
    keep = pa.array([f is None for f in failed], pa.bool_())
    lost = [f for f in failed if f is not None]
    dropped = table.filter(pc.invert(keep))
    evidence = [
        f"{one.name} {value:.3g}, {'least' if one.least else 'most'} {limit:g}" for one, value, limit in lost
    ]
    for name, column in zip(
        _ADDED,
        (
            pa.array([str(one.reason) for one, _, _ in lost], pa.string()),
            pa.array([one.name for one, _, _ in lost], pa.string()),
            pa.array(evidence, pa.string()),
            pa.array([value for _, value, _ in lost], pa.float64()),
        ),
        strict=True,
    ):
        dropped = dropped.append_column(name, column)
    reasons = Counter(str(one.reason) for one, _, _ in lost)
    by_filter = Counter(one.name for one, _, _ in lost)
    report = {
        "funnel": {
            "in": len(table),
            "kept": len(table) - len(lost),
            "dropped": dict(sorted(reasons.items())),
        },
        "filters": {
            name: {
                "threshold": limits.get(name),
                "passes": "least" if FILTERS.get(name).least else "most",
                "dropped": by_filter.get(name, 0),
                "scored": len(scores) - scores[name].null_count,
                "quantiles": _quantiles(scores[name]),
            }
            for name in scores.column_names[1:]
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").unlink(missing_ok=True)
    write_parquet(folder / "scores.parquet", scores)
    write_parquet(folder / "kept.parquet", table.filter(keep))
    write_parquet(folder / "dropped.parquet", dropped)
    atomic_write(folder / "report.json", json.dumps(report, indent=1, ensure_ascii=False).encode())
    return report


def _quantiles(column: pa.ChunkedArray) -> dict[str, float]:
    """Return what a threshold is chosen by: the score at 5, 25, 50, 75 and 95 % of the rows."""
    if column.null_count == len(column):
        return {}
    levels = (0.05, 0.25, 0.5, 0.75, 0.95)
    values = pc.quantile(column, levels).to_pylist()
    return {f"{level:g}": round(value, 4) for level, value in zip(levels, values, strict=True)}
