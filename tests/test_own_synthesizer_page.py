"""What is said of a synthesizer of one's own is what the kept results say; its tables hold right pairs."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    import benchmarks.own_synthesizer

    return benchmarks.own_synthesizer


def interval(mean, low, high, **more):
    return {"mean": mean, "low": low, "high": high, "n": 7, **more}


def examined(zero, few=None):
    """An examination whose numbers stand nowhere else."""
    ways = {"zero": interval(zero, zero - 0.01, zero + 0.01)}
    if few:
        ways["few"] = interval(few, few - 0.01, few + 0.01)
    lines = [
        {"dataset": name, "split": split, "zero": interval(zero, 0, 1)}
        for name, split in (("tales", "seen"), ("mail", "unseen"))
    ]
    answers = {"seen": {}, "unseen": {"alone": interval(0.7171, 0.6161, 0.8181)}}
    return {
        "command": "examine", "exit": {"code": 0}, "config": {"sources": ["/home/me/seen.parquet"]},
        "pair_f1": {"seen": ways, "unseen": ways}, "pair_f1_by_dataset": lines, "answers": answers,
        "helpfulness": {}, "malformed": 19, "over_context": 0, "datasets": {},
    }  # fmt: skip


def run_folder(path, own=0.5353):
    """Finished runs: what was cast, trained and examined."""
    (path / "cast").mkdir(parents=True)
    (path / "model" / "adapter").mkdir(parents=True)
    cast = {
        "config": {"sources": ["/home/me/tune.parquet"]}, "datasets": {"tales": {"texts": 61, "pairs": 173}},
        "formats": {"free": 61}, "pairs": {"kept": 173}, "sequences": 29, "tokens": 28000, "fill": 0.94,
    }  # fmt: skip
    trained = {
        "steps": 44, "tokens": 45678, "elapsed_s": 1980, "counts": {},
        "loss": {"valid_first": 1.616, "valid_last": 1.121},
    }  # fmt: skip
    (path / "cast" / "manifest.json").write_text(json.dumps(cast))
    (path / "model" / "adapter" / "taskmill.json").write_text(json.dumps(trained))
    for name, one in (
        ("bonito", examined(0.3131)),
        ("bonito-exqa", examined(0.3636)),
        ("own", examined(own, own + 0.0606)),
    ):
        folder = path / "examined" / name
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(one))
        rows = [
            {"dataset": d, "split": s, "text": f"{d} {i}", "way": w, "f1": m["mean"]}
            for d, s in (("tales", "seen"), ("mail", "unseen"))
            for i in range(12)
            for w, m in one["pair_f1"][s].items()
        ]
        pq.write_table(pa.Table.from_pylist(rows), folder / "pairs.parquet")
    return path


def test_the_tables_say_what_the_runs_found(bench, tmp_path):
    kept = bench.keep(run_folder(tmp_path / "runs"))
    assert "/home" not in json.dumps(kept)
    page = bench.render(kept)
    assert "| own, asked once | alone | 53.5 (52.5-54.5) | 53.5 (52.5-54.5) | 19 |" in page
    assert f"| {bench.EXAMINED['bonito']} | alone | 12, unseen | +22.2 (+22.2 to +22.2) | 12 | 0 |" in page
    assert "| tales | seen | 7 | 31.3 | 36.4 | 53.5 |" in page
    assert "44 steps over 45,678 tokens took 33 minutes" in page
    assert "better, on seen and on unseen" in page
    assert "59.6" in page


def test_it_is_not_called_better_where_one_way_of_asking_is_as_good(bench, tmp_path):
    kept = bench.keep(run_folder(tmp_path / "runs", own=0.3535))
    assert kept["own_less"]["bonito"]["seen"]["zero"]["low"] > 0
    assert kept["own_less"]["bonito-exqa"]["seen"]["zero"]["high"] < 0
    assert "does not carry it" in bench.render(kept)


def test_runs_that_are_not_done_are_refused(bench, tmp_path):
    folder = run_folder(tmp_path / "runs")
    (folder / "examined" / "own" / "result.json").unlink()
    with pytest.raises(SystemExit, match="is not done: own"):
        bench.keep(folder)


def test_texts_keep_their_pairs_and_are_tuned_on_or_held_out(bench):
    rows = [(f"Text {i}.", f"What is {k}?", f"{k}") for i in range(40) for k in range(3)]
    texts = bench.grouped([*rows, ("Alone.", "Who?", "he"), ("", "Who?", "he")], "tales", "MIT", 2)
    assert [len(row["QA_list"]) for row in texts] == [3] * 40
    tuned, held = bench.apart(texts)
    assert 0 < len(held) < len(tuned)
    assert not {row["context"] for row in tuned} & {row["context"] for row in held}
    assert len(tuned) + len(held) == 40


def test_the_page_is_the_one_that_the_kept_results_give(bench):
    kept = bench.RESULTS / f"{bench.NAME}.json"
    (shown,) = re.findall(
        rf"<!-- measured: {bench.NAME} -->\n(.*?)<!-- end of measured -->",
        bench.PAGE.read_text("utf-8"),
        re.DOTALL,
    )
    assert shown.strip() == (bench.render(json.loads(kept.read_text("utf-8"))) if kept.exists() else "")
