"""Example → the text a model sees. The only file that knows placeholders, markers and layouts.

Wire markers inside user text are made harmless by inserting a WORD JOINER (U+2060) after the first
character; `unescape` takes exactly one joiner back, so escaping is reversible for any text.
`escape_special` does the same for the special tokens of chat models.

Two kinds of layout leave here. *Columns* (`messages`, `prompt_completion`, `alpaca`, `sharegpt`,
`bonito`) hold the user's text untouched: the trainer's tokenizer must encode it as text. *Rendered
text* (`text`, `bonito_text`, `chat_text`) mixes user text with markers, so the text is escaped there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import lru_cache, partial
from typing import Any, NamedTuple

import minijinja

from taskmill.errors import ConfigError, InputError
from taskmill.record import Example, Reason

__all__ = [
    "CHAT_TOKENS",
    "END_TOKENS",
    "FORMATS",
    "PIPE_MARKER",
    "PLACEHOLDER",
    "SLOT",
    "TASK_MARKER",
    "ChatText",
    "alpaca",
    "answer",
    "attributes_prompt",
    "attributes_text",
    "bonito",
    "bonito_completion",
    "bonito_prompt",
    "bonito_text",
    "chat_text",
    "escape",
    "escape_special",
    "fill",
    "from_alpaca",
    "from_messages",
    "from_sharegpt",
    "has_marker",
    "has_placeholder",
    "messages",
    "prompt",
    "prompt_completion",
    "sharegpt",
    "text",
    "turn_problem",
    "unescape",
    "unescape_special",
]

PLACEHOLDER = "{{context}}"
SLOT = r"\{\{\s*context\s*\}\}"
"""The placeholder of the passage as it may be written, as a pattern."""

TASK_MARKER = "<|task|>"
PIPE_MARKER = "<|pipe|>"
_JOINER = "\u2060"
_MARKERS = r"tasktype|context|task|pipe|input|output"
_RAW = re.compile(rf"<({_JOINER}*\|(?:{_MARKERS})\|>)|\{{({_JOINER}*\{{\s*context\s*\}}\}})")
_ESCAPED = re.compile(
    rf"<{_JOINER}({_JOINER}*\|(?:{_MARKERS})\|>)|\{{{_JOINER}({_JOINER}*\{{\s*context\s*\}}\}})"
)
_MARKER = re.compile(rf"<\|(?:{_MARKERS})\|>")
_SLOT = re.compile(SLOT)

CHAT_TOKENS = (
    # ChatML, Llama 2, Llama 3, Mistral, Gemma, Phi and Zephyr, GPT-OSS, DeepSeek, GPT-2
    *("<|im_start|>", "<|im_end|>", "<s>", "</s>", "<<SYS>>", "<</SYS>>", "[INST]", "[/INST]"),
    *("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    *("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CALLS]", "<start_of_turn>", "<end_of_turn>"),
    *("<bos>", "<eos>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|start|>", "<|message|>"),
    *("<|channel|>", "<|return|>", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>"),
    *("<｜Assistant｜>", "<|endoftext|>"),
)
"""Special tokens of common chat models: escaped in rendered text whatever the tokenizer says."""

END_TOKENS = (
    *("<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "<|eot_id|>", "</s>", "<eos>", "<end_of_turn>"),
    *("<|end|>", "<|return|>", "<｜end▁of▁sentence｜>"),
)
"""Those of them by which a model ends its text."""

Message = dict[str, str]
Pair = tuple[str, str]


# placeholders and wire markers


def escape(text: str) -> str:
    """Make wire markers and placeholders inside user text harmless; `unescape` reverses it."""
    return _RAW.sub(lambda m: f"<{_JOINER}{m[1]}" if m[1] else f"{{{_JOINER}{m[2]}", text)


def unescape(text: str) -> str:
    """Reverse `escape`: take one joiner out of each escaped marker."""
    if _JOINER not in text:
        return text
    return _ESCAPED.sub(lambda m: f"<{m[1]}" if m[1] else f"{{{m[2]}", text)


def has_marker(text: str) -> bool:
    """Say whether a raw wire marker stands in the text."""
    return _MARKER.search(text) is not None


def has_placeholder(text: str) -> bool:
    """Say whether the context placeholder stands in the text, in any spacing."""
    return _SLOT.search(text) is not None


def fill(text: str, context: str) -> str:
    """Put `context` in place of the placeholder, in one pass, and unescape the words around it."""
    parts = _SLOT.split(text)
    return context.join([unescape(part) for part in parts])


def bonito_prompt(task_title: str, passage: str) -> str:
    """Return Bonito's generator prompt: task type, passage, task marker, newline (wire format of v1)."""
    return f"<|tasktype|>\n{task_title.strip()}\n<|context|>\n{escape(passage.strip())}\n<|task|>\n"


def attributes_prompt(task_title: str, passage: str, attributes: Mapping[str, str]) -> str:
    """Return the prompt of generators of our own: passage, task type, attributes as "name: value" lines.

    The passage stands first, so that all requests about it share it in an engine's prefix cache.
    """
    lines = [task_title.strip(), *(f"{k}: {_one_line(escape(v))}" for k, v in attributes.items())]
    head = "\n".join(lines)
    return f"<|context|>\n{escape(passage.strip())}\n<|tasktype|>\n{head}\n<|task|>\n"


def bonito_completion(instruction: str, response: str, passage: str) -> str:
    """Return what a generator writes: instruction, pipe marker, response (wire format of v1).

    A response that is the passage itself is written as the placeholder, as in CTGA's reversed templates.
    """
    said = PLACEHOLDER if response.strip() == passage.strip() else escape(response.strip())
    return f"{instruction.strip()}\n<|pipe|>\n{said}"


def attributes_text(
    *,
    labels: Sequence[str] = (),
    answer: str = "",
    language: str = "",
    tasks: int = 1,
    sentence: str = "",
) -> dict[str, str]:
    """Return the attribute lines of a wire prompt, in their fixed order.

    `sentence`: the sentence of the passage that the task is to be about.
    """
    lines = {}
    if sentence:
        lines["sentence"] = sentence
    if labels:
        lines["labels"] = " | ".join(labels)
    if answer:
        lines["answer"] = answer
    if language:
        lines["language"] = language
    if tasks > 1:
        lines["tasks"] = str(tasks)
    return lines


def _one_line(text: str) -> str:
    return " ".join(text.split())


# special tokens of chat models


@lru_cache(maxsize=64)
def _special(tokens: tuple[str, ...], escaped: bool) -> tuple[str, re.Pattern[str]]:
    """Return (first characters, pattern of the places for a joiner, or of the joiners to take out).

    A token is recognised with joiners between any of its characters: inserting one then never hides
    or makes another, which keeps escaping reversible even where tokens overlap.
    """
    rests: dict[str, set[str]] = {}
    for token in tokens:
        if len(token) > 1 and _JOINER not in token:
            rests.setdefault(token[0], set()).add(token[1:])
    joiner = _JOINER if escaped else ""
    places = [
        rf"(?<={re.escape(first)}){joiner}(?="
        + "|".join("".join(f"{_JOINER}*{re.escape(c)}" for c in rest) for rest in sorted(found))
        + ")"
        for first, found in sorted(rests.items())
    ]
    return "".join(rests), re.compile("|".join(places) or r"(?!)")


def escape_special(text: str, tokens: Sequence[str] = CHAT_TOKENS) -> str:
    """Make special tokens inside user text harmless; `unescape_special` with equal tokens reverses it."""
    firsts, places = _special(tuple(tokens), escaped=False)
    # The search for one character is far faster than the pattern, and most texts hold none of them.
    return places.sub(_JOINER, text) if any(c in text for c in firsts) else text


def unescape_special(text: str, tokens: Sequence[str] = CHAT_TOKENS) -> str:
    """Reverse `escape_special`: take one joiner out of each escaped token."""
    return _special(tuple(tokens), escaped=True)[1].sub("", text) if _JOINER in text else text


# layouts: Example → columns


def prompt(example: Example) -> str:
    """Return the filled instruction: what a user would type."""
    return fill(example.instruction, example.context)


def answer(example: Example, *, thinking: bool = False) -> str:
    """Return the response; with `thinking`, a rationale goes before it in `<think>` tags."""
    if thinking and example.rationale:
        return f"<think>\n{example.rationale}\n</think>\n\n{example.response}"
    return example.response


def messages(example: Example, *, thinking: bool = False) -> list[Message]:
    """Return the example as a chat of two turns, its text untouched."""
    return [
        {"role": "user", "content": prompt(example)},
        {"role": "assistant", "content": answer(example, thinking=thinking)},
    ]


def prompt_completion(example: Example, *, thinking: bool = False) -> dict[str, str]:
    """Return TRL's standard `prompt` and `completion`.

    Trainers glue the two strings together, so the prompt ends in one newline of ours.
    """
    return {"prompt": prompt(example) + "\n", "completion": answer(example, thinking=thinking)}


def alpaca(example: Example, *, thinking: bool = False) -> dict[str, str]:
    """Return Alpaca's `instruction`, `input` and `output`.

    The passage goes to `input` only where the instruction ends with it on lines of its own: trainers
    join the two by a newline, and instruction, newline, input must be the prompt, in its order and without
    loss. Otherwise `instruction` holds the whole prompt and `input` is empty.
    """
    output = answer(example, thinking=thinking)
    parts = _SLOT.split(example.instruction)
    if (
        len(parts) == 2
        and not parts[1]
        and parts[0][:-1].strip()
        and parts[0][-1] == "\n"
        and example.context
    ):
        return {"instruction": unescape(parts[0][:-1]), "input": example.context, "output": output}
    return {"instruction": prompt(example), "input": "", "output": output}


def sharegpt(example: Example, *, thinking: bool = False) -> dict[str, list[Message]]:
    """Return ShareGPT's `conversations`."""
    human = {"from": "human", "value": prompt(example)}
    return {"conversations": [human, {"from": "gpt", "value": answer(example, thinking=thinking)}]}


def bonito(example: Example, *, thinking: bool = False) -> dict[str, str]:
    """Return the columns of bonito-llm's data sets: `input` (the filled instruction) and `output`."""
    return {"input": prompt(example), "output": answer(example, thinking=thinking)}


def bonito_text(example: Example, *, eos: str = "", thinking: bool = False) -> str:
    """Return the text Bonito's students are trained on, wire markers in the user's text escaped."""
    columns = bonito(example, thinking=thinking)
    return f"<|input|>\n{escape(columns['input'])}\n<|output|>\n{escape(columns['output'])}{eos}"


def text(example: Example, template: str | None = None, *, thinking: bool = False) -> str:
    """Return the example as one string: prompt, blank line, response.

    `template` is a Jinja template with the slots `prompt` and `response` (sandboxed). Special tokens
    of chat models inside the user's text are escaped in both cases.
    """
    asked, answered = escape_special(prompt(example)), escape_special(answer(example, thinking=thinking))
    if template is None:
        return f"{asked}\n\n{answered}"
    return _render(template, {"prompt": asked, "response": answered})


FORMATS: dict[str, Callable[..., dict[str, Any]]] = {
    "messages": lambda example, **options: {"messages": messages(example, **options)},
    "prompt-completion": prompt_completion,
    "alpaca": alpaca,
    "sharegpt": sharegpt,
    "bonito": bonito,
    "text": lambda example, **options: {"text": text(example, **options)},
}
"""Export formats: name → function from an Example (and `thinking`) to the columns of its row."""


def turn_problem(turns: Sequence[Mapping[str, str]]) -> Reason | None:
    """Return why trainers would skip a chat in silence: an empty turn, or turns that do not alternate.

    After an optional system turn, user and assistant must take turns and the assistant have the last.
    """
    body = turns[1:] if turns and turns[0]["role"] == "system" else turns
    if not body or len(body) % 2:
        return Reason.MALFORMED
    for i, turn in enumerate(body):
        if turn["role"] != ("assistant" if i % 2 else "user"):
            return Reason.MALFORMED
        if not turn["content"].strip():
            return Reason.EMPTY_REPLY if i % 2 else Reason.EMPTY
    return None


# and back: columns → (prompt, response) pairs


def from_messages(turns: Sequence[Mapping[str, str]]) -> list[Pair]:
    """Read a chat back into pairs; a system turn goes before the first prompt, a blank line between."""
    system = turns[0]["content"] + "\n\n" if turns and turns[0]["role"] == "system" else ""
    body = turns[1:] if system else turns
    roles = [turn["role"] for turn in body]
    if len(roles) % 2 or roles != ["user", "assistant"] * (len(roles) // 2):
        raise InputError(f"turns must alternate between user and assistant, found: {', '.join(roles)}")
    contents = [turn["content"] for turn in body]
    pairs = list(zip(contents[::2], contents[1::2], strict=True))
    return [(system + pairs[0][0], pairs[0][1]), *pairs[1:]] if pairs else []


def from_sharegpt(row: Mapping[str, Any]) -> list[Pair]:
    """Read ShareGPT's `conversations` back into pairs."""
    roles = {"human": "user", "gpt": "assistant"}
    turns = row["conversations"]
    return from_messages([{"role": roles.get(t["from"], t["from"]), "content": t["value"]} for t in turns])


def from_alpaca(row: Mapping[str, Any]) -> list[Pair]:
    """Read Alpaca's columns back into pairs: those of `history` first, `input` joined by a newline."""
    system, extra = row.get("system") or "", row.get("input") or ""
    asked = row["instruction"] + ("\n" + extra if extra else "")
    pairs = [(old[0], old[1]) for old in row.get("history") or ()] + [(asked, row["output"])]
    return [(f"{system}\n\n{pairs[0][0]}", pairs[0][1]), *pairs[1:]] if system else pairs


# chat templates


class ChatText(NamedTuple):
    """A chat as a model's own template writes it; the loss is taken on `loss_spans` only.

    Spans are (start, end) in characters: each assistant turn's text and the marker that ends it.
    """

    text: str
    loss_spans: list[tuple[int, int]]


# Templates that print the date get this one: the same row must render to the same bytes on any day.
# It is the date Llama 3's own template falls back to.
_TODAY = date(2024, 7, 26)
_GENERATION = re.compile(r"(\{%[-+]?\s*)(end)?generation(\s*[-+]?%\})")
_FUEL = 5_000_000


def _refuse(message: str) -> str:
    raise ConfigError(f"the chat template refuses this chat: {message}")


@lru_cache(maxsize=32)
def _environment(template: str) -> minijinja.Environment:
    environment = minijinja.Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        fuel=_FUEL,
        filters={"tojson": lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)},
        globals={"raise_exception": _refuse, "strftime_now": _TODAY.strftime},
    )
    # transformers marks what the assistant wrote with a tag of its own; the spans are found without it.
    source = _GENERATION.sub(lambda m: f"{m[1]}{'endif' if m[2] else 'if true'}{m[3]}", template)
    try:
        environment.add_template("text", source)
    except minijinja.TemplateError as error:
        raise ConfigError(f"not a valid template: {error.message}") from None
    return environment


def _render(template: str, slots: Mapping[str, Any]) -> str:
    try:
        return _environment(template).render_template("text", **slots)
    except minijinja.TemplateError as error:
        raise ConfigError(f"the template cannot be rendered: {error.message}") from None


def chat_text(
    turns: Sequence[Mapping[str, str]],
    chat_template: str,
    special_tokens: Mapping[str, str | Sequence[str]] | None = None,
    *,
    add_generation_prompt: bool = False,
) -> ChatText:
    """Render a chat with a tokenizer's Jinja `chat_template`, sandboxed, and find the spans to learn.

    `special_tokens` is the tokenizer's `special_tokens_map`: its names are variables of the template,
    and its tokens (with `CHAT_TOKENS`) are escaped inside the user's text, so that no passage can end
    a turn or start one.
    """
    named = dict(special_tokens or {})
    given = [t for value in named.values() for t in ([value] if isinstance(value, str) else value)]
    tokens = tuple(dict.fromkeys([*given, *CHAT_TOKENS]))
    safe = [{**turn, "content": escape_special(turn["content"], tokens)} for turn in turns]

    def render(part: Sequence[Message], generation: bool) -> str:
        slots = {"messages": part, "add_generation_prompt": generation, "tools": None, "documents": None}
        return _render(chat_template, named | slots)

    whole = render(safe, add_generation_prompt)
    assistant = [i for i, turn in enumerate(safe) if turn["role"] == "assistant"]
    marked = partial(_loss_span, whole, safe, tokens, render, add_generation_prompt)
    return ChatText(whole, [marked(i) for i in assistant])


def _loss_span(
    whole: str,
    turns: list[Message],
    tokens: tuple[str, ...],
    render: Callable[[Sequence[Message], bool], str],
    generation: bool,
    i: int,
) -> tuple[int, int]:
    """Return where the text of turn `i` and its end marker stand in the rendered chat.

    The chat is rendered again with a sentinel for the turn's text: what stands before and after the
    sentinel are the template's own words, whatever they are. Templates that treat a `<think>` part by
    itself put other words before the text; there the span starts where generation would start.
    """
    sentinel = "\ue000"
    while any(sentinel in turn["content"] for turn in turns):
        sentinel += "\ue001"
    replaced = [*turns[:i], {**turns[i], "content": sentinel}, *turns[i + 1 :]]
    head, found, tail = render(replaced, generation).partition(sentinel)
    if not whole.startswith(head):
        head = render(turns[:i], True)
    start, end = len(head), len(whole) - len(tail)
    if not found or start > end or not (whole.startswith(head) and whole.endswith(tail)):
        raise ConfigError(
            "the chat template does not show the assistant's text as it is; train on `messages`"
        )
    marker = re.match(r"\s*(?:" + "|".join(map(re.escape, tokens)) + ")", tail)
    return start, end + (marker.end() if marker else 0)
