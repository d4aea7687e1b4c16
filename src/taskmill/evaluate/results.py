"""The marks of a suite's items → its results: each task, the averages with intervals, failures, coverage."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from taskmill.evaluate.averages import COVERAGE, Average, Task, normalised
from taskmill.evaluate.intervals import Interval, bootstrap, of_task
from taskmill.evaluate.marks import Metric
from taskmill.evaluate.ranking import auc, macro_f1

__all__ = ["Mark", "doubled", "robustness", "summary"]


@dataclass(frozen=True, slots=True)
class Mark:
    """The verdict on one item: what was read from the output by which rule ("": nothing), and its marks.

    `chance` is what guessing gives (None: not known), `mended` the mark against a corrected gold. `margin`:
    of an item of two classes, by how much the class `classes[0]` is likelier.
    """

    id: str
    task: str
    answer: str
    rule: str
    marks: Mapping[str, float]
    target: str = ""
    group: str = ""
    label: str = ""
    chance: float | None = None
    mended: float | None = None
    extra: Mapping[str, float] = field(default_factory=dict)
    margin: float | None = None
    classes: tuple[str, ...] = ()


def summary(
    marks: Sequence[Mark], metric: Metric, average: Average, *, confidence: float, seed: int
) -> dict[str, Any]:
    """Return the results of a suite as plain values that JSON can hold.

    `tasks`: accuracy and the metric's other marks of each task, with its interval, its items and its failed
    extractions; `averages`: each mean of each mark with its interval; `overall`: accuracy in the first of
    them. Intervals at `confidence`: Wilson's for a task, bootstraps of the items within tasks for averages.
    """
    by_task: dict[str, list[Mark]] = defaultdict(list)
    for mark in sorted(marks, key=lambda m: (m.task, m.id)):
        by_task[mark.task].append(mark)
    names = ["accuracy", *(name for name in metric.others if name != "macro_f1")]
    values = {n: {t: [m.marks[n] for m in own] for t, own in by_task.items()} for n in names}
    weights = average.means([Task(t, len(own), own[0].group) for t, own in by_task.items()])
    settings: dict[str, Any] = {"confidence": confidence, "seed": seed}
    averages = {
        kind: {n: bootstrap(values[n], share, name=n, **settings).rounded() for n in names}
        for kind, share in weights.items()
    }
    first = next(iter(averages))
    tasks = {}
    for task, own in by_task.items():
        interval = of_task(values["accuracy"][task], name=task, **settings)
        tasks[task] = _task(own, interval, {n: _mean(values[n][task]) for n in names}, metric)
    failed = sum(not mark.rule for mark in marks)
    found: dict[str, Any] = {
        "tasks": tasks,
        "overall": averages[first]["accuracy"]["mean"],
        "average": first,
        "headline": {"mark": metric.headline, **averages[first][metric.headline]},
        "averages": averages,
        "n": len(marks),
        "extraction_failures": failed,
        "extraction_failure_rate": round(failed / len(marks), 6),
        "rules": dict(sorted(Counter(mark.rule or "none" for mark in marks).items())),
        "chance": None if (guessing := _chance(by_task, weights[first])) is None else round(guessing, 6),
        "normalised": _normalised(by_task, values["accuracy"], weights[first]),
    }
    if average.name in COVERAGE:
        found["coverage"] = {"tasks": len(by_task), "of": COVERAGE[average.name]}
    if any(mark.label for mark in marks):
        found["labels"] = _labels(marks)
    return found


def _task(
    own: Sequence[Mark], interval: Interval, means: Mapping[str, float], metric: Metric
) -> dict[str, Any]:
    found: dict[str, Any] = {name: round(value, 6) for name, value in means.items()}
    found |= {
        "low": round(interval.low, 6),
        "high": round(interval.high, 6),
        "n": len(own),
        "extraction_failures": sum(not mark.rule for mark in own),
    }
    if "macro_f1" in metric.others:
        found["macro_f1"] = round(macro_f1([m.target for m in own], [m.answer for m in own]), 6)
        if (area := _auc(own)) is not None:
            found["auc"] = round(area, 6)
    if own[0].group:
        found["group"] = own[0].group
    for name in own[0].extra:
        found[name] = round(_mean([mark.extra[name] for mark in own]), 6)
    known = [mark.chance for mark in own if mark.chance is not None]
    if len(known) == len(own):
        found["chance"] = round(_mean(known), 6)
    return found


def _auc(own: Sequence[Mark]) -> float | None:
    """Return the area under the ROC curve of a task of two classes, None for any other task."""
    classes = {mark.classes for mark in own}
    margins = [mark.margin for mark in own if mark.margin is not None]
    if len(classes) != 1 or len(margins) != len(own):
        return None
    (known,) = classes
    return auc(margins, [mark.target == known[0] for mark in own])


def _chance(by_task: Mapping[str, Sequence[Mark]], weights: Mapping[str, float]) -> float | None:
    """Return what guessing scores in a weighted mean of the tasks; None where it is unknown for an item."""
    total = 0.0
    for task, share in weights.items():
        known = [mark.chance for mark in by_task[task] if mark.chance is not None]
        if len(known) < len(by_task[task]):
            return None
        total += share * _mean(known)
    return total


def _normalised(
    by_task: Mapping[str, Sequence[Mark]], values: Mapping[str, Sequence[float]], weights: Mapping[str, float]
) -> float | None:
    """Return the weighted mean of the tasks' scores above their own chance; None where that is unknown."""
    total = 0.0
    for task, share in weights.items():
        guessing = _chance(by_task, {task: 1.0})
        if guessing is None:
            return None
        total += share * normalised(_mean(values[task]), guessing)
    return round(total, 4)


def _labels(marks: Sequence[Mark]) -> dict[str, Any]:
    """Return accuracy by what annotators found (MMLU-Redux), and over items whose gold is right.

    `error_aware`: items found in order, and those whose gold the annotators could correct, against the
    corrected gold; all others are left out.
    """
    by_label: dict[str, list[float]] = defaultdict(list)
    for mark in marks:
        by_label[mark.label].append(mark.marks["accuracy"])
    sound = [m.marks["accuracy"] for m in marks if m.label == "ok"]
    corrected = [m.mended for m in marks if m.mended is not None]
    aware = sound + corrected
    return {
        "by_label": {k: {"n": len(v), "accuracy": round(_mean(v), 6)} for k, v in sorted(by_label.items())},
        "ok": round(_mean(sound), 6) if sound else None,
        "error_aware": round(_mean(aware), 6) if aware else None,
        "error_aware_n": len(aware),
    }


def doubled(options: Sequence[str]) -> set[str]:
    """Return the texts that stand more than once among the options of an item."""
    return {text for text, n in Counter(option.strip() for option in options).items() if n > 1}


def robustness(overalls: Sequence[float]) -> dict[str, Any]:
    """Return mean, worst and spread (best less worst) of a score over phrasings of the prompt."""
    return {
        "phrasings": len(overalls),
        "each": list(overalls),
        "mean": round(_mean(overalls), 6),
        "worst": min(overalls),
        "spread": round(max(overalls) - min(overalls), 6),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
