"""Chains of texts: pairs per second in prefix-aware order against round by round, and what scheduling costs.

    python -m benchmarks chains [--texts 24] [--rounds 4] [--turns 3] [--save]

The texts are passages of the Python language reference (`pydoc_data.topics`, on every machine), asked
about in the pairs format with their chain's earlier texts before them. `ours` goes on with a chain as soon
as its last answer is there; `rounds` asks all texts of a round, in a drawn order, when the last round is
whole, as the authors' code does. The embedded chat model writes as many tokens in both, and they are thrown
away: it is no synthesizer. What stands in the history, and is counted as pairs, is what echo would say, so
that both arms send the same prompts. `echo` is `ours` without an engine: its seconds a call, over those of
the engine, are what rendering, counting, scheduling, parsing and the ledger take.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.machine import child, load, save, summary, versions, write_table

PAGE = Path(__file__).parents[1] / "docs" / "corpus.md"
MODEL = "smollm2-135m"
PACKAGES = ("taskmill", "openvino-genai", "numpy", "pyarrow")
GOAL = 0.05


def texts(count: int, folder: Path) -> Path:
    """Write `count` passages of the reference and return their file."""
    from taskmill.ingest import IngestConfig, read_sources
    from taskmill.recipes.demo import write_reference
    from taskmill.record import Document

    write_reference(folder / "reference.jsonl")
    settings = IngestConfig(licence_column="licence", chunk_tokens=180, min_chars=300)
    found = {
        one.id: one.text
        for one in read_sources([str(folder / "reference.jsonl")], settings)
        if isinstance(one, Document)
    }
    lines = [json.dumps({"text": found[name]}) + "\n" for name in sorted(found)[:count]]
    (folder / "texts.jsonl").write_text("".join(lines))
    return folder / "texts.jsonl"


class Timed:
    """An engine whose time is taken and whose words are replaced by what echo would say."""

    batch_invariant = False

    def __init__(self, engine: Any) -> None:
        self.engine, self.model = engine, engine.model
        self.seconds, self.prompt, self.completion, self.calls = 0.0, 0, 0, 0

    def generate(self, requests: Any) -> Iterator[Any]:
        asked: dict[str, Any] = {}
        waited = 0.0

        def pulled() -> Iterator[Any]:
            nonlocal waited
            begin = time.perf_counter()
            for request in requests:  # what the scheduler takes to give one is not the engine's
                asked[request.key] = request
                waited += time.perf_counter() - begin
                yield request
                begin = time.perf_counter()
            waited += time.perf_counter() - begin

        begin = time.perf_counter()
        for done in self.engine.generate(pulled()):
            self.seconds += time.perf_counter() - begin
            self.calls += 1
            self.prompt += done.prompt_tokens
            self.completion += done.completion_tokens
            yield replace(done, text=asked[done.key].payload.sample(), finish="stop")
            begin = time.perf_counter()
        self.seconds += time.perf_counter() - begin - waited


def by_rounds(self: Any, how: Any, numbers: Sequence[int], rounds: int) -> None:
    """Ask as the authors' code does: a round when the last is whole, its texts in a drawn order."""
    from taskmill.ids import draw
    from taskmill.recipes.corpus.ask import _Chain
    from taskmill.synthesize.pretraining import chains

    self.total += len(numbers)
    going = [_Chain(own) for own in chains(numbers, rounds)]
    running: dict[str, Any] = {}
    for at in range(rounds):
        order = sorted(going, key=lambda chain: draw(0, str(chain.texts[0]), f"benchmark {at}"))
        posed = [p for p in (self._next(how, chain, running) for chain in order) if p is not None]

        def follow(asked: Any, completion: Any) -> None:
            self._replied(how, asked, completion, running)

        self._run(iter(posed), deque(), follow)


def run(arm: str, count: int, rounds: int, tokens: int) -> dict[str, float]:
    """Build the corpus once and return what was measured."""
    from taskmill import backends
    from taskmill.backends import GENERATORS, ModelConfig
    from taskmill.recipes.corpus import CorpusConfig, corpus
    from taskmill.recipes.corpus.ask import Asking

    engine = Timed(backends.load(ModelConfig(ref="echo:" if arm == "echo" else f"openvino:{MODEL}")))
    GENERATORS.register("timed", lambda name, revision, config: engine)
    if arm == "rounds":
        Asking.in_pairs = by_rounds  # type: ignore[method-assign]
    asking, took = Asking.in_pairs, [0.0, 0.0]

    def timed(self: Any, *given: Any) -> None:
        self.count("the tokenizer is loaded now")
        begin, used = time.perf_counter(), time.process_time()
        asking(self, *given)
        took[0] += time.perf_counter() - begin
        took[1] += time.process_time() - used

    Asking.in_pairs = timed  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        config = CorpusConfig(
            (str(texts(count, Path(folder))),), rounds=rounds, augment=1.0, format="pairs", context=4096,
            against=("none",), model=ModelConfig(ref="timed:", max_new_tokens=tokens),
        )  # fmt: skip
        manifest = corpus(config, Path(folder) / "out")
    made = manifest["funnel"]["synthesize"]["kept"]
    return {
        "seconds": took[0], "cpu_seconds": took[1], "engine": engine.seconds, "calls": engine.calls,
        "prompt_tokens": engine.prompt, "completion_tokens": engine.completion, "pairs": made,
        "pairs_per_s": made / took[0], "seconds_a_call": took[0] / engine.calls,
    }  # fmt: skip


def told(result: Mapping[str, Any]) -> str:
    """Return the figures in words, as docs/corpus.md has them."""
    case, arms, ratio = result["case"], result["arms"], result["ours_over_rounds"]
    pace = {name: arms[name]["pairs_per_s"]["median"] for name in ("ours", "rounds")}
    wall, cpu = ratio["pairs_per_s"], ratio["cpu_seconds_saved"]
    return (
        f"{case['texts']} texts in chains of {case['rounds']}, {case['tokens']} new tokens a reply, "
        f"{case['turns']} turns, medians: {pace['ours']:.2f} pairs a second in prefix-aware order against "
        f"{pace['rounds']:.2f} round by round, {wall['median']:g} times as many ({wall['min']:g} to "
        f"{wall['max']:g}) for {1 / cpu['median']:.2f} times the processor's time. What is not the engine's "
        f"takes {result['overhead']['median']:.1%} of it."
    )


def main(options: Sequence[str] | None = None) -> None:
    """Run the turns and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--texts", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=4, help="most texts in a chain")
    parser.add_argument("--tokens", type=int, default=48, help="new tokens of a reply")
    parser.add_argument("--turns", type=int, default=3, help="times each arm runs")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    given = parser.parse_args(options)
    if given.arm:
        print(json.dumps(run(given.arm, given.texts, given.rounds, given.tokens)))
        return
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in ("ours", "rounds", "echo")}
    loads = []
    for _ in range(given.turns):
        for arm, found in runs.items():
            loads.append(load())
            case = ["--texts", given.texts, "--rounds", given.rounds, "--tokens", given.tokens]
            found.append(child("benchmarks.chains", "--arm", arm, *case))
    faster = [a["pairs_per_s"] / b["pairs_per_s"] for a, b in zip(runs["ours"], runs["rounds"], strict=True)]
    cheaper = [b["cpu_seconds"] / a["cpu_seconds"] for a, b in zip(runs["ours"], runs["rounds"], strict=True)]
    overhead = [
        a["seconds_a_call"] / b["seconds_a_call"] for a, b in zip(runs["echo"], runs["ours"], strict=True)
    ]
    result = {
        "case": {key: getattr(given, key) for key in ("texts", "rounds", "tokens", "turns")},
        "arms": {
            name: {key: summary([one[key] for one in found], 5) for key in found[0]}
            for name, found in runs.items()
        },
        "ours_over_rounds": {"pairs_per_s": summary(faster, 3), "cpu_seconds_saved": summary(cheaper, 3)},
        "overhead": {**summary(overhead, 5), "goal": GOAL},
        "packages": versions(PACKAGES),
        "load": loads,
    }
    print(json.dumps(result, indent=1))
    if given.save:
        print(save("chains", result))
        write_table(PAGE, "chains", told(result))


if __name__ == "__main__":
    main()
