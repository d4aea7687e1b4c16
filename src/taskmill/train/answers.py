"""What a model answers: tokens written greedily, or how likely given ones are. Each prompt is read once.

Prompts that begin alike pass through the model as one tree (`tree.py`), so that a passage is read once for
all wordings and questions on it. Its keys and values stay, and what follows a prompt is put behind the tree,
where only that prompt's own later tokens see it: nothing is copied for the prompts of one tree.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from taskmill.train.encode import Encoded
from taskmill.train.loss import Supervised
from taskmill.train.tree import Batch, Tree, pad

__all__ = ["batches", "likelihoods", "prompt", "written"]

COLUMNS = 4096
"""Tokens read at once, padding included (chosen: 0.4 GB of keys and values for a model of 135M)."""

Part = tuple[int, Sequence[int]]
"""(number of a prompt in its tree, tokens that follow it)."""


def prompt(row: Encoded) -> Encoded:
    """Return a row's prompt as a row of its own, of the same group. Its last token alone is never shared."""
    return Encoded(row.ids[: row.start], row.start - 1, group=row.group)


def batches(found: Sequence[Tree]) -> Iterator[list[int]]:
    """Cut trees' numbers, those of like length together, into batches of at most COLUMNS tokens."""
    batch: list[int] = []
    for i in sorted(range(len(found)), key=lambda i: (-len(found[i]), i)):
        if batch and (len(batch) + 1) * len(found[batch[0]]) > COLUMNS:  # the first is the longest
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


class _Read:
    """Trees of prompts that a model has read, and can go on from.

    `first`: the logits [prompts, vocabulary] behind each prompt, tree by tree. `sees` [trees, prompts of one,
    columns]: what of its tree belongs to a prompt.
    """

    def __init__(self, supervised: Supervised, found: Sequence[Tree], cache: Any, device: Any) -> None:
        self._supervised, self._cache, self._device = supervised, cache, device
        torch = supervised.torch
        most, longest = max(len(tree.rows) for tree in found), max(map(len, found))
        self.sees = np.zeros((len(found), most, longest), dtype=bool)
        self.lengths = np.zeros((len(found), most), dtype=np.int64)
        last = np.zeros((len(found), longest), dtype=bool)
        for i, tree in enumerate(found):
            at = tree.shared
            for number, row in enumerate(tree.rows):
                end = at + len(row.ids) - tree.shared
                self.sees[i, number, : tree.shared] = self.sees[i, number, at:end] = True
                self.lengths[i, number] = len(row.ids)
                last[i, end - 1] = True
                at = end
        batch = pad(found, torch, device)._replace(wanted=torch.from_numpy(last).to(device))
        self.first = supervised.logits(batch, cache)

    def go_on(self, parts: Sequence[Sequence[Part]]) -> Any:
        """Read what follows, for each tree its parts, and return the logits of all their tokens in order."""
        torch, before = self._supervised.torch, self.sees.shape[2]
        wide = max(sum(len(tokens) for _, tokens in own) for own in parts)
        ids, positions = (np.zeros((len(parts), wide), dtype=np.int64) for _ in range(2))
        wanted = np.zeros((len(parts), wide), dtype=bool)
        seen = np.zeros((len(parts), wide, before + wide), dtype=bool)
        seen[:, :, before:] = np.eye(wide, dtype=bool)  # padding sees itself: something must be seen
        self.sees = np.pad(self.sees, ((0, 0), (0, 0), (0, wide)))
        for i, own in enumerate(parts):
            at = 0
            for number, tokens in own:
                end = at + len(tokens)
                ids[i, at:end], wanted[i, at:end] = tokens, True
                positions[i, at:end] = self.lengths[i, number] + np.arange(len(tokens))
                seen[i, at:end, :before] = self.sees[i, number, :before]
                seen[i, at:end, before + at : before + end] = np.tri(len(tokens), dtype=bool)
                at = end
            at = 0
            for number, tokens in own:
                self.sees[i, number, before + at : before + at + len(tokens)] = True
                self.lengths[i, number] += len(tokens)
                at += len(tokens)
        hidden = np.where(seen, np.float32(0), np.finfo(np.float32).min)[:, None]
        given = (torch.from_numpy(array).to(self._device) for array in (ids, wanted, positions, hidden))
        return self._supervised.logits(Batch(*given), self._cache)

    def keep(self, places: Sequence[int]) -> None:
        """Forget all trees but those at these places."""
        self._cache.batch_select_indices(self._supervised.torch.tensor(places, device=self._device))
        self.sees, self.lengths = self.sees[places], self.lengths[places]


def written(
    supervised: Supervised, found: Sequence[Tree], cache: Any, device: Any, stops: Collection[int], most: int
) -> list[list[list[int]]]:
    """Return what is written greedily behind each prompt of each tree, `most` tokens, up to one of `stops`.

    `cache`: an empty one of the model's kind.
    """
    read = _Read(supervised, found, cache, device)
    texts: list[list[list[int]]] = [[[] for _ in tree.rows] for tree in found]
    open_ = [(i, number) for i, tree in enumerate(found) for number in range(len(tree.rows))]
    places, logits = list(range(len(found))), read.first
    for left in range(most - 1, -1, -1):
        tokens = logits.argmax(dim=-1).tolist()
        open_ = [at for at, token in zip(open_, tokens, strict=True) if token not in stops]
        going: dict[int, list[Part]] = {}
        for (i, number), token in zip(open_, (t for t in tokens if t not in stops), strict=True):
            texts[i][number].append(token)
            going.setdefault(i, []).append((number, [token]))
        if not going or not left:
            break
        if len(going) < len(places):
            read.keep([places.index(i) for i in going])
            places = list(going)
        logits = read.go_on(list(going.values()))
    return texts


def likelihoods(
    supervised: Supervised,
    found: Sequence[Tree],
    cache: Any,
    device: Any,
    ends: Sequence[Sequence[Sequence[Sequence[int]]]],
) -> list[list[list[Any]]]:
    """Return the log-likelihoods of the tokens of each of a prompt's ends, for each prompt of each tree."""
    torch = supervised.torch
    read = _Read(supervised, found, cache, device)
    first = torch.log_softmax(read.first.float(), dim=-1)
    parts = [[(n, end[:-1]) for n, own in enumerate(tree) for end in own if len(end) > 1] for tree in ends]
    later = torch.log_softmax(read.go_on(parts).float(), dim=-1) if any(parts) else first[:0]
    at = row = 0
    scored: list[list[list[Any]]] = []
    for tree in ends:
        scored.append([])
        for own in tree:
            scored[-1].append([])
            for end in own:
                rows = torch.cat([first[row : row + 1], later[at : at + len(end) - 1]])
                scored[-1][-1].append(rows[range(len(end)), list(end)])
                at += len(end) - 1
            row += 1
    return scored
