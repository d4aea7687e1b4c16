"""A corpus and held-out rows → what each model reads, token for token as much, and what it is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from taskmill import frame
from taskmill.errors import InputError, UsageError
from taskmill.ids import content_id, draw
from taskmill.ingest import IngestConfig, read_sources
from taskmill.recipes.corpus.rows import fill
from taskmill.recipes.general import probes
from taskmill.recipes.layouts import as_examples, with_answer
from taskmill.recipes.tables import read_table
from taskmill.record import DOCUMENT_SCHEMA, EXAMPLE_SCHEMA, Document, Example, documents, examples
from taskmill.render import escape
from taskmill.store import parts, read_json
from taskmill.suites import SUITES, get, prompt
from taskmill.suites.base import texts as cell_texts
from taskmill.synthesize.pretraining import pair_of
from taskmill.tasks.passage import joined
from taskmill.train.student import Item

__all__ = [
    "Asked",
    "Corpus",
    "Probe",
    "Questions",
    "general_texts",
    "package_questions",
    "questions",
    "read_corpus",
    "reading",
]

GENERAL_CHUNK = 256
"""Tokens (estimated) of a general text whose loss is taken (chosen: it fits every recipe's rows)."""

GENERAL_TEXTS = 64
"""General texts at most, by chance (chosen: a perplexity of 64 x 256 tokens is told to 2 percent)."""

TOLD_WORDS = 6
"""Words of a question from which its standing in other text is no chance (chosen: "what is it for" is)."""

Lengths = Callable[[Sequence[Document]], list[int | str]]


@dataclass(frozen=True)
class Corpus:
    """The rows of a corpus by arm, as documents sorted by id; `general` are instructions, in all arms alike.

    `asked`: the questions of its pairs, as words alone; `told`: the words of its general instructions and
    tuning data, each between spaces.
    """

    rows: dict[str, list[Document]]
    general: list[Document]
    asked: frozenset[str]
    manifest: dict[str, Any]
    told: str = ""


def read_corpus(folder: str) -> Corpus:
    """Return what a corpus holds. Raises UsageError for a folder without a finished corpus."""
    place = Path(folder)
    manifest = read_json(place / "manifest.json") if place.is_dir() else {}
    if manifest.get("kind") != "corpus" or not (place / "data").is_dir():
        raise UsageError(f"{folder} holds no corpus; make one with `taskmill corpus … --out {folder}`")
    if manifest.get("status") == "running":
        raise UsageError(f"{folder} is not finished; run its `taskmill corpus` command to the end")
    augmented: list[Document] = []
    general: list[Document] = []
    inside: set[str] = set()
    told: dict[str, None] = {}
    for path in parts(place / "data"):
        table = pq.read_table(path, columns=["id", "kind", "text", "texts"])
        for row in table.to_pylist():
            document = Document(row["id"], row["text"])
            (general if row["kind"] == "general" else augmented).append(document)
            if row["kind"] in ("augmented", "raw"):
                inside |= set(row["texts"])
            else:
                told[joined(row["text"])] = None
    with closing(frame.scan(parts(place / "2-screen" / "kept"), DOCUMENT_SCHEMA)) as tables:
        raw = [Document(d.id, d.text) for table in tables for d in documents(table) if d.id in inside]
    if not raw:
        raise InputError(f"{folder}: the corpus has no text of its sources; nothing can be read of it")
    with closing(frame.scan(parts(place / "5-corpus" / "kept"), EXAMPLE_SCHEMA)) as tables:
        asked = frozenset(joined(pair_of(e)[0]) for table in tables for e in examples(table))
    of = {"raw": raw, "augmented": augmented}
    return Corpus(
        {arm: _sorted(own) for arm, own in of.items()}, _sorted(general), asked, manifest, "\n".join(told)
    )


def _sorted(rows: Iterable[Document]) -> list[Document]:
    return sorted(rows, key=lambda row: row.id)


def reading(rows: Sequence[Document], lengths: Lengths, tokens: int, seed: int) -> tuple[list[Document], int]:
    """Return rows whose tokens sum to about `tokens`, and the sum: whole passes, then a part of one.

    The part is drawn by the seed and as exact as whole rows allow; rows that cannot be read are left out.
    """
    sizes = lengths(rows)
    good = [(row, size) for row, size in zip(rows, sizes, strict=True) if isinstance(size, int)]
    whole = sum(size for _, size in good)
    if not whole or tokens < 1:
        return [], 0
    good.sort(key=lambda one: (draw(seed, one[0].id, "reading"), one[0].id))
    passes, rest = divmod(tokens, whole)
    part = [good[i] for i in fill([size for _, size in good], rest)]
    found = [*good * passes, *part]
    return [row for row, _ in found], sum(size for _, size in found)


# what is asked


@dataclass(frozen=True)
class Probe:
    """A question: the item as a student is asked, and all its right answers."""

    item: Item
    golds: tuple[str, ...]


@dataclass(frozen=True)
class Questions:
    """The questions of one target; `met` are those left out because a pair of the corpus asks the same."""

    name: str
    probes: list[Probe]
    met: int


@dataclass(frozen=True)
class Asked:
    """All that every model is asked: the targets' questions, the general ones, and general texts."""

    targets: list[Questions]
    general: list[Questions]
    texts: list[str]

    @property
    def probes(self) -> list[Probe]:
        """Return all questions in one order."""
        return [probe for own in (*self.targets, *self.general) for probe in own.probes]

    @property
    def items(self) -> list[Item]:
        """Return them as a student is asked."""
        return [probe.item for probe in self.probes]

    def id(self) -> str:
        """Return the hash of everything that is asked."""
        said = (f"{p.item.example.context} {p.item.example.instruction} {p.golds}" for p in self.probes)
        return content_id(*said, *self.texts)


def questions(
    given: Sequence[str], most: int, seed: int, asked: frozenset[str] = frozenset(), told: str = ""
) -> list[Questions]:
    """Return the questions of tables and suites, at most so many of each (0: all), by chance.

    Left out are those that a corpus asks: `asked` and `told` of it.

    Raises InputError for a table without a question and an answer, UsageError where none is left to ask.
    """
    found: list[Questions] = []
    for one in given:
        name, file = _named(one)
        probes = _of_suite(name, file) if file else _of_table(one)
        new = [probe for probe in probes if not _met(joined(_question(probe)), asked, told)]
        new.sort(key=lambda p: (draw(seed, p.item.example.id, "question"), p.item.example.id))
        if not new:
            raise UsageError(f"{one}: no question is left to ask; name other held-out rows")
        own = sorted(new[:most] if most else new, key=lambda p: p.item.example.id)
        found.append(Questions(name, own, len(probes) - len(new)))
    twice = [name for name, count in Counter(q.name for q in found).items() if count > 1]
    if twice:
        raise UsageError(f"two targets are called {twice[0]}; give their files different names")
    return found


def _met(question: str, asked: frozenset[str], told: str) -> bool:
    long = len(question.split()) >= TOLD_WORDS
    return question in asked or (long and f" {question.strip()} " in told)


def _named(one: str) -> tuple[str, str]:
    """Return (name, file) of SUITE=FILE, and (name, "") of a table."""
    name, found, file = one.partition("=")
    if found and not Path(one).exists():
        return get(name).name, file
    return Path(one).name.partition(".")[0], ""


def _of_table(source: str) -> list[Probe]:
    """Read a table of examples, or of question, answer and maybe context, options and further `answers`."""
    table = with_answer(read_table([source]))
    listed = table["answers"].to_pylist() if "answers" in table.column_names else [None] * len(table)
    found = []
    for example, more in zip(as_examples(table), listed, strict=True):
        if not example.response.strip():
            raise InputError(f"{source}: row {example.id} has no answer; give each row the right one")
        options = example.options if example.response in example.options else ()
        golds = tuple(dict.fromkeys((example.response, *(cell_texts(more) if not options else ()))))
        found.append(Probe(Item(example, options), golds))
    return found


def _of_suite(name: str, file: str) -> list[Probe]:
    """Read a benchmark; its questions are asked in the suite's first wording, without solved ones."""
    from taskmill.recipes.evaluate.rows import load

    suite = SUITES.get(name)
    words = prompt(suite.prompt)
    found = []
    for item in load(suite, file).items:
        if not item.targets:
            continue
        right = item.options[item.gold[0]] if item.options and item.gold else item.targets[0]
        example = Example(item.id, "", "", escape(words.render(item)), right, item.options)
        options = item.options if right in item.options else ()
        found.append(Probe(Item(example, options), (right,) if options else item.targets))
    return found


def _question(probe: Probe) -> str:
    example = probe.item.example
    return pair_of(example)[0] or example.instruction


# what must not be forgotten


def package_questions(seed: int) -> list[Probe]:
    """Return the general questions that come with the package."""
    return [Probe(item, (item.example.response,)) for item in probes("", seed).items]


def general_texts(sources: Sequence[str], seed: int) -> list[str]:
    """Return general texts, at most `GENERAL_TEXTS` by chance, in the order of their ids."""
    if not sources:
        return probes("", seed).texts
    reading = IngestConfig(chunk_tokens=GENERAL_CHUNK)
    found = {d.id: d.text for d in read_sources(sources, reading) if isinstance(d, Document)}
    if not found:
        raise InputError(f"{', '.join(sources)}: no general text in it; name files with texts")
    chosen = sorted(found, key=lambda name: (draw(seed, name, "general text"), name))[:GENERAL_TEXTS]
    return [found[name] for name in sorted(chosen)]
