"""The stages of a journey, each from files to files: skipped when nothing it depends on has changed."""

from __future__ import annotations

import json
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from taskmill import backends, frame
from taskmill.backends import ModelConfig
from taskmill.budget import Budget, BudgetConfig, load_price
from taskmill.caller import Caller
from taskmill.calls import Request
from taskmill.config import to_mapping
from taskmill.curate.checks import Settle, check, judge
from taskmill.errors import InputError
from taskmill.ingest import IngestConfig, fingerprint, read_sources
from taskmill.ledger import Ledger
from taskmill.recipes.evaluation_sets import HeldOut
from taskmill.recipes.session import Progress, Session
from taskmill.record import (
    DOCUMENT_SCHEMA,
    EXAMPLE_SCHEMA,
    VERDICT_SCHEMA,
    Document,
    Dropped,
    Example,
    Reason,
    content_id,
    documents,
    dropped_schema,
)
from taskmill.store import Run, StageWriter, code_version, parts, read_json
from taskmill.synthesize.bonito import Synthesis, examples, pose, requests, respond
from taskmill.synthesize.plan import Passages, TargetPlan

__all__ = ["INVISIBLE", "Effort", "ModelAccess", "curate", "ingest", "settle", "stage_key", "synthesize"]

DOCUMENT_KEYS = ("id", "source.uri", "source.start")
EXAMPLE_KEYS = ("id", "origin.call")

_BATCH = 512
_TICK = 0.2

INVISIBLE = ("base_url", "concurrency", "timeout", "retries", "api_key_env", "answers_as")
"""Keys of the model's configuration that do not change what it answers."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How many requests: `target` accepted per task type, or `per_passage` requests if it is 0."""

    target: int = 0
    per_passage: int = 1
    attempts: int = 8
    min_yield: float = 0.02


@dataclass(frozen=True, slots=True)
class ModelAccess:
    """Which model, within which limits, recorded in which ledger (the run's own if empty).

    `home` is the run that pays, if it is not the session's own.
    """

    model: ModelConfig
    budget: BudgetConfig
    ledger: str = ""
    home: Run | None = None

    def open(self, session: Session, *, writes: bool = True) -> Caller:
        """Load the model and the ledger; the budget starts from what the run has spent.

        `writes` says that the model writes the examples: the manifest then names it and its licence.
        """
        session.progress(Progress("load model"))
        backend = backends.load(self.model)
        if writes:
            session.manifest["model"].update(
                identity=backend.model,
                batch_invariant=backend.batch_invariant,
                licence=getattr(backend, "licence", ""),
            )
        home = self.home or session.run
        ledger = Ledger(self.ledger or home.path / "ledger", home.id, outbox=home.path / "ledger")
        budget = Budget(
            self.budget,
            price=load_price(self.budget.prices, self.model.ref),
            calls=ledger.spent_calls,
            prompt_tokens=ledger.spent_prompt,
            completion_tokens=ledger.spent_completion,
            elapsed=session.elapsed,
        )
        return Caller(backend, ledger, budget)


def stage_key(*dependencies: Any) -> str:
    """Return the key of a stage: a hash of the code and of everything its result depends on."""
    texts = (json.dumps(d, sort_keys=True, default=str) for d in dependencies)
    return content_id(code_version(), *texts)


# ingest


def ingest(session: Session, sources: Sequence[str], config: IngestConfig) -> str:
    """Read the sources into distinct documents sorted by id; return the digest of what was kept.

    Raises InputError if no text was read at all.
    """
    folder = session.run.stage(1, "ingest")
    key = stage_key("ingest", to_mapping(config), list(sources), fingerprint(sources))
    marker = session.run.finished(folder, key)
    if marker is None:
        session.run.begin(folder)
        writer = StageWriter(folder, DOCUMENT_SCHEMA, DOCUMENT_KEYS)
        for batch in _batches(read_sources(sources, config)):
            lost = [item for item in batch if isinstance(item, Dropped)]
            writer.count(len(batch))
            writer.keep([item for item in batch if isinstance(item, Document)])
            writer.drop(lost)
            session.tick(
                Progress("ingest", writer.counted, None, writer.counted - sum(writer.reasons.values()))
            )
        marker = writer.finish(key, _Distinct(writer))
    funnel = session.manifest["funnel"]["ingest"] = marker["funnel"]
    if not funnel["kept"]:
        found = ", ".join(f"{n} {reason}" for reason, n in funnel["dropped"].items()) or "nothing was found"
        raise InputError(f"no text was read from {', '.join(sources)} ({found}); see {folder / 'dropped'}")
    return str(marker["digest"])


def _batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


class _Distinct:
    """Moves all but the first of equal documents to the dropped rows; sees them sorted by id."""

    def __init__(self, writer: StageWriter) -> None:
        self.writer = writer

    def __call__(self, table: pa.Table) -> pa.Table:
        ids = table["id"].to_pylist()
        first = pa.array([i == 0 or ids[i] != ids[i - 1] for i in range(len(ids))], pa.bool_())
        twice = table.filter(pa.compute.invert(first))
        if not twice.num_rows:
            return table
        rows = twice.num_rows
        columns = {
            "filter": ["duplicate"] * rows,
            "reason": [str(Reason.DUPLICATE)] * rows,
            "detail": ["equal text is kept from another place"] * rows,
            "score": [None] * rows,
        }
        schema = dropped_schema(table.schema)
        for name, values in columns.items():
            twice = twice.append_column(schema.field(name), pa.array(values, schema.field(name).type))
        self.writer.drop_table(twice)
        return table.filter(first)


# synthesize


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
        stream = _with(again, self._asked(posed))
        while True:
            for asked, completion in self.caller.answers(stream):
                self.requests[asked.payload.task] += 1
                if completion.finish == "error":
                    self.errors[completion.error] += 1
                second = respond(model, asked, completion)
                if second is not None:
                    again.append(second)
                    continue
                self._take(list(examples(model, asked, completion)), asked.payload.task)
            if not again or self.caller.stopped:
                break
            stream = _with(again, iter(()))
        if self.caller.stopped:
            # The request at which the budget said no was posed and never made, and so were second calls.
            self.writer.count(-1 - len(again))

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


def _with(again: deque[Request], posed: Iterator[Request]) -> Iterator[Request]:
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


# curate


def curate(session: Session, synthesized: str, target: int, held: HeldOut) -> str:
    """Apply the task types' checks, drop what holds an item of `held`, exact duplicates and what is over the
    target; return the digest.
    """
    source = session.run.stage(2, "synthesize")
    folder = session.run.stage(3, "curate")
    key = stage_key("curate", synthesized, target, held.key)
    marker = session.run.finished(folder, key)
    if marker is None:
        marker = settle(session, source, folder, key, held, target)
    session.manifest["funnel"]["curate"] = marker["funnel"]
    for task, entry in session.manifest["tasks"].items():
        entry["accepted"] = marker["accepted"].get(task, 0)
        entry["dropped"] = dict(Counter(entry["dropped"]) + Counter(marker["reasons"].get(task, {})))
    session.manifest["licences"] = marker["licences"]
    return str(marker["digest"])


def settle(
    session: Session, source: Any, folder: Any, key: str, held: HeldOut, target: int = 0
) -> dict[str, Any]:
    """Check the examples a stage kept, drop what holds an item of `held`, duplicates and what is over the
    target; return the marker.
    """
    session.run.begin(folder)
    writer = StageWriter(folder, EXAMPLE_SCHEMA, EXAMPLE_KEYS)
    settled = Settle(target)
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    licences: Counter[str] = Counter()
    total = read_json(source / "stage.json")["funnel"]["kept"]
    judged = frame.map_batches(parts(source / "kept"), EXAMPLE_SCHEMA, judge, VERDICT_SCHEMA)
    with closing(judged):
        for rows, verdicts in judged:
            kept, lost = settled.split(rows, held.judge(rows, verdicts))
            writer.count(rows.num_rows)
            writer.kept.add_table(kept)
            writer.drop_table(lost)
            for task, reason in zip(lost["task"].to_pylist(), lost["reason"].to_pylist(), strict=True):
                reasons[task][reason] += 1
            licences.update(pa.compute.struct_field(kept["source"], "licence").to_pylist())
            session.tick(Progress("curate", writer.counted, total, sum(settled.accepted.values())))
    return writer.finish(
        key,
        accepted=dict(settled.accepted),
        reasons={task: dict(sorted(c.items())) for task, c in sorted(reasons.items())},
        licences=dict(sorted(licences.items())),
    )
