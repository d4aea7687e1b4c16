"""What a student has forgotten: general questions and general text, before its training and after."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["judged"]


def judged(
    units: Mapping[str, Sequence[Mapping[str, Any]]],
    base: Mapping[str, Any],
    max_forgetting: float,
    max_perplexity: float,
) -> dict[str, Any]:
    """Return what each arm's students have kept, and whether all are within the bounds.

    `units`: arm → its students, each with `probe` (share of the general questions) and `losses` (summed
    nats and tokens of each text); means over an arm's students are held against `base`. The arm tapt is
    shown and not judged: it is what others are compared with.
    """
    whole = _kept(base)
    arms, failed = {}, []
    for arm, students in units.items():
        kept = [_kept(student) for student in students]
        probe = sum(k["probe"] for k in kept) / len(kept)
        perplexity = math.exp(sum(math.log(k["perplexity"]) for k in kept) / len(kept))
        line = {
            "probe": round(probe, 6),
            "perplexity": round(perplexity, 4),
            "forgotten": round(whole["probe"] - probe, 6),
            "perplexity_factor": round(perplexity / whole["perplexity"], 4),
        }
        within = line["forgotten"] <= max_forgetting and line["perplexity_factor"] <= max_perplexity
        arms[arm] = {**line, "within": within}
        if not within and arm != "tapt":
            failed.append(arm)
    bounds = {"max_forgetting": max_forgetting, "max_perplexity": max_perplexity}
    shown = {"probe": round(whole["probe"], 6), "perplexity": round(whole["perplexity"], 4)}
    return {"passed": not failed, "failed": failed, "bounds": bounds, "base": shown, "arms": arms}


def _kept(unit: Mapping[str, Any]) -> dict[str, float]:
    tokens = sum(count for _, count in unit["losses"])
    loss = sum(nats for nats, _ in unit["losses"]) / max(tokens, 1)
    return {"probe": float(unit["probe"]), "perplexity": math.exp(min(loss, 700.0))}
