"""Prompts and choices as tokens of a Hugging Face tokenizer: what the engines in this process read."""

from __future__ import annotations

from typing import Any

from taskmill.calls import Request, ScoreRequest
from taskmill.errors import BackendError

__all__ = ["Ids", "choice_tokens", "prompt_tokens"]

Ids = list[int]


def prompt_tokens(tokenizer: Any, request: Request | ScoreRequest, model: str) -> Ids | str:
    """Return the prompt's tokens, or why there are none; BackendError if no chat can be."""
    text = request.prompt
    if request.messages:
        if not tokenizer.chat_template:
            raise BackendError(f"{model} has no chat template; take an instruct model")
        turns = [{"role": role, "content": content} for role, content in request.messages]
        try:
            text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # a template raises what it likes, e.g. for a system turn
            why = " ".join(str(error).split())[:200] or type(error).__name__
            return f"the chat template refused: {why}"
    # A template writes its own special tokens; a plain prompt gets the tokenizer's (as vLLM does).
    ids: Ids = tokenizer(text, add_special_tokens=not request.messages)["input_ids"]
    return ids or "no prompt"


def choice_tokens(tokenizer: Any, request: ScoreRequest) -> list[Ids] | str:
    """Return the tokens of each choice, the end token behind them if it counts, or why there are none."""
    if not request.choices or not all(request.choices):
        return "a choice is empty" if request.choices else "no choices"
    end = [tokenizer.eos_token_id] if request.end else []
    return [tokenizer(c, add_special_tokens=False)["input_ids"] + end for c in request.choices]
