"""Which weights a name stands for, so that a ledger key never outlives the model it was paid with."""

from __future__ import annotations

import hashlib
from pathlib import Path

__all__ = ["identity"]

_SUFFIXES = {".safetensors", ".json", ".model", ".jinja"}


def identity(backend: str, name: str, revision: str) -> str:
    """Return `backend:name@revision`; a local folder's revision is a hash of what it holds."""
    folder = Path(name)
    if folder.is_dir():
        # The folder's own name, not its path: the same checkpoint is the same model on every machine.
        name, revision = folder.resolve().name, _fingerprint(folder)
    return f"{backend}:{name}@{revision}" if revision else f"{backend}:{name}"


def _fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(p for p in folder.iterdir() if p.suffix in _SUFFIXES):
        digest.update(file.name.encode())
        with file.open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()[:12]
