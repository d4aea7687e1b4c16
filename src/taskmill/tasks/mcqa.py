"""Multiple-choice question answering: one of three to five options is right."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from taskmill.record import Document, Example, Reason
from taskmill.tasks.base import Ask, Attributes, Draft, Rejected
from taskmill.tasks.exqa import ExtractiveQA, sample_question
from taskmill.tasks.labels import choose, options_in
from taskmill.tasks.passage import joined, one_line, pick, sentences, words
from taskmill.tasks.reply import first_line
from taskmill.tasks.rules import (
    asks,
    clean,
    distinct_options,
    first_question,
    leaked,
    needs_context,
    on_topic,
    question_of,
    refused,
)

__all__ = ["MultipleChoiceQA"]

LETTERS = "ABCDEFGH"
_LETTERED = re.compile(r"(?:^|\s)\(?([A-Ha-h1-8])[).:]\s+")
_LETTER = re.compile(r"^\W*(?:option|answer|choice)?\s*\(?([A-Ha-h1-8])\)?(?:[.):,\s]|$)")


def split_options(text: str) -> list[str]:
    """Split lettered options ("A) x B) y"), one option per line, or a list with semicolons."""
    parts = _LETTERED.split(text)
    if len(parts) > 4:
        options = [p.strip(" \n;,") for p in parts[2::2]]
        return options if any(o.strip(".… ") for o in options) else []
    lines = [line.strip(" \t-*•") for line in text.split("\n") if line.strip(" .…ABCDabcd):")]
    return lines if len(lines) > 1 else [p.strip() for p in text.split(";") if p.strip(" .…")]


def lettered(options: Sequence[str]) -> str:
    """Write options one per line: "A. x"."""
    return "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))


def which(answer: str, options: tuple[str, ...]) -> int | None:
    """Return the option an answer names by its text or by its letter or number."""
    by_text = [i for i, option in enumerate(options) if words(option) == words(answer)]
    if by_text:
        return by_text[0]
    letter = _LETTER.match(answer)
    if letter:
        at = LETTERS.find(letter[1].upper()) if letter[1].isalpha() else int(letter[1]) - 1
        return at if at < len(options) else None
    return choose(answer, options)


def words_in(part: str, whole: str) -> bool:
    """Say whether the words of `part` stand in a row in `whole`."""
    return joined(part) in joined(whole)


def _others(right: str, document: Document, seed: int, purpose: str) -> list[str]:
    """Return up to three other statements of the passage, in an order drawn for it."""
    found = [one_line(s) for s in sentences(document.text) if 4 < len(words(s)) < 41 and "?" not in s]
    order = pick(list(dict.fromkeys(found)), seed, document.id + purpose, "mcqa options")
    return [s for s in order if not words_in(right, s) and not words_in(s, right)][:3]


class MultipleChoiceQA(ExtractiveQA):
    """A question about the passage with lettered options; the response is the right option's text."""

    name = "mcqa"
    title = "multiple-choice question answering"
    parts = ("question", "options", "answer")
    metric = "accuracy"
    answers_apart = False  # the options are drawn before, or the generator's own
    max_tokens = 160

    def build(self, reply: Mapping[str, str], ask: Ask) -> Draft | Rejected:
        """Shuffle the options by a draw. A question without options is given sentences of the passage."""
        question, _ = first_question(reply.get("question", ""))
        options = split_options(reply.get("options", ""))
        answer = first_line(reply.get("answer", ""))
        given = answer
        if question and not options and "answer" in ask.fields:
            options = self.endings(question, answer, ask)
            answer = options[0] if options else ""
        if not question or not options or not answer:
            return Rejected(Reason.MALFORMED, "the reply lacks a question, options or an answer")
        right = which(answer, tuple(options))
        if right is None:
            return Rejected(Reason.BAD_OPTIONS, f"the answer {answer[:40]!r} is none of the options")
        gold = options[right]
        shuffled = tuple(pick(options, ask.seed, ask.document.id + question, "options"))
        instruction, template = self.instruction(ask, question=question, options=lettered(shuffled))
        raw = {"response": given} if given != gold else {}
        return Draft(instruction, gold, shuffled, shuffled.index(gold), template=template, raw=raw)

    def endings(self, question: str, answer: str, ask: Ask) -> list[str]:
        """Return the right answer and up to three other sentences of the passage."""
        right = one_line(self.fitting(question, ask)) or answer
        return [right, *_others(right, ask.document, ask.seed, question)] if right else []

    def aim(
        self, document: Document, seed: int, sample: int, attributes: Attributes
    ) -> Mapping[str, str] | Rejected:
        """Draw a sentence as the right option and two or three others: a small model writes equal options."""
        fields = super().aim(document, seed, sample, attributes)
        if isinstance(fields, Rejected) or not attributes.guided or attributes.count > 1:
            return fields
        right = fields.get("sentence", "")
        options = [right, *_others(right, document, seed, str(sample))]
        if len(options) < 3:
            return Rejected(Reason.NOT_APPLICABLE, "the passage has under three sentences to choose from")
        order = pick(options, seed, document.id, f"mcqa order {sample}")
        return {**fields, "choices": "\n".join(order), "response": right}

    def known(self, ask: Ask) -> Mapping[str, str]:
        """The options too, where they were drawn."""
        if "choices" not in ask.fields:
            return ask.fields
        return {**ask.fields, "options": lettered(ask.fields["choices"].split("\n"))}

    def choices(self, instruction: str, ask: Ask) -> tuple[str, ...]:
        """Return the options the instruction lists."""
        del ask
        options = options_in(instruction)
        return options if len(options) > 1 else ()

    def read(self, instruction: str, response: str, ask: Ask) -> Draft | Rejected:
        """Find the options in a free-form instruction and the response's place among them."""
        options = tuple(ask.fields.get("choices", "").split("\n"))
        if len(options) < 2 or not ask.opening:
            options = options_in(instruction)
        right = which(response, options) if options else None
        gold = response if right is None else options[right]
        raw = {"response": response} if gold != response else {}
        return Draft(instruction, gold, options, right, template="model", raw=raw)

    def check(self, example: Example) -> Rejected | None:
        """Three to five different options hold the response; the question asks and does not state it."""
        wrong = clean(example) or needs_context(example) or distinct_options(example.options, 3, 5)
        if wrong:
            return wrong
        index = example.answer_index
        if index is None or not 0 <= index < len(example.options):
            return Rejected(Reason.BAD_OPTIONS, f"{example.response[:40]!r} is none of the options")
        if words(example.options[index]) != words(example.response):
            return Rejected(Reason.BAD_OPTIONS, "the response is not the option of its index")
        question = question_of(example.instruction)
        return asks(example) or refused(example, question) or leaked(example) or on_topic(question, example)

    def grade(self, prediction: str, example: Example) -> float:
        """Accuracy: the right option, named by letter or text."""
        return float(which(prediction, example.options) == example.answer_index)

    def sample(self, ask: Ask) -> dict[str, str]:
        """Ask how a sentence ends and offer two other endings."""
        question, answer = sample_question(one_line(ask.document.text))
        return {
            "question": question,
            "options": f"A) {answer}\nB) none of the words above\nC) with a blank line",
            "answer": "A",
        }
