"""Numbers as people write them in many languages → one canonical text."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal, InvalidOperation
from fractions import Fraction

__all__ = ["NUMBER", "canonical", "plain", "same"]

_GROUPED = r"\d{1,3}(?:[,'’\u00a0\u202f\u2009]\d{2,3})*[,'’\u00a0\u202f\u2009]\d{3}(?!\d)(?:\.\d+)?"
_SPACED_OUT = r"\d{1,3}(?:[\u00a0\u202f\u2009]\d{3})+(?!\d)(?:[.,]\d+)?"
_FRACTION = r"(?<!/)(?:\d{1,9} )?\d{1,9}/\d{1,9}(?![\d/]|\.\d)"
_POWER = r"(?:[eE][-+]?\d{1,2}(?!\w))?"
_MONEY = "$€£¥₹"
NUMBER = re.compile(
    rf"(?<![\w.])[-−–]?\s?(?:\\?[{_MONEY}]\s?)?"
    rf"(?:{_FRACTION}|{_SPACED_OUT}|{_GROUPED}|\d+(?:[.,]\d+)*{_POWER}|\.\d+{_POWER})",
    re.ASCII,
)
"""A number in text whose digits are ASCII (`plain`), grouped by commas, apostrophes, narrow spaces or not.

Also a fraction ("3/4", "1 1/2"; no date) and a power of ten ("1.5e3"). A sign stands before the sign of a
currency ("-$5"), which LaTeX writes behind a backslash.
"""

_MINUS = re.compile(r"^[-−–]\s?")
_GROUPS = re.compile(_GROUPED)
_SPACES = re.compile(_SPACED_OUT)
_PARTS = re.compile(r"(?:(\d{1,9}) )?(\d{1,9})/(\d{1,9})", re.ASCII)
_DOTTED = re.compile(r"\d{1,3}(?:\.\d{3})+(?:,\d+)?")
_DOT_LANGUAGES = frozenset(("de", "es", "id", "ru", "fr", "el", "tr", "vi", "ro"))
"""Languages that may group thousands by dots and write a decimal comma."""


_SPACE_LANGUAGES = frozenset(("cs", "es", "fi", "fr", "pl", "ru", "sv", "uk"))
"""Languages that group thousands by spaces, which are often typed as plain ones."""

_SPACED = re.compile(r"(?<![\d.,])(\d{1,3})((?: \d{3})+)(?!\d)", re.ASCII)


def plain(text: str, language: str = "") -> str:
    """Return the text with the digits of all scripts as ASCII ones (Bengali, Thai, full-width …).

    Where the language groups thousands by spaces, those between digits become narrow ones (U+202F).
    """
    if language in _SPACE_LANGUAGES:
        text = _SPACED.sub(lambda m: m[1] + m[2].replace(" ", "\u202f"), text)
    if text.isascii():
        return text
    found = []
    for c in text:
        value = None if c.isascii() else unicodedata.decimal(c, None)
        found.append(c if value is None else str(value))
    return "".join(found).replace("٬", ",").replace("٫", ".").replace("，", ",")


def canonical(written: str, language: str = "") -> str:
    """Return a number in its shortest plain form ("2,125.00" → "2125"), "" for what is none.

    A comma before three digits groups them, as in the golds of all languages of MGSM; other commas are
    decimal ones. Dots group only in the languages that do that. A fraction is the decimal number it is, else
    in its lowest terms ("2/6" → "1/3").
    """
    text = plain(written, language).strip()
    sign = "-" if _MINUS.match(text) else ""
    text = _MINUS.sub("", text).strip(f"{_MONEY}%\\ ").rstrip(".,")
    if parts := _PARTS.fullmatch(text):
        return _fraction(sign, *(int(part or 0) for part in parts.groups()))
    if _SPACES.fullmatch(text):
        text = re.sub(r"[\u00a0\u202f\u2009]", "", text).replace(",", ".")
    elif _GROUPS.fullmatch(text):
        text = re.sub(r"[,'’\u00a0\u202f\u2009]", "", text)
    elif language in _DOT_LANGUAGES and _DOTTED.fullmatch(text):
        text = text.replace(".", "").replace(",", ".")
    elif text.count(",") == 1:
        text = text.replace(",", ".")
    try:
        value = Decimal(text)
    except InvalidOperation:
        return ""
    if not value.is_finite() or abs(value.adjusted()) > 60:
        return ""  # chosen: no answer is that long, and its plain form would fill the memory
    shown = format(value.normalize(), "f")
    return "0" if value == 0 else sign + shown


def _fraction(sign: str, whole: int, over: int, under: int) -> str:
    if not under:
        return ""
    value = Fraction(over, under) + whole
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest > 1:
        return f"{sign}{value.numerator}/{value.denominator}"
    shown = format((Decimal(value.numerator) / value.denominator).normalize(), "f")
    return shown if not value else sign + shown


def same(answer: str, target: str, language: str = "") -> bool:
    """Say whether two written numbers are equal; golds write thousands as in English."""
    own = canonical(answer, language)
    return own != "" and own == canonical(target)
