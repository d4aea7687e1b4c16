"""Weights added and scaled: what was learned on one model, put on another of the same shape.

The instruction residual: with θ_base, what continual pre-training made of it (θ_trained) and the instruct
model of the same base, θ_instruct + scale · (θ_trained - θ_base) reads the domain and still follows
instructions (task arithmetic, arXiv 2212.04089; for continual pre-training, arXiv 2410.10739). An adapter is
that difference already: on the instruct model, scaled, it is the same sum.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from taskmill.errors import ConfigError
from taskmill.store import read_json
from taskmill.train.base import packages
from taskmill.train.folder import publish

__all__ = ["add_residual", "scaled_adapter"]

_SHOWN = 3


def scaled_adapter(adapter: Path, out: Path, scale: float) -> None:
    """Write a LoRA adapter that adds `scale` times as much to each weight: its matrices B times `scale`.

    Raises ConfigError for a folder without an adapter, or with one whose matrices have other names.
    """
    packages()
    from safetensors.torch import load_file, save_file

    file = adapter / "adapter_model.safetensors"
    if not file.exists():
        raise ConfigError(f"{adapter} holds no adapter; train with method lora, or keep what was trained")
    weights = load_file(file)
    odd = [name for name in weights if ".lora_A." not in name and ".lora_B." not in name]
    if odd:
        raise ConfigError(f"{file} holds {odd[0]}, which is no matrix of LoRA; only plain LoRA can be scaled")
    scaled = {name: value * scale if ".lora_B." in name else value for name, value in weights.items()}
    with publish(out, {"scale": scale, "of": read_json(adapter / "taskmill.json")}) as folder:
        save_file(scaled, folder / file.name, metadata={"format": "pt"})
        shutil.copy(adapter / "adapter_config.json", folder)


def add_residual(trained: Path, instruct: Path, base: Path, out: Path, scale: float = 1.0) -> None:
    """Write the model θ_instruct + scale · (θ_trained - θ_base) with the instruct model's tokenizer.

    The folders hold safetensors; sums are made in fp32 and kept as the trained model's numbers are, a file of
    it in memory at a time. Raises ConfigError where a folder has no safetensors, or names or shapes differ.
    """
    torch, _, _ = packages()
    from safetensors.torch import load_file, save_file

    with _opened(instruct) as other, _opened(base) as own, _opened(trained) as learned:
        _same(trained, _shapes(learned), instruct, _shapes(other))
        _same(trained, _shapes(learned), base, _shapes(own))
        with publish(out, {"scale": scale, "kind": "residual"}) as folder:
            for file in sorted(trained.glob("*.safetensors")):
                sums = {}
                for name, value in load_file(file).items():
                    change = value.float() - own[name].get_tensor(name).float()
                    whole = other[name].get_tensor(name).float() + scale * change
                    sums[name] = whole.to(value.dtype).contiguous()
                    if not torch.isfinite(sums[name]).all():
                        raise ConfigError(f"{name} is no number after the merge; take a smaller scale")
                save_file(sums, folder / file.name, metadata={"format": "pt"})
            _copy_rest(instruct, trained, folder)


@contextmanager
def _opened(folder: Path) -> Iterator[dict[str, Any]]:
    """Give the open file of each tensor of a model."""
    from safetensors import safe_open

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ConfigError(f"{folder} holds no safetensors; a merge of whole models needs folders that do")
    with ExitStack() as stack:
        handles = [stack.enter_context(safe_open(str(file), framework="pt")) for file in files]
        yield {name: handle for handle in handles for name in handle.keys()}  # noqa: SIM118 - no mapping


def _shapes(tensors: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(handle.get_slice(name).get_shape()) for name, handle in tensors.items()}


def _same(
    one: Path, shapes: dict[str, tuple[int, ...]], other: Path, theirs: dict[str, tuple[int, ...]]
) -> None:
    differs = [
        f"{name}: {list(shapes.get(name, ())) or 'not there'} and {list(theirs.get(name, ())) or 'not there'}"
        for name in sorted({*shapes, *theirs})
        if shapes.get(name) != theirs.get(name)
    ]
    if differs:
        more = f" and {len(differs) - _SHOWN} more" if len(differs) > _SHOWN else ""
        raise ConfigError(
            f"{one.name} and {other.name} are no models of one shape ({'; '.join(differs[:_SHOWN])}{more}); "
            "name models of the same base"
        )


def _copy_rest(instruct: Path, trained: Path, folder: Path) -> None:
    """Copy what a model needs beside its weights: the instruct model's files, the trained one's index."""
    for file in sorted(instruct.iterdir()):
        if file.suffix in (".json", ".jinja", ".model", ".txt") and not file.name.endswith(".index.json"):
            shutil.copy(file, folder)
    index = trained / "model.safetensors.index.json"
    if index.exists():
        (folder / index.name).write_text(json.dumps(read_json(index)))
