"""What a run would cost: a few real calls, extrapolated with an interval.

The calls are recorded in the run's ledger, so the run that follows does not pay for them again.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from taskmill import backends
from taskmill.budget import Price, load_price
from taskmill.calls import Completion, Request
from taskmill.config import to_mapping
from taskmill.curate.checks import check
from taskmill.recipes import stages
from taskmill.recipes.session import OnProgress, Session
from taskmill.recipes.synth import FREE, SynthConfig, effort, how, model, validate
from taskmill.record import Example
from taskmill.store import Run, parts
from taskmill.synthesize.bonito import examples, pose
from taskmill.synthesize.plan import Passages

__all__ = ["estimate"]

ROWS = 20
"""Calls made for an estimate."""


def estimate(
    config: SynthConfig, out: str | Path, *, update: bool = False, on_progress: OnProgress | None = None
) -> dict[str, Any]:
    """Make up to 20 calls of the run and return what all of it would take.

    Each figure is {"expected", "low", "high"}, a 95 % interval: of the mean over the sample
    (normal), and with a target also of the accepted share per task type (Wilson). `cost` is None
    without a price table.
    """
    validate(config)
    with Run(Path(out)) as run:
        before = run.manifest()
        session = Session.open(run, to_mapping(config), free=FREE, update=update, report=on_progress)
        session.manifest["model"] = {"ref": config.model.ref, "protocol": backends.protocol_of(config.model)}
        stages.ingest(session, config.sources, config.ingest)
        passages = Passages(parts(run.stage(1, "ingest") / "kept"), config.seed)
        caller = model(config).open(session)
        with caller.ledger:
            asked = _sample(config, caller.backend.model, passages)
            started = time.monotonic()
            answers = [(r, c) for r, c in caller.answers(asked) if c.finish != "error"]
            seconds = time.monotonic() - started
            session.book(caller)
        calls = _calls(config, passages, caller.backend.model, answers)
        session.end(0, "estimated; nothing was kept but the calls in the ledger")
        if before.get("status") in ("done", "short"):
            run.write_manifest(before)  # an estimate says nothing about what the folder already holds
    price = load_price(config.budget.prices, config.model.ref)
    return {"sample": len(answers), "made": caller.made, "failed": caller.failed, "calls": calls} | _totals(
        calls, [c for _, c in answers], seconds if caller.made else 0.0, price
    )


def _sample(config: SynthConfig, identity: str, passages: Passages) -> list[Request]:
    """Return the first requests of the run, task types in turn."""
    plan = how(config)
    found: list[Request] = []
    for i in range(min(len(passages), ROWS * 4)):
        for task in plan.tasks:
            asked = pose(plan, identity, passages[i], task, 0)
            if isinstance(asked, Request) and len(found) < ROWS:
                found.append(asked)
    return found


def _calls(
    config: SynthConfig, passages: Passages, identity: str, answers: Sequence[tuple[Request, Completion]]
) -> dict[str, float]:
    """Return the number of calls: exact without a target, else from the accepted share so far."""
    tasks = how(config).tasks
    if not config.target:
        total = float(len(passages) * len(tasks) * config.per_passage)
        return {"expected": total, "low": total, "high": total}
    limit = len(passages) * effort(config).attempts
    figures = {"expected": 0.0, "low": 0.0, "high": 0.0}
    for task in tasks:
        own = [(r, c) for r, c in answers if r.payload.task == task]
        good = sum(
            any(isinstance(e, Example) and check(e) is None for e in examples(identity, r, c)) for r, c in own
        )
        low, high = _wilson(good, len(own))
        middle = good / len(own) if good else (low + high) / 2
        for name, share in (("expected", middle), ("low", high), ("high", low)):
            figures[name] += min(limit, config.target / share) if share else limit
    return {name: round(value) for name, value in figures.items()}


def _wilson(good: int, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a share (Wilson 1927)."""
    if not n:
        return 0.0, 1.0
    z, p = 1.96, good / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * ((p * (1 - p) + z * z / (4 * n)) / n) ** 0.5 / (1 + z * z / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def _totals(
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
