"""The table of docs/speed.md, from the results that the other benchmarks saved and what this machine allows.

    python -m benchmarks speed [--save]

Measures how fast two threads multiply matrices and read memory (medians of five), and sets each saved result
of `dedup`, `decontaminate`, `dsir`, `selection`, `mixing`, `packing` and `templating` against the floor that
follows: bytes that have to be read once, or multiplications that have to be made. Without --save it only
prints.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import machine

PAGE = Path(__file__).parents[1] / "docs" / "speed.md"


@dataclass
class Line:
    """One workload: ours, the floor in seconds and what it is made of, and what the others took."""

    workload: str
    goal: str
    seconds: float
    floor: float
    made_of: str
    memory_mb: float
    others: dict[str, float] = field(default_factory=dict)
    note: str = ""


def calibrate() -> dict[str, float]:
    """Return float32 multiply-adds per second and bytes read per second, with all cores."""
    import numba
    import numpy as np

    a = np.random.default_rng(0).standard_normal((4096, 1024), dtype=np.float32)

    @numba.njit(parallel=True, nogil=True)
    def total(x: Any) -> Any:
        found = np.int64(0)
        for i in numba.prange(x.shape[0]):
            found += x[i]
        return found

    block = np.ones(1 << 27, np.int64)
    total(block[:8])
    return {
        "multiply_adds_per_s": 4096 * 4096 * 1024 / _median(lambda: a @ a.T),
        "bytes_per_s": block.nbytes / _median(lambda: total(block)),
    }


def _median(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def _load(name: str) -> dict[str, Any] | None:
    path = machine.RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def selection(limit: dict[str, float]) -> Iterator[Line]:
    """k-center and facility location."""
    goals = {"k-center": "0.8 s", "large": "60 s, 2.5 GB", "facility": "3 s"}
    for case, goal in goals.items():
        found = _load(f"selection-{case}")
        if found is None:
            continue
        n, d, k = (found["case"][key] for key in ("size", "width", "picks"))
        arms = {a: r for a, r in found["arms"].items() if "median_s" in r}
        ours = arms.pop("taskmill-facility" if case == "facility" else "taskmill")
        same = {True: "same picks as the plain algorithm", False: "OTHER picks than the plain algorithm"}
        if case == "facility":
            floor = n * n * d / 2 / limit["multiply_adds_per_s"]
            made, title = "half of all products of two rows", "facility location"
        else:
            floor, made, title = n * d * 4 / limit["bytes_per_s"], "one reading of the vectors", "k-center"
        yield Line(
            f"{title}, {n:,} × {d} → {k:,}", goal, ours["median_s"], floor, made, ours["peak_mb"],
            {a: r["median_s"] for a, r in arms.items()}, same.get(ours["same_as_plain"], ""),
        )  # fmt: skip


def dedup(limit: dict[str, float]) -> Iterator[Line]:
    """Exact, near and semantic deduplication."""
    for mode, goal in {"exact": "0.3 s", "near": "6 s", "semantic": "10 s"}.items():
        found = _load(f"dedup-{mode}")
        if found is None:
            continue
        runs, settings = found["runs"], found["settings"]
        ours = runs.pop("taskmill")
        each = {"exact": settings["bytes"], "near": 7 * settings["words"]}.get(mode, 0)
        note = f"recall {ours['recall']:.3f}, {ours['wrong']} wrong" if "recall" in ours else ""
        yield Line(
            f"{mode} dedup, {settings['rows']:,} rows", goal, ours["seconds"]["median"],
            settings["rows"] * each / limit["bytes_per_s"], "one reading of the texts" if each else "",
            ours["peak_mb"], {n: r["seconds"]["median"] for n, r in runs.items()}, note,
        )  # fmt: skip


def decontaminate(limit: dict[str, float]) -> Iterator[Line]:
    """All modes against planted items."""
    found = _load("decontaminate")
    if found is None:
        return
    lines = {r["name"]: r for r in found["results"] if "median_s" in r}
    others = {n: r["median_s"] for n, r in lines.items() if n in ("set", "decon", "datatrove")}
    for mode in ("13gram", "8gram50", "exact", "decon-mode"):
        if mode not in lines:
            continue
        ours = lines[mode]
        yield Line(
            f"decontaminate ({mode.removesuffix('-mode')}), {found['rows']:,} rows, {found['items']:,} items",
            "2 s", ours["median_s"], found["rows"] * 700 / limit["bytes_per_s"], "one reading of the texts",
            ours["memory_mb"], others if mode == "13gram" else {},
            "every planted row found" if ours["gate"] else "planted rows MISSED",
        )  # fmt: skip


def dsir(limit: dict[str, float]) -> Iterator[Line]:
    """Importance weights on one core."""
    found = _load("dsir")
    if found is None or "own on 1" not in found["arms"]:
        return
    ours, peer = found["arms"]["own on 1"], found["arms"].get("peer on 1")
    others = {}
    if peer:  # it was given fewer bytes: its time for ours
        others["data-selection"] = ours["mb"] / peer["mb_per_s_read_too"]["median"]
    yield Line(
        f"DSIR weights, {ours['mb']:,.0f} MB, one core", "50 MB/s", ours["weigh_s"]["median"],
        ours["weigh_s"]["median"] / ours["times_one_pass"]["median"], "one pass over the bytes",
        ours["peak_mb"], others, f"{ours['mb_per_s']['median']:.0f} MB/s",
    )  # fmt: skip


def mixtures(limit: dict[str, float]) -> Iterator[Line]:
    """The order of a mixture, packing, templates and few-shot prompts."""
    if found := _load("mixing"):
        arms = found["arms"]
        ours, case = arms.pop("taskmill"), found["case"]
        rate = {name: case["draws"] / arm["draws_per_s"]["median"] for name, arm in arms.items()}
        yield Line(
            f"mixture order, {case['draws']:,} draws of {case['sources']:,} sources", "1 s",
            ours["take"]["median"], case["draws"] * 16 / limit["bytes_per_s"], "one writing of the draws",
            ours["peak_mb"]["median"], rate, f"resume {ours['resume']['median'] * 1000:.1f} ms",
        )  # fmt: skip
    if found := _load("packing"):
        arms = found["arms"]
        ours, case = arms.pop("taskmill"), found["case"]
        moved = ours["least"]["median"] * case["length"] * 6  # 2 bytes and 1, read and written
        plan = f"plan {ours['plan']['median']:.2f} s, {ours['fill']['median']:.3%} filled"
        yield Line(
            f"packing, {case['rows']:,} rows into {case['length']:,}, to disk", "5 s, 3 GB",
            ours["total"]["median"], moved / limit["bytes_per_s"], "tokens read and written once",
            ours["peak_mb"]["median"], {n: a["total"]["median"] for n, a in arms.items()}, plan,
        )  # fmt: skip
    if found := _load("templating"):
        medians = {name: one["median"] for name, one in found["seconds"].items()}
        ours_s = medians.pop("taskmill")
        yield Line(
            f"10 templates mixed, {found['rows']:,} rows", f"{found['goal'] / 1e6:.1f}M rows/s", ours_s,
            found["rows"] * 900 / limit["bytes_per_s"], "texts read and written once", found["peak_mb"],
            medians, f"{found['rows'] / ours_s / 1e6:.2f}M rows/s",
        )  # fmt: skip
        if few := found.get("fewshot"):
            seconds, floor = few["choose_s"] + few["write_s"], 2e6 * few["mb"] / limit["bytes_per_s"]
            yield Line(
                f"five-shot prompts, {few['prompts']:,}", "–", seconds, floor,
                "prompts read and written once", few["peak_mb"], {}, f"{few['per_s']:,} a second",
            )  # fmt: skip


def table(lines: Sequence[Line]) -> str:
    """Return the Markdown table."""
    rows = [
        "| workload | goal | taskmill, s | floor, s | times the floor | peak MB | others, times taskmill | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for a in lines:
        floor = f"{a.floor:.3f} ({a.made_of})" if a.made_of else "–"
        times = f"{a.seconds / a.floor:.1f}" if a.made_of else "–"
        others = ", ".join(f"{n} {s / a.seconds:.2g}" for n, s in a.others.items()) or "–"
        cells = (a.workload, a.goal, f"{a.seconds:.2f}", floor, times, f"{a.memory_mb:.0f}", others, a.note)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


PARTS = (dedup, decontaminate, dsir, selection, mixtures)


def main(options: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks speed", description=__doc__.split("\n")[0])
    parser.add_argument("--save", action="store_true", help="write the table into docs/speed.md")
    chosen = parser.parse_args(options)
    limit = calibrate()
    lines = [line for part in PARTS for line in part(limit)]
    made = table(lines)
    print(json.dumps({k: f"{v:.3g}" for k, v in limit.items()}))
    print(made)
    if chosen.save:
        machine.save("speed", {"calibration": limit})
        about = (
            f"Two cores: {limit['multiply_adds_per_s'] / 1e9:.0f} billion multiply-adds a second (float32), "
            f"{limit['bytes_per_s'] / 1e9:.1f} GB/s read."
        )
        machine.write_table(PAGE, "speed", f"{about}\n\n{made}")


if __name__ == "__main__":
    main()
