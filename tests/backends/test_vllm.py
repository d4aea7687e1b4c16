"""The vLLM backend against a fake `vllm` module; the real one needs a GPU and is not run here.

The fake imitates the documented API: `LLM(model=…)`, `generate` and `chat` with one SamplingParams per
prompt, outputs in the order of the prompts, a ValueError for the whole call if one prompt is too long,
and (as versions before 0.12 do, issue 26081) the prompts queued before it coming out of the next call.
"""

from __future__ import annotations

import os
import sys
import types
from dataclasses import dataclass, field
from typing import Any

import pytest

from taskmill.backends import ModelConfig, load
from taskmill.backends.vllm import VLLM
from taskmill.calls import Request, Sampling
from taskmill.errors import BackendError, MissingExtra

LONGEST = 20
"""Characters the fake engine takes."""


@dataclass
class SamplingParams:
    n: int
    temperature: float
    top_p: float
    max_tokens: int
    stop: list[str] | None
    seed: int | None
    structured_outputs: Any = None


@dataclass
class StructuredOutputsParams:
    choice: list[str] | None = None
    grammar: str | None = None


@dataclass
class LLM:
    model: str
    trust_remote_code: bool = True
    seed: int = 1
    revision: str | None = None
    tokenizer_revision: str | None = None
    enable_prefix_caching: bool = True
    calls: list[tuple[str, int]] = field(default_factory=list)
    params: list[SamplingParams] = field(default_factory=list)
    queued: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.model == "missing/model":
            raise OSError("missing/model is not a valid\nmodel identifier")
        LLM.last = self

    def generate(self, prompts, params, *, use_tqdm):
        assert use_tqdm is False
        self.calls.append(("generate", len(prompts)))
        return self._run(prompts, params)

    def chat(self, conversations, params, *, use_tqdm):
        assert use_tqdm is False
        self.calls.append(("chat", len(conversations)))
        return self._run([turns[-1]["content"] for turns in conversations], params)

    def _run(self, prompts, params):
        for text, own in zip(prompts, params, strict=True):
            if len(text) > LONGEST:
                raise ValueError(
                    f"The decoder prompt (length {len(text)}) is longer than the maximum model length"
                )
            if text == "die":
                raise EngineDeadError("engine core died")
            self.params.append(own)
            cut = "length" if text == "cut" else "abort" if text == "abort" else "stop"
            answer = types.SimpleNamespace(text=f"re: {text}", token_ids=[1] * 4, finish_reason=cut)
            self.queued.append(types.SimpleNamespace(prompt_token_ids=[1] * len(text), outputs=[answer]))
        out, self.queued = self.queued, []
        return out


class EngineDeadError(Exception):
    pass


@pytest.fixture
def fake(monkeypatch):
    module = types.ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, SamplingParams
    parameters = types.ModuleType("vllm.sampling_params")
    parameters.StructuredOutputsParams = StructuredOutputsParams
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", parameters)
    for name in ("VLLM_NO_USAGE_STATS", "DO_NOT_TRACK"):
        monkeypatch.setenv(name, "0")
    return module


DEFAULT = Sampling()


def prompts(*texts: str, sampling: Sampling = DEFAULT) -> list[Request]:
    return [Request(text, sampling, prompt=text) for text in texts]


def test_it_loads_without_remote_code_and_without_telemetry(fake):
    backend = VLLM("org/name", revision="abc")
    assert os.environ["VLLM_NO_USAGE_STATS"] == os.environ["DO_NOT_TRACK"] == "1"
    assert LLM.last.trust_remote_code is False
    assert (LLM.last.revision, LLM.last.tokenizer_revision) == ("abc", "abc")
    assert backend.model == "vllm:org/name@abc"
    assert backend.batch_invariant is False


def test_closed_sets_and_grammars_are_structured_outputs(fake):
    backend = VLLM("org/name")
    free, closed, ruled = DEFAULT, Sampling(0, choices=("Yes", "No")), Sampling(0, grammar='root ::= "a"')
    for sampling in (free, closed, ruled):
        list(backend.generate(prompts("p", sampling=sampling)))
    given = [p.structured_outputs for p in LLM.last.params]
    assert given == [
        None,
        StructuredOutputsParams(choice=["Yes", "No"]),
        StructuredOutputsParams(grammar='root ::= "a"'),
    ]


def test_prompts_and_messages_each_with_their_own_sampling(fake):
    warm = Sampling(0.7, 0.8, 33, ("END",), seed=5)
    chat = Request("c", Sampling(temperature=0, seed=9), messages=(("system", "s"), ("user", "hello")))
    answers = list(VLLM("org/name").generate([*prompts("a", "cut", sampling=warm), chat]))
    assert [(a.key, a.text, a.finish) for a in answers] == [
        ("a", "re: a", "stop"),
        ("cut", "re: cut", "length"),
        ("c", "re: hello", "stop"),
    ]
    assert (answers[1].prompt_tokens, answers[1].completion_tokens) == (3, 4)
    assert LLM.last.params[0] == SamplingParams(1, 0.7, 0.8, 33, ["END"], 5)
    assert LLM.last.params[2] == SamplingParams(1, 0, 1.0, 256, None, None)


def test_it_pulls_one_window_at_a_time(fake):
    pulled: list[str] = []

    def stream():
        for request in prompts(*"abcdefg"):
            pulled.append(request.key)
            yield request

    answers = VLLM("org/name", window=3).generate(stream())
    next(answers)
    assert pulled == ["a", "b", "c"]
    assert len(list(answers)) == 6
    assert LLM.last.calls == [("generate", 3), ("generate", 3), ("generate", 1)]


@pytest.mark.parametrize("place", range(5))
def test_a_prompt_that_is_too_long_fails_alone(fake, place):
    texts = ["a", "b", "c", "d"]
    texts.insert(place, "x" * 99)
    answers = {a.key: a for a in VLLM("org/name").generate(prompts(*texts))}
    assert len(answers) == 5
    assert "longer than the maximum" in answers.pop("x" * 99).error
    assert all(a.text == f"re: {key}" for key, a in answers.items())


def test_an_aborted_request_is_a_failed_call(fake):
    (answer,) = VLLM("org/name").generate(prompts("abort"))
    assert (answer.finish, answer.text) == ("error", "")


def test_a_dead_engine_and_a_missing_model_raise(fake):
    with pytest.raises(BackendError, match="vLLM stopped: EngineDeadError"):
        list(VLLM("org/name").generate(prompts("die")))
    with pytest.raises(BackendError, match="cannot load missing/model: missing/model is not a valid model"):
        VLLM("missing/model")


def test_deterministic_runs_one_at_a_time(fake):
    backend = load(ModelConfig(ref="vllm:org/name@abc", deterministic=True))
    assert len(list(backend.generate(prompts("a", "b")))) == 2
    assert LLM.last.calls == [("generate", 1), ("generate", 1)]
    assert LLM.last.enable_prefix_caching is False


def test_a_local_folder_is_known_by_what_it_holds(fake, tmp_path):
    folder = tmp_path / "student"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"one")
    first = VLLM(str(folder)).model
    (folder / "model.safetensors").write_bytes(b"two")
    assert first.startswith("vllm:student@")
    assert VLLM(str(folder)).model != first


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingExtra, match=r"taskmill\[vllm\]"):
        VLLM("org/name")
