"""The loss at supervised positions is the plain loss, and so are its gradients."""

from __future__ import annotations

import numpy as np
import pytest
import tiny

from taskmill.train.encode import Encoded, Encoder
from taskmill.train.loss import Supervised, pad


@pytest.fixture
def model(folder):
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(folder)


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
    found = hooked.loss(*pad(encoded, torch, "cpu"))
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
    hooked.loss(*pad(encoded, torch, "cpu"))
    assert seen == [(sum(row.supervised for row in encoded), head.weight.shape[0])]


def test_outside_the_loss_the_model_is_as_it_was(model, tokenizer):
    import torch

    ids = torch.tensor([[5, 6, 7, 8]])
    before = model(input_ids=ids).logits
    hooked = Supervised(model, model.get_output_embeddings(), torch)
    hooked.loss(*pad([Encoded(np.array([5, 6, 7], np.uint32), 1)], torch, "cpu"))
    torch.testing.assert_close(model(input_ids=ids).logits, before)


def test_padding_and_company_change_nothing(model, tokenizer):
    import torch

    hooked = Supervised(model, model.get_output_embeddings(), torch)
    encoded = list(Encoder(tokenizer, 512).encode(tiny.rows(9)))
    alone = sum(hooked.loss(*pad([row], torch, "cpu")).item() for row in encoded)
    assert hooked.loss(*pad(encoded, torch, "cpu")).item() == pytest.approx(alone, rel=1e-5)
