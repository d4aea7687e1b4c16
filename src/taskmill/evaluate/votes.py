"""Self-consistency: the majority over extracted answers, and its unbiased estimate for fewer votes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import comb

__all__ = ["maj_at", "majority"]


def majority(answers: Sequence[str]) -> str:
    """Return the answer most outputs hold, "" if none holds one; of equal counts the one that came first.

    An output without an answer ("") has no vote.
    """
    counts = Counter(answer for answer in answers if answer)
    return max(counts, key=lambda answer: counts[answer]) if counts else ""


def maj_at(k: int, answers: Sequence[str], right: Sequence[bool]) -> float:
    """Return the unbiased estimate of the chance that the majority of `k` outputs is right.

    It is the mean over all subsets of `k` of the n outputs, computed exactly; equal counts share the win
    evenly. `right` says for each output whether its answer is right. k = 1 is the mean over outputs.
    """
    n = len(answers)
    if not 1 <= k <= n:
        raise ValueError(f"k is {k}, there are {n} outputs")
    correct = {answer for answer, good in zip(answers, right, strict=True) if answer and good}
    counts = Counter(answer for answer in answers if answer)
    silent = n - sum(counts.values())
    won = sum(_wins(counts, answer, silent, k) for answer in correct)
    return won / comb(n, k)


def _wins(counts: Counter[str], answer: str, silent: int, k: int) -> float:
    """Return the number of subsets of `k` outputs that `answer` wins, ties shared.

    For each number of votes it may have, the others' are counted by (outputs drawn, answers that tie).
    """
    others = [count for other, count in counts.items() if other != answer]
    won = 0.0
    for votes in range(1, min(k, counts[answer]) + 1):
        ways = {(0, 0): 1}
        for count in others:
            ways = _with(ways, count, votes, k - votes)
        own = comb(counts[answer], votes)
        for (drawn, ties), number in ways.items():
            won += own * number * comb(silent, k - votes - drawn) / (1 + ties)
    return won


def _with(ways: dict[tuple[int, int], int], count: int, votes: int, most: int) -> dict[tuple[int, int], int]:
    """Add an answer that `count` outputs hold to the ways to draw up to `most`, up to `votes` of each."""
    found: Counter[tuple[int, int]] = Counter()
    for (drawn, ties), number in ways.items():
        for taken in range(min(count, votes, most - drawn) + 1):
            found[drawn + taken, ties + (taken == votes)] += number * comb(count, taken)
    return dict(found)
