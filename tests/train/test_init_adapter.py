"""A training that goes on from the adapter of another one."""

import hashlib
import json
from dataclasses import replace

import pytest
import tiny

from taskmill.backends.openvino import adapter_folder
from taskmill.errors import ConfigError
from taskmill.train import TrainConfig, train
from taskmill.train.base import adapter_digest
from taskmill.train.student import Student


@pytest.fixture
def config(folder):
    return TrainConfig(
        base=str(folder), rank=4, lr=1e-2, epochs=3, batch_tokens=400, valid_share=0.2, evaluations=1
    )


@pytest.fixture
def first(config, tmp_path):
    out = tmp_path / "first"
    return out, train(tiny.rows(60), config, out)


def test_it_begins_where_the_other_ended(config, first, tmp_path):
    out, record = first
    second = train(tiny.rows(60), replace(config, init_adapter=str(out / "adapter")), tmp_path / "second")
    fresh = record["loss"]["valid_first"]
    ended, began = record["loss"]["valid_last"], second["loss"]["valid_first"]
    assert ended < fresh - 0.1  # there is something to go on from
    assert began == pytest.approx(ended, rel=0.01)  # an adapter is kept in bf16
    assert second["loss"]["valid_last"] < began


def test_the_record_names_the_adapter_by_its_content(config, first, tmp_path):
    out, record = first
    second = train(tiny.rows(60), replace(config, init_adapter=str(out / "adapter")), tmp_path / "second")
    assert second["recipe"]["init_adapter"] == record["weights"]["adapter_model.safetensors"]
    assert record["recipe"]["init_adapter"] == ""
    assert str(tmp_path) not in json.dumps(second)
    # The same weights elsewhere are the same run; a run without them, or with others, is another one.
    moved = out.rename(tmp_path / "moved")
    again = replace(config, init_adapter=str(moved / "adapter"))
    assert train(tiny.rows(60), again, tmp_path / "second") == second
    with pytest.raises(ConfigError, match="another training run"):
        train(tiny.rows(60), config, tmp_path / "second")


@pytest.mark.parametrize(("changed", "said"), [({"rank": 8}, "rank 4, here 8"), ({"alpha": 7.0}, "alpha")])
def test_an_adapter_that_does_not_fit_is_refused(config, first, tmp_path, changed, said):
    other = replace(config, init_adapter=str(first[0] / "adapter"), **changed)
    with pytest.raises(ConfigError, match=said):
        train(tiny.rows(60), other, tmp_path / "other")


def test_of_another_base_or_depth_it_is_refused(config, first, tmp_path):
    wider = tiny.make(tmp_path / "deep", layers=3)
    other = replace(config, base=str(wider), init_adapter=str(first[0] / "adapter"))
    with pytest.raises(ConfigError, match="base 'tiny', here 'deep'"):
        train(tiny.rows(60), other, tmp_path / "out")
    same_name = tiny.make(tmp_path / "x" / "tiny", layers=3)
    with pytest.raises(ConfigError, match="other layers"):
        train(tiny.rows(60), replace(other, base=str(same_name)), tmp_path / "out2")


def test_without_an_adapter_there_or_with_full_training_it_is_refused(config, tmp_path):
    with pytest.raises(ConfigError, match="holds no adapter"):
        train(tiny.rows(60), replace(config, init_adapter=str(tmp_path)), tmp_path / "out")
    with pytest.raises(ConfigError, match="trains no adapter"):
        replace(config, method="full", init_adapter=str(tmp_path)).resolved()


def test_an_adapter_of_the_package_has_a_name(config, tmp_path):
    own = adapter_folder("bonito-smollm2-135m")
    weights = hashlib.sha256((own / "adapter_model.safetensors").read_bytes()).hexdigest()
    assert adapter_digest("bonito-smollm2-135m") == adapter_digest(str(own)) == weights
    named = replace(config, rank=16, alpha=32.0, init_adapter="bonito-smollm2-135m")
    with pytest.raises(ConfigError, match="base 'smollm2-135m', here 'tiny'"):
        train(tiny.rows(60), named, tmp_path / "out")


def test_a_student_that_begins_elsewhere_has_another_name(config, first):
    plain = Student(config).name
    assert Student(replace(config, init_adapter=str(first[0] / "adapter"))).name != plain
