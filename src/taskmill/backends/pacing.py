"""How a client of many calls behaves towards a server: what a failure asks for, how many calls may run."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

__all__ = ["Fault", "Gate", "Kind", "Policy"]

_START = 16
"""Calls in flight before the server has answered anything (chosen: harmless to a laptop server)."""


class Kind(Enum):
    """What a failed attempt asks of the client."""

    RETRY = auto()  # a passing fault: try again
    BUSY = auto()  # the server has too much to do: fewer calls at once, then try again
    UNREACHABLE = auto()  # no connection: try again; if nothing was ever answered, give up for all
    RESEND = auto()  # the exchange has changed how it asks: send again at once (granted a few times)
    REFUSED = auto()  # this request cannot succeed
    HOPELESS = auto()  # no request can succeed


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an attempt gave no answer, in one line; `wait` is the pause in seconds the server asks for."""

    kind: Kind
    why: str
    wait: float = 0.0


@dataclass(frozen=True, slots=True)
class Policy:
    """How hard to try. `patience` bounds the seconds one request may take over all its attempts."""

    concurrency: int = 64
    timeout: float = 120.0
    retries: int = 6
    backoff: float = 1.0
    patience: float = 600.0


class Gate:
    """How many calls may be in flight: additive increase, multiplicative decrease, as TCP does.

    Doubles per round trip until the first sign of overload, then grows by one per round trip (RFC 5681,
    3.1). A cut counts once per generation of calls: 64 calls refused together halve the limit once.
    """

    def __init__(self, ceiling: int) -> None:
        self.limit = min(_START, ceiling)
        self.generation = 0
        self.resume_at = 0.0
        self._ceiling = self._threshold = ceiling
        self._credit = 0

    def good(self) -> None:
        """Note an answer."""
        if self.limit >= self._ceiling:
            return
        self._credit += 1
        if self.limit < self._threshold or self._credit >= self.limit:
            self.limit += 1
            self._credit = 0

    def busy(self, generation: int) -> None:
        """Note a sign of overload by a call sent in `generation`."""
        if generation == self.generation:
            self.generation += 1
            self.limit = self._threshold = max(1, self.limit // 2)
            self._credit = 0
