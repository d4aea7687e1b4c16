"""Asking a model for tasks over a dataset, and reading what it replies.

Two modes (Dynosaur §3): with the dataset's summary (aware) and without it (unaware). Where the backend can, a
grammar or a JSON schema holds the reply to JSON and to names of fields that exist; where it cannot, the reply
is salvaged. Fields come before the instruction, so that the words are written for fields already chosen.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import minijinja

from taskmill.calls import Completion, Message, Request, Sampling, request
from taskmill.record import DatasetMeta, Dropped, FieldMeta, Reason
from taskmill.synthesize.field_rules import propose_by_rule, words
from taskmill.synthesize.proposals import Proposal, dropped, read_proposal, to_row
from taskmill.synthesize.salvage import salvage
from taskmill.synthesize.task_checks import NEAR, plain

__all__ = ["AskedFor", "read_reply", "requests_for", "visible"]

MOST_FIELDS = 48
"""Most fields that a prompt names (chosen: about 1,000 tokens)."""

TOKENS_PER_TASK = 160
"""Longest reply for one task (chosen: Dynosaur's 256 for three cut replies off)."""

PARTS = ("output_field", "input_fields", "task_name", "instruction")
"""What a task in a reply has, in the order in which it is written."""

MOST_INPUTS = 12
"""Most input fields that a grammar lets a task have (chosen, as in the rules: a row of a table)."""

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
        return json.dumps(
            {"tasks": [{key: task[key] for key in PARTS} for task in tasks]}, ensure_ascii=False
        )


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
        own = replace(
            sampling,
            max_tokens=TOKENS_PER_TASK * count,
            grammar=grammar_of(fields, count),
            schema=schema_of(fields, count),
        )
        turns = _turns(meta, fields, mode, count)
        yield request(model, own, messages=turns, seed=seed, payload=AskedFor(meta, mode, count))


def _turns(meta: DatasetMeta, fields: list[FieldMeta], mode: str, count: int) -> tuple[Message, ...]:
    said, render = words()["ask"], minijinja.Environment().render_str
    turns = [("system", render(said["system"], count=count))]
    for example in words()["examples"][mode]:
        turns += [("user", render(said["dataset"], **example)), ("assistant", example["reply"])]
    about = f"{meta.key}: {meta.summary[:_ROW]}" if mode == "aware" else "(nothing is known of it)"
    listed = ", ".join(f"{field.name} ({_kind(field)})" for field in fields)
    rows = "\n".join(f"Row: {_row(row, fields)}" for row in meta.samples[:_SHOWN_ROWS])
    names = ", ".join(json.dumps(field.name, ensure_ascii=False) for field in fields)
    target = render(said["target"], about=about, fields=f"Fields: {listed}", rows=rows, names=names)
    return (*turns, ("user", target))


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
    """Return the grammar (GBNF) of replies of one to `count` tasks over these fields.

    A task's output is none of its inputs. Texts are bounded by the tokens of the reply.
    """
    names = [json.dumps(json.dumps(field.name, ensure_ascii=False), ensure_ascii=False) for field in fields]
    numbers = range(len(fields))
    inputs = min(len(fields) - 1, MOST_INPUTS)
    return "\n".join(
        [
            f'root ::= "{{\\"tasks\\": [" {_listed("task", count)} "]}}"',
            r'task ::= "{\"output_field\": " fields "], \"task_name\": " text ", \"instruction\": " text "}"',
            "fields ::= " + " | ".join(f"f{i} inputs {_listed(f'o{i}', inputs)}" for i in numbers),
            r'inputs ::= ", \"input_fields\": ["',
            r'text ::= "\"" [^"\\\x00-\x1f]+ "\""',
            *(f"f{i} ::= {name}" for i, name in enumerate(names)),
            *(f"o{i} ::= " + " | ".join(f"f{j}" for j in numbers if j != i) for i in numbers),
        ]
    )


def _listed(rule: str, most: int) -> str:
    return f'{rule} (", " {rule}){{0,{most - 1}}}' if most > 1 else rule


def schema_of(fields: list[FieldMeta], count: int) -> str:
    """Return the JSON schema of such replies, with no more of the language than all servers know."""
    name = {"type": "string", "enum": [field.name for field in fields]}
    kinds: dict[str, Any] = {
        "output_field": name,
        "input_fields": {"type": "array", "items": name, "minItems": 1},
        "task_name": {"type": "string"},
        "instruction": {"type": "string"},
    }
    task = {"type": "object", "properties": kinds, "required": list(PARTS), "additionalProperties": False}
    tasks = {"type": "array", "items": task, "minItems": 1, "maxItems": count}
    whole = {
        "type": "object",
        "properties": {"tasks": tasks},
        "required": ["tasks"],
        "additionalProperties": False,
    }
    return json.dumps(whole, ensure_ascii=False)


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
    found = [_own(read_proposal({"task_name": key, **task, **known})) for key, task in tasks]
    if torn or (completion.finish == "length" and not completion.text.rstrip().endswith("}")):
        found.append(dropped(nothing, Reason.PARSE, "the reply was cut off inside a task"))
    elif not found:
        reason = Reason.PARSE if completion.text.strip() else Reason.EMPTY_REPLY
        found.append(dropped(nothing, reason, f"no task in the reply: {completion.text.strip()[:120]!r}"))
    return found


def _own(task: Proposal | Dropped) -> Proposal | Dropped:
    """Return a task; dropped if its instruction is one of those that the prompt showed as examples."""
    if isinstance(task, Dropped):
        return task
    said = frozenset(plain(task.instruction).split())
    for shown in _shown():
        if len(said & shown) >= NEAR * len(said | shown):
            return dropped(task, Reason.COPY, "the instruction is that of an example in the prompt")
    return task


@cache
def _shown() -> list[frozenset[str]]:
    replies = [example["reply"] for listed in words()["examples"].values() for example in listed]
    tasks = [task for reply in replies for task in json.loads(reply)["tasks"]]
    return [frozenset(plain(task["instruction"]).split()) for task in tasks]
