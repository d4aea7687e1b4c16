"""Question generation: the response is a question that the passage answers."""

from __future__ import annotations

from collections.abc import Mapping

from taskmill.record import Example, Reason
from taskmill.tasks.base import Ask, Draft, Rejected, TaskType
from taskmill.tasks.exqa import sample_question
from taskmill.tasks.metrics import rouge_l
from taskmill.tasks.passage import one_line, words
from taskmill.tasks.rules import (
    clean,
    first_question,
    is_question,
    needs_context,
    not_copied,
    on_topic,
    refused,
)

__all__ = ["QuestionGeneration"]

LONGEST = 60  # words of one question; chosen: longer ones are lists or rambling


class QuestionGeneration(TaskType):
    """The instruction asks for a question about the passage; the response is the question."""

    name = "qg"
    title = "question generation"
    about_a_sentence = True
    parts = ("question",)
    metric = "rouge_l"
    max_tokens = 64

    def build(self, reply: Mapping[str, str], ask: Ask) -> Draft | Rejected:
        """Take the first line as the question."""
        question, _ = first_question(reply.get("question", ""))
        if not question:
            return Rejected(Reason.MALFORMED, "the reply lacks a question")
        instruction, template = self.instruction(ask)
        return Draft(instruction, question, template=template)

    def check(self, example: Example) -> Rejected | None:
        """The response asks: three words or more, some of the passage's words, not copied from it."""
        length = len(words(example.response))
        if length > LONGEST:
            return Rejected(Reason.TOO_LONG, f"the question has {length} words")
        wrong = clean(example) or needs_context(example) or refused(example, example.response)
        if wrong:
            return wrong
        if not is_question(example.response):
            return Rejected(Reason.NOT_A_QUESTION, f"{example.response[:60]!r} does not ask")
        if length < 3:
            return Rejected(Reason.TRIVIAL, "the question is under three words")
        # Chosen: twelve words in a row of the passage are no longer a question of one's own.
        return not_copied(example.response, example, 12) or on_topic(example.response, example)

    def grade(self, prediction: str, example: Example) -> float:
        """ROUGE-L against the question."""
        return rouge_l(prediction, example.response)

    def sample(self, ask: Ask) -> dict[str, str]:
        """Ask how a sentence ends."""
        return {"question": sample_question(one_line(ask.document.text))[0]}
