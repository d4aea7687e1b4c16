"""Commands that fine-tune."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from taskmill.cli.base import CODES, cli, config_options, given, progress

__all__ = ["train"]


@cli.group(epilog=CODES)
def train() -> None:
    """Fine-tune: a synthesizer on a remixed corpus, a student on produced tasks, a model on plain text.

    A killed run goes on exactly where its last checkpoint stands when the same command is given again.
    """


def _trained(record: Mapping[str, Any], out: str, as_json: bool) -> int:
    if as_json:
        click.echo(json.dumps(record))
    else:
        from taskmill.console import show_training

        show_training(record, Path(out))
    return 0


_OUT = click.option("-o", "--out", required=True, help="Folder of the run; the same command continues it.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")


def _training(flags: Mapping[str, Any]) -> Any:
    from taskmill.config import build
    from taskmill.train import TrainConfig

    return build(TrainConfig, given(flags))


@train.command(
    epilog="\b\nExamples:\n  taskmill train synthesizer runs/ctga --out models/synthesizer\n"
    "  taskmill train synthesizer runs/ctga --preset paper --base mistralai/Mistral-7B-v0.1 -o models/m\n\n"
    + CODES
)
@click.argument("corpus", nargs=-1)
@_OUT
@_JSON
@config_options("taskmill.train:TrainConfig")
def synthesizer(corpus: tuple[str, ...], out: str, as_json: bool, **flags: Any) -> int:
    """Train a generator of tasks on remixed rows: loss on what it is to write only."""
    from taskmill.recipes.train import train_synthesizer

    with progress(as_json) as on_progress:
        record = train_synthesizer(corpus, _training(flags), out, on_progress)
    return _trained(record, out, as_json)


@train.command(epilog="Example: taskmill train tapt docs/ --out models/tapt\n\n" + CODES)
@click.argument("sources", nargs=-1)
@_OUT
@_JSON
@config_options("taskmill.train:TrainConfig")
def tapt(sources: tuple[str, ...], out: str, as_json: bool, **flags: Any) -> int:
    """Next-word prediction on plain text: loss on every token of the text."""
    from taskmill.recipes.train import train_tapt

    with progress(as_json) as on_progress:
        record = train_tapt(sources, _training(flags), out, on_progress=on_progress)
    return _trained(record, out, as_json)


@train.command(epilog="Example: taskmill train student runs/first --out models/student\n\n" + CODES)
@click.argument("run", type=click.Path(file_okay=False))
@_OUT
@_JSON
@click.option(
    "--layout",
    default="chat",
    show_default=True,
    type=click.Choice(["chat", "bonito"]),
    help="The model's own chat template, or Bonito's student format.",
)
@config_options("taskmill.train:TrainConfig")
def student(run: str, out: str, as_json: bool, layout: str, **flags: Any) -> int:
    """Fine-tune a student on the accepted examples of a run: loss on the responses only."""
    from taskmill.recipes.train import train_student

    with progress(as_json) as on_progress:
        record = train_student(run, _training(flags), out, layout=layout, on_progress=on_progress)
    return _trained(record, out, as_json)


@train.command(
    "corpus",
    epilog="\b\nExamples:\n  taskmill train corpus runs/medicine --target test.jsonl --budget 1h -o worth\n"
    "  taskmill train corpus runs/medicine --target pubmedqa=pubmedqa.parquet --seeds 3 "
    "--instruct smollm2-135m --scales 0.5,1 --out worth\n\n" + CODES,
)
@click.argument("source")
@click.option("-o", "--out", required=True, help="Folder of the comparison; the same command continues it.")
@click.option("--dry-run", is_flag=True, help="Measure the speed and say what would be trained.")
@_JSON
@config_options("taskmill.recipes.pretrain.config:PretrainConfig")
def pretrain(source: str, out: str, dry_run: bool, as_json: bool, **flags: Any) -> int:
    """Continual pre-training on a corpus: with its pairs against its raw texts, at equal tokens."""
    from taskmill.config import build
    from taskmill.recipes.pretrain import PretrainConfig
    from taskmill.recipes.pretrain import pretrain as run

    config = build(PretrainConfig, {**given(flags), "source": source})
    with progress(as_json) as on_progress:
        record = run(config, out, on_progress, dry_run=dry_run)
    if as_json:
        click.echo(json.dumps(record, ensure_ascii=False))
    else:
        from taskmill.console import show_pretraining

        show_pretraining(record, Path(out))
    return 0
