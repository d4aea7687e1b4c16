"""GSM8K (Cobbe et al. 2021) and MGSM (Shi et al. 2022): word problems whose answer is a number."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from functools import cache

from taskmill.config import packaged
from taskmill.errors import InputError
from taskmill.ids import draw
from taskmill.suites.base import Item, Rows, Shot, Suite, cell

__all__ = ["GSM8K", "MGSM", "MGSM_EN_COT", "MGSM_NATIVE_COT", "languages"]

_MARKS = re.compile(r"<<[^<>]*>>")
_PREFIX = re.compile(r"\A[^:：\n]{1,60}[:：]\s*")


@cache
def languages() -> dict[str, dict[str, str]]:
    """Return the words of MGSM's eleven languages: `question`, `steps`, `answer`, `is`."""
    loaded: dict[str, dict[str, str]] = packaged("taskmill.suites", "languages.yaml")
    return loaded


def _gsm8k(file: str, rows: Rows, beside: Rows) -> list[Item]:
    del beside
    items = []
    for number, row in enumerate(rows):
        question = str(cell(row, ("question",), file, number)).strip()
        target = _number(cell(row, ("answer", "target"), file, number), file, number)
        items.append(Item(f"gsm8k/gsm8k/{number:04}", "gsm8k", {"question": question}, (target,)))
    return items


def _gsm8k_shots(file: str, rows: Rows, seed: int) -> dict[str, list[Shot]]:
    """Return solved questions in an order drawn by the seed and their text."""
    found = []
    for number, row in enumerate(rows):
        question = str(cell(row, ("question",), file, number)).strip()
        solution, _, answer = str(cell(row, ("answer",), file, number)).rpartition("####")
        rationale = " ".join(_MARKS.sub("", solution).split())
        fields = {"question": question, "rationale": rationale, "answer": answer.strip()}
        found.append((draw(seed, question, "gsm8k shots"), Shot(fields)))
    return {"": [shot for _, shot in sorted(found, key=lambda pair: (pair[0], pair[1].fields["question"]))]}


def _mgsm(file: str, rows: Rows, beside: Rows) -> list[Item]:
    del beside
    counts: Counter[str] = Counter()
    items = []
    for number, row in enumerate(rows):
        language = str(cell(row, ("lang", "language"), file, number))
        question = str(cell(row, ("question",), file, number)).strip()
        target = _number(cell(row, ("answer", "target"), file, number), file, number)
        items.append(
            Item(f"mgsm/{language}/{counts[language]:04}", language, _words(language, question), (target,))
        )
        counts[language] += 1
    return items


def _number(value: object, file: str, row: int) -> str:
    """Return a gold, what stands behind `####` if that is there. Raises InputError if it holds no digit."""
    target = str(value).rpartition("####")[2].strip()
    if not any(map(str.isdecimal, target)):
        raise InputError(
            f"{file}: row {row} (counted from 0): 'answer' ends in {target[:40]!r}, no number; "
            "write it in digits"
        )
    return target


def _words(language: str, question: str) -> dict[str, str]:
    own = languages().get(language, languages()["en"])
    return {"question": question, "asks": own["question"], "steps": own["steps"], "replies": own["answer"]}


def _mgsm_shots(file: str, rows: Rows, seed: int) -> dict[str, list[Shot]]:
    """Return each language's eight, with their own and the English rationale, without their prefixes."""
    del seed
    english = {row.get("index"): str(row.get("rationale") or "") for row in rows if row.get("lang") == "en"}
    found: dict[str, list[Shot]] = defaultdict(list)
    for number, row in enumerate(rows):
        language = str(cell(row, ("lang", "language"), file, number))
        question = _PREFIX.sub("", str(cell(row, ("question",), file, number)))
        rationale = str(cell(row, ("rationale",), file, number))
        found[language].append(
            Shot(
                {
                    **_words(language, question),
                    "rationale": _PREFIX.sub("", rationale),
                    "english": _PREFIX.sub("", english.get(row.get("index"), rationale)),
                    "answer": str(cell(row, ("answer",), file, number)).strip(),
                }
            )
        )
    return dict(found)


def _mgsm_suite(name: str, title: str, max_tokens: int) -> Suite:
    return Suite(
        name, f"MGSM, {title}", ("mgsm.parquet",), _mgsm, name, "number", average="languages",
        upstream=("mgsm_*.tsv",), dev=("mgsm_exemplars.parquet",), shots=_mgsm_shots, k=8,
        max_tokens=max_tokens,
    )  # fmt: skip


GSM8K = Suite(
    "gsm8k", "GSM8K, chain of thought", ("gsm8k_test.parquet", "gsm8k.parquet"), _gsm8k, "gsm8k", "number",
    dev=("gsm8k_train.parquet",), shots=_gsm8k_shots, k=8, max_tokens=320,
)  # fmt: skip
MGSM = _mgsm_suite("mgsm", "direct", 16)
MGSM_NATIVE_COT = _mgsm_suite("mgsm-native-cot", "chain of thought in its language", 320)
MGSM_EN_COT = _mgsm_suite("mgsm-en-cot", "chain of thought in English", 320)
