"""Words without their endings, as ROUGE's usual implementation compares them.

Source: Porter 1980 ("An algorithm for suffix stripping"), with the changes of NLTK's stemmer, which
`rouge-score` uses: a few irregular words, the endings -alli, -fulli, -bli and -logi, -ie in words of four
letters, -y only behind a consonant.
"""

from __future__ import annotations

from functools import lru_cache

__all__ = ["stem"]

_IRREGULAR = {
    "skies": "sky", "sky": "sky", "dying": "die", "lying": "lie", "tying": "tie", "news": "news",
    "innings": "inning", "inning": "inning", "outings": "outing", "outing": "outing", "cannings": "canning",
    "canning": "canning", "howe": "howe", "proceed": "proceed", "exceed": "exceed", "succeed": "succeed",
}  # fmt: skip

_SECOND = {
    "ational": "ate", "tional": "tion", "enci": "ence", "anci": "ance", "izer": "ize", "bli": "ble",
    "alli": "al", "entli": "ent", "eli": "e", "ousli": "ous", "ization": "ize", "ation": "ate", "ator": "ate",
    "alism": "al", "iveness": "ive", "fulness": "ful", "ousness": "ous", "aliti": "al", "iviti": "ive",
    "biliti": "ble", "fulli": "ful",
}  # fmt: skip
_THIRD = {
    "icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": "",
}  # fmt: skip
_FOURTH = (
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou", "ism",
    "ate", "iti", "ous", "ive", "ize",
)  # fmt: skip


@lru_cache(65536)
def stem(word: str) -> str:
    """Return a lower-case word of Latin letters without its ending; one of three letters stays as it is."""
    if len(word) <= 3:  # as rouge-score does
        return word
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    word = _past(_plural(word))
    if word.endswith("y") and len(word) > 2 and _shape(word)[-2] == "c":
        word = word[:-1] + "i"
    return _last(_fourth(_third(_second(word))))


def _shape(word: str) -> str:
    """Return v or c for each letter; y behind a consonant is a vowel."""
    found = ""
    for letter in word:
        vowel = letter in "aeiou" or (letter == "y" and found.endswith("c"))
        found += "v" if vowel else "c"
    return found


def _measure(word: str) -> int:
    """Return how often a consonant follows a vowel."""
    return _shape(word).count("vc")


def _short(word: str) -> bool:
    """Say whether a word ends in consonant, vowel, consonant but w, x, y; or is a vowel and a consonant."""
    shape = _shape(word)
    return (shape.endswith("cvc") and word[-1] not in "wxy") or shape == "vc"


def _plural(word: str) -> str:
    if word.endswith("ies"):
        return word[:-1] if len(word) == 4 else word[:-2]
    if word.endswith("sses"):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _past(word: str) -> str:
    if word.endswith("ied"):
        return word[:-1] if len(word) == 4 else word[:-2]
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    root = next((word[: -len(e)] for e in ("ed", "ing") if word.endswith(e)), "")
    if "v" not in _shape(root):
        return word
    if root.endswith(("at", "bl", "iz")):
        return root + "e"
    if len(root) > 1 and root[-1] == root[-2] and _shape(root)[-1] == "c":
        return root if root[-1] in "lsz" else root[:-1]
    return root + "e" if _measure(root) == 1 and _short(root) else root


def _replaced(word: str, endings: dict[str, str]) -> str:
    """Replace the first ending that fits, if what stands before it has a vowel and then a consonant."""
    ending = next((e for e in endings if word.endswith(e)), "")
    root = word[: len(word) - len(ending)]
    return root + endings[ending] if ending and _measure(root) > 0 else word


def _second(word: str) -> str:
    if word.endswith("alli") and _measure(word[:-4]) > 0:
        return _second(word[:-2])
    if word.endswith("logi"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    return _replaced(word, _SECOND)


def _third(word: str) -> str:
    return _replaced(word, _THIRD)


def _fourth(word: str) -> str:
    ending = next((e for e in _FOURTH if word.endswith(e)), "")
    root = word[: len(word) - len(ending)]
    if not ending or _measure(root) <= 1 or (ending == "ion" and root[-1] not in "st"):
        return word
    return root


def _last(word: str) -> str:
    if word.endswith("e"):
        count = _measure(word[:-1])
        word = word[:-1] if count > 1 or (count == 1 and not _short(word[:-1])) else word
    return word[:-1] if word.endswith("ll") and _measure(word[:-1]) > 1 else word
