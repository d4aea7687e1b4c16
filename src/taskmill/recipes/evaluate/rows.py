"""The files of benchmarks → items and solved questions: a folder searched by name, a file, a Hub dataset."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskmill.errors import InputError, UsageError
from taskmill.ids import draw
from taskmill.ingest.records import read_records
from taskmill.recipes.evaluate.upstream import found_in, read_upstream
from taskmill.suites import Item, Suite
from taskmill.suites.base import Rows, Shot

__all__ = ["Bench", "load", "subset"]

_FOLDERS = ("", "benchmarks", "targets", "superni")
"""Where in a folder of data a benchmark's file may lie."""

_PUBLISHED = ("task*.json", "bbh/*.json", "xquad.*.json", "mgsm_*.tsv", "*_test.csv", "*_dev.csv", "*.txt")
"""Names of files in a benchmark's own layout, which is no table of rows with a header."""

_SUFFIXES = (".parquet", ".jsonl", ".json", ".csv", ".tsv", ".arrow", ".jsonl.gz", ".csv.gz")
"""Forms of a file, in the order they are looked for."""


@dataclass(frozen=True)
class Bench:
    """A suite with its rows: `files` they came from, `shots` solved questions by task, `whole` all items."""

    suite: Suite
    items: Sequence[Item]
    shots: Mapping[str, Sequence[Shot]]
    files: tuple[str, ...]
    whole: int

    def before(self, item: Item, k: int) -> list[Shot]:
        """Return the solved questions that stand before an item: at most `k`, none of its own passage."""
        own = self.shots.get(item.task, self.shots.get("", ()))
        return [shot for shot in own if not _alike(shot.fields, item.fields)][:k]


def _alike(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Say whether two items have a question or a passage in common."""
    names = ("question", "input", "context")
    return any(one.get(name) and one[name] == other.get(name) for name in names)


def load(
    suite: Suite, data: str, exemplars: str = "", *, limit: int = 0, seed: int = 0, split: str = "test",
    raw: bool = False,
) -> Bench:  # fmt: skip
    """Read a suite's rows and the rows its shots come from.

    `data`: a file, a folder, `hf:…` (its `split`), or "" for the folder in TASKMILL_DATA. `exemplars`: the
    file of the shots, by default the one beside the data; `raw` leaves faults of its text as they are. Raises
    UsageError if there is no data, InputError naming file, row and column for what is no such benchmark.
    """
    place = data or os.environ.get("TASKMILL_DATA", "")
    files = [place] if place.startswith("hf:") else _find(place, suite.files, suite.upstream)
    if not files:
        where = f"in {place}" if place else "; no --data is given"
        raise UsageError(
            f"suite {suite.name}: no {' or '.join(suite.files)} {where}; give its file or folder with --data"
        )
    rows = [row for file in files for row in _rows(file, split)]
    file = files[0] if len(files) == 1 else str(Path(files[0]).parent)
    if not rows:
        raise InputError(f"{file}: no rows in it; name the file of the benchmark")
    dev = [exemplars] if exemplars else _dev(suite, place, files[0])
    beside: Rows = [row for one in dev for row in _rows(one, "train")]
    if suite.mend is not None and not raw:
        beside = [suite.mend(row) for row in beside]
    items = suite.read(file, rows, beside)
    if not items:
        raise InputError(f"{file}: none of its {len(rows)} rows is a test item of {suite.name}")
    if not beside and "Instances" in rows[0]:  # upstream task files bring their own
        beside = rows
    if not beside and suite.lent:
        beside = rows
    shots = suite.shots(dev[0] if dev else file, beside, seed) if suite.shots and beside else {}
    return Bench(suite, subset(items, limit, seed), shots, (*files, *dev), len(items))


def subset(items: Sequence[Item], limit: int, seed: int) -> list[Item]:
    """Return at most `limit` items (0: all), drawn by the seed, as evenly over the tasks as they go."""
    ordered = sorted(items, key=lambda i: i.id)
    if not limit or len(items) <= limit:
        return ordered
    by_task: dict[str, list[Item]] = defaultdict(list)
    for item in sorted(ordered, key=lambda i: (draw(seed, i.id, "evaluation subset"), i.id)):
        by_task[item.task].append(item)
    rounds = max(map(len, by_task.values()))
    tasks = sorted(by_task, key=lambda task: (draw(seed, task, "evaluation subset"), task))
    turns = [by_task[task][r] for r in range(rounds) for task in tasks if r < len(by_task[task])]
    return sorted(turns[:limit], key=lambda i: i.id)


def _find(place: str, names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Return the file that `place` is, or the first in it that has one of the names or fits a pattern.

    Raises InputError if the place is not there.
    """
    if not place:
        return []
    path = Path(place)
    if path.is_file():
        return [place]
    if not path.exists():
        raise InputError(f"{place}: no such file or folder; give the benchmark with --data")
    stems = [name.removesuffix(".parquet") for name in names]
    found = (path / folder / (stem + end) for stem in stems for folder in _FOLDERS for end in _SUFFIXES)
    own = next((str(one) for one in found if one.is_file()), "")
    return [own] if own else [str(one) for one in found_in(path, patterns)]


def _dev(suite: Suite, place: str, file: str) -> list[str]:
    """Return the files of the solved questions: in the folder of the data, or beside its file."""
    if place.startswith("hf:") or not suite.dev:
        return []
    beside = Path(file).parent
    folders = [Path(place)] if Path(place).is_dir() else []
    found = (_find(str(one), suite.dev, suite.dev_upstream) for one in (*folders, beside, beside.parent))
    return next((files for files in found if files), [])


def _rows(file: str, split: str) -> list[Mapping[str, Any]]:
    path = Path(file)
    if any(path.match(pattern) for pattern in _PUBLISHED):
        return list(read_upstream(path))
    try:
        return list(read_records(file, split))
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 ({error.reason} at byte {error.start}); convert it") from None
