"""Paraphrase identification: whether two sentences say the same."""

from __future__ import annotations

from collections.abc import Mapping

from taskmill.record import Document, Example, Reason
from taskmill.tasks.base import Ask, Attributes, Draft, Rejected
from taskmill.tasks.labels import LabelType, label_fields
from taskmill.tasks.paraphrase import turned
from taskmill.tasks.passage import (
    content,
    draw_sentence,
    one_line,
    only_drops,
    words,
)
from taskmill.tasks.reply import first_line
from taskmill.tasks.rules import filled_as, is_prose, on_topic, quoted

__all__ = ["ParaphraseIdentification"]


class ParaphraseIdentification(LabelType):
    """A sentence of the passage and one the model wrote to mean the same, or not."""

    name = "paraphrase_id"
    title = "paraphrase identification"
    about_a_sentence = turns_a_sentence = True
    parts = ("sentence",)
    labels = ("Yes", "No")
    meanings = (
        ("yes", "true", "same", "equivalent", "paraphrase", "paraphrases", "duplicates", "duplicate"),
        ("no", "false", "different", "not equivalent", "not paraphrase", "not paraphrases", "not duplicates"),
    )
    surfaces = (
        ("Yes", "No"),
        ("True", "False"),
        ("equivalent", "not equivalent"),
        ("duplicates", "not duplicates"),
    )

    def draw(
        self, document: Document, seed: int, sample: int, attributes: Attributes
    ) -> Mapping[str, str] | Rejected:
        """Draw the label and the first sentence."""
        labels = self.label_set(attributes)
        index = self.draw_index(document, seed, sample, len(labels))
        sentence = draw_sentence(document, seed, sample, "paraphrase_id sentence")
        if not sentence:
            return Rejected(Reason.NOT_APPLICABLE, "the passage holds no full sentence")
        return label_fields(labels, index, sentence=sentence, same="yes" if index == 0 else "no")

    def aim(
        self, document: Document, seed: int, sample: int, attributes: Attributes
    ) -> Mapping[str, str] | Rejected:
        """Draw the sentence, the label set and the label; the sentence is the first of the pair."""
        drawn = super().aim(document, seed, sample, attributes)
        if isinstance(drawn, Rejected) or not drawn.get("sentence"):
            return drawn
        return {**drawn, "first": drawn["sentence"]}

    def build(self, reply: Mapping[str, str], ask: Ask) -> Draft | Rejected:
        """The second sentence is the model's, the label the drawn one."""
        second, fields = first_line(reply.get("sentence", "")), self.drawn(ask)
        if not second:
            return Rejected(Reason.MALFORMED, "the reply lacks a sentence")
        if isinstance(fields, Rejected):
            return fields
        labels = self.label_set(ask.attributes)
        index = labels.index(fields["label"])
        return self.labelled(ask, labels, index, first=fields["sentence"], second=second)

    def check(self, example: Example) -> Rejected | None:
        """Two different sentences about one thing: a pair without a shared content word needs no thought."""
        wrong = super().check(example)
        if wrong:
            return wrong
        marked = filled_as(example, "sentence", "first", "second", "sentence one", "sentence two")
        pair = marked if len(marked) == 2 else sorted(quoted(example.instruction), key=len)[-2:]
        if len(pair) < 2:  # free form: the passage is one of the two
            return on_topic(pair[0], example) if pair else None
        if words(pair[0]) == words(pair[1]):
            return Rejected(Reason.COPY, "the two sentences are the same")
        if min(len(words(sentence)) for sentence in pair) < 3:
            return Rejected(Reason.TRIVIAL, "a sentence is under three words")
        no = self.meaning(example.response) == 1
        if no and (only_drops(pair[1], pair[0]) or only_drops(pair[0], pair[1])):
            return Rejected(Reason.OFF_LABEL, "one sentence only shortens the other, but is said to differ")
        written = next((s for s in reversed(pair) if s != one_line(example.context)), pair[-1])
        broken = is_prose(written)
        if broken:
            return broken
        own = content(pair[0])
        if own and not own & content(pair[1]):
            return Rejected(Reason.UNGROUNDED, "the two sentences share no content word")
        return None

    def sample(self, ask: Ask) -> dict[str, str]:
        """Turn the sentence around, or deny it."""
        fields = self.drawn(ask)
        if isinstance(fields, Rejected):
            return {"sentence": ""}
        same = fields["same"] == "yes"
        return {"sentence": f"{'That is' if same else 'It is not so that'}: {turned(fields['sentence'])}"}
