"""Topic classification: which of some topics the passage is about."""

from __future__ import annotations

from taskmill.tasks.sentiment import Sentiment

__all__ = ["TopicClassification"]


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
