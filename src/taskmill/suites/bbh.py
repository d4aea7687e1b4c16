"""BIG-Bench Hard (Suzgun et al. 2022): 27 files, direct or with a chain of thought before the answer.

Policy for its known faults: duplicates stay (both are asked, as in the published numbers); a gold that is a
text where the task's golds are letters is held against the answer's text; what the file calls options counts.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict

from taskmill.errors import InputError
from taskmill.suites.base import Item, Rows, Shot, Suite, cell

__all__ = ["ALGORITHMIC", "BBH", "BBH_COT", "FAMILIES", "options_of"]

ALGORITHMIC = frozenset(
    (
        "boolean_expressions", "dyck_languages", "geometric_shapes", "logical_deduction_five_objects",
        "logical_deduction_seven_objects", "logical_deduction_three_objects", "multistep_arithmetic_two",
        "navigate", "object_counting", "temporal_sequences", "tracking_shuffled_objects_five_objects",
        "tracking_shuffled_objects_seven_objects", "tracking_shuffled_objects_three_objects", "web_of_lies",
        "word_sorting",
    )
)  # fmt: skip
"""The algorithmic half (Suzgun et al. 2022, Table 2); the other 12 files are the "NLP" half."""

FAMILIES = ("logical_deduction", "tracking_shuffled_objects")
"""Tasks of three files each: one task of 23."""

_LINES = re.compile(r"\nOptions:\s*\n(.*)\Z", re.DOTALL)
_LETTERED = re.compile(r"^\(([A-Z])\)\s*(.*)$", re.MULTILINE)
_LISTED = re.compile(r"^- *(\S.*?) *$", re.MULTILINE)
_PAIRS = ({"yes", "no"}, {"true", "false"}, {"valid", "invalid"})
_GOLD = re.compile(r"\(([A-Z])\)")


def options_of(question: str) -> tuple[str, ...]:
    """Return the options a question lists, in order."""
    listed = _LINES.search(question)
    if not listed:
        return ()
    return tuple(text for _, text in _LETTERED.findall(listed[1])) or tuple(_LISTED.findall(listed[1]))


def _read(file: str, rows: Rows, beside: Rows) -> list[Item]:
    heads = {str(row.get("task")): _head(str(row.get("prompt") or "")) for row in beside}
    counts: Counter[str] = Counter()
    found: list[tuple[str, str, str]] = []
    labels: dict[str, set[str]] = defaultdict(set)
    for number, row in enumerate(rows):
        task = str(cell(row, ("task",), file, number))
        question = str(cell(row, ("input", "question"), file, number)).strip()
        target = str(cell(row, ("target",), file, number)).strip()
        labels[task].add(target)
        found.append((task, question, target))
    items = []
    for number, (task, question, target) in enumerate(found):
        options = options_of(question)
        if not options and {t.casefold() for t in labels[task]} in _PAIRS:
            options = tuple(sorted(labels[task]))
        gold = _GOLD.fullmatch(target)
        if gold and options and ord(gold[1]) - ord("A") >= len(options):
            raise InputError(
                f"{file}: row {number} (counted from 0): 'target' is {target}, but its question has "
                f"{len(options)} options; leave the row out"
            )
        index = ord(gold[1]) - ord("A") if gold else next(
            (i for i, o in enumerate(options) if o.casefold() == target.casefold()), -1
        )  # fmt: skip
        items.append(
            Item(
                f"bbh/{task}/{counts[task]:04}",
                task,
                {"question": question, "head": heads.get(task, "")},
                (target,),
                options,
                (index,) if 0 <= index < len(options) else (),
                "algorithmic" if task in ALGORITHMIC else "nlp",
            )
        )
        counts[task] += 1
    return items


def _head(prompt: str) -> str:
    """Return a task's instruction: what stands between the canary's line and the first question."""
    body = prompt.partition("-----\n")[2] or prompt
    return body.partition("\n\nQ: ")[0].strip()


def _shots(file: str, rows: Rows, seed: int) -> dict[str, list[Shot]]:
    del seed  # the three of a task are fixed
    found: dict[str, list[Shot]] = {}
    for number, row in enumerate(rows):
        task, prompt = cell(row, ("task",), file, number), cell(row, ("prompt",), file, number)
        own = []
        for block in str(prompt).split("\n\nQ: ")[1:]:
            question, _, reply = block.partition("\nA: Let's think step by step.")
            answer = reply.rpartition("answer is ")[2].strip().removesuffix(".")
            own.append(Shot({"question": question.strip(), "rationale": reply.strip(), "answer": answer}))
        found[str(task)] = own
    return found


BBH = Suite(
    "bbh", "BIG-Bench Hard, direct", ("bbh.parquet",), _read, "bbh", "bbh", average="bbh",
    upstream=("bbh/*.json", "../bbh/*.json"), dev_upstream=("cot-prompts/*.txt",),
    dev=("bbh_cot_prompts.parquet",), shots=_shots, k=3, max_tokens=64,
)  # fmt: skip
BBH_COT = Suite(
    "bbh-cot", "BIG-Bench Hard, chain of thought", ("bbh.parquet",), _read, "bbh-cot", "bbh-cot",
    average="bbh", upstream=("bbh/*.json", "../bbh/*.json"), dev_upstream=("cot-prompts/*.txt",),
    dev=("bbh_cot_prompts.parquet",), shots=_shots, k=3, max_tokens=512,
)  # fmt: skip
