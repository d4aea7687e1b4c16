"""Datasets that are variants of each other, and how many tasks each family may have."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from taskmill.ids import draw
from taskmill.record import DatasetMeta, Dropped, Reason
from taskmill.synthesize.proposals import Proposal, dropped

__all__ = ["capped", "dominant", "effective", "family_of"]

DOMINANT = 0.1
"""Share of all tasks from which a family is named in the report (chosen: Dynosaur's largest have more)."""


def family_of(key: str, meta: DatasetMeta | None = None) -> str:
    """Return the family of a dataset: what it was made of, else the first part of its name.

    `p3_boolq:yes`, `p3-imdb` and `p3` are one family; an owner before a slash is left out.
    """
    if meta is not None and meta.lineage:
        return meta.lineage[0]
    name = key.partition(":")[0].rpartition("/")[2]
    return re.split(r"[\W_]", name.lower(), maxsplit=1)[0] or name.lower()


def effective(counts: Mapping[str, int]) -> float:
    """Return the effective number of families, 1 / Σp² (inverse Simpson index, Hill number of order 2)."""
    total = sum(counts.values())
    return 1 / sum((n / total) ** 2 for n in counts.values()) if total else 0.0


def dominant(counts: Mapping[str, int]) -> dict[str, float]:
    """Return the families with at least DOMINANT of all tasks, and their shares, largest first."""
    total = sum(counts.values()) or 1
    found = {name: n / total for name, n in counts.items() if n / total >= DOMINANT and len(counts) > 1}
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def allowed(counts: Mapping[str, int], cap: int, temperature: float) -> dict[str, int]:
    """Return how many tasks each family keeps: at most `cap`, flatter than their sizes by the temperature.

    The largest keeps `cap`, one of n tasks cap · (n / largest)^(1/temperature), but never less than one and
    never more than it has. 1 keeps the proportions; with 0 (no temperature) all are only cut at the cap.
    """
    largest = max(counts.values(), default=0)
    if cap == 0:
        return dict(counts)
    if temperature <= 0:
        return {name: min(n, cap) for name, n in counts.items()}
    top = min(cap, largest)
    return {
        name: min(n, max(1, round(top * (n / largest) ** (1 / temperature)))) for name, n in counts.items()
    }


def capped(
    proposals: Sequence[Proposal],
    families: Mapping[str, str],
    cap: int,
    temperature: float = 0,
    seed: int = 0,
) -> list[Proposal | Dropped]:
    """Return each task, or why it is over its family's number. `families`: key of a dataset → family.

    Which tasks of a family stay is drawn from their ids, so the order of the list changes nothing.
    """
    own: dict[str, list[Proposal]] = defaultdict(list)
    for proposal in proposals:
        own[families[proposal.key]].append(proposal)
    limits = allowed(Counter(families[proposal.key] for proposal in proposals), cap, temperature)
    stay = {
        proposal.id
        for family, members in own.items()
        for proposal in sorted(members, key=lambda p: (draw(seed, p.id, "family"), p.id))[: limits[family]]
    }
    found: list[Proposal | Dropped] = []
    for proposal in proposals:
        family = families[proposal.key]
        detail = f"{family}: {len(own[family])} tasks, of which {limits[family]} are kept"
        over = proposal.id not in stay
        found.append(dropped(proposal, Reason.OVER_SOURCE_CAP, detail) if over else proposal)
    return found
