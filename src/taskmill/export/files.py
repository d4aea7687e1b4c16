"""Write the data files of an export: under temporary names, fsynced, renamed when all are complete."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from taskmill.durable import sync_directory, write_point
from taskmill.export.rows import Columns, to_batch

__all__ = ["SHARD_ROWS", "DataFiles", "clear_leftovers"]

SHARD_ROWS = 200_000
"""Rows in one Parquet file of a folder."""

_ROW_GROUP = 16_384
_PREFIX = ".taskmill-export-"


class _File:
    """A file that is being written beside its final place."""

    def __init__(self, final: Path) -> None:
        final.parent.mkdir(parents=True, exist_ok=True)
        self.final = final
        self.temporary = final.with_name(_PREFIX + final.name)
        self.handle: IO[bytes] = self.temporary.open("wb")

    def finish(self) -> None:
        self.handle.flush()
        os.fsync(self.handle.fileno())
        self.handle.close()

    def abandon(self) -> None:
        self.handle.close()
        self.temporary.unlink(missing_ok=True)

    def rename(self, final: Path) -> Path:
        self.temporary.replace(final)
        return final


class _ParquetFile(_File):
    def __init__(self, final: Path, schema: pa.Schema) -> None:
        super().__init__(final)
        self.rows = 0
        # Every setting that could change the bytes is fixed here.
        self._writer = pq.ParquetWriter(self.handle, schema, compression="zstd", version="2.6")

    def add(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch, row_group_size=_ROW_GROUP)
        self.rows += batch.num_rows

    def finish(self) -> None:
        self._writer.close()
        super().finish()

    def abandon(self) -> None:
        self._writer.close()
        super().abandon()


class DataFiles:
    """The data files of one split: `parquet` (in shards if `shards`) and `jsonl`, either may be None.

    Used as a context: what was not committed when the block ends is deleted.
    """

    def __init__(
        self,
        schema: pa.Schema,
        *,
        parquet: Path | None = None,
        jsonl: Path | None = None,
        shards: bool = False,
    ) -> None:
        self.rows = 0
        self._schema = schema
        self._parquet = parquet
        self._shards: list[_ParquetFile] = []
        self._limit = SHARD_ROWS if shards else 0
        self._lines = _File(jsonl) if jsonl else None
        if parquet:
            self._open_shard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files():
            file.abandon()

    def _files(self) -> list[_File]:
        return [*self._shards, *([self._lines] if self._lines else [])]

    def _open_shard(self) -> None:
        assert self._parquet is not None
        name = f"{self._parquet.stem}-{len(self._shards):05}.parquet"
        self._shards.append(_ParquetFile(self._parquet.with_name(name), self._schema))

    def add(self, columns: Columns) -> None:
        """Append rows, given as columns of equal length."""
        if self._lines:
            names = list(columns)
            rows = (dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True))
            self._lines.handle.writelines(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)
        self.rows += len(columns["id"])
        if self._shards:
            self._add_batch(to_batch(columns, self._schema))

    def _add_batch(self, batch: pa.RecordBatch) -> None:
        while batch.num_rows:
            if self._limit and self._shards[-1].rows == self._limit:
                self._shards[-1].finish()
                self._open_shard()
            room = self._limit - self._shards[-1].rows if self._limit else batch.num_rows
            self._shards[-1].add(batch.slice(0, room))
            batch = batch.slice(room)

    def finish(self) -> None:
        """Make what was written durable, still under the temporary names."""
        if self._shards:
            self._shards[-1].finish()
        if self._lines:
            self._lines.finish()

    def commit(self) -> list[Path]:
        """Rename the files into place and return them; a single shard takes the plain name."""
        write_point("export finished")
        placed = []
        count = len(self._shards)
        for i, shard in enumerate(self._shards):
            assert self._parquet is not None
            name = self._parquet.name if count == 1 else f"{self._parquet.stem}-{i:05}-of-{count:05}.parquet"
            placed.append(shard.rename(self._parquet.with_name(name)))
        if self._lines:
            placed.append(self._lines.rename(self._lines.final))
        self._shards, self._lines = [], None
        for folder in {path.parent for path in placed}:
            sync_directory(folder)
        write_point("export renamed")
        return placed


def clear_leftovers(folder: Path) -> None:
    """Delete temporary files that a killed export left, those of `atomic_write` included."""
    for path in [*folder.glob(_PREFIX + "*"), *folder.glob(f"data/{_PREFIX}*")]:
        path.unlink(missing_ok=True)
    for name in ("README.md", "dataset_info.json", "axolotl.yaml", "trl.yaml"):
        (folder / f".{name}.tmp").unlink(missing_ok=True)
