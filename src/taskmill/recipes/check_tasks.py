"""Tasks proposed elsewhere in, those that hold out: the filters of `grow propose`, also without the data."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from taskmill.durable import Replacing
from taskmill.errors import InputError
from taskmill.recipes.propose import gather
from taskmill.recipes.tables import begin_results, check_out, end_results, read_file
from taskmill.recipes.task_filters import Filters, decide, with_dataset
from taskmill.record import DatasetMeta, Dropped, FieldMeta, Reason, dropped_schema, to_table
from taskmill.store import write_parquet
from taskmill.synthesize.proposals import PROPOSAL_SCHEMA, Proposal, dropped, read_proposal, to_row
from taskmill.synthesize.salvage import LONGEST, salvage
from taskmill.synthesize.task_checks import check

__all__ = ["check_tasks", "holds_proposals", "hyphened", "read_tasks"]

COMMAND = "grow check"


def check_tasks(
    source: str, out: str | Path, filters: Filters, data: Sequence[str] = (), licence: str = ""
) -> dict[str, Any]:
    """Filter the proposals of a JSONL, JSON or Parquet file into the folder `out` and return the report.

    `out` gets proposals.jsonl, kept.parquet, dropped.parquet and report.json. Without `data`, fields are
    looked up only where a line declares them (`fields`), and nothing is asked of rows or licences. Raises
    InputError for a file that cannot be read.
    """
    path = Path(source)
    if not path.is_file():
        raise InputError(f"there is no file {source!r}; name a JSONL file of proposals")
    folder = check_out(out, [source] if path.suffix in (".jsonl", ".json") else [], COMMAND)
    metas, unread = gather(data, licence) if data else ({}, [])
    read = list(read_tasks(path))
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


def holds_proposals(path: Path) -> bool:
    """Say whether the first task of a JSON file names fields, as a proposal does and instruction data not."""
    first = next((_parsed(text) for _, text in _documents(path)[:1]), None)
    row = next(first, None) if first is not None else None
    return isinstance(row, Mapping) and {"instruction", "input_fields"} <= set(row)


def read_tasks(path: Path) -> Iterator[tuple[Proposal | Dropped, tuple[str, ...]]]:
    """Yield (proposal, declared fields) of each task in a file; a line may also be a model's whole reply.

    Raises InputError for a file that is no JSON, JSON Lines or Parquet.
    """
    if path.suffix == ".parquet":
        for row in read_file(str(path)).to_pylist():
            yield read_proposal(row), _declared(row)
        return
    documents = _documents(path)
    for number, text in documents:
        found = _parsed(text)
        if found is None:
            if len(documents) == 1 and len(text) > LONGEST:
                raise InputError(f"{path} is no whole JSON; mend the file, or write one task a line")
            tasks, torn = salvage(text)
            found = ({"task_name": key, **task} for key, task in tasks)
            if torn or not tasks:
                detail = f"line {number} is no whole JSON: {text.strip()[:80]!r}"
                yield dropped(Proposal(), Reason.PARSE, detail), ()
        for row in found:
            if isinstance(row, Mapping):
                yield read_proposal(row), _declared(row)
            else:
                detail = f"line {number} holds a {type(row).__name__}, not a task"
                yield dropped(Proposal(), Reason.SCHEMA, detail), ()


def _documents(path: Path) -> list[tuple[int, str]]:
    """Return (line, text) of each line with something on it, or the whole file where that is one value.

    What a file is called does not matter: JSON Lines are often called .json, and lists .jsonl.
    """
    if path.suffix in (".csv", ".tsv"):
        raise InputError(f"{path}: fields are lists, which a {path.suffix} file has not; write JSON Lines")
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: no UTF-8 text; write JSON Lines in UTF-8") from None
    # Not splitlines: a text in JSON may hold U+2028 and its like.
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    by_line = len(lines) < 2 or _parsed(lines[0][1]) is not None
    if by_line or (path.suffix != ".json" and _parsed(text) is None):
        return lines
    return [(lines[0][0], text)]


def _parsed(text: str) -> Iterator[Any] | None:
    """Return the tasks of a JSON value, None for what is no JSON."""
    try:
        return _tasks(json.loads(text))
    except (ValueError, RecursionError):
        return None


def _declared(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the fields that a line says its dataset has."""
    listed = row.get("fields")
    names = (one.get("name") if isinstance(one, Mapping) else one for one in listed or ())
    return tuple(str(name) for name in names) if isinstance(listed, list | tuple) else ()


def _replied(value: Mapping[str, Any]) -> Iterable[Any]:
    """Return what stands under the names of a reply (`task1`, `task2`, …); nothing of a task itself."""
    return () if "instruction" in value else value.values()


def _tasks(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        yield from value
    elif isinstance(value, Mapping) and any(isinstance(one, Mapping) for one in _replied(value)):
        for key, one in value.items():
            yield {"task_name": str(key), **one} if isinstance(one, Mapping) else one
    else:
        yield value
