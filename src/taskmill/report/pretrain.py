"""report.html of continual pre-training: raw against augmented at equal tokens, and what was forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from taskmill.report.pages import Figure, Section, bar, settings, write_page
from taskmill.report.words import compact, duration, thousands

__all__ = ["write_pretrain_report"]


def write_pretrain_report(path: Path, record: Mapping[str, Any]) -> Path:
    """Write the page of a comparison from what result.json holds and return its path."""
    config = record["config"]
    seeds = "" if config["seeds"] > 1 else "One seed: no interval here knows the luck of a training run."
    sections = [_claims(record)]
    sections += [_marks(name, lines, "held-out questions") for name, lines in record["targets"].items()]
    sections += [
        _marks(f"Retention: {name}", lines, "general questions, before and after")
        for name, lines in record["retention"]["questions"].items()
    ]
    sections += [_perplexity(record), _arms(record)]
    return write_page(
        path,
        "train corpus",
        _figures(record),
        sections,
        facts={
            "corpus": config["source"],
            "targets": ", ".join(config["target"]),
            "student": record["student"],
            "method": record["method"],
        },
        about={
            "Settings": settings(config),
            "Questions": {
                name: f"{q['scored']} scored, {q['met']} met" for name, q in record["questions"].items()
            },
            "Seconds, measured here": record["speed"],
        },
        notes=[seeds],
    )


def _figures(record: Mapping[str, Any]) -> list[Figure]:
    found = []
    for name, lines in list(record["targets"].items())[:2]:
        for arm in ("raw", "augmented"):
            if arm in lines:
                own = lines[arm]
                found.append(
                    Figure(f"{arm}, {name}", f"{own['mean']:.3f}", f"{own['low']:.3f} – {own['high']:.3f}")
                )
    tokens = [own["read"] for own in record["arms"].values()]
    found.append(
        Figure("tokens", compact(record["tokens"]), f"read by each model: {', '.join(map(compact, tokens))}")
    )
    time = f"{duration(record['estimate_s'])} foreseen"
    found.append(
        Figure(
            "models",
            thousands(record["units"]["all"] - 1),
            f"{duration(record['seconds']['models'])}; {time}",
        )
    )
    return found


def _claims(record: Mapping[str, Any]) -> Section:
    found = Section(
        "What it shows", "paired on the same questions", ["claim", "verdict", "difference", "interval"]
    )
    for claim in record["claims"]:
        own = claim["over_all"]
        interval = f"{own['low']:+.3f} to {own['high']:+.3f}"
        found.add(claim["claim"], claim["verdict"], f"{own['mean']:+.3f}", interval)
    return found


def _marks(title: str, lines: Mapping[str, Any], note: str) -> Section:
    found = Section(title, note, ["model", "mean mark", "interval", "by seed", "questions"], bars=True)
    for arm, own in lines.items():
        found.add(
            _name(arm), f"{own['mean']:.3f}", f"{own['low']:.3f} – {own['high']:.3f}",
            " ".join(f"{mean:.3f}" for mean in own["of_seeds"]), own["n"],
            bar=bar(own["mean"], own["low"], own["high"]),
        )  # fmt: skip
    return found


def _perplexity(record: Mapping[str, Any]) -> Section:
    head = ["model", "perplexity", "nats a token", "rise", "interval"]
    found = Section("Retention: general texts", f"{record['general_texts']} texts, read by themselves", head)
    for arm, own in record["retention"]["perplexity"].items():
        rise = own["rise"]
        found.add(
            _name(arm), f"{own['perplexity']:.2f}", f"{own['nats_a_token']:.3f}",
            f"{rise['mean']:+.3f}", f"{rise['low']:+.3f} to {rise['high']:+.3f}",
        )  # fmt: skip
    return found


def _arms(record: Mapping[str, Any]) -> Section:
    head = ["arm", "rows", "tokens there", "rows unread", "tokens read", "passes"]
    found = Section("What was read", "general instructions are the same part of all arms", head)
    for arm, own in record["arms"].items():
        found.add(
            arm, thousands(own["rows"]), thousands(own["tokens"]), own["unread"], thousands(own["read"]),
            f"{own['passes']:.2f}",
        )  # fmt: skip
    return found


def _name(arm: str) -> str:
    return "not trained" if arm == "base" else arm
