"""How well the checks by a model tell good examples from planted bad ones.

    python -m benchmarks verify --examples RUN [--model openvino:smollm2-135m] [--checks judge] [--items 40]

Good examples are gold rows of annotated datasets (a remix run's); a bad one is the same row with another
response: an answer to another question of the passage, another option, another label. For the closed-book
check a bad example is one whose instruction tells the answer. Recall is the share of bad examples refused,
false rejects the share of good ones refused, at the default thresholds and at the best one found. An answer
without a score counts as refused, as it is.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import machine

PAGE = Path(__file__).parents[1] / "docs" / "verify.md"
TASKS = ("exqa", "qa", "mcqa", "ynqa", "te", "nli", "paraphrase_id", "sentiment", "topic_class", "coref")


def gold(run: Path, items: int) -> dict[str, list[Any]]:
    """Return `items` gold examples of each task type, drawn by id."""
    import pyarrow.parquet as pq

    from taskmill.record import draw, examples

    found: dict[str, list[Any]] = defaultdict(list)
    for part in sorted((run / "2-curate" / "kept").glob("*.parquet")):
        for batch in pq.ParquetFile(part).iter_batches():
            import pyarrow as pa

            for example in examples(pa.Table.from_batches([batch])):
                if (
                    example.task in TASKS
                    and "+" not in example.origin.template
                    and len(example.context) < 1500
                ):
                    found[example.task].append(example)
    for own in found.values():
        own.sort(key=lambda e: draw(0, e.id, "verify"))
    return found


def spoiled(examples: Sequence[Any], items: int) -> Iterator[tuple[Any, Any]]:
    """Yield (good, bad) pairs: the bad one's response is another option, or another row's answer."""
    from taskmill.record import draw
    from taskmill.tasks.metrics import squad_f1

    by_passage = defaultdict(list)
    for e in examples:
        by_passage[e.context].append(e)
    made = 0
    for e in examples:
        if made == items:
            return
        if e.answer_index is not None:
            at = (e.answer_index + 1 + draw(0, e.id, "bad") % (len(e.options) - 1)) % len(e.options)
            bad = replace(e, id=f"{e.id}-bad", response=e.options[at], answer_index=at)
        else:
            others = [o for o in by_passage[e.context] if squad_f1(o.response, [e.response]) < 0.2]
            if not others:
                continue
            bad = replace(e, id=f"{e.id}-bad", response=others[0].response)
        made += 1
        yield e, bad


def told(example: Any) -> Any:
    """Return the example with its answer in the instruction: it needs no passage."""
    return replace(
        example,
        id=f"{example.id}-told",
        instruction=f"{example.instruction}\nThe right answer is: {example.response}",
    )


def ask(backend: Any, check: str, examples: Sequence[Any]) -> dict[str, float]:
    """Return the score of each example by its id."""
    from taskmill.curate.verify import questions, score

    asked = defaultdict(list)  # a good and a bad example ask the answerer the same
    for example in examples:
        for question in questions(backend.model, (check,), example):
            asked[question.key].append(question)
    answers = backend.generate([own[0] for own in asked.values()])
    scores = [score(question, c) for c in answers for question in asked[c.key]]
    worst = math.inf if check == "closed-book" else -math.inf  # unreadable: refused at any threshold
    return {s.id: worst if s.score is None else s.score for s in scores if not s.failed}


def rates(good: Sequence[float], bad: Sequence[float], limit: float, below: bool) -> tuple[float, float]:
    """Return (recall, false rejects) of refusing scores under the limit (or over it)."""

    def refused(values: Sequence[float]) -> float:
        return sum((v < limit) if below else (v > limit) for v in values) / max(len(values), 1)

    return refused(bad), refused(good)


LIMITS = (0.01, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
SCALE = (1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5)


def measure(run: Path, model: str, checks: Sequence[str], items: int) -> dict[str, Any]:
    """Run the checks on good and bad examples of every task type."""
    from taskmill import backends
    from taskmill.backends import ModelConfig
    from taskmill.curate.verify import Thresholds, applies

    backend = backends.load(ModelConfig(ref=model))
    limits, figures = Thresholds(), []
    for task, examples in sorted(gold(run, items).items()):
        pairs = list(spoiled(examples, items))
        for check in checks:
            if not pairs or not applies(check, pairs[0][0]):
                continue
            closed = check == "closed-book"
            good = [g for g, _ in pairs]
            bad = [told(g) if closed else b for g, b in pairs]
            scores = ask(backend, check, [*good, *bad])
            own = [[scores[e.id] for e in side if e.id in scores] for side in (good, bad)]
            limit = getattr(limits, check.replace("-", "_"))
            recall, false = rates(*own, limit, not closed)
            best = max(
                (
                    (*rates(*own, at, not closed), at)
                    for at in (SCALE if check in ("judge", "expected") else LIMITS)
                ),
                key=lambda r: r[0] - r[1],
            )
            line = {
                "task": task, "check": check, "items": len(own[0]), "limit": limit, "recall": recall,
                "false_rejects": false, "best_limit": best[2], "best_recall": best[0],
                "best_false_rejects": best[1],
            }  # fmt: skip
            figures.append(line)
            print(line, file=sys.stderr)
    return {"benchmark": "verify", "settings": {"model": backend.model, "items": items}, "figures": figures}


HEAD = (
    "| task type | check | items | bad refused | good refused | best limit | bad there | good there |\n"
    "|---|---|---|---|---|---|---|---|"
)


def table(result: dict[str, Any]) -> str:
    """Return the Markdown table."""
    rows = [HEAD]
    for f in result["figures"]:
        shares = [f"{100 * f[k]:.0f} %" for k in ("recall", "false_rejects")]
        best = [
            f"{f['best_limit']:g}",
            *(f"{100 * f[k]:.0f} %" for k in ("best_recall", "best_false_rejects")),
        ]
        rows.append("| " + " | ".join([f"`{f['task']}`", f["check"], str(f["items"]), *shares, *best]) + " |")
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks verify", description=__doc__.split("\n")[0])
    parser.add_argument("--examples", type=Path, required=True, help="remix run with the gold examples")
    parser.add_argument("--model", default="openvino:smollm2-135m")
    parser.add_argument("--checks", default="round-trip,faithful,closed-book", help="all but toxic")
    parser.add_argument("--items", type=int, default=40, help="good and bad examples per task type")
    parser.add_argument("--save", action="store_true", help="write results/verify.json and the page")
    args = parser.parse_args(arguments)
    found = measure(args.examples, args.model, args.checks.split(","), args.items)
    print(table(found))
    if args.save:
        print(f"saved to {machine.save('verify', found)}")
        machine.write_table(PAGE, "verify", table(found))


if __name__ == "__main__":
    main()
