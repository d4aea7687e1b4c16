"""The papers' claims about training on synthetic tasks, tested anew on this machine.

    python -m benchmarks evidence --data DATA --out DIR     makes pools, tests and recipes of all targets
    cd DIR && taskmill prove squadshifts_reddit.yaml --out runs/squadshifts_reddit
    cd DIR && taskmill prove datasets.yaml --out runs/datasets
    cd DIR && taskmill prove replay.yaml --passages 80 --test-items 40 --out runs/replay
    cd DIR && taskmill ablate flan/mixture.yaml --arms no-few-shot,no-cot,no-balancing --rows 120 \\
        --train flan/proof.yaml --out runs/flan
    cd DIR && taskmill ltd …                                as `python -m benchmarks ltd --help` says
    python -m benchmarks evidence --save DIR/runs/squadshifts_reddit     keeps a result
    python -m benchmarks evidence --render                               writes docs/evidence.md

DATA holds `targets/`, `corpora/` and `flan/`, as the page says. A result is kept without texts and without
paths. No number on the page is written by hand: what is ours is read from the results that are kept, what is
a paper's from PAPERS and its like.
"""

import argparse
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from benchmarks import evidence_flan
from benchmarks.evidence_page import render
from benchmarks.machine import RESULTS, describe
from taskmill.durable import atomic_write
from taskmill.ids import draw

KEPT = RESULTS / "evidence"
PAGE = Path(__file__).parents[1] / "docs" / "evidence.md"


def halves(rows):
    """Divide questions by passage: (passages to learn from, rows to test on), half of the passages each."""
    contexts = sorted({row["context"] for row in rows})
    pool = {context for context in contexts if draw(0, context, "evidence split") % 2}
    return sorted(pool), [row for row in rows if row["context"] not in pool]


def read(path, columns=None):
    return pq.read_table(path, columns=columns).to_pylist()


def squadshifts(data, name):
    rows = read(data / "targets" / f"{name}.parquet", ["context", "question", "answers"])
    return halves(rows)


def policyqa(data):
    rows = [
        row
        for split in ("dev", "test")
        for row in read(data / "corpora" / f"policyqa_{split}.parquet", ["context", "question", "answers"])
    ]
    return halves(rows)


def pubmedqa(data):
    rows = read(data / "targets" / "pubmedqa.parquet")
    texts = [("\n".join(row["contexts"]), row) for row in rows]
    pool = sorted({text for text, row in texts if row["split"] == "pool"})
    test = [
        {"context": text, "question": row["question"], "label": row["final_decision"]}
        for text, row in texts
        if row["split"] == "test"
    ]
    return pool, test


def healthver(data):
    """Dev and test share most of their evidence, so both are divided by it."""
    rows = [
        {"context": row["evidence"], "question": row["claim"], "label": row["label"]}
        for split in ("dev", "test")
        for row in read(data / "targets" / f"healthver_{split}.parquet", ["evidence", "claim", "label"])
    ]
    return halves(rows)


TARGETS = {
    "pubmedqa": ("ynqa", pubmedqa),
    "squadshifts_reddit": ("exqa", lambda data: squadshifts(data, "squadshifts_reddit")),
    "squadshifts_new_wiki": ("exqa", lambda data: squadshifts(data, "squadshifts_new_wiki")),
    "healthver": ("nli", healthver),
    "policyqa": ("exqa", policyqa),
}
"""Those of Bonito's evaluation that are at hand, or the nearest to them (see the page)."""

REPLAYED = ("squadshifts_reddit", "squadshifts_new_wiki")
"""Where the rows help, so that something can be lost by others in their place."""

ARMS = ["none", "tapt", "ours", "ours-unfiltered"]


def make(data, out):
    """Write pools, tests and recipes; recipes name files as seen from `out`."""
    listed = []
    for name, (task, table) in TARGETS.items():
        pool, test = table(data)
        (out / name).mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"text": pool}), out / name / "pool.parquet")
        pq.write_table(pa.Table.from_pylist(test), out / name / "test.parquet")
        one = {"name": name, "text": f"{name}/pool.parquet", "test": f"{name}/test.parquet", "task": task}
        recipe = {"arms": ARMS, "seeds": 3, "passages": 160, "test_items": 100, "targets": [one]}
        (out / f"{name}.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
        listed.append(one)
        print(f"{name}: {len(pool)} passages, {len(test)} questions")
    recipe = {"arms": ARMS, "seeds": 3, "passages": 160, "test_items": 100, "targets": listed}
    (out / "all.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    arms = ["none", "ours", "ours+replay", "random"]
    own = [one for one in listed if one["name"] in REPLAYED]
    recipe |= {"arms": arms, "replay": "replay.parquet", "targets": own}
    (out / "replay.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    read_on(data, out / "read_on")
    evidence_flan.make(data, out)


def read_on(data, out):
    """Write 320 posts and 300 abstracts to read on, and 200 questions on other ones of each."""
    out.mkdir(parents=True, exist_ok=True)
    drawn = random.Random(7)
    posts = {}
    for row in read(data / "targets" / "squadshifts_reddit.parquet"):
        posts.setdefault(row["context"], row)
    contexts = sorted(posts)
    drawn.shuffle(contexts)
    short = [posts[context] for context in contexts if len(context.split()) <= 180]
    texts = [{"text": row["context"], "title": row["title"]} for row in short[:320]]
    asked = [
        {
            "id": row["id"], "context": row["context"], "question": row["question"],
            "answer": min(row["answers"], key=len), "answers": row["answers"],
        }
        for row in short[320:520]
    ]  # fmt: skip
    lines(out / "reddit_texts.jsonl", texts)
    lines(out / "reddit_test.jsonl", asked)
    rows = read(data / "targets" / "pubmedqa.parquet")
    random.Random(7).shuffle(rows)
    told = [("\n".join(row["contexts"]), row) for row in rows]
    pool = [{"text": text} for text, row in told if row["split"] != "test" and len(text.split()) <= 260]
    asked = [
        {
            "id": row["pmid"], "context": text, "question": row["question"],
            "answer": row["final_decision"], "options": ["yes", "no", "maybe"],
        }
        for text, row in told if row["split"] == "test"
    ]  # fmt: skip
    lines(out / "pubmed_texts.jsonl", pool[:300])
    lines(out / "pubmed_test.jsonl", asked[:200])


def lines(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


# results


def save(run):
    """Keep what a run of `prove`, `ltd`, `ablate` or `train corpus` found: no rows, no texts, no paths."""
    path = run / "record.json"
    record = json.loads((path if path.exists() else run / "result.json").read_text("utf-8"))
    if record.get("command") == "ablate" and "students" in record:
        students = json.loads((run / "students" / "record.json").read_text("utf-8"))
        record |= {name: students[name] for name in ("student", "targets", "result", "details", "config")}
    if not set(KEPT_PARTS.get(record.get("command"), ["none"])) <= set(record):
        raise SystemExit(
            f"{run} holds no result of prove, ltd, ablate --train or train corpus; name the folder of a "
            "finished run"
        )
    config = {k: v for k, v in record["config"].items() if k in KEPT_SETTINGS[record["command"]]}
    if record["command"] == "ltd":
        config["train"] = {name: record["config"]["train"][name] for name in KEPT_TRAINING}
    if "arms" in config:
        config["arms"] = [arm.partition("=")[0] for arm in config["arms"]]
    names = KEPT_PARTS[record["command"]]
    kept = {name: record[name] for name in ("command", "student", *names)}
    kept |= {"name": run.name, "config": config, "machine": describe(), "minutes": minutes(record, run)}
    KEPT.mkdir(parents=True, exist_ok=True)
    atomic_write(KEPT / f"{run.name}.json", (json.dumps(kept, indent=1) + "\n").encode())


KEPT_SETTINGS = {
    "prove": ("arms", "seeds", "sizes", "reach", "gain", "confidence", "per_passage", "answer_tokens"),
    "ablate": ("seeds", "confidence"),
    "ltd": ("labels", "ratios", "seeds", "selectors", "test_rows", "embedder", "epsilon", "confidence"),
    "pretrain": ("arms", "seeds", "test_rows", "epsilon", "confidence"),
}
KEPT_TRAINING = ("epochs", "batch_tokens")
KEPT_PARTS = {
    "prove": ("targets", "result", "details"),
    "ablate": ("rows", "arms", "checks", "targets", "result", "details"),
    "ltd": ("claims", "sufficient", "region", "items", "base", "full", "arms"),
    "pretrain": ("corpus", "tokens", "arms", "targets", "retention", "claims"),
}


def minutes(record, run):
    """Return the minutes that all students took, trained and asked, as their own records say."""
    if record["command"] in ("ltd", "pretrain"):
        seconds = record["seconds"]["students" if record["command"] == "ltd" else "models"]
        return round(seconds / 60, 1)
    place = run / "students" if record["command"] == "ablate" else run
    units = [json.loads(path.read_text("utf-8")) for path in (place / "units").glob("*/unit.json")]
    return round(sum(unit["all_s"] for unit in units) / 60, 1)


def kept():
    """Return the results that are kept, by name, and that of `benchmarks continual` beside them."""
    found = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(KEPT.glob("*.json"))}
    stages = KEPT.parent / "continual.json"
    if stages.exists():
        record = json.loads(stages.read_text("utf-8"))
        found["continual"] = record | {"minutes": round(record["seconds"]["students"] / 60, 1)}
    return found


def main(options):
    parser = argparse.ArgumentParser(
        prog="benchmarks evidence", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with targets/, corpora/ and flan/")
    parser.add_argument("--out", type=Path, help="folder for pools, tests and recipes")
    parser.add_argument("--save", type=Path, help="folder of a finished run, whose result is kept")
    parser.add_argument("--render", action="store_true", help="write docs/evidence.md from what is kept")
    given = parser.parse_args(options)
    if not (given.save or given.render or (given.data and given.out)):
        parser.error("give --data and --out, --save or --render")
    if given.data and given.out:
        make(given.data, given.out)
    if given.save:
        save(given.save)
    if given.render:
        if not kept():
            parser.error("no result is kept yet; give --save RUN first")
        atomic_write(PAGE, render(kept()).encode())
