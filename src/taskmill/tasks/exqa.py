"""Extractive question answering: the answer is a span of the passage."""

from __future__ import annotations

from collections.abc import Mapping

from taskmill.record import Example, Reason
from taskmill.tasks.base import Ask, Draft, Rejected, TaskType, first_line
from taskmill.tasks.metrics import squad_f1
from taskmill.tasks.passage import answer_span, nearest_sentence, one_line, sentences, snap_span, words
from taskmill.tasks.rules import asks, clean, first_question, in_passage, leaked, needs_context, on_topic, question_of

__all__ = ["ExtractiveQA", "sample_question"]


def sample_question(text: str) -> tuple[str, str]:
    """Return a (question, answer) that any passage of a few words supports: how does its sentence end?"""
    sentence = next((s for s in sentences(text) if len(words(s)) > 5), text.strip())
    tokens = sentence.split()
    if len(tokens) < 6:  # a script without spaces
        return f"How does the passage go on after “{sentence[:6]}”?", sentence[6:12]
    return f"How does the sentence that begins with “{' '.join(tokens[:3])}” end?", " ".join(tokens[-2:])


class ExtractiveQA(TaskType):
    """A question about the passage whose answer stands in it word for word."""

    name = "exqa"
    title = "extractive question answering"
    parts = ("question", "answer")
    metric = "squad_f1"
    max_tokens = 96

    def build(self, reply: Mapping[str, str], ask: Ask) -> Draft | Rejected:
        """Snap the answer to a span of the passage; a question without answer takes the sentence that holds it."""
        question, rest = first_question(reply.get("question", ""))
        given = first_line(reply.get("answer", "") or rest)
        answer = given or answer_span(question, ask.document.text)
        if not question or not answer:
            return Rejected(Reason.MALFORMED, "the reply lacks a question or an answer")
        instruction, template = self.instruction(ask, question=question)
        return self._snapped(instruction, answer, ask, template)

    def read(self, instruction: str, response: str, ask: Ask) -> Draft | Rejected:
        """Snap the response of a finished pair, too."""
        return self._snapped(instruction, response, ask, "model")

    def _snapped(self, instruction: str, answer: str, ask: Ask, template: str) -> Draft:
        span = snap_span(answer, ask.document.text) or nearest_sentence(answer, ask.document.text)
        raw = {"response": answer} if span and span != answer else {}
        return Draft(instruction, span or answer, template=template, raw=raw)

    def check(self, example: Example) -> Rejected | None:
        """The answer is a span of the passage, under half of it; the question asks about the passage."""
        if len(example.response) * 2 > len(example.context):
            return Rejected(Reason.TOO_LONG, "the answer is more than half of the passage")
        return (
            clean(example)
            or needs_context(example)
            or in_passage(example.response, example, "the answer")
            or asks(example)
            or leaked(example)
            or on_topic(question_of(example.instruction), example)
        )

    def grade(self, prediction: str, example: Example) -> float:
        """Token F1 after SQuAD normalisation."""
        return squad_f1(prediction, [example.response])

    def sample(self, ask: Ask) -> dict[str, str]:
        """Ask how a sentence ends."""
        question, answer = sample_question(one_line(ask.document.text))
        return {"question": question, "answer": answer}
