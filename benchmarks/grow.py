"""Tasks from real datasets: how many are proposed and kept, why others are dropped, and what it costs.

    python -m benchmarks grow --data FOLDER [--packages SITE-PACKAGES] [--speed] [--save]
    python -m benchmarks grow --data FOLDER --model openvino:smollm2-135m [--save]

FOLDER holds a CATALOG.json and its files. With --packages, every CSV table that scikit-learn, statsmodels,
vega-datasets, plotly, palmerpenguins and gapminder bring along is a dataset too. --speed also times the
metadata of 1,000 datasets and the rendering of 1,000,000 examples. --model instead asks a model about the
datasets of ASKED, beside the rules. --save writes results/grow.json, or grow-model.json, and its table in
docs/grow.md.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.machine import load, peak_mb, save, write_table
from taskmill.ingest import count_tokens
from taskmill.ingest.metadata import metadata, read_rows
from taskmill.recipes.propose import ProposeConfig, TaskModel, propose
from taskmill.recipes.task_filters import Filters
from taskmill.store import parts
from taskmill.synthesize.instances import instances
from taskmill.synthesize.proposals import Proposal

PAGE = Path(__file__).parents[1] / "docs" / "grow.md"
ASKED = (
    "boolq_train",
    "cad_imdb_train",
    "cot_aqua_train",
    "dialogsum_dev",
    "rte_train",
    "scitldr_dev",
    "wic_tsv_train",
    "winogender",
)
"""Datasets that a model is asked about (chosen: of eight kinds; sixteen calls, minutes of a small model)."""

TABLES = {
    "sklearn": "sklearn/datasets/data",
    "statsmodels": "statsmodels/datasets",
    "vega_datasets": "vega_datasets/_data",
    "plotly": "plotly/package_data/datasets",
    "palmerpenguins": "palmerpenguins/data",
    "gapminder": "gapminder",
}


def packaged(site: Path, home: Path) -> list[str]:
    """Lay each CSV of the packages into a folder of its own under `home`; return the folders."""
    found = []
    for package, place in TABLES.items():
        for file in sorted((site / place).rglob("*.csv*")):
            own = home / f"{package}-{re.sub(r'[^a-z0-9]+', '-', file.name.partition('.')[0].lower())}"
            if own.exists():
                own = own.with_name(f"{own.name}-{file.parent.name}")
            own.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, own / file.name)
            found.append(str(own))
    return found


def journey(sources: list[str], out: Path, instances: int, **filters: object) -> dict:
    config = ProposeConfig(sources=tuple(sources), instances=instances, filters=Filters(**filters))
    begin, used = time.perf_counter(), time.process_time()
    manifest = propose(config, out)
    made = manifest["funnel"].get("instances", {"kept": 0})
    tasks = [json.loads(line) for line in (out / "proposals.jsonl").read_text("utf-8").splitlines()]
    return {
        "datasets": manifest["datasets"]["read"],
        "unread": len(manifest["datasets"]["unread"]),
        "with_tasks": len({(task["dataset"], task["config"]) for task in tasks}),
        **manifest["funnel"]["propose"],
        "by_kind": dict(sorted(Counter(task["task_name"] for task in tasks).items())),
        "instances": made["kept"],
        "families": manifest["figures"]["families"],
        "calls": manifest["calls"]["total"],
        "seconds": round(time.perf_counter() - begin, 1),
        "cpu_seconds": round(time.process_time() - used, 1),
    }


SHOWN = ("dataset", "mode", "task_name", "instruction", "input_fields", "output_field")
"""What is kept of a task: nothing of the data's values."""


def asked(data: Path, ref: str, out: Path) -> dict:
    """Ask a model about ASKED, with the rules beside it; return what became of whose tasks."""
    listed = json.loads((data / "CATALOG.json").read_text("utf-8"))["files"]
    own = [entry | {"folder": str((data / entry["folder"]).resolve())} for entry in listed]
    own = [entry for entry in own if entry["name"] in ASKED]
    out.mkdir()
    (out / "CATALOG.json").write_text(json.dumps({"files": own}))
    config = ProposeConfig(
        sources=(str(out / "CATALOG.json"),),
        model=TaskModel(ref=ref),
        filters=Filters(allow_licence=("unknown",)),
    )
    begin, used = time.perf_counter(), time.process_time()
    manifest = propose(config, out / "run")
    lost: dict[str, Counter[str]] = {mode: Counter() for mode in manifest["modes"]}
    for row in pq.read_table(parts(out / "run" / "1-propose" / "dropped")).to_pylist():
        lost[row["mode"]][row["reason"]] += 1
    return {
        "model": ref,
        "datasets": len(own),
        "calls": manifest["calls"]["total"],
        "tokens": manifest["tokens"],
        "modes": {mode: counts | {"dropped": lost[mode]} for mode, counts in manifest["modes"].items()},
        "tasks": [
            {name: row[name] for name in SHOWN}
            for row in map(json.loads, (out / "run" / "proposals.jsonl").read_text("utf-8").splitlines())
        ],
        "seconds": round(time.perf_counter() - begin, 1),
        "cpu_seconds": round(time.process_time() - used, 1),
    }


def shown_asked(result: dict) -> str:
    modes = {mode: result["modes"][mode] for mode in ("rules", "aware", "unaware")}
    lines = [f"| | {' | '.join(modes)} |", "|---|" + "--:|" * len(modes)]
    for label, key in (("proposed", "proposed"), ("kept, and not asked by one to the left", "kept")):
        lines.append(f"| {label} | " + " | ".join(f"{counts[key]:,}" for counts in modes.values()) + " |")
    for reason in sorted({reason for counts in modes.values() for reason in counts["dropped"]}):
        counts = " | ".join(f"{own['dropped'].get(reason, 0):,}" for own in modes.values())
        lines.append(f"| dropped: {reason.replace('_', '-')} | {counts} |")
    tokens = result["tokens"]
    lines += [
        "",
        f"`{result['model']}` about {result['datasets']} datasets of the catalogue: {result['calls']} calls, "
        f"{tokens['prompt']:,} tokens read and {tokens['completion']:,} written in "
        f"{result['cpu_seconds']:,.0f} processor seconds.",
    ]
    return "\n".join(lines)


def speed(folder: Path) -> dict:
    import pyarrow as pa

    drawn, words = random.Random(0), [f"word{i}" for i in range(5000)]
    many = folder / "many"
    for number in range(1000):
        rows = [
            {"id": i, "text": " ".join(drawn.choices(words, k=30)), "mood": "ab"[i % 2]} for i in range(200)
        ]
        (many / f"set{number:04}").mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), many / f"set{number:04}" / "train.parquet")
    begin = time.perf_counter()
    assert len(metadata(str(many))) == 1000
    described = time.perf_counter() - begin
    kinds = pa.schema([(name, pa.string()) for name in ("context", "question", "answer")])
    with pq.ParquetWriter(folder / "large.parquet", kinds) as writer:
        for start in range(0, 1_000_000, 20_000):
            rows = [" ".join(drawn.choices(words, k=80)) for _ in range(20_000)]
            asked = [f"Who is number {start + i}?" for i in range(20_000)]
            writer.write_table(pa.table([rows, asked, [f"name {i}" for i in range(20_000)]], schema=kinds))
    (meta,) = metadata(str(folder / "large.parquet"))
    task = Proposal(meta.name, "", "qa", "Answer the question.", ("context", "question"), "answer")
    begin, used = time.perf_counter(), time.process_time()
    count, peaks = 0, []
    for batch in instances(task, meta, read_rows(meta), count=count_tokens):
        count += len(batch)
        if count % 250_000 == 0:
            peaks.append(round(peak_mb()))
    return {
        "metadata_of_1000_seconds": round(described, 1),
        "instances": count,
        "instances_seconds": round(time.perf_counter() - begin, 1),
        "instances_cpu_seconds": round(time.process_time() - used, 1),
        "peak_mb_at_each_quarter": peaks,
    }


def shown(result: dict) -> str:
    arms = result["arms"]
    lines = [f"| | {' | '.join(arms)} |", "|---|" + "--:|" * len(arms)]
    for label, key in (
        ("datasets", "datasets"),
        ("… with a task that is kept", "with_tasks"),
        ("tasks proposed", "in"),
        ("tasks kept", "kept"),
    ):
        lines.append(f"| {label} | " + " | ".join(f"{arm[key]:,}" for arm in arms.values()) + " |")
    reasons = sorted({reason for arm in arms.values() for reason in arm["dropped"]})
    for reason in reasons:
        counts = " | ".join(f"{arm['dropped'].get(reason, 0):,}" for arm in arms.values())
        lines.append(f"| dropped: {reason.replace('_', '-')} | {counts} |")
    lines.append(
        f"| examples, at most {result['instances']} a task | "
        + " | ".join(f"{a['instances']:,}" for a in arms.values())
        + " |"
    )
    lines.append("| model calls | " + " | ".join(f"{a['calls']:,}" for a in arms.values()) + " |")
    lines.append(
        "| processor seconds | " + " | ".join(f"{a['cpu_seconds']:,.0f}" for a in arms.values()) + " |"
    )
    if "speed" in result:
        fast = result["speed"]
        peaks = fast["peak_mb_at_each_quarter"]
        lines += [
            "",
            f"Metadata of 1,000 datasets of 200 rows: {fast['metadata_of_1000_seconds']} s. "
            f"{fast['instances']:,} examples rendered from one Parquet file: {fast['instances_seconds']} s "
            f"({fast['instances_cpu_seconds']} s of one core), {peaks[0]} MB at a quarter of the way and "
            f"{peaks[-1]} MB at the end. Load of the machine: {result['load']}.",
        ]
    return "\n".join(lines)


def main(options: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks grow")
    parser.add_argument("--data", required=True, help="folder with a CATALOG.json")
    parser.add_argument("--packages", help="site-packages folder with the packages of TABLES")
    parser.add_argument("--model", help="ask this model about ASKED; nothing else is measured")
    parser.add_argument("--instances", type=int, default=100)
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--save", action="store_true")
    args = parser.parse_args(options)
    busy = load()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.model:
            result = {"load": busy, **asked(Path(args.data), args.model, folder / "asked")}
            print(json.dumps(result, indent=1))
            if args.save:
                print(save("grow-model", result))
                write_table(PAGE, "grow-model", shown_asked(result))
            return
        own = [str(Path(args.data) / "CATALOG.json")]
        arms = {
            "catalogue": journey(own, folder / "a", args.instances),
            "catalogue, any licence": journey(own, folder / "b", args.instances, allow_licence=("unknown",)),
        }
        if args.packages:
            tables = packaged(Path(args.packages), folder / "sets")
            arms["tables of packages"] = journey(tables, folder / "c", args.instances)
        result = {"load": busy, "instances": args.instances, "arms": arms}
        if args.speed:
            result["speed"] = speed(folder)
    print(json.dumps(result, indent=1))
    if args.save:
        print(save("grow", result))
        write_table(PAGE, "grow", shown(result))
