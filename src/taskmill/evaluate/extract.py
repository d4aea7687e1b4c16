"""An output → the answer in it, and which rule found it. No rule: a failed extraction, never a wrong answer.

In order: what runs on into an invented question is cut off; the fragment behind the last cue that holds an
answer of the task's kind ("So the answer is (B).", "Answer: 7", "উত্তর হল 11।"); else what the suite allows
without a cue: an output that is nothing but an answer, its beginning, or its last number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from taskmill.evaluate.numbers import NUMBER, canonical, plain
from taskmill.registry import Registry
from taskmill.templates.endings import endings

__all__ = ["EXTRACTORS", "Answer", "Extraction", "Extractor", "Kind", "extract", "kind_of", "readable"]


class Extraction(NamedTuple):
    """`answer`: in the canonical form of its kind, "" if none; `rule`: what found it; `span`: where."""

    answer: str = ""
    rule: str = ""
    span: str = ""


class Answer(NamedTuple):
    """What an answer may look like: its kind, `words` of a closed set, texts of options, a language."""

    kind: str
    words: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    language: str = ""


Kind = Callable[[str, Answer], tuple[str, str]]
"""(fragment, what is looked for) → (answer, the part of the fragment it is); both "" if there is none."""


@dataclass(frozen=True, slots=True)
class Extractor:
    """How outputs are read. `kind` "" is that of the task's golds; `without` says what to do without a cue.

    `without`: "whole" takes an output that is nothing but an answer, "start" also one that begins with an
    answer, "last" the last number. `version` is raised when the same output may be read otherwise.
    """

    name: str
    kind: str = ""
    without: str = "whole"
    version: int = 1


EXTRACTORS: Registry[Extractor] = Registry("extractor")
for _one in (
    Extractor("bbh", "", "start", 5),
    Extractor("bbh-cot", "", "whole", 5),
    Extractor("letter", "letter", "start", 5),
    Extractor("letter-cot", "letter", "whole", 5),
    Extractor("number", "number", "last", 6),
    Extractor("label", "label", "start", 4),
    Extractor("text", "text", "start", 4),
    Extractor("span", "span", "start", 2),
):
    EXTRACTORS.register(_one.name, _one)

_RUN_ON = re.compile(
    r"\n[ \t]{0,9}(?:#{1,6} )?(?:Q|Question|Problem|Input|Passage|Frage|Pregunta|Задача|Swali|প্রশ্ন|ప్రశ్న|โจทย์"
    r"|問題|问题)\s?[:：]|<\|im_end\|>|<\|endoftext\|>|<\|eot_id\|>|</s>"
    r"|\n###[ \t]{0,9}(?i:Instruction|Input|Human|User|Question)\b[ \t\d]{0,9}(?=[:：\n]|\Z)"
)
"""Where an invented next question begins. Other headings are a part of the answer."""

_CUES = 50
"""Cues looked behind, from the last (chosen: what repeats itself for pages has no answer before)."""

_FRAGMENT = 4000
"""Characters read behind a cue (chosen: longer than any gold; it bounds the time for hostile outputs)."""

_VERB = r"\b(?:is|are|was|should be|would be|must be|will be)"
_ENGLISH = (
    rf"\banswers?(?:\s+(?:to|for|of)\b[^.\n:]{{0,80}}?)?\s{{0,9}}(?P<is>{_VERB}\b)?\s{{0,9}}(?(is)[:：]?|[:：=])"
    rf"|\b(?:correct|right|best)\s+(?:option|choice|label|one)\s+{_VERB}\b\s*:?"
)
_NATIVE = (
    r"উত্তর\s*(?:হল|হলো|হচ্ছে|[:：])|\bantwort\s*(?:ist|lautet|[:：])|\brespuesta\s*(?:es|[:：])"
    r"|\bréponse\s*(?:est|[:：])|答え\s*(?:は|[:：])|\bответ\s*(?:[—–:：-]|равен|будет)|\bjibu\s*(?:ni|[:：])"
    r"|సమాధానం\s*[:：]?|คำตอบ\s*(?:คือ|[:：])|答案\s*(?:是|为|[:：])|(?:الإجابة|الجواب)\s*(?:هي|هو|[:：])"
    r"|उत्तर\s*(?:है|[:：])|\bđáp án\s*(?:là|[:：])|\bcevap\s*[:：]|απάντηση\s*(?:είναι|[:：])"
    r"|\bvastaus\s*(?:on|[:：])|\bjawaban(?:nya)?\s*(?:adalah|[:：])|(?:정답|답)(?:은|\s*[:：])"
)
_HEADING = r"^#{1,6}[ \t]{0,9}(?:final[ \t]{1,9})?answer[ \t\r]{0,9}$"


@cache
def _cue() -> re.Pattern[str]:
    """Return what announces an answer: the phrases above, and the endings chains of thought are taught."""
    known = "|".join((_HEADING, _ENGLISH, _NATIVE, "####"))
    taught = (
        ("^" if e.cue.startswith("\n") else "") + re.escape(e.cue.strip())
        for e in endings()
        if not re.search(known, e.cue, re.IGNORECASE | re.MULTILINE)
    )
    return re.compile("|".join((known, *taught)), re.IGNORECASE | re.MULTILINE)


_BACKWARD = re.compile(
    r"(?:^|[.!?:;,\n]\s*|\b(?i:so|thus|hence|therefore|that|means)\s+)(?:(?i:the\s+)?(?i:option|choice|answer)\s+)?"
    r"(\([A-Z]\)|[A-Z])\s+(?i:is|must be|should be|would be)\s+(?i:the\s+)?"
    r"(?i:(?:(?:only|most likely|most)\s+)?(?:correct|right|best|answer|true one|likely)\b)"
)
"""A letter that is called the answer behind it: "Option (B) is the correct answer."."""

_ANOTHER = re.compile(r"\s*(?:/|&|\b(?i:or|and)\b)\s*(?:(?i:option)\s+)?(?:\([A-Z]\)|[B-HJ-Z](?![\w']))")
"""What shows that a letter is one of two."""

_DENIED = re.compile(r"\s+(?:is\s+(?:not|wrong|incorrect)|isn't)\b", re.IGNORECASE)

_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_MARKUP = re.compile(r"\*\*|__|`|\\text\{([^{}]*)\}")
_NOT = re.compile(r"\s*(?:not|n't|unlikely|unclear|unknown)\b", re.IGNORECASE)
_THINKING = re.compile(r"\A.*</think>", re.DOTALL)
_WIDE = {0xFF08: "(", 0xFF09: ")", **{0xFEE0 + i: chr(i) for i in range(ord("A"), ord("z") + 1)}}
"""Full-width brackets and letters, as texts in Chinese and Japanese write them."""


def readable(output: object) -> str:
    """Return an output as text: nothing for None, bytes that are no UTF-8 with replacement characters."""
    if output is None:
        return ""
    if isinstance(output, bytes):
        return output.decode("utf-8", "replace")
    return str(output).encode("utf-8", "replace").decode("utf-8")


def extract(output: str, extractor: Extractor, wanted: Answer) -> Extraction:
    """Return the answer in an output and the rule that found it. Never raises, whatever the output is."""
    read = _KINDS[wanted.kind]
    output = output.translate(_WIDE) if wanted.kind == "letter" else output
    text = _RUN_ON.split(_MARKUP.sub(r"\1", _THINKING.sub("", output)))
    body = next((part for part in text if part.strip()), "").strip()
    if not body:
        return Extraction()
    for boxed in reversed(_BOXED.findall(body)):
        answer, span = read(boxed.replace("{,}", ",").strip(), wanted)
        if answer:
            return Extraction(answer, "boxed", span)
    for cue in list(_cue().finditer(body))[: -_CUES - 1 : -1]:
        found = _behind(body[cue.end() : cue.end() + _FRAGMENT], cue[0], wanted)
        if found.answer:
            return found
    if wanted.kind == "letter" and (named := _BACKWARD.findall(body[-_FRAGMENT:])):
        answer, span = _letter(named[-1], wanted)
        if answer:
            return Extraction(answer, "backward cue", span)
    return _without_cue(body, extractor.without, wanted)


def _behind(rest: str, cue: str, wanted: Answer) -> Extraction:
    """Read the line behind a cue. A colon or a heading may announce text: a number must then come at once."""
    fragment = _unwrapped(rest.lstrip(" \t\r\n:：").partition("\n")[0].partition("</answer>")[0], wanted)
    if _NOT.match(fragment) and wanted.kind not in ("text", "span"):
        return Extraction()
    strict = cue.startswith("#") or cue.rstrip().endswith((":", "：", "="))
    if strict and wanted.kind == "number" and not re.match(r"[^\w\n]{0,4}\d", plain(fragment)):
        return Extraction()
    answer, span = _KINDS[wanted.kind](fragment, wanted)
    name = " ".join(cue.casefold().split()).strip()
    return Extraction(answer, f"cue: {name}" if answer else "", span)


def _unwrapped(fragment: str, wanted: Answer) -> str:
    """Return an answer in words without the brackets an ending puts around it: "[red]." and "red)"."""
    if wanted.kind not in ("words", "text", "span"):
        return fragment
    text = fragment.strip().removesuffix(".").rstrip()
    if text.startswith("[") and text.endswith("]") and not set("[]") & set(text[1:-1]):
        return text[1:-1]
    return text[:-1] if text.endswith(")") and "(" not in text else fragment


def _without_cue(body: str, without: str, wanted: Answer) -> Extraction:
    read = _KINDS[wanted.kind]
    first = body.partition("\n")[0].strip()
    if "\n" not in body or without == "start":
        answer, span = read(first, wanted)
        rest = first.removeprefix(span).strip(" .,!\"'`:;()[]") if first.startswith(span) else first
        if answer and not rest and "\n" not in body:
            return Extraction(answer, "whole", span)
        if answer and without == "start" and _begins(first, span, wanted):
            return Extraction(answer, "start", span)
    if without == "last" and wanted.kind == "number":
        for match in reversed(list(NUMBER.finditer(plain(body, wanted.language)))):
            if value := canonical(match[0], wanted.language):
                return Extraction(value, "last number", match[0])
    if without == "start" and wanted.kind == "letter":
        named = list(re.finditer(r"(?<![A-Za-z0-9])\([A-Z]\)", body))
        denied = any(_DENIED.match(body, one.end()) for one in named)
        found = _letter(named[0][0], wanted)[0] if len({m[0] for m in named}) == 1 and not denied else ""
        if found:  # it names one option, and no other
            return Extraction(found, "only letter", found)
    return Extraction()


def _begins(line: str, span: str, wanted: Answer) -> bool:
    """Say whether the answer opens the line; a label or a letter anywhere in a sentence is no answer."""
    free = wanted.kind in ("text", "span", "words")
    return free or line.lstrip(" \"'([*-").startswith(span.lstrip(" \"'(["))


# kinds

_BRACKETED = re.compile(r"(?<![A-Za-z0-9])[(\[]\s*([A-Za-z])\s*[)\]]")
_BARE = re.compile(
    r"(?:(?:option|choice|letter|answer)\s+)?[\"']?([A-Z])(?=$|[\s.,:;!\"')\]。，、；：！-])", re.IGNORECASE
)
_ARTICLE = re.compile(r"(?:A|I)\s+[A-Za-z']")
"""What begins a sentence like an option's letter: "A dog", "A DNA sequence", "I think"."""


_REASON = re.compile(r"\s*[,.;:(]|\s+(?:because|since|as|which|so|due|for)\b", re.IGNORECASE)
"""What may follow an answer in its sentence."""

_SENTENCE = re.compile(r"(?<=[^\W\d_]{3})[.!?。](?=\s+[^\W\d_a-z]|$)|。")
"""The end of a first sentence: no abbreviation, and what follows begins a sentence."""


def _letter(fragment: str, wanted: Answer) -> tuple[str, str]:
    text = fragment.strip()
    if len(_bare(text)) > 1 and (own := _by_text(text, wanted.options))[0]:
        return own  # first: a text may begin like a letter ("A DNA sequence") or name others ("(A) and (B)")
    bare = _BARE.match(text)
    if bare and (bare[1].isupper() or len(text.strip(" .)\"'")) == 1) and not _ARTICLE.match(text):
        found, span, rest = bare[1].upper(), bare[0], text[bare.end() :]
    elif bracketed := _BRACKETED.search(text):
        found, span, rest = bracketed[1].upper(), bracketed[0], text[bracketed.end() :]
    else:
        return _by_text(text, wanted.options)
    if _ANOTHER.match(rest) or _DENIED.match(rest):
        return "", ""
    if wanted.options and ord(found) - ord("A") >= len(wanted.options):
        return _by_text(text, wanted.options)
    return f"({found})", span


def _by_text(text: str, options: Sequence[str]) -> tuple[str, str]:
    """Return the letter of the option whose text this is, with its own letter in front or not."""
    own = _bare(text)
    bare = {chr(ord("A") + i): _bare(option) for i, option in enumerate(options[:26])}
    same = [letter for letter, option in bare.items() if own and own == option]
    same = same or [
        letter for letter, option in bare.items() if option and own == _bare(f"{letter} {option}")
    ]
    return (f"({same[0]})", text) if len(same) == 1 else _by_beginning(text, options)


def _by_beginning(text: str, options: Sequence[str]) -> tuple[str, str]:
    """Return the letter of the option a sentence begins with, if a reason and no other option follows."""
    found: list[tuple[int, int, str]] = []
    for i, option in enumerate(options[:26]):
        words = option.strip(" .\"'").split()
        match = re.match(r"[\"']?" + r"\s+".join(map(re.escape, words)), text, re.IGNORECASE)
        if words and match and _REASON.match(text[match.end() :]):
            found.append((match.end(), i, match[0]))
    if not found:
        return "", ""
    end, own, span = max(found)
    rest = text[end:].casefold()
    others = (_bare(option) for i, option in enumerate(options[:26]) if i != own)
    named = any(re.search(rf"(?<!\w){re.escape(other)}(?!\w)", rest) for other in others if other)
    return ("", "") if named else (f"({chr(ord('A') + own)})", span)


def _bare(text: str) -> str:
    return " ".join(text.casefold().strip(" .\"'").split())


def _label(fragment: str, wanted: Answer) -> tuple[str, str]:
    words = sorted(wanted.words, key=len, reverse=True)
    pattern = "|".join(re.escape(word) for word in words)
    match = re.search(rf"(?<!\w)({pattern})(?!\w)", fragment, re.IGNORECASE) if words else None
    return (match[1].casefold(), match[1]) if match else ("", "")


def _number(fragment: str, wanted: Answer) -> tuple[str, str]:
    text = plain(fragment, wanted.language)
    sentence = re.split(r"[.。।]\s", text)[0]
    if "=" in sentence:  # "the answer is 3 + 4 = 7"
        sentence = sentence.rpartition("=")[2]
    match = NUMBER.search(sentence) or NUMBER.search(text)
    value = canonical(match[0], wanted.language) if match else ""
    return (value, match[0].strip()) if match and value else ("", "")


def _brackets(fragment: str, wanted: Answer) -> tuple[str, str]:
    del wanted
    match = re.match(r"[\s\"']*([()\[\]{}<>](?:\s*[()\[\]{}<>])*)", fragment)
    return (" ".join(re.sub(r"\s", "", match[1])), match[1]) if match else ("", "")


def _words(fragment: str, wanted: Answer) -> tuple[str, str]:
    del wanted
    text = _SENTENCE.split(fragment.strip(), maxsplit=1)[0].removesuffix(".").strip(" \"'")
    return " ".join(re.split(r"[\s,]+", text.casefold())).strip(), text


def _text(fragment: str, wanted: Answer) -> tuple[str, str]:
    del wanted
    text = fragment.strip()
    return text.removesuffix(".").strip(" \"'“”«»") or text, text


def _span(fragment: str, wanted: Answer) -> tuple[str, str]:
    return _text(_SENTENCE.split(fragment.strip(), maxsplit=1)[0], wanted)


_KINDS: dict[str, Kind] = {
    "letter": _letter,
    "label": _label,
    "number": _number,
    "brackets": _brackets,
    "words": _words,
    "text": _text,
    "span": _span,
}

_PAIRS = ({"yes", "no"}, {"true", "false"}, {"valid", "invalid"}, {"yes", "no", "maybe"})


def kind_of(targets: Sequence[str]) -> Answer:
    """Return what the answers of a task look like, by all its golds: a property of the task, not of an item.

    Letters where most golds are a letter, a closed set of words, numbers, bracket strings; else words.
    """
    known = [t.strip() for t in targets]
    letters = sum(re.fullmatch(r"\(?[A-Z]\)?", t) is not None for t in known)
    if 2 * letters > len(known):
        return Answer("letter")
    folded = {t.casefold() for t in known}
    for pair in _PAIRS:
        if folded <= pair:
            return Answer("label", tuple(sorted(pair)))
    if all(canonical(t) for t in known):
        return Answer("number")
    if all(re.fullmatch(r"[\s()\[\]{}<>]+", t) for t in known):
        return Answer("brackets")
    return Answer("words")
