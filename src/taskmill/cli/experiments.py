"""Commands that train many students to find something out: ltd."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from taskmill.cli.base import CODES, cli, config_options, given, progress

__all__ = ["ltd"]


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
