"""README.md of a folder of training rows, made from its manifest: what the Hub reads, then tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from taskmill.export.card import cell, sizes_and_categories
from taskmill.export.licences import front_matter, is_unknown

__all__ = ["card", "mixture_card", "rendered_card"]

Table = tuple[str, Sequence[str], Iterable[Sequence[Any]]]
"""Heading ("" for none), names of the columns, rows."""

_TASK = ("task", "category", "language", "licence", "rows")


def card(title: str, *tables: Table, front: Mapping[str, Any] | None = None) -> str:
    """Return a card: `front` and where `datasets.load_dataset` finds the rows, the title, the tables."""
    files = [{"split": "train", "path": "data/*.parquet"}]
    head = {**(front or {}), "configs": [{"config_name": "default", "data_files": files}]}
    lines = ["---", yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=100) + "---", ""]
    lines.append(f"# {cell(title)}")
    for heading, names, rows in tables:
        lines += ["", *([f"## {heading}", ""] if heading else [])]
        lines += [f"| {' | '.join(map(cell, row))} |" for row in (names, ["---"] * len(names), *rows)]
    return "\n".join(lines) + "\n"


def mixture_card(manifest: Mapping[str, Any]) -> str:
    """Return the card of a mixture: its sources, each of its tasks, its licences."""
    sources: Mapping[str, Any] = manifest["sources"]
    tasks = [
        (task or name, name, *_told(one), one["rows"], one["count"], one["tokens"])
        for name, source in sources.items()
        for task, one in source["tasks"].items()
    ]
    drawn = [one for source in sources.values() for one in source["tasks"].values() if one["count"]]
    rows = [
        (name, one["rows"], round(one["weight"], 4), one["count"], round(one["epochs"], 2), one["tokens"])
        for name, one in sources.items()
    ]
    return card(
        "A mixture",
        ("", ("source", "rows", "weight", "drawn", "epochs", "tokens (estimated)"), rows),
        ("Tasks", ("task", "source", *_TASK[1:], "drawn", "tokens (estimated)"), tasks),
        _licences(drawn),
        front=_front(manifest["rows"], drawn),
    )


def rendered_card(manifest: Mapping[str, Any]) -> str:
    """Return the card of rendered rows: what they are of, how they are phrased, their licences."""
    kept, name = manifest["funnel"]["kept"], manifest["set"]
    return card(
        f"{name}, rendered",
        ("", _TASK, [(name, *_told(manifest), kept)]),
        ("Styles", ("style", "rows"), manifest["styles"].items()),
        ("Templates", ("template", "rows"), manifest["templates"].items()),
        _licences([manifest]),
        front=_front(kept, [manifest]),
    )


def _told(one: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return category, language and licence of a task in words."""
    category, language, licence = (
        ", ".join(name or "unknown" for name in one[key]) for key in ("categories", "languages", "licences")
    )
    return category, language, licence


def _sum(records: Sequence[Mapping[str, Any]], key: str) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for one in records:
        counts.update(one[key])
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def _licences(records: Sequence[Mapping[str, Any]]) -> Table:
    counts = _sum(records, "licences")
    return "Licences", ("licence", "rows"), [(name or "unknown", n) for name, n in counts.items()]


def _front(rows: int, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    languages = [one for one in _sum(records, "languages") if one and not is_unknown(one)]
    return {
        **front_matter(_sum(records, "licences")),
        **({"language": languages} if languages else {}),
        **sizes_and_categories(rows, _sum(records, "categories")),
    }
