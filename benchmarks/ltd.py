"""A pool and a held-out target for `taskmill ltd`, made of real rows: reviews among Flan's other tasks.

    python -m benchmarks ltd --data DATA --out ltd-data/
    taskmill ltd ltd-data/pool.parquet --target ltd-data/target.parquet --labels positive,negative \\
        --ratios 1,5,10,50,100 --selectors k-center,random --epochs 3 --batch-tokens 512 --out ltd/

DATA holds `corpora/rotten_tomatoes.parquet` (id, text, label 0 or 1) and `flan/t0_rendered.parquet` (dataset,
template, row, prompt, completion). Flan has 200 rows of each of its sets, of which hundreds cannot be held
out, and those of its reviews are of one label: so the task's rows come from the corpus, in wordings of ours,
and Flan's short rows of all other sets are what the task must be found among. Rows are drawn by id.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WORDINGS = (
    "Is this review positive or negative?\n\n{text}",
    "{text}\n\nWhat does the reviewer feel about the film, positive or negative?",
    "Decide whether the sentiment of the following sentence is positive or negative: {text}",
)
LABELS = ("negative", "positive")
SHORT = 400
"""Most characters of a Flan row (chosen: longer ones would make the students of a mixed region slow)."""


def reviews(rows: Sequence[dict[str, Any]], count: int, seed: int) -> list[dict[str, str]]:
    """Return `count` reviews as instruction data, each in one wording."""
    from taskmill.ids import draw

    drawn = sorted(rows, key=lambda r: (draw(seed, r["id"], "ltd reviews"), r["id"]))[:count]
    made = []
    for row in drawn:
        wording = draw(seed, row["id"], "ltd wording") % len(WORDINGS)
        made.append(
            {
                "id": f"review-{row['id']}",
                "prompt": WORDINGS[wording].format(text=row["text"]),
                "completion": LABELS[row["label"]],
                "task": "reviews",
                "template": f"wording {wording}",
            }
        )
    return made


def others(rows: Sequence[dict[str, Any]], count: int, seed: int) -> list[dict[str, str]]:
    """Return `count` short rows of Flan's other sets."""
    from taskmill.ids import draw

    named = [
        (f"{row['dataset']}/{row['template']}/{row['row']}", row)
        for row in rows
        if row["dataset"] != "rotten_tomatoes" and len(row["prompt"]) <= SHORT
    ]
    by_name = {name: row for name, row in named if row["completion"].removesuffix("<|endoftext|>").strip()}
    drawn = sorted(by_name, key=lambda name: (draw(seed, name, "ltd others"), name))[:count]
    return [
        {
            "id": name,
            "prompt": by_name[name]["prompt"],
            "completion": by_name[name]["completion"],
            "task": by_name[name]["dataset"],
            "template": by_name[name]["template"],
        }
        for name in drawn
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from taskmill.store import write_parquet

    parser = argparse.ArgumentParser(prog="benchmarks ltd", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds corpora/ and flan/")
    parser.add_argument("--out", type=Path, required=True, help="folder for pool.parquet and target.parquet")
    parser.add_argument("--rows", type=int, default=300, help="reviews in the pool")
    parser.add_argument("--others", type=int, default=1200, help="rows of other tasks in the pool")
    parser.add_argument("--target-rows", type=int, default=232, help="held-out reviews: 32 locate, 200 score")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    corpus = pq.read_table(args.data / "corpora" / "rotten_tomatoes.parquet").to_pylist()
    flan = pq.read_table(args.data / "flan" / "t0_rendered.parquet").to_pylist()
    own = reviews(corpus, args.rows + args.target_rows, args.seed)
    pool = own[args.target_rows :] + others(flan, args.others, args.seed)
    for name, rows in (("pool", pool), ("target", own[: args.target_rows])):
        write_parquet(args.out / f"{name}.parquet", pa.Table.from_pylist(rows))
        print(f"{len(rows):,} rows in {args.out / name}.parquet")


if __name__ == "__main__":
    main()
