"""Many rows through many templates at once, in the order of the rows.

A template of slots only is a row of words and columns: all of them are joined in one pass over Arrow columns,
with the words and slots of each row's template in their places. Only templates with logic go through
MiniJinja, a row at a time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import minijinja

from taskmill.templates.schema import pieces, slots

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    Array = np.ndarray[Any, Any]

__all__ = ["fill"]

BATCH = 1 << 16
"""Rows that one core joins at a time. Chosen: some tens of milliseconds, and far below 2 GB of text."""


def fill(texts: Sequence[str], choice: Array, columns: Mapping[str, pa.Array]) -> pa.ChunkedArray:
    """Return the text of each row: template `texts[choice[i]]` with row i of the columns in its slots.

    `choice`: (N,) integers; `columns`: role → N texts without nulls. The result has N texts, in order.
    """
    import pyarrow as pa

    def work(start: int) -> pa.Array:
        rows = choice[start : start + BATCH]
        return _batch(texts, rows, {name: column.slice(start, len(rows)) for name, column in columns.items()})

    starts = range(0, len(choice), BATCH)
    if len(starts) < 2:
        return pa.chunked_array([work(start) for start in starts], pa.string())
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return pa.chunked_array(list(pool.map(work, starts)), pa.string())


def _batch(texts: Sequence[str], choice: Array, columns: Mapping[str, pa.Array]) -> pa.Array:
    import numpy as np
    import pyarrow as pa

    logic = np.array([pieces(text) is None for text in texts], np.bool_)
    alone = logic[choice]
    if not alone.any():
        return _joined([pieces(text) or ("",) for text in texts], choice, columns)
    # Rows with logic are rendered apart, a template at a time, and everything is put back in order.
    made, order = [], []
    for number in (-1, *np.unique(choice[alone]).tolist()):
        rows = np.flatnonzero(~alone if number < 0 else choice == number)
        own = {name: column.take(pa.array(rows)) for name, column in columns.items()}
        order.append(rows)
        if number < 0:
            made.append(_joined([pieces(text) or ("",) for text in texts], choice[rows], own))
        else:
            made.append(_rendered(texts[number], len(rows), own))
    back = np.empty(len(choice), np.int64)
    back[np.concatenate(order)] = np.arange(len(choice))
    return pa.concat_arrays(made).take(pa.array(back))


def _joined(parts: Sequence[tuple[str, ...]], choice: Array, columns: Mapping[str, pa.Array]) -> pa.Array:
    """Return the texts of rows in their order: words, slot, words, slot … of each row's template.

    At each place every row has the words, then the slot, of its own template; shorter templates end in
    nothing. So no row is moved, and each text is written once.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    present = np.unique(choice)
    place = np.zeros(len(parts), np.int64)
    place[present] = np.arange(len(present))
    at = pa.array(place[choice], pa.int32())
    used = [parts[number] for number in present]
    whole: list[Any] = [pa.array([""], pa.string()).take(pa.array(np.zeros(len(choice), np.int64)))]
    for i in range(max(map(len, used), default=0)):
        own = [one[i] if i < len(one) else "" for one in used]
        if i % 2 == 0:  # words
            if any(own):
                alike = len(set(own)) == 1
                whole.append(pa.scalar(own[0]) if alike else pa.array(own, pa.string()).take(at))
            continue
        names = sorted(set(own))
        values = [columns[name] if name else pa.scalar("") for name in names]
        if len(names) == 1:
            whole.append(values[0])
        else:
            which = np.array([names.index(name) for name in own])
            whole.append(pc.choose(pa.array(which).take(at), *values))
    return pc.binary_join_element_wise(*whole, "")


def _rendered(text: str, rows: int, columns: Mapping[str, pa.Array]) -> pa.Array:
    import pyarrow as pa

    environment = minijinja.Environment(undefined_behavior="strict", keep_trailing_newline=True)
    environment.add_template("t", text)
    names = sorted(slots(text))
    values = [columns[name].to_pylist() for name in names]
    render = environment.render_template
    if not names:
        return pa.array([render("t")] * rows, pa.string())
    return pa.array(
        [render("t", **dict(zip(names, one, strict=True))) for one in zip(*values, strict=True)], pa.string()
    )
