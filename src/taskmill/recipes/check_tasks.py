"""Tasks proposed elsewhere in, those that hold out: the filters of `grow propose`, also without the data."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from taskmill.durable import Replacing
from taskmill.errors import InputError
from taskmill.recipes.propose import gather
from taskmill.recipes.tables import begin_results, check_out, end_results
from taskmill.recipes.task_filters import Filters, decide, with_dataset
from taskmill.record import DatasetMeta, Dropped, FieldMeta, Reason, dropped_schema, to_table
from taskmill.store import write_parquet
from taskmill.synthesize.proposals import PROPOSAL_SCHEMA, Proposal, dropped, read_proposal, to_row
from taskmill.synthesize.salvage import salvage
from taskmill.synthesize.task_checks import check

__all__ = ["check_tasks", "hyphened"]

COMMAND = "grow check"


def check_tasks(
    source: str, out: str | Path, filters: Filters, data: Sequence[str] = (), licence: str = ""
) -> dict[str, Any]:
    """Filter the proposals of a JSONL file into the folder `out` and return the report.

    `out` gets proposals.jsonl, kept.parquet, dropped.parquet and report.json. Without `data`, fields are
    looked up only where a line declares them (`fields`), and nothing is asked of rows or licences. Raises
    InputError for a file that cannot be read.
    """
    path = Path(source)
    if not path.is_file():
        raise InputError(f"there is no file {source!r}; name a JSONL file of proposals")
    folder = check_out(out, [source] if path.suffix in (".jsonl", ".json") else [], COMMAND)
    metas, unread = gather(data, licence) if data else ({}, [])
    read = list(_read(path))
    found: list[Proposal | Dropped] = []
    for one, fields in read:
        if isinstance(one, Proposal) and metas:
            one = with_dataset(one, [metas[key] for key in sorted(metas)])
        elif isinstance(one, Proposal) and fields:
            declared = DatasetMeta(one.key, fields=tuple(FieldMeta(name, "") for name in fields))
            one = check(one, declared) or one
        found.append(one)
    judged = [_placeless(one, metas) for one in found]
    begin_results(folder)
    kept, lost, figures = decide(judged, metas, filters, rows=bool(metas))
    kept.sort(key=lambda one: (one.key, one.id))
    lost.sort(key=lambda one: (one.row.id, one.reason, one.detail))
    if len(kept) + len(lost) != len(read):
        raise AssertionError(f"{len(read)} proposals came in, {len(kept)} + {len(lost)} came out")
    with Replacing(folder / "proposals.jsonl") as file:
        file.writelines(orjson.dumps(to_row(one)) + b"\n" for one in kept)
    write_parquet(folder / "kept.parquet", to_table(kept, PROPOSAL_SCHEMA))
    write_parquet(folder / "dropped.parquet", to_table(lost, dropped_schema(PROPOSAL_SCHEMA)))
    reasons = Counter(hyphened(one.reason) for one in lost)
    report = {"in": len(read), "kept": len(kept), "dropped": dict(sorted(reasons.items()))}
    return end_results(folder, COMMAND, report | {"unread": unread, **figures})


def hyphened(reason: Reason | str) -> str:
    """Return a reason as reports of proposals spell it: `multi-output`."""
    return str(reason).replace("_", "-")


def _placeless(one: Proposal | Dropped, metas: Mapping[str, DatasetMeta]) -> Proposal | Dropped:
    """Drop a proposal that is about none of the datasets given."""
    if isinstance(one, Dropped) or not metas or one.key in metas:
        return one
    about = f"no dataset {one.key!r} is given" if one.dataset else "no dataset given has all its fields"
    return dropped(one, Reason.UNKNOWN_FIELD, about)


def _read(path: Path) -> Iterator[tuple[Proposal | Dropped, tuple[str, ...]]]:
    """Yield (proposal, declared fields) of each line; a line may also be a whole reply of a model."""
    text = path.read_bytes().decode("utf-8-sig", "replace")
    lines = text.splitlines() if path.suffix != ".json" else [text]
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows = list(_tasks(json.loads(line)))
        except ValueError:
            tasks, torn = salvage(line)
            rows = [{"task_name": key, **task} for key, task in tasks]
            if torn or not rows:
                yield (
                    dropped(
                        Proposal(), Reason.PARSE, f"line {number} is no whole JSON: {line.strip()[:80]!r}"
                    ),
                    (),
                )
        for row in rows:
            if not isinstance(row, Mapping):
                detail = f"line {number} holds a {type(row).__name__}, not a task"
                yield dropped(Proposal(), Reason.SCHEMA, detail), ()
                continue
            listed = row.get("fields")
            names = (one.get("name") if isinstance(one, Mapping) else one for one in listed or ())
            fields = tuple(str(name) for name in names) if isinstance(listed, list | tuple) else ()
            yield read_proposal(row), fields


def _tasks(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        yield from value
    elif isinstance(value, Mapping) and value and all(isinstance(one, Mapping) for one in value.values()):
        yield from ({"task_name": str(key), **one} for key, one in value.items())
    else:
        yield value
