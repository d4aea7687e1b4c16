"""The adapter that comes with the package: small enough, pinned to its base, and a generator of tasks."""

import json
from pathlib import Path

import pytest

import taskmill
from taskmill.backends import ADAPTERS, ModelConfig
from taskmill.backends.openvino import EMBEDDED
from taskmill.ingest import IngestConfig
from taskmill.recipes import SynthConfig, synth

FOLDER = Path(taskmill.__file__).parent / "adapters"


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_is_small_pinned_and_has_a_card(name):
    assert (FOLDER / name / "adapter_model.safetensors").stat().st_size < 12_000_000
    record = json.loads((FOLDER / name / "taskmill.json").read_text())
    assert record["base"]["sha256"] == EMBEDDED["smollm2-135m"][2]
    card = (FOLDER / name / "README.md").read_text()
    for word in ("| licence |", "## Recipe", "## Thin spots", record["base"]["sha256"]):
        assert word in card
    assert "CC-BY-NC" not in card


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_adapter_writes_tasks_in_bonitos_format(name, texts, tmp_path, monkeypatch):
    pytest.importorskip("openvino_genai", reason="openvino-genai is not installed")
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    monkeypatch.setenv("TASKMILL_CACHE_DIR", str(tmp_path / "cache"))
    config = SynthConfig(
        sources=(str(texts),),
        task=("qg", "sentiment"),
        model=ModelConfig(ref=f"openvino:{name}"),
        ingest=IngestConfig(),
    )
    manifest = synth(config, tmp_path / "run")
    assert manifest["model"]["protocol"] == "bonito-attributes"
    funnel = manifest["funnel"]["synthesize"]
    assert funnel["in"] == 12
    assert funnel["kept"] >= 9, "the base model without the adapter keeps none of this format"
    assert manifest["funnel"]["curate"]["kept"] >= 3
