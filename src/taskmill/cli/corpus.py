"""The commands of instruction pre-training: cast, examine, corpus."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from taskmill.cli.base import CODES, cli, config_options, configured, end, given, progress
from taskmill.errors import UsageError

__all__ = ["cast", "corpus", "examine"]


@cli.command(
    epilog="\b\nExamples:\n  taskmill corpus texts/ --rounds 2 --augment 0.2 --out runs/corpus\n"
    "  taskmill corpus texts/ --augment 1 --general chats.jsonl --tokens 2000000 --out runs/medicine\n\n"
    + CODES
)
@click.argument("sources", nargs=-1)
@click.option("-o", "--out", required=True, help="Run folder; the same command continues it.")
@click.option("-c", "--config", "file", default=None, help="YAML file merged over the defaults.")
@click.option("--update", is_flag=True, help="Go on in a run folder made with another configuration.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
@config_options("taskmill.recipes.corpus:CorpusConfig")
def corpus(
    sources: tuple[str, ...], out: str, file: str | None, update: bool, as_json: bool, **flags: Any
) -> int:
    """Raw text in, a pre-training corpus with questions and answers out (Instruction Pre-Training)."""
    from taskmill.config import build
    from taskmill.recipes.corpus import CorpusConfig
    from taskmill.recipes.corpus import corpus as run_corpus

    mapping = configured(file, flags, sources)
    with progress(as_json) as on_progress:
        manifest = run_corpus(build(CorpusConfig, mapping), out, update=update, on_progress=on_progress)
    return end(manifest, Path(out), as_json, _show)


def _show(manifest: Mapping[str, Any], out: Path) -> None:
    for kind, tokens in manifest["tokens"].items():
        if manifest["rows"][kind]:
            click.echo(f"{kind:<10}{manifest['rows'][kind]:>10,} rows {tokens:>13,} tokens")
    texts = manifest["documents"]
    click.echo(
        f"{texts['in']:,} texts: {texts['augmented']:,} with pairs, {texts['raw']:,} raw; "
        f"{manifest['pairs']:,} pairs, {manifest['pairs_per_text']:.1f} a text, of "
        f"{manifest['tokens_per_pair']:.0f} tokens"
    )
    for reason, count in manifest["dropped"].items():
        click.echo(f"{count:>10,} dropped: {reason}")
    shards = manifest["shards"]
    click.echo(f"{shards['bins']:,} sequences, {shards['fill']:.2%} full → {out / 'data'}, {out / 'shards'}")
    click.echo(f"report: {out / 'report.html'}")


@cli.command(
    epilog="\b\nExamples:\n  taskmill examine annotated.jsonl --seen squad,quac --out runs/examined\n"
    "  taskmill examine annotated.jsonl --seen runs/cast --model vllm:my/synthesizer --out runs/mine\n"
    "  taskmill examine --compare runs/examined runs/mine\n\n" + CODES
)
@click.argument("sources", nargs=-1)
@click.option("-o", "--out", default="", help="Folder for results, report and ledger.")
@click.option(
    "--compare",
    nargs=2,
    default=None,
    metavar="A B",
    help="Hold two finished examinations against each other.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@config_options("taskmill.recipes.examine.config:ExamineConfig")
def examine(
    sources: tuple[str, ...], out: str, compare: tuple[str, str] | None, as_json: bool, **flags: Any
) -> int:
    """Hold a synthesizer's pairs and answers against annotated texts, seen in its tuning and unseen."""
    from taskmill.config import build
    from taskmill.console import show_examination
    from taskmill.recipes.examine import ExamineConfig
    from taskmill.recipes.examine import examine as run

    if compare:
        return _compare(compare, given(flags), as_json)
    config = build(ExamineConfig, {**given(flags), "sources": list(sources)})
    if not out:
        raise UsageError("no --out is given; name a folder for the results")
    with progress(as_json) as on_progress:
        result = run(config, out, on_progress)
    return end(result, Path(out), as_json, show_examination)


def _compare(runs: tuple[str, str], mapping: Mapping[str, Any], as_json: bool) -> int:
    from taskmill.console import show_examinations
    from taskmill.recipes.examine.compare import compare_examinations

    compared = compare_examinations(
        *runs, confidence=float(mapping.get("confidence", 0.95)), seed=int(mapping.get("seed", 0))
    )
    if as_json:
        click.echo(json.dumps(compared))
    else:
        show_examinations(compared)
    return 0


@cli.command(
    epilog="\b\nExamples:\n  taskmill cast annotated.jsonl --out runs/cast\n"
    "  taskmill train synthesizer runs/cast --out models/synthesizer\n\n" + CODES
)
@click.argument("sources", nargs=-1)
@click.option("-o", "--out", required=True, help="Folder for the sequences.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
@config_options("taskmill.recipes.cast:CastConfig")
def cast(sources: tuple[str, ...], out: str, as_json: bool, **flags: Any) -> int:
    """Annotated datasets in, few-shot sequences that train an instruction synthesizer out."""
    from taskmill.config import build
    from taskmill.recipes.cast import CastConfig
    from taskmill.recipes.cast import cast as run

    config = build(CastConfig, {**given(flags), "sources": list(sources)})
    with progress(as_json) as on_progress:
        manifest = run(config, out, on_progress)
    if as_json:
        click.echo(json.dumps(manifest, ensure_ascii=False))
        return 0
    for name, own in manifest["datasets"].items():
        click.echo(
            f"{own['texts']:>8,} texts {own['pairs']:>8,} pairs {own['sequences']:>6,} sequences  {name}"
        )
    pairs = manifest["pairs"]
    click.echo(f"{pairs['in']:,} pairs in, {pairs['kept']:,} kept; sequences {manifest['fill']:.2%} full")
    for reason, count in pairs["dropped"].items():
        click.echo(f"{count:>10,} dropped: {reason}")
    return 0
