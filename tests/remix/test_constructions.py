"""Constructions: what is yielded holds by the rule that made it, and is what the task types accept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.curate.checks import check
from taskmill.record import Example
from taskmill.synthesize.constructions import CONSTRUCTIONS, construct, declared, topic_of
from taskmill.synthesize.declaration import Declaration
from taskmill.synthesize.remix import Remix, window
from taskmill.synthesize.rewriting import Row, cased, denied, retold, turned
from taskmill.tasks.passage import sentences

HARBOUR = (
    "In 1902, the harbour of Tarn was opened to large ships. Because the old pier was too short, the town "
    "built a second one in order to serve the ferries. The ferry company employs approximately 40 people. "
    "After the storm of 1953, the eastern wall was rebuilt in concrete. Visitors usually arrive by train. "
    "The lighthouse on the northern cape was built by the engineer Ida Holm. Its lamp can be seen from the "
    "islands. Fishing boats leave the harbour early in the morning when the tide allows it."
)


def row(text=HARBOUR, seed=0, **columns):
    return Row(text, columns, seed, "row")


def test_a_fronted_phrase_moves_to_the_end_and_back():
    assert turned("In 1902, the harbour of Tarn was opened to large ships.", HARBOUR) == (
        "The harbour of Tarn was opened to large ships in 1902."
    )
    assert turned("The boats leave the harbour every day when the tide allows it.", "") == (
        "When the tide allows it, the boats leave the harbour every day."
    )
    assert turned("In addition, the harbour was opened to large ships.", "") == ""
    assert turned("Tarn has a harbour.", "") == ""


def test_a_name_keeps_its_capital_when_it_moves():
    text = "Tarn lies by the sea. Many boats stay in Tarn."
    moved = turned("Tarn sends out no boats at all when the storm is near.", text)
    assert moved == "When the storm is near, Tarn sends out no boats at all."


@pytest.mark.parametrize("seed", range(12))
def test_a_denied_sentence_differs_in_one_place_only(seed):
    sentence = "The eastern wall was rebuilt in 1953."
    changed = denied(sentence, row(seed=seed))
    assert changed
    assert changed != sentence
    before, after = sentence.split(), changed.split()
    assert len(set(before) ^ set(after)) in (1, 2)


def test_a_sentence_that_denies_already_is_not_denied_by_not():
    assert denied("Nobody was ever not there.", row()) == ""


def test_a_question_with_its_answer_becomes_a_statement():
    assert declared("Who built the lighthouse?", "Ida Holm") == ""  # "built" opens no known pattern
    assert declared("Who designed the lighthouse?", "Ida Holm") == "Ida Holm designed the lighthouse."
    assert (
        declared("What is the name of the engineer?", "Ida Holm") == "The name of the engineer is Ida Holm."
    )
    assert declared("What was the pier used for?", "ferries") == ""
    assert declared("When was it built?", "1902") == ""
    assert declared("Who designed it?", "it was Ida Holm") == ""


def test_topics_need_words_that_speak_clearly():
    assert topic_of("The team won the league cup in the last season of the tournament.") == "Sports"
    assert topic_of("A day like any other.") == ""
    assert topic_of("The team played music. The band and the singer won the cup and the league match.") == ""


def test_names_get_the_capitals_of_the_passage():
    assert cased("is tarn in norway?", "The town of Tarn is in Norway.") == "is Tarn in Norway?"
    assert cased("is the day long?", "Day and night. The day is long.") == "is the day long?"


@given(st.integers(0, 10**6))
def test_every_cast_is_accepted_or_says_why(seed):
    rowed = row(seed=seed, question="is there a second pier", title="Pier", answer=True, siblings=[])
    for name in set(CONSTRUCTIONS) - {"senses", "answered", "choices"}:
        for cast in construct(name, rowed):
            assert cast.response
            assert cast.task
            assert cast.passage
            if cast.task == "sent_comp":
                assert cast.passage in HARBOUR
                assert cast.response not in cast.passage
            if cast.how == "later sentence":
                assert cast.slots["statement"] not in cast.passage


def test_sense_pairs_need_a_use_that_fits_and_compare_by_definition():
    uses = [
        {
            "word": "bank",
            "context": "He sat on the bank of a river",
            "sense": "land by water",
            "fits": True,
        },
        {"word": "bank", "context": "They walked along the bank", "sense": "land by water", "fits": True},
        {"word": "bank", "context": "The bank gave her a loan", "sense": "land by water", "fits": False},
    ]
    made = set()
    for seed in range(20):
        own = Row(uses[0]["context"], {**uses[0], "word": "bank", "siblings": uses}, seed, "x")
        (cast,) = construct("senses", own)
        made.add((cast.slots["second"], cast.response in ("Yes", "True")))
    assert made == {("They walked along the bank.", True), ("The bank gave her a loan.", False)}
    others = [
        {"word": "well", "context": f"All is well in town {i}", "sense": "", "fits": True} for i in range(9)
    ]
    for seed in range(20):
        own = Row(uses[0]["context"], {**uses[0], "siblings": uses + others}, seed, "x")
        (cast,) = construct("senses", own)
        assert cast.slots["first"] in cast.passage  # one sentence among those of other words
        assert "along the bank" not in cast.passage
    unfit = Row(uses[2]["context"], {**uses[2], "word": "bank", "siblings": uses}, 0, "x")
    assert list(construct("senses", unfit)) == []


def test_choices_take_other_answers_of_the_text_and_keep_the_right_one():
    columns = {
        "question": "Who built it?",
        "answer": "Ida Holm",
        "siblings": ["Ida Holm", "a", "b c", "the storm", "1902"],
    }
    (cast,) = construct("choices", row(**columns))
    assert cast.response == "Ida Holm"
    assert sum("Ida Holm" in line for line in cast.slots["options"].split("\n")) == 1
    assert list(construct("choices", row(**{**columns, "siblings": ["Ida Holm", "a"]}))) == []


@given(st.integers(60, 600), st.integers(0, 700), st.integers(0, 5))
def test_a_window_is_whole_sentences_around_the_place(size, at, turn):
    found = window(HARBOUR, size, at, turn)
    assert found in HARBOUR
    assert all(s in sentences(HARBOUR) for s in sentences(found))
    if len(sentences(found)) > 1:
        assert len(found) <= size
    if at < len(HARBOUR):
        hit = next(s for s in sentences(HARBOUR) if HARBOUR.index(s) + len(s) > at)
        assert hit in found


def test_rows_of_text_give_examples_that_pass_their_own_checks():
    declaration = Declaration(
        "harbour",
        ("x.jsonl",),
        "{{ text }}",
        "MIT",
        construct=("statements", "paraphrases", "next_sentence", "neutral"),
    )
    made = list(Remix(declaration, 0).examples({"text": HARBOUR}, 0, "x.jsonl"))
    kept = [e for e in made if isinstance(e, Example)]
    assert {e.task for e in kept} >= {"nli", "te", "paraphrase", "paraphrase_id", "sent_comp", "sentiment"}
    assert sum(check(e) is None for e in kept) >= 0.8 * len(kept)


def test_a_retold_sentence_is_another_sentence():
    for sentence in sentences(HARBOUR):
        said = retold(sentence, row())
        assert said != sentence


def test_statements_and_pairs_are_short():
    long = "The harbour, which was opened in 1902 by Ida Holm and the whole town, is now an important place"
    passage = f"{long} for the fishing boats of the western coast. The harbour is a good place for boats."
    for seed in range(30):
        own = Row(passage, {}, seed, "x")
        for name in ("statements", "paraphrases"):
            for cast in construct(name, own):
                said = cast.slots.get("statement") or cast.slots.get("first") or cast.slots["sentence"]
                assert len(said.split()) <= (15 if "statement" in cast.slots else 24)
