"""MMLU (Hendrycks et al. 2021) in five prompt modes, with the labels of MMLU-Redux (Gema et al. 2024)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from taskmill.errors import InputError
from taskmill.suites.base import LETTERS, Item, Rows, Shot, Suite, cell, letter, lettered, place

__all__ = ["MMLU", "MMLU_CLOZE", "MMLU_COT", "MMLU_HENDRYCKS", "MMLU_RANK", "mended"]

_FILES = ("mmlu.parquet", "mmlu_redux.parquet", "mmlu_stem.parquet")
_DEV = ("mmlu_cot_prompts.parquet",)
_BLOCK = re.compile(r"(?:\A|\n)Q: ")
_OPTIONS = re.compile(r"\n\(A\) (?P<options>.*)\Z", re.DOTALL)
_NEXT = re.compile(r"\s*\([B-Z]\) ")
_ANSWER = re.compile(r"answer is \(?([A-Z])\)?", re.IGNORECASE)


def _read(file: str, rows: Rows, beside: Rows) -> list[Item]:
    del beside
    counts: Counter[str] = Counter()
    items = []
    for number, row in enumerate(rows):
        subject = str(cell(row, ("subject",), file, number))
        choices = cell(row, ("choices", "options"), file, number)
        if not isinstance(choices, list) or len(choices) < 2:
            raise InputError(f"{file}: row {number} (counted from 0): 'choices' is no list of two or more")
        options = tuple(map(str, choices))
        gold = _index(cell(row, ("answer", "target"), file, number), options)
        if gold is None:
            raise InputError(
                f"{file}: row {number} (counted from 0): 'answer' is none, or two, "
                f"of the {len(options)} choices"
            )
        label = " ".join(str(row.get("error_label") or row.get("error_type") or "").lower().split("_"))
        corrected = _index(row.get("correct_answer"), options) if label == "wrong groundtruth" else None
        question = str(cell(row, ("question",), file, number)).strip()
        items.append(
            Item(
                f"mmlu/{subject}/{counts[subject]:04}",
                subject,
                _fields(question, options, subject),
                (f"({letter(gold)})",),
                options,
                (gold,),
                str(row.get("split") or ""),
                label or ("unlabelled" if "error_type" in row or "error_label" in row else ""),
                () if corrected is None else (f"({letter(corrected)})",),
            )
        )
        counts[subject] += 1
    return items


def _fields(question: str, options: tuple[str, ...], subject: str) -> dict[str, str]:
    return {
        "question": question,
        "subject": subject.replace("_", " "),
        "options": lettered(options, between=" "),
        "lines": lettered(options, "{}. {}"),
    }


def _index(value: Any, options: tuple[str, ...]) -> int | None:
    """Return the option an answer cell means: an index, a letter or an option's text."""
    text = str(value if value is not None else "").strip()
    if text.isdecimal():
        index = int(text)
    elif len(text.strip("().")) == 1:
        index = LETTERS.find(text.strip("().").upper())
    else:
        return place(text, options)
    return index if 0 <= index < len(options) else None


def _solved(row: Mapping[str, Any], file: str, number: int, subject: str) -> Shot:
    """Return a row of the development set, which has no rationale, as a solved question."""
    options = tuple(map(str, row["choices"]))
    gold = _index(cell(row, ("answer",), file, number), options)
    if gold is None:
        raise InputError(f"{file}: row {number} (counted from 0): 'answer' is none of the choices")
    fields = _fields(str(row["question"]).strip(), options, subject)
    said = {"answer": letter(gold), "text": options[gold], "rationale": f"The answer is ({letter(gold)})."}
    return Shot({**fields, **said})


def _shots(file: str, rows: Rows, seed: int) -> dict[str, list[Shot]]:
    """Return the solved questions of each subject; one whose options or answer cannot be read is left out."""
    del seed
    found: dict[str, list[Shot]] = {}
    for number, row in enumerate(rows):
        subject = str(cell(row, ("subject",), file, number))
        if "choices" in row:
            found.setdefault(subject, []).append(_solved(row, file, number, subject))
            continue
        own = []
        for block in _BLOCK.split(str(cell(row, ("prompt",), file, number)))[1:]:
            asked, _, reply = block.partition("\nA: Let's think step by step.")
            listed, answer = _OPTIONS.search(asked), _ANSWER.search(reply)
            if not listed or not answer:
                continue
            options = tuple(text.strip() for text in _NEXT.split(listed["options"]))
            if LETTERS.find(answer[1].upper()) >= len(options):
                continue
            own.append(
                Shot(
                    {
                        **_fields(asked[: listed.start()].strip(), options, subject),
                        "rationale": reply.strip(),
                        "answer": answer[1].upper(),
                        "text": options[LETTERS.find(answer[1].upper())],
                    }
                )
            )
        found[subject] = own
    return found


_DAMAGED = (
    (re.compile(r"[\x0c\n](?=(?:rac|actorial)\{)"), r"\f"),
    (re.compile(r"[\r\n](?=ight(?:arrow)?\b)"), r"\r"),
    (re.compile(r"\t(?=(?:ext|imes|heta|o)\b)"), r"\t"),
    (re.compile(r"\n(?=(?:eq|abla|otin)\b)"), r"\n"),
    (re.compile(r"\x08(?=[a-z])"), r"\b"),
)
"""What JSON escapes made of LaTeX macros: `\\frac` began with a form feed, `\\right` with a line break."""
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")


def mended(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an exemplar row with damaged LaTeX macros put right and no control character left."""
    if "prompt" not in row:
        return row
    text = str(row["prompt"] or "")
    for damaged, macro in _DAMAGED:
        text = damaged.sub(lambda _, macro=macro: macro, text)  # type: ignore[misc]
    return {**row, "prompt": _CONTROL.sub(" ", text)}


def _suite(name: str, title: str, prompt: str, extractor: str = "letter", **more: Any) -> Suite:
    return Suite(
        name, f"MMLU, {title}", _FILES, _read, prompt, extractor, average="mmlu",
        dev=_DEV, upstream=("test/*_test.csv", "*_test.csv"), dev_upstream=("dev/*_dev.csv",),
        shots=_shots, k=5, mend=mended, **more,
    )  # fmt: skip


MMLU = _suite("mmlu", "Flan direct", "mmlu", "letter", max_tokens=16)
MMLU_COT = _suite("mmlu-cot", "Flan chain of thought", "mmlu-cot", "letter-cot", max_tokens=512)
MMLU_HENDRYCKS = _suite(
    "mmlu-hendrycks", "original: likelihood of the letter", "mmlu-hendrycks",
    ranked=True, choice=lambda item, i: f" {letter(i)}",
)  # fmt: skip
MMLU_RANK = _suite(
    "mmlu-rank", "likelihood of the label", "mmlu", ranked=True, choice=lambda item, i: f" ({letter(i)})"
)
MMLU_CLOZE = _suite(
    "mmlu-cloze", "cloze: likelihood of the option's text", "mmlu-cloze", ranked=True, normalise="bytes"
)
