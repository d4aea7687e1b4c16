"""Rows that may be more than the memory: read a piece at a time, as often as asked, and written as they go.

`opened` gives the rows of sources as `read_table` does, with the same ids in the same order, but only the ids
are held. Parquet is read by row groups; other files are read whole, one after another, and kept as
Parquet in a scratch folder while the command runs. What is asked of every piece can be asked of the workers
of a Ray cluster (`answers`).
"""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from taskmill import frame
from taskmill.durable import Replacing
from taskmill.errors import InputError
from taskmill.recipes.tables import as_one, files_of, fitted, is_text, read_file, read_schema
from taskmill.store import ROW_GROUP

__all__ = ["RUNNER", "Piecewise", "Rows", "answers", "opened"]

Array = np.ndarray[Any, Any]
Answer = Mapping[str, Array]
Job = Callable[[pa.Table, Mapping[str, Any]], Answer]
"""(a piece, what is asked) → arrays by name: a function of a module, so that a worker finds it."""

RUNNER = "where rows are read and hashed: native, ray or ray:ADDRESS"

_PIECE = 8192
"""Rows of a piece (chosen: as many as a row group we write; 5 MB of rows of 600 bytes)."""

_ANSWERED = pa.schema([("answers", pa.large_binary())])


@dataclass(frozen=True, slots=True)
class _File:
    """Parquet at `path`, made of the user's file `name`; its rows are numbered from `first` on."""

    path: str
    name: str
    first: int
    rows: int


@dataclass(frozen=True, eq=False)
class Rows:
    """All rows: `schema` with the ids, and the `ids` themselves (large text or whole numbers).

    `numbered`: no file has ids; they are the rows' numbers.
    """

    where: str
    files: Sequence[_File]
    schema: pa.Schema
    ids: pa.Array
    scratch: Path
    numbered: bool

    def __len__(self) -> int:
        return len(self.ids)

    def pieces(self, columns: Sequence[str] | None = None) -> Iterator[tuple[int, pa.Table]]:
        """Yield (number of the first row, rows) with all columns, or with some (at least one) and the ids.

        Raises InputError naming file and column for a value that does not fit the other files'.
        """
        wanted = _narrowed(self.schema, columns)
        for file in self.files:
            at, end = file.first, file.first + file.rows
            for table in _read(file.path, file.name, wanted, file.rows):
                at += len(table)
                if at > end:
                    break
                ids = self.ids.slice(at - len(table), len(table)).cast(self.schema.field("id").type)
                yield at - len(table), _named(table, ids)
            if at != end:
                raise InputError(f"{file.name} changed while it was read; run the command again")

    def names(self, rows: Array) -> list[str]:
        """Return the ids of some rows as text."""
        named: list[str] = self.ids.take(pa.array(rows)).cast(pa.large_string()).to_pylist()
        return named


def _narrowed(schema: pa.Schema, columns: Sequence[str] | None) -> pa.Schema:
    """Return the schema with some columns only: with one at least, for without any there are no rows."""
    if columns is None:
        return schema
    return pa.schema([schema.field(name) for name in columns or ["id"]])


def _named(table: pa.Table, ids: pa.Array) -> pa.Table:
    place = table.column_names.index("id") if "id" in table.column_names else -1
    return table.append_column("id", ids) if place < 0 else table.set_column(place, "id", ids)


# reading


@contextmanager
def opened(sources: Sequence[str], scratch: Path) -> Iterator[Rows]:
    """Open the rows of sources; the folder `scratch` is made when it is needed, and removed at the end.

    Raises what `read_table` does.
    """
    shutil.rmtree(scratch, ignore_errors=True)  # what a killed command left
    try:
        yield _opened(sources, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _opened(sources: Sequence[str], scratch: Path) -> Rows:
    files: list[_File] = []
    first = 0
    ids: dict[str, dict[str, pa.Table]] = {}
    empty: dict[str, dict[str, pa.Table]] = {}
    for source, names in files_of(sources).items():
        ids[source], empty[source] = {}, {}
        for name in names:
            path = name if name.endswith(".parquet") else _spooled(name, scratch / f"{len(files)}.parquet")
            schema = read_schema(path)
            rows = pq.read_metadata(path).num_rows
            empty[source][name] = schema.empty_table()
            own = read_file(path, ["id"]) if "id" in schema.names else pa.table({"row": pa.nulls(rows)})
            ids[source][name] = own
            files.append(_File(str(Path(path).absolute()), name, first, rows))
            first += rows
    schema = as_one(empty).schema
    where = ", ".join(sources)
    if not first:
        raise InputError(f"{where}: no rows in it; name a table with rows")
    held = as_one(ids)["id"]
    place = schema.get_field_index("id")
    schema = schema.set(place, schema.field(place).with_type(held.type))
    held = held.cast(pa.large_string()) if is_text(held.type) else held
    whole = held.combine_chunks()
    whole = pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole
    numbered = not any("id" in table.column_names for own in empty.values() for table in own.values())
    return Rows(where, files, schema, whole, scratch, numbered)


def _spooled(name: str, path: Path) -> str:
    """Write a file that can only be read whole as Parquet, without waiting for the disk."""
    table = read_file(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        pq.write_table(table, path, row_group_size=_PIECE * 16, use_compliant_nested_type=False)
    except pa.ArrowException as error:
        raise InputError(f"{name} cannot be kept as Parquet: {str(error).splitlines()[0]}") from None
    return str(path)


def _read(
    path: str, name: str, schema: pa.Schema, rows: int, groups: Sequence[int] | None = None
) -> Iterator[pa.Table]:
    """Yield the rows of some row groups in a schema, `rows` in all; columns they lack are null."""
    try:
        # With its defaults the reader keeps all that it has read until the end.
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
            there = [column for column in schema.names if column in file.schema_arrow.names]
            if not there:
                for at in range(0, rows, _PIECE):
                    nulls = [pa.nulls(min(_PIECE, rows - at), field.type) for field in schema]
                    yield pa.Table.from_arrays(nulls, schema=schema)
                return
            for batch in file.iter_batches(_PIECE, row_groups=groups, columns=there):
                yield fitted(pa.Table.from_batches([batch]), schema, name)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{name} cannot be read: {str(error).splitlines()[0]}") from None


# asking


def answers(
    rows: Rows, columns: Sequence[str], job: Job, asked: Mapping[str, Any], runner: str = "native",
    some: Array | None = None,
) -> Iterator[tuple[int, Array | None, Answer]]:  # fmt: skip
    """Yield (first row, numbers in the piece or None for all, what the job answers) of each piece, in order.

    The job sees these `columns` and the JSON values `asked`; with `some` rows (int64, ascending) only those.
    On a cluster each row group is a task, and the sources must be where its workers can read them; there a
    row's number stands for its id.
    """
    if runner == "native":
        for first, table in rows.pieces(columns):
            chosen = None if some is None else _within(some, first, first + len(table)) - first
            if chosen is None or len(chosen):
                yield first, chosen, job(table if chosen is None else table.take(pa.array(chosen)), asked)
        return
    tasks = pa.Table.from_pylist(list(_tasks(rows, columns, job, asked, some)), schema=_TASKS)
    for first, table in zip(tasks["first"].to_pylist(), frame.map_rows(tasks, work, _ANSWERED), strict=True):
        yield from _unpacked(first, table["answers"][0].as_py())


_TASKS = pa.schema([("task", pa.string()), ("first", pa.int64()), ("some", pa.large_binary())])


def _within(some: Array, first: int, end: int) -> Array:
    low, high = np.searchsorted(some, (first, end))
    return some[low:high]


def _tasks(
    rows: Rows, columns: Sequence[str], job: Job, asked: Mapping[str, Any], some: Array | None
) -> Iterator[dict[str, Any]]:
    """Yield a task for each row group that holds wanted rows."""
    schema = _narrowed(rows.schema, columns)
    packed = base64.b64encode(schema.serialize()).decode()
    for file in rows.files:
        held, at = pq.read_metadata(file.path), file.first
        for group in range(held.num_row_groups):
            end = at + held.row_group(group).num_rows
            chosen = None if some is None else _within(some, at, end) - at
            if end > at and (chosen is None or len(chosen)):
                task = {
                    "path": file.path, "name": file.name, "group": group, "rows": end - at, "schema": packed,
                    "module": job.__module__, "job": job.__name__, "asked": asked,
                }  # fmt: skip
                yield {
                    "task": json.dumps(task),
                    "first": at,
                    "some": None if chosen is None else chosen.astype(np.int64).tobytes(),
                }
            at = end


def work(task: pa.Table) -> pa.Table:
    """Do one task of `answers` (one row) and return the answers of its pieces, packed."""
    from importlib import import_module

    told, some = json.loads(task["task"][0].as_py()), task["some"][0].as_py()
    wanted = None if some is None else np.frombuffer(some, np.int64)
    job = getattr(import_module(told["module"]), told["job"])
    schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(told["schema"])))
    arrays: dict[str, Array] = {}
    at = 0
    for table in _read(told["path"], told["name"], schema, told["rows"], [told["group"]]):
        end = at + len(table)
        named = _named(table, pa.array(np.arange(at, end) + task["first"][0].as_py()))
        chosen = None if wanted is None else _within(wanted, at, end) - at
        if chosen is None or len(chosen):
            found = job(named if chosen is None else named.take(pa.array(chosen)), told["asked"])
            own = {} if chosen is None else {_OWN: chosen}
            arrays |= {f"{at}.{name}": values for name, values in (dict(found) | own).items()}
        at = end
    packed = io.BytesIO()
    np.savez(packed, **arrays)  # type: ignore[arg-type]
    return pa.table({"answers": [packed.getvalue()]}, schema=_ANSWERED)


_OWN = "_own"


def _unpacked(first: int, packed: bytes) -> Iterator[tuple[int, Array | None, Answer]]:
    with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
        pieces: dict[int, dict[str, Array]] = {}
        for key in arrays.files:
            at, _, name = key.partition(".")
            pieces.setdefault(int(at), {})[name] = arrays[key]
    for at, found in pieces.items():
        own = found.pop(_OWN, None)
        yield first + at, own, found


# writing


class Piecewise(AbstractContextManager["Piecewise"]):
    """A Parquet file at `path` that is written as rows come and takes its place when the block ends well.

    Its row groups, and so its bytes, do not depend on how the rows come.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._stack = ExitStack()
        self._path, self._schema = path, schema
        self._held: list[pa.Table] = []
        self._rows, self._empty = 0, True

    def __enter__(self) -> Piecewise:
        file = self._stack.enter_context(Replacing(self._path))
        self._writer = self._stack.enter_context(pq.ParquetWriter(file, self._schema, compression="zstd"))
        return self

    def add(self, rows: pa.Table) -> None:
        """Take rows of the schema."""
        self._held.append(rows)
        self._rows += len(rows)
        if self._rows >= ROW_GROUP:
            self._flush(self._rows // ROW_GROUP * ROW_GROUP)

    def _flush(self, rows: int) -> None:
        whole = pa.concat_tables([self._schema.empty_table(), *self._held])
        self._empty = False
        for at in range(0, max(rows, 1), ROW_GROUP):
            group = whole.slice(at, min(ROW_GROUP, rows - at))
            self._writer.write_table(group.combine_chunks(), row_group_size=ROW_GROUP)
        self._held, self._rows = [whole.slice(rows)], self._rows - rows

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and (self._rows or self._empty):
            self._flush(self._rows)
        self._stack.__exit__(kind, error, trace)
