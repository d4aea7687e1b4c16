"""What is mixed into a corpus besides the sources: annotated texts and general instructions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from taskmill.errors import InputError
from taskmill.ids import content_id
from taskmill.recipes.evaluation_sets import HeldOut
from taskmill.recipes.layouts import as_examples, has_layout, with_answer
from taskmill.recipes.tables import read_table
from taskmill.record import EXAMPLE_SCHEMA, Dropped, Example, Reason, Source, examples
from taskmill.render import answer, prompt
from taskmill.synthesize.casting import CAP, Annotated, capped, cast, from_row, incomplete

__all__ = ["Extra", "read_annotated", "read_general"]

STAGE = "corpus"


@dataclass
class Extra:
    """Rows that were read besides the sources: what is kept is with the reader, what is not is `lost`.

    `came` counts rows of general instructions, and the pairs of annotated texts (a row without any is one).
    """

    came: int = 0
    lost: list[Dropped] = field(default_factory=list)

    def drop(self, row: Example, reason: Reason, detail: str) -> None:
        """Take note of a row that is left out."""
        self.lost.append(Dropped(row, STAGE, reason, detail))

    def drop_pairs(self, record: Annotated, reason: Reason, detail: str) -> None:
        """Take note of all pairs of an annotated text that is left out."""
        for number, pair in enumerate(record.pairs):
            name = content_id(record.id, str(number))
            source = Source(record.id, dataset=record.dataset, licence=record.licence)
            row = Example(name, "qa", record.context, pair.question, pair.answer, source=source)
            self.drop(row, reason, detail)

    def funnel(self) -> dict[str, Any]:
        """Return how many came, are kept and were dropped by reason."""
        dropped = Counter(str(drop.reason) for drop in self.lost)
        kept = self.came - dropped.total()
        return {"in": self.came, "kept": kept, "dropped": dict(sorted(dropped.items()))}


def read_annotated(sources: Sequence[str], held: HeldOut, extra: Extra, cap: int = CAP) -> list[Annotated]:
    """Return the annotated texts of tables, sorted by dataset; what is left out is in `extra`.

    Rows hold pairs in `QA_list`, or are examples to be cast as such. Left out are rows without text or pairs,
    texts that stand twice in a dataset or hold an item of `held`, and texts over `cap` of a dataset (0: no
    cap), those of fewest pairs first. Raises InputError for a file without a row that has a text and pairs.
    """
    found: dict[str, Annotated] = {}
    for source in sources:
        records = _read(source, extra)
        if not records:
            raise InputError(
                f"{source}: no row has a `context` and pairs in `QA_list`, and none is an example with a "
                "question about a text; name annotated texts"
            )
        for record in records:
            if record.id in found:
                extra.drop_pairs(record, Reason.DUPLICATE, "the same text with the same pairs is kept")
            elif (detail := _holds(record, held)) is not None:
                extra.drop_pairs(record, Reason.CONTAMINATED, detail)
            else:
                found[record.id] = record
    kept = capped(found.values(), cap)
    there = {record.id for record in kept}
    for name in sorted(set(found) - there):
        detail = f"{found[name].dataset} has {cap} texts of as many pairs or more"
        extra.drop_pairs(found[name], Reason.OVER_SOURCE_CAP, detail)
    return kept


def _read(source: str, extra: Extra) -> list[Annotated]:
    """Return the records of a table: rows with pairs, or examples to be cast as such."""
    table = with_answer(read_table([source]))
    if "QA_list" in table.column_names or "pairs" in table.column_names:
        records = []
        for number, row in enumerate(table.to_pylist()):
            record, lacking = from_row(row, Path(source).stem), f"row {number} (counted from 0) lacks"
            name, context = content_id(source, str(number)), str(row.get("context") or "")
            if record is None:
                extra.came += 1
                extra.drop(Example(name, "qa", context, "", ""), Reason.EMPTY, f"{lacking} a text or pairs")
                continue
            extra.came += len(record.pairs)
            records.append(record)
            for place in incomplete(row):
                bare = Example(content_id(name, str(place)), "qa", context, "", "")
                extra.came += 1
                extra.drop(bare, Reason.EMPTY, f"{lacking} question or answer in pair {place}")
        return records
    if not has_layout(table.column_names):
        return []
    own = set(EXAMPLE_SCHEMA.names) <= set(table.column_names)
    given = list(examples(table) if own else as_examples(table))
    found, dropped = cast(given)
    # Rows that name no dataset are of the one that their file is.
    records = [r if r.dataset else replace(r, dataset=Path(source).stem) for r in found]
    extra.came += len(given)
    extra.lost += dropped
    return records


def _holds(record: Annotated, held: HeldOut) -> str | None:
    pairs = (Example("", "", record.context, pair.question, pair.answer) for pair in record.pairs)
    return next((match.detail for pair in pairs if (match := held.match(pair)) is not None), None)


def read_general(sources: Sequence[str], held: HeldOut, extra: Extra) -> list[tuple[str, str, str]]:
    """Return (id, text, licence) of instruction data: question, one space, response (the authors' form).

    Rows without a response, those that hold an item of `held`, and equal ones are left out. Raises InputError
    for columns in no known layout.
    """
    # microsoft/LMOps, issues 257 and 258: question and response joined by a space, no chat template
    found: dict[str, tuple[str, str, str]] = {}
    for example in as_examples(read_table(sources), whole=True):
        extra.came += 1
        asked, answered = prompt(example).strip(), answer(example).strip()
        text = f"{asked} {answered}"
        if not asked or not answered:
            extra.drop(example, Reason.EMPTY, f"it has no {'response' if asked else 'instruction'}")
        elif (match := held.match(example)) is not None:
            extra.drop(example, Reason.CONTAMINATED, match.detail)
        elif text in found:
            extra.drop(example, Reason.DUPLICATE, f"row {found[text][0]} says the same")
        else:
            found[text] = (example.id, text, example.source.licence)
    return [(content_id("general", text), text, licence) for _, text, licence in found.values()]
