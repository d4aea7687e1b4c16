"""Deduplication of a table: what is kept, and what is dropped with the row it repeats.

    OUT/  kept.parquet  dropped.parquet  report.json

Both tables have the columns of the input and its order of rows; dropped rows have `reason`, `detail` and
`duplicate_of` besides. `report.json` is written last: without it the folder is unfinished.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

import taskmill
from taskmill.config import to_mapping
from taskmill.durable import atomic_write, cache_folder
from taskmill.errors import InputError, UsageError
from taskmill.recipes.session import OnProgress, Progress
from taskmill.recipes.tables import read_table
from taskmill.record import Reason
from taskmill.registry import nearest
from taskmill.store import write_parquet

if TYPE_CHECKING:  # these load numba, which the flags of the command line do not need
    import numpy as np

    from taskmill.curate.dedup import Duplicates

    Array = np.ndarray[Any, Any]

__all__ = ["MODES", "DedupConfig", "dedup"]

MODES = ("exact", "near", "semantic")

REASONS: Mapping[str, str] = {
    "exact": str(Reason.DUPLICATE),
    "near": str(Reason.NEAR_DUPLICATE),
    "semantic": str(Reason.SEMANTIC_DUPLICATE),
}
OVER_SKELETON, OVER_SOURCE = str(Reason.OVER_SKELETON_CAP), str(Reason.OVER_SOURCE_CAP)

THRESHOLDS: Mapping[str, float] = {"near": 0.8, "semantic": 0.9}
"""Chosen: near as Lee et al. (arXiv 2107.06499) have it, semantic as semhash's default."""

_ADDED = ("reason", "detail", "duplicate_of")
_EXAMPLE = frozenset(("instruction", "context", "response"))
_LARGEST = 10  # groups that the report shows
_SHOWN = 5  # dropped rows of each


@dataclass(frozen=True, slots=True)
class DedupConfig:
    """Rows in; each text or meaning once out."""

    sources: tuple[str, ...] = field(
        default=(), metadata={"help": "table (Parquet, JSONL, CSV) or run folder (what its last stage kept)"}
    )
    mode: str = field(
        default="near",
        metadata={
            "help": "exact: equal texts; near: shared word n-grams; semantic: close embeddings",
            "choices": MODES,
        },
    )
    on: str = field(
        default="",
        metadata={
            "help": "what is compared of examples; default: pair (instruction, context and response)",
            "choices": ("instruction", "context", "pair"),
        },
    )
    text: str = field(
        default="text", metadata={"help": "column that is compared of rows that are no examples"}
    )
    threshold: float | None = field(
        default=None, metadata={"help": "least similarity of duplicates (0.8 for near, 0.9 for semantic)"}
    )
    ngram: int = field(default=5, metadata={"help": "words of an n-gram (near)"})
    normalise: bool = field(
        default=False, metadata={"help": "exact: case, white space and Unicode composition do not count"}
    )
    keep: str = field(
        default="first-id",
        metadata={
            "help": "which row of a group stays: the smallest id, or the longest text (then the smallest id)",
            "choices": ("first-id", "longest"),
        },
    )
    skeleton_cap: int = field(
        default=0, metadata={"help": "most rows of one instruction skeleton that stay; 0: all"}
    )
    source_cap: int = field(default=0, metadata={"help": "most rows of one source that stay; 0: all"})
    source_column: str = field(
        default="source", metadata={"help": "column that names the source of rows that are no examples"}
    )
    embeddings: str = field(
        default="", metadata={"help": "column of vectors (semantic); default: made by the embedder"}
    )
    embedder: str = field(default="auto", metadata={"help": "what makes vectors of texts (semantic)"})
    seed: int = field(
        default=0, metadata={"help": "the hashes of near and the cells of semantic depend on it"}
    )


@dataclass(slots=True)
class Verdicts:
    """For each row: the reason why it is dropped (None: it is kept), the evidence, the survivor's id."""

    reasons: list[str | None]
    details: list[str | None]
    survivors: list[str | None]

    def drop(self, row: int, reason: str, detail: str, survivor: str | None = None) -> None:
        """Write down why a row goes."""
        self.reasons[row], self.details[row], self.survivors[row] = reason, detail, survivor


def dedup(config: DedupConfig, out: str | Path, on_progress: OnProgress | None = None) -> dict[str, Any]:
    """Write OUT/kept.parquet, OUT/dropped.parquet and OUT/report.json, and return the report.

    Raises UsageError for settings that contradict each other, InputError for a source that cannot be read
    or lacks a column.
    """
    from taskmill.curate.dedup import preference

    _check(config)
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; choose another --out")
    table, ranks = _with_ids(read_table(config.sources))
    ids: list[str] = table["id"].cast(pa.string()).to_pylist()
    on = config.on or ("pair" if set(table.column_names) >= _EXAMPLE else "")
    text = _text(table, on, config.text)
    order = preference(ranks, text, config.keep)
    _tell(on_progress, config.mode, len(table))
    found = _duplicates(config, table, text, order)
    verdicts = _verdicts(config, found, ids)
    if config.skeleton_cap:
        _cap(verdicts, ids, order, _skeletons(table), config.skeleton_cap, OVER_SKELETON)
    if config.source_cap:
        _cap(verdicts, ids, order, _sources(table, config.source_column), config.source_cap, OVER_SOURCE)
    report = _report(config, on, verdicts, _groups(found, ids, config.mode))
    _write(folder, table, verdicts, report)
    _tell(on_progress, config.mode, len(table), report["funnel"]["kept"])
    return report


def _tell(on_progress: OnProgress | None, mode: str, rows: int, kept: int | None = None) -> None:
    if on_progress is not None:
        done = 0 if kept is None else rows
        on_progress(Progress("dedup", done, rows, kept or 0, done - (kept or 0), note=mode))


def _check(config: DedupConfig) -> None:
    if not config.sources:
        raise UsageError("nothing to deduplicate; name a Parquet or JSONL file, or a run folder")
    if config.mode not in MODES:
        raise UsageError(f"--mode is one of {', '.join(MODES)}, not {config.mode!r}")
    if config.mode == "exact" and config.threshold is not None:
        raise UsageError("--mode exact has no threshold; leave --threshold out, or choose --mode near")
    if config.mode != "exact" and config.normalise:
        raise UsageError(f"--normalise belongs to --mode exact; {config.mode} ignores case and space anyway")
    if config.mode != "semantic" and config.embeddings:
        raise UsageError("--embeddings belongs to --mode semantic")


# reading


def _with_ids(table: pa.Table) -> tuple[pa.Table, pa.Array]:
    """Return (the rows with ids, what orders them): row numbers as text where the rows have none."""
    taken = [name for name in _ADDED if name in table.column_names]
    if taken:
        raise InputError(f"the input has a column {taken[0]!r}, which the dropped rows get; rename it")
    if "id" not in table.column_names:
        numbers = pa.array(range(len(table)), pa.int64())
        return table.add_column(0, "id", numbers.cast(pa.string())), numbers
    kind = table["id"].type
    if not (pa.types.is_integer(kind) or _is_text(kind)):
        raise InputError(f"ids are texts or whole numbers, not {kind}; rename the column `id`")
    return table, table["id"]


def _text(table: pa.Table, on: str, name: str) -> pa.Array:
    from taskmill.curate.dedup import keyed
    from taskmill.kernels.near import in_one_piece

    return keyed(table, on) if on else in_one_piece(_column(table, name, "--text"))


def _column(table: pa.Table, name: str, flag: str) -> pa.ChunkedArray:
    there = table.column_names
    if name not in there:
        known = ", ".join(there)
        raise InputError(f"there is no column {name!r}.{nearest(name, there)} Name one with {flag}: {known}")
    if not _is_text(table[name].type):
        raise InputError(f"column {name!r} holds {table[name].type}, not text; name another with {flag}")
    return table[name]


# judging


def _duplicates(config: DedupConfig, table: pa.Table, text: pa.Array, order: Array) -> Duplicates:
    from taskmill.curate.dedup import exact_duplicates, near_duplicates

    if config.mode == "exact":
        return exact_duplicates(text, order, config.normalise)
    threshold = _threshold(config)
    if config.mode == "near":
        return near_duplicates(text, threshold, ngram=config.ngram, order=order, seed=config.seed)
    from taskmill.curate.semantic import semantic_duplicates
    from taskmill.recipes.pool import matrix

    if config.embeddings:
        if config.embeddings not in table.column_names:
            near = nearest(config.embeddings, table.column_names)
            raise InputError(f"there is no column {config.embeddings!r}.{near}")
        vectors = matrix(table[config.embeddings].chunks, len(table))
    else:
        from taskmill.select.embed import embed

        vectors = embed(text, config.embedder, cache_folder())
    return semantic_duplicates(vectors, threshold, order=order, seed=config.seed)


def _threshold(config: DedupConfig) -> float:
    return THRESHOLDS[config.mode] if config.threshold is None else config.threshold


def _verdicts(config: DedupConfig, found: Duplicates, ids: list[str]) -> Verdicts:
    said = {
        "exact": "the same text" + (" but for case and white space" if config.normalise else ""),
        "near": f"Jaccard similarity {{:.4f}} of {config.ngram}-word n-grams",
        "semantic": "cosine {:.4f} of embeddings",
    }[config.mode]
    verdicts = Verdicts([None] * len(ids), [None] * len(ids), [None] * len(ids))
    rows = (~found.keep).nonzero()[0]
    similarity, survivors = found.similarity[rows].tolist(), found.duplicate_of[rows].tolist()
    for row, score, survivor in zip(rows.tolist(), similarity, survivors, strict=True):
        verdicts.drop(row, REASONS[config.mode], said.format(score), ids[survivor])
    return verdicts


def _cap(verdicts: Verdicts, ids: list[str], order: Array, keys: Array, cap: int, reason: str) -> None:
    """Drop what is over a cap, counting the rows that are still there; a key of zero is not capped."""
    import numpy as np

    from taskmill.curate.dedup import over_cap

    kept = np.array([r is None for r in verdicts.reasons], np.bool_) & keys.any(axis=1)
    capped = over_cap(keys, cap, order[kept[order]])
    what = "skeleton" if reason == OVER_SKELETON else "source"
    for row in np.flatnonzero(capped.over).tolist():
        like = f"{capped.size[row]} rows have the {what} of {ids[capped.first[row]]}"
        verdicts.drop(row, reason, f"{like}; {cap} of them are kept")


def _skeletons(table: pa.Table) -> Array:
    from taskmill.curate.dedup import skeleton_keys

    if not set(table.column_names) >= _EXAMPLE:
        raise UsageError("--skeleton-cap needs the columns instruction, context and response")
    return skeleton_keys(table["instruction"], table["context"], table["response"])


def _sources(table: pa.Table, name: str) -> Array:
    from taskmill.curate.dedup import family_keys

    if name in table.column_names and pa.types.is_struct(table[name].type):
        return family_keys(table[name])
    return family_keys(_column(table, name, "--source-column"))


# results


def _write(folder: Path, table: pa.Table, verdicts: Verdicts, report: Mapping[str, Any]) -> None:
    keep = pa.array([reason is None for reason in verdicts.reasons], pa.bool_())
    judged = table
    for name, values in zip(_ADDED, (verdicts.reasons, verdicts.details, verdicts.survivors), strict=True):
        judged = judged.append_column(name, pa.array(values, pa.string()))
    (folder / "report.json").unlink(missing_ok=True)
    write_parquet(folder / "kept.parquet", table.filter(keep))
    write_parquet(folder / "dropped.parquet", judged.filter(pc.invert(keep)))
    atomic_write(folder / "report.json", json.dumps(report, indent=1, ensure_ascii=False).encode())


def _groups(found: Duplicates, ids: list[str], mode: str) -> dict[str, Any]:
    """Return how many groups of duplicates there are, the largest, and how alike their rows are."""
    import numpy as np

    lost = np.flatnonzero(~found.keep)
    heads, sizes = np.unique(found.duplicate_of[lost], return_counts=True)
    largest = sorted(zip(heads.tolist(), sizes.tolist(), strict=True), key=lambda g: (-g[1], ids[g[0]]))
    shown = [(head, size, lost[found.duplicate_of[lost] == head]) for head, size in largest[:_LARGEST]]
    groups: dict[str, Any] = {
        "groups": {"count": len(heads), "rows": len(heads) + len(lost)},
        "largest": [
            {"kept": ids[head], "rows": 1 + size, "dropped": sorted(ids[row] for row in rows)[:_SHOWN]}
            for head, size, rows in shown
        ],
    }
    if len(lost) and mode != "exact":
        least, median = float(found.similarity[lost].min()), float(np.median(found.similarity[lost]))
        groups["similarity"] = {"least": round(least, 4), "median": round(median, 4)}
    return groups


def _report(config: DedupConfig, on: str, verdicts: Verdicts, groups: Mapping[str, Any]) -> dict[str, Any]:
    reasons = Counter(reason for reason in verdicts.reasons if reason)
    rows = len(verdicts.reasons)
    settings = to_mapping(config) | {"on": on or config.text}
    if config.mode != "exact":
        settings["threshold"] = _threshold(config)
    funnel = {"in": rows, "kept": rows - reasons.total(), "dropped": dict(sorted(reasons.items()))}
    return {"taskmill": taskmill.__version__, "funnel": funnel, "settings": settings, **groups}


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
