"""What an instruction can be: the contract of a task type and the code all of them share.

A task type knows its whole life: `ask` a generator for an example about a passage, `parse` the reply
into drafts, `check` a finished example, `grade` somebody's answer to it. Most task types only write
`build` (reply parts → Draft), `check`, `grade` and `sample`; `ask` and `parse` speak both protocols:

- *bonito*: the wire prompt; the reply is instruction, the line `<|pipe|>`, response.
- *bonito-attributes*: for generators of our own. The passage stands first, attribute lines (sentence to ask
  about, label set, answer to aim at, language, number of tasks) follow the task type; several tasks in a
  reply are separated by `<|task|>`.
- *chat*: a prompt of our own wording (`templates/tasks.yaml`); the reply is JSON or labelled lines
  (`Question: …` / `Answer: …`), with or without Markdown fences.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from taskmill.calls import Message
from taskmill.record import Document, Example, Reason, draw
from taskmill.render import (
    PIPE_MARKER,
    PLACEHOLDER,
    SLOT,
    TASK_MARKER,
    attributes_prompt,
    attributes_text,
    bonito_prompt,
    escape,
    has_marker,
    has_placeholder,
    unescape,
)
from taskmill.tasks.passage import draw_sentence, is_english, turned_start
from taskmill.tasks.reply import has_scrap, parse_reply, without_thoughts
from taskmill.templates import words

__all__ = [
    "Ask",
    "Attributes",
    "Draft",
    "Rejected",
    "TaskType",
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
    `instruction` what a first call wrote, where this one asks for the response only. A trained generator's
    reply may be begun for it: `opening` stands at the end of the prompt and belongs to the reply, and
    `closing` is what follows the one part it writes (empty: it writes the rest itself).
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
    opening: str = ""
    closing: str = ""


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


_SLOT = re.compile(SLOT)


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
    about_a_sentence: bool = False
    """Whether a task is about one sentence of the passage, which a trained generator can be given."""
    turns_a_sentence: bool = False
    """Whether it says that sentence in other words: a small model copies it unless it begins otherwise."""
    answers_apart: bool = False
    """Whether a trained generator writes the response in a call of its own unless told otherwise."""

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
        if isinstance(fields, Rejected):
            return fields
        labels = fields["label_set"].split("\n") if "label_set" in fields else attributes.labels
        lines = attributes_text(
            labels=labels,
            answer=fields.get("label", ""),
            language=attributes.language,
            tasks=attributes.count,
            sentence=fields.get("sentence", ""),
        )
        prompt = attributes_prompt(self.title, document.text, lines)
        if labels:
            attributes = replace(attributes, labels=tuple(labels))
        ask = Ask(
            self.name,
            "bonito-attributes",
            document,
            prompt,
            max_tokens=256 * attributes.count,
            fields=fields,
            attributes=attributes,
            template="bonito-attributes",
            seed=seed,
        )
        return self._begin(ask, draw(seed, document.id, f"{self.name} wording {sample}"))

    def known(self, ask: Ask) -> Mapping[str, str]:
        """Return the slots of the wordings that are known before the generator writes."""
        return ask.fields

    def _begin(self, ask: Ask, choice: int) -> Ask:
        """Begin the reply: the words of a wording drawn for the request, up to what is not known yet.

        What the generator need not write costs nothing, cannot be written wrongly, and the wordings balance.
        Where one slot is left and the label or the right option is drawn, the reply ends with it.
        """
        if not ask.attributes.guided or ask.attributes.count > 1 or ask.attributes.language:
            return ask
        known = {name: escape(text) for name, text in self.known(ask).items()}
        begun = words.begun(self.name, choice, known)
        if begun is None:
            return ask
        opening, rest, template = begun
        stop: tuple[str, ...] = ()
        closing = ""
        if rest is None:
            opening = f"{opening}\n{PIPE_MARKER}\n"
        elif (response := ask.fields.get("label") or ask.fields.get("response")) and rest[:1] in ("", "\n"):
            stop, closing = ("\n",), f"{rest}\n{PIPE_MARKER}\n{escape(response)}"
        opening += ask.fields.get("begins", "")
        # The space before a word belongs to the word's token, so the prompt ends without it.
        prompt = ask.prompt + opening.rstrip(" ")
        return replace(ask, prompt=prompt, opening=opening, stop=stop, closing=closing, template=template)

    def choices(self, instruction: str, ask: Ask) -> tuple[str, ...]:
        """Return the responses a finished instruction leaves open, () where they are not a closed set."""
        del instruction, ask
        return ()

    def grammar(self, instruction: str, ask: Ask) -> str:
        """Return the grammar of the responses to a finished instruction, "" where there is none."""
        del instruction, ask
        return ""

    def aim(
        self, document: Document, seed: int, sample: int, attributes: Attributes
    ) -> Mapping[str, str] | Rejected:
        """Return what a trained generator is to aim at: a sentence of the passage, a label set, a label.

        `begins` is the word that what it writes begins with.
        """
        if not self.about_a_sentence or not attributes.guided or attributes.count > 1:
            return {}
        turns = self.turns_a_sentence and is_english(document)
        suits = turned_start if turns else None
        sentence = draw_sentence(document, seed, sample, f"{self.name} sentence", suits)
        if not sentence:
            missing = Rejected(Reason.NOT_APPLICABLE, "the passage holds no full sentence")
            return missing if self.turns_a_sentence else {}
        begins = turned_start(sentence) if turns else ""
        if turns and not begins:  # the replies would be copies
            return Rejected(
                Reason.NOT_APPLICABLE, "no sentence of the passage can begin with its last phrase"
            )
        return {"sentence": sentence, **({"begins": begins} if begins else {})}

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
        parts = text.split(PIPE_MARKER)
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
