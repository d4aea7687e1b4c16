"""Products of rows against float64, and the promise that their bits depend on the two rows alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core.errors import TypingError

from taskmill.kernels.distances import rounding
from taskmill.kernels.matrix import DEPTH, WIDE, pack, panels, products


def unit(rng, rows, width):
    made = rng.normal(size=(rows, width)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def all_of(left, right):
    out = np.empty((len(left), len(right)), np.float32)
    products(left, 0, len(left), panels(right), 0, len(right), out)
    return out


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.integers(0, 3 * WIDE), st.integers(1, 3 * DEPTH), st.data())
def test_any_part_of_the_products_is_that_of_float64_and_nothing_else_is_touched(rows, others, width, data):
    rng = np.random.default_rng(rows * 1000 + others)
    left, right = unit(rng, rows, width), unit(rng, others, width)
    a, c = data.draw(st.integers(0, rows)), data.draw(st.integers(0, others))
    b, d = data.draw(st.integers(a, rows)), data.draw(st.integers(c, others))
    out = np.full((b - a + 1, d - c + 1), 7, np.float32)
    products(left, a, b, panels(right), c, d, out)
    wanted = left[a:b].astype(float) @ right[c:d].T.astype(float)
    off = (DEPTH + width / DEPTH) * 2.0**-24
    assert np.abs(out[:-1, :-1] - wanted).max(initial=0) <= off
    assert (out[-1] == 7).all()
    assert (out[:, -1] == 7).all()


def test_a_product_has_the_same_bits_wherever_its_rows_stand():
    rng = np.random.default_rng(2)
    left, right = unit(rng, 50, 100), unit(rng, 70, 100)
    whole = all_of(left, right)
    some, other = rng.permutation(50), rng.permutation(70)
    assert (all_of(left[some], right[other]) == whole[np.ix_(some, other)]).all()
    assert (all_of(right, left) == whole.T).all()
    alone = np.array([[all_of(x[None], y[None])[0, 0] for y in right] for x in left])
    assert (alone == whole).all()


def test_a_product_is_summed_column_by_column_in_runs():
    rng = np.random.default_rng(3)
    x, y = rng.integers(-8, 9, (2, 1, 2 * DEPTH + 5)).astype(np.float32)
    assert all_of(x, y)[0, 0] == float(x[0] @ y[0])  # whole numbers: nothing is rounded
    assert rounding(384) < 1e-5


def test_rows_can_be_added_to_panels():
    rng = np.random.default_rng(4)
    right = unit(rng, 2 * WIDE + 3, 9)
    made = np.zeros_like(panels(right))
    pack(right[: WIDE - 1], 0, made)
    pack(right[WIDE - 1 :], WIDE - 1, made)
    assert (made == panels(right)).all()


def test_other_numbers_than_float32_are_refused_by_the_compiler():
    left = np.zeros((2, 3))
    with pytest.raises(TypingError, match="float32"):
        products(left, 0, 2, panels(left), 0, 2, np.zeros((2, 2), np.float32))
