"""A proposed task and the rows of its dataset → examples, a batch at a time.

    for made in instances(proposal, meta, read_rows(meta, columns_of([proposal], meta)), count=count_tokens):
        ...

Each field is written by its type (`templates.values`); options are lettered. What is over the token budget
is cut at the longest texts, never at the question or the options.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from taskmill.record import DatasetMeta, Dropped, Example, Origin, Reason, Source, content_id
from taskmill.render import PLACEHOLDER, escape
from taskmill.synthesize.field_rules import words
from taskmill.synthesize.proposals import Proposal, mark_of
from taskmill.synthesize.task_evidence import named
from taskmill.templates.values import as_text, fold, names_in, plain_name, value_at

__all__ = ["BUDGET", "Rows", "instances", "instruction_of"]

Rows = Iterable[tuple[str, Sequence[Mapping[str, Any]]]]
"""(split, rows), a batch at a time: what `ingest.metadata.read_rows` yields."""

BUDGET = 1024
"""Most tokens of the input (chosen: with the answer it fits the 2,048 that small models read)."""

LISTED = 20
"""Most labels that an instruction lists, and _LABEL the characters of the longest (Dynosaur: 10, and 15)."""

_LABEL = 40
_OPTIONS = frozenset("option options choice choices alternatives candidates endings".split())  # noqa: SIM905
_QUESTIONS = frozenset("question query problem".split())  # noqa: SIM905
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LETTERED = re.compile(r"^\s*\(?[A-Za-z]\s*[).:]\s*")
_SHORT = 200
"""Characters up to which a field is never cut (chosen: a question, a name, a label)."""


def instruction_of(proposal: Proposal) -> str:
    """Return the instruction with its list of answers, where there is a closed set short enough to list."""
    labels = proposal.labels
    if not 2 <= len(labels) <= LISTED or any(len(label) > _LABEL for label in labels):
        return proposal.instruction
    if all(label in proposal.instruction for label in labels) or _all_numbers(labels):
        return proposal.instruction
    listed = words()["labels"].replace("{{ labels }}", ", ".join(labels))
    return f"{proposal.instruction} {listed}"


def _all_numbers(labels: Sequence[str]) -> bool:
    return all(label.lstrip("+-").replace(".", "", 1).isdigit() for label in labels)


def instances(
    proposal: Proposal,
    meta: DatasetMeta,
    batches: Rows,
    budget: int = BUDGET,
    count: Callable[[str], int] | None = None,
) -> Iterator[list[Example | Dropped]]:
    """Yield, for each batch of rows, the examples of a task; `Dropped` for rows that give none.

    `budget`: most tokens of the input by `count` (without it, a token is three bytes). Rows are numbered
    within their split, so that an example says where it is from; its id depends on its texts alone.
    """
    maker = _Maker.of(proposal, meta, budget, count or (lambda text: len(text.encode()) // 3 + 1))
    numbers: dict[str, int] = {}
    for split, rows in batches:
        first = numbers.get(split, 0)
        numbers[split] = first + len(rows)
        yield [maker.example(row, split, first + i) for i, row in enumerate(rows)]


@dataclass(frozen=True, slots=True)
class _Maker:
    """What is the same for all rows of a task."""

    proposal: Proposal
    names: Mapping[str, Sequence[str]]
    titles: tuple[str, ...]
    optional: frozenset[str]
    kept: frozenset[str]
    spelled: Mapping[str, str]
    instruction: str
    origin: Origin
    source: Source
    budget: int
    count: Callable[[str], int]

    @classmethod
    def of(cls, proposal: Proposal, meta: DatasetMeta, budget: int, count: Callable[[str], int]) -> _Maker:
        paths = proposal.input_fields
        lists = {one.name for one in meta.fields if one.type.startswith("list<")}
        optional = frozenset(
            p for p in paths if names_in(p)[-1:] and names_in(p)[-1] in _OPTIONS and p in lists
        )
        asked = frozenset(p for p in paths if _QUESTIONS & set(names_in(p)))
        text = instruction_of(proposal)
        template = mark_of(proposal.task_name, proposal.id)
        return cls(
            proposal=proposal,
            names={one.name: one.labels for one in meta.fields if one.type == "label"},
            titles=tuple(plain_name(path).capitalize() for path in paths),
            optional=optional,
            kept=optional | asked,
            spelled={fold(label): label for label in proposal.labels},
            instruction=f"{escape(text)}\n\n{PLACEHOLDER}",
            origin=Origin("dynosaur", template, proposal.model, proposal.call),
            source=Source(dataset=meta.name, config=meta.config, licence=meta.licence, url=meta.uri),
            budget=budget,
            count=count,
        )

    def example(self, row: Mapping[str, Any], split: str, number: int) -> Example | Dropped:
        """Return the example of one row, or why there is none."""
        source = Source(
            dataset=self.source.dataset,
            config=self.source.config,
            split=split,
            row=number,
            licence=self.source.licence,
            url=self.source.url,
        )
        path = self.proposal.output_field
        value = named(value_at(row, path), path, self.names)
        given = {name: named(value_at(row, name), name, self.names) for name in self.proposal.input_fields}
        options = next((_options(given[name]) for name in given if name in self.optional), ())
        index = _index(value, options)
        output = _LETTERS[index] if index is not None and _is_number(value) else as_text(value)
        if self.spelled and output and not options:
            output = self.spelled.get(fold(output), "")
            if not output:
                return self._lost(source, Reason.OFF_LABEL, f"{as_text(value)[:40]!r} is none of the answers")
        if not output:
            return self._lost(source, Reason.NULL_TEXT, f"{path!r} is empty")
        texts = {name: self._text(name, given[name]) for name in given}
        missing = next((name for name, text in texts.items() if not text), None)
        if missing is not None:
            return self._lost(source, Reason.NULL_TEXT, f"{missing!r} is empty")
        context = self._fitted(texts)
        if context is None:
            return self._lost(
                source, Reason.OVER_CONTEXT, f"question and options are over {self.budget} tokens"
            )
        name = content_id("dynosaur", self.proposal.id, context, output)
        return Example(
            name,
            self.proposal.task_name or "task",
            context,
            self.instruction,
            output,
            options,
            index,
            source=source,
            origin=self.origin,
        )

    def _lost(self, source: Source, reason: Reason, detail: str) -> Dropped:
        name = content_id("dynosaur", self.proposal.id, source.split, str(source.row))
        task = self.proposal.task_name or "task"
        row = Example(name, task, "", self.instruction, "", source=source, origin=self.origin)
        return Dropped(row, "instances", reason, f"row {source.row}: {detail}")

    def _text(self, name: str, value: Any) -> str:
        if name in self.optional:
            return "\n".join(f"{_LETTERS[i]}. {one}" for i, one in enumerate(_options(value)))
        return as_text(value)

    def _joined(self, texts: Mapping[str, str]) -> str:
        if len(texts) == 1:
            return next(iter(texts.values()))
        lines = []
        for title, (name, text) in zip(self.titles, texts.items(), strict=True):
            lines.append(f"{title}:\n{text}" if name in self.optional else f"{title}: {text}")
        return "\n".join(lines)

    def _fitted(self, texts: dict[str, str]) -> str | None:
        """Return the input within the budget, None where what must not be cut is over it."""
        whole = self._joined(texts)
        # No token is shorter than a byte, so most rows need not be counted.
        if len(whole) * 4 <= self.budget or self.count(whole) <= self.budget:
            return whole
        free = [name for name in texts if name not in self.kept and len(texts[name]) > _SHORT]
        for _ in range(32):
            if not free:
                break
            longest = max(free, key=lambda name: (len(texts[name]), name))
            over = self.count(self._joined(texts)) - self.budget
            if over <= 0:
                return self._joined(texts)
            own = texts[longest]
            share = min(over / max(self.count(own), 1) + 0.02, 0.9)
            texts[longest] = _cut(own, max(int(len(own) * (1 - share)), _SHORT // 2))
            free = [name for name in free if len(texts[name]) > _SHORT]
        whole = self._joined(texts)
        return whole if self.count(whole) <= self.budget else None


def _cut(text: str, length: int) -> str:
    """Return the text's beginning, up to the end of a sentence or at least of a word, marked as cut."""
    head = text[:length]
    end = max(head.rfind(". "), head.rfind("? "), head.rfind("! "), head.rfind("\n"))
    if end < length // 2:
        end = head.rfind(" ") - 1 if head.rfind(" ") > length // 2 else length - 1
    return head[: end + 1].rstrip() + " …"


def _options(value: Any) -> tuple[str, ...]:
    """Return the options of a list without the letters they may have."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return ()
    texts = [as_text(one) for one in value][: len(_LETTERS)]
    lettered = [_LETTERED.sub("", text) for text in texts]
    own = all(text.lstrip(" (")[:1].upper() == _LETTERS[i] for i, text in enumerate(texts) if text)
    return tuple(lettered if own and lettered != texts and all(lettered) else texts)


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _index(value: Any, options: tuple[str, ...]) -> int | None:
    """Return which option an answer is: by its text, its letter or its number (from 0)."""
    if not options:
        return None
    text = as_text(value)
    if text in options:
        return options.index(text)
    if len(text) == 1 and text.upper() in _LETTERS[: len(options)]:
        return _LETTERS.index(text.upper())
    return value if _is_number(value) and 0 <= value < len(options) else None
