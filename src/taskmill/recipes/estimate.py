"""What a run would cost: a few real calls, extrapolated with an interval.

The calls are recorded in the run's ledger, so the run that follows does not pay for them again.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from taskmill.budget import Price, load_price
from taskmill.caller import Caller
from taskmill.calls import Completion, Request
from taskmill.curate.checks import check
from taskmill.curate.verify import applies
from taskmill.recipes import stages
from taskmill.recipes.session import OnProgress, Session
from taskmill.recipes.synth import SynthConfig, effort, how, model, validate
from taskmill.record import Example
from taskmill.store import Run, parts
from taskmill.synthesize.bonito import examples, pose, respond
from taskmill.synthesize.plan import Passages

__all__ = ["ROWS", "estimate", "totals"]

ROWS = 20
"""Calls made for an estimate, divided among the task types."""

LEAST = 4
"""Calls made per task type however many there are."""

SURVEYED = 1000
"""Passages whose requests are counted; beyond them the count is scaled."""


def estimate(
    config: SynthConfig, out: str | Path, *, on_progress: OnProgress | None = None
) -> dict[str, Any]:
    """Make some 20 calls of the run and return what all of it takes, these included.

    `calls` are those that were not yet in the ledger. Each figure is {"expected", "low", "high"}, a 95 %
    interval: of the mean over the sample (normal), and with a target also of the accepted share per
    task type (Wilson). `cost` is None without a price table. `verify`, with checks by a model, has the calls
    that these make about accepted examples; they are in no other figure. Nothing but the ledger is changed
    in the folder `out`.
    """
    validate(config)
    with Run(Path(out)) as run, Run(run.path / ".estimate") as scratch:
        try:
            session = Session.open(scratch, {}, free=(), update=True, report=on_progress)
            session.manifest["model"] = {"ref": config.model.ref, "protocol": how(config).protocol}
            stages.ingest(session, config.sources, config.ingest)
            passages = Passages(parts(scratch.stage(1, "ingest") / "kept"), config.seed)
            access = replace(model(config), home=run)
            caller = access.open(session)
            with caller.ledger:
                plan = _Survey(config, caller, passages)
                started = time.monotonic()
                answers = list(_answered(caller, plan.sample))
                seconds = time.monotonic() - started
                calls = plan.calls(answers)
                verified = plan.verified(answers)
        finally:
            shutil.rmtree(scratch.path, ignore_errors=True)
    price = load_price(config.budget.prices, config.model.ref)
    found = {"sample": len(answers), "made": caller.made, "failed": caller.failed, "calls": calls}
    if config.verify.checks:
        found["verify"] = {"calls": verified}
    return found | totals(calls, [c for _, c in answers], seconds if caller.made else 0.0, price)


class _Survey:
    """Poses the requests of up to SURVEYED passages, which costs nothing, and picks the sample of them."""

    def __init__(self, config: SynthConfig, caller: Caller, passages: Passages) -> None:
        self.config, self.caller, self.passages = config, caller, passages
        self.how = how(config)
        self.looked = min(len(passages), SURVEYED)
        each = max(ROWS // len(self.how.tasks), LEAST)
        self.posed: Counter[str] = Counter()
        self.new: Counter[str] = Counter()
        self.sample: list[Request] = []
        taken: Counter[str] = Counter()
        samples = 1 if config.target else config.per_passage
        for i in range(self.looked):
            for task in self.how.tasks:
                for sample in range(samples):
                    asked = pose(self.how, caller.backend.model, passages[i], task, sample)
                    if not isinstance(asked, Request):
                        continue
                    self.posed[task] += 1
                    self.new[task] += caller.ledger.get(asked.key) is None
                    if taken[task] < each:
                        taken[task] += 1
                        self.sample.append(asked)

    def calls(self, answers: Sequence[tuple[Request, Completion]]) -> dict[str, float]:
        """Return the number of calls that were not in the ledger before the sample."""
        figures = {"expected": 0.0, "low": 0.0, "high": 0.0}
        scale = len(self.passages) / self.looked
        for task in self.how.tasks:
            own = [(r, c) for r, c in answers if r.payload.task == task]
            replies = [(r, c) for r, c in own if not respond(self.caller.backend.model, r, c)]
            each = len(own) / len(replies) if replies else 1.0  # calls for one reply
            if not self.config.target:
                for name in figures:
                    figures[name] += self.new[task] * scale * each
                continue
            limit = self.posed[task] * scale * effort(self.config).attempts
            for name, wanted in self._wanted(replies, limit).items():
                figures[name] += wanted * each
        return {name: round(value) for name, value in figures.items()}

    def verified(self, answers: Sequence[tuple[Request, Completion]]) -> dict[str, float]:
        """Return the calls of the verifying model; with a target, those about as many as are wanted."""
        figures = {"expected": 0.0, "low": 0.0, "high": 0.0}
        scale = len(self.passages) / self.looked
        for task in self.how.tasks:
            checks = sum(
                applies(c, Example("", task, "a passage", "", "")) for c in self.config.verify.checks
            )
            own = [(r, c) for r, c in answers if r.payload.task == task]
            good = sum(_accepted(self.caller.backend.model, r, c) for r, c in own)
            low, high = _wilson(good, len(own))
            shares = {"expected": good / len(own) if own else (low + high) / 2, "low": low, "high": high}
            for name, share in shares.items():
                examples = self.config.target or self.posed[task] * scale * share
                figures[name] += checks * examples
        return {name: round(value) for name, value in figures.items()}

    def _wanted(self, own: Sequence[tuple[Request, Completion]], limit: float) -> dict[str, float]:
        identity = self.caller.backend.model
        good = sum(_accepted(identity, r, c) for r, c in own)
        low, high = _wilson(good, len(own))
        middle = good / len(own) if good else (low + high) / 2
        shares = {"expected": middle, "low": high, "high": low}
        return {n: min(limit, self.config.target / s) if s else limit for n, s in shares.items()}


def _answered(caller: Caller, sample: Sequence[Request]) -> Iterator[tuple[Request, Completion]]:
    """Yield all calls that the sample takes, second stages too."""
    waiting = list(sample)
    while waiting:
        done = [(r, c) for r, c in caller.answers(waiting) if c.finish != "error"]
        yield from done
        waiting = [s for r, c in done if (s := respond(caller.backend.model, r, c)) is not None]


def _accepted(identity: str, asked: Request, completion: Completion) -> bool:
    return any(isinstance(e, Example) and check(e) is None for e in examples(identity, asked, completion))


def _wilson(good: int, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a share (Wilson 1927)."""
    if not n:
        return 0.0, 1.0
    z, p = 1.96, good / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * ((p * (1 - p) + z * z / (4 * n)) / n) ** 0.5 / (1 + z * z / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def totals(
    calls: dict[str, float], answers: Sequence[Completion], seconds: float, price: Price | None
) -> dict[str, Any]:
    """Return tokens, cost and seconds of the whole run from the mean of the sample and its error."""
    prompt = _mean([c.prompt_tokens for c in answers])
    completion = _mean([c.completion_tokens for c in answers])
    found: dict[str, Any] = {
        "prompt_tokens": _times(calls, prompt),
        "completion_tokens": _times(calls, completion),
        "cost": None,
        "seconds": None,
    }
    if price is not None:
        each = _mean([price.cost(c.prompt_tokens, c.completion_tokens) for c in answers])
        found["cost"] = _times(calls, each, digits=4)
    if seconds and answers:
        # The sample runs at once, so this is a rate, not a latency; it has no interval of its own.
        found["seconds"] = {k: round(v * seconds / len(answers), 1) for k, v in calls.items()}
    return found


def _mean(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and 1.96 standard errors of it."""
    if len(values) < 2:
        return (float(values[0]) if values else 0.0), 0.0
    return statistics.fmean(values), 1.96 * statistics.stdev(values) / len(values) ** 0.5


def _times(calls: dict[str, float], mean: tuple[float, float], digits: int = 0) -> dict[str, float]:
    middle, half = mean
    return {
        "expected": round(calls["expected"] * middle, digits),
        "low": round(calls["low"] * max(0.0, middle - half), digits),
        "high": round(calls["high"] * (middle + half), digits),
    }
