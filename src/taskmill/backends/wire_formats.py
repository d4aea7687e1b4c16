"""What OpenAI-compatible servers and Ollama are sent, and what their replies mean.

Ollama is spoken to in its own protocol: its OpenAI endpoint ignores `num_ctx` (ollama/ollama issue
6176: "num_ctx in OpenAI endpoints are ignored") and cuts a prompt that does not fit without a word.
`/api/chat` and `/api/generate` take `options.num_ctx`, and `truncate: false` (api/types.go) turns the
silent cut into an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import orjson

from taskmill.backends import top_logprobs
from taskmill.backends.pacing import Fault, Kind
from taskmill.calls import Completion, Request

if TYPE_CHECKING:
    from yarl import URL

__all__ = ["Format", "OllamaFormat", "OpenAIFormat", "same_model"]

_FINISH = {
    "stop": "stop",
    "eos": "stop",  # TGI, LM Studio: "eos_token", "eosFound" in older versions
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_calls": "stop",
    "load": "stop",  # Ollama, for an empty prompt
    "length": "length",
    "max_tokens": "length",
    "content_filter": "length",  # the provider cut the text
}

# How servers say that they cannot hold a reply to a JSON schema ("response_format type is unavailable",
# "does not support feature: structured-outputs", "Invalid schema for …").
_NO_SCHEMA = re.compile(rb"response_format|json_schema|structured[ _-]?output|guided|schema", re.IGNORECASE)

# What may follow a name that is still the same model: a date or version, a file type, a quantisation.
_SUFFIX = re.compile(
    r"([-_.:@](latest|preview|\d[\d-]*|v\d[\d.]*|gguf|(ud|iq|q)\d\w*|(bf|fp|f|int|w)\d\w*|awq|gptq|mlx|\d+bit))+"
)


def same_model(asked: str, got: str) -> bool:
    """Say whether a server that names its model `got` serves what was asked for.

    Equal, or the last part of a path, or the same followed by a date, version, `latest`, a
    quantisation or a file type: "gpt-4.1" is "gpt-4.1-2025-04-14" but not "gpt-4.1-mini".
    """
    a, b = (name.strip().lower().replace("\\", "/").rstrip("/") for name in (asked, got))
    if a == b or b.endswith("/" + a) or a.endswith("/" + b):
        return True
    short, long = sorted((a.rpartition("/")[2], b.rpartition("/")[2]), key=len)
    if not short or not long.startswith(short):
        return False
    return short == long or _SUFFIX.fullmatch(long[len(short) :]) is not None


class Format:
    """What the two protocols share: the model that may answer, counts, replies that are no answer."""

    def __init__(self, base: URL, model: str, extra: dict[str, Any], answers_as: str) -> None:
        """`extra` is merged into every body; a value of None removes the field of that name.

        `shown` makes a piece of a reply fit to be shown; the owner may set a stricter one.
        """
        self.shown: Callable[[str | bytes], str] = quoted
        self.base = base
        self.model = model
        self.extra = {k: v for k, v in extra.items() if v is not None}
        self.omitted = [k for k, v in extra.items() if v is None]
        self.answers_as = answers_as
        self.uncounted = 0
        self._accepted = {model, answers_as}

    def lacks(self, request: Request, body: bytes) -> str:
        """Return what a refusal says no call of this kind can get, with what to use instead, or nothing."""
        return ""

    def _body(self, fields: dict[str, Any]) -> bytes:
        fields.update(self.extra)
        for name in self.omitted:
            fields.pop(name, None)
        try:
            return orjson.dumps(fields)
        except orjson.JSONEncodeError as error:
            raise ValueError(str(error)) from None

    def _reply(self, body: bytes) -> dict[str, Any] | Fault:
        """Return the decoded reply if it is an object by the right model."""
        if not body.strip():
            return Fault(Kind.RETRY, "the server sent an empty body")
        try:
            reply = orjson.loads(body)
        except orjson.JSONDecodeError:
            return Fault(Kind.RETRY, f"the reply is not JSON: {self.shown(body)!r}")
        if not isinstance(reply, dict):
            return Fault(Kind.RETRY, f"the reply is not a JSON object: {self.shown(body)!r}")
        name = reply.get("model")
        if name and name not in self._accepted:
            if not (same_model(self.model, str(name)) or self.answers_as == "*"):
                return Fault(
                    Kind.REFUSED,
                    f"server answered as model {self.shown(str(name))!r}, not {self.model!r}; if that is the "
                    "model you mean, pass its name as answers_as=",
                )
            self._accepted.add(name)
        return reply

    def _finish(self, reason: object, completion_tokens: int, max_tokens: int) -> str:
        """Return the contract's word for the server's; empty if the server broke the call off."""
        if reason is None:  # vLLM types it as nullable
            return "length" if 0 < max_tokens <= completion_tokens else "stop"
        return _FINISH.get(str(reason), "")

    def _done(
        self, request: Request, text: str, reason: object, prompt: object, completion: object, error: str = ""
    ) -> Completion | Fault:
        if not (isinstance(prompt, int) and isinstance(completion, int)):
            self.uncounted += 1
        p = prompt if isinstance(prompt, int) else 0
        c = completion if isinstance(completion, int) else 0
        finish = self._finish(reason, c, request.sampling.max_tokens)
        if not finish:
            return Fault(
                Kind.RETRY, f"the server broke the call off (finish_reason {self.shown(str(reason))!r})"
            )
        return Completion(request.key, text, finish, p, c, error)


class OpenAIFormat(Format):
    """`/completions` for a prompt, `/chat/completions` for messages."""

    def __init__(self, base: URL, model: str, extra: dict[str, Any], answers_as: str) -> None:
        super().__init__(base, model, extra, answers_as)
        self._tokens = "max_tokens"
        self._weighs = self._shapes = True
        self._chat, self._plain = base / "chat" / "completions", base / "completions"

    def write(self, request: Request) -> tuple[URL, bytes]:
        """Return the URL and the body of a call."""
        s = request.sampling
        fields: dict[str, Any] = {"model": self.model}
        if request.messages:
            fields["messages"] = [{"role": role, "content": content} for role, content in request.messages]
        else:
            fields["prompt"] = request.prompt
        fields[self._tokens] = s.max_tokens
        fields["temperature"] = s.temperature
        fields["top_p"] = s.top_p
        fields["seed"] = s.seed
        fields["stream"] = False
        if s.weighed and self._weighs:
            fields |= top_logprobs.asked(chat=bool(request.messages))
        if s.schema and self._shapes and request.messages:
            shape = {"name": "reply", "strict": True, "schema": orjson.loads(s.schema)}
            fields["response_format"] = {"type": "json_schema", "json_schema": shape}
        if s.stop:
            fields["stop"] = s.stop
        return self._chat if request.messages else self._plain, self._body(fields)

    def adapts(self, request: Request, body: bytes) -> bool:
        """Say whether a refusal asks for a change that is now made, also by an earlier one.

        OpenAI's reasoning models refuse `max_tokens` and name `max_completion_tokens` in the error; they and
        others refuse `logprobs`: an answer is then all there is. Some servers know no JSON schema, or not
        all of it, each in words of its own: the reply is then free.
        """
        if b"logprobs" in body and request.sampling.weighed:
            self._weighs = False
            return True
        if request.sampling.schema and _NO_SCHEMA.search(body):
            self._shapes = False
            return True
        return self._renames(body)

    def _renames(self, body: bytes) -> bool:
        if b"max_completion_tokens" not in body or "max_tokens" in self.extra:
            return False
        self._tokens = "max_completion_tokens"
        return True

    def read(self, request: Request, body: bytes) -> Completion | Fault:
        """Return the answer in a successful reply."""
        opened = self._opened(body)
        if isinstance(opened, Fault):
            return opened
        choice, counts = opened
        text, refusal = (_message if request.messages else _plain)(choice)
        if text is None:
            return Fault(Kind.RETRY, f"the reply holds no text: {self.shown(body)!r}")
        if request.sampling.weighed and (found := top_logprobs.weights(choice, request.sampling.choices)):
            text = orjson.dumps(found).decode()
        # A refusal is an answer, and paid for: an empty text that is never asked for again.
        error = f"the model refused: {self.shown(refusal)}" if refusal else ""
        return self._done(request, text, choice.get("finish_reason"), *counts, error)

    def _opened(self, body: bytes) -> tuple[dict[str, Any], tuple[object, object]] | Fault:
        """Return the first choice in a successful reply, and its prompt and completion tokens as stated."""
        reply = self._reply(body)
        if isinstance(reply, Fault):
            return reply
        choices = reply.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            why = "an error" if "error" in reply else "no choices"
            return Fault(Kind.RETRY, f"the reply holds {why}: {self.shown(detail(body))!r}")
        usage = reply.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        return choice, (usage.get("prompt_tokens"), usage.get("completion_tokens"))


class OllamaFormat(Format):
    """`/api/generate` (raw) for a prompt, `/api/chat` for messages, with a context of `num_ctx` tokens."""

    def __init__(self, base: URL, model: str, extra: dict[str, Any], answers_as: str, num_ctx: int) -> None:
        super().__init__(base, model, extra, answers_as)
        options = self.extra.pop("options", {})
        self._options = {"num_ctx": num_ctx, **options}
        root = base.parent if base.name == "v1" else base
        self._chat, self._plain = root / "api" / "chat", root / "api" / "generate"

    def write(self, request: Request) -> tuple[URL, bytes]:
        """Return the URL and the body of a call."""
        s = request.sampling
        options: dict[str, Any] = {
            "num_predict": s.max_tokens,
            "temperature": s.temperature,
            "top_p": s.top_p,
            "seed": s.seed,
        }
        if s.stop:
            options["stop"] = s.stop
        options.update(self._options)
        # `shift: false`: the context window does not slide over the prompt while the answer is written.
        fields: dict[str, Any] = {"model": self.model, "stream": False, "truncate": False, "shift": False}
        if s.schema:  # an Ollama before 0.5 leaves it aside
            fields["format"] = orjson.loads(s.schema)
        if request.messages:
            fields["messages"] = [{"role": role, "content": content} for role, content in request.messages]
        else:
            fields["prompt"] = request.prompt
            fields["raw"] = True
        fields["options"] = options
        return self._chat if request.messages else self._plain, self._body(fields)

    def adapts(self, request: Request, body: bytes) -> bool:
        """Nothing to adapt."""
        return False

    def read(self, request: Request, body: bytes) -> Completion | Fault:
        """Return the answer in a successful reply."""
        reply = self._reply(body)
        if isinstance(reply, Fault):
            return reply
        message = reply.get("message") if request.messages else reply
        text = None
        if isinstance(message, dict) and reply.get("done") is True:
            text = message.get("content" if request.messages else "response")
        if not isinstance(text, str):
            return Fault(Kind.RETRY, f"the reply is not a finished answer: {self.shown(detail(body))!r}")
        counts = reply.get("prompt_eval_count"), reply.get("eval_count")
        return self._done(request, text, reply.get("done_reason"), *counts)


def _plain(choice: dict[str, Any]) -> tuple[str | None, str]:
    text = choice.get("text")
    return (text if isinstance(text, str) else None), ""


def _message(choice: dict[str, Any]) -> tuple[str | None, str]:
    """Return a message's text and its refusal. Reasoning (`reasoning_content`) is not part of the text."""
    message = choice.get("message")
    if not isinstance(message, dict):
        return None, ""
    content, refusal = message.get("content"), message.get("refusal")
    if isinstance(content, list):  # typed parts, as Mistral's servers send them
        content = "".join(str(p.get("text") or "") for p in content if isinstance(p, dict))
    if content is None:  # a refusal, or all tokens went into reasoning
        content = ""
    return (content if isinstance(content, str) else None), (refusal if isinstance(refusal, str) else "")


def detail(body: bytes) -> str:
    """Return the sentence in an error body: every server wraps it differently."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body[:2000].decode("utf-8", "replace")
    for name in ("error", "message", "detail"):
        if isinstance(found, dict) and name in found:
            found = found[name]
    return found if isinstance(found, str) else orjson.dumps(found).decode()


def quoted(text: str | bytes, length: int = 200) -> str:
    """Return `text` in one line of at most `length` characters."""
    if isinstance(text, bytes):
        text = text[: 8 * length].decode("utf-8", "replace")
    line = " ".join(text[: 8 * length].split())
    return line if len(line) <= length else line[: length - 1] + "…"
