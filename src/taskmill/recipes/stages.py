"""The stages of a journey that read and judge, from files to files: skipped when nothing has changed.

What asks the model is in `recipes.synthesis` and `recipes.verify`.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from taskmill import backends, frame
from taskmill.backends import ModelConfig
from taskmill.budget import Budget, BudgetConfig, load_price
from taskmill.caller import Caller
from taskmill.config import to_mapping
from taskmill.curate.checks import Settle, judge
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
    Reason,
    content_id,
    dropped_schema,
)
from taskmill.store import Run, StageWriter, code_version, parts, read_json

__all__ = ["INVISIBLE", "ModelAccess", "curate", "ingest", "settle", "stage_key"]

DOCUMENT_KEYS = ("id", "source.uri", "source.start")
EXAMPLE_KEYS = ("id", "origin.call")

_BATCH = 512

INVISIBLE = ("base_url", "concurrency", "timeout", "retries", "api_key_env", "answers_as")
"""Keys of the model's configuration that do not change what it answers."""


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
