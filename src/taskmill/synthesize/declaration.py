"""What a dataset must declare to be remixed: where passage and answers stand, under which licence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from taskmill.config import read_yaml
from taskmill.errors import ConfigError
from taskmill.registry import nearest
from taskmill.synthesize.constructions import CONSTRUCTIONS
from taskmill.tasks import get

__all__ = ["Declaration", "OwnTemplate", "load_declarations"]


@dataclass(frozen=True, slots=True)
class OwnTemplate:
    """A template over the columns of one dataset: "instruction ||| response"."""

    task: str
    name: str
    text: str
    answer_choices: str = ""


@dataclass(frozen=True, slots=True)
class Declaration:
    """One dataset, as `templates/catalog.yaml` describes the keys. `root` is where relative files lie."""

    name: str
    files: tuple[str, ...]
    passage: str
    licence: str = ""
    config: str = ""
    split: str = "train"
    credit: str = ""
    where: str = ""
    let: Mapping[str, str] = field(default_factory=dict)
    siblings: Mapping[str, str] = field(default_factory=dict)
    window: int = 0
    anchor: str = ""
    tasks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    construct: tuple[str, ...] = ()
    templates: tuple[OwnTemplate, ...] = ()
    prompts: str = ""
    cap: int = 0
    root: str = ""

    @property
    def key(self) -> str:
        """Return the dataset's name with its configuration."""
        return f"{self.name}:{self.config}" if self.config else self.name


_KEYS = {f.name for f in fields(Declaration)} - {"root"}


def load_declarations(path: Path, root: str = "") -> list[Declaration]:
    """Read the declarations of a YAML file (one mapping or a list); relative files lie under `root`,
    or beside the file.

    Raises ConfigError that names the file, the dataset and the key.
    """
    if not path.exists():
        raise ConfigError(f"{path}: there is no such declaration file")
    loaded = read_yaml(path)
    entries = loaded if isinstance(loaded, list) else [loaded]
    return [_declaration(entry, path, root or str(path.parent)) for entry in entries]


def _declaration(entry: Any, path: Path, root: str) -> Declaration:
    if not isinstance(entry, dict):
        raise ConfigError(f"{path}: a declaration is a mapping with name, files, passage and licence")
    where = f"{path}: {entry.get('name', 'a declaration without name')}"
    for key in entry:
        if key not in _KEYS:
            raise ConfigError(f"{where}: unknown key {key!r}.{nearest(str(key), _KEYS)}")
    missing = [key for key in ("name", "files", "passage") if not entry.get(key)]
    if missing:
        raise ConfigError(f"{where}: {', '.join(missing)} must be given")
    values = dict(entry)
    files = values["files"]
    values["files"] = tuple([files] if isinstance(files, str) else files)
    values["construct"] = tuple(_known(values.get("construct") or (), where))
    values["templates"] = tuple(_template(t, where) for t in values.get("templates") or ())
    for task, slots in (values.get("tasks") or {}).items():
        get(task)
        if "response" not in slots:
            raise ConfigError(f"{where}: tasks.{task} has no `response`")
    return Declaration(**values, root=root)


def _known(names: Sequence[str], where: str) -> Sequence[str]:
    for name in names:
        if name not in CONSTRUCTIONS:
            raise ConfigError(f"{where}: no construction {name!r}.{nearest(name, CONSTRUCTIONS)}")
    return names


def _template(entry: Mapping[str, str], where: str) -> OwnTemplate:
    try:
        template = OwnTemplate(**entry)
    except TypeError:
        raise ConfigError(f"{where}: a template has the keys task, name, text and answer_choices") from None
    get(template.task)
    return template
