"""The loss at supervised positions is the plain loss, and so are its gradients."""

from __future__ import annotations

import numpy as np
import pytest
import tiny

from taskmill.train.encode import Encoded, Encoder
from taskmill.train.loss import Supervised
from taskmill.train.tree import Tree, pad, trees


@pytest.fixture
def model(folder):
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(folder)


def single(rows):
    return [Tree((row,)) for row in rows]


def plain(model, rows):
    """Sum the model's own loss row by row, prompt masked by -100."""
    import torch

    total = 0
    for row in rows:
        labels = [-100] * row.start + row.ids[row.start :].tolist()
        out = model(input_ids=torch.tensor([row.ids.tolist()]), labels=torch.tensor([labels]))
        total = total + out.loss * row.supervised
    return total


def test_equals_the_models_own_loss_and_gradients(model, tokenizer):
    import torch

    encoded = list(Encoder(tokenizer, 512).encode(tiny.rows(12)))
    expected = plain(model, encoded)
    expected.backward()
    wanted_grads = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    hooked = Supervised(model, model.get_output_embeddings(), torch)
    found = hooked.loss(pad(single(encoded), torch, "cpu"))
    found.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted_grads[name], rtol=1e-3, atol=2e-4)


def test_logits_are_computed_at_supervised_positions_only(model, tokenizer):
    import torch

    encoded = list(Encoder(tokenizer, 512).encode(tiny.rows(5)))
    seen = []
    head = model.get_output_embeddings()
    hooked = Supervised(model, head, torch)
    head.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    hooked.loss(pad(single(encoded), torch, "cpu"))
    assert seen == [(sum(row.supervised for row in encoded), head.weight.shape[0])]


def test_outside_the_loss_the_model_is_as_it_was(model, tokenizer):
    import torch

    ids = torch.tensor([[5, 6, 7, 8]])
    before = model(input_ids=ids).logits
    hooked = Supervised(model, model.get_output_embeddings(), torch)
    hooked.loss(pad(single([Encoded(np.array([5, 6, 7], np.uint32), 1)]), torch, "cpu"))
    torch.testing.assert_close(model(input_ids=ids).logits, before)


def test_padding_and_company_change_nothing(model, tokenizer):
    import torch

    hooked = Supervised(model, model.get_output_embeddings(), torch)
    encoded = list(Encoder(tokenizer, 512).encode(tiny.rows(9)))
    alone = sum(hooked.loss(pad(single([row]), torch, "cpu")).item() for row in encoded)
    assert hooked.loss(pad(single(encoded), torch, "cpu")).item() == pytest.approx(alone, rel=1e-5)


SIZE = 60  # of the part of the vocabulary that is drawn from


def families(count: int) -> list[Encoded]:
    """Return rows of several passages, three to five tasks each, prompts of different lengths."""
    draw = np.random.default_rng(7)
    found = []
    for i in range(count):
        passage = draw.integers(5, SIZE, 30 + 7 * i)
        for _ in range(3 + i % 3):
            task, answer = draw.integers(5, SIZE, 4), draw.integers(5, SIZE, int(draw.integers(2, 12)))
            ids = np.concatenate([passage, task, answer]).astype(np.uint32)
            found.append(Encoded(ids, len(passage) + 4, group=str(i)))
    return found


@pytest.mark.parametrize("longest", [90, 120, 1000])
def test_a_tree_has_the_loss_and_the_gradients_of_its_rows(model, longest):
    import torch

    rows = families(5)
    plain(model, rows).backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters()}
    expected = plain(model, rows).item()
    model.zero_grad()
    hooked = Supervised(model, model.get_output_embeddings(), torch)
    grown = list(trees(rows, longest))
    batch = pad(grown, torch, "cpu")
    assert batch.mask is not None
    found = hooked.loss(batch)
    found.backward()
    assert found.item() == pytest.approx(expected, rel=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-3, atol=5e-4)


def test_trees_hold_every_row_once_and_share_only_what_is_alike():
    rows = [*families(6), Encoded(np.arange(5, 45, dtype=np.uint32), 20, group="lonely")]
    for longest in (30, 90, 200, 5000):
        grown = list(trees(rows, longest))
        assert sorted(id(r) for t in grown for r in t.rows) == sorted(map(id, rows))
        for tree in grown:
            assert len(tree) <= longest or len(tree.rows) == 1
            assert (tree.shared > 0) == (len(tree.rows) > 1)
            for row in tree.rows:
                assert tree.shared < row.start
                assert (row.ids[: tree.shared] == tree.rows[0].ids[: tree.shared]).all()
    assert sum(map(len, trees(rows, 5000))) < 0.6 * sum(len(r.ids) for r in rows)
