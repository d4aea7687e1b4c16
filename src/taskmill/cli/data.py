"""Commands over finished data: curate, dedup, decontaminate, select."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from taskmill.cli.base import CODES, cli, config_options, end, given, progress
from taskmill.errors import UsageError

__all__ = ["curate", "decontaminate", "dedup", "select"]

_OUT = click.option("-o", "--out", required=True, help="Folder for kept, dropped and the report.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")


def _report(name: str, work: Callable[..., Mapping[str, Any]], config: Any, out: str, as_json: bool) -> int:
    with progress(as_json) as on_progress:
        report = work(config, out, on_progress)
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False))
    else:
        from taskmill.console import show_table_report

        show_table_report(name, report, Path(out))
    return 0


@cli.command(
    epilog="\b\nExamples:\n  taskmill curate data.jsonl --out curated/\n"
    "  taskmill curate curated/ --set grounded=0.9 --out curated/   # decide again, score nothing\n\n" + CODES
)
@click.argument("sources", nargs=-1)
@_OUT
@_JSON
@config_options("taskmill.recipes.curate:CurateConfig")
def curate(sources: tuple[str, ...], out: str, as_json: bool, **flags: Any) -> int:
    """Filter instruction data: every filter's score is stored, thresholds decide."""
    from taskmill.config import build
    from taskmill.recipes.curate import CurateConfig
    from taskmill.recipes.curate import curate as run_curate

    config = replace(build(CurateConfig, given(flags)), sources=sources)
    return _report("curate", run_curate, config, out, as_json)


@cli.command(
    epilog="\b\nExamples:\n  taskmill dedup runs/first --mode near --on pair --out deduplicated/\n"
    "  taskmill dedup corpus.parquet --mode exact --text body --out deduplicated/\n\n" + CODES
)
@click.argument("sources", nargs=-1)
@_OUT
@_JSON
@config_options("taskmill.recipes.dedup:DedupConfig")
def dedup(sources: tuple[str, ...], out: str, as_json: bool, **flags: Any) -> int:
    """Drop rows that repeat others: exactly, nearly, or in meaning; and what is over a cap."""
    from taskmill.config import build
    from taskmill.recipes.dedup import DedupConfig
    from taskmill.recipes.dedup import dedup as run_dedup

    config = replace(build(DedupConfig, given(flags)), sources=sources)
    return _report("dedup", run_dedup, config, out, as_json)


@cli.command(
    epilog="\b\nExamples:\n  taskmill decontaminate train.parquet --out clean/\n"
    "  taskmill decontaminate train.parquet --against my-test.jsonl,mmlu --mode 8gram50 --out clean/\n"
    "  taskmill decontaminate my-test.jsonl --build my-test.index   # hashes only, to be shared\n\n" + CODES
)
@click.argument("sources", nargs=-1)
@click.option("-o", "--out", default=None, help="Folder for kept, dropped and the report.")
@click.option("--build", default=None, help="Write an index of SOURCES, evaluation files: hashes only.")
@_JSON
@config_options("taskmill.recipes.decontaminate:DecontaminateConfig")
def decontaminate(
    sources: tuple[str, ...], out: str | None, build: str | None, as_json: bool, **flags: Any
) -> int:
    """Drop training rows that hold items of evaluation sets: your files, and public ones by their hashes."""
    from taskmill.config import build as configure
    from taskmill.recipes.decontaminate import DecontaminateConfig
    from taskmill.recipes.decontaminate import decontaminate as run_decontaminate
    from taskmill.recipes.evaluation_sets import build_index

    if build:
        if out or given(flags):
            raise UsageError("--build only writes an index of SOURCES; leave --out and all other flags out")
        record = build_index(sources, build)
        click.echo(json.dumps(record) if as_json else f"{record['items']} items → {build}")
        return 0
    if not out:
        raise UsageError("--out is missing; name a folder for kept, dropped and the report")
    config = replace(configure(DecontaminateConfig, given(flags)), sources=sources)
    return _report("decontaminate", run_decontaminate, config, out, as_json)


@cli.command(
    epilog="\b\nExamples:\n  taskmill select runs/first --method k-center --budget 500 --out core.parquet\n"
    "  taskmill select pool.parquet --method rds --target wanted.jsonl --budget 20000tok --out s.parquet\n\n"
    + CODES
)
@click.argument("source")
@click.option("-o", "--out", required=True, help="SELECTION.parquet; its report is written beside it.")
@_JSON
@config_options("taskmill.recipes.select:SelectConfig")
def select(source: str, out: str, as_json: bool, **flags: Any) -> int:
    """Choose the rows to train on within a budget, held against chance and length."""
    from taskmill.config import build
    from taskmill.console import show_selection
    from taskmill.recipes.select import SelectConfig
    from taskmill.recipes.select import select as run_select

    config = build(SelectConfig, {**given(flags), "source": source})
    with progress(as_json) as on_progress:
        record = run_select(config, out, on_progress)
    return end(record, Path(out), as_json, show_selection)
