"""The embedded synthesizer against its base model, prompted, on passages it never saw.

    python -m benchmarks synthesizer --data FOLDER [--passages 10] [--examples RUN] [--save]

Passages: PubMedQA's unlabelled pool, SquadShifts Reddit and new_wiki (`targets/` of FOLDER; none of them is
trained on) and the demo's text. For each of the 16 task types, each contender is asked once per passage:

- chat: the base model with taskmill's own chat prompts;
- 3 examples: the base model continues three examples of the type in the synthesizer's wire format
  (--examples: a remix run they are drawn from);
- trained: the embedded synthesizer, as the product asks it; `trained, two stages` decodes the responses of
  all types greedily, in calls of their own.

A reply's longest length is the product's own: the task type's for chat, the wire format's for the others.
Per type and contender: replies read (well-formed), kept by the grounding rules, accepted by all checks, share
of accepted instructions that are different, share of accepted answers that the base model, which did not
write them, gives as well (round trip), accepted per minute of generation. Contenders take turns type by
type; loading is not counted. A type's rate is that of this run. The rate over all types is taken in runs of
their own, in which a passage's requests stand together as they do in the product; `3 examples` has none, and
its rate is accepted over the sum of its types' seconds. With --save the figures go to results/ and the tables
into docs/synthesizer.md.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import machine

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "synthesizer.md"
BASE, TRAINED = "openvino:smollm2-135m", "openvino:bonito-smollm2-135m"
CONTENDERS = ("chat", "3 examples", "trained", "trained, two stages")
STAGES = {"3 examples": "no", "trained, one reply": "no", "trained, two stages": "yes"}
"""Whether a response is decoded in a call of its own, where it is not left to the product (auto)."""
SOURCES = ("PubMedQA", "SquadShifts Reddit", "SquadShifts new_wiki", "Python reference")
UNGROUNDED = ("ungrounded", "marker")

TEMPERATURE: tuple[float, ...] = ()
LONGEST = 1600  # characters of a passage; all sources have passages under it


def passages(data: Path, count: int) -> list[Any]:
    """Return `count` passages of each source, drawn by id; `title` says which source."""
    import pyarrow.parquet as pq

    from taskmill.record import Document, content_id, draw

    def texts(name: str) -> Iterator[str]:
        if name == "PubMedQA":
            rows = pq.read_table(data / "targets/pubmedqa.parquet").to_pylist()
            yield from (" ".join(r["contexts"]) for r in rows if r["split"] != "test")
        elif name == "Python reference":
            yield from _reference()
        else:
            file = name.lower().replace(" ", "_") + ".parquet"
            yield from pq.read_table(data / "targets" / file)["context"].to_pylist()

    found = []
    for name in SOURCES:
        own = {content_id(t): t for t in texts(name) if 200 <= len(t) <= LONGEST}
        order = sorted(own, key=lambda key: draw(0, key, "benchmark"))[:count]
        found += [Document(key, own[key], title=name) for key in order]
    return found


def _reference() -> Iterator[str]:
    from taskmill.ingest import IngestConfig, read_sources
    from taskmill.recipes.demo import write_reference
    from taskmill.record import Document

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "reference.jsonl"
        write_reference(source)
        config = IngestConfig(chunk_tokens=180, min_chars=300)
        yield from (d.text for d in read_sources([str(source)], config) if isinstance(d, Document))


def shots(corpus: Path) -> dict[str, str]:
    """Return, for each task type, three examples in wire format, the same for every request."""
    import pyarrow.parquet as pq

    from taskmill.record import draw

    rows: dict[str, list[Any]] = defaultdict(list)
    for part in sorted((corpus / "3-ctga" / "kept").glob("*.parquet")):
        for row in pq.read_table(part).to_pylist():
            if not row["attributes"] and len(row["passage"]) < 700:
                rows[row["task"]].append(row)
    found = {}
    for task, own in rows.items():
        own.sort(key=lambda r: draw(0, r["id"], "shots"))
        found[task] = "".join(f"{r['prompt']}{r['completion']}\n" for r in own[:3])
    return found


def requests(contender: str, model: str, task: str, documents: Sequence[Any], examples: str) -> list[Any]:
    """Return one request per passage; passages a type cannot use give none."""
    from taskmill.calls import Request, Sampling, request
    from taskmill.synthesize.bonito import Synthesis, pose
    from taskmill.tasks.base import Attributes

    protocol = "chat" if contender == "chat" else "bonito-attributes"
    # A base model does not know the wire: it sees it in the examples, without attributes.
    attributes = {task: Attributes(guided=contender != "3 examples")}
    stages = STAGES.get(contender, "auto")
    how = Synthesis((task,), protocol, Sampling(*TEMPERATURE), attributes=attributes, two_stage=stages)
    asked = [pose(how, model, document, task, 0) for document in documents]
    found = [a for a in asked if isinstance(a, Request)]
    if contender != "3 examples":
        return found
    # It goes on with a fourth example and a fifth: the reply ends where the next one begins.
    stop = ("<|context|>", "<|tasktype|>", "<|task|>")
    return [
        request(model, replace(a.sampling, stop=stop), prompt=examples + a.prompt, payload=a.payload)
        for a in found
    ]


def posed(contender: str, model: str, documents: Sequence[Any]) -> list[Any]:
    """Return the requests of all task types, a passage's together, as the product asks."""
    from taskmill.tasks import TASKS

    by_task = [requests(contender, model, task, documents, "") for task in TASKS.names()]
    place = {d.id: i for i, d in enumerate(documents)}
    return sorted((a for own in by_task for a in own), key=lambda a: place[a.payload.document.id])


def answers(backend: Any, asked: Sequence[Any]) -> tuple[list[tuple[Any, Any]], float]:
    """Return (request, completion) pairs, second stages in place of first, and the seconds they took."""
    from taskmill.synthesize.bonito import respond

    started = time.perf_counter()
    done: list[tuple[Any, Any]] = []
    waiting = list(asked)
    while waiting:
        by_key = {a.key: a for a in waiting}
        waiting = []
        for completion in backend.generate(by_key.values()):
            one = by_key[completion.key]
            second = respond(backend.model, one, completion)
            if second is None:
                done.append((one, completion))
            else:
                waiting.append(second)
    return done, time.perf_counter() - started


def outcome(model: str, done: Sequence[tuple[Any, Any]], posed: int, seconds: float) -> dict[str, Any]:
    """Return the figures of one contender on one task type, and the accepted examples."""
    from taskmill.curate.checks import check
    from taskmill.record import Example
    from taskmill.synthesize.bonito import examples

    made = [next(examples(model, a, c)) for a, c in done]
    drafts = [m for m in made if isinstance(m, Example)]
    verdicts = [check(e) for e in drafts]
    accepted = {e.id: e for e, v in zip(drafts, verdicts, strict=True) if v is None}
    reasons = Counter(str(m.reason) for m in made if not isinstance(m, Example))
    reasons.update(str(v.reason) for v in verdicts if v is not None)
    ungrounded = sum(v is not None and str(v.reason) in UNGROUNDED for v in verdicts)
    different = {_shape(e) for e in accepted.values()}
    return {
        "asked": posed,
        "read": len(drafts),
        "grounded": len(drafts) - ungrounded,
        "accepted": len(accepted),
        "different": len(different),
        "seconds": round(seconds, 2),
        "tokens": sum(c.completion_tokens for _, c in done),
        "reasons": dict(reasons.most_common()),
        "by_source": dict(Counter(a.payload.document.title for a, _ in done)),
        "accepted_by_source": dict(Counter(_source(e, done) for e in accepted.values())),
        "examples": list(accepted.values()),
    }


def _shape(example: Any) -> str:
    """Return the instruction's words besides the passage: equal wordings with other questions differ."""
    return re.sub(r"\W+", " ", example.instruction).casefold()


def _source(example: Any, done: Sequence[tuple[Any, Any]]) -> str:
    return next(a.payload.document.title for a, _ in done if a.payload.document.id == example.source.document)


def round_trip(backend: Any, found: Sequence[Any]) -> tuple[int, int]:
    """Return (reproduced, asked): accepted examples the base model answers as their response says."""
    from taskmill.curate.verify import Thresholds, questions, score

    asked = {q.key: q for e in found for q in questions(backend.model, ("round-trip",), e)}
    limit = Thresholds().round_trip
    scores = [score(asked[c.key], c) for c in backend.generate(asked.values())]
    return sum(s.score is not None and s.score >= limit for s in scores), len(scores)


def measure(data: Path, corpus: Path, count: int, ref: str) -> dict[str, Any]:
    """Run everything and return the figures."""
    from taskmill import backends
    from taskmill.backends import ModelConfig
    from taskmill.tasks import TASKS

    documents, examples = passages(data, count), shots(corpus)
    base, trained = (backends.load(ModelConfig(ref=r)) for r in (ref, TRAINED))
    figures: dict[str, dict[str, Any]] = {c: {} for c in CONTENDERS}
    for number, task in enumerate(TASKS.names()):
        # The contender that goes first changes: heat and neighbours then cost all the same.
        for contender in CONTENDERS[number % 4 :] + CONTENDERS[: number % 4]:
            backend = trained if contender.startswith("trained") else base
            asked = requests(contender, backend.model, task, documents, examples.get(task, ""))
            done, seconds = answers(backend, asked)
            found = outcome(backend.model, done, len(asked), seconds)
            found["reproduced"], found["answered"] = round_trip(base, found.pop("examples"))
            figures[contender][task] = found
            print(f"{task:14} {contender:20} {found['accepted']}/{found['asked']}", file=sys.stderr)
    totals = {c: total(own) for c, own in figures.items()}
    for contender in ("chat", "trained", "trained, two stages"):
        totals[contender] |= together(trained if contender != "chat" else base, contender, documents)
    return {
        "benchmark": "synthesizer",
        "settings": {
            "passages_per_source": count,
            "sources": SOURCES,
            "base": base.model,
            "trained": trained.model,
        },
        "figures": figures,
        "totals": totals,
    }


def together(backend: Any, contender: str, documents: Sequence[Any]) -> dict[str, float]:
    """Return the rate of a run over all types at once, passage by passage as the product asks."""
    asked = posed(contender, backend.model, documents)
    done, seconds = answers(backend, asked)
    found = outcome(backend.model, done, len(asked), seconds)
    rate = round(60 * found["accepted"] / seconds, 1)
    print(f"together {contender:20} {found['accepted']}/{len(asked)}, {rate} a minute", file=sys.stderr)
    return {"accepted_per_minute": rate, "seconds_together": round(seconds, 2)}


def total(own: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Return the sums over the task types and the accepted tasks per minute of generation."""
    names = (
        "asked",
        "read",
        "grounded",
        "accepted",
        "different",
        "seconds",
        "tokens",
        "reproduced",
        "answered",
    )
    sums = {name: round(sum(f[name] for f in own.values()), 2) for name in names}
    return {**sums, "accepted_per_minute": round(60 * sums["accepted"] / sums["seconds"], 1)}


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "–"


def _row(name: str, f: dict[str, Any]) -> str:
    each = 60 * f["accepted"] / f["seconds"] if f["seconds"] else None
    rate = f.get("accepted_per_minute", each)
    cells = [
        name,
        _share(f["read"], f["asked"]),
        _share(f["grounded"], f["asked"]),
        _share(f["accepted"], f["asked"]),
        _share(f["different"], f["accepted"]),
        _share(f["reproduced"], f["answered"]),
        "–" if rate is None else f"{rate:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


HEAD = (
    "| {} | well-formed | grounded | accepted | different | reproduced | accepted per minute, {} |\n"
    "|---|---|---|---|---|---|---|"
)


def tables(result: dict[str, Any]) -> str:
    """Return the Markdown tables: all types together, then one table for each contender."""
    parts = [HEAD.format("contender", "all types in one run")]
    parts += [_row(c, result["totals"][c]) for c in CONTENDERS]
    for contender in CONTENDERS:
        own = result["figures"][contender]
        parts += [
            "",
            f"**{contender}**",
            "",
            HEAD.format("task type", "this type alone"),
            *(_row(f"`{t}`", own[t]) for t in own),
        ]
    return "\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks synthesizer", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds targets/")
    parser.add_argument(
        "--examples", type=Path, required=True, help="remix run to draw the three examples from"
    )
    parser.add_argument("--passages", type=int, default=10, help="passages per source")
    parser.add_argument("--base", default=BASE, help="the base model that is prompted")
    parser.add_argument("--save", action="store_true", help="write results/synthesizer.json and the page")
    args = parser.parse_args(arguments)
    found = measure(args.data, args.examples, args.passages, args.base)
    print(tables(found))
    if args.save:
        print(f"saved to {machine.save('synthesizer', found).relative_to(ROOT)}")
        machine.write_table(PAGE, "synthesizer", tables(found))


if __name__ == "__main__":
    main()
