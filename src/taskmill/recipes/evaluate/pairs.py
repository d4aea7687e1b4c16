"""Two models' outputs → a table of pairs in both orders for a judge; the judge's verdicts → a win rate.

    OUT/  pairs.jsonl (what the judge sees)  key.parquet (which output stood first)  results.json

Whoever judges, a person or a model, sees only pairs.jsonl: its ids and its order tell nothing of the models.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from taskmill.durable import atomic_write
from taskmill.errors import InputError, UsageError
from taskmill.evaluate.extract import readable
from taskmill.evaluate.pairs import Judged, verdict, win_rate
from taskmill.ids import content_id, draw
from taskmill.recipes.tables import read_file, table_files
from taskmill.store import write_parquet
from taskmill.suites import Item, prompt

__all__ = ["export_pairs", "open_prompt", "read_verdicts"]

_OUTPUTS = ("output", "response", "completion", "generation")
_PROMPTS = ("request", "prompt", "instruction", "question", "turns")
_IDS = ("id", "question_id")


class _Output(NamedTuple):
    prompt: str
    output: str
    category: str


def open_prompt(row: Mapping[str, Any], where: str) -> tuple[str, str, str]:
    """Return (id, prompt, category) of a row; a chat's first turn is asked, an `input` stands below.

    The id is "" where the row has none. Raises InputError naming the row if it has no prompt.
    """
    name = next((n for n in _PROMPTS if row.get(n)), "")
    value = row.get(name) or ""
    text = str(value[0] if isinstance(value, list) else value).strip()
    if not text:
        raise InputError(f"{where} has none of the columns {', '.join(_PROMPTS)}; give it its prompt")
    more = str(row.get("input") or "").strip() if name in ("instruction", "prompt") else ""
    own = next((str(row[n]) for n in _IDS if row.get(n) is not None), "")
    return own, f"{text}\n\n{more}" if more else text, str(row.get("category") or "")


def _outputs(source: str) -> dict[str, _Output]:
    """Return a model's outputs by id, or by prompt where there are no ids."""
    found: dict[str, _Output] = {}
    for file in table_files(source):
        for number, row in enumerate(read_file(file).to_pylist()):
            where = f"{file}: row {number} (counted from 0)"
            name = next((n for n in _OUTPUTS if n in row), "")
            if not name:
                raise InputError(f"{file}: no column 'output'; its columns are {', '.join(row)}")
            own, text, category = open_prompt(row, where)
            if (own or text) in found:
                raise InputError(f"{where} is asked twice ({(own or text)[:60]!r}); leave one of them out")
            found[own or text] = _Output(text, readable(row[name]), category)
    if not found:
        raise InputError(f"{source}: no rows in it; name a file with outputs")
    return found


def export_pairs(one: str, two: str, out: str | Path, *, seed: int = 0) -> dict[str, Any]:
    """Write OUT/pairs.jsonl and OUT/key.parquet: each prompt both have answered, with either output first.

    A table has a prompt (`prompt`, `instruction` with `input`, `question` or `turns`), an `output`, and may
    have `id` and `category`; rows are joined by id, or by prompt. Rows only one side has are counted. Raises
    InputError naming the row for a table that is none, UsageError if OUT holds something already.
    """
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{out} holds something already; choose a new --out")
    first, second = _outputs(one), _outputs(two)
    names = _names(one, two)
    shared = sorted(set(first) & set(second))
    if not shared:
        raise InputError(f"{one} and {two} have no prompt in common; give outputs of the same prompts")
    words = prompt("judge")
    lines, key = [], []
    for item in shared:
        a, b = first[item], second[item]
        if a.prompt != b.prompt:
            raise InputError(f"{one} and {two} ask other things under the id {item!r}; number them alike")
        for order, (top, below) in enumerate(((a, b), (b, a))):
            own = content_id("pair", item, str(order), a.output, b.output)[:16]
            fields = {"prompt": a.prompt, "first": top.output, "second": below.output}
            asked = words.render(Item(own, "", fields, ()))
            lines.append({"id": own, "category": a.category, **fields, "request": asked, "verdict": None})
            key.append({"id": own, "item": item, "order": order, "category": a.category})
    lines.sort(key=lambda line: (draw(seed, str(line["id"]), "pairs"), line["id"]))
    key.sort(key=lambda row: str(row["id"]))
    table = pa.Table.from_pylist(key).replace_schema_metadata({"one": names[0], "two": names[1]})
    atomic_write(
        folder / "pairs.jsonl",
        "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode(),
    )
    write_parquet(folder / "key.parquet", table)
    return {
        "one": names[0],
        "two": names[1],
        "pairs": len(lines),
        "items": len(shared),
        "only_one": len(first) - len(shared),
        "only_two": len(second) - len(shared),
        "judge": f"judge@{words.version}",
    }


def _names(one: str, two: str) -> tuple[str, str]:
    a, b = Path(one).stem, Path(two).stem
    return (a, b) if a != b else (one, two)


def read_verdicts(
    verdicts: str, out: str | Path, *, confidence: float = 0.95, seed: int = 0
) -> dict[str, Any]:
    """Read a judge's verdicts on the pairs of OUT, and write and return OUT/results.json.

    The table has the `id` of a line of pairs.jsonl and its `verdict` (or `output`): first, second or tie,
    A, B or C, 1 or 2, or a judge's text that ends in one. `unread` counts verdicts that say nothing,
    `missing` pairs without one, `unswapped` items left out because not both orders are judged. Raises
    InputError for an id that is none of OUT's or stands twice, UsageError if OUT holds no pairs.
    """
    path = Path(out) / "key.parquet"
    if not path.exists():
        raise UsageError(f"{out} holds no pairs; write them first with --pairs A,B --out {out}")
    table = pq.read_table(path)
    key = {row["id"]: row for row in table.to_pylist()}
    said = _said(verdicts, key)
    read = {one: verdict(text) for one, text in said.items()}
    by_item: dict[str, dict[int, str]] = {}
    category = {}
    for one, row in key.items():
        category[row["item"]] = row["category"]
        by_item.setdefault(row["item"], {})[row["order"]] = read.get(one, "")
    judged = [
        Judged(item, both[0], both[1], category[item])
        for item, both in sorted(by_item.items())
        if both[0] and both[1]
    ]
    settings: dict[str, Any] = {"confidence": confidence, "seed": seed}
    names = {side: table.schema.metadata[side.encode()].decode() for side in ("one", "two")}
    results = {
        **names,
        **win_rate(judged, **settings),
        "verdicts": dict(sorted(Counter(place for place in read.values() if place).items())),
        "unread": sum(not place for place in read.values()),
        "missing": len(key) - len(read),
        "unswapped": len(by_item) - len(judged),
        "categories": {
            kind: win_rate([j for j in judged if j.category == kind], **settings)
            for kind in sorted({j.category for j in judged} - {""})
        },
    }
    text = json.dumps(results, indent=1, ensure_ascii=False)
    atomic_write(Path(out) / "results.json", text.encode())
    return results


def _said(verdicts: str, key: Mapping[str, Any]) -> dict[str, object]:
    found: dict[str, object] = {}
    for file in table_files(verdicts):
        for number, row in enumerate(read_file(file).to_pylist()):
            where = f"{file}: row {number} (counted from 0)"
            name = next((n for n in ("verdict", *_OUTPUTS) if n in row), "")
            if not name or "id" not in row:
                raise InputError(f"{file}: no columns 'id' and 'verdict'; its columns are {', '.join(row)}")
            own = str(row["id"])
            if own not in key:
                raise InputError(f"{where}: {own!r} is no id of these pairs; keep those of pairs.jsonl")
            if own in found:
                raise InputError(f"{where}: {own!r} is judged twice; leave one of the verdicts out")
            if row[name] is not None:  # not judged yet: a missing verdict, no unreadable one
                found[own] = row[name]
    return found
