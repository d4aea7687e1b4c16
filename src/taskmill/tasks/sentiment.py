"""Sentiment: the attitude the passage expresses."""

from __future__ import annotations

from collections.abc import Mapping

from taskmill.record import Document, Reason
from taskmill.tasks.base import Ask, Attributes, Draft, Rejected
from taskmill.tasks.labels import LabelType, Meanings, choose
from taskmill.tasks.reply import first_line

__all__ = ["Sentiment"]


class Sentiment(LabelType):
    """The label of the passage itself, said by the model."""

    name = "sentiment"
    title = "sentiment"
    parts = ("sentiment",)
    balanced = False
    labels: tuple[str, ...] = ("positive", "negative", "neutral")
    meanings: Meanings = (
        ("positive", "pos", "good", "happy", "favorable", "favourable", "satisfied",
         "yes", "recommended", "5 stars", "4 stars", "5", "4"),
        ("negative", "neg", "bad", "unhappy", "unfavorable", "unfavourable", "dissatisfied",
         "no", "not recommended", "1 star", "2 stars", "1", "2"),
        ("neutral", "mixed", "objective", "none", "neither", "factual", "3 stars", "3"),
    )  # fmt: skip
    surfaces: Meanings = (
        ("positive", "negative", "neutral"),
        ("positive", "negative"),
        ("Positive", "Negative"),
        ("good", "bad"),
        ("happy", "unhappy"),
        ("satisfied", "dissatisfied"),
        ("Yes", "No"),
        ("1 star", "2 stars", "3 stars", "4 stars", "5 stars"),
        ("1", "2", "3", "4", "5"),
    )

    def aim(
        self, document: Document, seed: int, sample: int, attributes: Attributes
    ) -> Mapping[str, str] | Rejected:
        """Name the label set; which label fits is for the generator to say."""
        del document, seed, sample
        if not attributes.guided or attributes.count > 1:
            return {}
        return {"label_set": "\n".join(self.label_set(attributes))}

    def build(self, reply: Mapping[str, str], ask: Ask) -> Draft | Rejected:
        """Read the label out of the reply."""
        said = first_line(reply.get(self.parts[0], ""))
        labels = self.label_set(ask.attributes)
        index = choose(said, labels, self.meanings)
        if index is None:
            return Rejected(Reason.OFF_LABEL, f"{said[:40]!r} is none of {', '.join(labels)}")
        return self.labelled(ask, labels, index, said)

    def sample(self, ask: Ask) -> dict[str, str]:
        """Say a label drawn from the passage, so that each label occurs."""
        labels = self.label_set(ask.attributes)
        return {self.parts[0]: labels[self.draw_index(ask.document, ask.seed, 0, len(labels))]}
