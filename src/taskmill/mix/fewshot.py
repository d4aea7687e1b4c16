"""Few-shot prompts: which exemplars a query gets, in which order and between which marks.

Everything is drawn from the ids, so neither the order of the rows nor their number at a time changes a
prompt. An exemplar is never the query, a duplicate of it, or of another exemplar (upstream checks nothing:
about 25/N of its candidates are the query itself, Flan P8).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from taskmill.config import packaged
from taskmill.errors import ConfigError
from taskmill.ids import draw

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "Rows",
    "bases",
    "chained",
    "choose",
    "counts",
    "distribution",
    "drawn",
    "nearest_texts",
    "strung",
    "within",
]

Array = np.ndarray[Any, Any]

MOST = 64
"""Exemplars of one prompt. Chosen: Flan and MetaICL use 16 at most."""

_TRIES = 16
"""Random candidates for one place before the pool is walked through. Chosen: enough unless it is tiny."""

_WALK = 4096
"""Rows walked through then. Chosen: pools are either smaller, or have a fit among the random candidates."""


_TOGETHER = 1 << 12
"""Prompts that one core writes at a time. Chosen: some megabytes, which stay in its cache."""


class Rows(NamedTuple):
    """What is known of rows to choose by: `ids`, `keys` (equal for duplicates) and `labels` (for balance)."""

    ids: Sequence[str]
    keys: Sequence[str]
    labels: Sequence[str] = ()


# draws for many rows at once


def bases(ids: Sequence[str], seed: int, purpose: str) -> Array:
    """Return one 63-bit draw for each id (N,), from which `drawn` makes further ones."""
    return np.fromiter((draw(seed, one, purpose) for one in ids), np.uint64, len(ids))


def drawn(base: Array, purpose: str, below: int | Array) -> Array:
    """Return a number below `below` for each row's draw (N,), by purpose.

    The finalizer of splitmix64 (Steele et al. 2014, 10.1145/2714064.2660195) spreads draw and purpose. With
    `below` under 2**32 no number comes more than 2**-31 too often.
    """
    with np.errstate(over="ignore"):
        mixed = _spread(base ^ np.uint64(draw(0, "", purpose)))
    return np.asarray(mixed % np.asarray(below, np.uint64)).astype(np.int64)


def _spread(value: Array) -> Array:
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(value ^ (value >> np.uint64(31)))


# how many


def distribution(text: str) -> dict[int, float]:
    """Read how many exemplars a prompt gets: "5", "1-5" (each alike), or "0:1,2:3" (number:weight).

    Raises ConfigError for anything else.
    """
    found: dict[int, float] = {}
    try:
        for part in text.split(","):
            number, colon, weight = part.partition(":")
            first, dash, last = number.partition("-")
            several = range(int(first), int(last if dash else first) + 1)
            for k in several:
                found[k] = found.get(k, 0.0) + (float(weight) if colon else 1.0)
            if not several:
                raise ValueError
    except ValueError:
        raise ConfigError(f'shots: {text!r} is none of "5", "1-5", "0:1,2:3" (number:weight)') from None
    if min(found) < 0 or max(found) > MOST or min(found.values()) < 0 or not sum(found.values()):
        raise ConfigError(f"shots: {text!r} must name 0 to {MOST} exemplars with weights of 0 or more")
    return found


def counts(base: Array, shots: Mapping[int, float]) -> Array:
    """Return how many exemplars each row gets (N,), drawn by weight."""
    numbers = np.array(sorted(shots), np.int64)
    edges = np.cumsum([shots[int(k)] for k in numbers])
    at = drawn(base, "shots", 2**32 - 1) / (2**32 - 1) * edges[-1]
    places = np.minimum(np.searchsorted(edges, at, side="right"), len(numbers) - 1)
    return np.asarray(numbers[places])


# which


def choose(
    queries: Rows, pool: Rows, wanted: Array, seed: int, *, balance: bool = False, epoch: int = 0
) -> Array:
    """Return the places in `pool` of each query's exemplars (Q, K), farthest first; -1 where none is left.

    `wanted` (Q,): how many each gets. `balance`: labels take turns, in an order drawn for each query.
    Another `epoch` draws another choice and order (in-context tuning, arXiv 2110.07814). A query with fewer
    than it wanted has its -1 on the left.
    """
    most = int(wanted.max(initial=0))
    chosen = np.full((len(queries.ids), most), -1, np.int64)
    if not len(pool.ids) or not most:
        return chosen
    order = np.array(sorted(range(len(pool.ids)), key=lambda i: pool.ids[i]), np.int64)
    codes: dict[str, int] = {}
    pool_keys = np.array([codes.setdefault(pool.keys[i], len(codes)) for i in order], np.int64)
    query_keys = np.array([codes.get(key, -1) for key in queries.keys], np.int64)
    base = bases(queries.ids, seed, f"few-shot {epoch}")
    groups = _groups([pool.labels[i] for i in order] if balance else [""] * len(order))
    turns = _turns(base, list(groups))
    members = list(groups.values())
    taken = np.full((len(queries.ids), most), -1, np.int64)
    for place in range(most):
        rows = np.flatnonzero(wanted > place)
        label = turns[rows, place % turns.shape[1]]
        for number, group in enumerate(members):
            own = rows[label == number]
            found = _pick(base[own], place, group, pool_keys, query_keys[own], taken[own])
            if balance and (found < 0).any():  # this label has no other row: any label will do
                rest = own[found < 0]
                everything = np.arange(len(order))
                found[found < 0] = _pick(
                    base[rest], place, everything, pool_keys, query_keys[rest], taken[rest]
                )
            taken[own, place] = np.where(found >= 0, pool_keys[found], -1)
            chosen[own, place] = np.where(found >= 0, order[found], -1)
    return _to_the_right(chosen)


def _groups(labels: Sequence[str]) -> dict[str, Array]:
    found: dict[str, list[int]] = {}
    for i, label in enumerate(labels):
        found.setdefault(label, []).append(i)
    return {label: np.array(found[label], np.int64) for label in sorted(found)}


def _turns(base: Array, labels: Sequence[str]) -> Array:
    """Return the order of the labels for each query (Q, L), drawn."""
    keys = np.stack([drawn(base, f"label {label}", 2**62) for label in labels], axis=1)
    return np.argsort(keys, axis=1, kind="stable")


def _pick(base: Array, place: int, group: Array, pool_keys: Array, own: Array, taken: Array) -> Array:
    """Return one row of `group` for each query, whose key is not its own nor taken; -1 if there is none."""
    found = np.full(len(base), -1, np.int64)
    left = np.arange(len(base))
    for attempt in range(_TRIES):
        if not len(left):
            return found
        candidate = group[drawn(base[left], f"exemplar {place} {attempt}", len(group))]
        keys = pool_keys[candidate]
        fits = (keys != own[left]) & (taken[left] != keys[:, None]).all(axis=1)
        found[left[fits]] = candidate[fits]
        left = left[~fits]
    for row in left:
        start = int(drawn(base[row : row + 1], f"walk {place}", len(group))[0])
        excluded = {int(own[row]), *map(int, taken[row])}
        for step in range(min(len(group), _WALK)):
            candidate = group[(start + step) % len(group)]
            if int(pool_keys[candidate]) not in excluded:
                found[row] = candidate
                break
    return found


def _to_the_right(chosen: Array) -> Array:
    """Move what was found to the right of each row, in its order: gaps are on the far end."""
    order = np.argsort(chosen >= 0, axis=1, kind="stable")
    return np.take_along_axis(chosen, order, axis=1)


def within(chosen: Array, tokens: Array, budget: int) -> Array:
    """Return `chosen` (Q, K) without what exceeds `budget` tokens: whole exemplars, from the far end.

    `tokens` (Q, K): the length of each exemplar as it is written.
    """
    from_the_query = np.cumsum(np.where(chosen >= 0, tokens, 0)[:, ::-1], axis=1)[:, ::-1]
    return np.where(from_the_query <= budget, chosen, -1)


# how they are written


@cache
def _marks() -> dict[str, Any]:
    loaded: dict[str, Any] = packaged("taskmill.templates", "fewshot.yaml")
    return loaded


class Strung(NamedTuple):
    """Prompts with their exemplars, and the number of the marks between them."""

    prompts: pa.Array
    marks: Array


def strung(inputs: pa.Array, targets: pa.Array, shots: Array, queries: pa.Array, base: Array) -> Strung:
    """Return the prompt of each query (Q,): its exemplars, then its own input, between drawn marks.

    `inputs`, `targets`: the exemplars' texts, those of a query after another, `shots` (Q,) of each. A query
    without exemplars keeps its input as it is.
    """
    import pyarrow as pa

    ends = np.concatenate(([0], np.cumsum(shots)))

    def part(start: int) -> Strung:
        stop = min(start + _TOGETHER, len(shots))
        first, count, rows = int(ends[start]), int(ends[stop] - ends[start]), slice(start, stop)
        return _part(
            inputs.slice(first, count), targets.slice(first, count), shots[rows],
            queries.slice(start, stop - start), base[rows],
        )  # fmt: skip

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = list(pool.map(part, range(0, len(shots), _TOGETHER)))
    return Strung(
        pa.concat_arrays([pa.array([], pa.large_string()), *(part.prompts for part in parts)]),
        np.concatenate([np.empty(0, np.int64), *(part.marks for part in parts)]),
    )


def _part(inputs: pa.Array, targets: pa.Array, shots: Array, queries: pa.Array, base: Array) -> Strung:
    import pyarrow as pa
    import pyarrow.compute as pc

    lists = _marks()
    prefixes, between, apart = lists["prefixes"], lists["x_y"], lists["examples"]
    x, y = ([entry[key] for entry in prefixes] for key in "xy")
    drawn_prefix = drawn(base, "marks prefixes", len(prefixes))
    middle, sep = drawn(base, "marks x_y", len(between)), drawn(base, "marks examples", len(apart))
    owner = np.repeat(np.arange(len(shots)), shots)
    # A text with a cue of its own ("Answer:") gets no marks but the first of each list: none, and a new line.
    cued, each_cued = _cued(queries), _cued(inputs)
    prefix, of_each = np.where(cued, 0, drawn_prefix), np.where(each_cued, 0, drawn_prefix[owner])
    of_each_middle = np.where(each_cued, 0, middle[owner])
    middle = np.where(cued, 0, middle)
    large = pa.large_string()

    def column(texts: Sequence[str], numbers: Array) -> pa.Array:
        return pa.array(texts, large).take(pa.array(numbers))

    one = pc.binary_join_element_wise(
        column(x, of_each), inputs.cast(large), column(between, of_each_middle),
        column(y, of_each), targets.cast(large), column(apart, sep[owner]), pa.scalar("", large),
    )  # fmt: skip
    offsets = np.concatenate(([0], np.cumsum(shots)))
    before = pc.binary_join(pa.LargeListArray.from_arrays(pa.array(offsets), one), pa.scalar("", large))
    # The cue behind the query: the marks of a target, without the space that the target begins with.
    cues = [(m + w).rstrip() for m in between for w in y]
    cue = column(cues, middle * len(y) + prefix)
    whole = pc.binary_join_element_wise(
        before, column(x, prefix), queries.cast(large), cue, pa.scalar("", large)
    )
    prompts = pc.if_else(pa.array(shots > 0), whole, queries.cast(large))
    return Strung(prompts, (prefix * len(between) + middle) * len(apart) + sep)


def _cued(texts: pa.Array) -> Array:
    import pyarrow.compute as pc

    return np.asarray(pc.ends_with(texts, ":"))


# from raw text


def nearest_texts(keys: Sequence[str], vectors: Array, k: int) -> Array:
    """Return for each text its `k` nearest others (N, k), the nearest last; -1 where there are fewer.

    `vectors` (N, D): what is compared by cosine; PICL (arXiv 2305.09137) takes vectors in which paragraphs of
    the same intrinsic task are close, and learns them in a row: the neighbours, then the text. Texts with
    equal keys are duplicates; ties go to the smaller key.
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.asarray(vectors / np.where(lengths > 0, lengths, 1), np.float64)
    order = np.array(sorted(range(len(keys)), key=lambda i: keys[i]), np.int64)
    codes = {key: number for number, key in enumerate(sorted(set(keys)))}
    code = np.array([codes[key] for key in keys], np.int64)
    found = np.full((len(keys), k), -1, np.int64)
    step = max(1, (1 << 24) // max(1, len(keys)))  # chosen: 128 MB of similarities at a time
    for start in range(0, len(keys), step):
        near = unit[start : start + step] @ unit[order].T
        ranked = np.argsort(-near, axis=1, kind="stable")
        for row, line in enumerate(ranked, start):
            seen, chosen = {int(code[row])}, list[int]()
            for at in order[line]:
                if len(chosen) == k:
                    break
                if int(code[at]) not in seen:
                    seen.add(int(code[at]))
                    chosen.append(int(at))
            found[row, k - len(chosen) :] = chosen[::-1]
    return found


def chained(texts: Sequence[str], chosen: Array, between: str = "\n\n") -> list[str]:
    """Return each text behind the ones chosen for it (N, k), as `nearest_texts` finds them."""
    return [
        between.join([*(texts[i] for i in row if i >= 0), text])
        for text, row in zip(texts, chosen.tolist(), strict=True)
    ]
