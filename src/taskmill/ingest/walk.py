"""Find the files a source names: one file, a folder, or an fsspec URL of either; always in the same order.

Hidden files and folders (a leading dot) are passed over. A link to a file is read if it stays in the folder.
A link to a folder is never followed: inside the source its files are met anyway, outside nobody asked.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import stat
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, BinaryIO, NamedTuple, cast

from taskmill.errors import InputError
from taskmill.ingest.config import IngestConfig
from taskmill.ingest.reader import MEGABYTE, READERS, Fault, FaultError, SourceFile
from taskmill.record import Reason
from taskmill.registry import nearest

__all__ = ["Skipped", "check_source", "find_files"]

_MOST_EXPANSION = 100  # no text compresses further; a bomb does


class Skipped(NamedTuple):
    """A file that was found and is not read."""

    uri: str
    fault: Fault


def check_source(source: str) -> None:
    """Raise InputError if a local source does not exist or its folder cannot be listed."""
    path = _local(source)
    if path is None:
        return
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            os.scandir(path).close()
    except FileNotFoundError:
        parent, name = os.path.split(os.path.normpath(path))
        siblings = os.listdir(parent or ".") if os.path.isdir(parent or ".") else []
        hint = nearest(name, siblings) or " Check the path."
        raise InputError(f"there is no file or folder {source!r}.{hint}") from None
    except OSError as error:
        raise InputError(f"{source!r} cannot be opened ({error.strerror}); check its permissions") from None


def find_files(source: str, config: IngestConfig) -> Iterator[SourceFile | Skipped]:
    """Yield the files of a source, folders sorted by relative path; raises InputError for a bad URL."""
    path = _local(source)
    if path is None:
        name = _public(source)
        found = _remote(source, config)
    elif os.path.isdir(path):
        root = os.path.realpath(path)
        name = os.path.basename(os.path.normpath(path))
        name = os.path.basename(root) if name in ("", ".", "..") else name
        found = _folder(root, root, name, _matcher(config.glob))
    else:
        name = os.path.basename(path) if os.path.isabs(path) else path.replace(os.sep, "/")
        found = iter((_local_file(path, name),))
    suffixes = READERS.names()
    empty = True
    for file in found:
        empty = False
        yield file if isinstance(file, Skipped) or file.suffix in suffixes else _unsupported(file, suffixes)
    if empty:
        matching = f" that match {config.glob!r}" if config.glob else ""
        detail = f"no files{matching} here; hidden ones are not read"
        yield Skipped(_printable(name), Fault(Reason.EMPTY, detail))


def _unsupported(file: SourceFile, suffixes: list[str]) -> Skipped:
    kind = file.suffix or "files without a suffix"
    detail = f"no reader for {kind}; there are {' '.join(suffixes)}, and .gz of these"
    return Skipped(file.uri, Fault(Reason.UNREADABLE, detail))


def _local(source: str) -> str | None:
    if source.startswith("file://"):
        return source.removeprefix("file://")
    return None if "://" in source else source


def _printable(name: str) -> str:
    """Replace what a file name holds besides Unicode, so that records can be written."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _folder(
    folder: str, root: str, uri: str, wanted: Callable[[str], bool]
) -> Iterator[SourceFile | Skipped]:
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        detail = f"the folder cannot be listed ({error.strerror}); check its permissions"
        yield Skipped(_printable(uri), Fault(Reason.UNREADABLE, detail))
        return
    for entry in found:
        name = f"{uri}/{entry.name}"
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _folder(entry.path, root, name, wanted)
        elif wanted(os.path.relpath(entry.path, root).replace(os.sep, "/")):
            fault = _bad_link(entry, root) if entry.is_symlink() else None
            yield Skipped(_printable(name), fault) if fault else _local_file(entry.path, name)


def _bad_link(entry: os.DirEntry[str], root: str) -> Fault | None:
    try:
        target = os.path.realpath(entry.path, strict=True)
        is_folder = os.path.isdir(target)
    except OSError:
        return Fault(Reason.UNREADABLE, "a link that is broken or leads back to itself; remove it")
    if os.path.commonpath([root, target]) != root:
        return Fault(
            Reason.OUTSIDE_ROOT, "a link that leaves the folder; name its target as a source of its own"
        )
    if is_folder:
        return Fault(Reason.UNREADABLE, "a link to a folder of the same source, where its files are read")
    return None


def _local_file(path: str, uri: str) -> SourceFile | Skipped:
    uri = _printable(uri)
    try:
        status = os.stat(path)
    except OSError as error:
        return Skipped(uri, Fault(Reason.UNREADABLE, f"cannot be opened ({error.strerror})"))
    if not stat.S_ISREG(status.st_mode):
        detail = "not a regular file (a pipe, socket or device); pipe it in and name the source '-'"
        return Skipped(uri, Fault(Reason.UNREADABLE, detail))
    return _source_file(uri, path, status.st_size, partial(_open, path))


def _open(path: str) -> BinaryIO:
    return open(path, "rb")


def _source_file(uri: str, path: str, size: int, opener: Callable[[], BinaryIO]) -> SourceFile:
    base, suffix = os.path.splitext(path.lower())
    if suffix != ".gz":
        return SourceFile(uri, suffix, size, opener)
    return SourceFile(uri, os.path.splitext(base)[1], -1, partial(_unpacked, opener, size))


class _Bounded(io.RawIOBase):
    """A stream that refuses to give more than `limit` bytes."""

    def __init__(self, stream: BinaryIO, limit: int) -> None:
        self._stream = stream
        self._left = limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise FaultError(Reason.TOO_LARGE, "unpacks to far more than text can; unpack it and look at it")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _unpacked(opener: Callable[[], BinaryIO], size: int) -> BinaryIO:
    stream = cast(BinaryIO, gzip.GzipFile(fileobj=opener()))
    return cast(BinaryIO, _Bounded(stream, max(64 * MEGABYTE, size * _MOST_EXPANSION)))


def _remote(url: str, config: IngestConfig) -> Iterator[SourceFile | Skipped]:
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(url)
        is_folder = system.isdir(path)
        if not is_folder and not system.exists(path):
            raise InputError(f"there is nothing at {_public(url)!r}; check the address and your access to it")
        found = system.find(path, detail=True) if is_folder else {path: system.info(path)}
    except ImportError as error:
        raise InputError(f"{_public(url)!r} needs another package: {error}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{_public(url)!r} cannot be listed ({error}); check the address") from None
    wanted = _matcher(config.glob)
    base = path.rstrip("/")
    for name in sorted(found, key=lambda name: name.split("/")):
        relative = name[len(base) :].lstrip("/") if is_folder else ""
        if any(part.startswith(".") for part in relative.split("/")) or (is_folder and not wanted(relative)):
            continue
        uri = _public(url).rstrip("/") + (f"/{relative}" if relative else "")
        size = found[name].get("size")
        yield _source_file(uri, name, -1 if size is None else size, partial(system.open, name, "rb"))


def _public(url: str) -> str:
    """Return the URL without a user name, password or query, which may be secret."""
    return re.sub(r"//[^/@]*@", "//", url.partition("?")[0])


def _matcher(glob: str) -> Callable[[str], bool]:
    """Return a test of relative paths: `*` stays within a folder, `**/` is any; no slash, any folder."""
    if not glob:
        return lambda path: True
    if "/" not in glob:
        glob = f"**/{glob}"
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", glob)
    wild = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    match = re.compile("".join(wild.get(part, re.escape(part)) for part in parts), re.DOTALL).fullmatch
    return lambda path: match(path) is not None
