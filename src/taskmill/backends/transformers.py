"""Hugging Face transformers, on a GPU or the CPU: slower than the others, but runs every model.

Each row of a batch samples with the random numbers of its own seed, so neither its neighbours nor its
place in the batch changes what it draws; only the numerics of padding can.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from copy import copy
from inspect import signature
from itertools import groupby, islice
from typing import Any

from taskmill.backends import ModelConfig
from taskmill.backends.choices import with_choices
from taskmill.backends.prompt_tokens import Ids, choice_tokens, prompt_tokens
from taskmill.backends.weights import identity
from taskmill.calls import Completion, Request, Sampling, ScoreRequest, Scores
from taskmill.errors import BackendError, MissingExtra

__all__ = ["Transformers", "create", "engines"]

WINDOW = 8
"""Batches' worth of requests that are sorted by length together (chosen: little padding, little wait)."""


def engines() -> tuple[Any, Any]:
    """Return torch and transformers, telemetry off, threads that sleep; raises MissingExtra without them."""
    # The Hub client's telemetry is off before it is imported (huggingface_hub/constants.py).
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["DO_NOT_TRACK"] = "1"
    # OpenMP's threads spin while they wait for each other: beside a busy process, on the very core that the
    # awaited one needs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        import torch
        import transformers
    except ImportError as error:
        raise MissingExtra(error.name or "transformers", "train") from error
    return torch, transformers


class Transformers:
    """A causal language model in batches of similar length; invariant only in batches of one."""

    def __init__(
        self,
        model: str,
        *,
        revision: str = "",
        device: str = "auto",
        dtype: str = "auto",
        batch_size: int = 8,
    ) -> None:
        """Load `model` (a Hub name or a folder) from safetensors; code from its repository is never run.

        `device` "auto" takes a GPU if there is one; `dtype` "auto" is the checkpoint's own. Raises
        MissingExtra without the packages, BackendError if the model cannot be loaded.
        """
        self._torch, self._hf = engines()
        where = {"revision": revision} if revision else {}
        try:
            self._tokenizer = self._hf.AutoTokenizer.from_pretrained(
                model, trust_remote_code=False, padding_side="left", **where
            )
            loaded = self._hf.AutoModelForCausalLM.from_pretrained(
                model, dtype=dtype, trust_remote_code=False, use_safetensors=True, **where
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise BackendError(f"transformers cannot load {model}: {_line(error)}") from error
        self._device = _device(self._torch) if device == "auto" else device
        self._model = loaded.to(self._device).eval()
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        own = loaded.generation_config
        ends = own.eos_token_id if own.eos_token_id is not None else self._tokenizer.eos_token_id
        self._ends = set(ends) if isinstance(ends, (list, tuple)) else {ends} - {None}
        # A fresh configuration: the checkpoint's own sampling defaults (top_k, penalties) are not in the
        # call's key, so they must not act.
        loaded.generation_config = self._hf.GenerationConfig(
            do_sample=False,
            bos_token_id=own.bos_token_id,
            eos_token_id=sorted(self._ends) or None,
            pad_token_id=self._tokenizer.pad_token_id,
        )
        self._context = getattr(loaded.config, "max_position_embeddings", None) or 1 << 31
        self._accepts = set(signature(loaded.forward).parameters)
        self._batch_size = batch_size
        self.batch_invariant = batch_size == 1
        self.model = identity(
            "transformers", model, revision or getattr(loaded.config, "_commit_hash", "") or ""
        )

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Yield the completions batch by batch; requests that sample alike and are as long run together.

        Requests with choices are scored, in windows between the others.
        """
        yield from with_choices(requests, self._generate, self.score)

    def _generate(self, requests: Iterator[Request]) -> Iterator[Completion]:
        source = iter(requests)
        while window := list(islice(source, WINDOW * self._batch_size if self._batch_size > 1 else 1)):
            ready: list[tuple[Request, list[int]]] = []
            for request in window:
                ids = self._encode(request)
                if isinstance(ids, Completion):
                    yield ids
                else:
                    ready.append((request, ids))
            ready.sort(key=lambda pair: (_group(pair[0].sampling), -len(pair[1]), pair[0].key))
            for _, alike in groupby(ready, key=lambda pair: _group(pair[0].sampling)):
                while batch := list(islice(alike, self._batch_size)):
                    yield from self._run(batch)

    def score(self, requests: Iterable[ScoreRequest]) -> Iterator[Scores]:
        """Yield the scores batch by batch, prompts of similar length together."""
        source = iter(requests)
        while window := list(islice(source, WINDOW * self._batch_size if self._batch_size > 1 else 1)):
            ready: list[tuple[ScoreRequest, Ids, list[Ids]]] = []
            for request in window:
                found = self._choices(request)
                if isinstance(found, str):
                    yield Scores(request.key, error=found)
                else:
                    ready.append((request, *found))
            ready.sort(key=lambda row: (-len(row[1]), -max(map(len, row[2])), row[0].key))
            for at in range(0, len(ready), self._batch_size):
                batch = ready[at : at + self._batch_size]
                sums = self._sums([(prompt, choices) for _, prompt, choices in batch])
                for (request, _, choices), own in zip(batch, sums, strict=True):
                    yield Scores(request.key, tuple(own), tuple(map(len, choices)))

    def _choices(self, request: ScoreRequest) -> tuple[Ids, list[Ids]] | str:
        """Return the tokens of the prompt and of each choice, or why there are none."""
        prompt = prompt_tokens(self._tokenizer, request, self.model)
        if isinstance(prompt, str):
            return prompt
        choices = choice_tokens(self._tokenizer, request)
        if isinstance(choices, str):
            return choices
        if len(prompt) + max(map(len, choices)) > self._context:
            return f"the prompt has {len(prompt)} tokens, over {self._context} with a choice"
        return prompt, choices

    def _sums(self, rows: list[tuple[Ids, list[Ids]]]) -> list[list[float]]:
        """Return the summed log-probabilities of each row's choices; a batch that is too large is halved."""
        torch = self._torch
        pairs = [(row, choice) for row, (_, choices) in enumerate(rows) for choice in choices]
        try:
            with torch.inference_mode():
                if "past_key_values" in self._accepts:
                    found = self._behind(self._read([prompt for prompt, _ in rows]), pairs)
                else:  # a model that keeps another state between tokens: each choice behind its own prompt
                    whole = [(rows[row][0] + choice[:-1], choice) for row, choice in pairs]
                    found = [self._after(*one) for one in whole]
        except torch.OutOfMemoryError:
            if len(rows) == 1:
                why = f"out of memory with a prompt of {len(rows[0][0])} tokens; take shorter texts"
                raise BackendError(why) from None
            half = len(rows) // 2
            return self._sums(rows[:half]) + self._sums(rows[half:])
        sums = iter(found)
        return [[next(sums) for _ in choices] for _, choices in rows]

    def _read(self, prompts: list[Ids]) -> tuple[Any, Any, Any]:
        """Run prompts once; return their mask, the state behind them, and the logits of what follows."""
        padded = self._tokenizer.pad({"input_ids": prompts}, return_tensors="pt").to(self._device)
        mask = padded["attention_mask"]
        out = self._model(
            input_ids=padded["input_ids"], attention_mask=mask, use_cache=True,
            **self._known(position_ids=_places(mask), logits_to_keep=1),
        )  # fmt: skip
        return mask, out.past_key_values, out.logits[:, -1]

    def _behind(self, read: tuple[Any, Any, Any], pairs: list[tuple[int, Ids]]) -> list[float]:
        """Return the log-probability of each (prompt's row, choice), a batch of choices at a time."""
        torch, (mask, state, logits) = self._torch, read
        first = torch.log_softmax(logits.float(), dim=-1)
        sums = [float(first[row, choice[0]]) for row, choice in pairs]
        longer = [at for at, (_, choice) in enumerate(pairs) if len(choice) > 1]
        for start in range(0, len(longer), self._batch_size):
            batch = longer[start : start + self._batch_size]
            for at, more in zip(batch, self._rest(mask, state, [pairs[at] for at in batch]), strict=True):
                sums[at] += more
        return sums

    def _rest(self, mask: Any, state: Any, pairs: list[tuple[int, Ids]]) -> list[float]:
        """Return the log-probability of what follows each choice's first token."""
        torch = self._torch
        rows = torch.tensor([row for row, _ in pairs], device=self._device)
        own = [choice for _, choice in pairs]
        wide = max(map(len, own)) - 1
        # What pads a choice on its right is behind all that is read.
        ids = torch.tensor([c[:-1] + [0] * (wide + 1 - len(c)) for c in own], device=self._device)
        seen = torch.cat([mask[rows], torch.ones_like(ids)], dim=1)
        try:
            out = self._model(
                input_ids=ids, attention_mask=seen, past_key_values=_copied(state, rows), use_cache=True,
                **self._known(position_ids=_places(seen)[:, -wide:]),
            )  # fmt: skip
        except torch.OutOfMemoryError:
            if len(pairs) == 1:
                raise
            half = len(pairs) // 2
            return self._rest(mask, state, pairs[:half]) + self._rest(mask, state, pairs[half:])
        logprobs = torch.log_softmax(out.logits.float(), dim=-1)
        return [_picked(torch, row[: len(c) - 1], c[1:]) for row, c in zip(logprobs, own, strict=True)]

    def _after(self, ids: Ids, choice: Ids) -> float:
        """Return the log-probability of a choice whose tokens but the last end `ids`."""
        torch = self._torch
        out = self._model(input_ids=torch.tensor([ids], device=self._device))
        return _picked(torch, torch.log_softmax(out.logits[0, -len(choice) :].float(), dim=-1), choice)

    def _known(self, **arguments: Any) -> dict[str, Any]:
        return {name: value for name, value in arguments.items() if name in self._accepts}

    def _encode(self, request: Request) -> list[int] | Completion:
        """Return the prompt's tokens, or the failed completion."""
        ids = prompt_tokens(self._tokenizer, request, self.model)
        if isinstance(ids, str):
            return Completion(request.key, finish="error", error=ids)
        if len(ids) + request.sampling.max_tokens > self._context:
            why = f"the prompt has {len(ids)} tokens, over {self._context} with the reply"
            return Completion(request.key, finish="error", error=why)
        return ids

    def _run(self, batch: list[tuple[Request, list[int]]]) -> list[Completion]:
        torch = self._torch
        try:
            rows = self._continue(batch)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                why = f"out of memory with a prompt of {len(batch[0][1])} tokens"
                return [Completion(batch[0][0].key, finish="error", error=why)]
            half = len(batch) // 2
            return self._run(batch[:half]) + self._run(batch[half:])
        return [self._finish(r, len(ids), row) for (r, ids), row in zip(batch, rows, strict=True)]

    def _continue(self, batch: list[tuple[Request, list[int]]]) -> list[list[int]]:
        """Return the new tokens of each row, padding included."""
        torch, sampling = self._torch, [request.sampling for request, _ in batch]
        longest = max(s.max_tokens for s in sampling)
        padded = self._tokenizer.pad({"input_ids": [ids for _, ids in batch]}, return_tensors="pt")
        padded = padded.to(self._device)
        chosen = self._hf.LogitsProcessorList()
        if sampling[0].temperature > 0:
            chosen.append(self._hf.TemperatureLogitsWarper(sampling[0].temperature))
            if sampling[0].top_p < 1:
                chosen.append(self._hf.TopPLogitsWarper(sampling[0].top_p))
            chosen.append(_Draw(torch, [s.seed for s in sampling], longest, self._device))
        stop = (
            {"stop_strings": list(sampling[0].stop), "tokenizer": self._tokenizer} if sampling[0].stop else {}
        )
        with torch.inference_mode():
            out = self._model.generate(
                input_ids=padded["input_ids"],
                attention_mask=padded["attention_mask"],
                max_new_tokens=longest,
                logits_processor=chosen,
                **stop,
            )
        rows: list[list[int]] = out[:, padded["input_ids"].shape[1] :].tolist()
        return rows

    def _finish(self, request: Request, prompt_tokens: int, ids: list[int]) -> Completion:
        """Cut a row where it ended: at an end token, its padding, its own limit or a stop string."""
        finish, pad = "length", self._tokenizer.pad_token_id
        ids = ids[: request.sampling.max_tokens]
        for i, token in enumerate(ids):
            if token in self._ends or token == pad:
                ids, finish = ids[: i + (token in self._ends)], "stop"
                break
        text = self._tokenizer.decode(ids, skip_special_tokens=True)
        cuts = [at for stop in request.sampling.stop if (at := text.find(stop)) >= 0]
        if cuts:
            text, finish = text[: min(cuts)], "stop"
        return Completion(request.key, text, finish, prompt_tokens, len(ids))


class _Draw:
    """Samples each row by inverting its distribution at that row's next random number.

    A logits processor: it leaves only the drawn token possible, and greedy decoding takes it.
    """

    def __init__(self, torch: Any, seeds: list[int], steps: int, device: str) -> None:
        self._torch = torch
        drawn = [torch.rand(steps, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        self._numbers = torch.stack(drawn).to(device)
        self._step = 0

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        torch = self._torch
        shares = torch.softmax(scores.float(), dim=-1).cumsum(dim=-1)
        total = shares[:, -1:]
        target = self._numbers[:, self._step : self._step + 1] * total
        # Strictly between two sums, so that a token of probability 0 is never drawn.
        target = torch.minimum(target, torch.nextafter(total, torch.zeros_like(total)))
        token = torch.searchsorted(shares, target, right=True)
        self._step += 1
        return torch.full_like(scores, float("-inf")).scatter(1, token, 0.0)


def _places(mask: Any) -> Any:
    """Return the positions of tokens that are padded on the left."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def _copied(state: Any, rows: Any) -> Any:
    """Return the state of `rows`, as a beam search would take it; the first one stays as it is."""
    own = copy(state)
    own.layers = [copy(layer) for layer in state.layers]
    own.reorder_cache(rows)
    return own


def _picked(torch: Any, logprobs: Any, ids: Ids) -> float:
    wanted = torch.tensor(ids, device=logprobs.device)[:, None]
    return float(logprobs.gather(1, wanted).double().sum())


def _group(s: Sampling) -> tuple[float, float, tuple[str, ...]]:
    return (s.temperature, s.top_p if s.temperature > 0 else 1.0, s.stop)


def _device(torch: Any) -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def create(name: str, revision: str, config: ModelConfig) -> Transformers:
    """Make the backend for `transformers:name[@revision]`; `deterministic` runs one request at a time."""
    return Transformers(name, revision=revision, batch_size=1 if config.deterministic else 8)
