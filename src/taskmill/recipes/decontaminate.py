"""Decontamination: a table of training rows → the rows to keep, and those that hold evaluation items.

    OUT/  kept.parquet  dropped.parquet  report.json

The rows are read twice, once to look and once to write, in pieces; only ids and what was found are held in
memory. `report.json` is written last: without it the folder is unfinished.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taskmill import frame
from taskmill.config import build, to_mapping
from taskmill.curate.benchmark_index import benchmark_task
from taskmill.curate.decontaminate import FOUND_SCHEMA, Hits, Rule, locate, prepare, scan, settle
from taskmill.errors import UsageError
from taskmill.recipes.evaluation_sets import AGAINST, NONE, SHIPPED, against
from taskmill.recipes.nested_text import joined_text, strings, text_columns
from taskmill.recipes.pieces import RUNNER, Piecewise, Rows, answers, opened
from taskmill.recipes.session import OnProgress, Progress, ignore
from taskmill.recipes.tables import begin_results, check_out, end_results, is_text, over_half, with_evidence
from taskmill.record import EXAMPLE_SCHEMA, Reason

if TYPE_CHECKING:
    from taskmill.curate.decontaminate import Search

__all__ = ["DecontaminateConfig", "decontaminate"]

CONTAMINATED = str(Reason.CONTAMINATED)
BENCHMARK_TASK = str(Reason.BENCHMARK_TASK)

_MATCHED = 0.02
"""Share of an evaluation set above which Tulu 3 leaves out a training set (arXiv 2411.15124, section on
decontamination)."""

_ADDED = pa.schema(
    [
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("suite", pa.string()),
        ("item", pa.string()),
        (
            "spans",
            pa.list_(pa.struct([("column", pa.string()), ("start", pa.int64()), ("end", pa.int64())])),
        ),
        ("score", pa.float64()),
    ]
)


@dataclass(frozen=True, slots=True)
class DecontaminateConfig:
    """Training rows in; rows that hold evaluation items out."""

    sources: tuple[str, ...] = field(
        default=(), metadata={"help": "tables of training rows (Parquet, JSONL, CSV), folders or run folders"}
    )
    against: tuple[str, ...] = field(
        default=(SHIPPED,), metadata={"help": f"{AGAINST} but for tasks by name"}
    )
    text: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "columns that are looked into; default: all that hold text, but for those that describe "
            "a row, as id, source or subject"
        },
    )
    keep_benchmark_tasks: bool = field(
        default=False, metadata={"help": "keep tasks that are known by name to be made from a benchmark"}
    )
    rule: Rule = field(default_factory=Rule)
    runner: str = field(default="native", metadata={"help": RUNNER})


def decontaminate(
    config: DecontaminateConfig, out: str | Path, on_progress: OnProgress | None = None
) -> dict[str, Any]:
    """Write kept.parquet, dropped.parquet and report.json into a folder and return the report.

    Raises UsageError and InputError for what cannot be read or compared, or a folder that is not this
    command's to write; nothing is written then.
    """
    if not config.sources:
        raise UsageError("no table is given; name the file with the training rows")
    files = [name for name in config.against if Path(name).exists()]
    folder, tell = check_out(out, [*config.sources, *files], "decontaminate"), on_progress or ignore
    if config.against == (NONE,) and config.keep_benchmark_tasks:
        raise UsageError("--against none and --keep-benchmark-tasks leave nothing to look for; drop one")
    config.rule.check()
    frame.use_runner(config.runner)
    with opened(config.sources, folder.with_name(f".{folder.name}.parts")) as rows:
        looked, total = _looked_into(rows, config), len(rows)
        _search.cache_clear()  # the files may be others by now
        search = None if config.against == (NONE,) else _search(config.against, config.rule)
        found = (
            FOUND_SCHEMA.empty_table() if search is None else _found_in(rows, looked, search, config, tell)
        )
        begin_results(folder)
        reasons = _write(rows, looked.names, found, folder, config)
    suites = _suites(found, search) if search else []
    dropped = dict(sorted(reasons.items()))
    kept = total - sum(dropped.values())
    tell(Progress("decontaminate", total, total, kept, total - kept))
    report = {
        "against": list(search.against.names) if search else [],
        "rule": to_mapping(config.rule),
        "text": looked.names,
        "not_looked_at": looked.beside,
        "funnel": {"in": total, "kept": kept, "dropped": dropped},
        "suites": suites,
        "warnings": [
            *_warnings(suites, config.rule),
            *over_half(dropped, total, "look at dropped.parquet before you go on"),
            *_unseen(rows.schema, looked.beside),
        ],
    }
    return end_results(folder, "decontaminate", report)


# Training rows


class _Looked(NamedTuple):
    """The columns that are looked into, and what is not looked at."""

    names: list[str]
    beside: list[str]


def _looked_into(rows: Rows, config: DecontaminateConfig) -> _Looked:
    given = [field for field in rows.schema if field.name != "id" or not rows.numbered]
    return _Looked(*text_columns(pa.schema(given), config.text, rows.where))


def _found_in(
    rows: Rows, looked: _Looked, search: Search, config: DecontaminateConfig, tell: OnProgress
) -> pa.Table:
    """Look into all rows and return what is found, as FOUND_SCHEMA."""
    asked = {"against": list(config.against), "rule": to_mapping(config.rule), "columns": looked.names}
    hits = []
    for first, _, seen in answers(rows, looked.names, look, asked, config.runner):
        hits.append(Hits(**seen)._replace(row=seen["row"] + first))
        tell(Progress("decontaminate", first, len(rows), first))
    return settle(hits, search)


@lru_cache(maxsize=1)  # a worker gets many pieces to look into
def _search(names: tuple[str, ...], rule: Rule) -> Search:
    return prepare(against(names), rule)


def look(table: pa.Table, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is seen in one piece of the rows, as arrays (`Hits`)."""
    search = _search(tuple(asked["against"]), build(Rule, asked["rule"]))
    return scan(joined_text([strings(table[name]) for name in asked["columns"]]), search)._asdict()


# What is written


def _write(
    rows: Rows, looked: Sequence[str], found: pa.Table, folder: Path, config: DecontaminateConfig
) -> Counter[str]:
    """Write both tables in the order of the input and return the number of dropped rows by reason."""
    hit, best = np.unique(found["row"].to_numpy(), return_index=True)  # the best match of a row stands first
    schema = _judged(rows.schema.empty_table(), []).schema
    reasons: Counter[str] = Counter()
    with ExitStack() as stack:
        kept = stack.enter_context(Piecewise(folder / "kept.parquet", rows.schema))
        dropped = stack.enter_context(Piecewise(folder / "dropped.parquet", schema))
        for first, table in rows.pieces():
            low, high = np.searchsorted(hit, (first, first + len(table))).tolist()
            matches = dict(zip((hit[low:high] - first).tolist(), best[low:high].tolist(), strict=True))
            names = {} if config.keep_benchmark_tasks else _named(table)
            wrong = sorted(matches.keys() | names.keys())
            evidence = [
                _found(found, matches[i], looked, table, i) if i in matches else _task(names[i])
                for i in wrong
            ]
            reasons.update(e["reason"] for e in evidence)
            dropped.add(_judged(table.take(pa.array(wrong, pa.int64())), evidence))
            keep = np.ones(len(table), np.bool_)
            keep[wrong] = False
            kept.add(table.filter(pa.array(keep)))
    return reasons


def _judged(rows: pa.Table, evidence: Sequence[Mapping[str, Any]]) -> pa.Table:
    columns = pa.Table.from_pylist(list(evidence), schema=_ADDED)
    return with_evidence(rows, dict(zip(_ADDED.names, columns.columns, strict=True)))


def _found(found: pa.Table, line: int, looked: Sequence[str], table: pa.Table, row: int) -> dict[str, Any]:
    """Return the evidence of one row: its best match, with the places in its columns."""
    match = found.slice(line, 1).to_pylist()[0]
    lengths = [len(strings(table[n].slice(row, 1))[0].as_py() or "") for n in looked]
    spans = [{**s, "column": looked[s["column"]]} for s in locate(match["spans"], lengths)]
    place = f"{spans[0]['column']} {spans[0]['start']}-{spans[0]['end']}"
    more = f" and {len(spans) - 1} more" if len(spans) > 1 else ""
    return {
        "reason": CONTAMINATED,
        "detail": f"{place}{more}: in {match['item']}",
        "suite": match["suite"],
        "item": match["item"],
        "spans": spans,
        "score": match["score"],
    }


def _named(table: pa.Table) -> dict[int, tuple[str, str]]:
    """Return (task, suite) of the rows whose task was made from a benchmark."""
    columns = [table[n] for n in ("task", "task_name", "dataset", "source") if n in table.column_names]
    columns = [
        pc.struct_field(c, "dataset")
        if pa.types.is_struct(c.type) and c.type.get_field_index("dataset") >= 0
        else c
        for c in columns
    ]
    found: dict[int, tuple[str, str]] = {}
    for column in columns:
        if not is_text(column.type):
            continue
        made = {name: benchmark_task(name or "") for name in pc.unique(column).to_pylist()}
        if any(made.values()):
            for i, name in enumerate(column.to_pylist()):
                task = made[name]
                if task is not None:
                    found[i] = (name, task.suite)
    return found


def _task(named: tuple[str, str]) -> dict[str, Any]:
    name, suite = named
    return {
        "reason": BENCHMARK_TASK,
        "detail": f"the task {name} was made from {suite}",
        "suite": suite,
        "item": None,
        "spans": [],
        "score": None,
    }


def _suites(found: pa.Table, search: Search) -> list[dict[str, Any]]:
    """Return for each evaluation set how many of its items can be found, were found, and in how many rows."""
    index = search.against
    lines = list(zip(*(found[n].to_pylist() for n in ("row", "suite", "item")), strict=True))
    items = Counter(suite for suite, _ in {(suite, item) for _, suite, item in lines})
    rows = Counter(suite for _, suite in {(row, suite) for row, suite, _ in lines})
    report = []
    for number, name in enumerate(index.names):
        own = index.suite == number
        report.append(
            {
                "suite": name,
                "items": int(own.sum()),
                "too_short": int((own & ~search.looked_for).sum()),
                "matched": items[name],
                "share": items[name] / int(own.sum()),
                "rows": rows[name],
            }
        )
    return report


def _warnings(suites: Sequence[Mapping[str, Any]], rule: Rule) -> list[str]:
    warnings = []
    for suite in suites:
        if suite["share"] > _MATCHED:
            warnings.append(
                f"{suite['share']:.1%} of {suite['suite']} is in these rows; above {_MATCHED:.0%} Tulu 3 "
                "leaves the whole training set out, because what a filter misses is of the same source"
            )
        if suite["too_short"] == suite["items"]:
            part = "question" if rule.mode == "decon" else "item"
            warnings.append(
                f"no {part} of {suite['suite']} has {rule.min_words} words: nothing of it could be found"
            )
    return warnings


def _unseen(schema: pa.Schema, beside: Sequence[str]) -> list[str]:
    """Return a warning that names what was not looked at, but for ids and what our own rows always have."""
    own = EXAMPLE_SCHEMA.names if set(EXAMPLE_SCHEMA.names) <= set(schema.names) else ["id"]
    beside = [name for name in beside if name.partition(".")[0] not in own]
    if not beside:
        return []
    return [f"not looked at: {', '.join(beside)}; name the columns with --text to look into them"]
