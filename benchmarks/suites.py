"""The embedded model on the benchmarks: what it scores, between which bounds, and what chance would score.

    python -m benchmarks suites --data FOLDER [--limit 54] [--out DIR] [--suite A,B] [--save]
    python -m benchmarks suites --data FOLDER --suite bbh --limit 0 --save

One `taskmill evaluate` for each suite, a fresh process, into DIR/SUITE. With --out the same command goes on
where it was stopped, and a larger --limit asks the new items only: the first N items of a suite are among its
first N + 1. Suites with written steps, whose answers are the longest, get half as many. The seconds are those
of the sessions that asked, model loading included. With --save the figures go to results/suites.json, where
those of suites that were not asked stay, and the table into docs/evaluate.md. A limit of 0 asks all items.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import RESULTS, load, measure, save, write_table

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "evaluate.md"
MODEL = "openvino:smollm2-135m"
SUITES = (
    "mmlu", "mmlu-cot", "mmlu-hendrycks", "mmlu-rank", "mmlu-cloze", "bbh", "bbh-cot", "gsm8k", "mgsm",
    "mgsm-native-cot", "mgsm-en-cot", "xquad", "squad", "superni", "healthver", "pubmedqa", "strategyqa",
)  # fmt: skip
"""The suites whose files are among the developers' data; TyDiQA-GoldP is not, XQuAD stands for it."""
STEPS = ("mmlu-cot", "bbh-cot", "gsm8k", "mgsm-native-cot", "mgsm-en-cot")
"""The suites whose answers have their steps written out."""
LIMIT = 54
"""Items of a suite (chosen: two of each file of BIG-Bench Hard, and less than an hour for all suites)."""


def ask(suite: str, data: Path, limit: int, out: Path) -> dict[str, Any]:
    """Evaluate one suite in a process of its own; return its line of the table."""
    command = [
        sys.executable, "-m", "taskmill", "evaluate", "--model", MODEL, "--suite", suite, "--data", str(data),
        "--limit", str(limit), "--out", str(out / suite), "--json",
    ]  # fmt: skip
    busy = load()
    done = measure(command, timeout=24 * 3600)
    if done.code not in (0, 3):  # 3: some items have no answer, as prompts over the model's context
        sys.exit(f"{suite}: exit code {done.code}\n{done.err[-2000:]}")
    print(f"{suite}: {done.seconds:.0f} s", file=sys.stderr)
    return line(out / suite, suite) | {"load": busy}


def line(folder: Path, suite: str) -> dict[str, Any]:
    """Return what a finished evaluation says of one suite."""
    results = json.loads((folder / "results.json").read_text("utf-8"))
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    own = results["suites"][suite]
    head = own["headline"]
    # A session that only read the ledger again is no part of what the answers took.
    seconds = manifest["elapsed_s"] if manifest["calls"]["made"] else manifest["earlier_s"]
    return {
        "items": own["n"],
        "unanswered": own["unanswered"],
        "items_in_file": own["items_in_file"],
        "shots": own["shots"],
        "average": own["average"],
        **{name: head[name] for name in ("mark", "mean", "low", "high")},
        "chance": own["chance"],
        "normalised": own["normalised"],
        "extraction_failures": own["extraction_failures"],
        "versions": own["versions"],
        "seconds": round(seconds, 1),
    }


_MARKS = {"accuracy": "", "f1": " (F1)", "rouge_l": " (ROUGE-L)"}


def table(suites: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the Markdown table: scores, intervals and chance in percent."""
    lines = [
        "| suite | items | shots | score | 95 % interval | chance | not read | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, own in suites.items():
        score = f"{100 * own['mean']:.1f}{_MARKS[own['mark']]}"
        bounds = f"{100 * own['low']:.1f} – {100 * own['high']:.1f}"
        chance = "–" if own["chance"] is None or own["mark"] != "accuracy" else f"{100 * own['chance']:.1f}"
        asked = own["items"] + own["unanswered"]
        items = f"{own['items']} of {asked}" if own["unanswered"] else own["items"]
        cells = [f"`{name}`", items, own["shots"], score, bounds, chance,
                 own["extraction_failures"], f"{own['seconds']:.0f}"]  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main(options: Sequence[str] | None = None) -> None:
    """Evaluate all suites and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the benchmarks' files")
    parser.add_argument("--limit", type=int, default=LIMIT, help="items of each suite")
    parser.add_argument("--suite", default=",".join(SUITES), help="which suites")
    parser.add_argument("--out", type=Path, help="folder of the runs, to go on with later")
    parser.add_argument("--save", action="store_true", help="write results/suites.json and the page")
    given = parser.parse_args(options)
    with tempfile.TemporaryDirectory() as folder:
        out = given.out or Path(folder)
        suites = {
            name: ask(name, given.data, given.limit // 2 if name in STEPS else given.limit, out)
            for name in given.suite.split(",")
        }
    print(table(suites))
    if given.save:
        kept = json.loads((RESULTS / "suites.json").read_text("utf-8"))["suites"]
        both = kept | suites
        suites = {name: both[name] for name in SUITES if name in both}
        print(save("suites", {"model": MODEL, "suites": suites}))
        write_table(PAGE, "suites", table(suites))


if __name__ == "__main__":
    main()
