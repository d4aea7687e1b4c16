"""Calls per second of the OpenAI backend against a bare aiohttp loop, same server, alternately.

    python benchmarks/http_client.py [--calls 5000] [--concurrency 64] [--rounds 5] [--json out.json]

Each measurement is a process of its own (start-up is not counted, peak memory is). Every answer is
checked against its prompt. `--server-python` runs the server on another interpreter, e.g. one with uvloop.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
MODEL = "fast-model"


def prompt(i: int) -> str:
    return (
        f"Write one question about passage {i}: the river carries what the rain has washed out, item {i:06d}"
    )


def bare(port: int, calls: int, concurrency: int) -> float:
    """The loop to beat: aiohttp, N tasks, orjson, no retries, no hand-over, answers kept in a list."""
    import aiohttp
    import orjson

    async def run() -> float:
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        todo, answers = iter(range(calls)), [""] * calls
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency)) as session:

            async def worker() -> None:
                for i in todo:
                    message = {"role": "user", "content": prompt(i)}
                    body = {"model": MODEL, "messages": [message], "max_tokens": 256, "temperature": 0.5}
                    async with session.post(
                        url, data=orjson.dumps(body), headers={"Content-Type": "application/json"}
                    ) as reply:
                        found = orjson.loads(await reply.read())
                        answers[i] = found["choices"][0]["message"]["content"]

            start = time.perf_counter()
            await asyncio.gather(*(worker() for _ in range(concurrency)))
            spent = time.perf_counter() - start
        assert all(answers[i] == "echo: " + prompt(i)[-40:] for i in range(calls))
        return spent

    return asyncio.run(run())


def ours(port: int, calls: int, concurrency: int) -> float:
    """The backend as a stage uses it: a lazy stream of Requests in, Completions out."""
    from taskmill.backends.openai import OpenAI
    from taskmill.calls import Request, Sampling

    model = OpenAI(MODEL, base_url=f"http://127.0.0.1:{port}", concurrency=concurrency)
    sampling = Sampling()
    stream = (Request(str(i), sampling, messages=(("user", prompt(i)),)) for i in range(calls))
    start = time.perf_counter()
    answers = {c.key: c.text for c in model.generate(stream)}
    spent = time.perf_counter() - start
    assert all(answers[str(i)] == "echo: " + prompt(i)[-40:] for i in range(calls))
    return spent


def measure(which: str, args: argparse.Namespace, port: int) -> tuple[float, float]:
    """Run one side in its own process; returns (calls per second, peak MB)."""
    command = [sys.executable, __file__, "--side", which, "--port", str(port)]
    command += ["--calls", str(args.calls), "--concurrency", str(args.concurrency)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    spent, peak = map(float, out.split())
    return args.calls / spent, peak


def compare(args: argparse.Namespace) -> dict:
    server = subprocess.Popen(
        [args.server_python, str(HERE / "orchestration_server.py")], stdout=subprocess.PIPE, text=True
    )
    try:
        port = int(server.stdout.readline())
        runs = {"bare": [], "ours": []}
        for _ in range(args.rounds):
            for which, found in runs.items():
                found.append(measure(which, args, port))
    finally:
        server.terminate()
        server.wait()
    speed = {which: statistics.median(s for s, _ in found) for which, found in runs.items()}
    ratios = [o / b for (o, _), (b, _) in zip(runs["ours"], runs["bare"], strict=True)]
    return {
        "calls": args.calls,
        "concurrency": args.concurrency,
        "rounds": args.rounds,
        "calls_per_second": {which: round(s) for which, s in speed.items()},
        "spread": {which: [round(min(f)[0]), round(max(f)[0])] for which, f in runs.items()},
        "peak_mb": {which: round(statistics.median(m for _, m in f), 1) for which, f in runs.items()},
        "ratio": round(statistics.median(ratios), 3),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the result here as well")
    parser.add_argument("--server-python", default=sys.executable)
    parser.add_argument("--side", choices=("bare", "ours"), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        spent = {"bare": bare, "ours": ours}[args.side](args.port, args.calls, args.concurrency)
        print(spent, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    result = compare(args)
    print(json.dumps(result, indent=2))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
