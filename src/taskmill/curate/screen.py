"""Examples that hold items of evaluation sets: the rule a run applies before it accepts an example.

A function of the example alone, so that neither other examples nor their order change a verdict, and quick
for a single one: no compiler is loaded. What was written (instruction, response, options, rationale) and the
passage, which is the user's own text, are looked at in different ways:

written   thirteen words in a row of any part of an item (GPT-3, arXiv 2005.14165, appendix C), or a whole
          question of eight to twelve words, if one of the item's answers is written as well: "Which of the
          following is a correct statement?" alone is no item. What also stands in the passage is quoted
          from it and does not count.
passage   a whole question or answer of thirteen words or more. Less is no leak: that a benchmark quotes the
          same constitution or article tells a student nothing about its questions (GPT-3, section 4, on
          reading comprehension), and passages of items are not looked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taskmill.curate.benchmark_index import KINDS, Index, join, read_index, shipped
from taskmill.curate.decontaminate import locate
from taskmill.curate.folding import fold, folded
from taskmill.errors import InputError
from taskmill.kernels.text import GRAM, cut, grams, hashes
from taskmill.record import Example, Reason
from taskmill.render import PLACEHOLDER

__all__ = ["MANY", "Match", "Screen", "shipped_screen"]

Array = np.ndarray[Any, Any]

FILTER = "decontaminate"
_RUN = 13  # words in a row (GPT-3)
_SHORT = 8  # least words of a question looked for as a whole (GPT-3's least n)
MANY = 4096
"""Examples from which on the compiled look pays (chosen: loading it takes as long as 4,000 single looks)."""

_BLOCK = 256  # hits looked at together (chosen: of the most common gram shipped they make a million places)
_COLUMNS = ["context", "instruction", "response", "options", "rationale"]
_QUESTION, _ANSWER, _PASSAGE = range(len(KINDS))


class Match(NamedTuple):
    """An item that an example holds: its id, the column and characters where, the share of words found."""

    item: str
    column: str
    start: int
    end: int
    score: float

    @property
    def detail(self) -> str:
        """Return the evidence in one sentence."""
        return f"{self.column} {self.start}-{self.end}: in {self.item}"


class _Run(NamedTuple):
    """Words that a text shares with a part of an item: `grams` of them from `at` and from `place` on."""

    part: int
    place: int
    at: int
    grams: int


class Screen:
    """An index made ready to look at examples one by one. Memory: 12 bytes for each word of the index."""

    def __init__(self, index: Index) -> None:
        """Raise InputError if nothing in the index is long enough to be found."""
        parts = index.parts
        wanted = (parts.words >= _RUN) | ((parts.kinds == _QUESTION) & (parts.words >= _SHORT))
        if not wanted.any():
            raise InputError(
                f"{', '.join(index.names)}: no item has a question of {_SHORT} words or a text of {_RUN}, so "
                "nothing would be found; give longer texts"
            )
        places = np.flatnonzero(wanted[parts.owner])
        # One sort of gram and place together is quicker than an argsort.
        packed = np.sort((parts.grams[places].astype(np.uint64) << np.uint64(32)) | places.astype(np.uint64))
        self._keys = (packed >> np.uint64(32)).astype(np.uint32)
        self._places = (packed & np.uint64(0xFFFFFFFF)).astype(np.int64)
        self._index = index
        # A passage is asked about often, and its examples are looked at twice (chosen: some 4 MB of text).
        self._passage_runs = lru_cache(maxsize=4096)(lambda passage: self._runs(_words(passage)))

    def match(self, example: Example) -> Match | None:
        """Return the item that an example holds most of, or None; of equals the one of the smallest id."""
        written = _written(example)
        text = _text(written)
        words = _words(text)
        quoted = self._passage_runs(example.context)
        own = next((r for r in self._best(self._runs(words)) if self._counts(r, words, quoted)), None)
        passage = next((r for r in self._best(quoted) if self._leaks(r)), None)
        found = [self._match(own, text, written)] if own else []
        found += [self._match(passage, example.context, [("context", example.context)])] if passage else []
        return min(found, key=lambda m: (-m.score, m.item)) if found else None

    def matches(self, examples: Sequence[Example]) -> list[Match | None]:
        """Return what `match` says of each; many are first looked through together, with the compiler."""
        if len(examples) < MANY:
            return [self.match(example) for example in examples]
        texts = [_text(_written(e)) for e in examples]
        suspects = self._suspects(texts) | self._suspects([e.context for e in examples])
        return [
            self.match(example) if suspect else None
            for example, suspect in zip(examples, suspects.tolist(), strict=True)
        ]

    def _suspects(self, texts: Sequence[str]) -> Array:
        """Return which texts have eight words in a row whose 5-grams are all in the index (bool)."""
        from taskmill.kernels.words import ngrams, words

        hashed, rows = ngrams(words(folded(pa.array(texts, pa.large_string()))), GRAM)
        _, there = self._found((hashed >> np.uint64(32)).astype(np.uint32))
        least = _SHORT - GRAM + 1
        side = np.concatenate(([0], np.cumsum(there)))
        row = np.repeat(np.arange(len(texts)), np.diff(rows))
        full = (side[least:] - side[:-least] == least) & (
            row[least - 1 :] == row[: max(0, len(row) - least + 1)]
        )
        suspects = np.zeros(len(texts), bool)
        suspects[row[: len(full)][full]] = True
        return suspects

    def _found(self, line: Array) -> tuple[Array, Array]:
        """Return (where a gram's places begin, whether it has any) for each of a line of grams."""
        low = np.searchsorted(self._keys, line)
        return low, self._keys[np.minimum(low, len(self._keys) - 1)] == line

    def judge(self, rows: pa.Table, verdicts: pa.Table) -> pa.Table:
        """Return the verdicts with those on examples that passed so far and hold an item."""
        names = ("filter", "reason", "detail", "score")
        columns = {name: verdicts[name].to_pylist() for name in names}
        passed = [i for i, reason in enumerate(columns["reason"]) if reason is None]
        texts = rows.select(_COLUMNS).filter(pc.is_null(verdicts["reason"]))
        for i, row in zip(passed, texts.to_pylist(), strict=True):
            row["options"] = tuple(row["options"] or ())
            match = self.match(Example(id="", task="", **row))
            if match is not None:
                verdict = (FILTER, str(Reason.CONTAMINATED), match.detail, match.score)
                for name, value in zip(names, verdict, strict=True):
                    columns[name][i] = value
        arrays = [pa.array(columns[f.name], f.type) for f in verdicts.schema]
        return pa.Table.from_arrays(arrays, schema=verdicts.schema)

    def _runs(self, words: Array) -> list[_Run]:
        """Return every longest run of eight words or more that a text shares with a part."""
        least = _SHORT - GRAM + 1
        line = (grams(words, GRAM) >> np.uint64(32)).astype(np.uint32)
        low, there = self._found(line)
        side = np.concatenate(([0], np.cumsum(there)))
        if len(line) < least or not (side[least:] - side[:-least] == least).any():
            return []
        hits = np.flatnonzero(there)
        counts = np.searchsorted(self._keys, line[hits], side="right") - low[hits]
        found = []
        for start in range(0, len(hits), _BLOCK):  # so that memory does not grow with the text
            block = slice(start, start + _BLOCK)
            found += self._from(line, hits[block], low[hits[block]], counts[block], least)
        return found

    def _from(self, line: Array, hits: Array, low: Array, counts: Array, least: int) -> list[_Run]:
        """Return the runs of `least` grams or more that begin at some hits of a line of grams."""
        parts = self._index.parts
        at = np.repeat(hits, counts)
        nth = np.arange(len(at)) - np.repeat(np.cumsum(counts) - counts, counts)
        place = self._places[np.repeat(low, counts) + nth]
        part = parts.owner[place]
        begun = (at > 0) & (place > parts.first[part]) & (line[at - 1] == parts.grams[place - 1])
        room = np.minimum(len(line) - at, parts.first[part + 1] - place)
        far = np.minimum(place + least - 1, len(parts.grams) - 1)
        begins = ~begun & (room >= least) & (line[np.minimum(at + least, len(line)) - 1] == parts.grams[far])
        found = []
        columns = (part[begins], place[begins], at[begins], room[begins])
        for owner, p, a, most in zip(*(c.tolist() for c in columns), strict=True):
            differ = np.flatnonzero(line[a : a + most] != parts.grams[p : p + most])
            length = int(differ[0]) if len(differ) else most
            if length >= least:
                found.append(_Run(owner, p, a, length))
        return found

    def _best(self, runs: list[_Run]) -> list[_Run]:
        """Return runs by the share of their part, then the id of its item, then their place in the text."""
        return sorted(runs, key=lambda r: (-self._share(r), self._item(r), r.at, r.part))

    def _share(self, run: _Run) -> float:
        return (run.grams + GRAM - 1) / int(self._index.parts.words[run.part])

    def _item(self, run: _Run) -> str:
        return self._index.ids[int(self._index.parts.items[run.part])]

    def _counts(self, run: _Run, words: Array, quoted: list[_Run]) -> bool:
        """Say whether a run in what was written is an item's: long enough without what the passage has."""
        parts = self._index.parts
        size, kind = int(parts.words[run.part]), int(parts.kinds[run.part])
        fresh = np.ones(run.grams, bool)
        for other in quoted:
            if other.part == run.part:
                fresh[max(other.place - run.place, 0) : max(other.place + other.grams - run.place, 0)] = False
        if int(fresh.sum()) < min(_RUN, size) - GRAM + 1:
            return False
        return size >= _RUN or (kind == _QUESTION and self._answered(run, words))

    def _answered(self, run: _Run, words: Array) -> bool:
        """Say whether one of the answers of a question's item is among the words, or the item has none."""
        parts = self._index.parts
        item = parts.items[run.part]
        answers = [p for p in range(parts.own[item], parts.own[item + 1]) if parts.kinds[p] == _ANSWER]
        return not answers or any(self._said(part, words) for part in answers)

    def _said(self, part: int, words: Array) -> bool:
        """Say whether all words of a part stand in a row among the words."""
        parts = self._index.parts
        wanted = parts.grams[parts.first[part] : parts.first[part + 1]]
        line = (grams(words, min(GRAM, int(parts.words[part]))) >> np.uint64(32)).astype(np.uint32)
        starts = np.flatnonzero(line[: max(0, len(line) - len(wanted) + 1)] == wanted[0])
        return any(np.array_equal(line[a : a + len(wanted)], wanted) for a in starts.tolist())

    def _leaks(self, run: _Run) -> bool:
        """Say whether a run in a passage is a whole question or answer of thirteen words or more."""
        parts = self._index.parts
        whole = run.grams == int(parts.first[run.part + 1] - parts.first[run.part])
        return whole and int(parts.words[run.part]) >= _RUN and int(parts.kinds[run.part]) != _PASSAGE

    def _match(self, run: _Run, text: str, columns: list[tuple[str, str]]) -> Match:
        own = fold(text)
        spans = cut(own.text)[run.at : run.at + run.grams + GRAM - 1]
        start, end = own.place(spans[0][0], spans[-1][1])
        whole = {"start": start, "end": end}
        first = locate([whole], [len(value) for _, value in columns])[0]
        return Match(
            self._item(run), columns[first["column"]][0], first["start"], first["end"], self._share(run)
        )


@cache
def shipped_screen() -> Screen:
    """Return the indexes that come with the package, read once."""
    return Screen(join([read_index(path) for path in shipped().values()]))


def _words(text: str) -> Array:
    return hashes(fold(text).text)


def _text(columns: Sequence[tuple[str, str]]) -> str:
    return "\n".join(value for _, value in columns)


def _written(example: Example) -> list[tuple[str, str]]:
    """Return the columns that were written about the passage; the placeholder is blanked, places stay."""
    instruction = example.instruction.replace(PLACEHOLDER, " " * len(PLACEHOLDER))
    return [
        ("instruction", instruction),
        ("response", example.response),
        ("options", "\n".join(example.options)),
        ("rationale", example.rationale),
    ]
