"""What is learned: a row of prompt and completion, and how each journey makes its rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from taskmill.errors import ConfigError, InputError
from taskmill.ids import content_id, draw
from taskmill.record import Document, Example
from taskmill.render import CHAT_TOKENS, bonito_text, chat_text, escape, escape_special, messages

__all__ = ["TrainRow", "split", "student_rows", "synthesizer_rows", "tapt_rows"]

SLACK = 8
"""Tokens a chunk may grow by when it is encoded by itself (chosen; the seams merge differently there)."""


@dataclass(frozen=True, slots=True)
class TrainRow:
    """A text of two parts; the loss is taken on the tokens of `completion` (and the end token) only.

    `unlearned`: parts of `completion`, as (begin, end) in characters and in order, on which there is no loss
    either. `passage` is the part of `prompt` that may be shortened. Rows of one `group` are never split
    between training and validation. `special`: the text is a rendered chat, whose special tokens are tokens
    and which ends itself. `ends`: the end token follows (not after a chunk that the text goes on behind).
    """

    prompt: str
    completion: str
    passage: str = ""
    group: str = ""
    special: bool = False
    ends: bool = True
    unlearned: tuple[tuple[int, int], ...] = ()

    @property
    def pieces(self) -> Iterator[tuple[str, bool]]:
        """Yield the completion in pieces, each with whether it is learned; none is empty."""
        at = 0
        for begin, end in self.unlearned:
            if begin > at:
                yield self.completion[at:begin], True
            if end > begin:
                yield self.completion[begin:end], False
            at = end
        if at < len(self.completion):
            yield self.completion[at:], True

    @property
    def passage_id(self) -> str:
        """Return what the split goes by: the group, or the row itself."""
        return self.group or content_id(self.prompt, self.completion)


def split(groups: Sequence[str], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Return the indices of the rows to train and to validate on: whole groups, drawn by the seed.

    `groups` is the group of each row. About `share` of the rows are kept for validation, at least 8 of 100
    or more (chosen: fewer say nothing), and always less than half, so that one group is never all there is
    to train on.
    """
    wanted = round(share * len(groups))
    if share and len(groups) >= 100:
        wanted = max(wanted, 8)
    sizes = Counter(groups)
    chosen: set[str] = set()
    held = 0
    for group in sorted(sizes, key=lambda g: (draw(seed, g, "valid"), g)):
        if held >= wanted:
            break
        if 2 * (held + sizes[group]) < len(groups):
            chosen.add(group)
            held += sizes[group]
    valid = [i for i, group in enumerate(groups) if group in chosen]
    return [i for i, group in enumerate(groups) if group not in chosen], valid


def synthesizer_rows(table: Iterable[Mapping[str, Any]] | Any) -> Iterator[TrainRow]:
    """Read rows with the columns `prompt` and `completion`.

    There may be `passage`, `group`, `unlearned` and `special`, as in `TrainRow`. `table` is an Arrow table or
    an iterable of mappings. Raises InputError naming the row that lacks one of the two.
    """
    source = (
        (row for batch in table.to_batches() for row in batch.to_pylist())
        if hasattr(table, "to_batches")
        else table
    )
    for i, row in enumerate(source):
        for name in ("prompt", "completion"):
            if not isinstance(row.get(name), str):
                raise InputError(
                    f"row {i} has no text in the column {name!r}; it needs prompt and completion"
                )
        unlearned = tuple((int(begin), int(end)) for begin, end in row.get("unlearned") or ())
        yield TrainRow(
            row["prompt"], row["completion"], row.get("passage") or "", str(row.get("group") or ""),
            bool(row.get("special")), unlearned=unlearned,
        )  # fmt: skip


def tapt_rows(documents: Iterable[Document], max_length: int, tokenizer: Any) -> Iterator[TrainRow]:
    """Cut documents into chunks of at most `max_length` tokens; every token of the text is learned.

    Chunks end where a token ends and never join two documents. The end token follows the last chunk of
    a document only. Documents without text give no row.
    """
    room = max_length - 2 - SLACK
    if room < 1:
        raise ConfigError(f"max_length: {max_length} leaves no room for a text; take 64 or more")
    for document in documents:
        text = document.text
        if not text.strip():
            continue
        ends = [end for _, end in tokenizer(
            text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True
        )["offset_mapping"]]  # fmt: skip
        # A token's end, not its beginning: the space before a word belongs to the word's token.
        bounds = [0, *ends[room - 1 : -1 : room], len(text)]
        for begin, end in pairwise(bounds):
            if begin < end:
                yield TrainRow("", text[begin:end], group=document.id, ends=end == len(text))


def student_rows(examples: Iterable[Example], layout: str, tokenizer: Any) -> Iterator[TrainRow]:
    """Turn examples into rows of a student: `chat` (the tokenizer's own template) or `bonito`.

    Raises ConfigError for another layout, or if the tokenizer has no chat template.
    """
    if layout == "bonito":
        yield from map(_bonito_row, examples)
        return
    if layout != "chat":
        raise ConfigError(f"no student layout {layout!r}; take chat or bonito")
    template = getattr(tokenizer, "chat_template", None)
    if not isinstance(template, str):
        raise ConfigError("the base model has no chat template; train the student with the bonito layout")
    named = tokenizer.special_tokens_map
    given = [t for value in named.values() for t in ([value] if isinstance(value, str) else value)]
    tokens = tuple(dict.fromkeys([*given, *CHAT_TOKENS]))  # what chat_text escapes
    for example in examples:
        chat = chat_text(messages(example), template, named)
        start, end = chat.loss_spans[-1]
        prompt, passage = chat.text[:start], escape_special(example.context, tokens)
        yield TrainRow(prompt, chat.text[start:end], _within(prompt, passage), _group(example), True, False)


def _bonito_row(example: Example) -> TrainRow:
    text = bonito_text(example)
    # The last marker is ours: those in the user's text are escaped.
    head, marker, completion = text.rpartition("<|output|>\n")
    prompt = head + marker
    return TrainRow(prompt, completion, _within(prompt, escape(example.context)), _group(example))


def _within(prompt: str, passage: str) -> str:
    """Return the passage if the prompt holds it as it is; without it an over-long row is refused."""
    return passage if passage and passage in prompt else ""


def _group(example: Example) -> str:
    return example.source.document or (content_id(example.context) if example.context else "")
