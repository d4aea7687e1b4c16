"""Template files as data: clusters of tasks, their fields and wordings; read with the line of every value.

A file of the kind `cluster` names the fields its data sets have (question, answer, rationale, context,
options), which of them is asked for, and templates over them. From the same fields `inversion` makes the
templates of the other directions. `read` collects faults instead of raising, so that one broken file or
template does not hide another; `load` raises if there are any.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import minijinja
import yaml

from taskmill.errors import ConfigError, InputError
from taskmill.registry import nearest

__all__ = [
    "ROLES",
    "Cluster",
    "Fault",
    "Field",
    "Keyed",
    "Template",
    "builtin",
    "find_files",
    "load",
    "pieces",
    "read",
    "read_yaml",
    "shipped",
    "slots",
    "usable",
]

ROLES = ("question", "answer", "rationale", "context", "options")
"""The fields a data set may have (R10 of the Flan requirements); templates have no other slots."""

MAX_BYTES = 2_000_000
"""Bytes of a template file. Chosen: the whole of ours has less than a tenth of that."""

_KEYS = {"cluster", "summary", "fields", "asked", "target", "labels", "templates"}
_FIELD_KEYS = {"called", "invertible", "optional", "droppable"}
_TEMPLATE_KEYS = {"name", "input", "options", "target"}


class Fault(NamedTuple):
    """What is wrong in a template file: where (lines count from 1), which rule, and what to do."""

    file: str
    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.rule}: {self.message}"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a cluster: what it is `called` in words; whether another direction may ask for it
    (`invertible`), data sets may lack it (`optional`), a wording may leave it out though a row has it
    (`droppable`).
    """

    role: str
    called: str
    invertible: bool = False
    optional: bool = False
    droppable: bool = False


@dataclass(frozen=True, slots=True)
class Template:
    """A wording: `input` and `target` are MiniJinja over the roles; `with_options` is the input that shows
    options ("" where there is none). `text` of a style that the template lacks is "".
    """

    name: str
    input: str
    target: str
    with_options: str = ""
    line: int = 0

    @property
    def version(self) -> str:
        """Return name#hash, which stands in the provenance of rows."""
        source = "\x1f".join((self.input, self.with_options, self.target))
        return f"{self.name}#{hashlib.blake2b(source.encode(), digest_size=4).hexdigest()}"

    def text(self, options: bool) -> str:
        """Return the input of a style: with options or without."""
        return self.with_options if options else self.input


@dataclass(frozen=True, slots=True)
class Cluster:
    """Data sets of one shape: their fields by role, the one that is `asked` for, and the wordings."""

    name: str
    fields: Mapping[str, Field]
    asked: str
    templates: tuple[Template, ...]
    labels: tuple[str, ...] = ()
    """Words that hold in all data sets of the cluster, so that wordings may state them ("yes or no")."""
    file: str = ""
    summary: str = field(default="", compare=False)


# Jinja

_SLOT = re.compile(r"\{\{-?\s*(\w+)\s*-?\}\}")


def _environment() -> minijinja.Environment:
    return minijinja.Environment(undefined_behavior="strict", keep_trailing_newline=True)


@cache
def slots(text: str) -> frozenset[str]:
    """Return the variables a template reads; raises `minijinja.TemplateError` for broken syntax."""
    environment = _environment()
    environment.add_template("t", text)
    return frozenset(environment.undeclared_variables_in_template("t"))


@cache
def pieces(text: str) -> tuple[str, ...] | None:
    """Return a template of slots only as (words, slot, words, slot, …, words); None if it holds logic."""
    found = tuple(_SLOT.split(text))
    words = "".join(found[::2])
    if any(mark in words for mark in ("{{", "{%", "{#")) or "{{-" in text or "-}}" in text:
        return None
    return found


# YAML with lines


class Keyed(dict[str, Any]):
    """A mapping of a YAML file that knows its own line, that of each key, and where each value begins."""

    line = 0
    lines: Mapping[str, int]
    begins: Mapping[str, int]

    def at(self, key: str) -> int:
        """Return the line of a key, or of the mapping itself."""
        return self.lines.get(key, self.line)


def _value(node: yaml.Node, loader: yaml.SafeLoader) -> Any:
    if isinstance(node, yaml.MappingNode):
        found = Keyed()
        found.line = node.start_mark.line + 1
        lines, begins = {}, {}
        for key, value in node.value:
            name = str(loader.construct_object(key, deep=True))
            if name in found:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {name!r} stands twice", key.start_mark
                )
            found[name] = _value(value, loader)
            lines[name] = key.start_mark.line + 1
            block = getattr(value, "style", None) in ("|", ">")  # such a text begins behind its sign
            begins[name] = value.start_mark.line + 1 + block
        found.lines, found.begins = lines, begins
        return found
    if isinstance(node, yaml.SequenceNode):
        return [_value(one, loader) for one in node.value]
    return loader.construct_object(node, deep=True)


def read_yaml(path: Path) -> tuple[Any, list[Fault]]:
    """Return what a YAML file holds, mappings as `Keyed`, and the fault if it cannot be read."""
    name = str(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            return None, [Fault(name, 1, "broken-yaml", f"the file has over {MAX_BYTES:,} bytes; split it")]
        loader = yaml.SafeLoader(path.read_text("utf-8"))
        try:
            node = loader.get_single_node()
            return (None if node is None else _value(node, loader)), []
        finally:
            loader.dispose()
    except OSError as error:
        return None, [Fault(name, 1, "unreadable", f"{error.strerror}; name a file that can be read")]
    except UnicodeDecodeError as error:
        return None, [Fault(name, 1, "unreadable", f"not UTF-8 at byte {error.start}; save it as UTF-8")]
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        said = getattr(error, "problem", None) or str(error).splitlines()[0]
        line = mark.line + 1 if mark is not None else 1
        return None, [Fault(name, line, "broken-yaml", f"{said}; repair the YAML")]


# clusters


def read(path: Path) -> tuple[Cluster | None, list[Fault]]:
    """Return the cluster of a file and what is wrong with its shape; what the wordings say is `lint`'s.

    Templates with a fault are left out; the cluster is None where the file as a whole cannot be used.
    """
    loaded, faults = read_yaml(path)
    if faults:
        return None, faults
    name = str(path)
    if not isinstance(loaded, Keyed) or not isinstance(loaded.get("templates"), list):
        return None, [Fault(name, 1, "broken-schema", "a template file is a mapping with a list `templates`")]
    add = _Faults(name, faults)
    add.unknown(loaded, _KEYS)
    fields = _fields(loaded, add)
    asked = str(loaded.get("asked", "answer"))
    if asked not in fields:
        add(loaded.at("asked"), "broken-schema", f"`asked` names {asked!r}, which is no field; declare it")
    labels = loaded.get("labels") or []
    if not isinstance(labels, list):
        add(loaded.at("labels"), "broken-schema", "`labels` is a list of words")
        labels = []
    default = loaded.get("target")
    templates = [t for entry in loaded["templates"] if (t := _template(entry, loaded, default, add))]
    cluster = Cluster(
        str(loaded.get("cluster") or path.stem),
        fields,
        asked,
        tuple(templates),
        tuple(map(str, labels)),
        name,
        str(loaded.get("summary", "")),
    )
    return cluster, faults


class _Faults:
    """Collects the faults of one file."""

    def __init__(self, file: str, found: list[Fault]) -> None:
        self.file = file
        self.found = found

    def __call__(self, line: int, rule: str, message: str) -> None:
        self.found.append(Fault(self.file, line, rule, message))

    def unknown(self, entry: Keyed, known: Iterable[str]) -> None:
        for key in entry:
            if key not in known:
                close = nearest(key, known)
                self(entry.at(key), "unknown-key", f"no key is called {key!r}.{close} Rename or remove it")


def _fields(loaded: Keyed, add: _Faults) -> dict[str, Field]:
    declared = loaded.get("fields")
    if not isinstance(declared, Keyed) or not declared:
        add(loaded.at("fields"), "broken-schema", "`fields` must map roles to {called: WORDS}")
        return {role: Field(role, role) for role in ROLES}
    found = {}
    for role, entry in declared.items():
        if role not in ROLES:
            known = ", ".join(ROLES)
            add(declared.at(role), "broken-schema", f"{role!r} is no role; use one of {known}")
            continue
        if not isinstance(entry, Keyed):
            add(declared.at(role), "broken-schema", f"the field {role} must be {{called: WORDS}}")
            continue
        add.unknown(entry, _FIELD_KEYS)
        flags = (bool(entry.get(key, False)) for key in ("invertible", "optional", "droppable"))
        found[role] = Field(role, str(entry.get("called", role)), *flags)
    return found


def _template(entry: Any, loaded: Keyed, default: Any, add: _Faults) -> Template | None:
    if not isinstance(entry, Keyed):
        add(loaded.at("templates"), "broken-schema", "a template is a mapping with name, input and target")
        return None
    add.unknown(entry, _TEMPLATE_KEYS)
    before = len(add.found)
    name, given, target = entry.get("name"), entry.get("input"), entry.get("target", default)
    if not isinstance(name, str) or not name.strip():
        add(entry.line, "broken-schema", "the template has no name; give it one")
    if given is None:
        add(entry.line, "missing-input", "there is no `input`; say what the model is given")
    if target is None:
        add(entry.line, "missing-target", "there is no `target`, here or for the file; say what is learned")
    for key, text in (("input", given), ("options", entry.get("options")), ("target", target)):
        if text is not None and not (isinstance(text, str) or (key == "options" and text is False)):
            add(entry.at(key), "broken-schema", f"`{key}` must be a text; quote it")
        elif isinstance(text, str):
            _jinja(text, entry.begins.get(key, entry.at(key)), key, add)
    if len(add.found) > before:
        return None
    plain, shown = _styles(str(given), entry.get("options"), "options" in (loaded.get("fields") or {}))
    return Template(str(name), plain, str(target).strip(), shown, entry.line)


def _jinja(text: str, line: int, key: str, add: _Faults) -> None:
    try:
        slots(text)
    except minijinja.TemplateError as error:
        said = str(error).splitlines()[0].partition(" (in ")[0]
        add(line + (error.line or 1) - 1, "broken-jinja", f"`{key}`: {said}; repair the template")


def _styles(given: str, options: Any, may: bool) -> tuple[str, str]:
    """Return the input without and with options: a text that quotes them has no other style."""
    plain = given.strip("\n")
    if "options" in slots(plain):
        return "", plain
    if isinstance(options, str):
        return plain, options.strip("\n")
    return plain, f"{plain}\n\n{{{{ options }}}}" if may and options is None and plain.strip() else ""


# places


def shipped() -> Path:
    """Return the folder of the template files that come with the package."""
    return Path(str(files("taskmill.templates"))) / "flan"


def find_files(path: str | Path) -> list[Path]:
    """Return the YAML files of a folder (all levels) in order, or the file itself.

    Raises InputError where there is none.
    """
    place = Path(path)
    if place.is_dir():
        found = sorted(p for p in place.rglob("*") if p.suffix in (".yaml", ".yml") and p.is_file())
    else:
        found = [place] if place.exists() else []
    if not found:
        raise InputError(f"{path} is no YAML file and holds none; name a template file or a folder of them")
    return found


def load(path: str | Path) -> dict[str, Cluster]:
    """Return the clusters of a file or folder by name.

    Raises ConfigError that lists every structural fault; `taskmill lint templates` says more.
    """
    found: dict[str, Cluster] = {}
    faults: list[Fault] = []
    for file in find_files(path):
        cluster, wrong = read(file)
        faults += wrong
        if cluster is None:
            continue
        if cluster.name in found:
            other = found[cluster.name].file
            faults.append(Fault(str(file), 1, "duplicate-cluster", f"{other} has this cluster; rename one"))
        found[cluster.name] = cluster
    if faults:
        raise ConfigError("; ".join(map(str, faults)))
    return found


@cache
def builtin() -> Mapping[str, Cluster]:
    """Return the clusters that come with the package, by name."""
    return load(shipped())


def usable(cluster: Cluster, has: Iterable[str], *, options: bool) -> tuple[Template, ...]:
    """Return the templates for a data set that `has` these fields, in the style with options or without.

    Each shows every field the set has but the asked one, the rationale and what is `droppable`, so that no
    wording leaves out what the answer needs.
    """
    there = set(has)
    shown = there - {cluster.asked, "rationale", "options"}
    must = {role for role in shown if role in cluster.fields and not cluster.fields[role].droppable}
    found = []
    for template in cluster.templates:
        text = template.text(options)
        used = slots(text) if text else frozenset()
        if text and must <= used and used - {"options"} <= shown:
            found.append(template)
    return tuple(found)
