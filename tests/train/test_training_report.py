"""The page of a training run: what the log and the record say, escaped, at any moment of the run."""

from __future__ import annotations

import json

import pytest

from taskmill.errors import InputError
from taskmill.report.training import curve, write_training_report

LOG = [
    {"step": 0, "tokens": 0, "valid_loss": 3.0, "elapsed_s": 1.0},
    {"step": 1, "tokens": 100, "loss": 2.9, "elapsed_s": 2.0},
    {"step": 2, "tokens": 200, "loss": 2.1, "valid_loss": 2.5, "elapsed_s": 3.0},
]


@pytest.fixture
def out(tmp_path):
    (tmp_path / "run.json").write_text(
        json.dumps(
            {"base": {"name": "tiny", "identity": "tiny@abc"}, "config": {"rank": 4}, "data": {"rows": 7}}
        )
    )
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LOG))
    return tmp_path


def test_a_run_at_work_shows_what_it_has(out):
    with (out / "log.jsonl").open("a") as handle:
        handle.write('{"step": 3, "lo')
    page = write_training_report(out).read_text()
    assert "running or stopped" in page
    assert "tiny@abc" in page
    assert "2.500" in page
    assert "from 3.000" in page


def test_a_finished_run_shows_its_record_and_nothing_unescaped(out):
    (out / "adapter").mkdir()
    record = {
        "recipe": {"rank": 4, "base": "<script>alert(1)</script>"},
        "counts": {"rows": 7, "train": 6, "refused": 1, "refusals": [{"row": 3, "why": "<b>empty</b>"}]},
        "steps": 2,
        "tokens": 200,
        "weights": {"adapter_model.safetensors": "f" * 64},
    }
    (out / "adapter" / "taskmill.json").write_text(json.dumps(record))
    page = write_training_report(out).read_text()
    assert "&lt;b&gt;empty" in page
    assert "<script" not in page
    assert "<b>empty" not in page
    assert "f" * 64 in page
    assert "http" not in page.replace("http-equiv", "")
    assert write_training_report(out).read_text() == page


def test_before_the_first_step_there_is_no_curve(out):
    (out / "log.jsonl").unlink()
    assert curve([]) == {}
    assert "<polyline" not in write_training_report(out).read_text()


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(InputError, match="no training folder"):
        write_training_report(tmp_path)


def test_the_curve_stays_in_its_frame_and_long_runs_are_thinned():
    log = [{"step": i, "loss": 5 / i} for i in range(1, 5001)] + [{"step": 5000, "valid_loss": 1.0}]
    found = curve(log)
    for name in ("train", "smooth"):
        points = [tuple(map(float, p.split(","))) for p in found[name].split()]
        assert len(points) <= 400
        assert all(0 <= x <= 100 and 0 <= y <= 100 for x, y in points)
        assert points[-1][0] == 100
    assert found["steps"] == 5000


def test_one_step_and_equal_losses_can_be_drawn():
    assert curve([{"step": 1, "loss": 2.0}])["train"] == "100.0,50.0"
