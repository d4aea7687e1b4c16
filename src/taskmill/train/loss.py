"""The loss on supervised tokens only, without computing logits anywhere else.

On a CPU the projection on the vocabulary is a fifth of a small model's work; two thirds of a row are
its prompt, where no logits are needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from taskmill.train.encode import Encoded

__all__ = ["Supervised", "pad"]


def pad(rows: Sequence[Encoded], torch: Any, device: Any) -> tuple[Any, Any]:
    """Return ids [rows, longest] and where the next token is supervised [rows, longest] (bool).

    Padding stands on the right, where a causal model's tokens cannot see it: no attention mask is needed,
    and attention stays on its fast path. The pad's id does not matter then; it is 0.
    """
    longest = max(len(row.ids) for row in rows)
    ids = torch.zeros((len(rows), longest), dtype=torch.long)
    wanted = torch.zeros((len(rows), longest), dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.from_numpy(row.ids.astype(np.int64))
        wanted[i, row.start - 1 : len(row.ids) - 1] = True
    return ids.to(device), wanted.to(device)


class Supervised:
    """A causal model whose output layer sees only the positions that are asked for.

    A hook before the output layer selects them, so that whatever the model does after it (softcapping,
    scaling) stays the model's own.
    """

    def __init__(self, model: Any, head: Any, torch: Any) -> None:
        """Hook into `head`, the output layer of `model`."""
        self._model, self._torch, self._wanted = model, torch, None
        head.register_forward_pre_hook(self._select)

    def _select(self, _: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (inputs[0][self._wanted],) if self._wanted is not None else inputs

    @contextmanager
    def _only(self, wanted: Any) -> Iterator[None]:
        self._wanted = wanted
        try:
            yield
        finally:
            self._wanted = None

    def loss(self, ids: Any, wanted: Any) -> Any:
        """Return the summed cross-entropy (nats, fp32) of the supervised tokens.

        `ids` [rows, length] int64; `wanted` [rows, length] bool, true where the next token is supervised.
        """
        with self._only(wanted):
            logits = self._model(input_ids=ids, use_cache=False).logits
        targets = ids.roll(-1, dims=1)[wanted]
        return self._torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")
