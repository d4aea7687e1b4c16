"""How long it takes, measured before, and the sizes that fit into a budget of time."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from taskmill.errors import UsageError
from taskmill.recipes.prove.config import ProveConfig
from taskmill.recipes.session import OnProgress, Progress
from taskmill.recipes.students import ROOM, Speed
from taskmill.report.words import duration

__all__ = ["Making", "Sizes", "Watch", "chosen", "seconds"]

TRIED_PASSAGES = 16
"""Passages that the generator is tried on (chosen: half a minute; what it writes is kept in the ledger)."""

ANSWERING = 0.45
"""Largest share of a budget for answering (chosen: more questions narrow the interval, more rows move it)."""

FEWEST_ITEMS, FEWEST_PASSAGES = 30, 20
"""Below these a budget is refused (chosen: an interval would be half of the scale, or nothing is learned)."""


class Making(NamedTuple):
    """What the generator needs and gives: seconds and accepted rows per passage, tokens per row."""

    seconds: float = 0.0
    rows: float = 1.0
    tokens: float = 0.0


class Sizes(NamedTuple):
    """How much is used: passages of the pool (else rows of the smallest table), questions of the test."""

    passages: int
    questions: int


class Watch:
    """Takes the time between the first answer of the generator and the last, without its loading."""

    def __init__(self, report: OnProgress) -> None:
        self.report, self.first, self.last = report, (0, 0.0), (0, 0.0)

    def __call__(self, progress: Progress) -> None:
        """Take note, and pass it on."""
        if progress.stage == "synthesize" and progress.done:
            self.last = progress.done, time.monotonic()
            self.first = self.first if self.first[0] else self.last
        self.report(progress)

    def seconds(self, passages: int, whole: float) -> float:
        """Return the seconds per passage; of `whole` seconds where too little was seen."""
        asked = self.last[0] - self.first[0]
        if asked < 2:
            return whole / passages
        return (self.last[1] - self.first[1]) / asked * max(1.0, self.last[0] / passages)


def seconds(
    config: ProveConfig, speed: Speed, making: Making, sizes: Sizes, wordings: int, probes: int
) -> float:
    """Return about how long one target takes: making rows, training, answering."""
    fixed, per_passage, per_question = _costs(config, speed, making, wordings, probes)
    return fixed + per_passage * sizes.passages + per_question * sizes.questions


def _costs(
    config: ProveConfig, speed: Speed, making: Making, wordings: int, probes: int
) -> tuple[float, float, float]:
    """Return seconds (whatever the sizes, per passage, per question)."""
    trained = sum(arm != "none" for arm in config.names) * config.seeds
    curve = config.seeds * len(config.sizes)
    students = trained + curve + 1
    of_curve = config.seeds * sum(int(size) for size in config.sizes) * making.tokens
    fixed = students * (speed.unit + speed.item * probes) + of_curve * speed.token
    read = making.rows * making.tokens * trained * speed.token  # as measured: of all epochs
    return fixed, making.seconds + read, students * speed.item * wordings


def chosen(
    config: ProveConfig,
    speed: Speed,
    making: Making,
    most: Sizes,
    limit: float,
    wordings: int,
    probes: int,
) -> Sizes:
    """Return the sizes that fit into `limit` seconds: `most` if they do, else fewer of both.

    Raises UsageError for a limit in which nothing could be shown.
    """
    if seconds(config, speed, making, most, wordings, probes) <= ROOM * limit:
        return most
    fixed, per_passage, per_question = _costs(config, speed, making, wordings, probes)
    least = Sizes(min(FEWEST_PASSAGES, most.passages), min(FEWEST_ITEMS, most.questions))
    room = ROOM * limit - fixed - per_passage * least.passages - per_question * least.questions
    if room < 0:
        need = seconds(config, speed, making, least, wordings, probes) / ROOM
        raise UsageError(
            f"{duration(max(limit, 0.0))} are left of the budget, too few: {least.passages} passages and "
            f"{least.questions} questions take {duration(need)} here; give a larger --budget, or fewer "
            "--seeds, --arms or targets"
        )
    questions = min(most.questions - least.questions, int(ANSWERING * room / per_question))
    # What the questions leave goes to the passages, and what these cannot use back to the questions.
    left = room - questions * per_question
    passages = min(most.passages - least.passages, int(left / per_passage))
    left = room - passages * per_passage
    questions = min(most.questions - least.questions, int(left / per_question))
    return Sizes(least.passages + passages, least.questions + questions)


def as_record(speed: Speed, making: Making, sizes: Sizes, most: Sizes) -> dict[str, Any]:
    """Return what plan.json keeps of a target, so that a continued run has the same sizes."""
    return {
        "speed": speed._asdict(),
        "making": making._asdict(),
        "sizes": sizes._asdict(),
        "most": most._asdict(),
    }
