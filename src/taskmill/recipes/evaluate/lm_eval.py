"""Suites → tasks of the lm-eval harness: a YAML configuration and the rows with our exact prompts.

The prompts are ours to the byte, so a difference of scores is one of engine or extraction. It reads answers
by its own filters, which know fewer forms of an answer than `taskmill evaluate`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from taskmill.durable import atomic_write
from taskmill.evaluate.extract import EXTRACTORS, kind_of
from taskmill.evaluate.marks import is_letter
from taskmill.recipes.evaluate.rows import Bench
from taskmill.suites import Item, prompt

__all__ = ["export_lm_eval"]

_FILTERS = {
    "letter": (r"(?:answer is:?\s*|^\s*)\(?([A-Z])\)?", 0),
    "label": (r"(?i)(?:answer is:?\s*|^\s*)(\w+)", 0),
    "number": (r"(-?[0-9][0-9.,]*[0-9]|-?[0-9])", -1),
    "brackets": (r"([()\[\]{}<>](?:\s*[()\[\]{}<>])*)", 0),
    "words": (r"\A\s*([^\n]+)", 0),
    "span": (r"\A\s*([^\n]+)", 0),
}
"""Kind of answer → (pattern of the harness's regex filter, which of its finds is taken)."""

_FILTER = "taskmill"
"""Name of the harness's filter, which its results are listed under."""


def export_lm_eval(bench: Bench, k: int, folder: Path) -> list[Path]:
    """Write FOLDER/taskmill_NAME.yaml and .jsonl for a suite, one row for each item; return the YAMLs' paths.

    A ranked suite becomes `multiple_choice`, any other `generate_until`. A suite with answers of several
    kinds becomes a task for each kind, taskmill_NAME_KIND, and the group taskmill_NAME of them, which is
    first. The YAML names the rows' file as `folder` is written: run the harness in the same directory.
    """
    name = f"taskmill_{bench.suite.name.replace('-', '_')}"
    if bench.suite.ranked:
        return [_task(name, bench, bench.items, k, folder, _ranked())]
    kinds = {task: _kind(bench, task) for task in sorted({item.task for item in bench.items})}
    by_kind = {
        kind: [item for item in bench.items if kinds[item.task] == kind] for kind in sorted({*kinds.values()})
    }
    if len(by_kind) == 1:
        ((kind, items),) = by_kind.items()
        return [_task(name, bench, items, k, folder, _generated(bench, kind))]
    paths = [
        _task(f"{name}_{kind}", bench, items, k, folder, _generated(bench, kind))
        for kind, items in by_kind.items()
    ]
    mean = {"metric": "exact_match", "aggregation": "mean", "weight_by_size": True, "filter_list": _FILTER}
    group = {"group": name, "task": [path.stem for path in paths], "aggregate_metric_list": [mean]}
    return [_yaml(folder / f"{name}.yaml", group), *paths]


def _task(
    name: str, bench: Bench, items: Sequence[Item], k: int, folder: Path, asked: Mapping[str, Any]
) -> Path:
    suite, words = bench.suite, prompt(bench.suite.prompt)
    rows = folder / f"{name}.jsonl"
    lines = []
    for item in items:
        row: dict[str, Any] = {"id": item.id, "task": item.task}
        row["prompt"] = words.render(item, bench.before(item, k))
        target = item.targets[0] if item.targets else ""
        row["target"] = target.strip("()") if is_letter(target) else target
        if suite.ranked:
            row["choices"] = [suite.choice(item, i) for i in range(len(item.options))]
            row["gold"] = item.gold[0] if item.gold else 0
        lines.append(json.dumps(row, ensure_ascii=False))
    atomic_write(rows, ("\n".join(lines) + "\n").encode())
    return _yaml(
        folder / f"{name}.yaml",
        {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(rows)}},
            "test_split": "test",
            "doc_to_text": "{{prompt}}",
            "target_delimiter": "",
            "num_fewshot": 0,
            **asked,
            "metadata": {"version": suite.version, "prompt": f"{words.name}@{words.version}"},
        },
    )


def _yaml(path: Path, config: Mapping[str, Any]) -> Path:
    atomic_write(path, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True).encode())
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


def _generated(bench: Bench, kind: str) -> Mapping[str, Any]:
    steps: list[dict[str, Any]] = [{"function": "take_first"}]
    if kind in _FILTERS:
        pattern, select = _FILTERS[kind]
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
        "filter_list": [{"name": _FILTER, "filter": steps}],
        "metric_list": [_metric("exact_match", **compared)],
    }


def _kind(bench: Bench, task: str) -> str:
    kind = EXTRACTORS.get(bench.suite.extractor).kind
    return kind or kind_of([t for i in bench.items if i.task == task for t in i.targets]).kind
