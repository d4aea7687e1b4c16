"""The verify stage: a model answers and judges the accepted examples; scores are stored, then decided on."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pyarrow.parquet as pq

from taskmill import frame
from taskmill.backends import ModelConfig
from taskmill.caller import Caller
from taskmill.config import to_mapping
from taskmill.curate.verify import CHECKS, SCORE_SCHEMA, Score, Thresholds, applies, decide, questions, score
from taskmill.errors import ConfigError
from taskmill.recipes.session import Progress, Session
from taskmill.recipes.stages import EXAMPLE_KEYS, INVISIBLE, ModelAccess, stage_key
from taskmill.record import EXAMPLE_SCHEMA, Dropped, Example, Reason, examples
from taskmill.registry import nearest
from taskmill.store import SortedParts, StageWriter, parts, read_json

__all__ = ["VerifyConfig", "ask", "known", "verify"]


@dataclass(frozen=True, slots=True)
class VerifyConfig:
    """Which checks by a model are made, by which model, and from which score on they pass."""

    checks: tuple[str, ...] = field(
        default=(),
        metadata={"help": f"checks by a model: {', '.join(CHECKS)}; default: none", "flag": "verify"},
    )
    ref: str = field(
        default="openvino:smollm2-135m",
        metadata={"help": "the model that answers and judges", "flag": "verify-model"},
    )
    limits: Thresholds = field(default_factory=Thresholds)

    def __post_init__(self) -> None:
        known(self.checks)


def known(checks: Iterable[str]) -> None:
    """Raise ConfigError for a check that does not exist."""
    unknown = next((c for c in checks if c not in CHECKS), None)
    if unknown is not None:
        raise ConfigError(f"no check {unknown!r}.{nearest(unknown, CHECKS)} There are: {', '.join(CHECKS)}")


def verify(
    session: Session, curated: str, config: VerifyConfig, model: ModelConfig, access: ModelAccess, target: int
) -> None:
    """Ask the verifying model about every accepted example and keep those that pass.

    `4-verify/scores` holds every score with the answer it was given for. Failed calls leave the stage
    unfinished: the same command makes them again.
    """
    folder = session.run.stage(4, "verify")
    asked = {k: v for k, v in to_mapping(model).items() if k not in INVISIBLE}
    scored = stage_key("verify scores", curated, list(config.checks), asked)
    key = stage_key("verify", scored, to_mapping(config.limits), target)
    marker = session.run.finished(folder, key)
    if marker is None:
        source = session.run.stage(3, "curate") / "kept"
        stored = _stored(session, scored)
        session.run.begin(folder)
        own = ModelAccess(model, access.budget, access.ledger, access.home)
        caller = own.open(session, writes=False)
        with caller.ledger:
            found = stored or _scores(session, caller, source, config.checks)
            caller.ledger.sync()
            before = session.manifest["calls"]
            session.book(caller)
            own_calls = session.manifest["calls"]
            session.manifest["calls"] = {
                **own_calls, **{k: before[k] + own_calls[k] for k in ("made", "reused", "failed")}
            }  # fmt: skip
        marker = _decide(folder, source, found, config, target, (key, scored), caller)
    session.manifest["funnel"]["verify"] = marker["funnel"]
    session.manifest["stopped"] = session.manifest["stopped"] or marker["stopped"]
    for task, entry in session.manifest["tasks"].items():
        entry["accepted"] = marker["accepted"].get(task, 0)
        entry["dropped"] = dict(Counter(entry["dropped"]) + Counter(marker["reasons"].get(task, {})))
    session.manifest["licences"] = marker["licences"]
    session.manifest["verify"] = {"model": marker["model"], "checks": marker["checks"]}


def _stored(session: Session, scored: str) -> dict[str, dict[str, Score]]:
    """Return the scores of an earlier session of the same examples, checks and model: no call is needed."""
    folder = session.run.stage(4, "verify")
    if read_json(folder / "stage.json").get("scored") != scored:
        return {}
    found: dict[str, dict[str, Score]] = defaultdict(dict)
    for path in parts(folder / "scores"):
        for row in pq.read_table(path).to_pylist():
            found[row["id"]][row["filter"]] = Score(**row)
    return {} if any(s.failed for own in found.values() for s in own.values()) else found


def _scores(
    session: Session, caller: Caller, source: Any, checks: tuple[str, ...]
) -> dict[str, dict[str, Score]]:
    with closing(frame.scan(parts(source), EXAMPLE_SCHEMA)) as tables:
        return ask(session, caller, (e for t in tables for e in examples(t)), checks)


def ask(
    session: Session,
    caller: Caller,
    rows: Iterable[Example],
    checks: tuple[str, ...],
    *,
    total: int | None = None,
    longest: int = 0,
) -> dict[str, dict[str, Score]]:
    """Ask about all rows, as far as the budget goes, and return the scores: id → check → score.

    `total` rows are expected, for the progress; `longest` is that of `curate.verify.questions`.
    """
    found: dict[str, dict[str, Score]] = defaultdict(dict)
    model = caller.backend.model
    asked = (question for row in rows for question in questions(model, checks, row, longest))
    for question, completion in caller.answers(asked):
        given = score(question, completion)
        found[given.id][given.filter] = given
        budget = caller.budget
        tokens = budget.prompt_tokens + budget.completion_tokens
        session.tick(
            Progress("verify", len(found), total, 0, 0, caller.made, caller.reused, tokens, budget.cost)
        )
    return found


def _decide(
    folder: Any,
    source: Any,
    scores: dict[str, dict[str, Score]],
    config: VerifyConfig,
    target: int,
    keys: tuple[str, str],
    caller: Caller,
) -> dict[str, Any]:
    writer = StageWriter(folder, EXAMPLE_SCHEMA, EXAMPLE_KEYS)
    kept_scores = SortedParts(folder / "scores", SCORE_SCHEMA, ("id", "filter"))
    accepted: Counter[str] = Counter()
    licences: Counter[str] = Counter()
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    checks: dict[str, Counter[str]] = defaultdict(Counter)
    with closing(frame.scan(parts(source), EXAMPLE_SCHEMA)) as tables:
        for example in (e for t in tables for e in examples(t)):
            own = scores.get(example.id, {})
            kept_scores.add(list(own.values()))
            lost = _verdict(example, own, config, target, accepted)
            writer.count(1)
            if lost is None:
                accepted[example.task] += 1
                licences[example.source.licence] += 1
                writer.keep([example])
            else:
                writer.drop([lost])
                reasons[example.task][str(lost.reason)] += 1
            for check, given in own.items():
                checks[check]["asked"] += 1
                checks[check]["failed"] += given.failed
                checks[check]["unreadable"] += given.unreadable
    kept_scores.finish()
    whole = not caller.stopped and not caller.failed
    return writer.finish(
        keys[0] if whole else f"unfinished {keys[0]}",
        scored=keys[1] if whole else "",
        stopped=caller.budget.reason if caller.stopped else "",
        model=caller.backend.model,
        checks={c: dict(n) for c, n in sorted(checks.items())},
        accepted=dict(accepted),
        reasons={task: dict(sorted(c.items())) for task, c in sorted(reasons.items())},
        licences=dict(sorted(licences.items())),
    )


def _verdict(
    example: Example, own: dict[str, Score], config: VerifyConfig, target: int, accepted: Counter[str]
) -> Dropped | None:
    missing = next((c for c in config.checks if applies(c, example) and c not in own), None)
    if missing:
        return Dropped(example, "verify", Reason.CALL_FAILED, f"{missing}: the question was not asked")
    lost = decide(example, own, config.limits)
    if lost is not None:
        return Dropped(example, "verify", *lost)
    if target and accepted[example.task] >= target:
        return Dropped(example, "target", Reason.OVER_TARGET, f"{target} were asked for and are kept")
    return None
