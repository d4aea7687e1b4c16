"""Indexes of evaluation sets that hold hashes and no text: built, written, read, joined.

An item of an evaluation set has parts: questions, answers, passages. Of each part the index keeps the 32-bit
hashes of its 5-grams of words, in order (`kernels.probe` says why that is enough for every mode), and an id
`suite/split/number`. A file is one line of JSON, its header, and a compressed payload; reading checks sizes,
digest and tokenizer and runs no code of the file.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import yaml

from taskmill.curate.folding import fold, folded
from taskmill.durable import atomic_write
from taskmill.errors import InputError, UsageError
from taskmill.kernels import text
from taskmill.kernels.text import GRAM, Parts
from taskmill.registry import nearest

__all__ = [
    "KINDS",
    "SUFFIX",
    "Index",
    "Item",
    "digest_of",
    "index_of",
    "is_index",
    "join",
    "read_index",
    "shipped",
    "write_index",
]

Array = np.ndarray[Any, Any]

KINDS = ("question", "answer", "passage")
SUFFIX = ".index"

_FORMAT = "taskmill-index"
_VERSION = 1
_HEADER = 1 << 20  # most bytes of a header line (chosen: the shipped ones have under 1 kB)
_FILE = 1 << 30  # most bytes of a file and of its payload (chosen: 250M words of evaluation text)
_PROBE = "Naïve ÉTUDES cost 3.5 € in 北京; über_all, don't: ЖУК ไทย can't 10,000 straße oﬃce"
"""A text whose hashes change when words are folded, cut, lowered or hashed in another way."""


class Item(NamedTuple):
    """One evaluation item: its id and its (kind, text) pairs."""

    id: str
    parts: Sequence[tuple[str, str]]


class Index(NamedTuple):
    """An index in memory: `parts`, the `ids` of the items, the suite of each (a number), and the headers.

    `names[suite[i]]` is the suite of item i.
    """

    parts: Parts
    ids: list[str]
    suite: Array
    names: tuple[str, ...]
    headers: tuple[Mapping[str, Any], ...]


@cache
def tokenizer() -> str:
    """Return a fingerprint of how words are cut and hashed; indexes of another one do not match texts."""
    words = text.hashes(fold(_PROBE).text)
    return hashlib.blake2b(words.tobytes() + text.grams(words, GRAM).tobytes(), digest_size=8).hexdigest()


def index_of(name: str, items: Iterable[Item], **header: Any) -> Index:
    """Return the index of a suite's items; parts without words are left out, and so are equal items.

    Raises InputError if no item has a word, UsageError for a name with a slash.
    """
    if not name or "/" in name:
        raise UsageError(f"{name!r} is no name for an index; choose one without a slash")
    given = list(items)
    texts, owners, kinds = [], [], []
    for number, item in enumerate(given):
        for kind, words in item.parts:
            texts.append(words)
            owners.append(number)
            kinds.append(KINDS.index(kind))
    grams, first, sizes = _hashes(pa.array(texts, pa.large_string()))
    owner, kind_of = np.array(owners, np.int32), np.array(kinds, np.uint8)
    kept = _distinct(len(given), owner, kind_of, sizes, grams, first)
    if not kept.any():
        raise InputError(f"no item of {name!r} holds a word: an index of nothing would find nothing")
    use = kept[owner] & (sizes > 0) if len(owner) else np.zeros(0, bool)
    number_of = np.cumsum(kept) - 1
    columns = {
        "items": number_of[owner[use]].astype(np.int32),
        "kinds": kind_of[use],
        "words": sizes[use],
        "grams": grams[np.repeat(use, np.diff(first))],
    }
    ids = [item.id for item, keep in zip(given, kept.tolist(), strict=True) if keep]
    about = {"name": name, "items": len(ids), "given": len(given), "tokenizer": tokenizer(), **header}
    return Index(_parts(columns, len(ids)), ids, np.zeros(len(ids), np.int32), (name,), (about,))


def _hashes(texts: pa.Array) -> tuple[Array, Array, Array]:
    """Return (grams, first gram of each part, words of each part); short parts have one hash of all words."""
    from taskmill.kernels.words import ngrams, words

    found = words(folded(texts))
    sizes = np.diff(found.rows).astype(np.int32)
    first = _bounds(sizes)
    grams = np.zeros(int(first[-1]), np.uint32)
    for size in range(1, GRAM + 1):
        hashes, rows = ngrams(found, size)
        wanted = sizes == size if size < GRAM else sizes >= GRAM
        into = np.repeat(wanted, np.diff(first))
        grams[into] = (hashes[np.repeat(wanted, np.diff(rows))] >> np.uint64(32)).astype(np.uint32)
    return grams, first, sizes


def _bounds(sizes: Array) -> Array:
    """Return where the grams of each part begin and end."""
    counts = np.where(sizes >= GRAM, sizes.astype(np.int64) - GRAM + 1, sizes > 0)
    return np.concatenate(([0], np.cumsum(counts))).astype(np.int64)


def _distinct(items: int, owner: Array, kinds: Array, sizes: Array, grams: Array, first: Array) -> Array:
    """Return which items hold words and are the first of their equals."""
    kept = np.zeros(items, bool)
    seen: set[bytes] = set()
    bounds = np.searchsorted(owner, np.arange(items + 1)) if len(owner) else np.zeros(items + 1, int)
    for i in range(items):
        a, b = int(bounds[i]), int(bounds[i + 1])
        if not sizes[a:b].any():
            continue
        content = kinds[a:b].tobytes() + sizes[a:b].tobytes() + grams[first[a] : first[b]].tobytes()
        digest = hashlib.blake2b(content, digest_size=16).digest()
        if digest not in seen:
            seen.add(digest)
            kept[i] = True
    return kept


def _parts(columns: Mapping[str, Array], items: int) -> Parts:
    first = _bounds(columns["words"])
    owner = np.repeat(np.arange(len(columns["words"]), dtype=np.int32), np.diff(first))
    own = np.searchsorted(columns["items"], np.arange(items + 1)).astype(np.int64)
    return Parts(
        columns["grams"],
        first,
        columns["items"].astype(np.int64),
        columns["kinds"].astype(np.int64),
        columns["words"].astype(np.int64),
        owner,
        own,
    )


def join(indexes: Sequence[Index]) -> Index:
    """Return several indexes as one; raises UsageError if there is none or two have one name."""
    if not indexes:
        raise UsageError("there is nothing to compare with; name evaluation files or shipped indexes")
    names = [n for index in indexes for n in index.names]
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice is not None:
        raise UsageError(f"two evaluation sets are named {twice!r}; rename a file or leave one out")
    columns: dict[str, list[Array]] = {"items": [], "kinds": [], "words": [], "grams": []}
    ids: list[str] = []
    suites: list[Array] = []
    for index in indexes:
        columns["items"].append(index.parts.items + len(ids))
        for name in ("kinds", "words", "grams"):
            columns[name].append(getattr(index.parts, name))
        suites.append(index.suite + sum(len(i.names) for i in indexes[: len(suites)]))
        ids += index.ids
    whole = {name: np.concatenate(arrays) for name, arrays in columns.items()}
    headers = tuple(h for index in indexes for h in index.headers)
    return Index(_parts(whole, len(ids)), ids, np.concatenate(suites), tuple(names), headers)


# Files


def write_index(index: Index, path: Path) -> int:
    """Write an index of one suite, atomically, and return the bytes of the file."""
    (header,) = index.headers
    blocks = {
        "grams": index.parts.grams.astype("<u4").tobytes(),
        "items": index.parts.items.astype("<i4").tobytes(),
        "kinds": index.parts.kinds.astype("u1").tobytes(),
        "words": index.parts.words.astype("<i4").tobytes(),
        "ids": "\n".join(index.ids).encode(),
    }
    payload = b"".join(blocks.values())
    head = {
        "format": _FORMAT,
        "version": _VERSION,
        **header,
        "gram": GRAM,
        "bits": 32,
        "bytes": {name: len(block) for name, block in blocks.items()},
        "digest": hashlib.blake2b(payload, digest_size=16).hexdigest(),
    }
    data = json.dumps(head, sort_keys=True).encode() + b"\n" + zlib.compress(payload, 9)
    atomic_write(path, data)
    return len(data)


def read_index(path: Path) -> Index:
    """Return the index in a file.

    Raises InputError for a file that is none, is damaged, is empty, or was made by another tokenizer.
    """
    head, packed = _open(path)
    sizes = head["bytes"]
    total = sum(sizes.values())
    try:
        unpack = zlib.decompressobj()
        payload = unpack.decompress(packed, total + 1)
    except zlib.error as error:
        raise _damaged(path, str(error)) from None
    whole = unpack.eof and len(payload) == total
    if not whole or hashlib.blake2b(payload, digest_size=16).hexdigest() != head.get("digest"):
        raise _damaged(path, "the digest does not fit")
    blocks, at = {}, 0
    for name in ("grams", "items", "kinds", "words", "ids"):
        blocks[name] = payload[at : at + sizes[name]]
        at += sizes[name]
    ids = blocks["ids"].decode("utf-8", "replace").split("\n") if blocks["ids"] else []
    columns = {
        "grams": np.frombuffer(blocks["grams"], "<u4").astype(np.uint32),
        "items": np.frombuffer(blocks["items"], "<i4").astype(np.int32),
        "kinds": np.frombuffer(blocks["kinds"], "u1"),
        "words": np.frombuffer(blocks["words"], "<i4").astype(np.int32),
    }
    wrong = _inconsistent(columns, len(ids))
    if wrong:
        raise _damaged(path, wrong)
    if not len(columns["items"]):
        raise InputError(
            f"{path} is an empty index and would find nothing; build it again from a file with text"
        )
    header = {
        k: v for k, v in head.items() if k not in ("format", "version", "bytes", "digest", "gram", "bits")
    }
    return Index(
        _parts(columns, len(ids)), ids, np.zeros(len(ids), np.int32), (str(head["name"]),), (header,)
    )


def is_index(path: Path) -> bool:
    """Say whether a file begins like an index, of this version or another."""
    with path.open("rb") as file:
        line = file.readline(_HEADER)
    try:
        head = json.loads(line)
    except ValueError:
        return False
    return isinstance(head, dict) and head.get("format") == _FORMAT


def digest_of(path: Path) -> str:
    """Return the digest that an index file's header names; raises InputError as reading does."""
    return str(_open(path)[0].get("digest"))


def _open(path: Path) -> tuple[dict[str, Any], bytes]:
    """Return (the header, the packed payload) of a file that says it is an index this code can use."""
    try:
        if path.stat().st_size > _FILE:
            raise InputError(f"{path} is over {_FILE >> 20} MB: no index this reads")
        with path.open("rb") as file:
            line = file.readline(_HEADER)
            packed = file.read()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    try:
        head = json.loads(line)
        if not isinstance(head, dict) or head.get("format") != _FORMAT:
            raise ValueError
    except ValueError:
        raise InputError(f"{path} is no index; build one with `taskmill decontaminate --build`") from None
    made = (head.get("version"), head.get("gram"), head.get("bits"), head.get("tokenizer"))
    if made != (_VERSION, GRAM, 32, tokenizer()):
        raise InputError(
            f"{path} was built with another tokenizer or version ({made[3]!r}, version {made[0]!r}; this is "
            f"{tokenizer()!r}, version {_VERSION}): its hashes match nothing here. Build it again"
        )
    sizes = head.get("bytes")
    names = {"grams", "items", "kinds", "words", "ids"}
    if (
        not isinstance(sizes, dict)
        or set(sizes) != names
        or not isinstance(head.get("name"), str)
        or not all(type(n) is int and 0 <= n <= _FILE for n in sizes.values())
    ):
        raise _damaged(path, "the header lacks its sizes or its name")
    return head, packed


def _damaged(path: Path, why: str) -> InputError:
    return InputError(f"{path} is damaged ({why}); build it again or take another copy")


def _inconsistent(columns: Mapping[str, Array], items: int) -> str:
    """Return what does not fit together in the columns of a file, or nothing."""
    items_of, kinds, words_of, grams = (columns[n] for n in ("items", "kinds", "words", "grams"))
    if not len(items_of) == len(kinds) == len(words_of):
        return "the parts are not of equal number"
    if len(items_of) and (items_of.min() < 0 or items_of.max() >= items or (np.diff(items_of) < 0).any()):
        return "a part belongs to no item"
    if len(kinds) and (kinds.max() >= len(KINDS) or words_of.min() < 1):
        return "a part is of no known kind or has no words"
    return "" if _bounds(words_of)[-1] == len(grams) else "the hashes are not as many as the words"


# The shipped ones


def shipped_folder() -> Path:
    """Return the folder of the indexes that come with the package."""
    return Path(str(files("taskmill.curate") / "indexes"))


def shipped() -> dict[str, Path]:
    """Return the indexes that come with the package, by name."""
    return {path.stem: path for path in sorted(shipped_folder().glob(f"*{SUFFIX}"))}


def find_shipped(name: str) -> Path:
    """Return the path of a shipped index; raises InputError with the known names."""
    known = shipped()
    if name not in known:
        raise InputError(
            f"{name!r} is neither a file nor a shipped index.{nearest(name, known)} "
            f"Shipped: {', '.join(known)}"
        )
    return known[name]


class BenchmarkTask(NamedTuple):
    """A training task that was made from a benchmark: the suite, and where that is said."""

    suite: str
    source: str


@cache
def _tasks() -> list[tuple[Any, BenchmarkTask]]:
    import re

    loaded = yaml.safe_load((shipped_folder() / "tasks.yaml").read_text("utf-8"))
    return [(re.compile(row["name"]), BenchmarkTask(row["suite"], row["source"])) for row in loaded["tasks"]]


def benchmark_task(name: str) -> BenchmarkTask | None:
    """Return from which benchmark a training task of that name was made, or None."""
    return next((made for pattern, made in _tasks() if pattern.fullmatch(name)), None)
