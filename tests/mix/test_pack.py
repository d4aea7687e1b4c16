"""Packing: every row once and whole, never fuller with one open bin, and what a trainer sees of it."""

from itertools import chain

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill.errors import ConfigError, InputError
from taskmill.mix.pack import TokenRows, attention_mask, pack, split_long
from taskmill.mix.packed import Shards, tables, write_shards


def greedy_bins(lengths, room):
    """One open bin at a time, closed for good when the next row does not fit."""
    bins, left = 0, 0
    for length in lengths:
        if length > left:
            bins, left = bins + 1, room
        left -= length
    return bins


def token_rows(lengths, first=0):
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    tokens = ((np.arange(offsets[-1]) + first) % 50_000).astype(np.uint16)
    learned = np.ones(len(tokens), np.uint8)
    learned[offsets[:-1]] = 0
    return TokenRows(tokens, learned, offsets)


def rows_of(packing):
    return [packing.rows[a:b] for a, b in zip(packing.starts[:-1], packing.starts[1:], strict=True)]


room_and_lengths = st.integers(2, 300).flatmap(
    lambda room: st.tuples(st.just(room), st.lists(st.integers(1, room), max_size=120))
)


@given(case=room_and_lengths, seed=st.integers(0, 5), balance=st.sampled_from([0, 2, 5]))
@settings(max_examples=200)
def test_every_row_is_packed_once_and_no_sequence_is_too_long(case, seed, balance):
    room, lengths = case
    packing = pack(np.array(lengths, np.int64), room, seed, balance=balance)
    assert sorted(packing.rows) == list(range(len(lengths)))
    sums = [sum(lengths[r] for r in rows) for rows in rows_of(packing)]
    assert all(0 < total <= room for total in sums)
    assert packing.bins <= greedy_bins(lengths, room)
    assert packing.fill >= sum(lengths) / max(room * greedy_bins(lengths, room), 1) - 1e-12 or not lengths


@given(case=room_and_lengths)
@settings(max_examples=100)
def test_bins_are_those_of_best_fit_decreasing(case):
    room, lengths = case
    left = []
    for length in sorted(lengths, reverse=True):
        fits = [i for i, space in enumerate(left) if space >= length]
        if fits:
            left[min(fits, key=lambda i: left[i])] -= length
        else:
            left.append(room - length)
    expected = min(len(left), greedy_bins(lengths, room))
    for seed in (0, 1):  # equal lengths change places, the number of bins does not change
        assert pack(np.array(lengths, np.int64), room, seed).bins == expected


def test_a_lucky_order_is_taken_where_it_is_better():
    room, worse = 12, 0
    for seed in range(3000):
        lengths = np.random.default_rng(seed).integers(2, 7, 12)
        decreasing, open_one = _decreasing(lengths, room), greedy_bins(lengths, room)
        if open_one < decreasing:
            worse += 1
            assert pack(lengths, room).bins == open_one
    assert worse


def _decreasing(lengths, room):
    left = []
    for length in sorted(lengths.tolist(), reverse=True):
        fits = [i for i, space in enumerate(left) if space >= length]
        if fits:
            left[min(fits, key=lambda i: left[i])] -= length
        else:
            left.append(room - length)
    return len(left)


def test_a_large_set_wastes_next_to_nothing():
    lengths = np.clip(np.random.default_rng(0).lognormal(5.1, 1.0, 200_000), 1, 2048).astype(int)
    packing = pack(lengths, 2048)
    assert packing.fill > 0.9997
    assert greedy_bins(lengths.tolist(), 2048) > 1.1 * packing.bins


def test_the_seed_shuffles_and_nothing_else_does():
    lengths = np.random.default_rng(1).integers(1, 64, 500)
    one, same, other = pack(lengths, 64, 1), pack(lengths, 64, 1), pack(lengths, 64, 2)
    assert np.array_equal(one.rows, same.rows)
    assert one.bins == other.bins
    assert (one.rows != other.rows).mean() > 0.9


def test_balanced_neighbours_cost_alike():
    lengths = np.clip(np.random.default_rng(0).lognormal(4, 1.2, 4000), 1, 1024).astype(int)
    spread = {}
    for balance in (0, 8):
        packing = pack(lengths, 1024, balance=balance)
        costs = np.array([(lengths[rows].astype(float) ** 2).sum() for rows in rows_of(packing)])
        steps = costs[: len(costs) // 8 * 8].reshape(-1, 8)
        spread[balance] = (steps.max(axis=1) / steps.mean(axis=1)).mean()
    assert spread[8] < 1.05 < 1.2 < spread[0]


@pytest.mark.parametrize("length", [0, 65, -3])
def test_a_row_that_cannot_be_packed_is_named(length):
    with pytest.raises(InputError, match=f"row 2 .* has {length} tokens"):
        pack(np.array([5, 64, length]), 64)


def test_long_rows_are_split_every_so_many_tokens():
    rows = token_rows([3, 25, 10, 20])
    pieces, of = split_long(rows, 10)
    assert pieces.lengths.tolist() == [3, 10, 10, 5, 10, 10, 10]
    assert of.tolist() == [0, 1, 1, 1, 2, 3, 3]
    assert np.array_equal(pieces.tokens, rows.tokens)
    assert not pieces.learned[pieces.offsets[:-1]].any()
    assert rows.learned.sum() - pieces.learned.sum() == 3  # of each further piece, its first token


def packed(lengths, room=16):
    rows = token_rows(lengths)
    packing = pack(rows.lengths, room)
    return rows, packing


def test_columns_of_a_sequence():
    rows, packing = packed([5, 6, 4, 9, 7])
    names = np.array([f"id{i}" for i in range(5)])
    parts = tables(rows, packing.rows, packing, pa.array(names), "tokens", size=10)
    made = pa.concat_tables(parts).to_pylist()
    assert len(made) == packing.bins
    for sequence, members in zip(made, rows_of(packing), strict=True):
        assert sequence["row_ids"] == [f"id{r}" for r in members]
        assert sequence["seq_lengths"] == rows.lengths[members].tolist()
        own = [rows.tokens[rows.offsets[r] : rows.offsets[r + 1]].tolist() for r in members]
        assert sequence["input_ids"] == list(chain(*own))
        assert sequence["position_ids"] == [i for tokens in own for i in range(len(tokens))]
        assert sequence["segment_ids"] == [k for k, tokens in enumerate(own, 1) for _ in tokens]
        labels = list(chain(*([-100, *tokens[1:]] for tokens in own)))
        assert sequence["labels"] == labels
        assert sequence["loss_weights"] == [float(label != -100) for label in labels]


def test_token_id_zero_is_a_token():
    """Packers that count what is not zero as length cut a row at its zeros."""
    rows = TokenRows(np.zeros(12, np.uint16), np.ones(12, np.uint8), np.array([0, 5, 12]))
    packing = pack(rows.lengths, 12)
    (table,) = tables(rows, packing.rows, packing, pa.array(["a", "b"]), "tokens")
    (sequence,) = table.to_pylist()
    assert sequence["input_ids"] == [0] * 12
    assert sorted(sequence["seq_lengths"]) == [5, 7]
    assert sum(sequence["loss_weights"]) == 10


def test_shards_are_the_same_sequences(tmp_path):
    lengths = np.random.default_rng(3).integers(1, 17, 60)
    rows, packing = packed(lengths)
    for loss in ("tokens", "rows"):
        write_shards(tmp_path / loss, rows, packing.rows, packing, {"loss": loss})
        shards = Shards(tmp_path / loss)
        names = pa.array([str(i) for i in range(60)])
        made = pa.concat_tables(tables(rows, packing.rows, packing, names, loss)).to_pylist()
        assert len(shards) == len(made) == packing.bins
        for i, sequence in enumerate(made):
            for name, values in shards[i].items():
                assert values.tolist() == sequence[name]
    assert np.array_equal(shards[-1]["input_ids"], shards[len(shards) - 1]["input_ids"])
    assert isinstance(shards.tokens, np.memmap)
    with pytest.raises(IndexError):
        shards[len(shards)]


def test_each_row_may_weigh_one():
    rows, packing = packed([5, 6, 4, 1])
    (table,) = tables(rows, packing.rows, packing, pa.array(list("abcd")), "rows")
    for sequence in table.to_pylist():
        for k, length in enumerate(sequence["seq_lengths"], 1):
            own = [
                w for w, s in zip(sequence["loss_weights"], sequence["segment_ids"], strict=True) if s == k
            ]
            assert sum(own) == pytest.approx(1.0 if length > 1 else 0.0)


def test_unfinished_shards_are_not_opened(tmp_path):
    rows, packing = packed([5, 6])
    write_shards(tmp_path, rows, packing.rows, packing, {})
    (tmp_path / "index.json").unlink()
    with pytest.raises(InputError, match="no finished token shards"):
        Shards(tmp_path)


def test_masks():
    segments = np.array([1, 1, 1, 2, 2, 0])
    causal = attention_mask(segments)
    for q in range(6):
        for k in range(6):
            same = segments[q] == segments[k] > 0
            assert causal[q, k] == (same and k <= q)
    inputs = np.array([1, 1, 0, 1, 0, 0])
    prefix = attention_mask(segments, kind="prefix", inputs=inputs)
    assert prefix[0].tolist() == [True, True, False, False, False, False]
    assert prefix[2].tolist() == [True, True, True, False, False, False]
    full = attention_mask([1, 2, 2], [1, 1, 2], kind="full")
    assert full.tolist() == [[True, True, False], [False, False, True], [False, False, True]]
    with pytest.raises(ConfigError, match="no mask 'fulll'"):
        attention_mask(segments, kind="fulll")
    with pytest.raises(ConfigError, match="which tokens are inputs"):
        attention_mask(segments, kind="prefix")
