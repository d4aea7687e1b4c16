"""Growth: datasets are added to a registry, changed and taken out; each time there is a new version.

Adding costs what the added datasets cost: nothing of the others is read or written. A dataset is one
configuration (`name` or `name:config`); its content and the way its tasks are made have a hash, and while
that is the same, adding it again changes nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from taskmill.budget import BudgetConfig
from taskmill.config import to_mapping
from taskmill.errors import ConfigError, GateClosed, UsageError
from taskmill.grow.registry import Draft, Registry, Version, difference
from taskmill.ids import content_id
from taskmill.recipes.propose import RULES, ProposeConfig, TaskModel, gather, proposed, validate
from taskmill.recipes.session import OnProgress, Progress, Session, ignore
from taskmill.recipes.stages import INVISIBLE
from taskmill.recipes.tables import read_table
from taskmill.recipes.task_filters import Filters, decide
from taskmill.recipes.task_instances import write_examples
from taskmill.record import DatasetMeta, Dropped
from taskmill.store import Run, read_json, write_parquet
from taskmill.synthesize.field_rules import propose_by_rule
from taskmill.synthesize.instances import BUDGET, instruction_of
from taskmill.synthesize.proposals import Proposal

__all__ = ["AddConfig", "ChooseConfig", "add", "choose", "diff", "listing", "remove"]

FORMAT = "1"
"""Enters the hash of how tasks are made; raised when equal sources and settings make other rows."""


@dataclass(frozen=True, slots=True)
class AddConfig:
    """Datasets in, the registry's next version out."""

    sources: tuple[str, ...] = field(
        default=(),
        metadata={"help": "dataset folders, table files, CATALOG.json, duckdb:FILE#table, hf:owner/name"},
    )
    registry: str = field(
        default="", metadata={"help": "folder of the registry; it is made if it is not there"}
    )
    instances: int = field(
        default=0, metadata={"help": "rows of a task, drawn from those of its dataset; 0: all of them"}
    )
    input_tokens: int = field(default=BUDGET, metadata={"help": "most tokens of a row's input"})
    licence: str = field(default="", metadata={"help": "licence of the sources that name none"})
    seed: int = field(default=0, metadata={"help": "decides everything that is left to chance"})
    modes: tuple[str, ...] = field(
        default=("aware", "unaware"),
        metadata={"help": "what a model is shown: aware, with the dataset's summary; unaware, without it"},
    )
    tasks: int = field(default=3, metadata={"help": "tasks asked for in one call"})
    rules: bool = field(default=True, metadata={"help": "with a model: also what the rules propose"})
    filters: Filters = field(default_factory=Filters)
    model: TaskModel = field(default_factory=TaskModel)
    budget: BudgetConfig = field(default_factory=BudgetConfig)

    def __post_init__(self) -> None:
        if not self.registry:
            raise UsageError("no registry is given; name its folder with --registry DIR")
        if self.filters.family_cap:
            raise ConfigError(
                "family_cap looks at a whole collection, and adding only at what is new; "
                "cap families when you use a version: taskmill dedup, or caps in a mixture"
            )

    def made(self, meta: DatasetMeta) -> str:
        """Return the hash of a dataset's content and of all that decides which rows are made of it."""
        settings = to_mapping(self)
        for name in ("sources", "registry", "budget"):
            settings.pop(name)
        settings["model"] = {k: v for k, v in settings["model"].items() if k not in INVISIBLE}
        return content_id(FORMAT, meta.digest, meta.licence, json.dumps(settings, sort_keys=True))


def add(config: AddConfig, on_progress: OnProgress | None = None) -> dict[str, Any]:
    """Add datasets, or bring them up to date, and return what changed.

    A source whose datasets are there as they are changes nothing, and no version is made. Model calls are in
    REGISTRY/ledger as soon as they are finished: a killed command repeats none. Raises InputError if nothing
    can be read, GateClosed if a budget was reached before all tasks were proposed.
    """
    report = on_progress or ignore
    if not config.sources:
        raise UsageError("no source is given; name a dataset's folder, a table file or hf:owner/name")
    registry = Registry(config.registry)
    with registry.changing() as parent:
        report(Progress("describe"))
        metas, unread = gather(config.sources, config.licence)
        fresh = {
            key: meta for key, meta in sorted(metas.items()) if not _there(parent, key, config.made(meta))
        }
        tasks = _tasks(config, fresh, on_progress) if fresh else {}
        drafts: dict[str, Draft | None] = {}
        why: dict[str, str] = {}
        for done, (key, meta) in enumerate(fresh.items()):
            report(Progress("add", done, len(fresh), note=key))
            drafts[key] = _draft(registry, config, meta, *tasks[key])
            why[key] = _why(parent, key, meta)
        version = registry.commit(parent, drafts, why) if drafts else parent
        return _said(version, parent, registry) | {
            "unchanged": sorted(set(metas) - set(version.changes if version is not parent else ())),
            "unread": unread,
            "dropped": _reasons(version, fresh),
            "empty": {
                key: _why_empty(version, key) for key in sorted(metas) if not version.datasets[key].rows
            },
        }


def _there(version: Version, key: str, made: str) -> bool:
    return key in version.datasets and version.datasets[key].made == made


def _why(parent: Version, key: str, meta: DatasetMeta) -> str:
    before = parent.datasets.get(key)
    if before is None:
        return f"added from {meta.uri or key}"
    if before.digest == meta.digest:
        return "its tasks are made in another way"
    old = str(parent.record(key)["meta"]["uri"])
    # Another file of the same name may be another dataset: whoever reads the diff has to see it.
    return "its source changed" if old == meta.uri else f"its source changed: {old} before, {meta.uri} now"


def _tasks(
    config: AddConfig, metas: Mapping[str, DatasetMeta], on_progress: OnProgress | None
) -> dict[str, tuple[list[Proposal], list[dict[str, str]]]]:
    """Return for each dataset its tasks, and what was proposed and dropped.

    Datasets are looked at one by one: what a dataset gives depends on no other one.
    """
    own: dict[str, list[Proposal | Dropped]] = {key: [] for key in metas}
    for one in _proposed(config, metas, on_progress):
        row: Any = one.row if isinstance(one, Dropped) else one
        own[row.key].append(one)
    found = {}
    for key, meta in metas.items():
        kept, lost, _ = decide(own[key], {key: meta}, config.filters, seed=config.seed)
        found[key] = kept, [_lost(drop) for drop in lost]
    return found


def _proposed(
    config: AddConfig, metas: Mapping[str, DatasetMeta], on_progress: OnProgress | None
) -> list[Proposal | Dropped]:
    """Return what the rules propose or, as `grow propose`, what a model does, with the registry's ledger."""
    if config.model.ref == RULES:
        return [proposal for meta in metas.values() for proposal in propose_by_rule(meta)]
    home = Path(config.registry)
    asked = ProposeConfig(
        sources=config.sources, modes=config.modes, tasks=config.tasks, rules=config.rules, seed=config.seed,
        licence=config.licence, ledger=str(home / "ledger"), filters=config.filters, model=config.model,
        budget=config.budget,
    )  # fmt: skip
    validate(asked)
    with Run(home / ".work" / "propose") as run:
        session = Session.open(run, to_mapping(asked), free=(), update=True, report=on_progress)
        session.manifest["model"] = {"ref": config.model.ref}
        made, stopped = proposed(session, asked, metas)
    if stopped:
        raise GateClosed(f"budget reached: {stopped}; raise it and run the same command to continue")
    return made


def _lost(drop: Dropped) -> dict[str, str]:
    row: Any = drop.row
    said = {"task_name": row.task_name, "instruction": row.instruction}
    return {**said, "reason": str(drop.reason), "detail": drop.detail}


def _draft(
    registry: Registry,
    config: AddConfig,
    meta: DatasetMeta,
    tasks: Sequence[Proposal],
    lost: Sequence[Mapping[str, str]],
) -> Draft:
    """Write a dataset's rows, and return its new state."""
    writer = registry.writer(meta.key)
    counts = write_examples(
        writer, meta, tasks, limit=config.instances, budget=config.input_tokens, seed=config.seed
    )
    listed = [
        {
            "id": task.id,
            "task_name": task.task_name,
            "instruction": instruction_of(task),
            "input_fields": list(task.input_fields),
            "output_field": task.output_field,
            "labels": list(task.labels),
            "mode": task.mode,
            "model": task.model,
            "rows": counts[task.id],
        }
        for task in sorted(tasks, key=lambda t: t.id)
    ]
    described = to_mapping(meta)
    described["fields"] = [to_mapping(one) for one in meta.fields]
    record = {
        "meta": described,
        "tasks": listed,
        "dropped_tasks": sorted(lost, key=lambda row: sorted(row.items())),
        "funnel": read_json(writer.folder / "stage.json")["funnel"],
    }
    return Draft(meta.digest, config.made(meta), counts, record, writer.folder, meta.licence)


def _reasons(version: Version, keys: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Return, of the datasets that are new, the dropped tasks and rows by reason."""
    found: dict[str, Counter[str]] = {"tasks": Counter(), "rows": Counter()}
    for key in keys:
        if key in version.datasets:
            record = version.record(key)
            found["tasks"].update(row["reason"] for row in record["dropped_tasks"])
            found["rows"].update(record["funnel"]["dropped"])
    return {name: dict(sorted(counts.items())) for name, counts in found.items()}


def _why_empty(version: Version, key: str) -> str:
    """Return why a dataset gave no rows."""
    record = version.record(key)
    if not record["meta"]["rows"]:
        return "there are no rows in it"
    if record["tasks"]:
        return f"its rows were dropped: {_counted(record['funnel']['dropped'])}"
    if record["dropped_tasks"]:
        reasons = Counter(row["reason"] for row in record["dropped_tasks"])
        return f"its tasks were dropped: {_counted(reasons)}"
    return "no field is fit to be an answer; rename fields (question, answer, label …) or name its classes"


def _counted(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name.replace('_', '-')}" for name, count in sorted(reasons.items()))


def _said(version: Version, parent: Version, registry: Registry) -> dict[str, Any]:
    changed = version is not parent
    return {
        "registry": str(registry.path),
        "version": version.number,
        "made": changed,
        "folder": str(version.folder),
        "datasets": len(version.datasets),
        "tasks": sum(len(entry.tasks) for entry in version.datasets.values()),
        "rows": version.rows,
        "changes": dict(version.changes) if changed else {},
    }


def remove(registry: str, names: Sequence[str], why: str = "") -> dict[str, Any]:
    """Take datasets out, all their rows with them, and return what changed.

    A name without a configuration takes all configurations. Raises UsageError for one that is not there.
    """
    found = Registry(registry).existing()
    with found.changing() as parent:
        keys = sorted({key for name in names for key in parent.named(name)})
        if not keys:
            raise UsageError("no dataset is given; name one or more, as taskmill grow list shows them")
        changes: dict[str, Draft | None] = dict.fromkeys(keys)
        reasons = dict.fromkeys(keys, f"removed: {why}" if why else "removed")
        version = found.commit(parent, changes, reasons)
        return _said(version, parent, found)


def diff(registry: str, old: int | None = None, new: int | None = None) -> dict[str, Any]:
    """Return what changed between two versions: rows and tasks added and removed, by dataset, and why.

    By default `new` is the last version and `old` the one before it (0, which is empty, before the first).
    """
    found = Registry(registry).existing()
    last = found.version(new).number
    before = [number for number in found.numbers() if number < last]
    return difference(found, (before or [0])[-1] if old is None else old, last)


def listing(registry: str, number: int | None = None) -> dict[str, Any]:
    """Return a version's datasets with their tasks and rows, and the versions there are."""
    found = Registry(registry).existing()
    version = found.version(number)
    return {
        "registry": str(found.path),
        "version": version.number,
        "folder": str(version.folder),
        "rows": version.rows,
        "datasets": {
            name: {
                "rows": entry.rows,
                "tasks": len(entry.tasks),
                "licence": entry.licence,
                "digest": entry.digest,
                **({} if entry.rows else {"empty": _why_empty(version, name)}),
            }
            for name, entry in version.datasets.items()
        },
        "versions": [
            {
                "version": n,
                "rows": one.rows,
                "datasets": len(one.datasets),
                "changed": {name: change["change"] for name, change in one.changes.items()},
            }
            for n, one in ((n, found.version(n)) for n in found.numbers())
        ],
    }


@dataclass(frozen=True, slots=True)
class ChooseConfig:
    """A version and what was chosen of an earlier one in, the choice that goes on from it out."""

    registry: str = field(default="", metadata={"help": "folder of the registry"})
    version: int = field(default=0, metadata={"help": "version of the registry; 0: the last"})
    start: str = field(
        default="", metadata={"help": "the choice of an earlier version (SELECTION.parquet); none to begin"}
    )
    budget: str = field(default="", metadata={"help": "how much in all: 500 rows, 0.5% of them, or 20000tok"})
    method: str = field(default="k-center", metadata={"help": "selector, as in select"})
    embedder: str = field(default="auto", metadata={"help": "what embeds the rows, as in select"})
    seed: int = field(default=0, metadata={"help": "decides everything that is left to chance"})


def choose(config: ChooseConfig, out: str | Path, on_progress: OnProgress | None = None) -> dict[str, Any]:
    """Select rows of a version, going on from an earlier choice, and return the selection's report.

    Chosen rows that the version no longer has are left out, and their places are filled anew: `retracted`
    says how many. Raises UsageError and InputError as `select` does.
    """
    from taskmill.recipes.select import SelectConfig, select

    if not config.registry:
        raise UsageError("no registry is given; name its folder with --registry DIR")
    version = Registry(config.registry).existing().version(config.version or None)
    begin, retracted = config.start, 0
    if config.start:
        early = read_table([config.start])
        files = [part for name in version.datasets for part in version.kept(name)]
        there = pa.array(
            [i for part in files for i in pq.read_table(part, columns=["id"])["id"]], pa.string()
        )
        kept = early.filter(pc.is_in(early["id"].cast(pa.string()), there))
        retracted = len(early) - len(kept)
        begin = ""
        if len(kept):
            begin = str(Path(out).with_suffix(".start.parquet"))
            write_parquet(Path(begin), kept)
    asked = SelectConfig(
        source=str(version.folder), method=config.method, budget=config.budget, embedder=config.embedder,
        start=begin, seed=config.seed,
    )  # fmt: skip
    return {**select(asked, out, on_progress), "version": version.number, "retracted": retracted}
