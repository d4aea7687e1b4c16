"""Folding is Unicode's NFKC_Casefold, as far as words go, and every character knows where it came from."""

import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.curate.folding import fold, folded
from taskmill.kernels.text import hashes


def whole(text):
    """NFKC and casefold of all of a text, as UAX 31 writes it; the dotted capital I stays one letter."""
    text = unicodedata.normalize("NFKC", text)
    return unicodedata.normalize("NFKC", "".join("i" if c == "\u0130" else c.casefold() for c in text))


LETTERS = "aeknosßẞﬁﬃſςΣéÉïµÅ½²ªⅨＡｶ가Äǅŉΐ\u0345 -x"
MARKS = "\u0301\u0308\u0323\u0319\u030c\u0340"


@given(st.lists(st.tuples(st.sampled_from(LETTERS), st.sampled_from(["", *MARKS])), max_size=12))
def test_words_are_those_of_the_whole_text_folded_by_unicode(pairs):
    text = "".join(letter + mark for letter, mark in pairs)
    assert hashes(fold(text).text).tolist() == hashes(whole(text)).tolist()


@given(st.text(st.sampled_from(LETTERS + MARKS + "\u00ad\u200b"), max_size=30))
def test_places_lead_back_to_what_a_character_was_made_of(text):
    found = fold(text)
    for i, character in enumerate(found.text):
        start, end = found.place(i, i + 1)
        assert character in fold(text[start:end]).text or character in text[start:end]
    spans = [found.place(i, i + 1) for i in range(len(found.text))]
    assert spans == sorted(spans)
    assert all(0 <= start < end <= len(text) for start, end in spans)


@given(st.lists(st.one_of(st.none(), st.text(st.sampled_from(LETTERS + MARKS), max_size=8)), max_size=6))
def test_a_column_is_folded_as_its_texts_are(texts):
    want = [None if t is None else fold(t).text for t in texts]
    for column in (pa.array(texts, pa.large_string()), pa.chunked_array([texts, []], pa.string())):
        assert folded(column).to_pylist() == want


def test_invisible_characters_are_gone_and_plain_texts_stay_as_they_are():
    assert fold("soft\u00adhyphen zero\u200bwidth").text == "softhyphen zerowidth"
    plain = "Naïve “quotes” – İstanbul, ЖУК, 北京"
    assert fold(plain) == (plain, None, None)
    column = pa.array([plain, "plain"])
    assert folded(column) is column


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Straße", "STRASSE"),
        ("oﬃce", "office"),
        ("Ａ１", "a1"),
        ("e\u0301", "É"),
        ("ὀδός", "ὈΔΌΣ"),
        ("½", "1/2"),
    ],
)
def test_what_reads_alike_is_alike(one, other):
    assert hashes(fold(one).text).tolist() == hashes(fold(other).text).tolist()


@pytest.mark.parametrize("text", ["c\u0319\u030c", "c\u030c\u0319", "\u010d\u0319", "a\u0340b", "e\u0344"])
def test_marks_in_any_order_join_their_letter(text):
    assert fold(text).text == unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
