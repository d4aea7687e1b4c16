"""Read a run folder: its stages in order, their rows as Arrow batches, its manifest."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from taskmill.errors import RunFolderError
from taskmill.record import EXAMPLE_SCHEMA
from taskmill.store import parts, read_json

__all__ = ["Stage", "batches", "last_examples", "stages"]

_STAGE = re.compile(r"(\d+)-(\w[\w-]*)")


@dataclass(frozen=True, slots=True)
class Stage:
    """One numbered stage of a run."""

    number: int
    name: str
    folder: Path

    @property
    def kept(self) -> list[Path]:
        """The Parquet parts of the rows that went on."""
        return parts(self.folder / "kept")

    @property
    def dropped(self) -> list[Path]:
        """The Parquet parts of the rows that left, with their reasons."""
        return parts(self.folder / "dropped")

    @property
    def finished(self) -> bool:
        """Whether the stage wrote its done-marker."""
        return (self.folder / "stage.json").exists()

    @property
    def holds_examples(self) -> bool:
        """Whether the kept rows are Examples (and not Documents)."""
        kept = self.kept
        return bool(kept) and set(EXAMPLE_SCHEMA.names) <= set(pq.read_schema(kept[0]).names)


def stages(run: Path) -> list[Stage]:
    """Return the stages of a run in order; raises RunFolderError if there is no such run."""
    if not run.is_dir():
        raise RunFolderError(f"{run} is no run folder; give the folder that `taskmill run --out` wrote")
    found = [(match, path) for path in run.iterdir() if (match := _STAGE.fullmatch(path.name))]
    return sorted((Stage(int(m[1]), m[2], path) for m, path in found), key=lambda stage: stage.number)


def last_examples(run: Path) -> Stage:
    """Return the last stage that kept Examples; refuses a run that is being made or was broken off."""
    every = stages(run)
    holders = [stage for stage in every if stage.holds_examples]
    if not holders:
        raise RunFolderError(f"{run} holds no examples yet; run `taskmill run` into it to the end first")
    # An earlier stage that is made anew leaves later ones behind that do not follow from it.
    for stage in every:
        if not stage.finished:
            raise RunFolderError(
                f"stage {stage.folder.name} of {run} is unfinished; run the same command again to finish it"
            )
    status = read_json(run / "manifest.json").get("status")
    if status in ("running", "stopped"):
        raise RunFolderError(
            f"{run} is unfinished (its status is {status}); run the same command again to finish it"
        )
    return holders[-1]


def batches(
    files: Sequence[Path], columns: Sequence[str] | None = None, size: int = 2048
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of Parquet parts in order, a batch at a time; `columns` may name `struct.field`."""
    for path in files:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            yield from file.iter_batches(batch_size=size, columns=list(columns) if columns else None)
