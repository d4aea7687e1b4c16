"""Remixing (Bonito §CTGA): annotated rows become (passage, task type) → (instruction, response) examples.

Upstream recast 323 templates of P3 by regular expressions; here a declaration names the passage, and
three kinds of sources make tasks of it: the wordings of `templates/tasks.yaml` filled from columns,
constructions by rule, and templates over the columns ("instruction ||| response", the public prompt
collections included) whose Jinja tree tells where they quote the passage. Each row of output is read
back as a generator's reply would be, so that the corpus holds nothing the product could not parse.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any

import minijinja

from taskmill.errors import ConfigError, InputError
from taskmill.record import Document, Dropped, Example, Origin, Reason, Source, content_id, draw
from taskmill.registry import nearest
from taskmill.render import bonito_completion, escape, fill
from taskmill.synthesize.constructions import NEEDS, Cast, construct
from taskmill.synthesize.declaration import Declaration, OwnTemplate
from taskmill.synthesize.rewriting import Row, cased
from taskmill.tasks import get
from taskmill.tasks.base import Ask, Draft, Rejected
from taskmill.tasks.labels import LabelType
from taskmill.tasks.passage import sentences
from taskmill.templates import words
from taskmill.templates.recast import Recast, recast

__all__ = ["Remix", "window"]

_SHORTEST = 20  # characters; chosen: less is no passage to ask about


def window(text: str, size: int, at: int, turn: int = 0) -> str:
    """Return whole sentences of the text around character `at`, about `size` characters of them.

    They are added before and after by turns; `turn` says how many after come first, so that what
    was looked for does not always stand in the middle.
    """
    if len(text) <= size:
        return text
    found = sentences(text)
    spans, end = [], 0
    for sentence in found:
        start = text.index(sentence, end)
        end = start + len(sentence)
        spans.append((start, end))
    middle = next((i for i, (_, e) in enumerate(spans) if at < e), len(spans) - 1)
    first = last = middle
    while True:
        ahead = last + 1 < len(spans) and spans[last + 1][1] - spans[first][0] <= size
        back = first > 0 and spans[last][1] - spans[first - 1][0] <= size
        if not ahead and not back:
            return text[spans[first][0] : spans[last][1]]
        if ahead and (turn > 0 or not back):
            last, turn = last + 1, turn - 1
        else:
            first, turn = first - 1, 1


def sentence_at(text: str, offset: int) -> str:
    """Return the sentence of the text in which character `offset` stands, on one line, or ""."""
    end = 0
    for sentence in sentences(text):
        end = text.index(sentence, end) + len(sentence)
        if offset < end:
            return " ".join(sentence.split())
    return ""


def bare_option(option: str) -> str:
    """Return an option without its letter ("(A)green." → "green")."""
    return _LETTER.sub("", option.strip()).strip().rstrip(".")


_LETTER = re.compile(r"^(?:\([A-Ea-e]\)\s*)?(?:[A-E][.)]\s*)*")
_FUNCTIONS = {"sentence_at": sentence_at, "bare_option": bare_option, "cased": cased}
"""What expressions of a declaration may call besides MiniJinja's own filters."""


@lru_cache(maxsize=1)
def _environment() -> minijinja.Environment:
    return minijinja.Environment(undefined_behavior="strict", fuel=1_000_000, globals=dict(_FUNCTIONS))


@dataclass(frozen=True, slots=True)
class _Template:
    task: str
    name: str
    recast: Recast


class Remix:
    """Turns rows of one declared dataset into examples. Rows do not depend on each other or on order."""

    def __init__(self, declaration: Declaration, seed: int, templates: tuple[OwnTemplate, ...] = ()) -> None:
        """`templates` are added to the declaration's own (a prompt collection's).

        Raises ConfigError for a template that does not quote the passage.
        """
        self.declaration = declaration
        self.seed = seed
        self._seen = False
        self._templates = tuple(self._template(t) for t in (*declaration.templates, *templates))

    def _template(self, own: OwnTemplate) -> _Template:
        where = f"{self.declaration.key}: template {own.name!r}"
        found = recast(own.text, self.declaration.passage, answer_choices=own.answer_choices, name=own.name)
        if found is None:
            raise ConfigError(f"{where} does not quote the passage {self.declaration.passage!r}")
        version = content_id(own.text)[:8]
        return _Template(get(own.task).name, f"{self.declaration.key}/{own.name}#{version}", found)

    # one row

    def examples(self, row: Mapping[str, Any], number: int, uri: str = "") -> Iterator[Example | Dropped]:
        """Yield what a row gives, `Dropped` with the reason for what it does not.

        Raises ConfigError where an expression names a column that does not exist.
        """
        if not self._seen:
            self._check_names(row)
            self._seen = True
        name = f"{self.declaration.key}#{number}"  # not the file: draws are the same in any format
        source = self._source(number, uri)
        try:
            columns = self._columns(row)
            if self.declaration.where and not self._value("where", self.declaration.where, columns):
                yield self._lost(name, source, Reason.NOT_APPLICABLE, "outside the declaration's `where`")
                return
            passage = self._passage(columns, name)
        except _NullError as error:
            yield self._lost(name, source, Reason.NULL_TEXT, str(error))
            return
        if len(passage) < _SHORTEST:
            yield self._lost(name, source, Reason.TOO_SHORT, f"the passage has {len(passage)} characters")
            return
        columns["passage"] = passage
        made = chain(
            self._filled(columns, passage, name),
            self._constructed(columns, passage, name),
            self._recast(columns, passage, name),
        )
        empty = True
        for outcome in made:
            empty = False
            yield self._finish(outcome, source, name)
        if empty:
            yield self._lost(name, source, Reason.NOT_APPLICABLE, "no task of the declaration fits the row")

    def sibling(self, row: Mapping[str, Any]) -> Any:
        """Return what a row shows to the rows of its group (`siblings.of`), None where it is null."""
        try:
            columns = self._columns({**row, "siblings": []})
            return self._value("siblings.of", self.declaration.siblings.get("of", ""), columns)
        except _NullError:
            return None

    def group(self, row: Mapping[str, Any]) -> str:
        """Return the group of a row (`siblings.by`: an expression over the columns)."""
        by = self.declaration.siblings.get("by", "")
        self._check_name("siblings.by", by, {*row, *_FUNCTIONS})
        return str(self._value("siblings.by", by, row))

    def _source(self, number: int, uri: str) -> Source:
        d = self.declaration
        return Source(dataset=d.name, config=d.config, split=d.split, row=number, licence=d.licence, url=uri)

    def _check_names(self, row: Mapping[str, Any]) -> None:
        """Raise ConfigError if an expression names what is neither a column of the row nor declared."""
        d = self.declaration
        known = {*row, *_FUNCTIONS}
        for name, expression in d.let.items():
            self._check_name(f"let.{name}", expression, known)
            known.add(name)
        self._check_name("passage", d.passage, known)
        known.add("passage")
        places = {"where": d.where, "anchor": d.anchor}
        for task, slots in d.tasks.items():
            places |= {f"tasks.{task}.{slot}": expression for slot, expression in slots.items()}
        if d.siblings:
            known.add("siblings")
            places["siblings.of"] = d.siblings.get("of", "")
        for key, expression in places.items():
            self._check_name(key, expression, known)
        for construction in d.construct:
            missing = [c for c in NEEDS.get(construction, ()) if c not in known]
            if missing:
                raise ConfigError(
                    f"{d.key}: construct: {construction} reads {missing[0]!r}, which is neither a column "
                    "nor declared with `let` or `siblings`"
                )
        for template in self._templates:
            unknown = sorted(template.recast.columns - known)
            if unknown:
                there = ", ".join(sorted(known - set(_FUNCTIONS)))
                raise ConfigError(
                    f"{template.name}: no column {unknown[0]!r}.{nearest(unknown[0], known)} "
                    f"There are: {there}"
                )

    def _check_name(self, key: str, expression: str, known: set[str]) -> None:
        source = expression if "{{" in expression else "{{ " + expression + " }}"
        try:
            names = set(_environment().undeclared_variables_in_str(source)) if expression else set()
        except minijinja.TemplateError as error:
            raise ConfigError(f"{self.declaration.key}: {key}: {expression!r}: {error.message}") from None
        unknown = sorted(names - known)
        if unknown:
            there = ", ".join(sorted(known - set(_FUNCTIONS)))
            near = nearest(unknown[0], known)
            raise ConfigError(
                f"{self.declaration.key}: {key}: no column {unknown[0]!r}.{near} There are: {there}"
            )

    def _columns(self, row: Mapping[str, Any]) -> dict[str, Any]:
        columns = dict(row)
        for name, expression in self.declaration.let.items():
            columns[name] = self._value(f"let.{name}", expression, columns)
        return columns

    def _passage(self, columns: Mapping[str, Any], name: str) -> str:
        d = self.declaration
        try:
            text = str(_environment().render_str(d.passage, **columns)).strip()
        except minijinja.TemplateError as error:
            raise self._fault("passage", d.passage, columns, error) from None
        if text in ("none", "None"):
            raise _NullError("the passage is null")
        if not d.window or len(text) <= d.window:
            return text
        at = self._value("anchor", d.anchor, columns) if d.anchor else 0
        offset = at if isinstance(at, int) else text.find(str(at or ""))
        return window(text, d.window, max(offset, 0), draw(self.seed, name, "window") % 4).strip()

    def _value(self, key: str, expression: str, columns: Mapping[str, Any]) -> Any:
        try:
            return _environment().eval_expr(expression, **columns)
        except minijinja.TemplateError as error:
            raise self._fault(key, expression, columns, error) from None

    def _fault(self, key: str, expression: str, columns: Mapping[str, Any], error: Any) -> Exception:
        """Return the error for a broken expression, or the sign that a value it needs is null."""
        source = expression if "{{" in expression else "{{ " + expression + " }}"
        names = set(_environment().undeclared_variables_in_str(source))
        null = sorted(n for n in names if n not in _FUNCTIONS and columns.get(n) is None)
        if null:
            return _NullError(f"{key}: {', '.join(null)} is null")
        return ConfigError(f"{self.declaration.key}: {key}: {expression!r}: {error.message}")

    # the three sources of tasks

    def _filled(self, columns: Mapping[str, Any], passage: str, name: str) -> Iterator[Any]:
        for task, slots in self.declaration.tasks.items():
            try:
                if "when" in slots and not self._value(f"{task}.when", slots["when"], columns):
                    continue
                values = {
                    slot: self._value(f"{task}.{slot}", expression, columns)
                    for slot, expression in slots.items()
                    if slot != "when"
                }
            except _NullError as error:
                yield task, Rejected(Reason.NULL_TEXT, str(error))
                continue
            null = [slot for slot, value in values.items() if value is None]
            if null:
                yield task, Rejected(Reason.NULL_TEXT, f"{task}: {', '.join(null)} is null")
                continue
            texts = {slot: str(value).strip() for slot, value in values.items()}
            yield self._worded(Cast(get(task).name, passage, texts.pop("response"), texts), name)

    def _constructed(self, columns: Mapping[str, Any], passage: str, name: str) -> Iterator[Any]:
        # Drawn by what the task is about, not by the row: rows that share a passage give equal tasks,
        # and equal tasks are dropped as duplicates.
        about = f"{self.declaration.key}#{content_id(passage)}"
        for construction in self.declaration.construct:
            own = f"{about}#{columns.get('question')}" if construction in NEEDS else about
            for cast in construct(construction, Row(passage, columns, self.seed, own)):
                yield self._worded(cast, own)

    def _worded(self, cast: Cast, name: str) -> tuple[str, Draft | Rejected]:
        """Put a cast in a wording drawn for the row and read it back."""
        choice = draw(self.seed, name, f"wording {cast.task} {cast.how}")
        slots = {slot: escape(text) for slot, text in cast.slots.items()}
        try:
            instruction, template = words.instruction(cast.task, choice, slots)
        except minijinja.TemplateError as error:
            raise ConfigError(
                f"{self.declaration.key}: tasks.{cast.task} lacks a slot of its wordings (given: "
                f"{', '.join(slots) or 'none'}): {error.message}"
            ) from None
        if cast.how:
            template = f"{template}+{cast.how.replace(' ', '-')}"
        return cast.task, self._read(cast.task, cast.passage, instruction, cast.response, template)

    def _recast(self, columns: Mapping[str, Any], passage: str, name: str) -> Iterator[Any]:
        """Render one template of each task type, drawn for the row."""
        by_task: dict[str, list[_Template]] = {}
        for template in self._templates:
            by_task.setdefault(template.task, []).append(template)
        for task, templates in by_task.items():
            chosen = templates[draw(self.seed, name, f"template {task}") % len(templates)]
            try:
                made = chosen.recast.render(columns, seed=self.seed, row_id=name)
            except InputError as error:
                yield task, Rejected(Reason.NOT_APPLICABLE, str(error))
                continue
            if not made.response or not made.instruction:
                yield task, Rejected(Reason.EMPTY_REPLY, f"{chosen.name} has nothing to say about the row")
                continue
            yield task, self._read(task, passage, made.instruction, fill(made.response, passage), chosen.name)

    def _read(self, task: str, passage: str, instruction: str, response: str, template: str) -> Any:
        """Read an instruction with its response as a generator's reply is read."""
        if not response.strip():
            return Rejected(Reason.EMPTY_REPLY, f"{template}: the response is empty")
        document = Document(content_id(passage), passage)
        ask = Ask(task, "bonito", document, template=template, seed=self.seed)
        reply = bonito_completion(instruction, response, passage)
        outcome = get(task).parse(reply, ask)[0]
        if isinstance(outcome, Rejected):
            return outcome
        if isinstance(get(task), LabelType) and outcome.response != response.strip():
            detail = f"{template}: {response!r} was read back as {outcome.response!r}"
            return Rejected(Reason.OFF_LABEL, detail)
        return _Made(task, passage, outcome, template)

    # results

    def _finish(self, outcome: Any, source: Source, name: str) -> Example | Dropped:
        task, made = outcome
        if isinstance(made, Rejected):
            return self._lost(f"{name} {task} {made.detail}", source, made.reason, made.detail, task)
        draft = made.draft
        origin = Origin(method="remix", template=made.template, seed=self.seed)
        key = content_id(task, made.passage, draft.instruction, draft.response, *draft.options)
        return Example(
            key,
            task,
            made.passage,
            draft.instruction,
            draft.response,
            draft.options,
            draft.answer_index,
            source=source,
            origin=origin,
        )

    def _lost(self, name: str, source: Source, reason: Reason, detail: str, task: str = "") -> Dropped:
        row = Example(
            content_id(name), task, "", "", "", source=source, origin=Origin("remix", seed=self.seed)
        )
        return Dropped(row, "remix", reason, detail)


@dataclass(frozen=True, slots=True)
class _Made:
    task: str
    passage: str
    draft: Draft
    template: str


class _NullError(Exception):
    """A value that an expression needs is null in this row."""
