"""What a word is and what its hash is: the definition, and the words of single texts without a compiler.

A word is a run of letters, digits and their marks, lower-cased; a character of a script written without
spaces (Han, kana, Thai, Lao, Khmer, Myanmar) is a word of its own; everything else separates.
`kernels.words` does the same for many texts at once; loading it takes about a second.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np

__all__ = ["GRAM", "Parts", "cut", "grams", "hashes"]

Array = np.ndarray[Any, Any]

GRAM = 5
"""Words of one indexed n-gram: that of decon (allenai/decon, config/default.yaml: ngram_size)."""

OFFSET = 0xCBF29CE484222325  # FNV-1a's
PRIME = 0x100000001B3
MIX_1 = 0xBF58476D1CE4E5B9  # splitmix64's
MIX_2 = 0x94D049BB133111EB
BASE = 0x9E3779B97F4A7C15  # odd: the golden ratio
_ALL = (1 << 64) - 1

_TABLE = 0x20000  # code points with an entry in the tables; those above are Han or nothing
_LAST = 0x3FFFF  # up to which they are Han

_WITHOUT_SPACES = (
    *((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3005, 0x3007), (0x3040, 0x30FF)),
    *((0x31F0, 0x31FF), (0x3400, 0x9FFF), (0xA9E0, 0xA9FF), (0xAA60, 0xAA7F), (0xF900, 0xFAFF)),
    *((0xFF66, 0xFF9F), (0x1B000, 0x1B16F)),
)
"""Blocks of Thai, Lao, Myanmar, Khmer, kana and Han (Unicode's Blocks.txt); Han goes on from 0x20000."""


class Parts(NamedTuple):
    """The texts of an index. `grams[first[p]:first[p + 1]]` (uint32) are those of part p.

    A part of fewer than five words has one hash, of all of them. `items`, `kinds`, `words`: of each part;
    `owner`: the part of each gram; `own[i]:own[i + 1]` are the parts of item i.
    """

    grams: Array
    first: Array
    items: Array
    kinds: Array
    words: Array
    owner: Array
    own: Array


@cache
def characters() -> tuple[Array, Array]:
    """Return (kind, lower case) of the first 0x20000 code points (uint8, uint32).

    Kinds: 0 separates, 1 is of a word, 2 is a word, 3 is a mark: of the word it follows, else nothing.
    """
    kinds, lower = np.zeros(_TABLE, np.uint8), np.arange(_TABLE, dtype=np.uint32)
    for point in range(_TABLE):
        group = unicodedata.category(chr(point))[0]
        if group in "LN":
            kinds[point] = 1
            lower[point] = ord(_lowered(chr(point)))
        elif group == "M":
            kinds[point] = 3
    for first, last in _WITHOUT_SPACES:
        block = kinds[first : last + 1]
        block[block > 0] = 2
    return kinds, lower


def _lowered(character: str) -> str:
    return character.lower()[0]  # one character has two: its second is a mark


_PLAIN = re.compile(r"[A-Za-z0-9]+")
_WORD = re.compile(rb"\x02|\x01[\x01\x03]*")  # over the kinds of a text's characters


def cut(text: str) -> list[tuple[int, int]]:
    """Return the (start, end) characters of each word of a text."""
    if text.isascii():
        return [found.span() for found in _PLAIN.finditer(text)]
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    kinds = characters()[0][np.minimum(points, _TABLE - 1)]
    kinds[points >= _TABLE] = 2
    kinds[points > _LAST] = 0
    return [found.span() for found in _WORD.finditer(kinds.tobytes())]


def hashes(text: str) -> Array:
    """Return the hashes of a text's words in order (uint64), those that `kernels.words` gives them."""
    if text.isascii():
        found = _PLAIN.findall(text.lower())
    else:
        words = (text[a:b] for a, b in cut(text))
        found = [w.lower() if w.isascii() else "".join(map(_lowered, w)) for w in words]
    return np.fromiter(map(_hash, found), np.uint64, len(found))


@lru_cache(maxsize=1 << 16)
def _hash(word: str) -> int:
    value = OFFSET
    for byte in word.encode("utf-8", "surrogatepass"):
        value = ((value ^ byte) * PRIME) & _ALL
    value = ((value ^ (value >> 30)) * MIX_1) & _ALL
    value = ((value ^ (value >> 27)) * MIX_2) & _ALL
    return value ^ (value >> 31)


def grams(words: Array, size: int) -> Array:
    """Return the hashes of the n-grams of one line of words (uint64): a polynomial, mixed."""
    count = max(len(words) - size + 1, 0)
    value = np.zeros(count, np.uint64)
    for i in range(size):
        value = value * np.uint64(BASE) + words[i : i + count]
    value = (value ^ (value >> np.uint64(30))) * np.uint64(MIX_1)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(MIX_2)
    return value ^ (value >> np.uint64(31))
