"""A run that was killed ends in the same bytes as one that was not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = Path(__file__).with_name("train_driver.py")


def run(base, out, kill=0):
    return subprocess.run(
        [sys.executable, str(DRIVER), str(base), str(out), str(kill)],
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    ended = run(folder, out)
    assert ended.returncode == 0, ended.stderr
    return out


def weights(out):
    return (out / "adapter" / "adapter_model.safetensors").read_bytes()


def losses(out):
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line.get("loss"), line.get("valid_loss"), line.get("lr")) for line in lines]


@pytest.mark.parametrize("kills", [(1,), (2,), (7,), (4, 5, 2)])
def test_killed_at_any_checkpoint_it_goes_on_exactly(folder, whole, tmp_path, kills):
    out = tmp_path / "out"
    for kill in kills:
        assert run(folder, out, kill).returncode == -9
        assert not (out / "adapter").exists()
    ended = run(folder, out)
    assert ended.returncode == 0, ended.stderr
    assert weights(out) == weights(whole)
    assert losses(out) == losses(whole)
    assert not (out / "checkpoints").exists()
