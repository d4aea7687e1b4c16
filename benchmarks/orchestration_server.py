"""A loopback server that answers every completion at once, to measure what the client costs.

    python benchmarks/orchestration_server.py [--port 0] [--latency-ms 0]

prints the port it listens on. The answer quotes the end of the prompt, so that a client can check that
each answer reached its question. One hand-written HTTP/1.1 protocol; runs on uvloop where installed.
It trusts its client: well-formed keep-alive POSTs with a Content-Length.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from importlib import import_module

import orjson

QUOTED = 40
"""Characters of the prompt's end that the answer quotes."""


class Server(asyncio.Protocol):
    """Answers `/chat/completions` and `/completions` under any prefix."""

    latency = 0.0

    def connection_made(self, transport):
        self.transport = transport
        self.buffer = b""

    def data_received(self, data):
        self.buffer = self.buffer + data if self.buffer else data
        while True:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self.buffer[:end].lower()
            at = head.find(b"content-length:")
            size = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + size:
                return
            body = self.buffer[end + 4 : end + 4 + size]
            self.buffer = self.buffer[end + 4 + size :]
            reply = answer(head, body)
            if self.latency:
                asyncio.get_running_loop().call_later(self.latency, self.transport.write, reply)
            else:
                self.transport.write(reply)


def answer(head: bytes, body: bytes) -> bytes:
    """Return the whole HTTP reply to one request."""
    asked = orjson.loads(body) if body else {}
    chat = b"/chat/completions" in head.split(b"\r\n", 1)[0]
    prompt = asked["messages"][-1]["content"] if chat else asked.get("prompt", "")
    text = "echo: " + prompt[-QUOTED:]
    choice = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    reply = orjson.dumps(
        {
            "id": "cmpl-0",
            "object": "chat.completion" if chat else "text_completion",
            "created": 0,
            "model": asked.get("model", ""),
            "choices": [{"index": 0, **choice, "logprobs": None, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30},
        }
    )
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        len(reply),
        reply,
    )


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", port, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="time before each answer")
    args = parser.parse_args()
    Server.latency = args.latency_ms / 1000
    try:
        factory = import_module("uvloop").new_event_loop
    except ImportError:
        factory = None
    with asyncio.Runner(loop_factory=factory) as runner, contextlib.suppress(KeyboardInterrupt):
        runner.run(serve(args.port))


if __name__ == "__main__":
    main()
