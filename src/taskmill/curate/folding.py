"""Texts as they are compared with evaluation items: compatibility forms and case folded, with the way back.

`kernels.text` cuts and lowers words character by character, so ß is not ss for it, ﬁ not fi, and an accent
that stands behind its letter is not the letter with the accent. Here a text is brought to Unicode's
NFKC_Casefold (UAX 31; invisible characters go, too) before it is hashed, on both sides, and the places of
what is found are brought back to the text as it was given. Most texts hold nothing to fold and stay as is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taskmill.kernels.text import characters

__all__ = ["Folded", "fold", "folded"]

Array = np.ndarray[Any, Any]

_INVISIBLE = (
    *((0x00AD, 0x00AD), (0x034F, 0x034F), (0x061C, 0x061C), (0x115F, 0x1160), (0x17B4, 0x17B5)),
    *((0x180B, 0x180F), (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164)),
    *((0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0xE0000, 0xE0FFF)),
)
"""Default_Ignorable_Code_Point (Unicode's DerivedCoreProperties.txt): soft hyphens, joiners, selectors."""

_LOOKED_AT = ((0x80, 0xD7FF), (0xE000, 0x1FFFF), (0x2F800, 0x2FA1D))
"""Code points that may fold: all of kernels.text's tables, and the compatibility ideographs above."""


class Folded(NamedTuple):
    """A folded `text`; its character i was made of the characters `starts[i]` up to `ends[i]` (int64).

    Without `starts` nothing was folded.
    """

    text: str
    starts: Array | None = None
    ends: Array | None = None

    def place(self, start: int, end: int) -> tuple[int, int]:
        """Return where characters `start` up to `end` (one at least) stood in the text as it was given."""
        if self.starts is None or self.ends is None:
            return start, end
        return int(self.starts[start]), int(self.ends[end - 1])


def fold(text: str) -> Folded:
    """Return the text folded, with the place that each of its characters had."""
    if text.isascii():
        return Folded(text)
    pieces, starts, ends = [], [], []
    at = 0
    for found in _patterns()[1].finditer(text):
        begin, end = found.span()
        new = _form(found[0])
        pieces += [text[at:begin], new]
        starts += [np.arange(at, begin), np.full(len(new), begin)]
        ends += [np.arange(at, begin) + 1, np.full(len(new), end)]
        at = end
    if not pieces:
        return Folded(text)
    rest = np.arange(at, len(text))
    return Folded(
        "".join([*pieces, text[at:]]), np.concatenate([*starts, rest]), np.concatenate([*ends, rest + 1])
    )


def folded(texts: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return a string column with each text folded; the column itself if nothing in it folds."""
    if pa.types.is_dictionary(texts.type):
        texts = texts.cast(texts.type.value_type)
    plain = np.asarray(pc.fill_null(pc.string_is_ascii(texts), True))
    other = np.flatnonzero(~plain)
    if not len(other):
        return texts
    some = texts.take(pa.array(other))
    change = np.asarray(pc.match_substring_regex(some, _patterns()[0]))
    if not change.any():
        return texts
    mask = np.zeros(len(texts), np.bool_)
    mask[other[change]] = True
    new = pa.array([fold(text).text for text in some.filter(pa.array(change)).to_pylist()], texts.type)
    return pc.replace_with_mask(texts, pa.array(mask), new)


def _form(text: str) -> str:
    """Return NFKC_Casefold of some characters. The dotted capital I is i, as `kernels.text` has it."""
    composed = unicodedata.normalize("NFKC", text)
    cased = "".join("i" if c == "\u0130" else c.casefold() for c in composed)
    return "".join(c for c in unicodedata.normalize("NFKC", cased) if ord(c) not in _invisible())


@cache
def _invisible() -> frozenset[int]:
    return frozenset(point for first, last in _INVISIBLE for point in range(first, last + 1))


def _read(text: str) -> list[tuple[int, int]]:
    """Return what `kernels.text` makes of each character: its kind and lower case, separators alike."""
    kinds, lower = characters()
    points = [ord(c) for c in text]
    known = [(int(kinds[p]), int(lower[p])) if p < len(kinds) else (2, p) for p in points]
    return [(kind, low if kind else 0) for kind, low in known]


@cache
def _patterns() -> tuple[str, re.Pattern[str]]:
    """Return what to look for: whether a text folds (for Arrow's RE2), and the pieces of it that do."""
    alone, letters, accents = [], set(), set()
    marks, invisible = {0xFF9E, 0xFF9F}, _invisible()  # the sound marks of half-width kana are no marks
    pairs: dict[int, list[int]] = {}
    for point in (p for first, last in _LOOKED_AT for p in range(first, last + 1)):
        c = chr(point)
        cased, parts = c.casefold(), unicodedata.decomposition(c).split()
        if unicodedata.combining(c):
            marks.add(point)
            if parts and parts[0][0] != "<":  # an accent that is another one, or two
                accents.add(point)
        if not parts and cased == c.lower() and len(cased) == 1 and point not in invisible:
            continue  # nearly all of them
        if len(parts) == 2 and parts[0][0] != "<" and unicodedata.normalize("NFC", c) == c:
            first, second = (int(part, 16) for part in parts)
            if unicodedata.combining(chr(second)):  # of several marks any may join its letter
                letters |= {first, point}
                accents.add(second)
            else:
                pairs.setdefault(second, []).append(first)
        new = _form(c)
        other = len(new) != 1 or _read(new) != _read(c)
        if other and (not new or any(kind for kind, _ in _read(c + new))):
            alone.append(point)
    hangul = "[\u1100-\u1112][\u1161-\u1175]"  # written letter by letter
    joined = [f"[{_class(firsts)}]{chr(mark)}" for mark, firsts in sorted(pairs.items())]
    accented = f"[{_class(letters)}][{_class(marks)}]*[{_class(accents)}]"
    whole = "|".join([f"[{_class(alone)}]", accented, hangul, *joined])
    return whole, re.compile(f"(?:{whole})[{_class(marks)}\u1161-\u1175\u11a8-\u11c2]*")


def _class(points: Iterable[int]) -> str:
    """Return code points as the inside of a class of a regular expression: their ranges."""
    ranges: list[list[int]] = []
    for point in sorted(set(points)):
        if ranges and point == ranges[-1][1] + 1:
            ranges[-1][1] = point
        else:
            ranges.append([point, point])
    return "".join(
        re.escape(chr(a)) if a == b else f"{re.escape(chr(a))}-{re.escape(chr(b))}" for a, b in ranges
    )
