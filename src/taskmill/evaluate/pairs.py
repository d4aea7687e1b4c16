"""Open-ended outputs: which of several samples stands for a model, and what verdicts on pairs of them prove.

A pair is judged in both orders. An item's share for the first model is the mean over its two verdicts, so
that a judge who always names the same place gives each model a half.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple

from taskmill.evaluate.extract import EXTRACTORS, Answer, extract, readable
from taskmill.evaluate.intervals import mcnemar, of_task

__all__ = ["PLACES", "Judged", "best_sample", "verdict", "win_rate"]

PLACES = ("first", "second", "tie")
"""What a verdict may say: the output shown first, the one shown second, neither."""

_SAID = {
    **dict.fromkeys(("first", "1", "1.0", "a", "model a", "assistant a", "output a", "answer a"), "first"),
    **dict.fromkeys(("second", "2", "2.0", "b", "model b", "assistant b", "output b", "answer b"), "second"),
    **dict.fromkeys(("tie", "c", "both", "equal", "draw", "neither", "same", "0", "0.0"), "tie"),
}
_MARK = re.compile(r"\[\[\s*(\w+)\s*\]\]")
_ALONE = re.compile(
    r"[\W_]*(?:(?:option|choice|letter|answer)\s+)?[a-c]\b[\"'*`)\]]*\s*(?:[.,:;]|\n|$)", re.IGNORECASE
)
"""A letter that stands for itself; in "B is worse than A" it only begins what is said of it."""


class Judged(NamedTuple):
    """The two verdicts on an item (`PLACES`): with the first model's output first, and with it second."""

    item: str
    forth: str
    back: str
    category: str = ""


def best_sample(logprobs: Sequence[float]) -> tuple[int, list[bool]]:
    """Return the sample that stands for the model, and which samples are dropped as repetitive.

    Dropped are those whose log-probability is above half the median: a text that repeats itself is too
    likely. Of the others the likeliest, not normalised by length, is taken; of equals the first. Source:
    Chung et al. 2022 (2210.11416), the open-ended evaluation. Raises ValueError without a sample.
    """
    limit = median(logprobs) / 2
    dropped = [value > limit for value in logprobs]
    left = [i for i, out in enumerate(dropped) if not out]
    return max(left, key=lambda i: logprobs[i]), dropped


def verdict(said: object) -> str:
    """Return the place a verdict names, "" if none can be read: a word, a letter, or a judge's whole text.

    `[[A]]` counts before "The better answer is B", of several the last.
    """
    text = readable(said)
    own = _SAID.get(text.strip().strip("[]()*.\"' ").casefold())
    if own:
        return own
    marked = [_SAID[m.casefold()] for m in _MARK.findall(text) if m.casefold() in _SAID]
    if marked:
        return marked[-1]
    found = extract(text, EXTRACTORS.get("letter"), Answer("letter", options=PLACES))
    if found.rule == "only letter" or (found.rule == "start" and not _ALONE.match(text)):
        return ""
    return _SAID.get(found.answer.strip("()").casefold(), "")


def _share(place: str, own: str) -> float:
    return 0.5 if place == "tie" else float(place == own)


def win_rate(judged: Sequence[Judged], *, confidence: float, seed: int) -> dict[str, Any]:
    """Return what verdicts on pairs say of the first model, and of the judge.

    `win_rate`: the mean over items of the first model's share, 0 to 1, with its interval over items;
    `wins`, `losses`, `ties` of items, `p` of the exact sign test on them. `first_place`: how often the output
    shown first is preferred, 0.5 for a judge without position bias; `same_place`: the share of items where
    both verdicts name one place, so that the order decided.
    """
    if not judged:
        return {"items": 0, "win_rate": None}
    settings: dict[str, Any] = {"confidence": confidence, "seed": seed}
    own = sorted(judged)
    shares = [(_share(j.forth, "first") + _share(j.back, "second")) / 2 for j in own]
    places = [(_share(j.forth, "first") + _share(j.back, "first")) / 2 for j in own]
    wins, losses = [float(s > 0.5) for s in shares], [float(s < 0.5) for s in shares]
    same = sum(j.forth == j.back != "tie" for j in own)
    return {
        "items": len(own),
        "win_rate": of_task(shares, name="win rate", **settings).rounded(),
        "wins": int(sum(wins)),
        "losses": int(sum(losses)),
        "ties": len(own) - int(sum(wins)) - int(sum(losses)),
        "p": mcnemar(wins, losses),
        "first_place": of_task(places, name="first place", **settings).rounded(),
        "same_place": round(same / len(own), 6),
    }
