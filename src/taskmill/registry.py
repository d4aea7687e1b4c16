"""One small registry for every kind of plug-in: name → factory.

Built-in entries may be given as `"module:attribute"` and are imported on first use, so that listing
what exists never imports a heavy package. Third parties add theirs through the entry-point group
`taskmill.plugins`: each entry point names a module or a function without arguments whose loading
registers its plug-ins.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from taskmill.errors import UnknownName, UsageError

__all__ = ["Registry", "load_plugins", "nearest"]

T = TypeVar("T")
GROUP = "taskmill.plugins"
_loaded: set[str] = set()


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the closest known name, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def load_plugins() -> None:
    """Load each installed entry point of the group once."""
    for point in entry_points(group=GROUP):
        if point.name in _loaded:
            continue
        _loaded.add(point.name)
        plugin = point.load()
        if callable(plugin):
            plugin()


class Registry(Generic[T]):
    """The plug-ins of one kind, by name; a second registration of a name is refused."""

    def __init__(self, kind: str, builtin: dict[str, str] | None = None) -> None:
        """`builtin` maps names to `"module:attribute"` and costs no import until used."""
        self.kind = kind
        self._entries: dict[str, T | str] = dict(builtin or {})

    def register(self, name: str, entry: T) -> T:
        """Add `entry` under `name`; raises UsageError if the name is taken."""
        if name in self._entries:
            raise UsageError(f"{self.kind} {name!r} is already registered; choose another name")
        self._entries[name] = entry
        return entry

    def unregister(self, name: str) -> None:
        """Remove `name`, for tests and notebooks that register twice."""
        self._entries.pop(name, None)

    def names(self) -> list[str]:
        """Return all names, built-in first, then plug-ins in the order of registration."""
        load_plugins()
        return list(self._entries)

    def get(self, name: str) -> T:
        """Return the entry for `name`; raises UnknownName with the nearest name and the full list."""
        if name not in self._entries:
            load_plugins()
        if name not in self._entries:
            known = ", ".join(self._entries)
            raise UnknownName(
                f"no {self.kind} is called {name!r}.{nearest(name, self._entries)} Known: {known}"
            )
        entry = self._entries[name]
        if isinstance(entry, str):
            module, _, attribute = entry.partition(":")
            entry = getattr(import_module(module), attribute)
            self._entries[name] = entry
        return entry
