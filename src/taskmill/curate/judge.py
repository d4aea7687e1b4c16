"""What a judging model's replies mean: a rubric's score, a yes or no, the weights of a closed set of answers.

None stands for a reply that says nothing readable. It is never a pass: `curate.verify` drops the row.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import orjson

from taskmill.tasks.labels import choose

__all__ = ["SCALE", "YES_NO", "mean_score", "read_score", "read_weights", "read_yes", "yes_share"]

SCALE = ("1", "2", "3", "4", "5")
"""The answers of the rubric in templates/questions.yaml, worst first."""

YES_NO = ("Yes", "No")
"""The answers of a yes-or-no question, in the order of their weights."""

_THOUGHT = "<think>", "</think>"
# A number with the scale's end ("4", "4.5", "4/5", "4 out of 5"), and not the first of several ("1, 2 or 3").
_NUMBER = r"(\d+(?:[.,]\d+)?)(?![\d.,]*\d)(?:\s*(?:/|out of)\s*(\d+))?(?!\s*(?:,|/|-|–|to|or)\s*\d)"
# "Score: 4", "**Score**: 4/5", '"score": 4', "Rating = 4 out of 5", "I give it a score of 4."
_LABELLED = re.compile(rf"\b(?:score|rating|grade)\b(?:\s+(?:is|of))?[^\w\n]{{0,10}}{_NUMBER}", re.IGNORECASE)
# The number alone, perhaps in marks: "4", "**4/5**", "4."
_BARE = re.compile(rf"\W*{_NUMBER}\W*")


def _said(reply: str) -> str:
    """Return a reply without the thoughts before it, which some models write in tags and may not end."""
    begin, end = _THOUGHT
    return reply.rpartition(end)[2].partition(begin)[0].strip()


def read_score(reply: str) -> float | None:
    """Return the score from 1 to 5 that a reply states, None for none, several, or one off the scale.

    A line that begins with the word "score" counts before one in the middle of a sentence ("a score of 5
    would need a date"); without either, a number that stands alone on the first or last line does.
    """
    said = _said(reply)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    labelled = [m for line in lines if (m := _LABELLED.search(line))]
    leading = [m for m in labelled if not re.search(r"\w", m.string[: m.start()])]
    found = leading or list(_LABELLED.finditer(said))
    if not found:
        found = [m for line in {*lines[:1], *lines[-1:]} if (m := _BARE.fullmatch(line))]
    values = {_value(m) for m in found}
    return values.pop() if len(values) == 1 else None


def _value(match: re.Match[str]) -> float | None:
    if match[2] and int(match[2]) != len(SCALE):
        return None
    value = float(match[1].replace(",", "."))
    return value if 1 <= value <= len(SCALE) else None


def read_yes(reply: str) -> float | None:
    """Return 1 for a reply that says yes, 0 for a no, None for neither or both."""
    stated = choose(_said(reply), YES_NO)
    return None if stated is None else float(stated == 0)


def read_weights(reply: str, choices: Sequence[str]) -> list[float] | None:
    """Return the probabilities of the choices among themselves, from a reply to a weighed call.

    Such a reply is the JSON list of the choices' log-probabilities (`Sampling.weighed`); None if it is not,
    as from a backend that cannot weigh and wrote an answer.
    """
    try:
        given = orjson.loads(reply)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(given, list) or len(given) != len(choices):
        return None
    if not all(isinstance(v, float | int) and v <= 0 for v in given):
        return None
    top = max(given)
    shares = [math.exp(v - top) for v in given]
    return [share / sum(shares) for share in shares]


def yes_share(reply: str) -> float | None:
    """Return P(Yes) / (P(Yes) + P(No)), or 1 or 0 where the backend only wrote its answer.

    Source: Ask-LLM (Sachdeva et al. 2024, arXiv 2402.09668), there P(yes) over the whole vocabulary.
    """
    weights = read_weights(reply, YES_NO)
    return read_yes(reply) if weights is None else weights[0]


def mean_score(reply: str) -> float | None:
    """Return the mean of the scores 1 to 5 by their probabilities, or the score written where there are none.

    Source: G-Eval (Liu et al. 2023, arXiv 2303.16634, equation 1).
    """
    weights = read_weights(reply, SCALE)
    if weights is None:
        return read_score(reply)
    return sum(weight * int(score) for weight, score in zip(weights, SCALE, strict=True))
