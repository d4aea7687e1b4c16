"""The stages before the last: texts without benchmark items, and pairs about some of them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any

from taskmill import frame
from taskmill.backends import tokenizer as tokenizers
from taskmill.config import to_mapping
from taskmill.ingest.tokens import COST_PER_TOKEN, cost
from taskmill.recipes.corpus.ask import Asking
from taskmill.recipes.evaluation_sets import HeldOut
from taskmill.recipes.session import Progress, Session
from taskmill.recipes.stages import DOCUMENT_KEYS, EXAMPLE_KEYS, INVISIBLE, ModelAccess, stage_key
from taskmill.record import (
    DOCUMENT_SCHEMA,
    EXAMPLE_SCHEMA,
    Document,
    Dropped,
    Example,
    Reason,
    documents,
    draw,
)
from taskmill.store import StageWriter, parts
from taskmill.synthesize.bonito import Synthesis
from taskmill.synthesize.plan import Passages
from taskmill.synthesize.pretraining import PairStyle

__all__ = ["Wanted", "screen", "synthesize", "texts_in_order"]

SPARE = 1.25
"""With a number of tokens: so many times the texts estimated to make it may be asked about (chosen: the
estimate is rarely off by more than a fifth)."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """How many texts get pairs: a share of all, or of those about `tokens` tokens come from (0: of all)."""

    augment: float
    rounds: int
    pairs: int
    tokens: int
    seed: int


def screen(session: Session, ingested: str, held: HeldOut) -> str:
    """Drop the texts that hold an item of `held`; return the digest of what is kept."""
    source, folder = session.run.stage(1, "ingest"), session.run.stage(2, "screen")
    key = stage_key("screen", ingested, held.key)
    marker = session.run.finished(folder, key)
    if marker is None:
        session.run.begin(folder)
        writer = StageWriter(folder, DOCUMENT_SCHEMA, DOCUMENT_KEYS)
        with closing(frame.scan(parts(source / "kept"), DOCUMENT_SCHEMA)) as tables:
            for table in tables:
                found = list(documents(table))
                lost = [drop for document in found if (drop := _held(document, held)) is not None]
                gone = {drop.row.id for drop in lost}
                writer.count(len(found))
                writer.keep([document for document in found if document.id not in gone])
                writer.drop(lost)
                session.tick(Progress("screen", writer.counted, None, writer.counted, len(lost)))
        marker = writer.finish(key)
    session.manifest["funnel"]["screen"] = marker["funnel"]
    return str(marker["digest"])


def _held(document: Document, held: HeldOut) -> Dropped | None:
    match = held.match(Example(document.id, "", document.text, "", ""))
    if match is None:
        return None
    return Dropped(document, "decontaminate", Reason.CONTAMINATED, match.detail, match.score)


def texts_in_order(passages: Passages, wanted: Wanted) -> tuple[list[int], int]:
    """Return the numbers of the texts in the order in which they get pairs, and how many are to get some.

    The order is drawn from seed and id. With a number of tokens, the texts are as many as are likely to be
    needed for it and some more, in place of those that yield no pair.
    """
    ranked = []
    for number in range(len(passages)):
        document = passages[number]
        ranked.append((draw(wanted.seed, document.id, "augment"), document.id, number, cost(document.text)))
    ranked.sort()
    order = [number for _, _, number, _ in ranked]
    if not wanted.tokens:
        return order, round(wanted.augment * len(order))
    whole = list(accumulate((tokens for *_, tokens in ranked), initial=0))
    needed = bisect_left(whole, wanted.tokens * COST_PER_TOKEN)
    spare = bisect_left(whole, wanted.tokens * COST_PER_TOKEN * SPARE)
    return order[:spare], round(wanted.augment * min(needed, len(order)))


def synthesize(
    session: Session,
    screened: str,
    how: PairStyle | Synthesis,
    wanted: Wanted,
    access: ModelAccess,
    held: HeldOut,
    tokenizer: str,
) -> str:
    """Ask the model about texts until the wanted share of them has pairs; return the digest of the pairs.

    A stage that a budget cut short, or in which calls failed, is not marked finished: the same command takes
    it up again and pays only for what is missing.
    """
    folder = session.run.stage(3, "synthesize")
    model = {k: v for k, v in to_mapping(access.model).items() if k not in INVISIBLE}
    key = stage_key("pairs", screened, to_mapping(how), to_mapping(wanted), model, held.key, tokenizer)
    marker = session.run.finished(folder, key)
    if marker is None:
        marker = _synthesize(session, folder, key, how, wanted, access, held, tokenizer)
    else:
        calls = marker["calls"]
        session.manifest["calls"] = {**calls, "made": 0, "reused": calls["made"] + calls["reused"]}
    for name in ("cost", "model", "stopped", "errors", "texts"):
        session.manifest[name] = marker[name]
    session.manifest["call_tokens"] = marker["tokens"]
    session.manifest["funnel"]["synthesize"] = marker["funnel"]
    return str(marker["digest"])


def _synthesize(
    session: Session,
    folder: Any,
    key: str,
    how: PairStyle | Synthesis,
    wanted: Wanted,
    access: ModelAccess,
    held: HeldOut,
    tokenizer: str,
) -> dict[str, Any]:
    kept = parts(session.run.stage(2, "screen") / "kept")
    passages = Passages(kept, wanted.seed, wanted.rounds + 2)
    caller = access.open(session)
    with caller.ledger:
        session.run.begin(folder)
        writer = StageWriter(folder, EXAMPLE_SCHEMA, EXAMPLE_KEYS)
        asking = Asking(session, caller, writer, held, passages, counter(tokenizer))
        order, goal = texts_in_order(passages, wanted)
        at, before = 0, -1
        # Texts that yield no pair are made up for by others, until a whole wave of them yields none.
        while (missing := goal - len(asking.answered)) > 0 and at < len(order) and not caller.stopped:
            if len(asking.answered) == before:
                break
            before = len(asking.answered)
            wave = sorted(order[at : at + missing])  # as they lie in the files
            at += len(wave)
            if isinstance(how, PairStyle):
                asking.in_pairs(how, wave, wanted.rounds)
            else:
                asking.in_tasks(how, wave, wanted.rounds, wanted.pairs)
        caller.ledger.sync()
        session.book(caller)
        whole = not caller.stopped and not caller.failed
        return writer.finish(
            key if whole else f"unfinished {key}",
            stopped=caller.budget.reason if caller.stopped else "",
            errors=dict(asking.errors.most_common(3)),
            texts={"in_view": len(order), "wanted": goal, "asked": at, "answered": len(asking.answered)},
            **{name: session.manifest[name] for name in ("calls", "tokens", "cost", "model")},
        )


def counter(tokenizer: str) -> Callable[[str], int]:
    """Return a function that counts a text's tokens; the tokenizer is loaded when it is first called."""

    @cache
    def loaded() -> Any:
        return tokenizers.load_text_tokenizer(tokenizer)

    return lambda text: len(loaded().encode([text])[0])
