"""What is known of a dataset before its rows are used: one `DatasetMeta` for each configuration.

    for meta in metadata("datasets/reviews"):
        print(meta.key, [field.name for field in meta.fields if not field.hidden])

Sources: a folder with or without a card, a folder of such folders, table files, `CATALOG.json`,
`duckdb:FILE#table`, `hf:owner/name`. A bounded head of the rows tells fields and samples; all rows of the
splits one trains on tell row counts and closed sets of values.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from taskmill.errors import InputError
from taskmill.ingest import sql
from taskmill.ingest.cards import Card, Configuration, card_of_entry, card_of_folder, features_of, matching
from taskmill.ingest.fields import HEAD, Declared, Spread, describe
from taskmill.ingest.hub_card import hub_card
from taskmill.ingest.records import SUFFIXES, find_tables, read_records, unique_names
from taskmill.record import DatasetMeta, FieldMeta, content_id
from taskmill.templates.values import as_text

__all__ = ["DatasetMeta", "FieldMeta", "metadata", "metadata_of", "read_rows", "training_files"]

CELLS = 200_000
"""Most cells of the head that are looked at (chosen: a table of 10,000 columns shows 20 rows)."""

LEAST_HEAD = 20
"""Rows of the head that are looked at in any case (chosen: `fields.ENOUGH` of them are judged)."""

SAMPLE_ROWS = 5
"""Rows that a record keeps as samples (chosen: Dynosaur shows a model two)."""

MOST_SAMPLED = 64
"""Fields of a sample row that are kept (chosen: what a prompt can hold)."""

_TEXT = 400
"""Characters of a text in a sample row (chosen: below Dynosaur's 1,000, five rows must fit a prompt)."""

_BATCH = 1000

_NOT_ROWS = ("dataset_infos.json", "dataset_info.json", "state.json", "CATALOG.json")
_SPLITS = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation",
    "val": "validation", "dev": "validation", "development": "validation", "test": "test", "testing": "test",
    "eval": "test", "evaluation": "test",
}  # fmt: skip
_TRAINING = ("train", "validation", "")


def metadata(source: str) -> list[DatasetMeta]:
    """Return one record for each configuration of a source, sorted by key.

    A dataset that cannot be read is one record without fields, whose `note` says why, if it is one of many.
    Raises InputError that names the source and the next step where nothing can be read.
    """
    if source.startswith(sql.PREFIX):
        found = [_of_table(table) for table in sql.tables(source)]
    elif source.startswith("hf:") and not Path(source.removeprefix("hf:")).exists():
        found = list(_of_hub(source))
    else:
        path = Path(source.removeprefix("hf:"))
        if not path.exists():
            raise InputError(f"there is no file or folder {str(path)!r}; check the path")
        found = list(_of_path(path))
    return sorted(found, key=lambda meta: (meta.name, meta.config, meta.uri))


def metadata_of(name: str, rows: pa.Table | Sequence[Mapping[str, Any]], licence: str = "") -> DatasetMeta:
    """Return the record of a table in memory; its rows are then passed along, not read."""
    declared: dict[str, Declared] = {}
    if isinstance(rows, pa.Table):
        declared = _features(rows.schema)
        rows = rows.rename_columns(unique_names(rows.column_names)).to_pylist()
    listed = [dict(row) for row in rows]
    card = Card(name=name, licence=licence, role="own")
    return _measured(card, "", Configuration(fields=declared), "memory:", (), [listed], "memory")


def training_files(meta: DatasetMeta) -> list[tuple[str, str]]:
    """Return the (split, file) pairs that tasks are made of: those for training, all where none is."""
    own = [(split, name) for split, name in meta.files if split in _TRAINING]
    return own or list(meta.files)


def read_rows(meta: DatasetMeta, columns: Sequence[str] = ()) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield (split, rows) of a configuration, batch by batch; only `columns` where they are named.

    Columns of JSON and CSV are read in any case. Raises InputError that names file and row.
    """
    for split, name in training_files(meta):
        rows = _open(name, split, columns)
        while batch := list(islice(rows, _BATCH)):
            yield split, batch


def _open(name: str, split: str, columns: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    if name.startswith(sql.PREFIX):
        return sql.rows(name, columns)
    return read_records(name, split or "train", columns)


# where the files are


def _of_path(path: Path) -> Iterator[DatasetMeta]:
    if path.is_file():
        if path.name == "CATALOG.json":
            yield from _of_catalogue(path)
            return
        if not _is_table(path):
            raise InputError(f"{path}: not a table this reads ({', '.join(SUFFIXES)})")
        name, split = _stem(path.name)
        if name.lower() in _SPLITS:  # of shop/train.csv, the folder is what names the dataset
            name = path.resolve().parent.name or name
        yield _of_files(Card(name=name, role="own"), "", Configuration(), str(path), [(split, path)])
        return
    if (path / "CATALOG.json").is_file():
        yield from _of_catalogue(path / "CATALOG.json")
        return
    own = card_of_folder(path)
    direct = [one for one in sorted(path.iterdir()) if one.is_file() and _is_table(one)]
    folders = [one for one in sorted(path.iterdir()) if one.is_dir() and not one.name.startswith(".")]
    if own is not None or direct:
        yield from _of_folder(path, own)
        return
    inside = [folder for folder in folders if any(_is_table(one) for one in folder.rglob("*"))]
    if not inside:
        raise InputError(f"{path} holds no table ({', '.join(SUFFIXES)}); name the folder of a dataset")
    if all(folder.name in ("data", *_SPLITS) for folder in inside):
        yield from _of_folder(path, None)
        return
    for folder in inside:
        try:
            yield from list(_of_path(folder))
        except InputError as error:  # one of many: it is listed, with what is wrong
            yield DatasetMeta(folder.name, uri=str(folder), note=str(error))


def _of_folder(path: Path, card: Card | None) -> Iterator[DatasetMeta]:
    names = {str(Path(name).relative_to(path)): Path(name) for name in _tables_in(path)}
    known = card or Card(name=path.name, role="own")
    grouped = _by_card(known, names) or _by_name(names)
    if not grouped:
        raise InputError(f"{path} has a card and no table ({', '.join(SUFFIXES)}); add its data files")
    for config, files in sorted(grouped.items()):
        said = known.configs.get(config) or (known.configs.get("") if len(grouped) == 1 else None)
        try:
            yield _of_files(known, config, said or Configuration(), str(path), files)
        except InputError as error:
            if len(grouped) == 1:
                raise
            yield DatasetMeta(known.name, config, uri=str(path), note=str(error))


def _tables_in(path: Path) -> list[str]:
    try:
        return [name for name in find_tables([str(path)]) if _is_table(Path(name))]
    except InputError:
        return []


def _is_table(path: Path) -> bool:
    return path.name.removesuffix(".gz").endswith(SUFFIXES) and path.name not in _NOT_ROWS


def _by_card(card: Card, names: Mapping[str, Path]) -> dict[str, list[tuple[str, Path]]]:
    grouped = {}
    for config, said in card.configs.items():
        found = [
            (split or _stem(name)[1], names[name])
            for split, pattern in said.files
            for name in matching(pattern, names)
        ]
        if found:
            grouped[config] = found
    return grouped


def _by_name(names: Mapping[str, Path]) -> dict[str, list[tuple[str, Path]]]:
    """Group files by their names without split and shard; an only group is the configuration without name."""
    grouped: dict[str, list[tuple[str, Path]]] = {}
    for name, path in names.items():
        stem, split = _stem(name)
        grouped.setdefault(stem, []).append((split, path))
    return {"": next(iter(grouped.values()))} if len(grouped) == 1 else grouped


def _stem(name: str) -> tuple[str, str]:
    """Return (name without split, shard and suffix; split) of a data file's relative path."""
    plain = name.removesuffix(".gz")
    for suffix in SUFFIXES:
        plain = plain.removesuffix(suffix)
    plain = re.sub(r"[-_.]?\d{4,6}(?:-of-\d{4,6})?$", "", plain)
    kept, split = [], ""
    for part in re.split(r"[/._-]", plain):
        if part.lower() in _SPLITS and not split:
            split = _SPLITS[part.lower()]
        elif part and part != "data":
            kept.append(part)
    return "_".join(kept) or plain, split


def _of_catalogue(path: Path) -> Iterator[DatasetMeta]:
    try:
        entries = json.loads(path.read_bytes())["files"]
        listed = [(entry, path.parent / entry["folder"] / entry["file"]) for entry in entries]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not a catalogue ({type(error).__name__}: {error}); see docs/grow.md"
        ) from None
    for entry, file in listed:
        if _is_table(file):
            split = _stem(file.name)[1]
            card = card_of_entry(entry)
            try:
                yield _of_files(card, "", Configuration(), str(path), [(split, file)])
            except InputError as error:  # one of many: it is listed, with what is wrong
                yield DatasetMeta(card.name, licence=card.licence, uri=str(path), note=str(error))


# one configuration


def _of_files(
    card: Card, config: str, said: Configuration, uri: str, files: Sequence[tuple[str, Path]]
) -> DatasetMeta:
    named = tuple(dict.fromkeys((split, str(path)) for split, path in files))
    found = DatasetMeta(card.name, config, files=named)
    used = training_files(found)
    first = used[0][1]
    declared = {**said.fields, **_embedded(first), **{n: d for n, d in said.fields.items() if d[0]}}
    stamp = content_id(*(_fingerprint(Path(name)) for _, name in used))
    said = Configuration(declared, (), bytes=sum(Path(name).stat().st_size for _, name in used))
    return _measured(card, config, said, uri, named, (), stamp)


def _fingerprint(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "blake2b").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check its permissions") from None


def _embedded(name: str) -> dict[str, Declared]:
    """Return the features that the `datasets` library notes in the files it writes."""
    try:
        if name.endswith(".parquet"):
            import pyarrow.parquet as pq

            return _features(pq.read_schema(name))
    except (pa.ArrowException, OSError):
        pass  # reading the rows says what is wrong with the file
    return {}


def _features(schema: pa.Schema) -> dict[str, Declared]:
    noted = (schema.metadata or {}).get(b"huggingface")
    if not noted:
        return {}
    try:
        return features_of(json.loads(noted)["info"]["features"])
    except (ValueError, KeyError, TypeError):
        return {}


def _of_table(table: sql.Table) -> DatasetMeta:
    files = (("", table.uri),)
    return _measured(
        Card(name=table.name, role="own"), "", Configuration(), table.uri, files, (), table.stamp
    )


def _of_hub(source: str) -> Iterator[DatasetMeta]:
    for card, config, split, name in hub_card(source):
        said = card.configs.get(config, Configuration())
        files = ((split, name),)
        head = list(islice(read_records(name, split), HEAD))
        yield _measured(card, config, said, source, files, [head], card.revision, whole=False)


def _measured(
    card: Card,
    config: str,
    said: Configuration,
    uri: str,
    files: tuple[tuple[str, str], ...],
    given: Sequence[list[dict[str, Any]]],
    stamp: str,
    *,
    whole: bool = True,
) -> DatasetMeta:
    """Look at the rows (`given`, else those of the files) and return the record.

    `whole` False: only a head was given; sizes are the card's, and no closed set is told from the rows.
    """
    empty = DatasetMeta(card.name, config, files=files)
    batches = given or [_head(empty)]
    head = _shortened([row for batch in batches for row in batch[:HEAD]][:HEAD])
    names = list(dict.fromkeys(str(name) for row in head for name in row))
    in_text = bool(files) and files[0][1].removesuffix(".gz").endswith((".csv", ".tsv"))
    columns = {name: [row.get(name) for row in head] for name in names}
    described = [describe(name, columns[name], said.fields.get(name), in_text) for name in names]
    spreads = [Spread(one, columns[one.name]) for one in described]
    rows = said.rows
    if whole:
        rows = _spread(spreads, (("", batch) for batch in given) if given else _all(empty, spreads))
        described = [spread.result() for spread in spreads]
    lies = [name for name in said.fields if head and name not in columns]
    note = f"the card names fields that the rows lack: {', '.join(lies[:8])}" if lies else ""
    samples = tuple(_sample(row) for row in head[:SAMPLE_ROWS])
    shape = json.dumps([[f.name, f.type, f.labels, f.hidden] for f in described])
    stamped = "" if files else json.dumps([row for batch in given for row in batch], default=str)
    digest = content_id(card.name, config, card.summary, card.licence, card.role, shape, stamp, stamped)
    return DatasetMeta(
        name=card.name,
        config=config,
        summary=card.summary,
        fields=tuple(described),
        samples=samples,
        tasks=card.tasks,
        languages=card.languages,
        licence=card.licence,
        rows=rows,
        bytes=said.bytes,
        lineage=card.lineage,
        uri=uri,
        digest=digest,
        files=files,
        role=card.role,
        note=note,
    )


def _head(meta: DatasetMeta) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for split, name in training_files(meta):
        found += islice(_open(name, split), HEAD - len(found))
        if len(found) >= HEAD:
            break
    return found


def _shortened(head: list[dict[str, Any]]) -> list[dict[str, Any]]:
    wide = max((len(row) for row in head[:LEAST_HEAD]), default=1) or 1
    return head[: max(LEAST_HEAD, CELLS // wide)]


def _all(meta: DatasetMeta, spreads: Sequence[Spread]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    columns = [spread.field.name for spread in spreads if spread.open]
    return read_rows(meta, columns or [spread.field.name for spread in spreads[:1]])


def _spread(spreads: Sequence[Spread], batches: Iterator[tuple[str, list[dict[str, Any]]]]) -> int:
    rows = 0
    for _, batch in batches:
        rows += len(batch)
        for spread in spreads:
            if spread.open:
                spread.add(row.get(spread.field.name) for row in batch)
    return rows


def _sample(row: Mapping[str, Any]) -> str:
    shown = dict(islice(((str(name), _cut(value)) for name, value in row.items()), MOST_SAMPLED))
    return json.dumps(shown, ensure_ascii=False)


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= _TEXT else value[: _TEXT - 1] + "…"
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, Mapping):
        return {str(name): _cut(inner) for name, inner in islice(value.items(), 16)}
    if isinstance(value, Sequence):
        return [_cut(inner) for inner in value[:8]]
    if value is None or isinstance(value, bool | int):
        return value
    return value if isinstance(value, float) and value == value else as_text(value)
