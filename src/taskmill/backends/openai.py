"""Any server that speaks the OpenAI protocol: vLLM, SGLang, llama.cpp, LM Studio, OpenAI; and Ollama.

The API key is read from the environment when a stream of calls starts, sent as the `Authorization`
header and nowhere else. Over plain `http` it travels readably: use `https` for any server beyond a
network you trust. Redirects are not followed, so the key goes to the host you named only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import chain
from typing import Any
from urllib.request import getproxies_environment, proxy_bypass

import orjson

from taskmill.backends import ModelConfig
from taskmill.backends.http_client import Pump
from taskmill.backends.openai_scores import ELSEWHERE, ScoreFormat, scored
from taskmill.backends.pacing import Fault, Kind, Policy
from taskmill.backends.wire_formats import OllamaFormat, OpenAIFormat, detail, quoted
from taskmill.calls import Completion, Request, ScoreRequest, Scores
from taskmill.errors import BackendError, ConfigError, MissingExtra
from taskmill.ids import content_id

try:
    from yarl import URL
except ImportError as error:  # it comes with aiohttp
    raise MissingExtra("aiohttp", "openai") from error

__all__ = ["OpenAI", "create"]

_OPENAI = "https://api.openai.com/v1"
_OLLAMA_PORT = 11434
_OLLAMA_CONTEXT = 8192
"""Tokens of context asked of Ollama by default (chosen: its own default of 4096 cuts long passages)."""
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_BUSY = {408, 429, 503, 504, 529}  # 529: Anthropic's "overloaded"
_RETRY = {409, 425, 500, 502} | _BUSY
_SAYS_NO = {400, 422, 500, 501}  # llama.cpp's server refuses fields with a 500
_TOO_LONG = re.compile(r"context|too long|maximum.{0,20}(length|tokens)|exceed", re.IGNORECASE)


class OpenAI:
    """A model behind an OpenAI-compatible server, or Ollama in its own protocol.

    A Request with `messages` goes to `/chat/completions`, one with a `prompt` to `/completions`.
    `batch_invariant` is True: the completion is taken as a function of the request, since the server
    decides what it batches together.
    """

    batch_invariant = True

    def __init__(
        self,
        model: str,
        *,
        base_url: str = "",
        api_key_env: str = "OPENAI_API_KEY",
        concurrency: int = 64,
        timeout: float = 120.0,
        retries: int = 6,
        backoff: float = 1.0,
        num_ctx: int = 0,
        answers_as: str = "",
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        """Describe the server; nothing is sent yet.

        `base_url`: with or without `/v1`; default OPENAI_BASE_URL, else OpenAI itself.
        `concurrency`: calls in flight at most; the server's refusals lower it for a while.
        `timeout`: seconds for one attempt; `retries` and `backoff` (seconds, doubling) for the next ones.
        `num_ctx`: context window in tokens, for Ollama (0: 8192; see `wire_formats`). Port 11434 and the
        address in OLLAMA_HOST are known to be Ollama; giving `num_ctx` says that any other is.
        `answers_as`: the name under which the server answers, if it is not the model's; "*" for any.
        `extra_body`: further fields of the request; None removes a field (`{"seed": None}`).
        """
        if not model or concurrency < 1 or timeout <= 0 or min(retries, backoff, num_ctx) < 0:
            raise ConfigError(
                "openai needs a model name, concurrency ≥ 1, timeout > 0 and no negative numbers"
            )
        self.name = model
        self.extra_body = dict(extra_body or {})
        self.model = f"openai:{model}"
        if self.extra_body:  # it changes the answers, so it belongs in every call's key
            self.model += (
                f"?{content_id(orjson.dumps(self.extra_body, option=orjson.OPT_SORT_KEYS).decode())[:8]}"
            )
        self.base_url = str(_base(base_url))
        self.policy = Policy(concurrency, timeout, retries, backoff)
        base = URL(self.base_url)
        self.ollama = num_ctx > 0 or _is_ollama(base)
        self._format: OpenAIFormat | OllamaFormat
        if self.ollama:
            self._format = OllamaFormat(base, model, self.extra_body, answers_as, num_ctx or _OLLAMA_CONTEXT)
        else:
            self._format = OpenAIFormat(base, model, self.extra_body, answers_as)
        self._server = _Server(base, self._format, api_key_env)
        self._scores = ScoreFormat(base, model, self.extra_body, answers_as)
        self._scoring = _Server(base, self._scores, api_key_env)

    def __repr__(self) -> str:
        return f"OpenAI({self.name!r}, base_url={self.base_url!r}, concurrency={self.policy.concurrency})"

    @property
    def uncounted(self) -> int:
        """Completions whose token counts the server did not send; theirs are 0, never guessed."""
        return self._format.uncounted + self._scores.uncounted

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Yield one Completion per request as each finishes (see `taskmill.calls.Generator`)."""
        return self._stream(self._server, iter(requests))

    def score(self, requests: Iterable[ScoreRequest]) -> Iterator[Scores]:
        """Yield the Scores of each request as its calls finish (see `openai_scores` for what they ask).

        Raises BackendError if the server lists no likelihoods of given texts.
        """
        if self.ollama:
            raise BackendError(f"Ollama does not list the likelihood of a given text; {ELSEWHERE}")
        return scored(requests, lambda calls: self._stream(self._scoring, calls))

    def _stream(self, server: _Server, source: Iterator[Request]) -> Generator[Completion]:
        for first in source:  # with nothing to ask, neither a key nor a connection is needed
            yield from Pump(server, self.policy).answers(chain((first,), source))


class _Server:
    """The Exchange with one server: address, key, what a status means."""

    def __init__(self, base: URL, form: OpenAIFormat | OllamaFormat, key_env: str) -> None:
        self.base = base
        self.form = form
        self.key_env = key_env
        self.write = form.write
        form.shown = self.clean

    def _key(self) -> str:
        return os.environ.get(self.key_env, "").strip()

    def headers(self) -> Mapping[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        headers["Accept-Encoding"] = "identity"  # replies are short; decompressing them costs more
        if self._key():
            if not re.fullmatch(r"[!-~]+", self._key()):
                raise BackendError(f"{self.key_env} holds characters no API key has; set it again")
            headers["Authorization"] = f"Bearer {self._key()}"
        elif self.base.host == URL(_OPENAI).host:
            raise BackendError(f"{self.base.host} needs an API key; set {self.key_env} to yours")
        return headers

    def proxy(self) -> str | None:
        """Return the proxy of the environment; a server on this machine is never reached through one."""
        host = self.base.host or ""
        proxies = getproxies_environment()
        proxy = proxies.get(self.base.scheme) or proxies.get("all")
        if proxy is None or host in _LOOPBACK or proxy_bypass(host):
            return None
        if not proxy.startswith(("http://", "https://")):
            raise BackendError(
                f"only http proxies can be used; unset {self.base.scheme}_proxy or set no_proxy={host}"
            )
        return proxy

    def clean(self, text: str | bytes) -> str:
        if isinstance(text, bytes):
            text = text[:4000].decode("utf-8", "replace")
        key = self._key()
        return quoted(text.replace(key, "***") if key else text)

    def read(
        self, request: Request, status: int, headers: Mapping[str, str], body: bytes
    ) -> Completion | Fault:
        if status // 100 != 2:
            return self._refused(request, status, headers, body)
        return self.form.read(request, body)

    def _refused(self, request: Request, status: int, headers: Mapping[str, str], body: bytes) -> Fault:
        said = self.clean(detail(body))
        why = f"HTTP {status}: {said}" if said else f"HTTP {status}"
        if status in (400, 422):
            if self.form.adapts(request, body):
                return Fault(Kind.RESEND, why)
            if _TOO_LONG.search(said):
                return Fault(Kind.REFUSED, f"the prompt is too long for the model; {why}")
        if status in _SAYS_NO and (lacking := self.form.lacks(request, body)):
            return Fault(Kind.HOPELESS, f"{self.base} answered {why}; {lacking}")
        if status in (400, 422):
            return Fault(Kind.REFUSED, why)
        if status == 429 and b"insufficient_quota" in body:
            return Fault(Kind.HOPELESS, f"{why}; the account's credit is used up")
        if status in _RETRY:
            return Fault(Kind.BUSY if status in _BUSY else Kind.RETRY, why, retry_after(headers))
        if status in (401, 402, 403, 404, 405) or 300 <= status < 400:
            return Fault(Kind.HOPELESS, f"{self.base} answered {why}; {self._hint(status, headers)}")
        return Fault(Kind.REFUSED, why)

    def _hint(self, status: int, headers: Mapping[str, str]) -> str:
        if status in (401, 403):
            return f"check the key in {self.key_env}" if self._key() else f"set {self.key_env} to an API key"
        if status == 402:
            return "the account has no credit"
        if status < 400:
            return f"if you trust {self.clean(headers.get('Location', '?'))}, make that your base_url"
        if isinstance(self.form, OllamaFormat):
            return f'check the model name and that this is Ollama, or run "ollama pull {self.form.model}"'
        return f"check the model name and base_url; {self.base / 'models'} lists what is served"


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float:
    """Return the seconds a server asks to wait (RFC 9110, 10.2.3: seconds or a date), 0 if it does not."""
    precise = headers.get("retry-after-ms", "")  # OpenAI's own, finer form
    if re.fullmatch(r"\d+(\.\d+)?", precise):
        return float(precise) / 1000
    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", value):
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return 0.0
    if date.tzinfo is None:  # "-0000": the zone is unknown; HTTP dates are in GMT
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - (now or datetime.now(UTC))).total_seconds())


def _base(given: str) -> URL:
    """Return the API's root for whatever a user calls the server's address."""
    text = (given or os.environ.get("OPENAI_BASE_URL", "") or _OPENAI).strip()
    if "://" not in text:
        text = f"http://{text}"
    try:
        url = URL(text).with_query(None).with_fragment(None)
    except ValueError as error:
        raise ConfigError(f"base_url {given!r} is not a URL ({error})") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(f"base_url {given!r} is not an http(s) address")
    if url.user or url.password:
        raise ConfigError("base_url holds a password; put the key into an environment variable (api_key_env)")
    path = re.sub(r"(/chat)?/completions$", "", url.path.rstrip("/"))
    # A path with a version is complete ("/v1", "/v1beta/openai"); all others lack theirs.
    if not re.search(r"/v\d\w*(/|$)", path):
        path += "/v1"
    return url.with_path(path)


def _is_ollama(base: URL) -> bool:
    if base.port == _OLLAMA_PORT:
        return True
    host = os.environ.get("OLLAMA_HOST", "").strip()
    if not host:
        return False
    try:
        known = URL(host if "://" in host else f"http://{host}")
    except ValueError:  # e.g. ":11500", which the server itself accepts
        return False
    port = known.port if known.explicit_port else _OLLAMA_PORT
    same = known.host == base.host or (base.host in _LOOPBACK and known.host in {*_LOOPBACK, "0.0.0.0"})  # noqa: S104
    return same and port == base.port


def create(name: str, revision: str, config: ModelConfig) -> OpenAI:
    """Make the backend for `openai:name`; an "@" belongs to the name here (`openai:@cf/meta/llama-3`)."""
    return OpenAI(
        f"{name}@{revision}" if revision else name,
        base_url=config.base_url,
        api_key_env=config.api_key_env,
        concurrency=config.concurrency,
        timeout=config.timeout,
        retries=config.retries,
        num_ctx=config.num_ctx,
        answers_as=config.answers_as,
    )
