"""What a mixture is drawn from: its sources as rows in memory, told apart as tasks, with their lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from taskmill.errors import ConfigError, InputError
from taskmill.export.licences import is_unknown, plain_name
from taskmill.ingest import tokens as prices
from taskmill.mix.source import Mixture, Source, leaves
from taskmill.mix.weights import Task
from taskmill.recipes.data_folder import file_record
from taskmill.recipes.layouts import LAYOUTS, as_parts, has_layout, layouts_of
from taskmill.recipes.tables import (
    column,
    is_text,
    joined,
    number_rest,
    read_file,
    table_files,
    with_ids,
)
from taskmill.record import Reason
from taskmill.registry import nearest

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = [
    "Pool",
    "lengths",
    "meets",
    "place_of",
    "read_pool",
    "source_files",
]


@dataclass(frozen=True, eq=False)
class Pool:
    """All rows of a mixture in one table, and of each task the numbers of its rows there, sorted by id.

    `tokens` (int64): the tokens of each row; `files`: what was read, with its size and hash; `dropped`: rows
    that no task has, with the reason.
    """

    table: pa.Table
    tasks: list[Task]
    rows: list[Array]
    tokens: Array
    files: list[dict[str, Any]]
    dropped: pa.Table

    @cached_property
    def of_source(self) -> dict[str, list[int]]:
        """Return the numbers of each source's tasks."""
        found: dict[str, list[int]] = {}
        for i, task in enumerate(self.tasks):
            found.setdefault(task.source, []).append(i)
        return found

    @cached_property
    def facts(self) -> dict[str, list[dict[str, int]]]:
        """Return of each of FACTS what the rows of every task state, with their numbers ("": nothing)."""
        import numpy as np

        found: dict[str, list[dict[str, int]]] = {}
        for fact in FACTS:
            coded = pc.dictionary_encode(stated(self.table, fact).combine_chunks())
            codes, values = np.asarray(coded.indices), coded.dictionary.to_pylist()
            counts = (np.bincount(codes[rows], minlength=len(values)).tolist() for rows in self.rows)
            found[fact] = [
                dict(sorted((v, n) for v, n in zip(values, own, strict=True) if n)) for own in counts
            ]
        return found

    @cached_property
    def sizes(self) -> Array:
        """Return how many rows each task has (int64)."""
        import numpy as np

        return np.array([len(rows) for rows in self.rows], np.int64)

    @cached_property
    def line(self) -> Array:
        """Return the rows of all tasks, one task behind the other."""
        import numpy as np

        return np.concatenate(self.rows)


def source_files(place: str) -> list[str]:
    """Return the files of a source (`tables.table_files`); raises InputError for one that is not there."""
    if not place.startswith("hf:") and not Path(place).exists() and not glob(place, recursive=True):
        raise InputError(f"{place}: there is no such file or folder; correct the path")
    return table_files(place)


def read_pool(mixture: Mixture, base: Path, licences: Sequence[str] = ()) -> Pool:
    """Read all sources of a mixture; paths are relative to `base` (where its file is), or else to here.

    With `licences`, rows that state another one, or none, are dropped. Raises InputError for a source without
    rows, or one that cannot be read; ConfigError for a column that is not there.
    """
    import numpy as np

    tables, names, files, dropped = {}, {}, [], []
    for leaf in leaves(mixture.root):
        own = {name: read_file(name) for path in leaf.path for name in source_files(place_of(path, base))}
        rows = with_ids(joined(number_rest(own)), leaf.name, prefix=f"{leaf.name}/")
        if not len(rows):
            raise InputError(
                f"{leaf.name}: no rows in {', '.join(leaf.path)}; name other files, or leave it out"
            )
        sizes = {name: len(table) for name, table in own.items()}
        tasks_of = _task_names(leaf, rows, sizes)
        wanted = _wanted(leaf, rows, tasks_of)
        rows, tasks_of = rows.filter(wanted), tasks_of.filter(wanted)
        if not len(rows):
            raise InputError(f"{leaf.name}: no row is as `where` and `only` want it; leave it out")
        if licences:
            admitted = _admitted(rows, licences)
            dropped.append(_refused(leaf.name, rows.filter(pc.invert(admitted))))
            rows, tasks_of = rows.filter(admitted), tasks_of.filter(admitted)
            if not len(rows):
                raise InputError(
                    f"{leaf.name}: no row is licensed as {', '.join(licences)}; leave it out, or admit others"
                )
        names[leaf.name] = tasks_of
        tables[leaf.name] = rows
        files += [file_record(name, source=leaf.name, rows=count) for name, count in sizes.items()]
    tokens = np.concatenate([_tokens(leaf, tables[leaf.name]) for leaf in leaves(mixture.root)])
    table = joined(_text_ids(tables)).combine_chunks()
    tasks, rows_of, begin = [], [], 0
    for name, own_tasks in names.items():
        ids = tables[name]["id"].cast(pa.string())
        order = pc.sort_indices(ids).to_numpy()
        coded = own_tasks.dictionary_encode().combine_chunks()
        codes, values = np.asarray(coded.indices)[order], coded.dictionary.to_pylist()
        for code, value in sorted(enumerate(values), key=lambda pair: pair[1]):
            mine = begin + order[codes == code]
            tasks.append(Task(name, value, len(mine), float(tokens[mine].mean())))
            rows_of.append(mine.astype(np.int64))
        begin += len(ids)
    return Pool(table, tasks, rows_of, tokens, files, pa.concat_tables([_DROPPED.empty_table(), *dropped]))


_COMPARED = {
    "==": pc.equal, "!=": pc.not_equal, ">=": pc.greater_equal, "<=": pc.less_equal, ">": pc.greater,
    "<": pc.less,
}  # fmt: skip


def meets(leaf: Source, rows: pa.Table) -> pa.Array:
    """Say of each row whether it is as `where` says; raises ConfigError for what cannot be compared."""
    found = pa.repeat(True, len(rows))
    for name, condition in leaf.where.items():
        empty = type(condition.value)()
        cells = rows[name] if name in rows.column_names else pa.nulls(len(rows), pa.scalar(empty).type)
        try:
            filled = pc.fill_null(cells, pa.scalar(empty, cells.type))
            found = pc.and_(found, _COMPARED[condition.sign](filled, condition.value))
        except (pa.ArrowException, TypeError):
            kind = f"{cells.type}, which does not compare with {condition.value!r}"
            raise ConfigError(f"{leaf.name}: where: {name} is of {kind}; correct the condition") from None
    return found


def _wanted(leaf: Source, rows: pa.Table, tasks_of: pa.ChunkedArray) -> pa.Array:
    """Say of each row whether it is as `where` says, and of a task that `only` names."""
    found = meets(leaf, rows)
    if not leaf.only:
        return found
    there = pc.unique(tasks_of).to_pylist()
    missing = next((one for one in leaf.only if one not in there), None)
    if missing is not None:
        known = f"there are {', '.join(map(str, there[:5]))}{' …' if len(there) > 5 else ''}"
        raise ConfigError(f"{leaf.name}: only: no task {missing!r}.{nearest(missing, there) or f' {known}'}")
    return pc.and_(found, pc.is_in(tasks_of, pa.array(leaf.only, pa.string())))


_DROPPED = pa.schema(
    [("id", pa.string()), ("mix_source", pa.string()), ("reason", pa.string()), ("detail", pa.string())]
)
"""What is written of rows that no task has."""


FACTS = {
    "licences": (("licence", ""), ("license", ""), ("source", "licence")),
    "languages": (("language", ""), ("lang", "")),
    "categories": (("cluster", ""), ("category", "")),
}
"""What rows may state of themselves, and where: a column, or a field of one."""


def stated(table: pa.Table, fact: str) -> pa.ChunkedArray:
    """Return what each row states of one of FACTS; "" for nothing."""
    found = [pa.chunked_array([pa.nulls(len(table), pa.string())])]
    for head, inner in FACTS[fact]:
        if head not in table.column_names:
            continue
        values = table[head]
        if inner and (not pa.types.is_struct(values.type) or values.type.get_field_index(inner) < 0):
            continue
        values = pc.struct_field(values, inner) if inner else values
        if is_text(values.type):
            values = values.cast(pa.string())
            found.append(pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.string()), values))
    return pc.coalesce(*found, "")


def _admitted(table: pa.Table, licences: Sequence[str]) -> pa.ChunkedArray:
    """Say of each row whether its licence is one of these; case and punctuation do not count."""
    wanted = {"" if is_unknown(one) else plain_name(one) for one in licences}
    licences = stated(table, "licences")
    fits = [
        one
        for one in pc.unique(licences).to_pylist()
        if ("" if is_unknown(one) else plain_name(one)) in wanted
    ]
    return pc.is_in(licences, pa.array(fits, pa.string()))


def _refused(source: str, rows: pa.Table) -> pa.Table:
    count = len(rows)
    own = stated(rows, "licences")
    detail = pc.if_else(pc.equal(own, ""), "it states none", pc.binary_join_element_wise("it is", own, " "))
    columns = [rows["id"].cast(pa.string()), pa.array([source] * count, pa.string())]
    return pa.table([*columns, pa.array([str(Reason.LICENCE)] * count, pa.string()), detail], schema=_DROPPED)


def place_of(path: str, base: Path) -> str:
    """Return where a source is: beside the mixture's file if it is there, else as it is written."""
    if path.startswith("hf:") or Path(path).is_absolute():
        return path
    beside = base / path
    there = beside.exists() or any(base.glob(path))
    return str(beside) if there else path


def _task_names(leaf: Source, rows: pa.Table, sizes: Mapping[str, int]) -> pa.ChunkedArray:
    """Return the task of each row of a source; "" where they are not told apart."""
    if leaf.tasks == "file":
        stems = [Path(name).name.partition(".")[0] for name in sizes]
        short = stems if len(set(stems)) == len(stems) else list(sizes)
        of = pa.array([at for at, rows in enumerate(sizes.values()) for _ in range(rows)], pa.int32())
        return pa.chunked_array([pa.array(short, pa.string()).take(of)])
    name = leaf.tasks
    if name == "auto":
        name = "task" if "task" in rows.column_names and is_text(rows["task"].type) else "none"
    if name == "none":
        return pa.chunked_array([pa.repeat("", len(rows))])
    if name not in rows.column_names:
        raise ConfigError(
            f"{leaf.name}: tasks: no column {name!r}; there are: {', '.join(rows.column_names)}"
        )
    try:
        return pc.fill_null(rows[name].cast(pa.string()), "")
    except pa.ArrowException:
        raise ConfigError(
            f"{leaf.name}: tasks: the column {name!r} holds {rows[name].type}, not names"
        ) from None


def _text_ids(tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """Make ids text, and write those that several sources have as SOURCE/id in each."""
    ids = {name: table["id"].cast(pa.string()) for name, table in tables.items()}
    counts = pa.chunked_array([c for own in ids.values() for c in own.chunks], pa.string()).value_counts()
    shared = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    found = {}
    for name, table in tables.items():
        named = pc.binary_join_element_wise(pa.scalar(f"{name}/"), ids[name], "")
        own = pc.if_else(pc.is_in(ids[name], shared), named, ids[name])
        found[name] = table.set_column(table.column_names.index("id"), "id", own)
    return found


# lengths


def _tokens(leaf: Source, rows: pa.Table) -> Array:
    import numpy as np

    if not leaf.tokens:
        return lengths(rows)
    counts = column(rows, leaf.tokens, leaf.name, "tokens")
    if not pa.types.is_integer(counts.type) or pc.any(pc.fill_null(pc.less(counts, 0), True)).as_py():
        raise InputError(
            f"{leaf.name}: the column {leaf.tokens!r} must hold a count of 0 or more in each row"
        )
    return np.asarray(counts.combine_chunks(), np.int64)


def lengths(rows: pa.Table) -> Array:
    """Estimate the tokens of each row (int64): of its layout's columns, else of `text`, else of all texts."""
    import numpy as np

    from taskmill.kernels.lengths import costs
    from taskmill.kernels.words import buffers

    texts = rows
    if has_layout(rows.column_names):
        wanted = {c for layout in layouts_of(rows.column_names) for c in LAYOUTS[layout] if c}
        texts = rows.select([c for c in rows.column_names if c in wanted])
        if not all(is_text(field.type) for field in texts.schema):
            texts = as_parts(rows)
    elif "text" in rows.column_names:
        texts = rows.select(["text"])
    total = np.zeros(len(rows), np.int64)
    price = np.frombuffer(prices._PRICES, np.uint8)
    for field in texts.schema:
        if is_text(field.type):
            data, offsets = buffers(texts[field.name])
            total += costs(data, offsets, price, prices._DEVANAGARI_DISCOUNT)
    return -(-total // prices.COST_PER_TOKEN)
