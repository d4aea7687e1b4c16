"""The language of the response follows that of the passage, or the one that was asked for.

The identifier is py3langid (BSD; its naive Bayes model of 140 languages comes with the package and is no
pickle). It is loaded when the first row is scored.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import orjson

from taskmill.curate.filters import FILTERS, Filter
from taskmill.errors import MissingExtra
from taskmill.record import Example, Reason
from taskmill.render import PLACEHOLDER
from taskmill.tasks.passage import find_span

__all__ = ["LANGUAGE", "agreement", "agreement_of", "language_code", "likelihoods"]

LEAST_LETTERS = 20
"""Letters from which on a text has a language: names and numbers look alike in many (chosen: of XQuAD's
gold answers from there on, mostly names, 4 % are refused; `python -m benchmarks language`)."""

LOOKED_AT = 1000
"""Characters of a text that are looked at (chosen: 99.6 % of XQuAD's passages are named right by them)."""

_NAMES = """
af Afrikaans|am Amharic|ar Arabic|az Azerbaijani|be Belarusian|bg Bulgarian|bn Bengali|bs Bosnian|ca Catalan
cs Czech|cy Welsh|da Danish|de German|el Greek|en English|eo Esperanto|es Spanish|et Estonian|eu Basque
fa Persian|fi Finnish|fr French|ga Irish|gl Galician|gu Gujarati|ha Hausa|he Hebrew|hi Hindi|hr Croatian
ht Haitian Creole|hu Hungarian|hy Armenian|id Indonesian|ig Igbo|is Icelandic|it Italian|ja Japanese
ka Georgian|kk Kazakh|km Khmer|kn Kannada|ko Korean|ku Kurdish|ky Kyrgyz|la Latin|lb Luxembourgish|lo Lao
lt Lithuanian|lv Latvian|mg Malagasy|mk Macedonian|ml Malayalam|mn Mongolian|mr Marathi|ms Malay|mt Maltese
my Burmese|ne Nepali|nl Dutch|nn Nynorsk|no Norwegian|or Odia|pa Punjabi|pl Polish|ps Pashto|pt Portuguese
ro Romanian|ru Russian|rw Kinyarwanda|si Sinhala|sk Slovak|sl Slovenian|so Somali|sq Albanian|sr Serbian
sv Swedish|sw Swahili|ta Tamil|te Telugu|tg Tajik|th Thai|tk Turkmen|tl Tagalog|tr Turkish|tt Tatar|ug Uyghur
uk Ukrainian|ur Urdu|uz Uzbek|vi Vietnamese|xh Xhosa|yo Yoruba|zh Chinese|zu Zulu
"""
"""Codes (ISO 639-1) and English names of the languages that a user may ask for and the identifier knows."""


@cache
def _codes() -> dict[str, str]:
    pairs = [entry.split(" ", 1) for line in _NAMES.split("\n") for entry in line.split("|") if entry]
    return {name.lower(): code for code, name in pairs} | {code: code for code, _ in pairs}


def language_code(name: str) -> str:
    """Return the code of a language named in English or by code ("German", "de", "de-CH"), "" if unknown."""
    folded = name.strip().lower()
    return _codes().get(folded) or _codes().get(folded.replace("_", "-").partition("-")[0], "")


@cache
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise MissingExtra("py3langid", "language") from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def likelihoods(text: str) -> dict[str, float]:
    """Return how likely a text is in each language, the likeliest being 1.

    Raises MissingExtra without the extra `language`.
    """
    ranked = _identifier().rank(text[:LOOKED_AT])
    return {code: share / ranked[0][1] for code, share in ranked}


_passage = lru_cache(maxsize=64)(likelihoods)  # rows of one passage stand next to each other


def _has_language(text: str) -> bool:
    letters = 0
    for character in text[:LOOKED_AT]:
        letters += character.isalpha()
        if letters >= LEAST_LETTERS:
            return True
    return False


def agreement(example: Example) -> float | None:
    """Return how well one language explains both the response and what it has to follow (`agreement_of`).

    What the response has to follow is `answer_language` of the row's meta, else the passage, else the
    instruction. None: under LEAST_LETTERS letters on either side, or the response is a piece of the passage.
    Raises MissingExtra without the extra `language`.
    """
    if not _has_language(example.response):
        return None
    asked = _asked(example.meta)
    if asked:
        code = language_code(asked)
        return likelihoods(example.response).get(code, 0.0) if code else None
    if example.context and find_span(example.response, example.context):
        return None
    instruction = example.instruction.replace(PLACEHOLDER, " ")
    around = next((t for t in (example.context, instruction) if _has_language(t)), None)
    if around is None:
        return None
    return agreement_of(example.response, around)


def agreement_of(text: str, other: str) -> float:
    """Return how well one language explains two texts, from 0 to 1.

    It is the maximum over languages of the product of the likelihoods, each relative to the text's best: 1
    where the likeliest languages are the same, and not far below where they are hard to tell apart.
    """
    around = _passage(other)
    return max(share * around.get(code, 0.0) for code, share in likelihoods(text).items())


def _asked(meta: str) -> str:
    """Return the language the user asked for, "" if none."""
    if "answer_language" not in meta:
        return ""
    try:
        found = orjson.loads(meta)
    except orjson.JSONDecodeError:
        return ""
    return str(found.get("answer_language") or "") if isinstance(found, dict) else ""


LANGUAGE = Filter(
    "language",
    agreement,
    Reason.OFF_LANGUAGE,
    True,
    0.1,  # chosen: on XQuAD it refuses no question beside its passage, and 99.9 % of another language's
    "how well one language explains response and passage; least",
    by_default=False,
)
FILTERS.register(LANGUAGE.name, LANGUAGE)
