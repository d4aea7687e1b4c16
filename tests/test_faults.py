"""SIGKILL at every write point, then the same command: nothing paid twice, the same bytes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = Path(__file__).with_name("fault_driver.py")


def drive(texts, folder, *words):
    done = subprocess.run(
        [sys.executable, str(DRIVER), str(texts), str(folder), *words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.fixture
def two(texts):
    for path in sorted(texts.iterdir())[2:]:
        path.unlink()
    return texts


def test_killed_at_every_write_point(two, tmp_path):
    results = drive(two, tmp_path)
    points = {r["point"].split()[0] for r in results}
    assert {"ledger", "begin", "cleared", "open", "write", "sync", "rename"} <= points
    assert len(results) > 40
    assert [r for r in results if not r["same"]] == []
    # A call is finished once its record is written. One killed before that write is made again: it is
    # the only call that may be answered twice.
    unfinished = "ledger append"
    again = [r for r in results if r["calls"] - r["keys"] > (r["point"] in (unfinished, "ledger create"))]
    assert again == []


def test_killed_with_a_torn_last_record(two, tmp_path):
    results = drive(two, tmp_path, "torn")
    assert len(results) > 8
    assert [r for r in results if not r["same"]] == []
    assert [r for r in results if r["calls"] - r["keys"] > 2] == []


def test_a_disk_that_is_full_from_any_write_point_on(two, tmp_path):
    results = drive(two, tmp_path, "full")
    assert len(results) > 20
    assert [r for r in results if not r["same"]] == []
    # The answer that could not be written is the only one asked for again.
    assert [r for r in results if r["calls"] - r["keys"] > r["point"].startswith("ledger")] == []
