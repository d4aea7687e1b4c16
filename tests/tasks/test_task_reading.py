"""Passages, labels and metrics: hand-computed numbers, other scripts, properties, published oracles."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill.record import Document
from taskmill.tasks import passage as p
from taskmill.tasks import rules
from taskmill.tasks.labels import choose, enumerate_labels, options_in
from taskmill.tasks.metrics import exact_match, rouge_l, squad_f1, squad_normalise
from taskmill.tasks.nli import NaturalLanguageInference as NLI
from taskmill.testing import PASSAGE


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Dr. Quist built it, e.g. the pier. It stands! Does it?", 3),
        ("It costs 3.5 crowns. Cheap.", 2),
        ("港口建于1874年。它保护渔船！真的吗？是", 4),
        ("العواصف قوية. هل يزوره الناس؟ نعم", 3),
        ("नमस्ते दुनिया। यह एक वाक्य है।", 2),
        ("one\n\ntwo", 2),
        ("", 0),
    ],
)
def test_sentences_end_as_their_script_ends_them(text, count):
    found = p.sentences(text)
    assert len(found) == count
    assert all(s in text for s in found)


def test_words_do_not_need_spaces_and_keep_vowel_signs():
    assert p.words("Don't stop, Zoë_1!") == ("don", "t", "stop", "zoë_1")
    assert p.words("修补渔网") == ("修", "补", "渔", "网")
    assert p.words("नमस्ते दुनिया।") == ("नमस्ते", "दुनिया")


@pytest.mark.parametrize(
    ("answer", "span"),
    [
        ("Marta Quist", "Marta Quist"),
        ("the engineer marta quist.", "the engineer Marta Quist"),
        ("“western   storms”", "western storms"),
        ("`1874`", "1874"),
        ("works because they", "works, because they"),
        ("ind", None),
        ("Quist Marta", None),
        ("", None),
        ("?!", None),
    ],
)
def test_a_span_is_snapped_over_case_space_and_punctuation(answer, span):
    assert p.snap_span(answer, PASSAGE) == span


def test_a_span_is_found_by_whole_words_only_and_in_unspaced_scripts():
    assert p.find_span("it", "The pit. It is it.") == (15, 17)
    assert p.find_span("渔船", "它保护渔船。") == (3, 5)
    assert p.snap_span("保护 渔船", "它保护渔船。") == "保护渔船"


@given(st.text(max_size=60), st.text(max_size=200))
def test_a_snapped_span_is_always_a_substring(answer, text):
    span = p.snap_span(answer, text)
    assert span is None or span in text


@given(st.text(max_size=300))
def test_reading_never_raises_and_sentences_are_substrings(text):
    assert all(s in text for s in p.sentences(text))
    p.keyword(text), p.content(text), p.copied(text, text), p.is_english(Document("d", text))
    assert 0 <= p.share(text, text) <= 1


def test_a_long_passage_takes_linear_time():
    long = "He said it would hold; they said it would not. " * 20_000
    started = time.process_time()  # of this process alone: neighbours do not count
    p.snap_span("they said that it would", long)
    p.sentences(long)
    rules.repeats(long)
    assert time.process_time() - started < 20, "quadratic, it would take an hour"


def test_copied_runs_and_shares():
    assert p.copied("a b c d e x", "z a b c d e") == (5, 2 / 3)
    assert p.copied("a b c", "a b c") == (0, 0.0)


def test_the_answering_sentence_holds_most_of_what_is_asked():
    assert p.answer_sentence("When did the town council open a museum?", PASSAGE).startswith(
        "The town council"
    )
    assert p.answer_sentence("Who painted the ceiling?", PASSAGE) == ""
    assert p.nearest_sentence("It shelters forty fishing boats from the western storms.", PASSAGE).startswith(
        "It"
    )


@pytest.mark.parametrize(
    ("question", "is_one"),
    [
        ("Who built it?", True),
        ("谁建了港口？", True),
        ("هل يزوره الناس؟", True),
        ("Γιατί έδωσε συνέντευξη;", True),
        ("การป้องกันคืออะไร", True),
        ("what is it", True),
        ("In which year was it built", True),
        ("Is it old", True),
        ("The harbour is old.", False),
        ("wait; then", False),
        ("", False),
    ],
)
def test_questions_are_known_in_any_script(question, is_one):
    assert rules.is_question(question) is is_one


def test_the_question_is_found_among_other_lines():
    assert rules.question_of("{{context}}\nQuestion: Name the engineer.\nBe short.") == "Name the engineer."
    assert rules.question_of("{{context}}\nBe short. Who built it? Thanks.") == "Who built it?"
    assert rules.question_of("{{context}}\nQuestion: the harbour") == ""
    assert rules.first_question('Sure!\n1. "Who built it?" Marta Quist did.') == (
        "Who built it?",
        "Marta Quist did.",
    )


@pytest.mark.parametrize(
    ("reply", "index"),
    [
        ("Yes", 0),
        ("**no**.", 1),
        ("Yes, because it is said.", 0),
        ("The answer is maybe", 2),
        ("ENTAILMENT", 0),
        ("false", 1),
        ("It is inconclusive here", 2),
        ("Yes, No or Maybe", None),
        ("It is not true", None),
        ("purple", None),
        ("", None),
    ],
)
def test_a_reply_is_read_as_a_label(reply, index):
    assert choose(reply, ("Yes", "No", "Maybe"), NLI.meanings) == index


@given(
    st.sampled_from([label for surface in NLI.surfaces for label in surface]), st.sampled_from(NLI.surfaces)
)
def test_label_reading_is_idempotent(said, labels):
    index = choose(said, labels, NLI.meanings)
    if index is not None:
        assert choose(labels[index], labels, NLI.meanings) == index


def test_the_longer_label_wins_and_options_are_listed():
    labels = ("equivalent", "not equivalent")
    assert choose("Not equivalent, I think", labels) == 1
    assert options_in("Options: red, green; blue") == ("red", "green", "blue")
    assert options_in("Say red, green or blue?") == ("Say red", "green", "blue")
    assert enumerate_labels(("a", "b", "c")) == "a, b or c"


def test_squad_numbers_by_hand():
    assert squad_normalise("The  Cat's, a hat!") == "cats hat"
    assert exact_match("the cat", ["Cat."]) == 1
    assert squad_f1("the black cat sat", ["cat sat down"]) == pytest.approx(2 / 3)
    assert squad_f1("cat", ["dog", "a cat"]) == 1
    assert squad_f1("", ["cat"]) == 0
    assert squad_f1("渔船", ["渔网"]) == 0.5


def test_rouge_l_by_hand():
    # Longest common subsequence "the cat the mat" of 6 and 7 tokens.
    assert rouge_l("the cat sat on the mat", "the cat was lying near the mat") == pytest.approx(8 / 13)
    assert rouge_l("same words", "same words") == 1
    assert rouge_l("", "words") == 0
    assert rouge_l("修补渔网", "修补旧网") == 0.75


@settings(deadline=None)  # the package is slow to load
@given(st.text("abc ,.", max_size=40), st.text("abc ,.", max_size=40))
def test_rouge_l_agrees_with_the_reference_package(a, b):
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    assert rouge_l(a, b) == pytest.approx(scorer.score(b, a)["rougeL"].fmeasure)
