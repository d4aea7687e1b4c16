"""A LoRA adapter as PEFT saves it, read with numpy alone: `read_adapter`.

adapter_model.safetensors   A (r × in) and B (out × r) for each adapted matrix
adapter_config.json         r, lora_alpha, and the variant
taskmill.json               what it was trained on: {"base": {"name": …, "sha256": …}, …}
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskmill.errors import BackendError, MissingExtra

__all__ = ["Adapter", "Pair", "read_adapter"]

WEIGHTS, CONFIG, RECORD = "adapter_model.safetensors", "adapter_config.json", "taskmill.json"

MATRICES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""Name of a matrix in a transformers llama → in a GGUF llama (gguf.constants.TENSOR_NAMES)."""

TENSOR = re.compile(r"base_model\.model\.model\.layers\.(\d+)\.(\w+\.\w+)\.lora_([AB])\.weight")

VARIANTS = (
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "fan_in_fan_out",
    "modules_to_save",
    "trainable_token_indices",
    "target_parameters",
    "layer_replication",
    "rank_pattern",
    "alpha_pattern",
    "alora_invocation_tokens",
    "arrow_config",
)
"""Settings of a PEFT LoraConfig with which W + scale · B · A is not what the model computes."""

PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "eva")
"""`init_lora_weights` that leave the base's weights as they are; the others (PiSSA, OLoRA …) change them."""


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """What is added to one matrix: scale · b · a; `a` is r × in, `b` out × r, both float32."""

    name: str
    a: NDArray[np.float32]
    b: NDArray[np.float32]
    scale: float


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """An adapter in memory. `pairs` is keyed by GGUF tensor name; `sha256` hashes its file and the scale."""

    folder: Path
    sha256: str
    base_name: str
    base_sha256: str
    pairs: dict[str, Pair]


def read_adapter(folder: Path) -> Adapter:
    """Read an adapter folder whole.

    Raises BackendError naming the file if one is missing or damaged, or if the adapter is of a kind that
    cannot be merged; MissingExtra without the package safetensors.
    """
    config, record = _json(folder / CONFIG), _json(folder / RECORD)
    _refuse_variants(config, folder / CONFIG)
    base = record.get("base")
    if not isinstance(base, dict) or not isinstance(base.get("sha256"), str):
        raise BackendError(
            f'{folder / RECORD} does not say which model the adapter is for: "base" has no "sha256"'
        )
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if (
        not isinstance(rank, int)
        or rank < 1
        or not isinstance(alpha, int | float)
        or not math.isfinite(alpha)
    ):
        raise BackendError(f"{folder / CONFIG} has no usable r and lora_alpha: {rank!r}, {alpha!r}")
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    try:
        data = (folder / WEIGHTS).read_bytes()
    except OSError as error:
        raise _missing(folder / WEIGHTS, error) from error
    pairs = _pairs(_tensors(data, folder / WEIGHTS), rank, scale, folder / WEIGHTS)
    # What determines the merged weights. Not the settings' bytes: PEFT writes its lists in any order.
    sha256 = hashlib.sha256(hashlib.sha256(data).digest() + f"{scale!r}".encode()).hexdigest()
    return Adapter(folder, sha256, str(base.get("name", "?")), base["sha256"], pairs)


def _missing(path: Path, error: OSError) -> BackendError:
    return BackendError(
        f"{path} cannot be read ({error.strerror or error}); an adapter folder holds {WEIGHTS}, {CONFIG} and "
        f"{RECORD}, as `taskmill train` writes them"
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise _missing(path, error) from error
    except ValueError as error:
        raise BackendError(f"{path} is damaged (no JSON): {error}") from error
    if not isinstance(found, dict):
        raise BackendError(f"{path} is damaged: it holds no JSON object")
    return found


def _refuse_variants(config: dict[str, Any], path: Path) -> None:
    hint = "train a plain LoRA adapter, or merge it with PEFT and serve the result as transformers:FOLDER"
    if config.get("peft_type") != "LORA":
        raise BackendError(
            f"{path}: peft_type is {config.get('peft_type')!r}, only LORA can be merged; {hint}"
        )
    wrong = [key for key in VARIANTS if config.get(key)]
    if config.get("bias", "none") != "none":
        wrong.append("bias")
    if config.get("init_lora_weights", True) not in PLAIN_STARTS:
        wrong.append("init_lora_weights")
    if wrong:
        raise BackendError(f"{path}: {wrong[0]} = {config[wrong[0]]!r} cannot be merged; {hint}")


def _tensors(data: bytes, path: Path) -> dict[str, NDArray[np.float32]]:
    """Return every tensor as float32. The numpy API of safetensors has no bfloat16, its parser does."""
    try:
        from safetensors import SafetensorError, deserialize
    except ImportError as error:
        raise MissingExtra("safetensors", "local") from error
    try:
        found = deserialize(data)
    except SafetensorError as error:
        raise BackendError(f"{path} is no whole safetensors file: {error}") from error
    return {name: _float32(name, entry, path) for name, entry in found}


def _float32(name: str, entry: dict[str, Any], path: Path) -> NDArray[np.float32]:
    match entry["dtype"]:
        case "BF16":  # the upper half of a float32
            flat = (np.frombuffer(entry["data"], "<u2").astype("<u4") << 16).view("<f4")
        case "F16":
            flat = np.frombuffer(entry["data"], "<f2").astype(np.float32)
        case "F32":
            flat = np.frombuffer(entry["data"], "<f4")
        case other:
            raise BackendError(f"{path}: {name} is of type {other}; adapters are BF16, F16 or F32")
    if not np.isfinite(flat).all():
        raise BackendError(f"{path}: {name} holds values that are not finite: the training diverged")
    return flat.reshape(entry["shape"]).astype(np.float32, copy=False)


def _pairs(tensors: dict[str, NDArray[np.float32]], rank: int, scale: float, path: Path) -> dict[str, Pair]:
    halves: dict[str, dict[str, NDArray[np.float32]]] = {}
    for name, tensor in tensors.items():
        match = TENSOR.fullmatch(name)
        if match is None or match[2] not in MATRICES:
            raise BackendError(f"{path}: {name} is no LoRA half of a llama's attention or MLP matrix")
        halves.setdefault(f"blk.{int(match[1])}.{MATRICES[match[2]]}.weight", {})[match[3]] = tensor
    if not halves:
        raise BackendError(f"{path} holds no tensors: train the adapter again")
    pairs = {}
    for name, half in halves.items():
        if half.keys() != {"A", "B"}:
            raise BackendError(f"{path}: {name} has only its half {''.join(half)}")
        a, b = half["A"], half["B"]
        if a.ndim != 2 or b.ndim != 2 or a.shape[0] != rank or b.shape[1] != rank:
            raise BackendError(f"{path}: {name} has shapes {a.shape} and {b.shape}, not of rank {rank}")
        pairs[name] = Pair(name, a, b, scale)
    return pairs
