"""Replies → marks and the rows of the log: extraction and voting, or ranking."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pyarrow as pa

from taskmill.evaluate.extract import EXTRACTORS, Answer
from taskmill.evaluate.marks import grade
from taskmill.evaluate.ranking import MODES, choose, weighed
from taskmill.evaluate.results import Mark
from taskmill.evaluate.votes import maj_at, majority
from taskmill.recipes.evaluate.asking import BLANK, CUE, Replies, choices_of, shots
from taskmill.recipes.evaluate.config import EvaluateConfig
from taskmill.recipes.evaluate.outputs import metric_of, wanted_by_task
from taskmill.recipes.evaluate.rows import Bench
from taskmill.suites import Item, get, prompt
from taskmill.suites.base import letter

__all__ = ["ITEM_SCHEMA", "Judged", "judge"]

ITEM_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("suite", "id", "task")),
        ("phrasing", pa.int32()),
        ("sample", pa.int32()),
        *((name, pa.string()) for name in ("prompt", "output", "finish", "answer", "rule", "span")),
        ("target", pa.list_(pa.string())),
        *((name, pa.float64()) for name in ("accuracy", "f1", "rouge_l")),
    ]
)
"""One row for each output: the prompt, what came, which rule read what in it, and its marks."""


Judged = tuple[list[Mark], list[dict[str, Any]], dict[str, Any]]
"""Marks of the answered items, rows of the log, and what else is said of the suite."""


def judge(bench: Bench, replies: Replies, phrasing: int, config: EvaluateConfig) -> Judged:
    """Judge the answered items of a suite in one wording."""
    read = _ranked if bench.suite.ranked else _graded
    return read(bench, replies, phrasing, config)


def _graded(bench: Bench, replies: Replies, phrasing: int, config: EvaluateConfig) -> Judged:
    suite = bench.suite
    extractor, metric = EXTRACTORS.get(suite.extractor), metric_of(suite)
    wanted = wanted_by_task(suite, [i.task for i in bench.items], [i.targets for i in bench.items])
    words, k = prompt(suite.prompt), shots(bench, config)
    marks, rows, votes = [], [], defaultdict(list)
    for at, item in enumerate(bench.items):
        own = replies.get((at, phrasing), {})
        if len(own) < config.samples:
            continue  # unanswered: asked again by the same command
        looked = wanted[item.task]._replace(options=item.options)
        read = [grade(own[s].text, item.targets, extractor, metric, looked) for s in range(config.samples)]
        text = words.render(item, bench.before(item, k), phrasing)
        for sample, (found, given) in enumerate(read):
            rows.append(
                {**_place(suite.name, item, phrasing), "sample": sample, "prompt": text,
                 "output": own[sample].text, "finish": own[sample].finish, **found._asdict(), **given}
            )  # fmt: skip
        chosen = 0
        if config.samples > 1:
            answers, right = [f.answer for f, _ in read], [m["accuracy"] == 1 for _, m in read]
            best = majority(answers)
            chosen = answers.index(best) if best else 0
            for votes_of in _powers(config.samples):
                votes[votes_of].append(maj_at(votes_of, answers, right))
        marks.append(_mark(item, *read[chosen], own[chosen].text, looked, suite.name))
    shown = {f"maj@{n}": round(sum(v) / len(v), 6) for n, v in votes.items()}
    return (
        marks,
        rows,
        {"votes": {"samples": config.samples, "ties": "first output", **shown}} if shown else {},
    )


def _mark(item: Item, found: Any, given: Any, output: str, looked: Answer, suite: str) -> Mark:
    mended = None
    if item.mended:
        own = get(suite)
        mended = grade(output, item.mended, EXTRACTORS.get(own.extractor), metric_of(own), looked)[1][
            "accuracy"
        ]
    return Mark(
        item.id, item.task, found.answer, found.rule, given, item.targets[0] if item.targets else "",
        item.group, item.label, _chance(item), mended,
    )  # fmt: skip


def _chance(item: Item) -> float:
    return max(1, len(item.gold)) / len(item.options) if item.options else 0.0


def _powers(most: int) -> list[int]:
    """Return 1, 2, 4, … and `most`."""
    return sorted({*(2**i for i in range(most.bit_length()) if 2**i <= most), most})


def _ranked(bench: Bench, replies: Replies, phrasing: int, config: EvaluateConfig) -> Judged:
    suite = bench.suite
    headline = config.normalise or suite.normalise
    words, k = prompt(suite.prompt), shots(bench, config)
    marks, rows = [], []
    ties: dict[str, int] = dict.fromkeys(MODES, 0)
    right: dict[str, int] = dict.fromkeys(MODES, 0)
    for at, item in enumerate(bench.items):
        own = replies.get((at, phrasing), {})
        read = {part: weighed(c) for part, c in own.items()}
        asked, cue, blank = (read.get(part) for part in (0, CUE, BLANK))
        if asked is None or cue is None or blank is None:
            continue
        choices = choices_of(bench, item, config)
        found = {mode: choose(mode, asked, choices, cue, blank) for mode in MODES}
        for mode, one in found.items():
            ties[mode] += one.tied
            right[mode] += one.option in item.gold
        pick = found[headline].option
        given = {"accuracy": float(pick in item.gold)}
        mended = float(f"({letter(pick)})" in item.mended) if item.mended else None
        gold = item.options[item.gold[0]] if item.gold else ""
        marks.append(
            Mark(item.id, item.task, item.options[pick], headline, given, gold, item.group, item.label,
                 _chance(item), mended, margin=found[headline].margin, classes=item.options)
        )  # fmt: skip
        rows.append(
            {**_place(suite.name, item, phrasing), "sample": 0,
             "prompt": words.render(item, bench.before(item, k), phrasing), "output": own[0].text,
             "finish": own[0].finish, "answer": item.options[pick], "rule": headline,
             "span": choices[pick], **given}
        )  # fmt: skip
    n = max(1, len(marks))
    modes = {mode: {"accuracy": round(right[mode] / n, 6), "ties": ties[mode]} for mode in MODES}
    return marks, rows, {"normalise": headline, "by_normalisation": modes}


def _place(suite: str, item: Item, phrasing: int) -> dict[str, Any]:
    return {
        "suite": suite,
        "id": item.id,
        "task": item.task,
        "phrasing": phrasing,
        "target": list(item.targets),
    }
