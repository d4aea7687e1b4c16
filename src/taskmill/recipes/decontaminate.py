"""Decontamination: a table of training rows → the rows to keep, and those that hold evaluation items.

    OUT/  kept.parquet  dropped.parquet  report.json

The rows are read twice, once to look and once to write, in batches; only what was found is held in memory.
`report.json` is written last: without it the folder is unfinished.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from taskmill.config import to_mapping
from taskmill.curate.decontaminate import Rule, joined_text, locate, prepare, scan, settle
from taskmill.durable import Replacing, atomic_write
from taskmill.errors import InputError, UsageError
from taskmill.recipes.evaluation_sets import LABELS, against
from taskmill.recipes.session import OnProgress, Progress
from taskmill.recipes.tables import read_file, table_files
from taskmill.record import Reason
from taskmill.registry import nearest

if TYPE_CHECKING:
    from taskmill.curate.decontaminate import Search

__all__ = ["DecontaminateConfig", "decontaminate"]

CONTAMINATED = str(Reason.CONTAMINATED)
BENCHMARK_TASK = str(Reason.BENCHMARK_TASK)

_ROWS = 1 << 16  # rows of a batch: what one scan takes
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

    source: str = field(
        default="", metadata={"help": "table of training rows (Parquet, JSONL, CSV) or a folder"}
    )
    against: tuple[str, ...] = field(
        default=(),
        metadata={"help": "evaluation files, index files or names of shipped indexes; default: all shipped"},
    )
    text: tuple[str, ...] = field(
        default=(), metadata={"help": "columns that hold the text; default: all that hold text"}
    )
    benchmark_tasks: bool = field(
        default=False, metadata={"help": "keep tasks that are known by name to be made from a benchmark"}
    )
    rule: Rule = field(default_factory=Rule)


def decontaminate(
    config: DecontaminateConfig, out: str | Path, on_progress: OnProgress | None = None
) -> dict[str, Any]:
    """Write kept.parquet, dropped.parquet and report.json into a folder and return the report.

    Raises UsageError and InputError for what cannot be read or compared; nothing is written then.
    """
    folder = Path(out)
    rows = _Rows(config)
    search = prepare(against(config.against), config.rule)
    hits, total = [], 0
    for table in rows:
        hits.append(scan(joined_text(rows.texts(table)), search, total))
        total += table.num_rows
        if on_progress:
            on_progress(Progress("decontaminate", total, None, total))
    if not total:
        raise InputError(f"{config.source} holds no rows")
    found = settle(hits, search)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").unlink(missing_ok=True)
    reasons = _write(rows, found, folder, config)
    dropped = sum(reasons.values())
    suites = _suites(found, search)
    report = {
        "rule": to_mapping(config.rule),
        "text": rows.names,
        "funnel": {"in": total, "kept": total - dropped, "dropped": dict(sorted(reasons.items()))},
        "suites": suites,
        "warnings": _warnings(suites, config.rule.min_words),
    }
    atomic_write(folder / "report.json", json.dumps(report, indent=1, ensure_ascii=False).encode())
    return report


# Training rows


class _Rows:
    """The rows of the source as tables of one schema, as often as they are asked for."""

    def __init__(self, config: DecontaminateConfig) -> None:
        if not config.source:
            raise UsageError("no table is given; name the file with the training rows")
        self.files = table_files(config.source)
        self._held: dict[str, pa.Table] = {}
        self.schema: pa.Schema = (
            pq.read_schema(self.files[0])
            if self._streams(self.files[0])
            else self._whole(self.files[0]).schema
        )
        self.names = _text_columns(self.schema, config)

    @staticmethod
    def _streams(name: str) -> bool:
        return name.endswith(".parquet")

    def _whole(self, name: str) -> pa.Table:
        """Return a table that is no Parquet file; it is read once and held."""
        if name not in self._held:
            self._held[name] = read_file(name)
        return self._held[name]

    def __iter__(self) -> Iterator[pa.Table]:
        for name in self.files:
            try:
                if self._streams(name):
                    batches: Iterable[pa.RecordBatch] = pq.ParquetFile(name).iter_batches(_ROWS)
                else:
                    batches = self._whole(name).to_batches(_ROWS)
                for batch in batches:
                    table = pa.Table.from_batches([batch])
                    yield table if table.schema == self.schema else self._cast(table, name)
            except (pa.ArrowException, OSError) as error:
                raise InputError(f"{name} cannot be read: {str(error).splitlines()[0]}") from None

    def _cast(self, table: pa.Table, name: str) -> pa.Table:
        try:
            return table.select(self.schema.names).cast(self.schema)
        except (KeyError, pa.ArrowException) as error:
            raise InputError(f"{name} has other columns than {self.files[0]}: {error}") from None

    def texts(self, table: pa.Table) -> list[pa.Array]:
        """Return the text columns of a table as strings."""
        return [_strings(table[name]) for name in self.names]


def _text_columns(schema: pa.Schema, config: DecontaminateConfig) -> list[str]:
    """Return the columns to look into; raises InputError if there is none, UsageError for unknown names."""
    for name in config.text:
        if name not in schema.names:
            raise UsageError(
                f"{config.source} has no column {name!r}.{nearest(name, schema.names)} "
                f"Columns: {', '.join(schema.names)}"
            )
        if not _holds_text(schema.field(name).type):
            raise UsageError(f"{config.source}: column {name!r} holds no text but {schema.field(name).type}")
    found = list(config.text) or [f.name for f in schema if f.name not in LABELS and _holds_text(f.type)]
    if not found:
        kinds = ", ".join(f"{f.name} ({f.type})" for f in schema)
        raise InputError(
            f"{config.source} has no column of text to look into; its columns are {kinds or 'none'}"
        )
    return found


def _is_string(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_string(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _message(kind: pa.DataType) -> str:
    """Return the field of a chat message that holds its text, if a struct has one."""
    if pa.types.is_struct(kind):
        for name in ("content", "value", "text"):
            if kind.get_field_index(name) >= 0 and _is_string(kind.field(name).type):
                return name
    return ""


def _holds_text(kind: pa.DataType) -> bool:
    inner = kind.value_type if _is_list(kind) else kind
    return _is_string(inner) or (_is_list(kind) and bool(_message(inner)))


def _strings(column: pa.ChunkedArray) -> pa.Array:
    """Return a text column as one array of strings; the parts of a list are joined by line ends."""
    whole = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    if not _is_list(whole.type):
        return whole.cast(pa.large_string())
    values = whole.values
    if _message(values.type):
        values = pc.struct_field(values, _message(values.type))
    values = pc.fill_null(values.cast(pa.large_string()), "")
    lists = pa.LargeListArray.from_arrays(whole.offsets.cast(pa.int64()), values)
    return pc.binary_join(lists, pa.scalar("\n", pa.large_string()))


# What is written


def _write(rows: _Rows, found: pa.Table, folder: Path, config: DecontaminateConfig) -> Counter[str]:
    """Write both tables in the order of the input and return the number of dropped rows by reason."""
    number = found["row"].to_numpy()
    best = {int(r): i for i, r in reversed(list(enumerate(number)))} if len(number) else {}
    schema = pa.schema([*(_apart(f) for f in rows.schema), *_ADDED])
    reasons: Counter[str] = Counter()
    at = 0
    with ExitStack() as stack:
        kept = _writer(stack, folder / "kept.parquet", rows.schema)
        dropped = _writer(stack, folder / "dropped.parquet", schema)
        for table in rows:
            names = {} if config.benchmark_tasks else _named(table)
            wrong = [i for i in range(table.num_rows) if at + i in best or i in names]
            evidence = [
                _found(found, best[at + i], rows, table, i) if at + i in best else _task(names[i])
                for i in wrong
            ]
            reasons.update(e["reason"] for e in evidence)
            lost = table.take(pa.array(wrong, pa.int64()))
            columns = [*lost.columns, *pa.Table.from_pylist(evidence, schema=_ADDED).columns]
            dropped.write_table(pa.Table.from_arrays(columns, schema=schema))
            keep = set(wrong)
            mask = pa.array([i not in keep for i in range(table.num_rows)], pa.bool_())
            kept.write_table(table.filter(mask))
            at += table.num_rows
    return reasons


def _apart(f: pa.Field) -> pa.Field:
    """Return a column of the input under a name that the evidence does not use."""
    return f.with_name(f"{f.name}_in") if f.name in _ADDED.names else f


def _writer(stack: ExitStack, path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    file = stack.enter_context(Replacing(path))
    return stack.enter_context(pq.ParquetWriter(file, schema, compression="zstd"))


def _found(found: pa.Table, line: int, rows: _Rows, table: pa.Table, row: int) -> dict[str, Any]:
    """Return the evidence of one row: its best match, with the places in its columns."""
    match = found.slice(line, 1).to_pylist()[0]
    lengths = [len(_strings(table[n].slice(row, 1))[0].as_py() or "") for n in rows.names]
    spans = [{**s, "column": rows.names[s["column"]]} for s in locate(match["spans"], lengths)]
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
    from taskmill.curate.benchmark_index import benchmark_task

    columns = [table[n] for n in ("task", "task_name", "dataset", "source") if n in table.column_names]
    columns = [
        pc.struct_field(c, "dataset")
        if pa.types.is_struct(c.type) and c.type.get_field_index("dataset") >= 0
        else c
        for c in columns
    ]
    found: dict[int, tuple[str, str]] = {}
    for column in columns:
        if not _is_string(column.type):
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


def _warnings(suites: Sequence[Mapping[str, Any]], least: int) -> list[str]:
    warnings = []
    for suite in suites:
        if suite["share"] > _MATCHED:
            warnings.append(
                f"{suite['share']:.1%} of {suite['suite']} is in these rows; above {_MATCHED:.0%} Tulu 3 "
                "leaves the whole training set out, because what a filter misses is of the same source"
            )
        if suite["too_short"] == suite["items"]:
            warnings.append(f"no item of {suite['suite']} has {least} words: nothing of it could be found")
    return warnings
