"""The training run: encode, plan, step, check, log, checkpoint; and exactly on from where it was killed."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

from taskmill.config import to_mapping
from taskmill.errors import BackendError, ConfigError, InputError
from taskmill.train import checkpoint, lean
from taskmill.train.base import (
    Base,
    adapter_digest,
    find,
    load_model,
    load_tokenizer,
    packages,
    precision,
    trainable,
)
from taskmill.train.batches import Step, micro_batches, plan
from taskmill.train.config import TrainConfig
from taskmill.train.encode import Encoded, Encoder, digest
from taskmill.train.folder import Log, finished, locked, start
from taskmill.train.loss import Supervised
from taskmill.train.memory import reused_memory
from taskmill.train.prefix import Layout, lay_out
from taskmill.train.result import describe, write_adapter, write_model
from taskmill.train.rows import TrainRow, split
from taskmill.train.tree import pad

__all__ = ["OnStep", "learning_rate", "train"]

FORMAT = 3
"""Of run folders; a change of batches, token streams or checkpoints raises it."""

SHOWN = 20
"""Refused rows whose reason the record holds (chosen); all are counted."""

_FREE = ("base", "checkpoint_minutes", "evaluations", "precision")
"""Settings that may change between sessions, or are held in another form (base, precision)."""


class OnStep(Protocol):
    """Called after every optimiser step."""

    def __call__(self, step: int, total: int, loss: float, tokens_per_s: float, eta_s: float) -> object:
        """Take the step just done, of `total`; its loss (nats per token); speed; seconds left."""


@dataclass
class Data:
    """Encoded rows to train and to validate on, and what became of all that were given."""

    rows: list[Encoded]
    valid: list[Encoded]
    counts: dict[str, Any] = field(default_factory=dict)


def train(
    rows: Iterable[TrainRow], config: TrainConfig, out: Path, on_progress: OnStep | None = None
) -> dict[str, Any]:
    """Train on the rows and return the record written to `out`/adapter/taskmill.json (or model/).

    The same call continues a run that was stopped, from its last checkpoint and to the same weights; on
    a finished one it returns the record. Raises ConfigError if `out` holds another run, InputError if no
    row can be trained on, BackendError if the base cannot be loaded or the loss is not a number.
    """
    config, out = config.resolved(), Path(out)
    torch, _, _ = packages()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = precision(config, torch, device)
    with locked(out):
        base = find(config.base)
        tokenizer = load_tokenizer(base)
        data = prepare(rows, config, tokenizer)
        start(out, _identity(base, config, data, kind, device))
        target = out / ("model" if config.method == "full" else "adapter")
        done = finished(target)
        if done is not None:
            return done
        with reused_memory(), torch.random.fork_rng():
            torch.manual_seed(config.seed)
            model = trainable(load_model(base, config, kind, device), base, config)
            lean.apply(model)
            run = Run(model, data, config, out, kind, device, torch)
            run.work(on_progress)
            counts = data.counts | {"read": run.read}
            record = describe(base, config, counts, run.summary(), adapter_digest(config.init_adapter))
            write = write_model if config.method == "full" else write_adapter
            result = write(target, model, tokenizer, record)
        checkpoint.clear(out / "checkpoints")
        return result


def prepare(rows: Iterable[TrainRow], config: TrainConfig, tokenizer: Any) -> Data:
    """Encode rows and split them by passage. Raises InputError if none can be trained on."""
    encoder = Encoder(tokenizer, config.max_length)
    found = list(encoder.encode(rows))
    if not found:
        why = f": {encoder.refused[0].why}" if encoder.refused else ""
        raise InputError(f"there is no row to train on ({encoder.seen} given{why})")
    kept, held = split([row.group for row in found], config.valid_share, config.seed)
    own, valid = [found[i] for i in kept], [found[i] for i in held]
    counts = {
        "rows": encoder.seen,
        "train": len(kept),
        "valid": len(held),
        "cut": sum(row.cut for row in found),
        "refused": len(encoder.refused),
        "refusals": [{"row": r.index, "why": r.why} for r in encoder.refused[:SHOWN]],
        "tokens": sum(len(row.ids) for row in own),
        "supervised": sum(row.supervised for row in own),
        "sha256": digest([*own, *valid]),
    }
    return Data(own, valid, counts)


def _identity(base: Base, config: TrainConfig, data: Data, kind: str, device: str) -> dict[str, Any]:
    settings = {key: value for key, value in to_mapping(config).items() if key not in _FREE}
    # Runs that were begun before there was such a setting go on: it stands there only where it is used.
    settings.pop("init_adapter")
    if config.init_adapter:
        settings["init_adapter"] = adapter_digest(config.init_adapter)
    return {
        "format": FORMAT,
        "base": base.record(),
        "config": settings,
        "data": {key: data.counts[key] for key in ("rows", "train", "valid", "sha256")},
        "precision": kind,
        "device": device,
    }


def learning_rate(step: int, total: int, config: TrainConfig) -> float:
    """Return the rate of step `step` (from 0): a linear fall to 0, after a linear rise for `warmup`."""
    warm = math.ceil(config.warmup * total) if config.schedule == "warmup" else 0
    if step < warm:
        return config.lr * (step + 1) / (warm + 1)
    return config.lr * (total - step) / max(1, total - warm)


class Run:
    """The state of a run: model, optimiser, and how far it is. `ahead`: tokens up to each step's end."""

    def __init__(
        self, model: Any, data: Data, config: TrainConfig, out: Path, kind: str, device: str, torch: Any
    ) -> None:
        self.model, self.data, self.config, self.out, self.torch = model, data, config, out, torch
        self.kind, self.device = kind, device
        base = model if config.method == "full" else model.get_base_model()
        self.supervised = Supervised(model, base.get_output_embeddings(), torch)
        self.layout = self.lay_out(base)
        self.lengths = [len(tree) for tree in self.layout.rows]
        self.read = sum(self.lengths)
        self.steps = plan(self.lengths, config, [len(tree.rows) for tree in self.layout.rows])
        self.ahead = list(accumulate(sum(self.lengths[i] for i in step) for step in self.steps))
        self.weights = [p for p in model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(
            self.weights, lr=config.lr, weight_decay=config.weight_decay, fused=device == "cpu"
        )
        self.step = self.tokens = 0
        self.earlier = 0.0
        self.padded = 0

    @property
    def elapsed(self) -> float:
        """Return seconds of training, earlier sessions included."""
        return self.earlier + time.monotonic() - self.started

    def lay_out(self, base: Any) -> Layout:
        """Return how the rows pass through the model; `base` is the model without the adapter's wrapping."""
        config, data = self.config, self.data
        self.model.eval()
        with self.autocast():
            return lay_out(
                data.rows, data.valid, base, self.supervised, config.prefix, config.max_length, self.kind
            )

    def work(self, on_progress: OnStep | None) -> None:
        """Train from the last checkpoint, or the start, to the end."""
        folder, total = self.out / "checkpoints", len(self.steps)
        found = checkpoint.latest(folder)
        if found is not None:
            state = checkpoint.restore(found, self.model, self.optimiser, self.torch)
            self.step, self.tokens, self.earlier = state["step"], state["tokens"], state["elapsed_s"]
            self.padded = state["padded"]
            if state["prefix"] != self.layout.prefix:
                raise ConfigError(
                    f"the checkpoint {found} was made with prefix {state['prefix']}, now "
                    f"{self.layout.prefix} is in force ({self.layout.why}); choose another out folder"
                )
        self.started = time.monotonic()
        self.log = Log(self.out / "log.jsonl", self.step)
        due = evaluation_steps(total, self.config.evaluations) if self.data.valid else set()
        if not self.step and due:
            self.log.add(step=0, tokens=0, valid_loss=self.evaluate(), elapsed_s=round(self.elapsed, 1))
        saved = time.monotonic()
        while self.step < total:
            rows = self.steps[self.step]
            line = self.one(rows, learning_rate(self.step, total, self.config))
            if self.step in due:
                line["valid_loss"] = self.evaluate()
            self.log.add(**line, elapsed_s=round(self.elapsed, 1))
            if on_progress is not None:
                left = self.ahead[-1] - self.ahead[self.step - 1]
                on_progress(
                    self.step, total, line["loss"], line["tokens_per_s"], left * self.elapsed / self.tokens
                )
            if time.monotonic() - saved >= 60 * self.config.checkpoint_minutes or self.step == total:
                checkpoint.save(folder, self.step, self.model, self.optimiser, self.state(), self.torch)
                saved = time.monotonic()

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps besides step, weights, moments and the generator's state."""
        return {
            "tokens": self.tokens,
            "padded": self.padded,
            "elapsed_s": round(self.elapsed, 3),
            "prefix": self.layout.prefix,
        }

    def one(self, indices: Step, rate: float) -> dict[str, Any]:
        """Take one optimiser step on these rows and return its line for the log."""
        begun = time.monotonic()
        self.model.train()
        count = sum(self.layout.rows[i].supervised for i in indices)
        summed = 0.0
        for micro in micro_batches(indices, self.lengths, self.config.micro_tokens):
            batch = pad([self.layout.rows[i] for i in micro], self.torch, self.device)
            self.padded += batch.ids.numel()
            with self.autocast():
                loss = self.supervised.loss(batch)
            (loss / count).backward()
            summed += loss.item()
        if not math.isfinite(summed):
            raise BackendError(
                f"the loss of step {self.step + 1} is not a number; take a lower lr (now {self.config.lr:g}) "
                "in another out folder"
            )
        self.torch.nn.utils.clip_grad_norm_(self.weights, self.config.clip)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        tokens = sum(self.lengths[i] for i in indices)
        self.step, self.tokens = self.step + 1, self.tokens + tokens
        return {
            "step": self.step,
            "tokens": self.tokens,
            "loss": summed / count,
            "lr": rate,
            "tokens_per_s": round(tokens / (time.monotonic() - begun), 1),
        }

    def evaluate(self) -> float:
        """Return the mean loss (nats per supervised token) of the validation rows."""
        rows, summed = self.layout.valid, 0.0
        self.model.eval()
        with self.torch.no_grad(), self.autocast():
            for micro in micro_batches(range(len(rows)), [len(t) for t in rows], self.config.micro_tokens):
                batch = pad([rows[i] for i in micro], self.torch, self.device)
                summed += self.supervised.loss(batch).item()
        return summed / sum(row.supervised for row in rows)

    def autocast(self) -> Any:
        """Return the context in which weights of fp32 meet a base of bf16."""
        if self.kind != "bf16":
            return nullcontext()
        return self.torch.autocast(self.device, dtype=self.torch.bfloat16)

    def summary(self) -> dict[str, Any]:
        """Return what the record says of how the run went."""
        losses = [line["loss"] for line in self.log.lines if "loss" in line]
        valid = [line["valid_loss"] for line in self.log.lines if "valid_loss" in line]
        last = losses[-max(1, len(losses) // 10) :]
        return {
            "steps": self.step,
            "tokens": self.tokens,
            "padding": round(1 - self.tokens / self.padded, 4),
            "elapsed_s": round(self.elapsed, 1),
            "tokens_per_s": round(self.tokens / self.elapsed, 1),
            "precision": self.kind,
            "device": self.device,
            "prefix": self.layout.record(),
            "loss": {
                "train_first": losses[0],
                "train_last_tenth": sum(last) / len(last),
                **({"valid_first": valid[0], "valid_last": valid[-1]} if valid else {}),
            },
        }


def evaluation_steps(total: int, times: int) -> set[int]:
    """Return the steps after which the validation loss is taken: evenly spaced, the last included."""
    return {math.ceil(total * i / times) for i in range(1, times + 1)}
