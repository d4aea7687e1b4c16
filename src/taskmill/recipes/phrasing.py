"""The texts of phrased rows: fields as columns, and many rows through their templates at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from taskmill.errors import InputError, UsageError
from taskmill.ids import content_id
from taskmill.mix.fewshot import Rows, drawn
from taskmill.recipes.tables import joined, read_file, read_table, table_files, with_ids
from taskmill.record import Reason
from taskmill.templates import endings
from taskmill.templates.columns import fill
from taskmill.templates.options import Shown, checked, gold_of, show
from taskmill.templates.schema import Cluster, Template, slots
from taskmill.templates.sets import DataSet, Unfit, fields_of, ids_of, plain_columns

__all__ = ["Phrasings", "Stock", "Style", "Written", "beside_of", "rows_of", "stock_of", "write"]

Array = np.ndarray[Any, Any]

_TEXTS = ("context", "question", "answer", "rationale")

_TOGETHER = 1 << 14
"""Rows whose texts are Python's at a time (chosen: some tens of MB)."""


@dataclass(frozen=True, slots=True)
class Stock:
    """Rows with their fields as columns of text ("" where a row is unfit), in the order of the file."""

    ids: list[str]
    fields: Mapping[str, pa.Array]
    options: list[list[str]]
    gold: list[tuple[int, ...]]
    licences: list[str]
    languages: list[str]
    unfit: Mapping[int, tuple[Reason, str]]

    def fit(self) -> Array:
        """Return the places of the rows that are fit (N,)."""
        return np.array([i for i in range(len(self.ids)) if i not in self.unfit], np.int64)

    def take(self, rows: Array) -> Stock:
        """Return some rows, all of them fit; the stock itself where these are all its rows, in order."""
        if not self.unfit and np.array_equal(rows, np.arange(len(self.ids))):
            return self
        at, arrow = rows.tolist(), pa.array(rows)

        def some(values: list[Any]) -> list[Any]:
            return [values[i] for i in at]

        fields = {role: column.take(arrow) for role, column in self.fields.items()}
        told = some(self.licences), some(self.languages)
        return Stock(some(self.ids), fields, some(self.options), some(self.gold), *told, {})

    def known_by(self, cluster: Cluster, *, labels: bool = False) -> Rows:
        """Return what exemplars are chosen by: ids, keys that are equal for duplicates, answers if `labels`.

        A key is what is given, without case and spaces.
        """
        given = [column for role, column in self.fields.items() if role not in (cluster.asked, "rationale")]
        keys = [] if given else list(self.ids)
        for start in range(0, len(self.ids) if given else 0, _TOGETHER):
            texts = (column.slice(start, _TOGETHER).to_pylist() for column in given)
            for row in zip(*texts, strict=True):
                keys.append(content_id(*(" ".join(text.casefold().split()) for text in row)))
        if not labels:
            return Rows(self.ids, keys)
        answers = self.fields["answer"].to_pylist() if "answer" in self.fields else [""] * len(self.ids)
        return Rows(self.ids, keys, answers)


class Style(NamedTuple):
    """What holds for all rows: options shown, a chain of thought learned, the form of label targets, seed."""

    options: bool
    cot: bool
    target: str
    seed: int


class Phrasings(NamedTuple):
    """Rows to be written, each (N,): `row` of a stock, `template`, and the draw that decides the rest."""

    row: Array
    template: Array
    base: Array

    def take(self, places: Array) -> Phrasings:
        """Return some of them."""
        return Phrasings(self.row[places], self.template[places], self.base[places])


@dataclass(frozen=True, slots=True)
class Written:
    """The texts of phrasings, and what was drawn for them; `failed` rows have empty texts and a fault."""

    inputs: pa.Array
    targets: pa.Array
    options: list[list[str]]
    gold: list[list[int]]
    option_style: list[str]
    ending: list[str]
    answer: pa.Array
    failed: Array
    faults: Mapping[int, tuple[Reason, str]]

    def input_list(self) -> list[str]:
        """Return the inputs as texts."""
        return list(self.inputs.to_pylist())

    def target_list(self) -> list[str]:
        """Return the targets as texts."""
        return list(self.targets.to_pylist())

    def take(self, places: Array) -> Written:
        """Return some of them, none of which failed."""
        at, arrow = places.tolist(), pa.array(places)

        def some(values: list[Any]) -> list[Any]:
            return [values[i] for i in at]

        return Written(
            self.inputs.take(arrow), self.targets.take(arrow), some(self.options), some(self.gold),
            some(self.option_style), some(self.ending), self.answer.take(arrow),
            np.zeros(len(at), np.bool_), {},
        )  # fmt: skip


# fields


def rows_of(source: str, dataset: DataSet | None) -> pa.Table:
    """Return the rows of a file, with ids and joined columns as the set declares them.

    Raises InputError where the file to join is not there or lacks a row.
    """
    if dataset is None or not (dataset.id or dataset.join):
        return read_table([source]).combine_chunks()  # once: the fields are then the same memory
    table = joined({file: read_file(file) for file in table_files(source)})
    if dataset.join:
        table = _with_columns(table, source, dataset)
    if dataset.id:
        own = [name for name in table.column_names if name != "id"]
        ids = pa.array(ids_of(dataset, table.to_pylist()), pa.string())
        table = table.select(own).add_column(0, "id", ids)
    return with_ids(table, source)


def beside_of(source: str, dataset: DataSet) -> list[str]:
    """Return the file whose columns a set takes over, if there is one."""
    return [str(Path(source).parent / dataset.join["file"])] if dataset.join else []


def _with_columns(table: pa.Table, source: str, dataset: DataSet) -> pa.Table:
    on, path = dataset.join["by"], Path(*beside_of(source, dataset))
    if not path.exists():
        raise InputError(f"{source}: {dataset.name} needs {path.name} beside it; put that file there")
    other = read_file(str(path))
    place = {key: i for i, key in enumerate(other[on].to_pylist())}
    at = [place.get(key) for key in table[on].to_pylist()]
    if None in at:
        missing = table[on][at.index(None)].as_py()
        raise InputError(f"{source}: {path.name} has no row for {on} {missing!r}; take both of one release")
    for name in dataset.join["columns"]:
        table = table.append_column(name, other[name].take(pa.array(at)))
    return table


def stock_of(table: pa.Table, dataset: DataSet, licence: str = "", *, options: bool = False) -> Stock:
    """Return the fields of all rows; unfit ones are counted with the reason.

    `options`: they will be shown, so rows whose options are repeated or empty are unfit.
    """
    ids = [str(one) for one in table["id"].to_pylist()]
    own = licence or dataset.licence
    if columns := plain_columns(table, dataset):
        return _of_columns(ids, columns, own, dataset.language)
    fields: dict[str, list[str]] = {role: [] for role in _TEXTS if role in dataset.has}
    stock = Stock(ids, {}, [], [], [], [], {})
    unfit: dict[int, tuple[Reason, str]] = {}
    for i, found in enumerate(fields_of(dataset, table.to_pylist())):
        one: dict[str, Any] = {}
        try:
            if isinstance(found, Unfit):
                raise found
            one = _answered(found)
            if options:
                checked(one["options"], one["gold"], f"row {ids[i]}")
        except InputError as error:
            one, unfit[i] = {}, (Reason.BAD_OPTIONS, str(error))
        except Unfit as error:
            unfit[i] = (error.reason, str(error))
        for role in fields:
            fields[role].append(str(one.get(role, "")))
        stock.options.append(one.get("options", []))
        stock.gold.append(one.get("gold", ()))
        stock.licences.append(str(one.get("licence") or own))
        stock.languages.append(str(one.get("language") or dataset.language))
    arrow = {role: pa.array(values, pa.string()) for role, values in fields.items()}
    return Stock(ids, arrow, stock.options, stock.gold, stock.licences, stock.languages, unfit)


def _of_columns(ids: list[str], columns: Mapping[str, pa.Array], own: str, language: str) -> Stock:
    """Return rows whose fields are columns of text as they stand."""
    unfit: dict[int, tuple[Reason, str]] = {}
    fields = {}
    for role in columns:
        column = columns[role].fill_null("")
        if role in ("licence", "language"):
            continue
        for start in range(0, len(column), _TOGETHER):
            for row, text in enumerate(column.slice(start, _TOGETHER).to_pylist(), start):
                if not text.strip():
                    unfit.setdefault(row, (Reason.NULL_TEXT, f"the {role} is empty"))
        fields[role] = column
    count = len(ids)

    def stated(role: str, otherwise: str) -> list[str]:
        values = columns[role].to_pylist() if role in columns else [""] * count
        return [one or otherwise for one in values]

    told = stated("licence", own), stated("language", language)
    return Stock(ids, fields, [[]] * count, [()] * count, *told, unfit)


def _answered(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields with one text as answer, and with the places of the right options.

    Raises InputError for an answer that is none of the options.
    """
    one = dict(found)
    options, gold = one.get("options"), one.get("gold")
    answers = one.get("answer")
    if gold is not None:
        if options is None:
            raise UsageError(
                "`gold` names places of options, but no options are declared; add --field options=COLUMN"
            )
        outside = [place for place in gold if not 0 <= place < len(options)]
        if outside:
            raise InputError(f"the right option is number {outside[0]} of {len(options)} (counted from 0)")
        one["gold"] = tuple(gold)
        answers = [options[place] for place in gold]
    elif answers is not None:
        answers = answers if isinstance(answers, list) else [answers]
        if options is not None:
            one["gold"] = gold_of(options, answers, "this row")
    if answers is not None:
        one["answer"] = ", ".join(answers)
    return one


# texts


def write(
    stock: Stock, rows: Phrasings, texts: Sequence[str], templates: Sequence[Template], style: Style
) -> Written:
    """Return input and target of each phrasing; `texts` are the inputs of the templates in this style."""
    count = len(rows.row)
    faults: dict[int, tuple[Reason, str]] = {}
    places = pa.array(rows.row)
    arrow = {role: column.take(places) for role, column in stock.fields.items()}
    shown = _shown(stock, rows, style, faults) if style.options else None
    if shown is not None:
        arrow["options"] = pa.array([one.text if one else "" for one in shown], pa.string())
        arrow["answer"] = pa.array([one.target if one else "" for one in shown], pa.string())
    inputs = fill(texts, rows.template, _known(arrow, texts, count)).combine_chunks()
    learned = [t.target for t in templates]
    targets = fill(learned, rows.template, _known(arrow, learned, count)).combine_chunks()
    ending = [""] * count
    if style.cot:
        inputs, targets, ending = _reasoned(inputs, arrow, rows.base, faults)
    failed = np.zeros(count, np.bool_)
    failed[list(faults)] = True
    return Written(
        inputs,
        targets,
        [list(one.options) if one else [] for one in shown] if shown else [[]] * count,
        [list(one.gold) if one else [] for one in shown] if shown else [[]] * count,
        [one.style.label if one else "" for one in shown] if shown else [""] * count,
        ending,
        arrow.get("answer", pa.array([""] * count, pa.string())),
        failed,
        faults,
    )


def _known(columns: Mapping[str, pa.Array], texts: Sequence[str], rows: int) -> Mapping[str, pa.Array]:
    """Return the columns; one that a template with logic may ask for and the set lacks is empty."""
    wanted = {slot for text in texts for slot in slots(text)}
    empty = pa.array([""], pa.string()).take(pa.array(np.zeros(rows, np.int64)))
    return {**dict.fromkeys(wanted, empty), **columns}


def _shown(
    stock: Stock, rows: Phrasings, style: Style, faults: dict[int, tuple[Reason, str]]
) -> list[Shown | None]:
    numbers = drawn(rows.base, "option style", 2**62).tolist()
    found: list[Shown | None] = []
    for place, (row, number) in enumerate(zip(rows.row.tolist(), numbers, strict=True)):
        try:
            options, gold, row_id = stock.options[row], stock.gold[row], stock.ids[row]
            what = f"row {row_id}"
            one = show(options, gold, style.seed, row_id, number=number, target=style.target, what=what)
            found.append(one)
        except InputError as error:
            faults[place] = (Reason.BAD_OPTIONS, str(error))
            found.append(None)
    return found


def _reasoned(
    inputs: pa.Array,
    columns: Mapping[str, pa.Array],
    base: Array,
    faults: dict[int, tuple[Reason, str]],
) -> tuple[pa.Array, pa.Array, list[str]]:
    """Return inputs that ask for a chain of thought, targets that hold one, and how each ends."""
    import pyarrow.compute as pc

    known = endings.triggers()
    asked = pa.array(known, pa.string()).take(pa.array(drawn(base, "trigger", len(known))))
    numbers = drawn(base, "ending", len(endings.endings())).tolist()
    targets, names = [], []
    both = (columns[role].to_pylist() for role in ("rationale", "answer"))
    for place, one in enumerate(zip(*both, numbers, strict=True)):
        made = endings.join(*one) if place not in faults else None
        if made is None and place not in faults:
            detail = f"the answer {one[1][:40]!r} cannot be told from the reasoning in any ending"
            faults[place] = (Reason.MALFORMED, detail)
        text, name = made or ("", "")
        targets.append(text)
        names.append(name)
    # A cue such as "Answer:" stays the end of its prompt.
    cued = pc.ends_with(inputs, ":")
    parts = (pc.if_else(cued, asked, inputs), pc.if_else(cued, inputs, asked))
    return pc.binary_join_element_wise(*parts, "\n\n"), pa.array(targets, pa.string()), names
