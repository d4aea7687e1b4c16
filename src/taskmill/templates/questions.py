"""Load `questions.yaml` and render what a judging model is asked. Undefined slots are errors."""

from __future__ import annotations

from functools import cache

import minijinja

from taskmill.config import packaged

__all__ = ["question"]


@cache
def _environment() -> minijinja.Environment:
    environment = minijinja.Environment(undefined_behavior="strict", keep_trailing_newline=False)
    wordings = packaged("taskmill.templates", "questions.yaml")
    for name, wording in wordings.items():
        environment.add_template(name, wording.strip())
    return environment


def question(check: str, *, passage: str, task: str, reply: str) -> str:
    """Return the question of a check about a task and its reply; `passage` is empty where there is none."""
    return _environment().render_template(check, passage=passage, task=task, reply=reply)
