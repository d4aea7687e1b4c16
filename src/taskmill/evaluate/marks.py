"""Metrics: an extracted answer and its golds → marks. `accuracy` is in all of them, 0 or 1."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from taskmill.evaluate.extract import Answer, Extraction, Extractor, extract
from taskmill.evaluate.numbers import same
from taskmill.evaluate.stemming import stem
from taskmill.registry import Registry
from taskmill.tasks.metrics import exact_match, rouge_l, squad_f1

__all__ = ["METRICS", "Metric", "grade", "is_letter"]

Marks = dict[str, float]


@dataclass(frozen=True, slots=True)
class Metric:
    """A named, versioned function of (answer, golds, what was looked for); `headline` is shown first."""

    name: str
    mark: Callable[[str, Sequence[str], Answer], Marks]
    headline: str = "accuracy"
    others: tuple[str, ...] = ()
    version: int = 1


def is_letter(text: str) -> bool:
    """Say whether a gold is an option's letter, in brackets or not."""
    return re.fullmatch(r"\(?[A-Z]\)?", text.strip()) is not None


def _exact(answer: str, golds: Sequence[str], wanted: Answer) -> Marks:
    return {"accuracy": float(any(_equal(answer, gold, wanted) for gold in golds))}


def _equal(answer: str, gold: str, wanted: Answer) -> bool:
    if not answer:
        return False
    if wanted.kind == "letter":
        return answer == f"({gold.strip().strip('().').upper()})"
    if wanted.kind == "number":
        return same(answer, gold)
    if wanted.kind == "brackets":
        return answer.split() == list(re.sub(r"\s", "", gold))
    return re.split(r"[\s,]+", answer.casefold()) == re.split(r"[\s,]+", gold.strip().casefold())


_ARTICLES = {
    "de": "ein eine einen einem einer eines der die das den dem des",
    "es": "un una unos unas el la los las",
    "vi": "của là cái chiếc những",
    "fr": "un une des le la les",
    "ro": "un o",
    "el": "ο η το οι τα ένας μια ένα",
}
"""Articles that carry no answer, as MLQA's script drops those of its languages (Lewis et al. 2020)."""


def _localised(text: str, language: str) -> str:
    """Return text with the punctuation of all scripts and the language's articles taken out."""
    kept = "".join(" " if unicodedata.category(c).startswith("P") else c for c in text)
    if language == "ar":
        kept = re.sub(r"(?<!\w)ال(?=\w{2})", "", kept)
    articles = set(_ARTICLES.get(language, "").split())
    return " ".join(word for word in kept.split() if word.casefold() not in articles)


def _squad(answer: str, golds: Sequence[str], wanted: Answer) -> Marks:
    del wanted
    return {"accuracy": exact_match(answer, golds), "f1": squad_f1(answer, golds)}


def _squad_languages(answer: str, golds: Sequence[str], wanted: Answer) -> Marks:
    own = _localised(answer, wanted.language)
    return _squad(own, [_localised(gold, wanted.language) for gold in golds], wanted)


def _rouge(answer: str, golds: Sequence[str], wanted: Answer) -> Marks:
    del wanted
    best = max((rouge_l(answer, gold, stem=stem) for gold in golds), default=0.0)
    return {"accuracy": exact_match(answer, golds), "rouge_l": best}


METRICS: Registry[Metric] = Registry("metric")
for _one in (
    Metric("exact", _exact),
    Metric("labels", _exact, others=("macro_f1",)),
    Metric("squad", _squad, "f1", ("f1",)),
    Metric("squad-languages", _squad_languages, "accuracy", ("f1",)),
    Metric("rouge", _rouge, "rouge_l", ("rouge_l",), 2),
):
    METRICS.register(_one.name, _one)


def grade(
    output: str, golds: Sequence[str], extractor: Extractor, metric: Metric, wanted: Answer
) -> tuple[Extraction, Marks]:
    """Return what was read from an output and its marks; a failed extraction has marks of 0.

    A gold that is a text in a task of letters is held against the text of the answer, not against a letter.
    """
    if wanted.kind == "letter" and not any(map(is_letter, golds)):
        wanted = wanted._replace(kind="words", options=())
    found = extract(output, extractor, wanted)
    if not found.rule:
        return found, dict.fromkeys(("accuracy", *(o for o in metric.others if o != "macro_f1")), 0.0)
    return found, metric.mark(found.answer, golds, wanted)
