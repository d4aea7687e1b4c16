"""Packing token rows into sequences: the plan alone, and with the tokens moved and written.

    python -m benchmarks packing [--rows N] [--length L] [--peers trl|none] [--python NAME=PATH] [--save]

Log-normal lengths (mean about 280, 1 to L tokens), as TRL's `pack_dataset` was measured on; one column of
`input_ids`. `trl` is its `bfd` over the whole set in one batch, `trl-default` the same in its batches of
1,000; both give a mapped table. Ours is timed to token shards on disk; that every row is packed once and
none is cut is checked in each run. `trl` needs no torch for it (`pip install --no-deps trl`, transformers,
datasets). axolotl's packer is a sampler within torch's data loader and gives no table: it is left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.machine import arms, child, load, peak_mb, save, summary, versions

PACKAGES = ("taskmill", "numba", "numpy", "pyarrow", "trl", "datasets")


def lengths(rows: int, room: int, seed: int = 0) -> np.ndarray:
    """Return the tokens of each row."""
    return np.clip(np.random.default_rng(seed).lognormal(5.1, 1.05, rows), 1, room).astype(np.int64)


def taskmill(rows: int, room: int, folder: Path) -> dict:
    from taskmill.mix.pack import TokenRows, pack
    from taskmill.mix.packed import Shards, write_shards

    begin = time.perf_counter()
    small = TokenRows(np.arange(6, dtype=np.uint16), np.ones(6, np.uint8), np.array([0, 2, 6]))
    small.chosen(pack(small.lengths, 8).rows)  # compiles, or loads what was compiled
    ready = time.perf_counter() - begin
    own = lengths(rows, room)
    offsets = np.concatenate(([0], np.cumsum(own)))
    tokens = np.random.default_rng(1).integers(0, 49_152, int(offsets[-1]), np.uint16)
    whole = TokenRows(tokens, np.ones(len(tokens), np.uint8), offsets)
    begin, used = time.perf_counter(), time.process_time()
    packing = pack(own, room)
    plan, cpu = time.perf_counter() - begin, time.process_time() - used
    begin = time.perf_counter()
    write_shards(folder / "shards", whole, packing.rows, packing, {})
    total = plan + time.perf_counter() - begin
    cpu_total = time.process_time() - used
    assert (np.sort(packing.rows) == np.arange(rows)).all()
    shards = Shards(folder / "shards")
    assert len(shards.tokens) == len(tokens)
    assert np.diff(shards.offsets[packing.starts]).max() <= room
    for at in (0, packing.bins - 1):
        own_tokens = [
            tokens[offsets[r] : offsets[r + 1]] for r in packing.rows[slice(*packing.starts[at : at + 2])]
        ]
        assert (shards[at]["input_ids"] == np.concatenate(own_tokens)).all()
    return {
        "ready": ready, "plan": plan, "plan_cpu": cpu, "total": total, "total_cpu": cpu_total,
        "bins": packing.bins, "least": int(-(-own.sum() // room)), "fill": packing.fill,
    }  # fmt: skip


def trl(rows: int, room: int, folder: Path, **settings: object) -> dict:
    import pyarrow as pa
    from datasets import Dataset
    from trl.data_utils import pack_dataset

    own = lengths(rows, room)
    offsets = np.concatenate(([0], np.cumsum(own))).astype(np.int32)
    tokens = np.random.default_rng(1).integers(0, 49_152, int(offsets[-1]), np.int32)
    column = pa.ListArray.from_arrays(pa.array(offsets), pa.array(tokens))
    table = Dataset(pa.table({"input_ids": column}))
    begin = time.perf_counter()
    made = pack_dataset(table, room, "bfd", {"cache_file_name": str(folder / "packed.arrow"), **settings})
    total = time.perf_counter() - begin
    return {
        "ready": 0.0, "total": total, "bins": len(made), "least": int(-(-own.sum() // room)),
        "fill": int(own.sum()) / (room * len(made)),
    }  # fmt: skip


RUN = {
    "taskmill": taskmill,
    "trl": lambda rows, room, folder: trl(rows, room, folder, batch_size=None),
    "trl-default": trl,
}


def main(options: Sequence[str] | None = None) -> None:
    """Run the rounds and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", default="", help="of trl, trl-default, or none; default: those installed")
    parser.add_argument("--python", action="append", default=[], help="NAME=PATH of an arm's interpreter")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    given = parser.parse_args(options)
    if given.arm:
        with tempfile.TemporaryDirectory() as folder:
            found = RUN[given.arm](given.rows, given.length, Path(folder))
        found["peak_mb"] = peak_mb()
        print(json.dumps(found))
        return
    pythons = dict(entry.split("=", 1) for entry in given.python)
    runs: dict[str, list[dict]] = {name: [] for name in arms(given.peers, RUN)}
    loads = []
    for _ in range(given.rounds):
        for name, found in runs.items():
            case = ["--rows", given.rows, "--length", given.length]
            loads.append(load())
            python = pythons.get(name, sys.executable)
            found.append(child("benchmarks.packing", "--arm", name, *case, python=python))
    result = {
        "case": {"rows": given.rows, "length": given.length, "rounds": given.rounds},
        "arms": {
            name: {key: summary([r[key] for r in rounds], 6) for key in rounds[0]}
            for name, rounds in runs.items()
        },
        "times_slower": {
            name: round(_median(rounds, "total") / _median(runs["taskmill"], "total"), 1)
            for name, rounds in runs.items()
        },
        "goal": {"plan": 0.3, "fill": 0.9999, "total": 5.0, "peak_mb": 3000},
        "packages": versions(PACKAGES),
        "load": loads,
    }
    print(json.dumps(result, indent=1))
    if given.save:
        print(save("packing", result))


def _median(rounds: Sequence[dict], key: str) -> float:
    return statistics.median(r[key] for r in rounds)


if __name__ == "__main__":
    main()
