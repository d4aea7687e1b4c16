"""SIGKILL at write points of a corpus run, then the same command: nothing paid twice, the same bytes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = Path(__file__).with_name("corpus_driver.py")
SENTENCES = (
    "The {} of number {} was found in the old {} by the river. Nobody could say who had lost it before {}."
)


def drive(tmp_path, step):
    rows = [
        {"text": SENTENCES.format(w, i, w[::-1], i + 1900)}
        for i, w in enumerate(["lantern", "basket", "letter", "mirror"])
    ]
    source = tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, str(DRIVER), str(source), str(tmp_path), str(step)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [r for r in results if not r["same"]] == []
    unfinished = ("ledger append", "ledger create")
    assert [r for r in results if r["calls"] - r["keys"] > (r["point"] in unfinished)] == []
    return results


def test_killed_at_some_write_points(tmp_path):
    assert len(drive(tmp_path, 29)) > 3


@pytest.mark.slow
def test_killed_at_every_write_point(tmp_path):
    results = drive(tmp_path, 1)
    assert len(results) > 90
    assert {"ledger", "begin", "cleared", "open", "write", "sync", "rename"} <= {
        r["point"].split()[0] for r in results
    }
