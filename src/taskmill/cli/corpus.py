"""The command that builds a pre-training corpus."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from taskmill.cli.base import CODES, cli, config_options, configured, progress

__all__ = ["corpus"]


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
    code, reason = manifest["exit"]["code"], manifest["exit"]["reason"]
    if as_json:
        click.echo(json.dumps(manifest, ensure_ascii=False, default=str))
    else:
        _show(manifest, Path(out))
    if code:
        click.echo(reason, err=as_json)
    return int(code)


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
