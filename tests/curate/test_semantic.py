"""Semantic duplicates against the naive search in float64."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill.config import build
from taskmill.curate import semantic
from taskmill.curate.semantic import semantic_duplicates
from taskmill.errors import InputError, UsageError
from taskmill.kernels import words
from taskmill.recipes.dedup import DedupConfig
from taskmill.recipes.dedup import dedup as run
from taskmill.recipes.pool import matrix


def naive(vectors, threshold, order):
    """Return (survivor or -1, cosine) of each row, one row after another."""
    exact = vectors.astype(np.float64)
    lengths = np.sqrt((exact**2).sum(axis=1))
    unit = (exact / np.where(lengths > 0, lengths, 1)[:, None]).astype(np.float32).astype(np.float64)
    kept, of, score = [], np.full(len(vectors), -1), np.zeros(len(vectors))
    for row in order:
        if lengths[row] == 0:
            continue
        cosines = unit[kept] @ unit[row] if kept else np.zeros(0)
        near = np.flatnonzero(cosines >= threshold)
        if len(near):
            of[row], score[row] = kept[near[0]], cosines[near[0]]
        else:
            kept.append(row)
    return of, score


def cloud(seed, rows, dimensions, spread=0.1, groups=0):
    """Return points around `groups` centres, with lengths that fall along the axes as embeddings' do."""
    random = np.random.Generator(np.random.PCG64(seed))
    scale = 1 / np.sqrt(np.arange(1, dimensions + 1))
    centres = random.normal(size=(groups or rows // 4, dimensions)) * scale
    noise = random.normal(size=(rows, dimensions)) * scale * spread
    return (centres[random.integers(0, len(centres), rows)] + noise).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 40),
    st.sampled_from([1, 3, 96]),
    st.sampled_from([-1.0, 0.3, 0.9, 0.99]),
    st.randoms(use_true_random=False),
)
def test_small_sets_are_those_of_the_naive_search(seed, rows, dimensions, threshold, shuffle):
    vectors = cloud(seed, rows, dimensions, groups=max(rows // 3, 1))
    vectors[seed % rows] = 0
    order = list(range(rows))
    shuffle.shuffle(order)
    found = semantic_duplicates(vectors, threshold, order=np.array(order))
    of, score = naive(vectors, threshold, order)
    assert found.duplicate_of.tolist() == of.tolist()
    assert found.similarity == pytest.approx(score, abs=1e-6)
    assert found.keep.tolist() == (of < 0).tolist()


@pytest.mark.parametrize("dimensions", [32, 200])
@pytest.mark.parametrize("threshold", [0.8, 0.92])
def test_several_blocks_and_tiles_are_those_of_the_naive_search(dimensions, threshold):
    vectors = cloud(1, 2500, dimensions, spread=0.3)
    order = np.random.Generator(np.random.PCG64(2)).permutation(2500)
    of, _ = naive(vectors, threshold, order)
    assert 100 < (of >= 0).sum() < 2400
    assert semantic_duplicates(vectors, threshold, order=order).duplicate_of.tolist() == of.tolist()


def test_cells_find_nearly_all_and_nothing_below_the_threshold(monkeypatch):
    monkeypatch.setattr(semantic, "_CELL", 100)
    vectors = cloud(3, 3000, 64, spread=0.2)
    exact = semantic_duplicates(vectors, 0.9)
    cells = semantic_duplicates(vectors, 0.9, exact_rows=100, seed=1)
    assert (~exact.keep).sum() > 1000
    missed = cells.keep & ~exact.keep
    assert missed.sum() <= 0.02 * (~exact.keep).sum()
    lost = np.flatnonzero(~cells.keep)
    of = cells.duplicate_of[lost]
    assert cells.keep[of].all()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert (unit[lost] * unit[of]).sum(axis=1) == pytest.approx(cells.similarity[lost], abs=1e-5)
    assert (cells.similarity[lost] >= 0.9).all()
    again = semantic_duplicates(vectors, 0.9, exact_rows=100, seed=1)
    assert again.duplicate_of.tolist() == cells.duplicate_of.tolist()


@pytest.mark.parametrize("exact_rows", [10**6, 100])
def test_order_of_rows_and_threads_do_not_change_the_result(exact_rows, monkeypatch):
    vectors = cloud(4, 1500, 96, spread=0.2)
    order = np.arange(1500)
    wanted = semantic_duplicates(vectors, 0.9, order=order, exact_rows=exact_rows).duplicate_of
    shuffled = np.random.Generator(np.random.PCG64(5)).permutation(1500)
    monkeypatch.setattr(words.os, "cpu_count", lambda: 5)
    place = np.argsort(shuffled)  # of each row among the shuffled ones
    found = semantic_duplicates(vectors[shuffled], 0.9, order=place, exact_rows=exact_rows).duplicate_of
    back = np.where(found[place] < 0, -1, shuffled[found[place]])
    assert (wanted >= 0).sum() > 300
    assert back.tolist() == wanted.tolist()


def test_equal_and_zero_vectors():
    vectors = np.ones((300, 80), np.float32)
    vectors[[0, 7]] = 0
    found = semantic_duplicates(vectors)
    assert np.flatnonzero(found.keep).tolist() == [0, 1, 7]
    assert (found.duplicate_of[~found.keep] == 1).all()
    assert len(semantic_duplicates(np.zeros((0, 3), np.float32)).keep) == 0


def test_vectors_that_say_nothing_are_refused_by_row():
    vectors = np.ones((4, 3), np.float32)
    vectors[2, 1] = np.nan
    with pytest.raises(InputError, match="row 2"):
        semantic_duplicates(vectors)
    vectors[2, 1] = np.inf
    with pytest.raises(InputError, match="row 2"):
        semantic_duplicates(vectors)
    with pytest.raises(UsageError, match="shape"):
        semantic_duplicates(np.ones(3))
    for threshold in (1.1, float("nan")):
        with pytest.raises(UsageError, match="threshold"):
            semantic_duplicates(np.ones((2, 2)), threshold)


LISTS = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]


KINDS = [
    pa.list_(pa.float64()),
    pa.large_list(pa.float32()),
    pa.list_(pa.float32(), 2),
    pa.list_(pa.float16()),
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_columns_of_lists_are_read_as_a_matrix(kind):
    first, second = (
        pa.array(rows, pa.list_(pa.float64())).cast(kind) for rows in ([[0, 0], LISTS[0]], LISTS[1:])
    )
    column = pa.chunked_array([first.slice(1), second])
    assert matrix(column.chunks, len(column)).tolist() == LISTS
    assert matrix(column.slice(0, 0).chunks, 0).shape[0] == 0


def test_columns_that_are_no_matrix_are_refused():
    for rows in ([[1.0, 2.0], [1.0], [3.0, 4.0]], [[1.0, 2.0], None, [3.0, 4.0]]):
        with pytest.raises(InputError, match="row 1 "):
            matrix([pa.array(rows)], len(rows))
    with pytest.raises(InputError, match="lists of numbers"):
        matrix([pa.array(["a"])], 1)


def test_semantic_mode_reads_a_column_of_embeddings(tmp_path):
    vectors = [[1.0, 0.0], [0.0, 1.0], [0.99, 0.01], [0.0, 0.0]]
    pq.write_table(
        pa.table({"id": list("abcd"), "text": list("wxyz"), "v": vectors}), tmp_path / "in.parquet"
    )
    settings = {"sources": [str(tmp_path / "in.parquet")], "mode": "semantic", "embeddings": "v"}
    report = run(build(DedupConfig, settings), tmp_path / "out")
    assert report["funnel"] == {"in": 4, "kept": 3, "dropped": {"semantic_duplicate": 1}}
    assert report["settings"]["threshold"] == 0.9
    (row,) = pq.read_table(tmp_path / "out" / "dropped.parquet").to_pylist()
    assert (row["id"], row["duplicate_of"], row["detail"]) == ("c", "a", "cosine 0.9999 of embeddings")


def test_semantic_mode_makes_its_own_embeddings(tmp_path):
    texts = ["the cat sat on the mat", "shares fell in early trade", "The cat sat on the mat.", "rain is due"]
    pq.write_table(pa.table({"text": texts}), tmp_path / "in.parquet")
    settings = {"sources": [str(tmp_path / "in.parquet")], "mode": "semantic", "embedder": "hash"}
    run(build(DedupConfig, settings), tmp_path / "out")
    assert pq.read_table(tmp_path / "out" / "dropped.parquet")["duplicate_of"].to_pylist() == ["0"]
