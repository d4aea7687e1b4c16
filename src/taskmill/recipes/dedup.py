"""Deduplication of a table: what is kept, and what is dropped with the row it repeats.

    OUT/  kept.parquet  dropped.parquet  report.json

Both tables have the columns of the input and its order of rows; dropped rows have `reason`, `detail` and
`duplicate_of` (a row that is kept) besides. `report.json` is written last: without it the folder is
unfinished. Rows are read in pieces, and only ids, hashes and verdicts are held (`recipes.duplicates`); hashes
of near duplicates stand in files of a scratch folder beside OUT, which a command removes at its end, and at
its beginning if a killed one left it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taskmill import frame
from taskmill.config import to_mapping
from taskmill.errors import UsageError
from taskmill.recipes.layouts import as_parts, has_layout, part_columns
from taskmill.recipes.pieces import RUNNER, Piecewise, Rows, opened
from taskmill.recipes.pool import matrix
from taskmill.recipes.session import OnProgress, Progress, ignore
from taskmill.recipes.tables import begin_results, check_out, column, end_results, over_half, with_evidence
from taskmill.record import EXAMPLE_SCHEMA, Reason

if TYPE_CHECKING:  # these load numba, which the flags of the command line do not need
    from taskmill.curate.dedup import Capped, Duplicates
    from taskmill.recipes.duplicates import Marks

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

_OWN: Mapping[str, frozenset[str]] = {
    "exact": frozenset(("normalise",)),
    "near": frozenset(("threshold", "ngram")),
    "semantic": frozenset(("threshold", "embeddings", "embedder")),
}
"""Settings that only some modes have."""

_LARGEST = 10  # groups that the report shows
_SHOWN = 5  # dropped rows of each
_NAMED = 20  # rows without a vector


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
            "help": "what is compared of instruction data: pair (default) is instruction, context and "
            "response; instruction has the passage in it only where it quotes it; nothing repeats nothing",
            "choices": ("instruction", "context", "pair"),
        },
    )
    text: str = field(
        default="",
        metadata={"help": "column that is compared; default: `text`, where rows are no instruction data"},
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
        default="source", metadata={"help": "column that names each row's source (for --source-cap)"}
    )
    embeddings: str = field(
        default="", metadata={"help": "column of vectors (semantic); default: made by the embedder"}
    )
    embedder: str = field(default="auto", metadata={"help": "what makes vectors of texts (semantic)"})
    seed: int = field(
        default=0, metadata={"help": "the hashes of near and the cells of semantic depend on it"}
    )
    runner: str = field(default="native", metadata={"help": RUNNER})


class Verdicts:
    """For each row: the `reason` why it is dropped (a number, 0: it is kept) and the row it repeats or -1."""

    def __init__(self, rows: Rows, config: DedupConfig, found: Duplicates) -> None:
        self.rows, self.said = rows, _said(config)
        self.names = ["", REASONS[config.mode]]
        self.reason = (~found.keep).astype(np.uint8)
        self.survivor, self.similarity = found.duplicate_of, found.similarity
        self._caps: dict[int, tuple[Capped, str, int]] = {}
        self._now = found.duplicate_of

    def cap(self, keys: Array, most: int, reason: str, order: Array) -> None:
        """Drop what is over a cap, counting the rows that are still there; a key of zero is not capped."""
        from taskmill.curate.dedup import over_cap

        kept = (self.reason == 0) & keys.any(axis=1)
        capped = over_cap(keys, most, order[kept[order]])
        self.names.append(reason)
        self.reason[capped.over] = len(self.names) - 1
        what = "skeleton" if reason == OVER_SKELETON else "source"
        self._caps[len(self.names) - 1] = capped, what, most

    def settle(self) -> None:
        """Where a cap took a row that others repeat, let them repeat one of its kind that the cap keeps."""
        now = self.survivor.copy() if self._caps else self.survivor
        lost = np.flatnonzero(now >= 0)
        for code, (capped, _, _) in self._caps.items():  # a later cap may take what an earlier one kept
            over = lost[self.reason[now[lost]] == code]
            now[over] = capped.first[now[over]]
        self._now = now

    def counts(self) -> Counter[str]:
        """Return the number of dropped rows by reason."""
        counts = np.bincount(self.reason, minlength=len(self.names)).tolist()
        return Counter({name: n for name, n in zip(self.names, counts, strict=True) if name and n})

    def evidence(self, numbers: Array) -> dict[str, pa.Array]:
        """Return the columns of evidence of some dropped rows."""
        codes, details = self.reason[numbers].tolist(), []
        survivor, now = self.survivor[numbers], self._now[numbers]
        first = survivor.copy()  # the row that the detail may name
        for code, (capped, _, _) in self._caps.items():
            over = self.reason[numbers] == code
            first[over] = capped.first[numbers[over]]
        named = self.rows.names(first)
        for row, code, old, new, name in zip(
            numbers.tolist(), codes, survivor.tolist(), now.tolist(), named, strict=True
        ):
            if code in self._caps:
                capped, what, most = self._caps[code]
                details.append(f"{capped.size[row]} rows have the {what} of {name}; the cap is {most}")
            else:
                moved = f", to {name}, which is over a cap" if new != old else ""
                details.append(self.said.format(self.similarity[row]) + moved)
        repeated = pc.if_else(
            pa.array(now >= 0), pa.array(self.rows.names(np.maximum(now, 0)), pa.string()), None
        )
        return {
            "reason": pa.array([self.names[code] for code in codes], pa.string()),
            "detail": pa.array(details, pa.string()),
            "duplicate_of": repeated.cast(pa.string()),
        }


def dedup(config: DedupConfig, out: str | Path, on_progress: OnProgress | None = None) -> dict[str, Any]:
    """Write OUT/kept.parquet, OUT/dropped.parquet and OUT/report.json, and return the report.

    Raises UsageError for settings that contradict each other, a column that is not there, or a folder that is
    not this command's to write; InputError for a source that cannot be read.
    """
    from taskmill.curate.dedup import preferred
    from taskmill.recipes.duplicates import marked

    _check(config)
    folder, tell = check_out(out, config.sources, "dedup"), on_progress or ignore
    frame.use_runner(config.runner)
    with opened(config.sources, folder.with_name(f".{folder.name}.parts")) as rows:
        columns, asked = _asked(config, rows)
        total = len(rows)
        tell(Progress("dedup", 0, total, note=config.mode))

        def told(done: int) -> None:
            tell(Progress("dedup", done, total, note="hashing"))

        marks = marked(rows, columns, asked, config.runner, told)
        order = preferred(rows.ids, pa.array(marks.lengths) if asked["longest"] else None)
        found, zeros = _duplicates(config, rows, columns, asked, marks, order)
        verdicts = Verdicts(rows, config, found)
        if config.skeleton_cap:
            verdicts.cap(marks.skeletons, config.skeleton_cap, OVER_SKELETON, order)
        if config.source_cap:
            verdicts.cap(marks.sources, config.source_cap, OVER_SOURCE, order)
        verdicts.settle()
        report = _report(config, asked["on"], verdicts, zeros)
        _write(folder, rows, verdicts)
    kept = report["funnel"]["kept"]
    tell(Progress("dedup", total, total, kept, total - kept, note=config.mode))
    return end_results(folder, "dedup", report)


def _check(config: DedupConfig) -> None:
    if not config.sources:
        raise UsageError("nothing to deduplicate; name a Parquet or JSONL file, or a run folder")
    if config.mode not in MODES:
        raise UsageError(f"--mode is one of {', '.join(MODES)}, not {config.mode!r}")
    defaults = DedupConfig()
    for name in sorted(set().union(*_OWN.values())):
        if name not in _OWN[config.mode] and getattr(config, name) != getattr(defaults, name):
            modes = " or ".join(mode for mode, names in _OWN.items() if name in names)
            raise UsageError(f"--mode {config.mode} has no --{name}: it belongs to --mode {modes}")
    for one, other in (("on", "text"), ("embeddings", "embedder"), ("embeddings", "on")):
        if getattr(config, one) and getattr(config, other) != getattr(defaults, other):
            raise UsageError(f"--{one} and --{other} both say what is compared; give one of them")
    if config.runner != "native" and config.mode == "semantic":
        raise UsageError(f"--runner {config.runner} hashes texts; --mode semantic has none and runs here")
    if config.source_column != defaults.source_column and not config.source_cap:
        raise UsageError("--source-column says what --source-cap counts; give that too")


# what is asked of the rows


def _asked(config: DedupConfig, rows: Rows) -> tuple[list[str], dict[str, Any]]:
    """Return (columns that are read, what is asked of them); raises UsageError for what is not there."""
    from taskmill.curate.dedup import check_near
    from taskmill.kernels.near import bands_for
    from taskmill.recipes.duplicates import mark

    names = rows.schema.names
    layout = has_layout(names)
    on = config.on or ("pair" if layout and not config.text else "")
    text = "" if on else config.text or "text"
    if config.embeddings and text not in names and not config.text:
        text = ""
    if config.skeleton_cap and not layout:
        raise UsageError(
            "--skeleton-cap needs instruction data (instruction, context, response, or another "
            "layout with a prompt)"
        )
    asked: dict[str, Any] = {
        "mode": config.mode, "on": on, "text": text, "where": rows.where, "own": False, "common": "",
        "normalise": config.normalise, "ngram": config.ngram, "seed": config.seed,
        "longest": config.keep == "longest", "skeletons": bool(config.skeleton_cap),
        "source": config.source_column if config.source_cap else "",
    }  # fmt: skip
    if config.mode != "exact":
        asked["threshold"] = _threshold(config)
    if config.mode == "near":
        check_near(asked["threshold"], config.ngram)
        asked["bands"] = list(bands_for(asked["threshold"]))
    empty = rows.schema.empty_table()
    if config.embeddings:  # refuses what is no list of numbers
        matrix(column(empty, config.embeddings, rows.where, "--embeddings").chunks, 0)
    parts = on or config.skeleton_cap
    read = part_columns(names) if parts and layout else []
    if parts and not layout:
        as_parts(empty)  # says which layouts there are
    mark(empty, asked)  # refuses columns that are not there
    wanted = [name for name in names if name in (*read, text, asked["source"])]
    asked["own"] = bool(parts) and _are_own(rows)
    return wanted, asked


def _are_own(rows: Rows) -> bool:
    """Say what `are_own` says of the whole table."""
    if not set(EXAMPLE_SCHEMA.names) <= set(rows.schema.names):
        return False
    return not any(table["instruction"].null_count for _, table in rows.pieces(["instruction"]))


# judging


def _duplicates(
    config: DedupConfig, rows: Rows, columns: list[str], asked: Mapping[str, Any], marks: Marks, order: Array
) -> tuple[Duplicates, Array]:
    """Return the verdicts, and the rows (int64) whose vector is zero."""
    from taskmill.recipes.duplicates import exact, near, semantic

    none = np.zeros(0, np.int64)
    if config.mode == "exact":
        return exact(marks, order), none
    if config.mode == "near":
        return near(rows, columns, asked, config.runner, marks, order), none
    return semantic(rows, columns, asked, (config.embeddings, config.embedder), order)


def _threshold(config: DedupConfig) -> float:
    return THRESHOLDS[config.mode] if config.threshold is None else config.threshold


def _said(config: DedupConfig) -> str:
    """Return what the evidence of a duplicate says, with room for the similarity."""
    return {
        "exact": "the same text" + (" but for case and white space" if config.normalise else ""),
        "near": f"Jaccard similarity {{:.4f}} of {config.ngram}-word n-grams",
        "semantic": "cosine {:.4f} of embeddings",
    }[config.mode]


# results


def _write(folder: Path, rows: Rows, verdicts: Verdicts) -> None:
    empty = rows.schema.empty_table()
    schema = with_evidence(empty, verdicts.evidence(np.zeros(0, np.int64))).schema
    begin_results(folder)
    with ExitStack() as stack:
        kept = stack.enter_context(Piecewise(folder / "kept.parquet", rows.schema))
        dropped = stack.enter_context(Piecewise(folder / "dropped.parquet", schema))
        for first, table in rows.pieces():
            gone = verdicts.reason[first : first + len(table)] > 0
            lost = np.flatnonzero(gone)
            kept.add(table.filter(pa.array(~gone)))
            if len(lost):
                evidence = verdicts.evidence(first + lost)
                dropped.add(with_evidence(table.take(pa.array(lost)), evidence))


def _groups(verdicts: Verdicts) -> dict[str, Any]:
    """Return how many groups of duplicates there are, the largest, and how alike their rows are."""
    ids = verdicts.rows.ids
    lost = np.flatnonzero(verdicts.survivor >= 0)
    survivor = verdicts.survivor[lost]
    heads, sizes = np.unique(survivor, return_counts=True)
    least = np.partition(sizes, -_LARGEST)[-_LARGEST] if len(sizes) > _LARGEST else 0
    large = np.flatnonzero(sizes >= least)
    shown = pa.table({"size": sizes[large], "id": ids.take(pa.array(heads[large])).cast(pa.large_string())})
    first = np.asarray(pc.sort_indices(shown, sort_keys=[("size", "descending"), ("id", "ascending")]))
    groups: dict[str, Any] = {
        "groups": {"count": len(heads), "rows": len(heads) + len(lost)},
        "largest": [
            {
                "kept": shown["id"][at].as_py(),
                "rows": 1 + shown["size"][at].as_py(),
                "dropped": sorted(verdicts.rows.names(lost[survivor == heads[large[at]]]))[:_SHOWN],
            }
            for at in first[:_LARGEST].tolist()
        ],
    }
    if len(lost) and verdicts.names[1] != REASONS["exact"]:
        similarity = verdicts.similarity[lost]
        low, median = float(similarity.min()), float(np.median(similarity))
        groups["similarity"] = {"least": round(low, 4), "median": round(median, 4)}
    return groups


def _report(config: DedupConfig, on: str, verdicts: Verdicts, zeros: Array) -> dict[str, Any]:
    reasons = verdicts.counts()
    rows = len(verdicts.rows)
    settings = to_mapping(config) | {"on": config.embeddings or on or config.text or "text"}
    if config.mode != "exact":
        settings["threshold"] = _threshold(config)
    funnel = {"in": rows, "kept": rows - reasons.total(), "dropped": dict(sorted(reasons.items()))}
    warnings = over_half(reasons, rows, "look at dropped.parquet, or compare another part by --on or --text")
    named = sorted(verdicts.rows.names(zeros))[:_NAMED]
    if named:
        few = ", ".join(named[:3])
        warnings.append(f"{len(zeros):,} rows have a vector of zeros, repeat nobody and are kept: {few}")
    report = {"settings": settings, "funnel": funnel, "warnings": warnings, **_groups(verdicts)}
    return report | (
        {"zero_vectors": len(zeros), "zero_vector_ids": named} if config.mode == "semantic" else {}
    )
