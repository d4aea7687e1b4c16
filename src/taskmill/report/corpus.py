"""report.html of a corpus: what it is made of, what became of the sources, and what the pairs are like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from taskmill.report.pages import Figure, Section, bar, settings, write_page
from taskmill.report.words import compact, cut, duration, thousands

__all__ = ["write_corpus_report"]

REFERENCE = {"pairs_per_text": 5, "tokens_per_pair": 52}
"""What the paper reports of its general corpus (arXiv 2406.14491, as summarised by others)."""

_SAMPLE = 2400
_CATEGORIES = 24


def write_corpus_report(
    path: Path, manifest: Mapping[str, Any], config: Mapping[str, Any], samples: Sequence[str]
) -> Path:
    """Write the page of a corpus from its manifest and return its path."""
    sections = [
        _kinds(manifest),
        _sources(manifest),
        _asked(manifest),
        _per_text(manifest),
        *_shift(manifest),
    ]
    sections += [_words(manifest), _dropped(manifest)]
    code, reason = manifest["exit"]["code"], manifest["exit"]["reason"]
    return write_page(
        path,
        "corpus",
        _figures(manifest),
        sections,
        facts={
            "sources": ", ".join(manifest["inputs"]),
            "model": manifest["model"].get("identity") or manifest["model"]["ref"],
            "asked in": manifest["model"]["format"],
            "checked against": ", ".join(config["against"]),
        },
        about={
            "Settings": settings(config),
            "Calls": {**manifest["calls"], **manifest.get("call_tokens", {})},
            "Shards": manifest["shards"],
            "Throughput, all sessions": manifest["throughput"],
            "Versions": manifest["versions"],
        },
        notes=[reason] if code else [],
        samples=[cut(text, _SAMPLE) for text in samples],
        samples_note="chains as they are trained on",
    )


def _figures(manifest: Mapping[str, Any]) -> list[Figure]:
    documents, tokens = manifest["documents"], manifest["tokens"]
    paper = f"the paper has about {REFERENCE['pairs_per_text']}"
    return [
        Figure(
            "tokens", compact(sum(tokens.values())), f"{compact(tokens['augmented'])} in chains with pairs"
        ),
        Figure("documents", thousands(documents["in"]), f"{thousands(documents['augmented'])} with pairs"),
        Figure(
            "pairs", thousands(manifest["pairs"]), f"{manifest['category_entropy']:.1f} bits of categories"
        ),
        Figure("pairs a text", f"{manifest['pairs_per_text']:.1f}", paper),
        Figure(
            "tokens a pair", f"{manifest['tokens_per_pair']:.0f}", f"{REFERENCE['tokens_per_pair']} there"
        ),
        Figure(
            "time", duration(manifest["elapsed_s"]), f"{thousands(manifest['calls']['total'])} model calls"
        ),
    ]


def _kinds(manifest: Mapping[str, Any]) -> Section:
    total = sum(manifest["tokens"].values()) or 1
    found = Section(
        "What it is made of", "tokens of the texts alone", ["kind", "rows", "tokens", "share"], bars=True
    )
    for kind, tokens in manifest["tokens"].items():
        if manifest["rows"][kind]:
            share = tokens / total
            own = bar(share, 0, share)
            found.add(
                kind, thousands(manifest["rows"][kind]), thousands(tokens), f"{100 * share:.1f} %", bar=own
            )
    return found


def _sources(manifest: Mapping[str, Any]) -> Section:
    documents, texts = manifest["documents"], manifest["texts"]
    found = Section(
        "What became of the sources",
        "source documents, and the texts that were cut of them",
        ["", "documents", "texts"],
    )
    found.add("came in", thousands(documents["in"]), thousands(texts["cut"]))
    for kind in ("augmented", "raw", "contaminated", "over_target", "dropped", "lost"):
        found.add(kind.replace("_", " "), thousands(documents[kind]), thousands(texts.get(kind)))
    return found


def _asked(manifest: Mapping[str, Any]) -> Section:
    total = manifest["pairs"] or 1
    found = Section(
        "Pairs by task type", "of all pairs in the chains", ["task type", "pairs", "share"], bars=True
    )
    for task, count in sorted(manifest["pairs_by_task"].items(), key=lambda t: (-t[1], t[0])):
        found.add(
            task, thousands(count), f"{100 * count / total:.1f} %", bar=bar(count / total, 0, count / total)
        )
    return found


def _per_text(manifest: Mapping[str, Any]) -> Section:
    texts = sum(manifest["texts_by_pairs"].values()) or 1
    found = Section("Pairs per text", "texts that are in chains", ["pairs", "texts", "share"], bars=True)
    for pairs, count in manifest["texts_by_pairs"].items():
        found.add(
            pairs, thousands(count), f"{100 * count / texts:.1f} %", bar=bar(count / texts, 0, count / texts)
        )
    return found


def _shift(manifest: Mapping[str, Any]) -> list[Section]:
    shift = manifest["shift"]
    if not shift:
        return []
    distance = Section("Domain shift", shift["measure"], ["between", "bits"], bars=True)
    for name, key in (("pairs and their texts", "pairs_to_texts"), ("two halves of the texts", "halves")):
        distance.add(name, f"{shift[key]:.3f}", bar=bar(shift[key], 0, shift[key]))
    said = Section("Words that shift", "most gained, and most lost, from texts to pairs", ["", "words"])
    said.add("more in pairs", ", ".join(shift["gained"]))
    said.add("less in pairs", ", ".join(shift["less"]))
    return [distance, said]


def _words(manifest: Mapping[str, Any]) -> Section:
    total = manifest["pairs"] or 1
    found = Section(
        "Categories", "task type and first word of the question", ["category", "pairs"], bars=True
    )
    for name, count in list(manifest["categories"].items())[:_CATEGORIES]:
        found.add(name, thousands(count), bar=bar(count / total, 0, count / total))
    return found


def _dropped(manifest: Mapping[str, Any]) -> Section:
    found = Section("Dropped", "texts, pairs, tuning data and general instructions", ["reason", "rows"])
    for reason, count in manifest["dropped"].items():
        found.add(reason, thousands(count))
    return found
