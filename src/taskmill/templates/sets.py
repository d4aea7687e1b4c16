"""Where the fields of a data set stand: declared for public sets in `sets.yaml`, else by its columns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import minijinja

from taskmill.config import packaged
from taskmill.errors import ConfigError, UnknownName
from taskmill.record import Reason
from taskmill.registry import nearest
from taskmill.templates.schema import ROLES

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["DataSet", "Unfit", "declared", "fields_of", "find", "from_columns", "ids_of", "plain_columns"]

_ROLES = (*ROLES, "gold", "licence", "language")
_NAME = re.compile(r"[A-Za-z_]\w*")
_LABELLED = re.compile(r"^\s*\(?[A-Ea-e1-5]\)?[).:]\s*|^\s*\([A-E]\)\s*")


@dataclass(frozen=True, slots=True)
class DataSet:
    """One data set: its clusters, its licence, and for each role a column or an expression over columns."""

    name: str
    clusters: tuple[str, ...]
    fields: Mapping[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    licence: str = ""
    language: str = ""
    """Code of the language of all rows, where no field says that of each."""
    where: str = ""
    id: str = ""
    """Expression for the id of a row, where the column `id` is not one; "number": rows are numbered."""
    join: Mapping[str, Any] = field(default_factory=dict)
    """`file` beside the source, `by` a column of both, and the `columns` to take over from it."""

    @property
    def has(self) -> frozenset[str]:
        """Return the roles its rows have; a place of the right option is an answer."""
        return frozenset("answer" if role == "gold" else role for role in self.fields)


class Unfit(ValueError):
    """A row has not what its data set declares, or is left out by it; the message says why."""

    def __init__(self, message: str, reason: Reason = Reason.NULL_TEXT) -> None:
        super().__init__(message)
        self.reason = reason


@cache
def declared() -> Mapping[str, DataSet]:
    """Return the sets of `sets.yaml` by name."""
    entries = packaged("taskmill.templates", "sets.yaml")
    found = {}
    for entry in entries:
        lists = {key: tuple(entry[key]) for key in ("files", "clusters")}
        found[entry["name"]] = DataSet(**{"language": "en", **entry, **lists})
    return found


def find(name: str, source: str) -> DataSet | None:
    """Return the declared set of this name, or without one the set that a file of this name is of.

    Raises UnknownName for a name that is not declared.
    """
    if name:
        if name not in declared():
            known = ", ".join(declared())
            raise UnknownName(f"no set is called {name!r}.{nearest(name, declared())} Known: {known}")
        return declared()[name]
    stem = Path(source).name.partition(".")[0]
    matching = (one for one in declared().values() if any(fnmatchcase(stem, f) for f in one.files))
    return next(matching, None)


def from_columns(
    name: str, columns: Sequence[str], given: Mapping[str, str], cluster: str, licence: str = ""
) -> DataSet:
    """Return a set whose columns are called like the roles, or are named in `given` (role → column).

    Raises ConfigError for a role that there is none, and where no column is a field.
    """
    for role in given:
        if role not in _ROLES:
            raise ConfigError(f"{role!r} is no field.{nearest(role, _ROLES)} Known: {', '.join(_ROLES)}")
    found = {role: given.get(role, role) for role in _ROLES if role in given or role in columns}
    if not found:
        raise ConfigError(
            f"{name} has none of the columns {', '.join(_ROLES)}; name them with --field question=COLUMN "
            "--field answer=COLUMN, or name a declared set with --set"
        )
    return DataSet(name, (cluster,) if cluster else (), found, licence=licence)


def _environment() -> minijinja.Environment:
    environment = minijinja.Environment(undefined_behavior="strict", pycompat=True)
    # Options of some sets bring labels of their own, "(A)like this".
    environment.add_filter("stripped", lambda texts: [_LABELLED.sub("", t).strip() for t in texts])
    return environment


def ids_of(dataset: DataSet, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the id of each row by the expression of the set; "number" numbers them."""
    if dataset.id == "number":
        return [str(i) for i in range(len(rows))]
    environment = _environment()
    return [str(environment.eval_expr(dataset.id, **row)) for row in rows]


def fields_of(dataset: DataSet, rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any] | Unfit]:
    """Yield the fields of each row (texts, `options` a list, `gold` places), or why it has none."""
    environment = _environment()
    plain = {role: text for role, text in dataset.fields.items() if _NAME.fullmatch(text)}
    others = {role: text for role, text in dataset.fields.items() if role not in plain}
    for row in rows:
        try:
            if dataset.where and not environment.eval_expr(dataset.where, **row):
                raise Unfit(f"left out: {dataset.where} does not hold", Reason.NOT_APPLICABLE)
            found = {role: _present(row, name) for role, name in plain.items()}
            found |= {role: environment.eval_expr(text, **row) for role, text in others.items()}
            yield _typed(found)
        except Unfit as error:
            yield error
        except minijinja.TemplateError as error:
            yield Unfit(f"{str(error).splitlines()[0].partition(' (in ')[0]} in a field of {dataset.name}")


def plain_columns(table: pa.Table, dataset: DataSet) -> dict[str, pa.Array]:
    """Return the columns of a set whose fields are nothing but columns of text; {} for any other set."""
    import pyarrow as pa

    names = dataset.fields.values()
    if (
        dataset.where
        or {"options", "gold"} & set(dataset.fields)
        or not set(names) <= set(table.column_names)
    ):
        return {}
    if not all(pa.types.is_string(table[name].type) for name in names):
        return {}
    return {role: table[name].combine_chunks() for role, name in dataset.fields.items()}


def _present(row: Mapping[str, Any], name: str) -> Any:
    if name not in row:
        raise Unfit(f"no column {name!r}.{nearest(name, list(row))}")
    return row[name]


def _typed(found: dict[str, Any]) -> dict[str, Any]:
    typed: dict[str, Any] = {}
    for role, value in found.items():
        if role == "options":
            if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
                raise Unfit("the options are no list of texts", Reason.BAD_OPTIONS)
            typed[role] = value
        elif role == "gold":
            places = value if isinstance(value, list) else [value]
            if not all(isinstance(p, int) and not isinstance(p, bool) for p in places):
                raise Unfit(f"the place of the right option is {value!r}, no number", Reason.BAD_OPTIONS)
            typed[role] = places
        elif role in ("licence", "language"):
            typed[role] = "" if value is None else str(value)
        elif role == "answer" and isinstance(value, list):
            typed[role] = [_text(role, v) for v in value]
        else:
            typed[role] = _text(role, value)
    return typed


def _text(role: str, value: Any) -> str:
    if isinstance(value, bool) or (value is not None and not isinstance(value, str | int | float)):
        raise Unfit(f"the {role} is no text but {type(value).__name__}")
    text = "" if value is None else str(value)
    if not text.strip():
        raise Unfit(f"the {role} is empty")
    return text
