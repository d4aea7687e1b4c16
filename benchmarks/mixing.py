"""The order of a mixture: build, draw, resume.

    python -m benchmarks mixing [--draws N] [--sources S] [--peers datasets,grain|none] [--save]

Sources of log-normal weights and 100 to 30,000 rows. Every arm is a fresh process; compared are the rate at
which (source, row) pairs are known, the time to build, and the time to go on in the middle. `datasets` and
`grain` get fewer draws (`--peer-draws`), and sources of rows already in memory. Counts and resumed draws are
checked in each run.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence

import numpy as np

from benchmarks.machine import arms, child, load, peak_mb, save, summary, versions

PACKAGES = ("taskmill", "numba", "numpy", "datasets", "grain")


def sources(count: int, draws: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return draws and rows of each source, and their names."""
    random = np.random.default_rng(seed)
    weights = random.lognormal(0, 1.5, count)
    counts = np.maximum(1, np.floor(weights / weights.sum() * draws)).astype(np.int64)
    return counts, random.integers(100, 30_000, count), [f"task{i:05}" for i in range(count)]


def taskmill(count: int, draws: int) -> dict:
    from taskmill.mix.order import Order

    begin = time.perf_counter()
    Order([5, 5], [5, 5], ["a", "b"], 0).take(0, 10)  # compiles, or loads what was compiled
    ready = time.perf_counter() - begin
    counts, sizes, names = sources(count, draws)
    begin = time.perf_counter()
    order = Order(counts, sizes, names, 0)
    build = time.perf_counter() - begin
    begin, used = time.perf_counter(), time.process_time()
    drawn = order.take(0, order.total)
    took, cpu = time.perf_counter() - begin, time.process_time() - used
    begin = time.perf_counter()
    again = Order(counts, sizes, names, 0).take(order.total // 2, order.total // 2 + 1)
    resume = time.perf_counter() - begin
    middle = order.total // 2
    assert again.row[0] == drawn.row[middle]
    assert again.source[0] == drawn.source[middle]
    assert (np.bincount(drawn.source, minlength=count) == counts).all()
    return {"ready": ready, "build": build, "take": took, "cpu": cpu, "draws": order.total, "resume": resume}


def datasets(count: int, draws: int) -> dict:
    from datasets import Dataset, interleave_datasets

    counts, sizes, _ = sources(count, draws)
    parts = [Dataset.from_dict({"row": np.arange(n)}) for n in sizes]
    begin = time.perf_counter()
    whole = interleave_datasets(parts, probabilities=list(counts / counts.sum()), seed=0)
    build = time.perf_counter() - begin
    draws = min(draws, len(whole))
    begin = time.perf_counter()
    for i in range(draws):
        whole[i]
    took = time.perf_counter() - begin
    return {"ready": 0.0, "build": build, "take": took, "draws": draws, "resume": build}


def grain(count: int, draws: int) -> dict:
    import grain.python as package

    counts, sizes, _ = sources(count, draws)
    parts = [package.MapDataset.source(range(n)).shuffle(seed=0) for n in sizes]
    begin = time.perf_counter()
    whole = package.MapDataset.mix(parts, weights=list(counts / counts.sum()))
    build = time.perf_counter() - begin
    draws = min(draws, len(whole))
    begin = time.perf_counter()
    for i in range(draws):
        whole[i]
    took = time.perf_counter() - begin
    begin = time.perf_counter()
    whole[draws // 2]
    return {"ready": 0.0, "build": build, "take": took, "draws": draws, "resume": time.perf_counter() - begin}


RUN = {"taskmill": taskmill, "datasets": datasets, "grain": grain}


def main(options: Sequence[str] | None = None) -> None:
    """Run the rounds and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--draws", type=int, default=10_000_000)
    parser.add_argument("--peer-draws", type=int, default=20_000)
    parser.add_argument("--sources", type=int, default=1836)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", default="", help="of datasets, grain, or none; default: those installed")
    parser.add_argument("--python", action="append", default=[], help="NAME=PATH of an arm's interpreter")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    given = parser.parse_args(options)
    if given.arm:
        found = RUN[given.arm](given.sources, given.draws)
        found["peak_mb"] = peak_mb()
        print(json.dumps(found))
        return
    pythons = dict(entry.split("=", 1) for entry in given.python)
    runs: dict[str, list[dict]] = {name: [] for name in arms(given.peers, RUN)}
    loads = []
    for _ in range(given.rounds):
        for name, found in runs.items():
            draws = given.draws if name == "taskmill" else given.peer_draws
            case = ["--draws", draws, "--sources", given.sources]
            loads.append(load())
            python = pythons.get(name, sys.executable)
            found.append(child("benchmarks.mixing", "--arm", name, *case, python=python))
    measured = {name: _summary(rounds) for name, rounds in runs.items()}
    result = {
        "case": {"sources": given.sources, "draws": given.draws, "rounds": given.rounds},
        "arms": measured,
        "times_slower": {
            name: round(measured["taskmill"]["draws_per_s"]["median"] / arm["draws_per_s"]["median"], 1)
            for name, arm in measured.items()
        },
        "goal": {"seconds": 1.0, "resume": 0.01},
        "packages": versions(PACKAGES),
        "load": loads,
    }
    print(json.dumps(result, indent=1))
    if given.save:
        print(save("mixing", result))


def _summary(rounds: Sequence[dict]) -> dict:
    found = {name: summary([r[name] for r in rounds], 5) for name in rounds[0] if name != "draws"}
    return found | {"draws_per_s": summary([r["draws"] / r["take"] for r in rounds], 0)}


if __name__ == "__main__":
    main()
