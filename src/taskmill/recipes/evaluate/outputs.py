"""Outputs made elsewhere → the same extraction, marks and averages as those of a model evaluated here."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from taskmill.durable import atomic_write
from taskmill.errors import InputError, UsageError
from taskmill.evaluate.averages import AVERAGES
from taskmill.evaluate.extract import EXTRACTORS, Answer, kind_of, readable
from taskmill.evaluate.marks import METRICS, Metric, grade, is_letter
from taskmill.evaluate.numbers import canonical
from taskmill.evaluate.results import Mark, doubled, summary
from taskmill.recipes.tables import column, read_file, table_files
from taskmill.store import write_parquet
from taskmill.suites import Suite, get
from taskmill.suites.base import LETTERS, letter, texts

__all__ = ["grade_outputs", "grade_to", "metric_of", "versions", "wanted_by_task"]


def grade_outputs(
    outputs: str, suite: str, *, confidence: float = 0.95, seed: int = 0
) -> tuple[dict[str, Any], pa.Table]:
    """Grade a table with the columns `task`, `output` and `target`; return (results, one row per output).

    Optional columns: `options` (a list), `id`, `language`. A target may be a list of right answers; where the
    suite's answers are letters or labels, it may be the index or the text of one of the `options`.
    `duplicate_options` counts the rows where a text stands twice among them. Raises UsageError for a missing
    column, InputError naming file and row for a missing task or target, or one that no output could match.
    """
    own = get(suite)
    rows = _read(outputs)
    listed = [texts(row.get("options")) for row in rows]
    golds = [
        _golds(row["target"], o, own, outputs, n) for n, (row, o) in enumerate(zip(rows, listed, strict=True))
    ]
    tasks = [_task(row["task"], outputs, n) for n, row in enumerate(rows)]
    wanted = wanted_by_task(own, tasks, golds, listed)
    extractor, metric = EXTRACTORS.get(own.extractor), metric_of(own)
    marks, trace = [], []
    for number, (row, task, gold) in enumerate(zip(rows, tasks, golds, strict=True)):
        options = listed[number]
        language = str(row.get("language") or wanted[task].language)
        looked = wanted[task]._replace(options=options, language=language)
        found, own_marks = grade(row["output"], gold, extractor, metric, looked)
        name = str(row.get("id") if row.get("id") is not None else number)
        chance = _chance(gold, options, wanted[task])
        marks.append(Mark(name, task, found.answer, found.rule, own_marks, gold[0].casefold(), chance=chance))
        trace.append(
            {"id": name, "task": task, "output": row["output"], "target": list(gold), "answer": found.answer,
             "rule": found.rule, "span": found.span, **own_marks}
        )  # fmt: skip
    results = summary(marks, metric, AVERAGES.get(own.average), confidence=confidence, seed=seed)
    head = {
        "suite": suite,
        "versions": versions(own),
        "duplicate_options": sum(map(bool, map(doubled, listed))),
    }
    return {**head, **results}, pa.Table.from_pylist(trace)


def _chance(golds: Sequence[str], options: Sequence[str], wanted: Answer) -> float | None:
    """Return what guessing scores on an item; None for letters of options nobody has told."""
    if not options and wanted.kind == "letter":
        return None
    there = len(options) or len(wanted.words)
    right = len({gold.strip().casefold() for gold in golds})
    return min(1.0, right / there) if there else 0.0


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


def _task(value: Any, source: str, number: int) -> str:
    named = "".join(map(str, _cells(value))).strip()
    if not named:
        raise InputError(f"{source}: row {number} (counted from 0) has no 'task'; name the one it is of")
    return str(value)


def _golds(value: Any, options: Sequence[str], suite: Suite, source: str, number: int) -> tuple[str, ...]:
    """Return the right answers of a cell in the form of the suite; raises InputError for what is none."""
    where = f"{source}: row {number} (counted from 0)"
    kind = EXTRACTORS.get(suite.extractor).kind
    found = [_gold(one, kind, options) for one in _cells(value)]
    wrong = next((said for _, said in found if said), "")
    if wrong:
        raise InputError(f"{where}: 'target' {wrong}")
    golds = tuple(text for text, _ in found)
    if not any(text.strip() for text in golds):
        raise InputError(f"{where} has no 'target'; give it its right answer")
    return golds


def _cells(value: Any) -> list[Any]:
    """Return the single values of a target: of a list, of SQuAD's {"text": […]}; none for null and NaN."""
    if isinstance(value, dict):
        value = value.get("text")
    if isinstance(value, list):
        return [cell for one in value for cell in _cells(one)]
    return [] if value is None or (isinstance(value, float) and isnan(value)) else [value]


def _gold(value: Any, kind: str, options: Sequence[str]) -> tuple[str, str]:
    """Return a right answer in the form of its kind, and what is wrong with it ("": nothing)."""
    text = str(value).strip()
    if kind == "number":
        text = text.rpartition("####")[2].strip()
        wrong = "" if not text or canonical(text) else f"is {text!r}, no number; write it in digits"
        return text, wrong
    if kind in ("letter", "label") and text:
        return _chosen(value, kind, options)
    if not kind and text and options and not is_letter(text) and kind_of(options).kind != "label":
        mark, wrong = _chosen(value, "letter", options)
        if not wrong:  # a text or an index of what is asked for by letters
            return mark, ""
    if isinstance(value, bool):  # BIG-Bench Hard's truth values are True and False, else it is yes or no
        return (str(value) if not kind else "yes" if value else "no"), ""
    if not kind and options and is_letter(text) and LETTERS.index(text.strip("()")) >= len(options):
        return "", f"is {text!r}, but there are {len(options)} 'options'; name one of them"
    return str(value), ""


def _chosen(value: Any, kind: str, options: Sequence[str]) -> tuple[str, str]:
    """Return the letter or the label a cell means, and what is wrong with it ("": nothing).

    A cell holds a letter, a label, the text of an option or its index (0 is the first).
    """
    if kind == "label" and isinstance(value, bool):
        value = "yes" if value else "no"
    text, index = str(value).strip(), _index(value)
    if kind == "label" and index is None and not options:
        return text, ""
    there = len(options) or (len(LETTERS) if kind == "letter" else 0)
    mark = LETTERS.find(text.strip("(). ").upper()) if len(text.strip("(). ")) == 1 else -1
    own: list[int] = []
    if kind == "letter" and 0 <= mark < there:
        index = mark
    elif index is None or isinstance(value, str):
        own = [i for i, option in enumerate(options) if option.strip() == text]
        own = own or [i for i, option in enumerate(options) if option.strip().casefold() == text.casefold()]
    if len(own) > 1:
        return "", f"is {text!r}, which stands {len(own)} times among its 'options'; give the index of one"
    if own and index not in (None, own[0]) and 0 <= (index or 0) < there:
        return "", f"is {text!r}, the text of one option and the index of another; give the index as a number"
    index = own[0] if own else index
    if index is None or not 0 <= index < there:
        of = f"none of its {len(options)} 'options'" if options else "but the row has no 'options'"
        return "", f"is {text!r}, {of}; give the {kind} or, with 'options', the text or the index from 0"
    return (f"({letter(index)})" if kind == "letter" else options[index]), ""


def _index(value: Any) -> int | None:
    """Return the integer a cell is: an int, a float without a fraction, a text of digits."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    text = str(value).strip()
    return int(text) if text.removeprefix("-").isdecimal() and len(text) < 9 else None


def wanted_by_task(
    suite: Suite,
    tasks: Sequence[str],
    golds: Sequence[Sequence[str]],
    options: Sequence[Sequence[str]] = (),
) -> dict[str, Answer]:
    """Return what the answers of each task look like: by the suite's extractor, or by the task's golds.

    Labels are those of the task's golds, of its items' `options`, and of the closed set they belong to.
    """
    by_task: dict[str, list[str]] = defaultdict(list)
    labels: dict[str, set[str]] = defaultdict(set)
    for number, (task, gold) in enumerate(zip(tasks, golds, strict=True)):
        by_task[task] += gold
        labels[task] |= {one.strip().casefold() for one in (*gold, *(options[number] if options else ()))}
    kind = EXTRACTORS.get(suite.extractor).kind
    found = {}
    for task, own in by_task.items():
        language = task if suite.average == "languages" else ""
        if kind == "label":
            found[task] = Answer("label", tuple(sorted(labels[task] | set(kind_of(own).words))))
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
