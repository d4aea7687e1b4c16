"""A registry of datasets: versions that never change, each made of the last one by what is new or gone.

    REGISTRY/  .lock  versions/00000001/  versions/00000002/ …

A version is a run folder: `taskmill select`, `mix`, `train` and `export` read it as it is.

    00000002/  manifest.json           datasets → digest, rows, tasks, parts; what changed, and why
               datasets/HASH.json      what is known of one dataset: its metadata, tasks and drops
               1-grow/kept/part-HASH.parquet, 1-grow/dropped/part-HASH.parquet, 1-grow/stage.json

Files are named by their content and linked from version to version: adding a dataset writes its own files and
links the others, which stay the same bytes on the same place of the disk. So an old version may be removed
(`rm -r versions/00000001`) without harm to the others. A version is built under a temporary name and renamed
when all of it is on the disk: a crash leaves the old version or the new one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq

import taskmill
from taskmill.durable import atomic_write, sync_directory, write_point
from taskmill.errors import RunFolderError, UsageError
from taskmill.ids import content_id
from taskmill.record import EXAMPLE_SCHEMA
from taskmill.registry import nearest
from taskmill.store import Run, StageWriter, parts, read_json

__all__ = ["Draft", "Entry", "Registry", "Version", "difference"]

STAGE = "1-grow"
FOLDERS = (f"{STAGE}/kept", f"{STAGE}/dropped", "datasets")


@dataclass(frozen=True, slots=True)
class Entry:
    """One dataset of a version. `digest`: of its source; `made`: of the source and of how its tasks are made.

    `tasks`: task id → rows; `kept`, `dropped`: names of its part files; `record`: of its file of metadata.
    """

    digest: str
    made: str
    rows: int
    tasks: Mapping[str, int]
    kept: tuple[str, ...]
    dropped: tuple[str, ...]
    record: str
    licence: str = ""

    @classmethod
    def read(cls, mapping: Mapping[str, Any]) -> Entry:
        """Return the entry that a manifest holds."""
        return cls(**{**mapping, "kept": tuple(mapping["kept"]), "dropped": tuple(mapping["dropped"])})

    def written(self) -> dict[str, Any]:
        """Return what a manifest holds of it."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def files(self) -> list[str]:
        """Return its files, relative to the version's folder."""
        own = zip(FOLDERS, (self.kept, self.dropped, (self.record,)), strict=True)
        return [f"{folder}/{name}" for folder, names in own for name in names]


@dataclass(frozen=True)
class Version:
    """One version: its number, folder, datasets by name, and what it changed of the one before."""

    number: int
    folder: Path
    datasets: Mapping[str, Entry] = field(default_factory=dict)
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """The rows of all datasets."""
        return sum(entry.rows for entry in self.datasets.values())

    def kept(self, name: str) -> list[Path]:
        """Return the parts of a dataset's rows."""
        return [self.folder / STAGE / "kept" / part for part in self.datasets[name].kept]

    def record(self, name: str) -> dict[str, Any]:
        """Return what is known of a dataset: `meta`, `tasks`, `funnel`."""
        return read_json(self.folder / "datasets" / self.datasets[name].record)

    def named(self, wanted: str) -> list[str]:
        """Return the datasets of that name: one, or all configurations of `name` as `name:config`.

        Raises UsageError naming the nearest if there is none.
        """
        found = [name for name in self.datasets if name == wanted or name.partition(":")[0] == wanted]
        if not found:
            raise UsageError(
                f"version {self.number} has no dataset {wanted!r}.{nearest(wanted, self.datasets)} "
                "List them with: taskmill grow list"
            )
        return sorted(found)


@dataclass(frozen=True)
class Draft:
    """A dataset's new state, written by `Registry.writer` into a folder of its own until it is committed."""

    digest: str
    made: str
    tasks: Mapping[str, int]
    record: Mapping[str, Any]
    folder: Path
    licence: str = ""


class Registry:
    """The versions of a folder. Reading takes no lock; `changing` holds the folder for one process."""

    def __init__(self, path: str | Path) -> None:
        """Name the folder; nothing is read or made yet."""
        self.path = Path(path)
        self._versions = self.path / "versions"

    def numbers(self) -> list[int]:
        """Return the numbers of the versions that are there, oldest first."""
        found = self._versions.iterdir() if self._versions.is_dir() else []
        return sorted(int(p.name) for p in found if p.name.isdigit())

    def version(self, number: int | None = None) -> Version:
        """Return a version, the last one by default; version 0 is empty.

        Raises UsageError for one that is not there, RunFolderError for a damaged one.
        """
        there = self.numbers()
        if number is None:
            number = there[-1] if there else 0
        folder = self._versions / f"{number:08}"
        if not number:
            return Version(0, folder)
        if number not in there:
            known = ", ".join(map(str, there)) or "none yet"
            raise UsageError(f"{self.path} has no version {number}; there are: {known}")
        manifest = read_json(folder / "manifest.json")
        try:
            datasets = {name: Entry.read(entry) for name, entry in manifest["datasets"].items()}
            return Version(number, folder, datasets, manifest["changes"])
        except (KeyError, TypeError) as error:
            raise RunFolderError(f"{folder / 'manifest.json'} is no registry's version ({error})") from None

    def existing(self) -> Registry:
        """Return itself; raises UsageError if there is no registry."""
        if not self.numbers():
            raise UsageError(f"{self.path} is no registry; begin one with: taskmill grow add SOURCE")
        return self

    @contextmanager
    def changing(self) -> Iterator[Version]:
        """Hold the registry for this process and give its last version; clears what a kill left.

        Raises RunFolderError if another process changes it, or the folder is something else.
        """
        with Run(self.path):
            for left in (self._work, *self._versions.glob(".*.tmp")):
                shutil.rmtree(left, ignore_errors=True)
            yield self.version()
            shutil.rmtree(self._work, ignore_errors=True)

    @property
    def _work(self) -> Path:
        return self.path / ".work"

    def writer(self, name: str) -> StageWriter:
        """Return where a dataset's rows are written, kept and dropped; `commit` takes them from there."""
        folder = self._work / content_id(name)
        shutil.rmtree(folder, ignore_errors=True)
        return StageWriter(folder, EXAMPLE_SCHEMA, ["id"])

    def commit(self, parent: Version, changes: Mapping[str, Draft | None], why: Mapping[str, str]) -> Version:
        """Make the next version: `changes` are datasets' new states, None where one is taken out.

        `why`: the reason of each change, kept in the manifest. Without a change that alters anything the
        parent is returned. Call it within `changing`.
        """
        number = parent.number + 1
        folder = self._versions / f"{number:08}"
        building = folder.with_name(f".{folder.name}.tmp")
        for part in FOLDERS:
            (building / part).mkdir(parents=True)
        datasets = {name: entry for name, entry in parent.datasets.items() if name not in changes}
        for entry in datasets.values():
            for file in entry.files():
                _link(parent.folder / file, building / file)
        write_point("version linked")
        for name, draft in changes.items():
            if draft is not None:
                datasets[name] = _placed(draft, building)
        datasets = dict(sorted(datasets.items()))
        found = _changes(parent, Version(number, building, datasets), changes, why)
        if not found:
            shutil.rmtree(building)
            return parent
        _describe(building, number, datasets, found)
        for part in (*FOLDERS, STAGE, "."):
            sync_directory(building / part)
        write_point("version written")
        building.rename(folder)
        sync_directory(self._versions)
        write_point("version renamed")
        return Version(number, folder, datasets, found)


def _link(old: Path, new: Path) -> None:
    try:
        os.link(old, new)
    except FileExistsError:
        pass  # two datasets may share a record or a part; its name is its content
    except OSError:  # a file system without links; the bytes are the same
        shutil.copy2(old, new)


def _placed(draft: Draft, building: Path) -> Entry:
    """Move a draft's files to where their content names them, and return the dataset's entry."""
    names: dict[str, tuple[str, ...]] = {}
    rows = 0
    for kind in ("kept", "dropped"):
        own = []
        for part in parts(draft.folder / kind):
            count = pq.read_metadata(part).num_rows
            if not count:
                continue
            rows += count if kind == "kept" else 0
            with part.open("rb") as file:
                own.append(f"part-{hashlib.file_digest(file, 'sha256').hexdigest()[:32]}.parquet")
            part.replace(building / STAGE / kind / own[-1])
        names[kind] = tuple(sorted(own))
    text = _json(draft.record)
    record = f"{hashlib.sha256(text).hexdigest()[:32]}.json"
    atomic_write(building / "datasets" / record, text)
    return Entry(
        draft.digest, draft.made, rows, dict(sorted(draft.tasks.items())), names["kept"], names["dropped"],
        record, draft.licence,
    )  # fmt: skip


def _describe(building: Path, number: int, datasets: Mapping[str, Entry], changes: Mapping[str, Any]) -> None:
    """Write the marker of the stage and the manifest."""
    rows = sum(entry.rows for entry in datasets.values())
    digest = content_id(*(part for entry in datasets.values() for part in entry.kept))
    marker = {"key": digest, "digest": digest, "funnel": {"in": rows, "kept": rows, "dropped": {}}}
    atomic_write(building / STAGE / "stage.json", _json(marker))
    manifest = {
        "command": "grow",
        "status": "done",
        "taskmill": taskmill.__version__,
        "version": number,
        "digest": digest,
        "rows": rows,
        "tasks": sum(len(entry.tasks) for entry in datasets.values()),
        "changes": changes,
        "datasets": {name: entry.written() for name, entry in datasets.items()},
    }
    atomic_write(building / "manifest.json", _json(manifest))


def _json(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _changes(
    parent: Version, new: Version, changes: Mapping[str, Draft | None], why: Mapping[str, str]
) -> dict[str, Any]:
    found = {}
    for name in sorted(changes):
        line = _change(parent, new, name)
        if line is not None:
            found[name] = {**line, "why": why.get(name, "")}
    return found


def _change(old: Version, new: Version, name: str) -> dict[str, Any] | None:
    """Return how a dataset differs between two versions; None if it does not."""
    before, after = old.datasets.get(name), new.datasets.get(name)
    if before == after:
        return None
    kind = "added" if before is None else "removed" if after is None else "changed"
    ids = _ids(old, name), _ids(new, name)
    both = len(np.intersect1d(ids[0], ids[1], assume_unique=True))
    tasks = [set(entry.tasks) if entry else set() for entry in (before, after)]
    return {
        "change": kind,
        "rows": {"added": len(ids[1]) - both, "removed": len(ids[0]) - both, "same": both},
        "tasks": {"added": sorted(tasks[1] - tasks[0]), "removed": sorted(tasks[0] - tasks[1])},
    }


def _ids(version: Version, name: str) -> np.ndarray[Any, Any]:
    """Return the row ids of a dataset (bytes [rows])."""
    if name not in version.datasets:
        return np.zeros(0, "S32")
    columns = [pq.read_table(part, columns=["id"])["id"].to_numpy() for part in version.kept(name)]
    return np.concatenate(columns).astype("S32") if columns else np.zeros(0, "S32")


def difference(registry: Registry, old: int, new: int) -> dict[str, Any]:
    """Return what changed from version `old` to `new` (in either direction of time), dataset by dataset.

    The reasons are those of the versions in between: going back in time, of what is undone.
    """
    first, second = registry.version(old), registry.version(new)
    low, high = sorted((old, new))
    why: dict[str, list[str]] = {}
    for number in registry.numbers():
        if low < number <= high:
            for name, change in registry.version(number).changes.items():
                why.setdefault(name, []).append(change["why"])
    found = {}
    for name in sorted({*first.datasets, *second.datasets}):
        line = _change(first, second, name)
        if line is not None:
            found[name] = {**line, "why": "; ".join(dict.fromkeys(filter(None, why.get(name, []))))}
    totals = {
        f"{part} {kind}": sum(
            line[part][kind] if part == "rows" else len(line[part][kind]) for line in found.values()
        )
        for part in ("rows", "tasks")
        for kind in ("added", "removed")
    }
    return {"from": old, "to": new, **totals, "datasets": found}
