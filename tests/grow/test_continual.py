"""Learning in stages: the published transfers, equal budgets, shared beginnings, resumption, the page."""

import json
import os
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taskmill.errors import ConfigError, InputError, UsageError
from taskmill.grow.continual import average, backward, forgetting, forward, previous
from taskmill.grow.replay import STRATEGIES
from taskmill.ids import draw
from taskmill.recipes.continual import ContinualConfig, continual
from taskmill.recipes.continual.evidence import judged
from taskmill.recipes.continual.rows import read
from taskmill.recipes.continual.units import laid_out
from taskmill.train import TrainConfig
from taskmill.train.student import Outcome

# Dynosaur's table (arXiv 2305.14327, project site): ROUGE-L; all share stage 1: Test 35.86, Holdout 46.31.
# Method: S2 Test, Holdout, Previous; S3 Test, Holdout, Previous (stage 2, stage 1); BWT of stages 2, 1, mean.
PUBLISHED = {
    "No Replay": (36.29, 49.87, 43.72, 37.19, 52.41, 45.99, 43.87, -3.88, -2.44, -3.16),
    "Data Diverse": (37.36, 49.69, 45.01, 37.61, 53.04, 49.21, 44.55, -0.48, -1.76, -1.12),
    "Instr. Diverse": (37.90, 49.00, 45.75, 38.21, 52.91, 48.94, 44.93, -0.06, -1.38, -0.72),
    "Instr. Similar": (36.79, 48.86, 45.20, 37.28, 52.43, 46.87, 43.65, -1.99, -2.66, -2.33),
    "Instr. Support": (38.09, 49.24, 45.47, 38.34, 53.15, 47.44, 44.55, -1.80, -1.76, -1.78),
}


def matrix(row):
    hold = np.full((3, 3), np.nan)
    hold[0, 0], hold[1, 1], hold[1, 0] = 46.31, row[1], row[2]
    hold[2, 2], hold[2, 1], hold[2, 0] = row[4], row[5], row[6]
    return hold, np.array([35.86, row[0], row[3]])


@pytest.mark.parametrize("method", PUBLISHED)
def test_the_published_backward_transfers_come_out(method):
    row = PUBLISHED[method]
    hold, test = matrix(row)
    of_stages = backward(hold, 2)
    assert of_stages.tolist() == pytest.approx([row[8], row[7]], abs=0.005)
    assert of_stages.mean() == pytest.approx(row[9], abs=0.0051)  # printed from rounded parts
    assert forward(test, 2) == pytest.approx(row[3] - 35.86)
    assert previous(hold, 2) == pytest.approx((row[5] + row[6]) / 2)
    assert average(hold, 2) == pytest.approx((row[4] + row[5] + row[6]) / 3)
    lost = forgetting(hold, 2)
    assert lost.tolist() == pytest.approx([max(46.31, row[2]) - row[6], row[1] - row[5]])


def test_forgetting_is_held_against_the_best_stage_before():
    hold = np.array([[0.5, np.nan, np.nan], [0.7, 0.4, np.nan], [0.6, 0.5, 0.9]])
    assert forgetting(hold, 2).tolist() == pytest.approx([0.1, -0.1])
    assert backward(hold, 2).tolist() == pytest.approx([0.1, 0.1])
    stacked = np.stack([hold, hold])  # leading axes stay
    assert forgetting(stacked, 2).shape == (2, 2)


class Stub:
    """Says the answer of a task it has learned, less surely the longer ago it was."""

    name = "stub"

    def __init__(self, stop_at=-1, kill=False):
        self.calls, self.stop_at, self.kill = [], stop_at, kill

    def lengths(self, examples):
        return [len(f"{e.instruction} {e.context} {e.response}".split()) for e in examples]

    def learn(self, rows, items, seed, times, folder, on_step=None, begin=None, texts=()):
        if len(self.calls) == self.stop_at:
            if self.kill:
                os._exit(9)
            raise KeyboardInterrupt
        known = json.loads((begin / "adapter" / "taskmill.json").read_text()) if begin else {}
        known = {word: strength * 0.6 for word, strength in known.items()}
        for e in rows:
            known[e.response] = 1.0
        self.calls.append((sorted(e.id for e in rows), seed, times, bool(begin)))
        (folder / "adapter").mkdir(parents=True, exist_ok=True)
        (folder / "adapter" / "taskmill.json").write_text(json.dumps(known))
        answers = []
        for item in items:
            luck = draw(seed, item.example.id, "luck") / 2**63
            strength = known.get(item.example.response, 0.0)
            answers.append(item.example.response if luck < strength else "nothing")
        cost = 0.001 * sum(self.lengths(rows)) * times
        return Outcome(answers, [0.0] * len(answers), cost, 0.01, cost + 0.02, {"steps": 1})


def stage(path, names, rows=6, ids="r"):
    words = ["sort", "name", "count", "translate", "praise", "shorten", "rhyme", "date", "price", "colour"]
    made = [
        {
            "id": f"{ids}-{task}-{i}",
            "task": task,
            "instruction": f"Please {words[int(task[1:]) % 10]} {task}, then {words[int(task[1:]) // 2]}.",
            "input": f"case {i} of {task} " + "word " * (i % 4),
            "output": f"answer{task}",
        }
        for task in names
        for i in range(rows)
    ]
    pq.write_table(pa.Table.from_pylist(made), path)
    return str(path)


@pytest.fixture
def config(tmp_path):
    stages = [stage(tmp_path / f"{i}.parquet", [f"t{3 * i + k}" for k in range(3)]) for i in range(3)]
    test = stage(tmp_path / "test.parquet", ["t14", "t15"])
    return ContinualConfig(
        stages=tuple(stages), test=(test,), holdout=6, test_rows=4, seeds=3, replay_tasks=2, embedder="hash"
    )


def with_(config, **changed):
    return replace(config, **changed)


def test_all_strategies_read_equally_many_tokens(config):
    data = read(config, Stub().lengths)
    tree = laid_out(config, data, Stub())
    for s in range(3):
        read_ = {
            round(sum(data.tokens[i] for i in tree.units[path[s]].rows) * tree.units[path[s]].times, 6)
            for paths in tree.paths.values()
            for path in paths
        }
        assert len(read_) == 1
    for paths in tree.paths.values():
        for path in paths:
            for s, key in enumerate(path):
                unit = tree.units[key]
                own, held = set(data.train[s]), {i for part in data.held for i in part} | set(data.test)
                again = set(unit.rows) - own
                assert own <= set(unit.rows)
                assert not set(unit.rows) & held
                assert again <= {i for part in data.train[:s] for i in part}
                limit = config.replay.limit(sum(data.tokens[i] for i in own)) if s else 0
                assert sum(data.tokens[i] for i in again) <= limit
                assert len({data.rows[i].task for i in again}) <= 2
                assert len(unit.replay) == len({data.rows[i].task for i in again})


def test_the_first_stage_is_shared_and_nothing_is_trained_twice(config, tmp_path):
    student = Stub()
    record = continual(config, tmp_path / "out", student=student)
    keys = [json.loads(p.read_text())["key"] for p in (tmp_path / "out" / "units").glob("*/unit.json")]
    assert len(student.calls) == len(keys) + 1  # and one that measures the speed
    assert record["units"]["all"] == len(keys) == record["units"]["made"]
    firsts = [call for call in student.calls[1:] if not call[3] and call[0]]
    assert len(firsts) == 3  # a seed each
    again = Stub()
    second = continual(config, tmp_path / "out", student=again)
    assert again.calls == []
    for key in ("strategies", "verdict", "contrasts", "paper"):
        assert second[key] == record[key]


def test_killed_anywhere_it_ends_the_same(config, tmp_path):
    config = with_(config, strategies=("none", "random", "instruction-diverse"), seeds=1)
    whole = Stub()
    expected = continual(config, tmp_path / "whole", student=whole)
    for stop in range(1, len(whole.calls), 2):
        out = tmp_path / f"stopped-{stop}"
        with pytest.raises(KeyboardInterrupt):
            continual(config, out, student=Stub(stop_at=stop))
        assert not (out / "result.json").exists()
        rest = Stub()
        found = continual(config, out, student=rest)
        assert stop + len(rest.calls) == len(whole.calls)
        assert {k: found[k] for k in ("strategies", "verdict")} == {
            k: expected[k] for k in ("strategies", "verdict")
        }


def test_more_strategies_go_on_from_what_is_there(config, tmp_path):
    few, many = (
        with_(config, strategies=("none", "random")),
        with_(config, strategies=("none", "random", "inscl")),
    )
    continual(few, tmp_path / "out", student=Stub())
    student = Stub()
    record = continual(many, tmp_path / "out", student=student)
    assert len(student.calls) == record["units"]["made"] <= 6
    assert all(begun for *_, begun in student.calls)
    # An adapter that somebody removed is trained again, its units are not scored otherwise.
    fresh = continual(many, tmp_path / "other", student=Stub())
    assert record["strategies"] == fresh["strategies"]


def test_a_missing_adapter_is_trained_again(config, tmp_path):
    few = with_(config, strategies=("none",), seeds=1)
    continual(few, tmp_path / "out", student=Stub())
    for marker in (tmp_path / "out" / "units").glob("*/training/adapter/taskmill.json"):
        marker.unlink()
    student = Stub()
    record = continual(
        with_(config, strategies=("none", "random"), seeds=1), tmp_path / "out", student=student
    )
    assert len(student.calls) == 3  # stage 1 again, and stages 2 and 3 of the new strategy
    whole = continual(with_(config, strategies=("none", "random"), seeds=1), tmp_path / "new", student=Stub())
    assert record["strategies"] == whole["strategies"]


def test_what_is_found_and_shown(config, tmp_path):
    record = continual(config, tmp_path / "out", student=Stub())
    assert set(record["strategies"]) == set(STRATEGIES)
    none, diverse = record["strategies"]["none"], record["strategies"]["instruction-diverse"]
    assert none["bwt"]["mean"] < diverse["bwt"]["mean"]  # the stub forgets what it does not hear again
    assert none["forgetting"]["mean"] > 0
    for own in record["strategies"].values():
        for key in ("bwt", "fwt", "forgetting", "average", "test"):
            assert own[key]["low"] <= own[key]["mean"] <= own[key]["high"]
            assert len(own[key]["of_seeds"]) == 3
        of_stages = [one["mean"] for one in own["bwt_of_stages"]]
        assert np.mean(of_stages) == pytest.approx(own["bwt"]["mean"], abs=1e-6)
        hold = [[stage.get(str(j), {"mean": np.nan})["mean"] for j in range(3)] for stage in own["matrix"]]
        assert backward(np.array(hold), 2).tolist() == pytest.approx(of_stages, abs=2e-6)
    assert record["paper"]["bwt"]["pairs"] == 10
    assert any("forgets least" in line for line in record["verdict"])
    page = (tmp_path / "out" / "report.html").read_text()
    for word in ("instruction-support", "mean BWT", "Verdict", f"{100 * none['bwt']['mean']:.2f}"):
        assert word in page
    replays = json.loads((tmp_path / "out" / "replay.json").read_text())
    assert replays["none"]["0"][1]["tasks"] == []
    assert len(replays["random"]["1"][2]["tasks"]) == 2


def test_the_plan_says_how_long_it_takes(config, tmp_path):
    student = Stub()
    plan = continual(config, tmp_path / "out", student=student, dry_run=True)
    assert len(student.calls) == 1
    assert plan["estimate_s"] > 0
    assert not (tmp_path / "out" / "units").exists()


def test_results_do_not_depend_on_the_order_of_rows(config, tmp_path):
    expected = continual(with_(config, seeds=1), tmp_path / "a", student=Stub())
    for source in (*config.stages, *config.test):
        table = pq.read_table(source)
        pq.write_table(table.take(np.random.default_rng(3).permutation(len(table))), source)
    found = continual(with_(config, seeds=1), tmp_path / "b", student=Stub())
    assert found["strategies"] == expected["strategies"]


def test_a_later_stage_has_only_what_is_new(config, tmp_path):
    both = pa.concat_tables([pq.read_table(s) for s in config.stages[:2]])
    pq.write_table(both, tmp_path / "both.parquet")
    data = read(with_(config, stages=(config.stages[0], str(tmp_path / "both.parquet"))), Stub().lengths)
    assert data.counts["repeated"] == 18
    assert data.counts["tasks"] == [3, 3]


def test_rows_without_ids_are_other_rows_in_each_table(config):
    expected = read(config, Stub().lengths)
    for source in config.stages:
        pq.write_table(pq.read_table(source).drop_columns("id"), source)
    data = read(config, Stub().lengths)
    assert data.counts["repeated"] == 0
    for name in ("train", "held", "tasks"):
        assert data.counts[name] == expected.counts[name]
    contents = {data.digest(i) for part in (*data.train, *data.held) for i in part}
    assert contents == {expected.digest(i) for part in (*expected.train, *expected.held) for i in part}


def test_bad_input_is_refused_with_a_way_out(config, tmp_path):
    with pytest.raises(UsageError, match="two of them"):
        with_(config, stages=config.stages[:1])
    with pytest.raises(ConfigError, match="known: none, random"):
        with_(config, strategies=("nonne",))
    with pytest.raises(ConfigError, match="2000tok"):
        _ = with_(config, budget="much")
    with pytest.raises(ConfigError, match="lora or qlora"):
        with_(config, train=TrainConfig(method="full"))
    with pytest.raises(InputError, match="a stage too"):
        continual(with_(config, test=(config.stages[0],)), tmp_path / "o1", student=Stub())
    single = stage(tmp_path / "single.parquet", ["t1", "t2"], rows=1)
    with pytest.raises(InputError, match="none can be held out"):
        continual(with_(config, stages=(single, config.stages[1])), tmp_path / "o2", student=Stub())
    with pytest.raises(InputError, match="is new"):
        continual(with_(config, stages=(config.stages[0], config.stages[0])), tmp_path / "o3", student=Stub())


def test_a_lead_is_called_proved_only_where_its_interval_says_so():
    rng = np.random.default_rng(0)

    def marks(drop):
        after = [{"test": rng.random((3, 40)), "0": np.ones((3, 40))}]
        kept = (rng.random((3, 40)) >= drop).astype(float)
        return [*after, {"test": rng.random((3, 40)), "0": kept, "1": np.ones((3, 40))}]

    found = judged({"none": marks(0.9), "random": marks(0.1), "inscl": marks(0.12)}, None, 0.95, 0)
    pairs = {(c["one"], c["two"]): c for c in found["contrasts"]["bwt"]}
    assert pairs["none", "random"]["high"] < 0
    assert pairs["random", "inscl"]["low"] < 0 < pairs["random", "inscl"]["high"]
    assert "random and inscl forget less than no replay" in found["verdict"][-1]
