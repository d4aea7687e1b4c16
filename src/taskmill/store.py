"""A run folder: numbered stages with `kept/` and `dropped/` Parquet parts, a manifest, done-markers.

    RUN/  config.yaml  manifest.json  .lock
          1-ingest/  kept/part-00000.parquet …  dropped/part-00000.parquet …  stage.json

Everything durable is written to a temporary name, fsynced and renamed. `stage.json` is written last:
a stage without it is unfinished and is made again (its model calls are in the ledger). Rows leave a
stage sorted by id. Beyond `SPILL_BYTES` of text they are sorted out of core in 64 id-range buckets,
so memory does not grow with the row count.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from taskmill.durable import Replacing, atomic_write, write_point
from taskmill.errors import RunFolderError
from taskmill.record import Dropped, dropped_schema, to_table

__all__ = [
    "Run",
    "SortedParts",
    "StageWriter",
    "code_version",
    "parts",
]

SPILL_BYTES = 16 << 20
"""Text held in memory by one writer before it sorts out of core (chosen: sorting needs four times that)."""

BUCKETS = 64
"""Id ranges of the out-of-core sort: 1M rows of 1 kB make 16 MB buckets, 100M rows 1.6 GB ones."""

ROW_GROUP = 8192
_BUFFER_ROWS = 2048


@cache
def code_version() -> str:
    """Return a hash of the package's own code and words: a stage made by other code is made again."""
    import taskmill

    digest = hashlib.blake2b(digest_size=8)
    root = Path(taskmill.__file__).parent
    for path in sorted([*root.rglob("*.py"), *root.rglob("*.yaml")]):
        digest.update(str(path.relative_to(root)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def parts(folder: Path) -> list[Path]:
    """Return the Parquet parts of a `kept` or `dropped` folder in row order."""
    return sorted(folder.glob("part-*.parquet"))


class SortedParts:
    """Writes rows of one schema into `folder` as Parquet parts sorted by `keys`, in bounded memory.

    `keys` are column paths such as `source.uri`; the first is the id, a lower-case hex string.
    """

    def __init__(self, folder: Path, schema: pa.Schema, keys: Sequence[str]) -> None:
        self.folder = folder
        self.schema = schema
        self.keys = keys
        self.rows = 0
        self._pending: list[Any] = []
        self._tables: list[pa.Table] = []
        self._bytes = 0
        self._spills: list[pa.ipc.RecordBatchStreamWriter] = []
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, rows: Sequence[Any]) -> None:
        """Take records (dataclasses of the schema)."""
        self._pending.extend(rows)
        if len(self._pending) >= _BUFFER_ROWS:
            self._flush()

    def add_table(self, table: pa.Table) -> None:
        """Take an Arrow table of the schema."""
        self.rows += table.num_rows
        self._tables.append(table)
        self._bytes += _text_bytes(table)
        if self._bytes > SPILL_BYTES:
            self._spill()

    def _flush(self) -> None:
        if self._pending:
            table = to_table(self._pending, self.schema)
            self._pending = []
            self.add_table(table)

    def _sorted(self, table: pa.Table) -> pa.Table:
        columns = {str(i): _column(table, key) for i, key in enumerate(self.keys)}
        order = pc.sort_indices(pa.table(columns), sort_keys=[(name, "ascending") for name in columns])
        return table.take(order)

    def _spill_path(self, bucket: int) -> Path:
        return self.folder / f".spill-{bucket:02}.arrow"

    def _spill(self) -> None:
        """Move what is in memory into the bucket files, each holding one range of ids."""
        if not self._spills:
            write_point("spill")
            paths = [str(self._spill_path(b)) for b in range(BUCKETS)]
            self._spills = [pa.ipc.new_stream(pa.OSFile(p, "wb"), self.schema) for p in paths]
        table = pa.concat_tables(self._tables).combine_chunks()
        self._tables, self._bytes = [], 0
        first = pc.utf8_slice_codeunits(_column(table, self.keys[0]), 0, 2)
        bucket = pa.array([int(h, 16) * BUCKETS // 256 for h in first.to_pylist()], pa.int32())
        table = table.take(pc.sort_indices(bucket))
        counts = Counter(bucket.to_pylist())
        start = 0
        for b in range(BUCKETS):
            self._spills[b].write_table(table.slice(start, counts[b]))
            start += counts[b]

    def finish(self, transform: Callable[[pa.Table], pa.Table] | None = None) -> int:
        """Write the parts and return the number of rows written.

        `transform` sees each sorted part before it is written (rows of equal id are in one part) and
        returns the rows to write.
        """
        self._flush()
        written = 0
        for i, table in enumerate(self._buckets()):
            ordered = self._sorted(table)
            if transform is not None:
                ordered = transform(ordered)
            written += ordered.num_rows
            write_parquet(self.folder / f"part-{i:05}.parquet", ordered)
        return written

    def _buckets(self) -> Iterator[pa.Table]:
        if not self._spills:
            yield pa.concat_tables(self._tables) if self._tables else self.schema.empty_table()
            self._tables = []
            return
        if self._tables:
            self._spill()
        for writer in self._spills:
            writer.close()
        for b in range(BUCKETS):
            with pa.OSFile(str(self._spill_path(b))) as file:
                yield pa.ipc.open_stream(file).read_all()
            self._spill_path(b).unlink()


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write one part atomically, with settings that depend on nothing but the rows."""
    with Replacing(path) as file:
        pq.write_table(table.combine_chunks(), file, compression="zstd", row_group_size=ROW_GROUP)


def _column(table: pa.Table, path: str) -> pa.ChunkedArray:
    head, *rest = path.split(".")
    column = table[head]
    for name in rest:
        column = pc.struct_field(column, name)
    return column


def _text_bytes(table: pa.Table) -> int:
    """Return the bytes of the string columns: a size that batch boundaries do not change."""
    strings = [c for c in table.columns if pa.types.is_string(c.type)]
    return sum(pc.sum(pc.binary_length(c)).as_py() or 0 for c in strings)


class StageWriter:
    """Writes one stage: kept and dropped rows with their counts; asserts that nothing vanished."""

    def __init__(self, folder: Path, schema: pa.Schema, keys: Sequence[str]) -> None:
        self.folder = folder
        self.kept = SortedParts(folder / "kept", schema, keys)
        self.dropped = SortedParts(folder / "dropped", dropped_schema(schema), [*keys, "reason", "detail"])
        self.counted = 0
        self.reasons: Counter[str] = Counter()

    def keep(self, rows: Sequence[Any]) -> None:
        """Take kept records."""
        self.kept.add(rows)

    def drop(self, rows: Sequence[Dropped]) -> None:
        """Take dropped records with their reasons."""
        self.dropped.add(rows)
        self.reasons.update(str(r.reason) for r in rows)

    def drop_table(self, table: pa.Table) -> None:
        """Take dropped rows as a table of the dropped schema."""
        self.dropped.add_table(table)
        self.reasons.update(table["reason"].to_pylist())

    def count(self, rows: int) -> None:
        """Say that `rows` rows came in; `finish` holds kept + dropped against the sum."""
        self.counted += rows

    def finish(
        self, key: str, transform: Callable[[pa.Table], pa.Table] | None = None, **extra: Any
    ) -> dict[str, Any]:
        """Write the parts, then the done-marker, and return the marker.

        Its `digest` names the kept rows: what follows is made again only when they differ.

        Raises RunFolderError if kept + dropped differs from what came in: a bug, never a normal end.
        """
        kept = self.kept.finish(transform)
        dropped = self.dropped.finish()
        if kept + dropped != self.counted or dropped != sum(self.reasons.values()):
            raise RunFolderError(
                f"{self.folder.name}: {self.counted} rows came in but {kept} were kept and {dropped} dropped"
            )
        funnel = {"in": self.counted, "kept": kept, "dropped": dict(sorted(self.reasons.items()))}
        digest = hashlib.blake2b(digest_size=16)
        for path in parts(self.folder / "kept"):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "blake2b").digest())
        marker = {"key": key, "digest": digest.hexdigest(), "funnel": funnel, **extra}
        atomic_write(self.folder / "stage.json", json.dumps(marker, indent=1, sort_keys=True).encode())
        return marker


class Run:
    """An open run folder, locked against a second process until closed.

    `id` names the run in ledgers; it is drawn once and kept in the lock file.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the folder; raises RunFolderError if another process holds it or it is foreign."""
        self.path = path
        if path.exists() and not path.is_dir():
            raise RunFolderError(f"{path} is a file; choose another --out")
        if path.is_dir() and any(path.iterdir()) and not (path / ".lock").exists():
            raise RunFolderError(f"{path} holds files but is no run folder; choose an empty or new --out")
        path.mkdir(parents=True, exist_ok=True)
        self._lock = (path / ".lock").open("a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise RunFolderError(
                f"{path} is in use by another taskmill process; wait for it or choose another --out"
            ) from None

        self._lock.seek(0)
        self.id = self._lock.read().strip()
        if not self.id:
            self.id = uuid4().hex[:16]
            self._lock.write(self.id)
            self._lock.flush()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the folder free."""
        self._lock.close()

    def stage(self, number: int, name: str) -> Path:
        """Return the folder of a stage."""
        return self.path / f"{number}-{name}"

    def finished(self, folder: Path, key: str) -> dict[str, Any] | None:
        """Return the done-marker of a stage made from the same inputs, configuration and code."""
        marker = read_json(folder / "stage.json")
        return marker if marker.get("key") == key else None

    def begin(self, folder: Path) -> None:
        """Clear what an unfinished or outdated stage left; its marker and those of later stages go first."""
        write_point(f"begin {folder.name}")
        for stage in sorted(self.path.glob("[0-9]*-*"), reverse=True):
            if _number(stage) >= _number(folder):
                (stage / "stage.json").unlink(missing_ok=True)
        write_point(f"cleared {folder.name}")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)

    def discard(self, number: int, name: str) -> None:
        """Remove a stage that the configuration no longer has."""
        folder = self.stage(number, name)
        (folder / "stage.json").unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Replace manifest.json."""
        data = json.dumps(manifest, indent=1, ensure_ascii=False, default=str)
        atomic_write(self.path / "manifest.json", data.encode())

    def manifest(self) -> dict[str, Any]:
        """Return the manifest, empty if none was written yet."""
        return read_json(self.path / "manifest.json")


def _number(stage: Path) -> int:
    return int(stage.name.partition("-")[0])


def write_json(path: Path, value: Any) -> None:
    """Write a value as a JSON file that people can read, whole or not at all."""
    atomic_write(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object from a file, empty if it is absent; raises RunFolderError if damaged."""
    try:
        loaded: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise RunFolderError(f"{path} is damaged ({error}); delete it and run the same command") from None
    return loaded
