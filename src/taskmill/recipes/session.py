"""What every journey shares: the run folder's configuration, manifest, progress and how it ends."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import yaml

import taskmill
from taskmill.caller import Caller
from taskmill.config import difference
from taskmill.durable import atomic_write
from taskmill.errors import TaskmillError, UsageError
from taskmill.store import Run, code_version

__all__ = ["OnProgress", "Progress", "Session"]

_PACKAGES = ("daft", "minijinja", "openvino-genai", "pyarrow", "pypdf", "transformers", "vllm")

_BEAT = 2.0
"""Seconds between manifests written while a run works: what a killed run knows of its own time."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a stage stands. `total` is None while nobody can know it."""

    stage: str
    done: int = 0
    total: int | None = None
    accepted: int = 0
    dropped: int = 0
    made: int = 0
    reused: int = 0
    tokens: int = 0
    cost: float | None = None
    note: str = ""


_TICK = 0.1
"""Seconds between reports of progress."""

OnProgress = Callable[[Progress], None]


def ignore(_: Progress) -> None:
    """Report to nobody."""


@dataclass
class Session:
    """One session of a run: holds the manifest and writes it at the start, now and then, and at the end."""

    run: Run
    manifest: dict[str, Any]
    report: OnProgress = ignore
    started: float = field(default_factory=time.monotonic)
    _beat: float = 0.0
    _ticked: float = 0.0

    @classmethod
    def open(
        cls,
        run: Run,
        config: Mapping[str, Any],
        *,
        free: tuple[str, ...],
        update: bool,
        report: OnProgress | None,
    ) -> Session:
        """Start or continue a run folder.

        A configuration that differs from the folder's, other than in the `free` keys, is refused
        with the difference unless `update`. Raises UsageError then.
        """
        path = run.path / "config.yaml"
        if path.exists():
            changed = [
                line
                for line in difference(yaml.safe_load(path.read_text("utf-8")) or {}, config)
                if not line.startswith(free)
            ]
            if changed and not update:
                lines = "\n  ".join(changed)
                raise UsageError(
                    f"{run.path} was made with another configuration:\n  {lines}\n"
                    "Choose another --out, or add --update to go on with the new one "
                    "(finished model calls that still apply are reused)."
                )
        atomic_write(path, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True).encode())
        old = run.manifest()
        manifest = {
            "name": run.path.name,
            "id": run.id,
            "taskmill": taskmill.__version__,
            "code": code_version(),
            "status": "running",
            "exit": {"code": 1, "reason": "the run was stopped before its end; the same command continues"},
            "funnel": {},
            "tasks": {},
            "calls": {"made": 0, "reused": 0, "failed": 0, "total": 0},
            "tokens": {"prompt": 0, "completion": 0},
            "cost": None,
            "versions": _versions(),
            "elapsed_s": 0.0,
            "earlier_s": float(old.get("elapsed_s", 0.0)),
        }
        session = cls(run, manifest, report or ignore)
        session.write()
        return session

    @property
    def elapsed(self) -> float:
        """Return seconds of work, earlier sessions included."""
        return float(self.manifest["earlier_s"]) + time.monotonic() - self.started

    def write(self) -> None:
        """Write the manifest as it stands."""
        self.manifest["elapsed_s"] = round(self.elapsed, 3)
        self.run.write_manifest(self.manifest)
        self._beat = time.monotonic()

    def progress(self, progress: Progress) -> None:
        """Report, and keep the manifest's time fresh."""
        self.report(progress)
        if time.monotonic() - self._beat > _BEAT:
            self.write()

    def tick(self, progress: Progress | Callable[[], Progress]) -> None:
        """Report where a stage stands, at most every `_TICK` seconds; cheap in between."""
        now = time.monotonic()
        if now - self._ticked >= _TICK:
            self._ticked = now
            self.progress(progress() if callable(progress) else progress)

    def book(self, caller: Caller) -> None:
        """Put what a caller did into the manifest: of this session, and `total` of all sessions."""
        ledger = caller.ledger
        self.manifest["calls"] = {
            "made": caller.made,
            "reused": caller.reused,
            "failed": caller.failed,
            "total": ledger.spent_calls,
        }
        self.manifest["tokens"] = {"prompt": ledger.spent_prompt, "completion": ledger.spent_completion}
        self.manifest["cost"] = caller.budget.cost

    def fail(self, error: BaseException) -> None:
        """Write how the run broke off."""
        code = error.exit_code if isinstance(error, TaskmillError) else 1
        reason = str(error) or type(error).__name__
        if isinstance(error, KeyboardInterrupt):
            code, reason = 130, "interrupted; the same command continues"
        self.manifest.update(status="stopped", exit={"code": code, "reason": reason})
        # On a full disk this fails too; the first error is the one to report.
        with suppress(OSError):
            self.write()

    def end(self, code: int, reason: str) -> None:
        """Write how the run ended: 0, or 3 with the reason for the closed gate."""
        status = "done" if code == 0 else "short"
        self.manifest.update(status=status, exit={"code": code, "reason": reason})
        self.write()


def _versions() -> dict[str, str]:
    found = {"taskmill": taskmill.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
