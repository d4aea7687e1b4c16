"""Annotated datasets → a text and the list of pairs about it: what an instruction synthesizer is tuned on.

Four formats: free answers or options, each with or without reasoning; a record has pairs of one format only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from taskmill.ids import content_id
from taskmill.record import Dropped, Example, Reason
from taskmill.synthesize.pair_format import Pair, split_options, split_reasoning
from taskmill.synthesize.pretraining import pair_of

__all__ = ["CAP", "FORMATS", "Annotated", "capped", "cast", "format_of", "from_row", "incomplete", "to_row"]

FORMATS = ("free", "options", "free-cot", "options-cot")

CAP = 10_000
"""Most records of one dataset, those of most pairs first (the authors' tuning data, arXiv 2406.14491)."""


@dataclass(frozen=True, slots=True)
class Annotated:
    """A text of a dataset with its pairs, all of one format: free, options, free-cot or options-cot."""

    dataset: str
    context: str
    pairs: tuple[Pair, ...]
    format: str = ""
    licence: str = ""

    @property
    def id(self) -> str:
        """Return the hash of all that is in it."""
        said = (text for pair in self.pairs for text in (pair.question, pair.answer))
        return content_id("annotated", self.dataset, self.context, *said)


def format_of(pair: Pair) -> str:
    """Return the format of a pair."""
    question, rationale, _ = split_reasoning(pair)
    kind = "options" if split_options(question)[1] else "free"
    return f"{kind}-cot" if rationale else kind


def cast(examples: Iterable[Example]) -> tuple[list[Annotated], list[Dropped]]:
    """Return the texts of examples that ask questions, one record for each dataset, text and format.

    Examples without a text, a question or an answer are dropped, and so is what is asked twice of a text (the
    first by id stays). Records are sorted by id: the order of the examples changes nothing.
    """
    found: dict[tuple[str, str, str, str], dict[str, Pair]] = defaultdict(dict)
    lost: list[Dropped] = []
    for example in sorted(examples, key=lambda e: (e.id, e.origin.call)):
        question, pair = pair_of(example)
        context, source = example.context.strip(), example.source
        if not context:
            lost.append(Dropped(example, "cast", Reason.NOT_APPLICABLE, "it has no text"))
        elif not question:
            lost.append(Dropped(example, "cast", Reason.NOT_A_QUESTION, "nothing in it asks a question"))
        elif not pair.answer.strip():
            lost.append(Dropped(example, "cast", Reason.EMPTY, "its question has no answer"))
        else:
            name = ":".join(filter(None, (source.dataset, source.config))) or source.url
            own = found[name, context, format_of(pair), source.licence]
            if question.casefold() in own:
                lost.append(Dropped(example, "cast", Reason.DUPLICATE, "the text is asked the same"))
            else:
                own[question.casefold()] = pair
    records = [Annotated(d, c, tuple(own.values()), f, licence) for (d, c, f, licence), own in found.items()]
    return sorted(records, key=lambda r: r.id), lost


def capped(records: Iterable[Annotated], cap: int = CAP) -> list[Annotated]:
    """Return at most `cap` records of each dataset (0: all), those of most pairs (of equals, first by id)."""
    of: dict[str, list[Annotated]] = defaultdict(list)
    for record in records:
        of[record.dataset].append(record)
    best = [sorted(own, key=lambda r: (-len(r.pairs), r.id))[: cap or None] for _, own in sorted(of.items())]
    return [record for own in best for record in own]


def from_row(row: Mapping[str, Any], name: str) -> Annotated | None:
    """Read a row of the published tuning data's columns, None if it has no text or no pairs.

    Pairs stand in `QA_list` or `pairs`, with the keys Q and A or question and answer; `rc_name` or `dataset`
    names the dataset, else `name` does.
    """
    context = str(row.get("context") or "").strip()
    pairs = tuple(pair for pair in _listed(row) if pair is not None)
    if not context or not pairs:
        return None
    dataset = str(row.get("rc_name") or row.get("dataset") or name)
    return Annotated(dataset, context, pairs, str(row.get("QA_type") or ""), str(row.get("licence") or ""))


def incomplete(row: Mapping[str, Any]) -> list[int]:
    """Return the places of the row's pairs that lack a question or an answer, counted from 0."""
    return [place for place, pair in enumerate(_listed(row)) if pair is None]


def to_row(record: Annotated) -> dict[str, Any]:
    """Return a record in the published tuning data's columns."""
    listed = [{"Q": pair.question, "A": pair.answer} for pair in record.pairs]
    return {
        "context": record.context,
        "QA_list": listed,
        "QA_type": record.format,
        "rc_name": record.dataset,
        "licence": record.licence,
    }


def _listed(row: Mapping[str, Any]) -> list[Pair | None]:
    listed = row.get("QA_list") or row.get("pairs")
    return [_pair(one) for one in listed] if isinstance(listed, list) else []


def _pair(one: object) -> Pair | None:
    if not isinstance(one, Mapping):
        return None
    question = str(one.get("Q") or one.get("question") or "").strip()
    answer = str(one.get("A") or one.get("answer") or "").strip()
    return Pair(question, answer) if question and answer else None
