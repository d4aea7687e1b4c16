"""What continual pre-training is asked for: a corpus, held-out rows, what must not be forgotten."""

from __future__ import annotations

from dataclasses import dataclass, field

from taskmill.budget import seconds_of
from taskmill.errors import ConfigError, UsageError
from taskmill.train import TrainConfig

__all__ = ["PretrainConfig"]

STEP_TOKENS = 4096
"""Tokens of one optimiser step (chosen: some dozen steps for the corpora of an afternoon on two cores)."""

ARMS = ("raw", "augmented")


@dataclass(frozen=True, slots=True)
class PretrainConfig:
    """A corpus of `taskmill corpus` in; what its pairs are worth against its raw texts alone out."""

    source: str = field(default="", metadata={"help": "run folder of taskmill corpus"})
    target: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "held-out rows of the tasks: tables, or SUITE=FILE with a benchmark's name of `evaluate`"
        },
    )
    test_rows: int = field(default=200, metadata={"help": "rows scored of each target, by chance; 0: all"})
    arms: tuple[str, ...] = field(
        default=ARMS,
        metadata={"help": "what is read: raw (the corpus's texts without pairs), augmented (all of it)"},
    )
    tokens: int = field(default=0, metadata={"help": "tokens each model reads; 0: as many as the corpus has"})
    seeds: int = field(default=1, metadata={"help": "models of each arm: --seed, --seed + 1 …"})
    general_texts: tuple[str, ...] = field(
        default=(),
        metadata={"help": "general texts whose perplexity must not rise; default: some of the package"},
    )
    general_items: tuple[str, ...] = field(
        default=(),
        metadata={"help": "general questions, as --target, that must not get lost; default: the package's"},
    )
    instruct: str = field(
        default="",
        metadata={
            "help": "instruct model of the same base: what it differs by is added to each trained model, "
            "which answers again (residual merge); the base itself weighs its adapter anew"
        },
    )
    scales: tuple[str, ...] = field(
        default=("1",), metadata={"help": "with --instruct: shares of what was learned that are kept"}
    )
    layout: str = field(default="chat", metadata={"help": "of the questions", "choices": ("chat", "bonito")})
    norm: str = field(
        default="sum",
        metadata={
            "help": "log-likelihood of a choice: sum, or mean of its tokens",
            "choices": ("sum", "mean"),
        },
    )
    max_new_tokens: int = field(default=32, metadata={"help": "longest free answer in tokens"})
    epsilon: float = field(
        default=0.02, metadata={"help": "loss of mean mark on general questions that counts as kept"}
    )
    confidence: float = field(default=0.95, metadata={"help": "confidence of bounds and intervals"})
    budget: str = field(
        default="", metadata={"help": "time for all models, as 30m or 2h: fewer tokens are read to fit"}
    )
    keep: bool = field(default=True, metadata={"help": "keep what was trained, not its marks only"})
    train: TrainConfig = field(default_factory=TrainConfig)

    @property
    def recipe(self) -> TrainConfig:
        """How models are trained: as asked, but in smaller steps than the laptop preset's unless asked."""
        return self.train.small_steps(STEP_TOKENS)

    @property
    def merged_at(self) -> tuple[float, ...]:
        """The scales as numbers. Raises ConfigError for one that is none."""
        try:
            return tuple(float(scale) for scale in self.scales) if self.instruct else ()
        except ValueError as error:
            raise ConfigError(f"scales: {', '.join(self.scales)} are not all numbers") from error

    def __post_init__(self) -> None:
        if not self.target:
            raise UsageError("no target is given; name held-out rows of the tasks with --target")
        if not self.arms or not set(self.arms) <= set(ARMS) or len(set(self.arms)) < len(self.arms):
            raise ConfigError("arms: each is raw or augmented, once")
        for name, right in {
            "seeds": self.seeds >= 1,
            "test_rows": self.test_rows >= 0,
            "tokens": self.tokens >= 0,
            "max_new_tokens": self.max_new_tokens >= 1,
            "epsilon": 0 <= self.epsilon < 1,
            "confidence": 0.5 <= self.confidence < 1,
            "scales": all(0 < scale <= 2 for scale in self.merged_at),
        }.items():
            if not right:
                raise ConfigError(f"{name}: {getattr(self, name)} is out of range; see --help for what it is")
        plain = TrainConfig()
        if (self.train.valid_share, self.train.evaluations) != (plain.valid_share, plain.evaluations):
            raise ConfigError("the targets validate here; leave out valid_share and evaluations")
        seconds_of(self.budget)
