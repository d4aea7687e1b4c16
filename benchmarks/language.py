"""How well the language filter tells answers in the passage's language from answers in another one.

    python -m benchmarks language --xquad xquad.parquet [--mgsm mgsm.parquet] [--items 260] [--save]

XQuAD has the same passages, questions and answers in eleven languages (columns lang, id, context, question,
answers): a question beside its own passage must pass, the same question in another language must not. Gold
answers of 20 letters or more are judged the same way; as spans of the passage they would not be judged at
all, so this is the hard case: short, and mostly names. MGSM (lang, question) only shows how often a language
is named right.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine


def named(rows: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return how often the likeliest language of (language, text) is the right one."""
    from taskmill.curate.language import likelihoods

    right: dict[str, list[bool]] = defaultdict(list)
    for language, text in rows:
        found = likelihoods(text)
        right[language].append(max(found, key=lambda code: found[code]) == language)
    every = [one for own in right.values() for one in own]
    shares = {language: sum(own) / len(own) for language, own in sorted(right.items())}
    return {"texts": len(every), "right": sum(every) / len(every), "languages": shares}


def pairs(rows: Sequence[dict[str, Any]], items: int) -> dict[str, dict[str, list[tuple[str, str]]]]:
    """Return {part: {"good" or "bad": [(passage, text), …]}} of `items` questions drawn by id."""
    from taskmill.curate.language import LEAST_LETTERS
    from taskmill.ids import draw

    by_id: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        by_id[row["id"]][row["lang"]] = row
    made: dict[str, dict[str, list[tuple[str, str]]]] = {
        p: {"good": [], "bad": []} for p in ("question", "answer")
    }
    for name in sorted(by_id, key=lambda n: draw(0, n, "language"))[:items]:
        own = by_id[name]
        for language, row in sorted(own.items()):
            others = [code for code in sorted(own) if code != language]
            other = own[others[draw(0, name, language) % len(others)]]
            for side, said in (("good", row), ("bad", other)):
                for part, text in (("question", said["question"]), ("answer", said["answers"][0])):
                    if sum(c.isalpha() for c in text) >= LEAST_LETTERS:
                        made[part][side].append((row["context"], text))
    return made


def measure(xquad: Path, mgsm: Path | None, items: int) -> dict[str, Any]:
    """Return recall and false rejects at the default threshold, and the identifier's own accuracy."""
    import pyarrow.parquet as pq

    from taskmill.curate.language import LANGUAGE, agreement_of

    rows = pq.read_table(xquad).to_pylist()
    figures: dict[str, Any] = {"passages": named({(r["lang"], r["context"]) for r in rows})}
    if mgsm is not None:
        figures["mgsm"] = named((r["lang"], r["question"]) for r in pq.read_table(mgsm).to_pylist())
    for part, sides in pairs(rows, items).items():
        refused = {
            side: [agreement_of(text, passage) < LANGUAGE.default for passage, text in own]
            for side, own in sides.items()
        }
        figures[part] = {
            "good": len(refused["good"]),
            "false_rejects": sum(refused["good"]) / len(refused["good"]),
            "bad": len(refused["bad"]),
            "recall": sum(refused["bad"]) / len(refused["bad"]),
        }
    return {"benchmark": "language", "settings": {"items": items}, "figures": figures}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks language", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--xquad", type=Path, required=True, help="XQuAD as Parquet, all languages in one file"
    )
    parser.add_argument("--mgsm", type=Path, help="MGSM as Parquet")
    parser.add_argument("--items", type=int, default=260, help="questions, each in every language")
    parser.add_argument("--save", action="store_true", help="write results/language.json")
    args = parser.parse_args(arguments)
    found = measure(args.xquad, args.mgsm, args.items)
    for name, figure in found["figures"].items():
        print(name, figure)
    if args.save:
        print(f"saved to {machine.save('language', found)}")


if __name__ == "__main__":
    main()
