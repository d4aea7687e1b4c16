"""Replies in every form, the Bonito wire byte for byte, repairs, and properties on arbitrary text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill.record import Document, Example, Reason, content_id
from taskmill.render import escape, unescape
from taskmill.tasks import get, names
from taskmill.tasks.base import Ask, Attributes, Draft, Rejected
from taskmill.tasks.reply import first_line, parse_reply
from taskmill.testing import GARBAGE, HOSTILE, PASSAGE

QA = ("question", "answer")
DOCUMENT = Document(content_id(PASSAGE), PASSAGE)


def wire(task, reply, text=PASSAGE, **attributes):
    ask = get(task).ask(Document(content_id(text), text), "bonito", attributes=Attributes(**attributes))
    (outcome,) = get(task).parse(reply, ask)
    return outcome


def chat(task, reply, **attributes):
    ask = get(task).ask(DOCUMENT, seed=1, attributes=Attributes(**attributes))
    assert isinstance(ask, Ask)
    return get(task).parse(reply, ask)


@pytest.mark.parametrize(
    "reply",
    [
        "Question: Who?\nAnswer: Quist",
        "question : Who?\n\n**Answer:** Quist",
        "Who?\nAnswer: Quist",
        "Here is one:\n\nQuestion: Who?\nAnswer: Quist",
        "```\nQuestion: Who?\nAnswer: Quist\n```\nHope this helps!",
        "Q: Who?\nA: Quist",
        "1. Question 1: Who?\n   Answer 1: Quist",
        '{"Question": "Who?", "answer": "Quist"}',
        '```json\n[{"question": "Who?", "answer": "Quist"}]\n```',
        '{"tasks": [{"question": "Who?", "answer": "Quist"}]}',
        "Question：Who?\nAnswer：Quist",
    ],
)
def test_one_task_is_read_from_any_form(reply):
    assert parse_reply(reply, QA) == [{"question": "Who?", "answer": "Quist"}]


def test_several_tasks_are_split_at_the_first_label_or_at_numbers():
    two = [{"question": "A?", "answer": "1"}, {"question": "B?", "answer": "2"}]
    assert parse_reply("Question: A?\nAnswer: 1\n\nQuestion: B?\nAnswer: 2", QA) == two
    assert parse_reply("1. First one\n2. Second one", ("summary",)) == [
        {"summary": "First one"},
        {"summary": "Second one"},
    ]
    assert parse_reply("Two summaries:\n1. First\n2. Second", ("summary",))[0] == {"summary": "First"}


def test_count_bounds_the_tasks_read_from_one_reply():
    reply = "\n".join(f"Question: Is boat {i} safe?\nAnswer: Yes" for i in range(5))
    assert len(chat("ynqa", reply, count=3)) == 3
    assert len(chat("ynqa", reply)) == 1


def test_a_first_line_loses_markdown_and_introductions():
    assert first_line("Here you go:\n\n**The boats.**\nMore.") == "The boats."
    assert first_line('"Quoted."') == "Quoted."
    assert first_line("…\nText") == "Text"
    assert first_line("") == ""


def test_the_wire_prompt_is_bonito_v1_byte_for_byte():
    ask = get("nli").ask(Document("d", "  A list can change. \n"), "bonito")
    assert ask.prompt == (
        "<|tasktype|>\nnatural language inference\n<|context|>\nA list can change.\n<|task|>\n"
    )
    assert ask.messages == ()


def test_a_wire_reply_is_split_at_its_only_pipe():
    draft = wire("exqa", "{{context}}\nWho built the harbour?\n<|pipe|>\n marta quist ")
    assert draft.instruction == "{{context}}\nWho built the harbour?"
    assert draft.response == "Marta Quist"
    assert draft.raw == {"response": "marta quist"}
    assert wire("exqa", "no pipe").reason == Reason.MALFORMED
    assert wire("exqa", "a <|pipe|> b <|pipe|> c").reason == Reason.MALFORMED
    assert wire("exqa", "a <|pipe|>  ").reason == Reason.EMPTY_REPLY
    assert wire("exqa", "<|task|> a <|pipe|> b").reason == Reason.MARKER
    assert wire("exqa", " \n").reason == Reason.EMPTY_REPLY


def test_the_placeholder_is_respelled_put_back_and_resolved_in_reversed_types():
    draft = wire("exqa", "{{  context }} Who built it?<|pipe|>Marta Quist")
    assert draft.instruction.startswith("{{context}}")
    assert draft.raw["instruction"].startswith("{{  context }}")
    pasted = wire("exqa", PASSAGE + "\nWho built it?<|pipe|>Marta Quist")
    assert pasted.instruction == "{{context}}\nWho built it?"
    reversed_ = wire("text_gen", "Write about the harbour of Lindale.<|pipe|>{{ context }}")
    assert reversed_.response == PASSAGE


@pytest.mark.parametrize(
    ("task", "instruction", "response", "options", "label"),
    [
        (
            "nli",
            "{{context}} So: x. True, False, or Inconclusive?",
            "inconclusive",
            ("True", "False", "Inconclusive"),
            "Inconclusive",
        ),
        (
            "nli",
            "{{context}} Entailment, contradiction or neutral?",
            "Neutral",
            ("Entailment", "Contradiction", "Neutral"),
            "Neutral",
        ),
        ("nli", "{{context}} Is it so? Yes, no, or maybe?", "Maybe.", ("Yes", "No", "Maybe"), "Maybe"),
        ("te", "{{context}} Does it follow?", "entailed", ("Entailed", "Not entailed"), "Entailed"),
        ("ynqa", "{{context}} Is it? True or false?", "False", ("True", "False"), "False"),
        ("sentiment", "{{context}} Is the review good or bad?", "bad", ("good", "bad"), "bad"),
        (
            "paraphrase_id",
            "Not duplicates or duplicates? {{context}}",
            "Not duplicates",
            ("duplicates", "not duplicates"),
            "not duplicates",
        ),
        (
            "topic_class",
            "{{context}} World, Sports, Business or Science?",
            "Sports",
            ("World", "Sports", "Business", "Science"),
            "Sports",
        ),
        ("coref", '{{context}} Does "they" mean boats? Yes or no?', "no", ("Yes", "No"), "No"),
        (
            "mcqa",
            "{{context}} Who?\nA. Quist\nB. the council\nC. he",
            "B",
            ("Quist", "the council", "he"),
            "the council",
        ),
        (
            "mcqa",
            "{{context}} Who?\n- Quist\n- the council\n- he",
            "he",
            ("Quist", "the council", "he"),
            "he",
        ),
        (
            "sent_comp",
            "{{context}} Which ending?\n- It closed.\n- He sang.",
            "it closed",
            ("It closed.", "He sang."),
            "It closed.",
        ),
    ],
)
def test_options_are_read_from_free_instructions(task, instruction, response, options, label):
    draft = wire(task, f"{instruction}<|pipe|>{response}")
    assert isinstance(draft, Draft)
    assert draft.options == options
    assert draft.response == draft.options[draft.answer_index] == label


def test_user_labels_override_and_strangers_are_off_label():
    labels = ("relevant", "irrelevant")
    assert wire("ynqa", "{{context}} So?<|pipe|>Irrelevant", labels=labels).options == labels
    assert wire("topic_class", "{{context}} So?<|pipe|>purple", labels=labels).reason == Reason.OFF_LABEL
    (draft,) = chat("topic_class", "Topic: Fish.", labels=("fish", "boats"))
    assert (draft.response, draft.raw) == ("fish", {"response": "Fish."})


def test_a_question_without_an_answer_takes_the_sentence_that_holds_it():
    (draft,) = chat("exqa", "Question: Who built the harbour of Lindale?\nAnswer: …")
    assert draft.response == "The harbour of Lindale was built in 1874 by the engineer Marta Quist."
    (rejected,) = chat("exqa", "Question: Who painted ceilings?")
    assert rejected.reason == Reason.MALFORMED


def test_the_same_seed_draws_the_same_and_samples_differ():
    for name in names():
        asks = [get(name).ask(DOCUMENT, seed=3, sample=s) for s in (0, 0, 1)]
        assert asks[0] == asks[1]
    drawn = {get("paraphrase").ask(DOCUMENT, seed=3, sample=s).fields["sentence"] for s in range(4)}
    assert len(drawn) == 4


def test_options_are_shuffled_with_the_right_one():
    places = set()
    for seed in range(12):
        ask = get("mcqa").ask(DOCUMENT, seed=seed)
        (draft,) = get("mcqa").parse(
            "Question: Who?\nOptions:\nA) Quist\nB) he\nC) she\nAnswer: A) Quist", ask
        )
        assert draft.options[draft.answer_index] == draft.response == "Quist"
        places.add(draft.answer_index)
    assert places == {0, 1, 2}


TEXT = (
    st.text(max_size=200)
    | st.sampled_from(GARBAGE)
    | st.lists(
        st.sampled_from(
            [
                "Question: ",
                "Answer: ",
                "\n",
                "<|pipe|>",
                "{{context}}",
                "Yes",
                "?",
                "A) ",
                "```",
                "{",
                "}",
                "Quist ",
            ]
        ),
        max_size=12,
    ).map("".join)
)


@pytest.mark.parametrize("name", names())
@settings(max_examples=25, deadline=None)
@given(
    reply=TEXT, passage=st.sampled_from((PASSAGE, *HOSTILE[:8])) | st.text(max_size=80), wired=st.booleans()
)
def test_parse_check_and_grade_never_raise(name, reply, passage, wired):
    kind = get(name)
    ask = kind.ask(Document(content_id(passage), passage), "bonito" if wired else "chat")
    if isinstance(ask, Rejected):
        return
    for outcome in kind.parse(reply, ask):
        if isinstance(outcome, Draft):
            made = Example(
                "x",
                name,
                passage.strip(),
                outcome.instruction,
                outcome.response,
                outcome.options,
                outcome.answer_index,
            )
            assert kind.check(made) is None or kind.check(made).reason in Reason
            assert 0 <= kind.grade(reply, made) <= 1


@given(st.text() | st.sampled_from(HOSTILE[:8]) | st.sampled_from(GARBAGE))
def test_escaping_is_reversible(text):
    assert unescape(escape(text)) == text
