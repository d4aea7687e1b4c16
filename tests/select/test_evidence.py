"""Measures of a choice against brute force, and the page that shows them."""

import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from pools import blobs, make, pools

from taskmill.report.selection import _plain, panels, table_of_measures
from taskmill.select import Budget
from taskmill.select import make as selector
from taskmill.select.evidence import NEAR, compare, flat, measure, plane


@settings(max_examples=40, deadline=None)
@given(pools(most=30))
def test_measures_are_those_of_all_pairs(pool):
    rows = pool.by_id[: max(1, len(pool) // 3)]
    look = pool.by_id[~pool.empty[pool.by_id]]
    found = measure(pool, rows, {"group": pool.groups}, look)
    assert found["rows"] == len(rows)
    assert found["tokens"] == pool.tokens[rows].sum()
    names = np.array(pool.groups.to_pylist())
    assert found["coverage"]["group"] == pytest.approx(len(set(names[rows])) / len(set(names)), abs=1e-6)
    placed = rows[~pool.empty[rows]]
    if not len(placed) or not len(look):
        assert found["covering_radius"] is None
        return
    x = pool.embeddings.astype(np.float64)
    distance = np.sqrt(np.maximum(2 - 2 * (x[look] @ x[placed].T).max(axis=1), 0))
    assert found["covering_radius"] == pytest.approx(distance.max(), abs=1e-3)
    assert found["mean_distance"] == pytest.approx(distance.mean(), abs=1e-3)
    like = x[placed] @ x[placed].T
    np.fill_diagonal(like, -1)
    assert found["near_duplicates"] == pytest.approx((like.max(axis=1) > NEAR).mean(), abs=1e-6)


def test_baselines_have_as_many_tokens_and_k_center_beats_chance_at_covering():
    rng = np.random.default_rng(1)
    pool = make(blobs(800, 12, rng), rng)
    chosen = selector("k-center").pick(pool, Budget(rows=40), 3)
    evidence, chance = compare(pool, "k-center", chosen, {"group": pool.groups}, seed=3, draws=6)
    measures = evidence["measures"]
    assert list(measures) == ["k-center", "random", "length"]
    own = pool.tokens[chosen.rows].sum()
    assert own - 9 < pool.tokens[chance.rows].sum() <= own
    assert own - 9 < measures["length"]["tokens"] <= own
    assert measures["length"]["rows"] < measures["random"]["rows"]
    assert evidence["beats_every_draw"]["covering_radius"] is True
    spread = evidence["random_draws"]["covering_radius"]
    assert spread["least"] <= spread["mean"] <= spread["largest"]
    assert measures["k-center"]["covering_radius"] < spread["least"]
    assert 0 <= evidence["overlap"]["k-center / random"] < 0.2


def test_a_choice_by_chance_is_held_against_other_draws():
    rng = np.random.default_rng(2)
    pool = make(blobs(300, 4, rng), rng)
    chosen = selector("random").pick(pool, Budget(rows=30), 0)
    evidence, chance = compare(pool, "random", chosen, {}, seed=0)
    assert list(evidence["measures"]) == ["random (chosen)", "random", "length"]
    assert set(chance.rows.tolist()) != set(chosen.rows.tolist())


def test_without_vectors_what_needs_them_is_left_out():
    rng = np.random.default_rng(3)
    whole = make(blobs(50, 4, rng), rng)
    pool = type(whole)(whole.ids, whole.tokens)
    chosen = selector("length").pick(pool, Budget(rows=5), 0)
    evidence, _ = compare(pool, "length", chosen, {"label": pa.array(["a", "b"] * 25)}, seed=0)
    own = evidence["measures"]["length (chosen)"]
    assert own["covering_radius"] is None
    assert own["coverage: label"] in (0.5, 1.0)
    assert "covering_radius" not in evidence["beats_every_draw"]
    assert plane(pool, {"chosen": chosen.rows}, 0) == {}
    assert panels({}) == []


def test_the_plane_is_that_of_the_first_two_principal_directions():
    rng = np.random.default_rng(4)
    pool = make(blobs(400, 6, rng), rng)
    points = plane(pool, {"chosen": np.arange(10)}, 0)
    assert {name: len(own) for name, own in points.items()} == {"pool": 400, "chosen": 10}
    x = pool.embeddings.astype(np.float64)
    x = x - x.mean(axis=0)
    first = np.linalg.eigh(x.T @ x)[1][:, -1]
    along = x[:10] @ first
    assert abs(np.corrcoef(along, points["chosen"][:, 0])[0, 1]) > 0.99
    for panel in panels({**points, "random": points["chosen"]}):
        assert len(re.findall(r"M[\d.]+ [\d.]+h0", panel["dots"])) <= 10
        places = [float(v) for v in re.findall(r"[\d.]+(?= |h)", panel["pool"])]
        assert min(places) >= 0
        assert max(places) <= 100


def test_the_table_says_which_measures_beat_every_draw():
    rng = np.random.default_rng(5)
    pool = make(blobs(300, 4, rng), rng)
    chosen = selector("k-center").pick(pool, Budget(rows=20), 0)
    evidence, _ = compare(pool, "k-center", chosen, {}, seed=0)
    lines = {line["title"]: line for line in table_of_measures(evidence)}
    assert lines["covering radius"]["better"]
    assert lines["rows"]["verdict"] == ""
    assert lines["rows"]["cells"][0]["value"] == "20"
    assert all(0 <= cell["bar"] <= 100 for line in lines.values() for cell in line["cells"])
    assert flat({"rows": 1, "coverage": {"task": 0.5}}) == {"rows": 1, "coverage: task": 0.5}


def test_evidence_within_evidence_becomes_lines_and_long_lists_are_cut():
    evidence = {
        "groups": 1200,
        "zero vectors": [],
        "by group": {"g": {"not_scored": [{"id": f"r{i}", "why": "it is broken"} for i in range(7)]}},
    }
    lines = _plain(evidence)
    assert lines["groups"] == "1,200"
    assert "zero vectors" not in lines
    assert lines["by group: g: not scored"].startswith("r0: it is broken, r1: it is broken")
    assert lines["by group: g: not scored"].endswith(" and 2 more")
    many = _plain({f"key {i}": i for i in range(50)})
    assert list(many.items())[-1] == ("…", "20 more in the JSON report")
