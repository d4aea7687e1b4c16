"""report.html of an examination: what a synthesizer's pairs and answers are worth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from taskmill.report.pages import Figure, Section, bar, settings, write_page
from taskmill.report.words import thousands

__all__ = ["write_examine_report"]

_WAYS = {
    "zero": "zero-shot", "few": "few-shot", "alone": "question alone",
    "random": "behind pairs of another text", "ours": "behind our own pairs",
}  # fmt: skip


def write_examine_report(path: Path, result: Mapping[str, Any]) -> Path:
    """Write the page of an examination from its result and return its path."""
    config = result["config"]
    code, reason = result["exit"]["code"], result["exit"]["reason"]
    return write_page(
        path,
        "examine",
        _figures(result),
        [_means("pair_f1", "Pairs", result), _means("answers", "Answers", result), _differences(result),
         _by_dataset(result)],
        facts={"model": result["model"], "asked in": result["format"],
               "sources": ", ".join(config["sources"])},
        about={
            "Settings": settings(config),
            "Calls": result["calls"],
            "Left out": {"texts of unseen datasets that seen ones have": result["shared_texts"],
                         "pieces of replies that are no pair": result["malformed"],
                         "prompts over the context": result["over_context"]},
        },
        notes=[reason] if code else [],
    )  # fmt: skip


def _figures(result: Mapping[str, Any]) -> list[Figure]:
    found = []
    for title, key in (("pair F1", "pair_f1"), ("answer F1", "answers")):
        for split in ("seen", "unseen"):
            for way, own in result[key][split].items():
                if way in ("zero", "few", "alone"):
                    note = f"{_WAYS[way]}, {own['low']:.3f} – {own['high']:.3f}"
                    found.append(Figure(f"{title}, {split}", f"{own['mean']:.3f}", note))
    return found[:6]


def _means(key: str, title: str, result: Mapping[str, Any]) -> Section:
    what = {
        "pair_f1": "F1 of the written pairs against the right ones, each matched once at best",
        "answers": "token F1 of the answers to the right questions",
    }[key]
    head = ["datasets", "asked", "mean", "interval", "items"]
    found = Section(title, f"{what}; datasets weigh the same", head, bars=True)
    for split in ("seen", "unseen"):
        for way, own in result[key][split].items():
            found.add(
                split, _WAYS[way], f"{own['mean']:.3f}", f"{own['low']:.3f} – {own['high']:.3f}",
                thousands(own["n"]), bar=bar(own["mean"], own["low"], own["high"]),
            )  # fmt: skip
    return found


def _differences(result: Mapping[str, Any]) -> Section:
    head = ["datasets", "what", "difference", "interval", "items", "p"]
    found = Section("What helps", "paired on the same texts or questions", head)
    for split in ("seen", "unseen"):
        helps = result["helpfulness"][split]
        lines = {
            "examples of the dataset before the text": result["few"][split],
            "our pairs before the question, against none": helps["ours_less_alone"],
            "our pairs, against pairs of another text": helps["ours_less_random"],
        }
        for name, own in lines.items():
            if own:
                found.add(
                    split, name, f"{own['difference']:+.3f}", f"{own['low']:+.3f} to {own['high']:+.3f}",
                    own["n"], f"{own['p']:.3g}",
                )  # fmt: skip
    return found


def _by_dataset(result: Mapping[str, Any]) -> Section:
    found = Section("Datasets", "F1 of the pairs", ["dataset", "", "texts", "zero-shot", "few-shot"])
    for line in result["pair_f1_by_dataset"]:
        texts = result["datasets"][line["dataset"]]["examined"]
        shown = [f"{line[way]['mean']:.3f}" if way in line else "–" for way in ("zero", "few")]
        found.add(line["dataset"], line["split"], texts, *shown)
    return found
