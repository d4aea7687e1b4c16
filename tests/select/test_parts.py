"""k-center in parts: against plain k-center, the best possible choice, and the guarantee it states."""

import errno
import os
from itertools import combinations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pools import blobs, ids, make, pools, shuffled

from taskmill.config import build
from taskmill.errors import InputError, UsageError
from taskmill.kernels.distances import nearest_distance
from taskmill.recipes import parts as reading
from taskmill.recipes import scratch
from taskmill.recipes import select as recipe
from taskmill.recipes.select import SelectConfig, select
from taskmill.select import Budget, Pool
from taskmill.select.kcenter import KCenter
from taskmill.select.parts import SAME, in_parts, part_of

few = settings(max_examples=15, deadline=None)


def split(pool, parts, folder):
    """The pool sorted by part, the file of its vectors, and where parts begin."""
    part = part_of(pool.ids, parts)
    own = pool.take(np.argsort(part, kind="stable"))
    folder.mkdir(exist_ok=True)
    own.embeddings.tofile(folder / "vectors.f32")
    return own, folder / "vectors.f32", np.concatenate(([0], np.cumsum(np.bincount(part, minlength=parts))))


def chosen_in_parts(pool, parts, budget, folder, first="medoid"):
    own, path, bounds = split(pool, parts, folder)
    found = in_parts(KCenter(first), own, path, bounds, budget, 3)
    return own, found


def radius(pool, rows):
    x = pool.embeddings.astype(np.float64)
    placed = x.any(axis=1)
    return np.sqrt(np.maximum(2 - 2 * x[placed] @ x[rows].T, 0)).min(axis=1).max() if placed.any() else 0.0


@few
@given(pools(most=12, zeros=False), st.integers(1, 4), st.integers(1, 4))
def test_the_radius_is_at_most_four_times_the_best_and_within_the_bounds_it_states(
    tmp_path_factory, pool, count, parts
):
    count = min(count, len(pool))
    own, found = chosen_in_parts(pool, parts, Budget(rows=count), tmp_path_factory.mktemp("parts"))
    best = min(radius(own, list(c)) for c in combinations(range(len(own)), count))
    got = radius(own, found.rows)
    assert len(set(found.rows.tolist())) == len(found.rows) == count
    assert got <= 4 * best + 2 * SAME
    assert got <= found.evidence["covering radius at most"] + 1e-3
    if "times the best at most" in found.evidence:
        least = found.evidence["any choice of as many at least"]
        assert least <= best + 1e-5
        assert found.evidence["times the best at most"] <= 4 + SAME / least + 1e-3


@few
@given(pools(), st.integers(1, 50), st.booleans(), st.sampled_from(["medoid", "farthest", "random"]))
def test_one_part_chooses_what_plain_k_center_chooses(tmp_path_factory, pool, count, by_tokens, first):
    budget = Budget(tokens=count) if by_tokens else Budget(rows=count)
    own, found = chosen_in_parts(pool, 1, budget, tmp_path_factory.mktemp("parts"), first)
    plain = KCenter(first).pick(own, budget, 3)
    assert found.rows.tolist() == plain.rows.tolist()
    assert found.scores == pytest.approx(plain.scores, abs=1e-6)


@few
@given(pools(), st.integers(1, 60), st.integers(1, 5), st.booleans(), st.randoms())
def test_the_order_of_rows_plays_no_part_and_budgets_are_filled(
    tmp_path_factory, pool, count, parts, by_tokens, random
):
    budget = Budget(tokens=count) if by_tokens else Budget(rows=count)
    folder = tmp_path_factory.mktemp("parts")
    one, found = chosen_in_parts(pool, parts, budget, folder / "one")
    other = shuffled(pool, np.random.default_rng(random.randrange(2**32)))
    two, again = chosen_in_parts(other, parts, budget, folder / "two")
    assert ids(one, found) == ids(two, again)
    costs, limit = budget.costs(one)
    left = limit - costs[found.rows].sum()
    rest = np.setdiff1d(np.arange(len(one)), found.rows)
    assert left >= 0
    assert (costs[rest] > left).all()


def test_the_choice_covers_almost_as_well_as_plain_k_center(tmp_path):
    rng = np.random.default_rng(0)
    even, heavy = rng.normal(size=(6000, 16)), rng.standard_t(2, size=(6000, 12))
    for vectors in (blobs(6000, 32, rng, 40), even, heavy):
        pool = make(vectors, rng)
        plain = KCenter().pick(pool, Budget(rows=100), 0)
        least = nearest_distance(pool.embeddings, pool.embeddings[plain.rows]).max()
        for parts in (4, 16):
            own, found = chosen_in_parts(pool, parts, Budget(rows=100), tmp_path)
            got = nearest_distance(own.embeddings, own.embeddings[found.rows]).max()
            assert got <= 1.1 * least
            assert found.evidence["times the best at most"] <= 4.01
            assert found.evidence["rows of the parts"] == parts * 100


def test_rows_chosen_before_come_first_and_a_smaller_budget_is_a_prefix_with_the_same_rows(tmp_path):
    rng = np.random.default_rng(1)
    pool = make(blobs(500, 8, rng), rng)
    own, path, bounds = split(pool, 4, tmp_path)
    start = np.array([7, 3, 400])
    given_pool = Pool(own.ids, own.tokens, own.embeddings, start=start)
    found = in_parts(KCenter(), given_pool, path, bounds, Budget(rows=30), 0)
    assert found.rows[:3].tolist() == [7, 3, 400]
    assert len(set(found.rows.tolist())) == 30
    assert "times the best at most" not in found.evidence  # what was given may be anything
    assert radius(own, found.rows) <= found.evidence["covering radius at most"]


# The recipe


def table(size=400, width=8, seed=0):
    rng = np.random.default_rng(seed)
    vectors = blobs(size, width, rng).astype(np.float32)
    return pa.table(
        {
            "id": [f"row-{i:04}" for i in range(size)],
            "text": [f"text number {i} " * (1 + i % 5) for i in range(size)],
            "label": [f"l{i % 4}" for i in range(size)],
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), width),
        }
    )


def run(source, out, **settings):
    return select(
        build(
            SelectConfig,
            {"source": str(source), "budget": "20", "columns": {"embeddings": "vector"}, **settings},
        ),
        out,
    )


@pytest.fixture
def pool(tmp_path):
    folder = tmp_path / "pool"
    folder.mkdir()
    rows = table()
    pq.write_table(rows.slice(0, 150), folder / "a.parquet", row_group_size=64)
    pq.write_table(rows.slice(150), folder / "b.parquet")
    return folder


def test_one_part_gives_the_bytes_of_the_whole_pool(pool, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_BATCH", 32)
    for budget in ("20", "300tok"):
        whole = run(pool, tmp_path / "whole.parquet", budget=budget)
        parts = run(pool, tmp_path / "parts.parquet", budget=budget, parts=1)
        assert (tmp_path / "whole.parquet").read_bytes() == (tmp_path / "parts.parquet").read_bytes()
        assert whole["measures"] == parts["measures"]
        assert whole["overlap"] == parts["overlap"]
    assert not list(tmp_path.glob(".*"))


def test_files_rows_and_batches_play_no_part(pool, tmp_path, monkeypatch):
    first = run(pool, tmp_path / "one.parquet", parts=5)
    rows = table().take(np.random.default_rng(4).permutation(400))
    pq.write_table(rows, tmp_path / "other.parquet", row_group_size=50)
    monkeypatch.setattr(reading, "_BATCH", 7)
    (tmp_path / ".two.parts").mkdir()  # what a killed run left
    (tmp_path / ".two.parts" / "vectors.f32").write_bytes(b"half")
    second = run(tmp_path / "other.parquet", tmp_path / "two.parquet", parts=5)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    assert first["selector"] == second["selector"]
    assert first["selector"]["parts"] == 5
    assert not (tmp_path / ".two.parts").exists()


@pytest.mark.parametrize("settings", [{}, {"embedder": "hash"}, {"whiten": 4}, {"project": 16}])
def test_texts_are_embedded_and_turned_in_pieces_as_in_one(tmp_path, monkeypatch, settings):
    monkeypatch.setattr(reading, "_BATCH", 16)
    path = tmp_path / "pool.parquet"
    pq.write_table(table(90).select(["text", "label"]), path, row_group_size=40)
    asked = {"columns": {}, "embedder": "hash", **settings}
    whole = run(path, tmp_path / "whole.parquet", **asked)
    parts = run(path, tmp_path / "parts.parquet", parts=1, **asked)
    assert (tmp_path / "whole.parquet").read_bytes() == (tmp_path / "parts.parquet").read_bytes()
    assert whole["embedder"] == parts["embedder"]
    run(path, tmp_path / "three.parquet", parts=3, **asked)
    assert len(pq.read_table(tmp_path / "three.parquet")) == 20


def test_a_pool_is_never_read_whole(pool, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a whole file was read")

    sizes = []
    matrix = scratch.matrix
    monkeypatch.setattr(reading, "_BATCH", 50)
    monkeypatch.setattr(scratch, "matrix", lambda b, n: sizes.append(n) or matrix(b, n))
    monkeypatch.setattr("taskmill.recipes.pool.read_file", refuse)
    monkeypatch.setattr("taskmill.recipes.tables.read_file", refuse)
    run(pool, tmp_path / "out.parquet", parts=3)
    assert max(sizes) <= 50
    assert sum(sizes) == 400


def test_what_parts_cannot_do_is_refused(pool, tmp_path, monkeypatch):
    out = tmp_path / "out.parquet"
    for wrong in ({"method": "random"}, {"columns": {"group": "label"}}, {"target": str(pool)}):
        with pytest.raises(UsageError, match="--parts is for --method k-center"):
            run(pool, out, parts=2, **wrong)
    with pytest.raises(UsageError, match="--parts"):
        run(pool, out, runner="ray")
    (tmp_path / "pool.jsonl").write_text('{"text": "one"}\n')
    with pytest.raises(UsageError, match="convert it"):
        run(tmp_path / "pool.jsonl", out, parts=2, columns={})
    with pytest.raises(UsageError, match="Did you mean 'vector'"):
        run(pool, out, parts=2, columns={"embeddings": "vektor"})
    pq.write_table(pa.table({"n": [1, 2]}), tmp_path / "numbers.parquet")
    with pytest.raises(UsageError, match="--text"):
        run(tmp_path / "numbers.parquet", out, parts=2, columns={})
    monkeypatch.setattr(recipe, "_free_memory", lambda: 1000.0)
    with pytest.raises(UsageError, match="more --parts"):
        run(pool, out, parts=2)
    assert not out.exists()


@pytest.mark.parametrize("vector", [None, [1.0], [1.0, float("nan")], [1.0, None], []])
def test_a_vector_that_is_none_is_named(tmp_path, vector):
    rows = pa.table({"id": ["a", "b", "c"], "vector": pa.array([[1.0, 0.0], vector, [0.0, 1.0]])})
    pq.write_table(rows, tmp_path / "pool.parquet")
    with pytest.raises(InputError, match="'b'"):
        run(tmp_path / "pool.parquet", tmp_path / "out.parquet", parts=2, budget="2")
    pq.write_table(pa.table({"vector": [[1.0], [2.0]], "id": ["a", "a"]}), tmp_path / "twice.parquet")
    with pytest.raises(InputError, match="'a'"):
        run(tmp_path / "twice.parquet", tmp_path / "out.parquet", parts=2, budget="2")


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="room is taken as files grow on this system")
@pytest.mark.parametrize("turned", [{}, {"whiten": 2}, {"project": 2}])
def test_a_full_disk_ends_the_command_and_not_the_process(pool, tmp_path, monkeypatch, turned):
    calls, room = [], os.posix_fallocate

    def full(*given):
        calls.append(given)
        if len(calls) > len(turned):
            raise OSError(errno.ENOSPC, "No space left on device")
        room(*given)

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        run(pool, tmp_path / "out.parquet", parts=2, **turned)
    assert len(calls) == 1 + len(turned)
    assert [p.name for p in tmp_path.iterdir()] == [pool.name]


def test_texts_are_embedded_in_pieces_worth_a_look_into_the_cache(monkeypatch):
    texts = [pa.array(["x" * 10] * 100) for _ in range(40)]
    assert [len(piece) for piece in scratch.gathered(texts)] == [4000]
    monkeypatch.setattr(scratch, "_ROWS", 1000)
    assert [len(piece) for piece in scratch.gathered(texts)] == [1000] * 4
    monkeypatch.setattr(scratch, "_TEXT", 3000)
    assert [len(piece) for piece in scratch.gathered(texts)] == [300] * 13 + [100]


def test_more_parts_than_rows_and_rows_that_are_all_alike(tmp_path):
    pq.write_table(pa.table({"vector": [[1.0, 0.0]] * 5 + [[0.0, 0.0]]}), tmp_path / "alike.parquet")
    record = run(tmp_path / "alike.parquet", tmp_path / "out.parquet", parts=9, budget="4")
    assert record["chosen"]["rows"] == 4
    assert record["pool"]["zero_vectors"] == 1
    assert "5" not in pq.read_table(tmp_path / "out.parquet")["id"].to_pylist()
    record = run(tmp_path / "alike.parquet", tmp_path / "out.parquet", parts=2, budget="40")
    assert record["chosen"]["rows"] == 6
    assert "whole pool" in record["note"]
