"""Configuration is the function's signature: one dataclass gives flags, YAML keys, help and checks.

A configuration is a frozen dataclass, sections are nested ones. User mappings are merged deeply over
the defaults (mappings merge, lists replace); an unknown key is an error that names the nearest one.
Precedence: flag > key=value > file > default.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml

from taskmill.errors import ConfigError
from taskmill.registry import nearest

__all__ = [
    "Option",
    "build",
    "difference",
    "load_yaml",
    "merge",
    "options",
    "override",
    "packaged",
    "read_yaml",
    "to_mapping",
]

C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class Option:
    """One leaf of a configuration: its dotted `path`, `flag` (and `short` one), kind, default and help."""

    path: str
    flag: str
    kind: Any
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    short: str = ""


def _fields(cls: type) -> Iterator[tuple[dataclasses.Field[Any], Any]]:
    hints = typing.get_type_hints(cls)
    for f in dataclasses.fields(cls):
        yield f, hints[f.name]


def options(cls: type, prefix: str = "") -> list[Option]:
    """Return every leaf of a configuration class, sections flattened, in order of declaration."""
    found: list[Option] = []
    for f, kind in _fields(cls):
        if dataclasses.is_dataclass(kind):
            found += options(typing.cast(type, kind), f"{prefix}{f.name}.")
            continue
        default = f.default if f.default is not dataclasses.MISSING else None
        if f.default_factory is not dataclasses.MISSING:
            default = f.default_factory()
        flag = f.metadata.get("flag", f.name.replace("_", "-"))
        found.append(
            Option(
                prefix + f.name,
                flag,
                kind,
                default,
                f.metadata.get("help", ""),
                tuple(f.metadata.get("choices", ())),
                f.metadata.get("short", ""),
            )
        )
    return found


def build(cls: type[C], mapping: Mapping[str, Any], where: str = "") -> C:
    """Make a configuration of a (nested) mapping over the class's defaults.

    Raises ConfigError for an unknown key, a wrong kind or a value outside the choices.
    """
    fields = {f.name: (f, kind) for f, kind in _fields(cls)}
    values: dict[str, Any] = {}
    for key, value in mapping.items():
        if key not in fields:
            known = ", ".join(fields)
            raise ConfigError(f"unknown key {where + str(key)!r}.{nearest(str(key), fields)} Known: {known}")
        f, kind = fields[key]
        if dataclasses.is_dataclass(kind):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{where}{key} is a section; write its keys below it")
            values[key] = build(typing.cast(type, kind), value, f"{where}{key}.")
            continue
        values[key] = _convert(value, kind, where + key)
        allowed = f.metadata.get("choices")
        if allowed and values[key] not in allowed:
            raise ConfigError(f"{where}{key}: {value!r} is none of {', '.join(allowed)}")
    return cls(**values)


def _convert(value: Any, kind: Any, where: str) -> Any:
    """Return `value` as `kind`; YAML scalars and command-line strings are both accepted."""
    origin = get_origin(kind)
    if origin is tuple:
        items = [v.strip() for v in value.split(",")] if isinstance(value, str) else value
        if not isinstance(items, Sequence):
            raise ConfigError(f"{where}: expected a list, got {value!r}")
        return tuple(_convert(item, get_args(kind)[0], where) for item in items)
    if origin in (dict, Mapping) or origin is Mapping.__class__:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: expected a mapping, got {value!r}")
        inner = get_args(kind)[1]
        return {str(k): _convert(v, inner, f"{where}.{k}") for k, v in value.items()}
    if origin in (typing.Union, types.UnionType):
        inner = next(a for a in get_args(kind) if a is not type(None))
        return None if value is None else _convert(value, inner, where)
    if kind is bool:
        return _boolean(value, where)
    if kind in (int, float):
        return _number(value, kind, where)
    if isinstance(value, Mapping) and list(value.values()) == [None]:
        # YAML reads the word `echo:` as a mapping to nothing.
        return f"{next(iter(value))}:"
    if value is None or isinstance(value, Mapping | list):
        raise ConfigError(f"{where}: expected one value, got {value!r}")
    if isinstance(value, bool):
        raise ConfigError(
            f"{where}: expected a text, got {value!r}; put it in quotes: YAML reads yes, no, on, off so too"
        )
    return str(value)


def _boolean(value: Any, where: str) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise ConfigError(f"{where}: expected true or false, got {value!r}")


def _number(value: Any, kind: type[int] | type[float], where: str) -> int | float:
    if not isinstance(value, bool) and isinstance(value, int | float | str):
        try:
            number = kind(value)
            if isinstance(value, float) and kind is int and number != value:
                raise ValueError
            if isfinite(number) and (number >= 0 or where == "seed"):
                return number
        except (ValueError, OverflowError):
            pass
    wanted = "a whole number" if kind is int else "a number"
    raise ConfigError(f"{where}: expected {wanted} of 0 or more, got {value!r}")


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `over` laid on it: mappings merge, anything else (lists too) replaces."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def override(assignments: Sequence[str]) -> dict[str, Any]:
    """Read `a.b=value` words into a nested mapping; values are YAML. Raises ConfigError otherwise."""
    mapping: dict[str, Any] = {}
    for word in assignments:
        path, equals, text = word.partition("=")
        if not equals or not path:
            raise ConfigError(f"{word!r} is no override; write key=value, for example seed=7")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"{word!r}: the value is not YAML ({error})") from error
        mapping = merge(mapping, nest(path, value))
    return mapping


def nest(path: str, value: Any) -> dict[str, Any]:
    """Return `{a: {b: value}}` for the path `a.b`."""
    for name in reversed(path.split(".")):
        value = {name: value}
    return typing.cast("dict[str, Any]", value)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which does not drop the first of two equal keys."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Refuse equal keys where they are written: a key that `<<` brings may be written again."""
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in lines:
                raise _Repeated(f"line {line}: the key {key.value!r} is in line {lines[name]} already")
            lines[name] = line
        return node


class _Repeated(Exception):
    """A key that stands twice in one mapping."""


def packaged(package: str, name: str) -> Any:
    """Return what a YAML file that lies in a package of ours holds."""
    return yaml.safe_load(files(package).joinpath(name).read_text("utf-8"))


def read_yaml(path: Path) -> Any:
    """Return what a user's YAML file holds.

    Raises ConfigError that names the file and the line, also for a repeated key.
    """
    try:
        return yaml.load(path.read_text("utf-8"), _Loader)  # noqa: S506 (a SafeLoader)
    except _Repeated as error:
        raise ConfigError(f"{path}, {error}; rename one of them or take it out") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error


def load_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a user's YAML file; raises ConfigError as `read_yaml` does."""
    loaded = read_yaml(path)
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path} must hold a mapping of keys to values")
    return loaded


def to_mapping(config: Any) -> dict[str, Any]:
    """Return a configuration as plain mappings and lists, every default written out."""
    mapping: dict[str, Any] = {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            value = to_mapping(value)
        mapping[f.name] = list(value) if isinstance(value, tuple) else value
    return mapping


def difference(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return `key: old → new` for every leaf that differs."""
    lines: list[str] = []
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += difference(a, b, f"{prefix}{key}.")
        elif a != b:
            lines.append(f"{prefix}{key}: {a!r} → {b!r}")
    return lines
