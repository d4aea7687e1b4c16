"""How the rows of a data set are to be phrased: the configuration, the cluster and its templates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from taskmill.errors import UsageError
from taskmill.mix.fewshot import drawn
from taskmill.registry import nearest
from taskmill.templates import schema
from taskmill.templates.inversion import bare, inverted
from taskmill.templates.schema import Cluster, Template
from taskmill.templates.sets import DataSet

__all__ = ["RenderConfig", "Words", "choice_of", "cluster_of", "words_of"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class RenderConfig:
    """How the rows of a data set are phrased."""

    source: str = field(default="", metadata={"help": "the data set: a Parquet or JSONL file"})
    templates: str = field(
        default="", metadata={"help": "a cluster of the package (`exqa`), or a template file or folder"}
    )
    set: str = field(default="", metadata={"help": "a declared data set, if the file's name does not tell"})
    fields: Mapping[str, str] = field(
        default_factory=dict,
        metadata={"help": "which column is which field, for undeclared sets", "flag": "field"},
    )
    licence: str = field(default="", metadata={"help": "licence of the rows; a declared set knows its own"})
    style: str = field(default="zs", metadata={"help": "zero-shot or few-shot", "choices": ("zs", "fs")})
    options: bool = field(default=False, metadata={"help": "show the answer options"})
    target: str = field(
        default="drawn",
        metadata={
            "help": "what is learned where options are shown: their label, their text, or drawn",
            "choices": ("drawn", "label", "text"),
        },
    )
    cot: bool = field(default=False, metadata={"help": "learn the rationale, then the answer"})
    invert: bool = field(default=False, metadata={"help": "ask for what is given, give what is asked"})
    shots: str = field(
        default="1-5", metadata={"help": "exemplars of a prompt: `5`, `1-5`, or `0:1,2:3` (number:weight)"}
    )
    mixed: bool = field(default=False, metadata={"help": "each exemplar has a wording of its own"})
    balance: bool = field(default=False, metadata={"help": "the answers of the exemplars take turns"})
    bare: float = field(default=0.1, metadata={"help": "share of few-shot prompts without any instruction"})
    max_tokens: int = field(
        default=1920,
        metadata={"help": "most tokens of the exemplars of a prompt; the farthest are dropped first"},
    )
    tokenizer: str = field(
        default="",
        metadata={"help": "counts the tokens, and those it does not know; without: they are estimated"},
    )
    pool: str = field(default="", metadata={"help": "file that exemplars are taken from, if not the source"})
    epoch: int = field(default=0, metadata={"help": "another number draws other wordings and exemplars"})
    seed: int = field(default=0, metadata={"help": "seed of all draws"})


# what a row is phrased with


class Words(NamedTuple):
    """The templates of a style: `regular` ones first, then those without an instruction."""

    templates: tuple[Template, ...]
    regular: int
    texts: tuple[str, ...]


def cluster_of(config: RenderConfig, dataset: DataSet | None) -> Cluster:
    """Return the cluster that is named, or the first of the set; raises UsageError where neither is known."""
    known = schema.builtin()
    name = config.templates or (dataset.clusters[0] if dataset and dataset.clusters else "")
    if name in known:
        return known[name]
    if not name:
        raise UsageError(
            f"{config.source} is no declared data set; name its templates with --templates: one of "
            f"{', '.join(known)}, or a file"
        )
    if not Path(name).exists():
        raise UsageError(
            f"--templates {name}: no file and no cluster.{nearest(name, known)} Known: {', '.join(known)}"
        )
    found = schema.load(name)
    for wanted in dataset.clusters if dataset else ():
        if wanted in found:
            return found[wanted]
    if len(found) > 1:
        raise UsageError(f"--templates {name} holds {', '.join(found)}; name the file of one of them")
    return next(iter(found.values()))


def words_of(config: RenderConfig, cluster: Cluster, has: frozenset[str]) -> Words:
    """Return the templates of the style for rows that have these fields; raises UsageError without any."""
    if cluster.asked not in has:
        raise UsageError(
            f"{config.source} has no {cluster.asked}, which {cluster.name} asks for; name its column with "
            f"--field {cluster.asked}=COLUMN"
        )
    if config.cot and ("rationale" not in has or "rationale" not in cluster.fields):
        raise UsageError(f"--cot needs a rationale, which {config.source} or {cluster.name} does not have")
    if config.invert:
        if config.options:
            raise UsageError("an inverted row shows no options; leave one of --invert and --options out")
        templates = inverted(cluster, has, cot=config.cot)
        return Words(templates, len(templates), tuple(t.input for t in templates))
    if config.options and not ({"options", "answer"} <= has and "options" in cluster.fields):
        raise UsageError(
            f"--options: {config.source} has none for {cluster.name}; render it with --no-options"
        )
    templates = schema.usable(cluster, has, options=config.options)
    if not templates:
        raise UsageError(
            f"{cluster.name} has no template for rows with {', '.join(sorted(has))}; see "
            "`taskmill lint templates` and the fields its wordings show"
        )
    extra = bare(cluster, has & set(cluster.fields)) if config.style == "fs" and config.bare else ()
    both = (*templates, *extra)
    return Words(both, len(templates), tuple(t.text(config.options) for t in both))


def choice_of(words: Words, base: Array, share: float) -> Array:
    """Return the template of each row (N,): each equally often, those without instruction in their share."""
    regular = drawn(base, "template", words.regular)
    rest = len(words.templates) - words.regular
    if not rest:
        return regular
    plain = drawn(base, "bare", 1_000_000) < share * 1_000_000
    return np.where(plain, words.regular + drawn(base, "bare template", rest), regular)
