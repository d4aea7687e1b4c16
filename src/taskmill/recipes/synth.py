"""The main job: ingest → synthesize → curate, as one run folder that any kill leaves continuable."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import Any

from taskmill import frame
from taskmill.backends import GENERATORS, ModelConfig, protocol_of, split_reference
from taskmill.budget import BudgetConfig, load_price
from taskmill.calls import Sampling
from taskmill.config import to_mapping
from taskmill.errors import ConfigError, UsageError
from taskmill.ingest import IngestConfig
from taskmill.recipes import stages
from taskmill.recipes.evaluation_sets import AGAINST, SHIPPED, HeldOut
from taskmill.recipes.session import OnProgress, Session
from taskmill.recipes.synthesis import Effort, synthesize
from taskmill.recipes.verify import VerifyConfig, verify
from taskmill.report import write_report
from taskmill.store import Run
from taskmill.synthesize.bonito import Synthesis
from taskmill.tasks import TASKS, get
from taskmill.tasks.base import Attributes

__all__ = ["SynthConfig", "synth"]

DEFAULT_TASKS = ("exqa", "qg", "ynqa", "summarization")

FREE = (
    "target",
    "budget.",
    "max_attempts",
    "min_yield",
    "runner",
    "verify.limits",
    "model.base_url",
    "model.concurrency",
    "model.timeout",
    "model.retries",
    "model.api_key_env",
    "model.answers_as",
)
"""Keys that may change when a run folder is continued: they change how far it goes, not what it says."""


@dataclass(frozen=True, slots=True)
class SynthConfig:
    """Documents in, checked instruction data out."""

    sources: tuple[str, ...] = field(
        default=(), metadata={"help": "files, folders, URLs, hf:owner/name, or - for standard input"}
    )
    task: tuple[str, ...] = field(default=DEFAULT_TASKS, metadata={"help": "task types, separated by commas"})
    target: int = field(
        default=0,
        metadata={
            "help": "accepted examples wanted per task type; over-generates until they are there",
            "short": "-n",
        },
    )
    per_passage: int = field(
        default=1, metadata={"help": "requests per passage and task type when there is no --target"}
    )
    max_attempts: int = field(
        default=8, metadata={"help": "with --target: most requests per passage and task type"}
    )
    min_yield: float = field(
        default=0.02, metadata={"help": "with --target: give a task type up below this accepted share"}
    )
    seed: int = field(default=0, metadata={"help": "the one seed of the run"})
    labels: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict,
        metadata={"help": "own labels of a task type, e.g. topic_class=billing,refunds (repeatable)"},
    )
    answer_language: str = field(
        default="", metadata={"help": "language the tasks are written in, e.g. German"}
    )
    guided: str = field(
        default="auto",
        metadata={
            "help": "draw the answer for the model; helps small ones. auto: for openvino: and echo: models",
            "choices": ("auto", "yes", "no"),
        },
    )
    count: int = field(default=1, metadata={"help": "tasks asked for in one reply"})
    two_stage: str = field(
        default="auto",
        metadata={
            "help": "sample the instruction, then decode the response greedily (bonito formats); nothing is "
            "left to decode where the label was drawn. auto: for exqa, whose response is then held to spans",
            "choices": ("auto", "yes", "no"),
        },
    )
    against: tuple[str, ...] = field(
        default=(SHIPPED,), metadata={"help": f"examples that hold items of these are dropped: {AGAINST}"}
    )
    ledger: str = field(default="", metadata={"help": "folder or URL of a ledger shared by several runs"})
    runner: str = field(default="native", metadata={"help": "native, ray or ray:ADDRESS"})
    ingest: IngestConfig = field(default_factory=IngestConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    verify: VerifyConfig = field(default_factory=VerifyConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)


def synth(
    config: SynthConfig, out: str | Path, *, update: bool = False, on_progress: OnProgress | None = None
) -> dict[str, Any]:
    """Run the journey into the folder `out` and return its manifest.

    The same call continues a folder that was left unfinished; finished model calls are not repeated.
    `manifest["exit"]` holds the exit code and the reason: 0, or 3 where a target or budget was not
    met. Raises UsageError before any work for a configuration that cannot run, InputError,
    BackendError, LedgerError or RunFolderError when work cannot go on.
    """
    validate(config)
    held = HeldOut(config.against)
    frame.use_runner(config.runner)
    with Run(Path(out)) as run:
        mapping = to_mapping(config)
        session = Session.open(run, mapping, free=FREE, update=update, report=on_progress)
        session.manifest.update(
            command=["taskmill", "run", "config.yaml"],
            seed=config.seed,
            inputs=list(config.sources),
            model={"ref": config.model.ref, "protocol": protocol_of(config.model)},
            against=held.key,
        )
        try:
            ingested = stages.ingest(session, config.sources, config.ingest)
            _make(session, ingested, config, held)
        except BaseException as error:
            session.fail(error)
            raise
        session.end(*_gate(session.manifest, config.target))
        write_report(run.path)
        return session.manifest


ROUNDS = 6
"""Most times the number of drafts is raised because a verifying model refused some (chosen)."""


def _make(session: Session, ingested: str, config: SynthConfig, held: HeldOut) -> None:
    """Synthesize, curate and verify; with a target, until as many as were asked for pass all three.

    What the verifying model will refuse is not known beforehand: each round asks for as many more as the
    last one's yield says are missing. Nothing is asked twice.
    """
    wanted = config.target
    for _ in range(ROUNDS):
        goal = replace(effort(config), target=wanted)
        synthesized = synthesize(session, ingested, how(config), goal, model(config), held)
        curated = stages.curate(session, synthesized, wanted, held)
        if not config.verify.checks:
            session.run.discard(4, "verify")
            return
        drafted = {task: entry["accepted"] for task, entry in session.manifest["tasks"].items()}
        verify(session, curated, config.verify, _verifier(config), model(config), config.target)
        more = _missing(session.manifest, drafted, config.target)
        if not more or session.manifest["stopped"]:
            return
        wanted += more


def _missing(manifest: Mapping[str, Any], drafted: Mapping[str, int], target: int) -> int:
    """Return how many more drafts of a task type to ask for, 0 if every type has its target or cannot."""
    most = 0
    for task, entry in manifest["tasks"].items():
        short = target - entry["accepted"]
        if target:
            entry["asked"] = target  # more drafts were asked for than the user did
        if target and short <= 0:
            entry["shortfall"] = None
        elif target:
            if entry["shortfall"]:
                continue  # no passage is left to ask about
            entry["shortfall"] = f"the verifying model refused {drafted[task] - entry['accepted']} more"
            rate = max(entry["accepted"] / max(drafted[task], 1), 0.1)
            most = max(most, ceil(short / rate))
    return most


def _verifier(config: SynthConfig) -> ModelConfig:
    """Return the verifying model's configuration: that of the generator with another reference, in chat."""
    return replace(config.model, ref=config.verify.ref, protocol="chat", temperature=0.0, max_new_tokens=0)


def validate(config: SynthConfig) -> None:
    """Refuse what cannot work before the first call is paid, and secrets before they are written down."""
    refuse_secrets(config)
    if not config.sources:
        raise UsageError("no source is given; name a file, a folder, a URL or - for standard input")
    if not config.task:
        raise UsageError("no task type is given; write --task with some of: " + ", ".join(TASKS.names()))
    for task in {*config.task, *config.labels}:
        get(task)
    _check_labels(config)
    if config.per_passage < 1 or config.max_attempts < 1 or config.count < 1:
        raise ConfigError("per_passage, max_attempts and count must be 1 or more")
    if config.model.temperature == 0 and not config.target and config.per_passage > 1:
        raise ConfigError(
            "temperature 0 gives the same reply each time; use --per-passage 1 or a temperature"
        )
    GENERATORS.get(split_reference(config.model.ref)[0])
    if config.verify.checks:
        GENERATORS.get(split_reference(config.verify.ref)[0])
        load_price(config.budget.prices, config.verify.ref)  # its price, too, before anything is paid
    if load_price(config.budget.prices, config.model.ref) is None and config.budget.max_cost:
        raise ConfigError("--max-cost needs --prices FILE with the price of the model")
    protocol = protocol_of(config.model)
    if protocol == "bonito" and (config.count > 1 or config.answer_language):
        raise ConfigError(
            "the bonito protocol has no place for --count or --answer-language; use chat, or "
            "bonito-attributes with a model trained on them"
        )
    if config.two_stage == "yes" and (protocol == "chat" or config.count > 1):
        raise ConfigError("--two-stage yes needs a bonito protocol and --count 1")


_PASSWORD = re.compile(r"^(?!github:)\w[\w+.-]*://[^/@]*@")
_TOKEN = re.compile(r"://.*[?&](?:token|key|api_key|sig|signature|password)=", re.IGNORECASE)


def refuse_secrets(config: Any) -> None:
    """Refuse addresses with credentials and keys in place of their variable: the run folder keeps both."""
    for text in (*config.sources, config.ledger, config.model.base_url):
        if _PASSWORD.search(text) or _TOKEN.search(text):
            raise UsageError(
                f"{text.split('://')[0]}://…: an address with a password or key would be written into the "
                "run folder; give credentials through the environment instead"
            )
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", config.model.api_key_env):
        raise UsageError("--api-key-env takes the NAME of an environment variable (capitals), never a key")


def _check_labels(config: SynthConfig) -> None:
    named = {get(task).name for task in config.task}
    for task, labels in config.labels.items():
        if get(task).name not in named:
            raise ConfigError(f"labels are given for {task}, which --task does not name")
        if not get(task).labels:
            raise ConfigError(f"{task}: this task type has no labels; leave --labels out")
        if len(set(labels)) < 2:
            raise ConfigError(f"labels of {task}: at least two different labels are needed")


def how(config: SynthConfig) -> Synthesis:
    """Return how requests are made."""
    m = config.model
    tasks = tuple(dict.fromkeys(get(t).name for t in config.task))
    own = {get(t).name: tuple(labels) for t, labels in config.labels.items()}
    small = split_reference(m.ref)[0] in ("openvino", "echo")
    guided = small if config.guided == "auto" else config.guided == "yes"
    attributes = {t: Attributes(own.get(t, ()), config.answer_language, config.count, guided) for t in tasks}
    sampling = Sampling(m.temperature, m.top_p)
    protocol = protocol_of(m)
    return Synthesis(tasks, protocol, sampling, m.max_new_tokens, config.seed, attributes, config.two_stage)


def effort(config: SynthConfig) -> Effort:
    """Return how many requests are made: until the target, or a number per passage."""
    attempts = config.max_attempts if config.model.temperature > 0 else 1
    return Effort(config.target, config.per_passage, attempts, config.min_yield)


def model(config: SynthConfig) -> stages.ModelAccess:
    """Return what is needed to call the model."""
    return stages.ModelAccess(config.model, config.budget, config.ledger)


def _gate(manifest: Mapping[str, Any], target: int) -> tuple[int, str]:
    """Return the exit code and the reason: 3 where the run ended short of what was asked."""
    if manifest["stopped"]:
        return 3, f"budget reached: {manifest['stopped']}; raise it and run the same command to continue"
    short = [
        f"{task} {entry['accepted']} of {target} ({entry['shortfall']})"
        for task, entry in manifest["tasks"].items()
        if entry.get("shortfall")
    ]
    if short:
        return 3, "fewer examples than asked for: " + "; ".join(short)
    failed = manifest["calls"]["failed"]
    often = next(iter(manifest["errors"]), "")
    note = f"{failed} calls failed (most often: {often}); the same command tries them again"
    if not manifest["funnel"].get("verify", manifest["funnel"]["curate"])["kept"]:
        return 3, "no example was accepted, see the reasons in the report" + (f"; {note}" if failed else "")
    if failed and not target:
        return 3, note
    return 0, "done"
