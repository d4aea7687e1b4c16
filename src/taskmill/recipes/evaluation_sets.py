"""Evaluation sets → items → indexes of hashes: the user's files, and the benchmarks that are shipped so.

Which column is a question, an answer or a passage follows from its name; a file without such names is taken
as questions in all its columns of text. An item's id is `suite/split/number`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from taskmill.config import load_yaml
from taskmill.curate.benchmark_index import (
    SUFFIX,
    Index,
    Item,
    digest_of,
    find_shipped,
    index_of,
    is_index,
    join,
    read_index,
    shipped,
    shipped_folder,
    write_index,
)
from taskmill.curate.screen import Match, Screen, shipped_screen
from taskmill.errors import InputError, UsageError
from taskmill.ingest import fingerprint
from taskmill.ingest.records import read_records
from taskmill.recipes.nested_text import LABELS
from taskmill.recipes.tables import check_out, table_files
from taskmill.record import Example

__all__ = ["AGAINST", "NONE", "SHIPPED", "HeldOut", "against", "build_index", "build_shipped"]

SHIPPED = "shipped"
NONE = "none"
AGAINST = "evaluation files, folders or indexes; shipped: all that come with the package, none: no check"
"""Help of the flag `--against`, the same for all commands that have it."""

_QUESTIONS = ("question", "instruction", "prompt", "query", "problem", "turns", "input", "inputs", "text")
_ANSWERS = (
    "answer",
    "answers",
    "response",
    "output",
    "outputs",
    "completion",
    "target",
    "targets",
    "solution",
)
_PASSAGES = ("passage", "context", "premise", "article", "document", "paragraph")
_CHOICES = ("choices", "options")


def _named(names: Sequence[str]) -> dict[str, Path]:
    """Return the path of each evaluation set; raises InputError for a name that is none."""
    if NONE in names and len(set(names)) > 1:
        raise UsageError(f"--against {','.join(names)}: `none` stands alone; leave it or the others out")
    found: dict[str, Path] = {}
    for name in names:
        if name == SHIPPED:
            found |= shipped()
        elif name != NONE:
            found[name] = Path(name) if Path(name).exists() else find_shipped(name)
    return found


def against(names: Sequence[str]) -> Index:
    """Return evaluation files, index files and shipped indexes (all of these for `shipped`) as one index.

    Raises InputError for a name that is none of them or a file without text, UsageError if there is nothing.
    """
    return join([_read(name, path) for name, path in _named(names).items()])


def _read(name: str, path: Path) -> Index:
    if path.suffix == SUFFIX:
        return read_index(path)
    return _index_of_files([name], path.resolve().name.partition(".")[0])


def _index_of_files(sources: Sequence[str], suite: str) -> Index:
    files = [file for source in sources for file in table_files(source)]
    return index_of(suite, _items(files, suite))


class HeldOut:
    """The evaluation sets that a run's examples must not hold; read when the first example is looked at.

    `key` tells what they are: name → digest. What the user names is read at once: what is wrong with it must
    show before anything is paid.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        named = _named(names)
        self.key = {
            name: digest_of(path) if path.suffix == SUFFIX else fingerprint([str(path)])
            for name, path in named.items()
        }
        self._screen = None if set(self.names) <= {SHIPPED, NONE} else Screen(against(self.names))

    def match(self, example: Example) -> Match | None:
        """Return the item that an example holds, or None (`curate.screen`)."""
        return self._ready().match(example) if self.key else None

    def matches(self, examples: Sequence[Example]) -> list[Match | None]:
        """Return the same of each of many examples."""
        return self._ready().matches(examples) if self.key else [None] * len(examples)

    def judge(self, rows: pa.Table, verdicts: pa.Table) -> pa.Table:
        """Return the verdicts on examples with those added that hold an item."""
        return self._ready().judge(rows, verdicts) if self.key else verdicts

    def _ready(self) -> Screen:
        return self._screen or shipped_screen()


def _items(files: Sequence[str], suite: str) -> Iterator[Item]:
    """Yield the rows of a user's evaluation files; raises InputError for a file without text."""
    stems = [Path(name).name.partition(".")[0] for name in files]
    for number, name in enumerate(files):
        own = stems[number] if stems.count(stems[number]) == 1 else f"{stems[number]}-{number}"
        split = "rows" if len(files) == 1 else own
        held = 0
        for i, row in enumerate(read_records(name)):
            parts = list(_item_parts(row))
            held += bool(parts)
            yield Item(f"{suite}/{row.get('split') or split}/{i}", parts)
        if not held:
            raise InputError(f"{name} holds no text to compare with; name a file with questions or passages")


def _item_parts(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the parts of an evaluation row by its columns' names; without known ones all are questions."""
    roles = {"question": _QUESTIONS, "answer": _ANSWERS, "passage": _PASSAGES}
    columns = {kind: [n for n in row if n.lower() in names] for kind, names in roles.items()}
    if not columns["question"] and not columns["passage"]:
        taken = {*columns["answer"], *(n for n in row if n.lower() in (*LABELS, *_CHOICES))}
        columns["question"] = [n for n in row if n not in taken and list(_texts(row[n], words=True))]
        if not columns["question"]:
            columns = {"question": columns["answer"], "answer": [], "passage": []}
    choices = next((row[n] for n in row if n.lower() in _CHOICES), None)
    yield from _parts_of(row, columns, choices)


def _parts_of(
    row: Mapping[str, Any], columns: Mapping[str, Sequence[str]], choices: object
) -> Iterator[tuple[str, str]]:
    for kind, names in columns.items():
        for name in names:
            value = row.get(name)
            if kind == "answer" and isinstance(choices, list) and type(value) is int:
                value = choices[value] if 0 <= value < len(choices) else None
            for text in _texts(value):
                yield kind, text


def _texts(value: object, words: bool = False) -> Iterator[str]:
    """Yield the texts in a cell: a string, a list, a message; numbers and truth values but for `words`."""
    if isinstance(value, str):
        if value.strip():
            yield value
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one, words)
    elif isinstance(value, dict):
        for name in ("content", "value", "text"):
            yield from _texts(value.get(name), words)
    elif isinstance(value, bool) and not words:
        yield "yes" if value else "no"
    elif isinstance(value, int | float) and not words:
        yield f"{value:g}" if isinstance(value, float) else str(value)


def build_index(sources: Sequence[str], out: str | Path, *, name: str = "") -> dict[str, Any]:
    """Write an index of the user's evaluation files, hashes only, and say what is in it.

    `name` is the suite's name, by default that of the file. Raises InputError for files without text,
    UsageError for a place in a run or among another command's results, or a file that is no index.
    """
    if Path(out).suffix != SUFFIX:
        raise UsageError(f"{out}: the name of an index ends in {SUFFIX}")
    if not sources:
        raise UsageError("no evaluation file is given; name one or more")
    path = check_out(out, sources, "decontaminate", file=True)
    if path.exists() and not is_index(path):
        raise UsageError(f"{path} is there and is no index; choose another name for it")
    index = _index_of_files(sources, name or path.stem)
    return {**index.headers[0], "bytes": write_index(index, path)}


def build_shipped(data: str | Path, out: str | Path = "") -> list[dict[str, Any]]:
    """Write the indexes that come with the package from a folder of the benchmarks' files.

    Which files, splits and columns: `curate/indexes/suites.yaml`. `out` is by default the package's folder.
    """
    built = []
    for name, suite in load_yaml(shipped_folder() / "suites.yaml").items():
        items = [item for one in suite["files"] for item in _declared(name, Path(data), one)]
        index = index_of(name, items, licence=suite["licence"], source=suite["source"])
        size = write_index(index, Path(out or shipped_folder()) / f"{name}{SUFFIX}")
        built.append({**index.headers[0], "bytes": size})
    return built


def _declared(suite: str, data: Path, one: Mapping[str, Any]) -> Iterator[Item]:
    """Yield the items of one declared file; they are counted within their split."""
    counts: Counter[str] = Counter()
    for row in read_records(str(data / one["file"])):
        split = one["split"].format(**row)
        if "exemplars" in one:
            found = list(_exemplars(row[one["exemplars"]]))
        else:
            columns = {kind: one.get(kind, ()) for kind in ("question", "answer", "passage")}
            found = [list(_parts_of(row, columns, row.get(one.get("choices", ""))))]
        for parts in found:
            yield Item(f"{suite}/{split}/{counts[split]}", parts)
            counts[split] += 1


def _exemplars(prompt: str) -> Iterator[list[tuple[str, str]]]:
    """Yield the questions and answers of a few-shot prompt; what stands before the first is left out."""
    for block in prompt.split("\nQ: ")[1:]:
        question, _, answer = block.partition("\nA:")
        yield [("question", question), ("answer", answer)]
