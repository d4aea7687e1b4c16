"""The packing journey: rows of instruction data → token sequences of one length, every row whole and once.

    OUT/  data/train-00000.parquet …  shards/  rows.parquet  dropped.parquet  manifest.json

`rows.parquet` has the id, task and tokens of each packed row, by number; `dropped.parquet` what was not
packed, with the reason. `manifest.json` is written last: without it the folder is unfinished.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

import taskmill
from taskmill.durable import atomic_write
from taskmill.errors import InputError, UsageError
from taskmill.recipes.layouts import has_layout, part_columns
from taskmill.recipes.mixing import own_folder, source_files, write_card
from taskmill.recipes.session import OnProgress, Progress, ignore
from taskmill.recipes.tables import is_text, joined, number_rest, read_file, with_ids
from taskmill.recipes.token_rows import token_rows
from taskmill.record import Reason
from taskmill.store import write_parquet

if TYPE_CHECKING:
    import numpy as np

    from taskmill.mix.pack import Packing, TokenRows

    Array = np.ndarray[Any, Any]

__all__ = ["PackConfig", "pack_rows"]


@dataclass(frozen=True, slots=True)
class PackConfig:
    """Rows in, packed sequences of tokens out."""

    source: str = field(default="", metadata={"help": "table, folder, run folder, or what `mix` wrote"})
    length: int = field(default=2048, metadata={"help": "tokens of a sequence"})
    tokenizer: str = field(
        default="", metadata={"help": "embedded model, folder with a tokenizer.json, GGUF file or Hub name"}
    )
    layout: str = field(
        default="auto",
        metadata={
            "help": "plain: prompt, end token, response, end token; chat: the tokenizer's chat template; "
            "auto: chat for rows of messages if there is a template",
            "choices": ("auto", "plain", "chat"),
        },
    )
    eos: str = field(
        default="both",
        metadata={
            "help": "where the end token stands in the plain layout",
            "choices": ("both", "response", "none"),
        },
    )
    long: str = field(
        default="drop",
        metadata={
            "help": "rows over --length: dropped with the reason, or split every --length tokens",
            "choices": ("drop", "split"),
        },
    )
    loss: str = field(
        default="tokens",
        metadata={
            "help": "loss weights: each learned token counts 1, or each row does",
            "choices": ("tokens", "rows"),
        },
    )
    balance: int = field(
        default=0, metadata={"help": "so many sequences in a row cost about the same attention (devices)"}
    )
    write: tuple[str, ...] = field(
        default=("parquet", "shards"), metadata={"help": "what is written: parquet, shards or both"}
    )
    seed: int = field(default=0, metadata={"help": "the order of sequences depends on it"})


def pack_rows(config: PackConfig, out: str | Path, on_progress: OnProgress | None = None) -> dict[str, Any]:
    """Write packed sequences and OUT/manifest.json, and return the manifest.

    Rows with a column `input_ids` (and `labels`, where -100 is not learned) are packed as they are; others
    are encoded. Raises UsageError or ConfigError for settings that do not fit, InputError for rows that
    cannot be read, BackendError or MissingExtra for a tokenizer that cannot be loaded.
    """
    from taskmill.mix.pack import pack, split_long

    report = on_progress or ignore
    _check(config)
    files = source_files(config.source)
    folder = own_folder(Path(out), files, "pack")
    table = _sorted(with_ids(joined(number_rest({name: read_file(name) for name in files})), config.source))
    report(Progress("pack", 0, len(table), note="encode"))
    rows, about = token_rows(table, report, tokenizer=config.tokenizer, layout=config.layout, eos=config.eos)
    unused = _unused(table, about["layout"])
    about["loss"] = config.loss
    names = pa.concat_arrays(table["id"].cast(pa.string()).chunks or [pa.array([], pa.string())])
    kept, dropped, wanted = _kept(config, rows, names)
    if not len(kept):
        raise InputError(_nothing_left(config, wanted))
    whole = rows.chosen(kept)
    of = kept
    pieces = len(kept)
    if config.long == "split":
        whole, pieces_of = split_long(whole, config.length)
        of, pieces = kept[pieces_of], len(pieces_of)
    packing = pack(whole.lengths, config.length, config.seed, balance=config.balance)
    _begin(folder)
    ordered = whole.chosen(packing.rows)
    ids = names.take(pa.array(of))
    _write(config, folder, ordered, packing, ids, about)
    record = pa.table(
        {"id": ids, "task": _tasks(table).take(pa.array(of)), "tokens": pa.array(whole.lengths)}
    )
    write_parquet(folder / "rows.parquet", record)
    write_parquet(folder / "dropped.parquet", dropped)
    manifest = _manifest(config, ordered, packing, record, dropped, about)
    manifest["funnel"] = {"in": len(table), "kept": len(kept), "dropped": wanted}
    manifest["pieces"] = pieces
    manifest["unused_columns"] = unused
    manifest["warnings"] = [f"not packed: the text of {', '.join(unused)}"] if unused else []
    shares = [(name, *one.values()) for name, one in manifest["tasks"].items()]
    write_card(folder, "Packed sequences", ("task", "rows", "tokens", "share"), shares)
    atomic_write(folder / "manifest.json", json.dumps(manifest, indent=1, ensure_ascii=False).encode())
    report(Progress("pack", len(table), len(table), len(kept), len(dropped)))
    return manifest


def _check(config: PackConfig) -> None:
    if not config.source:
        raise UsageError("nothing to pack; name a table, a folder or a run folder")
    if config.length < 2:
        raise UsageError(f"--length: a sequence holds 2 tokens or more, not {config.length}")
    unknown = [name for name in config.write if name not in ("parquet", "shards")]
    if unknown or not config.write:
        raise UsageError(f"--write: parquet, shards or both, not {', '.join(unknown) or 'nothing'}")


def _nothing_left(config: PackConfig, dropped: dict[str, int]) -> str:
    """Say why no row is packed, and what to do."""
    if not dropped:
        return f"{config.source}: there are no rows; name another table"
    why = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items())
    long = Reason.OVER_LENGTH in dropped
    advice = (
        f"take a --length over {config.length}, or --long split" if long else "give rows with text to learn"
    )
    return f"{config.source}: no row can be packed ({why}); {advice}"


_BESIDE = ("id", "task", "source", "meta", "mix_source", "mix_task", "mix_row")
"""Columns of text about a row, as `synth` and `mix` write them: nobody expects them among the tokens."""


def _unused(table: pa.Table, layout: str) -> list[str]:
    """Return the columns of text, not all empty, that are not packed."""
    names = table.column_names
    used = part_columns(names) if has_layout(names) else ["text"]
    if layout == "input_ids":
        used = ["input_ids", "labels"]
    beside = [n for n in names if n not in (*used, *_BESIDE) and is_text(table[n].type)]
    return [n for n in beside if pc.any(pc.not_equal(table[n].cast(pa.large_string()), "")).as_py()]


def _sorted(table: pa.Table) -> pa.Table:
    """Return rows sorted by id, so that the order they come in changes nothing."""
    return table.take(pc.sort_indices(table["id"].cast(pa.string())))


def _begin(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").unlink(missing_ok=True)
    for name in ("data", "shards"):
        shutil.rmtree(folder / name, ignore_errors=True)


def _kept(config: PackConfig, rows: TokenRows, names: pa.Array) -> tuple[Array, pa.Table, dict[str, int]]:
    """Return the rows that are packed, the others with their reasons, and how many each reason took."""
    import numpy as np

    lengths = rows.lengths
    learned = np.add.reduceat(np.append(rows.learned, 0), np.minimum(rows.offsets[:-1], len(rows.learned)))
    learned = np.where(lengths > 0, learned, 0)
    verdicts: list[tuple[int, str, str]] = []
    for row in np.flatnonzero(learned == 0).tolist():
        found = (
            f"{lengths[row]:,} tokens, none of them to learn" if lengths[row] else "no text in its columns"
        )
        verdicts.append((row, str(Reason.EMPTY), found))
    if config.long == "drop":
        for row in np.flatnonzero((learned > 0) & (lengths > config.length)).tolist():
            verdicts.append(
                (row, str(Reason.OVER_LENGTH), f"{lengths[row]:,} tokens, over {config.length:,}")
            )
    gone = np.array([row for row, _, _ in verdicts], np.int64)
    dropped = pa.table(
        {
            "id": names.take(pa.array(gone, pa.int64())),
            "reason": pa.array([reason for _, reason, _ in verdicts], pa.string()),
            "detail": pa.array([detail for _, _, detail in verdicts], pa.string()),
            "tokens": pa.array(lengths[gone], pa.int64()),
        }
    )
    counts: dict[str, int] = {}
    for _, reason, _ in sorted(verdicts, key=lambda v: v[1]):
        counts[reason] = counts.get(reason, 0) + 1
    return np.setdiff1d(np.arange(len(lengths)), gone), dropped.sort_by("id"), counts


# results


def _write(
    config: PackConfig, folder: Path, rows: TokenRows, packing: Packing, ids: pa.Array, about: dict[str, Any]
) -> None:
    from taskmill.mix.packed import tables, write_shards

    if "parquet" in config.write:
        for at, part in enumerate(tables(rows, packing, ids, config.loss)):
            write_parquet(folder / "data" / f"train-{at:05}.parquet", part)
    if "shards" in config.write:
        write_shards(folder / "shards", rows, packing, about)


def _tasks(table: pa.Table) -> pa.Array:
    """Return what each row is a task of, as far as its columns say."""
    for name in ("mix_task", "task"):
        if name in table.column_names and is_text(table[name].type):
            found = pc.fill_null(table[name].cast(pa.string()), "")
            return pa.concat_arrays(found.chunks or [pa.array([], pa.string())])
    return pa.array([""], pa.string()).take(pa.array([0] * len(table)))


def _manifest(
    config: PackConfig,
    rows: TokenRows,
    packing: Packing,
    record: pa.Table,
    dropped: pa.Table,
    about: dict[str, Any],
) -> dict[str, Any]:
    shares = record.group_by("task").aggregate([("tokens", "sum"), ("tokens", "count")]).sort_by("task")
    tokens = int(packing.lengths.sum())
    return {
        "command": "pack",
        "taskmill": taskmill.__version__,
        "length": config.length,
        **about,
        "seed": config.seed,
        "long": config.long,
        "balance": config.balance,
        "bins": packing.bins,
        "least_bins": -(-tokens // config.length),
        "fill": round(packing.fill, 6),
        "padding": round(1 - packing.fill, 6),
        "tokens": tokens,
        "learned_tokens": int(rows.learned.sum()),
        "truncated": 0,
        "rows_per_sequence": round(len(packing.rows) / packing.bins, 3),
        "attention": round(packing.attention, 6),
        "mask": "block-diagonal: a token sees tokens of its own segment only, itself and those before it",
        "tasks": {
            row["task"]: {
                "rows": row["tokens_count"],
                "tokens": row["tokens_sum"],
                "token_share": round(row["tokens_sum"] / tokens, 6),
            }
            for row in shares.to_pylist()
        },
        "dropped_tokens": int(pc.sum(dropped["tokens"]).as_py() or 0),
        "written": list(config.write),
    }
