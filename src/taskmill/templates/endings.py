"""How a chain of thought ends: rationale and answer joined in many ways, and the answer found again.

An ending is words between the rationale and the answer, and a sign behind it. `join` only uses endings from
which `parse` recovers both exactly, so a round trip succeeds for every row by construction (R13 of the Flan
requirements); upstream's reader splits on a bare "answer:" anywhere and fails on an empty output (P12).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from taskmill.config import packaged
from taskmill.errors import ConfigError

__all__ = ["Ending", "Parsed", "endings", "join", "parse", "triggers"]


@dataclass(frozen=True, slots=True)
class Ending:
    """One way to end: rationale + `cue` + answer + `close`."""

    name: str
    cue: str
    close: str

    def join(self, rationale: str, answer: str) -> str:
        """Return what is learned."""
        return f"{rationale}{self.cue}{answer}{self.close}"


class Parsed(NamedTuple):
    """A chain of thought taken apart, and the name of its ending."""

    rationale: str
    answer: str
    ending: str


@cache
def _loaded() -> dict[str, Any]:
    found: dict[str, Any] = packaged("taskmill.templates", "endings.yaml")
    return found


@cache
def endings() -> tuple[Ending, ...]:
    """Return the endings of `endings.yaml`; raises ConfigError for one that is no rationale, cue, answer."""
    found = []
    for entry in _loaded()["endings"]:
        before, _, behind = entry["text"].partition("{{ rationale }}")
        cue, slot, close = behind.partition("{{ answer }}")
        if before or not slot or not cue.strip():
            raise ConfigError(
                f"endings.yaml: {entry['name']} must be the rationale, words of its own, then the answer"
            )
        found.append(Ending(entry["name"], cue, close))
    return tuple(found)


@cache
def triggers() -> tuple[str, ...]:
    """Return the sentences that ask for a chain of thought."""
    return tuple(_loaded()["triggers"])


@cache
def _by_length() -> tuple[Ending, ...]:
    return tuple(sorted(endings(), key=lambda e: -len(e.cue)))


def parse(text: str) -> Parsed | None:
    """Return rationale, answer and ending of a chain of thought; None where no ending is in it.

    The last cue counts, and of cues that end together the longest. Text of a model may lack the closing sign.
    """
    best: tuple[int, int] | None = None
    chosen: Ending | None = None
    for ending in _by_length():
        at = text.rfind(ending.cue)
        # The one whose answer begins last; of those, the one with the most words.
        if at >= 0 and (best is None or (at + len(ending.cue), len(ending.cue)) > best):
            best, chosen = (at + len(ending.cue), len(ending.cue)), ending
    if best is None or chosen is None:
        return None
    rest = text[best[0] :]
    if chosen.close and rest.endswith(chosen.close):
        answer = rest[: -len(chosen.close)]
    else:
        answer = rest.rstrip().removesuffix(chosen.close) if chosen.close else rest
    return Parsed(text[: best[0] - best[1]], answer, chosen.name) if answer.strip() else None


def join(rationale: str, answer: str, number: int) -> tuple[str, str] | None:
    """Return (chain of thought, name of its ending); None where no ending gives both back.

    `number` is drawn: it names the ending, or where to look for the next that can be read back.
    """
    known = endings()
    for i in range(len(known)):
        ending = known[(number + i) % len(known)]
        text = ending.join(rationale, answer)
        if parse(text) == (rationale, answer, ending.name):
            return text, ending.name
    return None
