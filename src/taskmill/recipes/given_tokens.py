"""Rows that are tokens already: columns `input_ids` and `labels`, read a part at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from taskmill.errors import InputError
from taskmill.recipes.tables import is_list

if TYPE_CHECKING:
    import numpy as np

    from taskmill.mix.pack import TokenRows

    Array = np.ndarray[Any, Any]

__all__ = ["beside_tokens", "given_rows", "narrowest", "token_batches"]

_COLUMNS = ("input_ids", "labels")

_AT_ONCE = 1 << 14
"""Rows that are read at a time (chosen: some tens of MB, where whole files take three times their size)."""


def beside_tokens(files: Sequence[str]) -> list[str] | None:
    """Return the columns beside the tokens if all files are Parquet and hold lists of tokens, else None.

    Also None where there are no other columns, or the files do not have the same ones.
    """
    if not files or not all(name.endswith(".parquet") for name in files):
        return None
    try:
        schemas = [pq.read_schema(name) for name in files]
    except (pa.ArrowException, OSError):
        return None  # whoever reads the whole file says what is wrong
    first = schemas[0]
    if any(one.names != first.names or len(set(one.names)) < len(one.names) for one in schemas):
        return None
    if any("input_ids" not in one.names or not is_list(one.field("input_ids").type) for one in schemas):
        return None
    return [name for name in first.names if name not in _COLUMNS] or None


def token_batches(files: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield the tokens of files that `beside_tokens` knows, in order.

    Raises InputError for a file that cannot be read.
    """
    for name in files:
        try:
            with pq.ParquetFile(name) as file:
                wanted = [column for column in _COLUMNS if column in file.schema_arrow.names]
                yield from file.iter_batches(_AT_ONCE, columns=wanted)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{name} cannot be read: {str(error).splitlines()[0]}") from None


def given_rows(batches: Iterable[pa.RecordBatch], ids: pa.ChunkedArray) -> TokenRows:
    """Return rows that are tokens already; without labels, all but the first token are learned.

    `ids`: of all rows. Tokens are kept in 16 bits if they fit, else in 32. Raises InputError naming the row
    whose cells are not lists of whole numbers, or differ in length.
    """
    import numpy as np

    from taskmill.mix.pack import TokenRows

    tokens: list[Array] = [np.zeros(0, np.uint16)]
    learned: list[Array] = [np.zeros(0, np.uint8)]
    lengths: list[Array] = [np.zeros(0, np.int64)]
    row = 0
    for batch in batches:
        own = ids.slice(row, len(batch))
        values, sizes = _values(batch["input_ids"], "input_ids", own)
        low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
        if low < 0 or high > 0xFFFFFFFF:
            raise InputError(f"input_ids: {low} to {high}; a token is a number of 0 or more")
        tokens.append(values.astype(narrowest(high)))
        mask = np.ones(len(values), np.uint8)
        if "labels" in batch.schema.names:
            labels, other = _values(batch["labels"], "labels", own)
            if not np.array_equal(other, sizes):
                wrong = own[int(np.flatnonzero(other != sizes)[0])].as_py()
                raise InputError(f"row {wrong!r}: labels and input_ids differ in length; mend it")
            np.not_equal(labels, -100, out=mask, casting="unsafe")
        mask[(np.cumsum(sizes) - sizes)[sizes > 0]] = 0
        learned.append(mask)
        lengths.append(sizes)
        row += len(batch)
    offsets = np.concatenate(([0], np.cumsum(np.concatenate(lengths)))).astype(np.int64)
    line = np.concatenate(tokens)
    tokens.clear()  # or both would be held while what is learned is joined
    return TokenRows(line, np.concatenate(learned), offsets)


def narrowest(highest: int) -> type[np.uint16 | np.uint32]:
    """Return 16 bits for tokens if they fit, else 32."""
    import numpy as np

    return np.uint16 if highest < 1 << 16 else np.uint32


def _values(cells: pa.Array, name: str, ids: pa.ChunkedArray) -> tuple[Array, Array]:
    """Return the numbers of a column of lists, one list behind the other, and how many each list has."""
    import numpy as np

    inner = cells.type.value_type if is_list(cells.type) else None
    whole = inner if inner is not None and pa.types.is_integer(inner) else pa.int64()
    try:
        lists = cells.cast(pa.large_list(whole))
        found = lists.flatten()
    except pa.ArrowException:
        lists = None
    if lists is None or lists.null_count or found.null_count:
        row, cell = next((row, cell) for row, cell in enumerate(cells.to_pylist()) if _is_odd(cell))
        where = f"row {ids[row].as_py()!r}: {name}"
        raise InputError(f"{where} must be a list of whole numbers, not {str(cell)[:60]}; mend or drop it")
    return np.asarray(found), np.asarray(pc.list_value_length(lists), np.int64)


def _is_odd(cell: Any) -> bool:
    """Say whether a cell is something else than a list of whole numbers (that a double holds, too)."""
    if not isinstance(cell, list):
        return True
    return not all(isinstance(n, int | float) and n == n // 1 and abs(n) < 1 << 53 for n in cell)
