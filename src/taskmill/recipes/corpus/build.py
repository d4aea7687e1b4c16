"""The last stage: pairs and texts → rows of a corpus, counted token by token, and their packed shards.

RUN/  data/part-00000.parquet …   shards/index.json tokens.npy … train-00000.parquet …
5-corpus/  kept/ dropped/ (pairs)  left_out/ (texts over the tokens wanted)  extras/ (of tuning data and
general instructions, what is not in the corpus)  stage.json
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from taskmill import frame
from taskmill.backends import tokenizer as tokenizers
from taskmill.backends.tokenizer import TextTokenizer
from taskmill.config import to_mapping
from taskmill.ingest import fingerprint
from taskmill.recipes.corpus.extras import Extra, read_annotated, read_general
from taskmill.recipes.corpus.figures import documents as documents_of
from taskmill.recipes.corpus.figures import of_rows, shift, suites
from taskmill.recipes.corpus.rows import (
    ROW_SCHEMA,
    Making,
    Row,
    distinct,
    documents_as_rows,
    fill,
    tuning_chains,
)
from taskmill.recipes.corpus.shards import shard
from taskmill.recipes.evaluation_sets import HeldOut
from taskmill.recipes.session import Progress, Session
from taskmill.recipes.stages import EXAMPLE_KEYS, stage_key
from taskmill.record import (
    DOCUMENT_SCHEMA,
    EXAMPLE_SCHEMA,
    Document,
    Dropped,
    Example,
    Reason,
    documents,
    draw,
    dropped_schema,
    examples,
)
from taskmill.store import SortedParts, StageWriter, parts

__all__ = ["Recipe", "build", "tuning_tokens"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a corpus is put together of.

    `augment` is the share of the texts with pairs, `ratio` that of general tokens to all others; `tokens` are
    those wanted in all (0: what there is).
    """

    augment: float
    rounds: int
    tuning: tuple[str, ...]
    tuning_repeat: int
    general: tuple[str, ...]
    ratio: float
    tokens: int
    length: int
    tokenizer: str
    seed: int

    @property
    def domain(self) -> float:
        """Return the tokens wanted of all but general instructions."""
        return self.tokens / (1 + self.ratio)


def tuning_tokens(recipe: Recipe, held: HeldOut) -> int:
    """Return the tokens that the tuning data will take, all copies: what is left for texts is known by it.

    Raises InputError for a file of tuning data that cannot be read.
    """
    if not recipe.tuning:
        return 0
    making = _making(tokenizers.load_text_tokenizer(recipe.tokenizer), recipe)
    return sum(row.tokens for row in _tuning_rows(making, recipe, held, Extra()))


def _making(tokenizer: TextTokenizer, recipe: Recipe, whole: Mapping[str, str] | None = None) -> Making:
    room = recipe.length - 1 - len(tokenizer.begin)  # the end token has a place, too
    return Making(tokenizer, recipe.seed, max(room, 1), whole)


def _tuning_rows(making: Making, recipe: Recipe, held: HeldOut, extra: Extra) -> Iterator[Row]:
    if not recipe.tuning:
        return
    records = read_annotated(recipe.tuning, held, extra)
    for chain in tuning_chains(records, recipe.rounds):
        for copy in range(recipe.tuning_repeat):
            yield from making.chain("tuning", chain, copy)


def build(session: Session, made_from: tuple[str, str], recipe: Recipe, held: HeldOut) -> None:
    """Write `data/` and `shards/` and put what they hold into the manifest.

    Raises InputError for a file of tuning data or general instructions that cannot be read.
    """
    run = session.run
    folder = run.stage(5, "corpus")
    extra = [*recipe.tuning, *recipe.general]
    key = stage_key("corpus", made_from, to_mapping(recipe), held.key, fingerprint(extra))
    marker = run.finished(folder, key)
    if marker is None or not (run.path / "data").is_dir() or not (run.path / "shards").is_dir():
        run.begin(folder)
        tokenizer = tokenizers.load_text_tokenizer(recipe.tokenizer)
        marker = _Building(session, folder, tokenizer, recipe, held).all(key)
    session.manifest["funnel"]["corpus"] = marker["funnel"]
    session.manifest |= {
        **marker["corpus"],
        "texts": {**session.manifest["texts"], **marker["corpus"]["texts"]},
    }
    dropped: Counter[str] = Counter(marker["left_out"])
    for extra in marker["corpus"]["extras"].values():
        dropped.update(extra["dropped"])
    for stage in session.manifest["funnel"].values():
        dropped.update(stage["dropped"])
    session.manifest["dropped"] = dict(sorted(dropped.items()))
    folders = {"texts": run.stage(2, "screen"), "pairs": run.stage(4, "curate")}
    session.manifest["contaminated"] = {name: suites(place) for name, place in folders.items()}


class _Building:
    """Makes the rows kind by kind. The corpus's rows, without their texts' tokens, are held in memory."""

    def __init__(
        self, session: Session, folder: Path, tokenizer: TextTokenizer, recipe: Recipe, held: HeldOut
    ) -> None:
        self.session, self.folder, self.recipe, self.held = session, folder, recipe, held
        self.run, self.tokenizer = session.run, tokenizer
        whole = {d.id: d.source.parent for d in self._documents() if d.source.parent not in ("", d.id)}
        self.making = _making(tokenizer, recipe, whole)
        self.left_out: Counter[str] = Counter()
        self.extras = {"tuning": Extra(), "general": Extra()}

    def all(self, key: str) -> dict[str, Any]:
        """Write everything and return the stage's marker."""
        recipe = self.recipe
        writer = StageWriter(self.folder, EXAMPLE_SCHEMA, EXAMPLE_KEYS)
        accepted = list(self._examples())
        writer.count(len(accepted))
        ordered, kept, lost = distinct(accepted)
        tuning = list(_tuning_rows(self.making, recipe, self.held, self.extras["tuning"]))
        augmented = [row for chain in ordered.values() for row in self.making.chain("augmented", chain)]
        self.session.progress(Progress("corpus", len(augmented), None, len(augmented)))
        raw = self._raw({name for row in augmented for name in row.texts})
        if recipe.tokens:
            wanted = max(0, round(recipe.domain) - _tokens(tuning))
            augmented = self._chosen(augmented, raw, wanted)
            kept, over = _used(kept, augmented)
            lost += over
            raw = self._part(raw, wanted - _tokens(augmented), augmented)
        rest = _tokens(tuning) + _tokens(augmented) + _tokens(raw)
        general, mixed = self._general(rest)
        writer.keep(kept)
        writer.drop(lost)
        self._write_extras()
        rows = [*augmented, *raw, *tuning, *general]
        self._write(rows)
        shards = shard(self.run.path, self.tokenizer, recipe.length, recipe.seed)
        extras = {name: extra.funnel() for name, extra in self.extras.items() if extra.came}
        corpus = {**self._figures(rows, kept), "general": mixed, "extras": extras, "shards": shards}
        return writer.finish(key, corpus=corpus, left_out=dict(self.left_out))

    def _examples(self) -> Iterator[Example]:
        with closing(frame.scan(parts(self.run.stage(4, "curate") / "kept"), EXAMPLE_SCHEMA)) as tables:
            for table in tables:
                yield from examples(table)

    def _documents(self) -> Iterator[Document]:
        with closing(frame.scan(parts(self.run.stage(2, "screen") / "kept"), DOCUMENT_SCHEMA)) as tables:
            for table in tables:
                yield from documents(table)

    def _raw(self, augmented: set[str]) -> list[Row]:
        """Return the texts that are in no chain, each as a row of its own, in the order of their draws."""
        others = documents_as_rows(d for d in self._documents() if d.id not in augmented)
        rows = list(self.making.rows("raw", others))
        return sorted(rows, key=lambda r: (draw(self.recipe.seed, r.texts[0], "augment"), r.id))

    def _chosen(self, augmented: list[Row], raw: Sequence[Row], wanted: int) -> list[Row]:
        """Return the chains that, with raw texts up to `wanted` tokens, are the asked share of all texts."""
        texts = sum(len(row.texts) for row in augmented)
        if not texts:
            return []
        share = self.recipe.augment
        own, other = share * _tokens(augmented) / texts, (1 - share) * _tokens(raw) / max(len(raw), 1)
        part = max(own / (own + other), 1 - _tokens(raw) / max(wanted, 1)) if own else 0.0
        rows = sorted(augmented, key=lambda row: row.id)
        return [rows[i] for i in fill([row.tokens for row in rows], round(wanted * part))]

    def _part(self, raw: Sequence[Row], wanted: int, augmented: Sequence[Row]) -> list[Row]:
        """Return raw rows of about so many tokens; texts in no row are written to `left_out`."""
        taken = [raw[i] for i in fill([row.tokens for row in raw], max(wanted, 0))]
        there = {name for row in (*taken, *augmented) for name in row.texts}
        writer = SortedParts(self.folder / "left_out", dropped_schema(DOCUMENT_SCHEMA), ["id", "reason"])
        detail = f"{self.recipe.tokens} tokens were asked for and are there without it"
        gone = (document for document in self._documents() if document.id not in there)
        writer.add([Dropped(document, "corpus", Reason.OVER_TARGET, detail) for document in gone])
        if over := writer.finish():
            self.left_out[str(Reason.OVER_TARGET)] += over
        return taken

    def _general(self, rest: int) -> tuple[list[Row], dict[str, Any]]:
        """Return instruction rows of `ratio` times `rest` tokens; short ones are repeated by epochs."""
        if not self.recipe.general:
            return [], {}
        texts = read_general(self.recipe.general, self.held, self.extras["general"])
        rows = list(self.making.rows("general", texts))
        rows.sort(key=lambda r: (draw(self.recipe.seed, r.texts[0], "general"), r.id))
        rows = [replace(row, documents=(), texts=(), examples=row.texts) for row in rows]
        whole, wanted = _tokens(rows), round(rest * self.recipe.ratio)
        epochs, left = divmod(wanted, whole) if whole else (0, 0)
        taken = [self.making.again(row, copy) for copy in range(epochs) for row in rows]
        taken += [self.making.again(rows[i], epochs) for i in fill([row.tokens for row in rows], left)]
        found = {
            "rows": len(taken),
            "distinct": len({row.examples for row in taken}),
            "epochs": round(wanted / whole, 3) if whole else 0.0,
            "asked": self.recipe.ratio,
            "realised": round(_tokens(taken) / rest, 6) if rest else 0.0,
        }
        return taken, found

    def _write_extras(self) -> None:
        """Write what of tuning data and general instructions is not in the corpus, with the reasons."""
        writer = SortedParts(self.folder / "extras", dropped_schema(EXAMPLE_SCHEMA), ["id", "reason"])
        writer.add([drop for extra in self.extras.values() for drop in extra.lost])
        writer.finish()

    def _write(self, rows: Sequence[Row]) -> None:
        """Write the rows beside, then put them in their place: a folder `data` is whole or not there."""
        beside, place = self.folder / "data", self.run.path / "data"
        writer = SortedParts(beside, ROW_SCHEMA, ["id"])
        writer.add(rows)
        writer.finish()
        shutil.rmtree(place, ignore_errors=True)
        beside.rename(place)

    def _figures(self, rows: Sequence[Row], kept: Sequence[Example]) -> dict[str, Any]:
        found, texts = documents_of(
            self.run.stage(1, "ingest"), self.run.stage(2, "screen"), self.folder / "left_out", rows
        )
        return {
            "documents": found,
            "texts": texts,
            **of_rows(rows, kept, self.making.counts),
            "shift": shift(kept),
        }


def _tokens(rows: Sequence[Row]) -> int:
    return sum(row.tokens for row in rows)


def _used(kept: Sequence[Example], rows: Sequence[Row]) -> tuple[list[Example], list[Dropped]]:
    """Return the examples that stand in some row, and the others dropped."""
    there = {name for row in rows for name in row.examples}
    detail = "its chain is over the tokens that were asked for"
    lost = [Dropped(e, "corpus", Reason.OVER_TARGET, detail) for e in kept if e.id not in there]
    return [e for e in kept if e.id in there], lost
