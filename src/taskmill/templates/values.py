"""Values of a row by path (`answers.text[0]`), and nested values as text that can be read back."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

__all__ = [
    "LONGEST_LABEL",
    "MOST_LABELS",
    "REPEATED",
    "as_text",
    "fold",
    "head_of",
    "is_closed",
    "names_in",
    "overlaps",
    "plain_name",
    "read_back",
    "spelled",
    "value_at",
]

MOST_LABELS = 50
"""Most values of a closed set (chosen: Dynosaur stops at 10; intents and topics have dozens)."""

REPEATED = 5
"""Least rows for each value of a closed set, on average (chosen: below it, values are names of things)."""

LONGEST_LABEL = 60
"""Most characters of a value of a closed set (chosen: longer ones are sentences)."""

_STEP = re.compile(r"\.?([^.\[\]]+)|\[(-?\d+)\]")


@lru_cache(maxsize=4096)
def steps(path: str) -> tuple[str | int, ...]:
    """Return the steps of a path: names and list positions."""
    return tuple(name if name else int(at) for name, at in _STEP.findall(path))


def head_of(path: str, fields: Sequence[str] = ()) -> str:
    """Return the field of a path; a field whose own name has a dot or bracket is itself."""
    if path in fields:
        return path
    found = steps(path)
    return str(found[0]) if found else path


def overlaps(one: str, other: str) -> bool:
    """Say whether two paths are the same, or one leads into the other."""
    a, b = steps(one), steps(other)
    return a[: len(b)] == b[: len(a)]


def value_at(row: Mapping[str, Any], path: str) -> Any:
    """Return the value at a path, None where there is none. A name applies to each object of a list."""
    if path in row:
        return row[path]
    value: Any = row
    for step in steps(path):
        if isinstance(step, int):
            listed = isinstance(value, Sequence) and not isinstance(value, str)
            value = value[step] if listed and -len(value) <= step < len(value) else None
        elif isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, list):
            value = [one.get(step) if isinstance(one, Mapping) else None for one in value]
        else:
            return None
    return value


def names_in(name: str) -> list[str]:
    """Return the words of a field's name: `goldLabel`, `gold_label` and `gold-label` are gold and label."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Za-z])(?=\d)", " ", name)
    return [word.lower() for word in re.split(r"[\W_]+", spaced) if word]


def plain_name(path: str) -> str:
    """Return a field's name as people write it; a path's last name that says something."""
    own = [str(step) for step in steps(path) if isinstance(step, str)]
    return " ".join(names_in(own[0] if own else path)) or path


def as_text(value: Any) -> str:
    """Return a value as text: lists as `a; b`, objects as `x: a; y: b`, JSON where `read_back` needs it."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return (
            ""
            if value != value
            else str(int(value))
            if value.is_integer() and abs(value) < 1e15
            else repr(value)
        )
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Mapping):
        return _joined([(str(name), inner) for name, inner in value.items()], value)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return _joined([("", inner) for inner in value], value)
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _joined(items: Sequence[tuple[str, Any]], whole: Any) -> str:
    flat = all(_is_flat(inner) for _, inner in items)
    texts = [as_text(inner) for _, inner in items]
    names = [name for name, _ in items]
    plain = flat and all(text and not re.search(r"[;\n]|^[\[{]", text) for text in texts)
    if plain and all(not name or not re.search(r"[:;\n]", name) for name in names):
        return "; ".join(f"{name}: {text}" if name else text for name, text in zip(names, texts, strict=True))
    return json.dumps(whole, ensure_ascii=False, default=as_text)


def _is_flat(value: Any) -> bool:
    if isinstance(value, str):
        return value == value.strip()
    return isinstance(value, int | float) and not isinstance(value, bool)


def fold(text: str) -> str:
    """Return a value as it is compared: without case, outer spaces, outer quotes or a last full stop."""
    return " ".join(text.casefold().split()).strip("\"'.“”‘’ ")


def read_back(text: str, type: str) -> Any:
    """Return the value that `as_text` wrote of a list or an object; numbers and texts by the type's name."""
    if text[:1] in ("[", "{") and type.startswith(("list<", "struct<")):
        return json.loads(text)
    if type.startswith("list<"):
        inner = type[5:-1]
        return [read_back(part, inner) for part in text.split("; ")] if text else []
    if type.startswith("struct<"):
        inners = dict(re.findall(r"(\w+): (\w+)", type[7:-1]))
        pairs = [part.partition(": ") for part in text.split("; ")]
        return {name: read_back(value, inners.get(name, "text")) for name, _, value in pairs}
    if type == "int":
        return int(text)
    if type == "float":
        return float(text)
    return text


def is_closed(values: Sequence[str], rows: int) -> bool:
    """Say whether the different values of so many rows are a closed set: labels, not texts or names."""
    few = 2 <= len(values) <= MOST_LABELS and all(len(value) <= LONGEST_LABEL for value in values)
    return few and rows >= REPEATED * len(values)


def spelled(counts: Mapping[str, int]) -> list[str]:
    """Return the values, sorted; of spellings that differ in case, spaces or a full stop the commonest."""
    best: dict[str, str] = {}
    for text in sorted(counts):
        key = fold(text)
        if key and (key not in best or counts[text] > counts[best[key]]):
            best[key] = text
    return sorted(best.values())
