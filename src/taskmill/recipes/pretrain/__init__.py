"""Continual pre-training: what a corpus with pairs is worth against its raw texts, token for token.

One model reads the raw texts, one the same texts with their pairs, each as many tokens and as many general
instructions; both answer held-out questions of the targets, and general ones that must not get lost.

    DIR/  plan.json       what is trained, and the time it takes as measured here
          units/KEY/      one model: unit.json has its answers, marks and losses and is written last
          result.json, report.html

A unit's key is a hash of what it reads and is asked and how. So a killed run goes on with the unit it was at.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from taskmill.budget import seconds_of
from taskmill.config import to_mapping
from taskmill.errors import UsageError
from taskmill.ids import content_id
from taskmill.recipes.pretrain.config import PretrainConfig
from taskmill.recipes.pretrain.rows import (
    Asked,
    Corpus,
    Questions,
    general_texts,
    package_questions,
    questions,
    read_corpus,
    reading,
)
from taskmill.recipes.pretrain.scores import judged, marks_of
from taskmill.recipes.session import OnProgress, Progress, ignore
from taskmill.recipes.students import ROOM, TRIED_ITEMS, TRIED_TOKENS, Learner, Speed, measured, trained
from taskmill.recipes.tables import check_out
from taskmill.record import Document
from taskmill.report.pretrain import write_pretrain_report
from taskmill.store import Run, write_json
from taskmill.train.loop import OnStep
from taskmill.train.student import Item, Outcome

__all__ = ["PretrainConfig", "pretrain"]

LEAST_STEPS = 4
"""Optimiser steps below which a run says nothing about a corpus (chosen)."""


class Reader(Learner, Protocol):
    """A learner whose learning can be added to another model: `Student`, or a test's stand-in."""

    def merged(
        self, folder: Path, instruct: str, scale: float, items: Sequence[Item], texts: Sequence[str] = ()
    ) -> Outcome:
        """Answer with what was learned in `folder`, times `scale`, added to an instruct model."""
        ...


@dataclass(frozen=True)
class Unit:
    """One model: what it reads (rows of an arm), and with which seed. The base reads nothing."""

    key: str
    arm: str
    rows: tuple[Document, ...]
    tokens: int
    seed: int


def pretrain(
    config: PretrainConfig,
    out: str | Path,
    on_progress: OnProgress | None = None,
    *,
    reader: Reader | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Run the comparison in folder `out`, or go on with it, and return what result.json holds.

    With `dry_run` return the plan and its time only; a small training measures the speed for it.

    Raises UsageError, InputError, MissingExtra or BackendError before anything is trained, RunFolderError if
    the folder is in use or holds something else.
    """
    report, began = on_progress or ignore, time.monotonic()
    report(Progress("read rows"))
    corpus = read_corpus(config.source)
    with Run(check_out(out, [config.source], "pretrain")) as run:
        asked = _asked(config, corpus)
        learner = reader or _student(config)
        report(Progress("measure the speed"))
        speed = measured(run.path, learner, *_tried(config, corpus, asked, learner))
        tokens, units = _planned(config, corpus, asked, learner, speed)
        plan = _plan(config, corpus, asked, learner, speed, tokens, units)
        write_json(run.path / "plan.json", plan)
        if dry_run:
            return plan
        for name in ("result.json", "report.html"):
            (run.path / name).unlink(missing_ok=True)  # an older result must not stand beside new units
        done, made = _trained(run.path, config, asked, units, learner, speed, report)
        record = plan | judged(config, asked, done)
        record["units"] = {"all": len(units), "made": made, "reused": len(units) - made}
        record["seconds"] = {
            "models": round(sum(unit["all_s"] for unit in done.values()), 1),
            "session": round(time.monotonic() - began, 1),
        }
        write_json(run.path / "result.json", record)
        write_pretrain_report(run.path / "report.html", record)
        return record


def _student(config: PretrainConfig) -> Reader:
    from taskmill.train.student import Student

    return Student(config.recipe, config.layout, config.norm, config.max_new_tokens)


def _asked(config: PretrainConfig, corpus: Corpus) -> Asked:
    seed = config.train.seed
    targets = questions(config.target, config.test_rows, seed, corpus.asked, corpus.told)
    if config.general_items:
        general = questions(config.general_items, config.test_rows, seed)
    else:
        general = [Questions("of the package", package_questions(seed), 0)]
    return Asked(targets, general, general_texts(config.general_texts, seed))


# what is trained


def _planned(
    config: PretrainConfig, corpus: Corpus, asked: Asked, learner: Reader, speed: Speed
) -> tuple[int, dict[str, Unit]]:
    """Return (tokens each model reads, the units by key): fewer tokens where time is limited."""
    whole = _sum(learner.lengths(corpus.rows["augmented"])) + _sum(learner.lengths(corpus.general))
    tokens = config.tokens or whole
    models = len(config.arms) * config.seeds
    limit = seconds_of(config.budget)
    fixed = _fixed(config, asked, speed)
    if fixed + models * speed.token * tokens > limit:
        step = config.recipe.resolved().batch_tokens or 1
        tokens = int((ROOM * limit - fixed) / (models * speed.token)) if limit > fixed else 0
        if tokens < LEAST_STEPS * step:
            raise UsageError(
                f"{models} models take {fixed:.0f} s without their training and {speed.token * step:.0f} s a "
                "step; give a larger --budget, or fewer --seeds or --test-rows"
            )
    return tokens, _units(config, corpus, asked, learner, tokens, whole)


def _sum(lengths: Sequence[int | str]) -> int:
    return sum(length for length in lengths if isinstance(length, int))


def _fixed(config: PretrainConfig, asked: Asked, speed: Speed) -> float:
    """Return the seconds of all units without their training."""
    answered = speed.unit + speed.item * (len(asked.items) + len(asked.texts))
    models = len(config.arms) * config.seeds
    return answered * (1 + models + models * len(config.merged_at))


def _units(
    config: PretrainConfig, corpus: Corpus, asked: Asked, learner: Reader, tokens: int, whole: int
) -> dict[str, Unit]:
    """Lay out the base and the models of each arm, all of as many tokens.

    General instructions are the same part of all arms; of the rest, an arm that has fewer tokens than it is
    to read is read again and again.
    """
    seed = config.train.seed
    share = _sum(learner.lengths(corpus.general)) / whole if whole else 0.0
    general, spent = reading(corpus.general, learner.lengths, round(share * tokens), seed)
    merging = json.dumps([config.instruct, config.merged_at]) if config.instruct else ""
    found: dict[str, Unit] = {}

    def add(arm: str, rows: Sequence[Document], read: int, own: int) -> None:
        content = content_id(*(row.id for row in rows), *(content_id(row.text) for row in rows))
        key = content_id(learner.name, arm, content, asked.id(), str(own), merging)
        found[key] = Unit(key, arm, tuple(rows), read, own)

    add("base", [], 0, seed)
    for arm in config.arms:
        rows, read = reading(corpus.rows[arm], learner.lengths, tokens - spent, seed)
        if not rows:
            raise UsageError(f"{config.source}: no {arm} row fits {tokens} tokens; give more --tokens")
        for own in range(seed, seed + config.seeds):
            add(arm, [*rows, *general], read + spent, own)
    return found


def _plan(
    config: PretrainConfig,
    corpus: Corpus,
    asked: Asked,
    learner: Reader,
    speed: Speed,
    tokens: int,
    units: Mapping[str, Unit],
) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for arm in config.arms:
        own = next(unit for unit in units.values() if unit.arm == arm)
        there = learner.lengths(corpus.rows[arm])
        rows[arm] = {
            "rows": len(there),
            "tokens": _sum(there),
            "unread": sum(isinstance(length, str) for length in there),
            "read": own.tokens,
            "passes": round(own.tokens / max(1, _sum(there) + _sum(learner.lengths(corpus.general))), 3),
        }
    models = len(units) - 1
    return {
        "command": "pretrain",
        "config": to_mapping(config),
        "student": learner.name,
        "method": config.recipe.resolved().method,
        "corpus": {key: corpus.manifest.get(key) for key in ("documents", "pairs", "tokens", "model")},
        "tokens": tokens,
        "arms": rows,
        "questions": {
            q.name: {"scored": len(q.probes), "met": q.met} for q in (*asked.targets, *asked.general)
        },
        "general_texts": len(asked.texts),
        "speed": speed._asdict(),
        "units": {"all": len(units)},
        "estimate_s": round(_fixed(config, asked, speed) + models * speed.token * tokens, 1),
    }


def _tried(
    config: PretrainConfig, corpus: Corpus, asked: Asked, learner: Reader
) -> tuple[list[Document], list[Item], int, list[str]]:
    """Return what the speed is measured by: raw texts, a few questions of each target, the seed, texts."""
    seed, few = config.train.seed, TRIED_ITEMS // 2
    rows, _ = reading(corpus.rows["raw"], learner.lengths, TRIED_TOKENS, seed)
    return rows, [probe.item for own in asked.targets for probe in own.probes[:few]], seed, asked.texts[:few]


# the models


def _trained(
    folder: Path,
    config: PretrainConfig,
    asked: Asked,
    units: Mapping[str, Unit],
    learner: Reader,
    speed: Speed,
    report: OnProgress,
) -> tuple[dict[str, dict[str, Any]], int]:
    """Return (what each unit's unit.json holds, how many were made now)."""
    items, texts = asked.items, asked.texts
    each = speed.unit + speed.item * (len(items) + len(texts))

    def make(unit: Unit, work: Path, on_step: OnStep) -> dict[str, Any]:
        outcome = learner.learn(unit.rows, items, unit.seed, 1.0, work, on_step, texts=texts)
        known = {
            "arm": unit.arm,
            "rows": len(unit.rows),
            "tokens": unit.tokens,
            "seed": unit.seed,
            **_said(outcome, asked),
            "train_s": outcome.train_s,
            "all_s": outcome.all_s,
            "record": dict(outcome.record),
            "merged": {},
        }
        for scale in config.merged_at if unit.rows else ():
            found = learner.merged(work, config.instruct, scale, items, texts)
            known["merged"][f"{scale:g}"] = _said(found, asked)
            known["all_s"] += found.all_s
        return known

    return trained(
        folder / "units",
        list(units.values()),
        make,
        lambda unit: each + speed.token * unit.tokens,
        lambda unit: f"{unit.arm}, seed {unit.seed}",
        report,
        keep=lambda unit: config.keep,
    )


def _said(outcome: Outcome, asked: Asked) -> dict[str, Any]:
    return {
        "answers": outcome.answers,
        "marks": marks_of(asked.probes, outcome.answers),
        "losses": [list(pair) for pair in outcome.losses],
    }
