"""The card of a dataset on the Hugging Face Hub, from the Hub's own API; its pages are never read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from taskmill.errors import InputError, MissingExtra
from taskmill.ingest.cards import Card, card_of_hub
from taskmill.ingest.hub import parse_hub

__all__ = ["hub_card"]


def hub_card(source: str) -> Iterator[tuple[Card, str, str, str]]:
    """Yield (card, configuration, split, source to read) for each configuration of an `hf:` source.

    Raises InputError for a dataset that is not there or asks for access, or without a network.
    """
    path, config, revision = parse_hub(source)
    payload = _api(path, revision)
    if payload.get("gated"):
        raise InputError(
            f"{source!r} is gated: ask for access on its page and log in (hf auth login), or name a local "
            "copy of it"
        )
    card = card_of_hub(payload)
    names = [name for name in card.configs if config in (None, name)] or [config or ""]
    at = f"@{card.revision}" if card.revision else ""
    for name in sorted(names):
        own = f":{name}" if name else ""
        splits = [split for split, _ in card.configs[name].files] if name in card.configs else []
        split = "train" if "train" in splits or not splits else splits[0]
        yield card, name, split or "train", f"hf:{path}{own}{at}"


def _api(path: str, revision: str | None) -> Mapping[str, Any]:
    """Return what the Hub's API says of a dataset."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise MissingExtra("datasets", "hf") from None
    try:
        info = HfApi().dataset_info(path, revision=revision)
    except Exception as error:  # the library raises about every kind, from ValueError to ConnectionError
        detail = str(error).strip().split("\n", 1)[0]
        raise InputError(
            f"hf:{path} cannot be described ({detail.rstrip('.')}); check name, revision and network"
        ) from None
    card = info.card_data.to_dict() if info.card_data else {}
    about = getattr(info, "description", "") or ""
    return {"id": info.id, "sha": info.sha, "gated": info.gated, "cardData": card, "description": about}
