"""Chunks: exact offsets, full coverage, the budget, and where the cuts are made."""

import itertools
import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill.errors import UsageError
from taskmill.ingest import chunk, count_tokens
from taskmill.ingest.tokens import COST_PER_TOKEN, cost

LATIN = [
    "a",
    "Dr.",
    "river",
    "End.",
    "really?",
    "10,000",
    "https://example.org/a/very/long/path-without-spaces",
]
OTHER = ["。", "中文句子", "日本語です。", "ภาษาไทยไม่มีช่องว่าง", "नमस्ते।", "مرحبا؟"]
ODD = ["👩\u200d👩\u200d👧\u200d👦", "e\u0301" * 9, "x" * 700]
WORDS = st.sampled_from([*LATIN, *OTHER, *ODD])
SPACES = st.sampled_from([" ", "  ", "\n", "\n\n", " \n \n\t", "\f", "", "\u3000", "\r\n\r\n"])
TEXTS = st.one_of(
    st.lists(st.tuples(WORDS, SPACES), max_size=60).map(lambda parts: "".join(w + s for w, s in parts)),
    st.text(max_size=300),
    st.text(alphabet='.!? \n"a。', max_size=300),
)


def check(text, spans, max_tokens, overlap):
    assert all(0 <= s < e <= len(text) for s, e in spans)
    assert all(text[s:e] == text[s:e].strip() for s, e in spans)
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(spans))
    covered = 0
    for start, end in spans:
        assert not text[covered:start].strip(), "a character is in no chunk"
        if start < covered:
            assert cost(text[start:covered]) <= overlap * COST_PER_TOKEN
        assert count_tokens(text[start:end]) <= max_tokens or end - start == 1
        covered = end
    assert not text[covered:].strip()


@settings(max_examples=300, deadline=None)
@given(text=TEXTS, max_tokens=st.integers(1, 60), overlap=st.integers(0, 20))
def test_properties(text, max_tokens, overlap):
    overlap = min(overlap, max_tokens - 1)
    check(text, chunk(text, max_tokens, overlap), max_tokens, overlap)


@settings(max_examples=50, deadline=None)
@given(parts=st.lists(st.text(max_size=30), max_size=5))
def test_costs_of_parts_add_up(parts):
    assert cost("".join(parts)) == sum(map(cost, parts))


def pieces(text, max_tokens, overlap=0):
    return [text[s:e] for s, e in chunk(text, max_tokens, overlap)]


def test_a_text_within_the_budget_is_one_stripped_chunk():
    assert pieces(" \n Two words. \n", 10) == ["Two words."]
    assert pieces("", 10) == pieces(" \n\t ", 10) == []
    assert pieces(" " * 1000 + "word" + "\n" * 1000, 5) == ["word"]


def test_paragraphs_before_sentences():
    first, second = "One is here. " * 6, "Two is there. " * 6
    assert pieces(f"{first.strip()}\n\n{second}", 50) == [first.strip(), second.strip()]


def test_sentences_before_words():
    text = "The first sentence is this one. The second is a little longer than that. A third!"
    assert pieces(text, 12) == [
        "The first sentence is this one.",
        "The second is a little longer than that.",
        "A third!",
    ]


@pytest.mark.parametrize(
    "sentence",
    ["Dr. Smith met J. K. Rowling, e.g. in London, at 3.14 p.m. on the way.", 'He said "stop." and went on.'],
)
def test_dots_that_end_no_sentence(sentence):
    assert pieces(f"{sentence} {sentence}", count_tokens(sentence) + 2) == [sentence, sentence]


@pytest.mark.parametrize(
    "sentence",
    ["这是一个句子。", "これは文です！", "यह एक वाक्य है।", "هل هذه جملة؟", "«Это предложение».", '"Done!"'],
)
def test_sentences_of_other_scripts(sentence):
    assert pieces(f"{sentence} {sentence}", count_tokens(sentence) + 1) == [sentence, sentence]


def test_a_long_sentence_is_cut_between_clauses_or_words():
    words = " ".join(f"word{i}" for i in range(100))
    for piece in pieces(words, 20):
        assert set(piece.split()) <= set(words.split())
    clauses = ", ".join(["a clause of six words"] * 9)
    assert all(piece.endswith(("words", ",")) for piece in pieces(clauses, 20))


def test_marks_and_joined_emoji_stay_with_their_base():
    for unit in ("e\u0301", "👩‍👧", "👍🏽", "ก่"):
        for piece in pieces(unit * 200, 20):
            assert len(piece) % len(unit) == 0


def test_overlap_is_whole_sentences():
    text = " ".join(f"This is sentence number {i}." for i in range(20))
    spans = chunk(text, 40, 14)
    assert len(spans) > 3
    for (_, end), (start, _) in itertools.pairwise(spans):
        assert text[start:end].startswith("This is sentence")
        assert text[start:end].endswith(".")


def test_impossible_budgets_are_refused():
    for max_tokens, overlap in ((0, 0), (10, 10), (10, -1)):
        with pytest.raises(UsageError, match="at least 1"):
            chunk("text", max_tokens, overlap)


@pytest.mark.parametrize(
    "unit", ["a", ".", "\n x", "a. b ", ".)", ", ", "汉", "a\u0301", "\r", "\n ", '"', "Mr.", "x" * 500 + " "]
)
def test_no_text_makes_it_worse_than_linear(unit):
    def seconds(size):
        text = unit * (size // len(unit))
        start = time.process_time()
        chunk(text, 256, 32)
        return time.process_time() - start

    seconds(10_000)
    assert seconds(160_000) < 40 * max(seconds(20_000), 0.005)  # 8 times the text; quadratic would be 64


def test_estimate():
    assert count_tokens("") == 0
    prose = "The committee met on Tuesday to discuss the new proposal, and everyone agreed that it was fine."
    assert 18 <= count_tokens(prose) <= 24  # 19 by SmolLM2's tokenizer
    assert count_tokens("12345") == 5


def test_every_language_of_a_real_corpus():
    data = Path(os.environ.get("TASKMILL_DATA", Path(__file__).parents[2] / "../shared/data"))
    path = data / "corpora/xquad_other_languages.parquet"
    if not path.exists():
        pytest.skip(f"no corpus at {path.name}; set TASKMILL_DATA to the data folder")
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=["lang", "context"]).to_pydict()
    texts = dict.fromkeys(zip(table["lang"], table["context"], strict=True))
    languages = {}
    for language, text in texts:
        languages.setdefault(language, []).append(text)
    assert len(languages) >= 10
    for some in languages.values():
        for text in some[:40]:
            check(text, chunk(text, 48, 16), 48, 16)
