"""The best matching of pairs against every matching there is, and the marks that rest on it."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.evaluate.matching import best_matching, likeness, pair_set

ANSWERS = [("Who came?", "the old baker"), ("When was it?", "in spring"), ("Where is it?", "in the harbour")]


def best_of_all(gains):
    """Oracle: every one-to-one matching of the shorter side."""
    if gains.shape[0] > gains.shape[1]:
        gains = gains.T
    rows, columns = gains.shape
    return max(sum(gains[i, p[i]] for i in range(rows)) for p in permutations(range(columns), rows))


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 10**6), st.booleans())
def test_no_matching_gains_more(rows, columns, seed, coarse):
    gains = np.random.default_rng(seed).random((rows, columns))
    gains = np.round(gains * 3) / 3 if coarse else gains  # many ties
    found = best_matching(gains)
    assert len(found) == min(rows, columns)
    assert len({r for r, _ in found}) == len({c for _, c in found}) == len(found)
    assert sum(gains[r, c] for r, c in found) == pytest.approx(best_of_all(gains))


def test_a_hundred_pairs_on_the_diagonal_are_found():
    gains = np.random.default_rng(0).random((100, 120)) * 0.5
    gains[range(100), range(100)] = 1.0
    assert best_matching(gains) == [(i, i) for i in range(100)]


@given(st.permutations(ANSWERS), st.permutations(ANSWERS))
def test_the_order_of_the_pairs_changes_nothing(found, gold):
    assert pair_set(found, gold) == (1.0, 1.0, 1.0)
    assert pair_set(found[:2], gold).precision == 1.0
    assert pair_set(found[:2], gold).recall == pytest.approx(2 / 3)
    assert pair_set(found[:2], gold).f1 == pytest.approx(0.8)


def test_a_right_pair_counts_once_however_often_it_is_written():
    marks = pair_set([ANSWERS[0]] * 3, [ANSWERS[0]])
    assert marks.recall == 1.0
    assert marks.precision == pytest.approx(1 / 3)


def test_greedy_choices_are_not_enough():
    """The likest two first would leave the rest nothing in common."""
    gains = np.array([[0.9, 0.8], [0.8, 0.0]])
    assert sum(gains[r, c] for r, c in best_matching(gains)) == pytest.approx(1.6)


def test_no_pairs_against_some_are_worth_nothing():
    assert pair_set([], ANSWERS).f1 == pair_set(ANSWERS, []).f1 == 0.0
    assert pair_set([], []).f1 == 1.0


def test_question_and_answer_weigh_the_same():
    assert likeness(("Who came?", "the baker"), ("Who came?", "the sailor")) == 0.5
    assert likeness(("谁来了?", "老人"), ("谁来了?", "老人")) == 1.0
