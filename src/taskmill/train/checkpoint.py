"""Checkpoints that are whole or not there, and that continue a run bit for bit.

    OUT/checkpoints/step-00000120/  weights.safetensors  optimiser.safetensors  state.json

A checkpoint is written under a temporary name, fsynced and renamed; nothing in it is pickled.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from taskmill.durable import sync_directory, write_point
from taskmill.errors import ConfigError, InputError

__all__ = ["clear", "latest", "restore", "save"]

_NAME = re.compile(r"step-(\d{8})")
KEPT = 2
"""Checkpoints kept: the last, and the one before in case a disk loses the last."""


def save(folder: Path, step: int, model: Any, optimiser: Any, extra: dict[str, Any], torch: Any) -> Path:
    """Write checkpoint `step` whole, drop all but the last two, and return its folder.

    `extra` is JSON: what the loop needs besides weights, moments and the generator's state.
    """
    from safetensors.torch import save_file

    temporary, final = folder / f".step-{step:08d}.tmp", folder / f"step-{step:08d}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    weights = {name: p.detach().cpu().contiguous() for name, p in parameters.items()}
    save_file(weights, temporary / "weights.safetensors")
    moments = {"rng": torch.get_rng_state()}
    if torch.cuda.is_available():
        moments["rng.cuda"] = torch.cuda.get_rng_state()
    for name, parameter in parameters.items():
        for key, value in optimiser.state[parameter].items():
            moments[f"{key}:{name}"] = torch.as_tensor(value).detach().cpu().contiguous()
    save_file(moments, temporary / "optimiser.safetensors")
    (temporary / "state.json").write_text(json.dumps({"step": step, **extra}, sort_keys=True))
    write_point(f"checkpoint {step} written")
    for file in temporary.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    sync_directory(temporary)
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    sync_directory(folder)
    write_point(f"checkpoint {step} renamed")
    for old in _whole(folder)[:-KEPT]:
        _remove(old)
    return final


def _remove(checkpoint: Path) -> None:
    """Remove a checkpoint so that a kill on the way leaves no part of one under its name."""
    gone = checkpoint.with_name(f".{checkpoint.name}.old")
    shutil.rmtree(gone, ignore_errors=True)
    checkpoint.rename(gone)
    shutil.rmtree(gone)


def _whole(folder: Path) -> list[Path]:
    found = [p for p in folder.iterdir() if _NAME.fullmatch(p.name)] if folder.is_dir() else []
    return sorted(found, key=lambda p: p.name)


def latest(folder: Path) -> Path | None:
    """Return the last whole checkpoint, and clear away what a kill left half-written."""
    if folder.is_dir():
        for left in folder.glob(".step-*"):
            shutil.rmtree(left, ignore_errors=True)
    return next(reversed(_whole(folder)), None)


def restore(checkpoint: Path, model: Any, optimiser: Any, torch: Any) -> dict[str, Any]:
    """Put weights, moments and the generator's state back, and return the state's JSON.

    Raises InputError if a file is damaged, ConfigError if the weights are not those of this model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state: dict[str, Any] = json.loads((checkpoint / "state.json").read_text())
        weights = load_file(checkpoint / "weights.safetensors")
        moments = load_file(checkpoint / "optimiser.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(
            f"the checkpoint {checkpoint} is damaged ({error}); "
            "remove its folder to go on from the one before"
        ) from error
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    fits = weights.keys() == parameters.keys()
    if not fits or any(weights[name].shape != p.shape for name, p in parameters.items()):
        raise ConfigError(
            f"the checkpoint {checkpoint} is of another model or rank; choose another out folder"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
    torch.set_rng_state(moments.pop("rng"))
    cuda = moments.pop("rng.cuda", None)
    if cuda is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(cuda)
    for key_name, value in moments.items():
        key, _, name = key_name.partition(":")
        parameter = parameters[name]
        # AdamW keeps its step count on the CPU, whatever the device of the weights.
        optimiser.state[parameter][key] = value if value.ndim == 0 else value.to(parameter.device)
    return state


def clear(folder: Path) -> None:
    """Remove all checkpoints of a run that is finished."""
    for found in _whole(folder):
        _remove(found)
    shutil.rmtree(folder, ignore_errors=True)
