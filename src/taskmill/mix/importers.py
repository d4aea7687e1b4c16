"""Mixtures of other tools as ours: axolotl, LLaMA-Factory, open-instruct.

What such a file says beside its data is left alone. What it says of its data and we do not do (a chat type,
say: rows stay as they are) is noted; what would change which rows are drawn and is not known is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from taskmill.errors import ConfigError

__all__ = ["imported"]

Imported = tuple[dict[str, Any], str, list[str]]


def imported(mapping: Mapping[str, Any], base: Path) -> Imported:
    """Return (mixture, tool, notes) of a file; one of our own is returned as it is, with the tool "".

    `base`: the folder of the file. Raises ConfigError for a block that cannot be translated.
    """
    if "sources" in mapping or "preset" in mapping:
        return dict(mapping), "", []
    if "dataset_mixer" in mapping or "dataset_mixer_list" in mapping:
        return _open_instruct(mapping), "open-instruct", []
    if isinstance(mapping.get("datasets"), list):
        return _axolotl(mapping["datasets"])
    if "dataset" in mapping:
        return _llama_factory(mapping, base)
    return dict(mapping), "", []


def _place(name: str, where: str) -> str:
    """Return a source's path: files and folders as they are, names of the Hub as `hf:` sources."""
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{where}: no path; name a file, a folder or a data set of the Hub")
    local = name.startswith((".", "/", "~")) or Path(name).suffix or Path(name).exists()
    return name if local or name.startswith("hf:") or name.count("/") != 1 else f"hf:{name}"


def _add(sources: dict[str, Any], path: str | list[str], given: Mapping[str, Any]) -> None:
    """Add a source under a name of its own: a data set listed twice is drawn twice."""
    first = path if isinstance(path, str) else path[0]
    name = base = first.removeprefix("hf:").rstrip("/").replace("/", "-").strip(".-") or "source"
    again = 1
    while name in sources:
        again += 1
        name = f"{base}-{again}"
    sources[name] = {"path": path, "tasks": "none", **given}


# axolotl: a list of data sets, concatenated and shuffled


_AXOLOTL_ROWS = ("shards", "shards_idx")
"""Keys of axolotl by which only a part of a data set is read."""


def _axolotl(datasets: Sequence[Any]) -> Imported:
    sources: dict[str, Any] = {}
    notes: list[str] = []
    for at, one in enumerate(datasets):
        where = f"datasets[{at}]"
        if not isinstance(one, Mapping):
            raise ConfigError(f"{where}: expected a mapping with a path, got {one!r}")
        for key in _AXOLOTL_ROWS:
            if one.get(key) not in (None, 1 if key == "shards" else 0):
                raise ConfigError(
                    f"{where}: {key} takes a part of the rows; cut the file, or write a `count`"
                )
        if one.get("split") not in (None, "train"):
            raise ConfigError(f"{where}: only the split train is read, not {one['split']!r}; name its file")
        files = one.get("data_files")
        path = files if files else _place(one.get("path", ""), where)
        _add(sources, path, {"policy": "once"})
        if one.get("type"):
            notes.append(f"{where}: type {one['type']!r} is not applied; rows stay as they are")
    return {"sources": sources}, "axolotl", notes


# LLaMA-Factory: names of data sets, which dataset_info.json resolves


def _llama_factory(mapping: Mapping[str, Any], base: Path) -> Imported:
    names = _listed(mapping["dataset"])
    strategy = str(mapping.get("mix_strategy") or "concat")
    if strategy not in ("concat", "interleave_under", "interleave_over", "interleave_once"):
        raise ConfigError(f"mix_strategy: {strategy!r} is none of concat, interleave_under, interleave_over")
    weights = [str(p) for p in _listed(mapping.get("interleave_probs") or ())]
    if weights and (strategy == "concat" or len(weights) != len(names)):
        raise ConfigError(
            "interleave_probs: one for each data set, and only with an interleaving mix_strategy"
        )
    folder = Path(str(mapping.get("dataset_dir") or "data"))
    info = _dataset_info(folder, base)
    sources: dict[str, Any] = {}
    notes: list[str] = []
    for at, name in enumerate(names):
        given: dict[str, Any] = {}
        if strategy == "concat":
            given["policy"] = "once"
        else:
            given["weight"] = weights[at] if weights else 1
            given["policy"] = {"interleave_under": "stop", "interleave_over": "repeat"}.get(strategy, "drop")
        if mapping.get("max_samples"):
            given["cap"] = mapping["max_samples"]
        _add(sources, _known(name, info, folder, notes), given)
    if mapping.get("streaming"):
        notes.append("streaming: rows are read whole")
    until = {"interleave_under": "first-empty", "interleave_over": "all-seen"}.get(strategy)
    return {"sources": sources} | ({"until": until} if until else {}), "LLaMA-Factory", notes


def _listed(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [word.strip() for word in value.split(",") if word.strip()]
    return list(value) if isinstance(value, Sequence) else [value]


def _dataset_info(folder: Path, base: Path) -> tuple[Mapping[str, Any], Path]:
    for place in (base / folder, folder):
        path = place / "dataset_info.json"
        if path.is_file():
            try:
                return json.loads(path.read_text("utf-8")), place
            except ValueError as error:
                raise ConfigError(f"{path} is not JSON: {error}") from None
    return {}, base / folder


def _known(name: str, found: tuple[Mapping[str, Any], Path], folder: Path, notes: list[str]) -> str:
    """Return the path of a data set that dataset_info.json describes."""
    info, place = found
    if name not in info:
        raise ConfigError(
            f"dataset: {name!r} stands in no {folder}/dataset_info.json; add it there, "
            "or name its file in a mixture of our own"
        )
    entry = info[name]
    if entry.get("num_samples"):
        raise ConfigError(
            f"dataset: {name}: num_samples takes a part of the rows; write a `count` in a mixture"
        )
    if entry.get("columns") or entry.get("formatting"):
        notes.append(f"{name}: columns and formatting are not applied; rows stay as they are")
    if entry.get("file_name"):
        return str((place / entry["file_name"]).absolute())
    if entry.get("hf_hub_url"):
        return f"hf:{entry['hf_hub_url']}"
    raise ConfigError(f"dataset: {name} has neither file_name nor hf_hub_url in dataset_info.json")


# open-instruct: name → share of its rows, or number of rows


def _open_instruct(mapping: Mapping[str, Any]) -> dict[str, Any]:
    mixer = mapping.get("dataset_mixer") or mapping.get("dataset_mixer_list")
    if isinstance(mixer, str):
        mixer = mixer.split()
    if isinstance(mixer, Sequence):
        if len(mixer) % 2:
            raise ConfigError("dataset_mixer_list: names and amounts in turn; its length is odd")
        pairs = list(zip(mixer[::2], mixer[1::2], strict=True))
    elif isinstance(mixer, Mapping):
        pairs = list(mixer.items())
    else:
        raise ConfigError("dataset_mixer: expected names with amounts")
    sources: dict[str, Any] = {}
    for name, amount in pairs:
        _add(sources, _place(name, "dataset_mixer"), {"count": _amount(amount, str(name))})
    return {"sources": sources}


def _amount(value: Any, name: str) -> int | float:
    """Return what an amount means there: 0.5 or 1.0 of the rows with a point, else so many rows."""
    text = str(value)
    try:
        found = float(text) if "." in text else int(text)
    except ValueError:
        raise ConfigError(f"dataset_mixer: {name}: expected an amount, got {value!r}") from None
    if found <= 0:
        raise ConfigError(f"dataset_mixer: {name}: an amount is more than 0, got {value!r}")
    return found
