"""Answer options as text: many label styles, a drawn order with the gold remapped, label or text as target.

Upstream never shuffles options, knows 26 labels at most and repeats 24 of its 87 styles (Flan requirements,
R9). Here a style is label × header × separator × terminator of `options.yaml`, what is written can be read
back (`parse`), and a style in which these options could not be told apart is not used for them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from taskmill.config import packaged
from taskmill.errors import InputError
from taskmill.ids import draw

__all__ = [
    "Shown",
    "Style",
    "checked",
    "gold_of",
    "label",
    "labels",
    "ordered",
    "parse",
    "parse_target",
    "show",
    "style",
]

_KIND = re.compile(r"(?<![A-Za-z])(?:[A-Za1]|[Ii])(?![A-Za-z])")
# Chosen: words by which an option speaks of the place of others; such lists keep their order.
_PLACED = re.compile(
    r"\b(?:all|none|both|neither|either|any) of the (?:above|below|others?)\b|\bthe (?:above|below)\b|"
    r"\b(?:both|neither|either) \(?[A-Ea-e1-5]\)? (?:and|n?or) \(?[A-Ea-e1-5]\)?",
    re.IGNORECASE,
)
_CLOSED = re.compile(r"[\])}>.]$")
_JOINERS = ("\n", ", ", "; ")
_ATTEMPTS = 64
"""Styles tried for one list of options. Chosen: a list that fails in so many fails in all."""


@dataclass(frozen=True, slots=True)
class Style:
    """How a list is written: each option is label + text + terminator, with the separator between two."""

    label: str
    header: str = ""
    separator: str = "\n"
    terminator: str = ""

    @property
    def enumerates(self) -> bool:
        """Say whether the labels differ, so that one can stand for its option."""
        return _kind(self.label) is not None


@dataclass(frozen=True, slots=True)
class Shown:
    """Options as they are shown: in this order, `gold` among them, their `text`, and what is learned.

    `form` is that of the target: "text" (of the option), "label" (the letter) or "mark" (as printed).
    """

    options: tuple[str, ...]
    gold: tuple[int, ...]
    text: str
    style: Style
    target: str
    form: str


@cache
def _parts() -> dict[str, tuple[str, ...]]:
    loaded: dict[str, Any] = packaged("taskmill.templates", "options.yaml")
    return {key: tuple(values) for key, values in loaded.items()}


def labels() -> tuple[str, ...]:
    """Return the label styles, as they write the first option."""
    return _parts()["labels"]


@cache
def _kind(mark: str) -> tuple[str, str, str] | None:
    """Return what stands before and behind the counter of a label, and the counter; None for a bullet."""
    *_, found = [None, *_KIND.finditer(mark)]  # the last: words may stand before the counter
    return (mark[: found.start()], found[0], mark[found.end() :]) if found else None


def label(kind: str, number: int) -> str:
    """Return the counter of option `number` (from 0): A … Z, AA …; a …; 1, 2 …; I, II …; or i, ii …."""
    if kind == "1":
        return str(number + 1)
    if kind in "Ii":
        return _roman(number + 1) if kind == "I" else _roman(number + 1).lower()
    letters = ""
    number += 1
    while number:
        number, digit = divmod(number - 1, 26)
        letters = chr(ord(kind) + digit) + letters
    return letters


def _roman(number: int) -> str:
    signs = ((1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"), (40, "XL"))
    found = ""
    for value, sign in (*signs, (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I")):
        times, number = divmod(number, value)
        found += sign * times
    return found


def _mark(style: Style, number: int) -> str:
    kind = _kind(style.label)
    return f"{kind[0]}{label(kind[1], number)}{kind[2]}" if kind else style.label


def _bare(style: Style, number: int) -> str:
    kind = _kind(style.label)
    return label(kind[1], number) if kind else ""


@cache
def style(number: int) -> Style:
    """Return the style of a drawn number (63 bits): each label, header and separator equally often.

    Half of the lists stand on lines of their own and half in one line where the options are short; the
    separators of lists in a line have no terminator.
    """
    parts = _parts()
    number, at = divmod(number, len(parts["labels"]))
    number, head = divmod(number, len(parts["headers"]))
    number, between = divmod(number, 2 * (len(parts["separators"]) - 1))
    lines = between >= len(parts["separators"]) - 1
    separator = parts["separators"][0 if lines else between + 1]
    terminator = parts["terminators"][number % len(parts["terminators"])] if lines else ""
    return Style(parts["labels"][at], parts["headers"][head], separator, terminator)


def ordered(options: Sequence[str], seed: int, row: str) -> list[int]:
    """Return the drawn order of options as places in the list given.

    It depends on the texts, not on their places. Options that speak of others' places keep theirs.
    """
    if any(_PLACED.search(option) for option in options):
        return list(range(len(options)))
    return sorted(range(len(options)), key=lambda i: (draw(seed, f"{row}\x1f{options[i]}", "option"), i))


def checked(options: Sequence[str], gold: Sequence[int], what: str) -> None:
    """Raise InputError for a list that cannot be shown: under two, empty or repeated options, a bad gold."""
    if len(options) < 2:
        raise InputError(f"{what} has {len(options)} options; give it two or more")
    seen: dict[str, int] = {}
    for number, option in enumerate(options):
        if not isinstance(option, str) or not option.strip():
            raise InputError(f"{what}: option {number} (counted from 0) is empty; write or remove it")
        first = seen.setdefault(" ".join(option.split()), number)
        if first != number:
            raise InputError(f"{what}: options {first} and {number} are the same, {option!r}; remove one")
    if not gold:
        raise InputError(f"{what}: no option is the right one; name the place of one or more")
    for place in gold:
        if not 0 <= place < len(options):
            raise InputError(f"{what}: the answer is none of the {len(options)} options; mend the row")
    if len(set(gold)) < len(gold):
        raise InputError(f"{what}: an option is named as right twice; name it once")


def gold_of(options: Sequence[str], answers: Sequence[str], what: str) -> tuple[int, ...]:
    """Return the places of the right answers among the options; raises InputError for one not there."""
    places = []
    for answer in answers:
        if answer not in options:
            raise InputError(f"{what}: the answer {answer!r} is none of the options; mend the row")
        places.append(list(options).index(answer))
    return tuple(places)


def show(
    options: Sequence[str],
    gold: Sequence[int],
    seed: int,
    row: str,
    *,
    number: int | None = None,
    target: str = "drawn",
    what: str = "the row",
) -> Shown:
    """Write options in a drawn order and style, with what is learned of them.

    `gold`: places of the right ones in `options`. `number`: what was drawn for style and form of the target,
    by the row if it is not given; so all exemplars of a prompt may share one. `target`: "text", "label" (then
    the style enumerates) or "drawn". `what` names the row in errors. Raises InputError for under two options,
    an empty or repeated one, and a gold that is none of them.
    """
    checked(options, gold, what)
    order = ordered(options, seed, row)
    texts = tuple(options[i] for i in order)
    right = tuple(sorted(order.index(place) for place in gold))
    drawn = draw(seed, row, "option style") if number is None else number
    for attempt in range(_ATTEMPTS):
        tried = style(drawn if not attempt else draw(drawn, row, f"option style {attempt}"))
        if "\n" not in tried.separator and any("\n" in text for text in texts):
            continue  # lines within a list of one line cannot be read
        block = _block(texts, tried)
        if parse(block, tried) != texts:
            continue
        shown = _with_target(texts, right, block, tried, target, draw(drawn, "", "option target"))
        if shown is not None:
            return shown
    raise InputError(f"{what}: its options cannot be told apart in any style; shorten or remove the row")


def _block(options: Sequence[str], style: Style) -> str:
    body = style.separator.join(
        f"{_mark(style, i)}{option}{style.terminator}" for i, option in enumerate(options)
    )
    lead = "\n" if style.separator == "\n" else " "
    return f"{style.header}{lead}{body}" if style.header else body


def parse(text: str, style: Style) -> tuple[str, ...] | None:
    """Return the options of a text written in a style; None where it is not of the style."""
    lead = "\n" if style.separator == "\n" else " "
    start = f"{style.header}{lead}" if style.header else ""
    mark = _mark(style, 0)
    if not text.startswith(start + mark):
        return None
    rest = text[len(start) + len(mark) :]
    found: list[str] = []
    while True:
        border = f"{style.terminator}{style.separator}{_mark(style, len(found) + 1)}"
        option, cut, behind = rest.partition(border)
        if not cut:
            break
        found.append(option)
        rest = behind
    if not rest.endswith(style.terminator):
        return None
    return (*found, rest[: len(rest) - len(style.terminator)])


def _with_target(
    options: tuple[str, ...], gold: tuple[int, ...], block: str, style: Style, target: str, drawn: int
) -> Shown | None:
    bare = {_bare(style, i).casefold() for i in range(len(options))}
    # Where an option reads like a label, the label of another one would be two answers.
    labelled = style.enumerates and target != "text" and not bare & {o.strip().casefold() for o in options}
    form = ("label", "mark", "text")[drawn % 3] if labelled else "text"
    if labelled and target == "label":
        form = ("label", "mark")[drawn % 2]
    if form == "mark" and not _CLOSED.search(_mark(style, 0).strip()):
        form = "label"  # "A -" and "No. 1:" are no answers
    if target == "label" and form == "text":
        return None
    for joiner in _JOINERS:
        learned = joiner.join(_name(options, style, place, form) for place in gold)
        shown = Shown(options, gold, block, style, learned, form)
        if parse_target(learned, shown) == gold:
            return shown
    return None


def _name(options: Sequence[str], style: Style, place: int, form: str) -> str:
    if form == "text":
        return options[place]
    return _bare(style, place) if form == "label" else _mark(style, place).strip()


def parse_target(text: str, shown: Shown) -> tuple[int, ...] | None:
    """Return the places of the options that a target names, in order; None where it can be read in no or
    more than one way.
    """
    names = [_name(shown.options, shown.style, i, shown.form) for i in range(len(shown.options))]
    if len(shown.gold) == 1:
        return (names.index(text),) if names.count(text) == 1 else None
    found = {ways for joiner in _JOINERS for ways in _readings(text, names, joiner, len(shown.gold))}
    return found.pop() if len(found) == 1 else None


def _readings(text: str, names: Sequence[str], joiner: str, count: int) -> set[tuple[int, ...]]:
    """Return every choice of `count` names, in their order, that joins to the text (two ways at most)."""
    found: set[tuple[int, ...]] = set()
    stack: list[tuple[int, tuple[int, ...]]] = [(0, ())]
    while stack and len(found) < 2:
        at, chosen = stack.pop()
        for place in range(chosen[-1] + 1 if chosen else 0, len(names)):
            if not text.startswith(names[place], at):
                continue
            end, now = at + len(names[place]), (*chosen, place)
            if len(now) == count and end == len(text):
                found.add(now)
            elif len(now) < count and text.startswith(joiner, end):
                stack.append((end + len(joiner), now))
    return found
