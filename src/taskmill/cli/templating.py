"""Commands about templates: render rows through them, and lint them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from taskmill.cli.base import CODES, cli, config_options, given, progress

__all__ = ["lint", "render"]


@cli.command(
    epilog="\b\nExamples:\n"
    "  taskmill render boolq_train.parquet --options --out zero-shot.parquet\n"
    "  taskmill render data.jsonl --templates qa --field answer=reply --style fs --out few-shot.parquet\n"
    "  taskmill render cot_gsm8k_train.parquet --cot --invert --out inverted/\n\n" + CODES
)
@click.argument("source")
@click.option(
    "-o", "--out", required=True, help="FILE.parquet or FILE.jsonl, beside which reports stand, or a folder."
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@config_options("taskmill.recipes.templating:RenderConfig")
def render(source: str, out: str, as_json: bool, **flags: Any) -> int:
    """Phrase the rows of a data set by templates: zero-shot, few-shot, chain of thought, inverted."""
    from taskmill.config import build
    from taskmill.recipes.templating import RenderConfig
    from taskmill.recipes.templating import render as run_render

    with progress(as_json) as on_progress:
        report = run_render(build(RenderConfig, {**given(flags), "source": source}), out, on_progress)
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False))
    else:
        from taskmill.console import show_table_report

        show_table_report("render", report, Path(out))
    return 0


@cli.group()
def lint() -> None:
    """Look for faults in files that people write."""


@lint.command(
    epilog="Example: taskmill lint templates my-templates/\n\nExit codes: 0 no fault, 1 faults, 2 usage."
)
@click.argument("path")
@click.option("--json", "as_json", is_flag=True, help="Print the faults as a JSON list.")
def templates(path: str, as_json: bool) -> int:
    """List every fault of a template file, or of all files of a folder, with file, line and rule."""
    from taskmill.templates.lint import lint as find_faults

    faults = find_faults(path)
    if as_json:
        click.echo(json.dumps([fault._asdict() for fault in faults], ensure_ascii=False))
    else:
        for fault in faults:
            click.echo(str(fault))
        click.echo(f"{len(faults)} faults" if faults else "no faults", err=bool(faults))
    return 1 if faults else 0
