"""Rows that begin with the same tokens are read once: their common beginning, then each one's own rest.

The tasks of one passage share it, and it is the larger part of their prompts. A tree is one sequence in
which a token sees the beginning and its own row only, at the positions it would have alone: the loss is
that of the rows one by one, and fewer tokens are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from taskmill.train.encode import Encoded

__all__ = ["Batch", "Tree", "pad", "trees"]

LEAST = 16
"""Tokens that must be shared (chosen: a mask costs more than it saves below that)."""


@dataclass(frozen=True, slots=True)
class Tree:
    """Rows whose first `shared` tokens are the same, and unsupervised; 0 for a row by itself."""

    rows: tuple[Encoded, ...]
    shared: int = 0

    def __len__(self) -> int:
        """Return the tokens that pass through the model."""
        return self.shared + sum(len(row.ids) - self.shared for row in self.rows)

    @property
    def supervised(self) -> int:
        """Return how many tokens the loss is taken on."""
        return sum(row.supervised for row in self.rows)


class Batch(NamedTuple):
    """What goes into the model: ids, where the next token is supervised, and for trees positions and mask.

    Shapes: ids, wanted (bool) and positions [trees, longest], mask [trees, 1, longest, longest] (0 where a
    token is seen, else the lowest number).
    """

    ids: Any
    wanted: Any
    positions: Any = None
    mask: Any = None


def trees(rows: Iterable[Encoded], longest: int) -> Iterator[Tree]:
    """Yield the rows as trees of at most `longest` tokens; rows of one group that begin alike share one."""
    groups: dict[str, list[Encoded]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    for own in groups.values():
        open_tree = Tree((own[0],))
        for row in own[1:]:
            shared = min(_alike(open_tree.rows[0], row), open_tree.shared or row.start)
            grown = Tree((*open_tree.rows, row), shared)
            if shared < LEAST or len(grown) > longest:
                yield open_tree
                open_tree = Tree((row,))
            else:
                open_tree = grown
        yield open_tree


def _alike(first: Encoded, second: Encoded) -> int:
    """Return how many tokens both begin with; the last one of each prompt is always its own."""
    most = min(first.start, second.start) - 1
    differ = np.flatnonzero(first.ids[:most] != second.ids[:most])
    return int(differ[0]) if len(differ) else most


def pad(found: Sequence[Tree], torch: Any, device: Any) -> Batch:
    """Lay trees out side by side, padded on the right.

    Rows by themselves need no mask: a causal model's tokens cannot see padding behind them, and attention
    stays on its fast path. The pad's id does not matter then; it is 0.
    """
    longest = max(map(len, found))
    ids = np.zeros((len(found), longest), dtype=np.int64)
    wanted = np.zeros((len(found), longest), dtype=bool)
    positions = np.zeros((len(found), longest), dtype=np.int64)
    branch = np.full((len(found), longest), -1, dtype=np.int64)
    for i, tree in enumerate(found):
        ids[i, : tree.shared] = tree.rows[0].ids[: tree.shared]
        positions[i, : tree.shared] = np.arange(tree.shared)
        branch[i, : tree.shared] = 0
        at = tree.shared
        for number, row in enumerate(tree.rows, 1):
            end = at + len(row.ids) - tree.shared
            ids[i, at:end] = row.ids[tree.shared :]
            positions[i, at:end] = np.arange(tree.shared, len(row.ids))
            branch[i, at:end] = number
            wanted[i, at + row.start - tree.shared - 1 : end - 1] = True
            for first, last in row.skipped:
                wanted[i, at + first - tree.shared - 1 : at + last - tree.shared - 1] = False
            at = end
    laid_out = torch.from_numpy(ids).to(device), torch.from_numpy(wanted).to(device)
    if not any(tree.shared for tree in found):
        return Batch(*laid_out)
    of = torch.from_numpy(branch).to(device)
    seen = (of[:, None, :] == of[:, :, None]) | (of[:, None, :] == 0)
    seen &= torch.ones((longest, longest), dtype=torch.bool, device=device).tril()
    mask = torch.zeros(seen.shape, device=device).masked_fill_(~seen, torch.finfo(torch.float32).min)
    return Batch(*laid_out, torch.from_numpy(positions).to(device), mask[:, None])
