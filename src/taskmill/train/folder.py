"""The folder of a training run: its lock, what it was started with, its log, and what comes out.

    OUT/  run.json  log.jsonl  checkpoints/  adapter/ (or model/)

`adapter/` appears under its name only when it is whole; its taskmill.json says what it belongs to.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from taskmill.config import difference
from taskmill.durable import atomic_write, sync_directory, write_point
from taskmill.errors import ConfigError, RunFolderError

__all__ = ["Log", "finished", "locked", "publish", "start"]


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the folder for one process. Raises RunFolderError if another one trains in it."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("ab") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunFolderError(
                f"{out} is in use by another training run; wait or choose another"
            ) from error
        yield


def start(out: Path, identity: Mapping[str, Any]) -> None:
    """Write what the run is, or hold it against what the folder was started with.

    Raises ConfigError naming every difference, and for results of unknown origin: nothing of another run
    is mixed with or written over.
    """
    path = out / "run.json"
    if not path.exists():
        foreign = [name for name in ("adapter", "model", "checkpoints") if (out / name).exists()]
        if foreign:
            raise ConfigError(f"{out} holds {foreign[0]}/ but no run.json; choose another out folder")
    if path.exists():
        old = json.loads(path.read_text("utf-8"))
        changed = difference(old, json.loads(json.dumps(identity)))
        if changed:
            lines = "\n  ".join(changed)
            raise ConfigError(f"{out} holds another training run:\n  {lines}\nChoose another out folder.")
    else:
        atomic_write(path, _json(identity))


def finished(folder: Path) -> dict[str, Any] | None:
    """Return the record of a finished adapter or model, None if there is none."""
    path = folder / "taskmill.json"
    if not path.exists():
        return None
    record: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return record


@contextmanager
def publish(folder: Path, record: Mapping[str, Any]) -> Iterator[Path]:
    """Give a folder to write into that takes its name `folder` when the block ends, the record in it."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    yield temporary
    weights = {file.name: _sha256(file) for file in sorted(temporary.glob("*.safetensors"))}
    (temporary / "taskmill.json").write_bytes(_json({**record, "weights": weights}))
    for file in temporary.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    sync_directory(temporary)
    write_point(f"{folder.name} written")
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    sync_directory(folder.parent)


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


class Log:
    """The run's log.jsonl: a line per step, of all sessions; what a killed session did in vain is cut."""

    def __init__(self, path: Path, step: int) -> None:
        """Open the log to go on after `step`."""
        self.lines = [line for line in _lines(path) if line["step"] <= step] if step else []
        atomic_write(path, b"".join(map(_line, self.lines)))
        self._path = path

    def add(self, **values: Any) -> None:
        """Append one line."""
        self.lines.append(values)
        with self._path.open("ab") as handle:
            handle.write(_line(values))


def _line(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values).encode() + b"\n"


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    for line in path.read_bytes().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return  # torn by a kill; steps after it are done again
