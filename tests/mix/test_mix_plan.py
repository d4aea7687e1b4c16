"""Counts: the largest remainder of the shares, policies at a source's end, and where each runs out."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.errors import ConfigError, UsageError
from taskmill.mix.plan import apportioned, make_plan, nested
from taskmill.mix.source import read_mixture
from taskmill.mix.weights import Task


def planned(sources, rows_of, **asked):
    root = {key: asked.pop(key) for key in ("cap", "policy", "until", "unimax") if key in asked}
    given_ = {name: {"path": "x", **keys} for name, keys in sources.items()}
    tasks = [Task(name, "", rows) for name, rows in rows_of.items()]
    return make_plan(read_mixture({"sources": given_, **root}), tasks, **asked)


def filled(weights, limits, rows):
    """Draw by weights in exact arithmetic, one event at a time: who is at its limit leaves."""
    weights, drawn, left = list(map(Fraction, weights)), [Fraction(0)] * len(weights), Fraction(rows)
    active = [i for i, w in enumerate(weights) if w]
    while active and left:
        total = sum(weights[i] for i in active)
        step = min([left / total] + [(limits[i] - drawn[i]) / weights[i] for i in active])
        for i in active:
            drawn[i] += weights[i] * step
        left -= total * step
        active = [i for i in active if drawn[i] < limits[i]]
    return drawn


@given(
    parts=st.lists(st.tuples(st.integers(1, 50), st.integers(1, 300)), min_size=1, max_size=7),
    rows=st.integers(1, 1500),
)
def test_drop_is_what_one_event_at_a_time_gives(parts, rows):
    sources = {f"s{i}": {"weight": w} for i, (w, _) in enumerate(parts)}
    plan = planned(sources, {f"s{i}": n for i, (_, n) in enumerate(parts)}, rows=rows)
    exact = filled([w for w, _ in parts], [n for _, n in parts], rows)
    assert plan.rows == min(rows, sum(n for _, n in parts))
    assert all(abs(c - float(x)) < 1 for c, x in zip(plan.counts, exact, strict=True))
    assert all(c <= n for c, (_, n) in zip(plan.counts, parts, strict=True))
    for i, point in enumerate(plan.exhausted):
        if np.isfinite(point):  # at that many draws, and not before, it is used up
            then = filled([w for w, _ in parts], [n for _, n in parts], ceil_of(point))
            assert then[i] >= parts[i][1] - 1e-6
        else:
            assert exact[i] < parts[i][1] + 1e-9


def ceil_of(value):
    return floor(value + 1 - 1e-9)


def test_unimax_spends_what_sources_of_fixed_counts_leave():
    sources = {"all": {"policy": "once"}, "small": {}, "large": {}}
    rows = {"all": 100, "small": 10, "large": 1000}
    plan = planned(sources, rows, unimax=1, rows=150)
    assert planned(sources, rows, unimax=1, rows=100).counts.tolist() == [100, 0, 0]
    assert plan.counts.tolist() == [100, 10, 40]  # 50 are left: 25 each, of which the small one has 10


@given(
    weights=st.lists(st.integers(1, 10**4), min_size=1, max_size=20),
    rows=st.integers(0, 10**4),
)
def test_counts_are_the_largest_remainder_allocation(weights, rows):
    quotas = [Fraction(w * rows, sum(weights)) for w in weights]
    names = [f"s{i:02}" for i in range(len(weights))]
    found = apportioned(np.array([float(q) for q in quotas]), np.full(len(weights), np.inf), names)
    expected = [int(q) for q in quotas]
    ranks = sorted(range(len(weights)), key=lambda i: (-(quotas[i] - int(quotas[i])), names[i]))
    for i in ranks[: rows - sum(expected)]:
        expected[i] += 1
    assert found.tolist() == expected


def nodes(tasks):
    """Return the tasks below each node of the tree of sources, by its path."""
    found = {}
    for i, task in enumerate(tasks):
        parts = task.source.split("/")
        for depth in range(len(parts) + 1):
            found.setdefault("/".join(parts[:depth]), []).append(i)
        found[task.key + "="] = [i]
    return found


@pytest.mark.parametrize("rows", [100, 300, 1000, 3000])
def test_a_source_of_many_tasks_has_its_share(rows):
    sources = {"one": {"weight": 30}, "hundred": {"weight": 35}, "thousand": {"weight": 35}}
    sizes = {"one": [5000], "hundred": [50] * 100, "thousand": [20] * 1000}
    tasks = [Task(name, f"t{i}", n) for name, own in sizes.items() for i, n in enumerate(own)]
    mixture = read_mixture({"sources": {name: {"path": "x", **keys} for name, keys in sources.items()}})
    counts = make_plan(mixture, tasks, rows=rows).counts
    assert [counts[:1].sum(), counts[1:101].sum(), counts[101:].sum()] == [
        rows * 30 // 100, rows * 35 // 100, rows * 35 // 100
    ]  # fmt: skip


tree_of_sources = st.recursive(
    st.lists(st.integers(1, 40), min_size=1, max_size=25),  # a source: the rows of its tasks
    lambda below: st.lists(st.tuples(st.integers(1, 30), below), min_size=1, max_size=4),
    max_leaves=8,
)


def grown(tree, name, tasks):
    """Return a source's keys, and add its tasks."""
    if isinstance(tree[0], int):
        tasks += [Task(name, f"t{i}", n * 10_000) for i, n in enumerate(tree)]
        return {"path": "x"}
    children = {
        f"s{i}": {"weight": weight, **grown(child, f"{name}/s{i}".lstrip("/"), tasks)}
        for i, (weight, child) in enumerate(tree)
    }
    return {"sources": children}


@given(
    tree=st.lists(st.tuples(st.integers(1, 30), tree_of_sources), min_size=1, max_size=4),
    rows=st.integers(1, 3000),
)
def test_every_node_of_the_tree_is_within_a_row_of_its_share(tree, rows):
    tasks = []
    mixture = read_mixture(grown(tree, "", tasks))
    plan = make_plan(mixture, tasks, rows=rows)
    assert plan.rows == rows
    for own in nodes(tasks).values():
        assert abs(plan.counts[own].sum() - rows * plan.shares[own].sum()) < 1 - 1e-9


@given(
    sizes=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=12), min_size=1, max_size=5),
    rows=st.integers(1, 200),
)
def test_limits_hold_down_the_tree_and_no_row_is_lost(sizes, rows):
    tasks = [Task(f"s{i}", f"t{j}", n) for i, own in enumerate(sizes) for j, n in enumerate(own)]
    mixture = read_mixture({"sources": {f"s{i}": {"path": "x", "weight": 1} for i in range(len(sizes))}})
    plan = make_plan(mixture, tasks, rows=rows)
    assert plan.rows == min(rows, sum(map(sum, sizes)))
    assert all(count <= task.rows for count, task in zip(plan.counts, tasks, strict=True))


def test_the_order_of_tasks_changes_no_count():
    tasks = [Task(f"s{i % 3}/u{i % 2}", f"t{i}", 9) for i in range(24)]
    wanted, limits = np.full(24, 7 / 12), np.full(24, 9.0)
    back = np.arange(24)[::-1]
    found = nested(wanted, limits, tasks)
    assert found.sum() == 14
    assert nested(wanted[back], limits[back], [tasks[i] for i in back]).tolist() == found[back].tolist()


@pytest.mark.parametrize(
    "asked", [{"epochs": float("inf")}, {"epochs": float("nan")}, {"epochs": 1e300}, {"rows": 1 << 60}]
)
def test_more_rows_than_can_be_counted_are_refused(asked):
    with pytest.raises(UsageError, match=r"a mixture has fewer than 9,007,199,254,740,992 rows"):
        planned({"a": {}}, {"a": 10}, **asked)


def test_stop_ends_the_mixture_and_names_the_task():
    plan = planned({"a": {"weight": 1, "policy": "stop"}, "b": {"weight": 3}}, {"a": 10, "b": 500}, rows=400)
    assert plan.counts.tolist() == [10, 30]
    assert (plan.ended, plan.asked, plan.exhausted[0]) == (0, 400, 40)
    whole = planned({"a": {"weight": 1, "policy": "stop"}, "b": {"weight": 3}}, {"a": 10, "b": 500}, rows=900)
    assert whole.exhausted.tolist() == [40, np.inf]  # b still had rows when it ended


def test_what_stop_does_not_reach_it_does_not_end():
    plan = planned({"a": {"weight": 1, "policy": "stop"}, "b": {"weight": 3}}, {"a": 10, "b": 500}, rows=40)
    assert plan.counts.tolist() == [10, 30]
    assert plan.ended == -1


def test_repeat_goes_on_as_often_as_it_may():
    sources = {"a": {"weight": 1, "repeat": 3}, "b": {"weight": 1, "policy": "repeat"}}
    plan = planned(sources, {"a": 10, "b": 20}, rows=400)
    assert plan.counts.tolist() == [30, 370]
    assert plan.exhausted.tolist() == [60, float("inf")]


def test_once_gives_every_row_once_whatever_the_rest_weighs():
    sources = {"a": {"policy": "once"}, "b": {"weight": 1}, "c": {"weight": 3}}
    plan = planned(sources, {"a": 17, "b": 500, "c": 500}, rows=117)
    assert plan.counts.tolist() == [17, 25, 75]
    with pytest.raises(UsageError, match="hold 17 rows, more than the 10"):
        planned(sources, {"a": 17, "b": 500, "c": 500}, rows=10)


@pytest.mark.parametrize(("count", "expected"), [(5, 5), (0.5, 50), ("150%", 150), (250, 250), (1.0, 100)])
def test_a_count_is_rows_or_a_multiple(count, expected):
    plan = planned({"a": {"count": count}, "b": {"weight": 1}}, {"a": 100, "b": 1000}, rows=300)
    assert plan.counts.tolist() == [expected, 300 - expected]


def test_an_epoch_is_every_row_up_to_the_cap_once():
    plan = planned({"a": {"weight": 9}, "b": {"weight": 1}}, {"a": 10, "b": 5000}, cap=100)
    assert plan.counts.tolist() == [10, 100]
    plan = planned({"a": {"weight": 9}, "b": {"weight": 1}}, {"a": 10, "b": 5000}, cap=100, epochs=3)
    assert plan.counts.tolist() == [30, 300]
    plan = planned({"a": {}, "b": {}}, {"a": 10, "b": 90}, epochs=0.5)
    assert plan.counts.tolist() == [5, 45]


def test_sources_that_are_used_up_are_said_to_be():
    plan = planned({"a": {}, "b": {}}, {"a": 10, "b": 20}, rows=100)
    assert (plan.rows, plan.asked, plan.ended) == (30, 100, -1)


def test_until():
    weights = {"a": {"weight": 1, "policy": "repeat"}, "b": {"weight": 1, "policy": "repeat"}}
    assert planned(weights, {"a": 10, "b": 30}, until="first-empty").counts.tolist() == [10, 10]
    assert planned(weights, {"a": 10, "b": 30}, until="all-seen").counts.tolist() == [30, 30]
    with pytest.raises(ConfigError, match="all-seen draws small sources again"):
        planned({"a": {"weight": 1}, "b": {"weight": 1}}, {"a": 10, "b": 30}, until="all-seen")


def test_rows_and_epochs_exclude_each_other():
    with pytest.raises(UsageError, match="give one of them"):
        planned({"a": {}}, {"a": 10}, rows=5, epochs=1)


# The public FLAN v2 mixture stops at its first empty task.

COT = {
    "aqua": 2715, "creak": 6910, "ecqa": 7110, "esnli": 36170, "gsm8k": 7470, "qasc": 1080, "qed": 5145,
    "sensemaking": 6070, "strategyqa": 2060,
}  # fmt: skip
FLAN_OPTIONS = 1_495_000
STYLES = {"flan2021": 4, "t0": 4, "niv2": 2, "cot": 2, "dialog": 2}


def public_mixture(policy):
    """Rates of run_example.py; styles weigh alike, CoT forward to inverted as 1 to 0.3. Sizes not published
    with the numbers below are large: they do not end it."""
    big = 10**8
    sources, tasks = {}, []
    for name, count in STYLES.items():
        styles = {}
        for i in range(count):
            if name == "cot":
                both = {"forward": {"path": "x", "weight": 1}, "inverted": {"path": "x", "weight": 0.3}}
                styles[f"s{i}"] = {"sources": both, "weight": 1}
                tasks += [Task(f"cot/s{i}/{d}", set_, n) for d in both for set_, n in COT.items()]
            else:
                styles[f"s{i}"] = {"path": "x", "weight": 1}
                rows = FLAN_OPTIONS if name == "flan2021" and i == 0 else big
                tasks.append(Task(f"{name}/s{i}", "", rows))
        sources[name] = {"sources": styles, "cap": 10**9}  # sizes here are those after the caps
    return read_mixture({"preset": "flan-v2-public", "policy": policy, "sources": sources}), tasks


def test_no_cap_binds_in_cot_so_one_set_is_half_of_it():
    sources = {"cot": "x", "muffin": {"weight": 0}, "t0_sf": {"weight": 0}, "niv2": {"weight": 0}}
    mixture = read_mixture({"preset": "flan-2022-b", "sources": sources})
    tasks = [Task("cot", name, rows) for name, rows in COT.items()]
    plan = make_plan(mixture, tasks)
    assert plan.rows == sum(COT.values()) == 74_730
    assert plan.shares[list(COT).index("esnli")] == pytest.approx(0.484, abs=5e-4)


def test_stopping_at_the_first_empty_task_loses_most_of_flan():
    """Independent draws from the public rates end after 3.79M ± 0.06M of them, by a small CoT set, when a
    quarter of FLAN-2021's rows with options were seen. Ours have no sampling noise: none ends early."""
    mixture, tasks = public_mixture("stop")
    plan = make_plan(mixture, tasks, rows=20_000_000)
    ended = tasks[plan.ended]
    assert ended.source.endswith("forward")
    assert plan.rows == pytest.approx(74_730 / (0.05 / 2 / 1.3), abs=2)
    flan = plan.counts[[t.source for t in tasks].index("flan2021/s0")]
    assert flan / FLAN_OPTIONS == pytest.approx(0.26, abs=0.005)

    # Independent draws: task s is empty after Gamma(n) / share of them.
    forward = [i for i, t in enumerate(tasks) if t.source.endswith("forward")]
    rows, share = np.array([tasks[i].rows for i in forward]), plan.shares[forward]
    waits = np.random.default_rng(0).standard_gamma(rows, (2000, len(rows))) / share
    ends = waits.min(axis=1)
    assert ends.mean() == pytest.approx(3.79e6, abs=0.06e6)
    assert ends.std() == pytest.approx(0.06e6, abs=0.02e6)
    names = {tasks[forward[i]].name for i in np.bincount(waits.argmin(axis=1)).argsort()[-6:]}
    assert names == {"strategyqa", "qasc", "aqua"}
    assert (ends.mean() * 0.1) / FLAN_OPTIONS == pytest.approx(0.25, abs=0.01)


def test_the_default_loses_nothing():
    mixture, tasks = public_mixture("drop")
    plan = make_plan(mixture, tasks, epochs=1)
    assert plan.ended == -1
    assert plan.rows == plan.asked
    assert plan.counts.tolist() == [t.rows for t in tasks]
