"""The vLLM backend against a fake `vllm` module; test_scorer.py runs the real one where it is installed.

The fake imitates the documented API: `LLM(model=…)`, `generate` and `chat` with one SamplingParams per
prompt, outputs in the order of the prompts, a ValueError for the whole call if one prompt is too long,
and (as versions before 0.12 do, issue 26081) the prompts queued before it coming out of the next call.
"""

from __future__ import annotations

import os
import sys
import types
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from taskmill.backends import ModelConfig, load
from taskmill.backends.vllm import VLLM
from taskmill.calls import Request, Sampling, ScoreRequest
from taskmill.errors import BackendError, MissingExtra

LONGEST = 20
"""Characters the fake engine takes."""


@dataclass
class SamplingParams:
    n: int
    temperature: float
    top_p: float = 1.0
    max_tokens: int = 16
    stop: list[str] | None = None
    seed: int | None = None
    structured_outputs: Any = None
    prompt_logprobs: int | None = None
    detokenize: bool = True


@dataclass
class StructuredOutputsParams:
    choice: list[str] | None = None
    grammar: str | None = None


def odds(before: str, token: str) -> float:
    """The log-probability of a character behind another."""
    return -(ord(before) % 7 + ord(token) % 5) / 8


def listed(before: str, token: str) -> dict[int, Any]:
    """What the engine lists at a place: its token and the likeliest."""
    named = types.SimpleNamespace(logprob=odds(before, token), rank=2)
    return {ord("~"): types.SimpleNamespace(logprob=-0.01, rank=1), ord(token): named}


class Characters:
    """A tokenizer of characters."""

    chat_template, eos_token_id = "some", ord("$")

    def __call__(self, text, add_special_tokens):
        return {"input_ids": [*map(ord, "^" * add_special_tokens + text)]}

    def apply_chat_template(self, turns, tokenize, add_generation_prompt):
        assert (tokenize, add_generation_prompt) == (False, True)
        if turns[0]["role"] == "system":
            raise ValueError("no system\nturns")
        return "".join(f"<{turn['content']}>" for turn in turns)


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
    refusal: ClassVar[type[Exception]] = ValueError

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

    def get_tokenizer(self):
        return Characters()

    def _run(self, prompts, params):
        prompts = ["".join(map(chr, p["prompt_token_ids"])) if isinstance(p, dict) else p for p in prompts]
        for text, own in zip(prompts, params, strict=True):
            if len(text) > LONGEST:
                raise self.refusal(
                    f"The decoder prompt (length {len(text)}) is longer than the maximum model length"
                )
            if text == "die":
                raise EngineDeadError("engine core died")
            self.params.append(own)
            cut = "length" if text == "cut" else "abort" if text in ("abort", "<abo>rt") else "stop"
            answer = types.SimpleNamespace(text=f"re: {text}", token_ids=[1] * 4, finish_reason=cut)
            output = types.SimpleNamespace(prompt_token_ids=[1] * len(text), outputs=[answer])
            output.prompt_logprobs = None
            if own.prompt_logprobs is not None and cut == "stop":
                output.prompt_logprobs = [None, *map(listed, text, text[1:])]
            self.queued.append(output)
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


def test_scores_are_those_of_the_choices_tokens(fake):
    requests = [
        ScoreRequest("a", ("yes", "no", "maybe"), prompt="is it?"),
        ScoreRequest("end", ("yes", "yes it"), prompt="is it?", end=True),
        ScoreRequest("chat", ("no",), messages=(("user", "is it"),)),
    ]
    found = {s.key: s for s in VLLM("org/name").score(requests)}
    texts = {"a": ("^is it?", ""), "end": ("^is it?", "$"), "chat": ("<is it>", "")}
    for request in requests:
        start, end = texts[request.key]
        spelled = [choice + end for choice in request.choices]
        sums = [sum(map(odds, start[-1] + choice, choice)) for choice in spelled]
        assert found[request.key].logprobs == pytest.approx(sums, abs=1e-12)
        assert found[request.key].tokens == tuple(map(len, spelled))
    assert LLM.last.params[0] == SamplingParams(1, 0, max_tokens=1, prompt_logprobs=1, detokenize=False)
    assert LLM.last.calls == [("generate", 6)]


def test_what_cannot_be_scored_is_refused_alone(fake):
    bad = [
        ScoreRequest("none", (), prompt="a"),
        ScoreRequest("hole", ("a", ""), prompt="a"),
        ScoreRequest("system", ("a",), messages=(("system", "s"), ("user", "u"))),
        ScoreRequest("wide", ("a", "b" * 20), prompt="abc"),
        ScoreRequest("abort", ("c", "rt"), messages=(("user", "abo"),)),
    ]
    found = {s.key: s for s in VLLM("org/name").score([*bad, ScoreRequest("fine", ("b",), prompt="a")])}
    assert found["none"].error == "no choices"
    assert found["hole"].error == "a choice is empty"
    assert found["system"].error == "the chat template refused: no system turns"
    assert "longer than the maximum" in found["wide"].error
    assert not found["fine"].error
    assert found["abort"].error == "vLLM ended the request as abort, without log-probabilities"


def test_scoring_is_lazy_and_one_by_one_where_asked(fake):
    pulled = []
    many = (pulled.append(i) or ScoreRequest(str(i), ("a", "b"), prompt="c") for i in range(9))
    scores = VLLM("org/name", window=2).score(many)
    next(scores)
    assert pulled == [0, 1]
    assert len(list(scores)) == 8
    assert LLM.last.calls == [("generate", 2)] * 9
    backend = load(ModelConfig(ref="vllm:org/name", deterministic=True))
    list(backend.score([ScoreRequest("k", ("a", "b"), prompt="c")]))
    assert LLM.last.calls == [("generate", 1)] * 2


def test_a_dead_engine_ends_the_scoring(fake, monkeypatch):
    def die(self, prompts, params, *, use_tqdm):
        raise EngineDeadError("engine core died")

    monkeypatch.setattr(LLM, "generate", die)
    with pytest.raises(BackendError, match="vLLM stopped: EngineDeadError"):
        list(VLLM("org/name").score([ScoreRequest("k", ("a",), prompt="c")]))


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


class VLLMClientError(Exception):
    """No ValueError in 0.32."""


@pytest.mark.parametrize("kind", [ValueError, VLLMClientError])
@pytest.mark.parametrize("place", range(5))
def test_a_prompt_that_is_too_long_fails_alone(fake, place, kind, monkeypatch):
    if kind is not ValueError:
        own = types.ModuleType("vllm.exceptions")
        own.VLLMClientError = kind
        monkeypatch.setitem(sys.modules, "vllm.exceptions", own)
        monkeypatch.setattr(LLM, "refusal", kind)
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
