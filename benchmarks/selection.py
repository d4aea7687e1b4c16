"""k-center and facility location beside the peers: every arm a fresh process, rounds taken in turns.

    python -m benchmarks.selection --case k-center --peers k-center,divsel --rounds 5
    python -m benchmarks.selection --case facility --size 20000 --width 384 --picks 1000 --peers apricot
    python -m benchmarks.selection --case large            # 1M x 256, pick 5,000

Peers run in the Python given by --python NAME=PATH (default: this one). The picks of the plain algorithm are
the gate: an exact arm that chooses other rows is reported as wrong. Compilation and imports are timed apart.
`--save` writes results/selection-CASE.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.machine import load, save, versions

CASES = {
    "small": (20_000, 128, 200),
    "k-center": (100_000, 384, 500),
    "large": (1_000_000, 256, 5_000),
    "facility": (20_000, 384, 1_000),
    "facility-small": (20_000, 128, 200),
}
ARMS = {
    "small": ("taskmill", "numpy"),
    "k-center": ("taskmill", "numpy"),
    "large": ("taskmill",),
    "facility": ("taskmill-facility",),
    "facility-small": ("taskmill-facility",),
}
PACKAGES = ("taskmill", "numba", "numpy", "k-center", "divsel", "apricot-select", "max-div")
THREADS = str(os.cpu_count() or 1)


def vectors(size: int, width: int, seed: int = 0) -> np.ndarray:
    """Unit rows in 64 clusters with noise, float32: what the peers were measured on."""
    rng = np.random.default_rng(seed)
    middles = rng.standard_normal((64, width)).astype(np.float32)
    middles /= np.linalg.norm(middles, axis=1, keepdims=True)
    made = np.empty((size, width), np.float32)
    for a in range(0, size, 65536):
        b = min(a + 65536, size)
        made[a:b] = middles[rng.integers(0, 64, b - a)]
        made[a:b] += 0.6 / np.sqrt(width) * rng.standard_normal((b - a, width)).astype(np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made


# Arms: each returns (seconds for imports and compilation, seconds, picks)


def taskmill(x: np.ndarray, picks: int, method: str = "k-center") -> tuple[float, float, list[int]]:
    begin = time.perf_counter()
    import pyarrow as pa

    from taskmill.select import Budget, Pool, make

    def pool(rows: np.ndarray) -> Pool:
        ids = pa.array([f"{i:08}" for i in range(len(rows))])
        return Pool(ids, np.ones(len(rows), np.int64), rows)

    selector = make(method)
    selector.pick(pool(x[:2000]), Budget(rows=20), 0)  # compiles, or loads what was compiled
    own = pool(x)
    ready = time.perf_counter()
    rows = selector.pick(own, Budget(rows=picks), 0).rows
    return ready - begin, time.perf_counter() - ready, rows.tolist()


def facility(x: np.ndarray, picks: int) -> tuple[float, float, list[int]]:
    return taskmill(x, picks, "facility-location")


def plain(x: np.ndarray, picks: int) -> tuple[float, float, list[int]]:
    """One matrix-vector product a pick."""
    begin = time.perf_counter()
    chosen = [int(np.argmax(x @ x.mean(axis=0)))]
    like = x @ x[chosen[0]]
    while len(chosen) < picks:
        row = int(np.argmin(like))
        chosen.append(row)
        np.maximum(like, x @ x[row], out=like)
    return 0.0, time.perf_counter() - begin, chosen


def k_center(x: np.ndarray, picks: int) -> tuple[float, float, list[int]]:
    begin = time.perf_counter()
    from k_center import KCenter

    ready = time.perf_counter()
    model = KCenter(n_clusters=picks, distance_metric="euclidean", random_state=0)
    model.fit(x)
    took = time.perf_counter() - ready
    # It gives coordinates: the row of each is the one nearest to it.
    rows = [int(np.argmax(x @ np.asarray(c, np.float32))) for c in model.cluster_centers_]
    return ready - begin, took, rows


def divsel(x: np.ndarray, picks: int) -> tuple[float, float, list[int]]:
    begin = time.perf_counter()
    import divsel as package

    ready = time.perf_counter()
    rows = package.gist_select(x, k=picks, lam=1.0, metric="euclidean", diameter="approx")
    return ready - begin, time.perf_counter() - ready, [int(r) for r in np.asarray(rows).ravel()]


def apricot(x: np.ndarray, picks: int) -> tuple[float, float, list[int]]:
    begin = time.perf_counter()
    from apricot import FacilityLocationSelection

    FacilityLocationSelection(5, metric="precomputed", optimizer="lazy").fit(np.eye(50))
    ready = time.perf_counter()
    selection = FacilityLocationSelection(picks, metric="precomputed", optimizer="lazy")
    selection.fit(np.maximum(x @ x.T, 0).astype(np.float64))
    return ready - begin, time.perf_counter() - ready, [int(r) for r in selection.ranking]


RUN = {
    "taskmill": taskmill,
    "taskmill-facility": facility,
    "numpy": plain,
    "k-center": k_center,
    "divsel": divsel,
    "apricot": apricot,
}


def _arm(name: str, path: str, picks: int) -> None:
    """Run one arm in this process and print what it did."""
    x = np.load(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ready, took, rows = RUN[name](x, picks)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        json.dumps(
            {
                "ready_s": ready,
                "seconds": took,
                "rows": rows,
                "peak_mb": peak / 1024,
                "input_mb": before / 1024,
            }
        )
    )


def _start(name: str, path: Path, picks: int, python: str) -> dict:
    environment = os.environ | dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), THREADS
    )
    environment.pop("OPENBLAS_CORETYPE", None)
    command = [python, "-m", "benchmarks.selection", "--arm", name, "--data", str(path)]
    command += ["--picks", str(picks)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no message"}
    return json.loads(done.stdout.strip().splitlines()[-1])


def covering(x: np.ndarray, rows: list[int]) -> float:
    """Largest distance of a row to the nearest pick."""
    like = np.full(len(x), -1, np.float32)
    for a in range(0, len(rows), 256):
        np.maximum(like, (x @ x[rows[a : a + 256]].T).max(axis=1), out=like)
    return float(np.sqrt(max(0.0, 2 - 2 * float(like.min()))))


def value(x: np.ndarray, rows: list[int]) -> float:
    """Facility location's value of the picks."""
    best = np.zeros(len(x), np.float32)
    for a in range(0, len(rows), 256):
        np.maximum(best, (x @ x[rows[a : a + 256]].T).max(axis=1), out=best)
    return float(best.sum(dtype=np.float64))


def main(options: Sequence[str] | None = None) -> None:
    """Run the rounds of one case and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--case", choices=CASES, default="k-center")
    parser.add_argument("--size", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument("--picks", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", default="", help="of " + ", ".join(sorted(RUN)))
    parser.add_argument("--python", action="append", default=[], help="NAME=PATH of an arm's interpreter")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    parser.add_argument("--data", help=argparse.SUPPRESS)
    given = parser.parse_args(options)
    if given.arm:
        _arm(given.arm, given.data, given.picks)
        return
    size, width, picks = (
        own or default
        for own, default in zip((given.size, given.width, given.picks), CASES[given.case], strict=True)
    )
    pythons = dict(entry.split("=", 1) for entry in given.python)
    names = [*ARMS[given.case], *filter(None, given.peers.split(","))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.npy"
        x = vectors(size, width)
        np.save(path, x)
        runs: dict[str, list[dict]] = {name: [] for name in names}
        loads = []
        for _ in range(given.rounds):
            for name in names:
                loads.append(load())
                runs[name].append(_start(name, path, picks, pythons.get(name, sys.executable)))
        result = _result(x, runs, given.case.startswith("facility"), picks)
    result |= {
        "case": {"name": given.case, "size": size, "width": width, "picks": picks, "rounds": given.rounds},
        "packages": versions(PACKAGES),
        "load": loads,
    }
    print(_table(result))
    if given.save:
        print(save(f"selection-{given.case}", result))


def _result(x: np.ndarray, runs: dict[str, list[dict]], is_facility: bool, picks: int) -> dict:
    expected = next((r["rows"] for r in runs.get("numpy", ()) if "rows" in r), None)
    floor = picks * x.size / 1e9
    arms = {}
    for name, rounds in runs.items():
        fine = [r for r in rounds if "rows" in r]
        if not fine:
            arms[name] = {"error": rounds[0]["error"]}
            continue
        rows, times = fine[-1]["rows"], [r["seconds"] for r in fine]
        arms[name] = {
            "median_s": statistics.median(times),
            "least_s": min(times),
            "largest_s": max(times),
            "ready_s": statistics.median(r["ready_s"] for r in fine),
            "peak_mb": max(r["peak_mb"] for r in fine),
            "same_every_time": len({tuple(r["rows"]) for r in fine}) == 1,
            "same_as_plain": None if expected is None else rows == expected,
            "quality": value(x, rows) if is_facility else covering(x, rows),
        }
    return {"arms": arms, "plain_gigamacs": floor}


def _table(result: dict) -> str:
    fast = min((a["median_s"] for a in result["arms"].values() if "median_s" in a), default=0)
    lines = [
        "| arm | median s (least–largest) | ratio | ready s | peak MB | same picks | value or covering |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, a in result["arms"].items():
        if "error" in a:
            lines.append(f"| {name} | failed: {a['error']} | | | | | |")
            continue
        spread = f"{a['median_s']:.3f} ({a['least_s']:.3f}–{a['largest_s']:.3f})"
        same = {True: "yes", False: "no", None: "–"}[a["same_as_plain"]]
        lines.append(
            f"| {name} | {spread} | {a['median_s'] / fast:.1f} | {a['ready_s']:.1f} | {a['peak_mb']:.0f} "
            f"| {same} | {a['quality']:.6g} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
