"""The command line: parsing and printing only.

Exit codes: 0 done · 1 failure · 2 wrong usage · 3 a gate closed (fewer examples than asked for, budget
reached, licence unknown); the reason is the last line printed and stands in the manifest.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, get_origin

import click

from taskmill import __version__
from taskmill.errors import TaskmillError, UsageError

__all__ = ["main"]

CODES = (
    "Exit codes: 0 done, 1 failure, 2 wrong usage, 3 a gate closed (the last line says which), "
    "130 interrupted."
)

LAYOUTS = ("messages", "prompt-completion", "alpaca", "sharegpt", "bonito", "text")

_KINDS = {int: "N", float: "X", str: "TEXT"}

ALIASES = {
    "create": "synth", "generate": "synth", "synthesize": "synth", "save-as": "export", "convert": "export",
    "upload": "export", "info": "inspect", "analyze": "inspect", "env": "doctor", "system-check": "doctor",
}  # fmt: skip
"""Words of other tools → ours, accepted but not listed."""


class _Group(click.Group):
    """Understands the aliases and names the nearest command for a typo."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, ALIASES.get(cmd_name, cmd_name))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from taskmill.registry import nearest

        if args and self.get_command(ctx, args[0]) is None:
            known = ", ".join(self.list_commands(ctx))
            raise click.UsageError(
                f"no command {args[0]!r}.{nearest(args[0], self.commands)} Commands: {known}"
            )
        return super().resolve_command(ctx, args)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]}, epilog=CODES)
@click.version_option(__version__, prog_name="taskmill")
@click.option("-v", "--verbose", is_flag=True, help="Show tracebacks.")
@click.pass_context
def cli(ctx: click.Context, verbose: bool) -> None:
    """Raw text and datasets in, instruction-tuning data out.

    \b
    taskmill demo
    taskmill synth docs/ --task exqa,ynqa --target 100 --out runs/first
    taskmill export runs/first --format messages --out train.jsonl
    """  # noqa: D301 - click wants the character itself
    ctx.obj = verbose


def _config_options(config: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds one flag for each leaf of a configuration ("module:Class")."""
    from importlib import import_module

    from taskmill.config import options

    module, _, name = config.partition(":")
    leaves = [o for o in options(getattr(import_module(module), name)) if o.path != "sources"]

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(leaves):
            default = option.default
            if isinstance(default, tuple):
                default = ",".join(default)
            shown = f"  [default: {default}]" if default not in ("", None, {}, False, 0) else ""
            settings: dict[str, Any] = {"help": option.help + shown, "default": None}
            declared = f"--{option.flag}"
            if option.kind is bool:
                declared += f"/--no-{option.flag}"
            elif option.choices:
                settings |= {"type": click.Choice(option.choices)}
            elif get_origin(option.kind) not in (None, tuple):
                settings |= {"multiple": True, "metavar": "KEY=A,B"}
            else:
                settings |= {"metavar": _KINDS.get(option.kind, "A,B")}
            names = [declared, *([option.short] if option.short else [])]
            command = click.option(*names, option.path.replace(".", "__"), **settings)(command)
        return command

    return decorate


def _given(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags the user wrote as a nested mapping."""
    from taskmill.config import merge, nest

    mapping: dict[str, Any] = {}
    for name, value in flags.items():
        if value is None or value == ():
            continue
        if isinstance(value, tuple):
            pairs = [v.partition("=") for v in value]
            if not all(equals for _, equals, _ in pairs):
                raise UsageError(f"--{name} takes KEY=A,B")
            value = {key: text for key, _, text in pairs}
        mapping = merge(mapping, nest(name.replace("__", "."), value))
    return mapping


@cli.command(epilog="Example: taskmill demo --out runs/demo\n\n" + CODES)
@click.option("-o", "--out", default="runs/demo", show_default=True, help="Run folder.")
@click.option("--model", default="openvino:smollm2-135m", show_default=True, help="Model reference.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def demo(out: str, model: str, as_json: bool) -> int:
    """Turn the Python language reference into tasks with the embedded model."""
    from taskmill.recipes.demo import demo as run_demo

    with _progress(as_json) as on_progress:
        manifest = run_demo(out, model=model, on_progress=on_progress)
    return _end(manifest, Path(out), as_json)


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
@_config_options("taskmill.recipes.synth:SynthConfig")
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
    from taskmill.config import build, load_yaml, merge
    from taskmill.recipes.synth import SynthConfig

    mapping = merge(load_yaml(Path(file)) if file else {}, _given(flags))
    for name in ("recipe", "out"):  # words of a recipe file that are not the configuration's
        mapping.pop(name, None)
    if sources:
        mapping["sources"] = list(sources)
    if resume and not (Path(out) / "manifest.json").exists():
        raise UsageError(f"--resume: {out} holds no run yet; leave --resume out to start one")
    return _synth(build(SynthConfig, mapping), out, dry_run=dry_run, update=update, as_json=as_json)


def _synth(config: Any, out: str, *, dry_run: bool, update: bool, as_json: bool) -> int:
    from taskmill.recipes.estimate import estimate
    from taskmill.recipes.synth import synth as run_synth

    with _progress(as_json) as on_progress:
        if dry_run:
            result = estimate(config, out, on_progress=on_progress)
        else:
            result = run_synth(config, out, update=update, on_progress=on_progress)
    if not dry_run:
        return _end(result, Path(out), as_json)
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
@_config_options("taskmill.recipes.remix:RemixConfig")
def remix(
    sources: tuple[str, ...], out: str, file: str | None, update: bool, as_json: bool, **flags: Any
) -> int:
    """Annotated datasets in, rows that train a synthesizer out (declared in YAML, or `catalog`)."""
    from taskmill.config import build, load_yaml, merge
    from taskmill.recipes.remix import RemixConfig
    from taskmill.recipes.remix import remix as run_remix

    mapping = merge(load_yaml(Path(file)) if file else {}, _given(flags))
    if sources:
        mapping["sources"] = list(sources)
    with _progress(as_json) as on_progress:
        manifest = run_remix(build(RemixConfig, mapping), out, update=update, on_progress=on_progress)
    return _end(manifest, Path(out), as_json)


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

    return build(TrainConfig, _given(flags))


@train.command(
    epilog="\b\nExamples:\n  taskmill train synthesizer runs/ctga --out models/synthesizer\n"
    "  taskmill train synthesizer runs/ctga --preset paper --base mistralai/Mistral-7B-v0.1 -o models/m\n\n"
    + CODES
)
@click.argument("corpus", nargs=-1)
@_OUT
@_JSON
@_config_options("taskmill.train:TrainConfig")
def synthesizer(corpus: tuple[str, ...], out: str, as_json: bool, **flags: Any) -> int:
    """Train a generator of tasks on remixed rows: loss on what it is to write only."""
    from taskmill.recipes.train import train_synthesizer

    with _progress(as_json) as on_progress:
        record = train_synthesizer(corpus, _training(flags), out, on_progress)
    return _trained(record, out, as_json)


@train.command(epilog="Example: taskmill train tapt docs/ --out models/tapt\n\n" + CODES)
@click.argument("sources", nargs=-1)
@_OUT
@_JSON
@_config_options("taskmill.train:TrainConfig")
def tapt(sources: tuple[str, ...], out: str, as_json: bool, **flags: Any) -> int:
    """Next-word prediction on plain text: loss on every token of the text."""
    from taskmill.recipes.train import train_tapt

    with _progress(as_json) as on_progress:
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
@_config_options("taskmill.train:TrainConfig")
def student(run: str, out: str, as_json: bool, layout: str, **flags: Any) -> int:
    """Fine-tune a student on the accepted examples of a run: loss on the responses only."""
    from taskmill.recipes.train import train_student

    with _progress(as_json) as on_progress:
        record = train_student(run, _training(flags), out, layout=layout, on_progress=on_progress)
    return _trained(record, out, as_json)


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


def _progress(as_json: bool) -> Any:
    from taskmill.console import progress_bars

    return progress_bars(quiet=as_json or not sys.stderr.isatty())


def _end(manifest: Mapping[str, Any], out: Path, as_json: bool) -> int:
    """Print the result; the reason of a closed gate is the last line."""
    from taskmill.console import show_manifest

    code, reason = manifest["exit"]["code"], manifest["exit"]["reason"]
    if as_json:
        click.echo(json.dumps(manifest, ensure_ascii=False))
        if code:
            click.echo(reason, err=True)
    else:
        show_manifest(manifest, out)
    return int(code)


def main(argv: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code."""
    arguments = sys.argv[1:] if argv is None else argv
    verbose = any(a in ("-v", "--verbose") for a in arguments)
    arguments = [a for a in arguments if a not in ("-v", "--verbose")]  # before or after the command
    try:
        code = cli.main(arguments, prog_name="taskmill", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped; the same command continues where this one left off", err=True)
        sys.exit(130)
    except TaskmillError as error:
        if verbose:
            traceback.print_exc()
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        if verbose:
            traceback.print_exc()
        click.echo(f"error: {error}; mend that and run the same command again", err=True)
        sys.exit(1)
    sys.exit(code or 0)
