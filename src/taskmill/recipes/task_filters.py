"""All that decides about proposed tasks, in its order: what both `grow propose` and `grow check` do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from taskmill.errors import ConfigError
from taskmill.export.terms import Decision, LicencePolicy
from taskmill.ingest.metadata import read_rows
from taskmill.record import DatasetMeta, Dropped, Reason
from taskmill.synthesize import families, task_checks
from taskmill.synthesize.proposals import Proposal, dropped
from taskmill.synthesize.task_evidence import columns_of, judge
from taskmill.templates.values import head_of

__all__ = ["Filters", "decide", "judged", "with_dataset"]


@dataclass(frozen=True, slots=True)
class Filters:
    """How proposed tasks are filtered."""

    near: float = field(
        default=task_checks.NEAR,
        metadata={"help": "share of equal words from which two instructions over the same fields are one"},
    )
    use: str = field(
        default="any",
        metadata={
            "help": "what the tasks are for; unknown licences never pass",
            "choices": ("any", "commercial"),
        },
    )
    allow_licence: tuple[str, ...] = field(
        default=(), metadata={"help": "licences to admit by name; unknown: also those nobody here knows"}
    )
    deny_licence: tuple[str, ...] = field(default=(), metadata={"help": "licences to refuse by name"})
    benchmarks: bool = field(
        default=False, metadata={"help": "make tasks also of datasets that are for evaluation"}
    )
    family_cap: int = field(default=0, metadata={"help": "most tasks of one family of datasets; 0: no limit"})
    family_temperature: float = field(
        default=0.0,
        metadata={"help": "with --family-cap: 1 keeps the families' proportions, more flattens them"},
    )

    def __post_init__(self) -> None:
        if not 0 < self.near <= 1:
            raise ConfigError(f"near: expected a share over 0 and up to 1, got {self.near:g}")
        if self.family_temperature and not self.family_cap:
            raise ConfigError("family_temperature: it shapes the cap on families; give --family-cap too")

    def policy(self) -> LicencePolicy:
        """Return the licence policy."""
        return LicencePolicy(self.use, self.allow_licence, self.deny_licence)


def decide(
    proposals: Iterable[Proposal | Dropped],
    metas: Mapping[str, DatasetMeta],
    filters: Filters,
    *,
    rows: bool = True,
    seed: int = 0,
) -> tuple[list[Proposal], list[Dropped], dict[str, Any]]:
    """Return what is kept, what is dropped with its reason, and figures about families and duplicates.

    `metas`: what is known of the datasets, by their keys; `rows`: whether their rows are read. A proposal
    that is dropped already stays so. kept + dropped = all.
    """
    everything = list(proposals)
    lost = [one for one in everything if isinstance(one, Dropped)]
    left = [one for one in everything if isinstance(one, Proposal)]
    read: list[Any] = [one.row if isinstance(one, Dropped) else one for one in everything]
    figures: dict[str, Any] = task_checks.triples(one for one in read if one.instruction)

    def keep(judged: Iterable[Proposal | Dropped]) -> list[Proposal]:
        stay = []
        for one in judged:
            if isinstance(one, Dropped):
                lost.append(one)
            else:
                stay.append(one)
        return stay

    left = keep(task_checks.check(one, metas.get(one.key)) or one for one in left)
    digests = {key: meta.digest for key, meta in metas.items()}
    left = keep(gone or one for one, gone in task_checks.duplicates(left, digests, filters.near))
    figures["duplicates"] = dict(
        sorted(Counter(d.detail.partition(":")[0] for d in lost if d.reason == Reason.DUPLICATE).items())
    )
    left = keep(_admitted(one, metas, filters) for one in left)
    if rows:
        left = keep(_by_rows(left, metas))
    of = {one.key: families.family_of(one.key, metas.get(one.key)) for one in left}
    before = Counter(of[one.key] for one in left)
    left = keep(families.capped(left, of, filters.family_cap, filters.family_temperature, seed))
    after = Counter(of[one.key] for one in left)
    figures["families"] = {
        "before": round(families.effective(before), 3),
        "after": round(families.effective(after), 3),
        "count": len(before),
        "dominant": {name: round(share, 4) for name, share in families.dominant(before).items()},
    }
    return left, lost, figures


def _admitted(proposal: Proposal, metas: Mapping[str, DatasetMeta], filters: Filters) -> Proposal | Dropped:
    meta = metas.get(proposal.key)
    if meta is None:
        return proposal
    if meta.role == "benchmark" and not filters.benchmarks:
        return dropped(
            proposal, Reason.BENCHMARK_TASK, f"{meta.key} is for evaluation (--benchmarks takes it)"
        )
    decision = judged(meta, metas, filters)
    return proposal if decision.admitted else dropped(proposal, Reason.LICENCE, decision.why)


def judged(meta: DatasetMeta, metas: Mapping[str, DatasetMeta], filters: Filters) -> Decision:
    """Return what the licence policy says of a dataset, and of those in `metas` that it was made of."""
    licences = {name: one.licence for one in metas.values() for name in (one.name, one.key)}
    return filters.policy().about(meta, licences)


def _by_rows(left: Sequence[Proposal], metas: Mapping[str, DatasetMeta]) -> Iterable[Proposal | Dropped]:
    own: dict[str, list[Proposal]] = {}
    for one in left:
        own.setdefault(one.key, []).append(one)
    for key, members in own.items():
        meta = metas.get(key)
        if meta is None or not meta.files:
            yield from members
        else:
            yield from judge(members, meta, read_rows(meta, columns_of(members, meta)))


def with_dataset(proposal: Proposal, metas: Sequence[DatasetMeta]) -> Proposal:
    """Return a proposal made elsewhere with the dataset it is about: the named one, or the only one.

    A proposal that names none of several is about the first (by key) that has all its fields.
    """
    if any(meta.key == proposal.key for meta in metas):
        meta = next(meta for meta in metas if meta.key == proposal.key)
    elif proposal.dataset:
        found = [meta for meta in metas if proposal.dataset in (meta.name, meta.key, Path(meta.uri).stem)]
        if len(found) != 1:
            return proposal
        meta = found[0]
    elif len(metas) == 1:
        meta = metas[0]
    else:
        found = [meta for meta in metas if _has_all(meta, proposal)]
        if not found:
            return proposal
        meta = found[0]
    return replace(proposal, dataset=meta.name, config=meta.config)


def _has_all(meta: DatasetMeta, proposal: Proposal) -> bool:
    known = [field.name for field in meta.fields]
    return all(head_of(path, known) in known for path in (*proposal.input_fields, proposal.output_field))
