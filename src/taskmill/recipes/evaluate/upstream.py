"""Benchmarks as their authors publish them: files whose names say the task, the split or the language."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from taskmill.errors import InputError

__all__ = ["found_in", "read_upstream"]


def found_in(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """Return the files of the first pattern that finds any, in order of their names."""
    return next((files for one in patterns if (files := sorted(folder.glob(one)))), [])


def read_upstream(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of one published file.

    A text is one row with its `prompt`; a CSV of MMLU has no header; a TSV of MGSM neither; a JSON object
    holds `examples` (BIG-Bench Hard), `Instances` (Super-NaturalInstructions) or `data` (SQuAD and XQuAD).
    Bytes that are no UTF-8 are replaced. Raises InputError naming the file for anything else.
    """
    text = path.read_bytes().decode("utf-8", "replace")
    if path.suffix == ".txt":
        yield {"task": path.stem, "subject": path.stem, "prompt": text}
    elif path.suffix == ".csv":
        yield from _mmlu(path, text)
    elif path.suffix == ".tsv":
        for number, line in enumerate(text.removesuffix("\n").split("\n")):
            question, tab, answer = line.rpartition("\t")
            if not tab:
                raise InputError(f"{path}: line {number + 1} has no tab between question and answer")
            yield {"lang": path.stem.rpartition("_")[2], "question": question, "answer": answer}
    else:
        yield from _json(path, text)


def _mmlu(path: Path, text: str) -> Iterator[Mapping[str, Any]]:
    subject, _, split = path.stem.rpartition("_")
    for number, row in enumerate(csv.reader(io.StringIO(text, newline=""))):
        if len(row) < 4:
            raise InputError(f"{path}: row {number} has {len(row)} cells, no question, options and answer")
        yield {
            "subject": subject,
            "split": split,
            "question": row[0],
            "choices": row[1:-1],
            "answer": row[-1],
        }


def _json(path: Path, text: str) -> Iterator[Mapping[str, Any]]:
    try:
        loaded = json.loads(text)
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}") from None
    held = loaded if isinstance(loaded, dict) else {}
    if isinstance(held.get("examples"), list):
        for row in held["examples"]:
            yield {**row, "task": path.stem}
    elif "Instances" in held:
        if "Definition" not in held:
            raise InputError(f"{path}: no 'Definition'; it is no task file of Super-NaturalInstructions")
        yield {**held, "task": path.stem}
    elif isinstance(held.get("data"), list):
        for article in held["data"]:
            yield {**article, "language": path.stem.rpartition(".")[2]}
    else:
        raise InputError(
            f"{path}: none of 'examples', 'Instances' and 'data' in it; it is no benchmark's file"
        )
