"""Commands that put training data together: mix, ablate, pack."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from taskmill.cli.base import CODES, cli, config_options, end, given, progress
from taskmill.errors import UsageError

__all__ = ["ablate", "mix", "pack"]


@cli.command(
    epilog="\b\nExamples:\n  taskmill mix mixture.yaml --rows 100000 --seed 1 --out mixed/\n"
    "  taskmill mix mixture.yaml --epochs 1 --inspect --samples 2\n\n" + CODES
)
@click.argument("mixture")
@click.option("-o", "--out", default=None, help="Folder for data/ and manifest.json.")
@click.option(
    "--inspect", is_flag=True, help="Show weights, counts and where sources run out; write nothing."
)
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
@config_options("taskmill.recipes.mix:MixConfig")
def mix(mixture: str, out: str | None, inspect: bool, as_json: bool, **flags: Any) -> int:
    """Mix sources by weights, caps and policies: each row's place depends on its number and the seed only."""
    from taskmill.config import build
    from taskmill.recipes.mix import MixConfig, inspect_mixture
    from taskmill.recipes.mix import mix as run_mix

    config = build(MixConfig, {**given(flags), "source": mixture})
    if inspect:
        manifest = inspect_mixture(config)
    elif not out:
        raise UsageError("--out is missing; name a folder for the rows, or look with --inspect")
    else:
        with progress(as_json) as on_progress:
            manifest = run_mix(config, out, on_progress)
    if as_json:
        click.echo(json.dumps(manifest, ensure_ascii=False, indent=1, default=str))
    else:
        _show_mixture(manifest, None if inspect else Path(str(out)))
    code, reason = manifest["exit"]["code"], manifest["exit"]["reason"]
    if code and not inspect:
        click.echo(reason, err=as_json)
        return int(code)
    return 0


def _show_mixture(manifest: Mapping[str, Any], out: Path | None) -> None:
    head = ("source", "rows", "before", "weight", "drawn", "epochs", "tokens", "runs out at")
    lines = [head]
    for name, source in manifest["sources"].items():
        point = source["exhaustion_point"]
        lines.append(
            (
                name,
                f"{source['rows']:,}",
                f"{source['weight_before']:.4f}",
                f"{source['weight']:.4f}",
                f"{source['count']:,}",
                f"{source['epochs']:.2f}",
                f"{source['token_share']:.1%}",
                "" if point is None else f"{point:,}",
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        cells = [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]
        click.echo("  ".join(cells).rstrip())
    for note in manifest["notes"]:
        click.echo(note)
    rows, families = manifest["rows"], manifest["effective_families"]
    click.echo(f"{rows:,} rows, {manifest['tokens']:,} tokens (estimated), {families:.1f} effective sources")
    for name, source in manifest["sources"].items():
        for task, record in source["tasks"].items():
            for row in record.get("samples", ()):
                click.echo(
                    f"\n{name}{':' if task else ''}{task}\n{json.dumps(row, ensure_ascii=False, default=str)}"
                )
    if out is not None:
        click.echo(f"→ {out}")


@cli.command(
    epilog="\b\nExamples:\n  taskmill ablate mixture.yaml --rows 2000 --out ablation/\n"
    "  taskmill ablate mixture.yaml --arms no-cot,tasks=8,few-shot=0.5 --train proof.yaml --out ablation/\n\n"
    + CODES
)
@click.argument("mixture")
@click.option("-o", "--out", required=True, help="Folder for the arms and result.json.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@config_options("taskmill.recipes.ablation:AblationConfig")
def ablate(mixture: str, out: str, as_json: bool, **flags: Any) -> int:
    """Make a mixture without one of its parts each time, check what changed, and train students if asked."""
    from taskmill.config import build
    from taskmill.recipes.ablation import AblationConfig
    from taskmill.recipes.ablation import ablate as run_ablation

    config = build(AblationConfig, {**given(flags), "source": mixture})
    with progress(as_json) as on_progress:
        result = run_ablation(config, out, on_progress)
    return end(result, Path(out), as_json, _show_arms)


def _show_arms(result: Mapping[str, Any], out: Path) -> None:
    for name, arm in result["arms"].items():
        shares = "  ".join(f"{share} {value:.1%}" for share, value in arm["shares"].items())
        click.echo(f"{name:<14}  {arm['rows']:,} rows  {arm['tasks']} tasks  {shares}")
    click.echo(f"→ {out}")


@cli.command(
    epilog="\b\nExamples:\n  taskmill pack mixed/ --length 2048 --tokenizer smollm2-135m --out packed/\n"
    "  taskmill pack data.jsonl --length 4096 --tokenizer ./model --layout chat --out packed/\n\n" + CODES
)
@click.argument("dataset")
@click.option("-o", "--out", required=True, help="Folder for data/, shards/ and manifest.json.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
@config_options("taskmill.recipes.pack:PackConfig")
def pack(dataset: str, out: str, as_json: bool, **flags: Any) -> int:
    """Pack rows into token sequences of one length: every row whole and once, nothing cut off."""
    from taskmill.config import build
    from taskmill.recipes.pack import PackConfig, pack_rows

    config = build(PackConfig, {**given(flags), "source": dataset})
    with progress(as_json) as on_progress:
        manifest = pack_rows(config, out, on_progress)
    if as_json:
        click.echo(json.dumps(manifest, ensure_ascii=False, indent=1))
        return 0
    funnel = manifest["funnel"]
    click.echo(
        f"{funnel['kept']:,} of {funnel['in']:,} rows, {manifest['tokens']:,} tokens in {manifest['bins']:,} "
        f"sequences of {manifest['length']:,}: {manifest['fill']:.3%} filled, 0 truncated"
    )
    for reason, count in funnel["dropped"].items():
        click.echo(f"dropped {count:,}: {reason}")
    for warning in manifest["warnings"]:
        click.echo(warning)
    click.echo(f"→ {out}")
    return 0
