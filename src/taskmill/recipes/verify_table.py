"""Verification of finished instruction data: a model is asked about its rows, curate decides by the scores.

    OUT/  kept.parquet  dropped.parquet  scores.parquet  report.json    what `taskmill curate` writes
          asked/  the run that asked: manifest.json, ledger/, answers.parquet, scored/ (all rows and scores)

Every finished call is in the ledger: the same command goes on where it was killed and pays for what is new.
"""

from __future__ import annotations

import heapq
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from taskmill.backends import ModelConfig
from taskmill.budget import BudgetConfig, load_price
from taskmill.caller import Caller
from taskmill.calls import Request
from taskmill.config import to_mapping
from taskmill.curate.filters import thresholds
from taskmill.curate.verify import CHECKS, SCORE_SCHEMA, STORED, Score, applies, questions
from taskmill.errors import ConfigError, UsageError
from taskmill.recipes.curate import CurateConfig, curate, finite
from taskmill.recipes.estimate import ROWS, totals
from taskmill.recipes.layouts import as_examples, without_end_tokens
from taskmill.recipes.session import OnProgress, Session
from taskmill.recipes.stages import ModelAccess
from taskmill.recipes.synth import SynthConfig, validate
from taskmill.recipes.tables import begin_results, check_out, end_results, read_table
from taskmill.recipes.verify import ask, known
from taskmill.record import to_table
from taskmill.store import Run, write_parquet

__all__ = ["FIXED", "JudgeConfig", "VerifyTableConfig", "estimate_table", "verify_table"]

FIXED = ("protocol", "temperature", "top_p")
"""Keys of a model's configuration that a judge has no choice of: it is asked greedily, in a chat."""


@dataclass(frozen=True, slots=True)
class JudgeConfig(ModelConfig):
    """Which model answers and judges; there is none by default. It is chatted with, greedily."""

    ref: str = field(
        default="",
        metadata={
            "help": "the model that answers and judges, as openai:gpt-4.1-mini; must be given",
            "flag": "model",
        },
    )


@dataclass(frozen=True, slots=True)
class VerifyTableConfig:
    """Instruction data in; rows that a second model finds good out."""

    sources: tuple[str, ...] = field(default=(), metadata={"help": "tables or run folders"})
    checks: tuple[str, ...] = field(
        default=("judge",), metadata={"help": f"checks by the model: {', '.join(CHECKS)}"}
    )
    set: dict[str, tuple[str, ...]] = field(
        default_factory=dict, metadata={"help": "threshold of a check, as judge=4; may be repeated"}
    )
    ledger: str = field(default="", metadata={"help": "folder or URL of a ledger shared by several runs"})
    model: JudgeConfig = field(default_factory=JudgeConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)


def verify_table(
    config: VerifyTableConfig, out: str | Path, on_progress: OnProgress | None = None
) -> dict[str, Any]:
    """Ask about every row, decide, and write what `curate` writes; return its report, with the calls.

    `report["exit"]` holds the exit code and the reason: 3 where a budget or failed calls left rows without a
    score; those are dropped as `call_failed`, and the same command asks again. Raises UsageError before any
    call for settings that cannot work, InputError, BackendError, LedgerError or RunFolderError else.
    """
    folder = _checked(config, out)
    table, ends = without_end_tokens(read_table(config.sources))
    with Run(folder / "asked") as run:
        session = Session.open(run, to_mapping(config), free=(), update=True, report=on_progress)
        try:
            caller = _access(config).open(session, writes=False)
            with caller.ledger:
                found = ask(
                    session, caller, as_examples(table), config.checks,
                    total=len(table), longest=config.model.max_new_tokens,
                )  # fmt: skip
                caller.ledger.sync()
                session.book(caller)
            scored = _store(run.path, table, ends, found, config.checks)
            decided = CurateConfig((str(scored),), set=config.set)
            report = curate(decided, folder, on_progress, command="verify")
        except BaseException as error:
            session.fail(error)
            raise
        session.end(*_gate(caller))
        paid = {name: session.manifest[name] for name in ("calls", "tokens", "cost", "exit")}
        return {**report, "model": caller.backend.model, **paid}


def estimate_table(
    config: VerifyTableConfig, out: str | Path, on_progress: OnProgress | None = None
) -> dict[str, Any]:
    """Make some 20 of the calls and return what all of them take, as `recipes.estimate` does for a synthesis.

    The number of calls is exact: those that are not in the ledger. Nothing but the ledger is changed.
    """
    folder = _checked(config, out)
    table, _ = without_end_tokens(read_table(config.sources))
    with Run(folder / "asked") as run, Run(run.path / ".estimate") as scratch:
        try:
            session = Session.open(scratch, {}, free=(), update=True, report=on_progress)
            caller = _access(config, home=run).open(session, writes=False)
            with caller.ledger:
                new, sample = _survey(caller, table, config)
                started = time.monotonic()
                answers = [c for _, c in caller.answers(sample) if c.finish != "error"]
                seconds = time.monotonic() - started if caller.made else 0.0
        finally:
            shutil.rmtree(scratch.path, ignore_errors=True)
    calls = {"expected": float(new), "low": float(new), "high": float(new)}
    price = load_price(config.budget.prices, config.model.ref)
    looked = {"sample": len(answers), "made": caller.made, "failed": caller.failed, "calls": calls}
    return looked | totals(calls, answers, seconds, price)


def _checked(config: VerifyTableConfig, out: str | Path) -> Path:
    """Refuse what cannot work before the first call is paid; return the folder of the results."""
    known(config.checks)
    if not config.checks:
        raise UsageError(f"no check is given; write --checks with some of: {', '.join(CHECKS)}")
    given = {name: finite(name, text) for name, text in config.set.items()}
    thresholds(given, _columns(config.checks))
    defaults = ModelConfig()
    set_anyway = [name for name in FIXED if getattr(config.model, name) != getattr(defaults, name)]
    if set_anyway:
        raise ConfigError(f"model.{set_anyway[0]}: a judge is asked greedily in a chat; leave it out")
    if not config.model.ref:
        raise UsageError(
            "no judge is given; name it with --model, as openai:gpt-4.1-mini. It should be a stronger model "
            "than the one that wrote the rows"
        )
    # What synthesis refuses of sources, models, prices and secrets is refused here, too.
    validate(SynthConfig(config.sources, model=config.model, ledger=config.ledger, budget=config.budget))
    folder = check_out(out, config.sources, "verify", also=("curate",))
    if (folder / "report.json").exists() and not (folder / "asked").exists():
        raise UsageError(f"{folder} holds what `taskmill curate` made of other scores; choose another --out")
    return folder


def _access(config: VerifyTableConfig, home: Run | None = None) -> ModelAccess:
    return ModelAccess(config.model, config.budget, config.ledger, home)


def _columns(checks: tuple[str, ...]) -> list[str]:
    return [one.name for one in STORED if one.name in checks or one.name not in CHECKS]


def _store(
    folder: Path,
    table: pa.Table,
    ends: pa.Array,
    found: Mapping[str, Mapping[str, Score]],
    checks: tuple[str, ...],
) -> Path:
    """Write the answers, and all rows with their scores as a folder that `curate` decides on; return that."""
    answers = sorted((s for own in found.values() for s in own.values()), key=lambda s: (s.id, s.filter))
    write_parquet(folder / "answers.parquet", to_table(answers, SCORE_SCHEMA))
    columns: dict[str, list[float | None]] = {name: [] for name in _columns(checks)}
    for example in as_examples(table):
        own = found.get(example.id, {})
        asked = [check for check in checks if applies(check, example)]
        for name, values in columns.items():
            values.append(own[name].score if name in own else None)
        columns["unanswered"][-1] = float(sum(c not in own or own[c].failed for c in asked))
        columns["unreadable"][-1] = float(sum(c in own and own[c].unreadable for c in asked))
    if not any(columns["unanswered"]) and not found:
        raise UsageError(
            f"no row can be asked by {', '.join(checks)}: rows need a task type or a passage for that; "
            "take judge or ask-llm"
        )
    scores = {name: pa.array(values, pa.float64()) for name, values in columns.items()}
    scored = folder / "scored"
    begin_results(scored)
    write_parquet(
        scored / "scores.parquet",
        pa.table({"id": table["id"].cast(pa.string()), **scores, "end_token": ends}),
    )
    write_parquet(scored / "kept.parquet", table)
    write_parquet(scored / "dropped.parquet", table.slice(0, 0))
    end_results(scored, "verify", {"funnel": {"in": len(table), "kept": len(table), "dropped": {}}})
    return scored


def _survey(caller: Caller, table: pa.Table, config: VerifyTableConfig) -> tuple[int, list[Request]]:
    """Pose all questions, which costs nothing; return how many are new and a sample of each check's."""
    new, sample = 0, []
    each = max(1, ROWS // len(config.checks))
    for check in config.checks:
        posed = (
            question
            for row in as_examples(table)
            for question in questions(caller.backend.model, (check,), row, config.model.max_new_tokens)
        )
        fresh = [(q.key, q) for q in posed if caller.ledger.get(q.key) is None]
        new += len({key for key, _ in fresh})
        sample += [q for _, q in heapq.nsmallest(each, fresh, key=lambda pair: pair[0])]
    return new, sample


def _gate(caller: Caller) -> tuple[int, str]:
    if caller.stopped:
        return 3, f"budget reached: {caller.budget.reason}; raise it and run the same command to continue"
    if caller.failed:
        return 3, f"{caller.failed} calls failed; the same command tries them again"
    return 0, "done"
