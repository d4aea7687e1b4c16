"""Rows that hold parts of evaluation items: four rules of the field, each with the places as evidence.

An item is made of parts (questions, answers, passages); a word is what `kernels.words` says it is of a folded
text (`curate.folding`), so case, punctuation, spaces and ligatures never hide a match.

`13gram`   thirteen words in a row of any part (GPT-3, arXiv 2005.14165, appendix C). 13-grams in more than
           `frequent` training rows are ignored as the paper does, but never a run that covers more than half
           of its part: ten templates of one leaked question are not a common phrase.
`8gram50`  more than half of the words lie in 8-grams shared with one item. Tulu 3 (arXiv 2411.15124; the code
           is allenai/open-instruct, decontamination/search.py) counts the item's words; we count the row's as
           well, because a row cut out of a long passage is a leak too. `coverage` picks one of them.
`decon`    allenai/decon (doc/simple.md, doc/simple-details.md): a 5-gram hit of a question grows both ways
           until eleven neighbours miss; the distinct 5-grams found, weighted by inverse document frequency,
           give its share; answer and passage are looked for nearby. The shares are weighed (0.75 and 0.25 for
           a question and its answer) and held against a threshold: 1 up to 20 words of text, falling to
           `threshold` at 50. Words stand in for its tokens.
`exact`    all words of a part in a row.

In all modes a part of fewer than `min_words` words is never looked for on its own, and one of fewer words
than the n-gram must be there as a whole: eight words are GPT-3's least n, and below that stand sentences such
as "Which of the following is true?".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from taskmill.curate.folding import fold, folded
from taskmill.errors import ConfigError, InputError
from taskmill.kernels.text import GRAM

if TYPE_CHECKING:
    from taskmill.curate.benchmark_index import Index
    from taskmill.kernels.probe import Clusters, Runs, Table

__all__ = ["FOUND_SCHEMA", "MODES", "Hits", "Rule", "Search", "find", "prepare", "scan", "settle"]

Array = np.ndarray[Any, Any]

MODES = ("13gram", "8gram50", "decon", "exact")
SPANS = pa.list_(pa.struct([("start", pa.int64()), ("end", pa.int64())]))
FOUND_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("suite", pa.string()),
        ("item", pa.string()),
        ("score", pa.float64()),
        ("spans", SPANS),
    ]
)
"""One line for each row and item that match, best score first; spans are characters of the row's text."""

_SIZES = {"13gram": 13, "8gram50": 8}
_BATCH = 1 << 16  # rows hashed at once (chosen: 50 MB of hashes for rows of 100 words)
_STEP = 10  # allenai/decon, config/default.yaml: sample_every_m_tokens
_HOT = 1000  # places of a gram from which no stretch is grown (chosen: decon has the rule, states no number)
_FLOOR = 0.4  # least share of a question that answer and passage can lift over 0.8: 1 - 0.2 / (0.7 * 0.5)
_SURE = 20  # distinct 5-grams of a question from which it has its full weight (doc/simple-details.md)
_PERFECT, _PLAIN = 20, 50  # words up to which a match must be perfect, from which the threshold holds (ibid.)
_WEIGHTS = {  # of question, answer, passage, by (has an answer, has a passage) (ibid., Scoring System)
    (False, False): (1.0, 0.0, 0.0),
    (True, False): (0.75, 0.25, 0.0),
    (False, True): (0.85, 0.0, 0.15),
    (True, True): (0.7, 0.2, 0.1),
}


@dataclass(frozen=True, slots=True)
class Rule:
    """When a row counts as contaminated."""

    mode: str = field(
        default="13gram",
        metadata={"help": "13gram, 8gram50 (Tulu 3), decon (allenai) or exact", "choices": MODES},
    )
    min_words: int = field(
        default=8,
        metadata={"help": "parts of evaluation items with fewer words are not looked for; 5 or more"},
    )
    frequent: int = field(
        default=10, metadata={"help": "13gram: ignore 13-grams found in more rows than this; 0: none"}
    )
    share: float = field(default=0.5, metadata={"help": "8gram50: drop above this share of covered words"})
    coverage: str = field(
        default="either",
        metadata={"help": "8gram50: whose words are counted", "choices": ("either", "item", "row")},
    )
    threshold: float = field(default=0.8, metadata={"help": "decon: least score of a match of 50 words"})
    parts: tuple[str, ...] = field(
        default=("question", "answer", "passage"),
        metadata={"help": "parts of items looked for (decon always starts from questions)"},
    )

    def check(self) -> None:
        """Raise ConfigError for a value that no rule can work with."""
        if self.mode not in MODES:
            raise ConfigError(f"mode: {self.mode!r} is none of {', '.join(MODES)}")
        if self.coverage not in ("either", "item", "row"):
            raise ConfigError(f"coverage: {self.coverage!r} is none of either, item, row")
        if self.min_words < GRAM:
            raise ConfigError(f"min_words must be {GRAM} or more: an index holds runs of {GRAM} words")
        if not 0 <= self.share < 1 or not 0 < self.threshold <= 1:
            raise ConfigError("share must be in 0 … below 1 and threshold above 0 and at most 1")
        unknown = [p for p in self.parts if p not in ("question", "answer", "passage")]
        if unknown or not self.parts:
            raise ConfigError(f"parts: {unknown} are none of question, answer, passage; name one or more")


class _Weights(NamedTuple):
    """decon's inverse document frequencies: of each key, summed over each part; its distinct grams."""

    keys: Array
    totals: Array
    distinct: Array


class Search(NamedTuple):
    """The index `against` made ready for a rule. `looked_for[i]`: whether item i can be found at all.

    `need`: of each part, the least grams in a row; `step`: of those looked for, the least need or `_STEP`.
    """

    against: Index
    rule: Rule
    look: Table
    need: Array
    step: int
    weights: _Weights
    looked_for: Array


class Hits(NamedTuple):
    """What was seen in some rows, before it is judged: one entry for each run or stretch.

    `row` of the whole input, `part` of the index, `place` of the first gram there, word `at` which it begins
    in the row, its `grams`, characters `start` to `end`, `words` of the row, `score` (decon).
    """

    row: Array
    part: Array
    place: Array
    at: Array
    grams: Array
    start: Array
    end: Array
    words: Array
    score: Array


def find(texts: pa.Array | pa.ChunkedArray, index: Index, mode: str = "13gram", **options: Any) -> pa.Table:
    """Return which of the texts hold which items, as FOUND_SCHEMA; `options` are fields of `Rule`.

    Neither the order of the texts nor the number of cores changes what is found of a text.
    """
    known = {f.name for f in fields(Rule)}
    if not known.issuperset(options):
        raise ConfigError(f"{sorted(set(options) - known)} are no options; known: {', '.join(sorted(known))}")
    search = prepare(index, Rule(mode, **options))
    return settle([scan(texts, search)], search)


def prepare(index: Index, rule: Rule) -> Search:
    """Return the index with the table that the rule needs.

    Raises ConfigError for a bad rule, InputError if nothing in the index is long enough to be found.
    """
    from taskmill.kernels.probe import table

    rule.check()
    parts = index.parts
    long = parts.words >= rule.min_words
    if rule.mode == "decon":
        wanted = long & (parts.kinds == 0)
        look = table(parts, wanted | (parts.kinds != 0))
    else:
        names = ("question", "answer", "passage")
        wanted = long & np.isin(parts.kinds, [names.index(p) for p in rule.parts])
        look = table(parts, wanted)
    if not wanted.any():
        sought = ("question",) if rule.mode == "decon" else rule.parts
        raise InputError(
            f"none of the {len(index.ids)} evaluation items has a {' or '.join(sought)} of "
            f"{rule.min_words} words, so nothing would be found; lower --min-words or give longer texts"
        )
    size = _SIZES.get(rule.mode)
    need = parts.words - GRAM + 1 if size is None else np.minimum(size, parts.words) - GRAM + 1
    looked_for = np.zeros(len(index.ids), bool)
    looked_for[parts.items[wanted]] = True
    # Of wanted parts alone: a question of one word beside a long one has a need below 1.
    step = int(min(_STEP, need[wanted].min()))
    return Search(index, rule, look, need, step, _weigh(look, index), looked_for)


def _weigh(look: Table, index: Index) -> _Weights:
    """Return idf = ln((parts + 1) / parts with the gram): above 0 even for an index of one item."""
    parts = len(index.parts.words)
    key = np.repeat(np.arange(len(look.keys)), np.diff(look.first))
    owner = index.parts.owner[look.places]
    new = np.ones(len(key), bool)  # a gram counts once in a part
    new[1:] = (key[1:] != key[:-1]) | (owner[1:] != owner[:-1])
    held = np.bincount(key[new], minlength=len(look.keys))
    idf = np.log((parts + 1) / np.maximum(held, 1))
    totals = np.bincount(owner[new], weights=idf[key[new]], minlength=parts)
    return _Weights(idf, totals, np.bincount(owner[new], minlength=parts))


def scan(texts: pa.Array | pa.ChunkedArray, search: Search, base: int = 0) -> Hits:
    """Return what is seen in the texts; `base` is added to their numbers. Memory is that of 65,536 rows."""
    found = [
        _scan(texts.slice(start, _BATCH), search, base + start) for start in range(0, len(texts), _BATCH)
    ]
    return _joined(found)


def _joined(found: Sequence[Hits]) -> Hits:
    if not found:
        return Hits(*(np.zeros(0, np.float64 if name == "score" else np.int64) for name in Hits._fields))
    return Hits(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _scan(texts: pa.Array, search: Search, base: int) -> Hits:
    from taskmill.kernels import probe
    from taskmill.kernels.words import words

    found = words(folded(texts))
    sizes = np.diff(found.rows)
    parts = search.against.parts
    if search.rule.mode == "decon":
        weights = search.weights
        seen = probe.clusters(
            found, parts, search.look, weights.keys, weights.totals, search.step, _HOT, _FLOOR
        )
        return _of_clusters(seen, texts, search, base, sizes)
    return _of_runs(probe.runs(found, parts, search.look, search.need), texts, search, base, sizes)


def _of_runs(seen: Runs, texts: pa.Array, search: Search, base: int, sizes: Array) -> Hits:
    start, end = _characters(texts, seen.row, seen.at, seen.at + seen.grams + GRAM - 1)
    part = search.against.parts.owner[seen.place].astype(np.int64)
    nothing = np.zeros(len(part))
    return Hits(seen.row + base, part, seen.place, seen.at, seen.grams, start, end, sizes[seen.row], nothing)


def _of_clusters(seen: Clusters, texts: pa.Array, search: Search, base: int, sizes: Array) -> Hits:
    score, needed = _judged(seen, search)
    good = score >= needed - 1e-9  # sums of weights that are 1 on paper
    row, part, at, past = seen.row[good], seen.part[good], seen.start[good], seen.end[good]
    start, end = _characters(texts, row, at, past)
    place = search.against.parts.first[part]
    return Hits(row + base, part, place, at, past - at - GRAM + 1, start, end, sizes[row], score[good])


def _judged(seen: Clusters, search: Search) -> tuple[Array, Array]:
    """Return (score, least score) of each stretch by decon's weights."""
    parts, rule = search.against.parts, search.rule
    shares = np.maximum(seen.shares, 0.0)
    there = seen.shares >= 0
    weights = np.array([_WEIGHTS[bool(a), bool(p)] for a, p in zip(there[1], there[2], strict=True)]).reshape(
        -1, 3
    )
    sure = np.minimum(1.0, 0.5 + 0.5 * search.weights.distinct[seen.part] / _SURE)
    helped = weights[:, 1] + weights[:, 2]
    freed = np.where(helped > 0, weights[:, 0] * (1 - sure), 0.0)
    weights[:, 0] -= freed
    weights[:, 1:] += freed[:, None] * weights[:, 1:] / np.where(helped > 0, helped, 1.0)[:, None]
    score = (weights * shares.T).sum(axis=1)
    longest = np.zeros((3, len(search.against.ids)), np.int64)
    np.maximum.at(longest, (parts.kinds, parts.items), parts.words)
    item = parts.items[seen.part]
    size = parts.words[seen.part] + longest[1, item] + longest[2, item]
    eased = np.clip((size - _PERFECT) / (_PLAIN - _PERFECT), 0.0, 1.0)
    return score, 1.0 - (1.0 - rule.threshold) * eased


def _characters(texts: pa.Array, rows: Array, first: Array, past: Array) -> tuple[Array, Array]:
    """Return the characters (start, end) of words `first` up to `past` of rows of a string column.

    Lowering a text may change its bytes but not its number of characters, so places are counted in those.
    """
    from taskmill.kernels.words import buffers, words

    if not len(rows):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    chosen, number = np.unique(rows, return_inverse=True)
    given = texts.take(pa.array(chosen))
    own = folded(given)
    found = words(own, places=True)
    data, bounds = buffers(own)
    heads = np.concatenate(([0], np.cumsum((data[: bounds[-1]] & 0xC0) != 0x80)))
    begin, word = bounds[:-1][number], found.rows[:-1][number]
    start = heads[begin + found.starts[word + first]] - heads[begin]
    end = heads[begin + found.ends[word + past - 1]] - heads[begin]
    if own is not given:
        _unfolded(given, number, start, end)
    return start.astype(np.int64), end.astype(np.int64)


def _unfolded(given: pa.Array, number: Array, start: Array, end: Array) -> None:
    """Bring characters of folded texts back to the texts as given; entry i is of text `number[i]`."""
    texts = [fold(text) for text in given.to_pylist()]
    for i, text in enumerate(number.tolist()):
        start[i], end[i] = texts[text].place(int(start[i]), int(end[i]))


def settle(found: Sequence[Hits], search: Search) -> pa.Table:
    """Judge what was seen in all rows and return it as FOUND_SCHEMA, sorted by row, score and item."""
    hits = _joined(found)
    index, rule = search.against, search.rule
    if rule.mode == "13gram" and rule.frequent:
        keep = _uncommon(hits, search)
        hits = Hits(*(column[keep] for column in hits))
    item = index.parts.items[hits.part]
    pairs, pair = np.unique(hits.row * len(index.ids) + item, return_inverse=True)
    score = _scores(hits, pair, len(pairs), search)
    take = score > rule.share if rule.mode == "8gram50" else np.ones(len(pairs), bool)
    group, start, end = _merged(pair, hits.start, hits.end)
    whose = pairs % len(index.ids)
    rank = np.empty(len(index.ids), np.int64)
    rank[sorted(range(len(index.ids)), key=index.ids.__getitem__)] = np.arange(len(index.ids))
    row = pairs // len(index.ids)
    order = np.lexsort((rank[whose], -score, row))
    order = order[take[order]]
    bounds = np.searchsorted(group, np.arange(len(pairs) + 1))
    spans = pa.ListArray.from_arrays(
        pa.array(bounds, pa.int32()),
        pa.StructArray.from_arrays([pa.array(start), pa.array(end)], fields=list(SPANS.value_type)),
    ).cast(SPANS)
    names = [index.names[s] for s in index.suite[whose[order]].tolist()]
    columns = [
        pa.array(row[order], pa.int64()),
        pa.array(names, pa.string()),
        pa.array([index.ids[i] for i in whose[order].tolist()], pa.string()),
        pa.array(score[order], pa.float64()),
        spans.take(pa.array(order)),
    ]
    return pa.Table.from_arrays(columns, schema=FOUND_SCHEMA)


def _scores(hits: Hits, pair: Array, pairs: int, search: Search) -> Array:
    """Return the score of each (row, item) pair: the share of words found, or decon's score."""
    score = np.zeros(pairs)
    size = search.against.parts.words
    if search.rule.mode != "8gram50":
        longest = (hits.grams + GRAM - 1) / size[hits.part]
        np.maximum.at(score, pair, hits.score if search.rule.mode == "decon" else longest)
        return score
    past = hits.grams + GRAM - 1
    if search.rule.coverage in ("either", "row"):
        words = np.zeros(pairs)
        words[pair] = hits.words
        group, start, end = _merged(pair, hits.at, hits.at + past)
        np.maximum.at(score, np.arange(pairs), np.bincount(group, end - start, pairs) / np.maximum(words, 1))
    if search.rule.coverage in ("either", "item"):
        both, which = np.unique(pair * len(size) + hits.part, return_inverse=True)
        group, start, end = _merged(which, hits.place, hits.place + past)
        share = np.bincount(group, end - start, len(both)) / size[both % len(size)]
        np.maximum.at(score, both // len(size), share)
    return score


def _merged(group: Array, start: Array, end: Array) -> tuple[Array, Array, Array]:
    """Return the unions of the intervals of each group as (group, start, end), in order."""
    if not len(group):
        return group, start, end
    order = np.lexsort((start, group))
    group, start, end = group[order], start[order], end[order]
    wide = int(end.max()) + 1  # apart by more than any end, so that one running maximum serves all groups
    reach = np.maximum.accumulate(end + group * wide)
    new = np.concatenate(([True], start[1:] + group[1:] * wide > reach[:-1]))
    at = np.flatnonzero(new)
    last = np.append(at[1:], len(group)) - 1
    return group[at], start[at], reach[last] - group[at] * wide


def _uncommon(hits: Hits, search: Search) -> Array:
    """Return which runs hold a 13-gram of few rows, cover most of their part, or are a whole short part."""
    grams, size = search.against.parts.grams.astype(np.uint64), search.against.parts.words[hits.part]
    span = _SIZES["13gram"] - GRAM
    counts = np.maximum(hits.grams - span, 0)
    run = np.repeat(np.arange(len(counts)), counts)
    place = hits.place[run] + np.arange(len(run)) - np.repeat(np.cumsum(counts) - counts, counts)
    # Three 5-grams side by side, four words apart, are all thirteen words.
    key = (grams[place] << np.uint64(32)) | grams[place + span]
    key ^= grams[place + span // 2] * np.uint64(0x9E3779B97F4A7C15)
    _, number = np.unique(key, return_inverse=True)
    rows = np.unique(np.stack([number, hits.row[run]]), axis=1)[0] if len(run) else number
    rare = np.bincount(rows, minlength=len(number) + 1)[number] <= search.rule.frequent
    held = np.bincount(run[rare], minlength=len(counts)) > 0
    keep: Array = held | ((hits.grams + GRAM - 1) * 2 > size) | (counts == 0)
    return keep


def locate(spans: Sequence[dict[str, int]], lengths: Sequence[int]) -> list[dict[str, int]]:
    """Return spans of a text that was joined of columns as spans of the columns.

    `lengths` are the characters of the columns, joined by one character. Each span gets a `column` number;
    one that crosses a border is cut there.
    """
    placed = []
    for span in spans:
        at = 0
        for column, length in enumerate(lengths):
            start, end = max(span["start"] - at, 0), min(span["end"] - at, length)
            if start < end:
                placed.append({"column": column, "start": start, "end": end})
            at += length + 1
    return placed
