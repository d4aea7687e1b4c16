"""Hand-written good and bad examples of each task type; a bad one names the reason it must be given."""

import pytest

from taskmill.record import Example, Reason
from taskmill.tasks import get, names
from taskmill.testing import PASSAGE

YES_NO = ("Yes", "No")
NLI = ("Yes", "No", "Maybe")
MOODS = ("positive", "negative", "neutral")
TOPICS = ("History", "Sports", "Law")
QUESTION = "{{context}}\n\nQuestion: Who built the harbour of Lindale?"
QUIZ = ("Marta Quist", "the town council", "a fisherman")
SENTENCE = "It shelters about forty fishing boats from the western storms."
CLAIM = "{{context}}\n\nStatement: An engineer built the harbour of Lindale.\nJudge it: Yes, No or Maybe."
PAIR = "{{context}}\n\nSentence 1: " + SENTENCE + "\nSentence 2: {second}\nDo both mean the same? Yes or No."
SENSE = (
    "{{context}}\n\nWord: {word}\nSentence 1: " + SENTENCE + "\nSentence 2: {second}\nSame sense? Yes or No."
)
PRONOUN = (
    "{{context}}\n\nPronoun: they\nSentence: they cannot leave the coast for weeks\nCopy what it stands for."
)
SHORT = "{{context}}\n\nSummarize this text."
NEXT = "{{context}}\n\nWrite the sentence that comes next."
LOOP = "the old boat in the old boat in the old boat in the old boat in"
PAIR_OK = PAIR.replace("{second}", "About forty boats are safe from storms there.")
SENSE_OK = SENSE.replace("{word}", "storms").replace("{second}", "Two storms broke the old pier last night.")
SENSE_SHORTER = SENSE.replace("{word}", "storms").replace("{second}", "It shelters boats from storms.")
TELL = "Write a passage about the following.\n{topic}"


def example(task, instruction, response, options=(), index=None, context=PASSAGE):
    return Example("x", task, context, instruction, response, options, index)


GOOD = {
    "exqa": [
        (QUESTION, "the engineer Marta Quist"),
        ("Who built the harbour of Lindale?\n\nCopy the answer.\n\n{{context}}", "Marta Quist"),
        ("{{ context }}\nQuestion: Name the engineer of the harbour.", "Marta Quist"),
    ],
    "mcqa": [(QUESTION + "\nA. …", "Marta Quist", QUIZ, 0)],
    "qg": [("{{context}}\nAsk something.", "When was the harbour of Lindale built?")],
    "qa": [(QUESTION, "The harbour was built by an engineer called Quist.")],
    "ynqa": [
        ("{{context}}\nQuestion: Is there a museum in Lindale?", "Yes", YES_NO, 0),
        ("{{context}}\nQuestion: Do the boats leave the harbour in winter?", "Maybe", NLI, 2),
    ],
    "coref": [
        (PRONOUN, "the fishermen"),
        ('{{context}}\nDoes "they" refer to the fishermen? Yes or no?', "Yes", YES_NO, 0),
    ],
    "paraphrase": [(SHORT, "Some forty boats for fishing find shelter from storms out of the west.")],
    "paraphrase_id": [(PAIR_OK, "Yes", YES_NO, 0)],
    "sent_comp": [
        (NEXT, "Last summer the museum had ten thousand visitors."),
        (NEXT, "It closed.", ("It closed.", "He sang."), 0),
    ],
    "sentiment": [("{{context}}\nPositive or negative?", "neutral", MOODS, 2)],
    "summarization": [(SHORT, "Lindale has an old harbour for forty boats, and a new museum.")],
    "text_gen": [
        (TELL.replace("{topic}", "The harbour of Lindale and its fishermen"), PASSAGE),
        (
            "{{context}}\nWrite a letter about it.",
            "Dear Marta, the harbour of Lindale shelters our fishing boats.",
        ),
    ],
    "topic_class": [("{{context}}\nWhich topic?", "History", TOPICS, 0)],
    "wsd": [(SENSE_OK, "Yes", YES_NO, 0)],
    "te": [(CLAIM, "Yes", YES_NO, 0)],
    "nli": [
        (CLAIM, "Yes", NLI, 0),
        ("{{context}}\nStatement: Nobody swims here in October.\nYes, No or Maybe?", "Maybe", NLI, 2),
    ],
}

R = Reason
BAD = {
    "exqa": [
        (R.UNGROUNDED, QUESTION, "Otto Quist"),
        (R.UNGROUNDED, "Question: Who built the harbour?", "Marta Quist"),
        (R.UNGROUNDED, "{{context}}\nQuestion: What is the capital of France?", "Marta Quist"),
        (R.UNGROUNDED, QUESTION, "ind"),
        (R.NOT_A_QUESTION, "{{context}}\nQuestion: The harbour of Lindale.", "Marta Quist"),
        (R.LEAKED_ANSWER, "{{context}}\nQuestion: Who is the engineer Marta Quist?", "Marta Quist"),
        (R.TRIVIAL, "{{context}}\nQuestion: Who?", "Marta Quist"),
        (R.TRIVIAL, QUESTION, "."),
        (R.TOO_LONG, QUESTION, PASSAGE[:200]),
        (R.EMPTY_REPLY, QUESTION, " "),
        (R.MARKER, QUESTION + " <|pipe|>", "Marta Quist"),
        (R.MARKER, QUESTION, "{{ context }}"),
        (R.REPETITIVE, "{{context}}\nQuestion: Who built " + LOOP + "?", "Marta Quist"),
        (R.MALFORMED, "{{context}}{{context}}{{context}}\nWho built the harbour?", "Marta Quist"),
    ],
    "mcqa": [
        (R.BAD_OPTIONS, QUESTION, "Marta Quist", QUIZ[:2], 0),
        (R.BAD_OPTIONS, QUESTION, "Marta Quist", (*QUIZ, "marta quist!"), 0),
        (R.BAD_OPTIONS, QUESTION, "Otto", QUIZ, None),
        (R.BAD_OPTIONS, QUESTION, "Marta Quist", QUIZ, 1),
        (R.LEAKED_ANSWER, "{{context}}\nQuestion: Was it Marta Quist who built it?", "Marta Quist", QUIZ, 0),
        (R.NOT_A_QUESTION, "{{context}}\nThe harbour.", "Marta Quist", QUIZ, 0),
    ],
    "qg": [
        (R.NOT_A_QUESTION, SHORT, "The harbour was built in 1874."),
        (R.UNGROUNDED, SHORT, "What is the capital of France?"),
        (R.TRIVIAL, SHORT, "Why harbour?"),
        (R.COPY, SHORT, PASSAGE.split(".")[1] + ". In winter the fishermen repair their nets?"),
        (R.TOO_LONG, SHORT, "Who " + " ".join(f"w{i}" for i in range(70)) + "?"),
        (R.UNGROUNDED, "Ask.", "Who built the harbour?"),
    ],
    "qa": [
        (R.UNGROUNDED, QUESTION, "Napoleon Bonaparte conquered Egypt quickly."),
        (R.TRIVIAL, QUESTION, "Yes."),
        (R.TRIVIAL, QUESTION, "You ask: who built the harbour of Lindale?"),
        (R.LEAKED_ANSWER, QUESTION, "harbour of Lindale"),
        (R.TOO_LONG, QUESTION, PASSAGE + " The boats of Lindale."),
        (R.NOT_A_QUESTION, "{{context}}\nQuestion: harbour", "Quist"),
    ],
    "ynqa": [
        (R.NOT_A_QUESTION, "{{context}}\nQuestion: Can you explain the harbour?", "Yes", YES_NO, 0),
        (R.NOT_A_QUESTION, QUESTION, "Yes", YES_NO, 0),
        (R.OFF_LABEL, "{{context}}\nQuestion: Is there a museum in Lindale?", "Perhaps", YES_NO, None),
        (R.OFF_LABEL, "{{context}}\nQuestion: Is there a museum in Lindale?", "No", YES_NO, 0),
        (R.OFF_LABEL, "{{context}}\nQuestion: Can visitors watch how a net is tied?", "No", YES_NO, 1),
        (R.BAD_OPTIONS, "{{context}}\nQuestion: Is there a museum in Lindale?", "Yes", ("Yes",), 0),
        (R.UNGROUNDED, "{{context}}\nQuestion: Is Paris in France?", "Yes", YES_NO, 0),
        (R.TRIVIAL, "{{context}}\nQuestion: Is it so?", "Yes", YES_NO, 0),
    ],
    "coref": [
        (R.TRIVIAL, PRONOUN, "because they cannot leave"),
        (R.UNGROUNDED, PRONOUN, "the sailors"),
        (R.TRIVIAL, PRONOUN, "They"),
        (R.TOO_LONG, PRONOUN, "In winter the fishermen repair their nets in the old rope works, because"),
        (R.UNGROUNDED, PRONOUN.replace("they", "him"), "the fishermen"),
        (R.MALFORMED, "{{context}}\nWho is meant?", "the fishermen"),
        (R.OFF_LABEL, '{{context}}\nDoes "they" refer to boats?', "Perhaps", YES_NO, None),
    ],
    "paraphrase": [
        (R.COPY, SHORT, "It shelters fishing boats from the western storm."),
        (R.COPY, SHORT, SENTENCE),
        (R.COPY, SHORT, "forty fishing boats"),
        (R.UNGROUNDED, SHORT, "Trains carry coal across the mountains every day."),
        (R.MALFORMED, SHORT, "Here is a sentence about forty fishing boats from the western storms."),
        (R.MALFORMED, SHORT, "It shelters boats from storms like these forty fishing western:"),
        (R.TRIVIAL, SHORT, "Boats sheltered."),
    ],
    "paraphrase_id": [
        (R.OFF_LABEL, PAIR.replace("{second}", "It shelters boats from the storms."), "No", YES_NO, 1),
        (R.COPY, PAIR.replace("{second}", SENTENCE.upper()), "Yes", YES_NO, 0),
        (R.UNGROUNDED, PAIR.replace("{second}", "Trains carry coal every day."), "No", YES_NO, 1),
        (R.TRIVIAL, PAIR.replace("{second}", "Boats."), "No", YES_NO, 1),
        (R.MALFORMED, PAIR.replace("{second}", "Here is one about forty fishing boats:"), "No", YES_NO, 1),
        (R.OFF_LABEL, PAIR_OK, "Perhaps", YES_NO, None),
    ],
    "sent_comp": [
        (R.COPY, NEXT, "In winter the fishermen repair their nets in the old rope works, because they rest."),
        (R.UNGROUNDED, NEXT, "Trains carry coal across mountains."),
        (R.TRIVIAL, NEXT, "The museum."),
        (R.TOO_LONG, NEXT, " ".join(f"w{i}" for i in range(70))),
        (R.MALFORMED, NEXT, "Here is the next part of the museum story."),
        (R.OFF_LABEL, NEXT, "It opened.", ("It closed.", "He sang."), None),
    ],
    "sentiment": [
        (R.OFF_LABEL, SHORT, "mild", MOODS, None),
        (R.OFF_LABEL, SHORT, "positive", MOODS, 1),
        (R.UNGROUNDED, "Positive or negative?", "positive", MOODS, 0),
        (R.BAD_OPTIONS, SHORT, "positive", (), None),
    ],
    "summarization": [
        (R.TOO_LONG, SHORT, PASSAGE[:250]),
        (R.COPY, SHORT, PASSAGE[110:270]),
        (R.UNGROUNDED, SHORT, "Trains carry coal across the mountains every day."),
        (R.TRIVIAL, SHORT, "The harbour."),
        (R.MALFORMED, SHORT, "The harbour of Lindale shelters:"),
        (R.REPETITIVE, SHORT, "The harbour of Lindale, the harbour of Lindale, the harbour of Lindale."),
    ],
    "text_gen": [
        (R.UNGROUNDED, TELL.replace("{topic}", "Trains in the mountains"), PASSAGE),
        (R.LEAKED_ANSWER, TELL.replace("{topic}", PASSAGE[:200]), PASSAGE),
        (R.LEAKED_ANSWER, "Repeat this.\n{{context}}", PASSAGE),
        (R.TRIVIAL, TELL.replace("{topic}", "The harbour"), "Too short."),
        (R.MARKER, TELL.replace("{topic}", "The harbour of Lindale"), "{{context}}"),
    ],
    "topic_class": [
        (R.OFF_LABEL, SHORT, "Music", TOPICS, None),
        (R.UNGROUNDED, "Which topic?", "History", TOPICS, 0),
        (R.BAD_OPTIONS, SHORT, "History", ("History", "history"), 0),
    ],
    "wsd": [
        (R.COPY, SENSE_SHORTER, "No", YES_NO, 1),
        (R.UNGROUNDED, SENSE_OK.replace("Two storms", "Two waves"), "Yes", YES_NO, 0),
        (R.UNGROUNDED, SENSE_OK.replace("Word: storms", "Word: violin"), "Yes", YES_NO, 0),
        (R.MALFORMED, SHORT, "Yes", YES_NO, 0),
        (R.TRIVIAL, SENSE.replace("{word}", "storms").replace("{second}", "Storms came."), "No", YES_NO, 1),
        (R.COPY, SENSE.replace("{word}", "storms").replace("{second}", SENTENCE.upper()), "No", YES_NO, 1),
        (R.OFF_LABEL, SENSE_OK, "Both", YES_NO, None),
    ],
    "te": [
        (R.OFF_LABEL, CLAIM, "Perhaps", YES_NO, None),
        (R.COPY, CLAIM.replace("An engineer built the harbour of Lindale.", SENTENCE), "No", YES_NO, 1),
        (R.TRIVIAL, "{{context}}\nStatement: Boats.\nYes or No.", "Yes", YES_NO, 0),
        (R.UNGROUNDED, "{{context}}\nClaim: Trains carry coal every day.\nYes or No.", "No", YES_NO, 1),
        (R.MALFORMED, "{{context}}\nStatement: Here are some harbour facts.\nYes or No.", "No", YES_NO, 1),
    ],
    "nli": [
        (R.MALFORMED, "{{context}}\nStatement: harbour … this is true.", "Maybe", NLI, 2),
        (R.OFF_LABEL, CLAIM, "Perhaps so", NLI, None),
        (R.COPY, CLAIM.replace("An engineer built the harbour of Lindale.", SENTENCE), "Maybe", NLI, 2),
        (R.UNGROUNDED, "{{context}}\nClaim: Trains carry coal every day.", "No", NLI, 1),
    ],
}  # fmt: skip


def cases(table):
    return [pytest.param(task, row, id=f"{task}-{i}") for task in table for i, row in enumerate(table[task])]


def test_every_type_has_a_good_and_three_bad_examples():
    assert set(GOOD) == set(BAD) == set(names())
    assert all(len(rows) >= 3 for rows in BAD.values())


@pytest.mark.parametrize(("task", "row"), cases(GOOD))
def test_good_examples_pass_and_grade_themselves_right(task, row):
    kind, good = get(task), example(task, *row)
    assert kind.check(good) is None
    assert kind.grade(good.response, good) == 1.0
    assert kind.grade("zzz zzz zzz", good) < 0.5


@pytest.mark.parametrize(("task", "row"), cases(BAD))
def test_bad_examples_are_rejected_for_their_reason(task, row):
    rejected = get(task).check(example(task, *row[1:]))
    assert rejected is not None
    assert rejected.reason == row[0], rejected.detail
    assert rejected.detail
