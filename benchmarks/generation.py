"""Embedded generation: taskmill's OpenVINO backend, with ledger, against OpenVINO GenAI called bare.

    python -m benchmarks generation [--requests 96] [--rounds 3] [--save]

The requests are those of a real run: four task types asked, in the chat protocol, about passages of the
Python language reference (`pydoc_data.topics`, on every machine), default sampling, one seed each. Both
sides load the same model file with the same scheduler settings and get the same rendered texts and the
same limits; they take turns, each a fresh process. Loading the model is not counted. Bare is one
`ContinuousBatchingPipeline.generate` of everything at once.
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
from typing import Any

from benchmarks import machine

ROOT = Path(__file__).parents[1]
TASKS = ("exqa", "qg", "ynqa", "summarization")
MODEL = "smollm2-135m"
GOAL = 0.8


def pose(count: int, folder: Path) -> list[dict[str, Any]]:
    """Return the first `count` requests of a run over the language reference: messages and sampling."""
    from taskmill.calls import Request, Sampling
    from taskmill.ingest import IngestConfig, read_sources
    from taskmill.recipes.demo import write_reference
    from taskmill.record import Document
    from taskmill.synthesize.bonito import Synthesis, requests

    source = folder / "reference.jsonl"
    write_reference(source)
    settings = IngestConfig(licence_column="licence", chunk_tokens=180, min_chars=300)
    passages = sorted(
        (item for item in read_sources([str(source)], settings) if isinstance(item, Document)),
        key=lambda document: document.id,
    )
    found = []
    for one in requests(Synthesis(TASKS, sampling=Sampling()), MODEL, passages, 1):
        if isinstance(one, Request) and len(found) < count:
            s = one.sampling
            found.append(
                {
                    "messages": one.messages,
                    "sampling": [s.temperature, s.top_p, s.max_tokens, list(s.stop), s.seed],
                }
            )
    return found


def _read(path: Path) -> list[tuple[tuple[tuple[str, str], ...], Any]]:
    from taskmill.calls import Sampling

    rows = []
    for row in json.loads(path.read_text()):
        temperature, top_p, tokens, stop, seed = row["sampling"]
        messages = tuple((role, content) for role, content in row["messages"])
        rows.append((messages, Sampling(temperature, top_p, tokens, tuple(stop), seed)))
    return rows


class _Clock:
    """Seconds and processor seconds (of all threads) since it was made."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def spent(self) -> dict[str, float]:
        return {
            "seconds": round(time.perf_counter() - self.wall, 3),
            "cpu_seconds": round(time.process_time() - self.cpu, 3),
        }


def bare(path: Path) -> dict[str, float]:
    """Ask OpenVINO GenAI for everything in one call."""
    sys.modules.setdefault("openvino_telemetry", None)
    import openvino_genai as genai

    from taskmill.backends.openvino import BATCH, CACHE_GB, embedded_model

    scheduler = genai.SchedulerConfig()
    scheduler.enable_prefix_caching = True
    scheduler.max_num_seqs = BATCH
    scheduler.max_num_batched_tokens = 2048
    scheduler.cache_size = CACHE_GB
    pipe = genai.ContinuousBatchingPipeline(str(embedded_model(MODEL)), scheduler, "CPU", {})
    tokenizer = pipe.get_tokenizer()
    texts, settings = [], []
    for messages, s in _read(path):
        turns = [{"role": role, "content": content} for role, content in messages]
        texts.append(tokenizer.apply_chat_template(turns, True))
        config = genai.GenerationConfig()
        config.max_new_tokens = s.max_tokens
        config.apply_chat_template = False
        config.set_eos_token_id(tokenizer.get_eos_token_id())
        config.do_sample = s.temperature > 0
        config.temperature, config.top_p, config.rng_seed = s.temperature, s.top_p, s.seed
        if s.stop:
            config.stop_strings = set(s.stop)
        settings.append(config)
    clock = _Clock()
    results = pipe.generate(texts, settings)
    spent = clock.spent()
    return {
        **spent,
        "tokens": results[0].perf_metrics.get_num_generated_tokens(),  # it counts the whole batch
        "prompt_tokens": sum(r.perf_metrics.get_num_input_tokens() for r in results),
        "answers": len(results),
    }


def ours(path: Path) -> dict[str, float]:
    """Ask through backend, caller and ledger, as a stage does."""
    from taskmill import backends
    from taskmill.backends import ModelConfig
    from taskmill.budget import Budget
    from taskmill.caller import Caller
    from taskmill.calls import Request, key_of
    from taskmill.ledger import Ledger

    backend = backends.load(ModelConfig(ref=f"openvino:{MODEL}"))
    asked = (Request(key_of(backend.model, "", m, s, 0), s, messages=m) for m, s in _read(path))
    with Ledger(path.with_suffix(".ledger"), "benchmark") as ledger:
        clock = _Clock()
        done = [completion for _, completion in Caller(backend, ledger, Budget()).answers(asked)]
        ledger.sync()
        spent = clock.spent()
    assert all(c.finish != "error" for c in done)
    return {
        **spent,
        "tokens": sum(c.completion_tokens for c in done),
        "prompt_tokens": sum(c.prompt_tokens for c in done),
        "answers": len(done),
    }


SIDES = {"bare": bare, "taskmill": ours}


def compare(count: int, rounds: int) -> dict[str, Any]:
    """Let both sides take turns and return their figures; `ratio` is the median over rounds."""
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for number in range(rounds):
        with tempfile.TemporaryDirectory(prefix="taskmill-bench-") as folder:
            path = Path(folder) / "requests.json"
            path.write_text(json.dumps(pose(count, Path(folder))))
            # The side that goes first changes: heat and neighbours then cost both the same.
            for side in SIDES if number % 2 == 0 else reversed(SIDES):
                command = [sys.executable, "-m", "benchmarks.generation", "--side", side, "--path", path]
                found = machine.measure(command, cwd=ROOT)
                if found.code:
                    raise SystemExit(f"{side} failed: {found.err[-2000:]}")
                figures = json.loads(found.out.splitlines()[-1])
                figures.update(peak_mb=round(found.peak_mb), load_before=found.load)
                runs[side].append(figures)
                print(f"{side}: {figures}", file=sys.stderr)
    speeds = {side: [f["tokens"] / f["seconds"] for f in found] for side, found in runs.items()}
    per_cpu = {side: [f["tokens"] / f["cpu_seconds"] for f in found] for side, found in runs.items()}
    all_tokens = {
        side: [(f["tokens"] + f["prompt_tokens"]) / f["seconds"] for f in found]
        for side, found in runs.items()
    }
    ratios = [o / b for o, b in zip(speeds["taskmill"], speeds["bare"], strict=True)]
    return {
        "benchmark": "generation",
        "settings": {"model": MODEL, "requests": count, "rounds": rounds, "tasks": TASKS},
        "goals": {"ratio": GOAL},
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(r, 3) for r in ratios],
        "tokens_per_second": {side: machine.summary(found, 1) for side, found in speeds.items()},
        "tokens_per_cpu_second": {side: machine.summary(found, 1) for side, found in per_cpu.items()},
        "with_prompt_tokens_per_second": {side: machine.summary(f, 1) for side, f in all_tokens.items()},
        "runs": runs,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks generation", description=__doc__.split("\n")[0])
    parser.add_argument("--requests", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--save", action="store_true", help="write results/generation.json")
    parser.add_argument("--side", choices=tuple(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.side:
        print(json.dumps(SIDES[args.side](args.path)))
        return
    found = compare(args.requests, args.rounds)
    for side, speed in found["tokens_per_second"].items():
        print(f"{side:10} {speed['median']:7.1f} tokens/s ({speed['min']}–{speed['max']})")
    print(f"ratio      {found['ratio']:7.3f} (goal {GOAL})")
    if args.save:
        print(f"saved to {machine.save('generation', found).relative_to(ROOT)}")


if __name__ == "__main__":
    main()
