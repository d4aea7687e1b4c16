"""The demonstration: Python's language reference to learn from, and questions on it that nobody generated.

Both are on every machine: the reference as `pydoc_data.topics`, the questions in this package. A question's
passage is the paragraph its answer stands in; as of any test, no arm learns a text that overlaps with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from taskmill.config import packaged
from taskmill.durable import atomic_write
from taskmill.recipes.demo import write_reference
from taskmill.recipes.prove.config import Target

__all__ = ["demo_target"]


def demo_target(folder: Path) -> Target:
    """Write the passages and the test of the demonstration into a folder, and return them as a target."""
    folder.mkdir(parents=True, exist_ok=True)
    text, test = folder / "python-reference.jsonl", folder / "questions.jsonl"
    write_reference(text)
    rows = list(_questions())
    atomic_write(test, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    note = (
        f"The test is {len(rows)} questions on Python's language reference, written for this package and "
        "not by the generator; so few of one kind say little about other texts."
    )
    return Target("demo", str(text), str(test), "exqa", note=note)


def _questions() -> Iterator[dict[str, object]]:
    """Yield the questions whose paragraph this version of Python has."""
    from pydoc_data.topics import topics

    for topic, answer, question in packaged("taskmill.recipes.prove", "demo.yaml"):
        paragraphs = [" ".join(p.split()) for p in re.split(r"\n\s*\n", topics.get(topic, ""))]
        found = next((p for p in paragraphs if answer in p), None)
        if found is not None:
            yield {"context": found, "question": question, "answers": [answer]}
