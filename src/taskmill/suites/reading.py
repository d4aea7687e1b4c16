"""Answers that are spans of a passage: SQuAD's layout, TyDiQA-GoldP and XQuAD in many languages.

TyDiQA is asked behind one solved question of the same language (Flan, 2210.11416, appendix D), from its
training rows. XQuAD has none: there, and where those are missing, it is a test question on another passage.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from taskmill.ids import draw
from taskmill.suites.base import Item, Rows, Shot, Suite, cell, texts

__all__ = ["SQUAD", "TYDIQA", "XQUAD"]


def _read(file: str, rows: Rows, beside: Rows) -> list[Item]:
    del beside
    items = []
    for number, row in enumerate(_flat(rows)):
        context = str(cell(row, ("context", "passage"), file, number)).strip()
        question = str(cell(row, ("question",), file, number)).strip()
        targets = texts(cell(row, ("answers", "answer", "target"), file, number))
        task = _language(row) or str(row.get("task") or Path(file).name.partition(".")[0])
        fields = {"context": context, "question": question}
        items.append(Item(f"reading/{task}/{row.get('id', number)}", task, fields, targets))
    return items


_LENT = 8
"""Solved questions of a language, each on its own passage (chosen: more than any prompt takes)."""


def _shots(file: str, rows: Rows, seed: int) -> dict[str, list[Shot]]:
    """Return solved questions of each language, drawn by the seed, each on a passage of its own."""
    found: dict[str, dict[str, Shot]] = {}
    items = [item for item in _read(file, rows, ()) if item.targets]
    for item in sorted(items, key=lambda i: (draw(seed, i.id, "solved question"), i.id)):
        own = found.setdefault(item.task, {})
        if len(own) < _LENT:
            own.setdefault(item.fields["context"], Shot({**item.fields, "answer": item.targets[0]}))
    return {task: list(own.values()) for task, own in found.items()}


_NAMES = {
    "arabic": "ar", "bengali": "bn", "english": "en", "finnish": "fi", "indonesian": "id", "japanese": "ja",
    "korean": "ko", "russian": "ru", "swahili": "sw", "telugu": "te", "thai": "th",
}  # fmt: skip
"""Languages as TyDiQA names them, in a column or at the beginning of an id."""


def _language(row: Mapping[str, Any]) -> str:
    named = str(row.get("language") or row.get("lang") or "").lower()
    return _NAMES.get(named, named) or _NAMES.get(str(row.get("id", "")).partition("-")[0], "")


def _flat(rows: Rows) -> Iterator[Mapping[str, Any]]:
    """Yield one row a question: of SQuAD's articles with paragraphs, or the rows as they are."""
    for row in rows:
        if "paragraphs" not in row:
            yield row
            continue
        for paragraph in row["paragraphs"]:
            for asked in paragraph.get("qas", ()):
                own = {k: row[k] for k in ("language", "lang") if k in row}
                yield {**own, "context": paragraph.get("context"), **asked}


def _suite(name: str, title: str, files: tuple[str, ...], average: str, metric: str = "squad") -> Suite:
    return Suite(name, title, files, _read, "squad", "span", metric, average, max_tokens=48)


SQUAD = _suite("squad", "questions on a passage", ("squad.parquet", "squadshifts_reddit.parquet"), "items")
XQUAD = replace(
    _suite("xquad", "XQuAD", ("xquad.parquet",), "languages", "squad-languages"),
    upstream=("xquad.*.json", "xquad_*.parquet", "corpora/xquad_*.parquet"),
    shots=_shots, k=1, lent=True, version=2,
)  # fmt: skip
TYDIQA = replace(
    _suite(
        "tydiqa", "TyDiQA-GoldP", ("tydiqa_goldp.parquet", "tydiqa.parquet"), "languages", "squad-languages"
    ),
    dev=("tydiqa_goldp_train.parquet", "tydiqa_train.parquet"), shots=_shots, k=1, lent=True, version=2,
)  # fmt: skip
