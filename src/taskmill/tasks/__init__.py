"""The task types: one file each; a third party adds one through the entry-point group `taskmill.plugins`.

A plug-in registers an instance in `TASKS` and its words with `taskmill.templates.words.register`.
"""

from __future__ import annotations

from taskmill.errors import UnknownName
from taskmill.registry import Registry
from taskmill.tasks.base import TaskType

__all__ = ["TASKS", "TaskType", "get", "names"]

TASKS: Registry[TaskType | type[TaskType]] = Registry(
    "task type",
    {
        "exqa": "taskmill.tasks.exqa:ExtractiveQA",
        "mcqa": "taskmill.tasks.mcqa:MultipleChoiceQA",
        "qg": "taskmill.tasks.qg:QuestionGeneration",
        "qa": "taskmill.tasks.qa:QuestionAnswering",
        "ynqa": "taskmill.tasks.ynqa:YesNoQA",
        "coref": "taskmill.tasks.coref:Coreference",
        "paraphrase": "taskmill.tasks.paraphrase:Paraphrase",
        "paraphrase_id": "taskmill.tasks.paraphrase_id:ParaphraseIdentification",
        "sent_comp": "taskmill.tasks.sent_comp:SentenceCompletion",
        "sentiment": "taskmill.tasks.sentiment:Sentiment",
        "summarization": "taskmill.tasks.summarization:Summarization",
        "text_gen": "taskmill.tasks.text_gen:TextGeneration",
        "topic_class": "taskmill.tasks.topic_class:TopicClassification",
        "wsd": "taskmill.tasks.wsd:WordSense",
        "te": "taskmill.tasks.te:TextualEntailment",
        "nli": "taskmill.tasks.nli:NaturalLanguageInference",
    },
)


def names() -> list[str]:
    """Return the short names of all task types."""
    return TASKS.names()


def get(name: str) -> TaskType:
    """Return the task type of a short or full name ("exqa", "extractive question answering")."""
    wanted = name.strip()
    try:
        return _instance(wanted)
    except UnknownName:
        folded = wanted.casefold().replace("_", " ")
        for known in TASKS.names():
            if folded in (known.replace("_", " "), _instance(known).title.casefold()):
                return _instance(known)
        raise


def _instance(name: str) -> TaskType:
    entry = TASKS.get(name)
    if not isinstance(entry, type):
        return entry
    # One instance per type: a task type holds no state of its own.
    if entry not in _instances:
        _instances[entry] = entry()
    return _instances[entry]


_instances: dict[type[TaskType], TaskType] = {}
