"""Proof: equal tokens, nothing of the test learned, nothing trained twice, no verdict that is not shown."""

import itertools
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from prove_student import Pupil, passage, questions, write

from taskmill import cli
from taskmill.errors import ConfigError, InputError, UsageError
from taskmill.recipes.demo import beside
from taskmill.recipes.prove import of_mapping, prove
from taskmill.recipes.prove.overlap import RUN
from taskmill.recipes.prove.plan import TRIED_PASSAGES
from taskmill.record import Document, Example


@pytest.fixture
def tables(tmp_path):
    return {
        "text": write(tmp_path / "pool.parquet", [{"text": passage(i)} for i in range(50)]),
        "test": write(tmp_path / "test.parquet", questions(30)),
    }


def run(tables, out, student=None, **changed):
    given = {"seeds": 2, "model": {"ref": "echo:"}, **tables, **changed}
    config, targets = of_mapping(given)
    return prove(config, out, targets=targets, student=student or Pupil())


def rows_of(count, first=0, answer="the stone"):
    return [
        {"instruction": f"Say what is near number {i}, in two words.", "input": passage(i), "output": answer}
        for i in range(first, first + count)
    ]


# what comes out


def test_the_result_has_the_promised_shape(tables, tmp_path):
    record = run(tables, tmp_path / "out", arms=["none", "tapt", "ours"])
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert list(result) == ["arms", "effects", "retention", "overlap", "verdict"]
    assert list(result["arms"]) == ["none", "tapt", "ours"]
    assert list(result["effects"]) == ["ours-tapt", "ours-none", "tapt-none"]
    for line in result["arms"].values():
        assert set(line) == {"score", "interval", "seeds"}
        assert line["interval"][0] <= line["score"] <= line["interval"][1]
        assert len(line["seeds"]) == 2
        assert np.mean(line["seeds"]) == pytest.approx(line["score"])
    for name, line in result["effects"].items():
        one, two = name.split("-")
        assert line["delta"] == pytest.approx(result["arms"][one]["score"] - result["arms"][two]["score"])
    assert result["verdict"].startswith("ours helps on test: token F1")
    assert record["exit"] == {"code": 0, "reason": "done"}
    assert record["student"] == "pupil"


class Balanced(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.text = [], ""

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "line", "polyline", "polygon", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("line", "polyline", "polygon"):
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_shows_verdict_effects_curve_overlap_and_what_was_kept(tables, tmp_path):
    sizes = ["5", "10", "20", "900"]
    record = run(tables, tmp_path / "out", arms=["none", "ours"], sizes=sizes, reach=0.3)
    page = Balanced()
    page.feed((tmp_path / "out" / "report.html").read_text())
    assert page.open == []
    for said in (record["result"]["verdict"], "ours-none", "Score by rows", "What no arm", "What was kept"):
        assert said in page.text
    (details,) = record["details"].values()
    assert [point["rows"] for point in details["curve"]] == [
        5,
        10,
        20,
        round(details["learned"]["ours"]["rows"]),
    ]
    assert details["skipped_sizes"] == [900]
    assert "Sizes not tried, for want of rows: 900." in record["result"]["verdict"]
    assert details["curve"][0]["score"] < details["curve"][-1]["score"]
    assert details["fit"]["enough"]["low"] <= 50
    assert "rows come within 0.02 of all of them" in page.text
    a, b, c = (details["fit"][name]["value"] for name in "abc")
    needed = details["fit"]["needed"]
    assert needed["value"] == pytest.approx(max(5, (b / (a - 0.3)) ** (1 / c)), rel=1e-3)
    assert needed["low"] <= needed["value"] <= needed["high"]
    assert f"A score of 0.3 takes {needed['value']:,.0f} rows by the curve" in page.text


def test_a_size_beyond_the_most_rows_of_an_arm_is_no_size(tables, tmp_path):
    record = run(tables, tmp_path / "out", arms=["none", "ours"], sizes=["10", "20", "30"], rows=20)
    (details,) = record["details"].values()
    assert [point["rows"] for point in details["curve"]] == [10, 20]
    assert details["skipped_sizes"] == [30]


def test_the_curve_of_a_labelled_test_knows_the_luck_of_its_questions(tables, tmp_path):
    labelled = [{**q, "label": ("yes", "no")[i % 2]} for i, q in enumerate(questions(30, 3000))]
    test = write(tmp_path / "l.parquet", labelled)
    changed = {"test": test, "task": "ynqa", "arms": ["none", "ours"], "sizes": ["5", "10", "20"], "seeds": 1}
    record = run({**tables, **changed}, tmp_path / "out")
    (details,) = record["details"].values()
    assert any(details["fit"][name]["low"] < details["fit"][name]["high"] for name in "abc")


def test_what_a_source_of_rows_loses_is_on_the_page(tables, tmp_path):
    long = {"instruction": "Say it again.", "input": "", "output": " ".join(["stone"] * 500)}
    given = write(tmp_path / "a.parquet", [*rows_of(20), *rows_of(2), long])
    record = run({"test": tables["test"]}, tmp_path / "out", arms=["none", f"A={given}"])
    assert record["result"]["overlap"]["rows"]["A"] == {"rows": 23, "of_the_test": 0, "left": 20}
    page = Balanced()
    page.feed((tmp_path / "out" / "report.html").read_text())
    assert re.search(r"rows of A\s*23\s*0\s*20\b", page.text)


def test_several_targets_have_their_own_results_and_a_mean(tables, tmp_path):
    labelled = [{**q, "label": ("Yes", "No")[i % 2]} for i, q in enumerate(questions(24, 3000))]
    other = {"name": "labels", "task": "ynqa", "test": write(tmp_path / "l.parquet", labelled)}
    record = run(tables, tmp_path / "out", arms=["none", "ours"], targets=[{"name": "spans"}, other])
    result = record["result"]
    assert list(result) == ["arms", "effects", "retention", "overlap", "verdict", "targets"]
    for arm, line in result["arms"].items():
        own = [one["arms"][arm]["score"] for one in result["targets"].values()]
        assert line["score"] == pytest.approx(np.mean(own), abs=2e-6)
    assert record["targets"]["labels"]["metric"] == "macro-F1"
    assert "on the mean of 2 targets" in result["verdict"]
    assert "By target: spans: helps" in result["verdict"]
    assert "one seed" not in result["verdict"]
    small = run(tables, tmp_path / "one", arms=["none", "ours"], targets=[{"name": "spans"}, other], seeds=1)
    assert "With one seed the intervals know nothing" in small["result"]["verdict"]


def test_targets_without_passages_share_their_students(tables, tmp_path):
    """Datasets by capabilities: each dataset is learned once, and nothing of any test is learned."""
    asked_b = questions(20, 7000)
    told = [{"instruction": q["question"], "input": q["context"], "output": "x"} for q in asked_b[:3]]
    some = write(tmp_path / "some.parquet", [*rows_of(40), *told])
    few = write(tmp_path / "few.parquet", rows_of(30, 200))
    arms = ["none", f"much={some}", f"little-one={few}"]
    both = [{"name": "a"}, {"name": "b", "test": write(tmp_path / "b.parquet", asked_b)}]
    tested = {"test": tables["test"], "arms": arms}
    pupil = Pupil()
    record = run(tested, tmp_path / "both", pupil, targets=both)
    assert len(pupil.calls) == 2 + 1 + 2 * 2  # the speed for each target, the base, two seeds of each table
    assert not any(row.context == q["context"] for rows in pupil.learned for row in rows for q in asked_b)
    assert record["units"] == {"all": 5, "made": 5, "reused": 0}
    result = record["result"]
    own = run(tested, tmp_path / "b", test=both[1]["test"])["result"]
    for arm, line in own["arms"].items():
        assert result["targets"]["b"]["arms"][arm]["seeds"] == line["seeds"]
    for one in result["targets"].values():
        assert one["overlap"]["rows"]["much"] == {"rows": 43, "of_the_test": 3, "left": 40}
    page = Balanced()
    page.feed((tmp_path / "both" / "report.html").read_text())
    assert not page.open
    assert "Arms by targets scores, and what they are beyond those of none" in " ".join(page.text.split())
    again = run(tested, tmp_path / "both", pupil, targets=both)
    assert again["units"] == {"all": 5, "made": 0, "reused": 5}


def test_an_arm_without_a_row_left_says_why(tables, tmp_path):
    given = write(tmp_path / "a.parquet", [{"instruction": q["question"], "input": q["context"],
                                            "output": "x"} for q in questions(30)])  # fmt: skip
    said = r"the arm A has no row left to learn: 30 contaminated \(exact overlap of its passage"
    with pytest.raises(InputError, match=said):
        run({"test": tables["test"]}, tmp_path / "out", arms=["none", f"A={given}"])


def test_questions_that_do_not_fit_the_student_are_counted(tables, tmp_path):
    long = [{**q, "context": " ".join(passage(9000 + n) for n in range(12))} for q in questions(2, 8000)]
    test = write(tmp_path / "long.parquet", [*questions(20), *long])
    given = write(tmp_path / "a.parquet", rows_of(20))
    record = run({"test": test}, tmp_path / "out", arms=["none", f"A={given}"])
    assert record["details"]["long"]["unread"] == 2
    assert (
        "22 questions in 5 wordings, 2 seeds. 2 of them are too long for the" in record["result"]["verdict"]
    )


def test_targets_of_one_name_are_refused_from_python_too(tables, tmp_path):
    config, (target,) = of_mapping(tables)
    with pytest.raises(ConfigError, match="a name of its own"):
        prove(config, tmp_path / "out", targets=[target, target], student=Pupil())


def test_the_table_of_arms_has_a_column_for_each_target_and_says_what_is_worse(tables, tmp_path):
    long = [{"instruction": f"{passage(i)} {passage(i + 50)}", "output": "ok"} for i in range(300, 308)]
    short = [{"instruction": f"say {i}", "output": "ok then"} for i in range(400)]
    both = [{"name": "mean"}, {"name": "b", "test": write(tmp_path / "b.parquet", questions(20, 7000))}]
    arms = [
        f"long={write(tmp_path / 'long.parquet', long)}",
        f"short={write(tmp_path / 'short.parquet', short)}",
    ]
    run({"test": tables["test"], "arms": arms}, tmp_path / "out", targets=both)
    page = (tmp_path / "out" / "report.html").read_text()
    (table,) = re.findall(r"<h2>Arms by targets.*?</table>", page, re.DOTALL)
    assert re.findall(r'<th class="n">(.*?)</th>', table) == ["mean", "b", "mean", "forgotten"]
    assert table.count('<td class="n bad"') == 3
    assert "td.bad {" in page
    assert '<th class="n">of any test</th>' in page


def test_a_table_against_itself_makes_no_difference(tables, tmp_path):
    given = write(tmp_path / "a.parquet", rows_of(40))
    pupil = Pupil()
    record = run({"test": tables["test"]}, tmp_path / "out", pupil, arms=[f"A={given}", f"B={given}"])
    assert record["result"]["effects"]["A-B"] == {"delta": 0.0, "interval": [0.0, 0.0]}
    assert record["result"]["verdict"].startswith("A undecided on test")
    assert "the same in every resample" in record["result"]["verdict"]
    assert "<em>generator</em>" not in (tmp_path / "out" / "report.html").read_text()
    assert len({call[3] for call in pupil.calls}) == 2 + 1 + 1  # a student for each seed, the base, the speed


def test_a_table_of_questions_with_answers_is_an_arm(tables, tmp_path):
    given = write(tmp_path / "squad.parquet", questions(20, 5000))
    pupil = Pupil()
    run({"test": tables["test"]}, tmp_path / "out", pupil, arms=["none", f"A={given}"], seeds=1)
    assert {row.response for row in pupil.learned[-1]} == {q["answers"][0] for q in questions(20, 5000)}


def test_an_arm_that_forgets_closes_the_gate(tables, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("taskmill.recipes.prove._student", lambda config: Pupil(forgets=1.0))
    words = ["prove", "--text", tables["text"], "--test", tables["test"], "--model", "echo:", "--seeds", "1"]
    with pytest.raises(SystemExit) as end:
        cli.main([*words, "--arms", "none,ours", "--out", str(tmp_path / "out")])
    assert end.value.code == 3
    printed = capsys.readouterr().out.strip().splitlines()[-1]
    assert printed.startswith("Too much was forgotten: ours lost 100 of 100 general questions")
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["retention"]["failed"] == ["ours"]
    assert result["retention"]["arms"]["ours"]["perplexity_factor"] > 1.5


def test_a_recipe_file_and_flags_say_the_same(tables, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("taskmill.recipes.prove._student", lambda config: Pupil())
    recipe = tmp_path / "proof.yaml"
    recipe.write_text(json.dumps({**tables, "arms": ["none", "ours"], "seeds": 2, "model": {"ref": "echo:"}}))
    for out, words in (
        ("one", [str(recipe)]),
        ("two", [*itertools.chain(*((f"--{k}", v) for k, v in tables.items())),
                 "--arms", "none,ours", "--seeds", "2", "--model", "echo:"]),
    ):  # fmt: skip
        with pytest.raises(SystemExit) as end:
            cli.main(["prove", *words, "--out", str(tmp_path / out), "--json"])
        assert end.value.code == 0
    one, two = capsys.readouterr().out.strip().splitlines()
    assert json.loads(one) == json.loads(two)


def test_a_flag_that_a_target_of_the_recipe_overrules_is_refused(tables, tmp_path, capsys):
    recipe = tmp_path / "proof.yaml"
    recipe.write_text(json.dumps({"targets": [{"name": "mine", **tables}]}))
    with pytest.raises(SystemExit) as end:
        cli.main(["prove", str(recipe), "--test", "other.parquet", "--out", str(tmp_path / "out")])
    assert end.value.code == 2
    assert "--test: the recipe's target mine has a test of its own" in capsys.readouterr().err


def test_a_dry_run_trains_no_student(tables, tmp_path):
    config, targets = of_mapping({**tables, "model": {"ref": "echo:"}})
    pupil = Pupil()
    plan = prove(config, tmp_path / "out", targets=targets, student=pupil, dry_run=True)
    assert len(pupil.calls) == 1  # the speed
    assert plan["estimate_s"] > 0
    assert not (tmp_path / "out" / "units").exists()


def test_a_dry_run_leaves_the_rows_of_a_finished_run(tables, tmp_path):
    run(tables, tmp_path / "out", arms=["none", "ours"])
    (made,) = (tmp_path / "out").glob("*/synth")
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    config, targets = of_mapping({**tables, "arms": ["none", "ours"], "seeds": 5, "model": {"ref": "echo:"}})
    prove(config, tmp_path / "out", targets=targets, student=Pupil(), dry_run=True)
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == before


# what is learned


def test_every_student_reads_as_many_tokens(tables, tmp_path):
    replay = write(tmp_path / "general.parquet", rows_of(80, 5000))
    table = write(tmp_path / "a.parquet", rows_of(90, 6000))
    arms = ["none", "tapt", "ours", "ours-unfiltered", "ours+replay", "random", f"A={table}"]
    record = run(tables, tmp_path / "out", arms=arms, replay=replay, rows=25)
    units = [json.loads(p.read_text()) for p in (tmp_path / "out" / "units").glob("*/unit.json")]
    for seed in (0, 1):
        read = [u["tokens"] * u["times"] for u in units if u["seed"] == seed and u["rows"]]
        assert len(read) in (5, 6)  # of one content: one student
        assert max(read) == pytest.approx(min(read), rel=1e-5)
    learned = record["details"]["test"]["learned"]
    assert learned["ours"]["rows"] == learned["ours-unfiltered"]["rows"] == 25
    assert learned["ours"]["times"] == 1.0
    assert learned["ours+replay"]["rows"] > 1


def test_the_table_with_the_fewest_tokens_is_the_measure_however_few_its_rows(tables, tmp_path):
    few = write(tmp_path / "few.parquet", rows_of(30))
    short = [{"instruction": f"say {i}", "input": "", "output": "ok then"} for i in range(2000)]
    arms = ["none", f"few={few}", f"many={write(tmp_path / 'many.parquet', short)}"]
    record = run({"test": tables["test"]}, tmp_path / "out", arms=arms)
    learned = record["details"]["test"]["learned"]
    assert (learned["few"]["rows"], learned["few"]["times"]) == (30, 1.0)
    assert learned["many"]["rows"] > 500
    assert learned["many"]["read"] == pytest.approx(learned["few"]["read"], rel=1e-5)


def test_a_table_for_replay_that_no_arm_learns_changes_nothing(tables, tmp_path):
    arms = ["none", f"A={write(tmp_path / 'a.parquet', rows_of(40))}"]
    replay = write(tmp_path / "few.parquet", rows_of(3, 9000))
    one = run({"test": tables["test"]}, tmp_path / "one", arms=arms)
    two = run({"test": tables["test"]}, tmp_path / "two", arms=arms, replay=replay)
    assert one["result"] == two["result"]


def test_replay_has_its_share_of_the_tokens(tables, tmp_path):
    replay = write(tmp_path / "general.parquet", rows_of(80, 5000))
    pupil = Pupil()
    run(tables, tmp_path / "out", pupil, arms=["none", "ours+replay"], replay=replay, replay_share=0.4)
    mixed = [
        rows for rows in pupil.learned if {r.task for r in rows if isinstance(r, Example)} == {"", "exqa"}
    ]
    assert len(mixed) == 2
    for rows in mixed:
        own = sum(pupil.lengths([r for r in rows if not r.task]))
        assert own / sum(pupil.lengths(rows)) == pytest.approx(0.4, abs=0.05)


def test_the_order_of_the_input_changes_nothing(tables, tmp_path):
    pool, test = pq.read_table(tables["text"]).to_pylist(), pq.read_table(tables["test"]).to_pylist()
    mixed = {
        "text": write(tmp_path / "p2.parquet", pool, np.random.default_rng(1).permutation(len(pool))),
        "test": write(tmp_path / "t2.parquet", test, np.random.default_rng(2).permutation(len(test))),
    }
    limits = {"arms": ["none", "tapt", "ours"], "passages": 30, "test_items": 20, "rows": 20}
    one = run(tables, tmp_path / "one", **limits)
    two = run({**mixed, "targets": [{"name": "test"}]}, tmp_path / "two", **limits)
    assert one["result"] == two["result"]
    names = [sorted(p.name for p in (tmp_path / out / "units").iterdir()) for out in ("one", "two")]
    assert names[0] == names[1]


# nothing of the test is learned


def runs_of(text):
    words = "".join(c.lower() if c.isalnum() else " " for c in text).split()
    return {tuple(words[i : i + RUN]) for i in range(len(words) - RUN + 1)} | {tuple(words)}


def test_no_student_sees_a_passage_or_a_question_of_the_test(tables, tmp_path):
    test = questions(30)
    pool = [{"text": passage(i)} for i in range(50)]
    pool += [{"text": test[0]["context"].upper()}]
    pool += [{"text": f"{passage(77)} {' '.join(test[1]['context'].split()[3:20])} {passage(78)}"}]
    long = {
        **test[2],
        "question": "Which of all the things in the harbour is the one that is nearest to two?",
    }
    test[2] = long
    given = rows_of(40)
    given[0]["input"] = test[3]["context"]
    given[1]["instruction"] = long["question"]
    pupil = Pupil()
    record = run(
        {"text": write(tmp_path / "p.parquet", pool), "test": write(tmp_path / "t.parquet", test)},
        tmp_path / "out",
        pupil,
        arms=["none", "tapt", "ours", f"A={write(tmp_path / 'a.parquet', given)}"],
    )
    overlap = record["result"]["overlap"]
    assert overlap["removed"] == {"exact": 1, "n-gram": 1}
    assert overlap["rows"]["A"] == {"rows": 40, "of_the_test": 2, "left": 38}
    held = set().union(*(runs_of(q["context"]) for q in test)) | runs_of(long["question"])
    seen = 0
    for row in itertools.chain(*pupil.learned):
        texts = [row.text] if isinstance(row, Document) else [row.context, row.instruction, row.response]
        for text in texts:
            assert not held & runs_of(text)
            seen += 1
    assert seen > 200
    dropped = pq.read_table(tmp_path / "out" / "dropped.parquet").to_pylist()
    assert sorted((r["arm"], r["reason"]) for r in dropped) == [
        ("A", "contaminated"), ("A", "contaminated"), ("pool", "contaminated"), ("pool", "contaminated"),
    ]  # fmt: skip
    assert all(r["detail"] for r in dropped)


def test_no_student_sees_the_text_that_forgetting_is_measured_on(tables, tmp_path):
    general = write(tmp_path / "general.parquet", [{"text": passage(i)} for i in (3, 60, 2003)])
    given = rows_of(30, 2000)
    given[5] = {"instruction": f"Read this: {passage(60)} What is it about?", "input": "", "output": "stone"}
    pupil = Pupil()
    arms = ["none", "tapt", f"A={write(tmp_path / 'a.parquet', given)}"]
    record = run(tables, tmp_path / "out", pupil, arms=arms, general=general)
    assert record["result"]["overlap"]["removed"] == {"exact": 1, "n-gram": 0}
    assert record["result"]["overlap"]["rows"]["A"] == {"rows": 30, "of_the_test": 2, "left": 28}
    held = set().union(*(runs_of(passage(i)) for i in (3, 60, 2003)))
    for row in itertools.chain(*pupil.learned):
        text = row.text if isinstance(row, Document) else f"{row.instruction} {row.context}"
        assert not held & runs_of(text)


# time


def test_a_budget_makes_fewer_passages_and_a_continued_run_keeps_them(tables, tmp_path):
    slow = {"seconds": 2e-2}
    with pytest.raises(UsageError, match=r"^\d+ s are left .*passages and 30 questions take"):
        run(tables, tmp_path / "few", Pupil(**slow), budget="30s", arms=["none", "ours"])
    one = run(tables, tmp_path / "out", Pupil(**slow), budget="150s", arms=["none", "ours"])
    sizes = one["targets"]["test"]["sizes"]
    assert 20 <= sizes["passages"] < 50
    again = Pupil(seconds=1.0)
    two = run(tables, tmp_path / "out", again, budget="150s", arms=["none", "ours"])
    assert again.calls == []
    assert two["result"] == one["result"]


@pytest.mark.parametrize("own", [(), ("tapt",)])
def test_what_is_foreseen_of_given_tables_is_what_they_take(tables, tmp_path, own):
    """Passages do not say how much is read where rows are given, also not those of tapt."""
    many = write(tmp_path / "many.parquet", rows_of(120, 3000))
    short = [{"instruction": f"say {i}", "input": "", "output": "ok then"} for i in range(3000)]
    arms = ["none", *own, f"A={many}", f"B={write(tmp_path / 'short.parquet', short)}"]
    given = {**tables, "arms": arms, "targets": [{"name": "a"}, {"name": "b", "test_items": 0}]}
    del given["targets"][1]["test_items"]
    given["targets"][1]["test"] = write(tmp_path / "b.parquet", questions(20, 7000))

    def took(out):
        units = [json.loads(path.read_text()) for path in (tmp_path / out / "units").glob("*/unit.json")]
        return sum(unit["all_s"] for unit in units)

    whole = run(given, tmp_path / "whole", Pupil(seconds=1e-3))
    assert whole["estimate_s"] == pytest.approx(took("whole"), rel=0.05)
    limit = round(0.6 * took("whole"))
    cut = run(given, tmp_path / "cut", Pupil(seconds=1e-3), budget=f"{limit}s")
    rows = min(one["sizes"]["passages"] for one in cut["targets"].values())
    assert 20 <= rows < 120
    assert 0.7 * limit < took("cut") <= limit
    for one in cut["details"].values():
        reads = {line["read"] for arm, line in one["learned"].items() if arm != "none"}
        assert max(reads) == pytest.approx(min(reads), rel=1e-4)
    again = Pupil()
    assert run(given, tmp_path / "cut", again, budget=f"{limit}s")["result"] == cut["result"]
    assert again.calls == []


# nothing is trained twice


def test_a_finished_experiment_is_not_trained_again_and_a_larger_one_uses_it(tables, tmp_path):
    pupil, again = Pupil(), Pupil()
    first = run(tables, tmp_path / "out", pupil, arms=["none", "ours"])
    assert len(pupil.calls) == first["units"]["made"] + 1
    second = run(tables, tmp_path / "out", again, arms=["none", "ours"])
    assert again.calls == []
    assert second["result"] == first["result"]
    third = run(tables, tmp_path / "out", again, arms=["none", "tapt", "ours"], seeds=3)
    assert third["units"] == {"all": 7, "made": 4, "reused": 3}


@pytest.mark.parametrize("stop_at", [0, 1, 4])
def test_a_run_that_was_stopped_goes_on_with_the_student_it_was_at(tables, tmp_path, stop_at):
    whole = run(tables, tmp_path / "whole")
    stopped = Pupil(stop_at=stop_at)
    with pytest.raises(KeyboardInterrupt):
        run(tables, tmp_path / "out", stopped)
    assert not (tmp_path / "out" / "result.json").exists()
    rest = Pupil()
    record = run(tables, tmp_path / "out", rest)
    assert record["result"] == whole["result"]
    assert len(stopped.calls) + len(rest.calls) == whole["units"]["all"] + 1


KILLED = """
import json, sys
from prove_student import Pupil, passage, questions, write
from taskmill.recipes.prove import of_mapping, prove
config, targets = of_mapping(json.loads(sys.argv[1]))
prove(config, sys.argv[2], targets=targets, student=Pupil(stop_at=3, kill=True))
"""


def test_a_killed_process_leaves_whole_students_only(tables, tmp_path):
    given = {"seeds": 2, "model": {"ref": "echo:"}, **tables}
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", KILLED, json.dumps(given), str(tmp_path / "out")]
    assert subprocess.run(command, env=environment, capture_output=True, timeout=120).returncode == 9
    assert len(list((tmp_path / "out" / "units").glob("*/unit.json"))) == 2
    rest = Pupil()
    record = run(tables, tmp_path / "out", rest)
    assert record["units"] == {"all": 5, "made": 3, "reused": 2}
    assert record["result"] == run(tables, tmp_path / "whole")["result"]


def test_the_generator_is_not_asked_twice(tables, tmp_path):
    run(tables, tmp_path / "out", arms=["none", "ours"])
    calls = json.loads((tmp_path / "out" / "test" / "synth" / "manifest.json").read_text())["calls"]
    assert calls["made"] + calls["reused"] == 50
    assert calls["reused"] >= TRIED_PASSAGES


def test_a_pool_that_is_the_test_is_refused(tables, tmp_path):
    pool = write(tmp_path / "same.parquet", [{"text": q["context"]} for q in questions(30)])
    with pytest.raises(InputError, match="30 overlap with the test"):
        run({**tables, "text": pool}, tmp_path / "out")
    with pytest.raises(UsageError, match="--text"):
        run({"test": tables["test"]}, tmp_path / "other")
    other = write(tmp_path / "other.parquet", [{"passage": passage(0)}])
    with pytest.raises(InputError, match=r"has no passage \(.*no column 'text'"):
        run({**tables, "text": other}, tmp_path / "third")


# the demonstration


@pytest.mark.parametrize("out", [".", "..", "here", "deep/er"])
def test_what_a_demonstration_reads_stands_beside_its_folder(tmp_path, monkeypatch, out):
    (tmp_path / "one" / "two").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "one" / "two")
    found, folder = beside(Path(out)).resolve(), Path(out).resolve()
    assert found == folder.with_name(f"{folder.name}-input")


def test_the_demonstration_has_questions_of_its_own_and_passages_without_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("taskmill.recipes.prove._student", lambda config: Pupil())
    words = ["prove", "--demo", "--out", str(tmp_path / "out"), "--seeds", "1", "--passages", "40"]
    with pytest.raises(SystemExit) as end:
        cli.main([*words, "--arms", "none,tapt", "--json"])
    assert end.value.code == 0
    result = json.loads(capsys.readouterr().out)
    assert result["overlap"]["left"] > 300
    assert "questions on Python's language reference, written for this package" in result["verdict"]
    lines = (tmp_path / "out-input" / "questions.jsonl").read_text().splitlines()
    asked = [json.loads(line) for line in lines]
    assert len(asked) >= 40
    assert all(question["answers"][0] in question["context"] for question in asked)
    with pytest.raises(SystemExit) as end:
        cli.main([*words, "--test", "mine.parquet"])
    assert end.value.code == 2
