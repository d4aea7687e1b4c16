"""Commands about datasets that become tasks: propose them, check them, rate them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from taskmill.cli.base import CODES, cli, config_options, configured, end, given, progress

__all__ = ["check", "grow", "propose", "rate"]


@cli.group()
def grow() -> None:
    """Make existing datasets into tasks, and let the collection grow."""


@grow.command(
    epilog="\b\nExamples:\n"
    "  taskmill grow propose datasets/reviews --out runs/tasks\n"
    "  taskmill grow propose datasets/ duckdb:shop.db#orders --instances 100 --out runs/tasks\n"
    "  taskmill grow propose datasets/ --model openai:gpt-4.1-mini --dry-run --out runs/tasks\n\n" + CODES
)
@click.argument("sources", nargs=-1)
@click.option("-o", "--out", required=True, help="Run folder; the same command continues it.")
@click.option("-c", "--config", "file", default=None, help="YAML file merged over the defaults.")
@click.option("--dry-run", is_flag=True, help="Count the calls and their tokens; make none.")
@click.option("--update", is_flag=True, help="Go on in a run folder made with another configuration.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
@config_options("taskmill.recipes.propose:ProposeConfig")
def propose(
    sources: tuple[str, ...],
    out: str,
    file: str | None,
    dry_run: bool,
    update: bool,
    as_json: bool,
    **flags: Any,
) -> int:
    """Propose tasks over the fields of datasets: by rules, or by a model, and filter them."""
    from taskmill.config import build
    from taskmill.recipes.propose import ProposeConfig, estimate
    from taskmill.recipes.propose import propose as run_propose

    config = build(ProposeConfig, configured(file, flags, sources))
    if dry_run:
        found = estimate(config)
        click.echo(json.dumps(found) if as_json else "\n".join(f"{k}: {v}" for k, v in found.items()))
        return 0
    with progress(as_json) as on_progress:
        manifest = run_propose(config, out, update=update, on_progress=on_progress)
    return end(manifest, Path(out), as_json, _show)


def _show(manifest: Mapping[str, Any], out: Path) -> None:
    for mode, counts in manifest["modes"].items():
        click.echo(f"{mode:<10}{counts['proposed']:>7,} proposed {counts['kept']:>7,} kept")
    for stage, funnel in manifest["funnel"].items():
        click.echo(f"{stage}: {funnel['in']:,} in, {funnel['kept']:,} kept")
        for reason, count in funnel["dropped"].items():
            click.echo(f"{count:>10,} dropped: {reason.replace('_', '-')}")
    families = manifest["figures"]["families"]
    click.echo(
        f"effective number of families: {families['before']} before the cap, {families['after']} after"
    )
    for name, share in families["dominant"].items():
        click.echo(f"  {share:.0%} of the tasks are of {name}")
    for problem in manifest["datasets"]["unread"]:
        click.echo(f"not read: {problem}")
    click.echo(f"{manifest['calls']['total']:,} calls → {out / 'proposals.jsonl'}")


@grow.command(
    epilog="\b\nExamples:\n  taskmill grow check proposals.jsonl --out runs/checked\n"
    "  taskmill grow check proposals.jsonl --data datasets/reviews --out runs/checked --json\n\n" + CODES
)
@click.argument("proposals")
@click.option("-o", "--out", required=True, help="Folder for kept and dropped proposals and a report.")
@click.option("--data", multiple=True, metavar="SOURCE", help="Datasets that the proposals are about.")
@click.option("--licence", default="", help="Licence of the datasets that name none.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
@config_options("taskmill.recipes.task_filters:Filters")
def check(proposals: str, out: str, data: tuple[str, ...], licence: str, as_json: bool, **flags: Any) -> int:
    """Filter task proposals made elsewhere: task_name, instruction, input_fields, output_field."""
    from taskmill.config import build
    from taskmill.recipes.check_tasks import check_tasks
    from taskmill.recipes.task_filters import Filters

    report = check_tasks(proposals, out, build(Filters, given(flags)), data, licence)
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False))
        return 0
    click.echo(f"{report['in']:,} proposals, {report['kept']:,} kept → {Path(out) / 'proposals.jsonl'}")
    for reason, count in report["dropped"].items():
        click.echo(f"{count:>10,} dropped: {reason}")
    return 0


@grow.command(
    epilog="\b\nExamples:\n  taskmill grow rate runs/tasks -n 50 --out sheet.csv\n"
    "  taskmill grow rate sheet.csv\n\n" + CODES
)
@click.argument("source")
@click.option("-o", "--out", default=None, help="FILE.csv or FILE.html to write the sheet to.")
@click.option("-n", "--count", default=50, metavar="N", help="Tasks on the sheet  [default: 50]")
@click.option("--seed", default=0, metavar="N", help="Which tasks are drawn.")
@click.option("--json", "as_json", is_flag=True, help="Print the shares as JSON.")
def rate(source: str, out: str | None, count: int, seed: int, as_json: bool) -> int:
    """Write a sheet on which people rate tasks, or read one that they filled in."""
    from taskmill.recipes.rate_tasks import read_ratings, write_sheet

    if out is not None:
        written = write_sheet(source, out, count, seed)
        click.echo(json.dumps({"tasks": written}) if as_json else f"{written} tasks to rate → {out}")
        return 0
    found = read_ratings(source)
    if as_json:
        click.echo(json.dumps(found))
        return 0
    for name, one in found["shares"].items():
        click.echo(f"{name:<18}{one['count']:>5} {one['share']:>7.1%}  [{one['low']:.1%}, {one['high']:.1%}]")
    click.echo(f"{found['rated']} rated, {found['unrated']} not rated")
    return 0
