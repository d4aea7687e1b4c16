"""What an examination of a synthesizer is asked for: annotated texts, what it was trained on, the model."""

from __future__ import annotations

from dataclasses import dataclass, field

from taskmill.backends import GENERATORS, ModelConfig, split_reference
from taskmill.budget import BudgetConfig
from taskmill.errors import ConfigError, UsageError
from taskmill.synthesize.pretraining import REPLY_TOKENS

__all__ = ["ExamineConfig", "Examined"]


@dataclass(frozen=True, slots=True)
class Examined(ModelConfig):
    """Which synthesizer is examined; pairs and answers are written greedily, task types are sampled."""

    ref: str = field(
        default="openvino:bonito-smollm2-135m",
        metadata={"help": "backend:name[@revision] of the synthesizer that is examined", "flag": "model"},
    )


@dataclass(frozen=True, slots=True)
class ExamineConfig:
    """Annotated texts in; how good a synthesizer's pairs and answers are on them out."""

    sources: tuple[str, ...] = field(
        default=(), metadata={"help": "annotated texts: rows of context and QA_list, or examples"}
    )
    seen: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "datasets the synthesizer was tuned on, by id, or folders of `taskmill cast`; all others "
            "are unseen"
        },
    )
    texts: int = field(default=50, metadata={"help": "texts of each dataset, by chance; 0: all"})
    questions: int = field(default=3, metadata={"help": "right questions asked of each text, by chance"})
    shots: int = field(
        default=2, metadata={"help": "texts of the same dataset with their pairs before a few-shot prompt"}
    )
    format: str = field(
        default="auto",
        metadata={"help": "how the model is asked, as in corpus", "choices": ("auto", "pairs", "tasks")},
    )
    pairs: int = field(default=5, metadata={"help": "requests per text in the tasks format, one pair each"})
    task: tuple[str, ...] = field(
        default=("exqa", "ynqa", "mcqa"), metadata={"help": "task types of the tasks format, in turns"}
    )
    context: int = field(
        default=4096, metadata={"help": "tokens the model reads and writes at most in the pairs format"}
    )
    tokenizer: str = field(
        default="smollm2-135m",
        metadata={"help": "embedded model, folder, tokenizer.json or Hub name whose tokens are counted"},
    )
    confidence: float = field(default=0.95, metadata={"help": "confidence of the intervals"})
    seed: int = field(default=0, metadata={"help": "seed of drawn texts, questions, shots and intervals"})
    ledger: str = field(default="", metadata={"help": "folder or URL of a ledger shared by several runs"})
    model: Examined = field(default_factory=Examined)
    budget: BudgetConfig = field(default_factory=BudgetConfig)

    def __post_init__(self) -> None:
        if not self.sources:
            raise UsageError("no source is given; name annotated texts, as tables with context and QA_list")
        for name, right in {
            "texts": self.texts >= 0,
            "questions": self.questions >= 0,
            "shots": self.shots >= 0,
            "pairs": self.pairs >= 1,
            "confidence": 0.5 <= self.confidence < 1,
        }.items():
            if not right:
                raise ConfigError(f"{name}: {getattr(self, name)} is out of range; see --help for what it is")
        if self.context <= self.reply:
            raise ConfigError(f"context {self.context} leaves no room beside {self.reply} tokens of reply")
        GENERATORS.get(split_reference(self.model.ref)[0])

    @property
    def reply(self) -> int:
        """Return the most tokens of a reply that holds all pairs of a text."""
        return self.model.max_new_tokens or REPLY_TOKENS
