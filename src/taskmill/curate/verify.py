"""Checks that need a model: round trip, answerable without the passage, and what a judge says.

Each check asks one question per example and turns the answer into a score. Scores are stored; whether a score
is enough is decided afterwards, so that a threshold costs no call.

- *round trip*: an answerer that did not write the task sees passage and instruction. The score is the
  task type's own grade of its answer against the response: token F1 or the right label.
- *closed book*: the same without the passage. A task that is solved so does not need its passage.
- *faithful*: a judge sees passage, instruction and response, and says yes or no.
- *judge*: it gives a reason and a score from 1 to 5 by a rubric.
- *expected*: the mean of the scores 1 to 5 by their probabilities.
- *ask-llm*: the probability that a model would learn something from the example.
- *toxic*: the probability of insult, threat or hatred.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields

import pyarrow as pa

from taskmill.calls import Completion, Request, Sampling, request
from taskmill.curate import filters
from taskmill.curate.filters import FILTERS, Filter
from taskmill.curate.judge import SCALE, YES_NO, mean_score, read_score, read_weights, read_yes, yes_share
from taskmill.errors import UsageError
from taskmill.record import Example, Reason
from taskmill.render import fill, prompt
from taskmill.tasks import get
from taskmill.templates.questions import question

__all__ = [
    "CHECKS",
    "SCORE_SCHEMA",
    "STORED",
    "Score",
    "Thresholds",
    "Verification",
    "applies",
    "decide",
    "questions",
    "score",
]

GENERATIVE = frozenset(("qg", "paraphrase", "summarization", "text_gen", "sent_comp"))
"""Task types of which many responses are right: only the judge has something to say about them."""

ANSWER_TOKENS = 48
"""Longest answer of the answerer (chosen: gold answers of reading datasets are under 30 tokens)."""

REASON_TOKENS = 160
"""Longest reply with a reason and a score (chosen: four times the one sentence that is asked for)."""

ANSWER_KEPT = 400
"""Characters of an answer that are stored beside its score (chosen; the whole answer is in the ledger)."""

SCORE_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("filter", pa.string()),
        ("score", pa.float64()),
        ("answer", pa.string()),
        ("call", pa.string()),
        ("unreadable", pa.bool_()),
    ]
)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When a score is enough. Chosen: half of the words, the right label, the middle of a scale."""

    round_trip: float = field(
        default=0.5, metadata={"help": "least score of the answerer (F1, or 1 for the right label)"}
    )
    closed_book: float = field(
        default=0.79, metadata={"help": "most of that score without the passage; above it, it is not needed"}
    )
    faithful: float = field(default=0.5, metadata={"help": "least score of the judge (its yes is 1)"})
    judge: float = field(default=3.0, metadata={"help": "least score from 1 to 5 by the rubric"})
    expected: float = field(default=3.0, metadata={"help": "least mean of the scores by their probabilities"})
    ask_llm: float = field(default=0.5, metadata={"help": "least probability that a model learns from it"})
    toxic: float = field(default=0.5, metadata={"help": "most probability of insult, threat or hatred"})


def _only_stored(example: Example) -> float | None:
    raise UsageError("this filter asks a model: run `taskmill verify`, then `taskmill curate` on its result")


_LIMITS: dict[str, float] = {
    f.name.replace("_", "-"): getattr(Thresholds(), f.name) for f in fields(Thresholds)
}
STORED = tuple(
    Filter(name, _only_stored, reason, least, _LIMITS.get(name, 0.0), about, by_default=False)
    for name, least, reason, about in (
        ("unanswered", False, Reason.CALL_FAILED, "questions without an answer; most"),
        ("unreadable", False, Reason.UNREADABLE_VERDICT, "answers that hold no score; most"),
        ("round-trip", True, Reason.NOT_REPRODUCED, "grade of an answerer who sees the passage; least"),
        ("closed-book", False, Reason.NEEDS_NO_PASSAGE, "grade of one who does not; most"),
        ("faithful", True, Reason.UNFAITHFUL, "1 if a judge says it follows from the passage; least"),
        ("judge", True, Reason.LOW_SCORE, "a judge's score from 1 to 5 by a rubric; least"),
        ("expected", True, Reason.LOW_SCORE, "mean of the scores by their probabilities; least"),
        ("ask-llm", True, Reason.LOW_SCORE, "probability that a model learns from it; least"),
        ("toxic", False, Reason.TOXIC, "probability of insult, threat or hatred; most"),
    )
)
"""The checks as filters over stored scores; two more keep a missing score from being a silent pass."""
for _one in STORED:
    FILTERS.register(_one.name, _one)

CHECKS = tuple(one.name for one in STORED[2:])


@dataclass(frozen=True, slots=True)
class Verification:
    """One question about an example: which check asks it; travels with the request."""

    check: str
    example: Example


@dataclass(frozen=True, slots=True)
class Score:
    """What a check said of an example, as SCORE_SCHEMA has it.

    No score: the answer holds none (`unreadable`), or the call failed and `answer` says why.
    """

    id: str
    filter: str
    score: float | None
    answer: str
    call: str
    unreadable: bool = False

    @property
    def failed(self) -> bool:
        """Whether the call failed: it is made again next time."""
        return self.score is None and not self.unreadable


def applies(check: str, example: Example) -> bool:
    """Say whether a check has something to say about an example of this type.

    A sentiment or topic label needs its passage by definition; without one nothing can be asked. An answer is
    graded by its task type, so rows without one are for the judge alone.
    """
    if check == "faithful":
        return bool(example.context)
    if check in ("judge", "expected", "ask-llm", "toxic"):
        return True
    if not example.task or example.task in GENERATIVE:
        return False
    if check == "round-trip":
        return True
    return bool(example.context) and example.task not in ("sentiment", "topic_class", "coref", "wsd")


def questions(model: str, checks: tuple[str, ...], example: Example, longest: int = 0) -> Iterator[Request]:
    """Yield the calls that verify an example; `longest` tokens of a reply, if 0 the check's own number."""
    for check in checks:
        if applies(check, example):
            yield _question(model, check, example, longest)


def _question(model: str, check: str, example: Example, longest: int) -> Request:
    text, sampling = _asked(check, example, longest)
    return request(model, sampling, messages=(("user", text),), payload=Verification(check, example))


def _asked(check: str, example: Example, longest: int) -> tuple[str, Sampling]:
    if check not in ("round-trip", "closed-book"):
        text = question(
            check,
            passage=example.context,
            task=fill(example.instruction, "the passage").strip(),
            reply=example.response,
        )
        if check == "judge":
            return text, Sampling(temperature=0, max_tokens=longest or REASON_TOKENS)
        choices: tuple[str, ...] = SCALE if check == "expected" else YES_NO
        return text, Sampling(
            temperature=0, max_tokens=longest or 4, choices=choices, weighed=check != "faithful"
        )
    text = prompt(example) if check == "round-trip" else fill(example.instruction, "(no text is given)")
    choices = example.options if example.answer_index is not None else ()
    if not choices:
        text += "\n\nGive the answer only, as short as you can."
    return text, Sampling(temperature=0, max_tokens=longest or ANSWER_TOKENS, choices=choices)


def score(asked: Request, completion: Completion) -> Score:
    """Grade an answer; a call that failed gives no score, nor does an answer that cannot be read."""
    verification: Verification = asked.payload
    example, check = verification.example, verification.check
    if completion.finish == "error":
        return Score(example.id, check, None, completion.error, completion.key)
    said = completion.text.strip()
    value = _value(check, said, example)
    shown = _shown(said, asked.sampling)[:ANSWER_KEPT]
    return Score(example.id, check, value, shown, completion.key, value is None)


def _value(check: str, said: str, example: Example) -> float | None:
    if check == "faithful":
        return read_yes(said)
    if check == "judge":
        return read_score(said)
    if check == "expected":
        return mean_score(said)
    if check in ("ask-llm", "toxic"):
        return yes_share(said)
    return get(example.task).grade(said, example)


def _shown(said: str, sampling: Sampling) -> str:
    """Return an answer as people read it: weights with the choices they are of."""
    weights = read_weights(said, sampling.choices) if sampling.weighed else None
    if weights is None:
        return said
    return ", ".join(f"{c} {w:.3f}" for c, w in zip(sampling.choices, weights, strict=True))


def decide(example: Example, scores: Mapping[str, Score], limits: Thresholds) -> tuple[Reason, str] | None:
    """Return the reason to drop an example by its scores, with the evidence, or None.

    An example whose check has no score was not verified: it is dropped. Failed calls are made again later.
    """
    for check, found in scores.items():
        if found.unreadable:
            return Reason.UNREADABLE_VERDICT, f"{check}: no score in {found.answer[:80]!r}"
        if found.failed:
            return Reason.CALL_FAILED, f"{check}: {found.answer}"
    given = {name: scores[name].score for name in CHECKS if name in scores}
    failed = filters.decide(given, {name: getattr(limits, name.replace("-", "_")) for name in given})
    if failed is None:
        return None
    one, value, limit = failed
    bound = f"{'least' if one.least else 'most'} {limit:g}"
    return one.reason, f"{one.name} {value:.3g}, {bound}; the answer: {scores[one.name].answer[:80]!r}"
