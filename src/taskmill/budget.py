"""Limits on calls, tokens, money and time, cumulative over all sessions of a run."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from taskmill.config import read_yaml
from taskmill.errors import ConfigError

__all__ = ["Budget", "BudgetConfig", "Price", "load_price", "seconds_of"]


@dataclass(frozen=True, slots=True)
class BudgetConfig:
    """Limits; 0 means none. Cost needs `prices`."""

    max_calls: int = field(default=0, metadata={"help": "stop after this many paid model calls"})
    max_tokens: int = field(
        default=0,
        metadata={"help": "stop after this many tokens, prompt and completion", "flag": "max-tokens"},
    )
    max_cost: float = field(default=0.0, metadata={"help": "stop at this cost, in the currency of --prices"})
    max_time: float = field(default=0.0, metadata={"help": "stop after this many seconds of work"})
    prices: str = field(
        default="",
        metadata={"help": "YAML file of prices: model: {prompt: per 1M tokens, completion: per 1M tokens}"},
    )


@dataclass(frozen=True, slots=True)
class Price:
    """Cost per million tokens, in the user's currency."""

    prompt: float
    completion: float

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Return the cost of so many tokens."""
        return (self.prompt * prompt_tokens + self.completion * completion_tokens) / 1e6


def load_price(path: str, model: str) -> Price | None:
    """Return the price of `model` from the user's table, None without a table.

    Raises ConfigError if the file is not such a table or lacks the model: a price is never guessed.
    """
    if not path:
        return None
    table = read_yaml(Path(path))
    entry = table.get(model) if isinstance(table, Mapping) else None
    if entry is None:
        entry = table.get(model.split("@")[0]) if isinstance(table, Mapping) else None
    if not isinstance(entry, Mapping) or not {"prompt", "completion"} <= set(entry):
        raise ConfigError(f"{path} has no entry '{model}: {{prompt: …, completion: …}}'; add one")
    return Price(float(entry["prompt"]), float(entry["completion"]))


class Budget:
    """Decides before each call whether it may be made; knows what was spent in earlier sessions."""

    def __init__(
        self,
        limits: BudgetConfig | None = None,
        *,
        price: Price | None = None,
        calls: int = 0,
        prompt_tokens: int = 0,
        completion_tokens: int = 0,
        elapsed: float = 0.0,
    ) -> None:
        """Start from what earlier sessions spent. Raises ConfigError for a cost limit without a price."""
        self.limits = limits or BudgetConfig()
        if self.limits.max_cost and price is None:
            raise ConfigError("--max-cost needs --prices FILE with the price of the model")
        self.price = price
        self.calls = calls
        self.prompt_tokens = prompt_tokens
        self.completion_tokens = completion_tokens
        self.reason = ""
        self._open = self._reserved_prompt = self._reserved_completion = 0
        self._started = time.monotonic() - elapsed

    @property
    def elapsed(self) -> float:
        """Return the seconds of work over all sessions."""
        return time.monotonic() - self._started

    @property
    def cost(self) -> float | None:
        """Return what was spent in money, None without a price table."""
        return self.price.cost(self.prompt_tokens, self.completion_tokens) if self.price else None

    def exhausted(self) -> bool:
        """Say whether what was spent has reached a limit; `reason` then names it."""
        limits = self.limits
        if limits.max_calls and self.calls >= limits.max_calls:
            self.reason = f"--max-calls {limits.max_calls}"
        elif limits.max_tokens and self.prompt_tokens + self.completion_tokens >= limits.max_tokens:
            self.reason = f"--max-tokens {limits.max_tokens}"
        elif limits.max_cost and (self.cost or 0.0) >= limits.max_cost:
            self.reason = f"--max-cost {limits.max_cost:g}"
        elif limits.max_time and self.elapsed >= limits.max_time:
            self.reason = f"--max-time {limits.max_time:g}"
        return bool(self.reason)

    def allow(self, prompt_tokens: int, completion_tokens: int) -> bool:
        """Reserve one call of at most about so many tokens, or say no.

        A call is allowed if the limits hold even when every call under way comes to what was
        reserved for it, or if none is under way. So a limit is overshot by one call at most; a no
        while calls are under way means "ask again when they have ended".
        """
        if self.exhausted():
            return False
        if self._open and self._over(prompt_tokens, completion_tokens):
            return False
        self._open += 1
        self._reserved_prompt += prompt_tokens
        self._reserved_completion += completion_tokens
        return True

    def _over(self, prompt_tokens: int, completion_tokens: int) -> bool:
        limits = self.limits
        prompt = self.prompt_tokens + self._reserved_prompt + prompt_tokens
        completion = self.completion_tokens + self._reserved_completion + completion_tokens
        cost = self.price.cost(prompt, completion) if self.price else 0.0
        return bool(
            (limits.max_calls and self.calls + self._open >= limits.max_calls)
            or (limits.max_tokens and prompt + completion > limits.max_tokens)
            or (limits.max_cost and cost > limits.max_cost)
        )

    def spend(
        self,
        reserved: tuple[int, int],
        prompt_tokens: int,
        completion_tokens: int,
    ) -> None:
        """Book the end of a call that `allow` reserved; a failed call counts, with what tokens it has."""
        self._open -= 1
        self._reserved_prompt -= reserved[0]
        self._reserved_completion -= reserved[1]
        self.calls += 1
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens


def seconds_of(text: str) -> float:
    """Return the seconds of `90s`, `30m` or `2h`, infinity for "". Raises ConfigError otherwise."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(s|m|h)", text.strip())
    if not text.strip():
        return math.inf
    if not found or not float(found[1]):
        raise ConfigError(f"budget: {text!r} is no time; write 90s, 30m or 2h")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]
