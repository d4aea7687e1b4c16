"""`python -m taskmill`."""

from taskmill.cli import main

main()
