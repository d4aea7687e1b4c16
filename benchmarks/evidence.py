"""The papers' claims about training on synthetic tasks, tested anew on this machine.

    python -m benchmarks evidence --data DATA --out DIR     makes pools, tests and recipes of all targets
    cd DIR && taskmill prove squadshifts_reddit.yaml --out runs/squadshifts_reddit
    cd DIR && taskmill ltd …                                as `python -m benchmarks ltd --help` says
    python -m benchmarks evidence --save DIR/runs/squadshifts_reddit     keeps a result
    python -m benchmarks evidence --render                               writes docs/evidence.md

DATA holds `targets/` and `corpora/`. A result is kept without texts and without paths. No number on the page
is written by hand: what is ours is read from the results that are kept, what is a paper's from PAPERS below.
"""

import argparse
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from benchmarks.machine import RESULTS, describe
from taskmill.durable import atomic_write
from taskmill.ids import draw

KEPT = RESULTS / "evidence"
PAGE = Path(__file__).parents[1] / "docs" / "evidence.md"

PAPERS = {
    "ours-none": (
        "Rows made of a target's own passages help a student on it",
        "+22.1 F1, mean over 7 targets and 3 students of 7B (Bonito, arXiv 2402.18334, abstract)",
    ),
    "tapt-none": (
        "Next-word training on the same passages does not",
        "-0.8 F1, the same mean (Bonito, abstract)",
    ),
    "ours-tapt": (
        "The rows do more than the passages alone",
        "+22.9 F1 (Bonito, the difference of the two)",
    ),
    "ours-ours-unfiltered": (
        "The checks make the rows better, at as many rows",
        "not measured there: Bonito has no checks",
    ),
}
"""Effects of `taskmill prove` that a paper makes a claim about: the claim, and the paper's number."""


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
    read_on(data, out / "read_on")


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


READ_ON = (
    "taskmill corpus read_on/reddit_texts.jsonl read_on/pubmed_texts.jsonl "
    "--model openvino:bonito-smollm2-135m --rounds 2 --augment 1 --pairs 3 --length 1024 "
    "--against read_on/reddit_test.jsonl,read_on/pubmed_test.jsonl --out corpus"
)
"""The command that makes the corpus, in the folder of the recipes."""


# results


def save(run):
    """Keep what a run of `prove`, `ltd` or `train corpus` found: no rows, no texts, no paths."""
    path = run / "record.json"
    record = json.loads((path if path.exists() else run / "result.json").read_text("utf-8"))
    if record.get("command") not in KEPT_PARTS:
        raise SystemExit(
            f"{run} holds no result of prove, ltd or train corpus; name the folder of a finished run"
        )
    config = {k: v for k, v in record["config"].items() if k in KEPT_SETTINGS[record["command"]]}
    if record["command"] == "ltd":
        config["train"] = {name: record["config"]["train"][name] for name in KEPT_TRAINING}
    names = KEPT_PARTS[record["command"]]
    kept = {name: record[name] for name in ("command", "student", *names)}
    kept |= {"name": run.name, "config": config, "machine": describe(), "minutes": minutes(record, run)}
    KEPT.mkdir(parents=True, exist_ok=True)
    atomic_write(KEPT / f"{run.name}.json", (json.dumps(kept, indent=1) + "\n").encode())


KEPT_SETTINGS = {
    "prove": ("arms", "seeds", "gain", "confidence", "per_passage", "answer_tokens"),
    "ltd": ("labels", "ratios", "seeds", "selectors", "embedder", "epsilon", "confidence"),
    "pretrain": ("arms", "seeds", "test_rows", "epsilon", "confidence"),
}
KEPT_TRAINING = ("epochs", "batch_tokens")
KEPT_PARTS = {
    "prove": ("targets", "result", "details"),
    "ltd": ("claims", "sufficient", "region", "items"),
    "pretrain": ("corpus", "tokens", "arms", "targets", "retention", "claims"),
}


def minutes(record, run):
    """Return the minutes that all students took, trained and asked, as their own records say."""
    if record["command"] in ("ltd", "pretrain"):
        seconds = record["seconds"]["students" if record["command"] == "ltd" else "models"]
        return round(seconds / 60, 1)
    units = [json.loads(path.read_text("utf-8")) for path in (run / "units").glob("*/unit.json")]
    return round(sum(unit["all_s"] for unit in units) / 60, 1)


def render(results):
    """Return the page of kept results (name → what `save` kept)."""
    proofs = {name: one for name, one in results.items() if one["command"] == "prove"}
    targets = {
        target: (name, result, one)
        for name, one in proofs.items()
        for target, result in (
            one["result"].get("targets") or {next(iter(one["details"])): one["result"]}
        ).items()
    }
    lines = [
        HEAD,
        *effects(targets),
        "",
        *arms(targets),
        "",
        *ltd_claims(results),
        *pretrained(results),
        *machines(results),
    ]
    return "\n".join(lines).rstrip() + "\n"


HEAD = """# Evidence

What the papers claim, tried with our own tools at the scale of a small machine: a student of 135M parameters,
rows by the embedded generator, some hundred of them, some dozens of questions. A claim that does not hold
here is shown as such. Numbers are read from kept results; each line can be run again with the command beside
it.

```text
python -m benchmarks evidence --data DATA --out evidence/
cd evidence && taskmill prove squadshifts_reddit.yaml --out runs/squadshifts_reddit
```
"""


def effects(targets):
    """Yield a table for each claim: the paper's number, ours for each target, and what it comes to."""
    for effect, (claim, paper) in PAPERS.items():
        own = {
            t: result["effects"][effect]
            for t, (_, result, _) in targets.items()
            if effect in result["effects"]
        }
        if not own:
            continue
        yield from (f"## {claim}", "", f"The paper: {paper}.", "")
        yield from ("| target | ours, in points | 95 % interval | |", "|---|---|---|---|")
        for target, line in own.items():
            low, high = line["interval"]
            interval = f"{points(low)} to {points(high)}"
            yield f"| {target} | {points(line['delta'])} | {interval} | {said(low, high)} |"
        yield ""


def points(value):
    return f"{100 * value:+.1f}"


def said(low, high):
    return "more" if low > 0 else "less" if high < 0 else "undecided"


def arms(targets):
    yield from (
        "## Scores",
        "",
        "F1 over all gold answers, or macro-F1, in percent; in brackets the interval.",
        "",
    )
    names = list(dict.fromkeys(arm for _, result, _ in targets.values() for arm in result["arms"]))
    yield f"| target | {' | '.join(names)} | questions | rows | kept | minutes | command |"
    yield "|---" * (len(names) + 6) + "|"
    for target, (name, result, one) in targets.items():
        cells = [score(result["arms"].get(arm)) for arm in names]
        learned = one["details"][target]["learned"]
        rows = next((learned[arm]["rows"] for arm in ("ours", *names) if learned.get(arm, {}).get("rows")), 0)
        kept = (
            "yes" if result["retention"]["passed"] else ", ".join(result["retention"]["failed"]) + " forget"
        )
        asked = one["details"][target]["questions"]
        yield (
            f"| {target} | {' | '.join(cells)} | {asked} | {rows:.0f} | {kept} | {one['minutes']:g} | "
            f"`{command(name, one, target)}` |"
        )


def command(name, one, target):
    """Return the command that makes a result again, in the folder of the recipes."""
    config, sizes = one["config"], one["targets"][target]["sizes"]
    return (
        f"taskmill prove {name}.yaml --arms {','.join(config['arms'])} --seeds {config['seeds']} "
        f"--passages {sizes['passages']} --test-items {sizes['questions']}"
    )


def score(line):
    if line is None:
        return ""
    low, high = line["interval"]
    return f"{100 * line['score']:.1f} ({100 * low:.1f}-{100 * high:.1f})"


def ltd_claims(results):
    found = {name: one for name, one in results.items() if one["command"] == "ltd"}
    if not found:
        return
    yield from ("## How little is enough (LTD, arXiv 2305.09246)", "")
    yield "The paper: 0.5 % of a task's data, chosen as a core-set, is within 2 points of all of it."
    yield from ("", "| run | claim | verdict | difference, in points | interval |", "|---|---|---|---|---|")
    for name, one in found.items():
        for claim in one["claims"]:
            whole = claim["over_all"]
            cells = (
                f"{points(whole['mean'])} | {points(whole['low'])} to {points(whole['high'])}"
                if whole
                else " | "
            )
            yield f"| {name} | {claim['claim']} | {claim['verdict']} | {cells} |"
        for selector, enough in one["sufficient"].items():
            least = f"{enough['ratio']:g} %" if enough["ratio"] else "no tried share below 100 %"
            yield f"| {name} | enough by {selector} | {least} | | |"
        yield from ("", f"`{name}` is [the experiment on real rows](ltd.md#on-real-rows), with:", "")
        yield from ("```text", of_ltd(one["config"]), "```")
    yield ""


def pretrained(results):
    """Yield what pairs in a corpus are worth against its raw texts, and what was forgotten."""
    found = {name: one for name, one in results.items() if one["command"] == "pretrain"}
    if not found:
        return
    yield from ("## Pairs in the corpus (Instruction Pre-Training, arXiv 2406.14491)", "")
    yield "The paper: Llama3-8B that reads on in a domain scores more with pairs than on raw texts, 61.3"
    yield "against 58.4 in medicine, 74.7 against 72.0 in finance (averages of 5 tasks); what is forgotten"
    yield "it does not say."
    for name, one in found.items():
        corpus, config = one["corpus"], one["config"]
        yield from (
            "",
            f"`{name}`: {corpus['documents']['in']:,} passages, {corpus['pairs']:,} pairs; each model reads",
        )
        asked = f"{config['test_rows']} questions a target (F1, or right)"
        yield f"{one['tokens']:,} tokens; {config['seeds']} seeds; {asked}."
        yield from ("", f"| target | {' | '.join(one['targets'][next(iter(one['targets']))])} |")
        yield "|---" * (len(next(iter(one["targets"].values()))) + 1) + "|"
        for target, lines in {**one["targets"], **one["retention"]["questions"]}.items():
            yield f"| {target} | " + " | ".join(mean(line) for line in lines.values()) + " |"
        perplexity = one["retention"]["perplexity"]
        if perplexity:
            cells = (f"{line['perplexity']:.1f}" for line in perplexity.values())
            yield f"| perplexity of general text | {' | '.join(cells)} |"
        yield from ("", "| claim | verdict | difference, in points | interval |", "|---|---|---|---|")
        for claim in one["claims"]:
            whole = claim["over_all"]
            bounds = f"{points(whole['low'])} to {points(whole['high'])}"
            yield f"| {claim['claim']} | {claim['verdict']} | {points(whole['mean'])} | {bounds} |"
        flags = f"--seeds {config['seeds']} --test-rows {config['test_rows']} --tokens {one['tokens']}"
        names = ",".join(f"read_on/{target}.jsonl" for target in one["targets"])
        yield from (
            "",
            "The [corpus](corpus.md) and the [comparison](train.md) are of",
            "",
            "```text",
            READ_ON,
        )
        yield from (f"taskmill train corpus corpus --target {names} {flags} --out worth", "```")
    yield ""


def mean(line):
    return f"{100 * line['mean']:.1f} ({100 * line['low']:.1f}-{100 * line['high']:.1f})"


def of_ltd(config):
    """Return the command that makes a result of `ltd` again."""
    flags = {name: config[name] for name in ("labels", "ratios", "selectors", "seeds", "embedder")}
    flags |= {name: value for name, value in config["train"].items() if value}
    told = (
        f"--{name.replace('_', '-')} {','.join(map(str, v)) if isinstance(v, list) else v}"
        for name, v in flags.items()
    )
    return f"taskmill ltd ltd-data/pool.parquet --target ltd-data/target.parquet {' '.join(told)} --out ltd/"


def machines(results):
    yield from (
        "## Machines",
        "",
        "The hash behind a student's name is of its settings and of the wordings: compare",
    )
    yield from (
        "scores of one hash only.",
        "",
        "| result | student | machine | minutes |",
        "|---|---|---|---|",
    )
    for name, one in results.items():
        machine = one["machine"]
        about = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']:g} GB"
        yield f"| {name} | {one['student']} | {about} | {one['minutes']:g} |"


def kept():
    """Return the results that are kept, by name."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(KEPT.glob("*.json"))}


def main(options):
    parser = argparse.ArgumentParser(
        prog="benchmarks evidence", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with targets/ and corpora/")
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
