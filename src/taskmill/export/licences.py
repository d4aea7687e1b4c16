"""What may be done with the rows: the licence gate and the roll-up for the card."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from taskmill.errors import LicenceUnknown
from taskmill.export.folder import Stage, batches

__all__ = ["check_commercial", "count_licences", "front_matter", "is_non_commercial", "is_unknown"]

_UNKNOWN = {"", "unknown", "none", "other", "n/a", "na", "?", "noassertion"}
# `NC` as a part of its own: CC-BY-NC-4.0 is meant, NCSA is not.
_RESTRICTED = re.compile(
    r"(?<![a-z0-9])nc(?![a-z0-9])|non-?\s?commercial|research|all rights reserved|proprietary", re.IGNORECASE
)

# The identifiers the Hub knows (`license:` of a dataset card); anything else is `other` with a name.
_HUB = frozenset(
    """
    apache-2.0 mit afl-3.0 artistic-2.0 bsd bsd-2-clause bsd-3-clause bsl-1.0 cc cc0-1.0 cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0
    cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0
    cdla-permissive-1.0 cdla-permissive-2.0 agpl-3.0 gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 ecl-2.0
    epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 gfdl isc llama2 llama3 llama3.1 llama3.2 llama3.3 gemma
    lppl-1.3c ms-pl mpl-2.0 ncsa odc-by odbl ofl-1.1 openrail osl-3.0 pddl postgresql unlicense wtfpl zlib
    """.split()  # noqa: SIM905
)


def is_unknown(licence: str) -> bool:
    """Say whether a licence text names no licence."""
    return licence.strip().lower() in _UNKNOWN


def is_non_commercial(licence: str) -> bool:
    """Say whether a licence forbids commercial use, going by its name."""
    return _RESTRICTED.search(licence) is not None


def count_licences(stage: Stage, declared: str = "") -> Counter[str]:
    """Count the kept rows by their source's licence; `declared` stands in where none is known."""
    counts: Counter[str] = Counter()
    for batch in batches(stage.kept, ["source.licence"], 65536):
        for entry in batch.column(0).field("licence").value_counts().to_pylist():
            counts[entry["values"] or ""] += entry["counts"]
    if declared:
        for name in [name for name in counts if is_unknown(name)]:
            counts[declared] += counts.pop(name)
    return counts


def check_commercial(counts: Mapping[str, int], model_licence: str, allow_unknown: bool) -> None:
    """Raise LicenceUnknown if rows (or the model that wrote them) may not be used commercially."""
    total = sum(counts.values())
    problems = []
    unknown = sum(n for name, n in counts.items() if is_unknown(name))
    if unknown and not allow_unknown:
        problems.append(f"{unknown} of {total} rows have no known licence")
    restricted = {name: n for name, n in sorted(counts.items()) if is_non_commercial(name)}
    if restricted:
        listed = ", ".join(f"{name}: {n}" for name, n in restricted.items())
        problems.append(f"{sum(restricted.values())} of {total} rows forbid commercial use ({listed})")
    if is_non_commercial(model_licence):
        problems.append(f"the model's licence forbids commercial use ({model_licence})")
    if problems:
        raise LicenceUnknown(
            f"{'; '.join(problems)}. Nothing was written. Declare the licence of sources that name none "
            "(--licence), leave the others out at ingest, or export without --commercial."
        )


def front_matter(counts: Mapping[str, int]) -> dict[str, str]:
    """Return the card's licence keys: the one licence all rows share, else `other` (the table says more)."""
    names = {name for name in counts if counts[name]}
    if not names or all(is_unknown(name) for name in names):
        return {"license": "unknown"}
    if len(names) > 1:
        return {"license": "other", "license_name": "mixed", "license_link": "README.md#licences"}
    name = names.pop()
    known = re.sub(r"-(only|or-later)$", "", name.strip().lower())
    if known in _HUB:
        return {"license": known}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", known).strip("-") or "other"}
