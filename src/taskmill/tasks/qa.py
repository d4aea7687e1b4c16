"""Question answering without choices: the answer is in the model's own words, grounded in the passage."""

from __future__ import annotations

from collections.abc import Mapping

from taskmill.record import Example, Reason
from taskmill.tasks.base import Ask, Draft, Rejected
from taskmill.tasks.exqa import ExtractiveQA
from taskmill.tasks.labels import plain_yes_no
from taskmill.tasks.passage import one_line, words
from taskmill.tasks.reply import first_line
from taskmill.tasks.rules import (
    asks,
    clean,
    first_question,
    leaked,
    needs_context,
    on_topic,
    opens_with_wh,
    question_of,
    refused,
)

__all__ = ["QuestionAnswering"]


GROUNDED = 0.3  # share of the answer's content words; chosen: 0.5 loses a fifth of FairytaleQA


class QuestionAnswering(ExtractiveQA):
    """A question about the passage with a short free answer."""

    name = "qa"
    title = "question answering without choices"
    answers_apart = False  # an answer in one's own words is no span
    parts = ("question", "answer")
    metric = "squad_f1"
    max_tokens = 128

    def build(self, reply: Mapping[str, str], ask: Ask) -> Draft | Rejected:
        """Take question and answer as they are; a question without an answer is given a fitting one."""
        question, rest = first_question(reply.get("question", ""))
        given = first_line(reply.get("answer", "") or rest)
        answer = given or one_line(self.fitting(question, ask))
        if not question or not answer:
            return Rejected(Reason.MALFORMED, "the reply lacks a question or an answer")
        instruction, template = self.instruction(ask, question=question)
        raw = {"response": given} if answer != given else {}
        return Draft(instruction, answer, template=template, raw=raw)

    def grammar(self, instruction: str, ask: Ask) -> str:
        """None: the answer is free."""
        del instruction, ask
        return ""

    def read(self, instruction: str, response: str, ask: Ask) -> Draft | Rejected:
        """A free answer is taken as it is."""
        del ask
        return Draft(instruction, response, template="model")

    def check(self, example: Example) -> Rejected | None:
        """The question asks about the passage; part of the answer's content words are the passage's."""
        question = question_of(example.instruction)
        wrong = (
            clean(example)
            or needs_context(example)
            or asks(example)
            or refused(example, question, example.response)
            or leaked(example)
        )
        if wrong:
            return wrong
        if opens_with_wh(question) and words(example.response) in (("yes",), ("no",)):
            return Rejected(Reason.TRIVIAL, f"{example.response!r} does not answer a wh-question")
        if len(example.response) > max(len(example.context), 40):
            return Rejected(Reason.TOO_LONG, "the answer is longer than the passage")
        wrong = on_topic(question, example)
        if wrong or plain_yes_no(example.response) is not None:
            return wrong  # a bare yes or no has no words to ground
        return on_topic(example.response, example, GROUNDED)
