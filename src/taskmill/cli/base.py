"""What all commands share: the group, flags from a configuration, progress and the end of a run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import click

from taskmill import __version__
from taskmill.errors import UsageError

__all__ = ["CODES", "cli", "config_options", "configured", "end", "given", "progress"]

CODES = (
    "Exit codes: 0 done, 1 failure, 2 wrong usage, 3 a gate closed (the last line says which), "
    "130 interrupted."
)

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


def config_options(config: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds one flag for each leaf of a configuration ("module:Class")."""
    from importlib import import_module

    from taskmill.config import options

    module, _, name = config.partition(":")
    leaves = [o for o in options(getattr(import_module(module), name)) if o.path not in ("source", "sources")]

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
            elif get_origin(kind := _required(option.kind)) not in (None, tuple):
                settings |= {"multiple": True, "metavar": "KEY=A,B"}
            else:
                settings |= {"metavar": _KINDS.get(kind, "A,B")}
            names = [declared, *([option.short] if option.short else [])]
            command = click.option(*names, option.path.replace(".", "__"), **settings)(command)
        return command

    return decorate


def _required(kind: Any) -> Any:
    """Return the kind without None: `float` of `float | None`."""
    if get_origin(kind) not in (Union, UnionType):
        return kind
    return next(one for one in get_args(kind) if one is not type(None))


def given(flags: Mapping[str, Any]) -> dict[str, Any]:
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


def progress(as_json: bool) -> Any:
    """Return what shows the progress, as a context: bars on a terminal, else lines; nothing for JSON."""
    from taskmill.progress import bars, lines
    from taskmill.recipes.session import ignore

    if as_json:
        return nullcontext(ignore)
    return bars() if sys.stderr.isatty() else lines()


def end(
    manifest: Mapping[str, Any],
    out: Path,
    as_json: bool,
    show: Callable[[Mapping[str, Any], Path], None] | None = None,
) -> int:
    """Print the result, for people by `show`; the reason of a closed gate is the last line."""
    from taskmill.console import show_manifest

    code, reason = manifest["exit"]["code"], manifest["exit"]["reason"]
    if as_json:
        click.echo(json.dumps(manifest, ensure_ascii=False, default=str))  # as the run folder has it
    elif show:
        show(manifest, out)
    else:
        show_manifest(manifest, out)  # with the reason
    if code and (as_json or show):
        click.echo(reason, err=as_json)
    return int(code)


def configured(file: str | None, flags: Mapping[str, Any], sources: tuple[str, ...]) -> dict[str, Any]:
    """Return the configuration of a journey: its file's, the flags laid on it, the sources that are named."""
    from taskmill.config import load_yaml, merge

    mapping = merge(load_yaml(Path(file)) if file else {}, given(flags))
    for name in ("recipe", "out"):  # words of a recipe file that are not the configuration's
        mapping.pop(name, None)
    if sources:
        mapping["sources"] = list(sources)
    return mapping
