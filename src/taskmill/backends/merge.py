"""A LoRA adapter added into the weights of a GGUF model, once per machine: `merged_model`.

OpenVINO GenAI reads GGUF files but cannot apply an adapter to the graph it builds from one (its LoRA
loader looks for the layer names of exported models), so the sum is written as a GGUF file of its own:

    W' = W + scale · B · A,  scale = alpha / r  (alpha / sqrt(r) with rsLoRA, arXiv 2312.03732)

Tensors an adapter touches are written as Q8_0; all others, the tied embeddings among them, and the
metadata keep the base's bytes. One tensor is in memory at a time, next to the adapter.

    $TASKMILL_CACHE_DIR (else $XDG_CACHE_HOME/taskmill, else ~/.cache/taskmill)
        merged/NAME.gguf   the model; NAME hashes base, adapter and FORMAT
        merged/NAME.json   written last: size and SHA-256; without it, or at another size, it is made again
        merged/NAME.lock   a second process waits here for the first
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import shutil
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from taskmill.backends.lora import Adapter, read_adapter
from taskmill.durable import Replacing, atomic_write, cache_folder
from taskmill.errors import BackendError, MissingExtra

__all__ = ["FORMAT", "made_of", "merged_model"]

log = logging.getLogger(__name__)

FORMAT = 1
"""Version of what this file writes for a given base and adapter; raise it when the bytes change."""

TOUCHED = "Q8_0"
"""Type of the tensors an adapter touches, 8.5 bits a weight.

Measured on SmolLM2-135M with an adapter of rank 16, OpenVINO 2026.4, 2 cores with bfloat16: mean difference
of a token's log-probability from transformers + PEFT on the dequantised base, tokens per CPU second:
Q8_0 0.040, 240; F16 0.024, 169; Q4_1 0.37, 208. OpenVINO reads Q4_1 with rounded zero points.
"""

FILE_TYPES = {"F16": 1, "Q4_1": 3, "Q8_0": 7}
"""`general.file_type` of a GGUF file whose matrices are mostly of this type (ggml's llama_ftype)."""


def merged_model(base: Path, adapter: Path) -> Path:
    """Return the GGUF file of `base` with the LoRA adapter in the folder `adapter` added in.

    The first call writes it to the cache (about 145 MB and 5 seconds for a 135M model); later ones find it.
    Raises BackendError if the adapter is for another base, cannot be merged, or the cache cannot be
    written; MissingExtra without the packages gguf and safetensors.
    """
    learnt = read_adapter(adapter)
    base_sha = _sha256(base)
    if learnt.base_sha256 != base_sha:
        raise BackendError(
            f"{adapter} was trained on {learnt.base_name} with SHA-256 {learnt.base_sha256[:12]}…, but "
            f"{base} has {base_sha[:12]}…: take the base it was trained on, or train it again on this one"
        )
    key = hashlib.sha256(f"{base_sha} {learnt.sha256} {FORMAT}".encode()).hexdigest()[:16]
    model = cache_folder() / "merged" / f"{base.stem}-{key}.gguf"
    with _alone(model.with_suffix(".lock")):
        if not _whole(model):
            _merge(base, learnt, model)
    return model


def made_of(model: Path) -> str:
    """Return `BASE+ADAPTER.FORMAT` (12 hex digits of each SHA-256) of a model from `merged_model`."""
    marker = json.loads(model.with_suffix(".json").read_bytes())
    return f"{marker['base'][:12]}+{marker['adapter'][:12]}.{marker['format']}"


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock file; wait for a process that has it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("a")
    except OSError as error:
        raise _unwritable(path.parent, error) from error
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _unwritable(folder: Path, error: OSError) -> BackendError:
    return BackendError(
        f"the merged model cannot be written to {folder}: {error.strerror or error}; "
        "set TASKMILL_CACHE_DIR to a folder with room"
    )


def _whole(model: Path) -> bool:
    """Return whether the marker is there and the file has the size it names."""
    try:
        marker = json.loads(model.with_suffix(".json").read_bytes())
        return bool(model.stat().st_size == marker["size"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _merge(base: Path, adapter: Adapter, model: Path) -> None:
    """Write the merged model and, after it, its marker."""
    started = time.monotonic()
    reader = _open(base)
    plan = _plan(reader, adapter, base)
    needed = sum(size for _, _, size in plan) + reader.data_offset
    log.info("merging %s into %s, once for this machine", adapter.folder.name, base.name)
    try:
        free = shutil.disk_usage(model.parent).free
        if free < needed:
            raise BackendError(
                f"the merged model needs {needed >> 20} MB in {model.parent}, which has {free >> 20} MB "
                "free; set TASKMILL_CACHE_DIR to a folder with room"
            )
        digest = hashlib.sha256()
        with Replacing(model) as file:
            for piece in _pieces(reader, plan, adapter):
                file.write(piece)
                digest.update(piece)
        made_of = {"base": adapter.base_sha256, "adapter": adapter.sha256, "format": FORMAT}
        marker = {"size": model.stat().st_size, "sha256": digest.hexdigest(), **made_of}
        atomic_write(model.with_suffix(".json"), json.dumps(marker).encode())
    except OSError as error:
        raise _unwritable(model.parent, error) from error
    log.info("merged in %.1f s: %s", time.monotonic() - started, model)


def _open(base: Path) -> Any:
    try:
        import gguf
    except ImportError as error:
        raise MissingExtra("gguf", "local") from error
    try:
        reader = gguf.GGUFReader(str(base))
        architecture = reader.fields["general.architecture"].contents()
    except Exception as error:  # the reader raises what numpy and struct raise on a foreign file
        raise BackendError(f"{base} is no readable GGUF file: {error}") from error
    if architecture != "llama":
        raise BackendError(
            f"{base} is of the architecture {architecture!r}; adapters can be merged into llama models only"
        )
    return reader


def _plan(reader: Any, adapter: Adapter, base: Path) -> list[tuple[Any, Any, int]]:
    """Return (tensor, type to write, bytes) in the base's order. Raises BackendError on a misfit."""
    import gguf

    touched = gguf.GGMLQuantizationType[TOUCHED]
    plan, found = [], set()
    for tensor in reader.tensors:
        pair = adapter.pairs.get(tensor.name)
        if pair is None:
            plan.append((tensor, tensor.tensor_type, int(tensor.n_bytes)))
            continue
        found.add(tensor.name)
        wide, high = (int(n) for n in tensor.shape)  # GGUF names the fastest axis first
        if (pair.b.shape[0], pair.a.shape[1]) != (high, wide):
            raise BackendError(
                f"{adapter.folder}: {pair.name} adds {pair.b.shape[0]} × {pair.a.shape[1]} weights to "
                f"{high} × {wide} of {base.name}: the adapter is for another model"
            )
        block, size = gguf.GGML_QUANT_SIZES[touched]
        plan.append((tensor, touched, high * wide // block * size))
    if missing := sorted(adapter.pairs.keys() - found):
        raise BackendError(
            f"{adapter.folder}: {adapter.pairs[missing[0]].name} has no counterpart in {base.name}: "
            "the adapter is for another model"
        )
    return plan


def _pieces(reader: Any, plan: list[tuple[Any, Any, int]], adapter: Adapter) -> Iterator[bytes]:
    """Yield the file's bytes: the base's metadata, the table of tensors, the tensors.

    Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
    """
    from gguf.quants import dequantize, quantize

    head = reader.data[: plan[0][0].field.offset].tobytes()
    table, offset = [_with_file_type(reader, head)], 0
    for tensor, kind, size in plan:
        name, shape = tensor.name.encode(), [int(n) for n in tensor.shape]
        table.append(struct.pack(f"<Q{len(name)}sI{len(shape)}Q", len(name), name, len(shape), *shape))
        table.append(struct.pack("<IQ", kind, offset))
        offset += size + -size % reader.alignment
    head = b"".join(table)
    yield head + bytes(-len(head) % reader.alignment)
    heads = [
        int(reader.fields[f"llama.attention.{key}"].contents()) for key in ("head_count", "head_count_kv")
    ]
    for tensor, kind, size in plan:
        pair = adapter.pairs.get(tensor.name)
        if pair is None:
            data = tensor.data.tobytes()
        else:
            weights = dequantize(tensor.data, tensor.tensor_type)
            weights += _delta(tensor.name, pair, *heads)
            data = quantize(weights, kind).tobytes()
        yield data + bytes(-size % reader.alignment)


def _delta(name: str, pair: Any, heads: int, kv_heads: int) -> Any:
    """Return scale · B · A (out × in, float32) with the rows in the order of a GGUF llama.

    llama.cpp rotates neighbouring rows of a head, PEFT's model its halves, so the rows of q and k
    are interleaved (`LlamaModel.permute` of llama.cpp's convert_hf_to_gguf.py).
    """
    b = pair.b
    if name.endswith(("attn_q.weight", "attn_k.weight")):
        count = heads if name.endswith("attn_q.weight") else kv_heads
        rows, rank = b.shape
        b = b.reshape(count, 2, rows // count // 2, rank).swapaxes(1, 2).reshape(rows, rank)
    return (b * pair.scale) @ pair.a


def _with_file_type(reader: Any, head: bytes) -> bytes:
    """Return the metadata's bytes with `general.file_type` set to the new one."""
    field = reader.fields.get("general.file_type")
    if field is None:
        return head
    at = field.offset + sum(part.nbytes for part in field.parts[:-1])
    return head[:at] + struct.pack("<I", FILE_TYPES[TOUCHED]) + head[at + 4 :]
