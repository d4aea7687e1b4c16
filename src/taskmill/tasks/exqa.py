"""Extractive question answering: the answer is a span of the passage."""

from __future__ import annotations

from collections.abc import Mapping

from taskmill.record import Document, Example, Reason, draw
from taskmill.tasks.base import Ask, Attributes, Draft, Rejected, TaskType
from taskmill.tasks.metrics import squad_f1
from taskmill.tasks.passage import (
    answer_sentence,
    content,
    draw_sentence,
    is_english,
    nearest_sentence,
    one_line,
    sentences,
    snap_span,
    span_grammar,
    words,
)
from taskmill.tasks.reply import first_line
from taskmill.tasks.rules import (
    asks,
    clean,
    first_question,
    in_passage,
    leaked,
    needs_context,
    on_topic,
    question_of,
    refused,
)

__all__ = ["ExtractiveQA", "sample_question"]


def sample_question(text: str) -> tuple[str, str]:
    """Return a (question, answer) that any passage of a few words supports: how its sentence ends."""
    sentence = next((s for s in sentences(text) if len(words(s)) > 5), text.strip())
    tokens = sentence.split()
    if len(tokens) < 6:  # a script without spaces
        return f"How does the passage go on after “{sentence[:6]}”?", sentence[6:12]
    return f"How does the sentence that begins with “{' '.join(tokens[:3])}” end?", " ".join(tokens[-2:])


OPENERS = ("What happens", "How", "What")  # of a question whose answer is a drawn sentence


class ExtractiveQA(TaskType):
    """A question about the passage whose answer stands in it word for word."""

    name = "exqa"
    title = "extractive question answering"
    about_a_sentence = True
    answers_apart = True
    parts: tuple[str, ...] = ("question", "answer")
    metric = "squad_f1"
    max_tokens = 96

    def draw(
        self, document: Document, seed: int, sample: int, attributes: Attributes
    ) -> Mapping[str, str] | Rejected:
        """Draw a sentence of an English passage as the answer, and how the question is to open.

        A small model asks far better about a sentence it sees as the answer. Elsewhere the model chooses.
        """
        if not attributes.guided or attributes.count > 1 or attributes.language or not is_english(document):
            return {}
        sentence = draw_sentence(document, seed, sample, f"{self.name} answer")
        opener = OPENERS[draw(seed, document.id, f"{self.name} opener {sample}") % len(OPENERS)]
        return {"answer": sentence, "opener": opener} if sentence else {}

    def build(self, reply: Mapping[str, str], ask: Ask) -> Draft | Rejected:
        """Snap the answer to a span of the passage.

        Where the answer was drawn, a question without an answer in the passage is given the drawn one
        if that fits, else the sentence that holds most of its words.
        """
        question, rest = first_question(reply.get("question", ""))
        given = first_line(reply.get("answer", "") or rest)
        if not question:
            return Rejected(Reason.MALFORMED, "the reply lacks a question")
        span = (given and self.span(given, ask)) or self.fitting(question, ask)
        if not span and not given:
            return Rejected(
                Reason.MALFORMED, "the reply lacks an answer, and no sentence of the passage is one"
            )
        instruction, template = self.instruction(ask, question=question)
        raw = {"response": given} if span != given else {}
        return Draft(instruction, span or given, template=template, raw=raw)

    def fitting(self, question: str, ask: Ask) -> str:
        """Return the drawn sentence if it holds half of what is asked about, else the one that answers.

        Nothing where no sentence was drawn: the answer is then the model's own or missing.
        """
        drawn, asked = ask.fields.get("answer", ""), content(question)
        if not drawn:
            return ""
        if asked and 2 * len(asked & content(drawn)) >= len(asked):
            return self.span(drawn, ask)
        return answer_sentence(question, ask.document.text)

    def span(self, answer: str, ask: Ask) -> str:
        """Return the span of the passage that says what the answer says, or "".

        Only a small model that was shown the answer is taken to mean it when it changes a word.
        """
        passage = ask.document.text
        return (
            snap_span(answer, passage) or ("answer" in ask.fields and nearest_sentence(answer, passage)) or ""
        )

    def grammar(self, instruction: str, ask: Ask) -> str:
        """The response is a span of the sentence that was given."""
        return span_grammar(ask.fields.get("sentence", ""), question_of(instruction))

    def read(self, instruction: str, response: str, ask: Ask) -> Draft | Rejected:
        """Snap the response of a finished pair, too."""
        span = self.span(response, ask)
        raw = {"response": response} if span and span != response else {}
        return Draft(instruction, span or response, template="model", raw=raw)

    def check(self, example: Example) -> Rejected | None:
        """The answer is a span of the passage, under half of it; the question asks about the passage."""
        if len(example.response) * 2 > len(example.context):
            return Rejected(Reason.TOO_LONG, "the answer is more than half of the passage")
        return (
            clean(example)
            or needs_context(example)
            or refused(example, question_of(example.instruction), example.response)
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
