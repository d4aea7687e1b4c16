"""A synthesizer of one's own, tuned on annotated texts, against the embedded one asked several times.

    python -m benchmarks own_synthesizer --data DATA --out DIR   makes tables: DIR/tune, seen, unseen.parquet
    cd DIR && taskmill cast | train | examine …                  as docs/corpus.md says
    python -m benchmarks own_synthesizer --save DIR              keeps the results of its runs
    python -m benchmarks own_synthesizer --render                writes them into docs/corpus.md

DATA holds `corpora/` and `targets/`. What is tuned on has an open licence. `seen` are other texts of the
datasets that are tuned on, `unseen` are datasets that neither synthesizer was trained on; they are read for
the examination only. Results are kept without texts and without paths, and no number on the page is written
by hand.
"""

import argparse
import re
from collections import defaultdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import RESULTS, save, write_table
from taskmill.ids import draw
from taskmill.recipes.examine.compare import compare_examinations
from taskmill.store import read_json
from taskmill.synthesize.pair_format import with_options

NAME = "own_synthesizer"
PAGE = Path(__file__).parents[1] / "docs" / "corpus.md"

WORDS = 300
"""Most words of a text (chosen: two or three texts with their pairs are a sequence of 1,024 tokens)."""

TUNED = {"fairytaleqa": 400, "boolq": 200, "covid-qa": 170, "xquad": 180, "gaokao-english": 77}
"""Texts of each dataset that are tuned on, at most (chosen: three quarters of an hour on one core)."""


def read(path):
    return pq.read_table(path).to_pylist()


def grouped(rows, dataset, licence, least):
    """Return the texts of (context, question, answer) rows with their pairs: `least` or more of them."""
    of = defaultdict(dict)
    for context, question, answer in rows:
        if context.strip() and question.strip() and answer.strip():
            of[context.strip()].setdefault(question.strip(), answer.strip())
    return [
        {
            "context": context,
            "QA_list": [{"Q": asked, "A": answered} for asked, answered in pairs.items()],
            "rc_name": dataset,
            "licence": licence,
        }
        for context, pairs in of.items()
        if len(pairs) >= least and len(context.split()) <= WORDS
    ]


def apart(rows, share=0.2):
    """Divide texts into (tuned on, held out), by chance."""
    held = [row for row in rows if draw(0, row["context"], "held out") < share * 2**63]
    names = {row["context"] for row in held}
    return [row for row in rows if row["context"] not in names], held


def squad(path):
    return [(row["context"], row["question"], row["answers"][0]) for row in read(path) if row["answers"]]


def boolq(path):
    """Questions as they are typed into a search field get a capital and a mark."""
    for row in read(path):
        asked = row["question"].strip()
        yield row["passage"], f"{asked[:1].upper()}{asked[1:]}?", "Yes" if row["answer"] else "No"


def covid(path):
    """Articles are long: a question belongs to the paragraph that its answer begins in."""
    for row in read(path):
        begin = row["answer_starts"][0]
        for found in re.finditer(r"(?:(?!\n\n).)+", row["context"], re.DOTALL):
            if found.start() <= begin < found.end() and row["answers"][0].strip() in found[0]:
                yield found[0], row["question"], row["answers"][0]


def gaokao(path):
    for row in read(path):
        options = [re.sub(r"^\([A-Z]\)", "", one).strip() for one in row["options"]]
        at = ord(row["label"]) - ord("A")
        if all(options) and at < len(options):
            yield row["passage"], with_options(row["question"], options), options[at]


def make(data, out):
    """Write what is tuned on, and the texts of the examination."""
    corpora, targets = data / "corpora", data / "targets"
    wiki, held_wiki = apart(grouped(squad(corpora / "xquad_en.parquet"), "xquad", "CC-BY-SA-4.0", 2))
    science, held_science = apart(grouped(covid(corpora / "covidqa.parquet"), "covid-qa", "Apache-2.0", 2))
    stories = [
        grouped(squad(corpora / f"fairytaleqa_{part}.parquet"), "fairytaleqa", "Apache-2.0", 3)
        for part in ("train", "test")
    ]
    asked = [
        grouped(boolq(corpora / f"boolq_{part}.parquet"), "boolq", "CC-BY-SA-3.0", 2)
        for part in ("train", "dev")
    ]
    exam = grouped(gaokao(corpora / "agieval_gaokao_english.parquet"), "gaokao-english", "MIT", 2)
    policies = [row for part in ("dev", "test") for row in squad(corpora / f"policyqa_{part}.parquet")]
    tables = {
        "tune": [
            row
            for own in (stories[0], asked[0], science, wiki, exam)
            for row in sorted(own, key=lambda row: draw(0, row["context"], "tune"))[
                : TUNED[own[0]["rc_name"]]
            ]
        ],
        "seen": [*stories[1], *asked[1], *held_science, *held_wiki],
        "unseen": [
            row
            for name, rows in (
                ("policyqa", policies),
                ("squadshifts-reddit", squad(targets / "squadshifts_reddit.parquet")),
                ("squadshifts-new-wiki", squad(targets / "squadshifts_new_wiki.parquet")),
            )
            for row in grouped(rows, name, "", 2)
        ],
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        pq.write_table(pa.Table.from_pylist(rows), out / f"{name}.parquet")
        texts = defaultdict(int)
        for row in rows:
            texts[row["rc_name"]] += 1
        print(f"{name}: {dict(texts)}, {sum(len(row['QA_list']) for row in rows)} pairs")


# results

EXAMINED = {
    "bonito": "embedded, asked five times",
    "bonito-exqa": "embedded, five extractive questions",
    "own": "own, asked once",
}
"""Folders of `examined/`, in the order of the tables. What is first is what `corpus` asks by default."""

WAYS = {"zero": "alone", "few": "behind two other texts with their pairs"}


def keep(folder):
    """Keep what the runs in a folder found: no rows, no texts, no paths."""
    cast, trained = (
        read_json(folder / name) for name in ("cast/manifest.json", "model/adapter/taskmill.json")
    )
    results = {name: read_json(folder / "examined" / name / "result.json") for name in EXAMINED}
    missing = [name for name, one in results.items() if not one or one["exit"]["code"]]
    if missing or not trained:
        raise SystemExit(
            f"{folder} is not done: {', '.join(missing) or 'no adapter'}; run its commands to the end"
        )
    compared = {
        name: compare_examinations(str(folder / "examined" / name), str(folder / "examined" / "own"))[
            "pair_f1"
        ]
        for name in EXAMINED
        if name != "own"
    }
    parts = (
        "pair_f1",
        "pair_f1_by_dataset",
        "answers",
        "helpfulness",
        "malformed",
        "over_context",
        "datasets",
    )
    return {
        "cast": {
            name: cast[name] for name in ("datasets", "formats", "pairs", "sequences", "tokens", "fill")
        },
        "trained": {name: trained[name] for name in ("steps", "tokens", "elapsed_s", "loss", "counts")},
        "examined": {name: {part: one[part] for part in parts} for name, one in results.items()},
        "own_less": compared,
    }


def better(kept):
    """Say whether our own is better than every way of asking the embedded one, on seen and unseen datasets.

    It is asked as it would be served, without examples; the whole interval has to be above 0.
    """
    return all(own["zero"]["low"] > 0 for splits in kept["own_less"].values() for own in splits.values())


def render(kept):
    """Return what stands in the page between its marks."""
    trained, cast, examined = kept["trained"], kept["cast"], kept["examined"]
    loss = trained["loss"]
    whole = sum(own["texts"] for own in cast["datasets"].values())
    lines = [
        f"{whole} texts of {', '.join(cast['datasets'])} with {cast['pairs']['kept']} pairs are "
        f"{cast['sequences']} sequences. {trained['steps']} steps over {trained['tokens']:,} tokens took "
        f"{trained['elapsed_s'] / 60:.0f} minutes on a part of a busy core; held-out loss "
        f"{loss['valid_first']:.3f} → {loss['valid_last']:.3f} nats per token.",
        "",
        "| synthesizer | asked | seen: pair F1 | unseen: pair F1 | pieces that are no pair |",
        "|---|---|---|---|---|",
    ]
    for name, title in EXAMINED.items():
        one = examined[name]
        for way, told in WAYS.items():
            if all(way in one["pair_f1"][split] for split in ("seen", "unseen")):
                cells = (mean(one["pair_f1"][split][way]) for split in ("seen", "unseen"))
                lines.append(f"| {title} | {told} | {' | '.join(cells)} | {one['malformed']} |")
    lines += [
        "",
        "| our own less | asked | texts | difference, in points | better on | worse on |",
        "|---|---|---|---|---|---|",
    ]
    for name, splits in kept["own_less"].items():
        for split, ways in splits.items():
            for way, own in ways.items():
                lines.append(
                    f"| {EXAMINED[name]} | {WAYS[way]} | {own['n']}, {split} | {points(own)} | "
                    f"{own['wins']} | {own['losses']} |"
                )
    lines += [
        "",
        f"| dataset | | texts | {' | '.join(EXAMINED.values())} |",
        "|---" * (3 + len(EXAMINED)) + "|",
    ]
    by = {name: {line["dataset"]: line for line in examined[name]["pair_f1_by_dataset"]} for name in EXAMINED}
    for dataset, line in sorted(by["own"].items(), key=lambda item: (item[1]["split"], item[0])):
        cells = (f"{100 * by[name][dataset]['zero']['mean']:.1f}" for name in EXAMINED)
        lines.append(f"| {dataset} | {line['split']} | {line['zero']['n']} | {' | '.join(cells)} |")
    lines += [
        "",
        "| our own | the question alone | behind pairs of another text | behind its own pairs |",
        "|---|---|---|---|",
    ]
    for split, ways in examined["own"]["answers"].items():
        cells = (mean(ways[way]) if way in ways else "–" for way in ("alone", "random", "ours"))
        lines.append(f"| answers, {split} | {' | '.join(cells)} |")
    verdict = (
        "Our own is better, on seen and on unseen datasets."
        if better(kept)
        else "Our own is not better everywhere, so the package does not carry it."
    )
    return "\n".join([*lines, "", verdict])


def mean(own):
    return f"{100 * own['mean']:.1f} ({100 * own['low']:.1f}-{100 * own['high']:.1f})"


def points(own):
    return f"{100 * own['difference']:+.1f} ({100 * own['low']:+.1f} to {100 * own['high']:+.1f})"


def main(options=None):
    """Make the tables, keep results or write the page's tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder that holds corpora/ and targets/")
    parser.add_argument("--out", type=Path, default=Path("own"), help="where the tables go")
    parser.add_argument("--save", type=Path, help="folder that holds cast/, model/ and examined/")
    parser.add_argument("--render", action="store_true", help="write docs/corpus.md from what is kept")
    given = parser.parse_args(options)
    if not (given.data or given.save or given.render):
        parser.error("give --data, --save or --render")
    if given.data:
        make(given.data, given.out)
    if given.save:
        print(save(NAME, keep(given.save)))
    if given.render:
        write_table(PAGE, NAME, render(read_json(RESULTS / f"{NAME}.json")))


if __name__ == "__main__":
    main()
