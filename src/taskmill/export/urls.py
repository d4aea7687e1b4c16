"""URLs as they may be shown: without user, password and query, where secrets stand."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["hide_secrets", "hide_secrets_within"]

_URL = re.compile(r"[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)
# What closes a URL in YAML, shell or prose and is not part of it.
_CLOSING = "\"'>)]},;"


def hide_secrets(text: str) -> str:
    """Return text whose URLs have lost `user:password@` and everything from `?` on."""
    return _URL.sub(_shown, text)


def hide_secrets_within(value: Any) -> Any:
    """Return a JSON-like value with `hide_secrets` applied to every text in it, keys included."""
    if isinstance(value, str):
        return hide_secrets(value)
    if isinstance(value, dict):
        return {hide_secrets_within(key): hide_secrets_within(item) for key, item in value.items()}
    return [hide_secrets_within(item) for item in value] if isinstance(value, list) else value


def _shown(match: re.Match[str]) -> str:
    url = match[0].rstrip(_CLOSING)
    closing = match[0][len(url) :]
    # A second URL may follow without a space: every `//…` is looked at.
    return re.sub(r"//([^/]+)", _host, url.partition("?")[0]) + closing


def _host(match: re.Match[str]) -> str:
    host = match[1].rpartition("@")[2]
    # A colon that opens no port: the rest of a password that holds a `?`.
    return "//…" if "@" not in match[1] and re.search(r":(?!\d*$)", host) and "[" not in host else f"//{host}"
