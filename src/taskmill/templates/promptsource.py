"""Read prompt collections of the promptsource format (arXiv 2202.01279), and what we know of their data sets.

The files are data: they are read with a loader that knows the two tags of the format and nothing else, and
promptsource itself is never imported. `recast` turns a template and the passage of its data set into one
that quotes the placeholder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from taskmill.config import packaged
from taskmill.errors import InputError

__all__ = ["KnownConfig", "PromptTemplate", "known_configs", "locate", "read_collection"]

_FILE = "templates.yaml"
_MAX_BYTES = 5_000_000  # the largest file of promptsource 0.2.3 has 17 kB


@dataclass(frozen=True)
class PromptTemplate:
    """One template of a collection; `name` is kept exactly, spaces at its end included.

    `jinja` is "instruction ||| response", `answer_choices` the Jinja of the choices ("" where the answer is
    open). `original_task` says whether it asks for what the data set was made for; None is not known.
    """

    name: str
    jinja: str
    answer_choices: str = ""
    original_task: bool | None = None
    languages: tuple[str, ...] = ()
    choices_in_prompt: bool | None = None
    metrics: tuple[str, ...] = ()
    id: str = ""


@dataclass(frozen=True)
class KnownConfig:
    """A data set whose passage and task types we know; `passage` is the Jinja that writes the passage."""

    dataset: str
    config: str
    passage: str
    task: str
    exceptions: Mapping[str, str] = field(default_factory=dict)
    faulty: frozenset[str] = frozenset()
    """Names of templates that label their rows wrongly."""

    def task_of(self, name: str) -> str:
        """Return the short name of the task type of a template."""
        return self.exceptions.get(name, self.task)


@cache
def known_configs() -> Mapping[tuple[str, str], KnownConfig]:
    """Return the data sets of `promptsource.yaml` by (dataset, config); config is "" where there is none."""
    entries = packaged("taskmill.templates", "promptsource.yaml")
    known = {}
    for entry in entries:
        exceptions = {name: task for task, names in entry.get("except", {}).items() for name in names}
        key = (entry["dataset"], entry.get("config", ""))
        known[key] = KnownConfig(
            *key,
            entry["passage"],
            entry["task"],
            MappingProxyType(exceptions),
            frozenset(entry.get("faulty", ())),
        )
    return MappingProxyType(known)


# files


class _Loader(yaml.SafeLoader):
    """YAML's safe loader with the tags of the format, as plain mappings."""


def _mapping(loader: yaml.SafeLoader, node: yaml.Node) -> dict[Any, Any]:
    if not isinstance(node, yaml.MappingNode):
        raise yaml.constructor.ConstructorError(None, None, "a template must be a mapping", node.start_mark)
    return loader.construct_mapping(node, deep=True)


for _tag in ("!Template", "!TemplateMetadata"):
    _Loader.add_constructor(_tag, _mapping)


def locate(folder: Path | None = None) -> Path:
    """Return the folder of the data sets' templates.

    `folder` may be that folder, the package, or the unpacked source distribution; without it, an installed
    promptsource is looked for (and not imported). Raises `InputError` where there are no templates.
    """
    if folder is None:
        spec = find_spec("promptsource")
        places = list(spec.submodule_search_locations or ()) if spec else []
        if not places:
            raise InputError(
                "promptsource is not installed; unpack its source distribution from PyPI and name the folder"
            )
        folder = Path(places[0])
    for place in (folder / "promptsource" / "templates", folder / "templates", folder):
        if any(next(place.glob(f"{depth}/{_FILE}"), None) for depth in ("*", "*/*")):
            return place
    raise InputError(f"{folder} holds no {_FILE} of a prompt collection; name the folder of its templates")


def read_collection(folder: Path | None, dataset: str, config: str = "") -> list[PromptTemplate]:
    """Return the templates of a data set, in the order of the file; `folder` is one that `locate` takes.

    Raises `InputError` where the data set has no file there, and where the file is not of the format.
    """
    root = locate(folder)
    path = root.joinpath(dataset, config, _FILE) if config else root.joinpath(dataset, _FILE)
    if not path.resolve().is_relative_to(root.resolve()) or not path.is_file():
        named = f"{dataset}/{config}" if config else dataset
        raise InputError(f"{root} has no templates for {named}; choose a folder in it that holds {_FILE}")
    return [_template(identity, entry, path) for identity, entry in _entries(path).items()]


def _entries(path: Path) -> Mapping[Any, Any]:
    if path.stat().st_size > _MAX_BYTES:
        raise InputError(f"{path} has more than {_MAX_BYTES:,} bytes; it is no file of a prompt collection")
    try:
        # A subclass of the safe loader: it makes plain data only.
        loaded = yaml.load(path.read_text("utf-8"), Loader=_Loader)  # noqa: S506
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        said = " ".join(str(error).split())
        raise InputError(f"{path} is not YAML of the promptsource format ({said}); repair it") from None
    entries = loaded.get("templates") if isinstance(loaded, dict) else None
    if not isinstance(entries, dict):
        raise InputError(f"{path} has no mapping 'templates'; is it a file of the promptsource format?")
    return entries


def _template(identity: Any, entry: Any, path: Path) -> PromptTemplate:
    entry = entry if isinstance(entry, dict) else {}
    metadata = entry.get("metadata") or {}
    name, jinja, choices = (entry.get(key) for key in ("name", "jinja", "answer_choices"))
    if not (isinstance(name, str) and isinstance(jinja, str) and isinstance(metadata, dict)):
        raise InputError(
            f"{path}, template {identity}: 'name' and 'jinja' must be texts; repair or remove it"
        )
    if not (choices is None or isinstance(choices, str)):
        raise InputError(f"{path}, template {name!r}: 'answer_choices' must be a text; repair or remove it")
    return PromptTemplate(
        name,
        jinja,
        choices or "",
        _flag(metadata.get("original_task")),
        _texts(metadata.get("languages")),
        _flag(metadata.get("choices_in_prompt")),
        _texts(metadata.get("metrics")),
        str(entry.get("id", identity)),
    )


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()
