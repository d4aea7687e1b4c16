"""Which rows make which step: drawn by the seed, measured in tokens, grouped by length within a step.

A step's rows are a random draw, as in textbook training; only within a step are rows of like length put
together, so that little padding passes through the model and no step sees long rows only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from taskmill.ids import draw
from taskmill.train.config import TrainConfig

__all__ = ["epoch_steps", "micro_batches", "plan"]

Step = list[int]
"""Indices of the sequences (rows, or trees of rows) of one optimiser step."""


def epoch_steps(
    lengths: Sequence[int], config: TrainConfig, epoch: int, rows: Sequence[int] | None = None
) -> list[Step]:
    """Return one pass over the sequences, cut into steps. Depends on its arguments only.

    `lengths` in tokens; `rows`: how many rows each sequence holds (one, if left out).
    """
    order = np.random.Generator(np.random.PCG64(draw(config.seed, str(epoch), "order")))
    steps: list[Step] = []
    step: Step = []
    tokens = held = 0
    for i in order.permutation(len(lengths)).tolist():
        step.append(i)
        tokens += lengths[i]
        held += rows[i] if rows else 1
        full = held >= config.batch_rows if config.batch_rows else tokens >= config.batch_tokens
        if full:
            steps.append(step)
            step, tokens, held = [], 0, 0
    # A rest of less than half a step would be a noisy step of its own; it joins the last one.
    small = 2 * held < config.batch_rows if config.batch_rows else 2 * tokens < config.batch_tokens
    if step and small and steps:
        steps[-1] += step
    elif step:
        steps.append(step)
    return steps


def plan(lengths: Sequence[int], config: TrainConfig, rows: Sequence[int] | None = None) -> list[Step]:
    """Return the steps of the whole run: `epochs` passes (the last may be a part), `max_steps` at most."""
    steps: list[Step] = []
    left, epoch = config.epochs, 0
    while left > 0 and (not config.max_steps or len(steps) < config.max_steps):
        found = epoch_steps(lengths, config, epoch, rows)
        steps += found if left >= 1 else found[: max(1, round(left * len(found)))]
        left, epoch = left - 1, epoch + 1
    return steps[: config.max_steps] if config.max_steps else steps


def micro_batches(rows: Sequence[int], lengths: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Group rows of like length so that rows times longest is at most `limit` tokens (one row at least)."""
    batch: list[int] = []
    for i in sorted(rows, key=lambda i: (-lengths[i], i)):
        # The first row is the longest.
        if batch and (len(batch) + 1) * lengths[batch[0]] > limit:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
