"""The model card of the embedded synthesizer, from its record, its corpus and the log of its training.

    python -m benchmarks card --corpus RUN --training FOLDER [--save]

RUN is a folder of `taskmill remix`, FOLDER the one of `taskmill train synthesizer` that the adapter in the
package comes from. The record is the adapter's taskmill.json in the package; its `note`, put there by hand,
says in words how the training differed from the commands. With --save the card is written beside the
adapter.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.machine import RESULTS
from benchmarks.synthesizer import TRAINED

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "taskmill"
NAME = TRAINED.partition(":")[2]
ADAPTER = PACKAGE / "adapters" / NAME


def curve(log: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of the table of losses."""
    yield "| step | tokens | training loss (mean since the row above, nats per token) |"
    yield "|---|---|---|"
    steps = [line for line in log if "loss" in line]
    size = max(1, len(steps) // 12)
    for at in range(0, len(steps), size):
        part = steps[at : at + size]
        mean = sum(line["loss"] for line in part) / len(part)
        yield f"| {part[-1]['step']} | {part[-1]['tokens']:,} | {mean:.3f} |"
    held = [f"{line['valid_loss']:.3f} (step {line['step']})" for line in log if "valid_loss" in line]
    yield from ("", f"Held-out loss: {', '.join(held)}.")


def data(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the tables of the data: datasets with licences and credits, task types, attributes."""
    declared = yaml.safe_load((PACKAGE / "templates" / "catalog.yaml").read_text("utf-8"))
    by_name = {one["name"]: one for one in declared}
    yield from ("| dataset | rows | licence | credit |", "|---|---|---|---|")
    for name, count in Counter(row["dataset"] for row in rows).most_common():
        yield f"| {name} | {count} | {by_name[name]['licence']} | {by_name[name]['credit']} |"
    yield from ("", "| task type | rows |", "|---|---|")
    for name, count in sorted(Counter(row["task"] for row in rows).items()):
        yield f"| `{name}` | {count} |"
    found = Counter(name for row in rows for name in row["attributes"])
    yield ""
    yield (
        f"{found['sentence']} rows quote the sentence they are about, {found['labels']} name a label set, "
        f"{found['answer']} an answer to aim at,"
    )
    yield f"{found['tasks']} ask for several tasks."


def quality(result: dict[str, Any]) -> Iterator[str]:
    """Yield the table of accepted shares, of the last saved run of `benchmarks synthesizer`."""
    sides = ("trained", "chat")
    yield from ("| task type | requests | trained | chat |", "|---|---|---|---|")
    rows = {f"`{task}`": [result["figures"][s][task] for s in sides] for task in result["figures"]["trained"]}
    for name, own in {**rows, "all": [result["totals"][s] for s in sides]}.items():
        shares = " | ".join(f"{100 * one['accepted'] / one['asked']:.0f} %" for one in own)
        yield f"| {name} | {own[0]['asked']:.0f} | {shares} |"


def card(corpus: Path, training: Path) -> str:
    """Return the card."""
    import pyarrow.parquet as pq

    record = json.loads((ADAPTER / "taskmill.json").read_text("utf-8"))
    trained = json.loads((training / "adapter" / "taskmill.json").read_text("utf-8"))
    if record["weights"] != trained["weights"]:
        raise SystemExit(f"the adapter of {training} is not the one in {ADAPTER}; copy it there first")
    note = textwrap.fill(record.get("note", ""), 119)
    log = [json.loads(line) for line in (training / "log.jsonl").read_text("utf-8").splitlines()]
    rows = pq.read_table(corpus / "3-ctga" / "kept").to_pylist()
    counts, recipe = record["counts"], record["recipe"]
    return (
        Path(__file__)
        .with_suffix(".md")
        .read_text("utf-8")
        .format(
            name=NAME,
            sha=record["base"]["sha256"],
            rank=recipe["rank"],
            alpha=recipe["alpha"],
            train=counts["train"],
            valid=counts["valid"],
            tokens=counts["tokens"],
            supervised=counts["supervised"],
            read=counts["read"],
            seen=record["tokens"],
            steps=record["steps"],
            batch=recipe["batch_tokens"],
            lr=recipe["lr"],
            minutes=record["elapsed_s"] / 60,
            precision=record["precision"],
            note=f"\n{note}\n" if note else "",
            curve="\n".join(curve(log)),
            data="\n".join(data(rows)),
            quality="\n".join(quality(json.loads((RESULTS / "synthesizer.json").read_text("utf-8")))),
        )
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks card", description=__doc__.split("\n")[0])
    parser.add_argument("--corpus", type=Path, required=True, help="folder of `taskmill remix`")
    parser.add_argument("--training", type=Path, required=True, help="folder of `taskmill train synthesizer`")
    parser.add_argument("--save", action="store_true", help="write the card beside the adapter")
    args = parser.parse_args(arguments)
    text = card(args.corpus, args.training)
    if args.save:
        (ADAPTER / "README.md").write_text(text, "utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
