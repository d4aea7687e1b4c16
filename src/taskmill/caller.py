"""One way to call a model: through the ledger, within the budget, each key at most once."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from taskmill.budget import Budget
from taskmill.calls import Completion, Request
from taskmill.calls import Generator as Backend
from taskmill.errors import BackendError
from taskmill.ledger import Ledger

__all__ = ["Caller"]

_HITS = 4096
"""Ledger hits collected before the caller gets them while it waits for new answers."""


@dataclass(slots=True)
class Caller:
    """Answers requests from the ledger, else from the backend. Counts what it did.

    `made` are calls paid by this session, `reused` answers that were in the ledger, `failed` calls
    that ended without an answer, `fault` what the first of them says. `stopped` is True once the
    budget refused a call.
    """

    backend: Backend
    ledger: Ledger
    budget: Budget
    made: int = 0
    reused: int = 0
    failed: int = 0
    fault: str = ""
    stopped: bool = False

    def answers(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Completion]]:
        """Yield every request with its completion, in order of arrival.

        Requests the budget refuses are not yielded; the stream ends at the first refusal.
        """
        source = iter(requests)
        while True:
            feed = _Feed(self, source)
            yield from self._round(feed)
            if feed.held is not None:
                source = chain((feed.held,), source)
            elif feed.exhausted or self.stopped:
                return

    def include(self, other: Caller) -> None:
        """Count what another caller of the same ledger and budget has done."""
        self.made += other.made
        self.reused += other.reused
        self.failed += other.failed
        self.fault = self.fault or other.fault
        self.stopped = self.stopped or other.stopped

    def _round(self, feed: _Feed) -> Iterator[tuple[Request, Completion]]:
        stream = self.backend.generate(feed)
        try:
            for completion in stream:
                if completion.key not in feed.waiting:
                    raise BackendError(f"{self.backend.model} answered a request that was not made")
                self._book(feed.waiting[completion.key][0], completion)
                for request in feed.waiting.pop(completion.key):
                    yield request, completion
                while feed.hits:
                    yield feed.hits.popleft()
        finally:
            # An abandoned round must end its calls and threads now, not when it is collected.
            if isinstance(stream, Generator):
                stream.close()
        while feed.hits:
            yield feed.hits.popleft()
        for key in list(feed.waiting):
            lost = Completion(key, finish="error", error="the backend gave no answer")
            self._book(feed.waiting[key][0], lost)
            for request in feed.waiting.pop(key):
                yield request, lost

    def _book(self, request: Request, completion: Completion) -> None:
        failed = completion.finish == "error"
        self.ledger.append((completion,))
        self.budget.spend(_expected(request), completion.prompt_tokens, completion.completion_tokens)
        self.failed += failed
        self.fault = self.fault or completion.error
        self.made += not failed


def _expected(request: Request) -> tuple[int, int]:
    """Return about how many tokens a call may take: three bytes a token, and the longest reply allowed."""
    length = len(request.prompt) + sum(len(content) for _, content in request.messages)
    if not request.sampling.max_tokens:  # choices to weigh: a server reads the prompt anew for each
        length = sum(length + len(choice) for choice in request.sampling.choices)
    return length // 3 + 8, request.sampling.max_tokens


class _Feed:
    """The requests a backend still has to answer: not in the ledger, not under way, within the budget."""

    def __init__(self, caller: Caller, source: Iterator[Request]) -> None:
        self.caller = caller
        self.source = source
        self.hits: deque[tuple[Request, Completion]] = deque()
        self.waiting: dict[str, list[Request]] = {}
        self.held: Request | None = None
        self.exhausted = False

    def __iter__(self) -> Iterator[Request]:
        caller = self.caller
        for request in self.source:
            known = caller.ledger.get(request.key)
            if known is not None:
                caller.reused += 1
                self.hits.append((request, known))
                if len(self.hits) >= _HITS:
                    return
                continue
            if request.key in self.waiting:
                caller.reused += 1
                self.waiting[request.key].append(request)
                continue
            if not caller.budget.allow(*_expected(request)):
                if caller.budget.reason:
                    caller.stopped = True
                else:
                    self.held = request  # when the calls under way have ended, there may be room again
                return
            self.waiting[request.key] = [request]
            yield request
        self.exhausted = True
