"""Suites → tasks of the lm-eval harness: a YAML configuration and the rows with our exact prompts.

The prompts are ours to the byte, so a difference of scores is one of engine or extraction. It reads answers
by its own filters, which know fewer forms of an answer than `taskmill evaluate`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from taskmill.durable import atomic_write
from taskmill.errors import UsageError
from taskmill.evaluate.extract import EXTRACTORS, kind_of
from taskmill.recipes.evaluate.rows import Bench
from taskmill.suites import prompt

__all__ = ["export_lm_eval"]

_FILTERS = {
    "letter": (r"(?:answer is:?\s*|^\s*)\(?([A-Z])\)?", 0),
    "label": (r"(?i)(?:answer is:?\s*|^\s*)(\w+)", 0),
    "number": (r"(-?[0-9][0-9.,]*[0-9]|-?[0-9])", -1),
}
"""Kind of answer → (pattern of the harness's regex filter, which of its finds is taken)."""


def export_lm_eval(bench: Bench, k: int, folder: Path) -> Path:
    """Write FOLDER/taskmill_NAME.yaml and .jsonl for a suite, one row for each item; return the YAML's path.

    A ranked suite becomes `multiple_choice`, any other `generate_until`. The YAML names the rows' file as
    `folder` is written: run the harness in the same directory. Raises UsageError for items of several kinds.
    """
    suite, words = bench.suite, prompt(bench.suite.prompt)
    name = f"taskmill_{suite.name.replace('-', '_')}"
    rows = folder / f"{name}.jsonl"
    lines = []
    for item in bench.items:
        row: dict[str, Any] = {"id": item.id, "task": item.task}
        row["prompt"] = words.render(item, bench.before(item, k))
        row["target"] = item.targets[0].strip("()") if item.targets else ""
        if suite.ranked:
            row["choices"] = [suite.choice(item, i) for i in range(len(item.options))]
            row["gold"] = item.gold[0] if item.gold else 0
        lines.append(json.dumps(row, ensure_ascii=False))
    atomic_write(rows, ("\n".join(lines) + "\n").encode())
    config: dict[str, Any] = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(rows)}},
        "test_split": "test",
        "doc_to_text": "{{prompt}}",
        "target_delimiter": "",
        "num_fewshot": 0,
        **(_ranked() if suite.ranked else _generated(bench)),
        "metadata": {"version": suite.version, "prompt": f"{words.name}@{words.version}"},
    }
    path = folder / f"{name}.yaml"
    atomic_write(path, yaml.safe_dump(config, sort_keys=False, allow_unicode=True).encode())
    return path


def _metric(name: str, **more: Any) -> dict[str, Any]:
    return {"metric": name, "aggregation": "mean", "higher_is_better": True, **more}


def _ranked() -> Mapping[str, Any]:
    return {
        "output_type": "multiple_choice",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{gold}}",
        "metric_list": [_metric("acc"), _metric("acc_norm")],
    }


def _generated(bench: Bench) -> Mapping[str, Any]:
    kinds = {_kind(bench, task) for task in {item.task for item in bench.items}}
    if len(kinds) > 1:
        raise UsageError(
            f"suite {bench.suite.name} has answers of several kinds ({', '.join(sorted(kinds))}), which one "
            "configuration cannot read; lm-eval has its own tasks for it"
        )
    steps: list[dict[str, Any]] = [{"function": "take_first"}]
    if kinds <= set(_FILTERS):
        pattern, select = _FILTERS[next(iter(kinds))]
        steps.insert(0, {"function": "regex", "regex_pattern": pattern, "group_select": select})
    compared = {"ignore_case": True, "ignore_punctuation": False, "regexes_to_ignore": [",", r"\$", r"\.$"]}
    return {
        "output_type": "generate_until",
        "doc_to_target": "{{target}}",
        "generation_kwargs": {
            "until": list(prompt(bench.suite.prompt).stop),
            "do_sample": False,
            "max_gen_toks": bench.suite.max_tokens,
        },
        "filter_list": [{"name": "taskmill", "filter": steps}],
        "metric_list": [_metric("exact_match", **compared)],
    }


def _kind(bench: Bench, task: str) -> str:
    kind = EXTRACTORS.get(bench.suite.extractor).kind
    return kind or kind_of([t for i in bench.items if i.task == task for t in i.targets]).kind
