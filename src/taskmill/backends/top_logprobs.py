"""Weights of a closed set of answers, from the likeliest first tokens that an OpenAI-compatible server lists.

Chat servers list at most 20 (`top_logprobs`), servers of plain completions often 5 (`logprobs`; OpenAI's API
reference). That tells apart choices of one token each, such as digits or yes and no.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["asked", "first_words", "single_words", "weights"]

_CHAT, _PLAIN = 20, 5
_MARKS = " \t\n\r.,:;!*\"'▁Ġ"  # around a token, and a tokenizer's own signs for a space


def asked(*, chat: bool) -> dict[str, Any]:
    """Return the fields of a request that ask for the likeliest tokens."""
    return {"logprobs": True, "top_logprobs": _CHAT} if chat else {"logprobs": _PLAIN}


def weights(choice: Mapping[str, Any], choices: Sequence[str]) -> list[float] | None:
    """Return each choice's log-probability as the first token of a reply, None if the server lists none.

    Spellings of a choice ("Yes", " yes", "YES") add up. A choice that is not listed counts as the least
    likely token that is, which is the most it can have.
    """
    listed = [(token.strip(_MARKS).casefold(), logprob) for token, logprob in _listed(choice)]
    sums = [
        math.fsum(math.exp(logprob) for token, logprob in listed if token == wanted.strip().casefold())
        for wanted in choices
    ]
    if not any(sums):
        return None
    least = min(logprob for _, logprob in listed)
    return [min(0.0, math.log(share)) if share else least for share in sums]


def single_words(choices: Sequence[str]) -> bool:
    """Say whether the choices are words, each another one, so that first tokens may tell them apart."""
    folded = {c.strip().casefold() for c in choices}
    return len(folded) == len(choices) and all(re.fullmatch(r"\w+", word) for word in folded)


def first_words(choice: Mapping[str, Any], choices: Sequence[str]) -> list[float] | str | None:
    """Return the `weights` of single words, a line if they are unknown, None if the server lists no tokens.

    A word that is not listed but begins with a listed token is several tokens long: its likelihood may be
    that beginning's, which `weights` cannot see.
    """
    tokens = {token.strip(_MARKS).casefold() for token, _ in _listed(choice)} - {""}
    words = [c.strip().casefold() for c in choices]
    cut = [w for w in words if w not in tokens and any(w.startswith(t) for t in tokens)]
    if cut:
        return f"the choice {cut[0]!r} is several tokens long; ask for plain completions instead"
    found = weights(choice, choices)
    if found is None and next(_listed(choice), None) is not None:
        return "none of the choices is among the likeliest first tokens; ask for plain completions instead"
    return found


def _listed(choice: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield (token, log-probability) of the first position, in either protocol's form."""
    found = choice.get("logprobs")
    if not isinstance(found, Mapping):
        return
    content, plain = found.get("content"), found.get("top_logprobs")
    if isinstance(content, list) and content and isinstance(content[0], Mapping):
        entries = content[0].get("top_logprobs") or ()
        pairs = [(e.get("token"), e.get("logprob")) for e in entries if isinstance(e, Mapping)]
    elif isinstance(plain, list) and plain and isinstance(plain[0], Mapping):
        pairs = list(plain[0].items())
    else:
        return
    for token, logprob in pairs:
        if isinstance(token, str) and isinstance(logprob, int | float) and math.isfinite(logprob):
            yield token, min(float(logprob), 0.0)
