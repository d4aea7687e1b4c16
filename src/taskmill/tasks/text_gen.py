"""Text generation: write the passage from a description of it (the passage is the response)."""

from __future__ import annotations

from collections.abc import Mapping

from taskmill.record import Example, Reason
from taskmill.render import has_placeholder
from taskmill.tasks.base import Ask, Draft, Rejected, TaskType
from taskmill.tasks.metrics import rouge_l
from taskmill.tasks.passage import copied, keyword, share, words
from taskmill.tasks.rules import clean, pieces, refused
from taskmill.tasks.summarization import paragraph

__all__ = ["TextGeneration"]

GROUNDED = 0.3  # share of the response's (or description's) content words; chosen: a topic and its things
LONGEST_RUN = 20  # words of the response already in the instruction; chosen: one long sentence


class TextGeneration(TaskType):
    """The model describes the passage in a line, and the passage is what that line asks for.

    As in CTGA, where the nine templates of this type have the passage in the response.
    """

    name = "text_gen"
    title = "text generation"
    parts = ("topic",)
    metric = "rouge_l"
    max_tokens = 64

    def build(self, reply: Mapping[str, str], ask: Ask) -> Draft | Rejected:
        """The description goes into the instruction, the passage is the response."""
        topic = paragraph(reply.get("topic", "")).strip('"“”')
        if not topic:
            return Rejected(Reason.MALFORMED, "the reply lacks a topic")
        instruction, template = self.instruction(ask, topic=topic)
        return Draft(instruction, ask.document.text.strip(), template=template)

    def check(self, example: Example) -> Rejected | None:
        """Description and passage (or passage and response) share content words; nothing is given away."""
        own = [text for _, text in pieces(example.instruction)]
        wrong = clean(example) or refused(example, example.response, *own)
        if wrong:
            return wrong
        if len(words(example.response)) < 8 and len(example.response) < 20:
            return Rejected(Reason.TRIVIAL, "the text to write is under eight words")
        said = " ".join(text for _, text in pieces(example.instruction))
        run, _ = copied(said, example.response)
        if run > LONGEST_RUN:
            return Rejected(
                Reason.LEAKED_ANSWER, f"the instruction holds {run} words of the response in a row"
            )
        if has_placeholder(example.instruction):
            if words(example.response) == words(example.context):
                return Rejected(Reason.LEAKED_ANSWER, "the instruction quotes the text to write")
            grounded = share(example.response, example.context)
        else:
            lines = [text for _, text in pieces(example.instruction)]
            grounded = max((share(line, example.response) for line in lines), default=0.0)
        if grounded < GROUNDED:
            return Rejected(Reason.UNGROUNDED, f"only {grounded:.0%} of the content words are the passage's")
        return None

    def grade(self, prediction: str, example: Example) -> float:
        """ROUGE-L against the text."""
        return rouge_l(prediction, example.response)

    def sample(self, ask: Ask) -> dict[str, str]:
        """Name the longest word as the topic."""
        return {"topic": f"{keyword(ask.document.text)} in detail"}
