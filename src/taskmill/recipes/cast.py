"""Annotated datasets → few-shot sequences that train an instruction synthesizer.

    DIR/  sequences.parquet   prompt, completion, unlearned …: what `taskmill train synthesizer DIR` reads
          records.parquet     the annotated texts in it, in the published tuning data's columns
          dropped/            pairs and rows that are not in it, with the reason
          manifest.json       datasets, formats, tokens and how full the sequences are; written last

A sequence holds whole texts of one dataset with their pairs, as many as fit; a synthesizer learns the pairs
of all of them (Instruction Pre-Training, arXiv 2406.14491).
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa

from taskmill.backends import tokenizer as tokenizers
from taskmill.backends.tokenizer import TextTokenizer
from taskmill.config import to_mapping
from taskmill.durable import atomic_write
from taskmill.errors import ConfigError, InputError, UsageError
from taskmill.ids import content_id
from taskmill.mix.pack import pack
from taskmill.recipes.corpus.extras import Extra, read_annotated
from taskmill.recipes.evaluation_sets import AGAINST, SHIPPED, HeldOut
from taskmill.recipes.session import OnProgress, Progress, ignore
from taskmill.recipes.tables import check_out
from taskmill.record import EXAMPLE_SCHEMA, Dropped, Reason, dropped_schema
from taskmill.render import CHAT_TOKENS, escape_special
from taskmill.store import Run, SortedParts, write_parquet
from taskmill.synthesize.casting import CAP, FORMATS, Annotated, format_of, to_row
from taskmill.synthesize.pair_format import Pair, Shown, render_parts

__all__ = ["CastConfig", "cast"]

SEQUENCES = pa.schema(
    [("id", pa.string()), ("prompt", pa.string()), ("completion", pa.string()),
     ("unlearned", pa.list_(pa.list_(pa.int32()))), ("special", pa.bool_()), ("group", pa.string()),
     ("dataset", pa.string()), ("records", pa.list_(pa.string())), ("pairs", pa.int32()),
     ("tokens", pa.int32())]
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CastConfig:
    """Annotated datasets in, few-shot sequences for an instruction synthesizer out."""

    sources: tuple[str, ...] = field(
        default=(), metadata={"help": "annotated texts: rows of context and QA_list, or examples"}
    )
    formats: tuple[str, ...] = field(
        default=FORMATS, metadata={"help": "of pairs: free answers or options, each with reasoning or not"}
    )
    cap: int = field(
        default=CAP, metadata={"help": "most texts of a dataset, those of most pairs first; 0: all"}
    )
    length: int = field(
        default=1024, metadata={"help": "tokens of a sequence; train with --max-length of as many"}
    )
    tokenizer: str = field(
        default="smollm2-135m",
        metadata={"help": "embedded model, folder, tokenizer.json or Hub name: the one that is trained"},
    )
    against: tuple[str, ...] = field(
        default=(SHIPPED,), metadata={"help": f"texts with items of these are dropped: {AGAINST}"}
    )
    seed: int = field(default=0, metadata={"help": "seed of which texts stand together"})

    def __post_init__(self) -> None:
        if not self.sources:
            raise UsageError("no source is given; name annotated texts, as tables with context and QA_list")
        wrong = [name for name in self.formats if name not in FORMATS]
        if wrong or not self.formats:
            raise ConfigError(f"formats: {', '.join(wrong) or 'none'}; take some of {', '.join(FORMATS)}")
        if self.length < 2 or self.cap < 0:
            raise ConfigError("length must be 2 or more, cap 0 or more")


def cast(config: CastConfig, out: str | Path, on_progress: OnProgress | None = None) -> dict[str, Any]:
    """Write the sequences of annotated datasets into folder `out` and return its manifest.

    Raises InputError for a source without annotated texts, or if none is left; UsageError for an `out` that
    is something else's.
    """
    report = on_progress or ignore
    with Run(check_out(out, config.sources, "cast")) as run:
        (run.path / "manifest.json").unlink(missing_ok=True)
        report(Progress("read datasets"))
        extra = Extra()
        records = read_annotated(config.sources, HeldOut(config.against), extra, config.cap)
        records = _of_formats(records, config.formats, extra)
        report(Progress("count tokens", 0, len(records)))
        tokenizer = tokenizers.load_text_tokenizer(config.tokenizer)
        sized = _sized(records, tokenizer, config.length, extra)
        _write_dropped(run.path, extra.lost)
        if not sized:
            raise InputError(f"no annotated text is left; {run.path / 'dropped'} holds them with the reasons")
        rows = [row for name in sorted(sized) for row in _packed(name, sized[name], config)]
        rows.sort(key=lambda row: row["id"])
        kept = [one.record for own in sized.values() for one in own]
        write_parquet(run.path / "sequences.parquet", pa.Table.from_pylist(rows, schema=SEQUENCES))
        shown = [to_row(record) for record in sorted(kept, key=lambda r: r.id)]
        write_parquet(run.path / "records.parquet", pa.Table.from_pylist(shown))
        manifest = _manifest(config, tokenizer, rows, kept, extra)
        atomic_write(run.path / "manifest.json", json.dumps(manifest, indent=1, ensure_ascii=False).encode())
        return manifest


def _of_formats(records: Sequence[Annotated], formats: Sequence[str], extra: Extra) -> list[Annotated]:
    """Return the records with a format that is wanted; one with pairs of several is of its first pair's."""
    kept = []
    for record in records:
        if format_of(record.pairs[0]) in formats:
            kept.append(record)
        else:
            extra.drop_pairs(record, Reason.NOT_APPLICABLE, f"its format is {format_of(record.pairs[0])}")
    return kept


@dataclass(frozen=True, slots=True)
class _Sized:
    """A record, its parts on the wire and its tokens, counted part by part as training encodes them."""

    record: Annotated
    parts: list[tuple[str, bool]]
    tokens: int


def _sized(
    records: Sequence[Annotated], tokenizer: TextTokenizer, length: int, extra: Extra
) -> dict[str, list[_Sized]]:
    special = tuple(dict.fromkeys((*tokenizer.special_tokens.values(), *CHAT_TOKENS)))

    def safe(text: str) -> str:
        return escape_special(text, special)

    parts = []
    for record in records:
        pairs = tuple(Pair(safe(pair.question), safe(pair.answer)) for pair in record.pairs)
        parts.append(render_parts([Shown(safe(record.context), pairs)]))
    _, offsets = tokenizer.encode([text for own in parts for text, _ in own])
    sizes = [int(b - a) for a, b in pairwise(offsets)]
    found: dict[str, list[_Sized]] = defaultdict(list)
    at = 0
    for record, own in zip(records, parts, strict=True):
        tokens = sum(sizes[at : at + len(own)])
        at += len(own)
        if tokens > length:
            extra.drop_pairs(record, Reason.OVER_CONTEXT, f"{tokens} tokens with its pairs are over {length}")
        else:
            found[record.dataset].append(_Sized(record, own, tokens))
    return found


def _packed(dataset: str, own: Sequence[_Sized], config: CastConfig) -> list[dict[str, Any]]:
    """Return the sequences of one dataset: best-fit decreasing, no text is cut."""
    import numpy as np

    ordered = sorted(own, key=lambda one: one.record.id)  # not the order in which they came
    packing = pack(np.array([one.tokens for one in ordered], np.int64), config.length, config.seed)
    rows = []
    for begin, end in pairwise(packing.starts.tolist()):
        together = [ordered[i] for i in packing.rows[begin:end].tolist()]
        (prompt, _), *rest = [part for one in together for part in one.parts]
        completion, unlearned = "", []
        for text, learned in rest:
            if not learned:
                unlearned.append([len(completion), len(completion) + len(text)])
            completion += text
        names = [one.record.id for one in together]
        name = content_id("sequence", dataset, *names)
        rows.append(
            {
                "id": name, "prompt": prompt, "completion": completion, "unlearned": unlearned,
                "special": True, "group": name, "dataset": dataset, "records": names,
                "pairs": sum(len(one.record.pairs) for one in together),
                "tokens": sum(one.tokens for one in together),
            }
        )  # fmt: skip
    return rows


def _write_dropped(folder: Path, lost: Sequence[Dropped]) -> None:
    beside = SortedParts(folder / "dropped", dropped_schema(EXAMPLE_SCHEMA), ["id", "reason"])
    beside.add(list(lost))
    beside.finish()


def _manifest(
    config: CastConfig,
    tokenizer: TextTokenizer,
    rows: Sequence[dict[str, Any]],
    kept: Sequence[Annotated],
    extra: Extra,
) -> dict[str, Any]:
    tokens = sum(row["tokens"] for row in rows)
    datasets: dict[str, dict[str, int]] = {}
    for record in sorted(kept, key=lambda r: r.dataset):
        own = datasets.setdefault(record.dataset, {"texts": 0, "pairs": 0, "sequences": 0})
        own["texts"] += 1
        own["pairs"] += len(record.pairs)
    for row in rows:
        datasets[row["dataset"]]["sequences"] += 1
    return {
        "kind": "cast",
        "command": "cast",
        "config": to_mapping(config),
        "tokenizer": tokenizer.name,
        "datasets": datasets,
        "formats": dict(sorted(Counter(format_of(record.pairs[0]) for record in kept).items())),
        "pairs": extra.funnel(),
        "sequences": len(rows),
        "tokens": tokens,
        "fill": round(tokens / (config.length * len(rows)), 6) if rows else 0.0,
    }
