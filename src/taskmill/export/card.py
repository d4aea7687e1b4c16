"""The dataset card: what the Hub reads (front matter) and what people read (body)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import minijinja
import yaml

from taskmill.export.folder import batches, stages
from taskmill.export.licences import (
    front_matter,
    is_commercial,
    is_non_commercial,
    is_share_alike,
    is_unknown,
)
from taskmill.export.rows import Rows
from taskmill.export.urls import hide_secrets, hide_secrets_within
from taskmill.store import read_json

__all__ = ["Card", "cell", "is_ours", "sizes_and_categories", "slug"]

_MARK = "\n- taskmill\n"
"""Stands in the front matter of every card of ours, and so tells our folders from other people's."""

_CATEGORIES = {
    "exqa": "question-answering",
    "qa": "question-answering",
    "ynqa": "question-answering",
    "mcqa": "multiple-choice",
    "qg": "text-generation",
    "summarization": "summarization",
    "sentiment": "text-classification",
    "topic_class": "text-classification",
    "te": "text-classification",
    "nli": "text-classification",
    "paraphrase_id": "text-classification",
    "wsd": "text-classification",
    "coref": "text-classification",
}
_SIZES = [
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
]
_MAX_LANGUAGES = 12
_MAX_TEMPLATES = 40


def is_ours(card: str) -> bool:
    """Say whether a README is a card of ours, going by the tags in its front matter."""
    head, _, _ = card.removeprefix("---\n").partition("\n---\n")
    return card.startswith("---\n") and _MARK in head + "\n"


def sizes_and_categories(rows: int, kinds: Iterable[str]) -> dict[str, list[str]]:
    """Return the front matter's `task_categories` and `size_categories`; `kinds`: task types or clusters."""
    categories = ["text-generation", *(_CATEGORIES.get(kind, "") for kind in sorted(kinds))]
    size = next((label for bound, label in _SIZES if rows < bound), "n>10M")
    return {
        "task_categories": [one for one in dict.fromkeys(categories) if one],
        "size_categories": [size],
    }


def slug(name: str) -> str:
    """Return a name that is safe as a key and a file name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.") or "taskmill"


def cell(value: object) -> str:
    """Return text that cannot break out of a Markdown table cell or start HTML."""
    flat = " ".join(str(value).split())
    return flat.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")


def _fence(value: str) -> str:
    """Return a code block whose fence is longer than any inside."""
    longest = max((len(run) for run in re.findall(r"`+", value)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{value.strip()}\n{fence}"


@dataclass(frozen=True, slots=True)
class Card:
    """What an export's README says; `files` maps each split to the pattern of its Parquet files."""

    run: Path
    name: str
    format: str
    rows: Rows
    splits: Mapping[str, int]
    files: Mapping[str, str]
    declared: str = ""

    def text(self) -> str:
        """Return the card: YAML front matter, then Markdown."""
        head = yaml.safe_dump(self._front(), sort_keys=False, allow_unicode=True, width=100)
        environment = minijinja.Environment(
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            filters={"cell": cell, "fence": _fence},
        )
        source = files("taskmill.export").joinpath("card.md.j2").read_text("utf-8")
        return f"---\n{head}---\n\n{environment.render_str(source, **self._slots())}"

    def _licences(self) -> dict[str, int]:
        """Return rows by licence, the declared one standing in where none is known."""
        counts: dict[str, int] = {}
        for name, n in self.rows.licences.items():
            shown = self.declared if self.declared and is_unknown(name) else name
            counts[shown] = counts.get(shown, 0) + n
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def _front(self) -> dict[str, Any]:
        total = sum(self.splits.values())
        front: dict[str, Any] = {**front_matter(self._licences())}
        languages = _languages(self.run)
        if languages:
            front["language"] = languages
        return front | {
            **sizes_and_categories(total, self.rows.tasks),
            "tags": ["synthetic", "taskmill"],
            "pretty_name": self.name,
            "configs": [
                {
                    "config_name": "default",
                    "data_files": [{"split": s, "path": path} for s, path in self.files.items()],
                }
            ],
        }

    def _slots(self) -> dict[str, Any]:
        manifest = hide_secrets_within(read_json(self.run / "manifest.json"))
        config = self.run / "config.yaml"
        licences = [
            {"name": name or "(unknown)", "rows": n, "note": _licence_note(name)}
            for name, n in self._licences().items()
        ]
        model = manifest.get("model") or {}
        templates = self.rows.templates.most_common()
        return {
            "name": self.name,
            "format": self.format,
            "splits": dict(self.splits),
            "total": sum(self.splits.values()),
            "manifest": manifest,
            "command": shlex.join(str(part) for part in manifest.get("command") or []),
            "config": hide_secrets(config.read_text("utf-8", "replace")) if config.exists() else "",
            "funnel": _funnel(manifest),
            "refused": dict(sorted(self.rows.refused.items())),
            "licences": licences,
            "model_note": _licence_note(str(model.get("licence") or "")),
            "declared": self.declared,
            "tasks": sorted(self.rows.tasks.items(), key=lambda item: (-item[1], item[0])),
            "models": sorted((hide_secrets(name), n) for name, n in self.rows.models.items() if name),
            "templates": sorted((name, n) for name, n in templates[:_MAX_TEMPLATES] if name),
            "more_templates": max(0, len(templates) - _MAX_TEMPLATES),
            "chat": self.format in ("messages", "sharegpt"),
        }


def _licence_note(name: str) -> str:
    if is_unknown(name):
        return "unknown"
    if is_non_commercial(name):
        return "no commercial use"
    if is_share_alike(name):
        return "share-alike"
    return "" if is_commercial(name) else "not known to allow commercial use"


def _languages(run: Path) -> list[str]:
    """Return the languages of the ingested documents, most frequent first."""
    counts: dict[str, int] = {}
    for stage in stages(run):
        if stage.name == "ingest" and not stage.holds_examples:
            for batch in batches(stage.kept, ["language"], 65536):
                for entry in batch.column(0).value_counts().to_pylist():
                    counts[entry["values"] or ""] = counts.get(entry["values"] or "", 0) + entry["counts"]
    known = sorted((name for name in counts if name), key=lambda name: (-counts[name], name))
    return known[:_MAX_LANGUAGES]


def _funnel(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the manifest's funnel as table rows, reasons by frequency."""
    rows = []
    for stage, counts in (manifest.get("funnel") or {}).items():
        dropped = sorted((counts.get("dropped") or {}).items(), key=lambda item: (-item[1], item[0]))
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in dropped)
        rows.append({"stage": stage, "in": counts.get("in"), "kept": counts.get("kept"), "reasons": reasons})
    return rows
