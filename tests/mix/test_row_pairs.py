"""Packing for encoder-decoder models: both sides whole, numbered alike, and seen by nobody else."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from byte_tokens import END, Bytes
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill.errors import ConfigError, InputError, UsageError
from taskmill.mix.pack import TokenRows, attention_mask
from taskmill.mix.pairs import Pairs, pack_pairs, pair_tables, pairs_of, split_points
from taskmill.recipes.pack import PackConfig, pack_rows
from taskmill.store import write_parquet

SIZES = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 12)), min_size=1, max_size=60)


def side(lengths, seed=0):
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    tokens = np.random.default_rng(seed).integers(0, 97, int(offsets[-1])).astype(np.uint16)
    return TokenRows(tokens, np.ones(len(tokens), np.uint8), offsets)


def pairs_with(sizes):
    return Pairs(side([a for a, _ in sizes]), side([b for _, b in sizes], 1))


def next_fit(sizes, room, target_room):
    used, left, target_left = 0, 0, 0
    for a, b in sizes:
        if not used or a > left or b > target_left:
            used, left, target_left = used + 1, room, target_room
        left, target_left = left - a, target_left - b
    return used


@given(sizes=SIZES, seed=st.integers(0, 3))
def test_every_row_is_packed_once_and_both_rooms_hold(sizes, seed):
    packing, targets = pack_pairs(pairs_with(sizes), 20, 12, seed)
    assert sorted(packing.rows.tolist()) == list(range(len(sizes)))
    assert targets.rows is packing.rows
    assert packing.bins <= next_fit(sizes, 20, 12)
    for a, b in zip(packing.starts[:-1], packing.starts[1:], strict=True):
        own = [sizes[row] for row in packing.rows[a:b]]
        assert own
        assert sum(x for x, _ in own) <= 20
        assert sum(y for _, y in own) <= 12


def test_more_than_one_open_sequence_pays():
    random = np.random.default_rng(0)
    sizes = list(
        zip(random.integers(1, 20, 2000).tolist(), random.integers(1, 12, 2000).tolist(), strict=True)
    )
    packing, targets = pack_pairs(pairs_with(sizes), 64, 32)
    assert packing.bins < next_fit(sizes, 64, 32)
    assert max(packing.fill, targets.fill) > 0.95


@pytest.mark.parametrize("sizes", [[(21, 1)], [(1, 13)]])
def test_a_row_that_fits_no_sequence_is_named(sizes):
    with pytest.raises(InputError, match=r"row 0 \(counted from 0\)"):
        pack_pairs(pairs_with(sizes), 20, 12)
    with pytest.raises(ConfigError, match="1 token or more on both sides"):
        pack_pairs(pairs_with(sizes), 0, 12)


@given(sizes=SIZES)
@settings(max_examples=30)
def test_tables_hold_both_sides_token_by_token(sizes):
    pairs = pairs_with(sizes)
    packing, _ = pack_pairs(pairs, 20, 12)
    names = pa.array([str(i) for i in range(len(sizes))])
    rows = pa.concat_tables(pair_tables(pairs, packing, names, "rows", 0, size=3)).to_pylist()
    assert len(rows) == packing.bins
    seen = []
    for row in rows:
        for nth, name in enumerate(row["row_ids"], 1):
            seen.append(name)
            given_, learned = (
                one.tokens[one.offsets[int(name)] : one.offsets[int(name) + 1]].tolist() for one in pairs
            )
            at = [i for i, s in enumerate(row["segment_ids"]) if s == nth]
            assert [row["input_ids"][i] for i in at] == given_
            assert [row["position_ids"][i] for i in at] == list(range(len(given_)))
            at = [i for i, s in enumerate(row["decoder_segment_ids"]) if s == nth]
            assert [row["labels"][i] for i in at] == learned
            assert [row["decoder_input_ids"][i] for i in at] == [0, *learned[:-1]]
            assert [row["decoder_position_ids"][i] for i in at] == list(range(len(learned)))
            assert sum(row["loss_weights"][i] for i in at) == pytest.approx(1)
    assert sorted(seen) == sorted(names.to_pylist())


def test_the_target_is_the_learned_end():
    lengths = [4, 3, 4, 2]
    learned = [0, 0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0]
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    rows = TokenRows(np.arange(13, dtype=np.uint16), np.array(learned, np.uint8), offsets)
    assert split_points(rows).tolist() == [2, -1, -1, -1]  # 2: learned in the middle; 3: from the third on
    whole = TokenRows(rows.tokens, np.array([0, 0, 1, 1, 0, 0, 1, 0, 1, 1, 1, 0, 1], np.uint8), offsets)
    assert split_points(whole).tolist() == [2, 2, 1, 1]
    pairs = pairs_of(whole, np.array([3, 0]))
    assert pairs.inputs.tokens.tolist() == [11, 0, 1]
    assert pairs.targets.tokens.tolist() == [12, 2, 3]


@pytest.fixture
def tokenizer(monkeypatch):
    made = Bytes()
    monkeypatch.setattr("taskmill.backends.tokenizer.load_text_tokenizer", lambda ref: made)
    return made


def packed(place, rows, **settings):
    write_parquet(place / "rows.parquet", pa.Table.from_pylist(rows))
    config = {"length": 16, "target_length": 8, "tokenizer": "bytes"} | settings
    manifest = pack_rows(PackConfig(source=str(place / "rows.parquet"), **config), place / "out")
    return manifest, pq.read_table(place / "out" / "data").to_pylist()


def test_rows_of_text_end_on_both_sides_and_the_rest_is_dropped_with_the_reason(tmp_path, tokenizer):
    rows = [
        {"id": "a", "prompt": "xy", "completion": "aba"},
        {"id": "b", "prompt": "", "completion": "ab"},
        {"id": "c", "prompt": "x" * 16, "completion": "ab"},
        {"id": "d", "prompt": "x", "completion": "b" * 8},
    ]
    manifest, (sequence,) = packed(tmp_path, rows)
    assert sequence["input_ids"] == [122, 123, END]
    assert sequence["labels"] == [0, 100, 0, END]
    assert sequence["decoder_input_ids"] == [0, 0, 100, 0]
    assert sequence["loss_weights"] == [1, 1, 1, 1]
    assert manifest["funnel"] == {"in": 4, "kept": 1, "dropped": {"empty": 1, "over_length": 2}}
    assert (manifest["tokens"], manifest["learned_tokens"], manifest["target_length"]) == (3, 4, 8)
    dropped = pq.read_table(tmp_path / "out" / "dropped.parquet").to_pylist()
    assert [row["id"] for row in dropped] == ["b", "c", "d"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"long": "split"}, "rows are whole"),
        ({"eos": "none"}, "rows are whole"),
        ({"layout": "chat"}, "a chat"),
    ],
)
def test_what_does_not_go_with_targets_of_their_own(tmp_path, tokenizer, settings, said):
    with pytest.raises(UsageError, match=said):
        packed(tmp_path, [{"prompt": "x", "completion": "y"}], **settings)


@pytest.mark.slow
@given(sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 7)), min_size=2, max_size=5))
@settings(max_examples=8, deadline=None)
def test_logits_and_gradients_are_those_of_the_rows_alone(sizes):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=97, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, dropout_rate=0.0,
        decoder_start_token_id=0, pad_token_id=0,
    )  # fmt: skip
    model = transformers.T5ForConditionalGeneration(config).eval()
    pairs = pairs_with(sizes)
    packing, _ = pack_pairs(pairs, 64, 48)
    (table,) = pair_tables(pairs, packing, pa.array([str(i) for i in range(len(sizes))]), "tokens", 0)
    (row,) = table.to_pylist()

    def additive(queries, keys, kind):
        seen = torch.tensor(attention_mask(queries, keys, kind=kind))
        return torch.where(seen, 0.0, torch.finfo(torch.float32).min)[None, None]

    ids, read, labels = (torch.tensor([row[c]]) for c in ("input_ids", "decoder_input_ids", "labels"))
    own, target = row["segment_ids"], row["decoder_segment_ids"]

    def together():
        hidden = model.encoder(input_ids=ids, attention_mask=additive(own, own, "full"))[0]
        out = model.decoder(
            input_ids=read, attention_mask=additive(target, target, "causal"), encoder_hidden_states=hidden,
            encoder_attention_mask=additive(target, own, "full"), use_cache=False,
        )[0]  # fmt: skip
        return model.lm_head(out * model.config.d_model**-0.5 if model.config.tie_word_embeddings else out)[0]

    def alone(name):
        one = [s.tokens[s.offsets[int(name)] : s.offsets[int(name) + 1]].astype(np.int64) for s in pairs]
        shifted = np.concatenate(([0], one[1][:-1]))
        given_, learned = torch.tensor(one[0][None]), torch.tensor(shifted[None])
        return model(input_ids=given_, decoder_input_ids=learned, use_cache=False).logits[0]

    def gradients(logits):
        model.zero_grad()
        torch.nn.functional.cross_entropy(logits, labels[0], reduction="sum").backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    packed_logits = together()
    apart = torch.cat([alone(name) for name in row["row_ids"]])
    assert torch.allclose(packed_logits, apart, atol=1e-5)
    for one, other in zip(gradients(packed_logits), gradients(apart), strict=True):
        assert torch.allclose(one, other, atol=1e-5)
