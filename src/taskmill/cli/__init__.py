"""The command line: parsing and printing only.

Exit codes: 0 done · 1 failure · 2 wrong usage · 3 a gate closed (fewer examples than asked for, budget
reached, licence unknown); the reason is the last line printed and stands in the manifest.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import NoReturn

import click

from taskmill.cli import (
    corpus,
    data,
    evaluation,
    experiments,
    grow,
    grow_registry,
    mixing,
    results,
    synthesis,
    templating,
    training,
    verification,
)
from taskmill.cli.base import ALIASES, cli
from taskmill.errors import TaskmillError

__all__ = [
    "ALIASES",
    "cli",
    "corpus",
    "data",
    "evaluation",
    "experiments",
    "grow",
    "grow_registry",
    "main",
    "mixing",
    "results",
    "run",
    "synthesis",
    "templating",
    "training",
    "verification",
]


def run() -> NoReturn:
    """Be the program: run the command line and end the process.

    Threads of the dataframe engine may still let go of Python objects while the interpreter is taken down,
    which aborts it (seen with Daft 0.7.26 on a busy machine, in one of twenty runs). Everything is written
    and synced by then, so the process ends without that.
    """
    code: object = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    if "daft" not in sys.modules:
        sys.exit(code if isinstance(code, int) else 1)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


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
        click.echo("stopped; the same command continues: finished model calls are not repeated", err=True)
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
