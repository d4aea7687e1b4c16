"""A sheet on which people rate proposed tasks, and what their ratings say, with intervals."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import orjson

from taskmill.durable import atomic_write
from taskmill.errors import InputError, UsageError
from taskmill.evaluate.intervals import of_task
from taskmill.ids import draw
from taskmill.ingest.metadata import read_rows
from taskmill.recipes.propose import read_kept
from taskmill.record import DatasetMeta, Example, FieldMeta
from taskmill.report.page import render
from taskmill.synthesize.instances import instances
from taskmill.synthesize.proposals import Proposal
from taskmill.synthesize.task_evidence import columns_of

__all__ = ["RATINGS", "read_ratings", "write_sheet"]

RATINGS = ("correct", "bad instruction", "bad input", "bad output")
"""What a rater chooses from. Dynosaur's raters found 79, 5, 10 and 6 % (its result table)."""

COLUMNS = ("id", "dataset", "task_name", "mode", "instruction", "input", "output", "rating", "note")

_SHOWN = 1500
"""Characters of an input on the sheet (chosen: more is not read)."""


def write_sheet(run: str, out: str, count: int = 50, seed: int = 0) -> int:
    """Write a sheet of tasks drawn from a `grow propose` folder, one example each; return their number.

    Raises InputError for a folder without proposals, UsageError for a sheet that is neither CSV nor HTML.
    """
    folder, path = Path(run), Path(out)
    if path.suffix not in (".csv", ".html"):
        raise UsageError(f"--out {out} is neither .csv nor .html")
    if not (folder / "proposals.jsonl").is_file() or not (folder / "metadata.jsonl").is_file():
        raise InputError(f"{run} holds no proposals; name the folder of a finished taskmill grow propose")
    metas = {meta.key: meta for meta in map(_meta, (folder / "metadata.jsonl").read_bytes().splitlines())}
    drawn = sorted(read_kept(folder), key=lambda one: (draw(seed, one.id, "sheet"), one.id))[:count]
    rows = [row for row in (_row(one, metas[one.key], seed) for one in drawn) if row]
    if path.suffix == ".csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        writer.writerows({name: _safe(value) for name, value in row.items()} for row in rows)
        atomic_write(path, text.getvalue().encode())
    else:
        atomic_write(path, render("sheet.html.j2", {"rows": rows, "ratings": RATINGS}).encode())
    return len(rows)


def _safe(text: str) -> str:
    # A cell that begins like a formula would be one in a spreadsheet.
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def _meta(line: bytes) -> DatasetMeta:
    row: dict[str, Any] = _tuples(orjson.loads(line))
    row["fields"] = tuple(FieldMeta(**one) for one in row["fields"])
    return DatasetMeta(**row)


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(_tuples(inner) for inner in value) if isinstance(value, list) else value


def _row(task: Proposal, meta: DatasetMeta, seed: int) -> dict[str, str] | None:
    """Return the line of one task with an example drawn from its first rows, None if they give none."""
    made: list[Example] = []
    for batch in instances(task, meta, read_rows(meta, columns_of([task], meta))):
        made += [one for one in batch if isinstance(one, Example)]
        if len(made) >= 100:
            break
    if not made:
        return None
    example = min(made, key=lambda one: (draw(seed, one.id, "sheet"), one.id))
    texts = (
        task.id,
        task.key,
        task.task_name,
        task.mode,
        example.instruction.partition("\n\n{{context}}")[0],
    )
    shown = example.context if len(example.context) <= _SHOWN else example.context[:_SHOWN] + "…"
    return dict(zip(COLUMNS, (*texts, shown, example.response, "", ""), strict=True))


def read_ratings(sheet: str) -> dict[str, Any]:
    """Return how often each rating was given, with Wilson intervals of 95 %.

    Raises InputError naming file and row for another word than those of RATINGS, or for what is no sheet.
    """
    path = Path(sheet)
    if not path.is_file():
        raise InputError(f"there is no sheet {sheet!r}; write one with taskmill grow rate RUN --out {sheet}")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns, rows = reader.fieldnames or (), list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{sheet} is no CSV in UTF-8 ({error}); save the sheet as one") from None
    if "rating" not in columns:
        raise InputError(
            f"{sheet} has no column 'rating'; write a sheet with taskmill grow rate RUN --out FILE.csv"
        )
    given = []
    for number, row in enumerate(rows, 2):
        word = (row["rating"] or "").strip().lower().replace("_", " ").replace("-", " ")
        if word and word not in RATINGS:
            raise InputError(f"{sheet}, line {number}: {word!r} is none of {', '.join(RATINGS)}")
        given += [word] if word else []
    shares = {}
    for name in RATINGS if given else ():
        own = of_task([float(one == name) for one in given], confidence=0.95, seed=0, name=name)
        shares[name] = {"count": given.count(name), "share": own.mean, "low": own.low, "high": own.high}
    return {"rated": len(given), "unrated": len(rows) - len(given), "shares": shares}
