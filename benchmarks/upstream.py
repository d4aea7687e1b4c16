"""The embedded synthesizer served by taskmill against the upstream way of working, with the same weights.

    python -m benchmarks upstream --data FOLDER [--passages 2] [--batch 16] [--rounds 2] [--save]

Upstream's package sends prompts through `generate` in fixed batches. Here the same requests (all 16 task
types about the same unseen passages, the same sampling and stops) go through transformers in batches of
--batch, sorted by length, the adapter merged into fp32 weights; and through taskmill's OpenVINO backend. Both
sides' replies are read and checked by the same code. They take turns, each round in a fresh process; loading
is not counted. Needs torch, transformers and peft (`taskmill[train]`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.synthesizer import TRAINED, outcome, passages, requests

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "synthesizer.md"
SIDES = ("transformers", "taskmill")


def posed(data: Path, count: int, model: str) -> list[Any]:
    """Return the requests, a passage's together."""
    from taskmill.tasks import TASKS

    documents = passages(data, count)
    by_task = [requests("trained", model, t, documents, "") for t in TASKS.names()]
    place = {d.id: i for i, d in enumerate(documents)}
    return sorted((a for own in by_task for a in own), key=lambda a: place[a.payload.document.id])


def through_taskmill(data: Path, args: Any) -> dict[str, Any]:
    """Run the requests through the OpenVINO backend."""
    from taskmill import backends
    from taskmill.backends import ModelConfig

    backend = backends.load(ModelConfig(ref=TRAINED))
    asked = posed(data, args.passages, backend.model)
    by_key = {a.key: a for a in asked}
    started = time.perf_counter()
    done = [(by_key[c.key], c) for c in backend.generate(asked)]
    return _figures(backend.model, done, time.perf_counter() - started)


def through_transformers(data: Path, args: Any) -> dict[str, Any]:
    """Run the requests through `generate` in fixed batches."""
    import torch
    from peft import PeftModel

    import taskmill
    from taskmill.calls import Completion
    from taskmill.train import TrainConfig
    from taskmill.train.base import find, load_model, load_tokenizer

    base = find("smollm2-135m")
    tokenizer = load_tokenizer(base)
    tokenizer.padding_side, tokenizer.pad_token = "left", tokenizer.eos_token
    adapter = Path(taskmill.__file__).parent / "adapters" / TRAINED.partition(":")[2]
    model = load_model(base, TrainConfig().resolved(), "fp32", "cpu")
    model = PeftModel.from_pretrained(model, adapter).merge_and_unload().eval()
    asked = sorted(posed(data, args.passages, "transformers"), key=lambda a: len(a.prompt))
    torch.manual_seed(0)
    done = []
    started = time.perf_counter()
    for at in range(0, len(asked), args.batch):
        batch = asked[at : at + args.batch]
        inputs = tokenizer([a.prompt for a in batch], return_tensors="pt", padding=True)
        sampling = batch[0].sampling
        with torch.no_grad():
            out = model.generate(
                **inputs,
                do_sample=True,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_new_tokens=max(a.sampling.max_tokens for a in batch),
                pad_token_id=tokenizer.pad_token_id,
            )
        for request, ids in zip(batch, out[:, inputs["input_ids"].shape[1] :], strict=True):
            done.append((request, _completion(Completion, request, ids.tolist(), tokenizer)))
    return _figures("transformers", done, time.perf_counter() - started)


def _completion(kind: Any, request: Any, ids: list[int], tokenizer: Any) -> Any:
    ended = tokenizer.eos_token_id in ids
    ids = ids[: ids.index(tokenizer.eos_token_id)] if ended else ids
    text = tokenizer.decode(ids, skip_special_tokens=False)
    # Upstream has no stops: what follows one is cut off here, as far as it was generated.
    for stop in request.sampling.stop:
        text, found, _ = text.partition(stop)
        ended = ended or bool(found)
    return kind(request.key, text, "stop" if ended else "length", completion_tokens=len(ids))


def _figures(model: str, done: list[tuple[Any, Any]], seconds: float) -> dict[str, Any]:
    found = outcome(model, done, len(done), seconds)
    return {
        "asked": found["asked"],
        "accepted": found["accepted"],
        "tokens": found["tokens"],
        "seconds": found["seconds"],
        "accepted_per_second": round(found["accepted"] / seconds, 3),
    }


def tables(result: dict[str, Any]) -> str:
    """Return the Markdown table."""
    rows = [
        "| way | requests | accepted | tokens written | accepted per second (median) | ratio |",
        "|---|---|---|---|---|---|",
    ]
    slowest = result["medians"]["transformers"]
    for side in SIDES:
        last = result["rounds"][side][-1]
        name = f"transformers, batches of {result['settings']['batch']}" if side == "transformers" else side
        rate = result["medians"][side]
        rows.append(
            f"| {name} | {last['asked']} | {last['accepted']} | {last['tokens']} | {rate:.2f} | "
            f"{rate / slowest:.1f} |"
        )
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks upstream", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds targets/")
    parser.add_argument("--passages", type=int, default=2, help="passages per source")
    parser.add_argument("--batch", type=int, default=16, help="rows of a fixed batch")
    parser.add_argument("--rounds", type=int, default=2, help="times that each side runs")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--save", action="store_true", help="write results/upstream.json and the page")
    args = parser.parse_args(arguments)
    if args.side:
        run = through_taskmill if args.side == "taskmill" else through_transformers
        print(json.dumps(run(args.data, args)))
        return
    rounds: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for number in range(args.rounds):
        for side in SIDES[:: 1 if number % 2 else -1]:
            words = [sys.executable, "-m", "benchmarks", "upstream", "--side", side, "--data", str(args.data)]
            words += ["--passages", str(args.passages), "--batch", str(args.batch)]
            shown = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT)
            rounds[side].append(json.loads(shown.stdout.strip().splitlines()[-1]))
            print(side, rounds[side][-1], file=sys.stderr)
    medians = {s: statistics.median(r["accepted_per_second"] for r in own) for s, own in rounds.items()}
    settings = {"passages_per_source": args.passages, "batch": args.batch}
    result = {"benchmark": "upstream", "settings": settings, "rounds": rounds, "medians": medians}
    print(tables(result))
    if args.save:
        print(f"saved to {machine.save('upstream', result).relative_to(ROOT)}")
        machine.write_table(PAGE, "upstream", tables(result))


if __name__ == "__main__":
    main()
