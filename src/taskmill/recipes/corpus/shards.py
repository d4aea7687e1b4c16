"""Rows of a corpus → their tokens, packed into sequences: mapped into memory, and as tables for trainers."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from taskmill.backends.tokenizer import TextTokenizer
from taskmill.store import parts, write_parquet

__all__ = ["shard"]


def shard(run: Path, tokenizer: TextTokenizer, length: int, seed: int) -> dict[str, Any]:
    """Write `shards/` from the rows in `data/` and return what is in it; all tokens are held in memory.

    A row is its text with the tokenizer's begin and end tokens; the loss is on all of them (LMOps issue 149).
    A row longer than a sequence is cut every `length` tokens, and nothing of it is left out.
    """
    import numpy as np

    from taskmill.mix.pack import TokenRows, pack, split_long
    from taskmill.mix.packed import tables, write_shards

    folder = run / "shards"
    shutil.rmtree(folder, ignore_errors=True)
    begin, end = tokenizer.begin, () if tokenizer.end is None else (tokenizer.end,)
    lines, lengths, names = [], [], []
    for path in parts(run / "data"):
        table = pq.read_table(path, columns=["id", "text"])
        names += table["id"].to_pylist()
        ids, offsets = tokenizer.encode(table["text"].to_pylist())
        for a, b in pairwise(offsets):
            lines.append(np.concatenate((np.array(begin, np.uint32), ids[a:b], np.array(end, np.uint32))))
            lengths.append(len(lines[-1]))
    line = np.concatenate(lines).astype(np.uint32) if lines else np.zeros(0, np.uint32)
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    rows, of = split_long(TokenRows(line, np.ones(len(line), np.uint8), offsets), length)
    packing = pack(rows.lengths, length, seed)
    about = {
        "tokenizer": tokenizer.name,
        "end": tokenizer.end,
        "loss": "tokens",
        "bins": packing.bins,
        "fill": round(packing.fill, 6),
        "truncated": 0,
        "split": len(of) - len(names),
        "tokens": len(line),
    }
    write_shards(folder, rows, packing.rows, packing, about)
    ids_of_pieces = pa.array(names, pa.string()).take(pa.array(of))
    for number, table in enumerate(tables(rows, packing.rows, packing, ids_of_pieces, "tokens")):
        write_parquet(folder / f"train-{number:05}.parquet", table)
    return about
