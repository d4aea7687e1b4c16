"""The mixing journey: a mixture's file → rows in their order, and a manifest of what each source gave.

    OUT/  data/train-00000-of-00002.parquet …  dropped.parquet  manifest.json

`manifest.json` is written last: without it the folder is unfinished, and the same command goes on behind the
parts that are there (`data_folder`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from taskmill.config import load_yaml
from taskmill.durable import atomic_write
from taskmill.errors import UsageError
from taskmill.mix.importers import imported
from taskmill.mix.source import Mixture, leaves, read_mixture
from taskmill.recipes.data_card import mixture_card
from taskmill.recipes.data_folder import begin, finish, own_folder, part_names
from taskmill.recipes.mix_manifest import manifest_of
from taskmill.recipes.mixing import Pool, place_of, read_pool, source_files
from taskmill.recipes.session import OnProgress, Progress, ignore
from taskmill.recipes.tables import is_text
from taskmill.store import write_parquet

if TYPE_CHECKING:
    from taskmill.mix.order import Draws, Order
    from taskmill.mix.plan import Plan

__all__ = ["MixConfig", "inspect_mixture", "mix"]

PART = 1 << 16
"""Rows of a part (chosen: some tens of MB of text)."""


@dataclass(frozen=True, slots=True)
class MixConfig:
    """A mixture in, rows in their order out."""

    source: str = field(default="", metadata={"help": "the mixture: a YAML file"})
    rows: int = field(default=0, metadata={"help": "how many rows are drawn"})
    epochs: float = field(
        default=0.0,
        metadata={"help": "or how many times the rows there are (of each task, its cap); default: once"},
    )
    seed: int = field(default=0, metadata={"help": "rows and their order depend on it"})
    licences: tuple[str, ...] = field(
        default=(),
        metadata={"help": "only rows of these licences (`unknown`: that state none); others are dropped"},
    )
    samples: int = field(default=0, metadata={"help": "rows of each task that --inspect shows"})


def mix(config: MixConfig, out: str | Path, on_progress: OnProgress | None = None) -> dict[str, Any]:
    """Write OUT/data/*.parquet and OUT/manifest.json, and return the manifest.

    Raises ConfigError for a mixture that says nothing or contradicts itself, InputError for a source that
    cannot be read or is empty, UsageError for a folder that is not this command's to write.
    """
    report = on_progress or ignore
    mixture, base = _read(config.source)
    folder = _check_out(Path(out), mixture, base)
    report(Progress("mix", note="read sources"))
    pool, plan, order = _plan(config, mixture, base)
    manifest = manifest_of(config.seed, mixture, pool, plan, order)
    begin(folder, "mix", [manifest, PART])
    for at, name in enumerate(part_names(-(-plan.rows // PART))):
        path = folder / "data" / name
        if not path.exists():
            table, _ = next(mixed(pool, order, at * PART))
            write_parquet(path, table)
        report(Progress("mix", min((at + 1) * PART, plan.rows), plan.rows))
    if len(pool.dropped):
        write_parquet(folder / "dropped.parquet", pool.dropped)
    atomic_write(folder / "README.md", mixture_card(manifest).encode())
    finish(folder, manifest)
    return manifest


def inspect_mixture(config: MixConfig) -> dict[str, Any]:
    """Return what `mix` would write into the manifest, with `samples` rows of each task; nothing is written.

    Equal inputs give equal JSON, key by key.
    """
    mixture, base = _read(config.source)
    pool, plan, order = _plan(config, mixture, base)
    found = manifest_of(config.seed, mixture, pool, plan, order)
    if config.samples:
        for name, source in found["sources"].items():
            for task, record in source["tasks"].items():
                at = next(i for i, t in enumerate(pool.tasks) if (t.source, t.name) == (name, task))
                record["samples"] = pool.table.take(_first_rows(pool, order, at, config)).to_pylist()
    return found


def _first_rows(pool: Pool, order: Order, task: int, config: MixConfig) -> pa.Array:
    """Return the rows of a task that begin its first pass."""
    from taskmill.mix.order import Order as Alone

    rows = min(config.samples, int(order.counts[task]), len(pool.rows[task]))
    alone = Alone([rows], [len(pool.rows[task])], [pool.tasks[task].key], config.seed)
    return pa.array(pool.rows[task][alone.take(0, rows).row])


def mixed(pool: Pool, order: Order, start: int = 0) -> Iterator[tuple[pa.Table, Draws]]:
    """Yield the rows of a mixture from draw `start` on, a part at a time, with the draws that made them."""
    for first in range(start, order.total, PART):
        drawn = order.take(first, min(first + PART, order.total))
        yield _rows(pool, drawn), drawn
    if not order.total:
        yield _rows(pool, order.take(0, 0)), order.take(0, 0)


def _rows(pool: Pool, drawn: Draws) -> pa.Table:
    """Return the rows of some draws, with the columns that say where each is from."""
    import numpy as np

    begins = np.cumsum([0, *(len(rows) for rows in pool.rows)])
    table = pool.table.take(pa.array(pool.line[begins[drawn.source] + drawn.row]))
    own = table["id"]
    again = pc.binary_join_element_wise(own, pa.array(drawn.passes + 1).cast(pa.string()), "#")
    of = pa.array(drawn.source)
    made = {
        "id": pc.if_else(pa.array(drawn.passes > 0), again, own),
        "mix_source": pa.array([task.source for task in pool.tasks], pa.string()).take(of),
        "mix_task": pa.array([task.name or task.source for task in pool.tasks], pa.string()).take(of),
        "mix_pass": pa.array(drawn.passes),
        "mix_row": own,
    }
    for name in ("source", "task"):  # of their own, rows may have both
        if name not in table.column_names:
            made[name] = made[f"mix_{name}"]
        elif is_text(table[name].type):
            made[name] = pc.coalesce(table[name], made[f"mix_{name}"].cast(table[name].type))
    for name, values in made.items():
        at = table.column_names.index(name) if name in table.column_names else len(table.column_names)
        table = table.remove_column(at) if at < len(table.column_names) else table
        table = table.add_column(at, name, values)
    return table


# the mixture


def _read(source: str) -> tuple[Mixture, Path]:
    if not source:
        raise UsageError("no mixture is given; name its YAML file")
    path = Path(source)
    mapping = load_yaml(path)
    given, tool, notes = imported(mapping, path.parent)
    mixture = read_mixture(given)
    if tool:
        mixture = replace(mixture, imported=tool, notes=(*mixture.notes, *notes))
    return mixture, path.parent


def _plan(config: MixConfig, mixture: Mixture, base: Path) -> tuple[Pool, Plan, Order]:
    from taskmill.mix.order import Order as Made
    from taskmill.mix.plan import make_plan

    pool = read_pool(mixture, base, config.licences)
    plan = make_plan(mixture, pool.tasks, rows=config.rows, epochs=config.epochs)
    sizes = [len(rows) for rows in pool.rows]
    keys = [task.key for task in pool.tasks]
    return pool, plan, Made(plan.counts, sizes, keys, config.seed, stratified=mixture.stratified)


def _check_out(out: Path, mixture: Mixture, base: Path) -> Path:
    """Return the folder of results; raises UsageError where they would destroy or hide something else."""
    places = [place_of(path, base) for leaf in leaves(mixture.root) for path in leaf.path]
    return own_folder(out, [name for place in places for name in source_files(place)], "mix")
