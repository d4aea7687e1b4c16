"""Datasets in, tasks over their fields out (Dynosaur): metadata, proposals, filters, examples."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from taskmill.backends import GENERATORS, ModelConfig, split_reference
from taskmill.budget import BudgetConfig, load_price
from taskmill.calls import Request, Sampling
from taskmill.config import read_yaml, to_mapping
from taskmill.durable import Replacing, atomic_write
from taskmill.errors import ConfigError, InputError, UsageError
from taskmill.export.licences import is_unknown
from taskmill.export.terms import attribution
from taskmill.ingest import count_tokens
from taskmill.ingest.metadata import metadata
from taskmill.recipes.session import OnProgress, Progress, Session
from taskmill.recipes.stages import EXAMPLE_KEYS, INVISIBLE, ModelAccess, stage_key
from taskmill.recipes.synth import refuse_secrets
from taskmill.recipes.task_filters import Filters, decide, judged
from taskmill.recipes.task_instances import draw_examples
from taskmill.record import EXAMPLE_SCHEMA, DatasetMeta, Dropped
from taskmill.report.pages import Figure, Section, settings, write_page
from taskmill.store import Run, StageWriter
from taskmill.synthesize.field_rules import propose_by_rule
from taskmill.synthesize.instances import BUDGET
from taskmill.synthesize.proposals import PROPOSAL_SCHEMA, Proposal, from_row, to_row
from taskmill.synthesize.task_requests import read_reply, requests_for

__all__ = ["ProposeConfig", "TaskModel", "estimate", "gather", "propose", "proposed", "read_kept", "validate"]

RULES = "rules"
KEYS = ("id", "call")

FREE = (
    "budget.",
    "model.base_url",
    "model.concurrency",
    "model.timeout",
    "model.retries",
    "model.api_key_env",
)
"""Keys that may change when a run folder is continued."""


@dataclass(frozen=True, slots=True)
class TaskModel(ModelConfig):
    """Which model proposes tasks, and how it samples."""

    ref: str = field(
        default=RULES,
        metadata={
            "help": "rules (no model), or backend:name[@revision], e.g. openai:gpt-4.1-mini",
            "flag": "model",
        },
    )
    temperature: float = field(default=0.0, metadata={"help": "sampling temperature; 0 is greedy"})


@dataclass(frozen=True, slots=True)
class ProposeConfig:
    """Datasets in, checked tasks out."""

    sources: tuple[str, ...] = field(
        default=(),
        metadata={"help": "dataset folders, table files, CATALOG.json, duckdb:FILE#table, hf:owner/name"},
    )
    modes: tuple[str, ...] = field(
        default=("aware", "unaware"),
        metadata={"help": "what a model is shown: aware, with the dataset's summary; unaware, without it"},
    )
    tasks: int = field(default=3, metadata={"help": "tasks asked for in one call"})
    rules: bool = field(default=True, metadata={"help": "with a model: also what the rules propose"})
    instances: int = field(
        default=0, metadata={"help": "examples written for each task, drawn from its rows; 0: none"}
    )
    input_tokens: int = field(default=BUDGET, metadata={"help": "most tokens of an example's input"})
    licence: str = field(default="", metadata={"help": "licence of the sources that name none"})
    seed: int = field(default=0, metadata={"help": "the one seed of the run"})
    ledger: str = field(default="", metadata={"help": "folder or URL of a ledger shared by several runs"})
    filters: Filters = field(default_factory=Filters)
    model: TaskModel = field(default_factory=TaskModel)
    budget: BudgetConfig = field(default_factory=BudgetConfig)


def propose(
    config: ProposeConfig, out: str | Path, *, update: bool = False, on_progress: OnProgress | None = None
) -> dict[str, Any]:
    """Run the journey into the folder `out` and return its manifest.

    The same call continues a folder that was left unfinished; finished model calls are not repeated. Exit
    code 3 where no task was kept or a budget was reached. Raises UsageError before any work for a
    configuration that cannot run, InputError where no source can be read.
    """
    validate(config)
    with Run(Path(out)) as run:
        session = Session.open(run, to_mapping(config), free=FREE, update=update, report=on_progress)
        session.manifest.update(
            seed=config.seed, inputs=list(config.sources), model={"ref": config.model.ref}
        )
        try:
            _work(session, config)
        except BaseException as error:
            session.fail(error)
            raise
        session.end(*_gate(session.manifest))
        _page(run.path, session.manifest)
        return session.manifest


def validate(config: ProposeConfig) -> None:
    """Refuse what cannot work; raises UsageError and ConfigError."""
    refuse_secrets(config)
    if not config.sources:
        raise UsageError("no source is given; name a dataset's folder, a table file or hf:owner/name")
    if config.tasks < 1 or config.input_tokens < 32:
        raise ConfigError("tasks must be 1 or more and input_tokens 32 or more")
    for mode in config.modes:
        if mode not in ("aware", "unaware"):
            raise ConfigError(f"modes: {mode!r} is neither aware nor unaware")
    if config.model.ref != RULES:
        GENERATORS.get(split_reference(config.model.ref)[0])
        if load_price(config.budget.prices, config.model.ref) is None and config.budget.max_cost:
            raise ConfigError("--max-cost needs --prices FILE with the price of the model")
    elif not config.rules:
        raise ConfigError("--no-rules needs a model: --model backend:name")


def gather(sources: Sequence[str], licence: str = "") -> tuple[dict[str, DatasetMeta], list[str]]:
    """Return the records of all sources by key, and what could not be read.

    Raises InputError if nothing can be read, UsageError for two datasets of one key.
    """
    found: dict[str, DatasetMeta] = {}
    unread: list[str] = []
    for source in sources:
        try:
            described = metadata(source)
        except InputError as error:
            unread.append(str(error))
            continue
        for meta in described:
            if not meta.fields and meta.note:
                unread.append(f"{meta.key}: {meta.note}")
                continue
            if licence and is_unknown(meta.licence):
                meta = replace(meta, licence=licence)
            if meta.key in found and found[meta.key].digest != meta.digest:
                raise UsageError(
                    f"two datasets are called {meta.key!r} ({found[meta.key].uri} and {meta.uri}); "
                    "rename one of them, or put the splits of one dataset into one folder"
                )
            found[meta.key] = meta
    if not found:
        raise InputError("; ".join(unread) or "no dataset was found; check the sources")
    return found, unread


def _work(session: Session, config: ProposeConfig) -> None:
    session.progress(Progress("describe"))
    metas, unread = gather(config.sources, config.licence)
    digest = {key: meta.digest for key, meta in sorted(metas.items())}
    settings = {k: v for k, v in to_mapping(config).items() if k not in ("budget", "ledger", "instances")}
    settings["model"] = {k: v for k, v in settings["model"].items() if k not in INVISIBLE}
    folder = session.run.stage(1, "propose")
    key = stage_key("propose", settings, digest)
    marker = session.run.finished(folder, key)
    if marker is None:
        made, stopped = proposed(session, config, metas)
        session.run.begin(folder)
        marker = _store(session, config, folder, key, metas, made, stopped)
    for name in ("modes", "figures", "stopped", "licences"):
        session.manifest[name] = marker[name]
    session.manifest["funnel"]["propose"] = marker["funnel"]
    session.manifest["datasets"] = {"read": len(metas), "unread": unread}
    kept = read_kept(session.run.path)
    if config.instances:
        _render(session, config, kept, metas, str(marker["digest"]))
    else:
        session.run.discard(2, "instances")


def proposed(
    session: Session, config: ProposeConfig, metas: Mapping[str, DatasetMeta]
) -> tuple[list[Proposal | Dropped], str]:
    """Return the tasks of the rules and of the model's replies, and why the budget stopped it, if it did."""
    ordered = [metas[key] for key in sorted(metas)]
    found: list[Proposal | Dropped] = []
    if config.rules:
        found += [proposal for meta in ordered for proposal in propose_by_rule(meta)]
    if config.model.ref == RULES:
        return found, ""
    caller = ModelAccess(config.model, config.budget, config.ledger).open(session)
    answers: dict[tuple[str, str], list[Proposal | Dropped]] = {}
    with caller.ledger:
        wanted = list(_requests(config, ordered, caller.backend.model))
        for asked, completion in caller.answers(iter(wanted)):
            answers[asked.key, asked.payload.meta.key] = read_reply(caller.backend.model, asked, completion)
            session.book(caller)
            session.tick(
                Progress("propose", len(answers), len(wanted), made=caller.made, reused=caller.reused)
            )
        session.book(caller)
    for asked in wanted:  # in the order of the datasets, not of arrival
        found += answers.get((asked.key, asked.payload.meta.key), [])
    return found, caller.budget.reason if caller.stopped else ""


def _requests(config: ProposeConfig, metas: Iterable[DatasetMeta], model: str) -> Iterator[Request]:
    sampling = Sampling(config.model.temperature, config.model.top_p)
    for meta in metas:
        if meta.role == "benchmark" and not config.filters.benchmarks:
            continue  # nothing is paid for what would be dropped
        yield from requests_for(
            meta, model, modes=config.modes, count=config.tasks, sampling=sampling, seed=config.seed
        )


def _store(
    session: Session,
    config: ProposeConfig,
    folder: Path,
    key: str,
    metas: Mapping[str, DatasetMeta],
    made: Sequence[Proposal | Dropped],
    stopped: str,
) -> dict[str, Any]:
    session.progress(Progress("filter", 0, len(made)))
    kept, lost, figures = decide(made, metas, config.filters, seed=config.seed)
    kept.sort(key=lambda one: (one.key, one.id, one.call))
    run = session.run.path
    _lines(run / "proposals.jsonl", (to_row(one) for one in kept))
    _lines(run / "metadata.jsonl", (to_mapping(meta) for _, meta in sorted(metas.items())))
    credit = attribution(metas.values(), Counter(one.key for one in kept))
    atomic_write(run / "attribution.json", json.dumps(credit, indent=1, ensure_ascii=False).encode())
    licences = {meta.key: judged(meta, metas, config.filters).why for meta in metas.values()}
    writer = StageWriter(folder, PROPOSAL_SCHEMA, KEYS)
    writer.count(len(made))
    writer.keep(kept)
    writer.drop(lost)
    modes = {
        mode: {
            "proposed": sum(_mode(one) == mode for one in made),
            "kept": sum(one.mode == mode for one in kept),
        }
        for mode in sorted({_mode(one) for one in made})
    }
    marked = "" if stopped else key  # a stage that the budget cut short is made again
    return writer.finish(marked, figures=figures, modes=modes, stopped=stopped, licences=licences)


def _mode(one: Proposal | Dropped) -> str:
    row: Any = one.row if isinstance(one, Dropped) else one
    return str(row.mode)


def _lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with Replacing(path) as file:
        for row in rows:
            file.write(orjson.dumps(row) + b"\n")


def read_kept(run: Path) -> list[Proposal]:
    """Return the tasks that a run kept."""
    return [from_row(orjson.loads(line)) for line in (run / "proposals.jsonl").read_bytes().splitlines()]


# examples


def _render(
    session: Session,
    config: ProposeConfig,
    kept: Sequence[Proposal],
    metas: Mapping[str, DatasetMeta],
    digest: str,
) -> None:
    folder = session.run.stage(2, "instances")
    key = stage_key("instances", digest, config.instances, config.input_tokens, config.seed)
    marker = session.run.finished(folder, key)
    if marker is None:
        session.run.begin(folder)
        writer = StageWriter(folder, EXAMPLE_SCHEMA, EXAMPLE_KEYS)
        own: dict[str, list[Proposal]] = {}
        for proposal in kept:
            own.setdefault(proposal.key, []).append(proposal)
        limits = {"limit": config.instances, "budget": config.input_tokens, "seed": config.seed}
        for number, (name, tasks) in enumerate(own.items()):
            session.tick(Progress("instances", number, len(own), note=name))
            draw_examples(writer, metas[name], tasks, **limits)
        marker = writer.finish(key)
    session.manifest["funnel"]["instances"] = marker["funnel"]


def _gate(manifest: Mapping[str, Any]) -> tuple[int, str]:
    if manifest["stopped"]:
        return 3, f"budget reached: {manifest['stopped']}; raise it and run the same command to continue"
    if not manifest["funnel"]["propose"]["kept"]:
        dropped = manifest["funnel"]["propose"]["dropped"]
        if not dropped:
            why = "no task was proposed, as no dataset has rows with a field fit to be an answer"
            return 3, f"{why}; rename fields (question, answer, label …) or name classes"
        reasons = ", ".join(f"{n} {reason.replace('_', '-')}" for reason, n in dropped.items())
        return 3, f"no task was kept ({reasons}); see 1-propose/dropped"
    return 0, "done"


def estimate(config: ProposeConfig) -> dict[str, Any]:
    """Return calls, tokens and cost of a run without making a call.

    Prompt tokens are estimated offline (within 15 % for English); replies by the mean of the tasks that the
    rules would write, in the form that is asked for.
    """
    validate(config)
    metas, unread = gather(config.sources, config.licence)
    asked = (
        [] if config.model.ref == RULES else list(_requests(config, list(metas.values()), config.model.ref))
    )
    prompt = sum(count_tokens(content) for one in asked for _, content in one.messages)
    reply = sum(count_tokens(one.payload.sample()) for one in asked)
    price = load_price(config.budget.prices, config.model.ref) if asked else None
    return {
        "datasets": len(metas),
        "unread": unread,
        "calls": len(asked),
        "prompt_tokens": prompt,
        "completion_tokens": reply,
        "completion_tokens_most": sum(one.sampling.max_tokens for one in asked),
        "cost": None if price is None else round(price.cost(prompt, reply), 6),
        "rules": sum(len(propose_by_rule(meta)) for meta in metas.values()) if config.rules else 0,
    }


# the report


def _page(run: Path, manifest: Mapping[str, Any]) -> None:
    funnel, families = manifest["funnel"]["propose"], manifest["figures"]["families"]
    modes = Section("Who proposed them", "", ("proposer", "proposed", "kept"))
    for mode, counts in manifest["modes"].items():
        modes.add(mode or "given", f"{counts['proposed']:,}", f"{counts['kept']:,}")
    reasons = Section("Why tasks were dropped", "see 1-propose/dropped", ("reason", "tasks"))
    for reason, count in sorted(funnel["dropped"].items(), key=lambda item: (-item[1], item[0])):
        reasons.add(reason.replace("_", "-"), f"{count:,}")
    large = Section("Families with a tenth of the tasks or more", "before the cap", ("family", "share"))
    for name, share in families["dominant"].items():
        large.add(name, f"{share:.1%}")
    licences = Section("Licences", "and what the policy says", ("dataset", "decision"))
    for name, why in sorted(manifest["licences"].items()):
        licences.add(name, why)
    figures = [
        Figure("tasks kept", f"{funnel['kept']:,}", f"of {funnel['in']:,} proposed"),
        Figure(
            "datasets", f"{manifest['datasets']['read']:,}", f"{len(manifest['datasets']['unread'])} unread"
        ),
        Figure("families", f"{families['after']:g}", f"effective; {families['before']:g} before the cap"),
        Figure("calls", f"{manifest['calls']['total']:,}", "of a model, in all sessions"),
    ]
    if "instances" in manifest["funnel"]:
        made = manifest["funnel"]["instances"]
        figures.append(Figure("examples", f"{made['kept']:,}", f"of {made['in']:,} rows"))
    facts = {"model": manifest["model"]["ref"], "seed": manifest["seed"], "taskmill": manifest["taskmill"]}
    about = {"Configuration": settings(read_yaml(run / "config.yaml"))}
    lines = [f"not read: {problem}" for problem in manifest["datasets"]["unread"]]
    write_page(
        run / "report.html",
        "tasks from datasets",
        figures,
        [modes, reasons, large, licences],
        facts=facts,
        about=about,
        notes=lines,
    )
