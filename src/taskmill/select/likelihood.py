"""What a language model finds likely: IFD and perplexity, by any backend that can score given texts.

IFD (instruction-following difficulty, Li et al. 2024, 2308.12032; with a small model: Superfiltering,
2402.00530) holds the loss of an answer behind its instruction against its loss alone. The published code
starts the answer alone with nothing, so that its first token has no probability there and an answer of one
token has no loss; here it stands behind a line break. What cannot be scored is reported with its reason and
never chosen; it never counts as 0.

Every score is kept by model, prompt and text as soon as it is there: a choice that was killed goes on where
it stood, and another budget, band or quota computes nothing again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np

from taskmill.calls import Completion, Scorer, ScoreRequest, Scores
from taskmill.durable import cache_folder
from taskmill.errors import BackendError, UsageError
from taskmill.ids import content_id
from taskmill.ledger import Ledger
from taskmill.select import Budget, Needs, Pool, Selection, Selector, fill

__all__ = ["Ifd", "Losses", "Perplexity", "ifd", "losses"]

Array = np.ndarray[Any, Any]

START = "\n"
"""What stands before a text that stands alone (chosen: one token in most vocabularies and never the start of
a word; a model's own start token, where its tokenizer reads one from text, is given by the setting)."""

EMBEDDED = "openvino:smollm2-135m"

VERSION = "scores 1"
"""Enters the key of every kept score; raised when what a score means changes."""


class Losses(NamedTuple):
    """`values`: mean negative log-likelihood of a token (float64 [n], nats; NaN where `errors` says why)."""

    values: Array
    errors: dict[int, str]


def losses(pairs: Iterable[tuple[str, str]], scorer: Scorer, known: Ledger | None = None) -> Losses:
    """Return the mean loss of each text behind its prompt; `pairs` are (prompt, text).

    The texts are asked for as a stream, in whatever order the answers come; equal pairs once, and those
    `known` not at all: it gets every score as it comes. A text that is blank or that the scorer refuses gets
    an entry in `errors`. Raises BackendError if no request can succeed.
    """
    asked = list(pairs)
    keys = [content_id(VERSION, scorer.model, prompt, text) for prompt, text in asked]
    errors = {at: "there is no text to score" for at, (_, text) in enumerate(asked) if not text.strip()}
    wanted = {key: at for at, key in enumerate(keys) if at not in errors}
    found: dict[str, float | str] = {}
    for key in wanted:
        kept = known.get(key) if known is not None else None
        if kept is not None:
            found[key] = float(kept.text)
    requests = (
        ScoreRequest(key, (asked[at][1],), prompt=asked[at][0])
        for key, at in wanted.items()
        if key not in found
    )
    for scores in scorer.score(requests):
        found[scores.key] = value = _loss(scores)
        if known is not None and isinstance(value, float):
            known.append((Completion(scores.key, repr(value), completion_tokens=scores.tokens[0]),))
    for at, key in enumerate(keys):
        value = found.get(key, "the model sent no answer")
        if isinstance(value, str):
            errors.setdefault(at, value)
    values = [math.nan if at in errors else found[key] for at, key in enumerate(keys)]
    return Losses(np.array(values, np.float64), errors)


def _loss(scores: Scores) -> float | str:
    """Return the mean loss of a token, or why there is none."""
    if scores.error:
        return scores.error
    if not scores.tokens or scores.tokens[0] < 1 or not math.isfinite(scores.logprobs[0]):
        return "the model gives no finite log-probability"
    return -scores.logprobs[0] / scores.tokens[0]


def ifd(
    prompts: Sequence[str],
    answers: Sequence[str],
    scorer: Scorer,
    *,
    start: str = START,
    ratio: str = "perplexity",
    known: Ledger | None = None,
) -> Losses:
    """Return the instruction-following difficulty of each answer; 1 and above: its prompt does not help.

    `ratio` "perplexity" is ppl(A|Q) / ppl(A) (Superfiltering's code), "loss" the ratio of the mean losses
    (the paper's formula); both pass 1 together. Both passes count the same tokens, the first one too. `known`
    is that of `losses`.
    """
    both = [
        pair
        for prompt, answer in zip(prompts, answers, strict=True)
        for pair in ((prompt, answer), (start, answer))
    ]
    values, wrong = losses(both, scorer, known)
    behind, alone = values[0::2], values[1::2]
    errors = {at // 2: why for at, why in sorted(wrong.items(), reverse=True)}
    if ratio == "loss":
        for at in np.flatnonzero(alone == 0).tolist():
            errors.setdefault(at, "the answer alone is certain, its loss is 0")
        found = np.divide(behind, alone, out=np.full(len(alone), math.nan), where=alone > 0)
    else:
        found = np.exp(behind - alone)
    return Losses(found, errors)


@dataclass(frozen=True)
class _Scored(Selector):
    """A selector that asks a model about texts. The model is loaded once, at the first text."""

    model: str = field(default=EMBEDDED, metadata={"help": "backend:name of the model that scores"})
    start: str = field(default=START, metadata={"help": "what a text alone stands behind"})

    @cached_property
    def scorer(self) -> Scorer:
        """The backend; raises UsageError if it cannot score given texts."""
        from taskmill.backends import ModelConfig, load

        loaded = load(ModelConfig(ref=self.model))
        if not hasattr(loaded, "score"):
            raise UsageError(
                f"the backend of {self.model} cannot score given texts; use openvino:, transformers: or vllm:"
            )
        return cast(Scorer, loaded)

    def known(self) -> Ledger:
        """Open the scores of this model that were computed before: a ledger in the user's cache."""
        return Ledger(cache_folder() / "scores" / content_id(VERSION, self.scorer.model), "select")


@dataclass(frozen=True)
class Ifd(_Scored):
    """Rows whose instruction helps least in finding the answer, of those where it helps at all (IFD < 1)."""

    uses: ClassVar[tuple[str, ...]] = ("table",)

    prompt: str = field(default="instruction", metadata={"help": "column of the instruction"})
    answer: str = field(default="response", metadata={"help": "column of the answer"})
    ratio: str = field(
        default="perplexity",
        metadata={"help": "of perplexities or losses", "choices": ("perplexity", "loss")},
    )

    def pick(self, pool: Pool, budget: Budget, seed: int) -> Selection:
        """Return rows of IFD < 1, the highest first; a score is the row's IFD.

        Rows of 1 and above are left out, so the choice can be smaller than the budget; evidence counts them
        and names every row that could not be scored. Raises BackendError if no row could.
        """
        prompts, answers = self._texts(pool)
        with self.known() as known:
            values, errors = ifd(
                prompts, answers, self.scorer, start=self.start, ratio=self.ratio, known=known
            )
        _some(values, errors)
        order = np.lexsort((pool.rank, -values))
        order = order[values[order] < 1]  # a NaN is not
        evidence = {"model": self.model, "not_below_1": int((values >= 1).sum()), **_failures(pool, errors)}
        return fill(pool, budget, order, values[order], evidence)

    def _texts(self, pool: Pool) -> tuple[list[str], list[str]]:
        """Return (prompts, answers): the instruction with its context in place, then a line break."""
        from taskmill import render

        columns = pool.table.column_names if pool.table is not None else []
        if pool.table is None or self.prompt not in columns or self.answer not in columns:
            raise UsageError(
                f"ifd needs the columns {self.prompt!r} and {self.answer!r}; name others with "
                f"prompt= and answer=. Columns: {', '.join(columns) or 'none'}"
            )
        prompts = [text or "" for text in pool.table[self.prompt].to_pylist()]
        if "context" in columns:
            contexts = pool.table["context"].to_pylist()
            prompts = [render.fill(text, own or "") for text, own in zip(prompts, contexts, strict=True)]
        return [f"{text}\n" for text in prompts], [text or "" for text in pool.table[self.answer].to_pylist()]

    def needs(self, rows: int, width: int, picks: int) -> Needs:
        """Two passes of the embedded model (135M) over rows of 250 tokens, 2 · parameters each."""
        return Needs(2e9 + 2000.0 * rows, 2 * 1.35e8 * 250.0 * rows)


@dataclass(frozen=True)
class Perplexity(_Scored):
    """Rows by how well a model foresees them."""

    uses: ClassVar[tuple[str, ...]] = ("texts",)

    band: str = field(
        default="mid",
        metadata={
            "help": "rows of low or high perplexity, or around the median",
            "choices": ("low", "mid", "high"),
        },
    )

    def pick(self, pool: Pool, budget: Budget, seed: int) -> Selection:
        """Return rows by perplexity, the lowest or highest first, or outwards from the median.

        A score is the row's perplexity, exp of its mean loss. Evidence names every row that could not be
        scored; it is not chosen. Raises UsageError without texts, BackendError if no row could be scored.
        """
        if pool.texts is None:
            raise UsageError("perplexity needs texts; name their column with --text")
        pairs = ((self.start, text or "") for text in pool.texts.to_pylist())
        with self.known() as known:
            values, errors = losses(pairs, self.scorer, known)
        _some(values, errors)
        order = np.lexsort((pool.rank, values))[: len(pool) - len(errors)]  # NaN sorts last
        if self.band == "high":
            order = order[np.lexsort((pool.rank[order], -values[order]))]
        elif self.band == "mid":
            away = np.abs(2 * np.arange(len(order)) - (len(order) - 1))
            order = order[np.argsort(away, kind="stable")]  # of two as far, the lower first
        scores = np.exp(values[order])
        evidence = {"model": self.model, "band": self.band, **_failures(pool, errors)}
        return fill(pool, budget, order, scores, evidence)

    def needs(self, rows: int, width: int, picks: int) -> Needs:
        """One pass of the embedded model (135M) over rows of 250 tokens, 2 · parameters each."""
        return Needs(2e9 + 2000.0 * rows, 1.35e8 * 250.0 * rows)


def _some(values: Array, errors: Mapping[int, str]) -> None:
    if len(values) and len(errors) == len(values):
        raise BackendError(
            f"no row could be scored; the first of {len(values)} reasons: {errors[min(errors)]}"
        )


def _failures(pool: Pool, errors: Mapping[int, str]) -> dict[str, Any]:
    """Return every row that could not be scored, in order of id, with its reason."""
    rows = sorted(errors, key=lambda row: int(pool.rank[row]))
    return {"not_scored": [{"id": str(pool.ids[row].as_py()), "why": errors[row]} for row in rows]}
