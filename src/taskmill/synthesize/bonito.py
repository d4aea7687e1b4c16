"""Conditional task generation (Bonito, arXiv 2402.18334): a passage and a task type make one request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import orjson

from taskmill.calls import Completion, Request, Sampling, request
from taskmill.record import Document, Dropped, Example, Origin, Reason, Source, content_id
from taskmill.render import PIPE_MARKER
from taskmill.tasks import get
from taskmill.tasks.base import Ask, Attributes, Draft, Rejected

__all__ = ["Synthesis", "examples", "pose", "respond"]

_NO_ATTRIBUTES = Attributes()

REPLY_KEPT = 2000
"""Characters of a rejected reply kept as evidence (the whole reply is in the ledger)."""


@dataclass(frozen=True, slots=True)
class Synthesis:
    """How requests are made: task types, protocol, sampling, seed and each type's attributes."""

    tasks: tuple[str, ...]
    protocol: str = "chat"
    sampling: Sampling = Sampling()
    max_new_tokens: int = 0
    seed: int = 0
    attributes: Mapping[str, Attributes] = field(default_factory=dict)
    two_stage: str = "auto"
    """Whether a response is decoded greedily in a call of its own: yes, no or auto (where its type says)."""


def pose(how: Synthesis, model: str, document: Document, task: str, sample: int) -> Request | Dropped:
    """Return the request for one (passage, task type, sample), or why the passage does not suit it."""
    kind = get(task)
    attributes = how.attributes.get(task, _NO_ATTRIBUTES)
    ask = kind.ask(document, how.protocol, seed=how.seed, sample=sample, attributes=attributes)
    if isinstance(ask, Rejected):
        name = content_id(document.id, task, str(sample))
        origin = Origin(method="bonito", model=model, seed=how.seed)
        return _dropped(name, task, document, origin, ask)
    s = how.sampling
    tokens = how.max_new_tokens or ask.max_tokens
    sampling = Sampling(s.temperature, s.top_p, tokens, ask.stop)
    if _in_two_stages(how, ask):
        instruction, given, _ = ask.opening.partition(PIPE_MARKER)
        if given:  # the instruction is known: what is left is the second stage
            sampling = _closed(instruction.strip(), ask, tokens)
        else:
            ask = replace(ask, stop=(*ask.stop, PIPE_MARKER))
            sampling = replace(sampling, stop=ask.stop)
    return request(
        model, sampling, prompt=ask.prompt, messages=ask.messages, seed=how.seed, sample=sample, payload=ask
    )


def requests(
    how: Synthesis, model: str, documents: Iterable[Document], samples: int
) -> Iterator[Request | Dropped]:
    """Yield the requests for all passages: a passage's task types stand together and share its prefix."""
    for document in documents:
        for task in how.tasks:
            for sample in range(samples):
                yield pose(how, model, document, task, sample)


def _in_two_stages(how: Synthesis, ask: Ask) -> bool:
    able = ask.protocol.startswith("bonito") and ask.attributes.count == 1 and not ask.closing
    if how.two_stage == "auto":  # a generator that knows only Bonito's own wire is asked as upstream asks it
        return able and ask.protocol == "bonito-attributes" and get(ask.task).answers_apart
    return able and how.two_stage == "yes"


def _closed(instruction: str, ask: Ask, tokens: int) -> Sampling:
    """Return how the response to a finished instruction is decoded: greedily, and within what it may be."""
    kind = get(ask.task)
    choices = kind.choices(instruction, ask)
    grammar = "" if choices else kind.grammar(instruction, ask)
    return Sampling(temperature=0, max_tokens=tokens, choices=choices, grammar=grammar)


def written(ask: Ask, completion: Completion) -> str:
    """Return the reply whole: what it was begun with, what the model wrote, what it ends with."""
    text = completion.text
    if ask.closing and completion.finish == "stop":
        text = text.rstrip().partition("\n")[0] + ask.closing
    return (ask.opening.rstrip(" ") if text[:1].isspace() else ask.opening) + text


def respond(model: str, asked: Request, completion: Completion) -> Request | None:
    """Return the second call of a two-stage reply: the response to the instruction just written, greedily.

    None where there is none to make: the reply came in one stage, failed or was cut off, or this was
    the second. Where the instruction names a closed label set, the call carries it as `choices`; where the
    task type knows what a response may be, as `grammar`.
    """
    ask: Ask = asked.payload
    if PIPE_MARKER not in ask.stop or ask.instruction or completion.finish != "stop":
        return None
    if not completion.text.strip():
        return None
    instruction = written(ask, completion).partition(PIPE_MARKER)[0].strip()
    head = asked.prompt.removesuffix(ask.opening.rstrip(" "))
    prompt = f"{head}{instruction}\n{PIPE_MARKER}\n"
    return request(
        model,
        _closed(instruction, ask, asked.sampling.max_tokens),
        prompt=prompt,
        payload=replace(ask, instruction=instruction, opening="", closing=""),
    )


def examples(model: str, asked: Request, completion: Completion) -> Iterator[Example | Dropped]:
    """Turn a completion into examples; whatever cannot become one is Dropped with its reason."""
    ask: Ask = asked.payload
    for i, outcome in enumerate(_outcomes(ask, completion)):
        template = outcome.template if isinstance(outcome, Draft) else ""
        origin = Origin("bonito", template or ask.template, model, completion.key, ask.seed)
        if isinstance(outcome, Draft):
            yield _example(outcome, ask, origin)
        else:
            name = content_id(completion.key, str(i))
            yield _dropped(name, ask.task, ask.document, origin, outcome, written(ask, completion))


def _outcomes(ask: Ask, completion: Completion) -> list[Draft | Rejected]:
    if completion.finish == "error":
        return [Rejected(Reason.CALL_FAILED, completion.error)]
    if not completion.text.strip():  # whatever it was begun with
        return [Rejected(Reason.EMPTY_REPLY, "the model wrote nothing")]
    text = written(ask, completion)
    if ask.instruction:
        text = f"{ask.instruction}\n{PIPE_MARKER}\n{text}"
    if completion.finish == "length":
        # Only whole lines count: the line on which the reply was cut off is left out.
        text = text.rpartition("\n")[0]
        if not text.strip():
            return [Rejected(Reason.TRUNCATED, "the reply was cut off before its first line ended")]
    outcomes = get(ask.task).parse(text, ask) or [Rejected(Reason.MALFORMED, "the reply holds no task")]
    if ask.opening:  # the wording is ours, though the model filled it
        outcomes = [replace(o, template=ask.template) if isinstance(o, Draft) else o for o in outcomes]
    if completion.finish == "length" and not any(isinstance(o, Draft) for o in outcomes):
        return [Rejected(Reason.TRUNCATED, "the reply was cut off before it was complete")]
    return outcomes


def _source(document: Document) -> Source:
    span = document.source
    return Source(
        document=document.id, start=span.start, end=span.end, licence=document.licence, url=span.uri
    )


def _example(draft: Draft, ask: Ask, origin: Origin) -> Example:
    document = ask.document
    context = document.text.strip()
    name = content_id(ask.task, context, draft.instruction, draft.response, *draft.options)
    meta: dict[str, object] = {"raw": dict(draft.raw)} if draft.raw else {}
    if document.language:
        meta["language"] = document.language
    if ask.attributes.language:
        meta["answer_language"] = ask.attributes.language
    return Example(
        name,
        ask.task,
        context,
        draft.instruction,
        draft.response,
        draft.options,
        draft.answer_index,
        draft.rationale,
        _source(document),
        origin,
        orjson.dumps(meta).decode() if meta else "{}",
    )


def _dropped(
    name: str, task: str, document: Document, origin: Origin, why: Rejected, reply: str = ""
) -> Dropped:
    meta = orjson.dumps({"reply": reply[:REPLY_KEPT]}).decode() if reply else "{}"
    row = Example(
        name, task, document.text.strip(), "", "", source=_source(document), origin=origin, meta=meta
    )
    return Dropped(row, "synthesize", why.reason, why.detail)
