"""The machine a benchmark ran on: what it is, how busy it is, and one command's time and memory on it.

    python -m benchmarks.machine

prints the description that stands in every result. Standard library only; memory needs Linux's /proc.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import resource
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("taskmill", "aiohttp", "daft", "minijinja", "numpy", "openvino-genai", "orjson", "pyarrow")
RESULTS = Path(__file__).parent / "results"
_PAUSE = 0.02
"""Seconds between two looks at the memory of a process tree."""


def describe() -> dict:
    """Return processor, cores, memory, kernel, Python and package versions."""
    return {
        "cpu": _field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(int((_field("/proc/meminfo", "MemTotal") or "0").split()[0]) / 2**20, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": versions(PACKAGES),
    }


def versions(names: Sequence[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    found = {}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def load() -> float:
    """Return the machine's load average over the last minute."""
    return round(os.getloadavg()[0], 2)


def peak_mb() -> float:
    """Return the most memory this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def child(module: str, *options: object, python: str = sys.executable) -> dict:
    """Run a module as a fresh process and return the JSON of its last line."""
    command = [python, "-m", module, *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def arms(peers: str, known: Iterable[str]) -> list[str]:
    """Return who is measured: taskmill and `peers` (names, or none); by default those that are installed."""
    there = [name for name in known if find_spec(name.partition("-")[0])]
    names = dict.fromkeys(["taskmill", *(peers.split(",") if peers else there)])
    return [name for name in names if name != "none"]


def write_table(page: Path, name: str, table: str) -> None:
    """Put a table between a page's markers for it, and leave the rest as it is."""
    marked = re.compile(rf"(<!-- measured: {name} -->\n).*?(<!-- end of measured -->)", re.DOTALL)
    text, found = marked.subn(lambda m: f"{m[1]}{table}\n{m[2]}", page.read_text("utf-8"))
    if found != 1:
        raise SystemExit(f"{page} has no place for the table {name!r}")
    page.write_text(text, "utf-8")


def _field(path: str, name: str) -> str:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


@dataclass(frozen=True)
class Measured:
    """How one command went: seconds from start to end; processor time and peak memory of its whole tree."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    load: float
    code: int
    out: str
    err: str


def measure(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 600,
) -> Measured:
    """Run a command as a fresh process and measure it; the load is that before its start."""
    before, used = load(), _cpu()
    start = time.perf_counter()
    process = subprocess.Popen(
        [str(c) for c in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        start_new_session=True,
    )
    watch = _Watch(process.pid)
    watch.start()
    try:
        out, err = process.communicate(timeout=timeout)
        code = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its session is its own: its children end with it
        out, err = process.communicate()
        code, err = 124, f"error: not done after {timeout:g} s"
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    seconds = time.perf_counter() - start
    watch.over.set()
    watch.join()
    return Measured(seconds, _cpu() - used, watch.peak / 1024, before, code, out, err)


def _cpu() -> float:
    """Return the processor seconds of all ended children."""
    times = os.times()
    return times.children_user + times.children_system


class _Watch(threading.Thread):
    """Looks at the resident memory of a process and its descendants until told that it is over."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid = pid
        self.peak = 0
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(_PAUSE):
            everyone = _tree(self.pid)
            now = sum(_status_kb(pid, "VmRSS") for pid in everyone)
            # A process alone remembers its own peak: nothing is missed between two looks.
            alone = _status_kb(self.pid, "VmHWM") if len(everyone) == 1 else 0
            self.peak = max(self.peak, now, alone)


def _tree(pid: int) -> list[int]:
    found, queue = [], [pid]
    while queue:
        pid = queue.pop()
        found.append(pid)
        with contextlib.suppress(OSError):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                queue.extend(int(child) for child in (thread / "children").read_text().split())
    return found


def _status_kb(pid: int, name: str) -> int:
    value = _field(f"/proc/{pid}/status", name).split()
    return int(value[0]) if value else 0


def summary(values: Sequence[float], digits: int = 2) -> dict:
    """Return median, smallest, largest and how many."""
    return {
        "median": round(statistics.median(values), digits),
        "min": round(min(values), digits),
        "max": round(max(values), digits),
        "n": len(values),
    }


def save(name: str, result: Mapping) -> Path:
    """Write a result to results/NAME.json, the machine described on top."""
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    dated = {"measured": time.strftime("%Y-%m-%d %H:%M", time.gmtime()) + " UTC", "machine": describe()}
    path.write_text(json.dumps({**dated, **result}, indent=1) + "\n")
    return path


if __name__ == "__main__":
    print(json.dumps({**describe(), "load": load()}, indent=1))
