"""Label sets: what a label may be called, how a reply is read as one, and the base of the label types.

A label type lists `meanings`, one tuple of names per meaning, and `surfaces`, the label sets it may
show. "True", "yes." and "Entailment" are then one meaning, written as the set in force writes it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from taskmill.record import Document, Example, Reason, draw
from taskmill.render import fill
from taskmill.tasks.base import Ask, Attributes, Draft, Rejected, TaskType
from taskmill.tasks.passage import words
from taskmill.tasks.rules import clean, in_label_set, needs_context

__all__ = ["LabelType", "Meanings", "choose", "enumerate_labels", "label_fields", "options_in", "plain_yes_no"]

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
_LISTED = re.compile(
    r"(?:options|choices|choose (?:from|between|one of)|labels|categories)[^:：\n]*[:：]\s*([^\n]+)", re.I
)
_SEPARATOR = re.compile(r"\s*(?:[,;/|、，؛]|\bor\b|\band\b)\s*")
_LIST_OR = re.compile(
    r"((?:[^,.?!:;\n]{1,40}, ?)*[^,.?!:;\n]{1,40}?),? or ([^,.?!:;\n]{1,40})[?.:!]?\s*$", re.M
)


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
    """Return the options an instruction lists: bullets, lettered lines, "Options: a, b" or "a, b or c?"."""
    text = fill(instruction, "\n")
    bullets = [b.strip() for b in _BULLET.findall(text)]
    if len(bullets) > 1:
        return tuple(bullets)
    listed = _LISTED.search(text)
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

    def labelled(self, ask: Ask, labels: tuple[str, ...], index: int, raw: str = "", **slots: str) -> Draft:
        """Make the Draft: options are the label set, the response is the label, `raw` what the model said."""
        instruction, template = self.instruction(ask, labels=enumerate_labels(labels), **slots)
        kept = {"response": raw} if raw and raw != labels[index] else {}
        return Draft(instruction, labels[index], labels, index, template=template, raw=kept)

    def read(self, instruction: str, response: str, ask: Ask) -> Draft | Rejected:
        """Find the label set in a free-form instruction and the response's place in it."""
        labels = ask.attributes.labels or self.labels_in(instruction, response)
        index = choose(response, labels, self.meanings)
        if index is None:
            return Rejected(Reason.OFF_LABEL, f"{response[:40]!r} is none of {', '.join(labels)}")
        kept = {"response": response} if response != labels[index] else {}
        return Draft(instruction, labels[index], labels, index, template="model", raw=kept)

    def labels_in(self, instruction: str, response: str) -> tuple[str, ...]:
        """Return the label set a free-form instruction names, else the surface the response is of."""
        named = " ".join(words(fill(instruction, "\n").replace("_", " ")))
        for surface in self.surfaces:
            if all(f" {fold(label)} " in f" {named} " for label in surface):
                return surface
        listed = options_in(instruction)
        if len(listed) > 1 and choose(response, listed, self.meanings) is not None:
            return listed
        return next((s for s in self.surfaces if choose(response, s) is not None), self.labels)

    def check(self, example: Example) -> Rejected | None:
        """The instruction quotes the passage and the response is one of the labels."""
        return clean(example) or needs_context(example) or in_label_set(example)

    def grade(self, prediction: str, example: Example) -> float:
        """Accuracy: 1.0 if the prediction states the right label."""
        labels = example.options or self.labels
        right = example.answer_index if example.options else choose(example.response, labels, self.meanings)
        return float(right is not None and choose(prediction, labels, self.meanings) == right)


def label_fields(labels: tuple[str, ...], index: int, **more: str) -> Mapping[str, str]:
    """Return drawn fields that hold a label set: one string per name, the set joined by line ends."""
    return {"label": labels[index], "label_set": "\n".join(labels), **more}
