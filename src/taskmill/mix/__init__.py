"""Mixing: sources with weights → rows of each and their order; rows of tokens → packed sequences."""

__all__: list[str] = []
