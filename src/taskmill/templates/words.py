"""Load `tasks.yaml` and render its wordings. Undefined slots are errors; templates reach no Python object."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from typing import Any

import minijinja

from taskmill.config import packaged
from taskmill.errors import ConfigError
from taskmill.record import Document

__all__ = ["ask", "begun", "instruction", "load", "register"]

_extra: dict[str, dict[str, Any]] = {}


@cache
def load() -> dict[str, dict[str, Any]]:
    """Return the wordings of all built-in task types: {task: {"ask": str, "instruction": [str, …]}}."""
    loaded: dict[str, dict[str, Any]] = packaged("taskmill.templates", "tasks.yaml")
    return loaded


def register(task: str, ask: str, instruction: list[str]) -> None:
    """Add the wordings of a task type that lives outside the package.

    The passage is put in front of `ask`, unless `ask` has a `{{ passage }}` slot of its own.
    """
    _extra[task] = {"ask": ask, "instruction": instruction}
    _environment.cache_clear()


def _quoted_passage(passage: str) -> str:
    # The same for every task type, so that an engine's prefix cache reads a passage once for all of them.
    return f"Passage:\n{passage}\n\n"


@cache
def _environment() -> tuple[minijinja.Environment, dict[str, tuple[str, int, bool]]]:
    """Return the templates and, per task: version hash, number of wordings, passage goes in front."""
    environment = minijinja.Environment(undefined_behavior="strict", keep_trailing_newline=False)
    versions = {}
    for task, entry in {**load(), **_extra}.items():
        environment.add_template(f"{task}/ask", entry["ask"].strip())
        for i, wording in enumerate(entry["instruction"]):
            # The placeholder is not a template slot: it stays in the instruction as it is.
            text = wording.strip().replace("{{context}}", "{% raw %}{{context}}{% endraw %}")
            environment.add_template(f"{task}/{i}", text)
        source = "\x1f".join([entry["ask"], *entry["instruction"]])
        version = hashlib.blake2b(source.encode(), digest_size=4).hexdigest()
        own = "passage" in environment.undeclared_variables_in_template(f"{task}/ask")
        versions[task] = (version, len(entry["instruction"]), not own)
    return environment, versions


def _find(task: str) -> tuple[minijinja.Environment, str, int, bool]:
    environment, versions = _environment()
    if task not in versions:
        raise ConfigError(
            f"task type {task!r} has no wordings; add it to templates/tasks.yaml or register them"
        )
    return environment, *versions[task]


def ask(
    task: str, document: Document, fields: Mapping[str, str], attributes: Any, labels: tuple[str, ...]
) -> tuple[str, str]:
    """Return (chat prompt, template name#hash) for a passage."""
    environment, version, _, in_front = _find(task)
    passage = document.text.strip()
    text = environment.render_template(
        f"{task}/ask",
        passage=passage,
        title=document.title,
        labels=list(labels),
        language=attributes.language,
        count=attributes.count,
        **fields,
    )
    return (_quoted_passage(passage) + text if in_front else text), f"{task}/ask#{version}"


def instruction(task: str, choice: int, slots: Mapping[str, str]) -> tuple[str, str]:
    """Return (instruction, template name#hash) in wording `choice` modulo the number of wordings."""
    environment, version, wordings, _ = _find(task)
    i = choice % wordings
    return environment.render_template(f"{task}/{i}", **slots), f"{task}/{i}#{version}"


_OPEN = "\x1e"  # stands for a slot without a value; no wording and no text holds it


def begun(task: str, choice: int, known: Mapping[str, str]) -> tuple[str, str | None, str] | None:
    """Return a wording cut at its first slot without a value: (text before, text behind, name#hash).

    It is wording `choice`, or the next in which something stands before the cut, and all that is known but
    labels and options: who goes on from there has to see what it is about. The text behind is None where
    every slot is known, and " " where more than one is not (it cannot be told yet). None for a task type
    without wordings of its own.
    """
    environment, versions = _environment()
    if task not in versions:
        return None
    version, wordings, _ = versions[task]
    order = [(choice + i) % wordings for i in range(wordings)]
    number = next((i for i in order if _known_comes_first(task, i, known)), order[0])
    slots = environment.undeclared_variables_in_template(f"{task}/{number}")
    text = environment.render_template(f"{task}/{number}", **{s: known.get(s, _OPEN) for s in slots})
    before, *behind = text.split(_OPEN)
    rest = None if not behind else behind[0] if len(behind) == 1 else " "
    return before, rest, f"{task}/{number}#{version}"


def _known_comes_first(task: str, number: int, known: Mapping[str, str]) -> bool:
    environment, _ = _environment()
    name = f"{task}/{number}"
    slots = environment.undeclared_variables_in_template(name)
    marks = {slot: f"\x1f{slot}\x1f" for slot in slots if slot in known and slot not in ("labels", "options")}
    shown = environment.render_template(name, **{s: marks.get(s, "" if s in known else _OPEN) for s in slots})
    early = shown.partition(_OPEN)[0]
    return bool(early) and all(mark in early for mark in marks.values())
