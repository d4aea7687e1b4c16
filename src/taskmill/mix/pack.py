"""Packing: rows of tokens → sequences of at most L tokens, each row once and whole.

Best-fit decreasing over the whole data set: at most 11/9 of the least number of sequences, plus a constant,
in practice a few more; and never more than with one open sequence at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from taskmill.errors import ConfigError, InputError
from taskmill.ids import draw

__all__ = ["Packing", "TokenRows", "attention_mask", "in_sequences", "pack", "shuffled", "split_long"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class TokenRows:
    """Rows of tokens in one line: row i is `tokens[offsets[i] : offsets[i + 1]]`.

    `learned` (uint8, as long as `tokens`): 1 where the loss is taken on predicting that token.
    """

    tokens: Array
    learned: Array
    offsets: Array

    @property
    def lengths(self) -> Array:
        """Return the tokens of each row."""
        return np.diff(self.offsets)

    @property
    def learns(self) -> Array:
        """Return how many tokens of each row are learned."""
        some = self.lengths > 0
        found = np.zeros(len(some), np.int64)
        if some.any():
            found[some] = np.add.reduceat(self.learned, self.offsets[:-1][some], dtype=np.int64)
        return found

    def chosen(self, rows: Array) -> TokenRows:
        """Return these rows, in this order."""
        from taskmill.kernels.bins import copy_spans

        begins = np.ascontiguousarray(self.offsets[rows])
        lengths = self.offsets[1:][rows] - begins
        offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
        tokens = np.empty(int(offsets[-1]), self.tokens.dtype)
        learned = np.empty(int(offsets[-1]), self.learned.dtype)
        for source, target in ((self.tokens, tokens), (self.learned, learned)):
            copy_spans(source, begins, lengths, target, offsets[:-1])
        return TokenRows(tokens, learned, offsets)


@dataclass(frozen=True, eq=False)
class Packing:
    """Which rows make which sequence: sequence b holds `rows[starts[b] : starts[b + 1]]`, in that order."""

    room: int
    rows: Array
    starts: Array
    lengths: Array

    @property
    def bins(self) -> int:
        """Return how many sequences there are."""
        return len(self.starts) - 1

    @cached_property
    def fill(self) -> float:
        """Return the share of all places that hold a token."""
        return float(self.lengths.sum() / (self.room * self.bins)) if self.bins else 1.0

    @cached_property
    def attention(self) -> float:
        """Return Σ l² over the rows as a share of what padded sequences of full attention would take."""
        squares = float((self.lengths.astype(float) ** 2).sum())
        return squares / (float(self.room) ** 2 * self.bins) if self.bins else 1.0


def pack(lengths: Array, room: int, seed: int = 0, *, balance: int = 0) -> Packing:
    """Pack rows of these lengths into sequences of at most `room` tokens.

    Rows of equal length are shuffled by the seed before they are placed, and the sequences at the end. With
    `balance`, so many sequences in a row cost about the same (Σ l², the work of attention): those of one step
    on so many devices. Raises InputError naming the row that is empty or longer than `room`.
    """
    from taskmill.kernels.bins import best_fit, next_fit

    if room < 1:
        raise ConfigError(f"a sequence holds 1 token or more, not {room}")
    own = np.ascontiguousarray(lengths, np.int64)
    wrong = np.flatnonzero((own < 1) | (own > room))
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"row {row} (counted from 0) has {own[row]} tokens; a row of 1 to {room} can be packed"
        )
    drawn = shuffled(len(own), seed, "pack rows")
    # Of 16 bits, numpy sorts by counting; the shortest complement first is the longest row first.
    small = np.uint16 if room <= 0xFFFF else np.int64
    order = drawn[np.argsort((room - own[drawn]).astype(small), kind="stable")]
    placed, bins = np.empty(len(own), np.int32), np.empty(len(own), np.int32)
    used = best_fit(own[order].astype(np.int32), room, placed)
    if next_fit(own, room, bins) < used:  # rare: the order they come in was a lucky one
        used = int(bins.max()) + 1
    else:
        bins[order] = placed
    rows, starts = in_sequences(bins, _places(own, bins, used, seed, balance), drawn)
    return Packing(room, rows, starts, own)


def shuffled(count: int, seed: int, what: str) -> Array:
    """Return the numbers below `count` in an order that the seed draws for `what`."""
    return np.random.Generator(np.random.PCG64(draw(seed, "", what))).permutation(count)


def in_sequences(bins: Array, places: Array, order: Array) -> tuple[Array, Array]:
    """Return (rows, starts) of a `Packing` from each row's bin and each bin's place.

    The rows of a sequence stand as in `order`, which names each row once.
    """
    from taskmill.kernels.bins import by_bin

    own = places[bins]
    starts = np.concatenate(([0], np.cumsum(np.bincount(own, minlength=len(places))))).astype(np.int64)
    rows = np.empty(len(own), np.int64)
    by_bin(own, order, starts, rows)
    return rows, starts


def _places(lengths: Array, bins: Array, used: int, seed: int, balance: int) -> Array:
    """Return where each bin stands among the sequences: shuffled, in groups of like cost with `balance`."""
    if balance < 2:
        return shuffled(used, seed, "pack bins")
    costs = np.bincount(bins, weights=lengths.astype(float) ** 2, minlength=used)
    order = np.argsort(costs, kind="stable")
    groups = np.arange(used) // balance
    rank = shuffled(int(groups[-1]) + 1 if used else 0, seed, "pack bins")
    if used % balance:  # the group that is not full comes last, or it would shift all after it
        rank[rank > rank[-1]] -= 1
        rank[-1] = len(rank) - 1
    places = np.empty(used, np.int64)
    places[order] = rank[groups] * balance + np.arange(used) % balance
    return places


def split_long(rows: TokenRows, room: int) -> tuple[TokenRows, Array]:
    """Cut rows longer than `room` every `room` tokens; return the pieces and the row each is of.

    The first token of a piece is not learned: nothing stands before it that could predict it.
    """
    pieces = np.maximum(-(-rows.lengths // room), 1)
    of = np.repeat(np.arange(len(pieces)), pieces)
    nth = np.arange(len(of)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    begins = rows.offsets[:-1][of] + nth * room
    learned = rows.learned.copy()
    learned[begins[nth > 0]] = 0
    return TokenRows(rows.tokens, learned, np.append(begins, rows.offsets[-1])), of


def attention_mask(
    segments: Array, keys: Array | None = None, *, kind: str = "causal", inputs: Array | None = None
) -> Array:
    """Return which positions see which: bool [queries, keys]. Segments are numbered from 1; 0 is padding.

    causal: a token sees itself and what stands before it in its own row. prefix: the `inputs` (bool) of a row
    see each other too. full: all of a row see each other (an encoder; with `keys`, a decoder's look at it).
    """
    own = np.asarray(segments)
    other = own if keys is None else np.asarray(keys)
    same: Array = (own[:, None] == other[None, :]) & (own[:, None] > 0)
    if kind == "full":
        return same
    if kind not in ("causal", "prefix"):
        raise ConfigError(f"no mask {kind!r}; take causal, prefix or full")
    before = np.arange(len(own))[:, None] >= np.arange(len(other))[None, :]
    if kind == "prefix":
        if inputs is None:
            raise ConfigError("a prefix mask needs to know which tokens are inputs")
        given = np.asarray(inputs, bool)
        before = before | (given[:, None] & given[None, :])
    same &= before
    return same
