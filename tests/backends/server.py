"""A loopback HTTP server that behaves as badly as a test wants.

`Server(play)` calls `play(seen)` for every request, in its own thread; what comes back says what bytes
go out and whether the connection lives. The replies of real servers are at the end, one function each.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson


@dataclass
class Seen:
    """One request as the server got it; `number` counts from 0 in order of arrival."""

    number: int
    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def text(self) -> str:
        """The prompt, or the last message."""
        return self.body["messages"][-1]["content"] if "messages" in self.body else self.body["prompt"]


@dataclass
class Act:
    """What to do with a request: wait, write, perhaps close. A `delay` beyond the test is a hang."""

    data: bytes = b""
    close: bool = False
    delay: float = 0.0


@dataclass
class Server:
    play: Callable[[Seen], Act]
    seen: list[Seen] = field(default_factory=list)
    running: int = 0
    peak: int = 0

    def __enter__(self) -> Server:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="test-server")
        self._thread.start()
        start = asyncio.start_server(self._connection, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(start, self._loop).result()
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # ConnectionError and IncompleteReadError: the client went away, as some tests make it do.
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._answer(reader, writer):
                pass
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        seen = Seen(len(self.seen), first.split()[1], headers, orjson.loads(body) if body else {})
        self.seen.append(seen)
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            act = self.play(seen)
            await asyncio.sleep(act.delay)
            writer.write(act.data)
            await writer.drain()
        finally:
            self.running -= 1
        return not act.close


def reply(body: bytes | dict[str, Any], status: int = 200, **headers: str) -> Act:
    """A well-formed HTTP reply; header names are given with underscores."""
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    lines = [f"HTTP/1.1 {status} Any", f"Content-Length: {len(data)}", "Content-Type: application/json"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return Act("\r\n".join(lines).encode() + b"\r\n\r\n" + data)


def openai(seen: Seen, text: str | None = None, **message: Any) -> dict[str, Any]:
    """OpenAI's shape (also SGLang's); the default text repeats the question."""
    text = f"answer to {seen.text}" if text is None else text
    chat = "messages" in seen.body
    inner = {"message": {"role": "assistant", "content": text, "refusal": None} | message}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion" if chat else "text_completion",
        "created": 1,
        "model": seen.body["model"],
        "choices": [
            {"index": 0, "finish_reason": "stop", "logprobs": None} | (inner if chat else {"text": text})
        ],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    }


def ok(seen: Seen) -> Act:
    return reply(openai(seen))


def tokens(text: str) -> list[str]:
    """Words with the space before them, and single signs: the tokens of a server that lists likelihoods."""
    return re.findall(r" ?\w+|\W", text)


ODDS = {(":", " yes"): -0.5, (":", " no"): -1.25, (" no", " way"): -0.75, (":", " A"): -1.5}
"""Log-probabilities of a token behind another one; all others are -4."""


def odds(before: str, token: str) -> float:
    """The log-probability of a token behind a text."""
    return ODDS.get(((tokens(before) or [""])[-1], token), -4.0)


def echoed(
    seen: Seen, likely: Callable[[str, str], float] = odds, *, start: str = "", written: int | None = None
) -> dict[str, Any]:
    """A prompt given back with its tokens' log-probabilities (`echo` with `logprobs`), new ones behind it.

    `start` is a token that is counted in the offsets but is no text, as vLLM's server does.
    """
    assert (seen.body["echo"], seen.body["logprobs"]) == (True, 1)
    written = seen.body["max_tokens"] if written is None else written
    listed, values, offsets, at, text = [], [], [], 0, ""
    for token in [*([start] if start else []), *tokens(seen.body["prompt"]), *[" so"] * written]:
        values.append(likely(text, token) if at else None)
        listed.append(token)
        offsets.append(at)
        at += len(token)
        text += "" if token == start else token
    found = openai(seen, text)
    top = [{token: value} for token, value in zip(listed, values, strict=True)]
    found["choices"][0]["logprobs"] = {
        "tokens": listed, "token_logprobs": values, "text_offset": offsets, "top_logprobs": top
    }  # fmt: skip
    count = len(listed) - written
    found["usage"] = {"prompt_tokens": count, "completion_tokens": written, "total_tokens": count + written}
    return found


def vllm(seen: Seen) -> dict[str, Any]:
    """vLLM adds `stop_reason`, `prompt_logprobs`, and types finish_reason as nullable."""
    found = openai(seen)
    found["choices"][0] |= {"finish_reason": None, "stop_reason": None, "prompt_logprobs": None}
    if "messages" in seen.body:
        found["choices"][0]["message"] |= {"reasoning_content": None, "tool_calls": []}
    return found | {"prompt_logprobs": None, "kv_transfer_params": None, "service_tier": None}


def llama_cpp(seen: Seen) -> dict[str, Any]:
    """llama.cpp's server names the model by its file and sends timings instead of some fields."""
    found = openai(seen)
    del found["id"], found["created"], found["object"]
    found["choices"][0].pop("logprobs")
    found["choices"][0].get("message", {}).pop("refusal", None)
    return found | {"model": f"/models/{seen.body['model']}-Q4_K_M.gguf", "timings": {"prompt_n": 11}}


def lm_studio(seen: Seen) -> dict[str, Any]:
    """LM Studio puts the thinking beside the answer and adds stats."""
    more = {"reasoning_content": "Let me think.", "tool_calls": []} if "messages" in seen.body else {}
    return openai(seen, **more) | {"stats": {}, "system_fingerprint": seen.body["model"]}


def ollama(seen: Seen) -> dict[str, Any]:
    """Ollama's own shape, of /api/chat and /api/generate."""
    text = f"answer to {seen.text}"
    found = {"model": seen.body["model"], "created_at": "2026-01-01T00:00:00Z", "done": True}
    found |= (
        {"message": {"role": "assistant", "content": text}} if "messages" in seen.body else {"response": text}
    )
    return found | {"done_reason": "stop", "prompt_eval_count": 11, "eval_count": 7, "total_duration": 1}
