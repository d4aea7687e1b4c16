"""Commands that make examples: demo, synth, run, remix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from taskmill.cli.base import CODES, cli, config_options, configured, end, progress
from taskmill.errors import UsageError

__all__ = ["demo", "remix", "run", "synth"]


@cli.command(epilog="Example: taskmill demo --out runs/demo\n\n" + CODES)
@click.option("-o", "--out", default="runs/demo", show_default=True, help="Run folder.")
@click.option("--model", default="openvino:bonito-smollm2-135m", show_default=True, help="Model reference.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def demo(out: str, model: str, as_json: bool) -> int:
    """Turn the Python language reference into tasks with the embedded model."""
    from taskmill.recipes.demo import demo as run_demo

    with progress(as_json) as on_progress:
        manifest = run_demo(out, model=model, on_progress=on_progress)
    return end(manifest, Path(out), as_json)


@cli.command(
    epilog="\b\nExamples:\n"
    "  taskmill synth docs/ --task exqa,ynqa --target 100 --out runs/first\n"
    "  taskmill synth data.jsonl --text-column body --model openai:gpt-4.1-mini --dry-run --out runs/a\n"
    "  cat notes.txt | taskmill synth - --task qg --out runs/notes\n\n" + CODES
)
@click.argument("sources", nargs=-1)
@click.option("-o", "--out", "--output-dir", required=True, help="Run folder; the same command continues it.")
@click.option("-c", "--config", "file", default=None, help="YAML file merged over the defaults.")
@click.option(
    "--dry-run", is_flag=True, help="Make up to 20 calls (kept in the ledger) and estimate the rest."
)
@click.option("--update", is_flag=True, help="Go on in a run folder made with another configuration.")
@click.option(
    "--resume", is_flag=True, help="Say aloud that a run is continued (the default); it must exist."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
@config_options("taskmill.recipes.synth:SynthConfig")
def synth(
    sources: tuple[str, ...],
    out: str,
    file: str | None,
    dry_run: bool,
    update: bool,
    resume: bool,
    as_json: bool,
    **flags: Any,
) -> int:
    """Documents in, checked instruction data out: ingest, synthesize, curate."""
    from taskmill.config import build
    from taskmill.recipes.synth import SynthConfig

    mapping = configured(file, flags, sources)
    if resume and not (Path(out) / "manifest.json").exists():
        raise UsageError(f"--resume: {out} holds no run yet; leave --resume out to start one")
    return _synth(build(SynthConfig, mapping), out, dry_run=dry_run, update=update, as_json=as_json)


def _synth(config: Any, out: str, *, dry_run: bool, update: bool, as_json: bool) -> int:
    from taskmill.recipes.estimate import estimate
    from taskmill.recipes.synth import synth as run_synth

    with progress(as_json) as on_progress:
        if dry_run:
            result = estimate(config, out, on_progress=on_progress)
        else:
            result = run_synth(config, out, update=update, on_progress=on_progress)
    if not dry_run:
        return end(result, Path(out), as_json)
    if as_json:
        click.echo(json.dumps(result))
    else:
        from taskmill.console import show_estimate

        show_estimate(result)
    return 0


@cli.command(epilog="Example: taskmill run recipes/policies.yaml target=200 model.ref=echo:\n\n" + CODES)
@click.argument("recipe", type=click.Path(dir_okay=False))
@click.argument("overrides", nargs=-1)
@click.option("-o", "--out", default=None, help="Run folder  [default: runs/<name of the recipe file>]")
@click.option(
    "--dry-run", is_flag=True, help="Make up to 20 calls (kept in the ledger) and estimate the rest."
)
@click.option("--update", is_flag=True, help="Go on in a run folder made with another configuration.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
def run(
    recipe: str, overrides: tuple[str, ...], out: str | None, dry_run: bool, update: bool, as_json: bool
) -> int:
    """Run a recipe file; key=value words override it."""
    from taskmill.config import build, load_yaml, merge, override
    from taskmill.recipes import RECIPES
    from taskmill.registry import nearest

    mapping = merge(load_yaml(Path(recipe)), override(overrides))
    name = mapping.pop("recipe", "synth")
    if name not in RECIPES:
        raise UsageError(f"{recipe}: no recipe {name!r}.{nearest(name, RECIPES)} Known: {', '.join(RECIPES)}")
    folder = out or str(mapping.pop("out", "") or Path("runs") / Path(recipe).stem)
    mapping.pop("out", None)
    config = build(RECIPES[name][0], mapping)
    return _synth(config, folder, dry_run=dry_run, update=update, as_json=as_json)


@cli.command(
    epilog="\b\nExamples:\n"
    "  taskmill remix catalog --data datasets/ --only boolq,xquad --out runs/ctga\n"
    "  taskmill remix my-dataset.yaml --out runs/ctga --total 5000 --temperature 5\n\n" + CODES
)
@click.argument("sources", nargs=-1)
@click.option("-o", "--out", required=True, help="Run folder; the same command continues it.")
@click.option("-c", "--config", "file", default=None, help="YAML file merged over the defaults.")
@click.option("--update", is_flag=True, help="Go on in a run folder made with another configuration.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
@config_options("taskmill.recipes.remix:RemixConfig")
def remix(
    sources: tuple[str, ...], out: str, file: str | None, update: bool, as_json: bool, **flags: Any
) -> int:
    """Annotated datasets in, rows that train a synthesizer out (declared in YAML, or `catalog`)."""
    from taskmill.config import build
    from taskmill.recipes.remix import RemixConfig
    from taskmill.recipes.remix import remix as run_remix

    mapping = configured(file, flags, sources)
    with progress(as_json) as on_progress:
        manifest = run_remix(build(RemixConfig, mapping), out, update=update, on_progress=on_progress)
    return end(manifest, Path(out), as_json)
