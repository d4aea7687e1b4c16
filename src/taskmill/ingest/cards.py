"""What a dataset says of itself: the card's YAML, `dataset_infos.json`, the Hub's API, our own catalogue.

A card is believed about words (summary, licence, lineage) and about class names; the rows tell the rest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from taskmill.errors import InputError
from taskmill.ingest.fields import Declared

__all__ = ["Card", "Configuration", "card_of_entry", "card_of_folder", "card_of_hub", "features_of"]

_SUMMARY = 2000
"""Most characters of a summary that are kept (chosen: a model is shown half of it)."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a card says of one configuration; `files` are (split, pattern) and may be empty."""

    fields: Mapping[str, Declared] = field(default_factory=dict)
    files: tuple[tuple[str, str], ...] = ()
    rows: int = -1
    bytes: int = -1


@dataclass(frozen=True, slots=True)
class Card:
    """What a dataset says of itself. `configs` is empty where it names no configuration."""

    name: str = ""
    summary: str = ""
    licence: str = ""
    tasks: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    lineage: tuple[str, ...] = ()
    configs: Mapping[str, Configuration] = field(default_factory=dict)
    role: str = ""
    revision: str = ""


def card_of_folder(folder: Path) -> Card | None:
    """Return the card of a dataset's folder, None where it has none.

    Raises InputError for a card that is not YAML or JSON.
    """
    readme, infos = folder / "README.md", folder / "dataset_infos.json"
    front: Mapping[str, Any] = {}
    body = ""
    if readme.is_file():
        front, body = _front_matter(readme)
    listed: Any = {}
    if infos.is_file():
        try:
            listed = json.loads(infos.read_text("utf-8", "replace"))
        except ValueError as error:
            raise InputError(f"{infos} is not JSON ({error}); mend it or take it away") from None
    if not readme.is_file() and not infos.is_file():
        return None
    listed = listed if isinstance(listed, Mapping) else {}
    return _card(folder.name, front, summary_of(body), listed)


def card_of_hub(payload: Mapping[str, Any]) -> Card:
    """Read the reply of the Hub's API about one dataset (`/api/datasets/OWNER/NAME`)."""
    front = payload.get("cardData") or payload.get("card_data") or {}
    about = summary_of(str(payload.get("description") or ""))
    name = str(payload.get("id") or "")
    return _card(name, front if isinstance(front, Mapping) else {}, about, {}, str(payload.get("sha") or ""))


def card_of_entry(entry: Mapping[str, Any]) -> Card:
    """Read one entry of a `CATALOG.json`: name, file, columns, licence, role, task types and so on."""
    said = [str(entry[key]) for key in ("title", "description") if entry.get(key)]
    licence = str(entry.get("licence") or "")
    if entry.get("nc") and "nc" not in re.split(r"[\W_]+", licence.lower()):
        licence = f"{licence or 'unstated'} (non-commercial)"
    role = "benchmark" if entry.get("canary") or entry.get("role") in ("benchmark", "target") else ""
    return Card(
        name=str(entry.get("name") or ""),
        summary=". ".join(said)[:_SUMMARY],
        licence=licence,
        tasks=_texts(entry.get("task_types")),
        languages=_texts(entry.get("language")),
        lineage=tuple(dict.fromkeys(_origin(source) for source in _texts(entry.get("source")))),
        role=role,
    )


def _origin(source: str) -> str:
    return source.partition("@")[0]


def _front_matter(readme: Path) -> tuple[Mapping[str, Any], str]:
    text = readme.read_text("utf-8", "replace").removeprefix("\ufeff")
    match = re.match(r"---\s*\n(.*?)\n---\s*(?:\n|$)", text, re.DOTALL)
    if not match:
        return {}, text
    try:
        front = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        line = str(error).replace("\n", " ")
        raise InputError(f"{readme}: the card's head is not YAML ({line}); mend it or take it away") from None
    return (front if isinstance(front, Mapping) else {}), text[match.end() :]


def summary_of(body: str) -> str:
    """Return a card's summary without markup: its section of that name, else the first paragraph."""
    body = re.sub(r"<!--.*?-->|\[More Information Needed\]\S*", "", body, flags=re.DOTALL)
    section = re.search(
        r"^#{1,6}\s*(?:dataset\s+)?(?:summary|description)\s*\n(.*?)(?=^#|\Z)", body, re.I | re.M | re.S
    )
    text = section[1] if section and section[1].strip() else ""
    if not text:
        parts = [
            part for part in re.split(r"\n\s*\n", body) if not part.lstrip().startswith(("#", "|", "```"))
        ]
        text = next((part for part in parts if part.strip()), "")
    text = re.sub(r"<[^>]{1,200}>|!\[[^\]]*\]\([^)]*\)", " ", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return " ".join(re.sub(r"[*_`]{1,3}(\S[^*_`]*)[*_`]{1,3}", r"\1", text).split())[:_SUMMARY]


def _card(
    name: str, front: Mapping[str, Any], summary: str, listed: Mapping[str, Any], revision: str = ""
) -> Card:
    licences = _texts(front.get("license") or front.get("licence"))
    if licences == ("other",) and front.get("license_name"):
        licences = (str(front["license_name"]),)
    about = next((str(one["description"]) for one in listed.values() if _has(one, "description")), "")
    if not licences:
        licences = tuple(
            dict.fromkeys(str(one["license"]) for one in listed.values() if _has(one, "license"))
        )
    return Card(
        name=name,
        summary=summary or " ".join(about.split())[:_SUMMARY],
        licence=" AND ".join(licences),  # a list says that each holds for a part: all of them must allow
        tasks=_texts(front.get("task_categories")) + _texts(front.get("task_ids")),
        languages=_texts(front.get("language") or front.get("languages")),
        lineage=tuple(n for n in _texts(front.get("source_datasets")) if n not in ("original", "extended")),
        configs=_configurations(front, listed),
        revision=revision,
    )


def _has(one: Any, key: str) -> bool:
    return isinstance(one, Mapping) and isinstance(one.get(key), str) and bool(one[key].strip())


def _configurations(front: Mapping[str, Any], listed: Mapping[str, Any]) -> dict[str, Configuration]:
    found: dict[str, Configuration] = {}
    infos = front.get("dataset_info") or []
    entries = [one for one in (infos if isinstance(infos, list) else [infos]) if isinstance(one, Mapping)]
    for name, one in [*listed.items(), *((str(one.get("config_name") or ""), one) for one in entries)]:
        if isinstance(one, Mapping):
            rows, size = _sizes(one.get("splits"))
            fields = features_of(one.get("features"))
            found["" if name == "default" else str(name)] = Configuration(fields, (), rows, size)
    configs = front.get("configs")
    for one in configs if isinstance(configs, list) else []:
        if isinstance(one, Mapping) and one.get("config_name"):
            name = "" if one["config_name"] == "default" else str(one["config_name"])
            own = found.get(name, Configuration())
            files = tuple(_data_files(one.get("data_files"), str(one.get("data_dir") or "")))
            found[name] = Configuration(own.fields, files, own.rows, own.bytes)
    return found


def _data_files(listed: Any, folder: str) -> Iterable[tuple[str, str]]:
    if not listed:
        return [("", f"{folder}/**")] if folder else []
    entries = listed if isinstance(listed, list) else [listed]
    found = []
    for one in entries:
        split = str(one.get("split") or "") if isinstance(one, Mapping) else ""
        paths = one.get("path") if isinstance(one, Mapping) else one
        found += [(split, path) for path in _texts(paths)]
    return found


def _sizes(splits: Any) -> tuple[int, int]:
    entries = list(splits.values()) if isinstance(splits, Mapping) else splits
    entries = [one for one in entries or () if isinstance(one, Mapping)]
    if not entries:
        return -1, -1
    return sum(_count(one.get("num_examples")) for one in entries), sum(
        _count(one.get("num_bytes")) for one in entries
    )


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0


def features_of(features: Any) -> dict[str, Declared]:
    """Return field → (type, class names) of features as the `datasets` library writes them, JSON or YAML."""
    if isinstance(features, Mapping):
        entries = [(str(name), one) for name, one in features.items()]
    else:
        listed = features if isinstance(features, list) else []
        entries = [(str(one.get("name")), one) for one in listed if isinstance(one, Mapping)]
    return {name: _declared(one) for name, one in entries}


def _declared(one: Any) -> Declared:
    if not isinstance(one, Mapping):
        return "", ()
    dtype = one.get("dtype")
    kind = str(one.get("_type") or (dtype if isinstance(dtype, str) else ""))
    named = dtype.get("class_label") if isinstance(dtype, Mapping) else None
    if kind == "ClassLabel" or isinstance(named, Mapping):
        names = (named or one).get("names") if isinstance(named or one, Mapping) else None
        if isinstance(names, Mapping):
            names = [
                names[key] for key in sorted(names, key=lambda key: int(key) if str(key).isdigit() else 0)
            ]
        return "label", tuple(str(name) for name in names or ())
    return {"Image": "image", "image": "image", "Audio": "audio", "audio": "audio"}.get(kind, ""), ()


def _texts(value: Any) -> tuple[str, ...]:
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        return (value,)
    if isinstance(value, bool):  # YAML reads the language code `no` as false
        return ("yes" if value else "no",)
    if isinstance(value, Mapping):  # per configuration, as older cards have it
        value = list(value.values())
    listed = value if isinstance(value, Sequence) else [str(value)]
    return tuple(dict.fromkeys(text for one in listed for text in _texts(one)))


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """Return the relative paths that a card's pattern names."""
    plain = pattern.removeprefix("./")
    return [name for name in names if name == plain or fnmatch(name, plain.replace("**/", "*"))]
