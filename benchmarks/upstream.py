"""The embedded synthesizer served by taskmill against the upstream way of working, with the same weights.

    python -m benchmarks upstream --data FOLDER [--vllm-python PATH] [--passages 2] [--batch 16] [--rounds 2]

Upstream's package sends prompts through `generate` in fixed batches, or all at once through vLLM. Here the
same requests (all 16 task types about the same unseen passages, one reply each, the same sampling and
stops) go through transformers in batches of --batch, sorted by length, the adapter merged into fp32
weights; through vLLM on the CPU with the same merged weights, where --vllm-python names an interpreter that
has vLLM (it needs nothing of taskmill's, see peers/run_vllm.py); and through taskmill's OpenVINO backend.
All sides' replies are read and checked by the same code. They take turns, each round in a fresh process;
loading is not counted. Needs torch, transformers and peft (`taskmill[train]`). With --save the figures go
to results/ and the table into docs/synthesizer.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.synthesizer import TRAINED, outcome, passages, posed

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "synthesizer.md"
PEER = Path(__file__).parent / "peers" / "run_vllm.py"
SIDES = ("transformers", "vllm", "taskmill")
SHOWN = 20  # lines of the errors of a side that failed


def asked_of(model: str, args: Any) -> list[Any]:
    """Return the requests, which are the same for all sides."""
    return posed("trained, one reply", model, passages(args.data, args.passages))[: args.requests or None]


def through_taskmill(args: Any) -> dict[str, Any]:
    """Run the requests through the OpenVINO backend."""
    from taskmill import backends
    from taskmill.backends import ModelConfig

    backend = backends.load(ModelConfig(ref=TRAINED))
    asked = asked_of(backend.model, args)
    by_key = {a.key: a for a in asked}
    started = time.perf_counter()
    done = [(by_key[c.key], c) for c in backend.generate(asked)]
    return _figures(backend.model, done, time.perf_counter() - started)


def merged() -> tuple[Any, Any]:
    """Return the model in fp32 with the adapter merged into it, and its tokenizer."""
    from peft import PeftModel

    import taskmill
    from taskmill.train import TrainConfig
    from taskmill.train.base import find, load_model, load_tokenizer

    base = find("smollm2-135m")
    adapter = Path(taskmill.__file__).parent / "adapters" / TRAINED.partition(":")[2]
    model = load_model(base, TrainConfig().resolved(), "fp32", "cpu")
    return PeftModel.from_pretrained(model, adapter).merge_and_unload().eval(), load_tokenizer(base)


def through_transformers(args: Any) -> dict[str, Any]:
    """Run the requests through `generate` in fixed batches."""
    import torch

    model, tokenizer = merged()
    tokenizer.padding_side, tokenizer.pad_token = "left", tokenizer.eos_token
    asked = sorted(asked_of("transformers", args), key=lambda a: len(a.prompt))
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
            done.append((request, _completion(request, ids.tolist(), tokenizer)))
    return _figures("transformers", done, time.perf_counter() - started)


def _completion(request: Any, ids: list[int], tokenizer: Any) -> Any:
    from taskmill.calls import Completion

    ended = tokenizer.eos_token_id in ids
    ids = ids[: ids.index(tokenizer.eos_token_id)] if ended else ids
    text = tokenizer.decode(ids, skip_special_tokens=False)
    # Upstream has no stops: what follows one is cut off here, as far as it was generated.
    for stop in request.sampling.stop:
        text, found, _ = text.partition(stop)
        ended = ended or bool(found)
    return Completion(request.key, text, "stop" if ended else "length", completion_tokens=len(ids))


def through_vllm(args: Any) -> dict[str, Any]:
    """Run the requests through vLLM in a process of its own interpreter, all at once; it stops by itself."""
    from taskmill.calls import Completion

    asked = asked_of("vllm", args)
    names = ("temperature", "top_p", "max_tokens", "stop")
    wanted = [{"prompt": a.prompt, **{name: getattr(a.sampling, name) for name in names}} for a in asked]
    with tempfile.TemporaryDirectory() as folder:
        weights, requests, result = (Path(folder, name) for name in ("model", "requests.json", "result.json"))
        for part in merged():
            part.save_pretrained(weights)
        requests.write_text(json.dumps(wanted), "utf-8")
        _run([args.vllm_python, PEER, weights, requests, result], "vllm")
        found = json.loads(result.read_text("utf-8"))
    replies = zip(asked, found["texts"], found["finish"], found["tokens"], strict=True)
    done = [(a, Completion(a.key, t, end, completion_tokens=n)) for a, t, end, n in replies]
    return _figures("vllm", done, found["seconds"]) | {"version": found["version"]}


def _run(words: Sequence[str | Path], side: str) -> str:
    """Run a child to its end and return what it printed; show its errors and stop if it fails."""
    shown = subprocess.run([str(w) for w in words], capture_output=True, text=True, cwd=ROOT)
    if shown.returncode:
        last = "\n".join(shown.stderr.strip().splitlines()[-SHOWN:])
        raise SystemExit(f"{last}\nthe side {side} ended with code {shown.returncode}; see above")
    return shown.stdout


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
    """Return the Markdown table: counts of the last round, rates that are medians of all."""
    rounds = len(result["rounds"]["taskmill"])
    rows = [
        "| way | requests | accepted, last round | tokens written, last round | accepted per second, "
        f"median of {rounds} | ratio |",
        "|---|---|---|---|---|---|",
    ]
    batches = f"transformers, batches of {result['settings']['batch']}"
    names = {"transformers": batches, "vllm": "vLLM on the CPU"}
    slowest = result["medians"]["transformers"]
    for side, own in result["rounds"].items():
        last, name = own[-1], names.get(side, side)
        rate = result["medians"][side]
        rows.append(
            f"| {name} | {last['asked']} | {last['accepted']} | {last['tokens']} | {rate:.2f} | "
            f"{f'{rate / slowest:.1f}' if slowest else '–'} |"
        )
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks upstream", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds targets/")
    parser.add_argument("--passages", type=int, default=2, help="passages per source")
    parser.add_argument("--batch", type=int, default=16, help="rows of a fixed batch")
    parser.add_argument("--rounds", type=int, default=2, help="times that each side runs")
    parser.add_argument("--requests", type=int, default=0, help="take the first so many only; 0: all")
    parser.add_argument("--vllm-python", help="interpreter that has vLLM; without it there is no such side")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--save", action="store_true", help="write results/upstream.json and the page")
    args = parser.parse_args(arguments)
    if args.side:
        run = {"taskmill": through_taskmill, "transformers": through_transformers, "vllm": through_vllm}
        print(json.dumps(run[args.side](args)))
        return
    given = list(sys.argv[1:] if arguments is None else arguments)
    sides = [side for side in SIDES if side != "vllm" or args.vllm_python]
    rounds: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for number in range(args.rounds):
        for side in sides[:: 1 if number % 2 else -1]:
            shown = _run([sys.executable, "-m", "benchmarks", "upstream", "--side", side, *given], side)
            rounds[side].append(json.loads(shown.strip().splitlines()[-1]))
            print(side, rounds[side][-1], file=sys.stderr)
    medians = {s: statistics.median(r["accepted_per_second"] for r in own) for s, own in rounds.items()}
    settings = {"passages_per_source": args.passages, "batch": args.batch, "requests": args.requests}
    result = {"benchmark": "upstream", "settings": settings, "rounds": rounds, "medians": medians}
    print(tables(result))
    if args.save:
        print(f"saved to {machine.save('upstream', result).relative_to(ROOT)}")
        machine.write_table(PAGE, "upstream", tables(result))


if __name__ == "__main__":
    main()
