"""Sentences said in other words, or turned round: what the constructions are built of. English only.

Each function returns "" where it is not sure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from taskmill.config import packaged
from taskmill.record import draw
from taskmill.tasks.passage import content, one_line, pick, sentences, words

__all__ = [
    "Row", "capital", "cased", "denied", "own_sentences", "retold", "reworded", "rules", "shortened",
    "stands_alone", "turned",
]  # fmt: skip


@cache
def rules() -> Mapping[str, Any]:
    """Return the words of `templates/rules.yaml`: sayings, opposites, topics."""
    loaded: dict[str, Any] = packaged("taskmill.templates", "rules.yaml")
    return loaded


@dataclass(frozen=True, slots=True)
class Row:
    """What a construction sees: the passage, the row's columns, and what its draws depend on."""

    passage: str
    columns: Mapping[str, Any]
    seed: int
    name: str

    def draw(self, purpose: str, size: int) -> int:
        """Return a number below `size` drawn for this row."""
        return draw(self.seed, self.name, purpose) % size

    def order(self, items: Sequence[str], purpose: str) -> list[str]:
        """Return the items in an order drawn for this row."""
        return list(pick(items, self.seed, self.name, purpose))


_START = re.compile(
    r"^(?:This|That|These|Those|It|He|She|They|We|I|However|But|And|So|Thus|Here|There|Such)\b"
)
_FRONTED = re.compile(
    r"^((?:In|On|At|During|After|Before|Since|By|For|From|Until|Under|Among|Within|When|While|If|Because|"
    r"Although|As|Unless|Once|Through|With|Without|To) [^,;:()\"]{4,60}), "
    r"((?!and\b|or\b|but\b)[^,;:\"]{15,140})\.$"
)
_ASIDES = (
    "In addition", "In fact", "In general", "In contrast", "In particular", "On the other hand",
    "For example", "For instance", "In total", "In short", "As a result", "As such", "To date", "At first",
    "In turn", "In other words",
)  # fmt: skip
_TRAILING = re.compile(
    r"^([A-Z][^,;:\"]{15,120}) (when|if|because|although|after|before|until|unless) ([^,;:\"]{8,80})\.$"
)
_BE = re.compile(
    r" (is|are|was|were|can|could|will|would|should|may|must|has been|have been) (?!not\b|no\b|never\b)"
)
_DENIAL = re.compile(r"\b(?:not|no|never|none|neither|nor|without|cannot|n't)\b|n't\b", re.I)
_NUMBER = re.compile(r"\b(\d{1,4})\b(?![\d.,]*\d)")
_TAIL = re.compile(
    r"^([^,;:(]{30,}?),? (?:which|who|where|whose|while|whereas|although|because|but"
    r"|and (?:is|was|has|then|it|he|she|they))\b.*\.$"
)
_PARENTHESES = re.compile(r" \([^()]*\)")
_WORD = re.compile(r"[A-Za-z]+")


@cache
def _swap() -> Mapping[str, str]:
    return {a: b for pair in rules()["opposites"] for a, b in (pair, pair[::-1])}


def cased(text: str, passage: str) -> str:
    """Return a lower-case text with capitals where the passage always writes a word with one (names)."""
    written: dict[str, set[str]] = {}
    for found in _WORD.finditer(passage):
        written.setdefault(found[0].lower(), set()).add(found[0])
    starts = {m[0] for s in sentences(passage) for m in [_WORD.match(s)] if m}

    def spelt(found: re.Match[str]) -> str:
        spellings = written.get(found[0], set())
        if len(spellings) != 1 or found[0] in spellings:
            return found[0]
        spelling = next(iter(spellings))
        sure = spelling not in starts or (len(found[0]) > 1 and spelling.isupper())
        return spelling if sure else found[0]

    return _WORD.sub(spelt, text)


def _lower_first(text: str, passage: str) -> str:
    """Lower the first letter, unless the word is a name (it stands with a capital elsewhere, too)."""
    word = text.split(" ", 1)[0]
    if (
        (word.isupper() and word not in ("A", "I"))
        or re.search(rf"[a-z,] {re.escape(word)}\b", passage)
        or (word[1:] and not word[1:].islower())
    ):
        return text
    return text[:1].lower() + text[1:]


def capital(text: str) -> str:
    """Return the text with a capital first letter."""
    return text[:1].upper() + text[1:]


def turned(sentence: str, passage: str) -> str:
    """Return the sentence with its first phrase or its last clause moved to the other end, or ""."""
    found = _FRONTED.match(sentence)
    if found and found[1] not in _ASIDES:
        first, rest = found[1], found[2]
        comma = "," if first.split(" ", 1)[0] == "Although" else ""
        return f"{capital(rest)}{comma} {_lower_first(first, passage)}."
    found = _TRAILING.match(sentence)
    if found:
        return f"{capital(found[2])} {found[3]}, {_lower_first(found[1], passage)}."
    return ""


def reworded(sentence: str, row: Row, most: int = 3) -> str:
    """Return the sentence with up to `most` words or phrases put in other words, or ""."""
    lowered, changed = sentence, 0
    for phrase in row.order(sorted(rules()["sayings"]), "sayings"):
        pattern = re.compile(rf"(?<![\w-]){re.escape(phrase)}(?![\w-])")
        if changed < most and pattern.search(lowered):
            lowered = pattern.sub(rules()["sayings"][phrase], lowered, count=1)
            changed += 1
    return lowered if changed else ""


def retold(sentence: str, row: Row) -> str:
    """Return a paraphrase of the sentence: turned, reworded or both, or "" where neither can be done."""
    moved = turned(sentence, row.passage)
    other = reworded(moved or sentence, row)
    if other and (moved or len(content(other) - content(sentence)) > 1):
        return other
    return moved


def denied(sentence: str, row: Row) -> str:
    """Return the sentence with its meaning turned round: a number, an opposite or a "not", or ""."""
    ways = row.order(["number", "opposite", "not"], "denial")
    for way in ways:
        changed = _changed(sentence, way, row)
        if changed and changed != sentence:
            return changed
    return ""


def _changed(sentence: str, way: str, row: Row) -> str:
    if way == "number":
        found = list(_NUMBER.finditer(sentence))
        if not found:
            return ""
        at = found[row.draw("which number", len(found))]
        value = int(at[1])
        step = 1 + row.draw("step", 9)
        new = (
            value + (step if value < 1000 else 3 * step)
            if row.draw("up", 2) or value <= step
            else value - step
        )
        return sentence[: at.start()] + str(new) + sentence[at.end() :]
    if way == "opposite":
        found = [m for m in _WORD.finditer(sentence) if m[0] in _swap()]
        if len(found) != 1:
            return ""
        return sentence[: found[0].start()] + _swap()[found[0][0]] + sentence[found[0].end() :]
    if _DENIAL.search(sentence):
        return ""
    found_be = _BE.search(sentence)
    if not found_be or "," in sentence[: found_be.start()]:
        return ""
    first, *rest = found_be[1].split(" ")
    return f"{sentence[: found_be.start()]} {' '.join([first, 'not', *rest])} {sentence[found_be.end() :]}"


def stands_alone(sentence: str) -> bool:
    """Say whether a sentence can be understood, and judged, without the ones around it."""
    return (
        7 <= len(words(sentence)) <= 32
        and sentence[:1].isupper()
        and sentence[-1:] == "."
        and not _START.match(sentence)
        and '"' not in sentence
        and "“" not in sentence
    )


def own_sentences(row: Row, purpose: str) -> list[str]:
    """Return the passage's sentences that stand alone, in an order drawn for the purpose."""
    found = [one_line(s) for s in sentences(row.passage)]
    return row.order([s for s in dict.fromkeys(found) if stands_alone(s)], purpose)


def shortened(sentence: str) -> str:
    """Return the sentence without brackets and without the clause that trails behind its main one."""
    tail = _TAIL.match(sentence)
    return _PARENTHESES.sub("", f"{tail[1].rstrip(',')}." if tail else sentence)
