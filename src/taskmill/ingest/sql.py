"""Tables of a DuckDB database, read only: `duckdb:FILE#table`, or all tables of `duckdb:FILE`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from taskmill.errors import InputError, MissingExtra

__all__ = ["PREFIX", "Table", "rows", "tables"]

PREFIX = "duckdb:"

_BATCH = 1000  # rows


class Table(NamedTuple):
    """A table of a database; `stamp` changes with its columns and rows, not with other tables."""

    name: str
    uri: str
    stamp: str


def tables(source: str) -> list[Table]:
    """Return the tables that a source names; raises InputError, or MissingExtra without DuckDB."""
    file, _, wanted = source.removeprefix(PREFIX).partition("#")
    found = []
    with _connect(file) as connection:
        listed = connection.execute(
            "select table_schema, table_name from information_schema.tables order by 1, 2"
        ).fetchall()
        for schema, name in listed:
            full = name if schema == "main" else f"{schema}.{name}"
            if wanted in ("", full):
                count, total = connection.execute(
                    f"select count(*), sum(hash(t)::hugeint) from {_quoted(schema)}.{_quoted(name)} t"  # noqa: S608
                ).fetchone()
                found.append(Table(full, f"{PREFIX}{file}#{full}", f"{count} {total}"))
        names = ", ".join(name if schema == "main" else f"{schema}.{name}" for schema, name in listed)
    if not found:
        raise InputError(f"{file} has no table {wanted!r}; it has: {names or 'none'}")
    return found


def rows(uri: str, columns: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Yield the rows of one table as mappings, streamed; only `columns` of them where they are named."""
    file, _, name = uri.removeprefix(PREFIX).partition("#")
    schema, dot, table = name.partition(".")
    place = f"{_quoted(schema)}.{_quoted(table)}" if dot else _quoted(name)
    with _connect(file) as connection:
        own = [row[0] for row in connection.execute(f"describe {place}").fetchall()]
        asked = ", ".join(_quoted(column) for column in columns if column in own) or "*"
        result = connection.execute(f"select {asked} from {place}")  # noqa: S608 - names are quoted
        names = [column[0] for column in result.description]
        while batch := result.fetchmany(_BATCH):
            yield from (dict(zip(names, row, strict=True)) for row in batch)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _connect(file: str) -> Any:
    try:
        import duckdb
    except ImportError:
        raise MissingExtra("duckdb", "sql") from None
    if not Path(file).is_file():
        raise InputError(f"there is no database {file!r}; write duckdb:FILE#table")
    # Nothing is fetched: no extension, and no file that a view of the database may name.
    safe = {"enable_external_access": "false", "autoinstall_known_extensions": "false"}
    try:
        return duckdb.connect(file, read_only=True, config=safe)
    except duckdb.Error as error:
        line = str(error).splitlines()[0]
        raise InputError(f"{file} cannot be opened by DuckDB: {line}") from None
