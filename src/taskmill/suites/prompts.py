"""Load `prompts.yaml` and assemble prompts: head, solved questions, question. Undefined slots are errors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import minijinja

from taskmill.config import packaged
from taskmill.suites.base import Item, Shot

__all__ = ["BLANK", "Prompt", "prompt"]

BLANK = "N/A"
"""What fills the slots of a content-free prompt (Zhao et al. 2021, 2102.09690)."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """The words around a benchmark's questions; `version` is a hash of them, `start` a cue standing alone."""

    name: str
    version: str
    phrasings: int
    stop: tuple[str, ...]
    start: str

    def render(self, item: Item, shots: Sequence[Shot] = (), phrasing: int = 0) -> str:
        """Return the prompt of an item behind `shots`, in wording `phrasing`."""
        return self._join(item.fields, shots, phrasing)

    def blank(self, item: Item, shots: Sequence[Shot] = (), phrasing: int = 0) -> str:
        """Return the prompt with no content in the place of the question: what calibration divides by."""
        return self._join(dict.fromkeys(item.fields, BLANK), shots, phrasing)

    def _join(self, fields: Mapping[str, str], shots: Sequence[Shot], phrasing: int) -> str:
        environment = _environment()
        block = f"{self.name}/{phrasing % self.phrasings}"
        parts = [environment.render_template(f"{self.name}/head", **fields)]
        for shot in shots:
            solved = {**fields, **shot.fields}
            answer = environment.render_template(f"{self.name}/answer", **solved)
            parts.append(environment.render_template(block, **solved) + answer)
        parts.append(environment.render_template(block, **fields))
        return "\n\n".join(part for part in parts if part.strip())


@cache
def _words() -> dict[str, dict[str, Any]]:
    loaded: dict[str, dict[str, Any]] = packaged("taskmill.suites", "prompts.yaml")
    return loaded


@cache
def _environment() -> minijinja.Environment:
    environment = minijinja.Environment(undefined_behavior="strict", keep_trailing_newline=True)
    for name, words in _words().items():
        environment.add_template(f"{name}/head", words["head"])
        environment.add_template(f"{name}/answer", words["answer"])
        for i, block in enumerate(words["blocks"]):
            environment.add_template(f"{name}/{i}", block)
    return environment


@cache
def prompt(name: str) -> Prompt:
    """Return a prompt by the name it has in prompts.yaml."""
    words = _words()[name]
    source = "\x1f".join([words["head"], *words["blocks"], words["answer"], *words["stop"]])
    version = hashlib.blake2b(source.encode(), digest_size=4).hexdigest()
    return Prompt(name, version, len(words["blocks"]), tuple(words["stop"]), words["start"])
