"""How a training run is done: every knob with its help text, and the two presets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from taskmill.errors import ConfigError

__all__ = ["PRESETS", "TrainConfig"]

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # Chosen for two CPU cores and an hour: an adapter of 10 MB for a model of 135M parameters.
    "laptop": {
        "method": "lora",
        "rank": 16,
        "alpha": 32.0,
        "lr": 4e-4,
        "schedule": "warmup",
        "prefix": "shared",
        "clip": 1.0,
        "batch_tokens": 6144,
        "epochs": 1.0,
        "max_length": 1024,
    },
    # The recipe of Bonito's generator (arXiv 2402.18334, and training/train_decoder.py of its
    # experiment repository): alpha 16 is the code's default, 2,048 tokens are the model card's.
    "paper": {
        "method": "qlora",
        "rank": 64,
        "alpha": 16.0,
        "lr": 1e-4,
        "schedule": "linear",
        "prefix": "own",
        "clip": 0.3,
        "batch_rows": 16,
        "epochs": 1.0,
        "max_steps": 100_000,
        "max_length": 2048,
    },
}


STEP_TOKENS = 512
"""Tokens of a small optimiser step (chosen: with the laptop preset's 6,144 some dozen rows would be one step,
and a student hardly trained; in one trial, of 86 rows, one seed and 40 questions, 512 did better than 1,024
and 256)."""


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """What is trained, and how. A 0 or empty value means the preset's own; `resolved` fills them in."""

    base: str = field(
        default="smollm2-135m",
        metadata={
            "help": "model to start from: smollm2-135m, a folder, a GGUF file, or a Hub name[@revision]"
        },
    )
    init_adapter: str = field(
        default="",
        metadata={
            "help": "adapter to go on from, of the same base and rank: a folder, or bonito-smollm2-135m; "
            "default: a fresh one"
        },
    )
    preset: str = field(
        default="laptop",
        metadata={
            "help": "values of everything left out; paper: Bonito's own recipe",
            "choices": tuple(PRESETS),
        },
    )
    method: str = field(
        default="",
        metadata={
            "help": "lora, qlora (4-bit base, needs a GPU) or full; default: the preset's",
            "choices": ("", "lora", "qlora", "full"),
        },
    )
    rank: int = field(default=0, metadata={"help": "rank of the adapter (laptop 16, paper 64)"})
    alpha: float = field(
        default=0.0, metadata={"help": "scale of the adapter times its rank (laptop 32, paper 16)"}
    )
    dropout: float = field(default=0.0, metadata={"help": "dropout before the adapter"})
    lr: float = field(default=0.0, metadata={"help": "highest learning rate (laptop 4e-4, paper 1e-4)"})
    schedule: str = field(
        default="",
        metadata={
            "help": "linear: falls to 0; warmup: rises first (laptop warmup, paper linear)",
            "choices": ("", "linear", "warmup"),
        },
    )
    prefix: str = field(
        default="",
        metadata={
            "help": "shared: rows of one passage that begin alike pass through the model as one; "
            "own: each by itself, as with models that cannot share (laptop shared, paper own)",
            "choices": ("", "shared", "own"),
        },
    )
    warmup: float = field(default=0.03, metadata={"help": "share of the steps that warm up"})
    weight_decay: float = field(default=0.0, metadata={"help": "weight decay of AdamW"})
    clip: float = field(default=0.0, metadata={"help": "largest norm of a gradient (laptop 1, paper 0.3)"})
    batch_tokens: int = field(
        default=0, metadata={"help": "tokens of one optimiser step, about (laptop 6144)"}
    )
    batch_rows: int = field(
        default=0, metadata={"help": "rows of one optimiser step, instead of a token count (paper 16)"}
    )
    micro_tokens: int = field(
        default=2048, metadata={"help": "most tokens, padding included, that pass through the model at once"}
    )
    epochs: float = field(default=0.0, metadata={"help": "passes over the rows, at most (1)"})
    max_steps: int = field(
        default=0,
        metadata={"help": "optimiser steps, at most (paper 100000; laptop as many as the epochs have)"},
    )
    max_length: int = field(
        default=0,
        metadata={"help": "tokens of a row; a longer passage is cut in its middle (1024, paper 2048)"},
    )
    seed: int = field(default=0, metadata={"help": "seed of the split, the order and the adapter's start"})
    valid_share: float = field(
        default=0.02, metadata={"help": "share of the rows kept for validation, by passage"}
    )
    evaluations: int = field(
        default=8, metadata={"help": "times the validation loss is taken after the start; 0: never"}
    )
    checkpoint_minutes: float = field(default=5.0, metadata={"help": "minutes between checkpoints"})
    precision: str = field(
        default="auto",
        metadata={
            "help": "numbers of the base model; auto: bf16 where the hardware is fast at it",
            "choices": ("auto", "bf16", "fp32"),
        },
    )
    gradient_checkpointing: bool = field(
        default=False, metadata={"help": "take less memory and a third more time"}
    )

    def small_steps(self, tokens: int = STEP_TOKENS) -> TrainConfig:
        """Return it with steps of about `tokens` tokens, unless a step's size or a preset was asked for."""
        asked = self.batch_tokens or self.batch_rows or self.preset != "laptop"
        return self if asked else dataclasses.replace(self, batch_tokens=tokens)

    def resolved(self) -> TrainConfig:
        """Return the configuration with every value of the preset written out.

        Raises ConfigError for a value that cannot be trained with.
        """
        if self.preset not in PRESETS:
            raise ConfigError(f"no preset {self.preset!r}; take one of: {', '.join(PRESETS)}")
        values = dict(PRESETS[self.preset])
        # A step is measured in tokens or in rows; whichever is given replaces the preset's.
        if self.batch_rows or self.batch_tokens:
            values |= {"batch_rows": 0, "batch_tokens": 0}
        filled = dataclasses.replace(self, **{k: v for k, v in values.items() if not getattr(self, k)})
        filled._check()
        return filled

    def _check(self) -> None:
        for f in dataclasses.fields(self):
            choices, value = f.metadata.get("choices"), getattr(self, f.name)
            if choices and value not in choices:
                raise ConfigError(f"{f.name}: {value!r} is none of {', '.join(filter(None, choices))}")
        if self.batch_rows and self.batch_tokens:
            raise ConfigError("batch_rows and batch_tokens both given; keep one of them")
        if self.init_adapter and self.method == "full":
            raise ConfigError(
                "method full trains no adapter; leave init_adapter out and name the model as base"
            )
        for name, low, high in (("dropout", 0, 1), ("valid_share", 0, 1), ("warmup", 0, 1)):
            if not low <= getattr(self, name) < high:
                raise ConfigError(f"{name}: {getattr(self, name)} is not a share from 0 to below 1")
        for name in ("rank", "alpha", "lr", "clip", "micro_tokens", "epochs", "max_length"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}: {getattr(self, name)} must be above 0")
