"""Numbers that may be more than the memory, in files that are mapped into it, and texts embedded in between.

A file has its room before it is written: a disk that fills up while a mapping is written would kill the
process, where here it is an error that the command ends with.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taskmill.durable import write_point
from taskmill.errors import InputError
from taskmill.recipes.pool import matrix

__all__ = ["gathered", "numbers", "vectors_of"]

Array = np.ndarray[Any, Any]

_TEXT = 64 << 20
"""Bytes of text embedded at once (chosen: the cache of vectors is looked through once for each)."""

_ROWS = 1 << 16
"""Rows embedded at once (chosen: 64 MB of vectors of 256 numbers)."""


def numbers(path: Path, kind: Any, shape: tuple[int, ...]) -> Array:
    """Return an array of zeros in a new file, whose room is taken at once.

    Raises OSError where the disk is full; nothing of the file is left then.
    """
    size = np.dtype(kind).itemsize * int(np.prod(shape))
    if not size:
        return np.zeros(shape, kind)
    write_point(f"map {path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
        except OSError:
            path.unlink()
            raise
    return np.asarray(np.memmap(path, kind, "r+", shape=shape))


def gathered(texts: Iterable[pa.Array]) -> Iterator[pa.Array]:
    """Yield the texts in pieces that are worth embedding at once, whatever pieces they come in."""
    held: list[pa.Array] = []
    for part in texts:
        held.append(part)
        if sum(one.nbytes for one in held) >= _TEXT or sum(map(len, held)) >= _ROWS:
            yield pa.concat_arrays(held)
            held = []
    if held:
        yield pa.concat_arrays(held)


def vectors_of(columns: Iterable[pa.ChunkedArray], name: Callable[[int], str]) -> Iterator[Array]:
    """Yield the vectors of a column that is read in pieces: float32 [rows, width].

    `name` gives the id of a row by its number. Raises InputError, naming the row, for a vector of another
    width than the first, or of none.
    """
    width, at = 0, 0
    for chunk in (chunk for column in columns for chunk in column.chunks):
        sizes = pc.fill_null(pc.list_value_length(chunk), 0).to_numpy(zero_copy_only=False)
        width = width or int(sizes.max(initial=0))
        wrong = np.flatnonzero((sizes != width) | (sizes == 0))
        if len(wrong):
            row, size = name(at + int(wrong[0])), int(sizes[wrong[0]])
            raise InputError(
                f"the vector of row {row!r} has {size} numbers where others have {width}; mend or drop it"
            )
        yield matrix([chunk], len(chunk))
        at += len(chunk)
