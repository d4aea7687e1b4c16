"""Weights of a mixture: sizes, caps, temperature and UniMax, nested → one share for each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from taskmill.errors import ConfigError, InputError
from taskmill.mix.source import Mixture, Source

__all__ = ["Task", "effective", "shares", "tempered", "unimax"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Task:
    """What is drawn from: `rows` of one task of one source; `tokens` of a row on average."""

    source: str
    name: str
    rows: int
    tokens: float = 1.0

    @property
    def key(self) -> str:
        """Return the name of the task in the whole mixture."""
        return f"{self.source}:{self.name}" if self.name else self.source


def tempered(sizes: Sequence[float] | Array, temperature: float) -> Array:
    """Return weights proportional to sizes ** (1 / T): T = 1 proportional, a large T equal.

    As `mixing_rate_num_examples` of seqio, whose cap and scale come first (arXiv 1910.10683, section 3.5.2).
    """
    found = np.asarray(sizes, float)
    top = found.max(initial=0.0)
    return found if temperature == 1 or not top else (found / top) ** (1 / temperature)


def unimax(sizes: Sequence[float] | Array, budget: float, epochs: float) -> Array:
    """Return draws of each source: as equal as can be, none more than `epochs` times its size.

    The budget is spent from the smallest source upwards, and what one cannot use goes to the larger ones
    (arXiv 2304.09151, algorithm 1). The sum is below the budget only where all sources are at their limit.
    """
    own = np.asarray(sizes, float)
    order = np.argsort(own, kind="stable")
    spent = np.zeros(len(own))
    left = float(budget)
    for at, source in enumerate(order.tolist()):
        spent[source] = min(left / (len(order) - at), epochs * own[source])
        left -= spent[source]
    return spent


def effective(weights: Sequence[float] | Array) -> float:
    """Return how many equal sources would be as diverse: 1 / Σ p² (Simpson's index, inverted)."""
    own = np.asarray(weights, float)
    total = own.sum()
    return float(total**2 / (own**2).sum()) if total else 0.0


def shares(mixture: Mixture, tasks: Sequence[Task], rows: int, *, capped: bool = True) -> Array:
    """Return each task's share of the rows that are drawn (they sum to 1).

    `rows`: how many the weights decide about, which UniMax spends. Without `capped`, caps, scales and
    temperatures are left out: what the same weights come to before them. Sources of fixed counts have no
    share. Raises InputError for a source without rows.
    """
    at: dict[str, list[int]] = {}
    for i, task in enumerate(tasks):
        at.setdefault(task.source, []).append(i)
    found = _Shares(mixture, tasks, at, capped).of(mixture.root, float(rows))
    whole = np.zeros(len(tasks))
    for i, share in found.items():
        whole[i] = share
    if mixture.weights == "tokens":  # a source of long rows needs fewer of them
        whole /= np.array([max(task.tokens, 1e-9) for task in tasks])
    total = whole.sum()
    return whole / total if total else whole


@dataclass(frozen=True)
class _Shares:
    mixture: Mixture
    tasks: Sequence[Task]
    at: Mapping[str, list[int]]
    capped: bool

    def of(self, source: Source, budget: float) -> dict[int, float]:
        """Return the share of every task below a source, of a sum of 1."""
        if not source.sources:
            own = self._tasks(source)
            sizes = [self._size(source, i) for i in own]
            return dict(zip(own, self._weights(source, sizes, budget).tolist(), strict=True))
        children = [c for c in source.sources if not c.fixed and c.weight != 0]
        if not children:
            return {}
        if any(child.weight is not None for child in children):
            weights = np.array([child.weight or 0.0 for child in children])
            weights = weights / weights.sum()
        else:
            weights = self._weights(source, [self._total(child) for child in children], budget)
        found: dict[int, float] = {}
        for child, weight in zip(children, weights.tolist(), strict=True):
            found |= {i: weight * share for i, share in self.of(child, budget * weight).items()}
        return found

    def _weights(self, source: Source, sizes: list[float], budget: float) -> Array:
        """Return what is right below a source weighs, by its sizes."""
        if not self.capped:
            weights = np.asarray(sizes, float)
        elif source.unimax is not None:
            if self.mixture.weights == "tokens":
                raise ConfigError("unimax counts rows; take `weights: rows` with it, or a temperature")
            weights = unimax(sizes, budget, source.unimax)
        else:
            weights = tempered(sizes, source.temperature)
        return weights / weights.sum() if len(weights) and weights.sum() else weights

    def _tasks(self, source: Source) -> list[int]:
        own = self.at.get(source.name, [])
        if not own:
            raise InputError(f"the source {source.name} has no rows; name other files, or leave it out")
        return own

    def _size(self, source: Source, i: int) -> float:
        """Return what a task counts for: its rows (or their tokens), scaled, then capped."""
        size = float(self.tasks[i].rows)
        if self.capped:
            size *= source.scale
            size = min(size, source.cap) if source.cap else size
        return size * self.tasks[i].tokens if self.mixture.weights == "tokens" else size

    def _total(self, source: Source) -> float:
        if source.sources:
            return sum(self._total(c) for c in source.sources if not c.fixed and c.weight != 0)
        return sum(self._size(source, i) for i in self._tasks(source))
