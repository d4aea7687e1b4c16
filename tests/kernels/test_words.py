"""Words and n-grams against a plain Python tokenizer of the same rules."""

import re
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill.kernels import text as single
from taskmill.kernels import words as kernel
from taskmill.kernels.words import chunks, ngrams, words

WITHOUT_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u9fff"
    "\ua9e0-\ua9ff\uaa60-\uaa7f\uf900-\ufaff\uff66-\uff9f\U0001b000-\U0001b16f\U00020000-\U0003ffff]"
)


def kind(character):
    group = unicodedata.category(character)[0]
    if ord(character) >= 0x20000:
        return "alone" if ord(character) <= 0x3FFFF else "apart"
    if group not in "LNM":
        return "apart"
    if WITHOUT_SPACES.match(character):
        return "alone"
    if ord(character) < 0x80 and not re.match("[A-Za-z0-9]", character):
        return "apart"
    return "mark" if group == "M" else "inside"


def plain(text):
    """Return (word in lower case, start, end in UTF-8 bytes) of each word."""
    found, at, open_ = [], 0, False
    for character in text:
        what, size = kind(character), len(character.encode())
        if what == "mark":
            what = "inside" if open_ else "apart"
        small = (
            character
            if what == "apart" or unicodedata.category(character)[0] == "M"
            else character.lower()[0]
        )
        if what == "alone" or (what == "inside" and not open_):
            found.append([small, at, at + size])
        elif what == "inside":
            found[-1][0] += small
            found[-1][2] = at + size
        open_ = what == "inside"
        at += size
    return [tuple(w) for w in found]


def lists(found):
    """Return the hashes row by row."""
    return [found.hashes[a:b].tolist() for a, b in zip(found.rows, found.rows[1:], strict=False)]


ODD = (
    "aA1 é É e\u0301 ß ẞ İ K Ω ς · – ’ \u00a0\u2009 日本 カ゛ ｶﾞ ไทย ก็ ¼² "
    "❤\ufe0f 👍🏽 \ufeff \u1361 ፡ሀለ Ⱥ ﬁ Ａ １ 𝐀 𠀀 ֑א־ב"
)
TEXTS = st.lists(
    st.text(st.one_of(st.sampled_from(ODD), st.characters(exclude_categories=["Cs"])), max_size=30),
    max_size=8,
)


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_words_and_their_places_are_those_of_a_plain_tokenizer(texts):
    found = words(pa.array(texts, pa.string()), places=True)
    wanted = [plain(t) for t in texts]
    assert np.diff(found.rows).tolist() == [len(w) for w in wanted]
    flat = [word for row in wanted for word in row]
    assert list(zip(found.starts.tolist(), found.ends.tolist(), strict=True)) == [(a, b) for _, a, b in flat]
    by_word = {}
    for (word, _, _), value in zip(flat, found.hashes.tolist(), strict=True):
        assert by_word.setdefault(word, value) == value
    assert len(set(by_word.values())) == len(by_word)


PLAIN = st.text(st.sampled_from("abzAZ019 @[`{/:_\x00\x7f\n"), max_size=200)
BORDERS = ["a" * 64, "a" * 63 + " b", " " * 64 + "c", "a" * 65, "b " * 32, "Abcdefgh", "Abcdefghi", "a" * 200]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(PLAIN, st.sampled_from(BORDERS), st.just("é a")), max_size=6), st.integers(0, 64))
def test_ascii_is_read_in_blocks_with_the_same_words_places_and_hashes(texts, behind):
    """Rows near the end of a column are read byte by byte, so some bytes stand behind them."""
    found = words(pa.array([*texts, "." * behind]), places=True)
    flat = [word for text in texts for word in plain(text)]
    assert np.diff(found.rows).tolist() == [*(len(plain(text)) for text in texts), 0]
    assert list(zip(found.starts.tolist(), found.ends.tolist(), strict=True)) == [(a, b) for _, a, b in flat]
    assert found.hashes.tolist() == [value for text in texts for value in single.hashes(text).tolist()]


def test_columns_of_all_kinds_of_text_are_read_alike():
    texts = ["one two", None, "", "drei vier fünf", "six"]
    wanted = lists(words(pa.array(texts, pa.large_string())))
    for kind in (pa.string(), pa.dictionary(pa.int32(), pa.string())):
        assert lists(words(pa.array(texts, kind))) == wanted
        assert lists(words(pa.array(texts, kind).slice(1, 3))) == wanted[1:4]
    halves = pa.chunked_array([pa.array(texts[:2]), pa.array(texts[2:])])
    assert lists(words(halves)) == wanted


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.integers(1, 4))
def test_ngrams_are_equal_where_their_words_are(texts, size):
    hashes, rows = ngrams(words(pa.array(texts, pa.string())), size)
    by_gram = {}
    for i, text in enumerate(texts):
        own = [w for w, _, _ in plain(text)]
        grams = [tuple(own[k : k + size]) for k in range(len(own) - size + 1)]
        got = hashes[rows[i] : rows[i + 1]].tolist()
        assert len(got) == len(grams)
        for gram, value in zip(grams, got, strict=True):
            assert by_gram.setdefault(gram, value) == value
    assert len(set(by_gram.values())) == len(by_gram)


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_the_words_of_single_texts_are_those_of_the_kernels(texts):
    found = words(pa.array(texts, pa.string()), places=True)
    own, rows = ngrams(found, 3)
    for i, text in enumerate(texts):
        a, b = found.rows[i], found.rows[i + 1]
        assert single.hashes(text).tolist() == found.hashes[a:b].tolist()
        ends = [len(text[:end].encode()) for _, end in single.cut(text)]
        starts = [len(text[:start].encode()) for start, _ in single.cut(text)]
        assert (starts, ends) == (found.starts[a:b].tolist(), found.ends[a:b].tolist())
        assert single.grams(single.hashes(text), 3).tolist() == own[rows[i] : rows[i + 1]].tolist()


def test_letters_of_changed_size_in_lower_case_keep_their_places():
    text = "Ⱥb K9 İstanbul end"
    found = words(pa.array([text]), places=True)
    cut = [text.encode()[a:b].decode() for a, b in zip(found.starts, found.ends, strict=True)]
    assert cut == ["Ⱥb", "K9", "İstanbul", "end"]
    assert found.hashes[1] == words(pa.array(["k9"])).hashes[0]


def test_signs_that_belong_to_no_word_make_none():
    assert words(pa.array(["❤\ufe0f \ufeff 👍🏽 ﹖ ፡ ·"])).hashes.size == 0
    (abc,) = words(pa.array(["abc"])).hashes
    assert words(pa.array(["\ufeffabc\ufe0f…"])).rows.tolist() == [0, 1]
    assert words(pa.array(["\ufeffabc"])).hashes.tolist() == [abc]


WANTED = lists(words(pa.array(["one two", "", "Three, four!", "five", "日本"])))


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["one two", "", "Three, four!", "five", "日本"], pa.large_string()),
        pa.array(["one two", None, "Three, four!", "five", "日本"]),
        pa.array(["x", "one two", "", "Three, four!", "five", "日本", "y"]).slice(1, 5),
        pa.chunked_array([["one two"], [], ["", "Three, four!", "five"], ["日本"]], pa.string()),
        pa.chunked_array([["x", "one two", None], ["Three, four!", "five", "日本", "y"]]).slice(1, 5),
        pa.array(["one two", "", "Three, four!", "five", "日本"]).dictionary_encode(),
        pa.array(["one two", None, "Three, four!", "five", "日本"]).dictionary_encode(),
        pa.array(["one two", "", "Three, four!", "five", "日本"], pa.string_view()),
    ],
    ids=["large", "null", "sliced", "chunked", "chunked-sliced", "dictionary", "dictionary-null", "view"],
)
def test_every_form_of_a_column_has_the_same_words(column):
    assert lists(words(column)) == WANTED


@pytest.mark.parametrize(
    "column",
    [pa.array([], pa.string()), pa.chunked_array([], pa.string()), pa.array([], pa.large_string()),
     pa.array([], pa.dictionary(pa.int32(), pa.string()))],
)  # fmt: skip
def test_an_empty_column_has_no_rows(column):
    found = words(column, places=True)
    assert found.rows.tolist() == [0]
    assert ngrams(found, 3)[1].tolist() == [0]


def test_a_column_of_nulls_has_empty_rows():
    assert words(pa.array([None, None], pa.string())).rows.tolist() == [0, 0, 0]


def test_bytes_that_are_no_utf8_are_read_to_their_end():
    data = pa.py_buffer(b"ab\xe6\x97cd\x80\xff\xf0")
    broken = pa.StringArray.from_buffers(2, pa.py_buffer(np.array([0, 4, 9], np.int32)), data)
    found = words(broken, places=True)
    assert found.rows[-1] == len(found.hashes)
    assert (found.ends <= 5).all()


@pytest.mark.parametrize("cores", [1, 2, 5])
def test_results_do_not_depend_on_the_number_of_threads(monkeypatch, cores):
    texts = pa.array([f"row {i} " + "word Wörter " * (i % 7) for i in range(500)])
    wanted, grams = words(texts, places=True), ngrams(words(texts), 3)
    monkeypatch.setattr(kernel.os, "cpu_count", lambda: cores)
    for a, b in zip((*wanted, *grams), (*words(texts, places=True), *ngrams(words(texts), 3)), strict=True):
        assert np.array_equal(a, b)


@given(st.lists(st.integers(0, 1000), max_size=50), st.integers(1, 20))
def test_chunks_cover_every_row_once(sizes, pieces):
    parts = chunks(np.array(sizes, np.int64), pieces)
    assert [row for a, b in parts for row in range(a, b)] == list(range(len(sizes)))
    assert all(a < b for a, b in parts)
