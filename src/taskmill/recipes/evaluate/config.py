"""What an evaluation is asked for: benchmarks, how many items, shots, wordings and samples, and the model."""

from __future__ import annotations

from dataclasses import dataclass, field

from taskmill.backends import ModelConfig
from taskmill.budget import BudgetConfig
from taskmill.errors import ConfigError
from taskmill.evaluate.ranking import MODES

__all__ = ["EvaluateConfig", "EvaluatedModel"]


@dataclass(frozen=True, slots=True)
class EvaluatedModel(ModelConfig):
    """Which model is evaluated, greedily unless a temperature is given."""

    ref: str = field(
        default="openvino:smollm2-135m",
        metadata={"help": "backend:name[@revision] of the model that is evaluated", "flag": "model"},
    )
    temperature: float = field(default=0.0, metadata={"help": "sampling temperature; 0 is greedy"})


@dataclass(frozen=True, slots=True)
class EvaluateConfig:
    """Which benchmarks are asked, how, and of which model."""

    suite: tuple[str, ...] = field(
        default=(), metadata={"help": "benchmarks, by the names on docs/evaluate.md"}
    )
    data: str = field(
        default="", metadata={"help": "file or folder of the benchmark, or hf:…; default: $TASKMILL_DATA"}
    )
    exemplars: str = field(
        default="", metadata={"help": "file of solved questions; default: the one beside the data"}
    )
    split: str = field(default="test", metadata={"help": "split of an hf: source"})
    limit: int = field(
        default=0, metadata={"help": "at most so many items of each suite, over all its tasks; 0: all"}
    )
    shots: int = field(
        default=-1, metadata={"help": "solved questions in the prompt; -1: the suite's own number"}
    )
    phrasings: int = field(default=1, metadata={"help": "ask in so many wordings: mean, worst, spread"})
    samples: int = field(default=1, metadata={"help": "outputs for each item; their majority is the answer"})
    normalise: str = field(
        default="",
        metadata={"help": f"likelihood that ranks options: {', '.join(MODES)}; default: the suite's own"},
    )
    raw_exemplars: bool = field(default=False, metadata={"help": "leave known faults in the exemplars' text"})
    confidence: float = field(default=0.95, metadata={"help": "confidence of the intervals"})
    seed: int = field(default=0, metadata={"help": "seed of drawn items, shots, samples and intervals"})
    ledger: str = field(default="", metadata={"help": "folder or URL of a ledger shared by several runs"})
    model: EvaluatedModel = field(default_factory=EvaluatedModel)
    budget: BudgetConfig = field(default_factory=BudgetConfig)

    def __post_init__(self) -> None:
        if self.limit < 0 or self.phrasings < 1 or self.samples < 1:
            raise ConfigError("limit is 0 or more, phrasings and samples are 1 or more")
        if not 0 < self.confidence < 1:
            raise ConfigError("confidence lies between 0 and 1, e.g. 0.95")
        if self.normalise and self.normalise not in MODES:
            raise ConfigError(f"normalise: {self.normalise!r} is none of {', '.join(MODES)}")
        if self.model.protocol not in ("auto", "chat"):
            raise ConfigError("protocol: a benchmark's prompt is sent as it is (auto) or as a chat (chat)")
        if self.samples > 1 and self.model.temperature == 0:
            raise ConfigError("samples are all equal at temperature 0; add --temperature 0.7")
