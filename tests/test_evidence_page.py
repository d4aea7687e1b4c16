"""The page of evidence says what the kept results say, and nothing else."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def evidence(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    import benchmarks.evidence

    return benchmarks.evidence


def run_folder(path):
    """A finished run of prove, in numbers that stand nowhere else."""
    arms = {
        "none": {"score": 0.1357, "interval": [0.1111, 0.1599], "seeds": [0.1357, 0.1357]},
        "ours": {"score": 0.4242, "interval": [0.3777, 0.4888], "seeds": [0.4, 0.4484]},
    }
    result = {
        "arms": arms,
        "effects": {"ours-none": {"delta": 0.2887, "interval": [-0.0123, 0.3333]}},
        "retention": {"passed": False, "failed": ["ours"]},
        "overlap": {},
        "verdict": "…",
    }
    learned = {"none": {"rows": 0}, "ours": {"rows": 77}}
    record = {
        "command": "prove", "student": "small#1", "result": result,
        "targets": {"tales": {"sizes": {"passages": 31, "questions": 93}}},
        "config": {"text": "/home/me/pool.parquet", "arms": ["none", "ours"], "seeds": 2},
        "details": {"tales": {"learned": learned, "questions": 93}},
    }  # fmt: skip
    (path / "units" / "a").mkdir(parents=True)
    (path / "units" / "a" / "unit.json").write_text(json.dumps({"all_s": 666.0}))
    (path / "record.json").write_text(json.dumps(record))
    return path


def test_a_kept_result_has_no_path_and_its_numbers_are_the_pages(evidence, tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "KEPT", tmp_path / "kept")
    evidence.save(run_folder(tmp_path / "tales"))
    (name,) = evidence.kept()
    text = (tmp_path / "kept" / f"{name}.json").read_text()
    assert "/home" not in text
    assert "pool" not in text
    page = evidence.render(evidence.kept())
    assert "| tales | +28.9 | -1.2 to +33.3 | undecided |" in page
    assert "| tales | 13.6 (11.1-16.0) | 42.4 (37.8-48.9) | 93 | 77 | ours forget | 11.1 |" in page
    assert "`taskmill prove tales.yaml --arms none,ours --seeds 2 --passages 31 --test-items 93`" in page
    papers = " ".join(paper for _, paper in evidence.PAPERS.values())
    told = set(re.findall(r"\d+\.\d", page)) - set(re.findall(r"\d+\.\d", papers + evidence.HEAD))
    machine = next(iter(evidence.kept().values()))["machine"]
    told -= {f"{machine['memory_gb']:g}", *re.findall(r"\d+\.\d", machine["cpu"])}
    assert told == {"28.9", "1.2", "33.3", "13.6", "11.1", "16.0", "42.4", "37.8", "48.9"}


def test_a_folder_without_a_result_is_refused(evidence, tmp_path):
    (tmp_path / "result.json").write_text('{"command": "synth"}')
    with pytest.raises(SystemExit, match="no result of prove, ltd or train corpus"):
        evidence.save(tmp_path)


def test_the_page_is_the_one_that_the_kept_results_give(evidence):
    kept = evidence.kept()
    assert evidence.PAGE.exists() == bool(kept)
    if kept:
        assert evidence.PAGE.read_text("utf-8") == evidence.render(kept)
