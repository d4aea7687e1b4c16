"""Checks that need a model: round trip, answerable without the passage, faithfulness.

Each check asks one question per example and turns the answer into a score from 0 to 1. Scores are
stored; whether a score is enough is decided afterwards, so that a threshold costs no call.

- *round trip*: an answerer that did not write the task sees passage and instruction. The score is the
  task type's own grade of its answer against the response: token F1 or the right label.
- *closed book*: the same without the passage. A task that is solved so does not need its passage.
- *faithful*: a judge sees passage, instruction and response, and says yes or no.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from taskmill.calls import Completion, Request, Sampling, request
from taskmill.record import Example, Reason
from taskmill.render import fill, prompt
from taskmill.tasks import get

__all__ = [
    "CHECKS",
    "SCORE_SCHEMA",
    "Score",
    "Thresholds",
    "Verification",
    "applies",
    "decide",
    "questions",
    "score",
]

CHECKS = ("round-trip", "closed-book", "faithful")

GENERATIVE = frozenset(("qg", "paraphrase", "summarization", "text_gen", "sent_comp"))
"""Task types of which many responses are right: only the judge has something to say about them."""

ANSWER_TOKENS = 48
"""Longest answer of the answerer (chosen: gold answers of reading datasets are under 30 tokens)."""

SCORE_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("filter", pa.string()),
        ("score", pa.float64()),
        ("answer", pa.string()),
        ("call", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When a score is enough. Chosen: half of the words, and the right label."""

    round_trip: float = field(
        default=0.5, metadata={"help": "least score of the answerer (F1, or 1 for the right label)"}
    )
    closed_book: float = field(
        default=0.8, metadata={"help": "a score from here on says that the passage is not needed"}
    )
    faithful: float = field(default=0.5, metadata={"help": "least score of the judge (its yes is 1)"})


@dataclass(frozen=True, slots=True)
class Verification:
    """One question about an example: which check asks it; travels with the request."""

    check: str
    example: Example


@dataclass(frozen=True, slots=True)
class Score:
    """What a check said of an example, as SCORE_SCHEMA has it. No score: the call failed."""

    id: str
    filter: str
    score: float | None
    answer: str
    call: str


def applies(check: str, example: Example) -> bool:
    """Say whether a check has something to say about an example of this type.

    A sentiment or topic label needs its passage by definition; without one nothing can be asked.
    """
    if check == "faithful":
        return True
    if example.task in GENERATIVE:
        return False
    return check == "round-trip" or example.task not in ("sentiment", "topic_class", "coref", "wsd")


def questions(model: str, checks: tuple[str, ...], example: Example) -> Iterator[Request]:
    """Yield the calls that verify an example."""
    for check in checks:
        if applies(check, example):
            yield _question(model, check, example)


def _question(model: str, check: str, example: Example) -> Request:
    payload = Verification(check, example)
    if check == "faithful":
        sampling = Sampling(temperature=0, max_tokens=4, choices=("Yes", "No"))
        return request(model, sampling, messages=(("user", _judge(example)),), payload=payload)
    text = prompt(example) if check == "round-trip" else fill(example.instruction, "(no text is given)")
    choices = example.options if example.answer_index is not None else ()
    if not choices:
        text += "\n\nGive the answer only, as short as you can."
    sampling = Sampling(temperature=0, max_tokens=ANSWER_TOKENS, choices=choices)
    return request(model, sampling, messages=(("user", text),), payload=payload)


def _judge(example: Example) -> str:
    asked = fill(example.instruction, "the passage")
    return (
        f"Passage:\n{example.context}\n\nA task about the passage:\n{asked}\n\nA reply to the task:\n"
        f"{example.response}\n\nIs the reply right, going by the passage alone? Answer Yes or No."
    )


def score(asked: Request, completion: Completion) -> Score:
    """Grade an answer; a call that failed gives no score."""
    verification: Verification = asked.payload
    example, check = verification.example, verification.check
    if completion.finish == "error":
        return Score(example.id, check, None, completion.error, completion.key)
    said = completion.text.strip()
    if check == "faithful":
        value = float(said.lower().startswith("yes"))
    else:
        value = get(example.task).grade(said, example)
    return Score(example.id, check, value, said[:200], completion.key)


def decide(example: Example, scores: Mapping[str, Score], limits: Thresholds) -> tuple[Reason, str] | None:
    """Return the reason to drop an example by its scores, with the evidence, or None.

    An example whose check has no score was not verified: it is dropped, and asked again next time.
    """
    for check, found in scores.items():
        if found.score is None:
            return Reason.CALL_FAILED, f"{check}: {found.answer}"
    trip, book, judge = (scores.get(check) for check in CHECKS)
    if trip is not None and trip.score is not None and trip.score < limits.round_trip:
        return Reason.NOT_REPRODUCED, f"the answerer said {trip.answer[:80]!r} (score {trip.score:.2f})"
    if book is not None and book.score is not None and book.score >= limits.closed_book:
        return Reason.NEEDS_NO_PASSAGE, f"without the passage the answerer said {book.answer[:80]!r}"
    if judge is not None and judge.score is not None and judge.score < limits.faithful:
        return Reason.UNFAITHFUL, f"the judge said {judge.answer[:40]!r}"
    return None
