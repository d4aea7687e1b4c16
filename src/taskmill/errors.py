"""Every error taskmill raises on purpose. Each says what is wrong and what to do next.

TaskmillError                exit 1
├── UsageError               exit 2   the command, recipe or argument is wrong
│   ├── ConfigError                   a key or value of a configuration
│   ├── UnknownName                   no plug-in of that name; names the nearest
│   └── MissingExtra                  an optional package is not installed
├── InputError               exit 1   a source cannot be read at all
├── BackendError             exit 1   a model cannot be loaded or reached
├── LedgerError              exit 1   the record of paid calls is damaged or unwritable
├── RunFolderError           exit 1   the run folder is in use, foreign or inconsistent
└── GateClosed               exit 3   work ended cleanly, but not with what was asked for
    └── LicenceUnknown              rows of unknown licence in a commercial export
"""

from __future__ import annotations

__all__ = [
    "BackendError",
    "ConfigError",
    "GateClosed",
    "InputError",
    "LedgerError",
    "LicenceUnknown",
    "MissingExtra",
    "RunFolderError",
    "TaskmillError",
    "UnknownName",
    "UsageError",
]


class TaskmillError(Exception):
    """Base of all errors raised on purpose; `exit_code` is the process status it ends in."""

    exit_code = 1


class UsageError(TaskmillError):
    """The command, recipe or argument is wrong; nothing was done."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration key is unknown or its value is not of the right kind."""


class UnknownName(UsageError):
    """No plug-in of this kind has this name."""


class MissingExtra(UsageError):
    """An optional package is needed; the message names the pip command."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f'{package} is not installed. Run: pip install "taskmill[{extra}]"')


class InputError(TaskmillError):
    """A source cannot be read at all (single bad files become dropped rows instead)."""


class BackendError(TaskmillError):
    """A model cannot be loaded or a server cannot be used for any request."""


class LedgerError(TaskmillError):
    """The ledger cannot be read or written."""


class RunFolderError(TaskmillError):
    """The run folder is in use by another process, foreign or inconsistent."""


class GateClosed(TaskmillError):
    """The work ended cleanly but a gate the user set is closed."""

    exit_code = 3


class LicenceUnknown(GateClosed):
    """Rows of unknown licence would enter a commercial export."""
