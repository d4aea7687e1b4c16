"""DSIR's importance weights beside the published package, from JSONL to weights, each arm a fresh process.

    python -m benchmarks.dsir [--mb 600] [--peer-mb 20] [--rounds 5] [--cores 1,2] [--python PATH] [--save]

`--python` is the Python of an environment with `data-selection` (and numpy, nltk, joblib, tqdm); without it
only our arms run. The gate comes first: on the peer's file our reference mode must give its weights and
ranks.
Texts are drawn by seed. Reading, compilation and weighing are timed apart; the peer reads while it weighs, so
the ratio counts our reading too. MB are those of the texts. The calibration is one pass over the same bytes
that adds them up (what the memory allows on one core).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import machine

ROOT = Path(__file__).parents[1]
GOAL = 50.0
"""MB/s on one core."""

TARGET_SHARE = 0.01
_TIME = 3600


def write_texts(path: Path, megabytes: float, seed: int) -> int:
    """Write JSONL rows of 20 to 200 words, common ones more often; return the bytes of the texts."""
    draw = random.Random(seed)
    words = ["".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 9))) for _ in range(20_000)]
    weights = [1 / (10 + rank) for rank in range(len(words))]
    pool = draw.choices(words, weights, k=1_000_000)
    size = 0
    with path.open("w", encoding="utf-8") as file:
        while size < megabytes * 1e6:
            at = draw.randrange(len(pool) - 200)
            text = " ".join(pool[at : at + draw.randint(20, 200)]).capitalize() + "."
            file.write(json.dumps({"text": text}) + "\n")
            size += len(text)
    return size


def read(path: str) -> list[str]:
    with open(path, encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in file]


def own(raw: str, target: str, out: str) -> dict:
    """Our weights; a second run over the same column shows what compilation costs."""
    begin = time.perf_counter()
    import numpy as np
    import pyarrow as pa

    from taskmill.select.dsir import log_weights

    log_weights(pa.array(["one two", "three"]), pa.array(["one"]))
    ready = time.perf_counter()
    texts, goal = pa.array(read(raw), pa.large_string()), pa.array(read(target), pa.large_string())
    there = time.perf_counter()
    weights = log_weights(texts, goal)
    done = time.perf_counter()
    np.frombuffer(texts.buffers()[2], np.uint8).sum(dtype=np.int64)
    passed = time.perf_counter()
    np.save(out, weights)
    return {
        "compile_s": ready - begin,
        "read_s": there - ready,
        "weigh_s": done - there,
        "pass_s": passed - done,
    }


def reference(raw: str, target: str, out: str) -> dict:
    """Our reference mode, for the gate and to be timed beside the peer."""
    import numpy as np
    import pyarrow as pa

    from taskmill.select.dsir import reference_weights

    texts, goal = pa.array(read(raw)), pa.array(read(target))
    begin = time.perf_counter()
    np.save(out, reference_weights(texts, goal))
    return {"weigh_s": time.perf_counter() - begin}


def peer(raw: str, target: str, out: str) -> dict:
    """`data-selection` as its README says, on as many processes as there are cores for this one."""
    begin = time.perf_counter()
    import numpy as np
    from data_selection import HashedNgramDSIR

    ready = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        made = HashedNgramDSIR([raw], [target], folder, num_proc=len(os.sched_getaffinity(0)))
        made.fit_importance_estimator(num_tokens_to_fit="all")
        made.compute_importance_weights()
        done = time.perf_counter()
        shards = made._get_virtually_sharded_datasets([raw])
        parts = [np.load(Path(folder) / "log_importance_weights" / f"{s['overall_idx']}.npy") for s in shards]
    weights = np.empty(sum(map(len, parts)))
    for at, part in enumerate(parts):  # row i went to shard i modulo their number
        weights[at :: len(parts)] = part
    np.save(out, weights)
    return {"compile_s": ready - begin, "read_s": 0.0, "weigh_s": done - ready}


ARMS = {"own": own, "reference": reference, "peer": peer}


def run(arm: str, python: str, raw: Path, target: Path, out: Path, cores: int) -> dict:
    """Run an arm on the first `cores` cores, in a process of its own."""
    pinned = ",".join(str(core) for core in sorted(os.sched_getaffinity(0))[:cores])
    code = (
        f"import os; os.sched_setaffinity(0, {{{pinned}}}); os.cpu_count = lambda: {cores}\n"
        "import json, sys; from benchmarks.dsir import ARMS\n"
        "print(json.dumps(ARMS[sys.argv[1]](*sys.argv[2:])))"
    )
    command = [python, "-c", code, arm, raw, target, out]
    done = machine.measure(command, cwd=ROOT, timeout=_TIME, env={"OMP_NUM_THREADS": str(cores)})
    if done.code:
        raise SystemExit(f"{arm} failed: {done.err.strip().splitlines()[-1:]}")
    return {**json.loads(done.out.strip().splitlines()[-1]), "peak_mb": done.peak_mb, "load": done.load}


def gate(python: str, raw: Path, target: Path, folder: Path) -> dict:
    """Compare our reference mode with the peer, row by row."""
    import numpy as np

    found = [folder / f"{name}.npy" for name in ("reference", "peer")]
    run("reference", sys.executable, raw, target, found[0], 1)
    run("peer", python, raw, target, found[1], 1)
    a, b = (np.load(path, allow_pickle=False) for path in found)
    order = [np.argsort(-np.round(weights, 6), kind="stable") for weights in (a, b)]
    result = {
        "rows": len(a),
        "largest_difference": float(np.abs(a - b).max()),
        "same_ranks": bool((order[0] == order[1]).all()),
    }
    print(f"gate: {result}")
    if not result["same_ranks"]:
        raise SystemExit("our reference mode ranks rows otherwise than the peer; nothing was timed")
    return result


def main(options: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--mb", type=float, default=600)
    parser.add_argument("--peer-mb", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cores", default="1,2")
    parser.add_argument("--python", default="", help="the Python that has data-selection")
    parser.add_argument("--save", action="store_true", help="write results/dsir.json")
    args = parser.parse_args(options)
    with tempfile.TemporaryDirectory(prefix="taskmill-dsir-") as name:
        result = measure(args, Path(name))
    for cores in args.cores.split(","):
        mine, other = (result["arms"].get(f"{arm} on {cores}") for arm in ("own", "peer"))
        if mine and other:
            ratio = mine["mb_per_s_read_too"]["median"] / other["mb_per_s_read_too"]["median"]
            print(f"{cores} cores: {ratio:.0f} times the peer")
    reached = result["arms"].get("own on 1", {}).get("mb_per_s", {}).get("median", 0.0)
    print(f"goal {GOAL} MB/s on one core: {'reached' if reached >= GOAL else 'missed'} ({reached})")
    if args.save:
        print(machine.save("dsir", result))


def measure(args: argparse.Namespace, folder: Path) -> dict:
    """Write the texts, hold the gate, run all arms."""
    result: dict = {"rounds": args.rounds, "arms": {}}
    files = {}
    for kind, size in (("own", args.mb), ("peer", args.peer_mb)):
        raw, target = folder / f"{kind}-raw.jsonl", folder / f"{kind}-target.jsonl"
        files[kind] = (raw, target, write_texts(raw, size, 0) / 1e6)
        write_texts(target, size * TARGET_SHARE, 1)
    if args.python:
        result["gate"] = gate(args.python, *files["peer"][:2], folder)
    arms = [("own", sys.executable), *([("peer", args.python)] if args.python else [])]
    taken: dict[tuple[str, int], list[dict]] = {}
    for _ in range(args.rounds):  # in turns, so that a busy minute meets all arms
        for cores in map(int, args.cores.split(",")):
            for arm, python in arms:
                found = run(arm, python, *files[arm][:2], folder / "out.npy", cores)
                taken.setdefault((arm, cores), []).append(found)
    for (arm, cores), runs in taken.items():
        result["arms"][f"{arm} on {cores}"] = told = tell(runs, files[arm][2])
        print(f"{arm} on {cores}", json.dumps(told))
    return result


def tell(runs: list[dict], size: float) -> dict:
    """Return medians and spreads of an arm's rounds over `size` MB."""
    told = {
        "mb": round(size, 1),
        "mb_per_s": machine.summary([size / one["weigh_s"] for one in runs]),
        "mb_per_s_read_too": machine.summary([size / (one["weigh_s"] + one["read_s"]) for one in runs]),
        "weigh_s": machine.summary([one["weigh_s"] for one in runs], 3),
        "compile_s": machine.summary([one["compile_s"] for one in runs], 3),
        "peak_mb": round(max(one["peak_mb"] for one in runs)),
        "load_before": max(one["load"] for one in runs),
    }
    if "pass_s" in runs[0]:
        told["times_one_pass"] = machine.summary([one["weigh_s"] / one["pass_s"] for one in runs], 1)
    return told


if __name__ == "__main__":
    main()
