"""Writes that a crash cannot halve: temporary name, fsync, rename; and the hook that proves it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO

__all__ = ["Replacing", "atomic_write", "cache_folder", "on_write", "sync_directory", "write_point"]

_hook: Callable[[str], None] | None = None


def cache_folder() -> Path:
    """Return where things are kept that can be made again: $TASKMILL_CACHE_DIR, else the user's cache."""
    own = os.environ.get("TASKMILL_CACHE_DIR")
    return Path(own or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "taskmill").expanduser()


def on_write(hook: Callable[[str], None] | None) -> None:
    """Call `hook(name)` at every durable write point of the process; for fault tests (None removes it)."""
    global _hook
    _hook = hook


def write_point(name: str) -> None:
    """Mark a place where a crash would matter. Does nothing unless a test installed a hook."""
    if _hook is not None:
        _hook(name)


def atomic_write(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a crash leaves the old content or the new, never a part."""
    with Replacing(path) as file:
        file.write(data)


class Replacing:
    """A file that takes its place under `path` when the block ends without an error."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.temporary = path.with_name(f".{path.name}.tmp")

    def __enter__(self) -> IO[bytes]:
        write_point(f"open {self.path.name}")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = self.temporary.open("wb")
        return self.file

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.file.close()
            self.temporary.unlink(missing_ok=True)
            return
        try:
            write_point(f"write {self.path.name}")
            self.file.flush()
            os.fsync(self.file.fileno())
        finally:
            self.file.close()
        write_point(f"sync {self.path.name}")
        self.temporary.replace(self.path)
        sync_directory(self.path.parent)
        write_point(f"rename {self.path.name}")


def sync_directory(path: Path) -> None:
    """Make a rename or a new file in `path` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
