"""What a benchmark is: items, the shots before them, and the declaration that joins their parts.

Prompt, extractor, metric and average are separate objects with own versions; a suite only names them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from taskmill.errors import InputError
from taskmill.registry import nearest

__all__ = ["LETTERS", "Item", "Rows", "Shot", "Suite", "cell", "letter", "lettered", "place", "texts"]

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Item:
    """One question: `fields` fill the prompt's slots, `targets` are all right answers.

    `options` are the texts that may be chosen (`gold`: the indices of right ones); without them the answer is
    free. `mended` are the right answers after an annotator's correction, `label` what the annotator found.
    """

    id: str
    task: str
    fields: Mapping[str, str]
    targets: tuple[str, ...]
    options: tuple[str, ...] = ()
    gold: tuple[int, ...] = ()
    group: str = ""
    label: str = ""
    mended: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Shot:
    """A solved question before the item's own: its slots, with `answer` and `rationale` among them."""

    fields: Mapping[str, str]


@dataclass(frozen=True)
class Suite:
    """A benchmark under one protocol.

    `files` are names it is looked for under in a folder, `dev` those of the rows the shots come from. `read`
    makes items of (file name, rows, dev rows), `shots` the solved questions of (file name, dev rows, seed).
    `prompt` names words of prompts.yaml; `extractor`, `metric`, `average` are names in `taskmill.evaluate`.
    `upstream` and `dev_upstream`: patterns of the same files as their authors publish them. A `ranked` suite
    asks for the likelihood of each option in the form `choice` gives it. `lent`: without dev rows, test rows
    on other passages are the solved questions.
    """

    name: str
    title: str
    files: tuple[str, ...]
    read: Callable[[str, Rows, Rows], list[Item]]
    prompt: str
    extractor: str = ""
    metric: str = "exact"
    average: str = "tasks"
    dev: tuple[str, ...] = ()
    shots: Callable[[str, Rows, int], dict[str, list[Shot]]] | None = None
    k: int = 0
    lent: bool = False
    max_tokens: int = 32
    ranked: bool = False
    choice: Callable[[Item, int], str] = field(default=lambda item, i: " " + item.options[i])
    normalise: str = "sum"
    mend: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
    upstream: tuple[str, ...] = ()
    dev_upstream: tuple[str, ...] = ()
    version: int = 1


def cell(row: Mapping[str, Any], names: Sequence[str], file: str, number: int, *, needed: bool = True) -> Any:
    """Return the value of the first column of `names` that the row has; None if it is not `needed`.

    Raises InputError naming file, row and column if there is no such column or no value.
    """
    name = next((n for n in names if n in row), None)
    if name is None:
        if not needed:
            return None
        near = next((hint for n in names if (hint := nearest(n, map(str, row)))), "")
        raise InputError(
            f"{file}: no column {names[0]!r}.{near} Columns: {', '.join(map(str, row))}; "
            f"rename one to {' or '.join(map(repr, names))}"
        )
    if row[name] is None and needed:
        raise InputError(f"{file}: row {number} (counted from 0) has nothing in the column {name!r}; fill it")
    return row[name]


def texts(value: Any) -> tuple[str, ...]:
    """Return the texts in a cell: one text or number, a list of them, SQuAD's {"text": […]}."""
    if isinstance(value, Mapping):
        value = value.get("text", ())
    if isinstance(value, list | tuple):
        return tuple(text for one in value for text in texts(one))
    return () if value is None else (str(value),)


def letter(index: int) -> str:
    """Return the letter of an option."""
    return LETTERS[index] if index < len(LETTERS) else str(index + 1)


def place(text: str, options: Sequence[str]) -> int | None:
    """Return the option that is this text; None where none is, or two: they do not say which is right."""
    same = [i for i, option in enumerate(options) if option.strip() == text]
    return same[0] if len(same) == 1 else None


def lettered(options: Sequence[str], form: str = "({}) {}", between: str = "\n") -> str:
    """Return options with their letters in front."""
    return between.join(form.format(letter(i), option) for i, option in enumerate(options))
