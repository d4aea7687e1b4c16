"""What comes out: the adapter as PEFT reads it, or the whole model, and its record."""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import taskmill
from taskmill.config import to_mapping
from taskmill.train.base import Base, packages
from taskmill.train.config import TrainConfig
from taskmill.train.folder import finished, publish

__all__ = ["describe", "write_adapter", "write_model"]


def describe(
    base: Base, config: TrainConfig, counts: dict[str, Any], summary: dict[str, Any], begun_from: str = ""
) -> dict[str, Any]:
    """Return the record: base with its hash, recipe, counts, losses, versions. No path of this machine.

    `begun_from`: the hash of the adapter it went on from, "" for a fresh one.
    """
    return {
        "format": 1,
        "base": base.record(),
        "recipe": to_mapping(config) | {"base": base.name, "init_adapter": begun_from},
        "counts": counts,
        **summary,
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    found = {"taskmill": taskmill.__version__, "python": platform.python_version()}
    for name in ("torch", "transformers", "peft", "safetensors"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write_adapter(folder: Path, model: Any, _: Any, record: dict[str, Any]) -> dict[str, Any]:
    """Write the adapter in bf16, as PEFT loads it, and return its record."""
    torch, _, peft = packages()
    from safetensors.torch import save_file

    weights = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    halved = {name: value.detach().to("cpu", torch.bfloat16).contiguous() for name, value in weights.items()}
    settings = model.peft_config["default"]
    with publish(folder, record) as temporary:
        save_file(halved, temporary / "adapter_model.safetensors", metadata={"format": "pt"})
        settings.save_pretrained(temporary)
        path = temporary / "adapter_config.json"
        saved = json.loads(path.read_text("utf-8"))
        # PEFT keeps the modules in a set, whose order differs from process to process.
        saved |= {"target_modules": sorted(saved["target_modules"]), "inference_mode": True}
        path.write_text(json.dumps(saved, indent=2, sort_keys=True) + "\n", "utf-8")
    return finished(folder) or record


def write_model(folder: Path, model: Any, tokenizer: Any, record: dict[str, Any]) -> dict[str, Any]:
    """Write the whole model in bf16 with its tokenizer, and return its record."""
    torch, _, _ = packages()
    model.config.name_or_path = record["base"]["name"]
    with publish(folder, record) as temporary:
        model.to(torch.bfloat16).save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
    return finished(folder) or record
