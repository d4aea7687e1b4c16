"""Which earlier tasks are trained on again when new ones come, and which of their rows.

Every strategy is a score of each earlier task; higher comes first, ties go by id. With the unit vectors p of
the earlier tasks' instructions (L of them) and c of the new ones' (K), S_cp = cos(c, p) and S_pp = cos(p, p):

| strategy | score of an earlier task |
|---|---|
| none | nothing is replayed |
| random | by chance (the seed decides) |
| instruction-diverse | minus its column sum of S_cp: least like the new tasks |
| instruction-similar | its column sum of S_cp: most like the new tasks |
| instruction-support | its row sum of S_pp: most like the other earlier tasks |
| data-diverse | as instruction-diverse, with the mean vectors of the tasks' rows |
| inscl | Wasserstein distance of its wordings to the new tasks' times how much its words tell |
| k-center, herding | the selectors of those names, on the instructions (k-center begins from the new ones) |

The first four of those with names like `instruction-…` and `data-…` are Dynosaur's (Yin et al. 2023,
arXiv 2305.14327); as its paper prints no formula, they are defined here.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np

from taskmill.errors import UsageError
from taskmill.ids import draw
from taskmill.registry import nearest

__all__ = ["STRATEGIES", "Tasks", "complexity", "order", "score", "spend", "wasserstein"]

Array = np.ndarray[Any, Any]

STRATEGIES = (
    "none",
    "random",
    "instruction-diverse",
    "instruction-similar",
    "instruction-support",
    "data-diverse",
    "k-center",
    "herding",
    "inscl",
)

BLUR = 0.01
"""Entropic regularisation of the Wasserstein distance, in units of cosine distance (chosen: the plan's cost
is then at most 0.01 · log n too high, 0.04 for 64 wordings, against distances of 0.2 to 1)."""

ROUNDS = 200
"""Sinkhorn iterations (chosen: the marginals of 64 by 64 random points are then met to 1e-3)."""


@dataclass(frozen=True, eq=False)
class Tasks:
    """Tasks to rank or to rank against. `ids`: different names.

    `wordings`: for each task the unit vectors of its instructions (float32 [m, d], one row at least; zero
    rows are instructions without words); `texts`: its instructions; `data`: the mean of its rows' vectors
    (float32 [n, d], any length), None if nobody asks for it.
    """

    ids: Sequence[str]
    wordings: Sequence[Array]
    texts: Sequence[str]
    data: Array | None = None

    @property
    def instructions(self) -> Array:
        """The vector of each task: the mean of its wordings at length one (float32 [n, d])."""
        return _unit(np.array([own.mean(axis=0) for own in self.wordings], np.float32))


def score(strategy: str, earlier: Tasks, new: Tasks, seed: int) -> Array:
    """Return the score of each earlier task (float64 [L]); the higher, the sooner it is replayed.

    Sums of a row or column of cosines are one product with the sum of the other vectors. Raises UsageError
    for a strategy that has no score (`none`; `k-center` and `herding` are selectors), naming the nearest.
    """
    found = _SCORES.get(strategy)
    if found is None:
        raise UsageError(
            f"no replay strategy is called {strategy!r}.{nearest(strategy, STRATEGIES)} "
            f"Known: {', '.join(STRATEGIES)}"
        )
    return found(earlier, new, seed)


def order(ids: Sequence[str], scores: Array) -> list[int]:
    """Return the tasks by score, highest first, ties by id."""
    return sorted(range(len(ids)), key=lambda i: (-float(scores[i]), ids[i]))


def _random(earlier: Tasks, new: Tasks, seed: int) -> Array:
    del new
    return np.array([draw(seed, name, "replay") / 2**63 for name in earlier.ids])


def _similar(earlier: Tasks, new: Tasks, seed: int) -> Array:
    del seed
    return _sums(earlier.instructions, new.instructions)


def _diverse(earlier: Tasks, new: Tasks, seed: int) -> Array:
    return -_similar(earlier, new, seed)


def _support(earlier: Tasks, new: Tasks, seed: int) -> Array:
    del new, seed
    return _sums(earlier.instructions, earlier.instructions)


def _data(earlier: Tasks, new: Tasks, seed: int) -> Array:
    del seed
    if earlier.data is None or new.data is None:
        raise UsageError("data-diverse ranks tasks by their rows, and there are none; take another strategy")
    return -_sums(_unit(earlier.data), _unit(new.data))


def _inscl(earlier: Tasks, new: Tasks, seed: int) -> Array:
    """InsCL's two parts (Wang et al. 2024, arXiv 2403.11435), as products: distance and complexity.

    Upstream replays a task the more, the farther its instructions lie from the new task's in Wasserstein
    distance, and prefers instructions with rare tags, which a model writes. Ours: the distance is that of a
    task's wordings to all wordings of the new tasks; tags are the instruction's words (`complexity`), so that
    no model is called; the weight is a task's complexity over the mean of all.
    """
    del seed
    told = complexity(earlier.texts)
    new_wordings = np.concatenate([new.wordings[i] for i in np.argsort(np.array(new.ids))])
    distances = np.array([wasserstein(own, new_wordings) for own in earlier.wordings])
    return np.asarray(distances * told / (told.mean() or 1.0))


_SCORES: dict[str, Callable[[Tasks, Tasks, int], Array]] = {
    "random": _random,
    "instruction-diverse": _diverse,
    "instruction-similar": _similar,
    "instruction-support": _support,
    "data-diverse": _data,
    "inscl": _inscl,
}


def _unit(vectors: Array) -> Array:
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1.0), np.float32)


def _sums(of: Array, over: Array) -> Array:
    """Return for each row of `of` the sum of its products with all rows of `over` (float64)."""
    from taskmill.kernels.distances import means, products_with

    total = means(over, np.zeros(len(over), np.int64), 1)[0][0] * len(over)
    return products_with(np.ascontiguousarray(of), total)


def complexity(texts: Sequence[str]) -> Array:
    """Return how much each text tells: the sum over its different words of log(texts / texts with it).

    InsInfo of InsCL (2403.11435, equation 3) with words in place of a model's tags.
    """
    words = [set(re.findall(r"\w+", text.casefold())) for text in texts]
    counts = Counter(word for own in words for word in own)
    return np.array([sum(log(len(texts) / counts[w]) for w in sorted(own)) for own in words], np.float64)


def wasserstein(one: Array, two: Array) -> float:
    """Return the Wasserstein-1 distance of two sets of unit rows, each row alike, at cosine distance.

    With one row on either side there is one plan, and its cost is exact. Else Sinkhorn's plan (Cuturi 2013)
    at `BLUR`, whose cost is at most that times the log of the rows above the least.
    """
    cost = 1.0 - one.astype(np.float64) @ two.astype(np.float64).T
    if 1 in cost.shape:
        return float(cost.mean())
    # In logarithms: exp(-1 / 0.01) is beyond float64's sum of others.
    kernel, f, g = -cost / BLUR, np.zeros(len(one)), np.zeros(len(two))
    for _ in range(ROUNDS):
        f = -_log_mean(kernel + g[None, :], axis=1)
        g = -_log_mean(kernel + f[:, None], axis=0)
    plan = np.exp(kernel + f[:, None] + g[None, :]) / cost.size
    return float((plan * cost).sum() / plan.sum())


def _log_mean(values: Array, axis: int) -> Array:
    top = values.max(axis=axis, keepdims=True)
    found: Array = np.log(np.exp(values - top).mean(axis=axis)) + top.squeeze(axis)
    return found


def spend(
    tokens: Sequence[Sequence[int]],
    *,
    tasks: int | None = None,
    limit: int | None = None,
    per_task: int = 0,
    shares: Sequence[float] | None = None,
) -> list[list[int]]:
    """Return which rows of each task are replayed: `tokens[i][k]` is the cost of row k of the i-th task.

    Tasks and their rows are in the order in which they are wanted. The first `tasks` tasks take part (None:
    all), each with at most `per_task` rows (0: all of them). A `limit` of tokens alone is spent on one task
    after the other. With both, the task that has spent least of its share takes its next row, so that the
    tasks get even amounts (or `shares` of them, one for each task). A row that does not fit into what is left
    is passed over.
    """
    count = len(tokens) if tasks is None else min(tasks, len(tokens))
    rows = [list(own)[: per_task or None] for own in tokens[:count]]
    if limit is None:
        return [list(range(len(own))) for own in rows]
    left = limit
    chosen: list[list[int]] = [[] for _ in rows]
    waiting = [(0.0, i, 0) for i, own in enumerate(rows) if own]
    while waiting and left > 0:
        spent, i, at = heapq.heappop(waiting)
        cost = max(1, rows[i][at])  # an empty row still takes a place
        if cost <= left:
            chosen[i].append(at)
            left -= cost
            spent += cost / (shares[i] if shares else 1.0) if tasks is not None else 0.0
        if at + 1 < len(rows[i]):
            heapq.heappush(waiting, (spent, i, at + 1))
    return chosen
