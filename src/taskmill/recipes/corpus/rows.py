"""Rows of a corpus: chains of texts with their pairs, raw texts, tuning data, general instructions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from taskmill.backends.tokenizer import TextTokenizer
from taskmill.record import Document, Dropped, Example, Reason, content_id
from taskmill.render import CHAT_TOKENS, escape_special
from taskmill.store import parts
from taskmill.synthesize.casting import Annotated
from taskmill.synthesize.chain_text import chain_text, draw_style
from taskmill.synthesize.pair_format import Pair, Shown
from taskmill.synthesize.pretraining import chains, pair_of

__all__ = [
    "KINDS",
    "ROW_SCHEMA",
    "Making",
    "Row",
    "Text",
    "distinct",
    "documents_as_rows",
    "fill",
    "samples",
    "tuning_chains",
]

KINDS = ("augmented", "raw", "tuning", "general")
ROW_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("kind", pa.string()),
        ("documents", pa.list_(pa.string())),
        ("texts", pa.list_(pa.string())),
        ("examples", pa.list_(pa.string())),
        ("pairs", pa.int32()),
        ("tokens", pa.int32()),
        ("style", pa.string()),
        ("licences", pa.list_(pa.string())),
    ]
)
_BATCH = 1024
_REACH = 128
"""Rows after the first that does not fit from which a sum is made up exactly (chosen: of the rows of a corpus
nearly every sum of some hundred tokens can be made of so many)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One text to train on. `texts` are the ids of the texts in it, `examples` those of its pairs.

    `documents` are the ids of the source documents that the texts are of: their own where none was cut.
    `tokens` are those of the text alone, without the end token that packing adds. The id holds the seed, so
    that the order by id is a shuffle.
    """

    id: str
    text: str
    kind: str
    documents: tuple[str, ...]
    texts: tuple[str, ...]
    examples: tuple[str, ...]
    pairs: int
    tokens: int
    style: str
    licences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Text:
    """A text of a chain with its pairs: what is shown of it and where it is from."""

    document: str
    shown: Shown
    examples: tuple[str, ...]
    licence: str


class Making:
    """Makes rows with the tokenizer and seed of a corpus; `room` is the most tokens of a chain.

    `whole`: the source document of each text that is a part of one.
    """

    def __init__(
        self, tokenizer: TextTokenizer, seed: int, room: int, whole: Mapping[str, str] | None = None
    ) -> None:
        self._tokenizer, self._seed, self._room, self._whole = tokenizer, seed, room, whole or {}
        self._special = tuple(dict.fromkeys((*tokenizer.special_tokens.values(), *CHAT_TOKENS)))

    def counts(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text."""
        _, offsets = self._tokenizer.encode(texts)
        return [int(b - a) for a, b in pairwise(offsets)]

    def rows(self, kind: str, texts: Iterable[tuple[str, str, str]]) -> Iterator[Row]:
        """Yield a row for each (document id, text, licence)."""
        source = iter(texts)
        while batch := list(islice(source, _BATCH)):
            safe = [escape_special(text, self._special) for _, text, _ in batch]
            for (name, _, licence), text, tokens in zip(batch, safe, self.counts(safe), strict=True):
                yield self._row(kind, text, tokens, (name,), licences=(licence,))

    def again(self, row: Row, copy: int) -> Row:
        """Return a row as its further copy, of an id of its own."""
        own = content_id(row.id, str(copy)) if copy else row.id
        return Row(own, *(getattr(row, f) for f in ROW_SCHEMA.names[1:]))

    def chain(self, kind: str, texts: Sequence[Text], copy: int = 0) -> Iterator[Row]:
        """Yield a chain as one row, or as several where it is over `room`; no text is cut here."""
        left = list(texts)
        while left:
            size = len(left)
            while True:
                own = left[:size]
                fewest = min(len(t.shown.pairs) for t in own)
                style = draw_style(self._seed, f"{own[0].document} {copy}", fewest)
                text = escape_special(chain_text([t.shown for t in own], style), self._special)
                (tokens,) = self.counts([text])
                if tokens <= self._room or size == 1:
                    break
                size -= 1
            left = left[size:]
            examples = tuple(name for t in own for name in t.examples)
            pairs = sum(len(t.shown.pairs) for t in own)
            names = tuple(t.document for t in own)
            licences = tuple(t.licence for t in own)
            yield self._row(kind, text, tokens, names, examples, pairs, style.name, licences, copy)

    def _row(
        self,
        kind: str,
        text: str,
        tokens: int,
        texts: tuple[str, ...],
        examples: tuple[str, ...] = (),
        pairs: int = 0,
        style: str = "",
        licences: tuple[str, ...] = (),
        copy: int = 0,
    ) -> Row:
        name = content_id(str(self._seed), kind, str(copy), *texts, text)
        known = tuple(sorted({licence for licence in licences if licence}))
        documents = tuple(dict.fromkeys(self._whole.get(one, one) for one in texts))
        return Row(name, text, kind, documents, texts, examples, pairs, tokens, style, known)


def distinct(examples: Iterable[Example]) -> tuple[dict[str, list[Text]], list[Example], list[Dropped]]:
    """Return the texts of each chain in the order of its rounds, and the examples kept and dropped.

    Of the examples of one text that ask the same, case aside, the first of its reply (else by id) is kept.
    """
    texts: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        texts[example.source.document].append(example)
    found: dict[str, list[tuple[int, Text]]] = defaultdict(list)
    kept: list[Example] = []
    lost: list[Dropped] = []
    for document in sorted(texts):
        places = {e.id: orjson.loads(e.meta) for e in texts[document]}
        asked: dict[str, tuple[Example, Pair]] = {}
        for example in sorted(texts[document], key=lambda e: (places[e.id]["number"], e.id)):
            question, pair = pair_of(example)
            if question.casefold() in asked:
                lost.append(Dropped(example, "corpus", Reason.DUPLICATE, "the text was asked the same"))
            else:
                asked[question.casefold()] = (example, pair)
        own = [example for example, _ in asked.values()]
        kept += own
        shown = Shown(own[0].context, tuple(pair for _, pair in asked.values()))
        place = places[own[0].id]
        text = Text(document, shown, tuple(e.id for e in own), own[0].source.licence)
        found[place["chain"]].append((place["round"], text))
    ordered = {name: sorted(found[name], key=lambda t: t[0]) for name in sorted(found)}
    return {name: [text for _, text in own] for name, own in ordered.items()}, kept, lost


def documents_as_rows(documents: Iterable[Document]) -> Iterator[tuple[str, str, str]]:
    """Yield (id, text, licence) of each document."""
    for document in documents:
        yield document.id, document.text, document.licence


def tuning_chains(records: Iterable[Annotated], rounds: int) -> Iterator[list[Text]]:
    """Yield chains of annotated texts, each of one dataset, its records in the order of their ids."""
    found: dict[str, dict[str, Text]] = defaultdict(dict)
    for record in records:
        text = Text(record.id, Shown(record.context, record.pairs), (), record.licence)
        found[record.dataset][record.id] = text
    for dataset in sorted(found):
        yield from chains([found[dataset][name] for name in sorted(found[dataset])], rounds)


def fill(sizes: Sequence[int], target: int) -> list[int]:
    """Return the numbers of the rows, the first ones first, whose sizes sum to about `target`.

    All rows if they are not more. The rows before the first that does not fit are taken; what is missing then
    is made up of the rows behind (and the last few before) as exactly as they allow: a subset sum.
    """
    total, first = 0, 0
    while first < len(sizes) and total + sizes[first] <= target:
        total += sizes[first]
        first += 1
    if first == len(sizes):
        return list(range(first))
    back = max(first - 4, 0)
    rest = target - sum(sizes[:back])
    candidates = range(back, min(first + _REACH, len(sizes)))
    reach = [
        1
    ]  # bit s of entry k: s is a sum of some of the first k candidates, at most twice what is missing
    for i in candidates:
        reach.append((reach[-1] | (reach[-1] << sizes[i])) & ((1 << (2 * rest + 1)) - 1))
    goal = next(s for d in range(rest + 1) for s in (rest - d, rest + d) if reach[-1] >> s & 1)
    chosen = []
    for k in range(len(candidates), 0, -1):
        if not reach[k - 1] >> goal & 1:
            chosen.append(candidates[k - 1])
            goal -= sizes[candidates[k - 1]]
    return [*range(back), *reversed(chosen)]


def samples(folder: Path, most: int = 3) -> list[str]:
    """Return the first chains of a corpus by their ids, which are draws."""
    found: list[str] = []
    for path in parts(folder):
        table = pq.read_table(path, columns=["kind", "text"])
        own = table.filter(pc.equal(table["kind"], "augmented"))["text"]
        found += own.slice(0, most - len(found)).to_pylist()
        if len(found) == most:
            break
    return found
