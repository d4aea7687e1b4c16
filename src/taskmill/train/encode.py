"""Row → token ids, with the exact place where the loss begins; long passages are cut in their middle."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from taskmill.train.rows import TrainRow

__all__ = ["GAP", "Encoded", "Encoder", "Refused", "digest"]

GAP = " … "
"""What stands where a passage was cut, so that two halves of sentences do not read as one."""

CHUNK = 512
"""Rows given to the tokenizer at once (its own threads share them)."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of a row (uint32); the loss is taken on predicting `ids[start:]` (`start` is at least 1)."""

    ids: np.ndarray[Any, np.dtype[np.uint32]]
    start: int
    cut: bool = False
    group: str = ""

    @property
    def supervised(self) -> int:
        """Return how many tokens the loss is taken on."""
        return len(self.ids) - self.start


@dataclass(frozen=True, slots=True)
class Refused:
    """A row that cannot be trained on, and why."""

    index: int
    why: str


@dataclass
class Encoder:
    """Encodes rows with one tokenizer, prompt and completion apart so that their boundary is exact.

    `seen` counts the rows; `refused` holds those that cannot be trained on.
    """

    tokenizer: Any
    max_length: int
    refused: list[Refused] = field(default_factory=list)
    seen: int = 0

    def __post_init__(self) -> None:
        bos, eos = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        # BOS only where this tokenizer begins texts with it (SmolLM2 has one and does not).
        begins = self.tokenizer("a")["input_ids"][:1] == [bos]
        self.begin: list[int] = [bos] if bos is not None and begins else []
        self.end: list[int] = [eos] if eos is not None else []

    def encode(self, rows: Iterable[TrainRow]) -> Iterator[Encoded]:
        """Yield the rows as tokens, in order; the texts themselves are not kept."""
        source = iter(rows)
        while part := list(islice(source, CHUNK)):
            prompts = self._ids([row.prompt for row in part], part)
            completions = self._ids([row.completion for row in part], part)
            for row, prompt, completion in zip(part, prompts, completions, strict=True):
                found = self._row(row, prompt, completion)
                if isinstance(found, str):
                    self.refused.append(Refused(self.seen, found))
                else:
                    yield found
                self.seen += 1

    def _row(self, row: TrainRow, prompt: list[int], completion: list[int]) -> Encoded | str:
        if not completion:
            return "the completion is empty"
        begin = [] if row.special else self.begin
        answer = completion + (self.end if row.ends and not row.special else [])
        room = self.max_length - len(begin) - len(answer)
        cut = len(prompt) > room
        if cut:
            shorter = self._shorten(row, room)
            if shorter is None:
                total = len(begin) + len(prompt) + len(answer)
                return f"{total} tokens do not fit {self.max_length} even without the passage"
            prompt = shorter
        # Nothing stands before the first token of a plain text, so nothing can predict it.
        start = max(1, len(begin) + len(prompt))
        if start >= len(begin) + len(prompt) + len(answer):
            return "there is no token to learn"
        ids = np.array([*begin, *prompt, *answer], dtype=np.uint32)
        return Encoded(ids, start, cut, row.passage_id)

    def _shorten(self, row: TrainRow, room: int) -> list[int] | None:
        """Return the prompt's tokens with as much of the passage as fits, its middle taken out."""
        at = row.prompt.find(row.passage) if row.passage else -1
        if at < 0 or room < 0:
            return None
        head, tail = row.prompt[:at], row.prompt[at + len(row.passage) :]
        offsets = self.tokenizer(
            row.passage,
            add_special_tokens=False,
            split_special_tokens=not row.special,
            return_offsets_mapping=True,
        )["offset_mapping"]
        # Tokens may merge or split at the seams, so the parts are put together as text, encoded again
        # and shortened until they fit.
        keep = min(room - len(self._one(head + GAP + tail, row)), len(offsets) - 1)
        while keep > 0:
            front, back = (keep + 1) // 2, keep // 2
            first = row.passage[: offsets[front - 1][1]]
            last = row.passage[offsets[-back][0] :] if back else ""
            ids = self._one(head + first + GAP + last + tail, row)
            if len(ids) <= room:
                return ids
            keep -= len(ids) - room
        ids = self._one(head + tail, row)
        return ids if len(ids) <= room else None

    def _one(self, text: str, row: TrainRow) -> list[int]:
        return self._ids([text], [row])[0]

    def _ids(self, texts: list[str], rows: Sequence[TrainRow]) -> list[list[int]]:
        """Encode texts without automatic tokens; markers in user text stay text."""
        found: list[list[int]] = [[] for _ in texts]
        for special in (False, True):
            which = [i for i, row in enumerate(rows) if row.special is special and texts[i]]
            if which:
                ids = self.tokenizer(
                    [texts[i] for i in which], add_special_tokens=False, split_special_tokens=not special
                )["input_ids"]
                for i, row_ids in zip(which, ids, strict=True):
                    found[i] = list(row_ids)
        return found


def digest(rows: Iterable[Encoded]) -> str:
    """Return the SHA-256 of token streams and loss boundaries, in order: what a run is trained on."""
    found = hashlib.sha256()
    for row in rows:
        found.update(struct.pack("<II", len(row.ids), row.start))
        found.update(row.ids.astype("<u4").tobytes())
    return found.hexdigest()
