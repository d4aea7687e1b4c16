"""Label sets: what a label may be called, how a reply is read as one, and the base of the label types.

A label type lists `meanings`, one tuple of names per meaning, and `surfaces`, the label sets it may
show. "True", "yes." and "Entailment" are then one meaning, written as the set in force writes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

from taskmill.record import Document, Example, Reason, draw
from taskmill.render import fill
from taskmill.tasks.base import Ask, Attributes, Draft, Rejected, TaskType
from taskmill.tasks.passage import WORD, words
from taskmill.tasks.rules import clean, in_label_set, needs_context

__all__ = [
    "LabelType",
    "Meanings",
    "choose",
    "enumerate_labels",
    "label_fields",
    "options_in",
    "plain_yes_no",
]

Meanings = tuple[tuple[str, ...], ...]
# Yes, no and maybe in other languages than English, as their speakers write them.
_FOREIGN = (
    ("Ja", "Nein", "Vielleicht"),
    ("Ja", "Nee", "Misschien"),
    ("Oui", "Non", "Peut-être"),
    ("Sí", "No", "Quizás"),
    ("Sì", "No", "Forse"),
    ("Sim", "Não", "Talvez"),
    ("Да", "Нет", "Возможно"),
    ("是", "否", "可能"),
    ("是", "不是", "也许"),
    ("是的", "不是", "也许"),
    ("はい", "いいえ", "たぶん"),
    ("예", "아니요", "아마도"),
    ("네", "아니요", "아마도"),
    ("نعم", "لا", "ربما"),
    ("Evet", "Hayır", "Belki"),
    ("Tak", "Nie", "Może"),
    ("हाँ", "नहीं", "शायद"),
)
_NOT = frozenset(("not", "never", "neither", "nor", "cannot", "t"))  # words() splits "isn't"
_BULLET = re.compile(r"^\s*(?:[-*•]\s+|\(?[A-Ha-h1-9][.):]\s*|\([A-Ha-h1-9]\)\s*)(\S.*)$", re.M)
_LETTER = re.compile(r"(?:(?<=\s)|^)(?:\(([A-Ha-h])\)|([A-Ha-h])[.)])\s+", re.M)
_LISTED = re.compile(
    r"(?:options|choices|choose (?:from|between|one of)|labels|categories)[^:：\n]*[:：]\s*([^\n]+)", re.I
)
_PLAIN_LIST = re.compile(
    r"\b(?:options|choices|labels|categories|topics|classes|answers) (?:are|include)\b[:：\s-]*"
    r"([^\n.?!:：]+)",
    re.I,
)
_SEPARATOR = re.compile(r"\s*(?:[,;/|、，؛،]|\b(?:or|and|oder|und|ou|et)\b)\s*")
# An item holds no comma, so that each text is split in one way only; bounded, to stay linear.
_LIST_OR = re.compile(
    r"((?:[^,.?!:;\n]{1,40},){0,12}[^,.?!:;\n]{1,40}?),? or ([^,.?!:;\n]{1,40})[?.:!]?\s*$", re.M
)
_OR = r"[,，،]?\s+(?:or|oder|ou|of|o|u|или|أو|veya|eller|lub|atau)\s+|還是|还是|或者|或是|或|または|それとも"
_BREAK = r",.?!:;\n，、،。？！：；؟؛（）()"
_ANY_LIST = re.compile(
    rf"((?:[^{_BREAK}]{{1,40}}[,，、،]){{0,12}}[^{_BREAK}]{{1,40}}?)(?:{_OR})([^{_BREAK}]{{1,40}})"
)
_AROUND = " \t\"'“”«»‘’*_"
_COMMA = re.compile(r"\s*[,，、،]\s*")


def fold(text: str) -> str:
    """Return the lower-cased words joined by spaces: how labels are compared."""
    return " ".join(words(text.replace("_", " ")))


def foreign(reply: str) -> tuple[str, ...]:
    """Return yes, no and maybe in the other language of which the reply is one word, or ()."""
    said = fold(reply)
    return next((row for row in _FOREIGN if said in map(fold, row)), ())


def plain_yes_no(reply: str) -> int | None:
    """Return 0 for a bare yes, 1 for a no, 2 for a maybe in any language known here, else None."""
    said = fold(reply)
    for row in (("Yes", "No", "Maybe"), *_FOREIGN):
        if said in map(fold, row):
            return [fold(word) for word in row].index(said)
    return None


@lru_cache(maxsize=512)
def _table(labels: tuple[str, ...], meanings: Meanings) -> tuple[dict[str, int], int]:
    """Return {folded name: index into labels} and the number of words of the longest name."""
    table = {fold(label): i for i, label in enumerate(labels)}
    for names in meanings:
        folded = [fold(name) for name in names]
        known = next((table[name] for name in folded if name in table), None)
        if known is not None:
            for name in folded:
                table.setdefault(name, known)
    table.pop("", None)
    return table, max((name.count(" ") + 1 for name in table), default=1)


def choose(reply: str, labels: tuple[str, ...], meanings: Meanings = ()) -> int | None:
    """Return the index of the label a reply states, or None.

    Read in this order: the whole reply; its first words ("Yes, because …"), unless the next words
    name another label; in a reply of at most 25 words, the only label it mentions, unless it is negated.
    """
    table, longest = _table(labels, meanings)
    # Only the beginning of a reply can state a label.
    folded = fold(reply[:400])
    if folded in table:
        return table[folded]
    tokens = folded.split(" ")
    hits, at = [], 0
    while at < min(len(tokens), 25):
        size = next((n for n in range(longest, 0, -1) if " ".join(tokens[at : at + n]) in table), 0)
        if size:
            hits.append((at, table[" ".join(tokens[at : at + size])]))
        at += size or 1
    if not hits:
        return None
    first, label = hits[0]
    if first == 0:
        return None if any(i != label for at, i in hits if at < 5) else label
    if len(tokens) > 25 or len({i for _, i in hits}) > 1 or _NOT & set(tokens):
        return None
    return label


def options_in(instruction: str) -> tuple[str, ...]:
    """Return the options an instruction lists: bullets, letters, "Options: a, b" or "a, b or c?"."""
    text = fill(instruction, "\n")
    bullets = [b.strip() for b in _BULLET.findall(text)]
    inline = _lettered(text)
    if max(len(bullets), len(inline)) > 1:
        return tuple(bullets) if len(bullets) >= len(inline) else inline
    listed = _PLAIN_LIST.search(text) or _LISTED.search(text)
    if listed:
        items = [i.strip(" .?!\"'") for i in _SEPARATOR.split(listed[1])]
        items = [i for i in items if i]
        if len(items) > 1:
            return tuple(items)
    enumeration = _LIST_OR.search(text)
    if enumeration:
        head = [i.strip(" \"'") for i in enumeration[1].split(",")]
        return tuple(i for i in [*head, enumeration[2].strip(" \"'")] if i)
    return ()


def _lettered(text: str) -> tuple[str, ...]:
    """Return the options behind the letters A, B, C … in one line or several."""
    found: list[str] = []
    marks = list(_LETTER.finditer(text))
    for i, mark in enumerate(marks):
        if (mark[1] or mark[2]).upper() != "ABCDEFGH"[len(found) : len(found) + 1]:
            continue
        end = marks[i + 1].start() if i + 1 < len(marks) else len(text)
        # What follows in the next line is no part of an option.
        option = text[mark.end() : end].partition("\n")[0].strip(" ,;")
        if option:
            found.append(option)
    return tuple(found)


def enumerations(instruction: str, response: str) -> Iterator[tuple[str, ...]]:
    """Yield the lists "a, b or c" of an instruction in any language, without the words before the first.

    The first item keeps the words of the response if it ends in them, else as many as the others have.
    """
    for found in _ANY_LIST.finditer(fill(instruction, "\n")):
        head = [item.strip(_AROUND) for item in _COMMA.split(found[1])]
        others = [item for item in [*head[1:], found[2].strip(_AROUND)] if item]
        if not others or not head[0]:
            continue
        if f" {fold(head[0])}".endswith(f" {fold(response)}"):
            size = len(words(response))
        else:
            size = max(len(words(item)) for item in others)
        starts = [m.start() for m in WORD.finditer(head[0])]
        ends = [head[0][start:] for start in starts[::-1][: max(size, 0)]]
        # A known yes or no is the item whatever the length of the others.
        known = next((end for end in ends if plain_yes_no(end) is not None), "")
        yield (known or (ends[-1] if len(ends) == size else head[0]), *others)


def enumerate_labels(labels: tuple[str, ...]) -> str:
    """Write a label set as prose: "Yes, No or Maybe"."""
    return " or ".join([", ".join(labels[:-1]), labels[-1]]) if len(labels) > 1 else "".join(labels)


class LabelType(TaskType):
    """Base of the task types whose response is a label.

    `meanings` and `surfaces` run in the same order of meanings; `labels` is the first surface.
    Asks draw from the first `drawn_surfaces`; the others are only recognised.
    """

    meanings: Meanings = ()
    surfaces: tuple[tuple[str, ...], ...] = ()
    drawn_surfaces: int | None = None
    metric = "accuracy"
    max_tokens = 64

    def draw_label(
        self, document: Document, seed: int, sample: int, attributes: Attributes
    ) -> tuple[tuple[str, ...], int]:
        """Draw a label set (the user's own, else one of `surfaces`) and the index of a label in it."""
        number = draw(seed, document.id, f"{self.name} labels {sample}")
        shown = self.surfaces[: self.drawn_surfaces]
        labels = attributes.labels or shown[number % len(shown)]
        return labels, self.draw_index(document, seed, sample, len(labels))

    def draw_index(self, document: Document, seed: int, sample: int, count: int) -> int:
        """Draw the index of one of `count` labels; successive samples take turns, so that labels balance."""
        return (draw(seed, document.id, f"{self.name} label") + sample) % count

    balanced: bool = True
    """Whether the label is free to choose, so that labels can be made to balance (a topic's is not)."""

    def aim(
        self, document: Document, seed: int, sample: int, attributes: Attributes
    ) -> Mapping[str, str] | Rejected:
        """Draw the sentence, the label set and, where the label is the writer's to choose, the label."""
        drawn = super().aim(document, seed, sample, attributes)
        if isinstance(drawn, Rejected) or not (attributes.guided and self.balanced) or attributes.count > 1:
            return drawn
        labels, index = self.draw_label(document, seed, sample, attributes)
        if index == 2:  # the third label, whatever its name: left open, so in no sentence of the passage
            drawn = {}
        return {**label_fields(labels, index), **drawn}

    def known(self, ask: Ask) -> Mapping[str, str]:
        """Return what was drawn, and the label set as prose."""
        labels = ask.attributes.labels
        return {**ask.fields, "labels": enumerate_labels(labels)} if labels else ask.fields

    def choices(self, instruction: str, ask: Ask) -> tuple[str, ...]:
        """Return the label set in force: the ask's, else the one the instruction names."""
        if ask.attributes.labels:
            return ask.attributes.labels
        named = (self.named_labels(instruction, label) for surface in self.surfaces for label in surface)
        return next((labels for labels in named if labels), ())

    def labelled(self, ask: Ask, labels: tuple[str, ...], index: int, raw: str = "", **slots: str) -> Draft:
        """Make the Draft: options are the label set, the response is the label, `raw` what the model said."""
        instruction, template = self.instruction(ask, labels=enumerate_labels(labels), **slots)
        kept = {"response": raw} if raw and raw != labels[index] else {}
        return Draft(instruction, labels[index], labels, index, template=template, raw=kept)

    def read(self, instruction: str, response: str, ask: Ask) -> Draft | Rejected:
        """Find the label set in a free-form instruction and the response's place in it."""
        labels = ask.attributes.labels or self.labels_in(instruction, response)
        return self.placed(instruction, response, labels)

    def placed(self, instruction: str, response: str, labels: tuple[str, ...]) -> Draft | Rejected:
        """Make the Draft of a response that states one of the labels, in the label's spelling."""
        index = choose(response, labels, self.meanings)
        if index is None:
            return Rejected(Reason.OFF_LABEL, f"{response[:40]!r} is none of {', '.join(labels)}")
        kept = {"response": response} if response != labels[index] else {}
        return Draft(instruction, labels[index], labels, index, template="model", raw=kept)

    def labels_in(self, instruction: str, response: str) -> tuple[str, ...]:
        """Return the label set a free-form instruction names, else the surface the response is of.

        Without a named set, yes, no and maybe of another language stay in that language.
        """
        named = self.named_labels(instruction, response)
        if named:
            return named
        other = foreign(response) if "Yes" in self.labels else ()
        if other and choose(response, self.labels) is None:
            other = other[: len(self.labels)]
            return tuple(label.lower() for label in other) if response.islower() else other
        return next((s for s in self.surfaces if choose(response, s) is not None), self.labels)

    def named_labels(self, instruction: str, response: str) -> tuple[str, ...]:
        """Return the label set that a free-form instruction names and the response is of, or ()."""
        named = " ".join(words(fill(instruction, "\n").replace("_", " ")))
        for surface in sorted(self.surfaces, key=len, reverse=True):
            if all(f" {fold(label)} " in f" {named} " for label in surface):
                return surface
        said = fold(response)
        for listed in enumerations(instruction, response):
            if said in map(fold, listed):
                return listed
        listed = options_in(instruction)
        if len(listed) > 1 and choose(response, listed, self.meanings) is not None:
            return listed
        return ()

    def meaning(self, label: str) -> int | None:
        """Return the index of the label's meaning in `labels`, whatever surface or language it is in."""
        index = choose(label, self.labels, self.meanings)
        if index is None and "Yes" in self.labels:
            index = plain_yes_no(label)
        return index

    def check(self, example: Example) -> Rejected | None:
        """The instruction quotes the passage and the response is one of the labels."""
        return clean(example) or needs_context(example) or in_label_set(example)

    def grade(self, prediction: str, example: Example) -> float:
        """Accuracy: 1.0 if the prediction states the right label."""
        labels = example.options or self.labels
        right = example.answer_index if example.options else choose(example.response, labels, self.meanings)
        said = choose(prediction, labels, self.meanings)
        if said is None and foreign(labels[0]):
            said = self.meaning(prediction)
        return float(right is not None and said == right)


def label_fields(labels: tuple[str, ...], index: int, **more: str) -> Mapping[str, str]:
    """Return drawn fields that hold a label set: one string per name, the set joined by line ends."""
    return {"label": labels[index], "label_set": "\n".join(labels), **more}
