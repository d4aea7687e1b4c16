"""The page of evidence says what the kept results say, and nothing else."""

import json
import re
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def evidence(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    import benchmarks.evidence

    return benchmarks.evidence


@pytest.fixture
def page_of(evidence):
    import benchmarks.evidence_page

    return benchmarks.evidence_page


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
    learned = {
        "none": {"rows": 0, "read": 0.0, "seconds": 60.0},
        "ours": {"rows": 77, "read": 5120.0, "seconds": 303.0},
    }
    record = {
        "command": "prove", "student": "small#1", "result": result,
        "targets": {"tales": {"sizes": {"passages": 31, "questions": 93}}},
        "config": {"text": "/home/me/pool.parquet", "arms": ["none", "ours"], "seeds": 2},
        "details": {"tales": {"learned": learned, "questions": 93, "curve": []}},
    }  # fmt: skip
    (path / "units" / "a").mkdir(parents=True)
    (path / "units" / "a" / "unit.json").write_text(json.dumps({"all_s": 666.0}))
    (path / "record.json").write_text(json.dumps(record))
    return path


def test_a_kept_result_has_no_path_and_its_numbers_are_the_pages(evidence, page_of, tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "KEPT", tmp_path / "kept")
    evidence.save(run_folder(tmp_path / "tales"))
    (name,) = evidence.kept()
    text = (tmp_path / "kept" / f"{name}.json").read_text()
    assert "/home" not in text
    assert "pool" not in text
    page = evidence.render(evidence.kept())
    assert "| tales | +28.9 | -1.2 to +33.3 | undecided |" in page
    assert (
        "| tales | 13.6 (11.1-16.0) | 42.4 (37.8-48.9) | 93 | 77 | ours forget | 11.1 |" in page
    )  # 1 + 2 · 5.05
    flags = "--arms none,ours --seeds 2 --passages 31 --test-items 93 --out runs/tales"
    assert f"`taskmill prove tales.yaml {flags}`" in page
    papers = " ".join(paper for _, paper in page_of.PAPERS.values())
    told = set(re.findall(r"\d+\.\d", page)) - set(re.findall(r"\d+\.\d", papers + page_of.HEAD))
    machine = next(iter(evidence.kept().values()))["machine"]
    told -= {f"{machine['memory_gb']:g}", *re.findall(r"\d+\.\d", machine["cpu"])}
    assert told == {"28.9", "1.2", "33.3", "13.6", "11.1", "16.0", "42.4", "37.8", "48.9"}


def test_the_first_table_has_a_line_for_each_claim(evidence, tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "KEPT", tmp_path / "kept")
    evidence.save(run_folder(tmp_path / "tales"))
    page = evidence.render(evidence.kept())
    line = "| +22.1 F1 | +28.9 | -1.2 to +33.3 | undecided | tales, [tales](#scores) | 11.1 |"
    assert page.count(line) == 1
    assert page.index(line) < page.index("## ")


def test_the_first_table_points_to_headings_that_are_there(evidence):
    page = evidence.render(evidence.kept())
    headings = re.findall(r"^## (.+)$", page, re.MULTILINE)
    there = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    wanted = set(re.findall(r"\(#([^)]+)\)", page))
    assert wanted
    assert wanted <= there


def test_a_folder_without_a_result_is_refused(evidence, tmp_path):
    (tmp_path / "result.json").write_text('{"command": "synth"}')
    with pytest.raises(SystemExit, match="no result of prove, ltd, ablate --train or train corpus"):
        evidence.save(tmp_path)


def test_the_mean_over_targets_has_its_line(evidence, tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "KEPT", tmp_path / "kept")

    def several(record):
        one = record["result"]
        mean = one | {"effects": {"ours-none": {"delta": 0.2345, "interval": [0.0123, 0.4567]}}}
        record["result"] = mean | {"targets": {"tales": one, "facts": one}}
        for part in ("details", "targets"):
            record[part]["facts"] = record[part]["tales"]

    changed(run_folder(tmp_path / "all") / "record.json", several)
    evidence.save(tmp_path / "all")
    page = evidence.render(evidence.kept())
    assert (
        "| facts | +28.9 | -1.2 to +33.3 | undecided |\n| mean of 2 | +23.4 | +1.2 to +45.7 | more |" in page
    )
    assert (
        "| mean of 2 | 13.6 (11.1-16.0) | 42.4 (37.8-48.9) |  |  | ours forget |  | `taskmill prove all"
        in page
    )


def test_a_target_of_two_results_stands_twice_and_a_command_asks_all_its_questions(
    evidence, tmp_path, monkeypatch
):
    monkeypatch.setattr(evidence, "KEPT", tmp_path / "kept")

    def several(record, gain):
        effects = {"ours-none": {"delta": gain, "interval": [0.1, 0.4]}}
        one = record["result"] | {"effects": effects}
        record["result"] = one | {"targets": {"tales": one, "facts": one}}
        record["details"]["facts"] = record["details"]["tales"]
        record["targets"]["facts"] = {"sizes": {"passages": 20, "questions": 99}}

    for name, gain in (("all", 0.25), ("more", 0.26), ("same", 0.26)):
        changed(run_folder(tmp_path / name) / "record.json", partial(several, gain=gain))
        evidence.save(tmp_path / name)
    page = evidence.render(evidence.kept())
    for called in (
        "tales",
        "tales (of more.yaml)",
        "facts (of more.yaml)",
        "mean of 2",
        "mean of 2 (of more.yaml)",
    ):
        assert page.count(f"| {called} |") == 2  # in the effect's table and in that of the scores
    assert page.count("| tales (of same.yaml) |") == 1  # what the same students show is told once
    assert (
        "taskmill prove more.yaml --arms none,ours --seeds 2 --passages 31 --test-items 99 --out runs/more`"
        in page
    )


def changed(path, change):
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def test_a_size_curve_is_a_table_with_what_is_enough(evidence, tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "KEPT", tmp_path / "kept")
    curve = [{"rows": n, "score": n / 1000, "interval": [0.01, 0.2], "seeds": []} for n in (10, 77)]

    def told(record):
        record["config"] |= {"sizes": ["10"], "gain": 0.02}
        fit = {"why": "", "enough": {"value": 41.6, "low": 20.2, "high": None}}
        record["details"]["tales"] |= {"curve": curve, "fit": fit}

    changed(run_folder(tmp_path / "tales") / "record.json", told)
    evidence.save(tmp_path / "tales")
    page = evidence.render(evidence.kept())
    assert "| 0 | 13.6 | 11.1 to 16.0 |\n| 10 | 1.0 | 1.0 to 20.0 |\n| 77 | 7.7 | 1.0 to 20.0 |" in page
    assert "42 rows come within 2 points of all\n(20 to more than tried)." in page
    assert "--test-items 93 --sizes 10 --out runs/tales`" in page


def matrix_of(record):
    """The record of two targets whose arms are tables."""
    one = {
        "arms": {
            "none": {"score": 0.1, "interval": [0.05, 0.15], "seeds": [0.1]},
            "A": {"score": 0.34, "interval": [0.3, 0.4], "seeds": [0.34]},
            "B": {"score": 0.07, "interval": [0.05, 0.09], "seeds": [0.07]},
        },
        "effects": {
            "A-B": {"delta": 0.27, "interval": [0.2, 0.3]},
            "A-none": {"delta": 0.24, "interval": [0.15, 0.35]},
            "B-none": {"delta": -0.03, "interval": [-0.1, 0.01]},
        },
        "retention": {"passed": True, "failed": []},
    }
    detail = {"learned": {"A": {"rows": 9, "read": 4321.0}}, "questions": 30, "curve": []}
    record["config"] |= {"arms": ["none", "A=/home/me/a.parquet", "B=b.parquet"]}
    record["result"] = one | {"targets": {"tales": one, "facts": one}}
    record["details"] = {"tales": detail, "facts": detail}
    record["targets"] |= {"facts": record["targets"]["tales"]}


def test_datasets_by_capabilities_are_a_matrix(evidence, tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "KEPT", tmp_path / "kept")
    changed(run_folder(tmp_path / "sets") / "record.json", matrix_of)
    evidence.save(tmp_path / "sets")
    assert "/home" not in (tmp_path / "kept" / "sets.json").read_text()
    page = evidence.render(evidence.kept())
    cell = "34.0 (30.0-40.0)"
    assert f"| A | {cell} | {cell} | {cell} |" in page
    assert "| B | -3.0 (-10.0 to +1.0), undecided |" in page
    assert "4,321 tokens a student, 2 seeds, 30, 30 questions" in page
    assert "taskmill prove sets.yaml --out runs/sets" in page
    assert "| sets |" not in page.partition("## Machines")[0]


def test_a_matrix_of_one_target_and_without_none_is_held_against_the_last(evidence, tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "KEPT", tmp_path / "kept")

    def alone(record):
        matrix_of(record)
        del record["result"]["targets"], record["result"]["arms"]["none"], record["details"]["facts"]

    changed(run_folder(tmp_path / "sets") / "record.json", alone)
    evidence.save(tmp_path / "sets")
    page = evidence.render(evidence.kept())
    assert "| arm | tales |\n" in page
    assert "| against B | tales |\n|---|---|\n| A | +27.0 (+20.0 to +30.0), more |" in page


def test_an_ablation_says_what_each_part_is_worth(evidence, tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "KEPT", tmp_path / "kept")
    run_folder(tmp_path / "parts" / "students")
    record = tmp_path / "parts" / "students" / "record.json"
    changed(record, matrix_of)
    record.write_text(
        record.read_text().replace('"A', '"full').replace('-B"', '-no-cot"').replace('"B', '"no-cot')
    )
    drawn = {
        arm: {"rows": 40, "shares": {"few_shot": 0.25, "cot": cot}, "tasks": 7, "sources": {"a": 30, "b": 10}}
        for arm, cot in (("full", 0.5), ("no-cot", 0.0))
    }
    result = {"command": "ablate", "rows": 40, "arms": drawn, "checks": {}, "students": {}}
    (tmp_path / "parts" / "result.json").write_text(json.dumps(result))
    evidence.save(tmp_path / "parts")
    page = evidence.render(evidence.kept())
    assert "| no-cot | 25 % | 0 % | 7 | 75 % |" in page
    assert "| no-cot | -27.0 (-30.0 to -20.0), less |" in page  # the result has full against no-cot
    assert "| none | -24.0 (-35.0 to -15.0), less |" in page
    assert "--arms no-cot --rows 40 --train flan/proof.yaml" in page
    assert "| parts | small#1 |" in page
    assert "| 11.1 |" in page


def test_the_page_is_the_one_that_the_kept_results_give(evidence):
    kept = evidence.kept()
    assert evidence.PAGE.exists() == bool(kept)
    if kept:
        assert evidence.PAGE.read_text("utf-8") == evidence.render(kept)


def test_what_was_kept_is_told_by_arm(evidence, tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "KEPT", tmp_path / "kept")
    ours = {
        "probe": 0.775,
        "perplexity": 40.24,
        "forgotten": -0.15,
        "perplexity_factor": 0.98,
        "within": True,
    }
    kept = {
        "passed": True, "failed": [], "bounds": {"max_forgetting": 0.1, "max_perplexity": 1.5},
        "base": {"probe": 0.625, "perplexity": 41.0}, "arms": {"ours": ours},
    }  # fmt: skip
    changed(run_folder(tmp_path / "tales") / "record.json", lambda r: r["result"].update(retention=kept))
    evidence.save(tmp_path / "tales")
    page = evidence.render(evidence.kept())
    assert "| target | before | ours |\n|---|---|---|\n| tales | 62 %, 41.0 | 78 %, 40.2 |" in page


def test_core_sets_are_told_by_share_with_their_command(page_of):
    def arm(selector, ratio, mark, rows):
        numbers = {"mean": mark, "low": mark - 0.1, "high": mark + 0.1}
        return {"scope": "target", "selector": selector, "ratio": ratio, "rows": rows, **numbers}

    base, full = arm("", 0.0, 0.2, 0), arm("", 100.0, 0.8, 99)
    arms = [arm("k-center", 5.0, 0.55, 11.0), arm("k-center", 100.0, 0.8, 99), arm("random", 5.0, 0.45, 12.0)]
    config = {
        "labels": ["good", "bad"], "ratios": ["5", "100"], "selectors": ["k-center", "random"], "seeds": 2,
        "test_rows": 50, "embedder": "hash", "train": {"epochs": 3, "batch_tokens": 512},
    }  # fmt: skip
    kept = {
        "command": "ltd", "arms": arms, "base": base, "full": full, "items": {"scored": 50}, "config": config,
        "region": {"rows": 99, "tokens": 7654}, "claims": [], "sufficient": {"random": {"ratio": None}},
    }  # fmt: skip
    lines = list(page_of.little_is_enough({"films": kept, "other": {"command": "prove"}}))
    assert "7,654 tokens. A share is of these tokens, and each is read 3 times." in lines
    ends = "20.0 (10.0-30.0)", "80.0 (70.0-90.0)"
    assert f"| k-center | {ends[0]} | 55.0 (45.0-65.0), 11 rows | {ends[1]} |" in lines
    assert f"| random | {ends[0]} | 45.0 (35.0-55.0), 12 rows | {ends[1]} |" in lines
    assert "| enough by random | no tried share below 100 % | | |" in lines
    (command,) = (line for line in lines if line.startswith("taskmill ltd "))
    assert command.endswith(
        "--seeds 2 --test-rows 50 --embedder hash --epochs 3 --batch-tokens 512 --out ltd/"
    )
