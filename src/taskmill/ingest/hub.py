"""Hugging Face datasets, streamed: `hf:owner/name[:config][@revision]`, or `hf:./folder` for local files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any

from taskmill.errors import InputError, MissingExtra, UsageError
from taskmill.ingest.columns import batch_texts, wanted_columns
from taskmill.ingest.config import IngestConfig
from taskmill.ingest.reader import Fault, Text

__all__ = ["open_hub", "parse_hub", "read_hub"]

_SOURCE = re.compile(r"hf:(?P<path>[^:@]+)(?::(?P<config>[^:@]+))?(?:@(?P<revision>[^:@]+))?")
_BATCH = 1000  # rows


def parse_hub(source: str) -> tuple[str, str | None, str | None]:
    """Return path, config and revision of an `hf:` source; raises UsageError if it has another shape."""
    match = _SOURCE.fullmatch(source)
    if not match:
        raise UsageError(f"{source!r} is not of the form hf:owner/name[:config][@revision]")
    return match["path"], match["config"], match["revision"]


def open_hub(source: str, split: str) -> tuple[Any, Iterator[Any]]:
    """Open one split, streamed; return its first rows (None if it has none) and the others, as Arrow tables.

    Raises InputError if the dataset cannot be opened, MissingExtra without the library.
    """
    path, name, revision = parse_hub(source)
    # Set before the import, which reads them once: no usage report, no download count.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
    try:
        import datasets
    except ImportError:
        raise MissingExtra("datasets", "hf") from None
    try:
        rows: Any = datasets.load_dataset(path, name, split=split, revision=revision, streaming=True)
        rows = rows.with_format("arrow")
        batches = iter(rows.iter(batch_size=_BATCH))
        return next(batches, None), batches
    except Exception as error:  # the library raises about every kind, from ValueError to ConnectionError
        detail = str(error).split("\n", 1)[0]
        raise InputError(
            f"{source!r} (split {split!r}) cannot be opened: {detail} "
            "Check name, config, split and network; a downloaded copy is read with hf:./folder"
        ) from None


def read_hub(source: str, config: IngestConfig) -> Iterator[Text | Fault]:
    """Yield one text for each row of one split; raises InputError if the dataset cannot be opened."""
    first, batches = open_hub(source, config.split)
    if first is None:
        yield from batch_texts([], config)
        return
    wanted_columns(first.schema, config)
    meta = json.dumps({"split": config.split})
    for item in batch_texts(_batches(first, batches), config):
        yield item._replace(meta=meta) if isinstance(item, Text) else item


def _batches(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield from first.to_batches()
    for table in rest:
        yield from table.to_batches()
