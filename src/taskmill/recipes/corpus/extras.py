"""What is mixed into a corpus besides the sources: annotated texts and general instructions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from taskmill.errors import InputError
from taskmill.ids import content_id
from taskmill.ingest.tokens import count_tokens
from taskmill.recipes.corpus.rows import Text, tuning_chains
from taskmill.recipes.evaluation_sets import HeldOut
from taskmill.recipes.layouts import as_examples, has_layout
from taskmill.recipes.tables import read_table
from taskmill.record import EXAMPLE_SCHEMA, Example, Reason, examples
from taskmill.render import answer, prompt
from taskmill.synthesize.casting import Annotated, capped, cast, from_row
from taskmill.synthesize.pair_format import render

__all__ = ["read_general", "read_tuning", "tuning_tokens"]


def read_tuning(
    sources: Sequence[str], rounds: int, held: HeldOut, lost: Counter[str]
) -> Iterator[list[Text]]:
    """Yield chains of annotated texts; those that hold an item of `held` are counted in `lost`.

    Raises InputError for a file without a row that has a text and pairs.
    """
    for source in sources:
        records = _annotated(source, lost)
        if not records:
            raise InputError(
                f"{source}: no row has a `context` and pairs in `QA_list`, and none is an example with a "
                "question about a text; name annotated texts"
            )
        for chain in tuning_chains(records, rounds):
            clean = [text for text in chain if not _holds(text, held)]
            lost.update([str(Reason.CONTAMINATED)] * (len(chain) - len(clean)))
            if clean:
                yield clean


def _annotated(source: str, lost: Counter[str]) -> list[Annotated]:
    """Return the records of a source: rows with pairs, or examples to be cast as such."""
    table = read_table([source])
    if "QA_list" in table.column_names or "pairs" in table.column_names:
        rows = [from_row(row, Path(source).stem) for row in table.to_pylist()]
        found = [record for record in rows if record is not None]
        lost[str(Reason.EMPTY)] += len(rows) - len(found)
        return capped(found)
    if not has_layout(table.column_names):
        return []
    own = set(EXAMPLE_SCHEMA.names) <= set(table.column_names)
    records, dropped = cast(examples(table) if own else as_examples(table))
    lost.update(str(drop.reason) for drop in dropped)
    return capped(records)


def tuning_tokens(sources: Sequence[str]) -> int:
    """Return about how many tokens the annotated texts have, once."""
    chains = read_tuning(sources, 1, HeldOut(("none",)), Counter())
    return sum(count_tokens(render([text.shown])) for chain in chains for text in chain)


def _holds(text: Text, held: HeldOut) -> bool:
    shown = text.shown
    pairs = (Example("", "", shown.context, pair.question, pair.answer) for pair in shown.pairs)
    return any(held.match(pair) is not None for pair in pairs)


def read_general(sources: Sequence[str], held: HeldOut, lost: Counter[str]) -> Iterator[tuple[str, str, str]]:
    """Yield (id, text, licence) of instruction data: question, one space, response (the authors' form).

    Rows without a response, and those that hold an item of `held`, are counted in `lost`. Raises InputError
    for columns in no known layout.
    """
    # microsoft/LMOps, issues 257 and 258: question and response joined by a space, no chat template
    for example in as_examples(read_table(sources), whole=True):
        asked, answered = prompt(example).strip(), answer(example).strip()
        if not asked or not answered:
            lost[str(Reason.EMPTY)] += 1
        elif held.match(example) is not None:
            lost[str(Reason.CONTAMINATED)] += 1
        else:
            text = f"{asked} {answered}"
            yield content_id(example.id, text), text, example.source.licence
