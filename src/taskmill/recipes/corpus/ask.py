"""The model is asked about texts, chain by chain; pairs come back as examples of a stage."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import orjson

from taskmill.caller import Caller
from taskmill.calls import Completion, Request
from taskmill.curate.checks import check
from taskmill.recipes.evaluation_sets import HeldOut
from taskmill.recipes.session import Progress, Session
from taskmill.recipes.synthesis import answered
from taskmill.record import Document, Dropped, Example
from taskmill.store import StageWriter
from taskmill.synthesize import bonito
from taskmill.synthesize.bonito import Synthesis
from taskmill.synthesize.pair_format import Shown
from taskmill.synthesize.plan import Passages
from taskmill.synthesize.pretraining import Asked, PairStyle, chains, pair_of, pose, read
from taskmill.tasks.rules import question_of

__all__ = ["Asking"]


@dataclass(slots=True)
class _Chain:
    """Texts by number, the next to be asked about, and those already answered (id, text and pairs)."""

    texts: list[int]
    at: int = 0
    name: str = ""
    answered: list[tuple[str, Shown]] = field(default_factory=list)


class Asking:
    """Carries chains of texts to the model and what comes of them to the stage's writer.

    `answered`: the documents of which a pair passes its type's check and holds no item of an evaluation set.
    """

    def __init__(
        self,
        session: Session,
        caller: Caller,
        writer: StageWriter,
        held: HeldOut,
        texts: Passages,
        count: Callable[[str], int],
    ) -> None:
        self.session, self.caller, self.writer, self.held, self.texts = session, caller, writer, held, texts
        self.count = count
        self.answered: set[str] = set()
        self.errors: Counter[str] = Counter()
        self.asked = self.kept = self.lost = 0
        self.total = 0

    # the published synthesizer's own format: one reply with all pairs of a text, earlier texts shown

    def in_pairs(self, how: PairStyle, numbers: Sequence[int], rounds: int) -> None:
        """Ask about the texts of these numbers, each once, those before it in its chain shown."""
        self.total += len(numbers)
        running: dict[str, _Chain] = {}
        again: deque[Request] = deque()

        def first() -> Iterator[Request]:
            for own in chains(numbers, rounds):
                posed = self._next(how, _Chain(own), running)
                if posed is not None:
                    yield posed

        def follow(asked: Request, completion: Completion) -> None:
            posed = self._next(how, self._replied(how, asked, completion, running), running)
            if posed is not None:
                again.append(posed)

        self._run(first(), again, follow)

    def _next(self, how: PairStyle, chain: _Chain, running: dict[str, _Chain]) -> Request | None:
        """Return the request for the chain's next text; what cannot be asked about is dropped on the way."""
        while chain.at < len(chain.texts):
            document = self.texts[chain.texts[chain.at]]
            chain.name = chain.name or document.id
            asked = Asked(document, chain.name, chain.at)
            chain.at += 1
            self.writer.count(1)
            posed = pose(how, self.caller.backend.model, asked, chain.answered, self.count)
            if isinstance(posed, Request):
                running[document.id] = chain
                return posed
            self._take([posed])
        return None

    def _replied(
        self, how: PairStyle, asked: Request, completion: Completion, running: dict[str, _Chain]
    ) -> _Chain:
        """Take in the reply to a chain's text and return the chain, which is not running any more."""
        document = asked.payload.document
        good = self._take(read(how, self.caller.backend.model, asked, completion))
        chain = running.pop(document.id)
        if good:
            pairs = tuple(pair_of(example)[1] for example in good)
            chain.answered.append((document.id, Shown(document.text.strip(), pairs)))
        return chain

    # task types: one pair a reply, several replies a text

    def in_tasks(self, how: Synthesis, numbers: Sequence[int], rounds: int, pairs: int) -> None:
        """Ask about each text `pairs` times, the task types in turns; chains say what stands together."""
        self.total += len(numbers) * pairs
        model = self.caller.backend.model
        places: dict[str, tuple[str, int]] = {}
        again: deque[Request] = deque()

        def first() -> Iterator[Request]:
            for own in chains(numbers, rounds):
                head = self.texts[own[0]].id
                for at, number in enumerate(own):
                    document = self.texts[number]
                    places[document.id] = (head, at)
                    yield from self._requests(how, document, pairs)

        def follow(asked: Request, completion: Completion) -> None:
            second = bonito.respond(model, asked, completion)
            if second is not None:
                again.append(second)
                return
            made = bonito.examples(model, asked, completion)
            self._take([_placed(o, places) if isinstance(o, Example) else o for o in made])

        self._run(first(), again, follow)

    def _requests(self, how: Synthesis, document: Document, pairs: int) -> Iterator[Request]:
        for i in range(pairs):
            self.writer.count(1)
            task, sample = how.tasks[i % len(how.tasks)], i // len(how.tasks)
            posed = bonito.pose(how, self.caller.backend.model, document, task, sample)
            if isinstance(posed, Request):
                yield posed
            else:
                self._take([posed])

    # both

    def _run(
        self, first: Iterator[Request], again: deque[Request], follow: Callable[[Request, Completion], None]
    ) -> None:
        for asked, completion in answered(self.caller, self.writer, self.errors, first, again):
            follow(asked, completion)

    def _take(self, outcomes: Sequence[Example | Dropped]) -> list[Example]:
        """Store the outcomes of one request (counted as one); return the examples that will be accepted."""
        kept = [o for o in outcomes if isinstance(o, Example)]
        lost = [o for o in outcomes if isinstance(o, Dropped)]
        self.writer.count(len(outcomes) - 1)
        self.writer.keep(kept)
        self.writer.drop(lost)
        good = [e for e in kept if check(e) is None and self.held.match(e) is None]
        self.answered.update(e.source.document for e in good)
        self.asked, self.kept, self.lost = self.asked + 1, self.kept + len(kept), self.lost + len(lost)
        self.session.tick(self._progress)
        return good

    def _progress(self) -> Progress:
        caller, budget = self.caller, self.caller.budget
        self.session.book(caller)
        spent = budget.prompt_tokens + budget.completion_tokens
        return Progress(
            "synthesize",
            self.asked,
            max(self.total, self.asked),
            self.kept,
            self.lost,
            caller.made,
            caller.reused,
            spent,
            budget.cost,
        )


def _placed(example: Example, places: Mapping[str, tuple[str, int]]) -> Example:
    """Return an example with its chain, round and question in `meta`."""
    chain, at = places[example.source.document]
    where = {"chain": chain, "round": at, "number": 0, "question": question_of(example.instruction)}
    return replace(example, meta=orjson.dumps({**orjson.loads(example.meta), **where}).decode())
