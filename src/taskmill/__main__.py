"""`python -m taskmill`."""

from taskmill.cli import run

run()
