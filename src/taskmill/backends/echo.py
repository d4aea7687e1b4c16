"""A deterministic backend without a model: it says what a flawless generator could say.

The reply comes from the task type's own `sample`, read off the request's payload, so that the whole
river runs offline in milliseconds. It proves plumbing, never quality.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

from taskmill.backends import ModelConfig
from taskmill.calls import Completion, Request, ScoreRequest, Scores
from taskmill.ids import draw
from taskmill.render import PIPE_MARKER, PLACEHOLDER, has_placeholder
from taskmill.tasks import get
from taskmill.tasks.base import Ask, Rejected

__all__ = ["Echo", "create"]


class Echo:
    """Answers each request at once, as a function of the request alone."""

    batch_invariant = True

    def __init__(self, name: str = "") -> None:
        """`name` only tells two echo models apart."""
        self.model = f"echo:{name}"

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Yield one completion per request; token counts are words."""
        for request in requests:
            text = _text(request)
            prompt = request.prompt or request.messages[-1][1]
            yield Completion(
                request.key, text, "stop", prompt.count(" ") + 1, text.count(" ") + 1 if text else 0
            )

    def score(self, requests: Iterable[ScoreRequest]) -> Iterator[Scores]:
        """Find what it would say nine times as likely as all else; token counts are words.

        The shares of one request's choices add up to 1; of choices it would not say they are drawn.
        """
        for request in requests:
            if not request.choices or not all(request.choices):
                yield Scores(request.key, error="no choices" if not request.choices else "a choice is empty")
                continue
            said = _text(request)
            shares = [
                9.0
                if c.strip() in said
                else (draw(0, said, f"choice {c}") % 1000 + 1) / 1000 / len(request.choices)
                for c in request.choices
            ]
            yield Scores(
                request.key,
                tuple(math.log(share / sum(shares)) for share in shares),
                tuple(c.count(" ") + 1 for c in request.choices),
            )


def _text(request: Request | ScoreRequest) -> str:
    payload = request.payload
    if isinstance(payload, Ask):
        return _reply(payload)
    if hasattr(payload, "sample"):
        return str(payload.sample())
    if hasattr(payload, "example"):  # a question of verification: it agrees, and knows nothing by itself
        known = {
            "faithful": "Yes", "closed-book": "I cannot tell.", "judge": "Reason: it agrees.\nScore: 5",
            "expected": "5", "ask-llm": "Yes", "toxic": "No",
        }  # fmt: skip
        return str(known.get(payload.check, payload.example.response))
    return _last_line(request)


def _reply(ask: Ask) -> str:
    task = get(ask.task)
    if ask.opening:  # what was drawn for a reply that is begun lacks what `sample` reads
        drawn = task.draw(ask.document, ask.seed, 0, ask.attributes)
        ask = replace(ask, fields={**({} if isinstance(drawn, Rejected) else drawn), **ask.fields})
    parts = task.sample(ask)
    if not ask.protocol.startswith("bonito"):
        return "\n".join(f"{name.capitalize()}: {text}" for name, text in parts.items())
    draft = task.build(parts, ask)
    if isinstance(draft, Rejected):
        return ""
    if ask.instruction or PIPE_MARKER in ask.opening:
        return draft.response
    instruction = draft.instruction
    if ask.opening:
        instruction = f" {next(iter(parts.values()))}"
        if ask.closing:
            return instruction
        if has_placeholder(draft.instruction) and not has_placeholder(ask.opening):
            instruction += f"\n{PLACEHOLDER}"
    return instruction if PIPE_MARKER in ask.stop else f"{instruction}\n{PIPE_MARKER}\n{draft.response}"


def _last_line(request: Request | ScoreRequest) -> str:
    text = request.prompt or request.messages[-1][1]
    return text.strip().rsplit("\n", 1)[-1]


def create(name: str, revision: str, config: ModelConfig) -> Echo:
    """Make the backend for `echo:[name]`."""
    del revision, config
    return Echo(name)
