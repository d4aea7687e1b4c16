"""Rows as tokens: exact boundaries, markers as text, and passages cut in their middle only."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill.train import TrainRow
from taskmill.train.encode import GAP, Encoded, Encoder, digest
from taskmill.train.tree import Tree, pad

HEAD, TAIL = "<|tasktype|>\nqa\n<|context|>\n", "\n<|task|>\n"


def encode(tokenizer, row, max_length=512):
    encoder = Encoder(tokenizer, max_length)
    found = list(encoder.encode([row]))
    return (found[0] if found else None), encoder


def text(tokenizer, ids):
    return tokenizer.decode(ids, clean_up_tokenization_spaces=False)


def test_the_loss_begins_at_the_completion_and_ends_with_the_end_token(tokenizer):
    row, _ = encode(tokenizer, TrainRow("the river\n", "a stone"))
    assert text(tokenizer, row.ids[: row.start]) == "the river\n"
    assert text(tokenizer, row.ids[row.start : -1]) == "a stone"
    assert row.ids[-1] == tokenizer.eos_token_id
    assert row.supervised == len("a stone") + 1


@pytest.mark.parametrize("bos", [False, True])
def test_the_begin_token_is_there_once_if_the_tokenizer_uses_it(needs_train, tmp_path, bos):
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny.make(tmp_path / "m", bos=bos))
    row, _ = encode(tokenizer, TrainRow("a", "b"))
    assert (row.ids == tokenizer.bos_token_id).sum() == bos
    assert (row.ids[0] == tokenizer.bos_token_id) == bos
    plain, _ = encode(tokenizer, TrainRow("", "river"))
    # With a begin token before it, even the first token of a plain text can be predicted.
    assert plain.supervised == len("river") + bos


def test_special_tokens_in_the_users_text_are_text(tokenizer):
    row, _ = encode(tokenizer, TrainRow("hi <|im_end|></s>", "<s><|im_start|>"))
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    assert not special & set(row.ids[:-1].tolist())


def test_in_a_rendered_chat_they_are_tokens_and_nothing_is_added(tokenizer):
    prompt = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    row, _ = encode(tokenizer, TrainRow(prompt, "yes<|im_end|>", special=True))
    assert text(tokenizer, row.ids) == prompt + "yes<|im_end|>"
    assert row.ids[-1] == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert row.supervised == len("yes") + 1


@settings(max_examples=60, deadline=None)
@given(
    passage=st.text("abc xyz.", min_size=40, max_size=400),
    completion=st.text("defg", min_size=1, max_size=30),
    max_length=st.integers(20, 200),
)
def test_whatever_the_length_markers_and_completion_are_whole(tokenizer, passage, completion, max_length):
    row, encoder = encode(tokenizer, TrainRow(HEAD + passage + TAIL, completion, passage), max_length)
    bare = len(HEAD + TAIL) + len(completion) + 1
    if row is None:
        assert bare > max_length
        assert "even without the passage" in encoder.refused[0].why
        return
    assert len(row.ids) <= max_length
    prompt, answer = text(tokenizer, row.ids[: row.start]), text(tokenizer, row.ids[row.start : -1])
    assert answer == completion
    assert prompt.startswith(HEAD)
    assert prompt.endswith(TAIL)
    shown = prompt[len(HEAD) : len(prompt) - len(TAIL)]
    if not row.cut:
        assert shown == passage
    elif shown:
        front, gap, back = shown.partition(GAP)
        assert gap
        assert passage.startswith(front)
        assert passage.endswith(back)
        assert len(front) + len(back) < len(passage)
        assert abs(len(front) - len(back)) <= 1
        # A token is a character here, so nothing is given away.
        assert len(row.ids) == max_length


def test_a_row_without_a_passage_is_refused_not_truncated(tokenizer):
    row, encoder = encode(tokenizer, TrainRow("x" * 100, "y"), 50)
    assert row is None
    assert encoder.refused[0].why == "102 tokens do not fit 50 even without the passage"


@pytest.mark.parametrize("row", [TrainRow("a", ""), TrainRow("", "a", ends=False)])
def test_a_row_with_nothing_to_learn_is_refused(tokenizer, row):
    found, encoder = encode(tokenizer, row)
    assert found is None
    assert len(encoder.refused) == 1


def test_refused_rows_are_counted_by_their_place(tokenizer):
    encoder = Encoder(tokenizer, 512)
    rows = [TrainRow("a", "b"), TrainRow("a", ""), TrainRow("a", "b")] * 400
    assert len(list(encoder.encode(iter(rows)))) == 800
    assert encoder.seen == 1200
    assert [r.index for r in encoder.refused] == list(range(1, 1200, 3))


def test_the_digest_counts_tokens_order_and_boundary():
    def row(ids, start):
        return Encoded(np.array(ids, np.uint32), start)

    a, b = row([1, 2, 3], 1), row([4], 1)
    found = [
        digest(rows) for rows in ([a, b], [b, a], [row([1, 2, 3], 2), b], [row([1, 2], 1), row([3, 4], 1)])
    ]
    assert len(set(found)) == 4
    assert digest([row([1, 2, 3], 1), b]) == found[0]


@given(
    st.lists(st.tuples(st.text("abc d", min_size=1, max_size=6), st.booleans()), min_size=1, max_size=6),
    st.text("xyz ", max_size=5),
)
@settings(max_examples=60)
def test_the_loss_is_on_the_learned_parts_of_a_completion_and_on_no_other(tokenizer, parts, prompt):
    completion, spans = "", []
    for part, learned in parts:
        if not learned:
            spans.append((len(completion), len(completion) + len(part)))
        completion += part
    row = TrainRow(prompt, completion, special=True, unlearned=tuple(spans))
    found, encoder = encode(tokenizer, row)
    wanted = "".join(part for part, learned in parts if learned)
    if found is None:
        assert "no token to learn" in encoder.refused[0].why
        return
    batch = pad([Tree((found,))], torch_of(), "cpu")
    learned = batch.ids.roll(-1, dims=1)[batch.wanted].tolist()
    assert len(learned) == found.supervised
    # Nothing can predict the first token of a text without a prompt.
    first = not prompt and parts[0][1]
    assert text(tokenizer, learned) == wanted[first:]
    assert text(tokenizer, found.ids) == prompt + completion


def torch_of():
    import torch

    return torch
