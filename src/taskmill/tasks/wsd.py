"""Word sense disambiguation: whether a word has the same sense in two sentences."""

from __future__ import annotations

import re
from collections.abc import Mapping

from taskmill.record import Document, Example, Reason
from taskmill.tasks.base import Ask, Attributes, Draft, Rejected
from taskmill.tasks.labels import LabelType, label_fields
from taskmill.tasks.passage import content, draw_sentence, one_line, only_drops, pick, words
from taskmill.tasks.reply import first_line
from taskmill.tasks.rules import filled_as, is_prose, labelled_as, pieces, quoted

__all__ = ["WordSense"]

_PLAIN = re.compile(r"(?<![\w.`'\"_])[^\W\d_]{4,}(?![\w.`'\"_(])")


class WordSense(LabelType):
    """A word in a sentence of the passage and in one the model wrote, in the same sense or another."""

    name = "wsd"
    title = "word sense disambiguation"
    about_a_sentence = True
    parts = ("sentence",)
    labels = ("Yes", "No")
    meanings = (
        ("yes", "true", "same", "same sense", "same meaning"),
        ("no", "false", "different", "different sense", "different meaning"),
    )
    surfaces = (("Yes", "No"), ("True", "False"))

    def draw(
        self, document: Document, seed: int, sample: int, attributes: Attributes
    ) -> Mapping[str, str] | Rejected:
        """Draw the label, a sentence, and a plain word of it (no name in the middle, no identifier)."""
        labels = self.label_set(attributes)
        index = self.draw_index(document, seed, sample, len(labels))
        sentence = draw_sentence(document, seed, sample, "wsd sentence")
        plain = sorted({w for w in _PLAIN.findall(sentence) if w.islower() and content(w)})
        word = next(pick(plain, seed, document.id, f"wsd word {sample}"), "")
        if not word:
            return Rejected(Reason.NOT_APPLICABLE, "no sentence of the passage holds a plain word")
        return label_fields(labels, index, sentence=sentence, word=word, same="yes" if index == 0 else "no")

    def aim(
        self, document: Document, seed: int, sample: int, attributes: Attributes
    ) -> Mapping[str, str] | Rejected:
        """Draw the label, a sentence and a word of it, as for a chat model."""
        if not attributes.guided or attributes.count > 1:
            return {}
        drawn = self.draw(document, seed, sample, attributes)
        return drawn if isinstance(drawn, Rejected) else {**drawn, "first": drawn["sentence"]}

    def build(self, reply: Mapping[str, str], ask: Ask) -> Draft | Rejected:
        """The second sentence is the model's, the label the drawn one."""
        second, fields = first_line(reply.get("sentence", "")), self.drawn(ask)
        if not second:
            return Rejected(Reason.MALFORMED, "the reply lacks a sentence")
        if isinstance(fields, Rejected):
            return fields
        labels = self.label_set(ask.attributes)
        index = labels.index(fields["label"])
        return self.labelled(ask, labels, index, word=fields["word"], first=fields["sentence"], second=second)

    def check(self, example: Example) -> Rejected | None:
        """The target word stands in two different sentences of four words or more."""
        wrong = super().check(example)
        if wrong:
            return wrong
        marked = labelled_as(example.instruction, "word") or quoted(example.instruction)
        targets = [" ".join(words(part)) for part in marked if len(words(part)) in (1, 2)]
        if not targets:
            return Rejected(Reason.MALFORMED, "the instruction does not mark a target word")
        uses = {" ".join(words(text)) for _, text in pieces(example.instruction)}
        uses.add(" ".join(words(example.context)))
        uses = {use for use in uses if use.count(" ") > 2}
        for target in targets:
            if sum(f" {target} " in f" {use} " for use in uses) > 1:
                return self._two_uses(example, target)
        return Rejected(Reason.UNGROUNDED, f"{targets[0]!r} does not stand in two different sentences")

    def _two_uses(self, example: Example, word: str) -> Rejected | None:
        # A marked pair must itself hold the word: the passage stands in only where no pair is marked.
        pair = filled_as(example, "sentence")
        if len(pair) != 2:
            return None
        if only_drops(pair[1], pair[0]) or only_drops(pair[0], pair[1]):
            return Rejected(Reason.COPY, "one sentence only shortens the other")
        written = next((s for s in reversed(pair) if s != one_line(example.context)), pair[1])
        broken = is_prose(written)
        if broken:
            return broken
        target = words(word)
        for sentence in pair:
            if len(words(sentence)) < 4:
                return Rejected(Reason.TRIVIAL, "a sentence is under four words")
            if not set(target) <= set(words(sentence)):
                return Rejected(Reason.UNGROUNDED, f"{sentence[:60]!r} does not hold the target word")
        return None

    def sample(self, ask: Ask) -> dict[str, str]:
        """Use the word in another sentence."""
        fields = self.drawn(ask)
        if isinstance(fields, Rejected):
            return {"sentence": ""}
        return {"sentence": f"We looked up the word {fields['word']} in a dictionary."}
