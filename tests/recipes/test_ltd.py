"""LTD: what is trained on, that nothing is trained twice, and that the statistics say what they may."""

import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stub_student import Stub

from taskmill import cli
from taskmill.budget import seconds_of
from taskmill.config import build, options
from taskmill.errors import ConfigError, InputError, UsageError
from taskmill.evaluate import crossed
from taskmill.evaluate.crossed import contrast, interval
from taskmill.recipes import ltd as recipe
from taskmill.recipes.ltd import LtdConfig, ltd
from taskmill.recipes.ltd.evidence import Arm, claims, smallest
from taskmill.recipes.ltd.grid import laid_out, thinned
from taskmill.recipes.ltd.rows import read, region
from taskmill.report.ltd import curves

WIDTH = 8


def rows(count, task, rng, first=0, templates=4):
    """Rows of one task: vectors around a place of its own, prompts of 5 to 20 words."""
    middle = np.zeros(WIDTH)
    middle[task] = 1.0
    made = []
    for i in range(first, first + count):
        words = " ".join(f"w{j}" for j in range(int(rng.integers(3, 18))))
        made.append(
            {
                "id": f"t{task}-{i:03}",
                "prompt": f"question {task} {i} {words}",
                "completion": "yes" if i % 3 else "no",
                "task": f"task {task}",
                "template": f"wording {i % templates}",
                "item": f"{task}:{i}",
                "vector": (middle + 0.15 * rng.normal(size=WIDTH)).tolist(),
            }
        )
    return made


def write(path, made, order=None):
    table = pa.Table.from_pylist(made if order is None else [made[i] for i in order])
    pq.write_table(table, path)
    return path


@pytest.fixture
def tables(tmp_path):
    rng = np.random.default_rng(1)
    pool = [r for task in range(3) for r in rows(60, task, rng)]
    target = rows(60, 0, rng, first=500)
    return write(tmp_path / "pool.parquet", pool), write(tmp_path / "target.parquet", target)


def settings(tables, **changed):
    pool, target = tables
    given = {
        "source": str(pool),
        "target": [str(target)],
        "embeddings": "vector",
        "probes": 20,
        "clusters": 3,
    }
    return build(LtdConfig, {**given, "ratios": [5, 10, 50, 100], "seeds": 2, **changed})


def grid_of(config, learner=None):
    learner = learner or Stub()
    data = read(config, learner.lengths)
    found = region(data, config)
    speed = recipe.Speed(0.0, 0.0, 0.001)
    grid = laid_out(config, data, found, learner)
    return (data, found, *thinned(grid, config, data, found, learner, speed))


# what is trained on


@pytest.mark.parametrize("rule", ["clusters", "radius", "task=task 0"])
def test_the_region_is_the_target_tasks_rows(tables, rule):
    config = settings(tables, region=rule, share=1.0 if rule == "radius" else 0.9)
    data = read(config, Stub().lengths)
    found = region(data, config)
    own = np.array([task == "task 0" for task in data.tasks])
    if rule == "radius":  # a ball around few rows; none of another task, most of this one
        assert not (found.rows & ~own).any()
        assert (found.rows & own).sum() > 40
    else:
        assert np.array_equal(found.rows, own)
        assert found.evidence["tasks"] == [{"task": "task 0", "rows": 60, "of": 60}]


def test_subsets_are_nested_and_every_arm_has_as_many_tokens(tables):
    config = settings(tables, scopes=["target", "all"], templates=["1", "all"])
    data, found, _, grid = grid_of(config)
    full = int(data.pool.tokens[found.rows].sum())
    looked_at = 0
    for arm in {arm for arm, _ in grid.cells}:
        ratios = sorted(r for a, r in grid.cells if a == arm)
        for seed in range(config.seeds):
            units = [grid.units[grid.cells[arm, r][seed]] for r in ratios]
            for small, large in itertools.pairwise(units):
                assert set(small.rows) <= set(large.rows)
            for ratio, unit in zip(ratios, units, strict=True):
                limit = int(full * ratio / 100)
                assert unit.tokens == data.pool.tokens[list(unit.rows)].sum()
                assert limit - data.pool.tokens.max() < unit.tokens <= limit
                looked_at += 1
    assert looked_at > 40
    skipped = {(s["scope"], s["templates"], s["selector"], s["ratio"]): s["why"] for s in grid.skipped}
    assert "tokens of" in skipped["target", "1", "random", 100]  # one wording has a quarter of them
    assert not any(templates == "all" for _, templates, _, _ in skipped)
    *_, tiny = grid_of(settings(tables, ratios=[0.1]))
    assert not tiny.cells
    assert {s["why"] for s in tiny.skipped} == {"its first row is longer than 0 tokens"}


def test_the_core_set_is_the_beginning_of_k_centers_order(tables, tmp_path):
    record = ltd(settings(tables), tmp_path / "out", student=Stub())
    table = pq.read_table(tmp_path / "out" / "order.parquet").to_pylist()
    ranked = sorted((r for r in table if r["rank"] is not None), key=lambda r: r["rank"])
    assert [r["rank"] for r in ranked] == list(range(60))
    assert all(r["in_region"] == (r["rank"] is not None) for r in table)
    units = [json.loads(p.read_text()) for p in (tmp_path / "out" / "units").glob("*/unit.json")]
    half = next(a for a in record["arms"] if a["selector"] == "k-center" and a["ratio"] == 50)
    assert half["rows"] in {u["rows"] for u in units}
    learner = Stub()
    ltd(settings(tables), tmp_path / "again", student=learner)
    chosen = {frozenset(ids) for ids in learner.learned}
    assert frozenset(r["id"] for r in ranked[: int(half["rows"])]) in chosen


def test_all_of_the_region_is_one_unit_for_all_selectors(tables):
    config = settings(tables)
    _, _, _, grid = grid_of(config)
    for selector in config.selectors:
        assert grid.cells[Arm("target", "all", selector), 100] == grid.full
    assert len(set(grid.full)) == config.seeds
    assert grid.units[grid.base].rows == ()
    one, two = (grid.units[key].rows for key in grid.cells[Arm("target", "all", "k-center"), 10])
    assert one == two  # the seed is training's alone
    one, two = (grid.units[key].rows for key in grid.cells[Arm("target", "all", "random"), 10])
    assert one != two


def test_smaller_sets_can_be_read_as_much_as_the_whole(tables):
    _, _, _, grid = grid_of(settings(tables, match="tokens"))
    whole = grid.units[grid.full[0]].tokens
    for unit in grid.units.values():
        assert not unit.rows or unit.tokens * unit.times == pytest.approx(whole)
    _, _, _, plain = grid_of(settings(tables))
    assert {unit.times for unit in plain.units.values()} == {1.0}


def test_one_wording_of_each_task_is_drawn_anew_for_each_seed(tables):
    config = settings(tables, templates=["1"], scopes=["all"], seeds=6, ratios=[10])
    data, _, _, grid = grid_of(config)
    drawn = set()
    for key in grid.cells[Arm("all", "1", "random"), 10]:
        pairs = {(data.tasks[r], data.templates[r]) for r in grid.units[key].rows}
        assert len(pairs) == len({task for task, _ in pairs})
        drawn.add(frozenset(pairs))
    assert len(drawn) > 1


def test_the_order_of_the_input_changes_nothing(tables, tmp_path):
    pool, target = tables
    made, aims = pq.read_table(pool).to_pylist(), pq.read_table(target).to_pylist()
    rng = np.random.default_rng(3)
    again = (
        write(tmp_path / "p.parquet", made, rng.permutation(len(made))),
        write(tmp_path / "t.parquet", aims, rng.permutation(len(aims))),
    )
    *_, one = grid_of(settings(tables, scopes=["target", "all"], templates=["1", "all"]))
    *_, two = grid_of(settings(again, scopes=["target", "all"], templates=["1", "all"]))
    assert one.cells == two.cells
    assert one.skipped == two.skipped


# what no student may see


def test_scored_rows_are_kept_out_of_the_pool_with_the_evidence(tables, tmp_path):
    pool, target = tables
    made, aims = pq.read_table(pool).to_pylist(), pq.read_table(target).to_pylist()
    data = read(settings(tables), Stub().lengths)
    scored = {item.example.id for item in data.items}
    assert len(scored) == 40
    asked = {a["id"]: a for a in aims}
    some = sorted(scored)[:3]
    made[0]["prompt"] = asked[some[0]]["prompt"].upper().replace(" ", "  ")
    made[1]["item"] = asked[some[1]]["item"]
    made[2]["id"] = some[2]
    made[3]["prompt"] = "word " * 500
    probe = next(a for a in aims if a["id"] not in scored)
    made[4]["prompt"] = probe["prompt"]  # is not scored, so it may stay
    config = settings((write(pool, made), target), item_column="item", ratios=[50])
    ltd(config, tmp_path / "out", student=Stub())
    dropped = {r["id"]: r for r in pq.read_table(tmp_path / "out" / "dropped.parquet").to_pylist()}
    assert {k: v["reason"] for k, v in dropped.items()} == {
        "t0-000": "contaminated",
        "t0-001": "contaminated",
        some[2]: "contaminated",
        "t0-003": "too_long",
    }
    for key, row in zip(("t0-000", "t0-001", some[2]), some, strict=True):
        assert row in dropped[key]["detail"]
    kept = set(pq.read_table(tmp_path / "out" / "order.parquet")["id"].to_pylist())
    assert kept | set(dropped) == {r["id"] for r in made}
    assert not kept & set(dropped)


def test_other_wordings_of_a_locating_row_are_not_scored(tables):
    pool, target = tables
    aims = pq.read_table(target).to_pylist()
    for i, row in enumerate(aims):
        row["item"] = f"about {i // 3}"
    config = settings((pool, write(target, aims)), item_column="item", probes=10)
    scored = [item.example.id for item in read(config, Stub().lengths).items]
    about = {row["id"]: row["item"] for row in aims}
    assert set(Counter(about[i] for i in scored).values()) == {3}  # all wordings or none
    assert 30 <= len(scored) <= 48  # the ten are of four to ten items


def test_answers_of_scored_rows_change_no_choice(tables):
    pool, target = tables
    config = settings(tables)
    data, _, _, grid = grid_of(config)
    scored = {item.example.id for item in data.items}
    aims = pq.read_table(target).to_pylist()
    for row in aims:
        if row["id"] in scored:
            row["completion"] = {"yes": "no", "no": "yes"}[row["completion"]]
    other, _, _, changed = grid_of(settings((pool, write(target, aims))))
    assert [i.choices for i in other.items] == [i.choices for i in data.items]
    for cell, keys in grid.cells.items():
        assert [grid.units[k].rows for k in keys] == [changed.units[k].rows for k in changed.cells[cell]]


def test_answers_that_are_few_and_repeat_are_choices(tables):
    pool, target = tables
    data = read(settings(tables), Stub().lengths)
    assert {item.choices for item in data.items} == {("no", "yes")}
    made = pq.read_table(pool).to_pylist()
    for i, row in enumerate(made):
        row["completion"] = f"answer {i}"
    free = read(settings((write(pool, made), target)), Stub().lengths)
    assert {item.choices for item in free.items} == {()}
    labelled = read(settings((pool, target), labels=["yes", "no", "maybe"]), Stub().lengths)
    assert {item.choices for item in labelled.items} == {("yes", "no", "maybe")}


# nothing is trained twice


def parts_that_count(record):
    return {k: v for k, v in record.items() if k not in ("seconds", "units", "speed", "estimate_s")}


def test_a_finished_experiment_is_not_trained_again_and_a_larger_one_uses_it(tables, tmp_path):
    learner = Stub()
    first = ltd(settings(tables), tmp_path / "out", student=learner)
    # one for the speed; all marks are there
    assert len(learner.calls) == first["units"]["made"] + 1 == first["units"]["all"] + 1
    again = Stub()
    second = ltd(settings(tables), tmp_path / "out", student=again)
    assert again.calls == []
    assert parts_that_count(first) == parts_that_count(second)
    third = ltd(settings(tables, seeds=3), tmp_path / "out", student=again)
    assert third["units"]["reused"] == first["units"]["all"]
    assert {seed for _, seed, _, _ in again.calls} == {2}


@pytest.mark.parametrize("stop_at", [0, 1, 5])
def test_a_run_that_was_stopped_goes_on_with_the_unit_it_was_at(tables, tmp_path, stop_at):
    whole = ltd(settings(tables), tmp_path / "whole", student=Stub())
    stopped = Stub(stop_at=stop_at)
    with pytest.raises(KeyboardInterrupt):
        ltd(settings(tables), tmp_path / "out", student=stopped)
    assert not (tmp_path / "out" / "result.json").exists()
    rest = Stub()
    record = ltd(settings(tables), tmp_path / "out", student=rest)
    assert parts_that_count(record) == parts_that_count(whole)
    assert len(stopped.calls) + len(rest.calls) == whole["units"]["all"] + 1
    assert not {c[3] for c in stopped.calls} & {c[3] for c in rest.calls}


KILLED = """
import sys
from stub_student import Stub
from taskmill.config import build
from taskmill.recipes.ltd import LtdConfig, ltd
import json
ltd(build(LtdConfig, json.loads(sys.argv[1])), sys.argv[2], student=Stub(stop_at=4, kill=True))
"""


def test_a_killed_process_leaves_whole_units_only(tables, tmp_path):
    config = settings(tables)
    given = {"source": config.source, "target": list(config.target), "embeddings": "vector", "probes": 20}
    given |= {"clusters": 3, "ratios": [5, 10, 50, 100], "seeds": 2}
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    out = tmp_path / "out"
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, json.dumps(given), str(out)], env={**os.environ, "PYTHONPATH": path}
    )
    assert ended.returncode == 9
    assert len(list((out / "units").glob("*/unit.json"))) == 3
    rest = Stub()
    record = ltd(config, out, student=rest)
    assert record["units"]["reused"] == 3
    assert len(rest.calls) == record["units"]["all"] - 3
    whole = ltd(config, tmp_path / "whole", student=Stub())
    assert parts_that_count(record) == parts_that_count(whole)


def test_trainings_are_removed_unless_they_are_to_be_kept(tables, tmp_path):
    class Writes(Stub):
        def learn(self, rows, items, seed, times, folder, on_step=None, begin=None, texts=()):
            folder.mkdir(parents=True)
            (folder / "adapter").write_text("weights")
            return super().learn(rows, items, seed, times, folder, on_step)

    ltd(settings(tables, ratios=[100], selectors=["k-center"]), tmp_path / "a", student=Writes())
    assert not list((tmp_path / "a" / "units").glob("*/training"))
    ltd(settings(tables, ratios=[100], selectors=["k-center"], keep=True), tmp_path / "b", student=Writes())
    assert len(list((tmp_path / "b" / "units").glob("*/training/adapter"))) == 3


# time


def test_a_plan_says_the_time_and_trains_nothing(tables, tmp_path):
    learner = Stub(seconds=0.01)
    plan = ltd(settings(tables), tmp_path / "out", student=learner, dry_run=True)
    assert len(learner.calls) == 1
    assert plan["speed"]["token"] == pytest.approx(0.01, rel=0.01)
    _, _, _, grid = grid_of(settings(tables))
    tokens = sum(unit.tokens for unit in grid.units.values())
    assert plan["estimate_s"] == pytest.approx(0.01 * tokens + 0.014 * len(grid.units), rel=0.02)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [".lock", "plan.json"]


def test_a_time_budget_thins_the_pool_and_stays_the_same_when_the_run_goes_on(tables, tmp_path):
    free = ltd(settings(tables), tmp_path / "free", student=Stub(seconds=0.01), dry_run=True)
    half = f"{free['estimate_s'] / 2:.0f}s"
    config = settings(tables, budget=half)
    with pytest.raises(KeyboardInterrupt):
        ltd(config, tmp_path / "out", student=Stub(stop_at=3, seconds=0.01))
    record = ltd(config, tmp_path / "out", student=Stub(seconds=0.5))  # slower now: the plan stands
    assert 0.3 < record["thinned"]["share"] < 0.6
    assert record["estimate_s"] < 1.2 * free["estimate_s"] / 2
    assert record["units"]["reused"] == 2
    assert "thinned" in (tmp_path / "out" / "report.html").read_text()
    with pytest.raises(UsageError, match="larger --budget"):
        ltd(settings(tables, budget="1s"), tmp_path / "less", student=Stub(seconds=1.0))


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("", np.inf)])
def test_a_budget_is_a_time(text, seconds):
    assert seconds_of(text) == seconds


# statistics


def test_the_bootstrap_agrees_with_all_resamples_written_out():
    values = np.array([[0.1, 0.5, 0.9, -0.2], [0.3, -0.4, 0.6, 0.0]])
    every = [
        values[np.ix_(s, i)].mean()
        for s in itertools.product(range(2), repeat=2)
        for i in itertools.product(range(4), repeat=4)
    ]
    found = interval(values, 0.9, 0)
    assert found.mean == pytest.approx(values.mean())
    spread = np.std(every)
    for got, share in ((found.low, 0.05), (found.high, 0.95), (found.least, 0.1)):
        assert got == pytest.approx(np.quantile(every, share), abs=0.08 * spread)


def test_equal_marks_have_no_interval_and_more_confidence_makes_it_wider():
    same = interval(np.zeros((3, 50)), 0.95, 0)
    assert same == (0.0, 0.0, 0.0, 0.0)
    values = np.random.default_rng(0).normal(size=(3, 50))
    narrow, wide = interval(values, 0.8, 0), interval(values, 0.99, 0)
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high
    assert interval(values, 0.95, 0) == interval(values, 0.95, 0)


@pytest.mark.parametrize(("items", "proved"), [(10, False), (400, True)])
def test_two_students_that_agree_are_proved_equal_by_many_items_only(items, proved):
    same = np.zeros((3, items))
    found = contrast(same, 0.95, 0)
    assert found.mean == 0
    # Agresti and Min: the standard error of no discordant pair among n is sqrt(1 / (n + 2)) / sqrt(n + 2)
    assert found.least == pytest.approx(-1.645 / (items + 2), rel=0.2)  # a lattice of few values
    assert (smallest({50: same, 100: same}, same, 0.02, 0.95, 0)[0] == 50) is proved


def test_a_ratio_that_is_too_bad_by_epsilon_is_seldom_called_enough(monkeypatch):
    """At a true difference of -epsilon, 5 % may say `enough`; four standard errors above that fail."""
    monkeypatch.setattr(crossed, "DRAWS", 1000)
    crossed._resamples.cache_clear()
    rng = np.random.default_rng(7)
    wrong, tries = 0, 300
    for _ in range(tries):
        full = (rng.random((1, 200)) < 0.8).astype(float)
        small = (rng.random((1, 200)) < 0.7).astype(float)
        wrong += smallest({50.0: small}, full, 0.1, 0.95, 0)[0] is not None
    crossed._resamples.cache_clear()
    assert 0 < wrong / tries < 0.05 + 4 * (0.05 * 0.95 / tries) ** 0.5


def test_ratios_are_tested_from_the_largest_until_one_fails():
    full = np.ones((2, 100))
    bad = np.zeros((2, 100))
    found, lines = smallest({1: full, 5: bad, 10: full, 50: full, 100: full}, full, 0.02, 0.95, 0)
    assert found == 10
    assert [(x["ratio"], x["within"], x["tested"]) for x in lines] == [
        (50, True, True),
        (10, True, True),
        (5, False, True),
        (1, True, False),
    ]
    assert smallest({50: bad, 10: full}, full, 0.02, 0.95, 0)[0] is None


def test_claims_hold_fail_or_stay_open():
    rng = np.random.default_rng(0)
    good, poor = np.full((2, 400), 0.9), np.full((2, 400), 0.4)
    core, chance = Arm("target", "all", "k-center"), Arm("target", "all", "random")
    wide, one = core._replace(scope="all"), core._replace(templates="1")
    marks = {(core, 10.0): poor, (chance, 10.0): good, (wide, 10.0): poor - 0.2, (one, 10.0): poor - 0.01}
    found = {c["claim"]: c["verdict"] for c in claims(marks, good, poor[:1], "k-center", 0.02, 0.95, 0)}
    assert found["training on the task helps"] == "holds"
    assert found["k-center beats random"] == "fails"
    assert found["one task's rows beat all tasks' (all templates, k-center)"] == "holds"
    assert found["1 template is enough (target rows, k-center)"] == "holds"
    noisy = rng.random((2, 400))
    open_ones = claims(
        {(core, 10.0): noisy, (chance, 10.0): noisy[:, ::-1]}, good, good, "k-center", 0, 0.95, 0
    )
    assert open_ones[1]["verdict"] == "undecided"


# the page, the command, what is refused


class Checks(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.seen = [], 0

    def handle_starttag(self, tag, attrs):
        self.seen += 1
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen += 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_shows_the_curve_and_escapes_names(tables, tmp_path):
    pool, target = tables
    made = pq.read_table(pool).to_pylist()
    for row in made:
        row["task"] = f"<script>{row['task']}"
    config = settings((write(pool, made), target), scopes=["target", "all"], templates=["1", "all"])
    record = ltd(config, tmp_path / "out", student=Stub())
    page = (tmp_path / "out" / "report.html").read_text()
    checks = Checks()
    checks.feed(page)
    assert checks.open == []
    assert checks.seen > 100
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    plot = curves(record)
    assert plot["lines"][0]["name"] == "k-center"
    for line in plot["lines"]:
        for point in line["points"]:
            assert 0 <= point["x"] <= 100
            assert 0 <= point["y"] <= 100
    assert [r["x"] for r in plot["ratios"]] == sorted(r["x"] for r in plot["ratios"])
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == json.loads(json.dumps(record))
    assert "Learning curve" in page


def test_the_learning_curve_says_how_many_rows_come_near_all(tables, tmp_path):
    record = ltd(settings(tables, seeds=3, epsilon=0.1), tmp_path / "out", student=Stub())
    found = record["curves"]["random"]
    arms = {a["ratio"]: a for a in record["arms"] if a["selector"] == "random"}
    assert not found["why"]
    assert arms[5]["rows"] <= found["enough"]["low"] <= found["enough"]["value"] <= arms[100]["rows"]
    a, b, c = (found[name]["value"] for name in "abc")
    own = [a - b * arm["rows"] ** -c - arm["mean"] for arm in arms.values()]
    assert found["misfit"] == pytest.approx(max(map(abs, own)), abs=1e-4)
    line = found["line"]
    assert [line[0]["rows"], line[-1]["rows"]] == [arms[5]["rows"], arms[100]["rows"]]
    for point in line:
        assert point["value"] == pytest.approx(a - b * point["rows"] ** -c, abs=2e-3)
        assert point["low"] <= point["high"]
    assert {len(dotted["line"].split()) for dotted in curves(record)["fitted"]} == {len(line)}
    text = (tmp_path / "out" / "result.json").read_text()
    assert "Infinity" not in text
    assert "NaN" not in text


def test_a_learning_curve_of_few_ratios_is_undecided(tables, tmp_path):
    record = ltd(settings(tables, ratios=[50, 100]), tmp_path / "out", student=Stub())
    assert "different sizes" in record["curves"]["k-center"]["why"]
    assert record["curves"]["k-center"]["enough"] is None
    assert curves(record)["fitted"] == []
    assert "undecided" in (tmp_path / "out" / "report.html").read_text()


def test_the_smallest_sufficient_core_set_is_written(tables, tmp_path):
    record = ltd(settings(tables, epsilon=0.9, ratios=[10, 50]), tmp_path / "out", student=Stub())
    assert record["sufficient"]["k-center"]["ratio"] == 10
    core = pq.read_table(tmp_path / "out" / "core.parquet")
    assert core.num_rows == next(a["rows"] for a in record["arms"] if a["ratio"] == 10)
    assert "prompt" in core.column_names
    strict = ltd(settings(tables, epsilon=0.0, ratios=[2]), tmp_path / "out", student=Stub())
    assert strict["sufficient"]["k-center"]["ratio"] is None
    assert not (tmp_path / "out" / "core.parquet").exists()


def run(capsys, *argv, code=0):
    with pytest.raises(SystemExit) as ended:
        cli.main([str(a) for a in argv])
    said = capsys.readouterr()
    assert ended.value.code == code, said.err
    return said


def test_the_command_line(tables, tmp_path, capsys, monkeypatch):
    pool, target = tables
    monkeypatch.setattr(recipe, "_student", lambda config: Stub())
    command = ["ltd", pool, "--target", target, "--embeddings", "vector", "--probes", "20", "--seeds", "2"]
    command += ["--ratios", "10,100", "--clusters", "3", "--selectors", "k-center,random"]
    said = run(capsys, *command, "--out", tmp_path / "plan", "--dry-run")
    assert "7 students, about" in said.out
    said = run(capsys, *command, "--out", tmp_path / "out")
    assert "k-center beats random" in said.out
    assert "report.html" in said.out
    record = json.loads(run(capsys, *command, "--out", tmp_path / "out", "--json").out)
    assert record["units"]["made"] == 0
    said = run(capsys, *command, "--out", pool, code=2)
    assert "is a file" in said.err
    said = run(capsys, "ltd", pool, "--out", tmp_path / "x", code=2)
    assert "--target" in said.err


def test_a_step_is_small_unless_it_is_asked_otherwise(tables):
    assert settings(tables).recipe.resolved().batch_tokens == 512
    assert settings(tables, train={"batch_tokens": 300}).recipe.resolved().batch_tokens == 300
    assert settings(tables, train={"preset": "paper"}).recipe.resolved().batch_rows == 16


def test_every_setting_has_one_flag_and_a_help_text():
    flags = [o.flag for o in options(LtdConfig)]
    assert len(set(flags)) == len(flags)
    assert all(o.help for o in options(LtdConfig))


@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        ({"target": []}, UsageError, "--target"),
        ({"ratios": [0]}, ConfigError, "percentage"),
        ({"ratios": [5, 5]}, ConfigError, "each once"),
        ({"ratios": ["5", "5%"]}, ConfigError, "another percentage"),
        ({"ratios": ["few"]}, ConfigError, "not all percentages"),
        ({"scopes": ["some"]}, ConfigError, "target or all"),
        ({"templates": ["0"]}, ConfigError, "number above 0"),
        ({"seeds": 0}, ConfigError, "seeds"),
        ({"confidence": 1.0}, ConfigError, "confidence"),
        ({"region": "near"}, ConfigError, "COLUMN=VALUE"),
        ({"budget": "soon"}, ConfigError, "30m"),
        ({"train": {"valid_share": 0.1}}, ConfigError, "valid_share"),
        ({"probes": 60}, InputError, "none is left to score"),
        ({"region": "task=other"}, InputError, "lies in the region"),
        ({"region": "tsk=task 0"}, UsageError, "Did you mean 'task'"),
        ({"task_column": "tsk"}, UsageError, "--task-column"),
        ({"selectors": ["k-centre"]}, UsageError, "k-center"),
        ({"template_column": "nothing"}, UsageError, "--template-column"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_trained(tables, tmp_path, changed, error, says):
    learner = Stub()
    with pytest.raises(error, match=says):
        ltd(settings(tables, **changed), tmp_path / "out", student=learner)
    assert learner.calls == []
    assert not (tmp_path / "out").exists()


def test_wrong_columns_and_selectors_are_said_before_rows_are_tokenised(tables):
    class Never(Stub):
        def lengths(self, examples):
            raise AssertionError("rows were tokenised")

    own = bare(tables[0]), tables[1]
    for changed in ({"selectors": ["k-centre"]}, {"region": "tsk=task 0"}, {"templates": ["1"]}):
        with pytest.raises(UsageError):
            read(settings(own, **changed), Never().lengths)


def test_a_folder_that_was_there_before_is_not_removed_by_an_error(tables, tmp_path):
    ltd(settings(tables), tmp_path / "out", student=Stub(), dry_run=True)
    with pytest.raises(InputError):
        ltd(settings(tables, region="task=other"), tmp_path / "out", student=Stub())
    assert (tmp_path / "out" / "plan.json").exists()


def bare(pool):
    """Return the pool without its column of wordings."""
    pq.write_table(pq.read_table(pool).drop_columns(["template"]), pool)
    return pool


def test_templates_must_be_known_to_be_counted(tables, tmp_path):
    pool, target = tables
    with pytest.raises(UsageError, match="--template-column"):
        ltd(settings((bare(pool), target), templates=["1"]), tmp_path / "out", student=Stub())


def test_an_id_twice_in_the_targets_is_refused(tables, tmp_path):
    _, target = tables
    other = write(tmp_path / "other.parquet", pq.read_table(target).to_pylist()[:3])
    with pytest.raises(InputError, match="twice"):
        ltd(settings(tables, target=[str(target), str(other)]), tmp_path / "out", student=Stub())


def test_texts_are_embedded_where_no_column_has_vectors(tables, tmp_path):
    record = ltd(
        settings(tables, embeddings="", embedder="hash", ratios=[50]), tmp_path / "o", student=Stub()
    )
    assert record["rows"]["embedder"].startswith("hash")
    assert record["region"]["rows"] > 0


@pytest.mark.slow
def test_a_tiny_model_goes_through_all_of_it(tables, tmp_path, capsys, monkeypatch):
    for name in ("torch", "transformers", "peft", "tokenizers", "safetensors"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    import torch

    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "train"))
    import tiny

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the model is too small to share
    try:
        base = tiny.make(tmp_path / "tiny")
        command = ["ltd", tables[0], "--target", tables[1], "--embeddings", "vector", "--probes", "20"]
        command += ["--ratios", "20,100", "--seeds", "2", "--base", base, "--rank", "4", "--lr", "0.02"]
        command += ["--epochs", "6", "--batch-tokens", "400", "--clusters", "3", "--test-rows", "24"]
        run(capsys, *command, "--out", tmp_path / "out")
        record = json.loads((tmp_path / "out" / "result.json").read_text())
        assert record["items"] == {"scored": 24, "of_choices": 24, "metrics": {"accuracy": 24}}
        assert record["units"]["all"] == 1 + 2 + 3 * 2
        again = json.loads(run(capsys, *command, "--out", tmp_path / "out", "--json").out)
        assert again["units"]["made"] == 0
        assert again["arms"] == record["arms"]
        units = [json.loads(p.read_text()) for p in (tmp_path / "out" / "units").glob("*/unit.json")]
        trained = [u for u in units if u["rows"]]
        largest = max(u["rows"] for u in trained)
        marks = [mark for u in trained if u["rows"] == largest for mark in u["marks"]]
        assert record["full"]["mean"] == pytest.approx(sum(marks) / len(marks), abs=1e-6)
        assert {answer for u in units for answer in u["answers"]} <= {"yes", "no"}
        assert all(u["record"]["counts"]["train"] == u["rows"] for u in trained)
        assert all(u["record"]["counts"]["tokens"] == u["tokens"] for u in trained)
        other = json.loads(run(capsys, *command, "--out", tmp_path / "other", "--json").out)
        assert other["arms"] == record["arms"]  # the same marks, student by student
    finally:
        torch.set_num_threads(threads)
