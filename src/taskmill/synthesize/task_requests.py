"""Asking a model for tasks over a dataset, and reading what it replies.

Two modes (Dynosaur §3): with the dataset's summary (aware) and without it (unaware). Where the backend can, a
grammar holds the reply to JSON and to names of fields that exist; where it cannot, the reply is salvaged.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import minijinja

from taskmill.calls import Completion, Request, Sampling, request
from taskmill.record import DatasetMeta, Dropped, FieldMeta, Reason
from taskmill.synthesize.field_rules import propose_by_rule, words
from taskmill.synthesize.proposals import Proposal, dropped, read_proposal, to_row
from taskmill.synthesize.salvage import salvage

__all__ = ["AskedFor", "read_reply", "requests_for", "visible"]

MOST_FIELDS = 48
"""Most fields that a prompt names (chosen: about 1,000 tokens)."""

TOKENS_PER_TASK = 160
"""Longest reply for one task (chosen: Dynosaur's 256 for three cut replies off)."""

_ROW, _VALUE = 1000, 300
"""Characters of a sample row and of one value in it that a prompt shows (Dynosaur: rows cut at 1,000)."""

_SHOWN_ROWS = 2


@dataclass(frozen=True, slots=True)
class AskedFor:
    """What travels with a request: the dataset, the mode, and what the echo backend replies."""

    meta: DatasetMeta
    mode: str
    count: int

    def sample(self) -> str:
        """Return the reply that the rules would give, as a model would write it."""
        tasks = [to_row(proposal) for proposal in propose_by_rule(self.meta)[: self.count]]
        keys = ("task_name", "instruction", "input_fields", "output_field")
        found = {f"task{i + 1}": {key: task[key] for key in keys} for i, task in enumerate(tasks)}
        return json.dumps(found, ensure_ascii=False)


def visible(meta: DatasetMeta) -> list[FieldMeta]:
    """Return the fields that a model is shown."""
    return [field for field in meta.fields if not field.hidden][:MOST_FIELDS]


def requests_for(
    meta: DatasetMeta, model: str, *, modes: tuple[str, ...], count: int, sampling: Sampling, seed: int = 0
) -> Iterator[Request]:
    """Yield one request for each mode; none for `aware` without a summary, or with fewer than two fields.

    `count`: tasks asked for in one reply.
    """
    fields = visible(meta)
    if len(fields) < 2:
        return
    for mode in modes:
        if mode == "aware" and not meta.summary:
            continue
        own = replace(sampling, max_tokens=TOKENS_PER_TASK * count, grammar=grammar_of(fields, count))
        messages = (("system", words()["ask"]["system"]), ("user", _prompt(meta, fields, mode, count)))
        yield request(model, own, messages=messages, seed=seed, payload=AskedFor(meta, mode, count))


def _prompt(meta: DatasetMeta, fields: list[FieldMeta], mode: str, count: int) -> str:
    said, render = words()["ask"], minijinja.Environment().render_str
    parts = [render(said["goal"], count=count)]
    parts += [render(said["example"], **example) for example in words()["examples"][mode]]
    about = f"{meta.key}: {meta.summary[:_ROW]}" if mode == "aware" else "(nothing is known of it)"
    listed = ", ".join(f"{field.name} ({_kind(field)})" for field in fields)
    rows = "\n".join(f"Row: {_row(row, fields)}" for row in meta.samples[:_SHOWN_ROWS])
    parts.append(render(said["target"], about=about, fields=f"Fields: {listed}", rows=rows))
    parts.append(render(said["reminder"], names=", ".join(json.dumps(field.name) for field in fields)))
    return "\n\n".join(parts)


def _kind(field: FieldMeta) -> str:
    if not field.labels:
        return field.type
    more = ", …" if len(field.labels) > 12 else ""
    return f"{field.type}, one of: {', '.join(field.labels[:12])}{more}"


def _row(sample: str, fields: list[FieldMeta]) -> str:
    row: dict[str, Any] = json.loads(sample)
    shown = {field.name: _shortened(row.get(field.name)) for field in fields if field.name in row}
    return json.dumps(shown, ensure_ascii=False)[:_ROW]


def _shortened(value: Any) -> Any:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return value if len(text) <= _VALUE else text[:_VALUE] + "…"


def grammar_of(fields: list[FieldMeta], count: int) -> str:
    """Return the grammar (GBNF) of replies of one to `count` tasks over these fields."""
    names = " | ".join(json.dumps(json.dumps(field.name, ensure_ascii=False)) for field in fields)
    tasks = [f'"\\"task{i + 1}\\": " task' for i in range(count)]
    whole = tasks[-1]
    for one in reversed(tasks[:-1]):
        whole = f'{one} (", " {whole})?'
    return "\n".join(
        [
            f'root ::= "{{" {whole} "}}"',
            r'task ::= "{\"task_name\": " text ", \"instruction\": " text ", \"input_fields\": [" field '
            r'(", " field)* "], \"output_field\": " field "}"',
            r'text ::= "\"" [^"\\\x00-\x1f]{3,400} "\""',
            f"field ::= {names}",
        ]
    )


def read_reply(model: str, asked: Request, completion: Completion) -> list[Proposal | Dropped]:
    """Return the tasks of a reply, whole or cut; what holds none is one Dropped with the reason."""
    about: AskedFor = asked.payload
    known = {
        "dataset": about.meta.name,
        "config": about.meta.config,
        "mode": about.mode,
        "model": model,
        "call": asked.key,
    }
    nothing = Proposal(about.meta.name, about.meta.config, mode=about.mode, model=model, call=asked.key)
    if completion.finish == "error":
        return [dropped(nothing, Reason.CALL_FAILED, completion.error)]
    tasks, torn = salvage(completion.text)
    found = [read_proposal({"task_name": key, **task, **known}) for key, task in tasks]
    if torn or (completion.finish == "length" and not completion.text.rstrip().endswith("}")):
        found.append(dropped(nothing, Reason.PARSE, "the reply was cut off inside a task"))
    elif not found:
        reason = Reason.PARSE if completion.text.strip() else Reason.EMPTY_REPLY
        found.append(dropped(nothing, reason, f"no task in the reply: {completion.text.strip()[:120]!r}"))
    return found
