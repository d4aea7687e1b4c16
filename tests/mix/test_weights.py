"""Weights: nested shares, caps, temperature, UniMax; the presets are what the paper prints."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.errors import InputError
from taskmill.mix.source import PRESETS, presets, read_mixture
from taskmill.mix.weights import Task, effective, shares, tempered, unimax


def leaf(**keys):
    return {"path": "x.parquet", **keys}


def weights_of(sources, tasks, rows=1000, **root):
    return shares(read_mixture({"sources": sources, **root}), tasks, rows)


def test_nested_weights_multiply_along_the_tree():
    sources = {
        "a": {"weight": 3, "sources": {"x": leaf(weight=1), "y": leaf(weight=0.7)}},
        "b": {"weight": "2.5", "sources": {"z": {"weight": 9, "sources": {"deep": leaf(weight=4)}}}},
        "c": leaf(weight=0.1),
    }
    tasks = [Task(name, "", 10) for name in ("a/x", "a/y", "b/z/deep", "c")]
    whole = Fraction(56, 10)
    expected = [
        Fraction(3) / whole / Fraction(17, 10),
        Fraction(3) / whole * Fraction(7, 17),
        Fraction(5, 2) / whole,
        Fraction(1, 10) / whole,
    ]
    assert np.abs(weights_of(sources, tasks) - [float(x) for x in expected]).max() < 1e-12


def test_without_weights_tasks_weigh_what_they_hold_up_to_the_cap():
    tasks = [Task("a", "", 100), Task("b", "x", 50_000), Task("b", "y", 200)]
    found = weights_of({"a": leaf(), "b": leaf()}, tasks, cap=300)
    assert found == pytest.approx([100 / 600, 300 / 600, 200 / 600], abs=1e-12)
    mixture = read_mixture({"sources": {"a": leaf(), "b": leaf()}, "cap": 300})
    uncapped = shares(mixture, tasks, 9, capped=False)
    assert uncapped == pytest.approx(np.array([100, 50_000, 200]) / 50_300, abs=1e-12)


def test_a_cap_of_a_source_is_of_each_of_its_tasks():
    tasks = [Task("niv2", f"t{i}", 10_000) for i in range(1554)]
    assert weights_of({"niv2": leaf(cap=5000)}, tasks) == pytest.approx(np.full(1554, 1 / 1554))


@given(sizes=st.lists(st.integers(1, 10**6), min_size=1, max_size=8), temperature=st.floats(0.5, 50))
def test_temperature_is_the_power_of_capped_scaled_sizes(sizes, temperature):
    sources = {f"s{i}": leaf() for i in range(len(sizes))}
    tasks = [Task(f"s{i}", "", n) for i, n in enumerate(sizes)]
    found = weights_of({name: leaf(scale=0.5, cap=9000) for name in sources}, tasks, temperature=temperature)
    rates = np.array([min(n * 0.5, 9000) ** (1 / temperature) for n in sizes])
    assert found == pytest.approx(rates / rates.sum(), rel=1e-9)
    assert tempered(sizes, 1).tolist() == sizes


@given(
    sizes=st.lists(st.integers(1, 10**5), min_size=1, max_size=12),
    budget=st.integers(1, 10**6),
    epochs=st.floats(0.5, 8),
)
def test_unimax_is_a_level_that_the_small_ones_do_not_reach(sizes, budget, epochs):
    found = unimax(sizes, budget, epochs)
    most = epochs * np.array(sizes, float)
    low, high = 0.0, float(budget)
    for _ in range(200):  # the closed form: min(level, epochs × size), of the budget's sum
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(middle, most).sum() < budget else (low, middle)
    assert found == pytest.approx(np.minimum(high, most), rel=1e-6, abs=1e-6)
    assert found.sum() == pytest.approx(min(budget, most.sum()))


def test_unimax_spends_the_rows_of_its_own_part():
    tasks = [Task("a/x", "", 10), Task("a/y", "", 10_000), Task("b", "", 5)]
    sources = {
        "a": {"weight": 1, "unimax": 4, "sources": {"x": leaf(), "y": leaf()}},
        "b": leaf(weight=1),
    }
    assert weights_of(sources, tasks, rows=1000) == pytest.approx([0.04, 0.46, 0.5])


def test_token_weights_give_long_rows_fewer_draws():
    tasks = [Task("short", "", 100, 10.0), Task("long", "", 100, 1000.0)]
    found = weights_of({"short": leaf(weight=1), "long": leaf(weight=1)}, tasks, weights="tokens")
    tokens = found * [10, 1000]
    assert tokens[0] == pytest.approx(tokens[1])
    by_size = weights_of({"short": leaf(), "long": leaf()}, tasks, weights="tokens")
    assert by_size == pytest.approx([0.5, 0.5])  # all tokens of all rows: as many rows of each


def test_a_weight_of_zero_is_allowed_and_never_drawn():
    mixture = read_mixture({"sources": {"a": leaf(weight=0), "b": leaf(weight=2), "gone": {"weight": 0}}})
    assert shares(mixture, [Task("a", "", 5), Task("b", "", 5)], 10).tolist() == [0, 1]
    assert mixture.notes == ("a: weight 0, never drawn", "gone: weight 0, never drawn")


def test_a_source_without_rows_is_named():
    with pytest.raises(InputError, match="the source b has no rows"):
        weights_of({"a": leaf(weight=1), "b": leaf(weight=1)}, [Task("a", "", 5)])


def test_effective_number():
    assert effective([1, 1, 1, 1]) == pytest.approx(4)
    assert effective([8, 1, 1]) == pytest.approx(100 / 66)
    assert effective([0, 0]) == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("flan-2022-a", {"muffin": 0.52, "t0_sf": 0.15, "cot": 0.03, "niv2": 0.30}),
        ("flan-2022-b", {"muffin": 0.46, "t0_sf": 0.279, "cot": 0.018, "niv2": 0.242}),
        ("flan-v2-public", {"flan2021": 0.4, "t0": 0.32, "niv2": 0.2, "cot": 0.05, "dialog": 0.03}),
    ],
)
def test_presets_have_the_proportions_of_the_paper(name, expected):
    tasks = [Task(source, f"t{i}", 10**6) for source in expected for i in range(3)]
    found = shares(read_mixture({"preset": name, "sources": dict.fromkeys(expected, "x")}), tasks, 1000)
    total = sum(expected.values())  # B is printed with 99.9 % in all
    for i, source in enumerate(expected):
        assert found[3 * i : 3 * i + 3].sum() == pytest.approx(expected[source] / total, abs=1e-12)


def test_caps_of_the_presets_are_the_papers():
    sources = dict.fromkeys(("muffin", "t0_sf", "cot", "niv2"), "x")
    mixture = read_mixture({"preset": "flan-2022-a", "sources": sources})
    caps = {source.name: source.cap for source in mixture.root.sources}
    assert caps == {"muffin": 30_000, "t0_sf": 20_000, "cot": 100_000, "niv2": 5_000}


def test_every_preset_is_listed():
    assert presets() == sorted(p.stem for p in PRESETS.iterdir())
    assert len(presets()) == 3
