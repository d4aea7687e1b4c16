"""The words: YAML files of prompts and instruction wordings, rendered by MiniJinja. No other logic."""

from taskmill.templates import words

__all__ = ["words"]
