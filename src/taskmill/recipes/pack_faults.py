"""Which rows cannot be packed, and why; and what the vocabulary lacks of those that are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from taskmill.record import Reason

if TYPE_CHECKING:
    import numpy as np

    from taskmill.mix.pack import TokenRows
    from taskmill.recipes.pack import PackConfig

    Array = np.ndarray[Any, Any]

__all__ = ["faults_of", "pair_faults", "unknown_shares", "without"]


def unknown_shares(rows: TokenRows, kept: Array, tasks: pa.Array, unknown: Any) -> dict[str, float]:
    """Return for each task that has unknown tokens what share of its tokens they are."""
    import numpy as np

    where = np.flatnonzero(rows.tokens == unknown) if unknown is not None else np.empty(0, np.int64)
    if not len(where):
        return {}
    of = np.searchsorted(rows.offsets, where, side="right") - 1
    each = np.bincount(of, minlength=len(rows.lengths))[kept]
    own = pa.table({"task": tasks.take(pa.array(kept)), "all": rows.lengths[kept], "unknown": each})
    sums = own.group_by("task").aggregate([("all", "sum"), ("unknown", "sum")]).sort_by("task").to_pylist()
    return {one["task"]: round(one["unknown_sum"] / one["all_sum"], 6) for one in sums if one["unknown_sum"]}


def faults_of(config: PackConfig, rows: TokenRows) -> list[tuple[int, str, str]]:
    """Return (row, reason, detail) of the rows that cannot be packed."""
    import numpy as np

    lengths, learned = rows.lengths, rows.learns
    verdicts: list[tuple[int, str, str]] = []
    for row in np.flatnonzero(learned == 0).tolist():
        found = (
            f"{lengths[row]:,} tokens, none of them to learn" if lengths[row] else "no text in its columns"
        )
        verdicts.append((row, str(Reason.EMPTY), found))
    if config.long == "drop":
        for row in np.flatnonzero((learned > 0) & (lengths > config.length)).tolist():
            verdicts.append(
                (row, str(Reason.OVER_LENGTH), f"{lengths[row]:,} tokens, over {config.length:,}")
            )
    return verdicts


def pair_faults(config: PackConfig, rows: TokenRows, least: int) -> list[tuple[int, str, str]]:
    """Return the same for an encoder-decoder model, where both sides need a text and a room.

    `least`: the tokens of the shortest input.
    """
    import numpy as np

    from taskmill.mix.pairs import split_points

    points = split_points(rows)
    verdicts: list[tuple[int, str, str]] = []
    for row in np.flatnonzero(points < least).tolist():
        verdicts.append((row, str(Reason.EMPTY), "no input, no target, or a target that is not its end"))
    rest = rows.lengths - points
    long = (points >= least) & ((points > config.length) | (rest > config.target_length))
    for row in np.flatnonzero(long).tolist():
        found = (
            f"{points[row]:,} and {rest[row]:,} tokens, over {config.length:,} or {config.target_length:,}"
        )
        verdicts.append((row, str(Reason.OVER_LENGTH), found))
    return verdicts


def without(
    verdicts: list[tuple[int, str, str]], lengths: Array, names: pa.Array
) -> tuple[Array, pa.Table, dict[str, int]]:
    """Return the rows that are packed, the others with their reasons, and how many each reason took."""
    import numpy as np

    gone = np.array([row for row, _, _ in verdicts], np.int64)
    dropped = pa.table(
        {
            "id": names.take(pa.array(gone, pa.int64())),
            "reason": pa.array([reason for _, reason, _ in verdicts], pa.string()),
            "detail": pa.array([detail for _, _, detail in verdicts], pa.string()),
            "tokens": pa.array(lengths[gone], pa.int64()),
        }
    )
    counts: dict[str, int] = {}
    for _, reason, _ in sorted(verdicts, key=lambda v: v[1]):
        counts[reason] = counts.get(reason, 0) + 1
    return np.setdiff1d(np.arange(len(lengths)), gone), dropped.sort_by("id"), counts
