"""Reading what a chat model wrote: JSON or labelled lines, in fences or not, with thoughts or without."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

__all__ = ["first_line", "has_scrap", "parse_reply", "without_thoughts"]

_LINE = re.compile(
    r"^\s*(?:\d+[.)]\s*)?[*_#\s]*([A-Za-z][A-Za-z ]{0,24}?)\s*\d*[*_]*\s*[:：]\s*[*_]*\s*(.*)$"
)
_NUMBERED = re.compile(r"^\s*\d{1,2}[.)]\s+(?=\S)", re.MULTILINE)
_SHORT = {"q": "question", "a": "answer"}
_THOUGHTS = re.compile(r"^.*</think(?:ing)?>", re.I | re.S)
_THOUGHT = re.compile(r"</?think(?:ing)?>", re.I)
_SCRAP = re.compile(r"""\{\s*["'][^"'\n]{1,40}["']\s*:|"[\w ]{1,24}"\s*:\s*["\[{]""")
_JSON_START = re.compile(r"\[\s*\{|\{")
_TRIES = 16  # places where JSON may start; chosen: a reply holds one object or a short list
_DECODER = json.JSONDecoder(strict=False)  # line ends inside strings are common


def without_thoughts(text: str) -> str | None:
    """Return the reply without what stands up to its last `</think>`; None if a thought is not closed."""
    text = _THOUGHTS.sub("", text)
    return None if _THOUGHT.search(text) else text


def has_scrap(text: str, passage: str = "") -> str:
    """Return a piece of JSON or a thinking tag that is left in the text and not the passage's, or ""."""
    for pattern in (_THOUGHT, _SCRAP):
        for found in pattern.finditer(text):
            if found[0] not in passage:
                return found[0]
    return ""


def parse_reply(text: str, names: Sequence[str]) -> list[dict[str, str]]:
    """Read a chat reply into one dict per task, keyed by lower-case part names.

    Accepts JSON objects that hold the first name, with any text around, or labelled lines; strips
    thoughts in `<think>` tags (a thought without an end leaves nothing) and a Markdown fence. A part
    runs until the next label; the first name seen again starts the next task. Text before the first
    label belongs to the first name, because the prompt ends with that label; if that name follows as
    a label, the text was only a preamble. A task of one part may also come as a numbered list.
    """
    text = without_thoughts(text) or ""
    rows = _json_rows(text, names)
    if rows:
        return [{_key(k): _flat(v) for k, v in r.items()} for r in rows]
    body = _unfenced(text).strip()
    found: list[dict[str, list[str]]] = [{}]
    current, preamble = names[0], True
    for line in body.split("\n"):
        labelled = _LINE.match(line)
        label = _SHORT.get(labelled[1].lower(), labelled[1].lower()) if labelled else ""
        if labelled and label in names:
            current, line = label, labelled[2]
            if current == names[0] and names[0] in found[-1]:
                if preamble:
                    found.pop()
                found.append({})
            preamble = False
        found[-1].setdefault(current, []).append(line)
    if preamble and len(names) == 1:
        items = [item.strip() for item in _NUMBERED.split(body)]
        if len(items) > 2:
            return [{names[0]: item} for item in items[not items[0] or items[0].endswith(":") :]]
    return [{k: "\n".join(v).strip() for k, v in parts.items()} for parts in found]


def _unfenced(text: str) -> str:
    """Return what stands in the first Markdown fence, or the text itself."""
    _, fence, inside = text.partition("```")
    if not fence:
        return text
    # The fence's first line names a language; what follows the closing fence is chatter.
    _, _, inside = inside.partition("\n")
    inside = inside.partition("```")[0]
    return inside if inside.strip() else text.replace("```", "")


def _json_rows(text: str, names: Sequence[str]) -> list[dict[str, object]]:
    """Return the objects with the task's first part in the text: one, several or a list of them."""
    rows: list[dict[str, object]] = []
    at = 0
    for _ in range(_TRIES):
        start = _JSON_START.search(text, at)
        if not start:
            break
        try:
            loaded, at = _DECODER.raw_decode(text, start.start())
        except (ValueError, RecursionError):
            at = start.start() + 1
            continue
        # A list or object under a single key is what the key names.
        while isinstance(loaded, dict) and len(loaded) == 1 and not _named(loaded, names):
            (loaded,) = loaded.values()
        found = loaded if isinstance(loaded, list) else [loaded]
        rows += [row for row in found if isinstance(row, dict) and _named(row, names)]
    return rows


def _named(row: Mapping[str, object], names: Sequence[str]) -> bool:
    return any(_key(key) == names[0] for key in row)


def _key(key: str) -> str:
    name = key.lower().strip()
    return _SHORT.get(name, name)


def first_line(text: str) -> str:
    """Return the first line that says something, without Markdown around it.

    A first line that ends in a colon only introduces the reply ("Here is a question:") and is skipped.
    """
    lines = [line for line in (raw.strip(" \t*_#>`-") for raw in text.split("\n")) if line.strip(".… ")]
    if len(lines) > 1 and lines[0][-1] in ":：":
        del lines[0]
    line = lines[0] if lines else ""
    return line[1:-1].strip() if len(line) > 2 and line[0] + line[-1] in ('""', "“”", "''") else line


def _flat(value: object) -> str:
    if isinstance(value, dict):  # options by letter
        return "\n".join(f"{k}) {v}" for k, v in value.items())
    if isinstance(value, list):
        return "\n".join(_flat(v) for v in value)
    return "" if value is None else str(value).strip()
