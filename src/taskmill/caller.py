"""One way to call a model: through the ledger, within the budget, each key at most once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from taskmill.budget import Budget
from taskmill.calls import Completion, Generator, Request
from taskmill.ledger import Ledger

__all__ = ["Caller"]

_HITS = 4096
"""Ledger hits collected before the caller gets them while it waits for new answers."""


@dataclass(slots=True)
class Caller:
    """Answers requests from the ledger, else from the backend. Counts what it did.

    `made` are calls paid by this session, `reused` answers that were in the ledger, `failed` calls
    that ended without an answer. `stopped` is True once the budget refused a call.
    """

    backend: Generator
    ledger: Ledger
    budget: Budget
    made: int = 0
    reused: int = 0
    failed: int = 0
    stopped: bool = False

    def answers(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Completion]]:
        """Yield every request with its completion, in order of arrival.

        Requests the budget refuses are not yielded; the stream ends at the first refusal.
        """
        source = iter(requests)
        while True:
            feed = _Feed(self, source)
            yield from self._round(feed)
            if feed.exhausted or self.stopped:
                return

    def _round(self, feed: _Feed) -> Iterator[tuple[Request, Completion]]:
        stream = self.backend.generate(feed)
        for completion in stream:
            self._book(completion)
            for request in feed.waiting.pop(completion.key, ()):
                yield request, completion
            while feed.hits:
                yield feed.hits.popleft()
        while feed.hits:
            yield feed.hits.popleft()

    def _book(self, completion: Completion) -> None:
        failed = completion.finish == "error"
        self.ledger.append((completion,))
        self.budget.spend(completion.prompt_tokens, completion.completion_tokens, failed=failed)
        self.failed += failed
        self.made += not failed


class _Feed:
    """The requests a backend still has to answer: not in the ledger, not under way, within the budget."""

    def __init__(self, caller: Caller, source: Iterator[Request]) -> None:
        self.caller = caller
        self.source = source
        self.hits: deque[tuple[Request, Completion]] = deque()
        self.waiting: dict[str, list[Request]] = {}
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
            if not caller.budget.allow():
                caller.stopped = True
                return
            self.waiting[request.key] = [request]
            yield request
        self.exhausted = True
