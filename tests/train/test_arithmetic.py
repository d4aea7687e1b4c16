"""Weights added and scaled, against the sums written out, and against what the models say."""

import shutil

import pytest

from taskmill.errors import ConfigError
from taskmill.record import Document, Example
from taskmill.train import TrainConfig
from taskmill.train.student import Item, Student

TEXTS = ["the river runs under the tiny stone", "a cloud sleeps over the apple"]
ITEMS = [
    Item(Example(f"e{i}", "", "", f"who {w}?", "river"), ("river", "stone")) for i, w in enumerate("abc")
]


@pytest.fixture(scope="module")
def other(needs_train, tmp_path_factory):
    import tiny

    return tiny.make(tmp_path_factory.mktemp("models") / "other", seed=1)


def weights(folder, name="model.safetensors"):
    from safetensors.torch import load_file

    return load_file(folder / name)


def read_on(folder, out, method="lora"):
    config = TrainConfig(base=str(folder), method=method, rank=4, lr=1e-2, epochs=3, batch_tokens=200)
    student = Student(config, max_new_tokens=4)
    rows = [Document(f"d{i}", text) for i, text in enumerate(TEXTS * 5)]
    return student, student.learn(rows, ITEMS, 0, 1.0, out, texts=TEXTS)


def test_an_adapter_at_scale_one_on_its_own_base_is_the_trained_model(folder, tmp_path):
    student, trained = read_on(folder, tmp_path / "t")
    base = student.learn([], ITEMS, 0, 1.0, tmp_path / "none", texts=TEXTS)
    whole = student.merged(tmp_path / "t", str(folder), 1.0, ITEMS, TEXTS)
    assert whole.answers == trained.answers
    assert [loss for loss, _ in whole.losses] == pytest.approx([loss for loss, _ in trained.losses], rel=1e-4)
    little = student.merged(tmp_path / "t", str(folder), 0.01, ITEMS, TEXTS)
    assert little.losses[0][0] == pytest.approx(base.losses[0][0], rel=0.02)
    assert trained.losses[0][0] < 0.97 * base.losses[0][0]  # it learned its texts
    assert not (tmp_path / "t" / "merged").exists()


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft calls names that transformers 5 deprecates
def test_an_adapter_on_another_model_is_the_sum_of_their_weights(folder, other, tmp_path):
    """Oracle: PEFT's own merge of the adapter into the other model."""
    import peft
    import transformers

    student, _ = read_on(folder, tmp_path / "t")
    found = student.merged(tmp_path / "t", str(other), 1.0, ITEMS, TEXTS)
    model = transformers.AutoModelForCausalLM.from_pretrained(other)
    peft.PeftModel.from_pretrained(model, str(tmp_path / "t" / "adapter")).merge_and_unload().save_pretrained(
        tmp_path / "sum"
    )
    for file in other.iterdir():
        if "token" in file.name or file.suffix == ".jinja":
            shutil.copy(file, tmp_path / "sum")
    plain = Student(TrainConfig(base=str(tmp_path / "sum"), batch_tokens=200), max_new_tokens=4)
    wanted = plain.learn([], ITEMS, 0, 1.0, tmp_path / "none", texts=TEXTS)
    assert [loss for loss, _ in found.losses] == pytest.approx([loss for loss, _ in wanted.losses], rel=1e-4)


@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_whole_models_are_added_tensor_by_tensor(folder, other, tmp_path, scale):
    from taskmill.train.arithmetic import add_residual

    read_on(folder, tmp_path / "t", "full")
    add_residual(tmp_path / "t" / "model", other, folder, tmp_path / "sum", scale)
    trained, base, instruct = weights(tmp_path / "t" / "model"), weights(folder), weights(other)
    found = weights(tmp_path / "sum")
    assert set(found) == set(trained)
    for name, value in found.items():
        wanted = instruct[name].float() + scale * (trained[name].float() - base[name].float())
        assert (value.float() - wanted).abs().max() < 1e-2 * (1 + wanted.abs().max())
    student = Student(TrainConfig(base=str(tmp_path / "sum")), max_new_tokens=4)
    assert len(student.learn([], ITEMS, 0, 1.0, tmp_path / "none", texts=TEXTS).losses) == 2


def test_models_of_another_shape_are_refused_by_name(folder, tmp_path):
    import tiny

    from taskmill.train.arithmetic import add_residual, scaled_adapter

    larger = tiny.make(tmp_path / "larger", layers=3)
    with pytest.raises(ConfigError, match=r"model\.layers\.2.*not there.*and \d+ more"):
        add_residual(folder, larger, folder, tmp_path / "sum")
    assert not (tmp_path / "sum").exists()
    with pytest.raises(ConfigError, match="no safetensors"):
        add_residual(folder, tmp_path, folder, tmp_path / "sum")
    with pytest.raises(ConfigError, match="holds no adapter"):
        scaled_adapter(tmp_path / "none", tmp_path / "sum", 1.0)


def test_what_is_no_lora_cannot_be_scaled(needs_train, tmp_path):
    import torch
    from safetensors.torch import save_file

    from taskmill.train.arithmetic import scaled_adapter

    save_file({"x.lora_magnitude_vector": torch.ones(2)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ConfigError, match="no matrix of LoRA"):
        scaled_adapter(tmp_path, tmp_path / "out", 0.5)
