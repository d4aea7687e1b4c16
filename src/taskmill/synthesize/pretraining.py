"""Instruction Pre-Training (arXiv 2406.14491): texts in chains, each asked about behind those before it.

N texts go through M rounds in B = ⌈N / M⌉ chains: chain i holds the texts i, i + B, i + 2B, … The prompt
for a text shows the earlier texts of its chain with the pairs that were kept of them, the newest that fit.
A chain goes on as soon as its last answer is there: an engine then still has the shared prefix in its
cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import orjson

from taskmill.calls import Completion, Request, Sampling, request
from taskmill.errors import ConfigError
from taskmill.record import Document, Dropped, Example, Origin, Reason, Source, content_id
from taskmill.render import PLACEHOLDER, escape
from taskmill.synthesize.pair_format import (
    EOS,
    Pair,
    Shown,
    prompt,
    read_reply,
    render_pairs,
    split_options,
    split_reasoning,
    with_options,
    with_reasoning,
)
from taskmill.tasks.base import Rejected
from taskmill.tasks.exqa import sample_question
from taskmill.tasks.mcqa import lettered, which
from taskmill.tasks.passage import one_line, sentences, words
from taskmill.tasks.rules import question_of

__all__ = ["Asked", "PairStyle", "chains", "newest", "pair_of", "pose", "read"]

METHOD = "pretraining"
REPLY_TOKENS = 400
"""Most new tokens of a reply (the published synthesizer's card)."""

T = TypeVar("T")
Count = Callable[[str], int]
"""How many tokens a text has."""


def chains(texts: Sequence[T], rounds: int) -> list[list[T]]:
    """Return the texts in ⌈N / M⌉ chains of at most `rounds`; each text stands in exactly one.

    Raises ConfigError for fewer than one round.
    """
    if rounds < 1:
        raise ConfigError(f"rounds is {rounds}; one round or more is needed")
    count = -(-len(texts) // rounds)
    return [list(texts[i::count]) for i in range(count)]


def newest(history: Sequence[Shown], context: str, room: int, count: Count) -> list[Shown] | None:
    """Return the newest examples that fit before a text within `room` tokens, None if it alone does not."""
    if count(prompt(context)) > room:
        return None
    first = len(history)
    while first and count(prompt(context, history[first - 1 :])) <= room:
        first -= 1
    return list(history[first:])


@dataclass(frozen=True, slots=True)
class PairStyle:
    """How the published synthesizer is asked: `room` is its context in tokens, reply and all.

    `begin`: the prompt starts with the begin token, for an engine that adds none.
    """

    room: int = 4096
    reply: int = REPLY_TOKENS
    begin: bool = True
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks about: a document in the round of its chain, behind the documents `shown`.

    A chain is named by its first document.
    """

    document: Document
    chain: str
    round: int
    shown: tuple[str, ...] = ()

    def sample(self) -> str:
        """Return what a flawless synthesizer could reply, for echo: how up to three sentences end."""
        text = one_line(self.document.text)
        long = [s for s in sentences(text) if len(words(s)) > 5][:3] or [text]
        return render_pairs([Pair(*sample_question(s)) for s in long])


def pose(
    how: PairStyle, model: str, asked: Asked, history: Sequence[tuple[str, Shown]], count: Count
) -> Request | Dropped:
    """Return the request for a text behind `history` (document id, example), or why there is none."""
    text = asked.document.text.strip()
    fitting = newest([shown for _, shown in history], text, how.room - how.reply, count)
    if fitting is None:
        detail = f"the text and {how.reply} tokens of reply are over the model's {how.room}"
        name = content_id(asked.document.id, METHOD)
        return _dropped(name, asked, model, "", how.seed, Rejected(Reason.OVER_CONTEXT, detail))
    ids = tuple(name for name, _ in history[len(history) - len(fitting) :])
    sampling = Sampling(temperature=0, max_tokens=how.reply, stop=(EOS,))
    payload = Asked(asked.document, asked.chain, asked.round, ids)
    asking = prompt(text, fitting, begin=how.begin)
    return request(model, sampling, prompt=asking, seed=how.seed, payload=payload)


def read(how: PairStyle, model: str, posed: Request, completion: Completion) -> list[Example | Dropped]:
    """Turn a reply into examples, one for each pair; whatever is none is Dropped with its reason."""
    asked: Asked = posed.payload
    if completion.finish == "error":
        outcomes: list[Pair | Rejected] = [Rejected(Reason.CALL_FAILED, completion.error)]
    else:
        pairs, lost = read_reply(completion.text)
        outcomes = [*pairs, *lost]
        if not outcomes:
            outcomes = [Rejected(Reason.EMPTY_REPLY, "the model wrote nothing")]
    found: list[Example | Dropped] = []
    for number, outcome in enumerate(outcomes):
        made: Example | Rejected | Pair = outcome
        if isinstance(made, Pair):
            made = _example(made, number, asked, model, completion.key, how.seed)
        if isinstance(made, Example):
            found.append(made)
        else:
            name = content_id(completion.key, str(number))
            found.append(_dropped(name, asked, model, completion.key, how.seed, made))
    return found


def _example(pair: Pair, number: int, asked: Asked, model: str, call: str, seed: int) -> Example | Rejected:
    question, rationale, answer = split_reasoning(pair)
    question, options = split_options(question)
    index = which(answer, options) if options else None
    if options and index is None:
        return Rejected(Reason.BAD_OPTIONS, f"the answer {answer[:40]!r} is none of the options")
    gold = options[index] if index is not None else answer
    listed = f"\n{escape(lettered(options))}" if options else ""
    task, context = ("mcqa" if options else "qa"), asked.document.text.strip()
    return Example(
        content_id(task, context, question, gold, rationale, *options),
        task,
        context,
        f"{PLACEHOLDER}\n\n{escape(question)}{listed}",
        gold,
        options,
        index,
        rationale,
        _source(asked.document),
        Origin(METHOD, "pairs", model, call, seed),
        place(asked.chain, asked.round, number, question, asked.shown),
    )


def place(chain: str, round_: int, number: int, question: str, shown: Sequence[str] = ()) -> str:
    """Return an example's `meta`: chain, round, number in the reply, question, and the texts shown before."""
    where = {"chain": chain, "round": round_, "number": number, "question": question}
    return orjson.dumps({**where, "shown": list(shown)} if shown else where).decode()


def pair_of(example: Example) -> tuple[str, Pair]:
    """Return (the bare question, the pair as the wire spells it) of an example that asks a question."""
    known = orjson.loads(example.meta).get("question") if example.meta != "{}" else None
    question = known or question_of(example.instruction)
    spelled = with_options(question, example.options) if example.task == "mcqa" else question
    if example.rationale:
        return question, with_reasoning(spelled, example.rationale, example.response)
    return question, Pair(spelled, example.response)


def _source(document: Document) -> Source:
    span = document.source
    return Source(document.id, span.start, span.end, licence=document.licence, url=span.uri)


def _dropped(name: str, asked: Asked, model: str, call: str, seed: int, why: Rejected) -> Dropped:
    document = asked.document
    origin = Origin(METHOD, "pairs", model, call, seed)
    meta = place(asked.chain, asked.round, 0, "", asked.shown)
    source = _source(document)
    row = Example(name, "qa", document.text.strip(), "", "", source=source, origin=origin, meta=meta)
    return Dropped(row, "synthesize", why.reason, why.detail)
