"""The stage that asks the model: documents → requests → drafts, for each passage or until a target is met."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from taskmill import frame
from taskmill.caller import Caller
from taskmill.calls import Completion, Request
from taskmill.config import to_mapping
from taskmill.curate.checks import check
from taskmill.recipes.evaluation_sets import HeldOut
from taskmill.recipes.session import Progress, Session
from taskmill.recipes.stages import EXAMPLE_KEYS, INVISIBLE, ModelAccess, stage_key
from taskmill.record import DOCUMENT_SCHEMA, EXAMPLE_SCHEMA, Dropped, Example, documents
from taskmill.store import StageWriter, parts
from taskmill.synthesize.bonito import Synthesis, examples, pose, requests, respond
from taskmill.synthesize.plan import Passages, TargetPlan

__all__ = ["Effort", "answered", "synthesize"]


@dataclass(frozen=True, slots=True)
class Effort:
    """How many requests: `target` accepted per task type, or `per_passage` requests if it is 0."""

    target: int = 0
    per_passage: int = 1
    attempts: int = 8
    min_yield: float = 0.02


def synthesize(
    session: Session, ingested: str, how: Synthesis, effort: Effort, access: ModelAccess, held: HeldOut
) -> str:
    """Ask the model about every passage, or until each task type has its target; return the digest of
    the drafts. With a target, what holds an item of `held` does not count.

    A stage that a budget cut short, or in which calls failed, is not marked finished: the same
    command takes it up again and pays only for what is missing.
    """
    folder = session.run.stage(2, "synthesize")
    model = {k: v for k, v in to_mapping(access.model).items() if k not in INVISIBLE}
    counted = held.key if effort.target else {}
    key = stage_key("synthesize", ingested, to_mapping(how), to_mapping(effort), model, counted)
    marker = session.run.finished(folder, key)
    if marker is None:
        marker = _synthesize(session, folder, key, how, effort, access, held)
    else:
        calls = marker["calls"]
        session.manifest["calls"] = {**calls, "made": 0, "reused": calls["made"] + calls["reused"]}
    for name in ("tokens", "cost", "model", "tasks", "stopped", "errors"):
        session.manifest[name] = marker[name]
    session.manifest["funnel"]["synthesize"] = marker["funnel"]
    return str(marker["digest"])


def _synthesize(
    session: Session,
    folder: Any,
    key: str,
    how: Synthesis,
    effort: Effort,
    access: ModelAccess,
    held: HeldOut,
) -> dict[str, Any]:
    source = parts(session.run.stage(1, "ingest") / "kept")
    caller = access.open(session)
    with caller.ledger:
        session.run.begin(folder)
        writer = StageWriter(folder, EXAMPLE_SCHEMA, EXAMPLE_KEYS)
        work = _Work(session, caller, writer, how, held)
        if effort.target:
            work.until(effort, Passages(source, how.seed))
        else:
            work.all(source, session.manifest["funnel"]["ingest"]["kept"], effort.per_passage)
        caller.ledger.sync()
        session.book(caller)
        whole = not caller.stopped and (not caller.failed or work.complete())
        extra = {name: session.manifest[name] for name in ("calls", "tokens", "cost", "model")}
        return writer.finish(
            key if whole else f"unfinished {key}",
            tasks=work.table(effort.target),
            stopped=caller.budget.reason if caller.stopped else "",
            errors=dict(work.errors.most_common(3)),
            **extra,
        )


class _Work:
    """Carries requests to the model and the outcomes to the stage's writer, counted per task type."""

    def __init__(
        self, session: Session, caller: Caller, writer: StageWriter, how: Synthesis, held: HeldOut
    ) -> None:
        self.session, self.caller, self.writer, self.how, self.held = session, caller, writer, how, held
        self.requests: Counter[str] = Counter()
        self.drafts: Counter[str] = Counter()
        self.dropped: dict[str, Counter[str]] = defaultdict(Counter)
        self.errors: Counter[str] = Counter()
        self.plan: TargetPlan | None = None
        self.done = 0
        self.total: int | None = None

    def all(self, source: Sequence[Any], passages: int, samples: int) -> None:
        """Make `samples` requests for each passage and task type."""
        self.total = passages * len(self.how.tasks) * samples
        with closing(frame.scan(source, DOCUMENT_SCHEMA)) as tables:
            texts = (d for table in tables for d in documents(table))
            self._run(requests(self.how, self.caller.backend.model, texts, samples))

    def until(self, effort: Effort, passages: Passages) -> None:
        """Make requests in waves until each task type has its target or cannot reach it."""
        plan = self.plan = TargetPlan(
            self.how.tasks, len(passages), effort.target, attempts=effort.attempts, min_yield=effort.min_yield
        )
        model = self.caller.backend.model
        while wave := list(plan.wave()):
            self.total = self.done + len(wave)
            self._run(pose(self.how, model, passages[i], task, sample) for i, task, sample in wave)
            if self.caller.stopped:
                return

    def _run(self, posed: Iterable[Request | Dropped]) -> None:
        model = self.caller.backend.model
        again: deque[Request] = deque()
        for asked, completion in answered(self.caller, self.writer, self.errors, self._asked(posed), again):
            self.requests[asked.payload.task] += 1
            second = respond(model, asked, completion)
            if second is not None:
                again.append(second)
                continue
            self._take(list(examples(model, asked, completion)), asked.payload.task)

    def _asked(self, posed: Iterable[Request | Dropped]) -> Iterator[Request]:
        for item in posed:
            self.writer.count(1)
            if isinstance(item, Dropped):
                self._take([item], item.row.task)  # type: ignore[union-attr]
            else:
                yield item

    def _take(self, outcomes: list[Example | Dropped], task: str) -> None:
        """Store the outcomes of one candidate; with a target, see whether its examples are acceptable."""
        kept = [o for o in outcomes if isinstance(o, Example)]
        lost = [o for o in outcomes if isinstance(o, Dropped)]
        self.writer.count(len(outcomes) - 1)  # one was counted when the request was posed
        self.writer.keep(kept)
        self.writer.drop(lost)
        self.drafts[task] += len(kept)
        self.dropped[task].update(str(o.reason) for o in lost)
        self.done += 1
        if self.plan is not None:
            self.plan.candidate(task)
            for example in kept:
                if check(example) is None and self.held.match(example) is None:
                    self.plan.accept(task, example.id)
        self.session.tick(self._progress)

    def _progress(self) -> Progress:
        caller, budget = self.caller, self.caller.budget
        self.session.book(caller)
        accepted = sum(self.drafts.values())
        if self.plan is not None:
            accepted = sum(self.plan.accepted(t) for t in self.how.tasks)
        return Progress(
            "synthesize",
            self.done,
            self.total,
            accepted,
            sum(sum(c.values()) for c in self.dropped.values()),
            caller.made,
            caller.reused,
            budget.prompt_tokens + budget.completion_tokens,
            budget.cost,
        )

    def complete(self) -> bool:
        """Say whether there is a target and every task type has it."""
        return self.plan is not None and not any(self.plan.shortfall(t) for t in self.how.tasks)

    def table(self, target: int) -> dict[str, Any]:
        """Return the funnel per task type as far as this stage knows it."""
        return {
            task: {
                "asked": target or None,
                "requests": self.requests[task],
                "drafts": self.drafts[task],
                "dropped": dict(sorted(self.dropped[task].items())),
                "shortfall": self.plan.shortfall(task) if self.plan else None,
            }
            for task in self.how.tasks
        }


def answered(
    caller: Caller, writer: StageWriter, errors: Counter[str], first: Iterator[Request], again: deque[Request]
) -> Iterator[tuple[Request, Completion]]:
    """Yield the answers to `first` calls, and to those that are put into `again` while answers come in.

    Messages of failed calls are counted in `errors`; what a budget left unasked is taken off the writer.
    """
    stream = _with_again(again, first)
    while True:
        for asked, completion in caller.answers(stream):
            if completion.finish == "error":
                errors[completion.error] += 1
            yield asked, completion
        if not again or caller.stopped:
            break
        stream = _with_again(again, iter(()))
    if caller.stopped:
        # The request at which the budget said no was posed and never made, and so were those that waited.
        writer.count(-1 - len(again))


def _with_again(again: deque[Request], posed: Iterator[Request]) -> Iterator[Request]:
    """Yield second calls as they come up, before the next first ones: their prefix is still in the cache.

    A first one is posed only when it is yielded: where the stream breaks off, none was posed for nothing.
    """
    while True:
        while again:
            yield again.popleft()
        request = next(posed, None)
        if request is None:
            return
        yield request
