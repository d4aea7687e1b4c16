"""What learning in stages gained and lost: backward and forward transfer, forgetting, average.

`holdout[t, j]` is the score on the held-out rows of stage j after stage t (both from 0), of which t >= j is
read; `test[t]` is that on tasks no stage has. Leading axes (strategies, seeds, items) are kept.

The formulas are those of requirement 15 of our specification; Dynosaur (arXiv 2305.14327) prints none, and
its published table gives the backward transfers computed with them. Lopez-Paz and Ranzato (2017,
arXiv 1706.08840) for backward transfer, Chaudhry et al. (2018, arXiv 1801.10112) for forgetting.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["average", "backward", "best_before", "forgetting", "forward", "previous"]

Array = np.ndarray[Any, Any]


def backward(holdout: Array, t: int) -> Array:
    """Return, for each stage before `t`, its score after stage t less that right after it ([..., t])."""
    return np.stack([holdout[..., t, j] - holdout[..., j, j] for j in range(t)], axis=-1)


def forward(test: Array, t: int) -> Array:
    """Return the score on unseen tasks after stage `t` less that after the first stage ([...])."""
    return np.asarray(test[..., t] - test[..., 0])


def best_before(holdout: Array, t: int, j: int) -> int:
    """Return the stage from j to t - 1 after which stage j scored best, the first of equal ones."""
    means = [float(np.mean(holdout[..., s, j])) for s in range(j, t)]
    return j + int(np.argmax(means))


def forgetting(holdout: Array, t: int) -> Array:
    """Return, for each stage before `t`, its best score before stage t less that after it ([..., t])."""
    return np.stack([holdout[..., j:t, j].max(axis=-1) - holdout[..., t, j] for j in range(t)], axis=-1)


def average(holdout: Array, t: int) -> Array:
    """Return the mean score over the stages up to `t`, after stage t ([...])."""
    return np.asarray(holdout[..., t, : t + 1].mean(axis=-1))


def previous(holdout: Array, t: int) -> Array:
    """Return the mean score over the stages before `t`, after stage t ([...])."""
    return np.asarray(holdout[..., t, :t].mean(axis=-1))
