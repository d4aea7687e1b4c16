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
    """Token ids of a row (uint32); the loss is taken on predicting `ids[start:]` (`start` is at least 1).

    `skipped`: ranges of `ids` behind `start` on which it is not.
    """

    ids: np.ndarray[Any, np.dtype[np.uint32]]
    start: int
    cut: bool = False
    group: str = ""
    skipped: tuple[tuple[int, int], ...] = ()

    @property
    def supervised(self) -> int:
        """Return how many tokens the loss is taken on."""
        return len(self.ids) - self.start - sum(end - begin for begin, end in self.skipped)


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
            pieces = [(row, text) for row in part for text, _ in row.pieces]
            encoded = iter(self._ids([text for _, text in pieces], [row for row, _ in pieces]))
            for row, prompt in zip(part, prompts, strict=True):
                # Pieces apart, like prompt and completion: their boundaries are exact.
                own = [(next(encoded), learned) for _, learned in row.pieces]
                found = self._row(row, prompt, own)
                if isinstance(found, str):
                    self.refused.append(Refused(self.seen, found))
                else:
                    yield found
                self.seen += 1

    def _row(self, row: TrainRow, prompt: list[int], pieces: list[tuple[list[int], bool]]) -> Encoded | str:
        completion = [token for ids, _ in pieces for token in ids]
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
        found = Encoded(ids, start, cut, row.passage_id, _skipped(pieces, len(begin) + len(prompt), start))
        return found if found.supervised else "there is no token to learn"

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


def _skipped(pieces: list[tuple[list[int], bool]], at: int, start: int) -> tuple[tuple[int, int], ...]:
    """Return the ranges of tokens, from `start` on, of pieces that are not learned; the first is at `at`."""
    found = []
    for ids, learned in pieces:
        if not learned and at + len(ids) > start:
            found.append((max(at, start), at + len(ids)))
        at += len(ids)
    return tuple(found)


def digest(rows: Iterable[Encoded]) -> str:
    """Return the SHA-256 of token streams and loss boundaries, in order: what a run is trained on."""
    found = hashlib.sha256()
    for row in rows:
        found.update(struct.pack("<II", len(row.ids), row.start))
        found.update(row.ids.astype("<u4").tobytes())
        for begin, end in row.skipped:
            found.update(struct.pack("<II", begin, end))
    return found.hexdigest()
