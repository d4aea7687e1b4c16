"""The loss on supervised tokens only, without computing logits anywhere else.

On a CPU the projection on the vocabulary is a fifth of a small model's work; two thirds of a row are
its prompt, where no logits are needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from taskmill.train.tree import Batch

__all__ = ["Supervised"]


class Supervised:
    """A causal model whose output layer sees only the positions that are asked for.

    A hook before the output layer selects them, so that whatever the model does after it (softcapping,
    scaling) stays the model's own.
    """

    def __init__(self, model: Any, head: Any, torch: Any) -> None:
        """Hook into `head`, the output layer of `model`."""
        self._model, self.torch, self._wanted = model, torch, None
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

    def logits(self, batch: Batch, cache: Any = None) -> Any:
        """Return the logits [supervised tokens, vocabulary] of what predicts them, row by row.

        `cache`: keys and values of what was read before the batch, to which the batch's own are added.
        """
        laid_out = {}
        if batch.mask is not None:
            kind = self._model.dtype
            lowest = self.torch.finfo(kind).min
            laid_out = {
                "position_ids": batch.positions,
                "attention_mask": batch.mask.clamp(min=lowest).to(kind),
            }
        with self._only(batch.wanted):
            kept = {"use_cache": cache is not None, "past_key_values": cache}
            return self._model(input_ids=batch.ids, **kept, **laid_out).logits

    def loss(self, batch: Batch) -> Any:
        """Return the summed cross-entropy (nats, fp32) of the batch's supervised tokens."""
        logits, targets = self.logits(batch), batch.ids.roll(-1, dims=1)[batch.wanted]
        return self.torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")
