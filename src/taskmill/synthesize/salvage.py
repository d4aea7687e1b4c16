"""Objects out of a reply that should be JSON: one cut off, in Python's spelling, or with words around it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["LONGEST", "Salvaged", "salvage"]

LONGEST = 65_536
"""Characters of a reply that are read (chosen: a hundred times what three tasks take)."""

DEEPEST = 8
"""Levels of brackets that are followed (chosen: tasks have three)."""

_SPACE = re.compile(r"[\s]*")
_WORD = re.compile(r"[A-Za-z_][\w-]*|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’"}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_CONSTANTS = {"true": True, "false": False, "null": None, "none": None}


class Salvaged(NamedTuple):
    """What a reply holds: (key, object) of each whole task, and whether a part of one was lost."""

    tasks: list[tuple[str, dict[str, Any]]]
    torn: bool


class _Broken(Exception):
    """There is no whole value here."""


class _Cut(_Broken):
    """The text ends before the value does."""


def salvage(reply: str, mark: str = "instruction") -> Salvaged:
    """Return the whole objects of a reply that have the key `mark`, in order; those of a cut reply too.

    Python's quotes, True and None, commas before a closing bracket and words around the JSON are understood.
    What stands behind the first `LONGEST` characters is lost, which `torn` says.
    """
    text = reply[:LONGEST]
    found: list[tuple[str, dict[str, Any]]] = []
    at = whole = 0  # where to look on, and the end of the last whole object
    cut = False
    while (start := text.find("{", at)) >= 0:
        named = re.search(r"([\w -]{1,40})[\"'”’]?\s*:\s*$", text[max(0, start - 60) : start])
        try:
            value, at = _value(text, start, 0)
        except _Broken as error:
            # Nothing whole begins here, but tasks inside of it may be whole.
            cut = cut or isinstance(error, _Cut)
            at = start + 1
            continue
        whole = at
        _collect(named[1].strip() if named else "", value, mark, found)
    rest = text[whole:]
    return Salvaged(found, len(reply) > LONGEST or (cut and re.search(r"[^\s,}\]]", rest) is not None))


def _collect(key: str, value: Any, mark: str, found: list[tuple[str, dict[str, Any]]]) -> None:
    if not isinstance(value, Mapping):
        return
    if mark in value:
        found.append((key, dict(value)))
        return
    for name, inner in value.items():
        for one in inner if isinstance(inner, list) else [inner]:
            _collect(str(name), one, mark, found)


def _value(text: str, at: int, depth: int) -> tuple[Any, int]:
    """Return the value that begins at a place, and where it ends; raises _Broken where it is not whole."""
    at = _skip(text, at)
    if at >= len(text):
        raise _Cut
    if depth > DEEPEST:
        raise _Broken
    sign = text[at]
    if sign == "{":
        return _object(text, at + 1, depth)
    if sign == "[":
        return _list(text, at + 1, depth)
    if sign in _QUOTES:
        return _string(text, at)
    word = _WORD.match(text, at)
    if not word:
        raise _Broken
    return _CONSTANTS.get(word[0].lower(), word[0]), word.end()


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _object(text: str, at: int, depth: int) -> tuple[dict[str, Any], int]:
    found: dict[str, Any] = {}
    while True:
        at = _skip(text, at)
        if text[at : at + 1] == "}":
            return found, at + 1
        key, at = _value(text, at, depth + 1)
        at = _skip(text, at)
        if text[at : at + 1] != ":" or isinstance(key, dict | list):
            raise _Broken if at < len(text) else _Cut
        value, at = _value(text, at + 1, depth + 1)
        found.setdefault(str(key), value)
        at = _after(text, at, "}")


def _list(text: str, at: int, depth: int) -> tuple[list[Any], int]:
    found: list[Any] = []
    while True:
        at = _skip(text, at)
        if text[at : at + 1] == "]":
            return found, at + 1
        value, at = _value(text, at, depth + 1)
        found.append(value)
        at = _after(text, at, "]")


def _after(text: str, at: int, closing: str) -> int:
    """Return the place after a comma, or that of the closing bracket."""
    at = _skip(text, at)
    if text[at : at + 1] == ",":
        return at + 1
    if text[at : at + 1] == closing:
        return at
    raise _Broken if at < len(text) else _Cut


def _string(text: str, at: int) -> tuple[str, int]:
    """Read a string; a quote inside of it that nothing follows on is part of it (`the author's view`)."""
    closing = _QUOTES[text[at]]
    parts: list[str] = []
    at += 1
    while at < len(text):
        sign = text[at]
        if sign == "\\" and at + 1 < len(text):
            code = text[at + 1]
            if code == "u" and re.fullmatch(r"[0-9a-fA-F]{4}", text[at + 2 : at + 6]):
                parts.append(chr(int(text[at + 2 : at + 6], 16)))
                at += 6
                continue
            parts.append(_ESCAPES.get(code, code))
            at += 2
            continue
        if sign == closing:
            after = _skip(text, at + 1)
            if after >= len(text) or text[after] in ",}]:":
                # An escaped pair of surrogates (an emoji) is one character.
                whole = "".join(parts).encode("utf-16-le", "surrogatepass")
                return whole.decode("utf-16-le", "replace"), at + 1
        parts.append(sign)
        at += 1
    raise _Cut
