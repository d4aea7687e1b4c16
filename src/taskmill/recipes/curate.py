"""Curation of finished instruction data: every filter's score is stored, thresholds decide.

    OUT/  kept.parquet  dropped.parquet  scores.parquet  report.json

Given such a folder again, the rows are decided on anew by its stored scores. `report.json` is written last:
without it the folder is unfinished.

What a model wrote to end its text (`<|endoftext|>`) is taken off responses while they are read, and
`scores.parquet` says of which row what: it is no part of the answer, and whole data sets carry it. Anywhere
else in a response it is the reason `marker`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from taskmill.config import to_mapping
from taskmill.curate import language, personal, verify  # noqa: F401 - they register their filters
from taskmill.curate.filters import FILTERS, Filter, decide, score, thresholds
from taskmill.curate.screen import MANY
from taskmill.errors import ConfigError, InputError, UsageError
from taskmill.recipes.evaluation_sets import AGAINST, SHIPPED, HeldOut
from taskmill.recipes.layouts import as_examples, without_end_tokens
from taskmill.recipes.session import OnProgress, Progress, ignore
from taskmill.recipes.tables import (
    begin_results,
    check_out,
    end_results,
    over_half,
    read_file,
    read_schema,
    read_table,
    with_evidence,
    without_evidence,
)
from taskmill.record import Example
from taskmill.store import write_parquet

__all__ = ["CurateConfig", "curate"]

_CONTAMINATED = "contaminated"  # the filter that looks for evaluation items
_END = "end_token"  # of scores.parquet: what was taken off the response
_ITEM = "evaluation_item"  # of scores.parquet: where an evaluation item stands, and which
_BEAT = 2000


@dataclass(frozen=True, slots=True)
class CurateConfig:
    """Instruction data in; rows that pass every filter out."""

    sources: tuple[str, ...] = field(
        default=(), metadata={"help": "tables, run folders, or a folder this command wrote"}
    )
    filters: tuple[str, ...] = field(
        default=(),
        metadata={"help": "filters that are scored; default: all that need no extra, and those of --set"},
    )
    against: tuple[str, ...] = field(
        default=(SHIPPED,), metadata={"help": f"what the filter `contaminated` looks for: {AGAINST}"}
    )
    set: dict[str, tuple[str, ...]] = field(
        default_factory=dict, metadata={"help": "threshold of a filter, as grounded=0.9; may be repeated"}
    )


def curate(
    config: CurateConfig, out: str | Path, on_progress: OnProgress | None = None, *, command: str = "curate"
) -> dict[str, Any]:
    """Score rows, decide, and write kept, dropped, scores and report; return the report.

    `command` is who decides, as the report says it: `verify` does by the scores it stored.

    Raises UsageError for a filter or threshold that does not exist or a folder that is not this command's to
    write, InputError for data that cannot be read.
    """
    given = {name: finite(name, text) for name, text in config.set.items()}
    again = _is_curated(config.sources)
    anew = again and Path(out).resolve() == Path(config.sources[0]).resolve()
    both = ("curate", "verify") if anew or command == "verify" else ()
    folder = check_out(out, config.sources, command, again=again, also=both)
    if again:
        table, scores = _earlier(config, given)
    else:
        held = HeldOut(config.against)
        names = list(config.filters) or [
            name
            for name in FILTERS.names()
            if (FILTERS.get(name).by_default or name in given) and (held.key or name != _CONTAMINATED)
        ]
        thresholds(given, names)  # a wrong name is an error before the work, not after it
        table, ends = without_end_tokens(read_table(config.sources))
        scores = _scored(table, names, held, on_progress or ignore).append_column(_END, ends)
    limits = thresholds(given, _filters(scores))
    failed = [
        decide(row, limits)
        for batch in scores.select(_filters(scores)).to_batches(4096)
        for row in batch.to_pylist()
    ]
    _write(folder, table, scores, failed, anew)
    return end_results(folder, command, _report(config, scores, failed, limits))


def finite(name: str, value: Sequence[str]) -> float:
    """Return the threshold that `--set name=value` gives; raises ConfigError if that is no finite number."""
    try:
        number = float(value[0] if len(value) == 1 else "")
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"--set {name}={','.join(value)}: a threshold is a finite number")
    return number


def _filters(scores: pa.Table) -> list[str]:
    return [name for name in scores.column_names if name not in ("id", _END, _ITEM)]


# reading


def _is_curated(sources: Sequence[str]) -> bool:
    """Say whether the one source is a folder with scores of ours, finished or not."""
    scores = Path(sources[0]) / "scores.parquet" if len(sources) == 1 else None
    return scores is not None and scores.exists() and _END in read_schema(str(scores)).names


def _earlier(config: CurateConfig, given: Mapping[str, float]) -> tuple[pa.Table, pa.Table]:
    """Return (rows, scores) of a folder this command wrote.

    One without a report is taken only where every scored row is there: then a second decision was
    interrupted, which first writes all rows into dropped.parquet.
    """
    folder = Path(config.sources[0])
    if config.filters:
        raise UsageError("--filters belongs to the first time: stored scores are decided on by --set")
    if config.against != (SHIPPED,):
        raise UsageError("--against belongs to the first time: score the source again for other items")
    names = [folder / f"{name}.parquet" for name in ("scores", "kept", "dropped")]
    if not all(name.exists() for name in names):
        raise _unfinished(folder)
    scores, kept, dropped = (read_file(str(name)) for name in names)
    thresholds(given, _filters(scores))
    rows = pa.concat_tables([kept, without_evidence(dropped, kept.schema)])
    order = pc.index_in(scores["id"], rows["id"].combine_chunks().cast(pa.string()))
    if order.null_count:
        raise _unfinished(folder)
    return rows.take(order), scores


def _unfinished(folder: Path) -> InputError:
    return InputError(f"{folder} is unfinished (rows that were scored are not in it); score the source again")


def _scored(table: pa.Table, names: Sequence[str], held: HeldOut, on_progress: OnProgress) -> pa.Table:
    filters = [FILTERS.get(name) for name in names if name != _CONTAMINATED]
    columns: dict[str, list[float | None]] = {name: [] for name in names}
    items: list[str | None] = []
    waiting: list[Example] = []
    for number, example in enumerate(as_examples(table), 1):
        for one, value in zip(filters, score(example, filters), strict=True):
            columns[one.name].append(value)
        if _CONTAMINATED in columns:
            waiting.append(example)
        if waiting and (len(waiting) == MANY or number == len(table)):
            for found in held.matches(waiting):
                columns[_CONTAMINATED].append(found.score if found else 0.0)
                items.append(found.detail if found else None)
            waiting.clear()
        if number % _BEAT == 0 or number == len(table):
            on_progress(Progress("curate", number, len(table)))
    ids = table["id"].cast(pa.string())
    scores = pa.table({"id": ids, **{name: pa.array(c, pa.float64()) for name, c in columns.items()}})
    return scores.append_column(_ITEM, pa.array(items, pa.string())) if items else scores


# deciding

_Failure = tuple[Filter, float, float]  # the filter, the score, the threshold


def _write(
    folder: Path, table: pa.Table, scores: pa.Table, failed: Sequence[_Failure | None], in_place: bool
) -> None:
    """Write the three tables; `in_place`: the folder holds the same rows, decided otherwise."""
    evidence = {
        "reason": pa.array([f and str(f[0].reason) for f in failed], pa.string()),
        "filter": pa.array([f and f[0].name for f in failed], pa.string()),
        "detail": pa.array(
            [f and _detail(*f, item) for f, item in zip(failed, _items(scores), strict=True)], pa.string()
        ),
        "score": pa.array([f and f[1] for f in failed], pa.float64()),
    }
    judged = with_evidence(table, evidence)
    keep = pa.array([f is None for f in failed], pa.bool_())
    begin_results(folder)
    if in_place:  # at no moment is a row in neither file
        write_parquet(folder / "dropped.parquet", judged)
    else:
        for name in ("kept", "dropped"):  # rows of earlier data must not stand beside new scores
            (folder / f"{name}.parquet").unlink(missing_ok=True)
        write_parquet(folder / "scores.parquet", scores)
    write_parquet(folder / "kept.parquet", table.filter(keep))
    write_parquet(folder / "dropped.parquet", judged.filter(pc.invert(keep)))


def _items(scores: pa.Table) -> list[str | None]:
    found: list[str | None] = scores[_ITEM].to_pylist() if _ITEM in scores.column_names else []
    return found or [None] * len(scores)


def _detail(one: Filter, value: float, limit: float, item: str | None) -> str:
    where = f": {item}" if item and one.name == _CONTAMINATED else ""
    return f"{one.name} {value:.3g}, {'least' if one.least else 'most'} {limit:g}{where}"


def _report(
    config: CurateConfig, scores: pa.Table, failed: Sequence[_Failure | None], limits: Mapping[str, float]
) -> dict[str, Any]:
    lost = [f[0] for f in failed if f is not None]
    reasons = Counter(str(one.reason) for one in lost)
    by_filter = Counter(one.name for one in lost)
    ends = Counter(end.strip() for end in scores[_END].drop_null().to_pylist())
    return {
        "settings": to_mapping(config),
        "funnel": {
            "in": len(failed),
            "kept": len(failed) - len(lost),
            "dropped": dict(sorted(reasons.items())),
        },
        "end_tokens": dict(sorted(ends.items())),
        "filters": {
            name: {
                "threshold": limits.get(name),
                "passes": "least" if FILTERS.get(name).least else "most",
                "dropped": by_filter.get(name, 0),
                "scored": len(scores) - scores[name].null_count,
                "quantiles": _quantiles(scores[name]),
            }
            for name in _filters(scores)
        },
        "warnings": [
            *(f"{count} responses ended in {end}; it is taken off" for end, count in sorted(ends.items())),
            *over_half(by_filter, len(failed), "look at dropped.parquet, or set another threshold by --set"),
        ],
    }


def _quantiles(column: pa.ChunkedArray) -> dict[str, float]:
    """Return what a threshold is chosen by: the score at 5, 25, 50, 75 and 95 % of the rows."""
    if column.null_count == len(column):
        return {}
    levels = (0.05, 0.25, 0.5, 0.75, 0.95)
    values = pc.quantile(column, levels).to_pylist()
    return {f"{level:g}": round(value, 4) for level, value in zip(levels, values, strict=True)}
