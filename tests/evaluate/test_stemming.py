"""Words lose their endings as in the reference: values of NLTK's PorterStemmer and of rouge-score 0.1.2."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.evaluate.extract import Answer
from taskmill.evaluate.marks import METRICS
from taskmill.evaluate.stemming import stem
from taskmill.tasks.metrics import rouge_l

STEMS = {
    "harbours": "harbour", "sailing": "sail", "hoping": "hope", "hopping": "hop", "falling": "fall",
    "agreed": "agre", "feed": "feed", "dying": "die", "skies": "sky", "flies": "fli", "ties": "tie",
    "spied": "spi", "news": "news", "innings": "inning", "happily": "happili", "enjoy": "enjoy",
    "relational": "relat", "conditional": "condit", "technologies": "technolog", "logical": "logic",
    "usefully": "use", "possibly": "possibl", "electricity": "electr", "adjustment": "adjust",
    "adoption": "adopt", "communion": "communion", "sensational": "sensat", "generalizations": "gener",
    "controlled": "control", "roll": "roll", "rate": "rate", "cease": "ceas", "singing": "sing",
    "bring": "bring", "university": "univers", "operators": "oper", "hissing": "hiss", "filing": "file",
    "failing": "fail",
}  # fmt: skip


@pytest.mark.parametrize("word", STEMS)
def test_a_word_has_the_stem_of_the_reference(word):
    assert stem(word) == STEMS[word]


@pytest.mark.parametrize(
    ("one", "other", "value"),
    [
        ("The boats were sailing quickly past the harbours", "A boat sails past harbours", 0.615384615),
        ("generalizations of technologies, usefully", "general technology is useful", 0.75),
        ("dying skies", "a sky that dies", 0.333333333),
        ("It agreed; he was controlling the adoption.", "They agree and control adoptions", 0.5),
        ("one two", "three four", 0.0),
    ],
)
def test_rouge_l_with_stems_is_that_of_the_reference(one, other, value):
    assert rouge_l(one, other, stem=stem) == pytest.approx(value, abs=1e-9)
    marks = METRICS.get("rouge").mark(one, ["nothing of it", other], Answer("text"))
    assert marks["rouge_l"] == pytest.approx(value, abs=1e-9)


@given(st.text("abcdeghilmnorstuyz", max_size=12))
def test_a_stem_is_no_longer_than_its_word_but_for_a_mended_e(word):
    assert len(stem(word)) <= len(word)
    assert stem(word)[:2] == word[:2]
