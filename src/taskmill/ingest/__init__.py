"""Raw files and datasets in, `Document`s out; what cannot be used comes out as `Dropped`, with the reason.

    for item in read_sources(["notes/", "rows.jsonl", "hf:owner/name"], IngestConfig(chunk_tokens=256)):
        ...

A new format is one function (see `Reader`) registered in `READERS` under its suffix.
"""

from taskmill.ingest.chunking import chunk
from taskmill.ingest.config import IngestConfig
from taskmill.ingest.fingerprint import fingerprint
from taskmill.ingest.reader import READERS, Fault, FaultError, Reader, SourceFile, Text
from taskmill.ingest.sources import read_sources
from taskmill.ingest.tokens import count_tokens

__all__ = [
    "READERS",
    "Fault",
    "FaultError",
    "IngestConfig",
    "Reader",
    "SourceFile",
    "Text",
    "chunk",
    "count_tokens",
    "fingerprint",
    "read_sources",
]
