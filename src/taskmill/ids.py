"""Content ids and seeded draws: hashes of what they are about, never of when or where."""

from __future__ import annotations

import hashlib

__all__ = ["content_id", "draw"]


def content_id(*parts: str) -> str:
    """Return a 128-bit hex id of `parts`, each length-prefixed so that boundaries count."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return digest.hexdigest()


def draw(seed: int, row: str, purpose: str) -> int:
    """Return a 63-bit integer that depends on the three arguments only (no generator state)."""
    digest = hashlib.blake2b(f"{seed}\x1f{purpose}\x1f{row}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
