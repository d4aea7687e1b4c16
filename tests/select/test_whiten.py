"""Whitening and projection against numpy, and through the recipe."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pools import blobs

from taskmill.config import build
from taskmill.errors import InputError, UsageError
from taskmill.recipes.select import SelectConfig, select
from taskmill.select import unit_rows
from taskmill.select.whiten import signs, whitening


def rows(size=600, width=12, seed=0):
    """Unit rows that spread far in a few directions and little in the others."""
    rng = np.random.default_rng(seed)
    vectors = blobs(size, width, rng) * np.geomspace(3, 0.1, width) + 1
    return unit_rows(vectors.astype(np.float32), pa.array(map(str, range(size))))


@pytest.mark.parametrize("count", [3, 12, 50])
def test_whitened_rows_have_a_mean_of_zero_and_directions_that_spread_alike(count):
    vectors = rows()
    turned = whitening(vectors, count).apply(vectors)
    count = min(count, 12)
    assert turned.shape == (600, count)
    assert turned.mean(axis=0) == pytest.approx(np.zeros(count), abs=1e-3)
    assert np.cov(turned.T.astype(np.float64), bias=True) == pytest.approx(np.eye(count), abs=2e-3)


def test_whitened_distances_are_mahalanobis():
    vectors = rows(width=6)
    turned = whitening(vectors, 6).apply(vectors).astype(np.float64)
    wide = vectors.astype(np.float64)
    inverse = np.linalg.inv(np.cov(wide.T, bias=True))
    for i, j in ((0, 1), (5, 80), (17, 400)):
        apart = wide[i] - wide[j]
        assert np.sum((turned[i] - turned[j]) ** 2) == pytest.approx(apart @ inverse @ apart, rel=1e-3)


def test_the_order_of_the_sample_changes_no_bit_and_zero_rows_stay_zero():
    vectors = rows()
    vectors[7] = 0
    one = whitening(vectors, 8)
    two = whitening(vectors[np.random.default_rng(1).permutation(600)], 8)
    assert (one.directions == two.directions).all()
    turned = one.apply(vectors)
    assert not turned[7].any()
    assert (one.apply(vectors[5:9]) == turned[5:9]).all()
    out = np.empty((600, 8), np.float32)
    assert one.apply(vectors, out) is out
    assert (out == turned).all()


def test_rows_in_a_plane_are_whitened_in_it_and_equal_rows_not_at_all():
    flat = rows(width=3) @ np.random.default_rng(2).normal(size=(3, 40)).astype(np.float32)
    unit = unit_rows(flat, pa.array(map(str, range(600))))
    assert whitening(unit, 40).width == 3
    with pytest.raises(InputError, match="alike"):
        whitening(np.ones((5, 4), np.float32) / 2, 2)
    with pytest.raises(InputError, match="alike"):
        whitening(np.zeros((5, 4), np.float32), 2)


def test_a_projection_keeps_cosines_and_depends_on_the_seed_alone():
    vectors = rows(200, 512)
    turn = signs(512, 256, 7)
    assert (turn.directions == signs(512, 256, 7).directions).all()
    assert (turn.directions != signs(512, 256, 8).directions).any()
    assert set(np.unique(turn.directions)) == {np.float32(-1 / 16), np.float32(1 / 16)}
    turned = unit_rows(turn.apply(vectors), pa.array(map(str, range(200))))
    error = turned.astype(np.float64) @ turned.T - vectors.astype(np.float64) @ vectors.T
    assert np.abs(error).mean() < 1 / 16
    with pytest.raises(UsageError, match="fewer"):
        signs(12, 12, 0)


def test_the_recipe_turns_pool_and_target_alike(tmp_path):
    vectors = rows(120, 24)
    table = pa.table({"id": [f"r{i:03}" for i in range(120)], "vector": list(vectors)})
    pq.write_table(table, tmp_path / "pool.parquet")
    pq.write_table(table.slice(10, 4), tmp_path / "target.parquet")
    config = {
        "source": str(tmp_path / "pool.parquet"),
        "target": str(tmp_path / "target.parquet"),
        "columns": {"embeddings": "vector"},
        "method": "rds",
        "budget": "4",
        "project": 16,
        "whiten": 6,
    }
    record = select(build(SelectConfig, config), tmp_path / "out.parquet")
    assert record["embedder"] == "vector, projected to 16, whitened to 6"
    chosen = pq.read_table(tmp_path / "out.parquet")
    assert set(chosen["id"].to_pylist()) == {"r010", "r011", "r012", "r013"}
    assert chosen["score"].to_pylist() == pytest.approx([1, 1, 1, 1])
    pq.write_table(table.take(np.random.default_rng(0).permutation(120)), tmp_path / "pool.parquet")
    first = (tmp_path / "out.parquet").read_bytes()
    select(build(SelectConfig, config), tmp_path / "out.parquet")
    assert (tmp_path / "out.parquet").read_bytes() == first
