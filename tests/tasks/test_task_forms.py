"""Forms of replies a strict reader loses or lets through: chatter around JSON, thoughts, other wordings."""

import json

import pytest

from taskmill.record import Document, Example, Reason, content_id
from taskmill.tasks import get
from taskmill.tasks.base import Attributes, Draft, Rejected
from taskmill.tasks.labels import enumerations, options_in, plain_yes_no
from taskmill.tasks.passage import content
from taskmill.tasks.reply import has_scrap, parse_reply, without_thoughts
from taskmill.tasks.rules import filled_as, question_of, quoted
from taskmill.testing import PASSAGE

QA = ("question", "answer")
ONE = {"question": "Who built the harbour of Lindale?", "answer": "Marta Quist"}
JSON = json.dumps(ONE)
OFFER = "Would you like me to write a question about Lindale?"
PLAIN = "The lamp stands on the pier and shines over the water at night."
LOW = PLAIN.lower()[:-1]


def outcome(task, reply, text=PASSAGE, protocol="bonito", **attributes):
    """Return what becomes of a reply: the Rejected of parsing or of the check, or the Example."""
    kind = get(task)
    ask = kind.ask(Document(content_id(text), text), protocol, seed=1, attributes=Attributes(**attributes))
    (made,) = kind.parse(reply, ask)
    if isinstance(made, Rejected):
        return made
    example = Example("x", task, text, made.instruction, made.response, made.options, made.answer_index)
    return kind.check(example) or example


@pytest.mark.parametrize(
    "reply",
    [
        JSON + "\n\nHope that helps!",
        "Here you go: " + JSON,
        "Sure {smile}! " + JSON,
        f"Here:\n```json\n{JSON}\n```\nAnything else?",
        f"<think>Is {{it}} so? [1]</think>\n{JSON}",
        "[\n  " + JSON + "]\nDone.",
        '{"result": ' + JSON + "}",
        '{"Q": "Who built the harbour of Lindale?", "A": "Marta Quist"}',
        "I think {about it\nQuestion: wrong</think>" + JSON,
        "<thinking>Hm.</thinking>Question: Who built the harbour of Lindale?\nAnswer: Marta Quist",
    ],
)
def test_json_is_found_in_any_surroundings(reply):
    assert parse_reply(reply, QA) == [ONE]
    for task in ("qa", "exqa"):
        made = outcome(task, reply, protocol="chat")
        assert isinstance(made, Example), made
        assert made.response == "Marta Quist"
        assert question_of(made.instruction) == ONE["question"]
    assert outcome("qg", reply, protocol="chat").response == ONE["question"]


def test_objects_in_a_row_are_several_tasks_and_options_may_be_an_object():
    assert parse_reply(f"{JSON}\n{JSON}", QA) == [ONE, ONE]
    (row,) = parse_reply('{"options": {"A": "x", "B": "y"}} ok', ("options", "answer"))
    assert row == {"options": "A) x\nB) y"}


def test_json_of_something_else_is_text():
    assert parse_reply('Question: Who?\nAnswer: {"a": 1}', QA) == [{"question": "Who?", "answer": '{"a": 1}'}]


@pytest.mark.parametrize(
    "reply",
    [
        '{"question": "Who built the harbour of Lindale?", "answer": "Marta Quist",}',
        '{"question": "Who built the harbour of Lindale?", "answer": "Mar',
        "{'question': 'Who built the harbour of Lindale?', 'answer': 'Marta Quist'}",
        'Sure: "question": "Who built the harbour of Lindale?", "answer": "Marta Quist"',
    ],
)
@pytest.mark.parametrize("task", ["qa", "qg", "exqa"])
def test_broken_json_is_malformed(task, reply):
    assert outcome(task, reply, protocol="chat").reason == Reason.MALFORMED


def test_thoughts_go_and_a_thought_without_an_end_is_truncated():
    said = "Lindale has an old harbour for forty boats, and a new museum."
    made = outcome("summarization", f"<think>\nForty boats?\n\nYes.\n</think>\n{said}", protocol="chat")
    assert made.response == said
    for reply in ("<think>Lindale has an old harbour", f"{said}\n<thinking>Is that so"):
        assert outcome("summarization", reply, protocol="chat").reason == Reason.TRUNCATED
    assert outcome("qg", "<think>So.</think>\n ", protocol="chat").reason == Reason.EMPTY_REPLY
    assert without_thoughts("<think>a") is None


def test_form_left_in_a_text_is_rejected_for_every_type_unless_it_is_the_passages():
    asked = "{{context}}\nQuestion: Who built the harbour of Lindale?<|pipe|>"
    assert outcome("qa", asked + "<think>Marta Quist").reason == Reason.MALFORMED
    assert outcome("qa", asked + '{"answer": "Marta Quist"}').reason == Reason.MALFORMED
    code = 'The file holds {"port": 80} and the tag <think> by default.'
    assert has_scrap('{"port": 80}', code) == ""
    assert isinstance(
        outcome("exqa", '{{context}}\nWhat does the file hold?<|pipe|>{"port": 80}', code), Example
    )


REFUSALS = [
    OFFER,
    "I cannot answer this, as the harbour of Lindale is not known to me.",
    "As an AI, I have no view of the harbour of Lindale, do I?",
    "I'm sorry, but the harbour of Lindale is too old for a question?",
    "Could I write about the harbour of Lindale and its western storms?",
]


@pytest.mark.parametrize("text", REFUSALS)
@pytest.mark.parametrize(
    ("task", "form"),
    [
        ("qg", "{{context}}\nAsk.<|pipe|>%s"),
        ("qa", "{{context}}\nQuestion: Who built the harbour?<|pipe|>%s"),
        ("qa", "{{context}}\nQuestion: %s<|pipe|>Marta Quist"),
        ("exqa", "{{context}}\nQuestion: %s<|pipe|>Marta Quist"),
        ("ynqa", "{{context}}\nQuestion: %s<|pipe|>Yes"),
        ("summarization", "{{context}}\nSummarize.<|pipe|>%s"),
        ("sent_comp", "{{context}}\nGo on.<|pipe|>%s"),
        ("paraphrase", "{{context}}\nSay it in other words.<|pipe|>%s"),
        ("text_gen", "{{context}}\nWrite a letter about it.<|pipe|>Dear Lindale, the harbour is fine. %s"),
    ],
)
def test_refusals_and_offers_are_rejected(task, form, text):
    made = outcome(task, form % text)
    assert isinstance(made, Rejected)
    assert task in ("paraphrase", "exqa", "ynqa") or made.reason in (
        Reason.MALFORMED,
        Reason.NOT_A_QUESTION,
    )


def test_the_passages_own_words_are_no_refusal():
    text = "The host came in. “Would you like tea?” she asked the guest, who drank it and left at noon."
    made = outcome(
        "qa", "{{context}}\nQuestion: What did the host ask the guest?<|pipe|>Would you like tea?", text
    )
    assert isinstance(made, Example), made


# wordings of trained generators


def test_a_labelled_line_may_hold_the_passage():
    second = "At night a lamp on the pier lights the water."
    wording = (
        "Sentence 1: {{context}}\nSentence 2: %s\n"
        "Question: Do Sentence 1 and Sentence 2 express the same meaning? Yes or No?<|pipe|>Yes"
    )
    made = outcome("paraphrase_id", wording % second, PLAIN)
    assert isinstance(made, Example), made
    assert filled_as(made, "sentence") == [PLAIN, second]
    below = Example(
        "x", "paraphrase_id", PLAIN, "Sentence 1:\n{{context}}\nSentence 2:\nB b b.\n\nSame?", "Yes"
    )
    assert filled_as(below, "sentence") == [PLAIN, "B b b."]
    assert outcome("paraphrase_id", wording % PLAIN, PLAIN).reason == Reason.COPY
    assert outcome("paraphrase_id", wording % "Trains carry coal.", PLAIN).reason == Reason.UNGROUNDED


def test_the_word_may_stand_in_single_quotes():
    asked = "Does the word 'lamp' have the same meaning in both sentences? Yes or No?\n"
    pair = "Sentence 1: {{context}}\nSentence 2: She bought a lamp for her desk.<|pipe|>Yes"
    assert isinstance(outcome("wsd", asked + pair, PLAIN), Example)
    assert isinstance(
        outcome("wsd", asked + "{{context}}\nShe bought a lamp for her desk.<|pipe|>Yes", PLAIN), Example
    )
    assert outcome("wsd", (asked + pair).replace("a lamp", "a sofa"), PLAIN).reason == Reason.UNGROUNDED
    assert quoted("It's the boat's 'own lamp' isn't it") == ["own lamp"]


@pytest.mark.parametrize(
    ("instruction", "options"),
    [
        ("The options are Company, Building, Artist, Animal.", ("Company", "Building", "Artist", "Animal")),
        ("Pick one. The options are - A b, C d. {{context}}", ("A b", "C d")),
        ("Who?\n(A) Quist (B) the council (C) he\nAnswer:", ("Quist", "the council", "he")),
        ("Who? A. Quist B. the council C. he", ("Quist", "the council", "he")),
        ("Who? A) Quist B) the council C) he", ("Quist", "the council", "he")),
        ("Who?\n(A) Quist (B) the council\n(C) he", ("Quist", "the council", "he")),
        ("Who met A. Quist?", ()),
    ],
)
def test_options_are_read_without_a_colon_and_in_one_line(instruction, options):
    assert options_in(instruction) == options


def test_types_read_those_options():
    made = outcome("topic_class", "{{context}}\nThe options are Company, Building, Animal.<|pipe|>building")
    assert (made.response, made.options) == ("Building", ("Company", "Building", "Animal"))
    wording = "{{context}}\nWhat is the tone? The options are joyful, angry, calm.<|pipe|>calm"
    assert outcome("sentiment", wording).options == ("joyful", "angry", "calm")
    wording = "{{context}}\nAn engineer built it. The options are Yes, No, Maybe.<|pipe|>Yes"
    assert outcome("nli", wording).options == ("Yes", "No", "Maybe")
    for form in ("(A) %s (B) %s (C) %s", "A. %s B. %s C. %s", "A) %s B) %s C) %s"):
        asked = "{{context}}\nQuestion: Who built the harbour of Lindale? "
        made = outcome("mcqa", asked + form % ("Marta Quist", "a fisherman", "he") + "<|pipe|>A")
        assert isinstance(made, Example), made
        assert (made.response, len(made.options)) == ("Marta Quist", 3)
        assert question_of(made.instruction) == "Who built the harbour of Lindale?"


@pytest.mark.parametrize("label", ["Yes/no question", "Yes-no question", "Yes or no question", "Question"])
def test_a_labelled_question_needs_no_question_mark(label):
    made = outcome("ynqa", f"{{{{context}}}}\n{label}: did marta quist build the harbour<|pipe|>Yes")
    assert isinstance(made, Example), made
    assert question_of("Yes/no question: marta quist built it\n{{context}}") == "marta quist built it"


@pytest.mark.parametrize("answer", ["No", "Yes.", "no"])
def test_a_bare_yes_or_no_answers_a_free_question(answer):
    asked = "{{context}}\nQuestion: Did a fisherman build the harbour of Lindale?<|pipe|>"
    assert isinstance(outcome("qa", asked + answer), Example)
    assert outcome("qa", asked.replace("Did a", "Which") + answer).reason == Reason.TRIVIAL


def test_the_arabic_article_is_no_part_of_a_word():
    text = "بنت المهندسة ماريا هولم ميناء ليندال في عام 1874، ويحمي أربعين قارب صيد من عواصف قوية في كل شتاء."
    assert content("الميناء والعواصف") == content("ميناء عواصف")
    made = outcome("exqa", "{{context}}\nسؤال: متى تم بناء الميناء؟<|pipe|>عام 1874", text)
    assert isinstance(made, Example), made


# labels in other languages


@pytest.mark.parametrize(
    ("task", "wording", "response", "options"),
    [
        ("ynqa", "Steht ein Museum in Lindale? Ja oder Nein?", "Ja", ("Ja", "Nein")),
        ("ynqa", "Steht ein Museum in Lindale? Antworte mit Ja oder Nein.", "Nein", ("Ja", "Nein")),
        ("nli", "Est-ce vrai ? Réponds par oui, non ou peut-être.", "peut-être", ("oui", "non", "peut-être")),
        ("nli", "Est-ce vrai ? Réponds par oui, non ou peut-être.", "oui", ("oui", "non", "peut-être")),
        (
            "sentiment",
            "Ist der Text positiv, negativ oder neutral?",
            "positiv",
            ("positiv", "negativ", "neutral"),
        ),
        (
            "sentiment",
            "Ist der Text positiv, negativ oder neutral?",
            "neutral",
            ("positiv", "negativ", "neutral"),
        ),
        ("ynqa", "林达尔有博物馆吗？请回答是还是否。", "是", ("是", "否")),
        ("ynqa", "林达尔有博物馆吗？请回答是还是否。", "否", ("是", "否")),
        ("ynqa", "هل يوجد متحف في ليندال؟ نعم أو لا؟", "نعم", ("نعم", "لا")),
        ("nli", "Is it so? Yes, No or Maybe?", "maybe", ("Yes", "No", "Maybe")),
        ("ynqa", "Is it so? Yes, No or Maybe?", "Maybe", ("Yes", "No", "Maybe")),
        ("ynqa", "Steht ein Museum in Lindale?", "Ja", ("Ja", "Nein")),
        ("te", "Est-ce vrai ?", "non", ("oui", "non")),
        ("nli", "¿Es verdad?", "Sí", ("Sí", "No", "Quizás")),
        ("paraphrase_id", "Это одно и то же?", "нет", ("да", "нет")),
        ("wsd", "意思一样吗？", "否", ("是", "否")),
        ("ynqa", "هل يوجد متحف؟", "لا", ("نعم", "لا")),
    ],
)
def test_the_instructions_own_labels_stay_in_their_language(task, wording, response, options):
    document = Document(content_id(PASSAGE), PASSAGE)
    kind = get(task)
    (draft,) = kind.parse(f"{{{{context}}}}\n{wording}<|pipe|>{response}", kind.ask(document, "bonito"))
    assert isinstance(draft, Draft), draft
    assert draft.options == options
    assert draft.response == draft.options[draft.answer_index]
    assert draft.response.casefold() == response.casefold()
    example = Example("x", task, PASSAGE, draft.instruction, draft.response, options, draft.answer_index)
    assert kind.grade(response, example) == 1
    assert kind.grade(options[draft.answer_index - 1], example) == 0


def test_a_foreign_no_means_no():
    assert [plain_yes_no(word) for word in ("Да", "nein.", "Forse", "port")] == [0, 1, 2, None]
    assert get("ynqa").meaning("Нет") == get("ynqa").meaning("False") == 1
    text = "Das Museum steht seit zehn Jahren in Lindale."
    made = outcome(
        "ynqa", "{{context}}\nFrage: Steht das Museum in Lindale?\nJa oder Nein?<|pipe|>Nein", text
    )
    assert made.reason == Reason.OFF_LABEL
    assert list(enumerations("Is it a boat or a ship?", "a ship")) == [("a boat", "a ship")]


def test_a_free_topic_stays_as_it_is_written():
    free = "{{context}}\nWhat is this text about?<|pipe|>"
    for topic in ("Travel", "Maritime history", "Reisen und Verkehr"):
        made = outcome("topic_class", free + topic)
        assert (made.response, made.options) == (topic, ())
        assert get("topic_class").grade(topic.upper(), made) == 1
        assert get("topic_class").grade("Chess", made) == 0
    assert outcome("topic_class", free + "history").response == "History"
    assert outcome("topic_class", free + "It is about the harbour of Lindale").reason == Reason.OFF_LABEL
    assert outcome("topic_class", free + "the engineer Marta Quist").reason == Reason.COPY
    assert outcome("topic_class", free + "Sorry").reason == Reason.MALFORMED
    named = "{{context}}\nIs this World, Sports, Business or Science?<|pipe|>"
    assert outcome("topic_class", named + "Cooking").reason == Reason.OFF_LABEL
