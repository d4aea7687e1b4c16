"""Reading a passage: words, sentences, key words, exact and forgiving search for spans, overlap.

Works without assuming spaces between words: in scripts written without them (Thai, Lao, Myanmar,
Khmer, kana, Han) every character counts as a word. Everything here is linear in the text. What is
read off a passage is remembered for a while, because all task types read the same one in a row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import islice

import orjson

from taskmill.record import Document, draw

__all__ = [
    "DENIAL",
    "answer_sentence",
    "content",
    "copied",
    "draw_sentence",
    "find_span",
    "is_english",
    "joined",
    "keyword",
    "nearest_sentence",
    "one_line",
    "only_drops",
    "pick",
    "sentences",
    "share",
    "snap_span",
    "span_grammar",
    "turned_start",
    "words",
]

_UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
# Punctuation is listed, not word characters: \w lacks the vowel signs of Indic scripts.
_PUNCTUATION = (
    r"\s!-/:-@\[-^`{-~\u00a1-\u00a9\u00ab-\u00b1\u00b4\u00b6-\u00b8\u00bb\u00bf\u060c\u061b\u061f\u06d4"
    r"\u0964\u0965\u2000-\u206f\u3000-\u303f\u30fb\ufe30-\ufe4f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
)
WORD = re.compile(rf"[{_UNSPACED}]|[^{_PUNCTUATION}{_UNSPACED}]+")
_ONE = re.compile(rf"[{_UNSPACED}]")
_BREAK = re.compile(
    r"[.!?…]['\"”’»)\]]*(\s+)(?=[^\s\u0061-\u007a])"  # spaced scripts: an ender, then not a small letter
    r"|[。！？｡](?:[」』”’）]*)(\s*)"  # CJK enders need no space
    r"|[।॥۔؟]\s*()"  # Devanagari danda, Urdu full stop, Arabic question mark
    r"|()\n[ \t]*\n\s*"  # an empty line
)
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|cf|vs|etc|Dr|Mr|Mrs|Ms|St|Prof|No|Fig|Eq|al|approx|bzw|z\.B|d\.h|p\.ej)|\b[A-Z])\.$"
)
_STOP_WORDS = """
    about above after again also although among another because been before being below between both
    cannot could does doing done down during each either else even ever every from have having here into
    itself just like made make many might more most much must neither never only other otherwise over
    said same shall should since some such than that their them then there these they this those through
    thus under until upon very were what when where whether which while whom whose will with within
    without would your the and for are was has had not but its may can any all one two who how why did
    you his her she him our out off own too yes get got let use used using passage text question answer
    sentence statement following according 的 了 是 在 の は に を が と で て る し た
"""
_STOP = frozenset(_STOP_WORDS.split())
# Chosen: five letters stand for a word, so that inflection is no difference ("raised", "raises").
_STEM = 5
_ARTICLE = re.compile(r"^(?:[وفبك]?ال|لل)(?=\w{2})")  # Arabic "the", with what is written to it
_FREQUENT = frozenset(("the", "of", "and", "is", "to", "in", "that", "was", "are"))
_WRAP = "\"'“”‘’«»„`*_ \t\n\r"


@lru_cache(maxsize=256)
def words(text: str) -> tuple[str, ...]:
    """Return the lower-cased words; a character of an unspaced script is a word of its own."""
    return tuple(WORD.findall(text.casefold()))


@lru_cache(maxsize=256)
def joined(text: str) -> str:
    """Return the lower-cased words joined and surrounded by spaces, ready for a search by whole words."""
    return f" {' '.join(words(text))} "


def one_line(text: str) -> str:
    """Return the text with every run of white space turned into one space."""
    return " ".join(text.split())


@lru_cache(maxsize=128)
def sentences(text: str) -> tuple[str, ...]:
    """Split at sentence enders of any script and at empty lines; each is an exact substring of `text`.

    Known abbreviations and single initials do not end a sentence. Thai is split at empty lines only.
    """
    found, start = [], 0
    for gap in _BREAK.finditer(text):
        piece = text[start : gap.end()].strip()
        # Only the last characters are searched: a long sentence must not be read again at each gap.
        if piece and not (gap[1] and _ABBREVIATION.search(piece[-12:])):
            found.append(piece)
            start = gap.end()
    rest = text[start:].strip()
    return (*found, rest) if rest else tuple(found)


@lru_cache(maxsize=256)
def content(text: str) -> frozenset[str]:
    """Return the keys of the words that carry content: not stop words, three letters or more.

    Words outside ASCII count from the first letter on, because scripts differ in what three letters say.
    The Arabic article is no part of its word.
    """
    return frozenset(
        (w if w.isascii() else _ARTICLE.sub("", w))[:_STEM]
        for w in words(text)
        if w not in _STOP and (len(w) > 2 or not w.isascii())
    )


def share(part: str, whole: str) -> float:
    """Return the share of the content words of `part` that also stand in `whole` (0 if it has none)."""
    own = content(part)
    return len(own & content(whole)) / len(own) if own else 0.0


def answer_sentence(question: str, text: str) -> str:
    """Return the sentence of the passage that answers a question by its words, or "".

    It must hold two thirds of the question's content words, and more of them than any other (chosen:
    a bare question is worth keeping only where its answer is not in doubt).
    """
    asked = content(question)
    if not asked:
        return ""
    ranked = sorted(((len(asked & content(s)), s) for s in sentences(text)), key=lambda r: r[0])
    if not ranked or 3 * ranked[-1][0] < 2 * len(asked):
        return ""
    return "" if len(ranked) > 1 and ranked[-2][0] == ranked[-1][0] else ranked[-1][1]


def nearest_sentence(answer: str, text: str) -> str:
    """Return the sentence that `answer` only retells with a word changed, or "".

    Four fifths of the words of each must be the other's (chosen: less is another statement).
    """
    own = set(words(answer))
    if len(own) < 5:
        return ""
    for sentence in sentences(text):
        theirs = set(words(sentence))
        if 5 * len(own & theirs) >= 4 * max(len(own), len(theirs)):
            return sentence
    return ""


def is_english(document: Document) -> bool:
    """Say whether a passage is English, by its language tag or else its most frequent words.

    Chosen: one word in twelve is one of nine; in English prose it is about one in five.
    """
    if document.language:
        return document.language.lower().startswith("en")
    tokens = words(document.text[:500])
    return 12 * sum(t in _FREQUENT for t in tokens) >= max(len(tokens), 1)


@lru_cache(maxsize=256)
def keyword(text: str) -> str:
    """Return the longest content word (the first of equals), as it is written; "" for text without words."""
    best = ""
    for found in WORD.finditer(text):
        word = found[0]
        if len(word) > len(best) and word.casefold() not in _STOP:
            best = word
    return best or text.strip()[:20]


DENIAL = frozenset(
    ("no", "not", "never", "none", "neither", "nor", "cannot", "without", "unlike", "only", "t")
)
"""English words that turn a sentence round; "t" is what `words` leaves of "isn't"."""


def only_drops(text: str, source: str) -> bool:
    """Say whether `text` is `source` with words left out, none of them a denial, inflection aside."""
    left = iter(words(source))
    dropped: set[str] = set()
    for word in words(text):
        for other in left:
            if other[:_STEM] == word[:_STEM]:
                break
            dropped.add(other)
        else:
            return False
    return DENIAL.isdisjoint(dropped.union(left))


@lru_cache(maxsize=64)
def _grams(text: str) -> frozenset[tuple[str, ...]]:
    own = words(text)
    return frozenset(zip(own, own[1:], own[2:], own[3:], strict=False))


def copied(part: str, whole: str) -> tuple[int, float]:
    """Return (longest copied run in words, share of 4-grams of `part` that stand in `whole`).

    A run is a chain of copied 4-grams; runs under four words count as zero.
    """
    own, grams = words(part), _grams(whole)
    longest = run = hits = total = 0
    for gram in zip(own, own[1:], own[2:], own[3:], strict=False):
        total += 1
        run = run + 1 if gram in grams else 0
        hits += run > 0
        longest = max(longest, run)
    return (longest + 3 if longest else 0), (hits / total if total else 0.0)


def _is_boundary(text: str, at: int) -> bool:
    # Between two letters or digits of a spaced script there is no boundary.
    if not 0 < at < len(text):
        return True
    before, after = text[at - 1], text[at]
    if not (before.isalnum() and after.isalnum()):
        return True
    return _ONE.match(before) is not None or _ONE.match(after) is not None


def _find(needle: str, text: str) -> tuple[int, int] | None:
    at = text.find(needle) if needle else -1
    while at >= 0:
        if _is_boundary(text, at) and _is_boundary(text, at + len(needle)):
            return at, at + len(needle)
        at = text.find(needle, at + len(needle))
    return None


def find_span(answer: str, text: str) -> tuple[int, int] | None:
    """Return (start, end) of the first exact occurrence that does not cut through a word, or None."""
    return _find(answer, text)


def snap_span(answer: str, text: str) -> str | None:
    """Return the substring of `text` that says what `answer` says, or None.

    Differences in case, spacing, punctuation and quotes are ignored; words and their order are not.
    """
    bare = answer.strip(_WRAP)
    for candidate in (answer.strip(), bare, bare.rstrip(".,;:!?。")):
        if candidate and _find(candidate, text):
            return candidate
    wanted = words(bare)
    if not wanted or len(wanted) > len(text):
        return None
    # A run of words is found by substring search in the words joined by spaces, which no word holds.
    at = joined(text).find(joined(bare))
    if at < 0:
        return None
    first = joined(text).count(" ", 0, at + 1) - 1
    run = [m.span() for m in islice(WORD.finditer(text), first, first + len(wanted))]
    return text[run[0][0] : run[-1][1]] if len(run) == len(wanted) else None


_PIECE = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
_PAIRS = {"(": ")", "[": "]", "{": "}", '"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "„": "“"}


def _core(piece: re.Match[str]) -> tuple[int, int]:
    """Return (start, end) of a piece without the punctuation that belongs to what is around it."""
    start, end = piece.span()
    text = piece.string
    while start < end and text[start] in _PAIRS and _PAIRS[text[start]] not in text[start + 1 : end]:
        start += 1
    while start < end:
        last, rest = text[end - 1], text[start : end - 1]
        opened = any(rest.count(a) > rest.count(b) - (a == b) for a, b in _PAIRS.items() if b == last)
        if last not in ".,;:!?…。，" and (last not in _PAIRS.values() or opened):
            break
        end -= 1
    return start, end


def span_grammar(text: str, question: str = "") -> str:
    """Return the grammar (GBNF) of all spans of a sentence, from word to word, or "" if it has none.

    No span begins with a word of the question: the question would state its answer. (An engine needs a
    second or more for the spans of a page; for those of a sentence, next to nothing.)
    """
    asked = set(words(question))
    cores = [_core(m) for m in _PIECE.finditer(text)]
    cores = [(start, end) for start, end in cores if words(text[start:end])]
    starts = [f"s{i}" for i, (a, b) in enumerate(cores) if not asked.issuperset(words(text[a:b]))]
    if not starts:
        return ""
    rules = [f"root ::= {' | '.join(starts)}"]
    for i, (start, end) in enumerate(cores):
        after = f" ({_literal(text[end : cores[i + 1][0]])} s{i + 1})?" if i + 1 < len(cores) else ""
        rules.append(f"s{i} ::= {_literal(text[start:end])}{after}")
    return "\n".join(rules)


def _literal(text: str) -> str:
    # An empty one, between characters of an unspaced script, is allowed.
    return orjson.dumps(text).decode()


_QUESTION = "?？؟"


def _last(sentence: str) -> str:
    return sentence.rstrip("\"'”’»)]」』")[-1:] or " "


def draw_sentence(
    document: Document, seed: int, sample: int, purpose: str, suits: Callable[[str], object] | None = None
) -> str:
    """Return a sentence of the passage on one line, another for each sample, or "" if none will do.

    It has 5 to 40 words (chosen: shorter says too little, longer is a list or a table). It states something
    and ends as sentences do, if any of the passage's sentences does; and `suits`, if any of those does.
    """
    fit = [s for s in sentences(document.text) if 5 <= len(words(s)) <= 40]
    ended = [s for s in fit if _last(s) in ".!?。！？।॥۔؟…"]
    ended = [s for s in ended if _last(s) not in _QUESTION] or ended
    best = [s for s in ended or fit if suits is not None and suits(one_line(s))]
    order = list(pick(best or ended or fit, seed, document.id, purpose))
    return one_line(order[sample % len(order)]) if order else ""


_PHRASE = re.compile(
    r"(?<=[a-z0-9] )(?:in|on|at|during|after|before|since|by|for|from|under|among|within|between|when|while"
    r"|if|because|although|unless|once|through|with|without|until)(?= (?:\w[\w'-]*)(?: \w|[.,]))"
)


MOVED = 12
"""Words of a sentence before the phrase that is to stand first (chosen: copied, they are no copy yet)."""


def turned_start(sentence: str) -> str:
    """Return the word with which a sentence could begin if its last phrase stood first ("After"), or "".

    Of sentences of 24 words at most (chosen: a small model copies a longer one instead of turning it).
    """
    if len(words(sentence)) > 24:
        return ""
    found = [m for m in _PHRASE.finditer(sentence) if 2 < len(words(sentence[: m.start()])) <= MOVED]
    return found[-1][0].capitalize() if found else ""


def pick(items: Sequence[str], seed: int, row: str, purpose: str) -> Iterator[str]:
    """Yield all items once, in an order drawn from (seed, row, purpose)."""
    left = list(items)
    number = draw(seed, row, purpose)
    while left:
        number, at = divmod(number, len(left))
        yield left.pop(at)
        if not number:
            number = draw(seed, row, f"{purpose} {len(left)}")
