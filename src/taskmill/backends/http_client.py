"""Many HTTP calls at once behind a plain iterator: one thread, one event loop, long-lived workers.

The caller's thread pulls the requests (their iterator is not thread safe) and hands them over through
a deque; the loop thread answers them and hands back whatever finished in one turn of the loop as one
batch. The number of calls in flight adapts to the server (`Gate`); what fails for a passing reason is
sent again, after the time the server asks for. The package is aiohttp; what the bytes mean is the
business of an `Exchange`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Protocol

from taskmill.backends.pacing import Fault, Gate, Kind, Policy
from taskmill.calls import Completion, Request
from taskmill.errors import BackendError, MissingExtra
from taskmill.ids import draw

try:
    import aiohttp
except ImportError as error:
    raise MissingExtra("aiohttp", "openai") from error

if TYPE_CHECKING:
    from yarl import URL

__all__ = ["Exchange", "Pump"]

MAX_REPLY = 16 * 2**20
"""Bytes of one reply that are read at most (chosen: 16 MB is some 4 million tokens of text)."""
_RESENDS = 3  # a server may refuse max_tokens, logprobs and response_format, one at a time
_MAX_BACKOFF = 30.0
"""Seconds between two attempts, unless the server asks for more (chosen)."""
_LOST = 100
"""Failed calls in a row (or twice the concurrency) that end a stream: a dead server (chosen)."""
_LOST_SILENT = 5
"""The same once nothing was answered for as long as one request may take (chosen)."""
_SLICE = 0.002
"""Seconds for which requests are pulled before finished completions are looked at (chosen)."""


class Exchange(Protocol):
    """What is said to the server and what its bytes mean."""

    def headers(self) -> Mapping[str, str]:
        """Return the headers of every call (asked once per stream, when it starts)."""
        ...

    def proxy(self) -> str | None:
        """Return the proxy to use."""
        ...

    def write(self, request: Request) -> tuple[URL, bytes]:
        """Return where to post and what; raises ValueError if the request cannot be written."""
        ...

    def read(
        self, request: Request, status: int, headers: Mapping[str, str], body: bytes
    ) -> Completion | Fault:
        """Return the answer in a reply, or why there is none."""
        ...

    def clean(self, text: str) -> str:
        """Return `text` in one line, shortened and without secrets, to be shown."""
        ...


@dataclass(slots=True)
class _Again:
    """A request that failed before, waiting for its next attempt."""

    request: Request
    attempt: int
    deadline: float


class Pump:
    """Sends a stream of requests and yields their completions as they finish. Used once."""

    def __init__(self, exchange: Exchange, policy: Policy) -> None:
        self._exchange = exchange
        self._policy = policy
        self._gate = Gate(policy.concurrency)
        self._inbox: deque[Request | _Again] = deque()
        self._out: SimpleQueue[list[Completion] | BaseException] = SimpleQueue()
        self._unfinished = 0  # pulled and not yet handed back; caller's thread only
        self._loop = asyncio.new_event_loop()
        # The rest belongs to the loop thread.
        self._main: asyncio.Task[None] | None = None
        self._cancelled = False
        self._idle: list[asyncio.Future[None]] = []
        self._active = 0
        self._batch: list[Completion] = []
        self._answered_at = 0.0
        self._lost_in_a_row = 0

    # --- the caller's thread ---

    def answers(self, source: Iterator[Request]) -> Iterator[Completion]:
        """Yield one completion per request, in order of arrival.

        If `source` raises, what is already under way is finished and yielded (it is paid for), then
        the exception goes on. Closing the iterator cancels what is under way and ends the thread.
        """
        more, broken = True, None
        thread = threading.Thread(target=self._thread, name="taskmill-http", daemon=True)
        thread.start()
        try:
            while more or self._unfinished:
                if more:
                    try:
                        more = self._feed(source)
                    except Exception as error:
                        more, broken = False, error
                if self._unfinished:
                    yield from self._collect(wait=not more or self._unfinished >= self._gate.limit)
        finally:
            self._stop(thread)
        if broken is not None:
            raise broken

    def _feed(self, source: Iterator[Request]) -> bool:
        """Pull what can run now, for a moment at most; False once the stream is exhausted."""
        until = time.monotonic() + _SLICE
        before = self._unfinished
        try:
            while self._unfinished < self._gate.limit:
                request = next(source, None)
                if request is None:
                    return False
                self._inbox.append(request)
                self._unfinished += 1
                if time.monotonic() > until:
                    break
            return True
        finally:
            if self._unfinished > before:
                self._in_loop(self._wake)

    def _collect(self, wait: bool) -> Iterator[Completion]:
        try:
            batch = self._out.get(block=wait)
        except Empty:
            return
        if isinstance(batch, BaseException):
            raise batch
        self._unfinished -= len(batch)
        yield from batch

    def _in_loop(self, function: Callable[[], object]) -> None:
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:  # the loop has ended; its exception is, or will be, in `_out`
            return

    def _stop(self, thread: threading.Thread) -> None:
        self._in_loop(self._cancel)
        # The garbage collector may close a forgotten generator in any thread, this one included.
        if thread is not threading.current_thread():
            thread.join()

    # --- the loop thread ---

    def _thread(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._run())
        except asyncio.CancelledError:
            return
        except BaseException as error:
            self._flush()
            self._out.put(error)

    def _cancel(self) -> None:
        self._cancelled = True
        if self._main is not None:
            self._main.cancel()

    async def _run(self) -> None:
        self._main = asyncio.current_task()
        if self._cancelled:
            return
        self._began_at = self._loop.time()
        policy = self._policy
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=policy.concurrency, ttl_dns_cache=300),
            timeout=aiohttp.ClientTimeout(total=policy.timeout, sock_connect=min(30.0, policy.timeout)),
            headers=self._exchange.headers(),
            cookie_jar=aiohttp.DummyCookieJar(),
        ) as self._session:
            # `trust_env` would look the proxy up, and ~/.netrc, in another thread for every call.
            self._proxy = self._exchange.proxy()
            workers = [asyncio.create_task(self._worker()) for _ in range(policy.concurrency)]
            try:
                done, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
                for worker in done:
                    worker.result()
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    async def _worker(self) -> None:
        while True:
            while not self._inbox or self._active >= self._gate.limit:
                turn = self._loop.create_future()
                self._idle.append(turn)
                await turn
            entry = self._inbox.popleft()
            self._active += 1
            try:
                completion = await self._answer(entry)
            finally:
                self._active -= 1
            if completion is not None:
                if not self._batch:
                    self._loop.call_soon(self._flush)
                self._batch.append(completion)
            if self._inbox and self._idle:
                self._wake()

    def _wake(self) -> None:
        for _ in range(min(len(self._inbox), self._gate.limit - self._active, len(self._idle))):
            turn = self._idle.pop()
            if not turn.done():
                turn.set_result(None)

    def _flush(self) -> None:
        if self._batch:
            self._out.put(self._batch)
            self._batch = []

    async def _answer(self, entry: Request | _Again) -> Completion | None:
        """Make one attempt; None if another one is due later (it does not keep the worker)."""
        gate = self._gate
        request = entry if isinstance(entry, Request) else entry.request
        while (now := self._loop.time()) < gate.resume_at:
            await asyncio.sleep(gate.resume_at - now)
        generation = gate.generation
        answer = await self._attempt(request)
        for _ in range(_RESENDS):
            if not isinstance(answer, Fault) or answer.kind is not Kind.RESEND:
                break
            answer = await self._attempt(request)
        if isinstance(answer, Completion):
            gate.good()
            self._answered_at = self._loop.time()
            self._lost_in_a_row = 0
            return answer
        if answer.kind is Kind.BUSY:
            gate.busy(generation)
        if isinstance(entry, Request):
            entry = _Again(request, 0, now + self._policy.patience)
        return self._retry(entry, answer)

    def _retry(self, entry: _Again, fault: Fault) -> Completion | None:
        """Put the request back for later, or return its failed completion."""
        passing = fault.kind in (Kind.RETRY, Kind.BUSY, Kind.UNREACHABLE)
        if not passing or entry.attempt >= self._policy.retries:
            return self._lost(entry.request, fault)
        now = self._loop.time()
        if fault.wait <= self._policy.patience:  # everyone waits as long as the server asks one to
            self._gate.resume_at = max(self._gate.resume_at, now + fault.wait)
        # Half to whole of the step, drawn from the key: spread out, and the same in every run.
        jitter = 0.5 + draw(entry.attempt, entry.request.key, "retry") / 2**64
        pause: float = min(_MAX_BACKOFF, self._policy.backoff * 2**entry.attempt) * jitter
        pause += max(fault.wait, self._gate.resume_at - now)
        if now + pause > entry.deadline:
            gave_up = f"{fault.why} (gave up: next try in {pause:.0f} s)"
            return self._lost(entry.request, Fault(fault.kind, gave_up))
        entry.attempt += 1
        self._loop.call_later(pause, self._put_back, entry)
        return None

    def _put_back(self, entry: _Again) -> None:
        self._inbox.appendleft(entry)
        self._wake()

    def _lost(self, request: Request, fault: Fault) -> Completion:
        """Return the failed completion; raises BackendError when the others would fail as well."""
        if fault.kind is not Kind.REFUSED:
            if fault.kind in (Kind.HOPELESS, Kind.UNREACHABLE) and not self._answered_at:
                raise BackendError(fault.why)
            self._lost_in_a_row += 1
            silent = self._loop.time() - (self._answered_at or self._began_at) > self._policy.patience
            if self._lost_in_a_row >= (_LOST_SILENT if silent else max(_LOST, 2 * self._policy.concurrency)):
                raise BackendError(
                    f"the last {self._lost_in_a_row} calls all failed, last with: {fault.why}. What was "
                    "answered is kept; run the same command again once the server is well"
                )
        return Completion(request.key, finish="error", error=fault.why)

    async def _attempt(self, request: Request) -> Completion | Fault:
        try:
            url, body = self._exchange.write(request)
        except ValueError as error:
            return Fault(Kind.REFUSED, f"the request cannot be sent: {self._exchange.clean(str(error))}")
        try:
            async with self._session.post(url, data=body, allow_redirects=False, proxy=self._proxy) as reply:
                data = await _bounded(reply)
                if data is None:
                    return Fault(Kind.REFUSED, f"the reply is larger than {MAX_REPLY >> 20} MB")
                return self._exchange.read(request, reply.status, reply.headers, data)
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            return self._transport_fault(url, error)

    def _transport_fault(self, url: URL, error: Exception) -> Fault:
        what = self._exchange.clean(f"{type(error).__name__}: {error}")
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            return Fault(Kind.HOPELESS, f"no secure connection to {url} ({what}); check its certificate")
        if isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)):
            hint = "start the server, or set base_url (or OPENAI_BASE_URL) to its address"
            return Fault(Kind.UNREACHABLE, f"cannot connect to {url} ({what}); {hint}")
        if isinstance(error, TimeoutError):
            return Fault(
                Kind.BUSY, f"no answer within {self._policy.timeout:g} s; raise timeout= for a slow model"
            )
        return Fault(Kind.RETRY, f"the connection broke ({what})")


async def _bounded(reply: aiohttp.ClientResponse) -> bytes | None:
    """Return the body, or None if it is larger than `MAX_REPLY` (also once decompressed)."""
    size = reply.content_length
    if size is not None and size <= MAX_REPLY and "Content-Encoding" not in reply.headers:
        return await reply.read()
    if size is not None and size > MAX_REPLY:
        reply.close()
        return None
    parts, total = [], 0
    async for part in reply.content.iter_any():
        parts.append(part)
        total += len(part)
        if total > MAX_REPLY:
            reply.close()
            return None
    return b"".join(parts)
