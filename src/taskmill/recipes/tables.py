"""Tables that commands over finished data read and write: files and run folders as rows with ids.

What all such commands share is here: which files a source means, one schema over them, the ids of rows, where
results may be written, and which layout of instruction data the columns are in.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import taskmill
from taskmill.durable import atomic_write
from taskmill.errors import InputError, UsageError
from taskmill.ingest.records import find_tables, read_records
from taskmill.registry import nearest
from taskmill.store import parts, read_json

__all__ = [
    "UNFINISHED",
    "apart",
    "as_one",
    "begin_results",
    "check_out",
    "column",
    "command_of",
    "end_results",
    "files_of",
    "fitted",
    "is_list",
    "is_text",
    "joined",
    "number_rest",
    "over_half",
    "read_file",
    "read_schema",
    "read_table",
    "table_files",
    "unified",
    "with_evidence",
    "with_ids",
    "without_evidence",
]

UNFINISHED = ".unfinished.json"
"""Stands in a folder of results until its manifest does (`data_folder`)."""

# files


def table_files(source: str) -> list[str]:
    """Return the files of a source: those of a run's last finished stage, or what a path or glob names.

    A folder that `curate`, `dedup` or `decontaminate` wrote stands for its kept rows, one that `mix` or
    `render` wrote for those in `data/`.
    """
    folder = Path(source)
    if (folder / "kept.parquet").exists():
        if not (folder / "report.json").exists():
            raise InputError(f"{source} is unfinished (it has no report.json); run its command again first")
        return [str(folder / "kept.parquet")]
    if not (folder / "manifest.json").exists():
        if (folder / UNFINISHED).exists():
            raise InputError(f"{source} is unfinished (it has no manifest.json); run its command again first")
        return find_tables([source])
    if command_of(folder / "manifest.json") in ("mix", "render"):
        return find_tables([str(folder / "data")])
    stages = [p for p in folder.glob("[0-9]*-*") if (p / "stage.json").exists() and parts(p / "kept")]
    if not stages:
        raise InputError(f"{source} is a run in which no stage is finished; run its command again first")
    last = max(stages, key=lambda p: int(p.name.partition("-")[0]))
    return [str(p) for p in parts(last / "kept")]


def read_table(sources: Sequence[str]) -> pa.Table:
    """Return the rows of all sources as one table with an `id` (`with_ids`); columns a source lacks are null.

    Of several sources, rows without ids are numbered as `SOURCE/0`, and an id that more than one of them has
    is written as `SOURCE/id` in each. Raises UsageError without a source, InputError naming the file for what
    cannot be read, has no rows, or has a column of another kind than the others.
    """
    if not sources:
        raise UsageError("no data is given; name a Parquet or JSONL file, or a run folder")
    files = files_of(sources)
    whole = as_one({source: {file: read_file(file) for file in own} for source, own in files.items()})
    if not len(whole):
        raise InputError(f"{', '.join(sources)}: no rows in it; name a table with rows")
    return whole


def files_of(sources: Sequence[str]) -> dict[str, list[str]]:
    """Return source → its files; raises UsageError for a source that is given twice."""
    _short_names(sources)
    return {source: table_files(source) for source in sources}


def as_one(sources: Mapping[str, Mapping[str, pa.Table]]) -> pa.Table:
    """Return the rows of all sources (source → file → rows) as `read_table` does, or some of their columns.

    The ids depend on the columns `id` and the numbers of rows only.
    """
    names = _short_names(list(sources))
    tables = {}
    for source, name in names.items():
        rows = joined(number_rest(sources[source]))
        tables[source] = with_ids(rows, source, prefix=f"{name}/" if len(names) > 1 else "")
    whole = joined(_ids_apart(tables, names) if len(names) > 1 else tables)
    return with_ids(whole, ", ".join(sources))


def read_file(name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the rows of one table file, or only some `columns`; raises InputError if it cannot be read."""
    if not name.endswith(".parquet"):
        table = _objects(name)
        return table if columns is None else table.select(columns)
    try:
        with pq.ParquetFile(name) as file:
            _each_once(name, file.schema_arrow)
            table = file.read(columns)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{name} cannot be read: {str(error).splitlines()[0]}") from None
    return fitted(table, unified({name: table.schema}), name)


def read_schema(name: str) -> pa.Schema:
    """Return the columns of one table file; raises InputError if it cannot be read."""
    if not name.endswith(".parquet"):
        return _objects(name).schema
    try:
        return pq.read_schema(name)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{name} cannot be read: {str(error).splitlines()[0]}") from None


def _each_once(name: str, schema: pa.Schema) -> None:
    twice = next((column for column, count in Counter(schema.names).items() if count > 1), None)
    if twice is not None:
        raise InputError(f"{name} has two columns {twice!r}; rename one")


def _objects(name: str) -> pa.Table:
    """Read a file of objects; a key that some rows lack is null there."""
    rows = list(read_records(name))
    columns = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        try:
            columns[key] = pa.array([row.get(key) for row in rows])
        except (pa.ArrowException, OverflowError) as error:
            raise InputError(
                f"{name}: {key!r} mixes kinds of values ({str(error).splitlines()[0]})"
            ) from None
    return pa.table(columns)


# one schema


def unified(schemas: Mapping[str, pa.Schema]) -> pa.Schema:
    """Return a schema with every column of all files (name → schema), in order of first appearance.

    Kinds that hold each other become the wider one (whole number and float, text and large text, null and
    anything); text in dictionaries or views is plain text. What a writer noted beside the columns (pandas,
    datasets) is left out: it is not true of the union. Raises InputError naming file and column that clash.
    """
    kinds: dict[str, pa.DataType] = {}
    for name, schema in schemas.items():
        _each_once(name, schema)
        for field in schema:
            kind = _plain(field.type)
            try:
                kinds[field.name] = _wider(kinds[field.name], kind) if field.name in kinds else kind
            except pa.ArrowException:
                raise InputError(
                    f"{name}: column {field.name!r} holds {kind}, in the files before it "
                    f"{kinds[field.name]}; make them of one kind, or rename one"
                ) from None
    return pa.schema(list(kinds.items()))


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    return pa.large_string() if pa.types.is_string_view(kind) else kind


def _wider(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    both = [pa.schema([("", kind)]) for kind in (one, other)]
    return pa.unify_schemas(both, promote_options="permissive").field(0).type


def fitted(table: pa.Table, schema: pa.Schema, name: str) -> pa.Table:
    """Return rows of the file `name` in a schema that `unified` made; columns they lack are null.

    Raises InputError naming the column with a value that the schema cannot hold.
    """
    if not len(schema):
        return table.select([])  # a table made of no columns would have no rows
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.nulls(len(table), field.type))
            continue
        try:
            own = table[field.name]
            columns.append(own if own.type == field.type else own.cast(field.type))
        except pa.ArrowException as error:
            raise InputError(f"{name}: column {field.name!r}: {str(error).splitlines()[0]}") from None
    return pa.Table.from_arrays(columns, schema=schema)


def joined(tables: Mapping[str, pa.Table]) -> pa.Table:
    """Return the rows of all tables (file → rows) in one schema, in their order."""
    schema = unified({name: table.schema for name, table in tables.items()})
    return pa.concat_tables([fitted(table, schema, name) for name, table in tables.items()])


def is_text(kind: pa.DataType) -> bool:
    """Say whether a column of this kind holds text, in a dictionary or not."""
    kind = _plain(kind)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_list(kind: pa.DataType) -> bool:
    """Say whether a column of this kind holds lists."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def column(table: pa.Table, name: str, where: str, flag: str = "", *, text: bool = False) -> pa.ChunkedArray:
    """Return a column the user named; raises UsageError naming the nearest one if it is not there.

    `where`: what the rows are of; `flag`: with which to name another one; `text`: it must hold text.
    """
    there = table.column_names
    other = f" Name one with {flag}:" if flag else " Columns:"
    if name not in there:
        raise UsageError(f"{where}: no column {name!r}.{nearest(name, there)}{other} {', '.join(there)}")
    if text and not is_text(table[name].type):
        raise UsageError(
            f"{where}: column {name!r} holds {table[name].type}, not text.{other} {', '.join(there)}"
        )
    return table[name]


# ids


def with_ids(
    table: pa.Table, where: str = "the input", *, name: str = "id", prefix: str = "", first: int = 0
) -> pa.Table:
    """Return the rows with ids in the column `name`: where there is none, row numbers as text.

    Numbers begin at `first`, and `prefix` stands before each. Raises InputError naming the row for an id that
    is missing, stands twice, or is neither a text nor a whole number.
    """
    if name not in table.column_names:
        numbers = pa.array(range(first, first + len(table)), pa.int64()).cast(pa.string())
        return table.add_column(0, name, pc.binary_join_element_wise(pa.scalar(prefix), numbers, ""))
    ids, out = table[name], f"or leave the column {name!r} out: rows are numbered then"
    if len(ids) and not (pa.types.is_integer(ids.type) or is_text(ids.type) or pa.types.is_null(ids.type)):
        raise InputError(f"{where}: ids are texts or whole numbers, not {ids.type}; rename {name!r}")
    if ids.null_count:
        row = pc.index(ids.is_null(), True).as_py()
        raise InputError(f"{where}: row {row} (counted from 0) has no {name!r}; give it one, {out}")
    if pc.count_distinct(ids).as_py() < len(ids):
        seen: dict[Any, int] = {}
        for row, value in enumerate(ids.to_pylist()):
            if seen.setdefault(value, row) != row:
                raise InputError(
                    f"{where}: rows {seen[value]} and {row} (counted from 0) both have the {name} {value!r}; "
                    f"give each its own, {out}"
                )
    return table


def number_rest(files: Mapping[str, pa.Table], name: str = "id") -> dict[str, pa.Table]:
    """Return the tables (file → rows) of one source: where only some have ids, others get `FILE/0`, …."""
    without = [file for file, table in files.items() if name not in table.column_names]
    if len(without) in (0, len(files)):
        return dict(files)
    short = _short_names(list(files))
    return {file: with_ids(table, file, name=name, prefix=f"{short[file]}/") for file, table in files.items()}


def _short_names(sources: Sequence[str]) -> dict[str, str]:
    """Return a short name for each source: the last part of its path, or all of it where those are equal."""
    again = next((source for source, count in Counter(sources).items() if count > 1), None)
    if again is not None:
        raise UsageError(f"{again} is given twice; name it once")
    short = {source: Path(source).name.partition(".")[0] or source for source in sources}
    counts = Counter(short.values())
    return {source: name if counts[name] == 1 else source for source, name in short.items()}


def _ids_apart(tables: Mapping[str, pa.Table], names: Mapping[str, str]) -> dict[str, pa.Table]:
    """Write ids that several sources have as SOURCE/id in each; ids of different kinds become text."""
    ids = {source: table["id"].cast(pa.string()) for source, table in tables.items()}
    counts = pa.chunked_array([c for own in ids.values() for c in own.chunks], pa.string()).value_counts()
    shared = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    if not len(shared) and len({table["id"].type for table in tables.values()}) == 1:
        return dict(tables)
    apart = {}
    for source, table in tables.items():
        named = pc.binary_join_element_wise(pa.scalar(f"{names[source]}/"), ids[source], "")
        own = pc.if_else(pc.is_in(ids[source], shared), named, ids[source])
        apart[source] = table.set_column(table.column_names.index("id"), "id", own)
    return apart


# results


def check_out(
    out: str | Path, sources: Sequence[str], command: str, *, again: bool = False, file: bool = False,
    also: Sequence[str] = (),
) -> Path:  # fmt: skip
    """Return where results go; raises UsageError where they would destroy or hide something else.

    Refused are a source or a place in one, the folder that a source file lies in, run folders and places in
    them, and folders with a `report.json` that `command` did not write. `again`: the source itself may be
    written (curate decides anew); `file`: `out` is a file rather than a folder; `also`: commands whose
    results `command` may replace as its own.
    """
    path = Path(out)
    if path.exists() and path.is_dir() == file:
        raise UsageError(f"--out {path} is a {'folder' if file else 'file'}; choose another --out")
    real = path.resolve()
    for source in sources:
        if source.startswith("hf:") or (again and Path(source).resolve() == real):
            continue
        files = [Path(name).resolve() for name in table_files(source)]
        folders = [] if file else [one.parent for one in files]
        if real in (*files, *folders) or Path(source).resolve() in (real, *real.parents):
            raise UsageError(f"--out {path} would write into the source {source}; choose a place of its own")
    folder = real.parent if file else real
    run = next((p for p in (folder, *folder.parents) if _is_run(p, folder)), None)
    if run is not None:
        raise UsageError(f"--out {path} lies in the run folder {run}; choose a place outside of it")
    if (folder / "report.json").exists():
        whose = command_of(folder / "report.json")
        if whose not in (command, *also) or file:
            by = f"of {whose}" if whose else "that no command of this version wrote"
            raise UsageError(f"{folder} holds a report.json {by}; choose another --out")
    return path


def command_of(record: Path) -> Any:
    """Return which command wrote a report, a manifest or a mark; None for another tool's, and for no file."""
    found: Any = read_json(record)
    return found.get("command") if isinstance(found, dict) else None


def _is_run(folder: Path, out: Path) -> bool:
    """Say whether results in `out` would lie in the run `folder`; other tools have manifests of that name."""
    marks = ["manifest.json"] if folder == out else ["manifest.json", "config.yaml"]
    return all((folder / name).exists() for name in marks)


def begin_results(folder: Path) -> None:
    """Make the folder of results; an earlier report goes first, so that a killed command leaves none."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").unlink(missing_ok=True)


def end_results(folder: Path, command: str, report: Mapping[str, Any]) -> dict[str, Any]:
    """Write `report.json`, by which the folder is finished and known as `command`'s; return its content."""
    whole = {"command": command, "taskmill": taskmill.__version__, **report}
    atomic_write(folder / "report.json", json.dumps(whole, indent=1, ensure_ascii=False).encode())
    return whole


def apart(names: Sequence[str], added: Sequence[str]) -> list[str]:
    """Return names for the input's columns beside evidence of the names `added`: taken ones end in `_in`.

    So the dropped rows of one command can be the input of another.
    """
    found: list[str] = []
    for name in names:
        new = name
        while new in added or new in found or (new != name and new in names):
            new += "_in"
        found.append(new)
    return found


def with_evidence(table: pa.Table, evidence: Mapping[str, pa.Array]) -> pa.Table:
    """Return rows with columns of evidence behind their own (`apart`)."""
    columns = {**dict(zip(apart(table.column_names, list(evidence)), table.columns, strict=True)), **evidence}
    return pa.table(columns)


def without_evidence(judged: pa.Table, schema: pa.Schema) -> pa.Table:
    """Reverse `with_evidence`: return the rows in the schema they had."""
    return judged.select(list(range(len(schema)))).rename_columns(schema.names)


def over_half(dropped: Mapping[str, int], rows: int, advice: str) -> list[str]:
    """Return a warning for each cause that dropped more than half of all rows."""
    many = [(cause, count) for cause, count in dropped.items() if count > rows / 2]
    return [f"{cause} dropped {count:,} of {rows:,} rows; {advice}" for cause, count in many]
