"""What `prove` compares, on what, and how it judges: every knob with its help text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from pathlib import Path
from typing import Any

from taskmill.backends import ModelConfig
from taskmill.budget import seconds_of
from taskmill.config import build, packaged
from taskmill.errors import ConfigError, UsageError
from taskmill.registry import nearest
from taskmill.tasks import get
from taskmill.train import TrainConfig

__all__ = ["MADE", "OWN_ARMS", "ProveConfig", "Target", "checked", "of_mapping", "prompts", "targets_of"]

OWN_ARMS = ("none", "tapt", "ours", "ours-unfiltered", "ours+replay", "random")
"""Arms by name; any other is a table of the user's, NAME=FILE."""

MADE = ("ours", "ours-unfiltered", "ours+replay")
"""Arms whose rows the generator writes."""

_TAKEN = ("units", "ledger", "speed", "plan.json", "record.json", "result.json", "report.html",
          "dropped.parquet")  # fmt: skip
"""What stands beside the folders of the targets."""

_LONGEST_NAME = 100
"""Bytes of a target's name (chosen: file systems take 255, and a name is a column's head on the page)."""


@dataclass(frozen=True, slots=True)
class Target:
    """One test: passages to learn from, and the questions that are asked afterwards.

    `note` says what a reader of the verdict must know of the test, such as that a model wrote it.
    """

    name: str
    text: str
    test: str
    task: str = "exqa"
    labels: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class ProveConfig:
    """Passages and a test in; whether the data made of the passages helps a student out."""

    text: str = field(
        default="",
        metadata={"help": "passages to learn from: a table with a column text, a file or a folder"},
    )
    test: str = field(
        default="",
        metadata={"help": "table with context, question and answers; or context, question and label"},
    )
    task: str = field(default="exqa", metadata={"help": "task type of the test, and of what is made for it"})
    labels: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "labels of the test, the positive one first; where it has numbers, what these mean from "
            "0 on; default: as found in it"
        },
    )
    arms: tuple[str, ...] = field(
        default=("none", "tapt", "ours"),
        metadata={"help": f"what is compared: {', '.join(OWN_ARMS)}, or NAME=TABLE of instruction data"},
    )
    seeds: int = field(default=3, metadata={"help": "students of each arm: --seed, --seed + 1 …"})
    budget: str = field(
        default="", metadata={"help": "time for everything, as 30m or 2h: fewer passages and questions"}
    )
    passages: int = field(default=0, metadata={"help": "passages to learn from, by chance; 0: all"})
    per_passage: int = field(default=1, metadata={"help": "requests to the generator per passage"})
    rows: int = field(default=0, metadata={"help": "most rows that an arm learns; 0: all"})
    test_items: int = field(default=200, metadata={"help": "questions of the test, by chance; 0: all"})
    sizes: tuple[str, ...] = field(
        default=(), metadata={"help": "numbers of rows for a size curve of the arm ours, as 50,100,200"}
    )
    reach: float = field(
        default=0.0, metadata={"help": "score of which the size curve says how many rows it takes, as 0.4"}
    )
    replay: str = field(
        default="", metadata={"help": "table of general instruction data, for ours+replay and random"}
    )
    replay_share: float = field(default=0.2, metadata={"help": "share of the tokens that are replay's"})
    general: str = field(
        default="", metadata={"help": "table of general text for the retention gate; default: our own"}
    )
    max_forgetting: float = field(
        default=0.1, metadata={"help": "most loss on the general questions, as a share of all of them"}
    )
    max_perplexity: float = field(
        default=1.5, metadata={"help": "most growth of the perplexity on general text, as a factor"}
    )
    gain: float = field(
        default=0.02, metadata={"help": "least gain that counts; an interval below it says: does not help"}
    )
    confidence: float = field(default=0.95, metadata={"help": "confidence of the intervals"})
    layout: str = field(
        default="chat", metadata={"help": "of the student's rows", "choices": ("chat", "bonito")}
    )
    norm: str = field(
        default="sum",
        metadata={
            "help": "log-likelihood of a label: sum, or mean of its tokens",
            "choices": ("sum", "mean"),
        },
    )
    answer_tokens: int = field(default=32, metadata={"help": "longest free answer in tokens"})
    keep: bool = field(default=False, metadata={"help": "keep every student's adapter, not its answers only"})
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        self._check_arms()
        for name, right in {
            "seeds": self.seeds >= 1,
            "per_passage": self.per_passage >= 1,
            "answer_tokens": self.answer_tokens >= 1,
            "replay_share": 0 < self.replay_share < 1,
            "confidence": 0.5 <= self.confidence < 1,
            "gain": 0 <= self.gain < 1,
            "reach": 0 <= self.reach < 1,
            "max_perplexity": self.max_perplexity >= 1,
        }.items():
            if not right:
                raise ConfigError(f"{name}: {getattr(self, name)} is out of range; see --help for what it is")
        if self.sizes and "ours" not in self.arms:
            raise ConfigError("sizes: the curve is of the arm ours, which --arms does not name")
        if not all(size.isdecimal() and int(size) for size in self.sizes):
            raise ConfigError(f"sizes: {', '.join(self.sizes)} are not all numbers of rows")
        if self.reach and not self.sizes:
            raise UsageError("reach: the rows it takes are read from the size curve; give --sizes as well")
        plain = TrainConfig()
        if (self.train.valid_share, self.train.evaluations) != (plain.valid_share, plain.evaluations):
            raise ConfigError("the test validates here; leave out valid_share and evaluations")
        seconds_of(self.budget)

    def _check_arms(self) -> None:
        names = [arm.partition("=")[0] for arm in self.arms]
        if len(names) < 2 or len(set(names)) < len(names):
            raise ConfigError("arms: name two or more, each once; a comparison needs something beside it")
        for arm in self.arms:
            name, equals, table = arm.partition("=")
            if equals and (name in (*OWN_ARMS, "replay") or not name or not table or "/" in name):
                raise ConfigError(f"arms: {arm!r} is no NAME=TABLE; choose a name that is not one of ours")
            if not equals and name not in OWN_ARMS:
                known = ", ".join(OWN_ARMS)
                raise ConfigError(
                    f"arms: no arm {name!r}.{nearest(name, OWN_ARMS)} Known: {known}; or NAME=TABLE"
                )
        effects = [f"{one}-{two}" for one, two in permutations(names, 2)]
        twice = next((effect for effect in effects if effects.count(effect) > 1), "")
        if twice:
            raise ConfigError(f"arms: {twice!r} would be the difference of two pairs of arms; rename one")
        if self.replays and not self.replay:
            raise UsageError("ours+replay and random need general rows; name their table with --replay")

    @property
    def names(self) -> tuple[str, ...]:
        """The arms' names, without the tables of the user's own."""
        return tuple(arm.partition("=")[0] for arm in self.arms)

    @property
    def makes(self) -> bool:
        """Whether an arm's rows are made of the passages."""
        return bool(set(self.names) & set(MADE))

    @property
    def uses_pool(self) -> bool:
        """Whether an arm learns the passages, or what is made of them."""
        return self.makes or "tapt" in self.names

    @property
    def replays(self) -> bool:
        """Whether an arm learns rows of the table `replay`."""
        return bool({"ours+replay", "random"} & set(self.names))

    @property
    def given(self) -> bool:
        """Whether rows that are given say how much each student reads: none are made, and there are some."""
        return not self.makes and (self.replays or any("=" in arm for arm in self.arms))

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables of the user's own that arms and probes read."""
        own = [arm.partition("=")[2] for arm in self.arms if "=" in arm]
        return tuple(filter(None, [*own, self.replay, self.general]))

    @property
    def recipe(self) -> TrainConfig:
        """How students are trained: as asked, but in smaller steps than the laptop preset's unless asked."""
        return self.train.small_steps()


def prompts() -> Mapping[str, Sequence[str]]:
    """Return the wordings of test prompts: task type → five of them or more."""
    found: Mapping[str, Sequence[str]] = packaged("taskmill.recipes.prove", "prompts.yaml")
    return found


def of_mapping(mapping: Mapping[str, Any]) -> tuple[ProveConfig, list[Target]]:
    """Return the configuration and the targets of a recipe: its `targets`, or the one its other keys name.

    Raises ConfigError for an unknown key or a target that cannot be tested.
    """
    rest = dict(mapping)
    listed = rest.pop("targets", None)
    config = build(ProveConfig, rest)
    return config, targets_of(config, listed)


def targets_of(config: ProveConfig, listed: Any = None) -> list[Target]:
    """Return the targets that are listed, each over the configuration's own keys, or the one these name."""
    own = {"text": config.text, "test": config.test, "task": config.task, "labels": config.labels}
    if listed is None:
        listed = [{}]
    if not isinstance(listed, list) or not listed or not all(isinstance(one, Mapping) for one in listed):
        raise ConfigError("targets: write a list, each with name, text, test and task")
    found = [build(Target, {"name": "", **own, **one}) for one in listed]
    found = [replace(t, name=t.name or _stem(t), task=get(t.task).name) for t in found]
    return checked(found)


def checked(targets: Sequence[Target]) -> list[Target]:
    """Return targets as they are. Raises UsageError or ConfigError for one that cannot be tested."""
    for target in targets:
        _check_target(target)
    names = [target.name for target in targets]
    if len(set(names)) < len(names):
        raise ConfigError(f"targets: {', '.join(names)} are not all different; give each a name of its own")
    return list(targets)


def _stem(target: Target) -> str:
    return Path(target.test).name.partition(".")[0] or "test"


def _check_target(target: Target) -> None:
    if not target.test:
        raise UsageError("no test is given; name a table of questions with --test")
    name = target.name
    if name.startswith(".") or "/" in name or name in _TAKEN or not 0 < len(name.encode()) <= _LONGEST_NAME:
        raise ConfigError(f"targets: {target.name!r} is no name for a folder; choose another")
    if target.labels and len(set(target.labels)) < max(2, len(target.labels)):
        raise ConfigError(f"labels: {', '.join(target.labels)}; name two or more, each once")
    if target.task not in prompts():
        known = ", ".join(prompts())
        raise ConfigError(f"task: there are no test prompts for {target.task}; known: {known}")
