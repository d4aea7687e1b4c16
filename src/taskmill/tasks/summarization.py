"""Summarization: the passage in fewer words."""

from __future__ import annotations

from collections.abc import Mapping

from taskmill.record import Example, Reason
from taskmill.tasks.base import Ask, Draft, Rejected, TaskType
from taskmill.tasks.metrics import rouge_l
from taskmill.tasks.passage import keyword, one_line, words
from taskmill.tasks.rules import clean, needs_context, not_copied, on_topic, refused

__all__ = ["Summarization", "paragraph"]

LONGEST = 0.6  # of the passage's characters; chosen: above, nothing is condensed
LONGEST_RUN = 20  # words copied in a row; chosen: one long sentence taken over whole
COPIED = 0.75  # share of copied 4-grams; chosen: above, the text is an extract
GROUNDED = 0.4  # share of content words that are the passage's; chosen: summaries may generalise


def paragraph(text: str) -> str:
    """Return the first paragraph of a reply, on one line, without an introduction that ends in a colon."""
    blocks = [b for b in text.strip().split("\n\n") if b.strip()]
    if len(blocks) > 1 and blocks[0].rstrip(" *_")[-1:] in (":", "："):
        del blocks[0]
    block = blocks[0] if blocks else ""
    first, _, rest = block.partition("\n")
    block = rest if rest.strip() and first.rstrip(" *_")[-1:] in (":", "：") else block
    return one_line(block).strip("*_ ")


class Summarization(TaskType):
    """The instruction asks for a summary of the passage; the response is one."""

    name = "summarization"
    title = "summarization"
    parts = ("summary",)
    metric = "rouge_l"
    max_tokens = 128

    def build(self, reply: Mapping[str, str], ask: Ask) -> Draft | Rejected:
        """Take the first paragraph as the summary."""
        summary = paragraph(reply.get("summary", ""))
        if not summary:
            return Rejected(Reason.MALFORMED, "the reply lacks a summary")
        instruction, template = self.instruction(ask)
        return Draft(instruction, summary, template=template)

    def check(self, example: Example) -> Rejected | None:
        """Shorter than the passage, in words of it, but neither an extract nor a title of two words."""
        wrong = clean(example) or needs_context(example) or refused(example, example.response)
        if wrong:
            return wrong
        if len(example.response) > LONGEST * len(example.context):
            return Rejected(Reason.TOO_LONG, f"the summary is over {LONGEST:.0%} of its source")
        if len(words(example.response)) < 3:
            return Rejected(Reason.TRIVIAL, "the summary is under three words")
        text = example.response
        if text[-1] in ":：":
            return Rejected(Reason.MALFORMED, "the summary breaks off at a colon")
        return not_copied(text, example, LONGEST_RUN, COPIED) or on_topic(text, example, GROUNDED)

    def grade(self, prediction: str, example: Example) -> float:
        """ROUGE-L against the summary."""
        return rouge_l(prediction, example.response)

    def sample(self, ask: Ask) -> dict[str, str]:
        """Name the passage's longest word as what it is about."""
        return {"summary": f"All about {keyword(ask.document.text)}."}
