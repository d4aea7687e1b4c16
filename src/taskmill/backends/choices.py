"""Requests whose reply comes from a closed set: the choice of the highest log-likelihood, or all weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator

from taskmill.calls import Completion, Request, ScoreRequest, Scores

__all__ = ["with_choices"]

WINDOW = 64
"""Closed requests scored together (chosen: as many as an engine runs at once)."""


def with_choices(
    requests: Iterable[Request],
    generate: Callable[[Iterator[Request]], Iterator[Completion]],
    score: Callable[[Iterable[ScoreRequest]], Iterator[Scores]],
) -> Iterator[Completion]:
    """Generate for open requests and score the closed ones, a window of them at a time."""
    source = iter(requests)
    ended = False

    def open_ones(closed: list[Request]) -> Iterator[Request]:
        nonlocal ended
        for request in source:
            if not request.sampling.choices:
                yield request
                continue
            closed.append(request)
            if len(closed) == WINDOW:
                return
        ended = True

    while not ended:
        closed: list[Request] = []
        yield from generate(open_ones(closed))
        yield from _chosen(closed, score)


def _chosen(
    closed: list[Request], score: Callable[[Iterable[ScoreRequest]], Iterator[Scores]]
) -> Iterator[Completion]:
    by_key = {r.key: r for r in closed}
    # The end token counts, so that a label which begins like a longer one does not win by being shorter.
    # It does not where weights are asked for: "Yes" and "Yes, because" are both a yes.
    asked = (
        ScoreRequest(r.key, r.sampling.choices, r.prompt, r.messages, end=not r.sampling.weighed)
        for r in closed
    )
    for scores in score(asked):
        if scores.error:
            yield Completion(scores.key, finish="error", error=scores.error)
            continue
        sampling = by_key[scores.key].sampling
        best = max(range(len(sampling.choices)), key=lambda i: scores.logprobs[i])
        text = json.dumps(scores.logprobs) if sampling.weighed else sampling.choices[best]
        yield Completion(scores.key, text, completion_tokens=scores.tokens[best])
