"""The order of a mixture: every draw from its number alone, exact counts, shares that hold all along."""

import hashlib
from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill.errors import ConfigError
from taskmill.kernels.interleave import permuted
from taskmill.mix.order import WINDOW, Order

COUNTS = [700, 1200, 0, 3, 2500, 1, 96]
SIZES = [100, 5000, 9, 7, 900, 1, 31]
NAMES = ["web", "code", "none", "rare", "books", "one", "maths"]


def order(seed=0, **settings_):
    return Order(COUNTS, SIZES, NAMES, seed, **settings_)


def walked(tree, number):
    """The tree's own rule in exact arithmetic, one draw at a time: the reference for the kernel."""
    node = 0
    while node >= 0:
        left, right, weight, whole = (int(x) for x in tree[node])
        before, after = (int(Fraction(n * weight + whole // 2, whole)) for n in (number, number + 1))
        node, number = (left, before) if after > before else (right, number - before)
    return ~node, number


counts_lists = st.lists(st.integers(0, 400), min_size=1, max_size=12).filter(any)


@given(counts=counts_lists, seed=st.integers(0, 2**40))
@settings(max_examples=60)
def test_the_kernel_walks_the_tree_as_exact_arithmetic_does(counts, seed):
    names = [f"s{i:02}" for i in range(len(counts))]
    made = Order(counts, [5] * len(counts), names, seed, stratified=True)
    drawn = made.take(0, made.total)
    expected = [walked(made.tree, i) for i in range(made.total)]
    assert drawn.source.tolist() == [source for source, _ in expected]
    assert drawn.passes.tolist() == [nth // 5 for _, nth in expected]


@given(counts=counts_lists, seed=st.integers(0, 9), stratified=st.booleans())
@settings(max_examples=60)
def test_counts_are_exact_and_each_pass_has_every_row_once(counts, seed, stratified):
    sizes = [1 + 7 * i for i in range(len(counts))]
    names = [f"s{i:02}" for i in range(len(counts))]
    made = Order(counts, sizes, names, seed, stratified=stratified)
    drawn = made.take(0, made.total)
    for source, (count, size) in enumerate(zip(counts, sizes, strict=True)):
        mine = drawn.source == source
        assert mine.sum() == count
        for number in range(count // size):
            assert sorted(drawn.row[mine & (drawn.passes == number)]) == list(range(size))
        assert len(set(zip(drawn.passes[mine], drawn.row[mine], strict=True))) == count


def test_a_draw_alone_is_the_draw_in_sequence():
    made = order()
    whole = made.take(0, made.total)
    for start in (0, 1, WINDOW - 1, WINDOW, 2 * WINDOW + 17, made.total - 1):
        for column, all_of_it in zip(made.take(start, start + 1), whole, strict=True):
            assert column[0] == all_of_it[start]
    resumed = order().take(1234, made.total)
    for column, all_of_it in zip(resumed, whole, strict=True):
        assert np.array_equal(column, all_of_it[1234:])


@pytest.mark.parametrize("world", [1, 2, 8])
def test_machines_that_share_the_draws_make_one_order(world):
    made = order()
    whole = made.take(0, made.total)
    for rank in range(world):
        for column, all_of_it in zip(order().at(range(rank, made.total, world)), whole, strict=True):
            assert np.array_equal(column, all_of_it[rank::world])


def test_the_order_is_this_one():
    """Golden: a change of these bytes changes every mixture that anyone resumes."""
    drawn = order(seed=7).take(0, sum(COUNTS))
    found = hashlib.sha256(b"".join(np.asarray(c, "<i8").tobytes() for c in drawn)).hexdigest()
    assert found == "069c83f54c3574c5842c48964b71d32000e352d8de77a185ed8ef6177255f302"
    assert drawn.source[:12].tolist() == [1, 1, 1, 1, 4, 0, 4, 1, 4, 1, 4, 1]


def test_another_seed_gives_another_order_of_the_same_counts():
    one, other = order(1).take(0, 4500), order(2).take(0, 4500)
    assert np.bincount(one.source).tolist() == np.bincount(other.source).tolist()
    assert (one.source != other.source).mean() > 0.3
    assert (one.row != other.row).mean() > 0.9


def test_names_decide_and_not_their_places():
    turned = Order(COUNTS[::-1], SIZES[::-1], NAMES[::-1], 3).take(0, sum(COUNTS))
    plain = order(3).take(0, sum(COUNTS))
    assert [NAMES[s] for s in plain.source] == [NAMES[::-1][s] for s in turned.source]
    assert np.array_equal(plain.row, turned.row)


@given(
    weights=st.lists(st.integers(1, 10**6), min_size=2, max_size=40),
    total=st.integers(50, 3000),
)
@settings(max_examples=80)
def test_stratified_shares_hold_at_every_draw(weights, total):
    counts = np.maximum(1, np.array(weights) * total // sum(weights))
    names = [f"s{i:02}" for i in range(len(counts))]
    made = Order(counts, counts, names, 0, stratified=True)
    drawn = made.take(0, made.total).source
    so_far = np.cumsum(drawn[:, None] == np.arange(len(counts)), axis=0)
    due = np.arange(1, made.total + 1)[:, None] * counts / counts.sum()
    assert np.abs(so_far - due).max() < 1.7


def test_shares_hold_at_every_window_of_the_shuffled_order():
    made = order()
    drawn = made.take(0, made.total).source
    share = np.array(COUNTS) / sum(COUNTS)
    for end in range(WINDOW, made.total, WINDOW):
        assert np.abs(np.bincount(drawn[:end], minlength=len(COUNTS)) - end * share).max() < 1.7
    regular = order(stratified=True).take(0, WINDOW).source
    assert sorted(regular) == sorted(drawn[:WINDOW])
    assert not np.array_equal(regular, drawn[:WINDOW])


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64, 1000])
def test_permutations_are_permutations_and_differ_by_key(size):
    made = [tuple(permuted(size, key)) for key in range(50)]
    assert all(sorted(p) == list(range(size)) for p in made)
    assert len(set(made)) >= min(50, len(list(permutations(range(min(size, 5)))))) * 0.5


def test_every_row_comes_first_about_as_often():
    size, keys = 50, 20_000
    first = np.bincount([permuted(size, key * 7919)[0] for key in range(keys)], minlength=size)
    expected = keys / size
    assert ((first - expected) ** 2 / expected).sum() < 85  # χ² of 49 degrees: 99.9 % are below
    after = np.bincount([permuted(size, key)[1] - permuted(size, key)[0] + size for key in range(4000)])
    assert after.max() < 4000 / size * 2.5


def test_what_cannot_be_ordered_is_refused():
    with pytest.raises(ConfigError, match="code has no rows to draw"):
        Order([1, 1], [1, 0], ["web", "code"], 0)
    with pytest.raises(ConfigError, match="more than 4,294,967,295"):
        Order([2**32], [5], ["web"], 0)
    with pytest.raises(IndexError):
        order().take(0, sum(COUNTS) + 1)
    with pytest.raises(IndexError):
        order().at([-1])
