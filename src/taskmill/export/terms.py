"""What a dataset's licence allows: names as SPDX writes them, and the policy that admits datasets or not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from taskmill.export.licences import (
    is_commercial,
    is_non_commercial,
    is_share_alike,
    is_unknown,
    plain_name,
)
from taskmill.record import DatasetMeta

__all__ = ["Decision", "LicencePolicy", "Terms", "attribution", "spdx", "terms"]

# Nothing unknown may stand in the name: words that are passed over could be those that forbid.
_CC = re.compile(
    r"(?:cc|creative commons) ?(?P<parts>by(?: (?:nc|nd|sa))*)(?: (?P<version>\d(?:\.\d)?))?"
    r"(?: (?:international|unported|generic|igo|us|uk|de|fr))?"
)
_ADDED = " (non-commercial)"
"""What a catalogue's flag `nc` adds to a licence, which is then no more and no less known than it was."""
_WORDS = {"attribution": "by", "noncommercial": "nc", "non commercial": "nc", "share alike": "sa"}
_WORDS |= {"sharealike": "sa", "no derivatives": "nd", "noderivatives": "nd", "noderivs": "nd"}
_SPDX = {
    "apache 2.0": "Apache-2.0", "apache software 2.0": "Apache-2.0", "mit": "MIT", "isc": "ISC",
    "zlib": "Zlib", "bsd 2 clause": "BSD-2-Clause", "bsd 3 clause": "BSD-3-Clause", "cc0 1.0": "CC0-1.0",
    "cc0": "CC0-1.0", "cc zero": "CC0-1.0", "cc0 1.0 universal": "CC0-1.0", "pddl": "PDDL-1.0",
    "pddl 1.0": "PDDL-1.0", "odc by": "ODC-By-1.0", "odc by 1.0": "ODC-By-1.0", "odbl": "ODbL-1.0",
    "odbl 1.0": "ODbL-1.0", "unlicense": "Unlicense", "gpl 2.0": "GPL-2.0-only", "gpl 3.0": "GPL-3.0-only",
    "lgpl 3.0": "LGPL-3.0-only", "agpl 3.0": "AGPL-3.0-only", "mpl 2.0": "MPL-2.0", "epl 2.0": "EPL-2.0",
    "afl 3.0": "AFL-3.0", "artistic 2.0": "Artistic-2.0", "ms pl": "MS-PL",
    "cdla permissive 2.0": "CDLA-Permissive-2.0", "cdla permissive 1.0": "CDLA-Permissive-1.0",
    "cdla sharing 1.0": "CDLA-Sharing-1.0", "wtfpl": "WTFPL", "postgresql": "PostgreSQL",
    "ofl 1.1": "OFL-1.1", "ecl 2.0": "ECL-2.0", "gfdl": "GFDL-1.3-only",
}  # fmt: skip


def spdx(licence: str) -> str:
    """Return a licence's SPDX identifier; a name that is none of those known here comes back as it is."""
    name = plain_name(licence)
    for word, short in _WORDS.items():
        name = re.sub(rf"\b{word}\b", short, name)
    if found := _CC.fullmatch(name):
        parts = [part for part in found["parts"].split() if part in ("by", "nc", "nd", "sa")]
        version = found["version"] or ""
        version = f"{version}.0" if version.isdigit() else version
        return "-".join(["CC", *(part.upper() for part in parts), *([version] if version else [])])
    return _SPDX.get(name, licence.strip())


class Terms(NamedTuple):
    """What one licence allows; None where its name does not tell."""

    name: str
    known: bool
    commercial: bool | None
    changes: bool | None
    share_alike: bool


def terms(licence: str) -> Terms:
    """Return the terms of a licence by its name; of several joined by AND, those of all together."""
    parts = [part.strip(" ()") for part in licence.split(" AND ")] if " AND " in licence else [licence]
    if len(parts) > 1:
        own = [terms(part) for part in parts]
        return Terms(
            " AND ".join(one.name for one in own),
            all(one.known for one in own),
            _all(one.commercial for one in own),
            _all(one.changes for one in own),
            any(one.share_alike for one in own),
        )
    if licence.endswith(_ADDED):
        return terms(licence.removesuffix(_ADDED))._replace(name=licence, commercial=False)
    name = spdx(licence)
    no_changes = re.search(r"(?<![A-Za-z])ND(?![A-Za-z])|no[- ]?deriv", name, re.IGNORECASE) is not None
    if is_unknown(licence):
        return Terms(name, False, None, None, False)
    if is_commercial(licence):
        return Terms(name, True, True, True, is_share_alike(licence))
    alike = re.search(r"(?<![A-Za-z])SA(?![A-Za-z])", name) is not None
    if name.startswith("CC-BY"):
        return Terms(name, True, "-NC" not in name, not no_changes, alike)
    # A text that forbids something names no licence: what it allows, changes among it, nobody here knows.
    return Terms(
        name, False, False if is_non_commercial(licence) else None, False if no_changes else None, alike
    )


def _all(values: Iterable[bool | None]) -> bool | None:
    found = list(values)
    return False if False in found else None if None in found else True


class Decision(NamedTuple):
    """Whether a dataset may be used, and why."""

    admitted: bool
    why: str


@dataclass(frozen=True, slots=True)
class LicencePolicy:
    """Which datasets may be made into tasks. `use` is "any" or "commercial".

    `allow` and `deny` are licence names ("unknown" stands for those that nobody here knows); a name denied is
    denied even if it is allowed too. Tasks are adaptations, so licences that forbid changes are denied, and
    non-commercial ones for commercial use. What is unknown is denied too, unless it is allowed by name;
    "unknown" allows none that says itself that it forbids the use.
    """

    use: str = "any"
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()

    def decide(self, licence: str, lineage: Sequence[str] = ()) -> Decision:
        """Decide about a dataset by its licence and those of the datasets it was made of."""
        for one in (licence, *lineage):
            found = self._one(one)
            if not found.admitted:
                where = "" if one == licence else " (of what it was made of)"
                return Decision(False, found.why + where)
        return self._one(licence)

    def about(self, meta: DatasetMeta, known: Mapping[str, str] | None = None) -> Decision:
        """Decide about a dataset; `known` maps names to licences, for its lineage.

        A table without a card is its owner's: it is admitted unless a licence of its own says otherwise.
        """
        if meta.role == "own" and is_unknown(meta.licence):
            return Decision(True, "a table of yours, without a card")
        return self.decide(meta.licence, [known[name] for name in meta.lineage if known and name in known])

    def _one(self, licence: str) -> Decision:
        said = terms(licence)
        allow, deny = ({name.lower() for name in names} for names in (self.allow, self.deny))
        names = {licence.strip().lower(), said.name.lower()}
        if names & deny or (not said.known and "unknown" in deny):
            return Decision(False, f"{said.name or 'unknown'} is denied")
        if names & allow - {"unknown"}:
            return Decision(True, f"{said.name or 'unknown'} is allowed by name")
        if said.changes is False:
            return Decision(False, f"{said.name} forbids changes, and tasks are made of the rows")
        if self.use == "commercial" and said.commercial is False:
            return Decision(False, f"{said.name} forbids commercial use")
        if not said.known:
            why = f"the licence is unknown ({said.name or 'none is given'})"
            return Decision(True, f"{why} and allowed") if "unknown" in allow else Decision(False, why)
        return Decision(True, said.name + (" (share alike)" if said.share_alike else ""))


def attribution(metas: Iterable[DatasetMeta], tasks: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return who must be named: one entry for each dataset with tasks (key → their number)."""
    found: list[dict[str, Any]] = []
    for meta in metas:
        if not tasks.get(meta.key):
            continue
        said = terms(meta.licence)
        entry: dict[str, Any] = {
            "dataset": meta.key,
            "licence": said.name or "unknown",
            "stated": meta.licence,
        }
        entry |= {"share_alike": said.share_alike, "commercial": said.commercial}
        entry |= {"lineage": list(meta.lineage), "source": meta.uri, "tasks": tasks[meta.key]}
        found.append(entry)
    return sorted(found, key=lambda one: str(one["dataset"]))
