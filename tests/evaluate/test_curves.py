"""Learning curves: planted ones are found again, brute force finds none better, flat ones are called so."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.errors import InputError
from taskmill.evaluate.curves import FASTEST, LEAST_SIZES, SLOWEST, fit

SIZES = np.array([5, 20, 50, 100, 200, 500, 1000.0])


def exact(a, b, c, sizes=SIZES):
    return [np.array([[mark]]) for mark in a - b * sizes**-c]


def drawn(rng, a, b, c, seeds=3, items=300, sizes=SIZES):
    """Marks 0 or 1 of students whose chance grows along the curve."""
    return [(rng.random((seeds, items)) < chance).astype(float) for chance in a - b * sizes**-c]


@given(st.floats(0.5, 0.95), st.floats(0.05, 0.9), st.floats(0.15, 1.5))
def test_a_planted_curve_is_found_again(a, share, c):
    b = a * share * 5**c  # at 5 rows that share of `a` is missing
    found = fit(SIZES, exact(a, b, c), draws=2)
    assert (found.a, found.b, found.c) == pytest.approx((a, b, c), rel=1e-3)
    assert found.misfit < 1e-6
    mark = a - b * 80**-c
    assert found.needed(mark).value == pytest.approx(80, rel=1e-3)
    assert found.at(80).value == pytest.approx(mark, abs=1e-6)


def brute_force(sizes, means, most):
    """The least squared error over a fine grid of c, a and b by numpy's own least squares or at the bound."""
    best = np.inf
    for c in np.geomspace(SLOWEST, FASTEST, 4000):
        columns = np.stack([np.ones(len(sizes)), -(sizes**-c)], axis=1)
        (a, b), *_ = np.linalg.lstsq(columns, means, rcond=None)
        if b < 0:
            a, b = means.mean(), 0.0
        if a > most:
            a = most
            b = max(0.0, np.linalg.lstsq(sizes[:, None] ** -c, most - means, rcond=None)[0][0])
        best = min(best, float(((a - b * sizes**-c - means) ** 2).sum()))
    return best


@pytest.mark.parametrize("seed", range(6))
def test_no_curve_of_a_fine_grid_is_nearer(seed):
    rng = np.random.default_rng(seed)
    means = np.sort(rng.random(7)) if seed < 4 else rng.random(7)
    found = fit(SIZES, [np.array([m]) for m in means], draws=2)
    error = float(((found.a - found.b * SIZES**-found.c - means) ** 2).sum())
    assert error <= brute_force(SIZES, means, 1.0) * (1 + 1e-6) + 1e-12
    assert found.a <= 1.0
    assert found.b >= 0.0


def test_scipy_finds_the_same_curve():
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(1)
    means = 0.8 - 0.9 * SIZES**-0.4 + 0.01 * rng.normal(size=len(SIZES))
    found = fit(SIZES, [np.array([m]) for m in means], draws=2)
    (a, b, c), _ = optimize.curve_fit(lambda n, a, b, c: a - b * n**-c, SIZES, means, p0=(0.7, 1.0, 0.5))
    assert (found.a, found.b, found.c) == pytest.approx((a, b, c), rel=1e-3)


def test_the_interval_of_the_rows_that_are_enough_holds_the_true_number():
    """Of 60 experiments, intervals at 90 % miss 6 on average; twelve more than that are 5 deviations."""
    rng = np.random.default_rng(5)
    a, b, c, epsilon = 0.9, 1.2, 0.5, 0.03
    truth = (1000**-c + epsilon / b) ** (-1 / c)
    missed = 0
    for seed in range(60):
        found = fit(SIZES, drawn(rng, a, b, c), confidence=0.9, seed=seed, draws=300)
        near = found.enough(epsilon)
        missed += not near.low <= truth <= near.high
        assert near.low <= near.value <= near.high
        assert SIZES[0] <= near.low <= near.high <= SIZES[-1]
    assert missed <= 18


def test_a_flat_curve_is_undecided():
    rng = np.random.default_rng(2)
    flat = fit(SIZES, drawn(rng, 0.7, 0.0, 0.5))
    assert "no growth is proved" in flat.why
    assert flat.needed(0.5) is None
    assert flat.enough(0.02) is None
    falling = fit(SIZES, drawn(rng, 0.9, 1.2, 0.5)[::-1])
    assert "no growth" in falling.why
    assert falling.b == pytest.approx(0.0)


def test_few_sizes_are_undecided():
    rng = np.random.default_rng(2)
    few = SIZES[: LEAST_SIZES - 1]
    found = fit(few, drawn(rng, 0.9, 1.2, 0.5, sizes=few))
    assert f"{LEAST_SIZES} different sizes" in found.why
    twice = fit([5, 5, 50, 50], drawn(rng, 0.9, 1.2, 0.5, sizes=np.array([5, 5, 50, 50.0])))
    assert "here are 2" in twice.why


def test_a_mark_that_is_never_reached_takes_infinitely_many_rows():
    found = fit(SIZES, exact(0.8, 1.0, 0.5), draws=5)
    assert found.needed(0.85).value == np.inf
    assert found.needed(0.1).value == SIZES[0]
    assert found.needed(0.79).value > SIZES[-1]
    assert found.enough(0.0).value == pytest.approx(SIZES[-1])
    assert found.enough(1.0).value == SIZES[0]


def test_marks_do_not_pass_the_best_there_is():
    rising = [np.array([m]) for m in (0.2, 0.4, 0.6, 0.8, 0.95)]
    sizes = [10, 100, 1000, 10_000, 100_000]
    assert fit(sizes, rising, draws=2).a <= 1.0
    assert fit(sizes, rising, most=2.0, draws=2).a > 1.0


def test_the_order_of_sizes_changes_nothing_and_the_seed_decides():
    rng = np.random.default_rng(3)
    marks = drawn(rng, 0.9, 1.2, 0.5, items=80)
    one = fit(SIZES, marks, seed=4, draws=50)
    back = fit(SIZES[::-1], marks[::-1], seed=4, draws=50)
    assert np.array_equal(one.draws, back.draws)
    assert not np.array_equal(one.draws, fit(SIZES, marks, seed=5, draws=50).draws)


def test_more_items_make_the_interval_narrower():
    rng = np.random.default_rng(3)
    few = fit(SIZES, drawn(rng, 0.9, 1.2, 0.5, items=60), draws=200).at(1000)
    many = fit(SIZES, drawn(rng, 0.9, 1.2, 0.5, items=3000), draws=200).at(1000)
    assert many.high - many.low < (few.high - few.low) / 2


def test_sizes_may_have_different_numbers_of_seeds():
    rng = np.random.default_rng(3)
    marks = [own[: 1 + at % 3] for at, own in enumerate(drawn(rng, 0.9, 1.2, 0.5))]
    found = fit(SIZES, marks, draws=200)
    assert not found.why
    assert found.numbers()["a"].low < 0.9 < found.numbers()["a"].high + 0.05


@pytest.mark.parametrize(
    ("sizes", "marks"),
    [([], []), ([0, 1], [np.ones(2), np.ones(2)]), ([1, 2], [np.ones(2)]), ([1], [np.zeros((0, 3))])],
)
def test_what_is_no_curve_is_refused(sizes, marks):
    with pytest.raises(InputError, match="sizes above 0"):
        fit(sizes, marks)
