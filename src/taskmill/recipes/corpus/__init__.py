"""The other road from raw text: chains of texts with questions and answers, for pre-training.

Instruction Pre-Training (arXiv 2406.14491): ingest → screen → synthesize → curate → corpus, one run folder;
`data/` holds the texts to train on, `shards/` their tokens, packed, `report.html` what they are like.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from taskmill import frame
from taskmill.backends import GENERATORS, ModelConfig, protocol_of, split_reference
from taskmill.budget import BudgetConfig, load_price
from taskmill.calls import Sampling
from taskmill.config import to_mapping
from taskmill.errors import ConfigError, UsageError
from taskmill.ingest import IngestConfig
from taskmill.recipes import stages
from taskmill.recipes.evaluation_sets import AGAINST, SHIPPED, HeldOut
from taskmill.recipes.session import OnProgress, Session
from taskmill.recipes.synth import refuse_secrets
from taskmill.store import Run
from taskmill.synthesize.bonito import Synthesis
from taskmill.synthesize.pretraining import REPLY_TOKENS, PairStyle
from taskmill.tasks import get
from taskmill.tasks.base import Attributes

__all__ = ["CorpusConfig", "begins", "corpus", "format_of_model", "questions"]

QUESTIONS = ("exqa", "ynqa", "mcqa", "qa")
"""Task types that are a question and its answer."""

FREE = (
    "budget.",
    "model.base_url",
    "model.concurrency",
    "model.timeout",
    "model.retries",
    "model.api_key_env",
    "model.answers_as",
)
_ADD_BEGIN = ("openai", "vllm", "transformers")
"""Backends that put the begin token in front of a plain prompt themselves."""


@dataclass(frozen=True, slots=True)
class Texts(IngestConfig):
    """How sources are read: in longer texts than for single tasks."""

    # chosen: about a page of the web, and two of them fit a sequence with their pairs
    chunk_tokens: int = field(default=512, metadata={"help": "most tokens (estimated) in one text"})


@dataclass(frozen=True, slots=True)
class CorpusConfig:
    """Raw text in, a pre-training corpus with questions and answers out."""

    sources: tuple[str, ...] = field(
        default=(), metadata={"help": "files, folders, URLs, hf:owner/name, or - for standard input"}
    )
    rounds: int = field(
        default=2, metadata={"help": "most texts in a chain; the first ones are examples for those behind"}
    )
    augment: float = field(
        default=0.2,
        metadata={"help": "share of the texts that get questions and answers"},
    )
    format: str = field(
        default="auto",
        metadata={
            "help": "how the model is asked. pairs: the published instruction-synthesizer's format; tasks: "
            "task types, one by one. auto: pairs for models of that name and echo:, else tasks",
            "choices": ("auto", "pairs", "tasks"),
        },
    )
    pairs: int = field(default=5, metadata={"help": "requests per text in the tasks format, one pair each"})
    task: tuple[str, ...] = field(
        default=QUESTIONS[:3], metadata={"help": "task types of the tasks format, asked in turns"}
    )
    context: int = field(
        default=4096, metadata={"help": "tokens the model reads and writes at most in the pairs format"}
    )
    tuning: tuple[str, ...] = field(
        default=(), metadata={"help": "annotated texts (context, QA_list): the synthesizer's tuning data"}
    )
    tuning_repeat: int = field(default=4, metadata={"help": "times the tuning data is in the corpus"})
    general: tuple[str, ...] = field(
        default=(), metadata={"help": "instruction data mixed in, in any layout that is known"}
    )
    general_ratio: str = field(
        default="1:1", metadata={"help": "tokens of the general instructions to tokens of all else"}
    )
    tokens: int = field(default=0, metadata={"help": "tokens wanted in all; 0: what there is"})
    length: int = field(default=2048, metadata={"help": "tokens of a packed sequence"})
    tokenizer: str = field(
        default="smollm2-135m",
        metadata={"help": "embedded model, folder, tokenizer.json or Hub name whose tokens are counted"},
    )
    seed: int = field(default=0, metadata={"help": "the one seed of the run"})
    against: tuple[str, ...] = field(
        default=(SHIPPED,),
        metadata={"help": f"texts and pairs that hold items of these are dropped: {AGAINST}"},
    )
    ledger: str = field(default="", metadata={"help": "folder or URL of a ledger shared by several runs"})
    ingest: Texts = field(default_factory=Texts)
    model: ModelConfig = field(default_factory=ModelConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)


def corpus(
    config: CorpusConfig, out: str | Path, *, update: bool = False, on_progress: OnProgress | None = None
) -> dict[str, Any]:
    """Build the corpus in the run folder `out` and return its manifest.

    The same call continues a folder that was left unfinished; finished model calls are not repeated.
    `manifest["exit"]` holds the exit code and the reason: 0, or 3 where calls failed, a budget was reached or
    fewer tokens were there than asked for. Raises UsageError before any work for what cannot run; InputError,
    BackendError, LedgerError or RunFolderError when work cannot go on.
    """
    ratio = _validate(config)
    held = HeldOut(config.against)
    frame.use_runner("native")
    with Run(Path(out)) as run:
        session = Session.open(run, to_mapping(config), free=FREE, update=update, report=on_progress)
        session.manifest.update(
            kind="corpus",
            seed=config.seed,
            inputs=list(config.sources),
            model={"ref": config.model.ref, "format": _format(config)},
            against=held.key,
        )
        try:
            _make(session, config, held, ratio)
        except BaseException as error:
            session.fail(error)
            raise
        session.manifest["throughput"] = _throughput(session)
        session.end(*_gate(session.manifest, config, ratio))
        _report(run.path, session.manifest, to_mapping(config))
        return session.manifest


def _make(session: Session, config: CorpusConfig, held: HeldOut, ratio: float) -> None:
    # Every command's start reads this file for its flags; only a corpus needs the rest.
    from taskmill.recipes.corpus.build import Recipe, build, tuning_tokens
    from taskmill.recipes.corpus.pairs import Wanted, screen, synthesize

    ingested = stages.ingest(session, config.sources, config.ingest)
    screened = screen(session, ingested, held)
    access = stages.ModelAccess(config.model, config.budget, config.ledger)
    recipe = Recipe(
        config.augment,
        config.rounds,
        config.tuning,
        config.tuning_repeat,
        config.general,
        ratio if config.general else 0.0,
        config.tokens,
        config.length,
        config.tokenizer,
        config.seed,
    )
    # of texts from the sources and their pairs, 0 for all
    domain = max(1, round(recipe.domain) - tuning_tokens(recipe, held)) if config.tokens else 0
    wanted = Wanted(config.augment, config.rounds, config.pairs, domain, config.seed)
    how = _style(config) if _format(config) == "pairs" else questions(config.model, config.task, config.seed)
    synthesized = synthesize(session, screened, how, wanted, access, held, config.tokenizer)
    source, folder = session.run.stage(3, "synthesize"), session.run.stage(4, "curate")
    key = stages.stage_key("curate", synthesized, held.key)
    marker = session.run.finished(folder, key) or stages.settle(session, source, folder, key, held)
    session.manifest["funnel"]["curate"] = marker["funnel"]
    build(session, (screened, str(marker["digest"])), recipe, held)


def _throughput(session: Session) -> dict[str, float | None]:
    """Return what a corpus of this kind takes: of all sessions, reading and packing included."""
    manifest, seconds = session.manifest, max(session.elapsed, 1e-9)
    tokens, cost = manifest["tokens"]["augmented"], manifest["cost"]
    return {
        "pairs_per_s": round(manifest["pairs"] / seconds, 4),
        "augmented_tokens_per_s": round(tokens / seconds, 3),
        "cost_per_1b_tokens": round(cost * 1e9 / tokens, 2) if cost is not None and tokens else None,
    }


def _report(out: Path, manifest: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    from taskmill.recipes.corpus.rows import samples
    from taskmill.report.corpus import write_corpus_report

    write_corpus_report(out / "report.html", manifest, config, samples(out / "data"))


def format_of_model(asked: str, ref: str) -> str:
    """Return how a model is asked, pairs or tasks; `asked` may leave it to the model's name."""
    if asked != "auto":
        return asked
    backend, name, _ = split_reference(ref)
    return "pairs" if backend == "echo" or "instruction-synthesizer" in name.lower() else "tasks"


def begins(ref: str) -> bool:
    """Say whether a prompt for this model starts with the begin token: where its engine puts none there."""
    return split_reference(ref)[0] not in _ADD_BEGIN


def questions(model: ModelConfig, task: Sequence[str], seed: int) -> Synthesis:
    """Return how a generator of tasks is asked for questions of some task types."""
    tasks = tuple(dict.fromkeys(get(t).name for t in task))
    guided = split_reference(model.ref)[0] in ("openvino", "echo")
    attributes = {name: Attributes(guided=guided) for name in tasks}
    sampling = Sampling(model.temperature, model.top_p)
    return Synthesis(tasks, protocol_of(model), sampling, model.max_new_tokens, seed, attributes)


def _format(config: CorpusConfig) -> str:
    return format_of_model(config.format, config.model.ref)


def _style(config: CorpusConfig) -> PairStyle:
    reply = config.model.max_new_tokens or REPLY_TOKENS
    return PairStyle(config.context, reply, begins(config.model.ref), config.seed)


def _validate(config: CorpusConfig) -> float:
    """Refuse what cannot work before anything is paid; return the general instructions' ratio."""
    refuse_secrets(config)
    if not config.sources:
        raise UsageError("no source is given; name a file, a folder, a URL or - for standard input")
    if config.rounds < 1 or config.pairs < 1 or config.length < 2:
        raise ConfigError("rounds and pairs must be 1 or more, length 2 or more")
    if not 0 <= config.augment <= 1:
        raise ConfigError(f"augment is a share from 0 to 1, not {config.augment}")
    for task in config.task:
        if get(task).name not in QUESTIONS:
            raise ConfigError(f"{task} is no question with an answer; take some of {', '.join(QUESTIONS)}")
    reply = config.model.max_new_tokens or REPLY_TOKENS
    if _format(config) == "pairs" and config.context <= reply:
        raise ConfigError(f"context {config.context} leaves no room beside {reply} tokens of reply")
    repeated = config.model.temperature == 0 and config.pairs > len(config.task)
    if _format(config) == "tasks" and repeated:
        raise ConfigError("temperature 0 gives the same reply each time; ask for fewer --pairs")
    GENERATORS.get(split_reference(config.model.ref)[0])
    if load_price(config.budget.prices, config.model.ref) is None and config.budget.max_cost:
        raise ConfigError("--max-cost needs --prices FILE with the price of the model")
    return _ratio(config.general_ratio)


def _ratio(text: str) -> float:
    general, _, rest = text.partition(":")
    try:
        own, other = float(general), float(rest)
    except ValueError:
        own = other = 0.0
    if not (0 < own < inf and 0 < other < inf):
        raise ConfigError(f"general_ratio: {text!r} is no ratio; write general:rest such as 1:1")
    return own / other


def _gate(manifest: Mapping[str, Any], config: CorpusConfig, ratio: float) -> tuple[int, str]:
    if manifest["stopped"]:
        return 3, f"budget reached: {manifest['stopped']}; raise it and run the same command to continue"
    failed = manifest["calls"]["failed"]
    if failed:
        often = next(iter(manifest["errors"]), "")
        return 3, f"{failed} calls failed (most often: {often}); the same command tries them again"
    total = sum(manifest["tokens"].values())
    if not total:
        return 3, "no text is left for the corpus, see the reasons in the dropped parts"
    tuning = round(manifest["tokens"]["tuning"] * (1 + ratio if config.general else 1))
    if config.tokens and tuning > 1.005 * config.tokens:
        beside = " and the general instructions beside it" if config.general else ""
        return 3, (
            f"the tuning data{beside} take {tuning:,} of {config.tokens:,} tokens, which leaves no room for "
            "texts; lower --tuning-repeat or raise --tokens"
        )
    if manifest["texts"]["wanted"] and not manifest["pairs"]:
        return 3, "no text has got a pair, see the reasons in the dropped parts"
    # 0.5 %: what the accounting promises
    if config.tokens and total < 0.995 * config.tokens:
        return 3, f"the sources give {total:,} of {config.tokens:,} tokens; add sources or lower --tokens"
    return 0, "done"
