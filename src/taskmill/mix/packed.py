"""Packed sequences on disk: token shards that are mapped into memory, and tables that any trainer reads.

    shards/  index.json  tokens.npy  learned.npy  offsets.npy  sequences.npy  rows.npy

`tokens` and `learned` hold all rows in the order of the sequences; row i is from `offsets[i]` to
`offsets[i + 1]`, sequence b holds the rows `sequences[b]` to `sequences[b + 1]`, and row i has the number
`rows[i]` in the table `rows.parquet` beside the shards.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from taskmill.durable import Replacing, atomic_write
from taskmill.errors import InputError
from taskmill.mix.pack import Packing, TokenRows

__all__ = ["NOT_LEARNED", "Shards", "tables", "write_shards"]

Array = np.ndarray[Any, Any]

NOT_LEARNED = -100
"""The label of a token without loss (the `ignore_index` of torch's cross entropy)."""

_FILES = ("tokens", "learned", "offsets", "sequences", "rows")

_AT_ONCE = 1 << 22
"""Tokens that are moved at a time (chosen: the memory for them is used again for the next ones)."""


def write_shards(
    folder: Path, rows: TokenRows, order: Array, packing: Packing, about: Mapping[str, Any]
) -> None:
    """Write the rows `order`, which is that of the sequences, with their index; `index.json` comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.json").unlink(missing_ok=True)
    begins = rows.offsets[order]
    lengths = rows.offsets[1:][order] - begins
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    for name, small in zip(_FILES[2:], (offsets, packing.starts, packing.rows), strict=True):
        with Replacing(folder / f"{name}.npy") as file:
            np.save(file, small)

    def moved(name: str, source: Array) -> None:
        with Replacing(folder / f"{name}.npy") as file:
            _write_moved(file, source, begins, lengths, offsets)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(moved, _FILES[:2], (rows.tokens, rows.learned)))
    index = {"format": "taskmill token shards", "version": 1, "length": packing.room, **about}
    atomic_write(folder / "index.json", json.dumps(index, indent=1).encode())


def _write_moved(file: IO[bytes], source: Array, begins: Array, lengths: Array, offsets: Array) -> None:
    """Write the spans of an array one behind the other as one .npy file, some of them at a time."""
    from taskmill.kernels.bins import copy_spans

    head = {"descr": np.lib.format.dtype_to_descr(source.dtype), "fortran_order": False}
    np.lib.format.write_array_header_1_0(file, {**head, "shape": (int(offsets[-1]),)})
    at = 0
    while at < len(begins):
        end = max(int(np.searchsorted(offsets, offsets[at] + _AT_ONCE, side="right")) - 1, at + 1)
        part = np.empty(int(offsets[end] - offsets[at]), source.dtype)
        copy_spans(source, begins[at:end], lengths[at:end], part, offsets[at:end] - offsets[at])
        file.write(part.data)
        at = end


class Shards:
    """Token shards, mapped into memory: `len(shards)` sequences, `shards[i]` one of them."""

    def __init__(self, folder: str | Path) -> None:
        """Open the shards in a folder; raises InputError if they are unfinished or none."""
        place = Path(folder)
        if not (place / "index.json").is_file():
            raise InputError(f"{place} holds no finished token shards; run `taskmill pack` to the end")
        self.about = json.loads((place / "index.json").read_bytes())
        arrays = [np.load(place / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _FILES]
        self.tokens, self.learned, self.offsets, self.sequences, self.rows = arrays

    def __len__(self) -> int:
        return len(self.sequences) - 1

    def __getitem__(self, index: int) -> dict[str, Array]:
        """Return the columns of one sequence, as `tables` has them."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"sequence {index} of {len(self)}")
        a, b = (int(x) for x in self.sequences[index % len(self) :][:2])
        begin, end = int(self.offsets[a]), int(self.offsets[b])
        lengths = np.diff(self.offsets[a : b + 1])
        return _columns(
            self.tokens[begin:end], self.learned[begin:end], lengths, self.about.get("loss", "tokens")
        )


def _columns(tokens: Array, learned: Array, lengths: Array, loss: str) -> dict[str, Array]:
    """Return the columns of rows that stand one behind the other, segments numbered from 1."""
    starts = np.cumsum(lengths) - lengths
    ids = np.asarray(tokens, np.int32)
    taken = np.array(learned, bool)
    taken[starts] = False  # nothing stands before the first token of a row
    weights = taken.astype(np.float32)
    if loss == "rows":
        each = np.add.reduceat(weights, starts) if len(starts) else np.zeros(0, np.float32)
        weights /= np.repeat(np.maximum(each, 1), lengths)
    return {
        "input_ids": ids,
        "labels": np.where(taken, ids, np.int32(NOT_LEARNED)),
        "position_ids": (np.arange(len(ids)) - np.repeat(starts, lengths)).astype(np.int32),
        "segment_ids": np.repeat(np.arange(1, len(lengths) + 1, dtype=np.int32), lengths),
        "loss_weights": weights,
    }


def tables(
    rows: TokenRows, order: Array, packing: Packing, names: pa.Array, loss: str, size: int = 1 << 23
) -> Iterator[pa.Table]:
    """Yield the sequences as tables of about `size` tokens, with one list a column and sequence.

    `seq_lengths` are the tokens of each row, `row_ids` the rows' ids (`names`: of all rows, by number).
    `order` as in `write_shards`. Nothing is padded: a trainer's collator pads, or flattens.
    """
    ends = np.concatenate(([0], np.cumsum(rows.offsets[1:][order] - rows.offsets[order])))
    token_starts = ends[packing.starts]
    at = 0
    while at < packing.bins:
        end = int(np.searchsorted(token_starts, token_starts[at] + size, side="right")) - 1
        end = min(max(end, at + 1), packing.bins)
        a, b = int(packing.starts[at]), int(packing.starts[end])
        part = rows.chosen(order[a:b])
        lengths = part.lengths
        columns = _columns(part.tokens, part.learned, lengths, loss)
        first = packing.starts[at:end] - a  # of each sequence, its first row here
        per_bin = np.diff(packing.starts[at : end + 1])
        columns["segment_ids"] -= np.repeat(np.repeat(first, per_bin), lengths).astype(np.int32)
        tokens = pa.array((token_starts[at : end + 1] - token_starts[at]).astype(np.int32))
        members = pa.array((packing.starts[at : end + 1] - a).astype(np.int32))
        made = {name: pa.ListArray.from_arrays(tokens, pa.array(values)) for name, values in columns.items()}
        made["seq_lengths"] = pa.ListArray.from_arrays(members, pa.array(lengths.astype(np.int32)))
        made["row_ids"] = pa.ListArray.from_arrays(members, names.take(pa.array(packing.rows[a:b])))
        yield pa.table(made)
        at = end
