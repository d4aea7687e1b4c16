"""Outputs made elsewhere → the same extraction, marks and averages as those of a model evaluated here."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from taskmill.durable import atomic_write
from taskmill.errors import InputError, UsageError
from taskmill.evaluate.averages import AVERAGES
from taskmill.evaluate.extract import EXTRACTORS, Answer, kind_of, readable
from taskmill.evaluate.marks import METRICS, Metric, grade
from taskmill.evaluate.results import Mark, summary
from taskmill.recipes.tables import column, read_file, table_files
from taskmill.store import write_parquet
from taskmill.suites import Suite, get
from taskmill.suites.base import letter, texts

__all__ = ["grade_outputs", "grade_to", "metric_of", "versions", "wanted_by_task"]


def grade_outputs(
    outputs: str, suite: str, *, confidence: float = 0.95, seed: int = 0
) -> tuple[dict[str, Any], pa.Table]:
    """Grade a table with the columns `task`, `output` and `target`; return (results, one row per output).

    Optional columns: `options` (a list), `id`, `language`. A target may be a list of right answers. Raises
    UsageError for a missing column, InputError naming file and row for a target that is missing.
    """
    own = get(suite)
    rows = _read(outputs)
    golds = [_golds(row["target"], own, outputs, number) for number, row in enumerate(rows)]
    tasks = [str(row["task"]) for row in rows]
    wanted = wanted_by_task(own, tasks, golds)
    extractor, metric = EXTRACTORS.get(own.extractor), metric_of(own)
    marks, trace = [], []
    for number, (row, task, gold) in enumerate(zip(rows, tasks, golds, strict=True)):
        options = texts(row.get("options"))
        language = str(row.get("language") or wanted[task].language)
        looked = wanted[task]._replace(options=options, language=language)
        found, own_marks = grade(row["output"], gold, extractor, metric, looked)
        name = str(row.get("id") if row.get("id") is not None else number)
        chance = 1 / len(options) if options else None
        marks.append(Mark(name, task, found.answer, found.rule, own_marks, gold[0].casefold(), chance=chance))
        trace.append(
            {"id": name, "task": task, "output": row["output"], "target": list(gold), "answer": found.answer,
             "rule": found.rule, "span": found.span, **own_marks}
        )  # fmt: skip
    results = summary(marks, metric, AVERAGES.get(own.average), confidence=confidence, seed=seed)
    return {"suite": suite, "versions": versions(own), **results}, pa.Table.from_pylist(trace)


def _read(source: str) -> list[dict[str, Any]]:
    """Return the rows of a file of outputs; those that are no UTF-8 get replacement characters."""
    table = pa.concat_tables([read_file(name) for name in table_files(source)], promote_options="default")
    if not len(table):
        raise InputError(f"{source}: no rows in it; name a file with outputs")
    for name in ("task", "output", "target"):
        column(table, name, source)
    kept = [n for n in ("task", "target", "options", "id", "language") if n in table.column_names]
    raw = table["output"]
    if pa.types.is_string(raw.type) or pa.types.is_large_string(raw.type):
        raw = pc.cast(raw, pa.large_binary())
    shown = [readable(value) for value in raw.to_pylist()]
    try:
        rows: list[dict[str, Any]] = table.select(kept).to_pylist()
    except UnicodeDecodeError:
        raise InputError(f"{source}: a text in {', '.join(kept)} is not UTF-8; only outputs may be") from None
    return [{**row, "output": text} for row, text in zip(rows, shown, strict=True)]


def _golds(value: Any, suite: Suite, source: str, number: int) -> tuple[str, ...]:
    """Return the right answers of a cell in the form of the suite; raises InputError if there is none."""
    lettered = EXTRACTORS.get(suite.extractor).kind == "letter"
    if lettered and isinstance(value, int) and not isinstance(value, bool):
        return (f"({letter(value)})",)
    if isinstance(value, bool):
        return ("yes" if value else "no",)
    found = texts(value)
    if EXTRACTORS.get(suite.extractor).kind == "number":
        found = tuple(text.rpartition("####")[2].strip() for text in found)
    if not found or not any(text.strip() for text in found):
        raise InputError(f"{source}: row {number} (counted from 0) has no 'target'; give it its right answer")
    return found


def wanted_by_task(suite: Suite, tasks: Sequence[str], golds: Sequence[Sequence[str]]) -> dict[str, Answer]:
    """Return what the answers of each task look like: by the suite's extractor, or by the task's golds."""
    by_task: dict[str, list[str]] = defaultdict(list)
    for task, gold in zip(tasks, golds, strict=True):
        by_task[task] += gold
    kind = EXTRACTORS.get(suite.extractor).kind
    found = {}
    for task, own in by_task.items():
        language = task if suite.average == "languages" else ""
        if kind == "label":
            found[task] = Answer("label", tuple(sorted({gold.strip().casefold() for gold in own})))
        else:
            found[task] = (Answer(kind) if kind else kind_of(own))._replace(language=language)
    return found


def metric_of(suite: Suite) -> Metric:
    """Return the metric a suite names."""
    return METRICS.get(suite.metric)


def versions(suite: Suite) -> dict[str, str]:
    """Return the parts a suite's numbers hang on, each with its version."""
    extractor, average = EXTRACTORS.get(suite.extractor), AVERAGES.get(suite.average)
    metric = metric_of(suite)
    return {
        "suite": f"{suite.name}@{suite.version}",
        "extractor": f"{extractor.name}@{extractor.version}",
        "metric": f"{metric.name}@{metric.version}",
        "average": f"{average.name}@{average.version}",
    }


def grade_to(
    outputs: str, suites: Sequence[str], out: str = "", *, confidence: float = 0.95, seed: int = 0
) -> dict[str, Any]:
    """Grade a table of outputs for one suite; with `out`, write results.json and items.parquet there."""
    if len(suites) != 1:
        raise UsageError("outputs are graded for one suite; name it with --suite")
    results, trace = grade_outputs(outputs, suites[0], confidence=confidence, seed=seed)
    if out:
        folder = Path(out)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"{out} holds something already; choose a new --out")
        write_parquet(folder / "items.parquet", trace)
        atomic_write(folder / "results.json", json.dumps(results, indent=1, ensure_ascii=False).encode())
    return results
