"""A mixture as it is written: sources with weights, caps and policies, nested as deep as one likes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from math import isfinite
from pathlib import Path
from typing import Any

from taskmill.config import load_yaml, merge
from taskmill.errors import ConfigError, UnknownName
from taskmill.registry import nearest

__all__ = [
    "POLICIES",
    "SIGNS",
    "UNTIL",
    "Condition",
    "Mixture",
    "Policy",
    "Source",
    "leaves",
    "presets",
    "read_mixture",
]

POLICIES = ("drop", "stop", "repeat", "once")

UNTIL = ("first-empty", "all-seen")

PRESETS = Path(__file__).parent / "presets"

_INHERITED = ("cap", "policy", "tasks", "tokens", "where")


@dataclass(frozen=True, slots=True)
class Policy:
    """What happens when all rows of a source have been drawn.

    drop: it leaves, the others take its share · stop: the mixture ends · repeat: it is drawn again, until
    `times` passes are made (0: for ever) · once: every row comes exactly once, whatever the weight.
    """

    name: str = "drop"
    times: int = 0

    def __str__(self) -> str:
        return f"{self.name}: {self.times}" if self.times else self.name


@dataclass(frozen=True, slots=True)
class Condition:
    """What the cells of a column are compared with. What a row lacks counts as false, 0 or an empty text."""

    sign: str
    value: bool | int | float | str

    def __str__(self) -> str:
        value = str(self.value).lower() if isinstance(self.value, bool) else self.value
        return f"{self.sign} {value}"


SIGNS = ("==", "!=", ">=", "<=", ">", "<")


@dataclass(frozen=True, slots=True)
class Source:
    """A node of a mixture: either it has a `path` (files, folders, globs, run folders) or `sources` below it.

    `weight` is its share among its siblings; without one it weighs what it holds, each task `cap` rows at
    most. `count` fixes its rows instead: a whole number, or a multiple of the rows it has. `tasks` names the
    column by which its rows are told apart as tasks (`auto`: `task` where it is there; `file`; `none`).
    `temperature` T and `unimax` (most epochs) turn the sizes of what is right below into weights. `where`
    (column → condition) and `only` (names of tasks) say which rows and tasks it has; others are left out.
    """

    name: str
    path: tuple[str, ...] = ()
    weight: float | None = None
    count: int | float | None = None
    cap: int | None = None
    scale: float = 1.0
    temperature: float = 1.0
    unimax: float | None = None
    policy: Policy = Policy()
    tasks: str = "auto"
    tokens: str = ""
    where: Mapping[str, Condition] = field(default_factory=dict, hash=False)
    only: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()

    @property
    def fixed(self) -> bool:
        """Say whether the number of its rows is fixed, whatever its weight."""
        if self.sources:
            return all(child.fixed for child in self.sources)
        return self.weight != 0 and (self.count is not None or self.policy.name == "once")


@dataclass(frozen=True, slots=True)
class Mixture:
    """A whole mixture: the root of its sources, and what counts (`weights`: rows or tokens).

    `stratified`: no draws are shuffled, so that every share holds at every point, not only every 1,024 draws.
    `until` says where it ends if neither rows nor epochs are asked for. `imported`: the tool it is from.
    """

    root: Source
    weights: str = "rows"
    stratified: bool = False
    until: str = ""
    preset: str = ""
    imported: str = ""
    notes: tuple[str, ...] = ()


def presets() -> list[str]:
    """Return the names of the presets that come with the package."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def leaves(source: Source) -> list[Source]:
    """Return the sources that have rows, in order, each under its full name (`parent/child`)."""
    if not source.sources:
        return [source]
    return [leaf for child in source.sources for leaf in leaves(child)]


def read_mixture(mapping: Mapping[str, Any]) -> Mixture:
    """Read a mixture from a mapping (of a YAML file), a preset laid under it if it names one.

    Raises ConfigError naming the key for what is unknown, of the wrong kind or contradictory.
    """
    mapping = dict(mapping)
    name = str(mapping.pop("preset", "") or "")
    if name:
        if name not in presets():
            raise UnknownName(f"no preset {name!r}.{nearest(name, presets())} Known: {', '.join(presets())}")
        given = mapping.get("sources")
        if isinstance(given, Mapping):  # a path alone would replace what the preset says of a source
            mapping["sources"] = {
                k: {"path": v} if isinstance(v, str | list) else v for k, v in given.items()
            }
        mapping = merge(load_yaml(PRESETS / f"{name}.yaml"), mapping)
    own = {key: mapping.pop(key) for key in ("weights", "stratified", "until") if key in mapping}
    if own.get("weights", "rows") not in ("rows", "tokens"):
        raise ConfigError(f"weights: rows or tokens are weighed, not {own['weights']!r}")
    if not isinstance(own.get("stratified", False), bool):
        raise ConfigError(f"stratified: expected true or false, got {own['stratified']!r}")
    if own.get("until", "") not in ("", *UNTIL):
        raise ConfigError(f"until: {own['until']!r} is none of {', '.join(UNTIL)}")
    mapping.pop("about", None)
    if not mapping.get("sources"):
        raise ConfigError("sources: a mixture needs some; write NAME: {path: FILE} below `sources`")
    root = _source("", mapping, {})
    notes = [f"{s.name}: weight 0, never drawn" for s in leaves(root) if s.weight == 0]
    kept = _without_absent(root)
    if kept is None:
        raise ConfigError("sources: all have weight 0; give one of them a share")
    return Mixture(kept, **own, preset=name, notes=tuple(notes))


def _without_absent(source: Source) -> Source | None:
    """Return the source without what is never drawn and need not be there: weight 0 and no path."""
    if not source.sources:
        return None if source.weight == 0 and not source.path else source
    kept = tuple(found for child in source.sources if (found := _without_absent(child)) is not None)
    return replace(source, sources=kept) if kept else None


def _source(name: str, given: Any, above: Mapping[str, Any]) -> Source:
    where = name or "the mixture"
    if isinstance(given, str | list):
        given = {"path": given}
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}: expected a path or a mapping with one, got {given!r}")
    known = [f.name for f in fields(Source) if f.name != "name"] + ["repeat"]
    for key in given:
        if key not in known:
            raise ConfigError(
                f"{where}: unknown key {key!r}.{nearest(str(key), known)} Known: {', '.join(known)}"
            )
    if "repeat" in given and "policy" in given:
        raise ConfigError(f"{where}: repeat is a policy; write one of `repeat` and `policy`")
    values = {**above, **{key: value for key, value in given.items() if key not in ("sources", "repeat")}}
    if isinstance(given.get("where"), Mapping):  # conditions of a source hold beside those above it
        values["where"] = {**above.get("where", {}), **given["where"]}
    if "repeat" in given:
        values["policy"] = {"repeat": given["repeat"]}
    read = {key: _READ[key](value, f"{where}: {key}") for key, value in values.items() if value is not None}
    below = {key: values[key] for key in _INHERITED if key in values}
    children = _children(name, given.get("sources"), below)
    found = Source(name, **read, sources=children)
    _check(found, where)
    return found


def _children(name: str, given: Any, below: Mapping[str, Any]) -> tuple[Source, ...]:
    if given is None:
        return ()
    if isinstance(given, Sequence) and not isinstance(given, str):
        given = _named(given, name or "the mixture")
    if not isinstance(given, Mapping):
        raise ConfigError(f"{name or 'the mixture'}: sources is a mapping of names, or a list of paths")
    prefix = f"{name}/" if name else ""
    for key in given:
        if "/" in str(key):
            raise ConfigError(f"{prefix}{key}: a name of a source holds no slash; nest it instead")
    children = tuple(_source(f"{prefix}{key}", value, below) for key, value in given.items())
    weighed = [child for child in children if child.weight is not None]
    without = [child for child in children if child.weight is None and not child.fixed]
    if weighed and without:
        raise ConfigError(
            f"{name or 'the mixture'}: {weighed[0].name} has a weight and {without[0].name} has none; "
            "give all of them one, or none (then they weigh what they hold)"
        )
    if weighed and not any(child.weight for child in weighed):
        raise ConfigError(f"{name or 'the mixture'}: all weights are 0; give one of the sources a share")
    return children


def _named(paths: Sequence[Any], where: str) -> dict[str, Any]:
    """Name listed sources: by `name`, else by their path's last part."""
    found: dict[str, Any] = {}
    for one in paths:
        given = dict(one) if isinstance(one, Mapping) else {"path": one}
        name = str(given.pop("name", "") or Path(str(given.get("path", ""))).name.partition(".")[0])
        if not name or name in found:
            raise ConfigError(f"{where}: two sources, or none, are called {name!r}; give them a `name` each")
        found[name] = given
    return found


def _check(source: Source, where: str) -> None:
    if source.path and source.sources:
        raise ConfigError(f"{where} has a path and sources below it; move the path into a source of its own")
    if not source.path and not source.sources and source.weight != 0:
        raise ConfigError(f"{where} has neither a path nor sources; name its files with `path`")
    if source.unimax is not None and source.temperature != 1:
        raise ConfigError(f"{where}: unimax and temperature exclude each other; write one of them")
    if source.count is not None and (source.sources or source.weight is not None):
        raise ConfigError(f"{where}: a count is of a source with a path and without a weight")


# values


def _number_at(value: Any, where: str, least: float, *, whole: bool = False) -> float:
    if isinstance(value, str):
        text = value.strip()
        try:
            value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            raise ConfigError(f"{where}: expected a number, got {value!r}") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or value < least:
        kind = "a whole number" if whole else "a number"
        raise ConfigError(f"{where}: expected {kind} of {least:g} or more, got {value!r}")
    if whole and value != int(value):
        raise ConfigError(f"{where}: expected a whole number, got {value!r}")
    return int(value) if whole else float(value)


def _positive(value: Any, where: str) -> float:
    found = _number_at(value, where, 0)
    if not found:
        raise ConfigError(f"{where}: must be more than 0, got {value!r}")
    return found


def _count(value: Any, where: str) -> int | float:
    """A whole number is rows; a text with % or ×, or a fraction, is a multiple of the rows there are."""
    if isinstance(value, int) and not isinstance(value, bool):
        return int(_number_at(value, where, 1, whole=True))
    text = value.strip().removesuffix("x") if isinstance(value, str) else value
    return _positive(text, where)


def _policy(value: Any, where: str) -> Policy:
    if isinstance(value, Policy):
        return value
    if isinstance(value, Mapping) and len(value) == 1:
        name, times = next(iter(value.items()))
    else:
        found = re.fullmatch(r"(\w+)(?:[ :=]+(\d+))?", str(value).strip())
        name, times = (found[1], found[2]) if found else (value, None)
    if name not in POLICIES:
        near = nearest(str(name), POLICIES)
        raise ConfigError(f"{where}: no policy {name!r}.{near} Known: drop, stop, repeat, repeat: K, once")
    if times is None:
        return Policy(str(name))
    if name != "repeat":
        raise ConfigError(f"{where}: {name} takes no number")
    return Policy("repeat", int(_number_at(times, where, 1, whole=True)))


def _where(value: Any, where: str) -> dict[str, Condition]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: expected COLUMN: VALUE, or COLUMN: '> 0', got {value!r}")
    return {str(name): _condition(one, f"{where}: {name}") for name, one in value.items()}


def _condition(value: Any, where: str) -> Condition:
    """A text may begin with a sign; what follows is then a number or a truth if it reads like one."""
    if isinstance(value, Condition):
        return value
    if isinstance(value, bool | int | float):
        return Condition("==", value)
    if not isinstance(value, str):
        raise ConfigError(f"{where}: expected a value, or a sign ({', '.join(SIGNS)}) and one; got {value!r}")
    sign = next((sign for sign in SIGNS if value.strip().startswith(sign)), "")
    if not sign:
        return Condition("==", value)
    text = value.strip()[len(sign) :].strip()
    if text in ("true", "false"):
        return Condition(sign, text == "true")
    try:
        number = float(text)
    except ValueError:
        return Condition(sign, text)
    return Condition(sign, int(number) if number == int(number) else number)


def _paths(value: Any, where: str) -> tuple[str, ...]:
    found = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else ()
    if not found or not all(isinstance(one, str) and one for one in found):
        raise ConfigError(f"{where}: expected a path or a list of paths, got {value!r}")
    return found


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{where}: expected a name, got {value!r}")
    return value


_READ: Mapping[str, Any] = {
    "path": _paths,
    "weight": lambda value, where: _number_at(value, where, 0),
    "count": _count,
    "cap": lambda value, where: int(_number_at(value, where, 1, whole=True)),
    "scale": _positive,
    "temperature": _positive,
    "unimax": _positive,
    "policy": _policy,
    "tasks": _text,
    "tokens": _text,
    "where": _where,
    "only": _paths,
}
