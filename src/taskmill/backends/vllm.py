"""vLLM's offline engine, for a GPU in this machine. Its server is reached through the openai backend."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from math import fsum
from typing import Any

from taskmill.backends import ModelConfig
from taskmill.backends.prompt_tokens import Ids, choice_tokens, prompt_tokens
from taskmill.backends.weights import identity
from taskmill.calls import Completion, Request, ScoreRequest, Scores
from taskmill.errors import BackendError, MissingExtra

__all__ = ["VLLM", "create"]

WINDOW = 1024
"""Requests handed to the engine at once (chosen: four times vLLM's default of 256 running sequences, so
that the batch stays full while the window's last answers are written)."""

SCORED = 256
"""Choices handed to the engine at once (chosen: vLLM's default of running sequences; each brings back a
dictionary for every token of its prompt, so that more would cost memory)."""


def _import() -> Any:
    # Usage statistics are off before the package can look (docs.vllm.ai, "Usage Stats Collection").
    os.environ["VLLM_NO_USAGE_STATS"] = "1"
    os.environ["DO_NOT_TRACK"] = "1"
    try:
        import vllm
    except ImportError as error:
        raise MissingExtra("vllm", "vllm") from error
    return vllm


def _refusals() -> tuple[type[Exception], ...]:
    """Return what vLLM raises for a request that it does not take."""
    try:
        from vllm.exceptions import VLLMClientError
    except ImportError:  # older versions raise a ValueError
        return (ValueError,)
    return ValueError, VLLMClientError


class VLLM:
    """A model in vLLM. The batch around a prompt may change its completion, seed or not."""

    batch_invariant = False

    def __init__(
        self,
        model: str,
        *,
        revision: str = "",
        window: int = WINDOW,
        engine: dict[str, Any] | None = None,
    ) -> None:
        """Load `model` (a Hub name or a folder); `engine` goes to `vllm.LLM` (e.g. `max_model_len`).

        Code from the model's repository is never run. Raises MissingExtra without vLLM, BackendError
        if the model cannot be loaded.
        """
        self._vllm = _import()
        self._refusals = _refusals()
        settings = {"seed": 0, **(engine or {}), "trust_remote_code": False}
        if revision:
            settings |= {"revision": revision, "tokenizer_revision": revision}
        broken: tuple[type[Exception], ...] = (OSError, RuntimeError, *self._refusals)
        try:
            self._llm = self._vllm.LLM(model=model, **settings)
        except broken as error:
            raise BackendError(f"vLLM cannot load {model}: {_line(error)}") from error
        self._window = window
        self.model = identity("vllm", model, revision)

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Yield the completions window by window: `LLM.generate` returns when its last prompt is done."""
        source = iter(requests)
        while window := list(islice(source, self._window)):
            yield from self._answer(self._llm.generate, [r for r in window if not r.messages])
            yield from self._answer(self._llm.chat, [r for r in window if r.messages])

    def score(self, requests: Iterable[ScoreRequest]) -> Iterator[Scores]:
        """Yield the scores window by window; each choice is a prompt of the engine, behind its own prompt."""
        source, most = iter(requests), min(self._window, SCORED)
        while window := list(islice(source, most)):
            rows: list[tuple[ScoreRequest, list[tuple[Ids, Ids]]]] = []
            for request in window:
                found = self._pairs(request)
                if isinstance(found, str):
                    yield Scores(request.key, error=found)
                else:
                    rows.append((request, found))
            pairs = [pair for _, own in rows for pair in own]
            sums: list[float | str] = []
            for at in range(0, len(pairs), most):
                sums += self._sums(pairs[at : at + most])
            rest = iter(sums)
            for request, own in rows:
                yield _scores(request, own, [next(rest) for _ in own])

    def _pairs(self, request: ScoreRequest) -> list[tuple[Ids, Ids]] | str:
        """Return the tokens of the prompt and of a choice, for each choice, or why there are none."""
        tokenizer = self._llm.get_tokenizer()
        prompt = prompt_tokens(tokenizer, request, self.model)
        if isinstance(prompt, str):
            return prompt
        choices = choice_tokens(tokenizer, request)
        return choices if isinstance(choices, str) else [(prompt, choice) for choice in choices]

    def _sums(self, pairs: list[tuple[Ids, Ids]]) -> list[float | str]:
        """Return the summed log-probabilities of each choice, or why there are none."""
        # vLLM writes one token at least. With prompt_logprobs it reads the whole prompt, cached or not.
        settings = self._vllm.SamplingParams(
            n=1, temperature=0, max_tokens=1, prompt_logprobs=1, detokenize=False
        )
        asked = [{"prompt_token_ids": prompt + choice} for prompt, choice in pairs]
        outputs = self._run(self._llm.generate, asked, [settings] * len(asked))
        return [o if isinstance(o, str) else _sum(o, *p) for o, p in zip(outputs, pairs, strict=True)]

    def _answer(self, call: Any, requests: list[Request]) -> Iterator[Completion]:
        asked = [_turns(r) if r.messages else r.prompt for r in requests]
        outputs = self._run(call, asked, [self._settings(r) for r in requests])
        for request, output in zip(requests, outputs, strict=True):
            if isinstance(output, str):
                yield Completion(request.key, finish="error", error=output)
            else:
                yield _completion(request, output)

    def _run(self, call: Any, asked: list[Any], settings: list[Any]) -> list[Any]:
        """Return the engine's output for each prompt, or a line that says why there is none."""
        if not asked:
            return []
        try:
            outputs = call(asked, settings, use_tqdm=False)
        except self._refusals as error:
            # vLLM checks prompts as it queues them, and one that is too long fails the whole call.
            if len(asked) == 1:
                return [_line(error)]
            half = len(asked) // 2
            return self._run(call, asked[:half], settings[:half]) + self._run(
                call, asked[half:], settings[half:]
            )
        except Exception as error:  # e.g. EngineDeadError: it will not answer anything any more
            raise BackendError(f"vLLM stopped: {type(error).__name__}: {_line(error)}") from error
        # Before 0.12 a failed call left its first prompts queued, and their outputs come first in the
        # next call (vllm-project/vllm issue 26081): ours are the last.
        return list(outputs[-len(asked) :])

    def _settings(self, request: Request) -> Any:
        s = request.sampling
        seed = s.seed if s.temperature > 0 else None
        closed: dict[str, Any] = {}
        if s.choices or s.grammar:
            from vllm.sampling_params import StructuredOutputsParams

            rule: dict[str, Any] = {"choice": list(s.choices)} if s.choices else {"grammar": s.grammar}
            closed["structured_outputs"] = StructuredOutputsParams(**rule)
        return self._vllm.SamplingParams(
            **closed,
            n=1,
            temperature=s.temperature,
            top_p=s.top_p if s.temperature > 0 else 1.0,
            max_tokens=s.max_tokens,
            stop=list(s.stop) or None,
            seed=seed,
        )


def _turns(request: Request) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in request.messages]


def _completion(request: Request, output: Any) -> Completion:
    best = output.outputs[0]
    prompt_tokens = len(output.prompt_token_ids or ())
    if best.finish_reason not in ("stop", "length"):
        why = f"vLLM ended the request as {best.finish_reason}"
        return Completion(request.key, finish="error", prompt_tokens=prompt_tokens, error=why)
    return Completion(request.key, best.text, best.finish_reason, prompt_tokens, len(best.token_ids))


def _sum(output: Any, prompt: Ids, choice: Ids) -> float | str:
    """Return a choice's log-probability: at each place the engine lists its token and the likeliest."""
    listed = output.prompt_logprobs
    if not listed:
        return f"vLLM ended the request as {output.outputs[0].finish_reason}, without log-probabilities"
    places = enumerate(choice, len(prompt))
    # The first token of all has no log-probability, the prompt has at least one.
    return fsum(float(listed[place][token].logprob) for place, token in places)


def _scores(request: ScoreRequest, pairs: list[tuple[Ids, Ids]], sums: list[float | str]) -> Scores:
    for found in sums:
        if isinstance(found, str):
            return Scores(request.key, error=found)
    logprobs = tuple(found for found in sums if isinstance(found, float))
    return Scores(request.key, logprobs, tuple(len(choice) for _, choice in pairs))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def create(name: str, revision: str, config: ModelConfig) -> VLLM:
    """Make the backend for `vllm:name[@revision]`; `deterministic` runs one request at a time."""
    engine = {"enable_prefix_caching": False} if config.deterministic else {}
    return VLLM(name, revision=revision, window=1 if config.deterministic else WINDOW, engine=engine)
