"""Yes-no question answering."""

from __future__ import annotations

import re
from collections.abc import Mapping

from taskmill.record import Document, Example, Reason, draw
from taskmill.tasks.base import Ask, Attributes, Draft, Rejected
from taskmill.tasks.labels import LabelType, choose, label_fields
from taskmill.tasks.passage import DENIAL, content, is_english, keyword, sentences, words
from taskmill.tasks.reply import first_line
from taskmill.tasks.rules import asks, first_question, on_topic, opens_with_wh, question_of, refused

__all__ = ["YesNoQA"]


OPENERS = ("Can", "Is it", "Can", "Are", "Should")
VERBS = ("Is", "Can", "Does", "Are", "Do", "Did")
"""With which a trained generator's question begins: the six most frequent of BoolQ, in turns."""
_REQUEST = re.compile(
    r"^(?:can|could|would|will) you (?:please|explain|tell|give|describe|help|provide|show|answer)\b", re.I
)


class YesNoQA(LabelType):
    """A question about the passage that yes or no answers; user labels may add "maybe"."""

    name = "ynqa"
    title = "yes-no question answering"
    about_a_sentence = True
    parts = ("question", "answer")
    labels = ("Yes", "No")
    meanings = (
        ("yes", "true", "correct", "y", "relevant", "ja", "oui", "sí", "是"),
        ("no", "false", "incorrect", "n", "irrelevant", "not relevant", "nein", "non", "不是", "否"),
        ("maybe", "unknown", "unclear", "inconclusive", "not sure"),
    )
    surfaces = (("Yes", "No"), ("True", "False"), ("Yes", "No", "Maybe"))
    drawn_surfaces = 1

    def draw(
        self, document: Document, seed: int, sample: int, attributes: Attributes
    ) -> Mapping[str, str] | Rejected:
        """Draw the answer, so that labels balance, and how the question opens, so that questions differ."""
        labels = attributes.labels or self.labels
        index = self.draw_index(document, seed, sample, len(labels))
        if attributes.language or not is_english(document):
            return label_fields(labels, index)
        opener = OPENERS[draw(seed, document.id, f"ynqa opener {sample}") % len(OPENERS)]
        return label_fields(labels, index, opener=opener)

    def aim(
        self, document: Document, seed: int, sample: int, attributes: Attributes
    ) -> Mapping[str, str] | Rejected:
        """Draw sentence, labels and label, and the verb the question begins with: no wh-word then."""
        drawn = super().aim(document, seed, sample, attributes)
        if isinstance(drawn, Rejected) or "label" not in drawn or not is_english(document):
            return drawn
        verb = VERBS[(draw(seed, document.id, "ynqa verb") + sample) % len(VERBS)]
        return {**drawn, "begins": verb}

    def build(self, reply: Mapping[str, str], ask: Ask) -> Draft | Rejected:
        """The answer is the model's own if it gives one, else the drawn one."""
        question, _ = first_question(reply.get("question", ""))
        if not question:
            return Rejected(Reason.MALFORMED, "the reply lacks a question")
        labels = ask.attributes.labels or self.labels
        answer = first_line(reply.get("answer", "")) or ask.fields.get("label", "")
        index = choose(answer, labels, self.meanings)
        if index is None:
            return Rejected(Reason.OFF_LABEL, f"{answer[:40]!r} is none of {', '.join(labels)}")
        return self.labelled(ask, labels, index, answer, question=question)

    def check(self, example: Example) -> Rejected | None:
        """The question asks about the passage, and not with a wh-word, which yes or no cannot answer."""
        question = question_of(example.instruction)
        wrong = super().check(example) or asks(example) or refused(example, question)
        if wrong:
            return wrong
        if opens_with_wh(question) or _REQUEST.match(question):
            return Rejected(Reason.NOT_A_QUESTION, f"yes or no does not answer {question[:60]!r}")
        if len(words(question)) < 4:
            return Rejected(Reason.TRIVIAL, f"the question {question[:40]!r} is too short")
        return on_topic(question, example) or self._plainly_said(question, example)

    def _plainly_said(self, question: str, example: Example) -> Rejected | None:
        # A "no" to words that all stand in one affirmative sentence is nearly always a wrong label.
        if self.meaning(example.response) != 1 or DENIAL & set(words(question)):
            return None
        asked = content(question)
        for sentence in sentences(example.context):
            if len(asked) > 2 and asked <= content(sentence) and not DENIAL & set(words(sentence)):
                return Rejected(Reason.OFF_LABEL, f"{sentence[:60]!r} says so, but the answer denies it")
        return None

    def sample(self, ask: Ask) -> dict[str, str]:
        """Ask whether the passage mentions a word of its."""
        labels = ask.attributes.labels or self.labels
        return {
            "question": f"Does the passage mention “{keyword(ask.document.text)}”?",
            "answer": ask.fields.get("label", labels[0]),
        }
