"""Sentence completion: how the passage goes on."""

from __future__ import annotations

from collections.abc import Mapping

from taskmill.record import Example, Reason
from taskmill.tasks.base import Ask, Draft, Rejected, TaskType
from taskmill.tasks.labels import options_in
from taskmill.tasks.mcqa import which
from taskmill.tasks.metrics import rouge_l
from taskmill.tasks.passage import keyword, sentences, words
from taskmill.tasks.reply import first_line
from taskmill.tasks.rules import clean, in_label_set, is_prose, needs_context, not_copied, on_topic, refused

__all__ = ["SentenceCompletion"]

LONGEST = 60  # words of one ending; chosen: more is a second passage
LONGEST_RUN = 10  # words copied in a row; chosen: an ending that only repeats the passage does not go on


class SentenceCompletion(TaskType):
    """The next sentence after the passage, or the right one of several endings."""

    name = "sent_comp"
    title = "sentence completion"
    parts = ("ending",)
    metric = "rouge_l"
    max_tokens = 96

    def build(self, reply: Mapping[str, str], ask: Ask) -> Draft | Rejected:
        """Take the first sentence of the reply as the ending."""
        line = first_line(reply.get("ending", ""))
        ending = next(iter(sentences(line)), "")
        if not ending:
            return Rejected(Reason.MALFORMED, "the reply lacks an ending")
        instruction, template = self.instruction(ask)
        raw = {"response": line} if line != ending else {}
        return Draft(instruction, ending, template=template, raw=raw)

    def read(self, instruction: str, response: str, ask: Ask) -> Draft | Rejected:
        """Find endings to choose from in a free-form instruction."""
        del ask
        options = options_in(instruction)
        right = which(response, options) if len(options) > 1 else None
        if right is None:
            return Draft(instruction, response, template="model")
        raw = {"response": response} if response != options[right] else {}
        return Draft(instruction, options[right], options, right, template="model", raw=raw)

    def check(self, example: Example) -> Rejected | None:
        """The ending is one of the options, or a new sentence about things of the passage."""
        wrong = clean(example) or needs_context(example) or refused(example, example.response)
        if wrong:
            return wrong
        if example.options:
            return in_label_set(example)
        length = len(words(example.response))
        if length > LONGEST:
            return Rejected(Reason.TOO_LONG, f"the ending has {length} words")
        if length < 3:
            return Rejected(Reason.TRIVIAL, "the ending is under three words")
        ending = example.response
        return (
            is_prose(ending)
            or not_copied(ending, example, LONGEST_RUN)
            or on_topic(example.response, example)
        )

    def grade(self, prediction: str, example: Example) -> float:
        """ROUGE-L against the ending; accuracy where there are options."""
        if example.options:
            return float(which(prediction, example.options) == example.answer_index)
        return rouge_l(prediction, example.response)

    def sample(self, ask: Ask) -> dict[str, str]:
        """Go on about the passage's longest word."""
        return {"ending": f"More about {keyword(ask.document.text)} comes later."}
