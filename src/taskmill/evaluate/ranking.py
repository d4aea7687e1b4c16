"""Rank classification: the option a model finds likeliest, under five ways to normalise its likelihood."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from taskmill.calls import Completion, Request, Sampling, Scorer, ScoreRequest
from taskmill.ids import content_id

__all__ = ["MODES", "Choices", "Ranked", "Weigher", "auc", "choose", "macro_f1", "weigh", "weighed"]

MODES = ("sum", "mean", "bytes", "unconditional", "calibrated")
"""How the log-likelihood of an option is made comparable: as it is; by its tokens; by its UTF-8 bytes; less
that behind a bare cue (Holtzman et al. 2021); less that behind an empty prompt (Zhao et al. 2021)."""

VERSION = "choices 1"
"""Enters the key of every kept score; raised when what a score means changes."""


class Choices(NamedTuple):
    """The log-likelihoods (nats) and tokens of a request's options."""

    logprobs: tuple[float, ...]
    tokens: tuple[int, ...]


class Ranked(NamedTuple):
    """The option chosen under a mode, and whether another one was as good (the first then wins).

    `margin`: by how much the first of two options is likelier under the mode, None for more options.
    """

    option: int
    tied: bool
    margin: float | None = None


class Weigher:
    """A Scorer behind the contract of a Generator: its answers go through ledger and budget like any call."""

    batch_invariant = True

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self.model = scorer.model

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Yield for each request of `weigh` the JSON of its choices' log-probabilities and token counts."""
        asked = (
            ScoreRequest(r.key, r.sampling.choices, prompt=r.prompt, messages=r.messages) for r in requests
        )
        for scores in self.scorer.score(asked):
            paid = scores.usage or (0, sum(scores.tokens))
            if scores.error:
                yield Completion(scores.key, "", "error", *paid, error=scores.error)
                continue
            yield Completion(scores.key, json.dumps([scores.logprobs, scores.tokens]), "stop", *paid)


def weigh(
    model: str, choices: Sequence[str], *, prompt: str = "", messages: tuple[tuple[str, str], ...] = ()
) -> Request:
    """Return the request for the likelihoods of `choices` behind a prompt or chat."""
    turns = [part for turn in messages for part in turn]
    key = content_id(VERSION, model, prompt, *turns, "\x1f", *choices)
    sampling = Sampling(temperature=0, max_tokens=0, choices=tuple(choices), weighed=True)
    return Request(key, sampling, prompt, messages)


def weighed(completion: Completion) -> Choices | None:
    """Return what a completion of the Weigher says, None for a failed call."""
    if completion.finish == "error":
        return None
    logprobs, tokens = json.loads(completion.text)
    return Choices(tuple(map(float, logprobs)), tuple(map(int, tokens)))


def choose(
    mode: str, own: Choices, texts: Sequence[str], cue: Choices | None = None, blank: Choices | None = None
) -> Ranked:
    """Return the option of the highest normalised likelihood; `texts` are the options as they were scored.

    `cue` and `blank`: the options' likelihoods behind a bare cue and behind a prompt without content, which
    the last two modes subtract. Likelihoods closer than 1e-9 are ties.
    """
    values = list(own.logprobs)
    if mode == "mean":
        values = [v / max(1, n) for v, n in zip(values, own.tokens, strict=True)]
    elif mode == "bytes":
        values = [v / max(1, len(t.strip().encode())) for v, t in zip(values, texts, strict=True)]
    elif mode in ("unconditional", "calibrated"):
        base = cue if mode == "unconditional" else blank
        if base is None:
            raise ValueError(f"{mode} needs the likelihoods it subtracts")
        values = [v - b for v, b in zip(values, base.logprobs, strict=True)]
    values = [-math.inf if math.isnan(v) else v for v in values]
    best = max(range(len(values)), key=lambda i: values[i])
    tied = sum(v == values[best] or abs(v - values[best]) < 1e-9 for v in values) > 1
    if len(values) != 2:
        return Ranked(best, tied)
    return Ranked(best, tied, 0.0 if values[0] == values[1] else values[0] - values[1])


def auc(margins: Sequence[float], first: Sequence[bool]) -> float | None:
    """Return the area under the ROC curve of two classes; None where all items are of one.

    It is the share of pairs of an item whose gold is the `first` option and one whose gold is not in which
    the former's margin is larger, equal margins counting a half (Mann and Whitney 1947): it asks how well
    the likelihoods order the items, wherever the threshold lies. By ranks, n log n.
    """
    ones = sum(first)
    zeros = len(first) - ones
    if not ones or not zeros:
        return None
    order = sorted(range(len(margins)), key=lambda i: margins[i])
    ranks, at = 0.0, 0
    while at < len(order):
        end = at
        while end < len(order) and margins[order[end]] == margins[order[at]]:
            end += 1
        ranks += sum(first[i] for i in order[at:end]) * (at + 1 + end) / 2  # tied items share a mean rank
        at = end
    return (ranks - ones * (ones + 1) / 2) / (ones * zeros)


def macro_f1(golds: Sequence[str], answers: Sequence[str]) -> float:
    """Return the unweighted mean of F1 over the classes that golds or answers have (as scikit-learn does)."""
    classes = sorted({*golds, *(a for a in answers if a)})
    found = []
    for one in classes:
        both = sum(g == a == one for g, a in zip(golds, answers, strict=True))
        total = sum(g == one for g in golds) + sum(a == one for a in answers)
        found.append(2 * both / total if total else 0.0)
    return sum(found) / len(found) if found else 0.0
