"""results.json of an evaluation → report.html: scores with their intervals, on one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from taskmill.durable import atomic_write
from taskmill.report.page import render
from taskmill.report.words import cut

__all__ = ["write_evaluation_report"]

_PROMPT = 4000
"""Characters of a prompt that are shown: a few-shot prompt's two ends say what it is."""


def write_evaluation_report(out: Path, results: Mapping[str, Any]) -> Path:
    """Write OUT/report.html and return its path."""
    suites = [_suite(name, one) for name, one in results["suites"].items()]
    average = results.get("normalised_average")
    slots: dict[str, object] = {
        "name": out.resolve().name,
        "model": results["model"],
        "exit": results["exit"],
        "suites": suites,
        "normalised_average": "" if average is None else f"{average:.1f}",
        "calls": results["calls"],
    }
    path = out / "report.html"
    atomic_write(path, render("evaluation.html.j2", slots).encode())
    return path


def _suite(name: str, one: Mapping[str, Any]) -> dict[str, Any]:
    """Return a suite as the page shows it: scores in percent, bars in percent of their frame."""
    lines = [
        _line(task, own, own["accuracy"], f"{own['extraction_failures']}")
        for task, own in one["tasks"].items()
    ]
    means = [
        _line(f"{kind.replace('_', ' ')}: {mark}", own, own["mean"], "")
        for kind, marks in one.get("averages", {}).items()
        for mark, own in marks.items()
    ]
    text = one["first_prompt"]
    marks = {
        mark: {task: own[mark] for task, own in one["tasks"].items() if mark in own}
        for mark in ("macro_f1", "auc")
    }
    return {
        "name": name,
        "title": one["title"],
        "n": one["n"],
        "unanswered": one["unanswered"],
        "failure_rate": _percent(one.get("extraction_failure_rate")),
        "normalised": "–" if one.get("normalised") is None else f"{one['normalised']:.1f}",
        "overall": _percent(one["overall"]),
        "tasks": lines,
        "means": means,
        "rules": one.get("rules", {}),
        "versions": one["versions"],
        "more": {
            key: one[key]
            for key in ("shots", "coverage", "robustness", "votes", "by_normalisation", "labels")
            if key in one
        }
        | {mark: of_tasks for mark, of_tasks in marks.items() if of_tasks},
        "prompt": cut(text, _PROMPT),
    }


def _line(title: str, own: Mapping[str, Any], score: float, failures: str) -> dict[str, Any]:
    return {
        "title": title,
        "score": _percent(score),
        "low": _percent(own["low"]),
        "high": _percent(own["high"]),
        "x": round(100 * score, 2),
        "from": round(100 * own["low"], 2),
        "width": round(100 * (own["high"] - own["low"]), 2),
        "n": own.get("n", ""),
        "failures": failures,
        "chance": "" if own.get("chance") is None else _percent(own["chance"]),
    }


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"
