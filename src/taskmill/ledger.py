"""Every model call ever paid for, by key. Append-only; survives kill -9 at any moment.

A ledger is a folder (local, or any fsspec URL) of segment files, one or more per session, so that
several processes may write one ledger at once. A record is one line:

    key(32 hex) TAB crc32(8 hex) TAB run TAB prompt tokens TAB completion tokens TAB {"text", "finish"} LF

A line whose end or checksum is missing (a torn write) counts as not there; its call is made again.
A failed call is recorded with finish "error": it counts as spent and is no answer. On a local disk a
record is written as soon as its completion arrives (a killed process loses none) and fsynced at least
every `SYNC_SECONDS` (a power cut loses at most that). For a remote ledger the same holds of the `outbox`
on the local disk, from where segments are uploaded whole every `REMOTE_SECONDS`, because object stores
cannot append; what a killed session left there the next one uploads.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO
from uuid import uuid4

import numpy as np
import orjson

from taskmill.calls import Completion
from taskmill.durable import cache_folder, sync_directory, write_point
from taskmill.errors import LedgerError
from taskmill.ids import content_id

__all__ = ["Ledger"]

SYNC_SECONDS = 0.25
"""Longest time a local record waits for its fsync (chosen: 4 fsyncs/s cost under 1 % of a run)."""

REMOTE_SECONDS = 5.0
"""Longest time a record waits for its upload to a remote ledger (chosen)."""

ATTEMPTS = 4
"""Tries of one upload, with pauses of 0.5, 1 and 2 s between them (chosen: a store's short hiccup)."""

_FAILED = b'"finish":"error"}'
_PLACE = np.dtype([("segment", np.uint32), ("offset", np.int64), ("length", np.uint32)])
_MERGE = 1 << 15
"""New records looked up in a dict before they join the sorted index."""


class Ledger:
    """The record of paid calls. `spent_calls`, `spent_prompt`, `spent_completion` are this run's totals."""

    def __init__(self, location: str | Path, run: str, *, outbox: Path | None = None) -> None:
        """Open or create the ledger at `location`; `run` names whose spending new records are.

        `outbox` is where a remote ledger's new segments wait for their upload (default: a folder of
        the user's cache). Raises LedgerError if the folder cannot be read or written.
        """
        self.run = run
        self.spent_calls = self.spent_prompt = self.spent_completion = 0
        self.torn = 0
        self._remote: _Remote | None = None
        url = str(location)
        self.folder = Path(url)
        if "://" in url:
            self._remote = _Remote(url)
            self.folder = outbox or cache_folder() / "outbox" / content_id(url)
        self._fds: list[int] = []
        self._paths: list[Path] = []
        self._hashes = np.empty(0, np.uint64)
        self._places = np.empty(0, _PLACE)
        self._recent: dict[str, tuple[int, int, int]] = {}
        self._out: IO[bytes] | None = None
        self._synced = time.monotonic()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            left = sorted(self.folder.glob("*.ledger"))
            for path in [*left, *(self._remote.fetch() if self._remote else [])]:
                self._load(path)
        except OSError as error:
            raise LedgerError(f"cannot open the ledger {url}: {error}") from error
        self._merge()
        self._waiting = left if self._remote else []
        self._upload()

    def __len__(self) -> int:
        return len(self._hashes) + len(self._recent)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # reading

    def _load(self, path: Path) -> None:
        segment = self._open(path)
        offset = 0
        with path.open("rb", buffering=1 << 20) as file:
            for line in file:
                self._index(line, segment, offset)
                offset += len(line)
                if len(self._recent) >= _MERGE:
                    self._merge()

    def _open(self, path: Path) -> int:
        self._paths.append(path)
        self._fds.append(os.open(path, os.O_RDONLY))
        return len(self._fds) - 1

    def _index(self, line: bytes, segment: int, offset: int) -> None:
        fields = _verified(line)
        if fields is None:
            self.torn += 1
            return
        key, run, prompt, completion, body = fields
        if run == self.run:
            self._spend(prompt, completion)
        if body.endswith(_FAILED):
            return
        self._recent[key] = (segment, offset, len(line))

    def _spend(self, prompt: int, completion: int) -> None:
        self.spent_calls += 1
        self.spent_prompt += prompt
        self.spent_completion += completion

    def _merge(self) -> None:
        """Move the recent records into the sorted arrays: 24 bytes a record instead of about 250."""
        if not self._recent:
            return
        hashes = np.array([int(k[:16], 16) for k in self._recent], np.uint64)
        places = np.array(list(self._recent.values()), _PLACE)
        hashes = np.concatenate([self._hashes, hashes])
        places = np.concatenate([self._places, places])
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._places = hashes[order], places[order]
        self._recent = {}

    def get(self, key: str) -> Completion | None:
        """Return the recorded completion for a key, or None."""
        place = self._recent.get(key)
        if place is not None:
            return self._read(key, *place)
        if not len(self._hashes):
            return None
        wanted = np.uint64(int(key[:16], 16))
        i = int(np.searchsorted(self._hashes, wanted))
        while i < len(self._hashes) and self._hashes[i] == wanted:
            segment, offset, length = self._places[i].item()
            found = self._read(key, segment, offset, length)
            if found is not None:
                return found
            i += 1  # another key that shares the first 64 bits
        return None

    def _read(self, key: str, segment: int, offset: int, length: int) -> Completion | None:
        fields = _verified(os.pread(self._fds[segment], length, offset))
        if fields is None or fields[0] != key:
            return None
        _, _, prompt, completion, body = fields
        answer = orjson.loads(body)
        return Completion(key, answer["text"], answer["finish"], prompt, completion)

    # writing

    def append(self, completions: Sequence[Completion]) -> None:
        """Record finished calls; failed ones (finish "error") count as spent and are asked again.

        Raises LedgerError when the disk is full; the file then ends at its last whole record.
        """
        if not completions:
            return
        lines = [_line(c, self.run) for c in completions]
        file = self._segment()
        segment, offset = len(self._fds) - 1, file.tell()
        try:
            write_point("ledger append")
            file.write(b"".join(lines))
            file.flush()
        except OSError as error:
            self._undo(file, offset)
            raise LedgerError(
                f"cannot write the ledger {self.folder} ({error}); make room and run the same command again"
            ) from error
        write_point("ledger appended")
        for completion, line in zip(completions, lines, strict=True):
            if completion.finish != "error":
                self._recent[completion.key] = (segment, offset, len(line))
            self._spend(completion.prompt_tokens, completion.completion_tokens)
            offset += len(line)
        if len(self._recent) >= _MERGE:
            self._merge()
        limit = REMOTE_SECONDS if self._remote else SYNC_SECONDS
        if time.monotonic() - self._synced > limit:
            self.sync()

    def _undo(self, file: IO[bytes], offset: int) -> None:
        """Cut a half-written record off; the file is left closed, a later append opens another."""
        self._out = None
        os.ftruncate(file.fileno(), offset)
        try:
            file.close()
        except OSError:
            # The buffer still holds the bytes that did not fit; closing tries them once more.
            os.truncate(file.name, offset)

    def _segment(self) -> IO[bytes]:
        if self._out is None:
            # Time orders segments for people, the random part tells sessions of one moment apart.
            stem = f"{time.time_ns() // 1_000_000:013}-{uuid4().hex[:12]}"
            path = self.folder / f"{stem}.ledger"
            try:
                write_point("ledger create")
                self._out = path.open("xb", buffering=1 << 20)
                sync_directory(self.folder)
            except OSError as error:
                raise LedgerError(f"cannot write the ledger {self.folder}: {error}") from error
            self._open(path)
        return self._out

    def sync(self) -> None:
        """Make all records durable now: fsync, and upload if the ledger is remote."""
        if self._out is None:
            return
        self._out.flush()
        os.fsync(self._out.fileno())
        write_point("ledger sync")
        self._synced = time.monotonic()
        if self._remote:
            self._waiting.append(Path(self._out.name))
            self._out.close()
            self._out = None
            self._upload()

    def _upload(self) -> None:
        """Send what waits in the outbox; a segment leaves it only once it is on the other side."""
        while self._remote and self._waiting:
            self._remote.put(self._waiting[0])
            self._waiting.pop(0).unlink()

    def close(self) -> None:
        """Make all records durable and release the files."""
        try:
            self.sync()
            self._upload()
        finally:
            if self._out is not None:
                self._out.close()
                self._out = None
            for descriptor in self._fds:
                os.close(descriptor)
            self._fds = []
            if self._remote:
                self._remote.close()

    def records(self) -> Iterator[tuple[str, str, Completion]]:
        """Yield (key, run, completion) of every whole record, failed calls included."""
        for path in self._paths:
            with path.open("rb") as file:
                for line in file:
                    fields = _verified(line)
                    if fields is not None:
                        key, run, prompt, completion, body = fields
                        answer = orjson.loads(body)
                        yield key, run, Completion(key, answer["text"], answer["finish"], prompt, completion)


def _line(c: Completion, run: str) -> bytes:
    body = orjson.dumps({"text": c.text, "finish": c.finish})
    tail = b"%b\t%d\t%d\t%b" % (run.encode(), c.prompt_tokens, c.completion_tokens, body)
    return b"%b\t%08x\t%b\n" % (c.key.encode(), zlib.crc32(c.key.encode() + tail), tail)


def _verified(line: bytes) -> tuple[str, str, int, int, bytes] | None:
    """Return (key, run, prompt tokens, completion tokens, JSON) of a whole record, else None."""
    if line[-1:] != b"\n" or line[32:33] != b"\t" or line[41:42] != b"\t":
        return None
    tail = line[42:-1]
    if b"%08x" % zlib.crc32(line[:32] + tail) != line[33:41]:
        return None
    run, prompt, completion, body = tail.split(b"\t", 3)
    return line[:32].decode(), run.decode(), int(prompt), int(completion), body


class _Remote:
    """A ledger on an fsspec URL: segments are fetched once to a temporary folder, new ones uploaded whole."""

    def __init__(self, url: str) -> None:
        import fsspec

        try:
            self.fs, self.path = fsspec.core.url_to_fs(url)
            self.fs.makedirs(self.path, exist_ok=True)
        except Exception as error:
            # fsspec implementations raise their own kinds: network, credentials, missing package.
            raise LedgerError(f"cannot open the ledger {url}: {error}") from error
        self.copies = Path(tempfile.mkdtemp(prefix="taskmill-ledger-"))

    def fetch(self) -> list[Path]:
        for name in sorted(self.fs.ls(self.path, detail=False)):
            if name.endswith(".ledger"):
                self.fs.get_file(name, str(self.copies / name.rsplit("/", 1)[-1]))
        return sorted(self.copies.iterdir())

    def put(self, path: Path) -> None:
        for attempt in range(ATTEMPTS):
            write_point("ledger upload")
            try:
                self.fs.put_file(str(path), f"{self.path}/{path.name}")
            except Exception as error:
                if attempt + 1 < ATTEMPTS:
                    time.sleep(0.5 * 2**attempt)
                    continue
                raise LedgerError(
                    f"cannot upload to the ledger {self.path} ({error}); the records are safe in "
                    f"{path.parent} and the same command uploads them"
                ) from error
            write_point("ledger uploaded")
            return

    def close(self) -> None:
        shutil.rmtree(self.copies, ignore_errors=True)
