"""Likelihoods of given texts from an OpenAI-compatible server.

A plain prompt is sent once for each choice, with the choice behind it, and comes back with the
log-probability of every token (`echo` with `logprobs`: OpenAI's API reference, "Create completion"). The
server splits the two into tokens as one text: a token that reaches over the border counts as the choice's.
What a chat replies cannot be given to it; there the likeliest first tokens tell single words apart.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import orjson

from taskmill.backends import top_logprobs
from taskmill.backends.pacing import Fault, Kind
from taskmill.backends.wire_formats import OpenAIFormat
from taskmill.calls import Completion, Request, Sampling, ScoreRequest, Scores

if TYPE_CHECKING:
    from collections.abc import Generator

    from yarl import URL

__all__ = ["ELSEWHERE", "ScoreFormat", "scored"]

ELSEWHERE = "take one that does (vLLM's does), or the model itself with vllm:, transformers: or openvino:"
_PLAIN = "ask for plain completions instead (leave --protocol at auto)"
_NO_ECHO = f"it does not list the likelihood of a given text (echo with logprobs); {ELSEWHERE}"
_NO_TOKENS = f"it does not list the likeliest first tokens of a chat's reply (logprobs); {_PLAIN}"
_NEEDS_TOKEN = re.compile(
    rb"max_(new_|completion_)?tokens.*(least|minimum|greater|positive)|minimum.*max_tokens", re.DOTALL
)


class ScoreFormat(OpenAIFormat):
    """`/completions` that repeat a prompt and its one choice, `/chat/completions` of one token.

    The text of an answer is JSON: the choices' log-probabilities and their numbers of tokens.
    """

    _least = 0
    """New tokens that are asked for; some servers refuse 0. What is written is not looked at."""

    def write(self, request: Request) -> tuple[URL, bytes]:
        """Return the URL and the body of a call."""
        # At temperature 1, for servers that list the log-probabilities they sample from.
        fields: dict[str, Any] = {"model": self.model, "temperature": 1.0, "stream": False}
        if request.messages:
            fields["messages"] = [{"role": role, "content": content} for role, content in request.messages]
            fields |= {self._tokens: 1, **top_logprobs.asked(chat=True)}
            return self._chat, self._body(fields)
        fields |= {"prompt": request.prompt + request.sampling.choices[0], "max_tokens": self._least}
        fields |= {"echo": True, "logprobs": 1}
        return self._plain, self._body(fields)

    def adapts(self, request: Request, body: bytes) -> bool:
        """Say whether a refusal asks for a change that is now made, also by an earlier one."""
        if request.messages:
            return self._renames(body)
        if not _NEEDS_TOKEN.search(body):
            return False
        self._least = 1
        return True

    def lacks(self, request: Request, body: bytes) -> str:
        """Return what a refusal says no such call can get, with what to use instead, or nothing."""
        if request.messages:
            return _NO_TOKENS if b"logprobs" in body else ""
        return _NO_ECHO if b"echo" in body or b"logprobs" in body else ""

    def read(self, request: Request, body: bytes) -> Completion | Fault:
        """Return the answer in a successful reply."""
        opened = self._opened(body)
        if isinstance(opened, Fault):
            return opened
        choice, counts = opened
        found = self._weighed(request, choice, counts[1])
        if found is None:
            return Fault(Kind.HOPELESS, f"{self.base}: {_NO_TOKENS if request.messages else _NO_ECHO}")
        text = "" if isinstance(found, str) else orjson.dumps(found).decode()
        done = self._done(request, text, choice.get("finish_reason"), *counts)
        if isinstance(done, Fault):
            return done
        return replace(done, finish="stop") if text else replace(done, finish="error", error=str(found))

    def _weighed(
        self, request: Request, choice: dict[str, Any], completion_tokens: object
    ) -> tuple[list[float], list[int]] | str | None:
        """Return log-probabilities and token counts, why there are none, None if the server lists none."""
        wanted = request.sampling.choices
        if request.messages:
            weights = top_logprobs.first_words(choice, wanted)
            return weights if weights is None or isinstance(weights, str) else (weights, [1] * len(wanted))
        text = choice.get("text")
        longer = isinstance(text, str) and len(text) > len(request.prompt) + len(wanted[0])
        # vLLM counts the token that it writes for a `max_tokens` of 0, and does not list it.
        written = completion_tokens if isinstance(completion_tokens, int) else longer
        found = _echoed(choice, request.prompt, wanted[0], self._least if written else 0)
        return found if found is None or isinstance(found, str) else ([found[0]], [found[1]])


def _echoed(
    choice: Mapping[str, Any], prompt: str, wanted: str, written: int
) -> tuple[float, int] | str | None:
    """Return the summed log-probability and the number of the tokens that reach beyond the prompt.

    The last `written` tokens are new. Some servers (vLLM's) count the text of a start token in `text_offset`,
    which shifts all later offsets: the border is taken from the end. Returns a line if the tokens do not
    spell the choice, None if there are no tokens or offsets.
    """
    listed = choice.get("logprobs")
    if not isinstance(listed, Mapping):
        return None
    columns: list[Any] = [listed.get(name) for name in ("tokens", "token_logprobs", "text_offset")]
    if not all(isinstance(column, list) and len(column) > written for column in columns):
        return None
    tokens, logprobs, offsets = (c[: len(c) - written] for c in columns)
    strings = all(isinstance(t, str) for t in tokens) and len(tokens) == len(logprobs) == len(offsets)
    if not strings or not all(isinstance(o, int) and o >= 0 for o in offsets):
        return None
    raw = any(t.startswith("bytes:") for t in tokens)  # OpenAI's for a part of a character
    end = offsets[-1] + len(tokens[-1])
    border = len(prompt) if raw else end - len(wanted)
    reach = [b > border or a >= border for a, b in zip(offsets, [*offsets[1:], end], strict=True)]
    first = reach.index(True) if True in reach else len(tokens)
    if first == len(tokens) or not (raw or "".join(tokens[first:]).endswith(wanted)):
        return f"the server's tokens do not spell the choice, so where it begins is not known; {ELSEWHERE}"
    values = logprobs[first:]
    if not all(isinstance(v, int | float) and math.isfinite(v) for v in values):
        return "the choice's first token has no log-probability; put a longer prompt before it"
    return min(0.0, math.fsum(values)), len(values)


@dataclass(slots=True)
class _Open:
    """The calls for a request's choices that are under way, and what has come of the others."""

    left: int
    parts: dict[int, Completion] = field(default_factory=dict)


def scored(
    requests: Iterable[ScoreRequest], answers: Callable[[Iterator[Request]], Generator[Completion]]
) -> Iterator[Scores]:
    """Yield the scores of each request once all its calls are answered; `answers` makes the calls."""
    waiting: dict[str, _Open] = {}
    refused: deque[Scores] = deque()

    def calls() -> Iterator[Request]:
        for request in requests:
            if why := _unfit(request):
                refused.append(Scores(request.key, error=why))
                continue
            sets = [request.choices] if request.messages else [(choice,) for choice in request.choices]
            waiting[request.key] = _Open(len(sets))
            for place, choices in enumerate(sets):
                sampling = Sampling(temperature=1.0, max_tokens=1, choices=choices, weighed=True)
                yield Request(f"{request.key} {place}", sampling, request.prompt, request.messages)

    with closing(answers(calls())) as stream:
        for completion in stream:
            key, _, place = completion.key.rpartition(" ")
            own = waiting[key]
            own.parts[int(place)] = completion
            own.left -= 1
            if not own.left:
                yield _joined(key, [part for _, part in sorted(waiting.pop(key).parts.items())])
            while refused:
                yield refused.popleft()
    yield from refused


def _unfit(request: ScoreRequest) -> str:
    """Return why a request cannot be asked, or nothing."""
    if not request.choices or not all(request.choices):
        return "a choice is empty" if request.choices else "no choices"
    if request.end:
        return "a server cannot weigh the end of a text; take vllm:, transformers: or openvino:"
    if request.messages and not top_logprobs.single_words(request.choices):
        return f"a chat's choices have to be different single words (letters, yes and no); {_PLAIN}"
    return ""


def _joined(key: str, parts: list[Completion]) -> Scores:
    usage = sum(p.prompt_tokens for p in parts), sum(p.completion_tokens for p in parts)
    for part in parts:
        if part.finish == "error":
            return Scores(key, error=part.error, usage=usage)
    found = [orjson.loads(part.text) for part in parts]
    logprobs = tuple(float(v) for values, _ in found for v in values)
    return Scores(key, logprobs, tuple(int(n) for _, counts in found for n in counts), usage=usage)
