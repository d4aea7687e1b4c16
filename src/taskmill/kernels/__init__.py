"""Loops that must run at the machine's speed: text hashing, graphs, distances. No stage knows another's."""

__all__: list[str] = []
