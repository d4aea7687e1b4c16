"""Which rows make which step: every row once a pass, few padding, the same for the same seed."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.train import TrainConfig
from taskmill.train.batches import epoch_steps, micro_batches, plan
from taskmill.train.loop import evaluation_steps, learning_rate

LENGTHS = st.lists(st.integers(1, 500), min_size=1, max_size=200)


def config(**settings):
    return TrainConfig(**settings).resolved()


@given(LENGTHS, st.integers(1, 3000), st.integers(0, 3))
def test_a_pass_has_every_row_once(lengths, tokens, epoch):
    settings = config(batch_tokens=tokens)
    steps = epoch_steps(lengths, settings, epoch)
    assert sorted(i for step in steps for i in step) == list(range(len(lengths)))
    assert all(steps)
    assert steps == epoch_steps(lengths, settings, epoch)
    for step in steps[:-1]:
        assert sum(lengths[i] for i in step) >= tokens


@given(LENGTHS, st.integers(1, 20))
def test_steps_counted_in_rows_have_that_many(lengths, rows):
    steps = epoch_steps(lengths, config(batch_rows=rows), 0)
    assert all(len(step) == rows for step in steps[:-1])
    assert len(lengths) < rows or rows / 2 <= len(steps[-1]) < 1.5 * rows


@given(LENGTHS, st.integers(1, 1000))
def test_micro_batches_keep_the_bound_and_every_row(lengths, limit):
    batches = list(micro_batches(range(len(lengths)), lengths, limit))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= limit


def test_passes_differ_in_order_and_seeds_too():
    lengths = [10] * 50
    orders = [epoch_steps(lengths, config(batch_rows=5, seed=s), e) for s, e in ((0, 0), (0, 1), (1, 0))]
    assert len({str(order) for order in orders}) == 3


@pytest.mark.parametrize(
    ("settings", "steps", "most"),
    [
        ({}, 10, 1),
        ({"epochs": 2.5}, 25, 3),
        ({"max_steps": 7}, 7, 1),
        ({"epochs": 9.0, "max_steps": 15}, 15, 2),
    ],
)
def test_the_run_ends_at_its_passes_or_its_steps(settings, steps, most):
    found = plan([10] * 50, config(batch_rows=5, **settings))
    assert len(found) == steps
    assert max(Counter(i for step in found for i in step).values()) == most


def test_the_rate_falls_to_zero_and_the_papers_has_no_warm_up():
    paper, laptop = config(preset="paper"), config(warmup=0.1)
    assert [learning_rate(s, 100, paper) / paper.lr for s in (0, 50, 99)] == pytest.approx([1, 0.5, 0.01])
    rates = [learning_rate(s, 100, laptop) / laptop.lr for s in range(100)]
    assert rates[0] == pytest.approx(1 / 11)
    assert max(rates) == rates[10] == pytest.approx(1)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[99] == pytest.approx(1 / 90)


def test_evaluations_are_evenly_spaced_and_the_last_is_the_end():
    assert evaluation_steps(100, 4) == {25, 50, 75, 100}
    assert evaluation_steps(3, 8) == {1, 2, 3}
    assert evaluation_steps(100, 0) == set()


def test_steps_of_rows_count_the_rows_of_a_tree():
    found = plan([10] * 40, config(batch_rows=8), rows=[4] * 40)
    assert [len(step) for step in found] == [2] * 20
