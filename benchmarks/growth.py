"""What growth costs: adding one dataset to a registry of 10, 100 and 1,000; the metadata of 1,000 datasets.

    python -m benchmarks growth [--sizes 10,100,1000] [--save]

Datasets are made here: tables of 40 rows of a text, a title and a label, all different. Adding is measured as
the median of five datasets; beside it stands the time of the same five each in a registry of its own, which
is what they cost by themselves. `--save` writes results/growth.json, with the machine it was measured on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import describe, save, write_table
from taskmill.grow.registry import Registry
from taskmill.ids import draw
from taskmill.ingest.metadata import metadata
from taskmill.recipes.grow import AddConfig, add

ROWS = 40
ADDED = 5
WORDS = ("river", "stone", "cloud", "apple", "walks", "runs", "sleeps", "under", "over", "green", "early")
PAGE = Path(__file__).parents[1] / "docs" / "grow.md"


def make(folder: Path, number: int) -> str:
    """Write a dataset of its own folder and return its path."""
    rows = []
    for i in range(ROWS):
        words = [WORDS[draw(number, f"{i} {k}", "growth") % len(WORDS)] for k in range(14)]
        label = ("negative", "positive")[i % 2]
        text = f"{' '.join(words)} {'good' if i % 2 else 'poor'} {number}"
        rows.append({"text": text, "title": f"{words[0]} {words[1]} {i}", "label": label})
    place = folder / f"set{number:05}"
    place.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), place / "train.parquet")
    return str(place)


def timed(work: object, *arguments: object) -> tuple[float, float]:
    """Return the seconds on the wall and on the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    work(*arguments)  # type: ignore[operator]
    return time.perf_counter() - wall, time.process_time() - cpu


def curve(folder: Path, sizes: list[int]) -> list[dict[str, float]]:
    """Return, for each size of a registry, what adding one more dataset takes."""
    found, number, registry = [], 0, folder / "registry"
    for size in sizes:
        there = len(Registry(registry).version().datasets)
        sources = [make(folder / "sets", number + i) for i in range(size - there)]
        number += len(sources)
        whole = timed(add, AddConfig(sources=tuple(sources), registry=str(registry)))
        own = [make(folder / "sets", number + i) for i in range(ADDED)]
        number += ADDED
        alone = [
            timed(add, AddConfig(sources=(s,), registry=str(folder / f"own-{Path(s).name}"))) for s in own
        ]
        grown = [timed(add, AddConfig(sources=(s,), registry=str(registry))) for s in own]
        version = Registry(registry).version()
        found.append(
            {
                "datasets": size,
                "rows": version.rows,
                "filled_s": round(whole[0], 3),
                "add_one_s": round(statistics.median(w for w, _ in grown), 4),
                "add_one_cpu_s": round(statistics.median(c for _, c in grown), 4),
                "alone_s": round(statistics.median(w for w, _ in alone), 4),
                "alone_cpu_s": round(statistics.median(c for _, c in alone), 4),
                "manifest_bytes": (version.folder / "manifest.json").stat().st_size,
            }
        )
        print(json.dumps(found[-1]), flush=True)
    return found


def shown(record: dict) -> str:
    """Return what docs/grow.md says of the curve."""
    lines = [
        "| datasets in the registry | adding one: s, processor s | the same alone: s, processor s |",
        "|---|---|---|",
    ]
    lines += [
        f"| {one['datasets']:,} | {one['add_one_s']:.3f}, {one['add_one_cpu_s']:.3f} "
        f"| {one['alone_s']:.3f}, {one['alone_cpu_s']:.3f} |"
        for one in record["curve"]
    ]
    told, machine = record["metadata"], record["machine"]
    lines += [
        "",
        f"- tables of {record['rows_each']} rows, median of {ADDED}",
        f"- metadata of {told['datasets']:,} datasets: {told['s']:.1f} s ({told['cpu_s']:.1f} processor s)",
        f"- {machine['cpu']}, {machine['cores']} cores; `python -m benchmarks growth --save`",
    ]
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    """Measure, print, and save if asked."""
    parser = argparse.ArgumentParser(prog="growth", description=__doc__.split("\n\n")[0])
    parser.add_argument("--sizes", default="10,100,1000")
    parser.add_argument("--save", action="store_true")
    asked = parser.parse_args(argv)
    sizes = [int(size) for size in asked.sizes.split(",")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        add(
            AddConfig(sources=(make(folder / "warm", 0),), registry=str(folder / "warmed"))
        )  # imports, compiles
        lines = curve(folder, sizes)
        wall, cpu = timed(metadata, str(folder / "sets"))
        described = {"datasets": sizes[-1] + ADDED * len(sizes), "s": round(wall, 2), "cpu_s": round(cpu, 2)}
        print(json.dumps({"metadata": described}))
    if asked.save:
        record = {"machine": describe(), "rows_each": ROWS, "curve": lines, "metadata": described}
        print(save("growth", record))
        write_table(PAGE, "growth", shown(record))
