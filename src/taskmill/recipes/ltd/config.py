"""What an LTD experiment tries, on what, and how it is judged: every knob with its help text."""

from __future__ import annotations

from dataclasses import dataclass, field

from taskmill.budget import seconds_of
from taskmill.errors import ConfigError, UsageError
from taskmill.select import SELECTORS
from taskmill.train import TrainConfig

__all__ = ["LtdConfig"]


@dataclass(frozen=True, slots=True)
class LtdConfig:
    """A pool and held-out rows of one task in; how much of the pool that task needs out."""

    source: str = field(default="", metadata={"help": "pool: a table, a folder of tables, or a run folder"})
    target: tuple[str, ...] = field(
        default=(),
        metadata={"help": "tables of the target task, held out: a few rows locate it, the others are scored"},
    )
    embedder: str = field(default="auto", metadata={"help": "what embeds the rows, as in select"})
    embeddings: str = field(
        default="", metadata={"help": "column of vectors in pool and target; without it rows are embedded"}
    )
    task_column: str = field(
        default="", metadata={"help": "column that names a row's task; default: task or dataset"}
    )
    template_column: str = field(
        default="", metadata={"help": "column that names a row's wording; default: template"}
    )
    item_column: str = field(
        default="",
        metadata={"help": "column that names what a row of its task is about, to keep other wordings out"},
    )
    labels: tuple[str, ...] = field(
        default=(), metadata={"help": "answers of the target task; default: found where they are a small set"}
    )
    region: str = field(
        default="clusters",
        metadata={"help": "rows of the task: clusters or radius around its rows, or COLUMN=VALUE"},
    )
    clusters: int = field(
        default=0, metadata={"help": "clusters of the pool; 0: the square root of the number of rows"}
    )
    share: float = field(
        default=0.9, metadata={"help": "share of the locating rows that the region must take in"}
    )
    probes: int = field(default=32, metadata={"help": "target rows that locate the task and are not scored"})
    test_rows: int = field(default=200, metadata={"help": "target rows that are scored, by chance; 0: all"})
    ratios: tuple[str, ...] = field(
        default=("0.1", "0.25", "0.5", "1", "2", "5", "10", "50", "100"),
        metadata={"help": "percent of the region's tokens to train on"},
    )
    scopes: tuple[str, ...] = field(
        default=("target",), metadata={"help": "rows to choose from: target (the region), all"}
    )
    templates: tuple[str, ...] = field(
        default=("all",), metadata={"help": "wordings of each task to train on: all, or a number as 1,3,all"}
    )
    selectors: tuple[str, ...] = field(
        default=("k-center", "random", "stratified"),
        metadata={"help": "what orders the rows; the first one is the core-set, the others its controls"},
    )
    seeds: int = field(default=3, metadata={"help": "students of each kind: --seed, --seed + 1 …"})
    match: str = field(
        default="epochs",
        metadata={
            "help": "epochs: every set is read equally often; tokens: smaller sets as often as it takes to "
            "read as much as with all of the region",
            "choices": ("epochs", "tokens"),
        },
    )
    layout: str = field(
        default="chat", metadata={"help": "of the student's rows", "choices": ("chat", "bonito")}
    )
    norm: str = field(
        default="sum",
        metadata={
            "help": "log-likelihood of a choice: sum, or mean of its tokens",
            "choices": ("sum", "mean"),
        },
    )
    max_new_tokens: int = field(default=64, metadata={"help": "longest free answer in tokens"})
    epsilon: float = field(
        default=0.02, metadata={"help": "loss of mean mark against all rows that still counts as enough"}
    )
    confidence: float = field(default=0.95, metadata={"help": "confidence of bounds and intervals"})
    budget: str = field(
        default="",
        metadata={"help": "time for all students, as 30m or 2h: the pool is thinned to fit"},
    )
    keep: bool = field(default=False, metadata={"help": "keep every student's adapter, not its marks only"})
    train: TrainConfig = field(default_factory=TrainConfig)

    @property
    def recipe(self) -> TrainConfig:
        """How students are trained: as asked, but in smaller steps than the laptop preset's unless asked."""
        return self.train.small_steps()

    def __post_init__(self) -> None:
        if not self.target:
            raise UsageError("no target is given; name held-out rows of the task with --target")
        self._check_grid()
        for name, right in {
            "seeds": self.seeds >= 1,
            "probes": self.probes >= 1,
            "test_rows": self.test_rows >= 0,
            "max_new_tokens": self.max_new_tokens >= 1,
            "share": 0 < self.share <= 1,
            "epsilon": 0 <= self.epsilon < 1,
            "confidence": 0.5 <= self.confidence < 1,
        }.items():
            if not right:
                raise ConfigError(f"{name}: {getattr(self, name)} is out of range; see --help for what it is")
        if self.region not in ("clusters", "radius") and "=" not in self.region:
            raise ConfigError(f"region: {self.region!r} is none of clusters, radius, COLUMN=VALUE")
        plain = TrainConfig()
        if (self.train.valid_share, self.train.evaluations) != (plain.valid_share, plain.evaluations):
            raise ConfigError("the target validates here; leave out valid_share and evaluations")
        seconds_of(self.budget)

    @property
    def percents(self) -> tuple[float, ...]:
        """The ratios as numbers, smallest first. Raises ConfigError for one that is none."""
        try:
            return tuple(sorted(float(ratio.strip().removesuffix("%")) for ratio in self.ratios))
        except ValueError as error:
            raise ConfigError(f"ratios: {', '.join(self.ratios)} are not all percentages") from error

    def _check_grid(self) -> None:
        for name in ("ratios", "scopes", "templates", "selectors"):
            given = getattr(self, name)
            if not given or len(set(given)) < len(given):
                raise ConfigError(f"{name}: give one value or more, each once")
        if not all(0 < ratio <= 100 for ratio in self.percents) or len(set(self.percents)) < len(self.ratios):
            raise ConfigError("ratios: each is another percentage above 0 and up to 100")
        if not set(self.scopes) <= {"target", "all"}:
            raise ConfigError("scopes: each is target or all")
        if not all(t == "all" or (t.isdigit() and int(t)) for t in self.templates):
            raise ConfigError("templates: each is all or a number above 0")
        for name in self.selectors:
            SELECTORS.get(name)
