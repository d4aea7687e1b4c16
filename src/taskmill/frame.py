"""The only door to the dataframe engine (Daft): scan parts, map a function over batches or over large tasks.

The same plan runs on this machine or on a Ray cluster (`runner="ray"` or `"ray:ADDRESS"`). `scan` and
`map_batches` yield Arrow tables in the order of the parts, reading ahead only a bounded number of them.
Who stops before the end must close them (`contextlib.closing`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa

from taskmill.errors import MissingExtra, UsageError

__all__ = ["map_batches", "map_rows", "scan", "use_runner"]

GROUP = 8
"""Parts per plan (chosen: 8 parts of 16 MB keep both cores busy and hold about 130 MB)."""

_BATCH = 1024


def _daft() -> Any:
    # Daft reports usage on import and on running a plan unless told not to.
    os.environ["DAFT_ANALYTICS_ENABLED"] = "0"
    os.environ["DAFT_PROGRESS_BAR"] = "0"
    import daft

    return daft


def use_runner(runner: str) -> None:
    """Choose where plans run: `native` (this machine), `ray` or `ray:ADDRESS`.

    Raises MissingExtra without Ray and UsageError for another name.
    """
    kind, _, address = runner.partition(":")
    if kind == "native":
        return
    if kind != "ray":
        raise UsageError(f"runner {runner!r} is unknown; write native, ray or ray:ADDRESS")
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise MissingExtra("ray", "cluster") from error
    # Ray reports usage on its own unless told not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    _daft().set_runner_ray(address or None)


def _tables(frame: Any) -> Generator[pa.Table]:
    # A small buffer: by default the engine reads as far ahead as it can. The iterator is closed here,
    # because one left half-read blocks the end of the process.
    with closing(frame.to_arrow_iter(results_buffer_size=1)) as batches:
        for batch in batches:
            yield pa.Table.from_batches([batch]) if isinstance(batch, pa.RecordBatch) else batch


def scan(paths: Sequence[Path], schema: pa.Schema) -> Generator[pa.Table]:
    """Yield the rows of Parquet parts as tables of `schema`, in order."""
    daft = _daft()
    for start in range(0, len(paths), GROUP):
        group = [str(p) for p in paths[start : start + GROUP]]
        with closing(_tables(daft.read_parquet(group).select(*schema.names))) as tables:
            for table in tables:
                yield table.cast(schema)


def map_batches(
    paths: Sequence[Path],
    schema: pa.Schema,
    function: Callable[[pa.Table], pa.Table],
    returns: pa.Schema,
) -> Generator[tuple[pa.Table, pa.Table]]:
    """Yield (rows, function(rows)) over Parquet parts, in order; the function runs in worker processes.

    `function` is a module-level function from a table of `schema` to one of `returns` with as many
    rows; it must depend on its rows alone.
    """
    daft = _daft()
    names = schema.names

    @daft.func.batch(  # type: ignore[untyped-decorator]
        return_dtype=daft.DataType.from_arrow_type(pa.struct(list(returns))),
        batch_size=_BATCH,
    )
    def apply(*columns: Any) -> Any:
        table = pa.Table.from_arrays([c.to_arrow() for c in columns], names=names).cast(schema)
        return function(table).to_struct_array().combine_chunks()

    for start in range(0, len(paths), GROUP):
        group = [str(p) for p in paths[start : start + GROUP]]
        frame = daft.read_parquet(group).select(*names)
        columns = [daft.col(n) for n in names]
        with closing(_tables(frame.select(*columns, apply(*columns).alias("_out")))) as tables:
            for table in tables:
                out = pa.Table.from_struct_array(table["_out"]).cast(returns)
                yield table.select(names).cast(schema), out


def map_rows(
    tasks: pa.Table, function: Callable[[pa.Table], pa.Table], returns: pa.Schema
) -> Generator[pa.Table]:
    """Yield function(row) for each row of a small table of tasks, in order; each row is a table of its own.

    Tasks run at the same time on the workers of a cluster, and one after another on this machine, where a
    task has all cores and the memory to itself. `function` is a module-level function from one row to one
    of `returns`.
    """
    daft = _daft()

    @daft.func.batch(  # type: ignore[untyped-decorator]
        return_dtype=daft.DataType.from_arrow_type(pa.struct(list(returns))), batch_size=1
    )
    def apply(*columns: Any) -> Any:
        row = pa.Table.from_arrays([c.to_arrow() for c in columns], names=tasks.schema.names)
        return function(row.cast(tasks.schema)).to_struct_array().combine_chunks()

    spread = daft.get_or_create_runner().name == "ray"
    for group in [tasks] if spread else [tasks.slice(i, 1) for i in range(len(tasks))]:
        frame = daft.from_arrow(group)
        frame = frame.into_partitions(len(group)) if spread else frame
        answers = frame.select(apply(*[daft.col(n) for n in tasks.schema.names]).alias("_out"))
        with closing(_tables(answers)) as tables:
            for table in tables:
                yield pa.Table.from_struct_array(table["_out"]).cast(returns)
