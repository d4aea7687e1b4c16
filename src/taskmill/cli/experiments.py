"""Commands that train many students to find something out: ltd, prove."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from taskmill.cli.base import CODES, cli, config_options, configured, given, progress
from taskmill.errors import UsageError

__all__ = ["ltd", "prove"]


@cli.command(
    epilog="\b\nExamples:\n  taskmill ltd pool.parquet --target test.parquet --budget 1h --out ltd/\n"
    "  taskmill ltd pool.parquet --target test.parquet --scopes target,all --templates 1,3,all --out ltd/\n\n"
    + CODES
)
@click.argument("source")
@click.option("-o", "--out", required=True, help="Folder of the experiment; the same command continues it.")
@click.option("--dry-run", is_flag=True, help="Measure the speed and say what would be trained.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@config_options("taskmill.recipes.ltd.config:LtdConfig")
def ltd(source: str, out: str, dry_run: bool, as_json: bool, **flags: Any) -> int:
    """Find how little of a pool a task needs: students on core-sets, beside chance, on held-out rows."""
    from taskmill.config import build
    from taskmill.recipes.ltd import LtdConfig
    from taskmill.recipes.ltd import ltd as run_ltd

    config = build(LtdConfig, {**given(flags), "source": source})
    with progress(as_json) as on_progress:
        record = run_ltd(config, out, on_progress, dry_run=dry_run)
    if as_json:
        click.echo(json.dumps(record, ensure_ascii=False))
    else:
        from taskmill.console import show_ltd

        show_ltd(record, Path(out))
    return 0


@cli.command(
    epilog="\b\nExamples:\n"
    "  taskmill prove --text pool.parquet --test test.parquet --budget 30m --out proof/\n"
    "  taskmill prove --test test.parquet --arms none,A=one.parquet,B=two.parquet --out proof/\n"
    "  taskmill prove proof.yaml --out proof/\n"
    "  taskmill prove --demo --seeds 2 --budget 18m --out proof/\n\n" + CODES
)
@click.argument("recipe", required=False)
@click.option("-o", "--out", required=True, help="Folder of the experiment; the same command continues it.")
@click.option("--dry-run", is_flag=True, help="Measure the speed and say what would be trained.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--demo", is_flag=True, help="Prove it on Python's own reference, with questions of ours.")
@config_options("taskmill.recipes.prove.config:ProveConfig")
def prove(recipe: str | None, out: str, dry_run: bool, as_json: bool, demo: bool, **flags: Any) -> int:
    """Say whether data helps: students with it and without, the same test, equal tokens."""
    from taskmill.recipes.prove import of_mapping
    from taskmill.recipes.prove import prove as run_prove

    mapping = configured(recipe, flags, ())
    _check_flags(mapping, given(flags))
    if demo:
        from taskmill.recipes.demo import beside
        from taskmill.recipes.prove.demo import demo_target

        if {"text", "test", "task", "targets"} & set(mapping):
            raise UsageError("--demo brings its own passages and test; leave out --text, --test and --task")
        mapping["targets"] = [asdict(demo_target(beside(Path(out))))]
    config, targets = of_mapping(mapping)
    with progress(as_json) as on_progress:
        record = run_prove(config, out, on_progress, targets=targets, dry_run=dry_run)
    if as_json:
        click.echo(json.dumps(record.get("result", record), ensure_ascii=False))
    else:
        from taskmill.console import show_proof

        show_proof(record, Path(out))
    end = record.get("exit", {"code": 0})
    if as_json and end["code"]:
        click.echo(end["reason"], err=True)
    return int(end["code"])


def _check_flags(mapping: Mapping[str, Any], flags: Mapping[str, Any]) -> None:
    """Raise UsageError for a flag that a target of the recipe overrules: it would change nothing there."""
    listed = mapping.get("targets")
    for target in listed if isinstance(listed, list) else ():
        for name in ("text", "test", "task", "labels"):
            if name in flags and isinstance(target, Mapping) and name in target:
                raise UsageError(
                    f"--{name}: the recipe's target {target.get('name', target[name])} has a {name} of its "
                    "own; change it there, or leave out the flag"
                )
