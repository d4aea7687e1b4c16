"""The command that asks a second model about finished data: verify."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from taskmill.cli.base import CODES, cli, config_options, given, progress
from taskmill.recipes.verify_table import FIXED

__all__ = ["verify"]


@cli.command(
    epilog="\b\nExamples:\n"
    "  taskmill verify data.jsonl --model openai:gpt-4.1-mini --set judge=4 --out judged/\n"
    "  taskmill verify runs/first --checks ask-llm,toxic --dry-run --out judged/\n"
    "  taskmill curate judged/ --set judge=3 --out judged/   # decide again, ask nothing\n\n" + CODES
)
@click.argument("sources", nargs=-1)
@click.option("-o", "--out", required=True, help="Folder for kept, dropped, the report and the ledger.")
@click.option(
    "--dry-run", is_flag=True, help="Make up to 20 calls (kept in the ledger) and estimate the rest."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
@config_options("taskmill.recipes.verify_table:VerifyTableConfig")
def verify(sources: tuple[str, ...], out: str, dry_run: bool, as_json: bool, **flags: Any) -> int:
    """Ask a second model about finished data: round trip, judge, yes-probability; thresholds decide."""
    from taskmill.config import build
    from taskmill.console import show_estimate, show_table_report
    from taskmill.recipes.verify_table import VerifyTableConfig, estimate_table, verify_table

    config = replace(build(VerifyTableConfig, given(flags)), sources=sources)
    with progress(as_json) as on_progress:
        result = (estimate_table if dry_run else verify_table)(config, out, on_progress)
    if as_json:
        click.echo(json.dumps(result, ensure_ascii=False))
    elif dry_run:
        show_estimate(result)
    else:
        show_table_report("verify", result, Path(out))
    end = result.get("exit", {"code": 0, "reason": "done"})
    if end["code"]:
        click.echo(end["reason"], err=as_json)
    return int(end["code"])


verify.params = [p for p in verify.params if p.name not in {f"model__{name}" for name in FIXED}]
