"""Whether rows may share their common beginning with a given model: told by a rule, then by trying.

A tree (`tree.py`) tells the model by mask and positions what a token sees, which only plain attention heeds.
A sliding window or a chunk is part of the mask that a tree's replaces; alibi takes distances from places in
the sequence; a recurrent layer reads one row's end into the next. There the rows pass through one by one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from taskmill.train.encode import Encoded
from taskmill.train.loss import Supervised
from taskmill.train.tree import Tree, pad, trees

__all__ = ["Layout", "forbidden", "lay_out"]

TOLERANCE = {"fp32": 1e-3, "bf16": 0.1}
"""Largest share of the logits' norm by which a tree's may differ from its rows' (chosen: well above what the
order of sums changes, 2e-6 in fp32 and 0.024 in bf16 on three trees of SmolLM2-135M)."""

WINDOWS = ("sliding_window", "attention_chunk_size", "window_size")
"""Names under which configurations of transformers bound how far back attention looks, in tokens."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How rows pass through the model: `prefix`, shared or own, and `why`; the trees of both parts."""

    prefix: str
    why: str
    rows: list[Tree]
    valid: list[Tree]

    def record(self) -> dict[str, str]:
        """Return what the training record says of it."""
        return {"used": self.prefix, "why": self.why}


def forbidden(model: Any, longest: int) -> str:
    """Return why rows of at most `longest` tokens may not share a beginning with this model, or ""."""
    config = model.config.get_text_config()
    kind = config.model_type
    for name in WINDOWS if getattr(config, "use_sliding_window", True) else ():
        window = getattr(config, name, None)
        if isinstance(window, int) and 0 < window < longest:
            return f"{kind} looks {window} tokens back ({name}), and rows have up to {longest}"
    if kind in ("bloom", "mpt") or getattr(config, "alibi", False):
        return f"{kind} takes distances from places in the sequence (alibi)"
    if getattr(model, "_is_stateful", False):  # what transformers marks its recurrent models with
        return f"{kind} is recurrent"
    return ""


def lay_out(
    rows: Sequence[Encoded],
    valid: Sequence[Encoded],
    model: Any,
    supervised: Supervised,
    asked: str,
    longest: int,
    kind: str,
) -> Layout:
    """Return the layout for the prefix that is `asked`, or for `own` where it would change the loss.

    `model` is the bare one, `longest` the most tokens of a tree, `kind` the precision. Beyond the rule, the
    longest tree's logits are held against those of its rows one by one; a model that refuses it keeps `own`.
    """
    own = Layout("own", "as asked", *([Tree((row,)) for row in part] for part in (rows, valid)))
    if asked == "own":
        return own
    grown = Layout("shared", "", list(trees(rows, longest)), list(trees(valid, longest)))
    found = [tree for tree in grown.rows + grown.valid if tree.shared]
    if not found:
        return dataclasses.replace(grown, why="no rows begin alike")
    why = forbidden(model, max(len(row.ids) for tree in found for row in tree.rows))
    if why:
        return dataclasses.replace(own, why=why)
    largest = max(found, key=len)
    try:
        differs = difference(supervised, largest, model.device)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        line = " ".join(str(error).split())[:200]
        return dataclasses.replace(own, why=f"the model takes no rows that share a beginning: {line}")
    measured = f"the logits of a tree of {len(largest)} tokens differ from its rows' by {differs:.1e}"
    if not differs <= TOLERANCE[kind]:  # nor if it is not a number
        return dataclasses.replace(own, why=f"{measured}, above {TOLERANCE[kind]:g}")
    return dataclasses.replace(grown, why=measured)


def difference(supervised: Supervised, tree: Tree, device: Any) -> float:
    """Return the norm of the difference between a tree's logits and its rows', as a share of the rows' norm.

    The logits at supervised positions, of all rows together; row by row, so that only one row's and the
    tree's are in memory.
    """
    torch = supervised.torch
    apart = whole = 0.0
    with torch.no_grad():
        together = supervised.logits(pad([tree], torch, device)).float()
        for row, part in zip(tree.rows, together.split([r.supervised for r in tree.rows]), strict=True):
            alone = supervised.logits(pad([Tree((row,))], torch, device)).float()
            apart += (part - alone).square().sum().item()
            whole += alone.square().sum().item()
    return float((apart / whole) ** 0.5) if whole else float(apart > 0)
