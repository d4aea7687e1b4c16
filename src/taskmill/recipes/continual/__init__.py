"""Learning in stages: what each replay strategy forgets, and what it gains.

One adapter is trained through the stages, one after another; at each, rows of earlier tasks are mixed in as a
strategy chooses them, at an equal number of tokens. After each stage the student answers unseen tasks (Test),
held-out rows of the stage (Holdout) and of the stages before it (Previous), scored by ROUGE-L.

    DIR/  plan.json       what is trained, and the time it takes as measured here
          replay.json     the tasks each strategy replays at each stage, by seed
          units/KEY/      one stage of one student: unit.json has its answers and marks and is written last
          result.json, report.html

A unit's key is a hash of what it is trained on, how, and after which unit. So the strategies of a seed share
its first stage, a killed run goes on with the unit it was at, and more strategies use what is there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from taskmill.config import to_mapping
from taskmill.recipes.continual.config import ContinualConfig
from taskmill.recipes.continual.evidence import judged
from taskmill.recipes.continual.rows import Data, read
from taskmill.recipes.continual.units import Tree, laid_out, learned, seconds, tried
from taskmill.recipes.session import OnProgress, Progress, ignore
from taskmill.recipes.students import Learner, Speed, measured
from taskmill.recipes.tables import check_out
from taskmill.report.continual import write_continual_report
from taskmill.store import Run, write_json

__all__ = ["ContinualConfig", "continual"]

Array = np.ndarray[Any, Any]


def continual(
    config: ContinualConfig,
    out: str | Path,
    on_progress: OnProgress | None = None,
    *,
    student: Learner | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Run the experiment in folder `out`, or go on with it, and return what result.json holds.

    With `dry_run` return the plan and its time only; a small training measures the speed for it.

    Raises UsageError, InputError, MissingExtra or BackendError before anything is trained, RunFolderError if
    the folder is in use or holds something else.
    """
    report, began = on_progress or ignore, time.monotonic()
    with Run(check_out(out, [*config.stages, *config.test], "grow continual")) as run:
        learner = student or _student(config)
        report(Progress("read rows"))
        data = read(config, learner.lengths)
        tree = laid_out(config, data, learner)
        report(Progress("measure the speed"))
        speed = measured(run.path, learner, *tried(data), config.train.seed)
        plan = _plan(config, data, tree, learner, speed)
        write_json(run.path / "plan.json", plan)
        if dry_run:
            return plan
        for name in ("result.json", "report.html"):
            (run.path / name).unlink(missing_ok=True)  # an older result must not stand beside new units
        write_json(run.path / "replay.json", _replays(config, tree))
        done, made = learned(run.path / "units", tree, data, learner, speed, report)
        marks = {
            name: [_marks(data, tree, done, [path[s] for path in paths]) for s in range(len(data.train))]
            for name, paths in tree.paths.items()
        }
        base = _marks(data, tree, done, [tree.base])
        record = plan | judged(marks, base, config.confidence, config.train.seed)
        record["units"] = {"all": len(tree.units), "made": made, "reused": len(tree.units) - made}
        record["seconds"] = {
            "students": round(sum(unit["all_s"] for unit in done.values()), 1),
            "session": round(time.monotonic() - began, 1),
        }
        write_json(run.path / "result.json", record)
        write_continual_report(run.path / "report.html", record)
        return record


def _student(config: ContinualConfig) -> Learner:
    from taskmill.train.student import Student

    return Student(config.recipe, config.layout, "sum", config.max_new_tokens)


def _plan(config: ContinualConfig, data: Data, tree: Tree, learner: Learner, speed: Speed) -> dict[str, Any]:
    return {
        "command": "grow continual",
        "config": to_mapping(config),
        "student": learner.name,
        "rows": dict(data.counts),
        "replay_tokens": [0, *(config.replay.limit(n) for n in data.counts["tokens"][1:])],
        "speed": speed._asdict(),
        "units": {"all": len(tree.units)},
        "estimate_s": round(seconds(tree.units.values(), speed), 1),
    }


def _replays(config: ContinualConfig, tree: Tree) -> dict[str, Any]:
    """Return strategy → for each seed and stage the replayed tasks, and how many rows and tokens are read."""
    return {
        name: {
            str(config.train.seed + i): [
                {"tasks": list(u.replay), "rows": len(u.rows), "read": u.read, "times": round(u.times, 4)}
                for u in (tree.units[key] for key in path)
            ]
            for i, path in enumerate(paths)
        }
        for name, paths in tree.paths.items()
    }


def _marks(
    data: Data, tree: Tree, done: Mapping[str, Mapping[str, Any]], keys: list[str]
) -> dict[str, Array]:
    """Return "test" and the number of each stage scored → marks of these units (float64 [seeds, items])."""
    stage = tree.units[keys[0]].stage
    held = range(len(data.held)) if stage < 0 else range(stage + 1)
    sizes = {"test": len(data.test)} | {str(s): len(data.held[s]) for s in held}
    whole, found, at = np.array([done[key]["marks"] for key in keys], np.float64), {}, 0
    for name, size in sizes.items():
        found[name] = whole[:, at : at + size]
        at += size
    return found
