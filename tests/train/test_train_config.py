"""Presets fill in what is left out, and what cannot be trained with is refused."""

from __future__ import annotations

import dataclasses

import pytest

from taskmill.config import build, options
from taskmill.errors import ConfigError
from taskmill.train import TrainConfig


def test_the_papers_recipe():
    paper = TrainConfig(preset="paper").resolved()
    assert (paper.method, paper.rank, paper.alpha, paper.dropout) == ("qlora", 64, 16.0, 0.0)
    assert (paper.lr, paper.schedule, paper.clip, paper.weight_decay) == (1e-4, "linear", 0.3, 0.0)
    assert (paper.batch_rows, paper.batch_tokens, paper.max_steps, paper.max_length) == (16, 0, 100_000, 2048)


def test_what_is_given_wins_over_the_preset():
    found = TrainConfig(preset="paper", method="lora", rank=8, batch_tokens=4096).resolved()
    assert (found.method, found.rank, found.batch_tokens, found.batch_rows) == ("lora", 8, 4096, 0)
    assert found.resolved() == found


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"preset": "huge"}, "no preset"),
        ({"batch_rows": 1, "batch_tokens": 1}, "keep one"),
        ({"dropout": 1.0}, "dropout"),
        ({"valid_share": 1.5}, "valid_share"),
        ({"method": "adapter"}, "method"),
        ({"lr": -1.0}, "lr"),
    ],
)
def test_nonsense_is_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        TrainConfig(**settings).resolved()


def test_flags_and_keys_can_be_made_of_it():
    leaves = options(TrainConfig)
    assert len(leaves) == len(dataclasses.fields(TrainConfig))
    assert all(leaf.help and leaf.kind in (str, int, float, bool) for leaf in leaves)
    assert build(TrainConfig, {"rank": "8", "lr": "1e-3"}) == TrainConfig(rank=8, lr=1e-3)
