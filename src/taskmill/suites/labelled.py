"""Tasks whose answer is one of a closed set, by the likelihood of each: NLI, yes and no, any choices."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from taskmill.errors import InputError
from taskmill.suites.base import LETTERS, Item, Rows, Suite, cell, place, texts

__all__ = ["CHOICE", "HEALTHVER", "NLI", "PUBMEDQA", "STRATEGYQA"]

_NLI = {
    "entailment": "Yes", "supports": "Yes", "neutral": "Maybe", "contradiction": "No", "refutes": "No",
    "not_entailment": "No",
}  # fmt: skip
"""Label → the word a model is asked for."""


def _closed(name: str, task: str, fields: dict[str, str], options: tuple[str, ...], gold: int) -> Item:
    return Item(name, task, fields, (options[gold],), options, (gold,))


def _nli(file: str, rows: Rows, beside: Rows) -> list[Item]:
    del beside
    found = []
    for number, row in enumerate(rows):
        premise = str(cell(row, ("premise", "evidence", "context"), file, number)).strip()
        hypothesis = str(cell(row, ("hypothesis", "claim"), file, number)).strip()
        label = str(cell(row, ("label", "target"), file, number)).strip().lower()
        if label not in _NLI:
            known = ", ".join(_NLI)
            raise InputError(f"{file}: row {number} (counted from 0): 'label' is {label!r}, none of {known}")
        found.append(({"premise": premise, "hypothesis": hypothesis}, _NLI[label]))
    options = tuple(word for word in ("Yes", "Maybe", "No") if any(word == own for _, own in found))
    task = Path(file).name.partition(".")[0]
    return [
        _closed(f"nli/{task}/{n:05}", task, fields, options, options.index(word))
        for n, (fields, word) in enumerate(found)
    ]


def _yes_no(
    columns: tuple[tuple[str, ...], ...], words: tuple[str, ...]
) -> Callable[[str, Rows, Rows], list[Item]]:
    """Return a reader of (context, question, answer) columns whose answers are `words`, in any case."""

    def read(file: str, rows: Rows, beside: Rows) -> list[Item]:
        del beside
        task = Path(file).name.partition(".")[0]
        options = tuple(word.capitalize() for word in words)
        items = []
        for number, row in enumerate(rows):
            passage = " ".join(texts(cell(row, columns[0], file, number, needed=False))).strip()
            question = str(cell(row, columns[1], file, number)).strip()
            value = cell(row, columns[2], file, number)
            answer = {"true": "yes", "false": "no"}.get(
                str(value).strip().lower(), str(value).strip().lower()
            )
            if answer not in words:
                raise InputError(
                    f"{file}: row {number} (counted from 0): {answer!r} is none of {', '.join(words)}"
                )
            own = str(row.get("split") or "")
            item = _closed(
                f"{task}/{number:05}", task, {"context": passage, "question": question}, options,
                words.index(answer),
            )  # fmt: skip
            if own in ("", "test"):  # a file that marks its splits is evaluated on the test rows
                items.append(item)
        return items

    return read


def _choice(file: str, rows: Rows, beside: Rows) -> list[Item]:
    """Read a table of questions, options and the right ones, each an index, a text or a letter."""
    del beside
    items = []
    for number, row in enumerate(rows):
        options = texts(cell(row, ("options", "choices"), file, number))
        question = str(cell(row, ("question", "input"), file, number)).strip()
        answers = cell(row, ("answer", "answers", "target", "answer_index"), file, number)
        wanted = answers if isinstance(answers, list) else [answers]
        gold = [_place(one, options) for one in wanted]
        if len(options) < 2 or not gold or None in gold:
            raise InputError(
                f"{file}: row {number} (counted from 0): the answer is none, or two, of its 'options'"
            )
        passage = str(cell(row, ("context", "passage"), file, number, needed=False) or "").strip()
        task = str(row.get("task") or Path(file).name.partition(".")[0])
        right = tuple(g for g in gold if g is not None)
        fields = {"context": passage, "question": question}
        items.append(
            Item(f"choice/{task}/{number:05}", task, fields, tuple(options[g] for g in right), options, right)
        )
    return items


def _place(answer: object, options: tuple[str, ...]) -> int | None:
    if isinstance(answer, int):
        return answer if 0 <= answer < len(options) else None
    text = str(answer).strip()
    lettered = re.fullmatch(r"\(?([A-Z])\)?", text)
    if lettered and text not in options:
        at = LETTERS.index(lettered[1])
        return at if at < len(options) else None
    return place(text, options)


def _suite(name: str, title: str, files: tuple[str, ...], read: Callable[[str, Rows, Rows], list[Item]],
           prompt: str, normalise: str = "sum") -> Suite:  # fmt: skip
    return Suite(
        name, title, files, read, prompt, "label", "labels", "items", ranked=True, normalise=normalise
    )


NLI = _suite("nli", "natural language inference", ("nli.parquet",), _nli, "nli")
HEALTHVER = _suite(
    "healthver", "HealthVer: does the evidence support the claim?", ("healthver_test.parquet",), _nli, "nli"
)
PUBMEDQA = _suite(
    "pubmedqa", "PubMedQA: yes, no or maybe", ("pubmedqa.parquet",),
    _yes_no((("contexts", "context"), ("question",), ("final_decision", "answer")), ("yes", "no", "maybe")),
    "yes-no",
)  # fmt: skip
STRATEGYQA = _suite(
    "strategyqa", "StrategyQA: yes or no", ("strategyqa_dev.parquet",),
    _yes_no((("context",), ("question",), ("answer",)), ("yes", "no")), "yes-no",
)  # fmt: skip
CHOICE = _suite("choice", "any choices", ("choice.parquet",), _choice, "choice", "bytes")
