"""Rendered rows on their way to the disk: in parts that a kill leaves whole, each with its counts.

A folder keeps its parts in `data/`. A single file is put together, when all are there, from parts in a hidden
folder beside it, which then goes.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from taskmill.durable import Replacing, atomic_write
from taskmill.export import is_single_file
from taskmill.recipes.data_card import rendered_card
from taskmill.recipes.data_folder import begin, finish, own_folder, part_names
from taskmill.recipes.pieces import Piecewise
from taskmill.recipes.tables import check_out, with_evidence
from taskmill.record import Reason
from taskmill.store import read_json, write_parquet

__all__ = ["PART", "Faults", "Parts", "counted", "dropped_rows", "out_of", "total"]

PART = 1 << 15
"""Rows of a part. Chosen: some hundred MB while they are made, with five exemplars of 500 words each."""

Faults = dict[int, tuple[Reason, str]]
"""Number of a row of the source → why it cannot be phrased."""

_COUNTS = ".counts"
_COUNTED = {
    "styles": "style", "templates": "template", "shots": "shots", "licences": "licence",
    "languages": "language", "categories": "cluster",
}  # fmt: skip
"""What the report counts by → the column it stands in."""


def out_of(out: str | Path, sources: Sequence[str], files: Sequence[str]) -> Path:
    """Return where rendered rows go; raises UsageError where they would destroy something else."""
    path = Path(out)
    if is_single_file(path):
        return check_out(path, sources, "render", file=True)
    return own_folder(path, files, "render")


class Parts:
    """The parts of a rendering to `out`, a file or a folder.

    `made_of`: what they follow from; parts that an earlier command made of the same stay. None: none stays.
    """

    def __init__(self, out: Path, schema: pa.Schema, rows: int, made_of: Any) -> None:
        self._out, self._schema, self._rows = out, schema, rows
        self._single = is_single_file(out)
        self._suffix = {".jsonl": ".jsonl", ".parquet": ".arrow"}.get(out.suffix, "") if self._single else ""
        self._folder = out.with_name(f".{out.name}.parts") if self._single else out
        begin(self._folder, "render", made_of and [made_of, PART, self._suffix], also=(_COUNTS,))
        names = part_names(-(-rows // PART), self._suffix or ".parquet")
        self._paths = [self._folder / "data" / name for name in names]
        if self._single:
            self._beside("report.json").unlink(missing_ok=True)

    def __iter__(self) -> Iterator[tuple[int, range]]:
        """Yield (number of a part, its places among the rows) of those that are not there yet."""
        for number, path in enumerate(self._paths):
            if not path.exists():
                yield number, range(number * PART, min((number + 1) * PART, self._rows))

    def write(self, number: int, table: pa.Table, counts: Mapping[str, Any]) -> None:
        """Write one part and, before it, its counts."""
        atomic_write(self._counts(number), json.dumps(counts, ensure_ascii=False).encode())
        path = self._paths[number]
        if not self._suffix:
            write_parquet(path, table)
            return
        with Replacing(path) as file:
            if self._suffix == ".jsonl":
                rows = table.to_pylist()
                file.writelines(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)
            else:
                options = pa.ipc.IpcWriteOptions(compression="lz4")
                with pa.ipc.new_file(file, table.schema, options=options) as writer:
                    writer.write_table(table)

    def counts(self) -> list[dict[str, Any]]:
        """Return the counts of all parts."""
        return [read_json(self._counts(number)) for number in range(len(self._paths))]

    def finish(self, report: Mapping[str, Any], dropped: pa.Table) -> None:
        """Write what is not written yet: the file, the dropped rows, the card, the report."""
        if not self._single:
            write_parquet(self._folder / "dropped.parquet", dropped)
            atomic_write(self._folder / "README.md", rendered_card(report).encode())
            shutil.rmtree(self._folder / _COUNTS, ignore_errors=True)
            finish(self._folder, report)
            return
        self._join()
        write_parquet(self._beside("dropped.parquet"), dropped)
        said = json.dumps(report, indent=1, ensure_ascii=False)
        atomic_write(self._beside("report.json"), said.encode())
        shutil.rmtree(self._folder)

    def _join(self) -> None:
        if self._suffix == ".jsonl":
            with Replacing(self._out) as whole:
                for path in self._paths:
                    with path.open("rb") as part:
                        shutil.copyfileobj(part, whole, 1 << 20)
            return
        with Piecewise(self._out, self._schema) as file:
            for path in self._paths:
                with pa.memory_map(str(path)) as part:
                    file.add(pa.ipc.open_file(part).read_all())

    def _counts(self, number: int) -> Path:
        return self._folder / _COUNTS / f"{number:05}.json"

    def _beside(self, what: str) -> Path:
        return self._out.with_suffix(f".{what}")


def counted(part: pa.Table, dropped: Faults, **more: int) -> dict[str, Any]:
    """Return what the report says of one part, with the rows that were dropped from it."""
    found: dict[str, Any] = {"kept": len(part), **more}
    for name, column in _COUNTED.items():
        values = part[column].value_counts().to_pylist()
        found[name] = {str(one["values"]): one["counts"] for one in values}
    return found | {"dropped": {str(row): [str(reason), detail] for row, (reason, detail) in dropped.items()}}


def total(parts: Sequence[Mapping[str, Any]], unfit: Mapping[int, tuple[Reason, str]]) -> dict[str, Any]:
    """Return the counts of all parts together; `dropped`: row → (reason, detail), with the `unfit` rows."""
    dropped: Faults = dict(unfit)
    for one in parts:
        dropped |= {int(row): (Reason(reason), detail) for row, (reason, detail) in one["dropped"].items()}
    found: dict[str, Any] = {"dropped": dict(sorted(dropped.items()))}
    for name in ("kept", "short", "tokens", "unknown"):
        found[name] = sum(one[name] for one in parts)
    for name in _COUNTED:
        counts: Counter[str] = Counter()
        for one in parts:
            counts.update(one[name])
        order = int if name == "shots" else str
        found[name] = {key: counts[key] for key in sorted(counts, key=order)}
    return found


def dropped_rows(table: pa.Table, dropped: Faults) -> pa.Table:
    """Return rows of the source that cannot be phrased, with the reasons; `dropped` is in the rows' order."""
    verdict = {
        "filter": pa.array(["render"] * len(dropped), pa.string()),
        "reason": pa.array([str(reason) for reason, _ in dropped.values()], pa.string()),
        "detail": pa.array([detail for _, detail in dropped.values()], pa.string()),
        "score": pa.nulls(len(dropped), pa.float64()),
    }
    return with_evidence(table.take(pa.array(list(dropped), pa.int64())), verdict)
