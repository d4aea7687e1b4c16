"""The command that evaluates: a model on benchmarks, outputs made elsewhere, two runs against each other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from taskmill.cli.base import CODES, cli, config_options, given, progress
from taskmill.errors import UsageError

if TYPE_CHECKING:
    from taskmill.recipes.evaluate import EvaluateConfig

__all__ = ["evaluate"]


@cli.command(
    epilog="\b\nExamples:\n"
    "  taskmill evaluate --suite bbh,bbh-cot --data benchmarks/ --limit 270 --out runs/bbh\n"
    "  taskmill evaluate --outputs outputs.parquet --suite bbh-cot --json\n"
    "  taskmill evaluate --compare runs/before runs/after\n"
    "  taskmill evaluate --pairs one.parquet,two.parquet --out runs/pairs\n\n" + CODES
)
@click.option("-o", "--out", default="", help="Folder for results, items, report and ledger.")
@click.option("--outputs", default="", help="Grade this table (task, output, target) instead of a model.")
@click.option(
    "--compare", nargs=2, default=None, metavar="A B", help="Hold two finished runs against each other."
)
@click.option("--open", "opened", default="", help="Ask the open-ended prompts of this file.")
@click.option("--pairs", default="", metavar="A,B", help="Write two tables of outputs as pairs to be judged.")
@click.option("--verdicts", default="", help="Read verdicts on the pairs of --out: win rate, position bias.")
@click.option("--lm-eval", default="", help="Write the suites as tasks of lm-eval into this folder instead.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
@config_options("taskmill.recipes.evaluate:EvaluateConfig")
def evaluate(
    out: str, outputs: str, compare: tuple[str, str] | None, opened: str, pairs: str, verdicts: str,
    lm_eval: str, as_json: bool, **flags: Any,
) -> int:  # fmt: skip
    """Ask a model benchmarks; or grade outputs made elsewhere; or compare two runs; or judge pairs."""
    from taskmill.config import build
    from taskmill.recipes.evaluate import EvaluateConfig

    mapping = given(flags)
    modes = {"--outputs": outputs, "--compare": compare, "--open": opened, "--pairs": pairs,
             "--verdicts": verdicts, "--lm-eval": lm_eval}  # fmt: skip
    named = [name for name, value in modes.items() if value]
    if len(named) > 1:
        raise UsageError(f"{' and '.join(named)} are different things to do; give one of them")
    if compare:
        return _compare(compare, mapping, as_json)
    config = build(EvaluateConfig, mapping)
    if outputs:
        return _outputs(outputs, config, out, as_json)
    if lm_eval:
        from taskmill.recipes.evaluate import export

        for path in export(config, lm_eval):
            click.echo(str(path))
        return 0
    if not out:
        raise UsageError("no --out is given; name a folder for the results")
    if pairs or verdicts:
        return _judged(pairs, verdicts, config, out, as_json)
    return _asked(opened, config, out, as_json)


def _compare(runs: tuple[str, str], mapping: Mapping[str, Any], as_json: bool) -> int:
    from taskmill.console import show_comparison
    from taskmill.recipes.evaluate.compare import compare_runs

    compared = compare_runs(
        *runs, confidence=float(mapping.get("confidence", 0.95)), seed=int(mapping.get("seed", 0))
    )
    _print(compared) if as_json else show_comparison(compared)
    return 0


def _outputs(source: str, config: EvaluateConfig, out: str, as_json: bool) -> int:
    from taskmill.console import show_evaluation
    from taskmill.recipes.evaluate.outputs import grade_to

    results = grade_to(source, config.suite, out, confidence=config.confidence, seed=config.seed)
    if as_json:
        _print(results)
    else:
        show_evaluation({"suites": {results["suite"]: results}}, Path(out) if out else None)
    return 0


def _judged(pairs: str, verdicts: str, config: EvaluateConfig, out: str, as_json: bool) -> int:
    from taskmill.console import show_pairs
    from taskmill.recipes.evaluate.pairs import export_pairs, read_verdicts

    if pairs:
        one, comma, two = pairs.partition(",")
        if not comma or not one.strip() or not two.strip() or "," in two:
            raise UsageError(f"--pairs {pairs}: name two tables of outputs, A.parquet,B.parquet")
        results = export_pairs(one.strip(), two.strip(), out, seed=config.seed)
    else:
        results = read_verdicts(verdicts, out, confidence=config.confidence, seed=config.seed)
    _print(results) if as_json else show_pairs(results, Path(out))
    return 0


def _asked(opened: str, config: EvaluateConfig, out: str, as_json: bool) -> int:
    from taskmill.console import show_evaluation

    with progress(as_json) as on_progress:
        if opened:
            from taskmill.recipes.evaluate.open_ended import answer_openly

            results = answer_openly(config, opened, out, on_progress)
        else:
            from taskmill.recipes.evaluate import evaluate as run

            results = run(config, out, on_progress)
    if as_json:
        _print(results)
    elif opened:
        click.echo(f"{results['answered']} of {results['prompts']} prompts answered: {out}/outputs.parquet")
    else:
        show_evaluation(results, Path(out))
    if results["exit"]["code"]:
        click.echo(results["exit"]["reason"], err=as_json)
    return int(results["exit"]["code"])


def _print(results: Mapping[str, Any]) -> None:
    click.echo(json.dumps(results, ensure_ascii=False))
