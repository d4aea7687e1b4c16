"""Exact and near duplicates, and caps for what is alike by design.

Which row stays is stated by an order of preference: a row is dropped only for a row that is kept and stands
before it, so the first of a group always stays and its similarity to what is dropped is known.

Instruction data need a key (`keyed`): rows of one template are near-duplicates as whole prompts and all
different as pairs. What a template makes too often is capped instead (`skeleton_keys`, `over_cap`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taskmill.errors import InputError, UsageError
from taskmill.kernels.graph import firsts
from taskmill.kernels.near import bands_for, in_one_piece, same_texts, sketch, text_keys, word_keys
from taskmill.kernels.rivals import nearest_before
from taskmill.kernels.words import Words, chunks, on_all_cores, words
from taskmill.render import SLOT, fill

__all__ = [
    "KEEP",
    "ON",
    "Capped",
    "Duplicates",
    "check_near",
    "common_words",
    "compared",
    "exact_duplicates",
    "exact_keys",
    "family_keys",
    "instruction_words",
    "keyed",
    "near_duplicates",
    "normalised",
    "over_cap",
    "preference",
    "preferred",
    "skeleton_keys",
]

Array = np.ndarray[Any, Any]

ON = ("instruction", "context", "pair")
KEEP = ("first-id", "longest")
_NUMERAL = "^(0|[1-9][0-9]{0,17})$"  # what fits into 64 bits and is written in one way only


class Duplicates(NamedTuple):
    """Verdicts on n rows.

    `keep` (bool), `duplicate_of` (int64: the survivor's row, -1 for a row that is kept), `similarity` to the
    survivor (float64, 0 for a row that is kept).
    """

    keep: Array
    duplicate_of: Array
    similarity: Array


def judged(survivor: Array, similarity: Array) -> Duplicates:
    """Return the verdicts for the survivor of each row (its own number: it is kept)."""
    keep = survivor == np.arange(len(survivor))
    return Duplicates(keep, np.where(keep, -1, survivor), similarity)


def exact_duplicates(
    texts: pa.Array | pa.ChunkedArray | Sequence[pa.Array],
    order: Array | None = None,
    normalise: bool = False,
) -> Duplicates:
    """Find rows of equal text, byte for byte, or as `normalised` sees them; nulls are empty texts.

    Of several columns (a sequence of arrays) each must be equal.
    `order` (int64 [n]): rows in order of preference, the first of a group stays; default: as they stand.
    Keys of 128 bits find the groups, and the texts of each pair are compared before a row goes.
    """
    columns = [texts] if isinstance(texts, pa.Array | pa.ChunkedArray) else texts
    column = _column(columns, normalise)
    order = _order(order, len(column))
    keys = text_keys(column)
    survivor = firsts(keys, order)
    lost = np.flatnonzero(survivor != np.arange(len(column)))
    different = lost[~same_texts(column, lost, survivor[lost])]
    if len(different):  # two texts with one key: never seen, but no row may go for it
        _regroup(column, keys, order, different, survivor)
    return judged(survivor, (survivor != np.arange(len(column))).astype(np.float64))


def exact_keys(columns: Sequence[pa.Array], normalise: bool = False) -> Array:
    """Return a key of 128 bits of each row (uint64 [n, 2]), equal where each of its columns is."""
    return text_keys(_column(columns, normalise))


def _column(columns: Sequence[pa.Array], normalise: bool) -> pa.Array:
    return _apart([in_one_piece(normalised(one) if normalise else one) for one in columns])


def _apart(columns: Sequence[pa.Array]) -> pa.Array:
    """Return columns as one text that tells them apart: before each but the last stands its length."""
    if len(columns) == 1:
        return columns[0]
    colon, nothing = (pa.scalar(mark, pa.large_string()) for mark in (":", ""))
    sizes = [pc.binary_length(one).cast(pa.large_string()) for one in columns[:-1]]
    heads = [
        pc.binary_join_element_wise(size, one, colon) for size, one in zip(sizes, columns[:-1], strict=True)
    ]
    return pc.binary_join_element_wise(*heads, columns[-1], nothing)


def _regroup(column: pa.Array, keys: Array, order: Array, different: Array, survivor: Array) -> None:
    """Group the rows that have the keys of these rows by their texts alone."""
    wanted = {tuple(k) for k in keys[different].tolist()}
    seen: dict[str, int] = {}
    for row in order.tolist():
        if tuple(keys[row].tolist()) in wanted:
            survivor[row] = seen.setdefault(column[row].as_py(), row)


def normalised(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return texts in Unicode NFC, lower case, each run of white space one space, none at the ends.

    Punctuation stays: `3 - 4` and `3 + 4` are different.
    """
    column = in_one_piece(texts)
    done: dict[int, pa.Array] = {}

    def work(first: int, last: int) -> None:
        part = column.slice(first, last - first)
        if not pc.all(pc.string_is_ascii(part)).as_py():
            part = pc.utf8_normalize(part, "NFC")
        part = pc.replace_substring_regex(pc.utf8_lower(part), r"[\s\pZ]+", " ")
        done[first] = pc.utf8_trim(part, " ")

    on_all_cores(work, chunks(np.asarray(pc.binary_length(column))))
    return pa.concat_arrays([done[first] for first in sorted(done)]) if done else column


def near_duplicates(
    texts: pa.Array | pa.ChunkedArray,
    threshold: float = 0.8,
    *,
    ngram: int = 5,
    order: Array | None = None,
    seed: int = 0,
) -> Duplicates:
    """Find rows whose word n-grams have a Jaccard similarity of `threshold` (0..1) to a row that is kept.

    Texts of equal words are always duplicates; a text shorter than `ngram` words is one n-gram; texts
    without words are duplicates only if equal. Candidates share a MinHash band (`seed` draws the hashes;
    98 % of pairs at the threshold do, more above), and each is verified on the whole sets. The result does
    not depend on the order of the rows other than through `order`, nor on the number of threads.

    Raises UsageError for a threshold or n-gram size out of range.
    """
    check_near(threshold, ngram)
    column = in_one_piece(texts)
    found = sketch(column, ngram, bands_for(threshold), seed)
    return judged(*nearest_before(column, found, ngram, threshold, _order(order, len(column))))


def check_near(threshold: float, ngram: int) -> None:
    """Raise UsageError for a threshold or n-gram size out of range."""
    if not 0 < threshold <= 1:
        raise UsageError(f"a similarity threshold lies between 0 and 1, {threshold:g} does not")
    if ngram < 1:
        raise UsageError("n-grams have one word or more")


def _order(order: Array | None, rows: int) -> Array:
    return np.arange(rows) if order is None else np.asarray(order, np.int64)


def preference(ids: pa.Array | pa.ChunkedArray, texts: pa.Array, keep: str = "first-id") -> Array:
    """Return rows in order of preference (int64): by id, or the longest text first and then by id.

    Numbers are ordered as numbers (also where all ids are numbers as text), texts as their bytes; rows of one
    id by a hash of their text, so that the order they came in does not count. Raises InputError for a row
    without an id.
    """
    if ids.null_count:
        row = int(np.flatnonzero(np.asarray(ids.is_null()))[0])
        raise InputError(f"row {row} has no id; give every row one, or leave the column out")
    if keep not in KEEP:
        raise UsageError(f"which row stays is one of {', '.join(KEEP)}, not {keep!r}")
    sizes = pc.utf8_length(pc.fill_null(texts, "")) if keep == "longest" else None
    return preferred(ids, sizes, text_keys(texts)[:, 0])


def preferred(
    ids: pa.Array | pa.ChunkedArray, sizes: pa.Array | None = None, ties: Array | None = None
) -> Array:
    """Return rows in order of `preference` (int64): largest size first, then by id, then by `ties`."""
    if not pa.types.is_integer(ids.type) and pc.all(pc.match_substring_regex(ids, _NUMERAL)).as_py():
        ids = ids.cast(pa.int64())
    columns = {"size": sizes, "id": ids, "tie": ties}
    given = {name: values for name, values in columns.items() if values is not None}
    keys = [(name, "descending" if name == "size" else "ascending") for name in given]
    return np.asarray(pc.sort_indices(pa.table(given), sort_keys=keys)).view(np.int64)


def keyed(table: pa.Table, on: str) -> pa.Array:
    """Return the text by which rows of examples are compared.

    `instruction`: with its context filled in; `context`: the passage alone; `pair`: instruction without the
    placeholder, context and response, a line each. Raises InputError where a column is missing.
    """
    parts = compared(table, on)
    return (
        parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, pa.scalar("\n", parts[0].type))
    )


def compared(table: pa.Table, on: str) -> list[pa.Array]:
    """Return the texts by which rows of examples are compared (`keyed`), column by column."""
    if on not in ON:
        raise UsageError(f"rows are compared on one of {', '.join(ON)}, not {on!r}")
    names = {"instruction": ("instruction", "context"), "context": ("context",)}.get(
        on, ("instruction", "context", "response")
    )
    missing = [name for name in names if name not in table.column_names]
    if missing:
        there = ", ".join(table.column_names)
        raise InputError(f"there is no column {missing[0]!r} to compare {on} on; the columns are {there}")
    parts = [in_one_piece(table[name]) for name in names]
    if on == "instruction":
        return [_filled(*parts)]
    if on == "pair":  # the placeholder is no word of it
        parts[0] = pc.replace_substring_regex(parts[0], SLOT, "")
    return parts


def _filled(instructions: pa.Array, contexts: pa.Array) -> pa.Array:
    """Put contexts in their places; only rows with a brace or an escape are looked at one by one."""
    special = pc.or_(pc.match_substring(instructions, "{"), pc.match_substring(instructions, "\u2060"))
    rows = np.flatnonzero(np.asarray(special))
    if not len(rows):
        return instructions
    found = zip(
        instructions.take(pa.array(rows)).to_pylist(), contexts.take(pa.array(rows)).to_pylist(), strict=True
    )
    filled = pa.array([fill(text, context) for text, context in found], instructions.type)
    return pc.replace_with_mask(instructions, special, filled)


# caps


def family_keys(sources: pa.ChunkedArray) -> Array:
    """Return a key of the source each row comes from (uint64 [n, 2]); zero where it names none.

    Of an example's `source` (a struct): its dataset with the configuration, else the address of its
    document, else the document. Of a string column: the string.
    """
    if pa.types.is_struct(sources.type):
        families = pa.array([_family(source or {}) for source in sources.to_pylist()], pa.large_string())
    else:
        families = in_one_piece(sources)
    keys = text_keys(families)
    keys[np.asarray(pc.equal(families, ""))] = 0
    return keys


def _family(source: Mapping[str, Any]) -> str:
    if source.get("dataset"):
        return f"{source['dataset']} {source.get('config') or ''}".strip()
    return str(source.get("url") or source.get("document") or "")


class Capped(NamedTuple):
    """Of n rows: `over` the cap (bool), the `first` row of each one's group (int64), the group's `size`."""

    over: Array
    first: Array
    size: Array


def over_cap(keys: Array, cap: int, order: Array) -> Capped:
    """Say which rows are over a cap: more than `cap` rows of an equal key stand before or at them in `order`.

    `keys` is uint64 [n, 2]; rows that are not in `order` are not counted and not over.
    """
    first = firsts(keys, order)
    groups = first[order]
    by_group = np.argsort(groups, kind="stable")
    ordered = groups[by_group]
    starts = (
        np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1]))) if len(ordered) else ordered
    )
    sizes = np.diff(np.append(starts, len(ordered)))
    over, size = np.zeros(len(keys), np.bool_), np.zeros(len(keys), np.int64)
    rows = order[by_group]
    over[rows] = np.arange(len(ordered)) - np.repeat(starts, sizes) >= cap
    size[rows] = np.repeat(sizes, sizes)
    return Capped(over, first, size)


_MARK = "\ua66e"
"""A letter that stands for what was masked (multiocular o: in one manuscript of 1429 and nowhere else)."""

_QUOTED = r"""\"[^\"\n]+\"|“[^”\n]+”|«[^»\n]+»|`[^`\n]+`|(^|[\s(])'[^'\n]+'"""
_NUMBER = r"\pN+([.,:/]\pN+)*"

COMMON = 1000
"""A word is of templates if one of so many instructions has it (chosen: data sets have tens of templates to
a few hundred; names and topics are rarer), and at least three."""

_ROWS = 20_000


def skeleton_keys(
    instructions: pa.Array, contexts: pa.Array, responses: pa.Array, common: Array | None = None
) -> Array:
    """Return a key of each instruction's skeleton (uint64 [n, 2]): equal where one template made them.

    Masked are quoted parts, numbers, and words that also stand in the row's context or response, unless the
    word is common in the instructions of all rows: `the` and `passage` stand in many contexts as well. A
    run of masked words counts as one. `common`: hashes of those words (`common_words`), where these are only
    some of the rows.
    """
    own = instruction_words(instructions)
    masked = _marked(own.hashes)
    if common is None:
        common = common_words(*np.unique(own.hashes, return_counts=True), len(instructions))
    drawn = pc.binary_join_element_wise(
        in_one_piece(contexts), in_one_piece(responses), pa.scalar("\n", pa.large_string())
    )
    for row in range(0, len(instructions), _ROWS):
        theirs = words(drawn.slice(row, _ROWS))
        span = slice(own.rows[row], own.rows[min(row + _ROWS, len(instructions))])
        rows = np.repeat(np.arange(len(theirs.rows) - 1), np.diff(own.rows[row : row + _ROWS + 1]))
        source = np.repeat(np.arange(len(theirs.rows) - 1), np.diff(theirs.rows))
        masked[span] |= np.isin(_in_row(own.hashes[span], rows), _in_row(theirs.hashes, source)) & ~np.isin(
            own.hashes[span], common
        )
    return word_keys(_collapsed(own, masked))


def instruction_words(instructions: pa.Array) -> Words:
    """Return the words of instructions, quoted parts and numbers masked."""
    bare = pc.replace_substring_regex(in_one_piece(instructions), _QUOTED, f" {_MARK} ")
    return words(pc.replace_substring_regex(bare, _NUMBER, f" {_MARK} "))


def common_words(known: Array, counts: Array, rows: int) -> Array:
    """Return the words (hashes) that are common in the instructions of so many rows."""
    return known[counts >= max(3, rows / COMMON)]


def _marked(hashes: Array) -> Array:
    marked: Array = hashes == words(pa.array([_MARK])).hashes[0]
    return marked


def _in_row(hashes: Array, rows: Array) -> Array:
    """Return hashes that are equal where word and row are."""
    return (hashes ^ rows.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15) + rows.astype(np.uint64)


def _collapsed(own: Words, masked: Array) -> Words:
    """Replace masked words by one hash, and each run of them by one."""
    rows = np.repeat(np.arange(len(own.rows) - 1), np.diff(own.rows))
    again = np.zeros(len(masked), np.bool_)
    again[1:] = masked[1:] & masked[:-1] & (rows[1:] == rows[:-1])
    left = np.concatenate(([0], np.cumsum(np.bincount(rows[~again], minlength=len(own.rows) - 1))))
    return Words(
        np.where(masked, np.uint64(0), own.hashes)[~again], own.starts, own.ends, left.astype(np.int64)
    )
