"""Sets of question-answer pairs held against each other: the best one-to-one matching, and its F1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from taskmill.tasks.metrics import squad_f1

__all__ = ["PairMarks", "best_matching", "likeness", "pair_set"]

Array = np.ndarray[Any, Any]
QuestionAnswer = tuple[str, str]


class PairMarks(NamedTuple):
    """What a set of pairs is worth against the right ones, each 0 to 1."""

    precision: float
    recall: float
    f1: float


def best_matching(gains: Array) -> list[tuple[int, int]]:
    """Return (row, column) pairs, each row and column once, of the largest sum of gains.

    `gains`: float [rows, columns]; as many pairs as the shorter side has. Shortest augmenting paths with
    potentials (Kuhn 1955, in the O(n³) form of Jonker and Volgenant 1987).
    """
    gains = np.asarray(gains, np.float64)
    if gains.shape[0] > gains.shape[1]:
        return sorted((row, column) for column, row in best_matching(gains.T))
    rows, columns = gains.shape
    cost = -gains
    of_row, of_column = np.zeros(rows), np.zeros(columns + 1)
    owner = np.full(columns + 1, -1)  # the last column is none: where each search begins
    for row in range(rows):
        owner[columns], column = row, columns
        reach, before = np.full(columns, np.inf), np.full(columns, columns)
        done = np.zeros(columns + 1, bool)
        while owner[column] >= 0:
            done[column] = True
            slack = cost[owner[column]] - of_row[owner[column]] - of_column[:columns]
            nearer = ~done[:columns] & (slack < reach)
            reach[nearer], before[nearer] = slack[nearer], column
            left = np.where(done[:columns], np.inf, reach)
            nearest = int(np.argmin(left))
            step = left[nearest]
            of_row[owner[done]] += step
            of_column[done] -= step
            reach[~done[:columns]] -= step
            column = nearest
        while column != columns:
            owner[column] = owner[before[column]]
            column = int(before[column])
        owner[columns] = -1
    return sorted((int(owner[column]), column) for column in range(columns) if owner[column] >= 0)


def likeness(one: QuestionAnswer, other: QuestionAnswer) -> float:
    """Return how like two pairs are: the mean of the token F1 of their questions and of their answers.

    The two parts weigh the same (chosen), or a long question would hide a wrong short answer.
    """
    return (squad_f1(one[0], [other[0]]) + squad_f1(one[1], [other[1]])) / 2


def pair_set(found: Sequence[QuestionAnswer], gold: Sequence[QuestionAnswer]) -> PairMarks:
    """Return precision, recall and F1 of pairs against the right ones, in whatever order both come.

    Each pair counts for at most one right one; a match counts as much as the two are like each other.
    """
    if not found or not gold:
        return PairMarks(*[float(len(found) == len(gold))] * 3)
    gains = np.array([[likeness(a, b) for b in gold] for a in found])
    total = float(sum(gains[row, column] for row, column in best_matching(gains)))
    return PairMarks(total / len(found), total / len(gold), 2 * total / (len(found) + len(gold)))
