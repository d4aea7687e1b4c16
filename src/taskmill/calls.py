"""The model call: what is asked (Request), what came back (Completion), how it was sampled (Sampling).

A call's key is a hash of what determines its answer: rendered prompt, model and revision, sampling
parameters and sample index. The parser's version is not in it: a better parser re-reads old answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from taskmill.ids import content_id, draw

__all__ = [
    "Completion",
    "Generator",
    "Message",
    "Request",
    "Sampling",
    "ScoreRequest",
    "Scorer",
    "Scores",
    "key_of",
    "request",
]

Message = tuple[str, str]
"""A chat turn: (role, content)."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters of one call. `temperature` 0 is greedy; the seed is then ignored.

    `choices`, where given, is the closed set the reply comes from: the one of the highest
    log-likelihood where the backend can tell, else whatever it writes greedily. With `weighed`, the
    reply is the JSON list of all choices' log-likelihoods where the backend can tell.

    `grammar`, where given, is what the reply has to follow where the backend can see to it: EBNF in the
    dialect of llama.cpp and XGrammar (GBNF). `schema` is the same rule as a JSON schema, as text, for servers
    that take one. Other backends write freely, and the task's checks decide.

    Defaults: top_p 0.95, temperature 0.5, 256 new tokens (Bonito's model card).
    """

    temperature: float = 0.5
    top_p: float = 0.95
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    seed: int = 0
    choices: tuple[str, ...] = ()
    weighed: bool = False
    grammar: str = ""
    schema: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """One model call to make: a plain `prompt` (completion protocol) or `messages` (chat protocol).

    `payload` travels with the request, is never sent and never enters the key (the echo backend
    reads the task and the passage from it).
    """

    key: str
    sampling: Sampling
    prompt: str = ""
    messages: tuple[Message, ...] = ()
    payload: Any = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Completion:
    """The answer to the request with the same `key`.

    `finish` is "stop" (the model ended), "length" (cut off at max_tokens) or "error" (no answer;
    `error` says why in one line and the text is empty). Token counts are the server's or engine's.
    """

    key: str
    text: str = ""
    finish: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: str = ""


class Generator(Protocol):
    """A model that writes text. Implementations live in `taskmill.backends`.

    `model` names model and revision and enters every call's key. `batch_invariant` says whether a
    completion is a function of its request alone.
    """

    model: str
    batch_invariant: bool

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Yield one Completion per request as each finishes, in any order.

        `requests` is a lazy stream: pull only as many as can run at once, and yield finished
        completions while others run. A request that fails yields a Completion with finish "error";
        an exception is raised only when no request can succeed (BackendError).
        """
        ...


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Ask how likely a model finds each of `choices` as the continuation of a prompt or chat.

    Prompt and choice are tokenised apart, as they are when the model itself continues the prompt: a choice
    brings its own leading space or line break. `end` counts the end-of-text token as a part of each choice,
    so that a choice which begins like a longer one does not win by being shorter. `payload` is not sent.
    """

    key: str
    choices: tuple[str, ...]
    prompt: str = ""
    messages: tuple[Message, ...] = ()
    end: bool = False
    payload: Any = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Scores:
    """The answer to the ScoreRequest with the same `key`.

    `logprobs` holds, for each choice, the sum of the natural logarithms of its tokens' probabilities given
    the prompt (at temperature 1); `tokens` counts them. Both are empty if `error` says why there are none.
    `usage` are the prompt and completion tokens a server charges for, None of an engine in this process.
    """

    key: str
    logprobs: tuple[float, ...] = ()
    tokens: tuple[int, ...] = ()
    error: str = ""
    usage: tuple[int, int] | None = None


class Scorer(Protocol):
    """A model that weighs given texts. Implementations live in `taskmill.backends`.

    `model` is that of the Generator contract.
    """

    model: str

    def score(self, requests: Iterable[ScoreRequest]) -> Iterator[Scores]:
        """Yield one Scores per request, in any order.

        `requests` is a lazy stream, pulled a few batches at a time. A request that fails yields Scores with
        an `error`; an exception is raised only when no request can succeed (BackendError).
        """
        ...


def key_of(model: str, prompt: str, messages: tuple[Message, ...], s: Sampling, sample: int) -> str:
    """Return the ledger key of a call."""
    turns = [part for turn in messages for part in turn]
    settings = f"{s.temperature!r} {s.top_p!r} {s.max_tokens} {s.seed} {sample}"
    closed = ("weighed" if s.weighed else "choices", *s.choices) if s.choices else ()
    ruled = ("grammar", s.grammar) if s.grammar else ()
    shaped = ("schema", s.schema) if s.schema else ()
    return content_id(model, settings, "\x1f".join(s.stop), prompt, *turns, *closed, *ruled, *shaped)


def request(
    model: str,
    sampling: Sampling,
    *,
    prompt: str = "",
    messages: tuple[Message, ...] = (),
    seed: int = 0,
    sample: int = 0,
    payload: Any = None,
) -> Request:
    """Build a Request with its own seed (drawn from `seed` and the prompt) and its key.

    A greedy call (temperature 0) has seed 0 and sample 0, so that no seed makes it be paid again.
    """
    if sampling.temperature == 0:
        sample, own = 0, 0
    else:
        text = prompt or "\x1f".join(part for turn in messages for part in turn)
        own = draw(seed, text, f"sample {sample}") & 0x7FFFFFFF
    s = replace(sampling, seed=own)
    return Request(key_of(model, prompt, messages, s, sample), s, prompt, messages, payload)
