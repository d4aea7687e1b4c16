"""A model sees a packed row as it sees the row alone. Needs torch and transformers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill.mix.pack import TokenRows, attention_mask, pack
from taskmill.mix.packed import NOT_LEARNED, _columns

pytestmark = pytest.mark.slow
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, attn_implementation="eager",
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def sequence_of(lengths, room, seed=0):
    random = np.random.default_rng(seed)
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    tokens = random.integers(0, 97, offsets[-1]).astype(np.uint16)  # id 0 among them
    learned = (random.random(offsets[-1]) < 0.6).astype(np.uint8)
    rows = TokenRows(tokens, learned, offsets)
    packing = pack(rows.lengths, room)
    return rows, packing, rows.chosen(packing.rows)


def alone(model, tokens, learned):
    ids = torch.tensor(tokens[None].astype(np.int64))
    logits = model(ids).logits[0]
    labels = torch.where(torch.tensor(learned.astype(bool)), ids[0], NOT_LEARNED)
    labels[0] = NOT_LEARNED
    loss = torch.nn.functional.cross_entropy(
        logits[:-1], labels[1:], reduction="sum", ignore_index=NOT_LEARNED
    )
    return logits, loss


def together(model, columns):
    seen = torch.tensor(attention_mask(columns["segment_ids"]))
    mask = torch.where(seen, 0.0, torch.finfo(torch.float32).min)[None, None]
    ids = torch.tensor(columns["input_ids"][None].astype(np.int64))
    places = torch.tensor(columns["position_ids"][None].astype(np.int64))
    logits = model(ids, attention_mask=mask, position_ids=places).logits[0]
    labels = torch.tensor(columns["labels"].astype(np.int64))
    loss = torch.nn.functional.cross_entropy(
        logits[:-1], labels[1:], reduction="sum", ignore_index=NOT_LEARNED
    )
    return logits, loss


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return [p.grad.clone() for p in model.parameters()]


@given(lengths=st.lists(st.integers(2, 20), min_size=2, max_size=6))
@settings(max_examples=15)
def test_logits_and_gradients_are_those_of_the_rows_alone(model, lengths):
    rows, packing, ordered = sequence_of(lengths, 64)
    a, b = packing.starts[:2]
    begin, end = ordered.offsets[a], ordered.offsets[b]
    columns = _columns(
        ordered.tokens[begin:end], ordered.learned[begin:end], np.diff(ordered.offsets[a : b + 1]), "tokens"
    )
    logits, loss = together(model, columns)
    singles = []
    for nth, row in enumerate(packing.rows[a:b]):
        span = slice(rows.offsets[row], rows.offsets[row + 1])
        own, own_loss = alone(model, rows.tokens[span], rows.learned[span])
        at = columns["segment_ids"] == nth + 1
        assert torch.allclose(logits[torch.tensor(at)], own, atol=1e-5)
        singles.append(own_loss)
    assert torch.allclose(loss, sum(singles), atol=1e-4)
    if loss.item():
        packed_grads = gradients(model, together(model, columns)[1])
        own_grads = gradients(
            model,
            sum(
                alone(model, rows.tokens[rows.offsets[r] : rows.offsets[r + 1]],
                      rows.learned[rows.offsets[r] : rows.offsets[r + 1]])[1]
                for r in packing.rows[a:b]
            ),
        )  # fmt: skip
        for one, other in zip(packed_grads, own_grads, strict=True):
            assert torch.allclose(one, other, atol=1e-5)


def test_without_the_mask_rows_see_each_other(model):
    """The check can fail: plain causal attention over the sequence gives other logits."""
    rows, packing, ordered = sequence_of([9, 7], 16)
    columns = _columns(ordered.tokens, ordered.learned, ordered.lengths, "tokens")
    ids = torch.tensor(columns["input_ids"][None].astype(np.int64))
    with torch.no_grad():
        plain = model(ids).logits[0]
        second = packing.rows[1]
        own, _ = alone(
            model, *(x[rows.offsets[second] : rows.offsets[second + 1]] for x in (rows.tokens, rows.learned))
        )
    at = torch.tensor(columns["segment_ids"] == 2)
    assert not torch.allclose(plain[at], own, atol=1e-3)
