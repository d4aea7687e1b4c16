"""Conditional task generation with attributes: from remixed examples to the rows a generator is trained on.

A row is the wire prompt and the completion (`render.bonito_completion`). The prompt is v1's own
(`bonito_prompt`, no attributes), or that of our own generators (`attributes_prompt`): the passage first, and
attributes, one "name: value" line each: `sentence` (the sentence of the passage to ask about), `labels` (the
label set), `answer` (the response to aim at) and `tasks` (how many tasks to write, `<|task|>` between them).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from math import log

import pyarrow as pa

from taskmill.errors import ConfigError
from taskmill.record import Example, content_id, draw
from taskmill.render import (
    PLACEHOLDER,
    TASK_MARKER,
    attributes_prompt,
    attributes_text,
    bonito_completion,
    bonito_prompt,
)
from taskmill.tasks import get
from taskmill.tasks.labels import LabelType
from taskmill.tasks.passage import content, one_line, sentences, words

__all__ = ["CTGA_SCHEMA", "Balance", "CtgaRow", "compose", "quotas", "select"]

CTGA_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("task", pa.string()),
        ("prompt", pa.string()),
        ("completion", pa.string()),
        ("passage", pa.string()),
        ("group", pa.string()),
        ("attributes", pa.list_(pa.string())),
        ("examples", pa.list_(pa.string())),
        ("dataset", pa.string()),
        ("config", pa.string()),
        ("templates", pa.list_(pa.string())),
        ("licence", pa.string()),
        ("split", pa.string()),
    ]
)

ANSWERED = ("exqa", "qa", "mcqa", "coref")
"""Task types besides the label types whose prompt may name the answer to aim at."""


@dataclass(frozen=True, slots=True)
class Balance:
    """How many examples of each task type enter the corpus, and with which attributes."""

    total: int = field(default=0, metadata={"help": "examples in all; 0: all that the caps allow"})
    cap: int = field(default=0, metadata={"help": "most examples of one task type; 0: no cap"})
    temperature: float = field(
        default=1.0, metadata={"help": "shares go as count**(1/T): 1 as they are, larger evens them out"}
    )
    max_ratio: float = field(
        default=0.0, metadata={"help": "largest task type over smallest; 0: whatever comes"}
    )
    max_chars: int = field(default=0, metadata={"help": "leave out passages of more characters; 0: keep all"})
    protocol: str = field(
        default="bonito-attributes",
        metadata={
            "help": "prompts: bonito as BatsResearch/bonito-v1 reads them, without attributes; "
            "bonito-attributes with the passage first, for generators of our own",
            "choices": ("bonito", "bonito-attributes"),
        },
    )
    several: float = field(
        default=0.25, metadata={"help": "share of passages whose tasks are put in one row, where they can be"}
    )
    labels: float = field(default=0.5, metadata={"help": "share of label rows whose prompt names the labels"})
    answers: float = field(default=0.3, metadata={"help": "share of rows whose prompt names the answer"})
    sentences: float = field(
        default=0.7, metadata={"help": "share of rows whose prompt quotes the sentence they are about"}
    )


@dataclass(frozen=True, slots=True)
class CtgaRow:
    """One training row, as CTGA_SCHEMA has it. `group` is the passage's id: splits are made by it."""

    id: str
    task: str
    prompt: str
    completion: str
    passage: str
    group: str
    attributes: tuple[str, ...]
    examples: tuple[str, ...]
    dataset: str
    config: str
    templates: tuple[str, ...]
    licence: str
    split: str


def quotas(counts: Mapping[str, int], balance: Balance) -> dict[str, int]:
    """Return how many of each type to take: cap, then max:min ratio, then count**(1/T) shares of `total`.

    Temperature balancing as in multilingual sampling (mT5, arXiv 2010.11934 §3.1): share ∝ n^(1/T).
    What a type cannot fill is shared out among the others.
    """
    if balance.temperature < 1 or balance.max_ratio < 0 or (0 < balance.max_ratio < 1):
        raise ConfigError("balance: temperature must be 1 or more, max_ratio 0 or at least 1")
    if balance.temperature != 1 and not balance.total:
        raise ConfigError("--temperature shares out a number of examples: give --total, too")
    most = {t: min(n, balance.cap) if balance.cap else n for t, n in counts.items() if n}
    if balance.max_ratio and most:
        least = min(most.values())
        most = {t: min(n, int(balance.max_ratio * least)) for t, n in most.items()}
    if not balance.total and balance.temperature == 1:
        return most
    return _shared_out(most, balance.total or sum(most.values()), balance.temperature)


def _shared_out(most: Mapping[str, int], total: int, temperature: float) -> dict[str, int]:
    """Share `total` out in proportion to n^(1/T), none over its own; fill up by largest remainder."""
    got: dict[str, int] = {}
    open_types, left = sorted(most), total
    while open_types:
        weights = {t: most[t] ** (1 / temperature) for t in open_types}
        whole = sum(weights.values())
        full = [t for t in open_types if left * weights[t] / whole >= most[t]]
        if not full:
            exact = {t: left * weights[t] / whole for t in open_types}
            got |= {t: int(x) for t, x in exact.items()}
            rest = left - sum(int(x) for x in exact.values())
            for t in sorted(open_types, key=lambda t: (int(exact[t]) - exact[t], t))[:rest]:
                got[t] += 1
            break
        for t in full:
            got[t] = most[t]
            left -= most[t]
        open_types = [t for t in open_types if t not in full]
    return got


@dataclass(frozen=True, slots=True)
class Entry:
    """What the selection looks at: one example's id, task type, dataset, response and passage (its id)."""

    id: str
    task: str
    dataset: str
    response: str
    passage: str
    chars: int = 0


def select(entries: Iterable[Entry], balance: Balance, caps: Mapping[str, int], seed: int) -> set[str]:
    """Return the ids to keep. `caps` bounds one dataset's share of a task type.

    Within a type the datasets are balanced by the same temperature, and within a dataset the labels
    take turns; beyond that the order is a draw on the passage, so that a passage comes with tasks of many
    types: training then reads it once and learns what sets them apart. Passages weigh as the square of their
    number of types (chosen, to favour those with many). A passage's further tasks of one type come with it
    for a share of the passages (`several`), else by a draw of their own.
    """
    piles: dict[str, dict[str, list[Entry]]] = defaultdict(lambda: defaultdict(list))
    types: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        if balance.max_chars and entry.chars > balance.max_chars:
            continue
        piles[entry.task][entry.dataset].append(entry)
        types[entry.passage].add(entry.task)
    weights = {passage: len(tasks) ** 2 for passage, tasks in types.items()}
    ordered = {
        task: {
            name: _turns(pile, task, balance, seed, weights)[: caps.get(name) or None]
            for name, pile in sorted(by.items())
        }
        for task, by in sorted(piles.items())
    }
    wanted = quotas({task: sum(map(len, by.values())) for task, by in ordered.items()}, balance)
    kept: set[str] = set()
    for task, by in ordered.items():
        share = _shared_out({d: len(p) for d, p in by.items()}, wanted.get(task, 0), balance.temperature)
        for name, pile in by.items():
            kept.update(e.id for e in pile[: share.get(name, 0)])
    return kept


def _turns(
    pile: Sequence[Entry], task: str, balance: Balance, seed: int, weights: Mapping[str, int]
) -> list[Entry]:
    """Order a pile by draws; where the responses are labels, different labels take turns."""
    firsts: dict[str, str] = {}
    for entry in pile:
        firsts[entry.passage] = min(firsts.get(entry.passage, entry.id), entry.id)

    def place(entry: Entry) -> tuple[float, str]:
        first = firsts[entry.passage] == entry.id
        together = first or _share(seed, entry.passage, "several") < balance.several
        drawn = _share(seed, entry.passage if together else entry.id, "corpus")
        # Weighted sampling without replacement: smallest -log(u) / weight (Efraimidis and Spirakis 2006).
        return -log(drawn or 1e-300) / weights[entry.passage], entry.id

    ordered = sorted(pile, key=place)
    if not isinstance(get(task), LabelType):
        return ordered
    by_label: dict[str, list[Entry]] = defaultdict(list)
    for entry in ordered:
        by_label[entry.response.casefold()].append(entry)
    rounds = zip_longest(*(by_label[label] for label in sorted(by_label)))
    return [entry for turn in rounds for entry in turn if entry is not None]


MOST_TASKS = 4
"""Most tasks in one row (chosen: more rarely fit one passage without repeating each other)."""


def compose(examples: Sequence[Example], balance: Balance, seed: int) -> Iterator[CtgaRow]:
    """Yield the training rows of examples that share passage, dataset, split and licence."""
    by_task: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        by_task[example.task].append(example)
    attributes = balance.protocol == "bonito-attributes"
    for _task, own in sorted(by_task.items()):
        group = content_id(own[0].context)
        together = attributes and len(own) > 1 and _share(seed, group, "several") < balance.several
        if together:
            for start in range(0, len(own), MOST_TASKS):
                yield _row(own[start : start + MOST_TASKS], group, balance, seed)
        else:
            for example in own:
                yield _row([example], group, balance, seed)


def _share(seed: int, row: str, purpose: str) -> float:
    return draw(seed, row, purpose) / 2**63


def _attributes(own: Sequence[Example], balance: Balance, seed: int) -> dict[str, str]:
    """Return the attributes of a row, name → text: what its examples have, in the shares of `balance`."""
    first = own[0]
    labelled = isinstance(get(first.task), LabelType)
    sets = {e.options for e in own}
    labels: tuple[str, ...] = ()
    if labelled and len(sets) == 1 and _share(seed, first.id, "labels") < balance.labels:
        labels = first.options
    answer = ""
    if len(own) == 1 and (labelled or first.task in ANSWERED) and len(first.response) < 200:
        answer = first.response if _share(seed, first.id, "answer") < balance.answers else ""
    sentence = ""
    if len(own) == 1 and _share(seed, first.id, "sentence") < balance.sentences:
        sentence = about(first)
    return attributes_text(labels=labels, answer=answer, tasks=len(own), sentence=sentence)


def _row(own: Sequence[Example], group: str, balance: Balance, seed: int) -> CtgaRow:
    first = own[0]
    title = get(first.task).title
    attributes: dict[str, str] = {}
    if balance.protocol == "bonito":
        prompt = bonito_prompt(title, first.context)
    else:
        attributes = _attributes(own, balance, seed)
        prompt = attributes_prompt(title, first.context, attributes)
    parts = [bonito_completion(e.instruction, e.response, e.context) for e in own]
    completion = f"\n{TASK_MARKER}\n".join(parts)
    return CtgaRow(
        content_id(prompt, completion),
        first.task,
        prompt,
        completion,
        first.context.strip(),
        group,
        tuple(attributes),
        tuple(e.id for e in own),
        first.source.dataset,
        first.source.config,
        tuple(e.origin.template for e in own),
        first.source.licence,
        first.source.split,
    )


def about(example: Example) -> str:
    """Return the sentence of the passage that the task is about, on one line, or "".

    It is the one that shares most content words with instruction and response, two at least (chosen: one
    word in common says little); what the passage leaves open is about none.
    """
    kind = get(example.task)
    if not kind.about_a_sentence:
        return ""
    if isinstance(kind, LabelType) and kind.meaning(example.response) == 2:
        return ""
    said = content(f"{example.instruction.replace(PLACEHOLDER, ' ')} {example.response}")
    found = [s for s in sentences(example.context) if 5 <= len(words(s)) <= 40]
    best = max(found, key=lambda s: (len(content(s) & said), -len(s)), default="")
    return one_line(best) if len(content(best) & said) >= 2 else ""


def counts(rows: Iterable[CtgaRow]) -> dict[str, Counter[str]]:
    """Return the realised counts of rows by task type, dataset, licence and attribute."""
    found: dict[str, Counter[str]] = {k: Counter() for k in ("task", "dataset", "licence", "attribute")}
    for row in rows:
        found["task"][row.task] += 1
        found["dataset"][row.dataset] += 1
        found["licence"][row.licence] += 1
        found["attribute"].update(row.attributes)
    return found
