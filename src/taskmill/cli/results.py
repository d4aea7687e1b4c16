"""Commands that look and export: inspect, export, doctor, completion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from taskmill.cli.base import CODES, cli
from taskmill.errors import UsageError

__all__ = ["completion", "doctor", "export_command", "inspect"]

LAYOUTS = ("messages", "prompt-completion", "alpaca", "sharegpt", "bonito", "text")


@cli.command(epilog="Example: taskmill inspect runs/first --json\n\n" + CODES)
@click.argument("run", type=click.Path(file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def inspect(run: str, as_json: bool) -> int:
    """Show what is in a run folder and what is left to do."""
    from taskmill.store import read_json

    manifest = read_json(Path(run) / "manifest.json")
    if not manifest:
        raise UsageError(f"{run} is no run folder (it has no manifest.json)")
    if as_json:
        click.echo(json.dumps(manifest, ensure_ascii=False))
        return 0
    from taskmill.console import show_manifest

    show_manifest(manifest, Path(run))
    return 0


@cli.command(
    "export",
    epilog="\b\nExamples:\n  taskmill export runs/first --format messages --out train.jsonl\n"
    "  taskmill export runs/first --format prompt-completion --out my-dataset/\n\n" + CODES,
)
@click.argument("run", type=click.Path(file_okay=False))
@click.option(
    "--format",
    "layout",
    default="messages",
    show_default=True,
    help="Row layout.",
    type=click.Choice(LAYOUTS),
)
@click.option(
    "-o", "--out", default=None, help="A .jsonl or .parquet file, or a folder  [default: RUN/export]"
)
@click.option("--split", type=float, default=0.0, help="Share of passages for a test split (folders only).")
@click.option("--thinking", is_flag=True, help="Put a row's rationale before its response in <think> tags.")
@click.option(
    "--commercial", is_flag=True, help="Refuse rows or a model of unknown or non-commercial licence."
)
@click.option("--licence", default="", help="Licence you declare for rows whose source names none.")
@click.option("--allow-unknown-licence", is_flag=True, help="Let unknown licences pass --commercial.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
def export_command(run: str, layout: str, out: str | None, as_json: bool, **settings: Any) -> int:
    """Write the accepted examples for a trainer."""
    from taskmill.export import export_run

    target = Path(out) if out else Path(run) / "export"
    result = export_run(Path(run), target, layout, **settings)
    refused = {str(reason): n for reason, n in result.dropped.items()}
    if as_json:
        files = [str(f) for f in result.files]
        click.echo(json.dumps({"rows": result.rows, "dropped": refused, "out": str(target), "files": files}))
    else:
        left = f" ({sum(refused.values())} refused: {refused})" if refused else ""
        click.echo(f"{result.rows} rows → {target}{left}")
    return 0


@cli.command(epilog="Example: taskmill doctor --json")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
def doctor(as_json: bool) -> int:
    """Show what is installed, which models can run here, and which variables are set (never their values)."""
    from taskmill.console import examine, show_health

    health = examine()
    if as_json:
        click.echo(json.dumps(health))
    else:
        show_health(health)
    return 0


@cli.command(epilog="Example: taskmill completion bash >> ~/.bashrc")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print the shell completion script."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise UsageError(f"no completion for {shell}")
    click.echo(kind(cli, {}, "taskmill", "_TASKMILL_COMPLETE").source())
    return 0
