"""A deterministic backend without a model: it says what a flawless generator could say.

The reply comes from the task type's own `sample`, read off the request's payload, so that the whole
river runs offline in milliseconds. It proves plumbing, never quality.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from taskmill.backends import ModelConfig
from taskmill.calls import Completion, Request
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
            text = _reply(request.payload) if isinstance(request.payload, Ask) else _last_line(request)
            prompt = request.prompt or request.messages[-1][1]
            yield Completion(
                request.key, text, "stop", prompt.count(" ") + 1, text.count(" ") + 1 if text else 0
            )


def _reply(ask: Ask) -> str:
    task = get(ask.task)
    parts = task.sample(ask)
    if ask.protocol == "bonito":
        draft = task.build(parts, ask)
        return "" if isinstance(draft, Rejected) else f"{draft.instruction}\n<|pipe|>\n{draft.response}"
    return "\n".join(f"{name.capitalize()}: {text}" for name, text in parts.items())


def _last_line(request: Request) -> str:
    text = request.prompt or request.messages[-1][1]
    return text.strip().rsplit("\n", 1)[-1]


def create(name: str, revision: str, config: ModelConfig) -> Echo:
    """Make the backend for `echo:[name]`."""
    del revision, config
    return Echo(name)
