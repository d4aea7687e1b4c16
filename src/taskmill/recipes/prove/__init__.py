"""Proof: does the data help? Students on different data, the same test, equal tokens, and what differs.

The arms of an experiment (nothing, next-word training on the passages, the rows that are made of them, the
same without filters, …) are students of one base model. Each answers the same questions in the same wordings.

    DIR/  plan.json        what is trained, and the time it takes as measured here
          TARGET/          pool.parquet, and synth/, the run that made the rows; tried/, a few of them before
          ledger/          every call to the generator
          dropped.parquet  passages and rows that no arm may learn, with the reason
          units/KEY/       one student: unit.json has its answers and is written last
          record.json      everything; result.json: what it comes to; report.html

A unit's key is a hash of what is learned, how, and what is asked. So a killed run goes on with the student it
was at, and other arms or seeds use the students they share with the last ones.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from taskmill.recipes.general import Probes, probes
from taskmill.recipes.prove.arms import Lost, Stock, make, stocks
from taskmill.recipes.prove.config import ProveConfig, Target, checked, of_mapping, targets_of
from taskmill.recipes.prove.items import asked
from taskmill.recipes.prove.judge import Judged, judge, together
from taskmill.recipes.prove.overlap import RULE, Guard
from taskmill.recipes.prove.plan import Sizes
from taskmill.recipes.prove.prepare import Side, planned, side_of
from taskmill.recipes.prove.students import grid_of, learned
from taskmill.recipes.session import OnProgress, Progress, ignore
from taskmill.recipes.students import Learner, Speed
from taskmill.recipes.tables import check_out
from taskmill.report.prove import write_prove_report
from taskmill.store import Run, write_json, write_parquet
from taskmill.train.student import Item

__all__ = ["ProveConfig", "Target", "of_mapping", "prove"]


def prove(
    config: ProveConfig,
    out: str | Path,
    on_progress: OnProgress | None = None,
    *,
    targets: Sequence[Target] = (),
    student: Learner | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Run the experiment in folder `out`, or go on with it, and return what record.json holds.

    `record["exit"]` holds the exit code and the reason: 3 where an arm has forgotten more than allowed. With
    `dry_run` return the plan and its time; a small training and a few calls to the generator measure it.

    Raises UsageError, InputError, MissingExtra or BackendError before anything is trained, RunFolderError if
    the folder is in use or holds something else.
    """
    report, began = on_progress or ignore, time.monotonic()
    targets = checked(targets) or targets_of(config)
    with Run(check_out(out, [*(t.test for t in targets), *config.tables], "prove")) as run:
        learner = student or _student(config)
        report(Progress("read"))
        general = probes(config.general, config.train.seed)
        sides = [side_of(config, target, general) for target in targets]
        plan = planned(run.path, config, sides, learner, general, began, report)
        if dry_run:
            return plan
        for name in ("result.json", "record.json", "report.html"):
            (run.path / name).unlink(missing_ok=True)  # an older result must not stand beside new units
        record = plan | _proved(run.path, config, sides, plan["targets"], learner, general, report)
        record["seconds"] = round(time.monotonic() - began, 1)
        write_json(run.path / "record.json", record)
        write_json(run.path / "result.json", record["result"])
        write_prove_report(run.path / "report.html", record)
        return record


def _student(config: ProveConfig) -> Learner:
    from taskmill.train.student import Student

    return Student(config.recipe, config.layout, config.norm, config.answer_tokens)


def _proved(
    folder: Path,
    config: ProveConfig,
    sides: Sequence[Side],
    plans: Mapping[str, Mapping[str, Any]],
    learner: Learner,
    general: Probes,
    report: OnProgress,
) -> dict[str, Any]:
    """Make all rows, train and ask all students, and return what they show."""
    groups = _groups(config, [(side, Sizes(**plans[side.target.name]["sizes"])) for side in sides])
    found = [_rows(folder, config, group, learner, general, report) for group in groups]
    lost = [(_named(group), one) for group, (_, lost, _) in zip(groups, found, strict=True) for one in lost]
    _write_dropped(folder / "dropped.parquet", lost)
    results: dict[str, Judged] = {}
    units = made = 0
    for group, (stock, _, looked) in zip(groups, found, strict=True):
        tests = [side.test.first(own.questions) for side, own in group]
        prompts = [asked(test) for test in tests]
        items = [item for own in prompts for item in own]
        grid = grid_of(config, stock, learner, items, general, _limit(config, group, plans))
        place = f"{_named(group)}: " if len(groups) > 1 else ""
        speed = Speed(**plans[group[0][0].target.name]["speed"])
        done, count = learned(
            folder / "units", grid, items, learner, general, config.keep, speed, report, place
        )
        units, made = units + len(grid.units), made + count
        first = 0
        for (side, _), test, own_prompts in zip(group, tests, prompts, strict=True):
            own = _answers(done, first, len(own_prompts))
            first += len(own_prompts)
            overlap = _overlap(side, looked)
            unread = _unread(learner, own_prompts, len(test.wordings))
            results[side.target.name] = judge(config, side.target, test, grid, own, overlap, unread)
    counts = {"all": units, "made": made, "reused": units - made}
    return together(config, results) | {"units": counts}


Group = Sequence[tuple[Side, Sizes]]
"""Targets that the same students are asked about."""


def _groups(config: ProveConfig, pairs: Group) -> list[Group]:
    """Return the targets by their students: each has its own, unless no arm learns from its passages."""
    return [[pair] for pair in pairs] if config.uses_pool else [pairs]


def _named(group: Group) -> str:
    return ", ".join(side.target.name for side, _ in group)


def _answers(done: Mapping[str, Mapping[str, Any]], first: int, count: int) -> dict[str, dict[str, Any]]:
    """Return the students with their answers to `count` prompts from the one numbered `first` on."""
    part = slice(first, first + count)
    return {key: {**unit, "answers": unit["answers"][part]} for key, unit in done.items()}


def _unread(learner: Learner, prompts: Sequence[Item], wordings: int) -> int:
    """Return how many questions are too long for the student in one wording or more: it does not answer."""
    lengths = learner.lengths([item.example for item in prompts])
    return len({i // wordings for i, length in enumerate(lengths) if isinstance(length, str)})


def _overlap(side: Side, looked: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    return {
        "passages": side.pool.read,
        "removed": dict(side.pool.overlap),
        "left": len(side.pool.kept),
        "rows": looked,
        "rule": RULE,
    }


def _limit(config: ProveConfig, group: Group, plans: Mapping[str, Mapping[str, Any]]) -> int:
    """Return how many given rows there is time for; 0: all, or passages limit what is learned."""
    most = (
        {name: plan.get("most", plan["sizes"])["passages"] for name, plan in plans.items()}
        if config.given
        else {}
    )
    cut = [own.passages for side, own in group if own.passages < most.get(side.target.name, 0)]
    return min(cut, default=0)


def _rows(
    folder: Path, config: ProveConfig, group: Group, learner: Learner, general: Probes, report: OnProgress
) -> tuple[dict[str, Stock], list[Lost], dict[str, dict[str, int]]]:
    """Return what each arm may learn, what is left out, and what was looked at (`stocks`)."""
    side, sizes = group[0]
    # Where rows are given, these are what a budget cuts, and passages are taken as far as they go.
    pool = side.pool.kept[: (config.passages or None) if config.given else sizes.passages]
    questions = [q for own, _ in group for q in own.test.questions]
    guard = side.guard if len(group) == 1 else Guard(questions, general.texts)
    made = None
    if config.makes:
        place = folder / side.target.name
        made = make(pool, config, side.target, side.test, place, folder / "ledger", report)
    found, lost, looked = stocks(pool, made, config, guard, learner.lengths)
    return found, [*side.pool.lost, *lost], looked


def _write_dropped(path: Path, lost: Sequence[tuple[str, Lost]]) -> None:
    rows = [(target, *one) for target, one in sorted(lost)]
    names = ("target", "arm", "id", "reason", "detail")
    columns = {name: pa.array([row[i] for row in rows], pa.string()) for i, name in enumerate(names)}
    write_parquet(path, pa.table(columns))
