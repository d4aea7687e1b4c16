"""Who repeats whom among rows that may be more than the memory: hashes of each row are held, not its text.

One pass over the rows makes the hashes (`marked`). Near duplicates take a second one, over the rows that
share a MinHash band, for the n-grams by which they are compared; bands and n-grams stand in files that are
mapped into memory, so that the system holds of them what it has room for.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taskmill.curate.dedup import (
    Duplicates,
    common_words,
    compared,
    exact_keys,
    family_keys,
    instruction_words,
    judged,
    skeleton_keys,
)
from taskmill.curate.semantic import semantic_duplicates
from taskmill.durable import cache_folder
from taskmill.errors import InputError
from taskmill.kernels.graph import firsts
from taskmill.kernels.near import Bands, Sketch, in_one_piece, sketch
from taskmill.kernels.rivals import Sets, linked, put_sets, sets_of, settled
from taskmill.recipes.layouts import as_parts
from taskmill.recipes.pieces import Rows, answers
from taskmill.recipes.scratch import gathered, numbers, vectors_of
from taskmill.recipes.tables import column
from taskmill.render import SLOT

__all__ = ["Marks", "exact", "marked", "near", "semantic", "texts_of"]

Array = np.ndarray[Any, Any]

HELD = 1 << 28
"""Bytes of vectors that are held in memory (chosen: 260,000 rows of 256 numbers); more stand in a file."""

_NOBODY = np.uint64(0x9E3779B97F4A7C15)
"""Odd, so that multiples of it differ (chosen: 2 to the 64 through the golden ratio)."""


class Marks(NamedTuple):
    """What is held of n rows; without length where it is not asked for.

    `keys` (uint64 [n, 2]), `bands` (uint64 [number, n]) and `sizes` (int32 [n]) as in `Sketch`; `lengths`
    (int32 [n]): characters; `skeletons`, `sources` (uint64 [n, 2]): keys that caps count.
    """

    keys: Array
    bands: Array
    sizes: Array
    lengths: Array
    skeletons: Array
    sources: Array


# What is asked of a piece: jobs of `answers`. `asked` is what `recipes.dedup` makes of the configuration.


def texts_of(table: pa.Table, asked: Mapping[str, Any]) -> list[pa.Array]:
    """Return the texts that are compared, column by column."""
    if asked["on"] == "instruction" and not asked["own"]:
        return [_bare(table)]
    if asked["on"]:
        return compared(as_parts(table, asked["own"]), asked["on"])
    if not asked["text"]:  # vectors need none
        return [pa.array([""] * len(table), pa.large_string())]
    return [in_one_piece(column(table, asked["text"], asked["where"], "--text", text=True))]


def _bare(table: pa.Table) -> pa.Array:
    """Return the instructions of foreign rows as they stand there: only a placeholder of theirs is filled."""
    parts = as_parts(table, own=False)
    asked = in_one_piece(parts["instruction"])
    bare = pc.replace_substring_regex(asked, r"^\{\{context\}\}\n\n", "")
    if "instruction" not in table.column_names:
        return bare
    quotes = pc.match_substring_regex(in_one_piece(table["instruction"]), SLOT)
    return pc.if_else(quotes, compared(parts, "instruction")[0], bare)


def _in_one(texts: Sequence[pa.Array]) -> pa.Array:
    """Return one text of each row's, a line each."""
    if len(texts) == 1:
        return texts[0]
    return pc.binary_join_element_wise(*texts, pa.scalar("\n", pa.large_string()))


def mark(table: pa.Table, asked: Mapping[str, Any]) -> dict[str, Array]:
    """Return the parts of `Marks` that are asked for, of one piece."""
    found: dict[str, Array] = {}
    if asked["mode"] != "semantic" or asked["longest"]:
        texts = texts_of(table, asked)
        blank = np.asarray(pc.equal(pc.utf8_trim_whitespace(_in_one(texts)), ""))
        if asked["mode"] == "exact":
            found["keys"] = exact_keys(texts, asked["normalise"])
        elif asked["mode"] == "near":
            held = sketch(_in_one(texts), asked["ngram"], Bands(*asked["bands"]), asked["seed"])
            found |= held._asdict()
        if "keys" in found:
            found["keys"][blank] = 0
        if asked["longest"]:
            found["lengths"] = np.asarray(pc.utf8_length(_in_one(texts))).astype(np.int32)
    if asked["skeletons"]:
        data = as_parts(table, asked["own"])
        common = np.frombuffer(base64.b64decode(asked["common"]), np.uint64)
        found["skeletons"] = skeleton_keys(data["instruction"], data["context"], data["response"], common)
    if asked["source"]:
        found["sources"] = _families(table, asked["source"])
    return found


def _families(table: pa.Table, name: str) -> Array:
    named = column(table, name, "--source-cap", "--source-column")
    if not pa.types.is_struct(named.type):
        named = column(table, name, "--source-cap", "--source-column", text=True)
    return family_keys(named)


def count(table: pa.Table, asked: Mapping[str, Any]) -> dict[str, Array]:
    """Return the different words of a piece's instructions (hashes) and how often each stands there."""
    words = instruction_words(as_parts(table, asked["own"])["instruction"])
    known, counts = np.unique(words.hashes, return_counts=True)
    return {"known": known, "counts": counts}


def shingle(table: pa.Table, asked: Mapping[str, Any]) -> dict[str, Array]:
    """Return the sets of n-grams of a piece (`Sets`)."""
    return sets_of(_in_one(texts_of(table, asked)), asked["ngram"])._asdict()


# Passes over all rows


def common(rows: Rows, columns: Sequence[str], asked: Mapping[str, Any], runner: str) -> str:
    """Return the words that are common in all instructions (hashes, base64)."""
    known, counts = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    for _, _, found in answers(rows, columns, count, asked, runner):
        both, place = np.unique(np.concatenate([known, found["known"]]), return_inverse=True)
        weights = np.concatenate([counts, found["counts"]])
        known, counts = both, np.zeros(len(both), np.int64)
        np.add.at(counts, place, weights)
    return base64.b64encode(common_words(known, counts, len(rows)).tobytes()).decode()


def marked(
    rows: Rows, columns: Sequence[str], asked: Mapping[str, Any], runner: str, tell: Callable[[int], None]
) -> Marks:
    """Return what is held of each row; `tell` is called with the number of rows that are done."""
    asked = dict(asked)
    if asked["skeletons"]:
        asked["common"] = common(rows, columns, asked, runner)
    held: dict[str, Array] = {}
    for first, _, found in answers(rows, columns, mark, asked, runner):
        if first:
            tell(first)
        for name, values in found.items():
            if name == "bands":
                if name not in held:
                    held[name] = numbers(rows.scratch / name, np.uint64, (len(values), len(rows)))
                held[name][:, first : first + values.shape[1]] = values
                continue
            if name not in held:
                held[name] = np.empty((len(rows), *values.shape[1:]), values.dtype)
            held[name][first : first + len(values)] = values
    marks = Marks(*(held.get(name, np.zeros(0, np.uint64)) for name in Marks._fields))
    if len(marks.keys):  # a row without a text repeats nobody: keys of its own tell it from all others
        blank = np.flatnonzero(~marks.keys.any(axis=1))
        marks.keys[blank, 0], marks.keys[blank, 1] = blank + 1, _NOBODY
        if len(marks.bands):
            marks.bands[:, blank] = (blank + 1).astype(np.uint64) * _NOBODY
    return marks


def exact(marks: Marks, order: Array) -> Duplicates:
    """Return the verdicts on rows of equal keys: keys of 128 bits stand for the texts."""
    survivor = firsts(marks.keys, order)
    return judged(survivor, (survivor != np.arange(len(survivor))).astype(np.float64))


def near(
    rows: Rows, columns: Sequence[str], asked: Mapping[str, Any], runner: str, marks: Marks, order: Array
) -> Duplicates:
    """Return the verdicts on rows whose n-grams are alike, as `near_duplicates` gives them."""
    held = Sketch(marks.keys, marks.bands, marks.sizes)
    links = linked(held, order)
    begins = np.concatenate(([0], np.cumsum(held.sizes[links.rows], dtype=np.int64)))
    hashes = numbers(rows.scratch / "ngrams", np.uint64, (int(begins[-1]),))
    whole = Sets(hashes, begins, np.zeros(len(links.rows), np.int64))
    by_row = np.argsort(links.rows)
    some = links.rows[by_row]
    if len(some):
        for first, own, found in answers(rows, columns, shingle, asked, runner, some):
            assert own is not None
            at = np.searchsorted(some, first + own)
            put_sets(Sets(**found), by_row[at], whole)

    def sets(first: int, last: int) -> Sets:
        low, high = begins[first], begins[last]
        return Sets(hashes[low:high], begins[first : last + 1] - low, whole.sizes[first:last])

    return judged(*settled(held, links, sets, asked["threshold"]))


# Vectors


def semantic(
    rows: Rows, columns: Sequence[str], asked: Mapping[str, Any], given: tuple[str, str], order: Array
) -> tuple[Duplicates, Array]:
    """Return the verdicts on rows of close vectors, and the rows (int64) whose vector is zero.

    `given`: the column of vectors, or "" and the embedder of the texts. Raises InputError, naming the row,
    for a vector of another width or one that is not finite.
    """
    vectors, zeros = _vectors(rows, columns, asked, given, order)
    found = semantic_duplicates(vectors, asked["threshold"], seed=asked["seed"], in_place=True)
    keep, of, similarity = np.empty_like(found.keep), np.empty_like(order), np.empty_like(found.similarity)
    keep[order], similarity[order] = found.keep, found.similarity
    of[order] = np.where(found.duplicate_of < 0, -1, order[found.duplicate_of])
    return Duplicates(keep, of, similarity), zeros


def _vectors(
    rows: Rows, columns: Sequence[str], asked: Mapping[str, Any], given: tuple[str, str], order: Array
) -> tuple[Array, Array]:
    """Return the vectors (float32 [n, d]) in this order, in a file if they are many, and rows of zeros."""
    name, embedder = given
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    whole, zeros, at = np.zeros((0, 0), np.float32), [np.zeros(0, np.int64)], 0
    for block in _columns(rows, name) if name else _embedded(rows, columns, asked, embedder):
        if not at:
            shape = len(rows), block.shape[1]
            large = 4 * shape[0] * shape[1] > HELD
            whole = (
                numbers(rows.scratch / "vectors", np.float32, shape) if large else np.empty(shape, np.float32)
            )
        wrong = np.flatnonzero(~np.isfinite(block).all(axis=1))
        if len(wrong):
            row = rows.names(wrong[:1] + at)[0]
            raise InputError(f"the vector of row {row!r} is not finite; compute it again, or drop the row")
        zeros.append(at + np.flatnonzero(~block.any(axis=1)))
        whole[place[at : at + len(block)]] = block
        at += len(block)
    return whole, np.concatenate(zeros)


def _columns(rows: Rows, name: str) -> Iterator[Array]:
    pieces = (table[name] for _, table in rows.pieces([name]))
    return vectors_of(pieces, lambda row: rows.names(np.array([row]))[0])


def _embedded(rows: Rows, columns: Sequence[str], asked: Mapping[str, Any], embedder: str) -> Iterator[Array]:
    from taskmill.select.embed import encoded, loaded

    def texts() -> Iterator[pa.Array]:
        return (_in_one(texts_of(table, asked)) for _, table in rows.pieces(columns))

    model = loaded(embedder, texts())
    return (encoded(part, model, cache_folder()).vectors for part in gathered(texts()))
