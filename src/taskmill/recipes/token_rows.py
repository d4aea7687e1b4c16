"""Rows of instruction data → rows of tokens, with what is learned of each: prompts are not, responses are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from taskmill.errors import ConfigError, InputError, UsageError
from taskmill.recipes.given_tokens import given_rows, narrowest
from taskmill.recipes.layouts import as_examples, has_layout, layouts_of
from taskmill.recipes.session import OnProgress, Progress
from taskmill.recipes.tables import column, is_list
from taskmill.record import Example
from taskmill.render import CHAT_TOKENS, answer, chat_text, escape_special, messages, prompt

if TYPE_CHECKING:
    import numpy as np

    from taskmill.backends.tokenizer import TextTokenizer
    from taskmill.mix.pack import TokenRows

    Array = np.ndarray[Any, Any]

__all__ = ["GIVEN", "token_rows"]

CHUNK = 4096
"""Rows whose texts are encoded at once."""

_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "chatgpt": "assistant"}
"""Names of the speakers in ShareGPT's files → those of chat templates."""

GIVEN = {"tokenizer": None, "layout": "input_ids"}
"""What made the tokens of rows that are tokens already."""

Piece = tuple[str, bool]
"""A part of a row's text, and whether the loss is taken on it."""


def token_rows(
    table: pa.Table, report: OnProgress, *, tokenizer: str, layout: str = "auto", eos: str = "both"
) -> tuple[TokenRows, dict[str, Any]]:
    """Return the rows of a table with ids as tokens, and what made them so (`PackConfig` has the settings).

    Raises UsageError without a tokenizer, ConfigError for a layout or end token it has not, InputError naming
    the row that cannot be read.
    """
    if "input_ids" in table.column_names and is_list(table["input_ids"].type):
        return given_rows(table.to_batches(), table["id"]), dict(GIVEN)
    if not tokenizer:
        raise UsageError("--tokenizer is missing; name an embedded model, a folder or a Hub name")
    from taskmill.backends.tokenizer import load_text_tokenizer

    found = load_text_tokenizer(tokenizer)
    about = {
        "tokenizer": found.name,
        "vocabulary": found.size,
        "eos_token_id": found.end,
        "unknown_token_id": _unknown(found),
    }
    if _is_chat(layout, table, found):
        chats = (_chat_pieces(turns, found) for turns in _chats(table))
        return _encoded(chats, found, len(table), report), {**about, "layout": "chat"}
    return _encoded(_plain_pieces(table, found, eos), found, len(table), report), {
        **about,
        "layout": "plain",
        "eos": eos,
    }


def _unknown(tokenizer: TextTokenizer) -> int | None:
    """Return the token of what the vocabulary lacks; None without one that is not the end token too."""
    mark = tokenizer.special_tokens.get("unk_token")
    ids: Sequence[int] | Array = tokenizer.encode([mark])[0] if mark else []
    return int(ids[0]) if len(ids) == 1 and int(ids[0]) != tokenizer.end else None


def _is_chat(layout: str, table: pa.Table, tokenizer: TextTokenizer) -> bool:
    if layout == "chat" and not tokenizer.chat_template:
        raise ConfigError(f"--layout: {tokenizer.name} has no chat template; take plain")
    if layout != "auto":
        return layout == "chat"
    named = [name for name in ("messages", "conversations") if name in table.column_names]
    return any(is_list(table[name].type) for name in named) and bool(tokenizer.chat_template)


def _encoded(
    rows: Iterator[list[Piece]], tokenizer: TextTokenizer, total: int, report: OnProgress
) -> TokenRows:
    """Encode the pieces of each row by themselves, so that what is learned begins and ends at tokens."""
    import numpy as np

    from taskmill.mix.pack import TokenRows

    tokens: list[Array] = [np.zeros(0, np.uint32)]
    learned: list[Array] = [np.zeros(0, np.uint8)]
    lengths: list[Array] = [np.zeros(0, np.int64)]
    done = 0
    while part := [row for _, row in zip(range(CHUNK), rows, strict=False)]:
        pieces = [piece for row in part for piece in row]
        ids, offsets = tokenizer.encode([text for text, _ in pieces])
        sizes = np.diff(offsets)
        tokens.append(ids)
        learned.append(np.repeat(np.array([loss for _, loss in pieces], np.uint8), sizes))
        ends = np.cumsum([0, *(len(row) for row in part)])
        lengths.append(offsets[ends[1:]] - offsets[ends[:-1]])
        done += len(part)
        report(Progress("pack", done, total, note="encode"))
    whole = np.concatenate(lengths)
    offsets = np.concatenate(([0], np.cumsum(whole))).astype(np.int64)
    mask = np.concatenate(learned)
    mask[offsets[:-1][whole > 0]] = 0
    line = np.concatenate(tokens)
    return TokenRows(line.astype(narrowest(int(line.max(initial=0)))), mask, offsets)


def _plain_pieces(table: pa.Table, tokenizer: TextTokenizer, eos: str) -> Iterator[list[Piece]]:
    special = tuple(dict.fromkeys([*tokenizer.special_tokens.values(), *CHAT_TOKENS]))
    end = tokenizer.special_tokens.get("eos_token", "")
    if eos != "none" and not end:
        raise ConfigError(f"--eos: {tokenizer.name} has no end token; take --eos none")
    begin = tokenizer.special_tokens.get("bos_token", "") if tokenizer.begin else ""
    middle, last = end if eos == "both" else "", end if eos != "none" else ""
    for given, wanted in _pairs(table):
        row: list[Piece] = [(begin, False)]
        if given:
            row += [(escape_special(given, special), False), (middle, False)]
        if wanted:
            row += [(escape_special(wanted, special), True), (last, True)]
        yield row


def _pairs(table: pa.Table) -> Iterator[tuple[str, str]]:
    """Yield (prompt, response) of each row; of plain text, nothing and the text."""
    if has_layout(table.column_names):
        for example in as_examples(table, whole=True):
            yield prompt(example), answer(example)
        return
    if "text" not in table.column_names:
        layouts_of(table.column_names)  # raises: it names what there may be
    texts = column(table, "text", "the rows", text=True)
    for batch in texts.chunks:
        yield from (("", text or "") for text in batch.to_pylist())


def _chats(table: pa.Table) -> Iterator[list[dict[str, str]]]:
    """Yield the turns of each row: those of its chat, or a question and its answer."""
    columns = [name for name in ("messages", "conversations") if name in table.column_names]
    rest: Iterator[Example] = as_examples(table, whole=True)
    cells = [table[name].to_pylist() for name in columns]
    for i, example in enumerate(rest):
        turns = next((found for cell in cells if (found := cell[i])), None)
        yield messages(example) if turns is None else [_turn(turn, example.id) for turn in turns]


def _turn(turn: Any, row: str) -> dict[str, str]:
    role, text = (turn.get("role") or turn.get("from"), turn.get("content", turn.get("value")))
    if not isinstance(role, str) or not isinstance(text, str):
        raise InputError(f"row {row}: a turn has no role or no text; mend or drop it")
    return {"role": _ROLES.get(role, role), "content": text}


def _chat_pieces(turns: Sequence[dict[str, str]], tokenizer: TextTokenizer) -> list[Piece]:
    """Return the text of a chat; where no turn of the assistant says anything, nothing of it is learned."""
    chat = chat_text(turns, tokenizer.chat_template, tokenizer.special_tokens)
    if not any(turn["role"] == "assistant" and turn["content"].strip() for turn in turns):
        return [(chat.text, False)]  # the end token alone is nothing to learn
    pieces: list[Piece] = []
    at = 0
    for start, end in chat.loss_spans:
        pieces += [(chat.text[at:start], False), (chat.text[start:end], True)]
        at = end
    return [*pieces, (chat.text[at:], False)]
