"""The lean LoRA layers compute what PEFT's do."""

from __future__ import annotations

import warnings

import pytest

from taskmill.train import lean


def adapted(folder, **settings):
    import peft
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(
            model,
            peft.LoraConfig(
                r=4,
                lora_alpha=8,
                target_modules="all-linear",
                init_lora_weights=False,
                task_type="CAUSAL_LM",
                **settings,
            ),
        )
    return model.train()


def outcome(model):
    import torch

    ids = torch.arange(5, 35).view(3, 10)
    model.zero_grad()
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    return loss.item(), {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def test_loss_and_gradients_are_pefts(folder):
    import torch

    model = adapted(folder)
    loss, gradients = outcome(model)
    assert lean.apply(model) == 14  # 7 linear layers in each of 2 blocks
    lean_loss, lean_gradients = outcome(model)
    assert lean_loss == pytest.approx(loss, rel=1e-6)
    assert len(gradients) == 28
    for name, gradient in gradients.items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(lean_gradients[name], gradient, rtol=1e-4, atol=1e-6)


def test_a_frozen_base_gets_no_gradient(folder):
    model = adapted(folder)
    lean.apply(model)
    outcome(model)
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


@pytest.mark.parametrize("settings", [{"lora_dropout": 0.5}, {"use_dora": True}])
def test_other_kinds_of_layers_are_left_alone(folder, settings):
    assert lean.apply(adapted(folder, **settings)) == 0
