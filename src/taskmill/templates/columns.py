"""Many rows through many templates at once, in the order of the rows.

A template of slots only is a row of words and columns: templates that read the same columns in the same
order are joined in one pass over Arrow columns, with the words of each row's template in between. Only
templates with logic go through MiniJinja, a row at a time.
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
    import numpy as np
    import pyarrow as pa

    groups = _groups(texts)
    # Group and place within the group of every template.
    group = np.empty(len(texts), np.int64)
    place = np.empty(len(texts), np.int64)
    for number, (_, members) in enumerate(groups):
        group[members] = number
        place[members] = np.arange(len(members))

    def work(start: int) -> pa.Array:
        rows = slice(start, min(start + BATCH, len(choice)))
        own = {name: column.slice(start, rows.stop - start) for name, column in columns.items()}
        return _batch(texts, groups, group[choice[rows]], place[choice[rows]], own)

    starts = range(0, len(choice), BATCH)
    if len(starts) < 2:
        return pa.chunked_array([work(start) for start in starts], pa.string())
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return pa.chunked_array(list(pool.map(work, starts)), pa.string())


def _groups(texts: Sequence[str]) -> list[tuple[tuple[str, ...] | None, list[int]]]:
    """Return (slots in order, templates that have these): joined together; None for a template with logic."""
    found: dict[Any, list[int]] = {}
    for number, text in enumerate(texts):
        parts = pieces(text)
        found.setdefault(("logic", number) if parts is None else parts[1::2], []).append(number)
    return [(None if key[:1] == ("logic",) else key, members) for key, members in found.items()]


def _batch(
    texts: Sequence[str],
    groups: Sequence[tuple[tuple[str, ...] | None, list[int]]],
    group: Array,
    place: Array,
    columns: Mapping[str, pa.Array],
) -> pa.Array:
    import numpy as np
    import pyarrow as pa

    present = np.unique(group)
    if len(present) == 1:
        return _joined(texts, *groups[int(present[0])], place, columns)
    made, order = [], []
    for number in present:
        rows = np.flatnonzero(group == number)
        order.append(rows)
        names, members = groups[int(number)]
        wanted = slots(texts[members[0]]) if names is None else set(names)
        own = {name: columns[name].take(pa.array(rows)) for name in wanted}
        made.append(_joined(texts, names, members, place[rows], own))
    back = np.empty(len(group), np.int64)
    back[np.concatenate(order)] = np.arange(len(group))
    return pa.concat_arrays(made).take(pa.array(back))


def _joined(
    texts: Sequence[str],
    names: tuple[str, ...] | None,
    members: Sequence[int],
    place: Array,
    columns: Mapping[str, pa.Array],
) -> pa.Array:
    """Return the texts of rows whose templates are `members`, row i in that of number `place[i]`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if names is None:
        return _rendered(texts[members[0]], len(place), columns)
    words = [(pieces(texts[number]) or ())[::2] for number in members]
    parts: list[Any] = []
    at = pa.array(place, pa.int32())
    for i in range(len(names) + 1):
        column = [one[i] for one in words]
        if any(column):
            alike = len(set(column)) == 1
            parts.append(pa.scalar(column[0]) if alike else pa.array(column, pa.string()).take(at))
        if i < len(names):
            parts.append(columns[names[i]])
    if not names:
        return pa.array([words[int(p)][0] for p in place], pa.string())
    return pc.binary_join_element_wise(*parts, "") if len(parts) > 1 else parts[0]


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
