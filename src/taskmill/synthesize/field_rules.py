"""Tasks proposed without a model: what fields are called, their types and closed sets of values decide.

The words are those of `templates/grow.yaml`. A field's role is told by the last word of its name:
`story_name` is a name, `claim_label` a label. A field that fits no role is used as text, or in a table's row.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import minijinja

from taskmill.config import packaged
from taskmill.ids import draw
from taskmill.record import DatasetMeta, FieldMeta
from taskmill.synthesize.proposals import Proposal
from taskmill.templates.values import names_in, plain_name

__all__ = ["MOST_TASKS", "is_named", "propose_by_rule", "words"]

MOST_TASKS = 6
"""Most tasks of one configuration (Dynosaur: two calls of up to three)."""

MOST_READ = 4
"""Most texts that a class is told from (chosen: a word, its sentence, its definition and a hint)."""

LONG = 120
"""Characters of a sample from which a field is a text to read (chosen: more than a question or a name)."""

_ROLES = {
    "question": "question query problem",
    "context": "context passage story paragraph article document dialogue dialog conversation transcript",
    "answer": "answer answers solution response completion reply",
    "options": "choices options choice endings candidates alternatives",
    "summary": "summary highlights tldr",
    "title": "title headline",
    "rationale": "rationale explanation reasoning justification",
}
_ROLE_OF = {word: role for role, words in _ROLES.items() for word in words.split()}
_NO_TARGET = frozenset(
    """
    split lang language source dataset version subset id index template file worker year date question
    """.split()  # noqa: SIM905
)
"""Last words of names of closed fields that say where a row is from, not what it says (chosen)."""
_RATINGS = frozenset("stars star rating score grade".split())  # noqa: SIM905
_SAYS_NOTHING = frozenset("target source string input output content body data value marked".split())  # noqa: SIM905
_MANY = frozenset("label labels tags categories topics genres keywords".split())  # noqa: SIM905
_PAIRS = (
    ("premise", "hypothesis"),
    ("sentence", "paraphrase"),
    ("original", "simplified"),
    ("claim", "evidence"),
)
_ENDS = (("1", "2"), ("a", "b"), ("one", "two"))

_CODE = re.compile(r"[+-]?\d+(?:\.\d+)?|[A-Za-z]{1,8}[ _-]?\d+")
"""Values that name nothing: `1`, `type2`."""

Task = tuple[str, dict[str, str], tuple[str, ...], str]
"""(name, slots, input fields, output field)"""


@cache
def words() -> dict[str, Any]:
    """Return the words of `templates/grow.yaml`."""
    loaded: dict[str, Any] = packaged("taskmill.templates", "grow.yaml")
    return loaded


def propose_by_rule(meta: DatasetMeta) -> list[Proposal]:
    """Return up to MOST_TASKS tasks over a dataset; none where no field is fit to be an answer."""
    found: list[Proposal] = []
    for name, slots, inputs, output in _tasks(_roles(meta)):
        if len(found) == MOST_TASKS or output in inputs or not inputs:
            continue
        wordings = words()["rules"][name]
        at = draw(0, f"{meta.key} {inputs} {output}", f"wording {name}") % len(wordings)
        labels = next((field.labels for field in meta.fields if field.name == output), ())
        text = minijinja.Environment().render_str(wordings[at], **slots)
        found.append(
            Proposal(meta.name, meta.config, name, text, inputs, output, labels, mode="rules", model="rules")
        )
    return found


@dataclass(frozen=True, slots=True)
class _Roles:
    """The fields of a dataset by what they are for: first of each role, all labels, texts and others."""

    by: dict[str, FieldMeta]
    labels: list[FieldMeta]
    texts: list[FieldMeta]
    pair: tuple[FieldMeta, FieldMeta] | None
    rest: list[FieldMeta]
    spans: bool


def is_named(field: FieldMeta) -> bool:
    """Say whether a closed field's values are words, or ratings, and not numbers that stand for something."""
    if not field.labels or (set(names_in(field.name)[-1:]) & _RATINGS and field.type != "label"):
        return bool(field.labels)
    return not all(_CODE.fullmatch(label) for label in field.labels)


def _roles(meta: DatasetMeta) -> _Roles:
    usable = [field for field in meta.fields if not field.hidden]
    by: dict[str, FieldMeta] = {}
    labels: list[FieldMeta] = []
    texts: list[FieldMeta] = []
    rest: list[FieldMeta] = []
    for field in usable:
        last = next((word for word in reversed(names_in(field.name)) if word.isalpha()), "")
        role = _ROLE_OF.get(last, "")
        if role and role not in by and _fits(field, role):
            by[role] = field
        if field.labels:
            if is_named(field) and last not in _NO_TARGET:
                labels.append(field)
        elif field.type in ("text", "list<text>") and last not in _NO_TARGET:
            (labels if field.type == "list<text>" and last in _MANY else texts).append(field)
        if field.labels or field.type in ("text", "int", "float", "bool", "time"):
            rest.append(field)
    starts = any({"start", "starts"} & set(names_in(field.name)) for field in usable)
    return _Roles(by, labels, texts, _pair(texts), rest, starts)


def _fits(field: FieldMeta, role: str) -> bool:
    if role in ("question", "context", "summary", "title", "rationale"):
        return not field.labels and field.type in ("text", "list<text>")
    if role == "options":
        return field.type == "list<text>" or _inner(field) != ""
    return field.type in ("text", "int", "float", "bool", "label", "list<text>") or _inner(field) != ""


def _inner(field: FieldMeta) -> str:
    """Return the part of a nested field that holds its texts (SQuAD's `answers.text`), or ""."""
    for name in ("text", "label", "answer", "value"):
        if field.type.startswith("struct<") and f"{name}: list<text>" in field.type:
            return f"{field.name}.{name}"
        if field.type.startswith("list<struct<") and f"{name}: text" in field.type:
            return f"{field.name}.{name}"
    return ""


def _path(field: FieldMeta) -> str:
    """Return where one answer stands: the first of several."""
    inner = _inner(field)
    return f"{inner}[0]" if inner else f"{field.name}[0]" if field.type == "list<text>" else field.name


def _pair(texts: list[FieldMeta]) -> tuple[FieldMeta, FieldMeta] | None:
    named = {"".join(names_in(field.name)): field for field in texts}
    for one, other in _PAIRS:
        if one in named and other in named:
            return named[one], named[other]
    for name, field in named.items():
        for one, other in _ENDS:
            stem = name.removesuffix(one)
            if stem not in ("", name, *_ROLES["options"].split()) and stem + other in named:
                return field, named[stem + other]
    return None


def _said(field: FieldMeta, otherwise: str = "text") -> str:
    """Return what a field is called in an instruction; another word where its name says nothing."""
    words = plain_name(field.name).split()
    speaks = any(len(word) > 2 and word.isalpha() for word in words) and words[-1] not in _SAYS_NOTHING
    return " ".join(words) if speaks else otherwise


def _a(name: str) -> str:
    return f"{'an' if name[:1] in 'aeiou' else 'a'} {name}"


def _tasks(roles: _Roles) -> Iterator[Task]:
    question = roles.by.get("question")
    if question is not None:
        yield from _about_a_question(roles, question)
    yield from _about_a_pair(roles)
    yield from _about_a_text(roles)
    values = sum(field.type != "text" or bool(field.labels) for field in roles.rest)
    if values >= 3 and values > 2 * len(roles.texts) and not any(_is_long(field) for field in roles.texts):
        yield from _about_a_row(roles)


def _about_a_question(roles: _Roles, question: FieldMeta) -> Iterator[Task]:
    context, answer, options = (roles.by.get(role) for role in ("context", "answer", "options"))
    if options is not None:
        closed_ones = [
            field for field in roles.labels if names_in(field.name)[-1] in ("label", "answer", "gold")
        ]
        answer = next(iter(closed_ones), answer)
    if answer is None:
        return
    slots = {"question": _said(question, "question"), "answer": "answer", "a_question": _a(_said(question))}
    before = (context.name,) if context is not None else ()
    slots |= {"context": _said(context)} if context is not None else {}
    asked, said = (*before, question.name), _path(answer)
    closed = {label.casefold() for label in answer.labels}
    if options is not None:
        listed = _inner(options) or options.name
        yield "multiple_choice_qa", slots, (*asked, listed), said
    elif context is None:
        yield "question_answering", slots, asked, said
    else:
        short = closed and closed <= {"yes", "no", "true", "false", "maybe"}
        spans = "start" in answer.type or roles.spans
        yield "extractive_qa" if spans and not short else "yes_no_qa", slots, asked, said
    rationale = roles.by.get("rationale")
    if rationale is not None:
        yield "rationale", slots, (*asked, said), rationale.name
    if closed or options is not None:
        return
    if context is not None:
        yield "question_generation", slots, (*before, said), question.name
    else:
        yield "question_inversion", slots, (said,), question.name


def _about_a_pair(roles: _Roles) -> Iterator[Task]:
    if roles.pair is None or "question" in roles.by:
        return
    first, second = roles.pair
    slots = {"first": _said(first), "second": _said(second)}
    stems = [name.rpartition(" ")[0] for name in slots.values()]
    if len(set(slots.values())) == 1 or (
        stems[0] and stems[0] == stems[1]
    ):  # text 1 and text 2, text a and b
        slots = {place: f"{place} {stems[0] or 'text'}" for place in slots}
    slots["a_second"] = _a(slots["second"])
    if not roles.labels:
        if not stems[0]:  # what two numbered texts have to do with each other, their names do not tell
            yield "rewrite", slots, (first.name,), second.name
        return
    label = roles.labels[0]
    slots["label"] = _said(label, "label")
    yield "entailment", slots, (first.name, second.name), label.name
    yield "write_second", slots, (first.name, label.name), second.name


def _is_long(field: FieldMeta) -> bool:
    return any(len(sample) >= LONG for sample in field.samples)


def _about_a_text(roles: _Roles) -> Iterator[Task]:
    summary, title = roles.by.get("summary"), roles.by.get("title")
    taken = {field.name for role, field in roles.by.items() if role != "context"}
    taken |= {field.name for field in roles.pair or ()}
    texts = [field for field in roles.texts if field.name not in taken]
    texts.sort(key=lambda field: not _is_long(field))  # stable: long ones first, else in order
    text = roles.by.get("context") or next(iter(texts), None)
    if text is None:
        return
    name = _said(text)
    if summary is not None:
        slots = {"text": name, "a_text": _a(name), "summary": _said(summary)}
        yield "summarization", slots, (text.name,), _path(summary)
        yield "expansion", slots, (_path(summary),), text.name
    if title is not None and _is_long(text):
        yield "title_generation", {"text": name, "title": _said(title)}, (text.name,), title.name
    if "question" in roles.by or roles.pair is not None or not _is_sentence(text):
        return
    read = [text, *(field for field in texts if field is not text)][:MOST_READ]
    slots = {"text": name if len(read) == 1 else "text", "a_text": _a(name)}
    for label in roles.labels[:2]:
        own = slots | {"label": _said(label, "label")}
        yield "classification", own, tuple(field.name for field in read), label.name
    if roles.labels and len(read) == 1:
        yield (
            "describe",
            slots | {"label": _said(roles.labels[0], "label")},
            (roles.labels[0].name,),
            text.name,
        )


def _is_sentence(field: FieldMeta) -> bool:
    return any(len(sample.split()) >= 4 for sample in field.samples)


def _about_a_row(roles: _Roles) -> Iterator[Task]:
    for label in roles.labels[:2]:
        inputs = tuple(field.name for field in roles.rest if field.name != label.name)[:12]
        if len(inputs) >= 2:
            yield "table_row", {"label": _said(label, "label")}, inputs, label.name
