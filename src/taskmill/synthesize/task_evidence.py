"""What the rows say of a proposed task: empty, constant or lopsided outputs, outputs that stand in the input.

One pass over a dataset judges all of its tasks, in memory that does not grow with the rows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from taskmill.record import DatasetMeta, Dropped, Reason
from taskmill.synthesize.proposals import Proposal, dropped
from taskmill.templates.values import (
    LONGEST_LABEL,
    MOST_LABELS,
    REPEATED,
    as_text,
    fold,
    head_of,
    is_closed,
    names_in,
    spelled,
    value_at,
)

__all__ = ["LEAK", "LOPSIDED", "columns_of", "judge"]

LEAK = 0.5
"""Share of rows whose output stands in the input from which a task teaches copying (chosen)."""

LOPSIDED = 0.95
"""Share of the commonest answer from which it is a constant (chosen; Dynosaur: 0.7 of two, 0.5 of more)."""

LEAK_ROWS = 5000
"""Rows that leaks are looked for in (chosen: a share is known within 1.5 % by then)."""
_HELD = 1000
_LISTS = re.compile(r"\b(?:options|choices)\b|\n\s*(?:-\s|\(?[A-E1-5][.)]\s)", re.IGNORECASE)
"""How a text that holds options looks."""
_ASKS = frozenset(("question", "query", "problem", "q"))
_RATINGS = frozenset("stars star rating score grade age count number points year".split())  # noqa: SIM905


@dataclass
class _Tally:
    """What the rows say of one task so far."""

    proposal: Proposal
    rows: int = 0
    answered: int = 0
    looked: int = 0
    asks: Counter[str] = field(default_factory=Counter)
    leaks: Counter[str] = field(default_factory=Counter)
    outputs: Counter[str] = field(default_factory=Counter)
    many: bool = False
    pairs: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    listed: bool = False


def columns_of(proposals: Iterable[Proposal], meta: DatasetMeta) -> list[str]:
    """Return the fields of a dataset that tasks read."""
    known = [one.name for one in meta.fields]
    paths = {path for one in proposals for path in (*one.input_fields, one.output_field)}
    return sorted({head_of(path, known) for path in paths})


def judge(
    proposals: Sequence[Proposal],
    meta: DatasetMeta,
    batches: Iterable[tuple[str, Sequence[Mapping[str, Any]]]],
) -> list[Proposal | Dropped]:
    """Return each task, with the closed set of its answers where it has one, or why it is dropped.

    `batches`: (split, rows) of the dataset, at least the columns of `columns_of`.
    """
    names = {one.name: one.labels for one in meta.fields if one.type == "label"}
    tallies = [_Tally(one) for one in proposals]
    for _, rows in batches:
        open_ = [tally for tally in tallies if not (tally.many and tally.looked >= LEAK_ROWS)]
        if not open_:
            break  # more rows would say nothing new
        for tally in open_:
            for row in rows:
                _add(tally, row, names)
    return [_verdict(tally, meta) for tally in tallies]


def named(value: Any, path: str, names: Mapping[str, Sequence[str]]) -> Any:
    """Return the class name of a stored number, None for a number that stands for no class (-1)."""
    labels = names.get(path)
    if not labels or not isinstance(value, int) or isinstance(value, bool):
        return value
    return labels[value] if 0 <= value < len(labels) else None


def _add(tally: _Tally, row: Mapping[str, Any], names: Mapping[str, Sequence[str]]) -> None:
    proposal = tally.proposal
    tally.rows += 1
    path = proposal.output_field
    value = named(value_at(row, path), path, names)
    output = as_text(value)
    if not output:
        return
    tally.answered += 1
    tally.listed = tally.listed or isinstance(value, list | dict)
    if not tally.many:
        tally.outputs[output] += 1
        tally.many = len(tally.outputs) > _HELD
    if tally.looked < LEAK_ROWS:
        tally.looked += 1
        _look_for_leaks(tally, row, output, names)


def _look_for_leaks(
    tally: _Tally, row: Mapping[str, Any], output: str, names: Mapping[str, Sequence[str]]
) -> None:
    said = _words(output)
    others = [_words(text) for text in tally.outputs if text != output] if len(tally.outputs) <= 10 else []
    for name in tally.proposal.input_fields:
        given = named(value_at(row, name), name, names)
        text = as_text(given)
        tally.asks[name] += text.endswith("?")
        if said and not isinstance(given, list | dict) and said.split(" ", 2)[1] in text.casefold():
            plain = _words(text)
            # A text that lists all answers gives none away.
            listed = _LISTS.search(text) or any(other and other in plain for other in others)
            tally.leaks[name] += said in plain and not listed
        pairs = tally.pairs.setdefault(name, set())
        if len(pairs) <= MOST_LABELS and len(text) <= LONGEST_LABEL and len(output) <= LONGEST_LABEL:
            pairs.add((text, output))
        elif len(pairs) <= MOST_LABELS:
            pairs.update((str(i), "") for i in range(MOST_LABELS + 1))  # too long to be a code of the output


def _words(text: str) -> str:
    plain = " ".join(re.findall(r"\w+", text.casefold()))
    return f" {plain} " if plain else ""


def _verdict(tally: _Tally, meta: DatasetMeta) -> Proposal | Dropped:
    proposal = tally.proposal
    if not tally.answered:
        return dropped(proposal, Reason.EMPTY, f"{proposal.output_field!r} is empty in all {tally.rows} rows")
    counts = tally.outputs
    often, count = max(counts.items(), key=lambda item: (item[1], item[0]))
    share = count / tally.answered
    if not tally.many and (len({fold(text) for text in counts}) == 1 or share > LOPSIDED):
        detail = f"{share:.0%} of {tally.answered} answers are {often[:40]!r}"
        return dropped(proposal, Reason.CONSTANT_OUTPUT, detail, share)
    leak = _leaking(tally)
    if leak is not None:
        return leak
    labels = _closed(tally)
    if labels and _is_codes(proposal, labels, meta):
        detail = f"the answers are numbers without names: {', '.join(labels[:6])}"
        return dropped(proposal, Reason.METADATA_TARGET, detail)
    return replace(proposal, labels=tuple(labels))


def _leaking(tally: _Tally) -> Dropped | None:
    proposal, looked = tally.proposal, tally.looked
    for name in proposal.input_fields:
        share = tally.leaks[name] / looked
        if share > LEAK and not _is_asked_about(name, tally):
            detail = f"in {share:.0%} of {looked} rows the answer stands in {name!r}"
            return dropped(proposal, Reason.LEAK, detail, share)
        pairs = tally.pairs.get(name, set())
        if 2 <= len(pairs) <= MOST_LABELS and looked >= REPEATED * len(pairs):
            inputs, outputs = {a for a, _ in pairs}, {b for _, b in pairs}
            if len(inputs) == len(outputs) == len(pairs):
                return dropped(proposal, Reason.LEAK, f"{name!r} says the same in other words", 1.0)
    return None


def _is_asked_about(name: str, tally: _Tally) -> bool:
    """Say whether another input field asks about this one: to find the answer in a passage is a task."""
    others = [other for other in tally.proposal.input_fields if other != name]
    return any(
        tally.asks[other] > tally.looked / 2 or names_in(other)[-1:] in [[ask] for ask in _ASKS]
        for other in others
    )


def _closed(tally: _Tally) -> list[str]:
    if tally.many or tally.listed:
        return []
    names = spelled(tally.outputs)
    return names if is_closed(names, tally.answered) else []


def _is_codes(proposal: Proposal, labels: Sequence[str], meta: DatasetMeta) -> bool:
    """Say whether the answers are 0, 1, 2 …: numbers of classes whose names nobody gave."""
    if not all(label.isdigit() for label in labels) or _RATINGS & set(names_in(proposal.output_field)):
        return False
    lists = {one.name for one in meta.fields if one.type.startswith("list<")}
    if any(head_of(path) in lists for path in proposal.input_fields):
        return False  # the number of an option
    numbers = sorted(int(label) for label in labels)
    return numbers[0] in (0, 1) and numbers == list(range(numbers[0], numbers[0] + len(numbers)))
