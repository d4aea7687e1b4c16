"""Selection: a pool and a budget → SELECTION.parquet, held against chance and length in a report beside it.

    SELECTION.parquet  id, rank, score: what was chosen, best first
    SELECTION.report.json, SELECTION.report.html: what the choice is worth

The Parquet file is written first and the HTML page last.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taskmill import frame
from taskmill.config import to_mapping
from taskmill.durable import atomic_write
from taskmill.errors import ConfigError, InputError, UsageError
from taskmill.recipes.parts import Mapped, mapped
from taskmill.recipes.pool import Columns, Rows, read_rows, strings
from taskmill.recipes.session import OnProgress, Progress, ignore
from taskmill.recipes.tables import check_out
from taskmill.recipes.vectors import InPieces, Vectors, pool_vectors, target_vectors
from taskmill.report.selection import write_selection_report
from taskmill.select import SELECTORS, Budget, Needs, Pool, Selection, Selector, make
from taskmill.store import write_parquet

__all__ = ["SelectConfig", "predict", "select"]

Array = np.ndarray[Any, Any]

RATE = 1e10
"""Multiply-adds a second and core that predictions assume (chosen: a sixth of what one Zen 4 core does in
float32 at best, so that a prediction is rarely too low)."""

COVERAGE = ("task", "label", "template", "dataset", "source_family")
"""Columns whose coverage is reported where they exist and no others are named."""


@dataclass(frozen=True, slots=True)
class SelectConfig:
    """A pool of rows in, the rows to train on out."""

    source: str = field(default="", metadata={"help": "pool: a table, a folder of tables, or a run folder"})
    method: str = field(default="k-center", metadata={"help": f"selector: {', '.join(SELECTORS._entries)}"})
    budget: str = field(
        default="", metadata={"help": "how much to choose: 500 rows, 0.5% of them, or 20000tok"}
    )
    seed: int = field(default=0, metadata={"help": "decides everything that is left to chance"})
    columns: Columns = field(default_factory=Columns)
    embedder: str = field(default="auto", metadata={"help": "what embeds the text if no column has vectors"})
    start: str = field(
        default="", metadata={"help": "table of rows chosen before (`id`); they come first and count"}
    )
    target: str = field(
        default="", metadata={"help": "table of rows the choice shall resemble, with the pool's columns"}
    )
    quota: str = field(
        default="proportional",
        metadata={"help": "shares of the groups of --group-by", "choices": ("proportional", "equal")},
    )
    project: int = field(
        default=0, metadata={"help": "numbers to which vectors are projected at random first; 0: not"}
    )
    whiten: int = field(
        default=0,
        metadata={"help": "directions of largest spread that vectors keep, made to count alike; 0: not"},
    )
    parts: int = field(
        default=0,
        metadata={"help": "k-center in so many parts of a pool larger than the memory; 0: all at once"},
    )
    runner: str = field(
        default="native", metadata={"help": "where --parts are worked on: native, ray or ray:ADDRESS"}
    )
    settings: Mapping[str, str] = field(
        default_factory=dict, metadata={"help": "a setting of the selector, as first=farthest", "flag": "set"}
    )
    draws: int = field(default=5, metadata={"help": "choices by chance that the choice is held against"})
    coverage: tuple[str, ...] = field(
        default=(), metadata={"help": f"columns whose coverage is reported; default: {', '.join(COVERAGE)}"}
    )

    def __post_init__(self) -> None:
        if not self.budget:
            raise UsageError("no budget is given; add --budget 500, --budget 0.5% or --budget 20000tok")
        if self.draws < 1:
            raise ConfigError("--draws must be 1 or more: a choice is always held against chance")
        if self.parts and (self.method != "k-center" or self.columns.group or self.target):
            raise UsageError("--parts is for --method k-center, without --group-by and --target")
        if self.runner != "native" and not self.parts:
            raise UsageError(f"--runner {self.runner} works on parts of a pool; say how many with --parts")


def select(config: SelectConfig, out: str | Path, on_progress: OnProgress | None = None) -> dict[str, Any]:
    """Choose rows, write SELECTION.parquet and its report, and return the report.

    `exit` in it has the exit code and the reason: 3 where the selector rejects rows that the budget has room
    for (`shortfall`). What no row can fill is a `note`: a budget over the pool, the rest of one in tokens.

    Raises UsageError and InputError for what cannot be read or chosen from, and before anything is
    computed for what does not fit into the memory that is free.
    """
    path, report = Path(out), on_progress or ignore
    if path.suffix != ".parquet":
        raise UsageError(f"--out {path} is a Parquet file; let its name end in .parquet")
    by_tokens = Budget.parse(config.budget).tokens is not None
    counted = f"--budget {config.budget}" if by_tokens else "--method length" * (config.method == "length")
    selector = _selector(config)
    sources = [name for name in (config.source, config.start, config.target) if name]
    check_out(path, sources, "select", file=True)
    report(Progress("read rows"))
    if not config.parts:
        rows = read_rows(config.source, config.columns, counted=counted)
        return _selected(config, selector, rows, path, report)
    frame.use_runner(config.runner)
    keep = [*COVERAGE, *config.coverage]
    scratch = path.with_name(f".{path.stem}.parts")
    pieces = InPieces(config.embedder)
    with mapped(config.source, config.columns, keep, config.parts, scratch, pieces, counted) as found:
        return _selected(config, selector, found.rows, path, report, found, pieces.name)


def _selected(
    config: SelectConfig, selector: Selector, rows: Rows, path: Path, report: OnProgress,
    found: Mapped | None = None, made: str = "",
) -> dict[str, Any]:  # fmt: skip
    """Choose of rows that are read, and write.

    Of rows in parts, `found` says where they stand, and `made` what made their vectors.
    """
    started, budget = time.monotonic(), Budget.parse(config.budget)
    for name in config.coverage:
        if name not in rows.table.column_names:
            raise UsageError(f"--coverage: {config.source} has no column {name!r}")
    start = _start(config, rows, budget) if config.start else np.zeros(0, np.int64)
    vectors = pool_vectors(rows, config, report, found, made)
    pool = _pool(rows, vectors, config, selector, start)
    predicted = predict(selector, pool, budget, config.method, config.parts)
    total = len(pool)
    note = f"{_size(predicted.bytes)} and about {seconds(predicted):.0f} s are needed"
    report(Progress("select", 0, total, note=note))
    chosen, took = _timed(_pick, selector, pool, budget, config, found, vectors.path)
    if not len(chosen.rows):
        raise InputError(_why_none(pool, budget, config))
    report(Progress("evidence", 0, total, len(chosen.rows), total - len(chosen.rows)))
    note, shortfall = _left(pool, budget, chosen)
    record = {
        "config": to_mapping(config),
        "embedder": vectors.name,
        "pool": {
            "rows": total,
            "tokens": int(pool.tokens.sum()),
            "zero_vectors": int(pool.empty.sum()),
            "zero_vector_ids": _first_ids(pool, pool.empty),
        },
        "chosen": {"rows": len(chosen.rows), "tokens": int(pool.tokens[chosen.rows].sum())},
        "not_chosen": total - len(chosen.rows),
        "note": note,
        "shortfall": shortfall,
        "exit": {"code": 3, "reason": shortfall} if shortfall else {"code": 0, "reason": "done"},
        "warnings": _warnings(pool, chosen),
        "predicted": {"bytes": int(predicted.bytes), "operations": int(predicted.operations)},
        "selector": dict(chosen.evidence),
        "groups": _groups(pool, chosen),
    }
    evidence, points = _evidence(pool, rows, chosen, config)
    record |= evidence
    record["seconds"] = {"select": round(took, 3), "all": round(time.monotonic() - started, 3)}
    _write(path, pool, chosen, record, points)
    report(Progress("select", total, total, len(chosen.rows), total - len(chosen.rows)))
    return record


def _selector(config: SelectConfig) -> Selector:
    settings = dict(config.settings)
    if config.method == "stratified":
        settings.setdefault("quota", config.quota)
    return make(config.method, settings)


def _pool(rows: Rows, vectors: Vectors, config: SelectConfig, selector: Selector, start: Array) -> Pool:
    """Return the pool with its vectors, target and first rows; raises UsageError for what is missing."""
    target = None
    if config.target:
        aim = read_rows(config.target, config.columns, "target ")
        own = target_vectors(aim, rows, vectors, config)
        target = Pool(aim.ids, aim.tokens, own, aim.texts, aim.groups, aim.table)
    elif "target" in selector.uses:
        raise UsageError(f"{config.method} chooses rows like those of a target; name its table with --target")
    pool = Pool(rows.ids, rows.tokens, vectors.matrix, rows.texts, rows.groups, rows.table, start, target)
    for name, column, flag in (
        ("embeddings", pool.embeddings, "--embeddings or --text"),
        ("texts", rows.texts, "--text"),
    ):
        if name in selector.uses and column is None:
            raise UsageError(f"{config.method} needs {name}; name their column with {flag}")
    return pool


def _start(config: SelectConfig, rows: Rows, budget: Budget) -> Array:
    """Return the rows of a selection made before, in its order; refuses more than the budget."""
    source, ids = config.start, rows.ids
    read = read_rows(source, Columns())
    if "id" not in read.table.column_names:
        raise InputError(f"{source} has no column `id`; give a SELECTION.parquet or a table with ids")
    early = read.ids
    if "rank" in read.table.column_names:
        early = early.take(pc.sort_indices(read.table["rank"]))
    places = pc.index_in(early, value_set=ids)
    if places.null_count:
        name = early[pc.index(places.is_null(), True).as_py()].as_py()
        raise InputError(
            f"{source}: {places.null_count} ids are not in the pool, the first is {name!r}; "
            "put those rows into the pool"
        )
    found = np.asarray(places, np.int64)
    if len(np.unique(found)) < len(found):
        raise InputError(f"{source} names a row twice; give each id once")
    costs, limit = budget.costs(Pool(ids, rows.tokens))
    spent = int(costs[found].sum())
    if spent > limit:
        unit = "tokens" if budget.tokens is not None else "rows"
        raise UsageError(
            f"--start {source} holds {spent:,} {unit}, and the budget {config.budget} is {limit:,}; raise it "
            "or leave --start out"
        )
    return found


def predict(selector: Selector, pool: Pool, budget: Budget, method: str, parts: int = 0) -> Needs:
    """Return what the selection will take; raises UsageError if the memory that is free cannot hold it."""
    width = 0 if pool.embeddings is None else pool.embeddings.shape[1]
    picks = budget.expected_rows(pool)
    if parts:
        from taskmill.select.parts import needs as needs_in_parts

        needs = needs_in_parts(len(pool), width, picks, parts)
    else:
        needs = selector.needs(len(pool), width, picks)
    free = _free_memory()
    if free and needs.bytes > free:
        way = "take more --parts" if parts else "take another --method, or k-center in --parts"
        raise UsageError(
            f"{method} on {len(pool):,} rows needs about {_size(needs.bytes)}, and {_size(free)} are free; "
            f"{way}, or choose from a part of the pool (--method random first)"
        )
    return needs


def seconds(needs: Needs) -> float:
    """Return about how long that many operations take on this machine's cores."""
    return needs.operations / (RATE * (os.cpu_count() or 1))


def _free_memory() -> float:
    """Return the bytes that can be had without swapping; 0 where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0.0
    return 1024.0 * next((int(line.split()[1]) for line in lines if line.startswith("MemAvailable")), 0)


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _timed(function: Any, *arguments: Any) -> tuple[Any, float]:
    begin = time.monotonic()
    return function(*arguments), time.monotonic() - begin


def _pick(
    selector: Selector,
    pool: Pool,
    budget: Budget,
    config: SelectConfig,
    found: Mapped | None,
    path: Path | None,
) -> Selection:
    if found is not None and path is not None:
        from taskmill.select.kcenter import KCenter
        from taskmill.select.parts import in_parts

        assert isinstance(selector, KCenter)  # SelectConfig lets nothing else through
        return in_parts(selector, pool, path, found.bounds, budget, config.seed)
    if config.columns.group and "groups" not in selector.uses:
        from taskmill.select.simple import by_group

        return by_group(selector, pool, budget, config.seed, config.quota == "equal")
    return selector.pick(pool, budget, config.seed)


def _why_none(pool: Pool, budget: Budget, config: SelectConfig) -> str:
    costs, limit = budget.costs(pool)
    if costs.min() > limit:
        return f"no row fits into the budget {config.budget}; the shortest takes {int(costs.min())} tokens"
    return f"--method {config.method} rejects all {len(pool):,} rows; take another, or give it other settings"


def _left(pool: Pool, budget: Budget, chosen: Selection) -> tuple[str, str]:
    """Return (note, shortfall): what is left of a budget that no row can fill, or that a selector rejects."""
    costs, limit = budget.costs(pool)
    left = limit - int(costs[chosen.rows].sum())
    if not left:
        return "", ""
    said = f"{left:,} {'tokens' if budget.tokens is not None else 'rows'} of the budget are left"
    if len(chosen.rows) == len(pool):
        return f"{said}: the whole pool is chosen", ""
    fitting = int((np.delete(costs, chosen.rows) <= left).sum())
    if not fitting:
        return f"{said}: no row left over fits", ""
    return "", f"{said}: the selector rejects the {fitting:,} rows that fit; take a smaller --budget"


def _warnings(pool: Pool, chosen: Selection) -> list[str]:
    """Say if nothing was added, what was chosen although it repeats others, and which rows have no vector."""
    found = []
    if len(pool.start) and len(pool.start) == len(chosen.rows) < len(pool):
        found.append("nothing is added: the budget has room for the rows of --start only")
    repeats = chosen.evidence.get("duplicates_chosen", 0)
    if (covering := chosen.evidence.get("covering")) is not None:
        repeats = max(0, len(chosen.rows) - covering)
    if repeats:
        found.append(f"{repeats:,} of the chosen rows repeat others: there are no more different ones")
    if pool.empty.any() and pool.embeddings is not None:
        first = ", ".join(_first_ids(pool, pool.empty, 3))
        found.append(f"{int(pool.empty.sum()):,} rows have a vector of zeros and come last: {first}")
    return found


def _first_ids(pool: Pool, rows: Array, most: int = 20) -> list[str]:
    return [str(pool.ids[int(row)]) for row in pool.by_id[rows[pool.by_id]][:most]]


def _groups(pool: Pool, chosen: Selection) -> dict[str, dict[str, int]]:
    """Return rows and chosen rows of each group."""
    if pool.groups is None:
        return {}
    counted: dict[str, dict[str, int]] = {}
    for key, column in (("rows", pool.groups), ("chosen", pool.groups.take(chosen.rows))):
        for entry in pc.value_counts(column).to_pylist():
            counted.setdefault(entry["values"] or "", {"rows": 0, "chosen": 0})[key] += entry["counts"]
    return dict(sorted(counted.items()))


def _evidence(
    pool: Pool, rows: Rows, chosen: Selection, config: SelectConfig
) -> tuple[dict[str, Any], dict[str, Array]]:
    from taskmill.select.evidence import compare, plane

    names = [name for name in COVERAGE if name in rows.table.column_names]
    names = list(dict.fromkeys([*(config.coverage or names), *filter(None, [config.columns.group])]))
    columns = {name: strings(rows.table[name]) for name in names}
    evidence, chance = compare(pool, config.method, chosen, columns, config.seed, config.draws)
    return evidence, plane(pool, {"chosen": chosen.rows, "random": chance.rows}, config.seed)


def _write(
    path: Path, pool: Pool, chosen: Selection, record: Mapping[str, Any], points: Mapping[str, Array]
) -> None:
    table = pa.table(
        {
            "id": pool.ids.take(chosen.rows),
            "rank": pa.array(np.arange(len(chosen.rows)), pa.int64()),
            "score": pa.array(chosen.scores, pa.float64()),
        }
    )
    beside = path.with_suffix(".report.json")
    beside.unlink(missing_ok=True)  # an old report must not stand beside a new selection
    path.with_suffix(".report.html").unlink(missing_ok=True)
    write_parquet(path, table)
    atomic_write(beside, json.dumps(record, indent=1, ensure_ascii=False).encode())
    write_selection_report(path.with_suffix(".report.html"), record, points)
