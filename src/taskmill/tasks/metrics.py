"""Answer metrics, written out short: SQuAD exact match and F1, ROUGE-L, accuracy. Imports nothing of ours."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

__all__ = ["exact_match", "rouge_l", "squad_f1", "squad_normalise"]

# Scripts written without spaces: Thai, Lao, Myanmar, Khmer, kana, Han. Each character is one token.
_UNSPACED = re.compile(r"([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff])")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ROUGE_TOKEN = re.compile(r"[a-z0-9]+")
_ANY_TOKEN = re.compile(r"[^\W_]+")


def squad_normalise(text: str) -> str:
    """Lower-case, drop ASCII punctuation, drop English articles, join by single spaces.

    Source: `normalize_answer` of the SQuAD v1.1 evaluation script (Rajpurkar et al. 2016).
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def _squad_tokens(text: str) -> list[str]:
    # Characters of unspaced scripts are tokens, as in MLQA's mixed segmentation (Lewis et al. 2020).
    return _UNSPACED.sub(r" \1 ", squad_normalise(text)).split()


def exact_match(prediction: str, golds: Sequence[str]) -> float:
    """Return 1.0 if the normalised prediction equals any normalised gold answer, else 0.0."""
    normal = squad_normalise(prediction)
    return float(any(normal == squad_normalise(gold) for gold in golds))


def squad_f1(prediction: str, golds: Sequence[str]) -> float:
    """Return the best token F1 over all gold answers after SQuAD normalisation."""
    return max((_f1(_squad_tokens(prediction), _squad_tokens(gold)) for gold in golds), default=0.0)


def _f1(prediction: list[str], gold: list[str]) -> float:
    if not prediction or not gold:
        # SQuAD 2.0: an answer without tokens is right only against another without tokens.
        return float(prediction == gold)
    common = sum((Counter(prediction) & Counter(gold)).values())
    return 2 * common / (len(prediction) + len(gold))


def rouge_l(prediction: str, gold: str, limit: int = 1000, stem: Callable[[str], str] | None = None) -> float:
    """Return the ROUGE-L F-measure: 2PR / (P + R) over the longest common subsequence (Lin 2004).

    Text with Latin letters or digits is tokenised as `rouge-score` does (lower case, [a-z0-9]+; words are
    compared by what `stem` makes of them, where it is given). Other scripts would have no tokens there:
    they are split into words or characters.
    Only the first `limit` tokens count (chosen: bounds the quadratic time to about 0.1 s).
    """
    a, b = _rouge_tokens(prediction)[:limit], _rouge_tokens(gold)[:limit]
    if not a or not b:
        return 0.0
    if stem is not None:
        a, b = [stem(word) for word in a], [stem(word) for word in b]
    return 2 * _common_subsequence(a, b) / (len(a) + len(b))


def _rouge_tokens(text: str) -> list[str]:
    lower = text.lower()
    if text.isascii():
        return _ROUGE_TOKEN.findall(lower)
    latin = _ROUGE_TOKEN.findall(lower)
    # Mostly another script: fewer than half of the letters are ASCII.
    letters = sum(map(str.isalnum, lower))
    if 2 * sum(map(len, latin)) >= letters:
        return latin
    return _ANY_TOKEN.findall(_UNSPACED.sub(r" \1 ", lower))


def _common_subsequence(a: list[str], b: list[str]) -> int:
    row = [0] * (len(b) + 1)
    for token in a:
        diagonal = 0
        for j, other in enumerate(b, 1):
            above = row[j]
            row[j] = diagonal + 1 if token == other else max(above, row[j - 1])
            diagonal = above
    return row[-1]
