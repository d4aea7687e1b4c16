"""What may be done with the rows: the licence gate and the roll-up for the card.

Commercial use passes for the licences listed here and for no other name: what is not recognised is unknown.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from taskmill.errors import LicenceUnknown
from taskmill.export.folder import Stage, batches

__all__ = [
    "check_commercial",
    "count_licences",
    "front_matter",
    "is_commercial",
    "is_non_commercial",
    "is_share_alike",
    "is_unknown",
    "plain_name",
]

_LISTED = 8
"""Licence names that an error lists."""

_UNKNOWN = {"", "unknown", "none", "other", "n/a", "na", "?", "noassertion", "unspecified", "not specified"}
_UNKNOWN |= {
    "tbd",
    "tba",
    "todo",
    "null",
    "nan",
    "no",
    "undefined",
    "unclear",
    "unstated",
    "missing",
    "not provided",
}
# `NC` as a part of its own: CC-BY-NC-4.0 and cc-by-nc4.0 are meant, NCSA is not.
_RESTRICTED = re.compile(
    r"(?<![a-z0-9])(?:by)?nc(?![a-z])|\b(?:no|not|non)[\s-]*(?:for[\s-]+)?commercial|research"
    r"|\b(?:academic|personal|evaluation|educational|education|private|internal|teaching)\b.*\b(?:only|use)\b"
    r"|all rights reserved|proprietary|\bbusl\b|business source|commons clause",
    re.IGNORECASE,
)

_V = r"(?: ?\d+(?:\.\d+)*)?"
_REGION = "(?: (?:international|unported|generic|igo|us|uk|de|fr))?"
_LATER = r"\+?(?: only| or later| or any later)?"
# Full matches of names as `plain_name` writes them: lower case, single spaces, no "the", "licence" or "v".
_PERMISSIVE = [
    rf"apache(?: software)?{_V}|asl 2\.0",
    r"mit(?: 0)?|mit x11|x11|expat",
    r"0bsd|bsd(?: [0-4])?(?: clause)?|(?:[0-4] clause|new|modified|revised|simplified) bsd",
    rf"isc|psf{_V}|psfl|python{_V}|python software foundation{_V}|cnri python",
    rf"zlib|libpng|bsl 1\.0|boost(?: software)?{_V}|postgresql|ncsa|hpnd|upl{_V}|blueoak{_V}|ms pl|wtfpl",
    rf"afl{_V}|artistic{_V}|ecl{_V}|mulanpsl{_V}|unlicense",
    r"(?:cc|creative commons) ?(?:0|zero)(?: 1\.0)?(?: universal)?(?: public domain dedication)?",
    rf"(?:cc|creative commons) ?(?:by|attribution){_V}{_REGION}",
    rf"odc by{_V}|open data commons attribution{_V}|pddl{_V}|cdla permissive{_V}",
    r"public domain(?: (?:mark|dedication)(?: 1\.0)?)?|pdm(?: 1\.0)?|pd",
    r"(?:public domain )?(?:us|u\.s\.) gov(?:ernment)?(?: works?)?",
    r"(?:us|u\.s\.) (?:gov(?:ernment)? )?(?:public domain|pd)",
    rf"ogl(?: (?:uk|canada))?{_V}|open government{_V}(?: (?:uk|canada))?",
    rf"etalab{_V}|ouverte{_V}|dl de (?:by|zero){_V}|nlod{_V}",
]
_SHARE_ALIKE = [
    rf"(?:cc|creative commons) ?(?:by|attribution) (?:sa|share ?alike){_V}{_REGION}",
    rf"odbl{_V}|odc odbl{_V}|open database{_V}|cdla sharing{_V}",
    rf"mpl{_V}|mozilla public{_V}|epl{_V}|eclipse public{_V}|eupl{_V}|cddl{_V}|osl{_V}|cecill{_V}|lppl{_V}c?",
    rf"(?:gnu )?[al]?gpl{_V}{_LATER}|gnu (?:affero |lesser |library )?general public{_V}{_LATER}",
    rf"gfdl{_V}{_LATER}|gnu free documentation{_V}{_LATER}",
]
_ALLOWED = re.compile("|".join([*_PERMISSIVE, *_SHARE_ALIKE]))
_SHARED = re.compile("|".join(_SHARE_ALIKE))
_LINKS = [
    (r"creativecommons\.org/licenses/([a-z-]+)/([\d.]+)", r"cc-\1-\2"),
    (r"creativecommons\.org/publicdomain/zero/1\.0", "cc0-1.0"),
    (r"creativecommons\.org/publicdomain/mark/1\.0", "public domain"),
    (r"apache\.org/licenses/license-2\.0", "apache-2.0"),
    (r"(?:opensource\.org/licenses?|spdx\.org/licenses|choosealicense\.com/licenses)/([a-z0-9.-]+?)", r"\1"),
]

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


def plain_name(licence: str) -> str:
    """Return a licence's name without case, punctuation and the words that tell nothing."""
    name = licence.strip(" ()\t\r\n").lower()
    if link := re.fullmatch(r"https?://(?:www\.)?([^?#]+?)(?:/|/deed\.\w+|/legalcode|\.html|\.txt)?", name):
        for pattern, plain in _LINKS:
            if found := re.fullmatch(pattern, link[1]):
                name = found.expand(plain)
                break
    name = re.sub(r"[\s_,:;-]+", " ", name)
    name = re.sub(r"(?:\bversion |\bv\.? ?|(?<=gpl)v)(?=\d)", "", name)
    return " ".join(word for word in name.split() if word not in ("the", "license", "licence"))


def is_unknown(licence: str) -> bool:
    """Say whether a licence text names no licence."""
    return plain_name(licence) in _UNKNOWN


def _choices(licence: str) -> list[list[str]]:
    """Return an SPDX expression's alternatives (OR), each the list of licences that hold together (AND)."""
    if " AND " in licence and " OR " in licence:
        # Which binds first is not looked at: everything named must allow what is asked.
        return [[part.strip(" ()") for part in re.split(r" (?:AND|OR) ", licence)]]
    if " AND " not in licence and " OR " not in licence:
        return [[licence]]
    return [[part.strip(" ()") for part in choice.split(" AND ")] for choice in licence.split(" OR ")]


def is_commercial(licence: str) -> bool:
    """Say whether a licence is one that is known to allow commercial use and changes, going by its name."""

    def allowed(part: str) -> bool:
        name = re.sub(r" WITH [\w.-]+$", "", part)
        return _ALLOWED.fullmatch(plain_name(name)) is not None

    return any(all(allowed(part) for part in choice) for choice in _choices(licence))


def is_non_commercial(licence: str) -> bool:
    """Say whether a licence forbids commercial use, going by its name."""
    return _RESTRICTED.search(licence.replace("_", " ")) is not None and not is_commercial(licence)


def is_share_alike(licence: str) -> bool:
    """Say whether a licence allows commercial use but asks that changed copies keep the licence."""
    return is_commercial(licence) and not any(
        all(not _SHARED.fullmatch(plain_name(re.sub(r" WITH [\w.-]+$", "", part))) for part in choice)
        for choice in _choices(licence)
    )


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
    """Raise LicenceUnknown unless rows, and the model that wrote them, are known to allow commercial use.

    `allow_unknown` lets licences pass that are not known; those that forbid commercial use never pass.
    """
    total = sum(counts.values())
    refused = {name: n for name, n in sorted(counts.items()) if n and not is_commercial(name)}
    restricted = {name: n for name, n in refused.items() if is_non_commercial(name)}
    unnamed = {name: n for name, n in refused.items() if is_unknown(name)}
    foreign = {name: n for name, n in refused.items() if name not in restricted and name not in unnamed}
    problems, steps = [], []
    if unnamed and not allow_unknown:
        problems.append(f"{sum(unnamed.values())} of {total} rows have no known licence")
        steps.append("declare the licence of sources that name none (--licence)")
    if foreign and not allow_unknown:
        problems.append(
            f"{sum(foreign.values())} of {total} rows have a licence that is not known to allow commercial "
            f"use ({_listed(foreign)})"
        )
    if restricted:
        problems.append(
            f"{sum(restricted.values())} of {total} rows forbid commercial use ({_listed(restricted)})"
        )
    if refused:
        steps.append("leave those sources out at ingest")
    if is_non_commercial(model_licence):
        problems.append(f"the model's licence forbids commercial use ({model_licence})")
        steps.append("make the rows with another model")
    elif not is_commercial(model_licence) and not allow_unknown:
        named = "" if is_unknown(model_licence) else f" ({_short(model_licence)})"
        problems.append(
            f"the model's licence is unknown{named}: outputs of an API model fall under its provider's terms"
        )
    if not problems:
        return
    if not allow_unknown and (unnamed or foreign or not is_non_commercial(model_licence)):
        steps.append(
            "let what is unknown pass on your word once you have read its terms (--allow-unknown-licence)"
        )
    steps.append("export without --commercial")
    listed = ", or ".join(steps)
    raise LicenceUnknown(f"{'; '.join(problems)}. Nothing was written. {listed[0].upper()}{listed[1:]}.")


def _listed(counts: Mapping[str, int]) -> str:
    often = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    more = f", and {len(often) - _LISTED} more" if len(often) > _LISTED else ""
    return ", ".join(f"{_short(name)}: {n}" for name, n in often[:_LISTED]) + more


def _short(name: str) -> str:
    flat = " ".join(name.split())
    return flat if len(flat) <= 60 else flat[:59] + "…"


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
