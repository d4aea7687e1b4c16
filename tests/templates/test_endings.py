"""A chain of thought ends in many ways, and the answer is found in all of them."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.templates.endings import endings, join, parse, triggers

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60).filter(lambda t: t.strip())
CUES = st.sampled_from([e.cue for e in endings()])


@given(TEXT, TEXT, st.integers(0, 2**62))
def test_rationale_and_answer_are_recovered(rationale, answer, number):
    text, name = join(rationale, answer, number)
    assert parse(text) == (rationale, answer, name)


@given(TEXT, CUES, TEXT, TEXT, st.integers(0, 2**62))
def test_a_cue_within_the_rationale_does_no_harm(before, cue, behind, answer, number):
    made = join(f"{before}{cue}{behind}", answer, number)
    assert made is not None
    assert parse(made[0]) == (f"{before}{cue}{behind}", answer, made[1])


@pytest.mark.parametrize("number", range(len(endings())), ids=lambda i: endings()[i].name)
@pytest.mark.parametrize("answer", ["7", "7.5", "Dr.", "(B)", "[x]", "so it is.", "a\nb", "-3", "B) it"])
def test_every_ending_recovers_answers_of_many_shapes(number, answer):
    ending = endings()[number]
    assert parse(ending.join("3 + 4 = 7. So it is 7.", answer)) == (
        "3 + 4 = 7. So it is 7.",
        answer,
        ending.name,
    )


def test_no_ending_is_another_under_a_second_name():
    assert len({(e.cue, e.close) for e in endings()}) == len(endings()) >= 15
    assert len(set(triggers())) == len(triggers()) >= 10


def test_all_endings_are_used():
    drawn = Counter(join("Because.", "9", number)[1] for number in range(len(endings())))
    assert drawn == {e.name: 1 for e in endings()}


def test_an_answer_that_holds_a_cue_is_told_apart_or_refused():
    cue = endings()[0].cue
    made = join("Because.", f"x{cue}y", 0)
    assert made is None or parse(made[0]).answer == f"x{cue}y"


@pytest.mark.parametrize("text", ["", " ", "no ending here", "The answer is", "It ends. The answer is "])
def test_texts_without_an_answer_give_none(text):
    assert parse(text) is None


def test_a_model_may_forget_the_closing_sign_and_add_a_line():
    assert parse("Because. So the answer is 12").answer == "12"
    assert parse("Because. So the answer is 12.\n").answer == "12"
    assert parse("Answer: is what we look for.\nAnswer: 5").answer == "5"
