"""What orchestration costs: 5,000 short calls at concurrency 64 to a server that answers at once.

    python -m benchmarks orchestration                       taskmill against a bare aiohttp loop
    python -m benchmarks orchestration --peers all --save    and against other tools, each in its own venv
    python -m benchmarks orchestration --peers data-designer,datatrove --calls 500 --rounds 1

Arms take turns, round by round; each is a fresh process. Wall is from its start to its end, results on
disk. Steady calls/s are counted by the server, from the first answer to the last. Memory is the peak of
the arm's whole process tree. Every answer found on disk is checked against its prompt. A peer that
cannot be installed or run is reported with its error.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import machine

ROOT = Path(__file__).parents[1]
PEERS = Path(__file__).parent / "peers"
ITEM = re.compile(r"item (\d{6})")
QUIET = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "NEMO_TELEMETRY_ENABLED": "false",  # data-designer
    "TELEMETRY_ENABLED": "0",  # bespokelabs-curator
    "CURATOR_VIEWER": "0",
    "DAFT_ANALYTICS_ENABLED": "0",
    "OPENAI_API_KEY": "none",
}
"""The environment of every arm: no usage reports, no network beyond the loopback server."""

WARM_UP = 100
"""Calls of a first run that is not counted: it compiles, and shows whether an arm works at all."""

TIMEOUT = 300
"""Seconds after which one run of an arm is ended."""

GOALS = {"calls_per_second_to_bare": 0.6, "wall_seconds": 1.5, "peak_mb": 80}


@dataclass(frozen=True)
class Arm:
    """One side: a script of peers/, the interpreter that runs it, what it needs installed."""

    name: str
    script: str
    requires: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    again: bool = False
    """Measured on the second of two runs, when all its answers are on disk already."""
    environment: str = ""
    """Name of its venv; empty: the interpreter that runs the benchmark."""


BARE = "bare aiohttp loop"
OURS = "taskmill, ledger on"
OWN = (
    Arm(BARE, "run_bare.py"),
    Arm(OURS, "run_taskmill.py"),
    Arm("taskmill, all in the ledger", "run_taskmill.py", again=True),
    Arm("taskmill synth", "run_synth.py"),
)
# httpx and aiosqlite, orjson, xxhash and aiofiles are datatrove's undeclared needs for this step.
_DATATROVE = ("datatrove==0.10.1", "orjson", "xxhash", "aiofiles", "aiosqlite", "httpx")
OTHERS = {
    "data-designer": ("run_data_designer.py", ("data-designer==0.9.6",), {"": ()}),
    "bespokelabs-curator": ("run_curator.py", ("bespokelabs-curator==0.1.31",), {"": ()}),
    "datatrove": ("run_datatrove.py", _DATATROVE, {"": (), " + checkpoints": ("checkpoints=1",)}),
    "synthetic-data-kit": ("run_synthetic_data_kit.py", ("synthetic-data-kit==0.0.5",), {"": ()}),
    "distilabel": ("run_distilabel.py", ("distilabel[openai]==1.5.3", "requests"), {"": ()}),
}
SERVER = ("uvloop", "orjson")


def prompt(i: int) -> str:
    return (
        f"Write one question about the passage: the river carries what the rain has washed out, item {i:06d}"
    )


# the server


@dataclass
class _Count:
    calls: int = 0
    first: float = 0.0
    last: float = 0.0


def serve() -> None:
    """Run the loopback server; a line on standard input prints its counts and starts them anew."""
    from benchmarks import orchestration_server as server

    plain = server.answer
    count = _Count()

    def answer(head: bytes, body: bytes) -> bytes:
        if b'"messages"' in body:
            body = _with_text(body)
        if b"item " in body:
            count.last = time.perf_counter()
            count.first = count.first or count.last
            count.calls += 1
            if b"Return JSON format only" in body:  # synthetic-data-kit
                pair = {"question": "What?", "answer": f"item {ITEM.findall(body.decode())[-1]}"}
                return _said(json.dumps([pair]), chat=True)
            if b"<|tasktype|>" in body:  # Bonito's protocol
                asked = f"What does the river carry, and what is item {ITEM.findall(body.decode())[-1]}?"
                return _said(f"Write a question about this: {{{{context}}}}\n<|pipe|>\n{asked}", chat=False)
        return plain(head, body)

    def report() -> None:
        sys.stdin.readline()
        print(json.dumps(count.__dict__), flush=True)
        count.__init__()

    class Closing(server.Server):
        """Ends a connection where the client asks for it: datatrove reads until it does."""

        closes = False

        def data_received(self, data: bytes) -> None:
            self.closes = self.closes or b"onnection: close" in data
            super().data_received(data)
            if self.closes and not self.buffer:
                self.transport.close()

    async def everything() -> None:
        asyncio.get_running_loop().add_reader(sys.stdin, report)
        await server.serve(0)

    server.answer, server.Server = answer, Closing
    try:
        import uvloop

        factory = uvloop.new_event_loop
    except ImportError:
        factory = None
    with asyncio.Runner(loop_factory=factory) as runner, contextlib.suppress(KeyboardInterrupt):
        runner.run(everything())


def _said(text: str, chat: bool) -> bytes:
    said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    choice = {"index": 0, **said, "finish_reason": "stop"}
    usage = {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}
    reply = json.dumps({"id": "cmpl-0", "model": "fast-model", "choices": [choice], "usage": usage}).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(reply)
    return head + reply


def _with_text(body: bytes) -> bytes:
    """Return a chat body with a last message of plain text: some clients send parts, or none to probe."""
    if b'"content":"' in body or b'"content": "' in body:
        return body
    asked = json.loads(body)
    content = asked["messages"][-1]["content"] if asked["messages"] else ""
    text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
    return json.dumps({**asked, "messages": [{"role": "user", "content": text}]}).encode()


@dataclass
class _Server:
    process: subprocess.Popen
    url: str = ""

    def take(self) -> _Count:
        """Return what was counted since the last time."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return _Count(**json.loads(self.process.stdout.readline()))


@contextlib.contextmanager
def _serving(python: Path) -> Iterator[_Server]:
    command = [str(python), "-m", "benchmarks.orchestration", "--serve"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        yield _Server(process, f"http://127.0.0.1:{int(process.stdout.readline())}/v1")
    finally:
        process.terminate()
        process.wait()


# venvs


class Failure(Exception):
    """Why an arm has no figures."""


def venv(name: str, requires: Sequence[str], folder: Path) -> Path:
    """Return the interpreter of a venv that has what is required; made on demand."""
    python = folder / name / "bin" / "python"
    if not python.exists():
        print(f"making the venv of {name} …", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", folder / name], check=True)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requires]
    done = subprocess.run(install, capture_output=True, text=True)
    if done.returncode:
        raise Failure(f"pip install {' '.join(requires)}: {_last_line(done.stderr)}")
    return python


def _installed(python: Path, package: str) -> str:
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True).stdout.strip()


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in reversed(lines) if "rror" in line), lines[-1] if lines else "no message")[
        :300
    ]


# measuring


@dataclass
class Runs:
    """What was measured of one arm."""

    arm: Arm
    python: Path
    version: str = ""
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    steady: list[float] = field(default_factory=list)
    peak_mb: list[float] = field(default_factory=list)
    load: list[float] = field(default_factory=list)
    received: list[int] = field(default_factory=list)
    right: list[int] = field(default_factory=list)
    error: str = ""


def once(runs: Runs, server: _Server, calls: int, concurrency: int, *, keep: bool) -> None:
    """Run an arm once and check what it left on disk; raises Failure."""
    arm = runs.arm
    script = PEERS / arm.script
    with tempfile.TemporaryDirectory(prefix="taskmill-bench-") as folder:
        out = Path(folder)
        prompts = out / "prompts.jsonl"
        prompts.write_text("".join(json.dumps({"prompt": prompt(i)}) + "\n" for i in range(calls)))
        env = {**QUIET, "HOME": folder}
        command = [runs.python, script, "run", prompts, out, server.url, concurrency, *arm.options]
        if arm.again:
            machine.measure(command, env=env, cwd=out, timeout=TIMEOUT)
        server.take()
        found = machine.measure(command, env=env, cwd=out, timeout=TIMEOUT)
        count = server.take()
        if found.code:
            raise Failure(f"exit code {found.code}: {_last_line(found.err or found.out)}")
        shown = subprocess.run(
            [runs.python, script, "answers", out],
            capture_output=True,
            text=True,
            env={**env, "PATH": "/usr/bin:/bin"},
        )
        if shown.returncode:
            raise Failure(f"its results cannot be read: {_last_line(shown.stderr)}")
    right = _right(shown.stdout.splitlines(), calls)
    if not keep:
        return
    runs.wall.append(found.seconds)
    runs.cpu.append(found.cpu_seconds)
    runs.peak_mb.append(found.peak_mb)
    runs.load.append(found.load)
    runs.received.append(count.calls)
    runs.right.append(right)
    if count.calls > 1:
        runs.steady.append((count.calls - 1) / (count.last - count.first))


def _right(lines: Sequence[str], calls: int) -> int:
    """Return how many prompts have their own answer on disk; raises Failure at a wrong one."""
    found = set()
    for line in lines:
        if not line.startswith("["):
            continue
        asked, answer = json.loads(line)
        got = ITEM.findall(answer)
        if not got or (asked and ITEM.findall(asked)[-1] != got[-1]):
            raise Failure(f"a wrong answer: {answer[:80]!r} to {asked[-40:]!r}")
        found.add(int(got[-1]))
    return len(found & set(range(calls)))


def compare(arms: Sequence[Runs], args: argparse.Namespace, server: _Server) -> None:
    """Let the arms take turns."""
    for runs in arms:
        if not runs.error:
            _try(runs, server, min(WARM_UP, args.calls), args.concurrency, keep=False)
    for number in range(max(args.rounds, args.peer_rounds)):
        for runs in arms:
            rounds = args.peer_rounds if runs.arm.environment else args.rounds
            if not runs.error and number < rounds:
                _try(runs, server, args.calls, args.concurrency, keep=True)


def _try(runs: Runs, server: _Server, calls: int, concurrency: int, *, keep: bool) -> None:
    print(f"{runs.arm.name}: {calls} calls (load {machine.load()})", file=sys.stderr)
    try:
        once(runs, server, calls, concurrency, keep=keep)
    except Failure as error:
        runs.error = str(error)
        print(f"  {error}", file=sys.stderr)


# reporting


def result(arms: Sequence[Runs], args: argparse.Namespace) -> dict:
    """Return all figures; ratios to the bare loop are medians over rounds."""
    bare = next(runs for runs in arms if runs.arm.name == BARE)
    entries = {}
    for runs in arms:
        entry: dict = {"version": runs.version} if runs.version else {}
        if runs.error:
            entry["error"] = runs.error
        if runs.wall:
            entry["wall_seconds"] = machine.summary(runs.wall)
            entry["calls_per_second"] = machine.summary([args.calls / s for s in runs.wall], 0)
            if runs.steady:
                entry["steady_calls_per_second"] = machine.summary(runs.steady, 0)
                entry["steady_to_bare"] = _ratio(runs.steady, bare.steady)
            entry["wall_rate_to_bare"] = _ratio(bare.wall, runs.wall)
            entry["cpu_seconds"] = machine.summary(runs.cpu)
            entry["peak_mb"] = machine.summary(runs.peak_mb, 1)
            entry["calls_received"] = runs.received
            entry["right_answers"] = runs.right
            entry["load_before"] = runs.load
        entries[runs.arm.name] = entry
    return {
        "benchmark": "orchestration",
        "settings": {k: getattr(args, k) for k in ("calls", "concurrency", "rounds", "peer_rounds")},
        "goals": GOALS,
        "arms": entries,
    }


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    pairs = [a / b for a, b in zip(ours, theirs, strict=False)]
    return round(statistics.median(pairs), 3) if pairs else None


def table(found: dict) -> str:
    """Return the figures as a table of plain text."""
    calls = found["settings"]["calls"]
    columns = (
        f"{'':29}{'wall s':>20}{'calls/s':>9}{'steady':>9}{'to bare':>9}{'cpu s':>7}{'MB':>6}{'right':>8}"
    )
    lines = [f"{calls} calls, concurrency {found['settings']['concurrency']}", columns]
    for name, entry in found["arms"].items():
        if "wall_seconds" in entry:
            wall = entry["wall_seconds"]
            spread = f"{wall['median']:.2f} ({wall['min']:.2f}–{wall['max']:.2f})"
            steady = entry.get("steady_calls_per_second", {}).get("median", "")
            lines.append(
                f"{name:29}{spread:>20}{entry['calls_per_second']['median']:>9.0f}{steady:>9}"
                f"{entry.get('steady_to_bare', ''):>9}{entry['cpu_seconds']['median']:>7.1f}"
                f"{entry['peak_mb']['median']:>6.0f}"
                f"{min(entry['right_answers']):>8}"
            )
        if "error" in entry:
            lines.append(f"{name:29} failed: {entry['error']}")
    return "\n".join(lines)


def prepare(args: argparse.Namespace) -> list[Runs]:
    """Return the arms asked for, each with its interpreter."""
    arms = [Runs(arm, Path(sys.executable)) for arm in OWN]
    names = {"none": (), "all": tuple(OTHERS)}.get(args.peers) or tuple(filter(None, args.peers.split(",")))
    for name in names if args.peers != "none" else ():
        if name not in OTHERS:
            sys.exit(f"no peer {name!r}; known: none, all, {', '.join(OTHERS)}")
        script, requires, variants = OTHERS[name]
        error, python, version = "", Path(sys.executable), ""
        try:
            python = venv(name, requires, args.venvs)
            version = _installed(python, name)
        except (Failure, OSError, subprocess.SubprocessError) as failure:
            error = str(failure)
        for suffix, options in variants.items():
            arm = Arm(name + suffix, script, requires, options, environment=name)
            arms.append(Runs(arm, python, version, error=error))
    return arms


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks orchestration", description=__doc__.split("\n")[0])
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5, help="for taskmill and the bare loop")
    parser.add_argument("--peer-rounds", type=int, default=3)
    parser.add_argument("--peers", default="none", help="none, all, or names separated by commas")
    parser.add_argument(
        "--venvs",
        type=Path,
        default=Path(tempfile.gettempdir()) / "taskmill-bench-venvs",
        help="folder of the venvs of server and peers, made on demand",
    )
    parser.add_argument("--save", action="store_true", help="write results/orchestration.json")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.serve:
        serve()
        return
    args.venvs.mkdir(parents=True, exist_ok=True)
    arms = prepare(args)
    if not any(runs.arm.environment for runs in arms):
        args.peer_rounds = 0
    with _serving(venv("server", SERVER, args.venvs)) as server:
        compare(arms, args, server)
    found = result(arms, args)
    print(table(found))
    if args.save:
        print(f"saved to {machine.save('orchestration', found).relative_to(ROOT)}")


if __name__ == "__main__":
    main()
