"""Textual entailment: whether the passage supports a statement, yes or no."""

from __future__ import annotations

from collections.abc import Mapping

from taskmill.record import Document, Example, Reason
from taskmill.tasks.base import Ask, Attributes, Draft, Rejected
from taskmill.tasks.labels import LabelType, Meanings, label_fields
from taskmill.tasks.passage import draw_sentence, is_english, joined, keyword, one_line, words
from taskmill.tasks.reply import first_line
from taskmill.tasks.rules import is_prose, labelled_as, not_copied, on_topic, quoted

__all__ = ["TextualEntailment"]

LONGEST_RUN = 14  # words; chosen: a statement that copies a longer run needs no inference


class TextualEntailment(LabelType):
    """A statement about the passage; the label says whether it follows. `kinds` names the meanings."""

    name = "te"
    title = "textual entailment"
    about_a_sentence = turns_a_sentence = True
    parts = ("statement",)
    labels: tuple[str, ...] = ("Yes", "No")
    meanings: Meanings = (
        ("yes", "true", "entailment", "entailed", "entails", "correct", "supported", "it follows"),
        (
            "no",
            "false",
            "not entailment",
            "not entailed",
            "not_entailment",
            "incorrect",
            "not supported",
            "it does not follow",
        ),
    )
    surfaces: Meanings = (("Yes", "No"), ("True", "False"), ("Entailed", "Not entailed"))
    kinds: tuple[str, ...] = ("follows", "contradicts")

    def draw(
        self, document: Document, seed: int, sample: int, attributes: Attributes
    ) -> Mapping[str, str] | Rejected:
        """Draw the label and, in an English passage, the word the statement is to begin with."""
        labels, index = self.draw_label(document, seed, sample, attributes)
        sentence = draw_sentence(document, seed, sample, f"{self.name} sentence")
        if not sentence:
            return Rejected(Reason.NOT_APPLICABLE, "the passage holds no full sentence")
        free = (
            not attributes.guided or attributes.count > 1 or attributes.language or not is_english(document)
        )
        # User labels run in the order of `labels`: supported, not supported (and undecided, for nli).
        kind = self.kinds[min(index, len(self.kinds) - 1)]
        return label_fields(labels, index, kind=kind, word="" if free else keyword(sentence))

    def build(self, reply: Mapping[str, str], ask: Ask) -> Draft | Rejected:
        """The statement is the model's, the label the drawn one."""
        statement = first_line(reply.get("statement", ""))
        if not statement:
            return Rejected(Reason.MALFORMED, "the reply lacks a statement")
        fields = self.drawn(ask)
        if isinstance(fields, Rejected):
            return fields
        labels = tuple(fields["label_set"].split("\n"))
        return self.labelled(ask, labels, labels.index(fields["label"]), statement=statement)

    def check(self, example: Example) -> Rejected | None:
        """The statement has three words or more, is no copy of the passage, and about it unless left open."""
        wrong = super().check(example)
        if wrong:
            return wrong
        marked = labelled_as(example.instruction, "statement", "claim", "hypothesis")
        statement = max(marked or quoted(example.instruction), key=len, default="")
        if not statement:
            return None  # a free-form instruction that marks no statement: nothing more to look at
        if len(words(statement)) < 3:
            return Rejected(Reason.TRIVIAL, f"the statement {statement[:40]!r} is too short")
        if joined(statement) in joined(example.context):
            return Rejected(Reason.COPY, "the statement is a sentence of the passage")
        wrong = is_prose(statement) or not_copied(statement, example, LONGEST_RUN)
        if wrong or self.meaning(example.response) == 2:
            return wrong  # what the passage leaves open need not be in its words
        return on_topic(statement, example)

    def sample(self, ask: Ask) -> dict[str, str]:
        """State that the passage mentions a word of its (true), or that it never does (false)."""
        fields = self.drawn(ask)
        kind = self.kinds[0] if isinstance(fields, Rejected) else fields["kind"]
        word = keyword(one_line(ask.document.text))
        told = {
            "follows": f"The text mentions “{word}” in so many letters.",
            "contradicts": f"The text never mentions “{word}” at all.",
            "leaves open": f"Its author first read about “{word}” at school.",
        }
        return {"statement": told[kind]}
