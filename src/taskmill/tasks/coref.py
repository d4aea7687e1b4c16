"""Coreference resolution: what a pronoun of the passage stands for."""

from __future__ import annotations

import re
from collections.abc import Mapping

from taskmill.record import Document, Example, Reason
from taskmill.tasks.base import Ask, Attributes, Draft, Rejected, TaskType
from taskmill.tasks.labels import choose
from taskmill.tasks.metrics import squad_f1
from taskmill.tasks.passage import joined, keyword, one_line, pick, sentences, snap_span, words
from taskmill.tasks.reply import first_line
from taskmill.tasks.rules import clean, in_label_set, in_passage, labelled_as, needs_context, quoted

__all__ = ["Coreference"]

# Pronouns that stand for a thing or person named before; forms that are often expletive are left out
# where the language allows (German "es", French "il", which need a finer look, are in).
_PRONOUN = re.compile(
    r"(?<![\w'’\"])(it|its|they|them|their|he|him|his|she|her|er|ihn|ihm|ihr|sie|es|il|elle|ils|elles|lui|leur"
    r"|él|ella|ellos|ellas|esso|essa|egli|lei|loro|ele|ela|eles|elas|hij|zij|он|она|оно|они|его|её|их)(?![\w'’\"])"
    r"|(他们|她们|它们|他|她|它|彼女|彼ら|彼|それ)",
)
_YES_NO = ("Yes", "No")
_YES_NO_MEANINGS = (("yes", "true", "correct"), ("no", "false", "incorrect"))
LONGEST = 12  # words of the answer; chosen: a mention is a noun phrase, not a clause


class Coreference(TaskType):
    """A pronoun of the passage and the words it stands for there, or a yes-no question about them."""

    name = "coref"
    title = "coreference resolution"
    about_a_sentence = True
    parts = ("answer",)
    metric = "squad_f1"
    max_tokens = 48

    def draw(
        self, document: Document, seed: int, sample: int, attributes: Attributes
    ) -> Mapping[str, str] | Rejected:
        """Draw a pronoun and the sentence it stands in; there must be words before it to refer to."""
        del attributes
        found: list[str] = []
        before = 0
        for sentence in sentences(document.text):
            for match in _PRONOUN.finditer(sentence):
                if before + match.start() > 10:
                    found.append(f"{match[0]}\n{one_line(sentence)}")
                    break
            before += len(sentence)
        order = list(pick(found, seed, document.id, "coref pronoun"))
        if not order:
            return Rejected(Reason.NOT_APPLICABLE, "the passage holds no pronoun this task knows")
        pronoun, sentence = order[sample % len(order)].split("\n", 1)
        return {"pronoun": pronoun, "sentence": sentence}

    def aim(
        self, document: Document, seed: int, sample: int, attributes: Attributes
    ) -> Mapping[str, str] | Rejected:
        """Draw the sentence of a pronoun; a passage without one suits no generator."""
        drawn = self.draw(document, seed, sample, attributes)
        if isinstance(drawn, Rejected) or not attributes.guided or attributes.count > 1:
            return drawn if isinstance(drawn, Rejected) else {}
        return drawn

    def build(self, reply: Mapping[str, str], ask: Ask) -> Draft | Rejected:
        """Snap the answer to the words of the passage."""
        answer, fields = first_line(reply.get("answer", "")), self.drawn(ask)
        if not answer:
            return Rejected(Reason.MALFORMED, "the reply lacks an answer")
        if isinstance(fields, Rejected):
            return fields
        instruction, template = self.instruction(ask, pronoun=fields["pronoun"], sentence=fields["sentence"])
        span = snap_span(answer, ask.document.text)
        raw = {"response": answer} if span and span != answer else {}
        return Draft(instruction, span or answer, template=template, raw=raw)

    def read(self, instruction: str, response: str, ask: Ask) -> Draft | Rejected:
        """A yes or no (all ten CTGA templates ask for one) becomes a label; other answers are snapped."""
        index = choose(response, _YES_NO, _YES_NO_MEANINGS)
        if index is not None:
            true_false = response.strip()[:1].upper() in "TF"
            labels = ("True", "False") if true_false else _YES_NO
            raw = {"response": response} if response != labels[index] else {}
            return Draft(instruction, labels[index], labels, index, template="model", raw=raw)
        span = snap_span(response, ask.document.text)
        raw = {"response": response} if span and span != response else {}
        return Draft(instruction, span or response, template="model", raw=raw)

    def check(self, example: Example) -> Rejected | None:
        """The mention and the answer stand in the passage and are not the same."""
        wrong = clean(example) or needs_context(example)
        if wrong:
            return wrong
        marked = labelled_as(example.instruction, "pronoun") or quoted(example.instruction)
        mention = next(
            (m for m in marked if _PRONOUN.fullmatch(m.casefold())), min(marked, key=len, default="")
        )
        if not mention:
            return Rejected(Reason.MALFORMED, "the instruction does not mark a mention")
        if snap_span(mention, example.context) is None:
            return Rejected(Reason.UNGROUNDED, f"the mention {mention[:40]!r} is not in the passage")
        if example.options:
            return in_label_set(example)
        if len(words(example.response)) > LONGEST:
            return Rejected(Reason.TOO_LONG, f"the answer has more than {LONGEST} words")
        if joined(mention) in joined(example.response) or _PRONOUN.fullmatch(example.response.casefold()):
            return Rejected(Reason.TRIVIAL, "the answer holds the pronoun, or is one")
        return in_passage(example.response, example, "the answer")

    def grade(self, prediction: str, example: Example) -> float:
        """Token F1 after SQuAD normalisation; accuracy where the answer is a label."""
        if example.options:
            return float(choose(prediction, example.options, _YES_NO_MEANINGS) == example.answer_index)
        return squad_f1(prediction, [example.response])

    def sample(self, ask: Ask) -> dict[str, str]:
        """Answer with the longest word of the passage."""
        return {"answer": keyword(ask.document.text)}
