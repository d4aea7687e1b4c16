"""Topic classification: which of some topics the passage is about."""

from __future__ import annotations

from collections.abc import Mapping

from taskmill.record import Document, Example, Reason
from taskmill.tasks.base import Ask, Attributes, Draft, Rejected
from taskmill.tasks.labels import choose, fold, options_in
from taskmill.tasks.passage import joined, words
from taskmill.tasks.rules import clean, needs_context, refused
from taskmill.tasks.sentiment import Sentiment

__all__ = ["TopicClassification"]

LONGEST = 5  # words of a free label; chosen: more is a statement
LONGEST_RUN = 2  # words of a free label that may stand in a row in the passage; chosen: more is a copy


class TopicClassification(Sentiment):
    """The topic of the passage, said by the model. The default topics belong to no domain; bring your own."""

    name = "topic_class"
    title = "topic classification"
    parts = ("topic",)
    labels = (
        "Science",
        "Technology",
        "Health",
        "Business",
        "Law and Politics",
        "History",
        "Arts and Culture",
        "Sports",
        "Nature",
        "Everyday Life",
    )
    meanings = (
        ("Science", "mathematics", "physics", "chemistry", "biology", "scientific"),
        ("Technology", "computing", "computer science", "programming", "software",
         "engineering", "tech", "science and technology"),
        ("Health", "medicine", "medical", "healthcare"),
        ("Business", "economy", "finance", "economics", "commerce"),
        ("Law and Politics", "law", "politics", "government", "legal", "world"),
        ("History", "historical"),
        ("Arts and Culture", "arts", "culture", "art", "entertainment", "literature", "music", "film"),
        ("Sports", "sport", "games"),
        ("Nature", "environment", "geography", "animals", "plants"),
        ("Everyday Life", "lifestyle", "daily life", "society", "travel", "food", "education"),
    )  # fmt: skip
    surfaces = (labels,)

    def aim(
        self, document: Document, seed: int, sample: int, attributes: Attributes
    ) -> Mapping[str, str] | Rejected:
        """Name the user's labels; without them the generator finds some that suit the passage."""
        return super().aim(document, seed, sample, attributes) if attributes.labels else {}

    def read(self, instruction: str, response: str, ask: Ask) -> Draft | Rejected:
        """Where a free-form instruction names no topics, the reply is a label of its own and stays."""
        labels = ask.attributes.labels or self.named_labels(instruction, response)
        if not labels:
            listed = options_in(instruction)
            # "topic or theme" names no topics; three things in a row do.
            labels = listed if len(listed) > 2 else ()
        if (
            not labels
            and choose(response, self.labels) is not None
            and fold(response) in map(fold, self.labels)
        ):
            labels = self.labels
        return (
            self.placed(instruction, response, labels)
            if labels
            else Draft(instruction, response, template="model")
        )

    def check(self, example: Example) -> Rejected | None:
        """The response is one of the labels; without labels, a few words that are no copy of the passage."""
        if example.options or example.answer_index is not None:
            return super().check(example)
        wrong = clean(example) or needs_context(example) or refused(example, example.response)
        if wrong:
            return wrong
        length = len(words(example.response))
        if length > LONGEST:
            return Rejected(Reason.OFF_LABEL, f"{example.response[:40]!r} is longer than a topic")
        if joined(example.response) in joined(example.context) and (
            length > LONGEST_RUN or length == len(words(example.context))
        ):
            return Rejected(Reason.COPY, f"{example.response[:40]!r} is copied from the passage")
        return None

    def grade(self, prediction: str, example: Example) -> float:
        """Accuracy: 1.0 if the prediction states the right label; a free label must be the same words."""
        if example.options:
            return super().grade(prediction, example)
        return float(fold(prediction) == fold(example.response))
