"""Which (passage, task type, sample) to ask next, until N examples of each type are accepted.

Waves: each asks for as many candidates as the yield so far says are missing, never more. The order
of passages is that of their ids, which are hashes, from a start drawn by the seed: a random order
that needs no shuffle and does not depend on how the documents arrived.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from math import ceil
from pathlib import Path

import pyarrow.parquet as pq

from taskmill.record import Document, documents, draw

__all__ = ["Passages", "TargetPlan"]

WAVE = 4096
"""Most candidates of one task type in one wave (bounds memory and the cost of a wrong estimate)."""

PROOF = 200
"""Candidates after which a yield below the floor ends a task type (at 2 %: 0 of 200 has p < 0.02)."""


class Passages:
    """Random access to the kept documents of a stage, in a seeded order, a few parts in memory."""

    def __init__(self, paths: Sequence[Path], seed: int, keep: int = 4) -> None:
        """Read the row counts only; `keep` parts stay in memory."""
        self._paths = list(paths)
        self._ends = list(accumulate(pq.read_metadata(p).num_rows for p in self._paths))
        self._total = self._ends[-1] if self._ends else 0
        self._start = draw(seed, "", "first passage") % self._total if self._total else 0
        self._part = lru_cache(maxsize=keep)(self._read)

    def __len__(self) -> int:
        return self._total

    def _read(self, part: int) -> list[Document]:
        return list(documents(pq.read_table(self._paths[part])))

    def __getitem__(self, index: int) -> Document:
        row = (index + self._start) % self._total
        part = bisect_right(self._ends, row)
        before = self._ends[part - 1] if part else 0
        return self._part(part)[row - before]


@dataclass(slots=True)
class _Progress:
    """Where one task type stands: the next candidate, and how many were tried and accepted."""

    cursor: int = 0
    candidates: int = 0
    accepted: set[str] = field(default_factory=set)
    stopped: str = ""


class TargetPlan:
    """Plans waves of candidates for `target` accepted examples per task type.

    A task type ends when it has its N; when every passage was asked `attempts` times; or when after
    PROOF candidates less than `min_yield` of them were accepted.
    """

    def __init__(
        self, tasks: Sequence[str], passages: int, target: int, *, attempts: int, min_yield: float
    ) -> None:
        self.target = target
        self._passages = passages
        self._limit = passages * attempts
        self._floor = min_yield
        self._progress = {task: _Progress() for task in tasks}

    def accepted(self, task: str) -> int:
        """Return how many different accepted examples a task type has."""
        return len(self._progress[task].accepted)

    def accept(self, task: str, example: str) -> None:
        """Count an accepted example by its id; a second one of the same id adds nothing."""
        self._progress[task].accepted.add(example)

    def candidate(self, task: str) -> None:
        """Count a candidate, accepted or not."""
        self._progress[task].candidates += 1

    def shortfall(self, task: str) -> str | None:
        """Return why a task type has fewer than its target, None if it has it."""
        p = self._progress[task]
        if len(p.accepted) >= self.target:
            return None
        return p.stopped or "the run was stopped before all passages were asked"

    def wave(self) -> Iterator[tuple[int, str, int]]:
        """Yield (passage index, task type, sample) of the next wave; nothing at the end."""
        picks = []
        for order, (task, p) in enumerate(self._progress.items()):
            size = self._size(p)
            picks += [
                (c % self._passages, c // self._passages, order, task)
                for c in range(p.cursor, p.cursor + size)
            ]
            p.cursor += size
        for passage, sample, _, task in sorted(picks):
            yield passage, task, sample

    def _size(self, p: _Progress) -> int:
        missing = self.target - len(p.accepted)
        if missing <= 0 or p.stopped:
            return 0
        if p.cursor >= self._limit:
            p.stopped = f"all {self._limit} candidates (passages x attempts) were tried"
            return 0
        share = len(p.accepted) / p.candidates if p.candidates else 1.0
        if p.candidates >= PROOF and share < self._floor:
            p.stopped = f"{len(p.accepted)} of {p.candidates} candidates were accepted, below --min-yield"
            return 0
        wanted = ceil(missing / max(share, 1 / (p.candidates + 2)))
        return min(wanted, WAVE, self._limit - p.cursor)
