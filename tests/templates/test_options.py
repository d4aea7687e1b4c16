"""Options as text: what is written can be read back, the right answer stays right."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill.errors import InputError
from taskmill.templates import options
from taskmill.templates.options import Style, gold_of, label, labels, parse, parse_target, show, style

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(lambda t: t.strip())
TRICKY = st.sampled_from(
    ["A", "B", "(B) x", "b) y", "; ", "yes; no", "- ", "1. one", "a, b", "x | y", "i. z", "\nB. q", "I", "."]
)
LISTS = st.lists(TEXT | TRICKY, min_size=2, max_size=12, unique_by=lambda t: " ".join(t.split())).filter(
    lambda texts: all(t.strip() for t in texts)
)


def test_there_are_at_least_sixty_distinct_label_styles():
    assert len({" ".join(one.split()) for one in labels()}) == len(labels()) >= 60
    assert len({tuple(options._mark(Style(one), i) for i in range(30)) for one in labels()}) == len(labels())


@given(LISTS, st.data(), st.integers(0, 2**62), st.sampled_from(["drawn", "label", "text"]))
@settings(max_examples=300)
def test_what_is_shown_is_read_back_and_the_gold_stays_right(texts, data, number, target):
    gold = data.draw(st.lists(st.integers(0, len(texts) - 1), min_size=1, max_size=3, unique=True))
    try:
        shown = show(texts, gold, 1, "row", number=number, target=target)
    except InputError:
        return  # refused where no style can tell them apart; ordinary lists never are (below)
    assert parse(shown.text, shown.style) == shown.options
    assert sorted(shown.options) == sorted(texts)
    assert {shown.options[i] for i in shown.gold} == {texts[i] for i in gold}
    assert parse_target(shown.target, shown) == shown.gold
    if target == "label":
        assert shown.form in ("label", "mark")


@given(
    st.lists(st.text("abc xyz", min_size=3, max_size=9).filter(lambda t: t.strip()), min_size=2, max_size=8)
)
def test_ordinary_options_are_never_refused(texts):
    texts = list(dict.fromkeys(" ".join(t.split()) + f" {i}" for i, t in enumerate(texts)))
    for number in range(40):
        shown = show(texts, [0], number, f"row {number}")
        assert shown.options[shown.gold[0]] == texts[0]


def test_every_label_style_is_drawn_and_can_be_read():
    seen = Counter()
    for number in range(3000):
        shown = show(["red one", "green two", "blue three"], [2], 0, f"r{number}")
        seen[shown.style.label] += 1
        assert parse(shown.text, shown.style) == shown.options
    assert set(seen) == set(labels())


@pytest.mark.parametrize("mark", labels())
def test_more_than_26_options(mark):
    texts = [f"word {i} end" for i in range(60)]
    block = options._block(texts, Style(mark))
    assert parse(block, Style(mark)) == tuple(texts)


def test_counters_go_on_behind_z():
    assert [label("A", i) for i in (0, 25, 26, 27, 51, 52, 701, 702)] == [
        "A", "Z", "AA", "AB", "AZ", "BA", "ZZ", "AAA",
    ]  # fmt: skip
    assert [label("a", 26), label("1", 26), label("i", 3), label("I", 48)] == ["aa", "27", "iv", "XLIX"]


def test_the_order_depends_on_the_texts_and_the_row_only():
    texts = ["alpha", "beta", "gamma", "delta"]
    one = show(texts, [1], 7, "row")
    other = show(texts[::-1], [2], 7, "row")
    assert (one.options, one.gold, one.text) == (other.options, other.gold, other.text)
    assert len({show(texts, [1], 7, f"row {i}").options for i in range(400)}) == 24


def test_the_place_of_the_right_option_is_uniform():
    counts = Counter(show(["p", "q", "r", "s"], [0], 3, f"row {i}").gold[0] for i in range(4000))
    chi = sum((counts[i] - 1000) ** 2 / 1000 for i in range(4))
    assert chi < 16.27  # 99.9 % of chi-squared with 3 degrees of freedom


def test_options_that_speak_of_places_keep_theirs():
    texts = ["two", "four", "none of the above"]
    assert all(show(texts, [2], 0, f"r{i}").options == tuple(texts) for i in range(50))


def test_several_right_options():
    shown = show(["red", "green", "blue"], [0, 2], 0, "r", number=0, target="text")
    assert parse_target(shown.target, shown) == shown.gold
    assert {shown.options[i] for i in shown.gold} == {"red", "blue"}
    # "a, b" could be one option or two: another joiner is taken, or a label.
    shown = show(["a", "b", "a, b"], [0, 1], 0, "r", target="text")
    assert {shown.options[i] for i in parse_target(shown.target, shown)} == {"a", "b"}


def test_an_option_that_reads_like_a_label_is_not_answered_by_one():
    for number in range(200):
        shown = show(["B", "A"], [0], number, "r", number=number * 7919)
        if shown.style.enumerates and shown.form != "text":
            assert not {"a", "b"} & {options._bare(shown.style, i).casefold() for i in range(2)}


@pytest.mark.parametrize(
    ("texts", "gold", "said"),
    [
        (["a", "b", "a"], [0], "options 0 and 2 are the same"),
        (["a b", "a  b"], [0], "are the same"),
        (["a", ""], [0], "option 1 .* is empty"),
        (["a"], [0], "has 1 options"),
        (["a", "b"], [2], "none of the 2 options"),
        (["a", "b"], [-1], "none of the 2 options"),
        (["a", "b"], [], "no option is the right one"),
        (["a", "b"], [1, 1], "twice"),
    ],
)
def test_bad_lists_are_refused(texts, gold, said):
    with pytest.raises(InputError, match=said):
        show(texts, gold, 0, "r", what="row 5")


def test_an_answer_that_is_no_option_is_an_error():
    assert gold_of(["a", "b"], ["b"], "row 1") == (1,)
    with pytest.raises(InputError, match="row 1: the answer 'c' is none of the options"):
        gold_of(["a", "b"], ["c"], "row 1")


def test_a_drawn_number_names_one_style():
    assert style(12345) == style(12345)
    assert len({style(i * 7919 + 1) for i in range(2000)}) > 500
