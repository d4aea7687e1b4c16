"""The packing journey: rows of instruction data → token sequences of one length, every row whole and once.

    OUT/  data/train-00000.parquet …  shards/  rows.parquet  dropped.parquet  manifest.json

`rows.parquet` has the id, task and tokens of each packed row, by number; `dropped.parquet` what was not
packed, with the reason. `manifest.json` is written last: without it the folder is unfinished.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

import taskmill
from taskmill.durable import atomic_write
from taskmill.errors import InputError, UsageError
from taskmill.recipes.data_card import card
from taskmill.recipes.data_folder import begin, finish, own_folder
from taskmill.recipes.given_tokens import beside_tokens, given_rows, token_batches
from taskmill.recipes.layouts import has_layout, part_columns
from taskmill.recipes.mixing import source_files
from taskmill.recipes.pack_faults import faults_of, pair_faults, unknown_shares, without
from taskmill.recipes.session import OnProgress, Progress, ignore
from taskmill.recipes.tables import is_text, joined, number_rest, read_file, with_ids
from taskmill.recipes.token_rows import GIVEN, token_rows
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
    target_length: int = field(
        default=0,
        metadata={"help": "for encoder-decoder models: tokens of targets in a sequence, --length of inputs"},
    )
    decoder_start: int = field(
        default=0, metadata={"help": "then, the token that the decoder begins each target with (T5: 0)"}
    )
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
    report = on_progress or ignore
    _check(config)
    files = source_files(config.source)
    folder = own_folder(Path(out), files, "pack")
    rest = beside_tokens(files)
    table = with_ids(joined(number_rest({name: read_file(name, rest) for name in files})), config.source)
    if not len(table):
        raise InputError(f"{config.source}: there are no rows; name another table")
    report(Progress("pack", 0, len(table), note="encode"))
    if rest is not None:
        rows, about = given_rows(token_batches(files), table["id"]), {**GIVEN}
    else:
        rows, about = token_rows(
            table, report, tokenizer=config.tokenizer, layout=config.layout, eos=config.eos
        )
    about["loss"] = config.loss
    beside = _Beside(len(table), _ids(table), _tasks(table), _unused(table, str(about["layout"])))
    del table  # its tokens are in `rows`
    if config.target_length:  # of texts, a prompt is a token and its end, or more
        faults = pair_faults(config, rows, 2 if about["layout"] == "plain" else 1)
    else:
        faults = faults_of(config, rows)
    kept, dropped, wanted = without(faults, rows.lengths, beside.ids)
    if not len(kept):
        raise InputError(_nothing_left(config, wanted))
    begin(folder, "pack", also=("shards",))
    make = _make_pairs if config.target_length else _make_rows
    record, manifest = make(config, folder, rows, kept, beside, about)
    unknown = unknown_shares(rows, kept, beside.tasks, about.get("unknown_token_id"))
    manifest["unknown_tokens"] = unknown
    write_parquet(folder / "rows.parquet", record)
    write_parquet(folder / "dropped.parquet", dropped)
    manifest["dropped_tokens"] = int(pc.sum(dropped["tokens"]).as_py() or 0)
    whole = beside.rows - len(dropped)
    manifest["funnel"] = {"in": beside.rows, "kept": whole, "dropped": wanted}
    manifest["pieces"] = len(record)
    manifest["unused_columns"] = beside.unused
    manifest["warnings"] = [f"not packed: the text of {', '.join(beside.unused)}"] if beside.unused else []
    for task, share in unknown.items():
        said = f"{share:.3%} of the tokens of {task or 'the rows'} are unknown to {about['tokenizer']}"
        manifest["warnings"].append(f"{said}; take a tokenizer that knows its script")
    shares = [(name, *one.values()) for name, one in manifest["tasks"].items()]
    said = card("Packed sequences", ("", ("task", "rows", "tokens", "share"), shares))
    atomic_write(folder / "README.md", said.encode())
    finish(folder, manifest)
    report(Progress("pack", beside.rows, beside.rows, whole, len(dropped)))
    return manifest


class _Beside(NamedTuple):
    """What is known of all rows but their tokens; `unused`: columns of text that are not packed."""

    rows: int
    ids: pa.Array
    tasks: pa.Array
    unused: list[str]

    @property
    def places(self) -> Array:
        """Return each row's place among the ids: the order in which rows come changes nothing."""
        import numpy as np

        found = np.empty(self.rows, np.int64)
        found[pc.sort_indices(self.ids).to_numpy()] = np.arange(self.rows)
        return found


def _make_rows(
    config: PackConfig, folder: Path, rows: TokenRows, kept: Array, beside: _Beside, about: dict[str, Any]
) -> tuple[pa.Table, dict[str, Any]]:
    """Pack and write whole rows; return the id, task and tokens of each by number, and the manifest."""
    import numpy as np

    from taskmill.mix.pack import pack, split_long

    of = np.arange(beside.rows)
    if config.long == "split":
        rows, of = split_long(rows, config.length)
        kept = np.flatnonzero(np.isin(of, kept))
    kept = kept[np.argsort(beside.places[of[kept]], kind="stable")]
    packing = pack(rows.lengths[kept], config.length, config.seed, balance=config.balance)
    record = _record(beside, of[kept], packing.lengths)
    _write(config, folder, rows, kept[packing.rows], packing, record["id"].chunk(0), about)
    manifest = _manifest(config, int(rows.learns[kept].sum()), packing, record, about)
    return record, manifest | {"written": list(config.write)}


def _make_pairs(
    config: PackConfig, folder: Path, rows: TokenRows, kept: Array, beside: _Beside, about: dict[str, Any]
) -> tuple[pa.Table, dict[str, Any]]:
    """Do as `_make_rows` for an encoder-decoder model."""
    import numpy as np

    from taskmill.mix.pairs import pack_pairs, pair_tables, pairs_of

    kept = kept[np.argsort(beside.places[kept], kind="stable")]
    pairs = pairs_of(rows, kept)
    packing, targets = pack_pairs(pairs, config.length, config.target_length, config.seed)
    record = _record(beside, kept, packing.lengths + targets.lengths)
    parts = pair_tables(pairs, packing, record["id"].chunk(0), config.loss, config.decoder_start)
    for at, part in enumerate(parts):
        write_parquet(folder / "data" / f"train-{at:05}.parquet", part)
    manifest = _manifest(config, int(targets.lengths.sum()), packing, record, about)
    return record, manifest | {
        "target_length": config.target_length,
        "target_fill": round(targets.fill, 6),
        "decoder_start": config.decoder_start,
        "written": ["parquet"],
    }


def _record(beside: _Beside, of: Array, lengths: Array) -> pa.Table:
    """Return the id, task and tokens of each packed row (of the row `of[i]`), by number."""
    taken, tokens = pa.array(of), pa.array(lengths)
    return pa.table({"id": beside.ids.take(taken), "task": beside.tasks.take(taken), "tokens": tokens})


def _check(config: PackConfig) -> None:
    if not config.source:
        raise UsageError("nothing to pack; name a table, a folder or a run folder")
    if config.length < 2:
        raise UsageError(f"--length: a sequence holds 2 tokens or more, not {config.length}")
    if config.target_length and (config.long == "split" or config.balance or config.eos != "both"):
        raise UsageError(
            "--target-length: rows are whole, with both end tokens; leave --long, --balance and --eos out"
        )
    if config.target_length and config.layout == "chat":
        raise UsageError("--target-length: a chat has more than one target; take --layout plain")
    unknown = [name for name in config.write if name not in ("parquet", "shards")]
    if unknown or not config.write:
        raise UsageError(f"--write: parquet, shards or both, not {', '.join(unknown) or 'nothing'}")


def _nothing_left(config: PackConfig, dropped: dict[str, int]) -> str:
    """Say why no row is packed, and what to do."""
    why = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items())
    long = "over_length" in dropped
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


def _ids(table: pa.Table) -> pa.Array:
    return pa.concat_arrays(table["id"].cast(pa.string()).chunks or [pa.array([], pa.string())])


# results


def _write(
    config: PackConfig,
    folder: Path,
    rows: TokenRows,
    order: Array,
    packing: Packing,
    ids: pa.Array,
    about: dict[str, Any],
) -> None:
    from taskmill.mix.packed import tables, write_shards

    if "parquet" in config.write:
        for at, part in enumerate(tables(rows, order, packing, ids, config.loss)):
            write_parquet(folder / "data" / f"train-{at:05}.parquet", part)
    if "shards" in config.write:
        write_shards(folder / "shards", rows, order, packing, about)


def _tasks(table: pa.Table) -> pa.Array:
    """Return what each row is a task of, as far as its columns say."""
    for name in ("mix_task", "task"):
        if name in table.column_names and is_text(table[name].type):
            found = pc.fill_null(table[name].cast(pa.string()), "")
            return pa.concat_arrays(found.chunks or [pa.array([], pa.string())])
    return pa.repeat("", len(table))


def _manifest(
    config: PackConfig,
    learned: int,
    packing: Packing,
    record: pa.Table,
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
        "learned_tokens": learned,
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
    }
