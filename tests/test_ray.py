"""The same command on a Ray cluster of this machine gives the same bytes."""

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_ray_and_native_give_the_same_bytes(texts, tmp_path):
    pytest.importorskip("ray", reason='needs pip install "taskmill[cluster]"')
    for runner in ("native", "ray"):
        words = ["synth", texts, "--task", "exqa,ynqa", "--model", "echo:", "--runner", runner]
        command = [sys.executable, "-m", "taskmill", *words, "--out", tmp_path / runner]
        shown = subprocess.run([str(w) for w in command], capture_output=True, text=True)
        assert shown.returncode == 0, shown.stderr
    native, ray = (sorted((tmp_path / r).glob("*/kept/*")) for r in ("native", "ray"))
    assert len(native) == 3
    assert [p.read_bytes() for p in native] == [p.read_bytes() for p in ray]
