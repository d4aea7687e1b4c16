"""The demonstration: the Python language reference, which is on every machine, becomes tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from taskmill.backends import ModelConfig
from taskmill.durable import atomic_write
from taskmill.ingest import IngestConfig
from taskmill.recipes.session import OnProgress
from taskmill.recipes.synth import SynthConfig, synth

__all__ = ["beside", "demo", "write_reference"]

TASKS = ("exqa", "qg", "qa", "ynqa", "summarization")

TARGET = 6
"""Accepted examples per task type: about a minute of work for the embedded model on 2 cores."""


def write_reference(path: Path) -> None:
    """Write the language reference of this Python (`pydoc_data.topics`, licence PSF-2.0) as JSON lines."""
    from pydoc_data.topics import topics

    rows = [{"title": name, "text": topics[name], "licence": "PSF-2.0"} for name in sorted(topics)]
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    atomic_write(path, "".join(lines).encode())


def beside(out: Path) -> Path:
    """Return the folder beside `out` for what a demonstration reads (of "." beside the folder it means)."""
    out = out if out.name.strip(".") else out.resolve()
    return out.with_name(f"{out.name}-input")


def demo(
    out: str | Path, *, model: str = "openvino:bonito-smollm2-135m", on_progress: OnProgress | None = None
) -> dict[str, Any]:
    """Run the main job on the language reference and return the manifest."""
    out = Path(out)
    source = beside(out) / "python-reference.jsonl"
    write_reference(source)
    config = SynthConfig(
        sources=(str(source),),
        task=TASKS,
        target=TARGET,
        ingest=IngestConfig(licence_column="licence", chunk_tokens=180, min_chars=300),
        model=ModelConfig(ref=model),
    )
    return synth(config, out, update=True, on_progress=on_progress)
