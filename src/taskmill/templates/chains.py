"""Load `chains.yaml` and render its wordings. Undefined slots are errors."""

from __future__ import annotations

from functools import cache
from typing import Any

import minijinja

from taskmill.config import packaged

__all__ = ["load", "render"]


@cache
def load() -> dict[str, list[Any]]:
    """Return the wordings of every kind: texts, or mappings of texts."""
    loaded: dict[str, list[Any]] = packaged("taskmill.templates", "chains.yaml")
    return loaded


@cache
def _environment() -> minijinja.Environment:
    environment = minijinja.Environment(undefined_behavior="strict", keep_trailing_newline=True)
    for kind, wordings in load().items():
        for i, wording in enumerate(wordings):
            for part, text in (wording if isinstance(wording, dict) else {"": wording}).items():
                environment.add_template(f"{kind}/{i}/{part}", text)
    return environment


def render(kind: str, number: int, part: str = "", /, **slots: Any) -> str:
    """Return wording `number` of a kind (its `part`, where it has several), its slots filled."""
    return _environment().render_template(f"{kind}/{number}/{part}", **slots)
