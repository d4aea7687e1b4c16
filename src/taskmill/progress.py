"""How far a command is: bars on a terminal, a line a minute in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as Bars,
)

from taskmill.recipes.session import Progress
from taskmill.report.words import duration

__all__ = ["bars", "lines"]

EVERY = 60.0
"""Seconds between two lines in a log (chosen: an hour is a screen, and short commands print none)."""


@contextmanager
def bars() -> Iterator[Callable[[Progress], None]]:
    """Give a callback that draws one bar per stage on standard error."""
    columns = (
        SpinnerColumn(),
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", style="dim"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as drawn:
        tasks: dict[str, Any] = {}

        def show(p: Progress) -> None:
            if p.stage not in tasks:
                tasks[p.stage] = drawn.add_task(p.stage, total=p.total, note="")
            task = tasks[p.stage]
            drawn.update(task, completed=p.done, total=p.total, note=_note(p, drawn.tasks[task].speed))

        yield show


def _note(p: Progress, speed: float | None) -> str:
    words = [f"{p.accepted} kept"] if p.accepted or p.dropped else []
    if p.dropped:
        words.append(f"{p.dropped} dropped")
    if p.reused:
        words.append(f"{p.reused} reused")
    if p.tokens:
        words.append(f"{p.tokens} tokens")
    if p.cost is not None:
        words.append(f"cost {p.cost:.4g}")
    if p.note:
        return p.note
    if speed:
        words.append(f"{speed:.1f}/s")
    return ", ".join(words)


@contextmanager
def lines(every: float = EVERY) -> Iterator[Callable[[Progress], None]]:
    """Give a callback that prints how far a stage is on standard error, once in `every` seconds."""
    begun: dict[str, tuple[float, int]] = {}
    last = time.monotonic()

    def show(p: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        since, first = begun.setdefault(p.stage, (now, p.done))
        if now - last < every:
            return
        last = now
        speed = (p.done - first) / (now - since) if now > since else 0.0
        of = f" of {p.total:,}" if p.total else ""
        words = [f"{p.stage}: {p.done:,}{of}", _note(p, speed)]
        if p.total and speed and not p.note:
            words.append(f"{duration((p.total - p.done) / speed)} left")
        sys.stderr.write(f"{time.strftime('%H:%M:%S')} {', '.join(filter(None, words))}\n")
        sys.stderr.flush()

    yield show
