"""A task proposed over the fields of a dataset (Dynosaur, arXiv 2305.14327): an instruction, the fields
that are its input, the one that is its output; and how proposals made elsewhere are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from taskmill.record import Dropped, Reason, content_id

__all__ = ["PROPOSAL_SCHEMA", "Proposal", "dropped", "from_row", "mark_of", "read_proposal", "to_row"]

MODES = ("rules", "aware", "unaware")
"""How it was made: by rule, by a model that saw the dataset's summary, or by one that did not."""

PROPOSAL_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("dataset", pa.string()),
        ("config", pa.string()),
        ("task_name", pa.string()),
        ("instruction", pa.string()),
        ("input_fields", pa.list_(pa.string())),
        ("output_field", pa.string()),
        ("labels", pa.list_(pa.string())),
        ("mode", pa.string()),
        ("model", pa.string()),
        ("call", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Proposal:
    """One task over one dataset configuration. `labels` is the closed set of answers, if there is one.

    Fields may be paths into nested values (`answers.text[0]`). `call` is the ledger key of the reply.
    """

    dataset: str = ""
    config: str = ""
    task_name: str = ""
    instruction: str = ""
    input_fields: tuple[str, ...] = ()
    output_field: str = ""
    labels: tuple[str, ...] = ()
    mode: str = ""
    model: str = ""
    call: str = ""

    @property
    def id(self) -> str:
        """Return the hash of what the task is: dataset, configuration, instruction and fields."""
        where = (self.dataset or self.task_name, self.config, self.instruction, self.output_field)
        return content_id("proposal", *where, *self.input_fields)

    @property
    def key(self) -> str:
        """Return the dataset with its configuration; the task's name where no dataset is named."""
        name = self.dataset or self.task_name
        return f"{name}:{self.config}" if self.config else name


def mark_of(task_name: str, id: str) -> str:
    """Return how the examples of a task are marked: what stands in `origin.template`."""
    return f"{task_name or 'task'}#{id[:8]}"


def to_row(proposal: Proposal) -> dict[str, Any]:
    """Return a proposal as the object of one line of `proposals.jsonl`."""
    row = {name: getattr(proposal, name) for name in PROPOSAL_SCHEMA.names}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in row.items()}


def from_row(row: Mapping[str, Any]) -> Proposal:
    """Return the proposal that `to_row` wrote; its id is computed, not read."""
    texts = {name: str(row.get(name) or "") for name in (*_TEXTS, "instruction", "output_field")}
    return Proposal(
        **texts, input_fields=tuple(row.get("input_fields") or ()), labels=tuple(row.get("labels") or ())
    )


def dropped(proposal: Proposal, reason: Reason, detail: str, score: float | None = None) -> Dropped:
    """Return a proposal with the reason for which it is not kept."""
    row: Any = proposal
    return Dropped(row, "proposals", reason, detail, score)


def read_proposal(row: Mapping[str, Any], **known: str) -> Proposal | Dropped:
    """Read one proposal, also as other tools write it; `known` fills what it lacks (dataset, mode, ...).

    A string stands for a list of one; `output_field` may be a list, `output_fields`, `output`, `input_field`
    and `inputs` are understood. What is no task is returned with the reason: schema, empty or multi-output.
    """
    said = {
        "instruction": row.get("instruction"),
        "input_fields": _first(row, "input_fields", "input_field", "inputs", "input"),
        "output_field": _first(row, "output_field", "output_fields", "outputs", "output"),
    }
    inputs, outputs = _names(said["input_fields"]), _names(said["output_field"])
    labels = _names(row.get("labels"))
    instruction = said["instruction"]
    found = Proposal(
        **{name: _text(row.get(name)) or known.get(name, "") for name in _TEXTS},
        instruction=_text(instruction).strip(),
        input_fields=tuple(dict.fromkeys(inputs or ())),
        output_field=outputs[0] if outputs else "",
        labels=tuple(labels or ()),
    )
    missing = [name for name, value in said.items() if value is None]
    if missing:
        return dropped(found, Reason.SCHEMA, f"{missing[0]} is missing")
    if not isinstance(instruction, str) or inputs is None or outputs is None or labels is None:
        wrong = "instruction" if not isinstance(instruction, str) else "a list of fields"
        return dropped(found, Reason.SCHEMA, f"{wrong} is not text; write names as strings")
    if len(set(outputs)) > 1:
        found = replace(found, output_field=", ".join(outputs))
        return dropped(found, Reason.MULTI_OUTPUT, f"{len(set(outputs))} output fields: {found.output_field}")
    empty = [
        name for name, value in zip(said, (found.instruction, inputs, outputs), strict=True) if not value
    ]
    if empty:
        return dropped(found, Reason.EMPTY, f"{empty[0]} is empty")
    return found


_TEXTS = ("dataset", "config", "task_name", "mode", "model", "call")


def _text(value: Any) -> str:
    """Return a text that every encoding can write: half a surrogate pair becomes a question mark."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""


def _first(row: Mapping[str, Any], *names: str) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _names(value: Any) -> list[str] | None:
    """Return field names of a list or a string; [] where there is nothing, None for another kind."""
    if value is None:
        return []
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, Sequence) or not all(isinstance(name, str) for name in listed):
        return None
    return [_text(name).strip() for name in listed if name.strip()]
