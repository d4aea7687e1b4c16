"""Commands about a registry of datasets: add, remove, diff, list, select, replay, continual."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from taskmill.cli.base import CODES, config_options, configured, given, progress
from taskmill.cli.grow import grow

__all__ = ["add", "continual", "diff", "list_datasets", "remove", "replay", "select"]

_REGISTRY = click.option("--registry", required=True, metavar="DIR", help="Folder of the registry.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def _show_change(found: Mapping[str, Any]) -> None:
    for name, change in found.items():
        rows, tasks = change["rows"], change["tasks"]
        click.echo(
            f"{name}: {change['change']}, {rows['added']:+,} and {-rows['removed']:,} rows, "
            f"{len(tasks['added']):+} and {-len(tasks['removed'])} tasks ({change['why']})"
        )


def _show_version(found: Mapping[str, Any]) -> None:
    _show_change(found["changes"])
    if not found["made"]:
        click.echo("nothing has changed; no version was made")
    for name in ("tasks", "rows"):
        for reason, count in found.get("dropped", {}).get(name, {}).items():
            click.echo(f"{count:>10,} {name} dropped: {reason.replace('_', '-')}")
    for name, why in found.get("empty", {}).items():
        click.echo(f"{name} gave no rows: {why}")
    for problem in found.get("unread", ()):
        click.echo(f"not read: {problem}")
    click.echo(
        f"version {found['version']}: {found['datasets']:,} datasets, {found['tasks']:,} tasks, "
        f"{found['rows']:,} rows → {found['folder']}"
    )


@grow.command(
    epilog="\b\nExamples:\n  taskmill grow add datasets/reviews --registry registry/\n"
    "  taskmill grow add datasets/ --instances 100 --registry registry/\n\n" + CODES
)
@click.argument("sources", nargs=-1)
@click.option("-c", "--config", "file", default=None, help="YAML file merged over the defaults.")
@_JSON
@config_options("taskmill.recipes.grow:AddConfig")
def add(sources: tuple[str, ...], file: str | None, as_json: bool, **flags: Any) -> int:
    """Add datasets to a registry, or bring them up to date: the next version holds what changed."""
    from taskmill.config import build
    from taskmill.recipes.grow import AddConfig
    from taskmill.recipes.grow import add as run_add

    config = build(AddConfig, configured(file, flags, sources))
    with progress(as_json) as on_progress:
        found = run_add(config, on_progress)
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
    else:
        _show_version(found)
    if found["rows"]:
        return 0
    click.echo("no task gave a row; see why with: taskmill grow list", err=as_json)
    return 3


@grow.command(epilog=CODES)
@click.argument("names", nargs=-1, required=True)
@_REGISTRY
@click.option("--why", default="", help="The reason, kept in the version's manifest.")
@_JSON
def remove(names: tuple[str, ...], registry: str, why: str, as_json: bool) -> int:
    """Take datasets out of a registry, with all their rows; earlier versions stay as they are."""
    from taskmill.recipes.grow import remove as run_remove

    found = run_remove(registry, names, why)
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
    else:
        _show_version(found)
    return 0


@grow.command(epilog=CODES)
@click.argument("old", type=int, required=False)
@click.argument("new", type=int, required=False)
@_REGISTRY
@_JSON
def diff(old: int | None, new: int | None, registry: str, as_json: bool) -> int:
    """Say what changed between two versions of a registry (by default the last two), and why."""
    from taskmill.recipes.grow import diff as run_diff

    found = run_diff(registry, old, new)
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
        return 0
    _show_change(found["datasets"])
    click.echo(
        f"version {found['from']} to {found['to']}: "
        f"{found['rows added']:+,} and {-found['rows removed']:,} rows, "
        f"{found['tasks added']:+,} and {-found['tasks removed']:,} tasks"
    )
    return 0


@grow.command("list", epilog=CODES)
@_REGISTRY
@click.option("--version", "number", type=int, default=None, help="Which version  [default: the last]")
@_JSON
def list_datasets(registry: str, number: int | None, as_json: bool) -> int:
    """List the datasets of a version of a registry, and its versions."""
    from taskmill.recipes.grow import listing

    found = listing(registry, number)
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
        return 0
    for name, one in found["datasets"].items():
        click.echo(
            f"{one['rows']:>10,} rows {one['tasks']:>4} tasks  {name}  ({one['licence'] or 'no licence'})"
            + (f": {one['empty']}" if "empty" in one else "")
        )
    for one in found["versions"]:
        changed = ", ".join(f"{name} {kind}" for name, kind in list(one["changed"].items())[:5])
        more = f" and {len(one['changed']) - 5} more" if len(one["changed"]) > 5 else ""
        click.echo(f"version {one['version']}: {one['rows']:,} rows; {changed}{more}")
    click.echo(f"version {found['version']} → {found['folder']}")
    return 0


@grow.command(epilog=CODES)
@click.option("-o", "--out", required=True, help="SELECTION.parquet; its report is written beside it.")
@_JSON
@config_options("taskmill.recipes.grow:ChooseConfig")
def select(out: str, as_json: bool, **flags: Any) -> int:
    """Choose rows of a version, going on from what was chosen of an earlier one."""
    from taskmill.config import build
    from taskmill.recipes.grow import ChooseConfig, choose

    with progress(as_json) as on_progress:
        found = choose(build(ChooseConfig, given(flags)), out, on_progress)
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
        return 0
    for line in filter(None, [found["shortfall"], *found["warnings"]]):
        click.echo(line)
    chosen = found["chosen"]
    click.echo(
        f"version {found['version']}: {chosen['rows']:,} of {found['pool']['rows']:,} rows, "
        f"{chosen['tokens']:,} tokens; {found['retracted']:,} of the earlier choice are gone → {out}"
    )
    return 0


@grow.command(
    epilog="\b\nExamples:\n"
    "  taskmill grow replay --registry registry/ --new new.jsonl --strategy instruction-diverse --budget 8\n"
    "  taskmill grow replay --registry registry/ --new new.parquet --strategy inscl --budget 8,20000tok "
    "--out replay.parquet\n\n" + CODES
)
@click.option("-o", "--out", default=None, help="REPLAY.parquet: the rows of the replayed tasks.")
@_JSON
@config_options("taskmill.recipes.replay:ReplayConfig")
def replay(out: str | None, as_json: bool, **flags: Any) -> int:
    """Rank a registry's tasks against new ones, and choose those to train on again within a budget."""
    from taskmill.config import build
    from taskmill.recipes.replay import ReplayConfig
    from taskmill.recipes.replay import replay as run_replay

    found = run_replay(build(ReplayConfig, given(flags)), out)
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
        return 0
    for line in found["replayed"]:
        click.echo(
            f"{line['score']:>12.6f} {line['rows']:>8,} rows {line['tokens']:>9,} tokens  "
            f"{line['dataset']}: {line['instruction'][:80]}"
        )
    click.echo(
        f"{len(found['replayed'])} of {found['earlier_tasks']} tasks, {found['rows']:,} rows, "
        f"{found['tokens']:,} tokens" + (f" → {out}" if out else "")
    )
    return 0


@grow.command(
    epilog="\b\nExamples:\n"
    "  taskmill grow continual --stages a.parquet,b.parquet,c.parquet --test unseen.parquet --out stages/\n"
    "  taskmill grow continual --stages registry/versions/00000001,registry/versions/00000002 "
    "--out stages/\n\n" + CODES
)
@click.option("-o", "--out", required=True, help="Folder of the experiment; the same command continues it.")
@click.option("--dry-run", is_flag=True, help="Measure the speed and say how long it takes.")
@_JSON
@config_options("taskmill.recipes.continual:ContinualConfig")
def continual(out: str, dry_run: bool, as_json: bool, **flags: Any) -> int:
    """Train in stages with each replay strategy, and measure what is forgotten and what is gained."""
    from taskmill.config import build
    from taskmill.recipes.continual import ContinualConfig
    from taskmill.recipes.continual import continual as run_continual

    with progress(as_json) as on_progress:
        record = run_continual(build(ContinualConfig, given(flags)), out, on_progress, dry_run=dry_run)
    if as_json:
        click.echo(json.dumps(record, ensure_ascii=False))
        return 0
    if dry_run:
        click.echo(f"{record['units']['all']} trainings, about {record['estimate_s'] / 60:.0f} minutes")
        return 0
    for name, own in record["strategies"].items():
        bwt, average = own["bwt"], own["average"]
        click.echo(
            f"{name:<20} BWT {100 * bwt['mean']:+6.2f} "
            f"({100 * bwt['low']:+.2f} to {100 * bwt['high']:+.2f})  average {100 * average['mean']:.2f}"
        )
    for line in record["verdict"]:
        click.echo(line)
    click.echo(f"→ {Path(out) / 'report.html'}")
    return 0
