"""Rows of a corpus: sums of tokens, chains that fit, questions asked once."""

from hypothesis import given
from hypothesis import strategies as st
from word_tokenizer import WordTokenizer, count

from taskmill.recipes.corpus.rows import Making, Text, distinct, fill, tuning_chains
from taskmill.record import Example, Reason, Source
from taskmill.synthesize.casting import from_row
from taskmill.synthesize.pair_format import Pair, Shown
from taskmill.synthesize.pretraining import place


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(0, 900))
def test_rows_sum_to_what_is_wanted_as_exactly_as_they_allow(sizes, target):
    chosen = fill(sizes, target)
    assert chosen == sorted(set(chosen))
    total = sum(sizes[i] for i in chosen)
    if sum(sizes) <= target:
        assert chosen == list(range(len(sizes)))
        return
    first = next(i for i in range(len(sizes)) if sum(sizes[: i + 1]) > target)
    assert abs(total - target) <= target - sum(sizes[:first])  # never worse than to stop at the first
    assert set(range(max(first - 4, 0))) <= set(chosen)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=9), st.integers(0, 60))
def test_a_small_sum_is_the_best_there_is(sizes, target):
    """Oracle: all subsets of the rows that may be chosen from."""
    sums = {0}
    first = next((i for i in range(len(sizes)) if sum(sizes[: i + 1]) > target), len(sizes))
    back = max(first - 4, 0) if first < len(sizes) else first
    for size in sizes[back:]:
        sums |= {s + size for s in sums}
    best = min(abs(sum(sizes[:back]) + s - target) for s in sums)
    assert abs(sum(sizes[i] for i in fill(sizes, target)) - target) == best


def test_ten_thousand_rows_meet_a_target_exactly():
    sizes = [30 + i * 7919 % 400 for i in range(10_000)]
    for target in (12_345, 777_777, 1_500_001):
        assert sum(sizes[i] for i in fill(sizes, target)) == target


def texts(words, number=6):
    pairs = (Pair("What is it?", "a thing"), Pair("Who says so?", "the text"))
    return [
        Text(f"d{i}", Shown(f"text{i} " * words, pairs), (f"a{i}", f"b{i}"), "MIT") for i in range(number)
    ]


@given(st.integers(1, 60), st.integers(10, 300), st.integers(0, 5))
def test_a_chain_is_cut_between_texts_where_it_is_too_long(words, room, seed):
    own = texts(words)
    rows = list(Making(WordTokenizer(), seed, room).chain("augmented", own))
    assert [name for row in rows for name in row.documents] == [t.document for t in own]
    assert [name for row in rows for name in row.examples] == [n for t in own for n in t.examples]
    assert all(row.tokens == count(row.text) for row in rows)
    assert all(row.tokens <= room or len(row.documents) == 1 for row in rows)
    assert sum(row.pairs for row in rows) == 12


def test_special_tokens_in_a_text_are_text():
    (row,) = Making(WordTokenizer(), 0, 99).rows("raw", [("d", "An <|endoftext|> inside </s> it.", "")])
    assert "<|endoftext|>" not in row.text
    assert "</s>" not in row.text
    assert row.text.replace("\u2060", "") == "An <|endoftext|> inside </s> it."


def example(name, document, question, number=0, at=0):
    meta = place(document if at == 0 else "d0", at, number, question)
    text = "{{context}}\n\n" + question
    return Example(name, "qa", f"text of {document}", text, "yes", source=Source(document), meta=meta)


def test_what_is_asked_twice_of_a_text_is_asked_once():
    found, kept, lost = distinct(
        [
            example("3", "d0", "Is it so?", 2),
            example("2", "d0", "is IT so?", 0),
            example("1", "d0", "Why?", 1),
            example("4", "d1", "Is it so?", 0, at=1),
        ]
    )
    assert [e.id for e in kept] == ["2", "1", "4"]
    assert [(d.row.id, d.reason) for d in lost] == [("3", Reason.DUPLICATE)]
    assert [[t.document for t in chain] for chain in found.values()] == [["d0", "d1"]]
    assert found["d0"][0].shown.pairs == (Pair("is IT so?", "yes"), Pair("Why?", "yes"))


def test_tuning_chains_never_mix_datasets():
    rows = [
        {"context": f"c{i}", "QA_list": [{"Q": f"q{i}", "A": "a"}], "rc_name": "ab"[i % 2]} for i in range(7)
    ]
    chains = list(tuning_chains([from_row(row, "file") for row in rows], 3))
    of = [{int(t.shown.context[1:]) % 2 for t in chain} for chain in chains]
    assert all(len(datasets) == 1 for datasets in of)
    assert sorted(t.shown.context for chain in chains for t in chain) == [f"c{i}" for i in range(7)]
