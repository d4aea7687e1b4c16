"""Hidden states of a transformer as embeddings: what `select` measures distances in, and RDS+ ranks by."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from taskmill.backends.transformers import engines
from taskmill.backends.weights import identity
from taskmill.errors import BackendError

__all__ = ["States"]

Array = np.ndarray[Any, Any]

_TOKENS = 16384
"""Most tokens of a batch, padding included (chosen: their states at width 4096 in float64 are 0.5 GB)."""


class States:
    """The last hidden states of a transformer in float32, pooled over a text's own tokens.

    It runs on a GPU if there is one. Texts run in batches of about equal length, padded on the right under
    an attention mask, so that the vector of a text does not depend on its neighbours (tests: to 1e-5
    between batches of 1 and 32).
    """

    cached = True

    def __init__(self, model: str, pooling: str, key: str = "", longest: int = 2048, batch: int = 32) -> None:
        """Load `model`, a folder or a Hub name. Raises MissingExtra, or BackendError if it cannot be loaded.

        `pooling`: "mean", "last", or "weighted" = Σ t·h_t / Σ t over tokens t = 1, 2, … (RDS+). Tokens after
        the first `longest` are not read (chosen: four times the usual row, and a CPU still gets there).
        """
        torch, hf = engines()
        try:
            self._tokenizer = hf.AutoTokenizer.from_pretrained(model, trust_remote_code=False)
            loaded = hf.AutoModel.from_pretrained(
                model, dtype=torch.float32, trust_remote_code=False, use_safetensors=True
            )
        except (OSError, ValueError, RuntimeError) as error:
            line = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise BackendError(f"transformers cannot load {model} to embed with: {line}") from error
        self._torch, self._pooling, self._batch = torch, pooling, batch
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = loaded.to(self._device).eval()
        self._longest = min(longest, getattr(loaded.config, "max_position_embeddings", None) or longest)
        revision = getattr(loaded.config, "_commit_hash", None) or ""
        self.key = f"{key or identity('hidden', model, revision)}-{pooling}-{self._longest}"

    def encode(self, texts: pa.Array) -> Array:
        """Return the pooled states (float32 [n, d], unit rows; zero for a text without tokens)."""
        tokens = [self._ids(text) if text else [] for text in texts.to_pylist()]
        order = [row for row in range(len(texts)) if tokens[row]]
        order.sort(key=lambda row: (-len(tokens[row]), tokens[row]))
        vectors = np.zeros((len(texts), int(self._model.config.hidden_size)), np.float32)
        at = 0
        while at < len(order):
            rows = order[at : at + max(1, min(self._batch, _TOKENS // len(tokens[order[at]])))]
            vectors[rows] = self._pooled([tokens[row] for row in rows])
            at += len(rows)
        return vectors

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, truncation=True, max_length=self._longest)["input_ids"]
        return ids

    def _pooled(self, batch: list[list[int]]) -> Array:
        torch = self._torch
        wide = max(map(len, batch))
        ids = torch.tensor([row + [0] * (wide - len(row)) for row in batch], device=self._device)
        lengths = torch.tensor([len(row) for row in batch], device=self._device)[:, None]
        places = torch.arange(wide, device=self._device)[None, :]
        mask = places < lengths
        with torch.inference_mode():
            states = self._model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
            weights = {
                "mean": mask.double(),
                "last": (places == lengths - 1).double(),
                "weighted": (places + 1).double() * mask,
            }[self._pooling]
            # In float64: a sum over thousands of tokens must not depend on how many zeros follow them.
            pooled = torch.einsum("bt,btd->bd", weights, states.double()) / weights.sum(1, keepdim=True)
            pooled = pooled / pooled.norm(dim=1, keepdim=True).clamp_min(1e-30)
        found: Array = pooled.float().cpu().numpy()
        return found
