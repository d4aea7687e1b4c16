"""One million short documents through ingest, synthesize, curate and export: seconds per stage, memory.

    python -m benchmarks million [--rows 10000,1000000] [--save]
    python -m benchmarks million --rows 50000 --profile

Documents of 60 words in three sentences are written to a temporary JSONL file (the same ones each time);
the model is `echo:`, so that only our own work is timed; the export is one Parquet file of prompt and
completion. Each row count is a fresh process. Memory must not grow with the rows.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine

ROOT = Path(__file__).parents[1]
ROWS = "10000,1000000"
TOP = 25
GOALS = {"memory_growth_mb": 300, "seconds": 180}

_SYLLABLES = (
    "ka",
    "lo",
    "mi",
    "ren",
    "sta",
    "vu",
    "del",
    "por",
    "tin",
    "ash",
    "gro",
    "ne",
    "bel",
    "su",
    "fi",
)
_SENTENCES = 20_000
"""Sentences the documents are put together from; a document's first one bears its number."""


def write_documents(path: Path, rows: int) -> None:
    """Write `rows` documents of 60 words; document i is the same whatever their number."""
    draw = random.Random(0)
    words = ["".join(draw.choices(_SYLLABLES, k=draw.randint(1, 4))) for _ in range(5000)]
    sentences = [" ".join(draw.choices(words, k=20)).capitalize() + "." for _ in range(_SENTENCES)]
    with path.open("w", encoding="utf-8") as file:
        for i in range(rows):
            first, second, third = (sentences[int(draw.random() * _SENTENCES)] for _ in range(3))
            # A number in the place of a word keeps all documents distinct.
            head, _, rest = first.partition(" ")
            text = f"{head} n{i} {rest.partition(' ')[2]} {second} {third}"
            file.write(f'{{"text": "{text}"}}\n')


def journey(source: Path, folder: Path) -> dict[str, Any]:
    """Run the stages and return the seconds of each, read off the done-markers' times."""
    begun = time.time()
    from taskmill.backends import ModelConfig
    from taskmill.export import export_run
    from taskmill.recipes import SynthConfig, synth

    started = time.time()
    run = folder / "run"
    manifest = synth(SynthConfig((str(source),), task=("exqa",), model=ModelConfig(ref="echo:")), run)
    ended = time.time()
    exported = export_run(run, folder / "train.parquet", "prompt-completion")
    done = time.time()
    stages = {p.parent.name.partition("-")[2]: p.stat().st_mtime for p in sorted(run.glob("*/stage.json"))}
    seconds, before = {"import": started - begun}, started
    for name, moment in (*stages.items(), ("report", ended), ("export", done)):
        seconds[name] = moment - before
        before = moment
    return {
        "stages": {name: round(s, 2) for name, s in seconds.items()},
        "funnel": manifest["funnel"],
        "exported": exported.rows,
    }


def profiled(source: Path, folder: Path) -> dict[str, Any]:
    """Run the same under cProfile and print where the main thread's time went."""
    import cProfile
    import pstats

    with cProfile.Profile() as profile:
        found = journey(source, folder)
    pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(TOP)
    return found


def measure(rows: int, profile: bool) -> dict[str, Any]:
    """Measure one row count in a fresh process."""
    with tempfile.TemporaryDirectory(prefix="taskmill-bench-") as folder:
        source = Path(folder) / "documents.jsonl"
        write_documents(source, rows)
        command = [sys.executable, "-m", "benchmarks.million", "--side", source, "--folder", folder]
        found = machine.measure([*command, *(["--profile"] if profile else [])], cwd=ROOT, timeout=1800)
        size = source.stat().st_size
    if found.code:
        raise SystemExit(f"{rows} rows failed: {found.err[-2000:]}")
    if profile:
        print(found.err)
    return {
        "rows": rows,
        "input_mb": round(size / 1e6, 1),
        "seconds": round(found.seconds, 1),
        "cpu_seconds": round(found.cpu_seconds, 1),
        "rows_per_second": round(rows / found.seconds),
        "peak_mb": round(found.peak_mb, 1),
        "load_before": found.load,
        **json.loads(found.out.splitlines()[-1]),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks million", description=__doc__.split("\n")[0])
    parser.add_argument("--rows", default=ROWS, help="row counts, separated by commas")
    parser.add_argument("--profile", action="store_true", help=f"also print a cProfile top {TOP}; slower")
    parser.add_argument("--save", action="store_true", help="write results/million.json")
    parser.add_argument("--side", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.side:
        print(json.dumps((profiled if args.profile else journey)(args.side, args.folder)))
        return
    runs = []
    for rows in map(int, args.rows.split(",")):
        runs.append(measure(rows, args.profile))
        one = runs[-1]
        print(f"{rows} rows: {one['seconds']} s, {one['cpu_seconds']} cpu s, {one['peak_mb']} MB")
        print("  " + ", ".join(f"{name} {s} s" for name, s in one["stages"].items()))
        print(f"  kept {one['funnel']['curate']['kept']}, exported {one['exported']}")
    growth = round(runs[-1]["peak_mb"] - runs[0]["peak_mb"], 1)
    if len(runs) > 1:
        print(f"memory difference: {growth} MB (goal under {GOALS['memory_growth_mb']})")
    if args.save:
        found = {"benchmark": "million", "goals": GOALS, "memory_growth_mb": growth, "runs": runs}
        print(f"saved to {machine.save('million', found).relative_to(ROOT)}")


if __name__ == "__main__":
    main()
