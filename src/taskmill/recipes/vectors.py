"""The vectors a choice is made in: of a column or of the texts, projected and whitened if asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from taskmill.durable import cache_folder
from taskmill.errors import InputError
from taskmill.recipes.parts import Mapped
from taskmill.recipes.pool import Columns, Rows
from taskmill.recipes.scratch import numbers
from taskmill.recipes.session import OnProgress, Progress
from taskmill.select import Pool, generator, unit_rows
from taskmill.select.whiten import SAMPLE, Turn, signs, whitening

__all__ = ["InPieces", "Vectors", "pool_vectors", "target_vectors"]

Array = np.ndarray[Any, Any]


class Asked(Protocol):
    """The part of a configuration that says which vectors are wanted."""

    @property
    def columns(self) -> Columns: ...
    @property
    def embedder(self) -> str: ...
    @property
    def project(self) -> int: ...
    @property
    def whiten(self) -> int: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True, eq=False)
class Vectors:
    """`matrix`: unit rows (float32 [n, d]) or None; the `name` of what made them; the `turns` they took.

    `path`: the file of which the matrix is a view, for a pool in parts.
    """

    matrix: Array | None
    name: str
    turns: tuple[Turn, ...] = ()
    path: Path | None = None


class InPieces:
    """Embeds a pool that is read in pieces. `name` says afterwards what made the vectors."""

    def __init__(self, embedder: str) -> None:
        self.name = embedder

    def __call__(self, texts: Iterator[pa.Array]) -> Any:
        """Return the function from texts to vectors; `texts` are all of the pool's."""
        from taskmill.select.embed import encoded, loaded

        embedder = loaded(self.name, texts)
        self.name = embedder.key
        return lambda piece: encoded(piece, embedder, cache_folder()).vectors


def pool_vectors(
    rows: Rows, config: Asked, report: OnProgress, found: Mapped | None = None, made: str = ""
) -> Vectors:
    """Return the vectors of a pool's rows, embedded by `made` already or here, and turned as asked.

    Raises InputError, naming the row, for a vector that is not finite.
    """
    vectors, name = rows.vectors, config.columns.embeddings or made
    if vectors is None and rows.texts is not None:
        report(Progress("embed", 0, len(rows.ids)))
        vectors, name = _embedded(rows.texts, config.embedder, rows.texts)
    if vectors is None:
        return Vectors(None, name)
    if not vectors.shape[1]:
        raise InputError("the vectors have no numbers in them; name another column with --embeddings")
    vectors = unit_rows(vectors, rows.ids, in_place=True)  # a million rows are not held twice
    turns: list[Turn] = []
    path = found.path if found is not None else None
    for step, count in (("project", config.project), ("whiten", config.whiten)):
        if not count:
            continue
        report(Progress(step, 0, len(rows.ids)))
        if step == "project":
            turn = signs(vectors.shape[1], count, config.seed)
        else:
            turn = whitening(_sample(vectors, rows, config.seed), count)
        out = None
        if path is not None:
            path = path.with_name(f"{step}.f32")
            out = numbers(path, np.float32, (len(vectors), turn.width))
        vectors = unit_rows(turn.apply(vectors, out), rows.ids, in_place=True)
        turns.append(turn)
        name += f", {step}ed to {turn.width}"
    return Vectors(vectors, name, tuple(turns), path)


def _sample(vectors: Array, rows: Rows, seed: int) -> Array:
    by_id = Pool(rows.ids, rows.tokens).by_id
    drawn = generator(seed, "whitening").permutation(len(by_id))[:SAMPLE]
    return np.ascontiguousarray(vectors[by_id[np.sort(drawn)]])


def target_vectors(aim: Rows, rows: Rows, vectors: Vectors, config: Asked) -> Array | None:
    """Return the vectors of a target's rows, made and turned as the pool's; None if there are none.

    Raises InputError if they have another width than the pool's.
    """
    found = aim.vectors
    if found is None and aim.texts is not None and rows.texts is not None and vectors.matrix is not None:
        found = _embedded(aim.texts, config.embedder, rows.texts)[0]
    if found is None or vectors.matrix is None:
        return found
    width = len(vectors.turns[0].middle) if vectors.turns else vectors.matrix.shape[1]
    if found.shape[1] != width:
        raise InputError(
            f"the target's vectors are of {found.shape[1]} numbers, the pool's of {width}; both must come "
            "from one embedder"
        )
    found = unit_rows(found, aim.ids)
    for turn in vectors.turns:
        found = unit_rows(turn.apply(found), aim.ids, in_place=True)
    return found


def _embedded(texts: pa.Array, name: str, fit: pa.Array) -> tuple[Array, str]:
    from taskmill.select.embed import embedding

    found = embedding(texts, name, cache_folder(), fit)
    return found.vectors, found.name
