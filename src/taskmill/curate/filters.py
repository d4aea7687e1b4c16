"""Filters over finished instruction data: each gives a score, a threshold decides afterwards.

A score is a number per row (None: the filter has nothing to say about it) and is stored; a threshold is
the least or the most that passes. Deciding again with other thresholds scores nothing again.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_lowercase

from taskmill.errors import InputError, UsageError
from taskmill.record import Example, Reason
from taskmill.registry import Registry, nearest
from taskmill.render import CHAT_TOKENS, PLACEHOLDER, has_marker, unescape
from taskmill.tasks.labels import fold
from taskmill.tasks.passage import copied, find_span, joined, sentences, share, words
from taskmill.tasks.rules import refused, repeats

__all__ = ["FILTERS", "Filter", "decide", "score", "thresholds"]


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter: how a row is scored, the bound that passes, and the reason of those that do not.

    `default` is the threshold in force unless another is set; None: the filter only scores. `least`: scores
    below the threshold are dropped, else those above it.
    """

    name: str
    score: Callable[[Example], float | None]
    reason: Reason
    least: bool
    default: float | None
    about: str
    by_default: bool = True  # False: scored only where it is named, since it needs an extra or a model


def _instruction(example: Example) -> str:
    """Return the instruction's own words, without the passage."""
    return example.instruction.replace(PLACEHOLDER, " ")


def _length(example: Example) -> float:
    return float(len(words(example.response)))


_SCRIPTS = (
    ("Latin", 0x41, 0x24F), ("Greek", 0x370, 0x3FF), ("Cyrillic", 0x400, 0x52F), ("Hebrew", 0x590, 0x5FF),
    ("Arabic", 0x600, 0x6FF), ("Devanagari", 0x900, 0x97F), ("Bengali", 0x980, 0x9FF),
    ("Tamil", 0xB80, 0xBFF),
    ("Telugu", 0xC00, 0xC7F), ("Thai", 0xE00, 0xE7F), ("Kana", 0x3040, 0x30FF), ("Han", 0x3400, 0x9FFF),
    ("Hangul", 0xAC00, 0xD7AF),
)  # fmt: skip


def _scripts(text: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for character, times in Counter(text[:4000]).items():  # chosen: what a text is written in shows early
        if character.isalpha():
            point = ord(character)
            name = next((n for n, low, high in _SCRIPTS if low <= point <= high), "other")
            counts[name] = counts.get(name, 0) + times
    return counts


def _script(example: Example) -> float | None:
    """Return the share of the response's letters in scripts of the passage and instruction."""
    own = _scripts(example.response)
    around = _scripts(f"{example.context} {_instruction(example)}")
    total = sum(own.values())
    if not total or not around:
        return None
    return sum(n for name, n in own.items() if name in around) / total


def _grounded(example: Example) -> float | None:
    """Return the share of the response's content words that stand in the passage."""
    return share(example.response, example.context) if example.context else None


def _span(example: Example) -> float | None:
    """Return 1 if the response is a span of the passage, else 0."""
    return float(find_span(example.response, example.context) is not None) if example.context else None


def _copied(example: Example) -> float | None:
    """Return the share of the response's 4-grams that stand in the passage."""
    return copied(example.response, example.context)[1] if example.context else None


def _leaked(example: Example) -> float | None:
    """Return 1 if six words or more of a response stand in the instruction, in its order, else 0.

    Six: chosen, a shorter response may stand there by chance. An instruction that lists options, or may hold
    its passage, cannot be judged: there the response is to be found.
    """
    if example.options or not example.context:
        return None
    own = _instruction(example)
    return float(len(words(example.response)) > 5 and joined(example.response) in joined(own))


def _echo(example: Example) -> float:
    """Return 1 if the response only repeats the instruction, else 0."""
    return float(joined(example.response).strip() == joined(_instruction(example)).strip())


def _repetition(example: Example) -> float:
    """Return 1 if the response repeats itself (`tasks.rules.repeats`), else 0."""
    return float(repeats(example.response))


def _refusal(example: Example) -> float:
    """Return 1 if the response begins by refusing or by talking about itself, else 0.

    Only its first sentence is looked at, and only as far as it is no offer: people in dialogues and stories
    say "May I help you?" and "I can't make it".
    """
    first = next(iter(sentences(example.response)), "")
    offer = first.rstrip("\"'”’ ").endswith("?")
    return float(not offer and refused(example, first) is not None)


def _label(example: Example) -> float | None:
    """Return 1 if the response is one of the row's options, its letter, or letter and option; else 0.

    Of more than 26 options the numbers from 1 on are their letters.
    """
    options = example.options
    if not options:
        return None
    said = fold(example.response)
    if not said:  # signs only: there are no words to compare
        return float(example.response.strip() in {option.strip() for option in options})
    letters = (
        ascii_lowercase if len(options) <= len(ascii_lowercase) else map(str, range(1, len(options) + 1))
    )
    named = zip(letters, map(fold, options), strict=False)
    return float(any(said in (letter, option, f"{letter} {option}") for letter, option in named))


def _marker(example: Example) -> float:
    """Return 1 if a wire marker or a chat model's special token is left in the response, else 0."""
    text = unescape(example.response)
    return float(has_marker(text) or any(token in text for token in CHAT_TOKENS))


def _contaminated(example: Example) -> float:
    """Return the share of a shipped benchmark's item that the row holds (`curate.screen`), else 0."""
    from taskmill.curate.screen import shipped_screen

    found = shipped_screen().match(example)
    return found.score if found else 0.0


BUILT_IN = (
    Filter("length", _length, Reason.EMPTY_REPLY, True, 1, "words of the response; least"),
    Filter("longest", _length, Reason.TOO_LONG, False, 4000, "words of the response; most"),
    Filter("script", _script, Reason.OFF_LANGUAGE, True, 0.5,
           "share of the response's letters in scripts of the passage and instruction; least"),
    Filter("grounded", _grounded, Reason.UNGROUNDED, True, None,
           "share of the response's content words that stand in the passage; least"),
    Filter("span", _span, Reason.UNGROUNDED, True, None, "1 if the response is a span of the passage; least"),
    Filter("copied", _copied, Reason.COPY, False, None,
           "share of the response's 4-grams that stand in the passage; most"),
    Filter("leaked", _leaked, Reason.LEAKED_ANSWER, False, 0.5,
           "1 if a response of six words or more stands in the instruction; most"),
    Filter("echo", _echo, Reason.TRIVIAL, False, 0.5, "1 if the response only repeats the instruction; most"),
    Filter("repetition", _repetition, Reason.REPETITIVE, False, 0.5, "1 if it repeats itself; most"),
    Filter("refusal", _refusal, Reason.MALFORMED, False, 0.5, "1 if the response refuses the task; most"),
    Filter("label", _label, Reason.OFF_LABEL, True, 0.5, "1 if it is one of the row's options; least"),
    Filter("marker", _marker, Reason.MARKER, False, 0.5,
           "1 if a marker or special token is left in the response; most"),
    Filter("contaminated", _contaminated, Reason.CONTAMINATED, False, 0,
           "share of an evaluation item that the row holds; most"),
)  # fmt: skip

FILTERS: Registry[Filter] = Registry("filter")
"""Name → filter. Third parties add theirs (toxicity, personal data, a judge of their own) by entry points."""
for _one in BUILT_IN:
    FILTERS.register(_one.name, _one)


def thresholds(given: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    """Return the threshold in force for each filter that decides.

    Raises UsageError for a filter that does not exist or was not scored.
    """
    unknown = next((name for name in given if name not in names), None)
    if unknown is not None:
        raise UsageError(
            f"--set: no filter {unknown!r}.{nearest(unknown, names)} There are: {', '.join(names)}"
        )
    found = {name: default for name in names if (default := FILTERS.get(name).default) is not None}
    return {**found, **given}


def score(example: Example, filters: Sequence[Filter]) -> list[float | None]:
    """Return the scores of a row, filter by filter; raises InputError for a score that is not finite."""
    found = [one.score(example) for one in filters]
    for one, value in zip(filters, found, strict=True):
        if value is not None and not math.isfinite(value):  # it would pass every threshold
            raise InputError(
                f"row {example.id}: the filter {one.name!r} gave {value}; leave it out or mend it"
            )
    return found


def decide(
    scores: Mapping[str, float | None], limits: Mapping[str, float]
) -> tuple[Filter, float, float] | None:
    """Return the first filter a row fails, with its score and the threshold, or None.

    Filters are asked in the order of `scores`; one that has nothing to say about the row passes it.
    """
    for name, value in scores.items():
        limit = limits.get(name)
        if limit is None or value is None:
            continue
        one = FILTERS.get(name)
        if value < limit if one.least else value > limit:
            return one, value, limit
    return None
