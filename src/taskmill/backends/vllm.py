"""vLLM's offline engine, for a GPU in this machine. Its server is reached through the openai backend."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from taskmill.backends import ModelConfig
from taskmill.backends.weights import identity
from taskmill.calls import Completion, Request
from taskmill.errors import BackendError, MissingExtra

__all__ = ["VLLM", "create"]

WINDOW = 1024
"""Requests handed to the engine at once (chosen: four times vLLM's default of 256 running sequences, so
that the batch stays full while the window's last answers are written)."""


def _import() -> Any:
    # Usage statistics are off before the package can look (docs.vllm.ai, "Usage Stats Collection").
    os.environ["VLLM_NO_USAGE_STATS"] = "1"
    os.environ["DO_NOT_TRACK"] = "1"
    try:
        import vllm
    except ImportError as error:
        raise MissingExtra("vllm", "vllm") from error
    return vllm


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
        settings = {"seed": 0, **(engine or {}), "trust_remote_code": False}
        if revision:
            settings |= {"revision": revision, "tokenizer_revision": revision}
        try:
            self._llm = self._vllm.LLM(model=model, **settings)
        except (OSError, RuntimeError, ValueError) as error:
            raise BackendError(f"vLLM cannot load {model}: {_line(error)}") from error
        self._window = window
        self.model = identity("vllm", model, revision)

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Yield the completions window by window: `LLM.generate` returns when its last prompt is done."""
        source = iter(requests)
        while window := list(islice(source, self._window)):
            yield from self._answer(self._llm.generate, [r for r in window if not r.messages])
            yield from self._answer(self._llm.chat, [r for r in window if r.messages])

    def _answer(self, call: Any, requests: list[Request]) -> Iterator[Completion]:
        if not requests:
            return
        asked = [_turns(r) if r.messages else r.prompt for r in requests]
        try:
            outputs = call(asked, [self._settings(r) for r in requests], use_tqdm=False)
        except ValueError as error:
            # vLLM checks prompts as it queues them, and one that is too long fails the whole call.
            if len(requests) == 1:
                yield Completion(requests[0].key, finish="error", error=_line(error))
                return
            half = len(requests) // 2
            yield from self._answer(call, requests[:half])
            yield from self._answer(call, requests[half:])
            return
        except Exception as error:  # e.g. EngineDeadError: it will not answer anything any more
            raise BackendError(f"vLLM stopped: {type(error).__name__}: {_line(error)}") from error
        # Before 0.12 a failed call left its first prompts queued, and their outputs come first in the
        # next call (vllm-project/vllm issue 26081): ours are the last.
        for request, output in zip(requests, outputs[-len(requests) :], strict=True):
            yield _completion(request, output)

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


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def create(name: str, revision: str, config: ModelConfig) -> VLLM:
    """Make the backend for `vllm:name[@revision]`; `deterministic` runs one request at a time."""
    engine = {"enable_prefix_caching": False} if config.deterministic else {}
    return VLLM(name, revision=revision, window=1 if config.deterministic else WINDOW, engine=engine)
