"""Where nobody looks at a terminal, a long command prints a line a minute, and a short one none."""

import re

import pytest

from taskmill import progress
from taskmill.recipes.session import Progress


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def go_on(seconds):
        now[0] += seconds

    return go_on


def test_a_short_command_prints_no_line(clock, capsys):
    with progress.lines() as show:
        for done in range(50):
            show(Progress("read rows", done, 50))
            clock(1)
    assert capsys.readouterr().err == ""


def test_a_line_a_minute_with_rate_and_time_left(clock, capsys):
    with progress.lines() as show:
        for done in range(200):
            show(Progress("synthesize", done, 200, accepted=done))
            clock(2)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 6  # 400 s
    stamp, _, rest = lines[0].partition(" ")
    assert re.fullmatch(r"\d\d:\d\d:\d\d", stamp)
    assert rest == "synthesize: 30 of 200, 30 kept, 0.5/s, 5 min 40 s left"


def test_a_stage_s_own_words_stand_for_the_rate(clock, capsys):
    with progress.lines() as show:
        clock(61)
        show(Progress("students", 1, 9, note="ours, seed 0, 12 min left"))
        show(Progress("students", 2, 9, note="ours, seed 0, 11 min left"))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(" students: 1 of 9, ours, seed 0, 12 min left")


def test_nothing_is_said_beside_json(capsys, clock):
    from taskmill.cli.base import progress as shown

    with shown(as_json=True) as show:
        clock(100)
        show(Progress("students", 1, 9))
    assert capsys.readouterr().err == ""
