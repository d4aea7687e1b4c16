"""What an instruction can be: the contract of a task type and the code all of them share.

A task type knows its whole life: `ask` a generator for an example about a passage, `parse` the reply
into drafts, `check` a finished example, `grade` somebody's answer to it. Most task types only write
`build` (reply parts → Draft), `check`, `grade` and `sample`; `ask` and `parse` speak both protocols:

- *bonito*: the wire prompt; the reply is instruction, the line `<|pipe|>`, response.
- *bonito-attributes*: the same with attribute lines (label set, answer to aim at, language, number of
  tasks) for generators trained on them; several tasks in a reply are separated by `<|task|>`.
- *chat*: a prompt of our own wording (`templates/tasks.yaml`); the reply is JSON or labelled lines
  (`Question: …` / `Answer: …`), with or without Markdown fences.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from taskmill.calls import Message
from taskmill.record import Document, Example, Reason, draw
from taskmill.render import (
    PLACEHOLDER,
    TASK_MARKER,
    attributes_text,
    bonito_prompt,
    escape,
    has_marker,
    has_placeholder,
    unescape,
)
from taskmill.templates import words

__all__ = [
    "Ask",
    "Attributes",
    "Draft",
    "Rejected",
    "TaskType",
    "first_line",
    "has_scrap",
    "parse_reply",
    "without_thoughts",
]


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a user may set for a task type: own `labels`, the answer's `language`, tasks per reply.

    `guided` draws the answer or the opening words for the model where the type knows how: it helps
    models of a few hundred million parameters and narrows what larger ones write.
    """

    labels: tuple[str, ...] = ()
    language: str = ""
    count: int = 1
    guided: bool = True


@dataclass(frozen=True, slots=True)
class Ask:
    """One question put to a generator: the rendered prompt and what `parse` needs to read the reply.

    `fields` holds what was drawn for this request (a label, a sentence, a word …), by name;
    `instruction` what a first call wrote, where this one asks for the response only.
    """

    task: str
    protocol: str
    document: Document
    prompt: str = ""
    messages: tuple[Message, ...] = ()
    stop: tuple[str, ...] = ()
    max_tokens: int = 256
    fields: Mapping[str, str] = field(default_factory=dict)
    attributes: Attributes = Attributes()
    template: str = ""
    seed: int = 0
    instruction: str = ""


@dataclass(frozen=True, slots=True)
class Draft:
    """The parts of an example that come out of a reply; `raw` keeps what a repair changed."""

    instruction: str
    response: str
    options: tuple[str, ...] = ()
    answer_index: int | None = None
    rationale: str = ""
    template: str = ""
    raw: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rejected:
    """Why a reply or an example is not kept: a code of the closed set and one sentence of evidence."""

    reason: Reason
    detail: str = ""


_SLOT = re.compile(r"\{\{\s*context\s*\}\}")
_LINE = re.compile(
    r"^\s*(?:\d+[.)]\s*)?[*_#\s]*([A-Za-z][A-Za-z ]{0,24}?)\s*\d*[*_]*\s*[:：]\s*[*_]*\s*(.*)$"
)
_NUMBERED = re.compile(r"^\s*\d{1,2}[.)]\s+(?=\S)", re.MULTILINE)
_SHORT = {"q": "question", "a": "answer"}
_THOUGHTS = re.compile(r"^.*</think(?:ing)?>", re.I | re.S)
_THOUGHT = re.compile(r"</?think(?:ing)?>", re.I)
_SCRAP = re.compile(r"""\{\s*["'][^"'\n]{1,40}["']\s*:|"[\w ]{1,24}"\s*:\s*["\[{]""")
_JSON_START = re.compile(r"\[\s*\{|\{")
_TRIES = 16  # places where JSON may start; chosen: a reply holds one object or a short list
_DECODER = json.JSONDecoder(strict=False)  # line ends inside strings are common


def without_thoughts(text: str) -> str | None:
    """Return the reply without what stands up to its last `</think>`; None if a thought is not closed."""
    text = _THOUGHTS.sub("", text)
    return None if _THOUGHT.search(text) else text


def has_scrap(text: str, passage: str = "") -> str:
    """Return a piece of JSON or a thinking tag that is left in the text and not the passage's, or ""."""
    for pattern in (_THOUGHT, _SCRAP):
        for found in pattern.finditer(text):
            if found[0] not in passage:
                return found[0]
    return ""


def parse_reply(text: str, names: Sequence[str]) -> list[dict[str, str]]:
    """Read a chat reply into one dict per task, keyed by lower-case part names.

    Accepts JSON objects that hold the first name, with any text around, or labelled lines; strips
    thoughts in `<think>` tags (a thought without an end leaves nothing) and a Markdown fence. A part
    runs until the next label; the first name seen again starts the next task. Text before the first
    label belongs to the first name, because the prompt ends with that label; if that name follows as
    a label, the text was only a preamble. A task of one part may also come as a numbered list.
    """
    text = without_thoughts(text) or ""
    rows = _json_rows(text, names)
    if rows:
        return [{_key(k): _flat(v) for k, v in r.items()} for r in rows]
    body = _unfenced(text).strip()
    found: list[dict[str, list[str]]] = [{}]
    current, preamble = names[0], True
    for line in body.split("\n"):
        labelled = _LINE.match(line)
        label = _SHORT.get(labelled[1].lower(), labelled[1].lower()) if labelled else ""
        if labelled and label in names:
            current, line = label, labelled[2]
            if current == names[0] and names[0] in found[-1]:
                if preamble:
                    found.pop()
                found.append({})
            preamble = False
        found[-1].setdefault(current, []).append(line)
    if preamble and len(names) == 1:
        items = [item.strip() for item in _NUMBERED.split(body)]
        if len(items) > 2:
            return [{names[0]: item} for item in items[not items[0] or items[0].endswith(":") :]]
    return [{k: "\n".join(v).strip() for k, v in parts.items()} for parts in found]


def _unfenced(text: str) -> str:
    """Return what stands in the first Markdown fence, or the text itself."""
    _, fence, inside = text.partition("```")
    if not fence:
        return text
    # The fence's first line names a language; what follows the closing fence is chatter.
    _, _, inside = inside.partition("\n")
    inside = inside.partition("```")[0]
    return inside if inside.strip() else text.replace("```", "")


def _json_rows(text: str, names: Sequence[str]) -> list[dict[str, object]]:
    """Return the objects with the task's first part in the text: one, several or a list of them."""
    rows: list[dict[str, object]] = []
    at = 0
    for _ in range(_TRIES):
        start = _JSON_START.search(text, at)
        if not start:
            break
        try:
            loaded, at = _DECODER.raw_decode(text, start.start())
        except (ValueError, RecursionError):
            at = start.start() + 1
            continue
        # A list or object under a single key is what the key names.
        while isinstance(loaded, dict) and len(loaded) == 1 and not _named(loaded, names):
            (loaded,) = loaded.values()
        found = loaded if isinstance(loaded, list) else [loaded]
        rows += [row for row in found if isinstance(row, dict) and _named(row, names)]
    return rows


def _named(row: Mapping[str, object], names: Sequence[str]) -> bool:
    return any(_key(key) == names[0] for key in row)


def _key(key: str) -> str:
    name = key.lower().strip()
    return _SHORT.get(name, name)


def first_line(text: str) -> str:
    """Return the first line that says something, without Markdown around it.

    A first line that ends in a colon only introduces the reply ("Here is a question:") and is skipped.
    """
    lines = [line for line in (raw.strip(" \t*_#>`-") for raw in text.split("\n")) if line.strip(".… ")]
    if len(lines) > 1 and lines[0][-1] in ":：":
        del lines[0]
    line = lines[0] if lines else ""
    return line[1:-1].strip() if len(line) > 2 and line[0] + line[-1] in ('""', "“”", "''") else line


def _flat(value: object) -> str:
    if isinstance(value, dict):  # options by letter
        return "\n".join(f"{k}) {v}" for k, v in value.items())
    if isinstance(value, list):
        return "\n".join(_flat(v) for v in value)
    return "" if value is None else str(value).strip()


def quote_passage(instruction: str, passage: str) -> str:
    """Return the instruction with one spelling of the placeholder, put in where the passage is pasted."""
    if has_placeholder(instruction):
        return _SLOT.sub(PLACEHOLDER, instruction)
    pasted = escape(passage)
    # Chosen: a passage under 20 characters is likelier a word of the instruction than a quotation.
    return instruction.replace(pasted, PLACEHOLDER, 1) if len(passage) >= 20 else instruction


class TaskType:
    """One kind of task. Subclasses set the class attributes and write `build`, `check`, `grade`, `sample`.

    Attributes:
        name: short name (`exqa`). title: the full name on Bonito's wire.
        parts: names of the reply's parts in the chat protocol, in order, lower case.
        max_tokens: bound on one reply. metric: name of what `grade` returns.
    """

    name: str = ""
    title: str = ""
    parts: tuple[str, ...] = ("question", "answer")
    labels: tuple[str, ...] = ()
    metric: str = "f1"
    max_tokens: int = 128

    # asking

    def draw(
        self, document: Document, seed: int, sample: int, attributes: Attributes
    ) -> Mapping[str, str] | Rejected:
        """Return what the prompt needs beyond the passage, drawn from (seed, document, sample)."""
        del document, seed, sample, attributes
        return {}

    def ask(
        self,
        document: Document,
        protocol: str = "chat",
        *,
        seed: int = 0,
        sample: int = 0,
        attributes: Attributes | None = None,
    ) -> Ask | Rejected:
        """Return the question to put to a generator, or why this passage does not suit the task type."""
        attributes = attributes or Attributes()
        if protocol == "bonito":
            prompt = bonito_prompt(self.title, document.text)
            return Ask(
                self.name, protocol, document, prompt, attributes=attributes, template="bonito-v1", seed=seed
            )
        if protocol == "bonito-attributes":
            return self._ask_with_attributes(document, seed, sample, attributes)
        fields = self.draw(document, seed, sample, attributes)
        if isinstance(fields, Rejected):
            return fields
        text, template = words.ask(self.name, document, fields, attributes, self.label_set(attributes))
        tokens = self.max_tokens * attributes.count
        messages = (("user", text),)
        return Ask(
            self.name, protocol, document, "", messages, (), tokens, fields, attributes, template, seed
        )

    def _ask_with_attributes(
        self, document: Document, seed: int, sample: int, attributes: Attributes
    ) -> Ask | Rejected:
        fields = self.aim(document, seed, sample, attributes)
        labels = fields["label_set"].split("\n") if "label_set" in fields else attributes.labels
        lines = attributes_text(
            labels=labels,
            answer=fields.get("label", ""),
            language=attributes.language,
            tasks=attributes.count,
        )
        prompt = bonito_prompt(self.title, document.text, lines)
        if labels:
            attributes = replace(attributes, labels=tuple(labels))
        return Ask(
            self.name,
            "bonito-attributes",
            document,
            prompt,
            max_tokens=256 * attributes.count,
            attributes=attributes,
            template="bonito-attributes",
            seed=seed,
        )

    def choices(self, instruction: str, ask: Ask) -> tuple[str, ...]:
        """Return the responses a finished instruction leaves open, () where they are not a closed set."""
        del instruction, ask
        return ()

    def aim(self, document: Document, seed: int, sample: int, attributes: Attributes) -> Mapping[str, str]:
        """Return the label set and the label a trained generator is to aim at, or nothing."""
        del document, seed, sample, attributes
        return {}

    def drawn(self, ask: Ask) -> Mapping[str, str] | Rejected:
        """Return the fields drawn for the ask, or what `draw` says again if there are none."""
        return ask.fields or self.draw(ask.document, ask.seed, 0, ask.attributes)

    def label_set(self, attributes: Attributes) -> tuple[str, ...]:
        """Return the labels in force: the user's own, else the task type's."""
        return attributes.labels or self.labels

    # reading the reply

    def parse(self, text: str, ask: Ask) -> list[Draft | Rejected]:
        """Turn a reply into drafts, one per task found in it; what cannot be read is Rejected."""
        if not text.strip():
            return [Rejected(Reason.EMPTY_REPLY, "the model wrote nothing")]
        if ask.protocol == "bonito":
            return [self._parse_bonito(text, ask)]
        if ask.protocol == "bonito-attributes":
            return [self._parse_bonito(t, ask) for t in text.split(TASK_MARKER)[: ask.attributes.count]]
        said = without_thoughts(text)
        if said is None:
            return [Rejected(Reason.TRUNCATED, "the reply ends inside a <think> part")]
        if not said.strip():
            return [Rejected(Reason.EMPTY_REPLY, "the model wrote nothing but thoughts")]
        replies = parse_reply(said, self.parts)[: ask.attributes.count]
        return [self._build(reply, ask) for reply in replies]

    def _build(self, reply: Mapping[str, str], ask: Ask) -> Draft | Rejected:
        for name in self.parts:
            scrap = has_scrap(reply.get(name, ""), ask.document.text)
            if scrap:
                return Rejected(Reason.MALFORMED, f"the {name} holds broken JSON: {scrap!r}")
        return self.build(reply, ask)

    def _parse_bonito(self, text: str, ask: Ask) -> Draft | Rejected:
        parts = text.split("<|pipe|>")
        if len(parts) != 2:
            return Rejected(Reason.MALFORMED, f"{len(parts) - 1} <|pipe|> markers, expected one")
        instruction, response = parts[0].strip(), parts[1].strip()
        if not response:
            return Rejected(Reason.EMPTY_REPLY, "nothing after <|pipe|>")
        if has_marker(instruction) or has_marker(response):
            return Rejected(Reason.MARKER, "a wire marker inside the reply")
        passage = ask.document.text.strip()
        if has_placeholder(response):
            # Reversed task types put the passage in the response (10 of CTGA's 323 templates do).
            response = passage if _SLOT.fullmatch(response) else response
        draft = self.read(quote_passage(instruction, passage), unescape(response), ask)
        if isinstance(draft, Draft) and draft.instruction != instruction:
            draft = replace(draft, raw={**draft.raw, "instruction": instruction})
        return draft

    def read(self, instruction: str, response: str, ask: Ask) -> Draft | Rejected:
        """Make a Draft of a finished (instruction, response) pair, as a trained generator writes it."""
        del ask
        return Draft(instruction, response, template="model")

    def build(self, reply: Mapping[str, str], ask: Ask) -> Draft | Rejected:
        """Make a Draft of the parts of a chat reply."""
        raise NotImplementedError

    def instruction(self, ask: Ask, **slots: str) -> tuple[str, str]:
        """Return (instruction with the placeholder, template name#hash) in a wording drawn for the row.

        Slots are model- or user-written text and are escaped, so that a `{{context}}` inside them
        stays text.
        """
        safe = {k: escape(v) for k, v in slots.items()}
        choice = draw(ask.seed, ask.document.id + "\x1f".join(slots.values()), "wording")
        return words.instruction(self.name, choice, safe)

    # judging

    def check(self, example: Example) -> Rejected | None:
        """Return why the finished example is not a valid one of its type, or None."""
        raise NotImplementedError

    def grade(self, prediction: str, example: Example) -> float:
        """Score an answer to the example, 0 to 1, with the field's metric (`metric`)."""
        raise NotImplementedError

    def sample(self, ask: Ask) -> dict[str, str]:
        """Return the reply parts a flawless generator could give: what the echo backend says."""
        raise NotImplementedError
