"""The contributor's kit: the checks our own tests run on our plug-ins, to be run on yours.

    from taskmill.testing import check_task
    check_task(MyTask())

Each raises AssertionError with what is wrong and the text that showed it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from taskmill.record import Document, Example, content_id
from taskmill.render import PLACEHOLDER, has_marker, has_placeholder
from taskmill.tasks.base import Ask, Attributes, Draft, Rejected, TaskType

__all__ = ["GARBAGE", "HOSTILE", "PASSAGE", "check_task"]

PASSAGE = (
    "The harbour of Lindale was built in 1874 by the engineer Marta Quist. It shelters about forty "
    "fishing boats from the western storms. In winter the fishermen repair their nets in the old "
    "rope works, because they cannot leave the coast for weeks. The town council opened a small "
    "museum there last spring, and visitors can watch how a net is tied."
)
"""A passage every built-in task type can work on: sentences, a name, a number, pronouns."""

HOSTILE = (
    "Before <|pipe|> after. The <|task|> marker and <|context|> stand in this sentence, too.",
    "A template says {{context}} or {{ context }}. It keeps its braces when it is read again.",
    "🎣🚢 boats 🎣🚢 sail. They come back 🌊 before the night falls over the bay.",
    "بني الميناء في عام ١٨٧٤. وهو يحمي قوارب الصيد من العواصف. هل يزوره الناس؟ نعم، في الصيف.",
    "港口建于1874年。它保护渔船免受风暴袭击。冬天，渔民在旧绳厂里修补渔网，因为他们不能出海。",
    "word",
    "…",
    "\u2060<\u2060|pipe|>\n\n\n- \n1. \n",
    "He said it would hold; they said it would not. " * 2200,
)
"""Passages that break careless code: markers, placeholders, other scripts, one word, 100,000 characters."""

GARBAGE = (
    "",
    "   \n\n ",
    "lorem",
    "lorem ipsum dolor sit amet " * 400,
    "<|pipe|>",
    "a <|pipe|> b <|pipe|> c",
    "<|tasktype|>\nx\n<|context|>\ny\n<|task|>\nz",
    "{{context}}\n<|pipe|>\n{{context}}",
    "```json\n{",
    "[1, 2]",
    "[" * 5000,
    '{"question": null, "answer": ["a", 1]}',
    "Question:\nAnswer:\nOptions:\n",
    ":" * 10_000,
    "```" + " " * 10_000,
)
"""Replies that no task can use."""


def check_task(task: TaskType, passage: str = PASSAGE, attributes: Attributes | None = None) -> None:
    """Assert that a task type keeps its contract on `passage` and survives hostile passages and garbage."""
    attributes = attributes or Attributes()
    document = _document(passage)
    for protocol in ("chat", "bonito"):
        ask = task.ask(document, protocol, seed=1, attributes=attributes)
        assert isinstance(ask, Ask), f"{task.name} cannot ask about the sample passage: {ask}"
        assert task.ask(document, protocol, seed=1, attributes=attributes) == ask, (
            f"{task.name}: the same document and seed gave two different asks"
        )
        for form, reply in _replies(task, ask):
            _check_reply(task, ask, form, reply)
        for reply in GARBAGE:
            _check_garbage(task, ask, reply)
    for hostile in HOSTILE:
        _check_hostile(task, hostile, attributes)


def _document(text: str) -> Document:
    return Document(content_id(text), text)


def _example(task: TaskType, draft: Draft, document: Document) -> Example:
    return Example(
        "example",
        task.name,
        document.text.strip(),
        draft.instruction,
        draft.response,
        draft.options,
        draft.answer_index,
        draft.rationale,
    )


def _replies(task: TaskType, ask: Ask) -> Iterator[tuple[str, str]]:
    """Yield the task's own sample in every form a generator may write it."""
    parts = task.sample(ask)
    assert set(parts) <= set(task.parts), f"{task.name}.sample gives {sorted(parts)}, parts are {task.parts}"
    if ask.protocol == "bonito":
        draft = task.build(parts, ask)
        assert isinstance(draft, Draft), f"{task.name}.build rejects its own sample: {draft}"
        yield "bonito wire", f"{draft.instruction}\n<|pipe|>\n{draft.response}"
        return
    as_json = json.dumps(parts, ensure_ascii=False)
    yield "labelled lines", "\n".join(f"{name.capitalize()}: {text}" for name, text in parts.items())
    yield "JSON", as_json
    yield "fenced JSON", f"```json\n{as_json}\n```"
    yield "a JSON list", f"[{as_json}]"


def _check_reply(task: TaskType, ask: Ask, form: str, reply: str) -> None:
    outcomes = task.parse(reply, ask)
    said = f"{task.name}, its sample as {form}: {reply[:200]!r}"
    assert len(outcomes) == 1, f"{said} gave {len(outcomes)} outcomes, expected one"
    (draft,) = outcomes
    assert isinstance(draft, Draft), f"{said} was not parsed: {draft}"
    example = _example(task, draft, ask.document)
    wrong = task.check(example)
    assert wrong is None, f"{said} was parsed, then rejected: {wrong}\ninstruction: {draft.instruction!r}"
    gold = task.grade(example.response, example)
    assert gold == 1.0, f"{said}: the right answer is graded {gold}, expected 1.0"
    others = [o for i, o in enumerate(example.options) if i != example.answer_index]
    other = others[0] if others else "nothing of the kind, zzz"
    grade = task.grade(other, example)
    assert 0.0 <= grade < 1.0, f"{said}: the wrong answer {other!r} is graded {grade}, expected under 1.0"


def _check_garbage(task: TaskType, ask: Ask, reply: str) -> None:
    for outcome in task.parse(reply, ask):
        if isinstance(outcome, Draft):
            example = _example(task, outcome, ask.document)
            task.check(example)
            task.grade(reply, example)
        else:
            assert isinstance(outcome, Rejected), f"{task.name}.parse returned {type(outcome).__name__}"


def _check_hostile(task: TaskType, passage: str, attributes: Attributes) -> None:
    document = _document(passage)
    for protocol in ("chat", "bonito"):
        ask = task.ask(document, protocol, seed=1, attributes=attributes)
        if isinstance(ask, Rejected):
            continue
        for name, text in task.sample(ask).items():
            assert isinstance(text, str), f"{task.name}.sample gives no text for {name!r}"
        draft = task.build(task.sample(ask), ask)
        if isinstance(draft, Rejected):
            continue
        assert not has_marker(draft.instruction), (
            f"{task.name}: a raw marker of the passage is in the instruction {draft.instruction[:200]!r}"
        )
        # One placeholder is the wording's own.
        rest = draft.instruction.replace(PLACEHOLDER, "", 1)
        assert not has_placeholder(rest), (
            f"{task.name}: a placeholder of the passage is in the instruction {draft.instruction[:200]!r}"
        )
        task.check(_example(task, draft, document))
