"""taskmill and the lm-eval harness ask the same model the same items: equal answers, and the time each takes.

    python -m benchmarks evaluation --data FOLDER --model MODEL --python PATH [--limit 100] [--save]

`taskmill evaluate --lm-eval` writes two sets of items of BIG-Bench Hard as tasks of the harness: the letter
tasks, each option's text ranked by its likelihood (suite `choice`, no solved questions), and the suite `bbh`
as it is, answered in words. Both sides then load MODEL, a folder of transformers, in float32 with batches of
eight, and answer them: each side a fresh process. PATH is a Python with torch, transformers, lm-eval and
taskmill. Compared are the likelihoods, the option of the highest, and the generated texts, item by item.

Without --model, the weights of the embedded model are unpacked to a folder first.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import Measured, measure, save, write_table

PAGE = Path(__file__).parents[1] / "docs" / "evaluate.md"
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
BATCH = 8
"""Prompts a batch: what taskmill's transformers backend takes."""
UNPACK = """
import sys
from taskmill.train.base import find, load_model, load_tokenizer
from taskmill.train.config import TrainConfig
base = find("smollm2-135m")
model = load_model(base, TrainConfig(), "fp32", "cpu")
if hasattr(model.config, "quantization_config"):
    del model.config.quantization_config  # of the packed weights; these are not
model.config.use_cache = True
model.save_pretrained(sys.argv[1])
load_tokenizer(base).save_pretrained(sys.argv[1])
"""
"""The embedded GGUF file → a folder that transformers, and so the harness, loads as float32."""


def letter_tasks(data: Path, out: Path) -> Path:
    """Write the items of BIG-Bench Hard whose gold is a letter as a table of choices; return its path."""
    from taskmill.recipes.evaluate.rows import load
    from taskmill.suites import get

    rows = [
        {"task": i.task, "question": i.fields["question"], "options": list(i.options), "answer": i.gold[0]}
        for i in load(get("bbh"), str(data)).items
        if i.gold and i.targets[0].startswith("(") and len(set(i.options)) == len(i.options) > 1
    ]
    out.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return out


def both(suite: str, given: argparse.Namespace, source: Path, work: Path) -> dict[str, Any]:
    """Run one suite on both sides and compare them item by item."""
    asked = ["--suite", suite, "--data", str(source), "--limit", str(given.limit)]
    ours = [given.python, "-m", "taskmill", "evaluate", *asked]
    model = str(given.model.resolve())
    exported = _done(measure([*ours, "--lm-eval", "harness"], cwd=work))
    name = Path(exported.out.splitlines()[0]).stem
    own = _done(
        measure(
            [*ours, "--model", f"transformers:{model}", "--out", str(work / suite)],
            env=OFFLINE, cwd=work, timeout=3600,
        )
    )  # fmt: skip
    harness = [
        given.python, "-m", "lm_eval", "run", "--model", "hf", "--model_args",
        f"pretrained={model},dtype=float32", "--tasks", name, "--include_path", "harness", "--device", "cpu",
        "--batch_size", str(BATCH), "--output_path", f"log-{suite}", "--log_samples",
    ]  # fmt: skip
    cache = {"HF_HOME": str(work / "cache"), **OFFLINE}
    theirs = _done(measure(harness, env=cache, cwd=work, timeout=3600))
    log = _harness_log(work / f"log-{suite}")
    rows = _own_log(work / suite)
    found = _ranked(rows, log) if suite == "choice" else _generated(rows, log)
    return {
        "items": len(rows),
        **found,
        "taskmill": _time(own, len(rows)),
        "lm-eval": _time(theirs, len(log)),
        "cpu_ratio": round(theirs.cpu_seconds / own.cpu_seconds, 2),
    }


def _done(run: Measured) -> Measured:
    if run.code:
        sys.exit(f"exit code {run.code}:\n{run.err[-2000:]}")
    return run


def _time(run: Measured, items: int) -> dict[str, float]:
    return {
        "seconds": round(run.seconds, 1),
        "cpu_seconds": round(run.cpu_seconds, 1),
        "items_per_s": round(items / run.seconds, 2),
        "items_per_cpu_s": round(items / run.cpu_seconds, 2),
        "peak_mb": round(run.peak_mb),
        "load": run.load,
    }


def _own_log(folder: Path) -> dict[str, dict[str, Any]]:
    import pyarrow.parquet as pq

    return {row["id"]: row for row in pq.read_table(folder / "items.parquet").to_pylist()}


def _harness_log(folder: Path) -> dict[str, dict[str, Any]]:
    files = sorted(folder.rglob("samples_*.jsonl"))
    rows = [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]
    return {row["doc"]["id"]: row for row in rows}


def _ranked(own: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Compare the likelihoods of all options and the likeliest one."""
    gap, same, right = 0.0, 0, [0, 0]
    other = []
    for key, row in own.items():
        mine = json.loads(row["output"])[0]
        log = theirs[key]
        # One (log-likelihood, is greedy) for each option, as text in the harness's log.
        their = [float(pair[0]) for pair in log["filtered_resps"]]
        gap = max(gap, max(abs(a - b) for a, b in zip(mine, their, strict=True)))
        picks = [max(range(len(v)), key=v.__getitem__) for v in (mine, their)]
        same += picks[0] == picks[1]
        other += [key] if picks[0] != picks[1] else []
        right = [n + (pick == log["doc"]["gold"]) for n, pick in zip(right, picks, strict=True)]
    return {
        "same_answer": same,
        "largest_difference_of_log_likelihoods": round(gap, 6),
        "right": {"taskmill": right[0], "lm-eval": right[1]},
        "different": other,
    }


def _generated(own: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Compare the texts, and what either side reads in them."""
    texts = same = 0
    right = [0, 0]
    apart: list[dict[str, Any]] = []
    for key, row in own.items():
        log = theirs[key]
        said = log["resps"][0][0]
        texts += said.strip() == row["output"].strip()
        marks = [bool(row["accuracy"]), bool(log["exact_match"])]
        right = [n + mark for n, mark in zip(right, marks, strict=True)]
        same += marks[0] == marks[1]
        if marks[0] != marks[1] or said.strip() != row["output"].strip():
            apart.append(
                {"id": key, "taskmill": row["output"], "rule": row["rule"], "lm-eval": said,
                 "read by lm-eval": log["filtered_resps"][0], "right": marks}
            )  # fmt: skip
    return {
        "same_text": texts,
        "same_verdict": same,
        "right": {"taskmill": right[0], "lm-eval": right[1]},
        "different": apart,
    }


def table(suites: Mapping[str, Any]) -> str:
    """Return the Markdown table of both suites."""
    lines = [
        "| BIG-Bench Hard | same | right: taskmill, lm-eval | items a CPU second: taskmill, lm-eval |",
        "|---|---|---|---|",
    ]
    for name, own in suites.items():
        if name == "choice":
            gap = own["largest_difference_of_log_likelihoods"]
            title = "letter tasks, options ranked by their likelihood"
            same = f"{own['same_answer']} of {own['items']} options; likelihoods within {gap:.1g}"
        else:
            title = "all tasks, 3 shots, generated"
            same = f"{own['same_text']} of {own['items']} texts, {own['same_verdict']} verdicts"
        right = ", ".join(str(own["right"][side]) for side in ("taskmill", "lm-eval"))
        pace = ", ".join(f"{own[side]['items_per_cpu_s']:g}" for side in ("taskmill", "lm-eval"))
        lines.append(f"| {title} | {same} | {right} | {pace} |")
    return "\n".join(lines)


def main(options: Sequence[str] | None = None) -> None:
    """Run both sides and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with bbh.parquet in benchmarks/")
    parser.add_argument("--model", type=Path, help="folder of a transformers model")
    parser.add_argument("--python", default=sys.executable, help="interpreter with torch and lm-eval")
    parser.add_argument("--limit", type=int, default=100, help="items of each suite")
    parser.add_argument("--save", action="store_true")
    given = parser.parse_args(options)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if given.model is None:
            given.model = work / "smollm2-135m"
            _done(measure([given.python, "-c", UNPACK, given.model]))
        packages = "import json; from importlib.metadata import version as v; "
        names = '{n: v(n) for n in ("lm-eval", "transformers", "torch")}'
        read = _done(measure([given.python, "-c", f"{packages}print(json.dumps({names}))"]))
        result = {
            "packages": json.loads(read.out),
            "limit": given.limit,
            "suites": {
                "choice": both("choice", given, letter_tasks(given.data, work / "choice.jsonl"), work),
                "bbh": both("bbh", given, given.data.resolve(), work),
            },
        }
    print(json.dumps(result, indent=1, ensure_ascii=False))
    print(table(result["suites"]))
    if given.save:
        print(save("evaluation", result))
        write_table(PAGE, "lm-eval", table(result["suites"]))


if __name__ == "__main__":
    main()
