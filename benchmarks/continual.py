"""Learning in stages on Super-NaturalInstructions: which replay strategy forgets least?

    python -m benchmarks continual --data FOLDER --out DIR [--base FOLDER] [--save]

FOLDER holds `tasks.parquet` and `instances.parquet` of the benchmark (one row a task, one an instance).
English training tasks are dealt to three stages by category, so that a stage brings kinds of tasks that are
new; the unseen tasks are of the official test list. Texts are short ones, so that three seeds of nine
strategies fit into an hour on two cores; nothing of the data is kept in this repository. `--save` writes the
numbers to results/continual.json, with the machine they were measured on.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import describe, save, write_table
from taskmill.ids import draw
from taskmill.recipes.continual import ContinualConfig, continual
from taskmill.train import TrainConfig

STAGES = 3
LONGEST = 420  # characters of definition and input (chosen: about 110 tokens)
ANSWER = 60  # characters of the longest right answer
PAGE = Path(__file__).parents[1] / "docs" / "grow.md"


def _tasks(folder: Path, split: str) -> dict[str, dict[str, Any]]:
    """Return the English tasks of a split by name."""
    found = {}
    for row in pq.read_table(folder / "tasks.parquet").to_pylist():
        english = row["input_language"] == row["output_language"] == ["English"]
        if row["split"] == split and english:
            found[row["task"]] = row
    return found


def _rows(folder: Path, tasks: dict[str, dict[str, Any]], per_task: int) -> list[dict[str, Any]]:
    """Return short instances of tasks, as many of each by chance; tasks with fewer than four are left out."""
    by_task = defaultdict(list)
    for row in pq.read_table(folder / "instances.parquet").to_pylist():
        if row["task"] not in tasks:
            continue
        definition = " ".join(tasks[row["task"]]["definition"]).strip()
        short = len(definition) + len(row["input"]) <= LONGEST
        if short and row["outputs"] and max(map(len, row["outputs"])) <= ANSWER:
            own = {"id": row["id"], "task": row["task"], "instruction": definition, "input": row["input"]}
            by_task[row["task"]].append(own | {"output": row["outputs"][0], "references": row["outputs"]})
    chosen = []
    for own in by_task.values():
        by_chance = sorted(own, key=lambda r: (draw(0, r["id"], "benchmark instance"), r["id"]))
        chosen += by_chance[:per_task] if len(own) >= 4 else []
    return chosen


def make(folder: Path, out: Path, tasks: int, per_task: int, unseen: int) -> tuple[list[str], str]:
    """Write stage-1.parquet … and test.parquet into `out`, and return their paths.

    Categories go whole to the stage that has fewest tasks so far, larger categories first.
    """
    train = _tasks(folder, "train")
    rows = _rows(folder, train, per_task)
    there = {row["task"] for row in rows}
    by_category = defaultdict(list)
    for name in sorted(there, key=lambda t: (draw(0, t, "benchmark task"), t)):
        by_category[train[name]["categories"][0]].append(name)
    stages: list[list[str]] = [[] for _ in range(STAGES)]
    for category in sorted(by_category, key=lambda c: (-len(by_category[c]), c)):
        stage = min(stages, key=len)
        stage += by_category[category][: max(1, tasks // 3)]
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for i, names in enumerate(stages):
        kept = set(names[:tasks])
        paths.append(str(out / f"stage-{i + 1}.parquet"))
        pq.write_table(pa.Table.from_pylist([row for row in rows if row["task"] in kept]), paths[-1])
    test = _rows(folder, _tasks(folder, "test"), 2)
    names = sorted({r["task"] for r in test}, key=lambda t: (draw(0, t, "benchmark test"), t))[:unseen]
    pq.write_table(pa.Table.from_pylist([r for r in test if r["task"] in set(names)]), out / "test.parquet")
    return paths, str(out / "test.parquet")


def shown(record: dict[str, Any]) -> str:
    """Return what docs/grow.md says of a run: the table, the verdict, the machine."""

    def cell(found: dict[str, float]) -> str:
        return f"{100 * found['mean']:.1f} ({100 * found['low']:.1f} to {100 * found['high']:.1f})"

    lines = ["| strategy | mean BWT | FWT | forgetting | average | Test |", "|---|---|---|---|---|---|"]
    for name, own in record["strategies"].items():
        cells = [cell(own[key]) for key in ("bwt", "fwt", "forgetting", "average", "test")]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    rows, machine, config = record["rows"], record["machine"], record["config"]
    bwt, test = record["paper"]["bwt"], record["paper"]["test"]
    lines += [
        "",
        *record["verdict"],
        "",
        f"- pairs in the published order of BWT: {bwt['same']} of {bwt['pairs']}, of Test: "
        f"{test['same']} of {test['pairs']}",
        f"- BWT pairs proved in that order: {bwt['proved_same']}; the other way round: {bwt['proved_other']}",
        f"- ROUGE-L in percent, 95 % intervals over rows and {config['seeds']} seeds",
        f"- {len(rows['tasks'])} stages of {rows['tasks'][0]} tasks, {max(rows['tokens']):,} tokens at most",
        f"- {rows['held'][0]} held-out rows of a stage, {rows['test']} of {rows['test_tasks']} unseen tasks",
        f"- {config['train']['base']}; {machine['cpu']}, {machine['cores']} cores",
    ]
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    """Make the stages, run the experiment (or go on with it), and print its verdict."""
    parser = argparse.ArgumentParser(prog="continual", description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", default="smollm2-135m")
    parser.add_argument("--tasks", type=int, default=12, help="tasks of a stage")
    parser.add_argument("--per-task", type=int, default=6, help="rows of a task, held-out ones included")
    parser.add_argument("--holdout", type=int, default=24)
    parser.add_argument("--test-rows", type=int, default=32)
    parser.add_argument("--replay-tasks", type=int, default=4)
    parser.add_argument("--budget", default="25%")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--save", action="store_true")
    asked = parser.parse_args(argv)
    stages, test = make(asked.data, asked.out / "data", asked.tasks, asked.per_task, asked.test_rows)
    config = ContinualConfig(
        stages=tuple(stages),
        test=(test,),
        seeds=asked.seeds,
        budget=asked.budget,
        replay_tasks=asked.replay_tasks,
        holdout=asked.holdout,
        test_rows=asked.test_rows,
        max_new_tokens=16,
        train=TrainConfig(base=asked.base, batch_tokens=512, max_length=512),
    )

    def show(progress: Any) -> None:
        print(progress.stage, progress.done, progress.total, progress.note, flush=True)

    record = continual(config, asked.out / "run", show, dry_run=asked.dry_run)
    for line in record.get("verdict", [json.dumps(record, indent=1)]):
        print(line)
    if asked.save and not asked.dry_run:
        for name in ("stages", "test"):
            record["config"][name] = [Path(one).name for one in record["config"][name]]
        record["config"]["train"]["base"] = Path(asked.base).name
        record["machine"] = describe()
        print(save("continual", record))
        write_table(PAGE, "continual", shown(record))
