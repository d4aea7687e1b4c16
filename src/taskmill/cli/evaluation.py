"""The command that evaluates: a model on benchmarks, outputs made elsewhere, two runs against each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from taskmill.cli.base import CODES, cli, config_options, given, progress
from taskmill.errors import UsageError

__all__ = ["evaluate"]


@cli.command(
    epilog="\b\nExamples:\n"
    "  taskmill evaluate --suite bbh,bbh-cot --data benchmarks/ --limit 270 --out runs/bbh\n"
    "  taskmill evaluate --outputs outputs.parquet --suite bbh-cot --json\n"
    "  taskmill evaluate --compare runs/before runs/after\n\n" + CODES
)
@click.option("-o", "--out", default="", help="Folder for results, items, report and ledger.")
@click.option("--outputs", default="", help="Grade this table (task, output, target) instead of a model.")
@click.option(
    "--compare", nargs=2, default=None, metavar="A B", help="Hold two finished runs against each other."
)
@click.option("--lm-eval", default="", help="Write the suites as tasks of lm-eval into this folder instead.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
@config_options("taskmill.recipes.evaluate:EvaluateConfig")
def evaluate(
    out: str, outputs: str, compare: tuple[str, str] | None, lm_eval: str, as_json: bool, **flags: Any
) -> int:
    """Ask a model benchmarks; or grade outputs made elsewhere; or compare two runs."""
    from taskmill.config import build
    from taskmill.console import show_comparison, show_evaluation
    from taskmill.recipes.evaluate import EvaluateConfig

    mapping = given(flags)
    if compare:
        from taskmill.recipes.evaluate.compare import compare_runs

        compared = compare_runs(
            *compare, confidence=float(mapping.get("confidence", 0.95)), seed=int(mapping.get("seed", 0))
        )
        click.echo(json.dumps(compared, ensure_ascii=False)) if as_json else show_comparison(compared)
        return 0
    config = build(EvaluateConfig, mapping)
    if outputs:
        from taskmill.recipes.evaluate.outputs import grade_to

        results = grade_to(outputs, config.suite, out, confidence=config.confidence, seed=config.seed)
        click.echo(json.dumps(results, ensure_ascii=False)) if as_json else show_evaluation(
            {"suites": {results["suite"]: results}}, Path(out) if out else None
        )
        return 0
    if lm_eval:
        from taskmill.recipes.evaluate import export

        for path in export(config, lm_eval):
            click.echo(str(path))
        return 0
    if not out:
        raise UsageError("no --out is given; name a folder for the results")
    from taskmill.recipes.evaluate import evaluate as run

    with progress(as_json) as on_progress:
        results = run(config, out, on_progress)
    click.echo(json.dumps(results, ensure_ascii=False)) if as_json else show_evaluation(results, Path(out))
    if results["exit"]["code"]:
        click.echo(results["exit"]["reason"], err=as_json)
    return int(results["exit"]["code"])
