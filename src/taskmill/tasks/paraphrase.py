"""Paraphrase generation: the same meaning in other words."""

from __future__ import annotations

from collections.abc import Mapping

from taskmill.record import Document, Example, Reason
from taskmill.tasks.base import Ask, Attributes, Draft, Rejected, TaskType
from taskmill.tasks.metrics import rouge_l
from taskmill.tasks.passage import (
    content,
    draw_sentence,
    joined,
    only_drops,
    sentences,
    words,
)
from taskmill.tasks.reply import first_line
from taskmill.tasks.rules import clean, is_prose, needs_context, refused

__all__ = ["Paraphrase"]

KEPT = 0.4  # share of the source's content words a paraphrase keeps; chosen: below, it says something else
LONGER = 2.0  # times the words of its source; chosen: above, it adds what the source does not say


class Paraphrase(TaskType):
    """A sentence of the passage (or a short passage), said in other words."""

    name = "paraphrase"
    title = "paraphrase generation"
    about_a_sentence = turns_a_sentence = True
    parts = ("paraphrase",)
    metric = "rouge_l"
    max_tokens = 96

    def draw(
        self, document: Document, seed: int, sample: int, attributes: Attributes
    ) -> Mapping[str, str] | Rejected:
        """Draw the sentence to say in other words."""
        del attributes
        sentence = draw_sentence(document, seed, sample, "paraphrase sentence")
        if not sentence:
            return Rejected(Reason.NOT_APPLICABLE, "the passage holds no full sentence")
        return {"sentence": sentence}

    def build(self, reply: Mapping[str, str], ask: Ask) -> Draft | Rejected:
        """Take the first line as the paraphrase."""
        text, fields = first_line(reply.get("paraphrase", "")), self.drawn(ask)
        if not text:
            return Rejected(Reason.MALFORMED, "the reply lacks a paraphrase")
        if isinstance(fields, Rejected):
            return fields
        instruction, template = self.instruction(ask, sentence=fields["sentence"])
        return Draft(instruction, text, template=template)

    def check(self, example: Example) -> Rejected | None:
        """No copy of the passage; keeps the content words of one of its sentences, at most twice as long."""
        wrong = clean(example) or needs_context(example) or refused(example, example.response)
        if wrong:
            return wrong
        if joined(example.response) in joined(example.context):
            return Rejected(Reason.COPY, "the paraphrase stands in the passage")
        if any(only_drops(example.response, sentence) for sentence in sentences(example.context)):
            return Rejected(Reason.COPY, "the paraphrase only shortens a sentence of the passage")
        broken = is_prose(example.response)
        if broken:
            return broken
        length, own = len(words(example.response)), content(example.response)
        if length < 3:
            return Rejected(Reason.TRIVIAL, "the paraphrase is under three words")
        best: float = 0
        for source in [*sentences(example.context), example.context]:
            theirs = content(source)
            kept = len(own & theirs) / len(theirs) if theirs else 0.0
            if length <= LONGER * len(words(source)):
                best = max(best, kept)
        if best < KEPT:
            return Rejected(Reason.UNGROUNDED, f"it keeps {best:.0%} of any sentence's content words")
        return None

    def grade(self, prediction: str, example: Example) -> float:
        """ROUGE-L against the paraphrase."""
        return rouge_l(prediction, example.response)

    def sample(self, ask: Ask) -> dict[str, str]:
        """Put the sentence's opening words behind the rest."""
        fields = self.drawn(ask)
        if isinstance(fields, Rejected):
            return {"paraphrase": ""}
        return {"paraphrase": f"In other words: {turned(fields['sentence'])}"}


def turned(sentence: str) -> str:
    """Return the sentence with its halves exchanged: never a substring of the original."""
    tokens = sentence.split() if " " in sentence else list(sentence)
    joint = " " if " " in sentence else ""
    half = len(tokens) // 2
    return joint.join([*tokens[half:], *tokens[:half]])
