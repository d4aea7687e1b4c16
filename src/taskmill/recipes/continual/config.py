"""What is learned in stages, what is replayed, and how it is judged: every knob with its help text."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fractions import Fraction

from taskmill.errors import ConfigError, UsageError
from taskmill.grow.replay import STRATEGIES
from taskmill.train import TrainConfig

__all__ = ["ContinualConfig", "Replay"]

SHARE = Fraction(1, 4)
"""Share of a stage's tokens that is replayed where the budget names tasks only (chosen: a fifth of all that
is read then is old)."""


@dataclass(frozen=True, slots=True)
class Replay:
    """How much is replayed at a stage: rows of so many `tasks`, `tokens` or that `share` of the stage's."""

    tasks: int
    tokens: int = 0
    share: Fraction = SHARE

    def limit(self, stage: int) -> int:
        """Return the tokens to replay at a stage of `stage` tokens."""
        return self.tokens or int(self.share * stage)


@dataclass(frozen=True, slots=True)
class ContinualConfig:
    """Stages of tasks in; what each replay strategy forgets and gains out."""

    stages: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "tables or folders of a registry's versions, in the order in which they are learned"
        },
    )
    test: tuple[str, ...] = field(default=(), metadata={"help": "tables of tasks that no stage has"})
    strategies: tuple[str, ...] = field(
        default=STRATEGIES, metadata={"help": "how earlier tasks are chosen for replay"}
    )
    seeds: int = field(default=3, metadata={"help": "students of each strategy: --seed, --seed + 1 …"})
    budget: str = field(
        default="25%",
        metadata={"help": "replayed at each stage: 2000tok, 25% of the stage's tokens, or tasks as 8"},
    )
    replay_tasks: int = field(default=8, metadata={"help": "earlier tasks among which that is shared"})
    holdout: int = field(default=48, metadata={"help": "rows of each stage that are held out and scored"})
    test_rows: int = field(default=96, metadata={"help": "rows of unseen tasks that are scored"})
    task_column: str = field(
        default="", metadata={"help": "column that names a row's task; default: task, task_name or dataset"}
    )
    embedder: str = field(
        default="auto", metadata={"help": "what embeds instructions and rows, as in select"}
    )
    layout: str = field(
        default="chat", metadata={"help": "of the student's rows", "choices": ("chat", "bonito")}
    )
    max_new_tokens: int = field(default=32, metadata={"help": "longest answer in tokens"})
    confidence: float = field(default=0.95, metadata={"help": "confidence of the intervals"})
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if len(self.stages) < 2:
            raise UsageError("learning in stages needs two of them or more; name them with --stages A,B,C")
        unknown = [name for name in self.strategies if name not in STRATEGIES]
        if unknown or not self.strategies or len(set(self.strategies)) < len(self.strategies):
            wrong = f"{unknown[0]!r} is none" if unknown else "name one or more, each once"
            raise ConfigError(f"strategies: {wrong}; known: {', '.join(STRATEGIES)}")
        for name in ("seeds", "replay_tasks", "holdout", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: {getattr(self, name)} must be 1 or more")
        if not 0.5 <= self.confidence < 1:
            raise ConfigError(f"confidence: {self.confidence} is out of range; take 0.5 to below 1")
        plain = TrainConfig()
        if (self.train.valid_share, self.train.evaluations) != (plain.valid_share, plain.evaluations):
            raise ConfigError("the held-out rows validate here; leave out valid_share and evaluations")
        if self.train.method == "full":
            raise ConfigError("stages go on from an adapter; take method lora or qlora")
        _ = self.replay

    @property
    def replay(self) -> Replay:
        """How much is replayed at a stage. Raises ConfigError for a budget that is none."""
        found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(%|tok|tokens)?\s*", self.budget)
        number = Fraction(found[1]) if found else Fraction(0)
        if not found or not number or (found[2] != "%" and number.denominator > 1):
            raise ConfigError(f"budget: {self.budget!r} is none; write 2000tok, 25% or a number of tasks")
        if found[2] == "%":
            return Replay(self.replay_tasks, share=number / 100)
        return Replay(self.replay_tasks, int(number)) if found[2] else Replay(int(number))

    @property
    def recipe(self) -> TrainConfig:
        """How stages are trained: as asked, but in smaller steps than the laptop preset's unless asked."""
        return self.train.small_steps()
