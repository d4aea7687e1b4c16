"""Items → requests, and the replies by item: prompts to continue, or options to weigh."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from taskmill.caller import Caller
from taskmill.calls import Completion, Request, Sampling, request
from taskmill.errors import UsageError
from taskmill.evaluate.ranking import Weigher, weigh
from taskmill.recipes.evaluate.config import EvaluateConfig
from taskmill.recipes.evaluate.rows import Bench
from taskmill.recipes.session import Progress, Session
from taskmill.suites import Item, prompt

__all__ = ["BLANK", "CUE", "Replies", "choices_of", "replies", "scoring_caller", "sent", "shots"]


@dataclass(frozen=True, slots=True)
class _Asked:
    """Where a request belongs: an item in a wording; `part`: a sample's number, or what of a ranking."""

    item: int
    phrasing: int
    part: int


CUE, BLANK = 1, 2
"""Parts of a ranking beside 0, the options behind the item's own prompt."""

Replies = dict[tuple[int, int], dict[int, Completion]]
"""(item, phrasing) → part → completion; failed calls are not in it."""


def shots(bench: Bench, config: EvaluateConfig) -> int:
    """Return how many solved questions are asked for before each item."""
    return bench.suite.k if config.shots < 0 else config.shots


def replies(session: Session, caller: Caller, bench: Bench, config: EvaluateConfig) -> Replies:
    """Ask about all items of a suite, as far as the budget goes; what was made is counted in `caller`.

    Raises UsageError if the backend cannot score given texts and the suite needs that.
    """
    if not bench.suite.ranked:
        asked = _requests(caller.backend.model, bench, config)
        return _answers(session, caller, bench, asked, config)
    scoring = scoring_caller(caller, config)
    found = _answers(session, scoring, bench, _weighings(caller.backend.model, bench, config), config)
    caller.include(scoring)
    return found


def scoring_caller(caller: Caller, config: EvaluateConfig) -> Caller:
    """Return a caller of the same ledger and budget whose backend weighs given texts.

    Raises UsageError if it cannot.
    """
    backend: Any = caller.backend
    if not hasattr(backend, "score"):
        raise UsageError(
            f"the backend of {config.model.ref} cannot score given texts, which ranked suites and the choice "
            "among samples need; use openvino:, transformers:, vllm: or openai:, or a suite that generates"
        )
    return Caller(Weigher(backend), caller.ledger, caller.budget)


def _requests(model: str, bench: Bench, config: EvaluateConfig) -> Iterator[Request]:
    words, k = prompt(bench.suite.prompt), shots(bench, config)
    sampling = Sampling(
        config.model.temperature, config.model.top_p, config.model.max_new_tokens or bench.suite.max_tokens,
        words.stop,
    )  # fmt: skip
    for at, item in enumerate(bench.items):
        for phrasing in range(config.phrasings):
            text = words.render(item, bench.before(item, k), phrasing)
            for sample in range(config.samples):
                yield request(
                    model, sampling, **sent(text, config), seed=config.seed, sample=sample,
                    payload=_Asked(at, phrasing, sample),
                )  # fmt: skip


def sent(text: str, config: EvaluateConfig) -> dict[str, Any]:
    """Return a prompt as the arguments of a request: a text to go on with, or one message of a chat."""
    return {"messages": (("user", text),)} if config.model.protocol == "chat" else {"prompt": text}


def _weighings(model: str, bench: Bench, config: EvaluateConfig) -> Iterator[Request]:
    """Ask for the likelihoods of every item's options: behind its prompt, a bare cue and a blank prompt."""
    words, k = prompt(bench.suite.prompt), shots(bench, config)
    for at, item in enumerate(bench.items):
        choices = choices_of(bench, item, config)
        for phrasing in range(config.phrasings):
            solved = bench.before(item, k)
            own = words.render(item, solved, phrasing)
            blank = words.blank(item, solved, phrasing)
            for part, text in enumerate((own, words.start, blank)):
                asked = weigh(model, choices, **sent(text, config))
                yield replace(asked, payload=_Asked(at, phrasing, part))


def choices_of(bench: Bench, item: Item, config: EvaluateConfig) -> list[str]:
    """Return the texts of an item's options as they are scored."""
    texts = [bench.suite.choice(item, i) for i in range(len(item.options))]
    # A chat's reply begins without the space that follows a cue.
    return [t.lstrip() for t in texts] if config.model.protocol == "chat" else texts


def _answers(
    session: Session, caller: Caller, bench: Bench, asked: Iterator[Request], config: EvaluateConfig
) -> Replies:
    found: Replies = defaultdict(dict)
    each = config.phrasings * (3 if bench.suite.ranked else config.samples)
    for done, (sent, completion) in enumerate(caller.answers(asked), 1):
        at: _Asked = sent.payload
        if completion.finish != "error":
            found[at.item, at.phrasing][at.part] = completion
        budget = caller.budget
        session.tick(
            Progress(
                bench.suite.name, done, each * len(bench.items), 0, 0, caller.made, caller.reused,
                budget.prompt_tokens + budget.completion_tokens, budget.cost,
            )
        )  # fmt: skip
    return found
