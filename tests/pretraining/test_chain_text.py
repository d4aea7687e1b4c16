"""Re-templating: no wording loses a text, a question or an answer, and no draw depends on another."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill.synthesize.chain_text import _MORE, chain_text, draw_style
from taskmill.synthesize.pair_format import Pair, Shown, with_options, with_reasoning
from taskmill.templates.chains import load

text = st.text(min_size=1, max_size=12)
line = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp", "Zs"]), min_size=1, max_size=8)
plain = st.builds(Pair, text.map(lambda t: t + "?"), text)


@st.composite
def chosen(draw):
    options = draw(st.lists(line, min_size=1, max_size=30, unique=True))
    return Pair(with_options(draw(line), options), draw(st.sampled_from(options)))


@st.composite
def reasoned(draw):
    return with_reasoning(draw(line), draw(line), draw(line))


chain = st.lists(
    st.builds(
        Shown, text, st.lists(st.one_of(plain, chosen(), reasoned()), min_size=1, max_size=4).map(tuple)
    ),
    min_size=1,
    max_size=3,
)
STYLES = [draw_style(7, str(i), 2) for i in range(400)]


@settings(max_examples=60)
@given(chain, st.sampled_from(STYLES))
def test_no_wording_loses_a_text_a_question_or_an_answer(texts, style):
    found = chain_text(texts, style)
    at = 0
    for shown in texts:
        for pair in shown.pairs:
            stem = pair.question.partition("\nOptions:\n")[0].removesuffix("\nLet's think step by step.")
            rationale, _, answer = pair.answer.rpartition("\nTherefore, the answer is ")
            assert stem in found
            assert rationale in found
            assert answer in found
        at = found.index(shown.context, at)  # in the order of the chain


@pytest.mark.parametrize("mode", [name for name, _ in _MORE])
@pytest.mark.parametrize("turned", [False, True])
def test_each_wording_of_each_mode_says_all_once(mode, turned):
    """Every wording there is, not only those that are drawn; tokens no wording holds."""
    from dataclasses import replace

    texts = [
        Shown("ZTEXT1", (Pair("ZQ1", "ZA1"), Pair(with_options("ZQ2", ["ZO1", "ZO2", "ZA2"]), "ZA2"))),
        Shown("ZTEXT2", (with_reasoning("ZQ3", "ZR3", "ZA3"), Pair("ZQ4", "ZA4"))),
    ]
    for frame in range(len(load()["turned" if turned else "opening"])):
        for number in range(len(load()[mode])):
            style = replace(STYLES[0], mode=mode, turned=turned, frame=frame, pair=number, option=number % 7)
            found = chain_text(texts, style)
            once = ["ZTEXT1", "ZTEXT2", "ZQ1", "ZQ2", "ZQ3", "ZQ4", "ZA1", "ZA3", "ZA4", "ZO1", "ZO2", "ZR3"]
            assert all(found.count(word) == 1 for word in once), found
            assert found.count("ZA2") == 2  # among the options, and as the answer
            assert (found.index("ZTEXT1") > found.index("ZA1")) is turned


def test_the_words_are_linted():
    words = load()
    flat = [(kind, str(w)) for kind, wordings in words.items() for w in wordings]
    assert len(flat) == len(set(flat)) > 50
    for kind in ("classic", "inline", "dialogue", "turns"):
        assert all("{{ question }}" in w and "{{ answer }}" in w for w in words[kind])
    assert all("\n" not in w for w in words["inline"])
    for kind in ("opening", "turned"):
        assert all(w.count("{{ text }}") == w.count("{{ body }}") == 1 for w in words[kind])
    assert all(
        w["body"].count("{{ questions }}") == w["body"].count("{{ answers }}") == 1 for w in words["numbered"]
    )


def chi_square(table):
    total = sum(map(sum, table))
    rows = [sum(r) for r in table]
    columns = [sum(c) for c in zip(*table, strict=True)]
    cells = [(i, j) for i in range(len(rows)) for j in range(len(columns))]
    return sum(
        (table[i][j] - rows[i] * columns[j] / total) ** 2 / (rows[i] * columns[j] / total) for i, j in cells
    )


def test_mode_and_turning_and_wording_are_drawn_apart():
    styles = [draw_style(3, f"chain {i}", 2) for i in range(8000)]
    modes = [name for name, _ in _MORE]
    table = [[sum(s.mode == m and s.turned == t for s in styles) for t in (False, True)] for m in modes]
    assert chi_square(table) < 18.5  # 4 degrees of freedom, p = 0.001
    own = [[sum(s.option % 2 == a and s.between % 2 == b for s in styles) for a in (0, 1)] for b in (0, 1)]
    assert chi_square(own) < 10.9  # 1 degree of freedom, p = 0.001
    share = Counter(s.mode for s in styles)["classic"] / len(styles)
    assert 0.785 < share < 0.815
    assert {s.mode for s in (draw_style(3, str(i), 1) for i in range(500))} == {"classic", "dialogue"}


def test_the_right_option_stands_anywhere_in_the_first_question_too():
    options = ["alpha", "beta", "gamma", "delta"]
    places = Counter()
    for i in range(2000):
        style = draw_style(0, str(i), 1)
        found = chain_text([Shown("T", (Pair(with_options("Q?", options), "gamma"),))], style)
        places[sorted(options, key=found.index).index("gamma")] += 1
    assert sum((n - 500) ** 2 / 500 for n in places.values()) < 16.3  # 3 degrees of freedom, p = 0.001
    assert len(places) == 4


def test_an_answer_named_by_its_letter_is_the_right_option():
    options = [f"o{i:02}" for i in range(30)]
    named = 0
    for i in range(300):
        found = chain_text(
            [Shown("T", (Pair(with_options("Q?", options), "o17"),))], draw_style(0, str(i), 1)
        )
        lines = [row for row in found.split("\n") if "o17" in row]
        named += any(lines[0].strip() in row and row is not lines[0] for row in lines) and lines[0] != "o17"
        assert len(lines) == 2
        assert lines[1].endswith(("o17", "”"))
    assert named > 50


def test_a_style_depends_on_seed_and_chain_only():
    assert draw_style(1, "a", 2) == draw_style(1, "a", 3)
    assert len({draw_style(seed, "a", 2) for seed in range(20)}) > 10


@given(
    st.lists(st.from_regex("[a-g]{1,4}( [a-g]{1,4})?", fullmatch=True), min_size=2, max_size=40, unique=True),
    st.data(),
    st.integers(0, 500),
)
def test_options_of_any_number_keep_the_answer_whatever_it_is(options, data, seed):
    """More options than letters, several right ones, and an answer that is none: said as they are."""
    kind = data.draw(st.sampled_from(["one", "several", "none"]))
    answer = {"one": options[0], "several": f"{options[0]} and {options[1]}", "none": "cannot be told"}[kind]
    pair = Pair(with_options("Which is it?", options), answer)
    said = chain_text([Shown("A text.", (pair,))], draw_style(seed, "c", 1))
    assert answer in said
    assert all(said.count(option) for option in options)
