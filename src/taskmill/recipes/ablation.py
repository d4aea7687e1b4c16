"""The ablation journey: one mixture, and the same without one of its parts each time.

    OUT/  arms/ARM/mixture.yaml  arms/ARM/data/*.parquet  arms/ARM/manifest.json  students/  result.json

An arm is a mixture's file like any other, made from the given one; all arms draw the same number of rows.
What the change does to the rows is counted and checked: an arm without chains of thought has no row with one.
The parts are those of the Flan Collection (arXiv 2301.13688, table 1 and figures 3 and 4).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from taskmill.config import load_yaml
from taskmill.durable import atomic_write
from taskmill.errors import ConfigError, InputError, UsageError
from taskmill.ids import draw
from taskmill.mix.source import Condition, Mixture, Policy, Source, leaves, read_mixture
from taskmill.recipes.data_folder import own_folder
from taskmill.recipes.mix import MixConfig, inspect_mixture, mix
from taskmill.recipes.mix_manifest import shown
from taskmill.recipes.mixing import meets, place_of, source_files
from taskmill.recipes.session import OnProgress, Progress, ignore
from taskmill.recipes.tables import read_file
from taskmill.registry import nearest

__all__ = ["ARMS", "AblationConfig", "ablate"]

ARMS = ("full", "no-cot", "no-inversion", "no-few-shot", "no-balancing")
"""Arms by name; beside them `tasks=K` (so many tasks, by chance) and `few-shot=SHARE`."""

_WITHOUT = {
    "no-cot": ("cot", Condition("==", False), "cot"),
    "no-inversion": ("inverted", Condition("==", False), "inverted"),
    "no-few-shot": ("shots", Condition("==", 0), "few_shot"),
}
"""Arm → column of rendered rows, what its cells must be, and the share that becomes nothing."""


@dataclass(frozen=True, slots=True)
class AblationConfig:
    """A mixture in, its variants out, and what each changes."""

    source: str = field(default="", metadata={"help": "the mixture: a YAML file"})
    arms: tuple[str, ...] = field(
        default=ARMS, metadata={"help": f"variants: {', '.join(ARMS)}, tasks=K, few-shot=SHARE"}
    )
    rows: int = field(default=0, metadata={"help": "rows of each arm; 0: what the whole mixture gives once"})
    seed: int = field(default=0, metadata={"help": "rows, their order and the tasks taken depend on it"})
    train: str = field(
        default="",
        metadata={"help": "then train students on each arm: a recipe of `prove`, without its arms"},
    )


def ablate(config: AblationConfig, out: str | Path, on_progress: OnProgress | None = None) -> dict[str, Any]:
    """Write every arm and OUT/result.json, and return the result.

    Raises UsageError for an arm that is none, ConfigError for one that leaves no rows; what `mix` and `prove`
    raise.
    """
    report = on_progress or ignore
    if not config.source:
        raise UsageError("no mixture is given; name its YAML file")
    names = _checked(config.arms)
    base = Path(config.source).parent
    mixture = _absolute(read_mixture(load_yaml(Path(config.source))), base)
    files = [name for leaf in leaves(mixture.root) for path in leaf.path for name in source_files(path)]
    folder = own_folder(Path(out), files, "ablate")
    (folder / "result.json").unlink(missing_ok=True)
    report(Progress("ablate", 0, len(names), note="full"))
    whole = _inspected(folder, "full", mixture, config)
    rows = config.rows or whole["rows"]
    arms = {}
    for at, name in enumerate(names):
        report(Progress("ablate", at, len(names), note=name))
        own = _written(folder, name, _variant(mixture, name, whole, config.seed))
        manifest = mix(MixConfig(source=str(own), rows=rows, seed=config.seed), own.parent)
        arms[name] = _described(own.parent, manifest)
    checks = {name: _check(name, arms, whole) for name in names}
    result: dict[str, Any] = {
        "command": "ablate",
        "rows": rows,
        "seed": config.seed,
        "arms": arms,
        "checks": checks,
        "exit": _exit(arms, checks, rows),
    }
    if config.train:
        result["students"] = _students(folder, config.train, names, on_progress)
    atomic_write(folder / "manifest.json", json.dumps({"command": "ablate", "arms": names}).encode())
    atomic_write(folder / "result.json", json.dumps(result, indent=1, ensure_ascii=False).encode())
    return result


def _checked(arms: tuple[str, ...]) -> list[str]:
    for arm in arms:
        name, equals, value = arm.partition("=")
        known = (*ARMS, "tasks=K", "few-shot=SHARE")
        try:
            right = arm in ARMS or (name == "tasks" and int(value) > 0)
            right = right or (name == "few-shot" and bool(equals) and 0 <= float(value) <= 1)
        except ValueError:
            right = False
        if not right:
            raise UsageError(f"--arms: no arm {arm!r}.{nearest(name, known)} Known: {', '.join(known)}")
    return ["full", *(arm for arm in dict.fromkeys(arms) if arm != "full")]


# the mixtures of the arms


def _absolute(mixture: Mixture, base: Path) -> Mixture:
    """Return the mixture with paths that hold in any folder."""

    def path_of(path: str) -> str:
        place = place_of(path, base)
        return place if place.startswith("hf:") else str(Path(place).resolve())

    return replace(mixture, root=_each(mixture.root, lambda s: replace(s, path=tuple(map(path_of, s.path)))))


def _each(source: Source, change: Callable[[Source], Source]) -> Source:
    """Return a source with every one below it changed, and itself."""
    changed = change(source)
    return replace(changed, sources=tuple(_each(child, change) for child in changed.sources))


def _variant(mixture: Mixture, arm: str, whole: Mapping[str, Any], seed: int) -> Mixture:
    """Return the mixture of an arm; sources of which nothing is left are left out."""
    name, _, value = arm.partition("=")
    if arm in _WITHOUT:
        column, condition, _ = _WITHOUT[arm]
        return _where(mixture, {column: condition})
    if name == "no-balancing":
        plain: dict[str, Any] = {
            "weight": None, "cap": None, "scale": 1.0, "temperature": 1.0, "unimax": None,
        }  # fmt: skip
        return replace(
            mixture, root=_each(mixture.root, lambda s: s if s.weight == 0 else replace(s, **plain))
        )
    if name == "tasks":
        return replace(mixture, root=_some_tasks(mixture.root, whole, int(value), seed))
    if name == "few-shot":
        return _with_share(mixture, float(value))
    return mixture


def _where(mixture: Mixture, conditions: Mapping[str, Condition]) -> Mixture:
    """Return the mixture with conditions on all rows, without the sources that have none left."""
    changed = _each(mixture.root, lambda s: replace(s, where={**s.where, **conditions}))
    kept = _kept(changed, lambda leaf: _has_rows(leaf, conditions))
    if kept is None:
        said = ", ".join(f"{name} {condition}" for name, condition in conditions.items())
        raise ConfigError(f"no source of the mixture has a row with {said}; leave that arm out")
    return replace(mixture, root=kept)


def _kept(source: Source, wanted: Callable[[Source], bool]) -> Source | None:
    """Return a source without the leaves below it that are not wanted; None if nothing is left."""
    if not source.sources:
        return source if wanted(source) else None
    children = tuple(kept for child in source.sources if (kept := _kept(child, wanted)) is not None)
    return replace(source, sources=children) if children else None


def _has_rows(leaf: Source, conditions: Mapping[str, Condition]) -> bool:
    """Say whether a file of a source has a row that fulfils the conditions and those of its own."""
    for path in leaf.path:
        for name in source_files(path):
            if pc.any(meets(leaf, read_file(name))).as_py():
                return True
    return False


def _some_tasks(root: Source, whole: Mapping[str, Any], count: int, seed: int) -> Source:
    """Return the sources with `count` of their tasks, the same ones first for every count."""
    drawn = [
        (source, task)
        for source, record in whole["sources"].items()
        for task, own in record["tasks"].items()
        if own["count"]
    ]
    if count > len(drawn):
        raise UsageError(f"--arms tasks={count}: the mixture draws from {len(drawn)} tasks; take fewer")
    chosen = sorted(drawn, key=lambda one: (draw(seed, ":".join(one), "ablate tasks"), one))[:count]
    by_source: dict[str, list[str]] = {}
    for source, task in sorted(chosen):
        by_source.setdefault(source, []).append(task)

    def narrowed(source: Source) -> Source:
        tasks = [task for task in by_source.get(source.name, []) if task]
        return replace(source, only=tuple(tasks)) if tasks else source

    kept = _kept(_each(root, narrowed), lambda leaf: leaf.name in by_source)
    return kept if kept is not None else root


def _with_share(mixture: Mixture, share: float) -> Mixture:
    """Return a mixture of two: the rows without exemplars and those with, in the share that is wanted."""
    parts = {}
    for name, weight, sign in (("zero-shot", 1 - share, "=="), ("few-shot", share, ">")):
        if weight:
            part = _where(mixture, {"shots": Condition(sign, 0)}).root
            parts[name] = replace(_under(part, name), weight=weight)
    return replace(mixture, root=Source("", policy=Policy(), sources=tuple(parts.values())))


def _under(source: Source, name: str) -> Source:
    """Return a source and all below it with `name` before their names."""
    return _each(source, lambda s: replace(s, name=f"{name}/{s.name}" if s.name else name))


def _written(folder: Path, arm: str, mixture: Mixture) -> Path:
    """Write the mixture of an arm as a file of its own and return its path."""
    path = folder / "arms" / arm / "mixture.yaml"
    mapping = shown(mixture.root) | {"weights": mixture.weights, "stratified": mixture.stratified}
    mapping.pop("policy")  # every source has its own
    if mixture.until:
        mapping["until"] = mixture.until
    atomic_write(path, yaml.safe_dump(mapping, sort_keys=False, allow_unicode=True).encode())
    return path


def _inspected(folder: Path, arm: str, mixture: Mixture, config: AblationConfig) -> dict[str, Any]:
    path = _written(folder, arm, mixture)
    return inspect_mixture(MixConfig(source=str(path), rows=config.rows, seed=config.seed))


# what they changed


def _described(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the shares of styles among an arm's rows, and what it drew from which source."""
    counts: Counter[str] = Counter()
    sources: Counter[str] = Counter()
    tasks: Counter[str] = Counter()
    total = 0
    for path in sorted((folder / "data").glob("*.parquet")):
        table = pq.read_table(path)
        total += len(table)
        for name, column in (("cot", "cot"), ("inverted", "inverted"), ("few_shot", "shots")):
            if column in table.column_names:
                counts[name] += _how_many(table[column], column)
        sources.update(table["mix_source"].to_pylist())
        tasks.update(
            f"{s}:{t}"
            for s, t in zip(*(table[c].to_pylist() for c in ("mix_source", "mix_task")), strict=True)
        )
    return {
        "rows": total,
        "shares": {name: round(counts[name] / max(total, 1), 6) for name in ("cot", "inverted", "few_shot")},
        "tasks": len(tasks),
        "largest_task": max(tasks.values(), default=0),
        "sources": dict(sorted(sources.items())),
        "effective_tasks": manifest["effective_tasks"],
        "repeats": manifest["repeats"],
        "tokens": manifest["tokens"],
    }


def _how_many(cells: pa.ChunkedArray, name: str) -> int:
    """Return how many cells are true or above 0. Raises InputError for a column of something else."""
    known = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_null)
    if not any(of(cells.type) for of in known):
        raise InputError(
            f"the column {name} of the mixture's rows is of {cells.type}, where `render` writes true and "
            "false or whole numbers; give its Parquet files to the mixture, or take the column out"
        )
    return pc.sum(pc.greater(pc.fill_null(cells.cast(pa.int64()), 0), 0)).as_py() or 0


def _check(arm: str, arms: Mapping[str, Mapping[str, Any]], whole: Mapping[str, Any]) -> dict[str, Any]:
    """Return whether an arm's rows are what it is meant to be, and how they differ from the whole."""
    own, full = arms[arm], arms["full"]
    name, _, value = arm.partition("=")
    if arm in _WITHOUT:
        share = _WITHOUT[arm][2]
        return {"what": f"no row is {share}", "before": full["shares"][share], "now": own["shares"][share],
                "ok": own["shares"][share] == 0 < full["shares"][share]}  # fmt: skip
    if name == "tasks":
        return {
            "what": f"{value} tasks",
            "before": full["tasks"],
            "now": own["tasks"],
            "ok": own["tasks"] == int(value),
        }
    if name == "few-shot":
        now = own["shares"]["few_shot"]
        ok = abs(now - float(value)) * own["rows"] <= 1
        return {
            "what": f"{float(value):.0%} few-shot",
            "before": full["shares"]["few_shot"],
            "now": now,
            "ok": ok,
        }
    if arm == "no-balancing":
        sizes = {source: record["rows"] for source, record in whole["sources"].items() if record["count"]}
        held = sum(sizes.values())
        off = max(abs(own["sources"].get(s, 0) - own["rows"] * n / held) for s, n in sizes.items())
        return {
            "what": "sources by their rows",
            "before": full["sources"],
            "now": own["sources"],
            "ok": off <= 1,
        }
    return {"what": "the mixture as it is", "before": full["rows"], "now": own["rows"], "ok": True}


def _exit(
    arms: Mapping[str, Mapping[str, Any]], checks: Mapping[str, Mapping[str, Any]], rows: int
) -> dict[str, Any]:
    short = [name for name, arm in arms.items() if arm["rows"] < rows]
    wrong = [name for name, check in checks.items() if not check["ok"]]
    if wrong:
        return {
            "code": 3,
            "reason": f"{', '.join(wrong)}: the rows are not what the arm says, or were so before",
        }
    if short:
        reason = (
            f"{', '.join(short)}: fewer than {rows:,} rows; give sources `policy: repeat`, or ask for fewer"
        )
        return {"code": 3, "reason": reason}
    return {"code": 0, "reason": "done"}


def _students(folder: Path, recipe: str, names: list[str], on_progress: OnProgress | None) -> dict[str, Any]:
    """Train students on the rows of every arm, as `prove` does, and return what they show."""
    from taskmill.recipes.prove import of_mapping, prove

    mapping = load_yaml(Path(recipe))
    if "arms" in mapping:
        raise ConfigError(f"{recipe}: the arms are those of the ablation; leave `arms` out")
    tables = [f"{name.replace('=', '-')}={folder / 'arms' / name / 'data'}" for name in names]
    config, targets = of_mapping({**mapping, "arms": ["none", *tables]})
    return dict(prove(config, folder / "students", on_progress, targets=targets)["result"])
