"""Who belongs together: rows of equal keys, and rows joined by links (union-find)."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from taskmill.kernels.words import on_all_cores

__all__ = ["firsts", "join"]

Array = np.ndarray[Any, Any]

_TOP = 3
"""Leading bits that tell which keys `firsts` treats apart (chosen: eight tables, more than most cores, each
in the second-level cache up to 100k rows)."""


def firsts(keys: Array, order: Array) -> Array:
    """Return, for each row, the first row in `order` whose key is equal: itself where there is none before.

    `keys` is uint64 of shape [rows, 2], well mixed; `order` (int64) holds each row once, or only some rows:
    those not in it get -1. Open-addressed tables; the result depends on keys and order only.
    """
    found = np.full(len(keys), -1, np.int64)
    on_all_cores(lambda a, b: _firsts(keys, order, a, b, found), [(i, i + 1) for i in range(1 << _TOP)])
    return found


def join(parent: Array, left: Array, right: Array) -> None:
    """Join left[i] and right[i] in `parent` (int64 [size], to begin with the nodes' own numbers).

    Afterwards it names the smallest node of each node's component.
    """
    _join(parent, left.astype(np.int64), right.astype(np.int64))


@numba.njit(nogil=True, cache=True)
def _firsts(keys: Any, order: Any, piece: int, _: int, found: Any) -> None:
    own = 0
    for i in range(len(keys)):
        own += np.int64(keys[i, 0] >> np.uint64(64 - _TOP)) == piece
    slots = 16
    while slots < 2 * own:
        slots *= 2
    mask = np.uint64(slots - 1)
    table = np.full(slots, np.int64(-1))
    for row in order:
        low, high = keys[row, 0], keys[row, 1]
        if np.int64(low >> np.uint64(64 - _TOP)) != piece:
            continue
        slot = low & mask
        while table[slot] >= 0 and (keys[table[slot], 0] != low or keys[table[slot], 1] != high):
            slot = (slot + np.uint64(1)) & mask
        if table[slot] < 0:
            table[slot] = row
        found[row] = table[slot]


@numba.njit(nogil=True, cache=True, inline="always")
def _root(parent: Any, node: Any) -> Any:
    while parent[node] != node:
        parent[node] = parent[parent[node]]  # path halving (Tarjan & van Leeuwen 1984)
        node = parent[node]
    return node


@numba.njit(nogil=True, cache=True)
def _join(parent: Any, left: Any, right: Any) -> None:
    """Join the links; the smaller root stays a root, so that a component is named by its smallest node."""
    for i in range(len(left)):
        a, b = _root(parent, left[i]), _root(parent, right[i])
        if a < b:
            parent[b] = a
        elif b < a:
            parent[a] = b
    for node in range(len(parent)):
        parent[node] = _root(parent, node)
