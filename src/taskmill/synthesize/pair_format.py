"""The wire format of the published instruction synthesizer (Instruction Pre-Training, arXiv 2406.14491).

    <s> <CON> {text} </CON>

    <QUE> {question} <ANS> {answer} </END>

    <QUE> {question} <ANS> {answer} </END></s>

Examples stand one behind the other, and a new text without pairs at the end is the prompt. Tags are plain
text. In the user's text they are made harmless as special tokens are (`render.escape_special`), so that
`parse` takes back exactly what was rendered, whatever the text. Options and reasoning are spelled inside a
pair. The form is that of `instruction-pretrain/instruction-synthesizer` (its model card, and
`read_compre.py` of microsoft/LMOps); an empty text leaves the begin token alone there, and so it does here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from taskmill.record import Reason
from taskmill.render import escape_special, unescape_special
from taskmill.tasks.base import Rejected
from taskmill.tasks.passage import one_line

__all__ = [
    "BOS",
    "EOS",
    "PAIR_END",
    "TAGS",
    "Pair",
    "Shown",
    "parse",
    "prompt",
    "question_prompt",
    "read_answer",
    "read_reply",
    "render",
    "render_pairs",
    "render_parts",
    "split_options",
    "split_reasoning",
    "with_options",
    "with_reasoning",
]

BOS, EOS = "<s>", "</s>"
_OPEN, _CLOSE, _QUESTION, _ANSWER, _END = "<CON>", "</CON>", "<QUE>", "<ANS>", "</END>"
TAGS = (BOS, EOS, _OPEN, _CLOSE, _QUESTION, _ANSWER, _END)
_GAP = "\n\n"
PAIR_END = _END
_OPTIONS = "\nOptions:\n"
_TRIGGER = "\nLet's think step by step."
_CONCLUSION = "\nTherefore, the answer is "
_SHOWN = 80  # characters of a dropped piece that its evidence quotes


@dataclass(frozen=True, slots=True)
class Pair:
    """A question and its answer as they stand on the wire, options and reasoning spelled in them."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Shown:
    """A text with its pairs."""

    context: str
    pairs: tuple[Pair, ...] = ()


# text → wire


def render(examples: Sequence[Shown]) -> str:
    """Return examples one behind the other, each closed by the end token."""
    return "".join(part for part, _ in render_parts(examples))


def render_parts(examples: Sequence[Shown]) -> list[tuple[str, bool]]:
    """Return what `render` does in parts, each with whether a synthesizer learns it: pairs and their end."""
    found = []
    for example in examples:
        found += [(_context(example.context), False), (render_pairs(example.pairs) + EOS, True)]
    return found


def prompt(context: str, history: Sequence[Shown] = (), *, begin: bool = True) -> str:
    """Return the prompt for a text, behind examples of other texts.

    Without `begin` the first begin token is left out: for an engine that puts its own in front of a prompt.
    """
    text = render(history) + _context(context)
    return text if begin else text.removeprefix(BOS)


def question_prompt(context: str, question: str, before: Sequence[Pair] = (), *, begin: bool = True) -> str:
    """Return the prompt that asks for the answer to a question, behind `before`: other pairs of the text."""
    asked = f"{_QUESTION} {escape_special(question, TAGS)} {_ANSWER}"
    return prompt(context, begin=begin) + "".join(render_pairs([pair]) + _GAP for pair in before) + asked


def render_pairs(pairs: Sequence[Pair]) -> str:
    """Return pairs as the synthesizer writes them."""
    spelled = (
        f"{_QUESTION} {escape_special(p.question, TAGS)} {_ANSWER} {escape_special(p.answer, TAGS)} {_END}"
        for p in pairs
    )
    return _GAP.join(spelled)


def _context(text: str) -> str:
    return f"{BOS} {_OPEN} {escape_special(text, TAGS)} {_CLOSE}{_GAP}" if text else BOS


# wire → text


def parse(text: str) -> list[Shown]:
    """Return the examples of a rendered sequence; a piece that is no whole pair is left out."""
    found = []
    for example in text.split(EOS)[:-1]:
        body = example.removeprefix(BOS)
        context, close, behind = body.partition(_CLOSE)
        if close:
            context = unescape_special(_bare(context.lstrip(" ").removeprefix(_OPEN)), TAGS)
        else:
            context, behind = "", body
        found.append(Shown(context, tuple(p for p in _pieces(behind) if isinstance(p, Pair))))
    return found


def read_reply(text: str) -> tuple[list[Pair], list[Rejected]]:
    """Return the pairs of a synthesizer's reply in their order, and each piece that is none with its reason.

    White space around questions and answers goes. A question that was asked before, case aside, is dropped.
    """
    pairs, lost = [], []
    asked: set[str] = set()
    for piece in _pieces(text.partition(EOS)[0].partition(_OPEN)[0].removesuffix(BOS)):
        if isinstance(piece, Rejected):
            lost.append(piece)
            continue
        pair = Pair(piece.question.strip(), piece.answer.strip())
        if not pair.question or not pair.answer:
            lost.append(
                Rejected(Reason.EMPTY_REPLY, f"no {'answer' if pair.question else 'question'} in a pair")
            )
        elif pair.question.lower() in asked:
            lost.append(Rejected(Reason.DUPLICATE, f"asked before: {pair.question[:_SHOWN]!r}"))
        else:
            asked.add(pair.question.lower())
            pairs.append(pair)
    return pairs, lost


def read_answer(text: str) -> str:
    """Return the answer that a synthesizer wrote behind a question, "" for none."""
    return unescape_special(text.partition(_END)[0].partition(EOS)[0], TAGS).strip()


def _pieces(text: str) -> Iterator[Pair | Rejected]:
    *whole, tail = text.split(_END)
    for piece in whole:
        yield _pair(piece)
    if tail.strip():
        yield Rejected(Reason.TRUNCATED, f"the reply ends inside a pair: {tail.strip()[:_SHOWN]!r}")


def _pair(piece: str) -> Pair | Rejected:
    question, *answers = piece.lstrip().split(_ANSWER)
    if not question.startswith(_QUESTION) or len(answers) != 1 or question.count(_QUESTION) != 1:
        return Rejected(Reason.MALFORMED, f"no question with one answer: {piece.strip()[:_SHOWN]!r}")
    parts = (_bare(question.removeprefix(_QUESTION)), _bare(answers[0]))
    return Pair(*(unescape_special(part, TAGS) for part in parts))


def _bare(text: str) -> str:
    """Take off the one space on each side that belongs to the tags."""
    return text[1:].removesuffix(" ") if text.startswith(" ") else text.removesuffix(" ")


# what is spelled inside a pair


def with_options(question: str, options: Sequence[str]) -> str:
    """Return a question with its options, one in a line."""
    return question + _OPTIONS + "\n".join(f"- {one_line(option)}" for option in options)


def split_options(question: str) -> tuple[str, tuple[str, ...]]:
    """Return (question, options) of a question as `with_options` spells it, no options for any other."""
    stem, found, listed = question.rpartition(_OPTIONS)
    lines = listed.split("\n")
    if not found or not all(line.startswith("- ") for line in lines):
        return question, ()
    return stem, tuple(line.removeprefix("- ").strip() for line in lines)


def with_reasoning(question: str, rationale: str, answer: str) -> Pair:
    """Return a pair whose answer is reasoned first."""
    return Pair(question + _TRIGGER, f"{rationale}{_CONCLUSION}{answer}")


def split_reasoning(pair: Pair) -> tuple[str, str, str]:
    """Return (question, reasoning, answer) of a pair; the reasoning is "" where none was asked for."""
    rationale, found, answer = pair.answer.rpartition(_CONCLUSION)
    if not pair.question.endswith(_TRIGGER) or not found:
        return pair.question.removesuffix(_TRIGGER), "", pair.answer
    return pair.question.removesuffix(_TRIGGER), rationale, answer
