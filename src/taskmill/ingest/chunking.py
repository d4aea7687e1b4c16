"""Cut a text into chunks of a token budget: at paragraphs, then sentences, clauses, words, characters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from taskmill.errors import UsageError
from taskmill.ingest.tokens import COST_PER_TOKEN, MAX_TOKENS_PER_CHARACTER, cost

__all__ = ["chunk"]

_CLOSERS = r"[\"'”’»)\]」』）］]{0,3}"
_GAP = r"[^\S\n]*+\n[^\S\n]*+\n\s*+"  # an empty line
_NO_SPACE_AFTER = "。！？｡．…"  # Chinese and Japanese go on without one
_OTHER_ENDERS = "।॥؟۔։።፧၊။។៕"  # Devanagari, Arabic, Urdu, Armenian, Ethiopic, Burmese, Khmer
_ABBREVIATIONS = ("Mr", "Ms", "Dr", "St", "vs", "al", "Fig", "Mrs", "e.g", "i.e", "Prof", "approx")
_NOT_ABBREVIATED = r"(?<!\b[A-Z]\.)" + "".join(rf"(?<!\b{re.escape(a)}\.)" for a in _ABBREVIATIONS)
# Starts with a plain set, which the engine scans for fast; every quantifier is bounded or possessive, so that
# no text makes the search worse than linear.
_SENTENCE_END = re.compile(
    rf"[\n\f\u2029.!?{_NO_SPACE_AFTER}{_OTHER_ENDERS}](?:"
    rf"(?<=\n)[^\S\n]*+\n\s*+"
    rf"|(?<=[\f\u2029])\s*+"
    rf"|(?<=[{_NO_SPACE_AFTER}]){_CLOSERS}\s*+"
    rf"|(?<=[{_OTHER_ENDERS}]){_CLOSERS}\s++"
    rf"|(?<=[.!?])(?=[\"'”’»)\]\s]){_NOT_ABBREVIATED}{_CLOSERS}(?:{_GAP}|\s++(?![a-z])))"
)
_CLAUSE_END = re.compile(r"[,;:.!?]\s++|\n\s*+|[，、；：،؛]\s*+")
_LONGEST_WORD = 400  # characters; a longer run without spaces is cut inside
_LEAST_COST = cost("a")
_JOINER = "\u200d"
_EXTENDERS = {_JOINER, *map(chr, range(0x1F3FB, 0x1F400))}  # skin tones


class _Piece(NamedTuple):
    """A stretch `[start, end)` with its cost; a sentence is `whole` unless it had to be cut."""

    start: int
    end: int
    cost: int
    whole: bool
    ends_paragraph: bool


def chunk(text: str, max_tokens: int, overlap: int = 0) -> list[tuple[int, int]]:
    """Return the (start, end) offsets of chunks of at most `max_tokens` (by `count_tokens`), in order.

    A chunk ends at a paragraph if that leaves it at least half full, else at a sentence; a sentence over
    the budget is cut at clauses, words or, last, characters. Chunks are stripped of outer whitespace and
    together cover every other character. With `overlap`, a chunk repeats whole sentences from the end of
    the one before, up to that many tokens. A single character over the budget is a chunk of its own.
    """
    if max_tokens < 1 or not 0 <= overlap < max_tokens:
        raise UsageError(
            f"chunks of {max_tokens} tokens with an overlap of {overlap} are impossible; "
            "ask for at least 1 token and an overlap below it"
        )
    whole = _strip(text, 0, len(text))
    if whole is None:
        return []
    budget = max_tokens * COST_PER_TOKEN
    length = whole[1] - whole[0]
    if length * _LEAST_COST <= budget and cost(text[whole[0] : whole[1]]) <= budget:
        return [whole]
    spans: list[tuple[int, int]] = []
    for start, end in _pack(_sentences(text, budget), budget, overlap * COST_PER_TOKEN):
        span = _strip(text, start, end)
        if span is None or (spans and span[1] <= spans[-1][1]):
            continue  # white space, after an overlap or alone
        if spans and span[0] == spans[-1][0]:
            spans.pop()  # the repeated sentences are all that chunk held besides white space
        spans.append(span)
    return spans


def _strip(text: str, start: int, end: int) -> tuple[int, int] | None:
    part = text[start:end]
    left = part.lstrip()
    if not left:
        return None
    start += len(part) - len(left)
    return start, start + len(left.rstrip())


def _pack(pieces: Iterator[_Piece], budget: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Join pieces greedily into spans of at most `budget`."""
    held: list[_Piece] = []  # the chunk being filled; may begin with pieces of the chunk before
    total = 0
    fresh = 0  # how many of `held`, counted from the end, no chunk has had yet
    for piece in pieces:
        # A sentence that must be cut anyway starts a new chunk, unless this one is still mostly empty.
        full = total + piece.cost > budget or (
            not piece.whole and held and held[-1].whole and total * 2 > budget
        )
        while fresh and full:
            cut = _cut(held, len(held) - fresh, budget)
            yield held[0].start, held[cut - 1].end
            fresh = len(held) - cut
            kept = sum(p.cost for p in held[cut:])
            held = held[_overlap_start(held, cut, min(overlap, budget - kept - piece.cost)) :]
            total = sum(p.cost for p in held)
            full = total + piece.cost > budget
        held.append(piece)
        total += piece.cost
        fresh += 1
    if fresh:
        yield held[0].start, held[-1].end


def _cut(held: list[_Piece], stale: int, budget: int) -> int:
    """Return how many pieces go into the chunk: up to the last paragraph in its second half, else all."""
    total = sum(p.cost for p in held)
    for i in range(len(held), stale, -1):
        if held[i - 1].ends_paragraph and total * 2 >= budget:
            return i
        total -= held[i - 1].cost
    return len(held)


def _overlap_start(held: list[_Piece], cut: int, room: int) -> int:
    """Return where the next chunk begins: before whole sentences worth `room`, but after the first piece."""
    while cut > 1 and held[cut - 1].whole and held[cut - 1].cost <= room:
        cut -= 1
        room -= held[cut].cost
    return cut


def _sentences(text: str, budget: int) -> Iterator[_Piece]:
    start = 0
    for match in _SENTENCE_END.finditer(text):
        end = match.end()
        ending = match.group()
        paragraph = ending.count("\n") > 1 or ending[0] in "\f\u2029"
        yield from _fit(text, start, end, budget, paragraph)
        start = end
    if start < len(text):
        yield from _fit(text, start, len(text), budget, True)


def _fit(text: str, start: int, end: int, budget: int, ends_paragraph: bool) -> Iterator[_Piece]:
    """Yield a sentence, whole if it fits the budget, else cut into clauses and words."""
    price = cost(text[start:end])
    if price <= budget:
        yield _Piece(start, end, price, True, ends_paragraph)
        return
    at = start
    for match in _CLAUSE_END.finditer(text, start, end):
        yield from _words(text, at, match.end(), budget)
        at = match.end()
    if at < end:
        yield from _words(text, at, end, budget)


def _words(text: str, start: int, end: int, budget: int) -> Iterator[_Piece]:
    price = cost(text[start:end])
    if price * 2 <= budget:
        yield _Piece(start, end, price, False, False)
        return
    # Pieces of about an eighth of the budget pack well; smaller ones would only cost time.
    size = max(1, (end - start) * budget // (price * 8))
    fits = max(1, budget // (COST_PER_TOKEN * MAX_TOKENS_PER_CHARACTER))
    run = _run(1 << size.bit_length() - 1)
    at = start
    while at < end:
        match = run.match(text, at, end)
        stop = match.end() if match else at + 1
        price = cost(text[at:stop])
        if price > budget or not (text[stop - 1].isspace() or stop == end):
            stop = _between_characters(text, at, stop if price <= budget else min(stop, at + fits))
            price = cost(text[at:stop])
        yield _Piece(at, stop, price, False, False)
        at = stop


@cache
def _run(size: int) -> re.Pattern[str]:
    """Match up to `size` characters that end in a space, else one word, else `size` characters."""
    return re.compile(rf"(?s).{{0,{size - 1}}}\s|\S{{1,{_LONGEST_WORD}}}+(?:\s|\Z)|.{{1,{size}}}")


def _between_characters(text: str, start: int, stop: int) -> int:
    """Move a cut back so that no letter loses its marks and no joined emoji is torn, if there is room."""
    for at in range(stop, start, -1):
        torn = unicodedata.category(text[at : at + 1] or " ")[0] == "M" or text[at : at + 1] in _EXTENDERS
        if not torn and text[at - 1] != _JOINER:
            return at
    return stop
