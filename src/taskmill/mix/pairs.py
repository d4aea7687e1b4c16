"""Packing for encoder-decoder models: each row has an input and a target, each with a room of its own.

The rows of a sequence are the same on both sides, numbered alike, so that the block-diagonal masks of the
encoder, the decoder and its look at the encoder follow from the numbers (`mix.pack.attention_mask`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from taskmill.errors import ConfigError, InputError
from taskmill.mix.pack import Packing, TokenRows, in_sequences, shuffled

__all__ = ["Pairs", "pack_pairs", "pair_tables", "pairs_of", "split_points"]

Array = np.ndarray[Any, Any]

OPEN = 1024
"""Sequences open at a time (chosen: 21 % fewer in all than with one; 8 times as many save 5 % more)."""


class Pairs(NamedTuple):
    """Inputs and targets of the same rows."""

    inputs: TokenRows
    targets: TokenRows


def split_points(rows: TokenRows) -> Array:
    """Return how many tokens of each row are its input: those before the first learned one.

    -1 where what is learned is not the end of the row, or there is nothing before or nothing of it.
    """
    given = rows.lengths - rows.learns
    found = np.where((given > 0) & (rows.learns > 0), given, -1)
    own = np.flatnonzero(found > 0)
    if len(own):
        begins = rows.offsets[:-1][own]
        edges = np.stack([begins, begins + given[own]], axis=1).ravel()
        learned_first = np.add.reduceat(rows.learned, edges, dtype=np.int64)[::2]
        found[own[learned_first > 0]] = -1
    return found


def pairs_of(rows: TokenRows, chosen: Array) -> Pairs:
    """Return the inputs and targets of some rows, each of which has both (`split_points`)."""
    from taskmill.kernels.bins import copy_spans

    points = split_points(rows)[chosen]
    begins = np.ascontiguousarray(rows.offsets[chosen])
    sides = []
    for first, lengths in ((begins, points), (begins + points, rows.lengths[chosen] - points)):
        offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
        tokens = np.empty(int(offsets[-1]), rows.tokens.dtype)
        copy_spans(rows.tokens, first, lengths, tokens, offsets[:-1])
        sides.append(TokenRows(tokens, np.ones(len(tokens), np.uint8), offsets))
    return Pairs(*sides)


def pack_pairs(pairs: Pairs, room: int, target_room: int, seed: int = 0) -> tuple[Packing, Packing]:
    """Pack rows whose inputs and targets hold at most `room` and `target_room` tokens a sequence.

    Best fit, rows that fill most of either room first, `OPEN` sequences at a time; never more sequences than
    with one open at a time. Returns the packing of both sides: the same rows in the same sequences. Raises
    InputError naming a row that fits no sequence.
    """
    from taskmill.kernels.bins import best_fit_pairs, next_fit_pairs

    if room < 1 or target_room < 1:
        raise ConfigError(f"a sequence holds 1 token or more on both sides, not {room} and {target_room}")
    own, other = pairs.inputs.lengths, pairs.targets.lengths
    wrong = np.flatnonzero((own < 1) | (own > room) | (other < 1) | (other > target_room))
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"row {row} (counted from 0) has {own[row]} and {other[row]} tokens; 1 to {room} and 1 to "
            f"{target_room} can be packed"
        )
    drawn = shuffled(len(own), seed, "pack rows")
    share = np.maximum(own / room, other / target_room)[drawn]
    order = drawn[np.argsort(-share, kind="stable")]
    placed, bins = np.empty(len(own), np.int32), np.empty(len(own), np.int32)
    used = best_fit_pairs(own[order], other[order], room, target_room, OPEN, placed)
    if next_fit_pairs(own, other, room, target_room, bins) < used:
        used = int(bins.max()) + 1
    else:
        bins[order] = placed
    rows, starts = in_sequences(bins, shuffled(used, seed, "pack bins"), drawn)
    return Packing(room, rows, starts, own), Packing(target_room, rows, starts, other)


def pair_tables(
    pairs: Pairs, packing: Packing, names: pa.Array, loss: str, start: int, size: int = 1 << 15
) -> Iterator[pa.Table]:
    """Yield `size` sequences at a time as tables with one list a column and sequence.

    `start`: the token before a target in `decoder_input_ids`, which are the labels shifted by one.
    """
    for at in range(0, packing.bins, size):
        starts = packing.starts[at : at + size + 1]
        rows = packing.rows[starts[0] : starts[-1]]
        sides = [side.chosen(rows) for side in pairs]
        of = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        nth = (np.arange(len(rows)) - (starts[:-1] - starts[0])[of] + 1).astype(np.int32)
        inputs, targets = sides
        read = {"": inputs.tokens.astype(np.int32), "decoder_": _shifted(targets, start)}
        columns: dict[str, pa.Array] = {}
        for side, (prefix, ids) in zip(sides, read.items(), strict=True):
            ends = pa.array(side.offsets[starts - starts[0]].astype(np.int32))
            places = np.arange(len(ids)) - np.repeat(side.offsets[:-1], side.lengths)
            made = {
                f"{prefix}input_ids": ids,
                f"{prefix}position_ids": places.astype(np.int32),
                f"{prefix}segment_ids": np.repeat(nth, side.lengths),
            }
            if side is targets:
                made |= {"labels": side.tokens.astype(np.int32), "loss_weights": _weights(side, loss)}
            columns |= {
                name: pa.ListArray.from_arrays(ends, pa.array(values)) for name, values in made.items()
            }
        members = pa.array((starts - starts[0]).astype(np.int32))
        columns["row_ids"] = pa.ListArray.from_arrays(members, names.take(pa.array(rows)))
        yield pa.table(columns)


def _shifted(side: TokenRows, start: int) -> Array:
    """Return each row's tokens behind `start`, without its last one: what the decoder reads."""
    found = np.roll(side.tokens.astype(np.int32), 1)
    found[side.offsets[:-1]] = start
    return found


def _weights(side: TokenRows, loss: str) -> Array:
    each = np.ones(len(side.lengths)) if loss == "tokens" else 1 / side.lengths
    return np.repeat(each, side.lengths).astype(np.float32)
