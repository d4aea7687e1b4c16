"""Deduplication beside polars, duckdb, rensa, datasketch and semhash, on the same Arrow column.

    python -m benchmarks.dedup exact    [--rows 1000000] [--bytes 600] [--rounds 5] [--save]
    python -m benchmarks.dedup near     [--rows 100000] [--words 100] [--rounds 3] [--save]
    python -m benchmarks.dedup semantic [--rows 100000] [--texts FILE] [--rounds 3] [--save]

One process a measurement, rounds in turn (ABC ABC), medians, and every contender's ratio to ours. The input
is seeded and made before the clock starts; imports and compilation (a run on a few rows) are timed apart.
First the gate: the planted truth must come out, or nothing is timed. Peers that are not installed are left
out and named. `--save` writes results/dedup-MODE.json; without it nothing is written.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.machine import describe, load, save, summary, versions

WORDS = 50_000
PEERS = ("numba", "polars", "duckdb", "rensa", "datasketch", "semhash", "model2vec")
SHARE = 0.2  # of the rows are planted copies
Answer = Sequence[bool]


# inputs: (texts, for each row the row it was copied from or -1)


def exact_input(args: argparse.Namespace) -> tuple[pa.Array, np.ndarray]:
    """Rows of random letters, one in five a copy of an earlier row."""
    random = np.random.Generator(np.random.PCG64(args.seed))
    own = int(args.rows * (1 - SHARE))
    letters = random.integers(97, 123, own * args.bytes, np.uint8).reshape(own, args.bytes)
    letters[:, 7::8] = 32
    of = np.concatenate([np.full(own, -1), random.integers(0, own, args.rows - own)])
    data = np.concatenate([letters, letters[of[own:]]])
    offsets = np.arange(args.rows + 1, dtype=np.int64) * args.bytes
    return pa.LargeStringArray.from_buffers(args.rows, pa.py_buffer(offsets), pa.py_buffer(data)), of


def near_input(args: argparse.Namespace) -> tuple[pa.Array, np.ndarray]:
    """Rows of random words, one in five a copy of another own row with `--changed` words replaced."""
    random = np.random.Generator(np.random.PCG64(args.seed))
    vocabulary = np.array([f"{i:05x}"[: 3 + i % 3] + f"{i % 7}" for i in range(WORDS)])
    own = int(args.rows * (1 - SHARE))
    numbers = random.integers(0, WORDS, (own, args.words))
    of = np.concatenate([np.full(own, -1), random.choice(own, args.rows - own, replace=False)])
    copies = numbers[of[own:]]
    for _ in range(args.changed):
        copies[np.arange(len(copies)), random.integers(0, args.words, len(copies))] = random.integers(
            0, WORDS, len(copies)
        )
    texts = [" ".join(row) for row in vocabulary[np.concatenate([numbers, copies])]]
    return pa.array(texts, pa.large_string()), of


def semantic_input(args: argparse.Namespace) -> tuple[pa.Array, np.ndarray]:
    """Sentences of 14 words, one in five a copy with one word changed (or the user's own file)."""
    if args.texts:
        texts = Path(args.texts).read_text("utf-8").splitlines()[: args.rows]
        return pa.array(texts, pa.large_string()), np.full(len(texts), -1)
    args.words, args.changed = 14, 1
    return near_input(args)


INPUTS = {"exact": exact_input, "near": near_input, "semantic": semantic_input}


# contenders: a function of the column that says which rows stay; tokenising is part of the work


def taskmill_exact(texts: pa.Array, args: argparse.Namespace) -> Answer:
    from taskmill.curate.dedup import exact_duplicates

    return exact_duplicates(texts).keep


def taskmill_near(texts: pa.Array, args: argparse.Namespace) -> Answer:
    from taskmill.curate.dedup import near_duplicates

    return near_duplicates(texts, 0.8, ngram=args.ngram).keep


def taskmill_semantic(texts: pa.Array, args: argparse.Namespace) -> Answer:
    from taskmill.curate.semantic import semantic_duplicates
    from taskmill.select.embed import embed

    return semantic_duplicates(embed(texts, args.embedder), 0.9).keep


def polars_exact(texts: pa.Array, args: argparse.Namespace) -> Answer:
    import polars

    return polars.Series(texts).is_first_distinct().to_numpy()


def polars_hash(texts: pa.Array, args: argparse.Namespace) -> Answer:
    """Its fastest way: 64-bit hashes only, texts are not compared."""
    import polars

    return polars.Series(texts).hash().is_first_distinct().to_numpy()


def duckdb_exact(texts: pa.Array, args: argparse.Namespace) -> Answer:
    """Its fastest way: 64-bit hashes only, texts are not compared."""
    import duckdb

    connection = duckdb.connect()
    connection.execute("set threads = 2")
    connection.register("rows", pa.table({"id": np.arange(len(texts)), "text": texts}))
    found = connection.execute("select min(id) from rows group by hash(text)").fetchnumpy()
    keep = np.zeros(len(texts), bool)
    keep[next(iter(found.values())).astype(np.int64)] = True
    return keep


def set_of_hashes(texts: pa.Array, args: argparse.Namespace) -> Answer:
    from hashlib import blake2b

    seen, keep = set(), []
    for text in texts:
        key = blake2b(text.as_buffer(), digest_size=16).digest()
        keep.append(key not in seen)
        seen.add(key)
    return keep


def shingled(text: str, size: int) -> list[str]:
    own = text.split()
    return [" ".join(own[i : i + size]) for i in range(max(len(own) - size + 1, 1))]


def rensa_near(texts: pa.Array, args: argparse.Namespace) -> Answer:
    """Its documented path, on the shingles we compare."""
    from rensa import RMinHash, RMinHashDeduplicator

    finder = RMinHashDeduplicator(threshold=0.8, num_perm=128, use_lsh=True, num_bands=16)
    keep = []
    for i, text in enumerate(texts.to_pylist()):
        sketch = RMinHash(num_perm=128, seed=42)
        sketch.update(shingled(text, args.ngram))
        keep.append(finder.add(str(i), sketch))
    return keep


def datasketch_near(texts: pa.Array, args: argparse.Namespace) -> Answer:
    from datasketch import MinHash, MinHashLSH

    index, keep = MinHashLSH(threshold=0.8, num_perm=128), []
    for i, text in enumerate(texts.to_pylist()):
        sketch = MinHash(num_perm=128)
        sketch.update_batch([s.encode() for s in shingled(text, args.ngram)])
        keep.append(not index.query(sketch))
        if keep[-1]:
            index.insert(i, sketch)
    return keep


def semhash_semantic(texts: pa.Array, args: argparse.Namespace) -> Answer:
    """With the encoder named, or with the very one that taskmill uses."""
    from semhash import SemHash

    class Ours:
        def encode(self, inputs: Sequence[str], **_: object) -> np.ndarray:
            from taskmill.select.embed import embed

            return embed(pa.array(list(inputs), pa.large_string()), args.embedder)

    model: Any = Ours()
    if args.semhash_model:
        from model2vec import StaticModel

        model = StaticModel.from_pretrained(args.semhash_model)
    finder = SemHash.from_records(texts.to_pylist(), model=model)
    kept = {}
    for record in finder.self_deduplicate(threshold=0.9).selected:
        kept[record] = kept.get(record, 0) + 1
    return [kept.pop(text, 0) > 0 for text in texts.to_pylist()]


CONTENDERS: dict[str, dict[str, tuple[str, Callable[[pa.Array, Any], Answer]]]] = {
    "exact": {
        "taskmill": ("taskmill", taskmill_exact),
        "polars": ("polars", polars_exact),
        "polars, hashes only": ("polars", polars_hash),
        "duckdb, hashes only": ("duckdb", duckdb_exact),
        "set of blake2b-128": ("hashlib", set_of_hashes),
    },
    "near": {
        "taskmill": ("taskmill", taskmill_near),
        "rensa": ("rensa", rensa_near),
        "datasketch": ("datasketch", datasketch_near),
    },
    "semantic": {
        "taskmill": ("taskmill", taskmill_semantic),
        "semhash": ("semhash", semhash_semantic),
    },
}


# one measurement, in a process of its own


def measure(args: argparse.Namespace) -> dict:
    """Return what one contender found and how long it took."""
    texts, of = INPUTS[args.mode](args)
    work = CONTENDERS[args.mode][args.side][1]
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    work(texts.slice(0, 50), args)
    warm = time.perf_counter() - start
    start = time.perf_counter()
    keep = np.asarray(work(texts, args), bool)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = {"seconds": seconds, "warm": warm, "kept": int(keep.sum()), "peak_mb": peak / 1024}
    return {**result, "input_mb": base / 1024, **truth(args, texts, of, keep)}


def truth(args: argparse.Namespace, texts: pa.Array, of: np.ndarray, keep: np.ndarray) -> dict:
    """Return recall of the planted copies that are near enough, and how many rows were dropped wrongly."""
    copies = np.flatnonzero(of >= 0)
    if args.mode == "semantic" or not len(copies):
        return {}
    near = np.ones(len(copies), bool)
    if args.mode == "near":
        sample = copies[:20_000]
        values = [
            (set(shingled(texts[i].as_py(), args.ngram)), set(shingled(texts[of[i]].as_py(), args.ngram)))
            for i in sample.tolist()
        ]
        near = np.array([len(a & b) / len(a | b) >= 0.8 for a, b in values])
        copies = sample
    lost = ~(keep[copies] & keep[of[copies]])  # of a pair, one row goes
    wrong = int((~keep[: int(args.rows * (1 - SHARE))]).sum()) + int((lost & ~near).sum())
    return {
        "recall": float(lost[near].mean()) if near.any() else 1.0,
        "wrong": wrong,
        "pairs": int(near.sum()),
    }


def child(args: argparse.Namespace, side: str, rows: int) -> dict:
    command = [sys.executable, "-m", "benchmarks.dedup", args.mode, "--side", side, "--rows", str(rows)]
    for name in ("bytes", "words", "changed", "ngram", "seed"):
        command += [f"--{name}", str(getattr(args, name))]
    for name in ("texts", "embedder", "semhash_model"):
        if getattr(args, name):
            command += [f"--{name.replace('_', '-')}", getattr(args, name)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    if done.returncode:
        raise SystemExit(
            f"{side}: {done.stderr.strip().splitlines()[-1] if done.stderr else done.returncode}"
        )
    return json.loads(done.stdout.splitlines()[-1])


def gate(args: argparse.Namespace) -> None:
    """Stop unless ours finds the planted truth: all of it (exact), 95 % and nothing wrong (near)."""
    found = child(args, "taskmill", min(args.rows, 20_000))
    if args.mode == "semantic":
        again = child(args, "taskmill", min(args.rows, 20_000))
        if again["kept"] != found["kept"]:
            raise SystemExit(f"gate: two runs keep {found['kept']} and {again['kept']} rows")
        return
    least = 1.0 if args.mode == "exact" else 0.95
    if found["recall"] < least or found["wrong"]:
        raise SystemExit(
            f"gate: recall {found['recall']:.4f} (least {least}), {found['wrong']} dropped wrongly"
        )
    print(f"gate: recall {found['recall']:.4f} of {found['pairs']} planted pairs, none dropped wrongly")


def compare(args: argparse.Namespace) -> dict:
    out = args.without.split(",")
    sides = {
        n: c for n, c in CONTENDERS[args.mode].items() if importlib.util.find_spec(c[0]) and n not in out
    }
    absent = sorted(set(CONTENDERS[args.mode]) - set(sides))
    before = load()
    runs: dict[str, list[dict]] = {name: [] for name in sides}
    for _ in range(args.rounds):
        for name, found in runs.items():
            found.append(child(args, name, args.rows))
    ours = summary([r["seconds"] for r in runs["taskmill"]], 3)["median"]
    result = {}
    for name, found in runs.items():
        seconds = summary([r["seconds"] for r in found], 3)
        result[name] = {
            "seconds": seconds,
            "ratio": round(seconds["median"] / ours, 2),
            "first_use_s": summary([r["warm"] for r in found], 2)["median"],
            "peak_mb": round(max(r["peak_mb"] for r in found)),
            "over_input_mb": round(max(r["peak_mb"] - r["input_mb"] for r in found)),
            "kept": sorted({r["kept"] for r in found}),
            **{k: found[0][k] for k in ("recall", "wrong", "pairs") if k in found[0]},
        }
    settings = {k: v for k, v in vars(args).items() if k not in ("side", "save")}
    settings["texts"] = Path(args.texts).name  # a result names no place of this machine
    return {
        "settings": settings,
        "load": before,
        "versions": versions(PEERS),
        "absent": absent,
        "runs": result,
    }


def show(result: dict) -> None:
    heads = f"{'s (median)':>12}{'min-max':>16}{'x ours':>8}{'first use':>11}{'peak MB':>9}"
    print(f"{'':24}{heads}  kept, recall, wrong")
    for name, r in result["runs"].items():
        s = r["seconds"]
        spread = f"{s['min']:.2f}-{s['max']:.2f}"
        kept = "/".join(map(str, r["kept"]))
        rest = f"{kept}, {r['recall']:.4f}, {r['wrong']}" if "recall" in r else kept
        times = f"{s['median']:>12.3f}{spread:>16}{r['ratio']:>8.2f}{r['first_use_s']:>11.2f}"
        print(f"{name:24}{times}{r['peak_mb']:>9}  {rest}")
    if result["absent"]:
        print("not installed:", ", ".join(result["absent"]))


def main(options: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mode", choices=tuple(INPUTS))
    parser.add_argument("--rows", type=int, default=0)
    parser.add_argument("--bytes", type=int, default=600, help="bytes of a row (exact)")
    parser.add_argument("--words", type=int, default=100, help="words of a row (near)")
    parser.add_argument("--changed", type=int, default=2, help="words replaced in a planted copy (near)")
    parser.add_argument("--ngram", type=int, default=5)
    parser.add_argument("--texts", default="", help="a file of one text a line (semantic)")
    parser.add_argument("--embedder", default="auto")
    parser.add_argument("--semhash-model", default="", help="folder of a model2vec encoder for semhash")
    parser.add_argument("--without", default="", help="contenders to leave out, e.g. datasketch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--side", default="", help=argparse.SUPPRESS)
    args = parser.parse_args(options)
    args.rows = args.rows or (1_000_000 if args.mode == "exact" else 100_000)
    if args.side:
        print(json.dumps(measure(args)))
        return
    print(json.dumps(describe()))
    gate(args)
    result = compare(args)
    show(result)
    if args.save:
        print(save(f"dedup-{args.mode}", result))


if __name__ == "__main__":
    main()
