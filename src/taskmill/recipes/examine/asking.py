"""Annotated texts → what a synthesizer is asked about them, and what it said."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from taskmill.caller import Caller
from taskmill.calls import Completion, Request, Sampling, request
from taskmill.ids import draw
from taskmill.recipes.examine.config import ExamineConfig
from taskmill.recipes.session import Progress, Session
from taskmill.record import Document, Dropped, Example
from taskmill.synthesize import bonito
from taskmill.synthesize.bonito import Synthesis
from taskmill.synthesize.casting import Annotated
from taskmill.synthesize.pair_format import (
    EOS,
    PAIR_END,
    Pair,
    Shown,
    prompt,
    question_prompt,
    read_answer,
    read_reply,
    render_pairs,
)
from taskmill.synthesize.pretraining import newest, pair_of

__all__ = ["Asked", "Said", "ask_answers", "ask_pairs", "ask_tasks", "by_chance", "numbers"]

ANSWER_TOKENS = 64
"""Most new tokens of an answer (chosen: twice the longest of reading comprehension's short answers)."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request is about: text, way of asking, for an answer the number of its pair; `said` for echo."""

    text: str
    way: str
    number: int
    said: str

    def sample(self) -> str:
        """Return what is right, for echo."""
        return self.said


@dataclass
class Said:
    """What the model said: pairs by (text, way), answers by (text, way, number); texts over its context."""

    pairs: dict[tuple[str, str], list[Pair]]
    answers: dict[tuple[str, str, int], str]
    malformed: int = 0
    over: int = 0

    @classmethod
    def nothing(cls) -> Said:
        """Return what is said before anything is asked."""
        return cls({}, {})


Chosen = Sequence[Annotated]
Count = Callable[[str], int]


def by_chance(records: Sequence[Annotated], most: int, seed: int, what: str) -> list[Annotated]:
    """Return `most` records (0: all), drawn by seed and id."""
    ordered = sorted(records, key=lambda r: (draw(seed, r.id, what), r.id))
    return ordered[:most] if most else ordered


def ask_pairs(
    session: Session, caller: Caller, chosen: Chosen, pool: Chosen, config: ExamineConfig, count: Count,
    said: Said, begin: bool,
) -> None:  # fmt: skip
    """Ask for all pairs of each text: `zero`, and behind other texts of its dataset with theirs: `few`."""
    of: dict[str, list[Annotated]] = defaultdict(list)
    for record in pool:
        of[record.dataset].append(record)

    def requests() -> Iterator[Request]:
        sampling = Sampling(temperature=0, max_tokens=config.reply, stop=(EOS,))
        for record in chosen:
            others = [r for r in of[record.dataset] if r.context != record.context]
            shots = by_chance(others, config.shots, config.seed, f"shots {record.id}") if config.shots else []
            for way, before in (("zero", []), ("few", shots)):
                if way == "few" and not before:
                    continue
                shown = [Shown(r.context, r.pairs) for r in before]
                fitting = newest(shown, record.context, config.context - config.reply, count)
                if fitting is None or (before and not fitting):
                    said.over += 1
                    continue
                payload = Asked(record.id, way, 0, render_pairs(record.pairs))
                asking = prompt(record.context, fitting, begin=begin)
                yield request(
                    caller.backend.model, sampling, prompt=asking, seed=config.seed, payload=payload
                )

    def take(asked: Asked, completion: Completion) -> None:
        found, lost = read_reply(completion.text)
        said.pairs[asked.text, asked.way] = found
        said.malformed += len(lost)

    _ask(session, caller, "pairs", requests(), take)


def ask_tasks(
    session: Session, caller: Caller, chosen: Chosen, how: Synthesis, pairs: int, said: Said
) -> None:
    """Ask a generator of tasks `pairs` times about each text, the task types in turns: `zero`."""
    model = caller.backend.model

    def first() -> Iterator[Request]:
        for record in chosen:
            said.pairs[record.id, "zero"] = []
            document = Document(record.id, record.context)
            for i in range(pairs):
                task = how.tasks[i % len(how.tasks)]
                posed = bonito.pose(how, model, document, task, i // len(how.tasks))
                if isinstance(posed, Request):
                    yield posed
                else:
                    said.malformed += 1

    stream: Iterator[Request] = first()
    while not caller.stopped:
        again: list[Request] = []
        for asked, completion in caller.answers(stream):
            _tick(session, caller, "pairs")
            second = bonito.respond(model, asked, completion)
            if second is not None:
                again.append(second)
            elif completion.finish != "error":
                _take_tasks(said, asked.payload.document.id, bonito.examples(model, asked, completion))
        if not again:
            return
        stream = iter(again)


def _take_tasks(said: Said, text: str, made: Iterator[Example | Dropped]) -> None:
    for one in made:
        if isinstance(one, Example):
            said.pairs[text, "zero"].append(pair_of(one)[1])
        else:
            said.malformed += 1


def ask_answers(
    session: Session, caller: Caller, chosen: Chosen, config: ExamineConfig, said: Said, count: Count,
    begin: bool,
) -> None:  # fmt: skip
    """Ask the right questions: `alone`, behind our own pairs of the text, and behind pairs of another text.

    Random pairs are those written for the next text of a drawn order, as many as our own.
    """
    ring = by_chance(chosen, 0, config.seed, "random pairs")
    following = {r.id: ring[(i + 1) % len(ring)].id for i, r in enumerate(ring)} if len(ring) > 1 else {}

    def requests() -> Iterator[Request]:
        sampling = Sampling(temperature=0, max_tokens=ANSWER_TOKENS, stop=(PAIR_END, EOS))
        room = config.context - ANSWER_TOKENS
        for record in chosen:
            own = said.pairs.get((record.id, "zero"), [])
            other = said.pairs.get((following.get(record.id, ""), "zero"), [])
            size = min(len(own), len(other))
            helps = {"alone": [], "ours": own[:size], "random": other[:size]}
            for number in numbers(record, config):
                pair = record.pairs[number]
                for way, before in helps.items():
                    # what asks the same would hand over the answer
                    fair = [p for p in before if p.question.casefold() != pair.question.casefold()]
                    if way != "alone" and not fair:
                        continue
                    asking = question_prompt(record.context, pair.question, fair, begin=begin)
                    if count(asking) > room:
                        said.over += 1
                        continue
                    payload = Asked(record.id, way, number, pair.answer)
                    yield request(
                        caller.backend.model, sampling, prompt=asking, seed=config.seed, payload=payload
                    )

    def take(asked: Asked, completion: Completion) -> None:
        said.answers[asked.text, asked.way, asked.number] = read_answer(completion.text)

    _ask(session, caller, "answers", requests(), take)


def numbers(record: Annotated, config: ExamineConfig) -> list[int]:
    """Return the numbers of the pairs of a text whose questions are asked."""
    ranked = sorted(
        range(len(record.pairs)), key=lambda i: (draw(config.seed, f"{record.id} {i}", "questions"), i)
    )
    return sorted(ranked[: config.questions])


def _ask(
    session: Session,
    caller: Caller,
    stage: str,
    requests: Iterator[Request],
    take: Callable[[Any, Completion], None],
) -> None:
    for asked, completion in caller.answers(requests):
        if completion.finish != "error":
            take(asked.payload, completion)
        _tick(session, caller, stage)


def _tick(session: Session, caller: Caller, stage: str) -> None:
    budget = caller.budget
    session.tick(
        Progress(
            stage, caller.made + caller.reused, None, 0, 0, caller.made, caller.reused,
            budget.prompt_tokens + budget.completion_tokens, budget.cost,
        )
    )  # fmt: skip
