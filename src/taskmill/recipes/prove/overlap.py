"""What no arm may learn: passages of the test, and rows that hold a question of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from taskmill.curate.benchmark_index import Item, index_of
from taskmill.curate.screen import Screen
from taskmill.errors import InputError
from taskmill.kernels.text import grams, hashes
from taskmill.recipes.prove.items import Question
from taskmill.record import Document, Example

__all__ = ["RULE", "Guard"]

Array = np.ndarray[Any, Any]

RUN = 13
"""Words in a row by which two texts overlap (GPT-3, arXiv 2005.14165, appendix C)."""

LEAST = 8
"""Words of a passage shorter than `RUN` and its question that are no chance (the least of GPT-3's n)."""

RULE = (
    f"a text is removed that shares {RUN} words in a row with a passage of the test or a general text of the "
    "retention gate, or all of its words; "
    "a row also if what is written in it holds a question of the test (the rule of `synth --against`), or "
    "all of a shorter passage and of its question"
)


class Guard:
    """The test's texts, ready to be looked for in what an arm would learn.

    `texts` are those of the retention gate: perplexity on text that was learned hides what is forgotten.
    """

    def __init__(self, questions: Sequence[Question], texts: Sequence[str] = ()) -> None:
        lines = {text: hashes(text) for text in (*(q.context for q in questions), *texts)}
        self._whole = {line.tobytes() for line in lines.values()}
        runs = [grams(line, RUN) for line in lines.values()]
        self._short: dict[int, dict[int, list[Array]]] = {}
        for q in questions:
            words, asked = lines[q.context], hashes(q.question)
            if 0 < len(words) < RUN and len(words) + len(asked) >= LEAST:
                known = self._short.setdefault(len(words), {})
                known.setdefault(int(grams(words, len(words))[0]), []).append(asked)
        self._runs = np.unique(np.concatenate([np.zeros(0, np.uint64), *runs]))
        items = [
            Item(
                f"test/{q.id}",
                [("question", q.question), *(("answer", g) for g in q.golds), ("passage", q.context)],
            )
            for q in questions
        ]
        items += [Item(f"general/{number}", [("passage", text)]) for number, text in enumerate(texts)]
        try:
            self._screen: Screen | None = Screen(index_of("test", items))
        except InputError:  # no text of the test is long enough to be told from chance: whole ones are left
            self._screen = None

    def overlap(self, text: str) -> str:
        """Return "exact" for a passage of the test, "n-gram" for one that shares a run with one, else ""."""
        line = hashes(text)
        if len(line) and line.tobytes() in self._whole:
            return "exact"
        runs = grams(line, RUN)
        if not len(self._runs) or not len(runs):
            return ""
        place = np.minimum(np.searchsorted(self._runs, runs), len(self._runs) - 1)
        return "n-gram" if bool((self._runs[place] == runs).any()) else ""

    def _holds(self, example: Example) -> bool:
        """Say whether a row holds a passage that is too short for a run, and its question, in whole."""
        if not self._short:
            return False
        words = hashes(f"{example.context}\n{example.instruction}\n{example.response}")
        for size, known in self._short.items():
            for passage in known.keys() & set(grams(words, size).tolist()):
                if any(_within(asked, words) for asked in known[passage]):
                    return True
        return False

    def wrong(self, rows: Sequence[Example | Document]) -> list[str]:
        """Return for each row why no arm may learn it, "" for one that may be learned."""
        examples = [r if isinstance(r, Example) else Example(r.id, "", r.text, "", "") for r in rows]
        found = self._screen.matches(examples) if self._screen else [None] * len(rows)
        contexts: dict[str, str] = {}
        for example in examples:
            if example.context not in contexts:
                contexts[example.context] = self.overlap(example.context)
        return [
            f"{contexts[e.context]} overlap of its passage with one of the test"
            if contexts[e.context]
            else match.detail
            if match
            else "it holds a passage of the test and its question"
            if self._holds(e)
            else ""
            for e, match in zip(examples, found, strict=True)
        ]


def _within(words: Array, text: Array) -> bool:
    return not len(words) or bool(np.isin(grams(words, len(words)), grams(text, len(words)))[0])
