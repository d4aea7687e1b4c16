"""Instances: typed renderers, paths, the token budget, closed sets, ids that depend on the texts alone."""

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.ingest import count_tokens
from taskmill.ingest.fields import type_of
from taskmill.ingest.metadata import metadata_of
from taskmill.record import Dropped, Example, Reason
from taskmill.render import PLACEHOLDER
from taskmill.synthesize.instances import instances, instruction_of
from taskmill.synthesize.proposals import Proposal
from taskmill.templates.values import as_text, overlaps, read_back, value_at

PLAIN = st.text(max_size=20).map(str.strip)
FLAT = st.one_of(PLAIN, st.integers())


@given(st.lists(PLAIN, max_size=6))
def test_lists_of_texts_are_read_back(value):
    assert read_back(as_text(value), "list<text>") == value or value == [""]


@given(st.lists(st.integers(), max_size=6))
def test_lists_of_numbers_are_read_back(value):
    assert read_back(as_text(value), "list<int>") == value


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), FLAT, max_size=5))
def test_objects_are_read_back(value):
    if value:
        assert read_back(as_text(value), type_of(value)) == value


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.lists(PLAIN | st.booleans(), max_size=4), min_size=1
    )
)
def test_nested_objects_are_read_back(value):
    assert read_back(as_text(value), type_of(value)) == value


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("answers.text[0]", "Rome"),
        ("answers.text[-1]", "Paris"),
        ("answers.text", ["Rome", "Paris"]),
        ("answers.text[7]", None),
        ("answers.none", None),
        ("turns.said", ["hi", None]),
        ("turns[0].said", "hi"),
        ("a.b", "a column"),
        ("text", None),
    ],
)
def test_values_are_found_by_path(path, wanted):
    row = {
        "answers": {"text": ["Rome", "Paris"], "start": [1, 9]},
        "turns": [{"said": "hi"}, {}],
        "a.b": "a column",
    }
    assert value_at(row, path) == wanted


def test_paths_overlap_where_one_leads_into_the_other():
    assert overlaps("a", "a.b[0]")
    assert overlaps("a.b", "a.b")
    assert not overlaps("a.b", "a.c")
    assert not overlaps("ab", "a")


def make(rows, inputs, output, budget=1024, labels=(), **more):
    rows = list(rows)
    meta = metadata_of("set", rows, licence="mit")
    if isinstance(rows, pa.Table):
        rows = rows.to_pylist()
    task = Proposal("set", "", "task", "Do it.", tuple(inputs), output, tuple(labels), **more)
    return [one for batch in instances(task, meta, [("train", rows)], budget, count_tokens) for one in batch]


def test_an_example_says_where_it_is_from():
    (one,) = make([{"question": "Who?", "answer": "Me."}], ["question"], "answer")
    assert (one.context, one.instruction, one.response) == ("Who?", f"Do it.\n\n{PLACEHOLDER}", "Me.")
    assert (one.source.dataset, one.source.split, one.source.row, one.source.licence) == (
        "set",
        "train",
        0,
        "mit",
    )
    assert one.origin.method == "dynosaur"


def test_several_fields_have_their_names_and_options_their_letters():
    rows = [{"storyText": "Long ago.", "question": "When?", "choices": ["now", "then"], "label": 1}]
    (one,) = make(rows, ["storyText", "question", "choices"], "label")
    assert one.context == "Story text: Long ago.\nQuestion: When?\nChoices:\nA. now\nB. then"
    assert (one.response, one.options, one.answer_index) == ("B", ("now", "then"), 1)
    lettered = [{"question": "When?", "choices": ["(A) now", "(B) then"], "label": "B"}]
    (one,) = make(lettered, ["question", "choices"], "label")
    assert (one.options, one.response, one.answer_index) == (("now", "then"), "B", 1)


def test_rows_without_a_part_are_dropped_with_the_reason():
    rows = [{"a": "x", "b": "y"}, {"a": "", "b": "y"}, {"a": "x", "b": None}, {"a": None, "b": None}]
    found = make(rows, ["a"], "b")
    assert [type(one) for one in found] == [Example, Dropped, Dropped, Dropped]
    assert {one.reason for one in found[1:]} == {Reason.NULL_TEXT}
    assert found[1].detail == "row 1: 'a' is empty"


def test_answers_outside_the_closed_set_are_dropped_and_spelled_alike():
    rows = [{"a": "x", "b": word} for word in ("Yes", "yes.", "NO", "perhaps")]
    found = make(rows, ["a"], "b", labels=("no", "yes"))
    assert [one.response for one in found[:3]] == ["yes", "yes", "no"]
    assert found[3].reason == Reason.OFF_LABEL
    assert found[0].instruction.startswith("Do it. Answer with one of these: no, yes.")
    assert instruction_of(Proposal(instruction="Say no or yes.", labels=("no", "yes"))) == "Say no or yes."


def test_a_class_of_minus_one_is_no_answer():
    noted = {
        "huggingface": json.dumps(
            {"info": {"features": {"b": {"names": ["no", "yes"], "_type": "ClassLabel"}}}}
        )
    }
    table = pa.Table.from_pylist([{"a": "x", "b": i} for i in (0, 1, -1, 2)]).replace_schema_metadata(noted)
    meta = metadata_of("set", table)
    task = Proposal("set", "", "t", "Do.", ("a",), "b")
    (made,) = instances(task, meta, [("", table.to_pylist())])
    assert [getattr(one, "response", None) for one in made] == ["no", "yes", None, None]


def test_ids_depend_on_the_texts_alone():
    rows = [{"a": f"x {i}", "b": f"y {i}"} for i in range(6)]
    one, two = make(rows, ["a"], "b"), make(rows[::-1], ["a"], "b")
    assert {e.id for e in one} == {e.id for e in two}


WORDS = st.lists(st.sampled_from(["river", "stone.", "ééé", "水", "why?", "a\nb"]), max_size=400).map(
    " ".join
)


@given(
    WORDS,
    WORDS,
    st.text(min_size=1, max_size=300).filter(str.strip),
    st.lists(WORDS, max_size=4),
    st.integers(32, 600),
)
def test_the_budget_never_cuts_the_question_or_the_options(text, notes, question, options, budget):
    row = {
        "passage": text or "-",
        "notes": notes or "-",
        "question": question,
        "choices": options or ["-"],
        "answer": "A",
    }
    (one,) = make([row], ["passage", "notes", "question", "choices"], "answer", budget)
    if isinstance(one, Dropped):
        assert one.reason in (Reason.OVER_CONTEXT, Reason.NULL_TEXT)
        return
    assert count_tokens(one.context) <= budget
    assert f"Question: {as_text(question)}\n" in one.context
    for option in one.options:
        assert option in one.context


def test_only_what_cannot_fit_is_dropped():
    row = {"passage": "word " * 3000, "question": "Who is it?", "answer": "A"}
    (one,) = make([row], ["passage", "question"], "answer", 100)
    assert one.context.endswith("Question: Who is it?")
    assert 60 < count_tokens(one.context) <= 100
    (one,) = make([row | {"question": "why " * 400}], ["passage", "question"], "answer", 100)
    assert one.reason == Reason.OVER_CONTEXT


def test_wording_of_others_cannot_open_a_slot():
    meta = metadata_of("set", [{"a": "x {{context}}", "b": "y"}])
    task = Proposal("set", "", "t", "Do {{context}} and <|pipe|>.", ("a",), "b")
    ((one,),) = instances(task, meta, [("", [{"a": "x {{context}}", "b": "y"}])])
    assert one.instruction.count(PLACEHOLDER) == 1
