"""Rules the task types share. Each looks at one finished Example and returns a Rejected or None.

`pieces` and `question_of` find what an instruction says besides its passage, whether the wording is
ours (`templates/tasks.yaml`) or a trained generator's own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from taskmill.record import Example, Reason
from taskmill.render import fill, has_marker, has_placeholder
from taskmill.tasks.base import Rejected
from taskmill.tasks.passage import WORD, content, copied, find_span, joined, one_line, sentences, words
from taskmill.tasks.reply import first_line, has_scrap

__all__ = [
    "asks",
    "clean",
    "distinct_options",
    "filled_as",
    "first_question",
    "in_label_set",
    "in_passage",
    "is_prose",
    "is_question",
    "labelled_as",
    "leaked",
    "needs_context",
    "not_copied",
    "on_topic",
    "opens_with_wh",
    "pieces",
    "question_of",
    "quoted",
    "refused",
    "repeats",
]

_MARK = (
    "?\uff1f\u061f\u2047\u2e2e\u055e\u037e"  # Latin, full-width, Arabic, double, reversed, Armenian, Greek
)
_LABEL = re.compile(r"^[*_#>\s]*([^\W\d_][\w /-]{0,24}?)\s*\d*\s*[*_]*[:：]\s*(.*)$")
_QUESTION_LABELS = frozenset(
    (
        "question",
        "q",
        "prompt",
        "query",
        "frage",
        "pregunta",
        "domanda",
        "pergunta",
        "вопрос",
        "问题",
        "質問",
        "سؤال",
    )
)
# Words that open a question. The second group are verbs that open one only in yes-no questions.
_WH = (
    "what|who|whom|whose|which|when|where|why|how|was|wer|wie|wo|wann|warum|welche[rsmn]?|wieso|qui|que|quoi|quel(?:le)?s?"
    "|où|quand|comment|pourquoi|combien|qué|quién|cuál|cuándo|dónde|cómo|cuánto|chi|cosa|quale|quando|dove|perché|quanto"
    "|quem|qual|onde|como|wat|wie|waar|wanneer|waarom|hoe|кто|что|где|когда|почему|как|какой|какая|какие|сколько"
)
_WH_START = re.compile(
    rf"^(?:(?:in|on|at|for|to|from|by|of|with|under|according to)\s+(?:\w+\s+)?)?(?:{_WH})\b", re.I
)
_AUX_START = re.compile(
    r"^(?:is|are|was|were|do|does|did|can|could|will|would|should|may|must|has|have|had|ist|sind|kann|hat|est-ce)\b",
    re.I,
)
_ENGLISH_WH = re.compile(r"^(?:what|who|whom|whose|which|when|where|why|how)\b", re.I)
_IMPERATIVE = re.compile(
    r"^(?:name|list|explain|describe|give|identify|state|define|tell|mention|compare)\b", re.I
)
_ANYWHERE = re.compile(
    r"什么|甚麼|什麼|哪|谁|誰|吗|嗎|呢|为何|為何|如何|怎|多少|几个|何|どこ|いつ|なぜ|どう|どの|どんな|いくら|ですか|ますか"
    r"|무엇|누구|어디|언제|왜|어떻게|क्या|कौन|कब|कहाँ|क्यों|कैसे|कितन|किस|बताइए|อะไร|ใคร|ไหน|ใด|เมื่อไร|ทำไม|อย่างไร|ยังไง|ไหม|กี่|หรือไม่|เท่าไ"
    r"|\bما\b|\bماذا\b|\bمن\b|\bهل\b|\bمتى\b|\bأين\b|\bكيف\b|\bلماذا\b|\bكم\b"
)
_GREEK = re.compile("[\u0370-\u03ff]")  # Greek ends questions in what looks like a semicolon
_CHATTER = re.compile(
    r"^(?:here(?:'s|’s| is| are)\b|sure\b|certainly\b|of course\b|as an ai\b|i(?:'m|’m| am| have)\b"
    r"|you(?:'ve|’ve| are| have)\b|(?:this|the) (?:sentence|statement|passage|question)\b"
    r"|the (?:original|revised|rewritten|new|next|given|above|following) "
    r"(?:sentence|passage|version|statement)\b)"
    r"|\brewrit|\brevised version|\bsame sense as\b|\bhugging face\b|use this form"
    r"|^write (?:a|one|the)\b|\bmust be (?:true|false) if\b|\bthe passage is true\b|\bthe word \S+ is used\b",
    re.I,
)
_VERBS = (
    "answer|provide|generate|create|write|help|assist|fulfil|complete|comply|do|find|determine|summari[sz]e|produce"
    "|paraphrase|continue|access|see|read|tell|give|make|rephrase|explain|rewrite|formulate|ask|suggest"
)
# Openings of a sentence in which the model speaks of itself: it refuses, or offers its help.
_REFUSAL = re.compile(
    r"as an? (?:ai\b|(?:large )?language model|(?:virtual |ai )?assistant\b)"
    r"|i(?:['’]m| am) (?:so |very )?(?:sorry|unable|afraid|not able|just an ai|an ai)\b"
    r"|sorry\b|(?:my )?apologies\b|i apologi[sz]e\b|unfortunately,? (?:i\b|the (?:text|passage))"
    rf"|i (?:can ?not|can['’]t|won['’]t|will not|could not|couldn['’]t) (?:{_VERBS})\b"
    r"|i (?:do not|don['’]t) have (?:enough|access|any|the)\b"
    r"|would you like\b|(?:do|if) you(?:['’]d| would)? (?:want|like) (?:me|another)"
    rf"|(?:shall|should|may|can|could) i (?:{_VERBS})\b"
    r"|(?:how|what) (?:can|may|else can) i (?:help|assist|do)\b"
    r"|i(?:['’]d| would| will|['’]ll) be (?:happy|glad)\b|is there anything else\b|let me know\b"
    r"|(?:please )?feel free to\b|please (?:provide|share|specify|clarify)\b"
    r"|(?:i )?hope (?:this|that|it) helps\b"
    r"|es tut mir leid|tut mir leid|als ki\b|lo siento|como (?:modelo|una? ia)\b"
    r"|je suis désolée?|désolée?\b|en tant qu['’]ia|mi dispiace|desculpe|извините"
    r"|как (?:языковая модель|ии)\b|抱歉|对不起|很抱歉|申し訳"
    r"|作为(?:一个|一名)?(?:ai|人工智能|语言模型)",
    re.I,
)
_ONE_OF = re.compile(r"\s+[a-h]$")  # "Sentence A" is a sentence
_NUMBER = re.compile(r"^\(?\d{1,2}[.):]\s*")
_AROUND = ' \t"“”*_`'
_QUOTES = re.compile(r"[\"“„«「]([^\"“”„«»「」\n]+)[\"”“»」]")
# In single quotes up to four words, because an apostrophe looks the same.
_SINGLE = re.compile(r"(?<!\w)['‘]([^\W_][\w-]*(?: [\w-]+){0,3})['’](?!\w)")
_YES_NO_LABEL = re.compile(r"yes\s?(?:[/-]|or)\s?no question")
_OPTION_A = re.compile(r"(?:^|\s)(?:\([Aa]\)|[Aa][.)])\s+\S.{0,300}?\s(?:\([Bb]\)|[Bb][.)])\s")
_HERE = "\ue0ff"


@lru_cache(maxsize=32)
def pieces(instruction: str) -> tuple[tuple[str, str], ...]:
    """Return the lines of an instruction besides its passage, as (label or "", text)."""
    return _lines(instruction, "\n")


def _lines(instruction: str, context: str) -> tuple[tuple[str, str], ...]:
    found = []
    for line in fill(instruction, context).split("\n"):
        stripped = line.strip(" \t-*•")
        if not stripped:
            continue
        labelled = _LABEL.match(stripped)
        found.append((_ONE_OF.sub("", labelled[1].lower()), labelled[2]) if labelled else ("", stripped))
    return tuple(found)


def quoted(instruction: str) -> list[str]:
    """Return what the instruction quotes: texts in quotation marks and lines behind a label."""
    lines = pieces(instruction)
    marks = [mark for _, text in lines for pattern in (_QUOTES, _SINGLE) for mark in pattern.findall(text)]
    return marks + [text.strip('"“”«»') for label, text in lines if label and text]


def labelled_as(instruction: str, *labels: str) -> list[str]:
    """Return the texts behind the given labels ("Sentence 1: …" counts as "sentence"), in order."""
    return [text for label, text in pieces(instruction) if label in labels and text]


def filled_as(example: Example, *labels: str) -> list[str]:
    """Return the texts behind the given labels as `labelled_as`, the passage where it stands behind one.

    The text of a label may stand in the line under it.
    """
    found: list[str] = []
    waiting = False
    for label, line in _lines(example.instruction, _HERE):
        text = line.replace(_HERE, one_line(example.context)).strip()
        if (label in labels and text) or (waiting and not label):
            found.append(text)
        waiting = label in labels and not text
    return found


def first_question(text: str) -> tuple[str, str]:
    """Split a reply into its first question and what follows it, as prose replies have them.

    The question ends at the last question mark of its line; numbering and quotes around it go. Without
    a question mark, it is the first line, and nothing follows.
    """
    lines = text.split("\n")
    for i, line in enumerate(lines):
        end = max(map(line.rfind, _MARK))
        if end >= 0:
            question = _NUMBER.sub("", first_line(line[: end + 1]))
            rest = "\n".join([line[end + 1 :].strip(_AROUND), *lines[i + 1 :]])
            return question.strip(_AROUND), rest.strip()
    return _NUMBER.sub("", first_line(text)), ""


def is_question(text: str) -> bool:
    """Say whether the text asks: a question mark in any script, or an opening that only questions have."""
    bare = text.strip(" \"'“”*_`)（）(")
    return bool(bare) and (
        bare[-1] in _MARK
        or (bare[-1] == ";" and _GREEK.search(bare) is not None)
        or _WH_START.match(bare) is not None
        or _AUX_START.match(bare) is not None
        or _ANYWHERE.search(bare) is not None
    )


@lru_cache(maxsize=32)
def question_of(instruction: str) -> str:
    """Return the question an instruction asks, or "".

    A line labelled "Question" is the question if it asks at all (question mark in any script, a
    question word, or a request such as "Name …"); else the first sentence that does.
    """
    # Options behind the question in the same line are not part of it.
    lines = [(label, _without_options(text)) for label, text in pieces(instruction)]
    for label, text in lines:
        if _YES_NO_LABEL.fullmatch(label) and len(words(text)) > 2:
            return text
        if label in _QUESTION_LABELS and text:
            return text if is_question(text) or _IMPERATIVE.match(text) else ""
    for label, text in lines:
        if label not in ("options", "choices", "labels"):
            if is_question(text):
                return text
            for sentence in sentences(text):
                if is_question(sentence):
                    return sentence
    return next((text for label, text in lines if not label and _IMPERATIVE.match(text)), "")


def _without_options(text: str) -> str:
    options = _OPTION_A.search(text)
    return text[: options.start()].rstrip() if options and options.start() else text


def opens_with_wh(question: str) -> bool:
    """Say whether an English question starts with a wh-word, so that yes or no cannot answer it."""
    last = (sentences(question) or [""])[-1]
    return any(_ENGLISH_WH.match(part.strip(" \"'“”*_`")) for part in (question, last))


def needs_context(example: Example) -> Rejected | None:
    """The instruction must hold the passage's placeholder, at most twice (chosen: more is a wall of text)."""
    if not has_placeholder(example.instruction):
        return Rejected(Reason.UNGROUNDED, "the instruction does not quote the passage")
    if example.instruction.replace(" ", "").count("{{context}}") > 2:
        return Rejected(Reason.MALFORMED, "the instruction quotes the passage more than twice")
    return None


def asks(example: Example) -> Rejected | None:
    """The instruction must ask a question of at least three words (four characters without spaces)."""
    question = question_of(example.instruction)
    if not question:
        return Rejected(Reason.NOT_A_QUESTION, "nothing in the instruction asks a question")
    if len(words(question)) < 3:
        return Rejected(Reason.TRIVIAL, f"the question {question[:40]!r} is too short")
    return None


def clean(example: Example) -> Rejected | None:
    """No marker, placeholder, thinking tag or broken JSON; something said, and not over and over."""
    response = example.response
    if has_marker(example.instruction) or has_marker(response):
        return Rejected(Reason.MARKER, "a wire marker is left in the text")
    if has_placeholder(response):
        return Rejected(Reason.MARKER, "the placeholder is left in the response")
    if not response.strip():
        return Rejected(Reason.EMPTY_REPLY, "the response is empty")
    own = [text for _, text in pieces(example.instruction)]
    scrap = next(filter(None, (has_scrap(text, example.context) for text in (response, *own))), "")
    if scrap:
        return Rejected(Reason.MALFORMED, f"a piece of the reply's form is left in the text: {scrap!r}")
    if not WORD.search(response):
        return Rejected(Reason.TRIVIAL, f"the response {response[:20]!r} holds no word")
    if repeats(response) or any(map(repeats, own)):
        return Rejected(Reason.REPETITIVE, "the same three words come again and again")
    return None


def refused(example: Example, *texts: str) -> Rejected | None:
    """No text the model wrote may refuse the task or offer more help ("Would you like me to …?").

    A sentence whose content words all stand in the passage is the passage's own ("Would you like tea?").
    """
    for text in texts:
        for sentence in sentences(text):
            if _REFUSAL.match(sentence.lstrip(" \"'“”*_`(")):
                own = content(sentence)
                if not own or not own <= content(example.context):
                    return Rejected(Reason.MALFORMED, f"{sentence[:60]!r} refuses the task or offers help")
    return None


def is_prose(text: str) -> Rejected | None:
    """A sentence the model was to write must not talk about the task, nor break off at a colon."""
    if _CHATTER.search(text):
        return Rejected(Reason.MALFORMED, f"{text[:60]!r} talks about the task")
    if text.rstrip(' *_"”')[-1:] in (":", "：", "…", "") or " …" in text:
        return Rejected(Reason.MALFORMED, f"{text[-40:]!r} breaks off")
    return None


def repeats(text: str) -> bool:
    """Say whether one 3-gram stands three times or more and makes up over 18 % of the words.

    0.18 is the bound on the top 3-gram of Gopher's filter (Rae et al. 2021, Table A1, there in
    characters). At least three times: chosen, short texts repeat a phrase once with good reason.
    """
    if len(text) < 20:
        return False
    tokens = words(text)
    if len(tokens) < 9:
        return False
    grams = list(zip(tokens, tokens[1:], tokens[2:], strict=False))
    if len(set(grams)) > len(grams) - 2:  # none can stand three times
        return False
    top = max(Counter(grams).values())
    return top >= 3 and 3 * top > 0.18 * len(tokens)


def leaked(example: Example) -> Rejected | None:
    """The question must not hold the whole response, nor the response only repeat the question."""
    question = question_of(example.instruction)
    if question and joined(example.response) in joined(question):
        return Rejected(Reason.LEAKED_ANSWER, "the question states its answer")
    if question and joined(question) in joined(example.response):
        return Rejected(Reason.TRIVIAL, "the answer repeats the question")
    return None


# fmt: off
_THE_TEXT = frozenset((
    "text", "passage", "paragraph", "article", "author", "document", "story", "section", "excerpt",
    "sentence", "sentences", "word", "words", "speaker", "writer", "narrator",
))
# fmt: on
_LATIN = re.compile("[a-zA-Z\u00c0-\u024f]")


def on_topic(text: str, example: Example, least: float = 0.0) -> Rejected | None:
    """More than the share `least` of the text's content words must stand in the passage.

    The default asks for one shared word, or for words that point at the passage as a whole ("the
    author"). Text without content words asks or says nothing. Text in another language than the passage
    (asked for, or in another script) shares no words with it and is not held to this.
    """
    translated = '"answer_language"' in example.meta
    if translated or bool(_LATIN.search(text)) != bool(_LATIN.search(example.context)):
        return None
    own = content(text)
    if not own:
        return Rejected(Reason.TRIVIAL, f"{text[:60]!r} holds no word that carries content")
    if not least and not _THE_TEXT.isdisjoint(words(text)):
        return None
    if len(own & content(example.context)) <= least * len(own):
        return Rejected(Reason.UNGROUNDED, f"{text[:60]!r} shares too few words with the passage")
    return None


def not_copied(text: str, example: Example, longest: int, most: float = 1.0) -> Rejected | None:
    """No run of more than `longest` words and no more than the share `most` of 4-grams is the passage's."""
    run, part = copied(text, example.context)
    if run > longest:
        return Rejected(Reason.COPY, f"{run} words in a row are copied from the passage")
    if part > most:
        return Rejected(Reason.COPY, f"{part:.0%} of the 4-grams are copied from the passage")
    return None


def distinct_options(options: Sequence[str], least: int, most: int) -> Rejected | None:
    """There must be `least` to `most` options, all different when case and punctuation are ignored."""
    if not least <= len(options) <= most:
        return Rejected(Reason.BAD_OPTIONS, f"{len(options)} options, expected {least} to {most}")
    folded = {" ".join(words(o)) or o.strip() for o in options}
    if len(folded) < len(options) or "" in folded:
        return Rejected(Reason.BAD_OPTIONS, "an option is empty or stands twice")
    return None


def in_label_set(example: Example) -> Rejected | None:
    """The response must be the option that `answer_index` names, one of at least two different labels."""
    wrong = distinct_options(example.options, 2, 100)
    if wrong:
        return wrong
    index = example.answer_index
    if index is None or not 0 <= index < len(example.options):
        return Rejected(Reason.OFF_LABEL, f"{example.response[:40]!r} is none of the labels")
    if words(example.options[index]) != words(example.response):
        return Rejected(Reason.OFF_LABEL, f"{example.response[:40]!r} is not the label of its index")
    return None


def in_passage(text: str, example: Example, what: str) -> Rejected | None:
    """`text` must stand in the passage word for word."""
    if find_span(text, example.context) is None:
        return Rejected(Reason.UNGROUNDED, f"{what} {text[:60]!r} is not a span of the passage")
    return None
