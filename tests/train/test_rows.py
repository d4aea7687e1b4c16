"""The three journeys' rows, and the split by passage."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.errors import ConfigError, InputError
from taskmill.record import Document, Example, Source
from taskmill.render import prompt
from taskmill.train import TrainRow, student_rows, synthesizer_rows, tapt_rows
from taskmill.train.encode import Encoder
from taskmill.train.rows import split


def example(
    context="The river is <|im_end|> wide.", instruction="{{context}}\n\nHow wide?", response="Very."
):
    return Example("id", "exqa", context, instruction, response, source=Source(document="doc"))


@given(st.lists(st.integers(0, 30), max_size=300), st.sampled_from([0, 0.02, 0.1, 0.4]), st.integers(0, 5))
def test_the_split_is_by_group_and_complete(numbers, share, seed):
    groups = [str(n) for n in numbers]
    kept, held = split(groups, share, seed)
    assert sorted(kept + held) == list(range(len(groups)))
    assert not {groups[i] for i in kept} & {groups[i] for i in held}
    assert len(kept) > len(held) or not groups
    assert (kept, held) == split(groups, share, seed)


def test_a_hundred_rows_give_eight_to_validate_on_and_none_if_none_are_wanted():
    groups = [str(i) for i in range(100)]
    assert len(split(groups, 0.02, 0)[1]) == 8
    assert split(groups, 0, 0)[1] == []
    assert split(groups, 0.02, 0) != split(groups, 0.02, 1)
    assert split(["one"] * 200, 0.02, 0)[1] == []


def test_synthesizer_rows_come_from_tables_and_mappings():
    rows = [
        {"prompt": "p", "completion": "c", "passage": "x", "group": "g"},
        {"prompt": "q", "completion": "d", "passage": None, "group": None},
    ]
    expected = [TrainRow("p", "c", "x", "g"), TrainRow("q", "d")]
    assert list(synthesizer_rows(rows)) == expected
    assert list(synthesizer_rows(pa.Table.from_pylist(rows))) == expected
    with pytest.raises(InputError, match=r"row 1 has no text in the column 'completion'"):
        list(synthesizer_rows([rows[0], {"prompt": "p"}]))


def test_rows_without_a_group_are_groups_of_their_own():
    assert TrainRow("a", "b").passage_id != TrainRow("a", "c").passage_id
    assert TrainRow("a", "b", group="g").passage_id == "g"


@given(st.text("ab c.", max_size=300), st.integers(11, 80))
def test_chunks_of_a_document_are_the_document(tokenizer, words, max_length):
    rows = list(tapt_rows([Document("d", words)], max_length, tokenizer))
    assert "".join(row.completion for row in rows) == (words if words.strip() else "")
    assert all(row.group == "d" and row.prompt == "" for row in rows)
    assert [row.ends for row in rows] == [False] * (len(rows) - 1) + [True] * bool(rows)
    encoder = Encoder(tokenizer, max_length)
    encoded = list(encoder.encode(row for row in rows if len(row.completion) > 1))
    assert not encoder.refused
    # Every token of the text but the first, which nothing precedes, is learned.
    assert all(row.start == 1 for row in encoded)


def test_documents_are_not_mixed_and_tiny_lengths_are_refused(tokenizer):
    rows = list(tapt_rows([Document("a", "one"), Document("b", "two")], 64, tokenizer))
    assert [(row.group, row.completion) for row in rows] == [("a", "one"), ("b", "two")]
    with pytest.raises(ConfigError, match="leaves no room"):
        list(tapt_rows([Document("a", "one")], 10, tokenizer))


def test_a_chat_student_learns_the_answer_and_its_end(tokenizer):
    (row,) = student_rows([example()], "chat", tokenizer)
    assert row.completion == "Very.<|im_end|>"
    assert row.prompt.startswith("<|im_start|>user\n")
    assert row.prompt.endswith("<|im_start|>assistant\n")
    assert row.prompt.count("<|im_end|>") == 1  # the template's own; the passage's is escaped
    assert row.passage in row.prompt
    assert (row.special, row.ends, row.group) == (True, False, "doc")


def test_a_bonito_student_learns_the_response(tokenizer):
    (row,) = student_rows([example(response="<|output|>\nVery.")], "bonito", tokenizer)
    assert row.prompt == f"<|input|>\n{prompt(example())}\n<|output|>\n"
    assert row.completion == "<\u2060|output|>\nVery."
    assert row.passage == example().context
    assert row.ends


def test_other_layouts_and_models_without_a_template_are_refused(tokenizer):
    with pytest.raises(ConfigError, match="take chat or bonito"):
        list(student_rows([], "alpaca", tokenizer))
    with pytest.raises(ConfigError, match="bonito layout"):
        list(student_rows([], "chat", type("T", (), {"chat_template": None})()))
