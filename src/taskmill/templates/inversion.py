"""The other directions of a task, made from its fields: what was given is asked for, what was asked is given.

Without rationales each invertible field is asked for once, all others are given. With rationales the four
orders of question, answer and rationale are made (Flan requirements, R10; upstream writes each by hand and
has one in which the answer is input and target, P11).
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from typing import Any, NamedTuple

from taskmill.config import packaged
from taskmill.errors import UsageError
from taskmill.templates.schema import ROLES, Cluster, Template

__all__ = ["Direction", "bare", "directions", "inverted"]

_ORDER = ("context", "question", "answer", "rationale")
"""The order in which fields are shown: what is read first stands first."""


class Direction(NamedTuple):
    """The fields a row gives and those it asks for, each in the order of reading."""

    given: tuple[str, ...]
    asked: tuple[str, ...]

    @property
    def name(self) -> str:
        """Return "context+answer>question"."""
        return f"{'+'.join(self.given)}>{'+'.join(self.asked)}"


def _direction(given: Collection[str], asked: Collection[str]) -> Direction:
    return Direction(tuple(r for r in _ORDER if r in given), tuple(r for r in _ORDER if r in asked))


def directions(cluster: Cluster, has: Collection[str], *, cot: bool = False) -> tuple[Direction, ...]:
    """Return the inverted directions of a data set that `has` these fields, with rationales or without."""
    there = {role for role in has if role in cluster.fields} - {"options"}
    answer = cluster.asked
    given = there - {answer, "rationale"}
    open_fields = [r for r in _ORDER if r in given and cluster.fields[r].invertible]
    if not cot:
        return tuple(_direction((given - {role}) | {answer}, {role}) for role in open_fields)
    if "rationale" not in there:
        return ()
    found = [_direction(given | {answer}, {"rationale"})]
    for role in open_fields[-1:]:  # the question, or the context of a task without one
        rest = given - {role}
        found += [
            _direction(rest | {"rationale", answer}, {role}),
            _direction(rest | {"rationale"}, {role, answer}),
            _direction(rest | {answer}, {role, "rationale"}),
        ]
    return tuple(found)


@cache
def _shells() -> dict[str, list[dict[str, str]]]:
    loaded: dict[str, Any] = packaged("taskmill.templates", "inversions.yaml")
    return loaded


def inverted(cluster: Cluster, has: Collection[str], *, cot: bool = False) -> tuple[Template, ...]:
    """Return the templates of all inverted directions, each in every wording of `inversions.yaml`.

    Raises UsageError where the cluster declares no direction that these fields allow.
    """
    found = directions(cluster, has, cot=cot)
    if not found:
        needed = "a rationale" if cot else "an invertible field"
        raise UsageError(
            f"{cluster.name} cannot be inverted with {', '.join(sorted(has))}: it lacks {needed}; "
            "declare `invertible: true` for a field that can be asked for"
        )
    return tuple(
        Template(f"{direction.name}/{shell['name']}", *_filled(shell, direction, cluster))
        for direction in found
        for shell in _shells()["shells"]
    )


def bare(cluster: Cluster, has: Collection[str]) -> tuple[Template, ...]:
    """Return templates of the forward direction without any instruction: the fields and a cue."""
    given = {role for role in has if role in cluster.fields} - {cluster.asked, "rationale", "options"}
    direction = _direction(given, {cluster.asked})
    found = []
    for shell in _shells()["bare"]:
        text, target = _filled(shell, direction, cluster)
        slot = "{{ options }}"
        shown = _filled(
            {**shell, "text": shell["text"].replace("[given]", f"[given]\n{slot}")}, direction, cluster
        )
        found.append(Template(shell["name"], text, target, shown[0] if "options" in has else ""))
    return tuple(found)


def _filled(shell: dict[str, str], direction: Direction, cluster: Cluster) -> tuple[str, str]:
    """Return input and target of a shell in a direction."""
    called = {role: cluster.fields[role].called for role in ROLES if role in cluster.fields}
    lines = [_line(shell["line"], role, called[role]) for role in direction.given]
    asked = " and the ".join(called[role] for role in direction.asked)
    text = shell["text"].replace("[asked]", asked).replace("[Asked]", _capital(asked))
    text = text.replace("[given]", shell["between"].join(lines))
    if len(direction.asked) == 1:
        return text, f"{{{{ {direction.asked[0]} }}}}"
    target = shell["between"].join(_line(shell["line"], role, called[role]) for role in direction.asked)
    return text, target


def _line(form: str, role: str, called: str) -> str:
    line = form.replace("[Called]", _capital(called)).replace("[called]", called)
    return line.replace("[slot]", f"{{{{ {role} }}}}")


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]
