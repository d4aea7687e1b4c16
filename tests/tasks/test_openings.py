"""Replies that are begun for a trained generator: put together again they are whole."""

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.calls import Completion, Sampling, request
from taskmill.record import Document, Example, Reason, content_id
from taskmill.render import PIPE_MARKER
from taskmill.synthesize.bonito import Synthesis, examples, pose, respond, written
from taskmill.tasks import TASKS, get
from taskmill.tasks.base import Ask, Attributes, Rejected
from taskmill.tasks.passage import draw_sentence, span_grammar, turned_start
from taskmill.tasks.passage import words as words_of
from taskmill.templates import words
from taskmill.testing import PASSAGE

DOCUMENT = Document(content_id(PASSAGE), PASSAGE)


def begun(task, sample=0, **more):
    ask = get(task).ask(DOCUMENT, "bonito-attributes", sample=sample, attributes=Attributes(**more))
    assert isinstance(ask, Ask)
    return ask


def reply(ask, text, finish="stop"):
    return written(ask, Completion("key", text, finish))


@pytest.mark.parametrize("task", TASKS.names())
def test_the_prompt_ends_with_the_opening_and_the_wordings_take_turns(task):
    seen = set()
    for sample in range(40):
        ask = begun(task, sample)
        assert ask.prompt.endswith("<|task|>\n" + ask.opening.rstrip(" "))
        assert "\x1e" not in ask.prompt + ask.closing
        seen.add(ask.template)
    assert len(seen) >= 5  # of seven to ten wordings; two of wsd hide the word
    assert all(name.startswith(f"{task}/") and "#" in name for name in seen)


@pytest.mark.parametrize("settings", [{"guided": False}, {"count": 3}, {"language": "German"}])
def test_nothing_is_begun_unasked(settings):
    for task in TASKS.names():
        ask = begun(task, **settings)
        assert (ask.opening, ask.closing, ask.stop) == ("", "", ())


@pytest.mark.parametrize(("text", "finish"), [(" Who built it?\nmore", "stop"), ("Who built it?", "stop")])
def test_a_label_task_ends_with_the_wording_and_the_drawn_label(text, finish):
    ask = begun("ynqa")
    instruction, _, label = reply(ask, text, finish).partition(f"\n{PIPE_MARKER}\n")
    assert "Who built it?" in instruction
    assert "more" not in instruction
    assert label == ask.fields["label"]
    assert "{{context}}" in instruction


def test_a_reply_that_was_cut_off_is_not_closed():
    ask = begun("ynqa")
    assert reply(ask, " Who built", "length") == ask.opening.rstrip(" ") + " Who built"


@given(st.integers(0, 60), st.sampled_from(["exqa", "qa", "text_gen"]))
def test_every_wording_reads_as_if_the_model_had_written_all_of_it(sample, task):
    ask = begun(task, sample)
    slots = {"question": "Who built it?", "topic": "The harbour"}
    whole, _ = words.instruction(task, 0, slots)
    for choice in range(12):
        text, _ = words.instruction(task, choice, slots)
        if text.startswith(ask.opening):
            whole = text
    tail = whole.removeprefix(ask.opening)
    space = " " if ask.opening.endswith(" ") else ""
    assert reply(ask, space + tail) == whole


def test_what_is_known_stands_in_the_instruction():
    coref = begun("coref")
    assert coref.fields["sentence"] in coref.opening
    assert coref.opening.endswith(f"\n{PIPE_MARKER}\n")
    pair = begun("paraphrase_id")
    assert pair.opening.count(pair.fields["sentence"]) == 1
    word = begun("wsd")
    assert f"Word: {word.fields['word']}" in word.opening
    assert word.fields["label"] == word.closing.rpartition("\n")[2]


def test_two_stages_ask_for_the_response_at_once_where_the_instruction_is_known():
    how = Synthesis(("sentiment",), "bonito-attributes", two_stage="yes")
    one = pose(how, "m", DOCUMENT, "sentiment", 0)
    assert one.sampling.temperature == 0
    assert set(one.sampling.choices) == {"positive", "negative", "neutral"}
    completion = Completion(one.key, "neutral", "stop")
    assert respond("m", one, completion) is None
    (made,) = examples("m", one, completion)
    assert isinstance(made, Example)
    assert made.response == "neutral"


def test_two_stages_go_on_behind_what_was_begun():
    how = Synthesis(("exqa",), "bonito-attributes", two_stage="yes")
    first = pose(how, "m", DOCUMENT, "exqa", 0)
    second = respond("m", first, Completion(first.key, " Who built the harbour?", "stop"))
    assert second.prompt.count("<|task|>") == 1
    assert second.prompt.count("Who built the harbour?") == 1
    assert second.prompt.endswith(f"\n{PIPE_MARKER}\n")
    (made,) = examples("m", second, Completion(second.key, "Marta Quist", "stop"))
    assert made.response == "Marta Quist"
    assert '"raw"' not in made.meta, "nothing had to be repaired"
    assert "Who built the harbour?" in made.instruction


@pytest.mark.parametrize("task", ["te", "nli", "paraphrase", "paraphrase_id"])
def test_what_is_said_again_begins_with_the_last_phrase(task):
    for sample in range(12):
        ask = begun(task, sample)
        begins = ask.fields.get("begins", "")
        assert ask.opening.endswith(begins)
        if "sentence" not in ask.fields:  # what the passage leaves open
            assert task == "nli"
            assert begins == ""
        else:
            assert begins, "every passage of this length has a sentence that can be turned"
            assert f" {begins.lower()} " in ask.fields["sentence"]


@pytest.mark.parametrize(
    ("sentence", "word"),
    [
        ("The boats repair their nets in the old rope works.", "In"),
        ("It was dredged by four men after the storm of 1902.", "After"),
        ("In winter they repair nets.", ""),
        ("Nothing turns here.", ""),
        ("The boats lie in it, " + "and they lie there all day long " * 5, ""),
    ],
)
def test_the_word_a_turned_sentence_begins_with(sentence, word):
    assert turned_start(sentence) == word


def test_yes_no_questions_begin_with_a_verb_and_the_verbs_take_turns():
    seen = {begun("ynqa", sample).opening.split()[-1] for sample in range(6)}
    assert seen == {"Is", "Can", "Does", "Are", "Do", "Did"}


@pytest.mark.parametrize("task", TASKS.names())
@pytest.mark.parametrize("text", ["", "\n", "   "])
def test_a_model_that_wrote_nothing_made_nothing(task, text):
    for two in (False, True):
        how = Synthesis((task,), "bonito-attributes", two_stage="yes" if two else "no")
        one = pose(how, "m", DOCUMENT, task, 0)
        completion = Completion(one.key, text, "stop")
        assert respond("m", one, completion) is None, "nothing is paid for twice"
        (made,) = examples("m", one, completion)
        assert made.reason == Reason.EMPTY_REPLY


def test_provenance_names_the_wording_that_was_begun():
    one = pose(Synthesis(("ynqa",), "bonito-attributes"), "m", DOCUMENT, "ynqa", 0)
    (made,) = examples("m", one, Completion(one.key, " the harbour old?", "stop"))
    assert made.origin.template == one.payload.template
    assert made.origin.template.startswith("ynqa/")


def test_the_bound_on_a_reply_holds_in_both_stages():
    how = Synthesis(("exqa", "sentiment"), "bonito-attributes", max_new_tokens=7, two_stage="yes")
    first = pose(how, "m", DOCUMENT, "exqa", 0)
    second = respond("m", first, Completion(first.key, " Who built it?", "stop"))
    at_once = pose(how, "m", DOCUMENT, "sentiment", 0)
    assert {r.sampling.max_tokens for r in (first, second, at_once)} == {7}


def test_a_label_task_needs_no_second_stage():
    how = Synthesis(("ynqa",), "bonito-attributes", two_stage="yes")
    one = pose(how, "m", DOCUMENT, "ynqa", 0)
    assert one.sampling.temperature > 0
    assert respond("m", one, Completion(one.key, " the harbour old?", "stop")) is None


@pytest.mark.parametrize("labels", [(), ("follows", "contradicts", "unclear"), ("A", "B", "C")])
def test_what_is_left_open_is_about_no_sentence_whatever_its_label(labels):
    seen = set()
    for sample in range(6):
        fields = begun("nli", sample, labels=labels).fields
        place = fields["label_set"].split("\n").index(fields["label"])
        assert ("sentence" in fields) == (place < 2)
        seen.add(place)
    assert seen == {0, 1, 2}


def test_without_a_full_sentence_nothing_is_asked_about_one():
    short = Document("x", "Hello there you.")
    for task in ("paraphrase", "paraphrase_id", "te", "nli"):
        asked = get(task).ask(short, "bonito-attributes")
        assert isinstance(asked, Rejected)
        assert asked.reason == Reason.NOT_APPLICABLE
    assert "sentence:" not in get("exqa").ask(short, "bonito-attributes").prompt


def test_topics_are_named_only_by_the_user():
    assert "label_set" not in begun("topic_class").fields
    assert "Ports" in begun("topic_class", labels=("Ports", "Nets")).opening


def test_a_wording_is_passed_over_if_the_model_would_not_see_what_was_drawn():
    for sample in range(40):  # two of the wordings name the word behind the second sentence
        ask = begun("wsd", sample)
        assert ask.fields["word"] in ask.opening.replace(ask.fields["sentence"], "")


def test_several_open_slots_have_no_known_end():
    before, rest, _ = words.begun("mcqa", 0, {})
    assert rest == " "
    assert before


def test_extractive_questions_are_answered_apart_within_the_spans_of_their_sentence():
    how = Synthesis(("exqa", "qa"), "bonito-attributes")
    first = pose(how, "m", DOCUMENT, "exqa", 0)
    second = respond("m", first, Completion(first.key, " Who built the harbour?", "stop"))
    assert second.sampling.temperature == 0
    assert second.sampling.grammar == span_grammar(first.payload.fields["sentence"], "Who built the harbour?")
    whole = replace(how, two_stage="no")
    one = pose(whole, "m", DOCUMENT, "exqa", 0)
    assert respond("m", one, Completion(one.key, " Who built it?\n<|pipe|>\nMarta Quist", "stop")) is None
    other = pose(how, "m", DOCUMENT, "qa", 0)
    assert respond("m", other, Completion(other.key, " Who built it?", "stop")) is None
    upstream = pose(replace(how, protocol="bonito"), "m", DOCUMENT, "exqa", 0)
    assert upstream.sampling.stop == (), "the model card's way of asking stays as it is"


PIECES = [*"ab xyz .,;()\"'%0«»\n", "é", "本", "で", "  ", "The", "(see", "25%"]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)


@given(TEXTS, TEXTS)
def test_what_follows_the_grammar_of_spans_is_a_span_that_the_question_does_not_hold(text, question):
    grammar = span_grammar(text, question)
    if not grammar:
        assert set(words_of(text)) <= set(words_of(question))
        return
    rules = dict(line.split(" ::= ", 1) for line in grammar.split("\n"))
    for start in rules["root"].split(" | "):
        said, rule = "", rules[start]
        while rule:  # the longest way through the rules; each stop on it is an answer, too
            core, _, rest = re.match(r'("(?:[^"\\]|\\.)*")( \((.*)\)\?)?$', rule).groups()
            said += json.loads(core)
            assert said in text
            assert f" {' '.join(words_of(said))} " not in f" {' '.join(words_of(question))} "
            gap, rule = re.match(r'("(?:[^"\\]|\\.)*") (s\d+)$', rest).groups() if rest else ("", "")
            said, rule = said + (json.loads(gap) if gap else ""), rules.get(rule, "")


def test_spans_begin_and_end_with_words():
    grammar = span_grammar('Results of clear() (see 25%, p. 3) were 8.0 (in "print").', "What results?")
    cores = [
        json.loads(re.match(r'"(?:[^"\\]|\\.)*"', r.split(" ::= ")[1])[0]) for r in grammar.split("\n")[1:]
    ]
    assert cores == ["Results", "of", "clear()", "see", "25%", "p", "3", "were", "8.0", "in", '"print"']
    assert grammar.split("\n")[0] == "root ::= " + " | ".join(f"s{i}" for i in range(1, 11))


def test_a_grammar_is_a_part_of_the_key():
    free, held = (request("m", Sampling(0, grammar=g), prompt="p") for g in ("", 'root ::= "a"'))
    assert free.key != held.key


def test_the_options_of_a_multiple_choice_question_are_drawn_and_the_right_one_is_known():
    rights = set()
    for sample in range(8):
        ask = begun("mcqa", sample)
        right, options = ask.fields["sentence"], ask.fields["choices"].split("\n")
        assert right in options
        assert 3 <= len(set(options)) == len(options) <= 4
        assert all(o in PASSAGE.replace("\n", " ") for o in options)
        assert right not in ask.prompt.partition("<|task|>")[2], "the question comes first"
        one = pose(Synthesis(("mcqa",), "bonito-attributes"), "m", DOCUMENT, "mcqa", sample)
        (made,) = examples("m", one, Completion(one.key, " What is said of the harbour?\nA. x", "stop"))
        assert made.options == tuple(options)
        assert made.options[made.answer_index] == made.response == right
        assert "What is said of the harbour?" in made.instruction
        assert "A. x" not in made.instruction
        rights.add(made.answer_index)
    assert len(rights) > 1, "the right option has no place of its own"


def test_a_passage_without_three_statements_gives_no_multiple_choice():
    short = Document(
        "d", "The harbour was built in 1874 by four men. Who would have thought so of them at all?"
    )
    found = get("mcqa").ask(short, "bonito-attributes", attributes=Attributes())
    assert isinstance(found, Rejected)
    assert found.reason == Reason.NOT_APPLICABLE
    free = get("mcqa").ask(short, "bonito-attributes", attributes=Attributes(guided=False))
    assert isinstance(free, Ask)


def test_no_task_is_about_a_question_where_the_passage_states_something():
    text = "Who built the old harbour of the town? The harbour was built in 1874 by four strong men."
    for sample in range(4):
        assert draw_sentence(Document("d", text), 0, sample, "x").startswith("The harbour")
