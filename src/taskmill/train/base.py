"""The model to start from: loaded without running foreign code, and named by what it holds."""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from taskmill.backends import ADAPTERS
from taskmill.backends.openvino import EMBEDDED, adapter_folder, embedded_model
from taskmill.backends.transformers import engines
from taskmill.backends.weights import identity
from taskmill.errors import BackendError, ConfigError, MissingExtra
from taskmill.train.config import TrainConfig

__all__ = [
    "Base",
    "adapter_digest",
    "find",
    "load_model",
    "load_tokenizer",
    "packages",
    "precision",
    "trainable",
]


@dataclass(frozen=True, slots=True)
class Base:
    """Where a base model is (`place`, and `gguf` inside it), and what it is called anywhere else.

    `name` holds no path of this machine. `sha256` is the hash of a GGUF file, "" otherwise; `identity`
    is the name with a hash of the weights or the revision.
    """

    name: str
    identity: str
    place: str
    gguf: str = ""
    revision: str = ""
    sha256: str = ""
    licence: str = ""

    @property
    def local(self) -> bool:
        """Say whether the network has nothing to do with it."""
        return bool(self.gguf) or Path(self.place).is_dir()

    def record(self) -> dict[str, str]:
        """Return what an adapter says of the model it belongs to."""
        known = {"name": self.name, "identity": self.identity, "sha256": self.sha256, "licence": self.licence}
        return {key: value for key, value in known.items() if value}

    def where(self) -> dict[str, Any]:
        """Return the keyword arguments of `from_pretrained`."""
        found: dict[str, Any] = {"trust_remote_code": False, "local_files_only": self.local}
        if self.gguf:
            found["gguf_file"] = self.gguf
        if self.revision:
            found["revision"] = self.revision
        return found


def packages() -> tuple[Any, Any, Any]:
    """Import torch, transformers and peft with the Hub's telemetry off. Raises MissingExtra without them."""
    torch, transformers = engines()
    try:
        import peft
    except ImportError as error:
        raise MissingExtra(error.name or "peft", "train") from error
    return torch, transformers, peft


def find(ref: str) -> Base:
    """Return the base model a reference names: embedded, a folder, a GGUF file, or a Hub name[@revision].

    Raises BackendError if the embedded model is not installed or is not the pinned file, ConfigError for
    a path that does not exist.
    """
    if ref in EMBEDDED:
        path, sha = embedded_model(ref), EMBEDDED[ref][2]
        return Base(ref, f"{ref}@{sha[:12]}", str(path.parent), path.name, "", sha, EMBEDDED[ref][3])
    path = Path(ref)
    if path.suffix == ".gguf" and path.is_file():
        with path.open("rb") as handle:
            sha = hashlib.file_digest(handle, "sha256").hexdigest()
        return Base(path.stem, f"{path.stem}@{sha[:12]}", str(path.parent), path.name, "", sha)
    if path.is_dir():
        name = path.resolve().name
        return Base(name, identity("transformers", ref, "").partition(":")[2], str(path))
    if ref.startswith((".", "/", "~")) or path.suffix == ".gguf":
        known = ", ".join(EMBEDDED)
        raise ConfigError(
            f"base: there is no {ref}; give a folder, a GGUF file, a Hub name or one of: {known}"
        )
    name, _, revision = ref.partition("@")
    return Base(name, ref, name, revision=revision)


def precision(config: TrainConfig, torch: Any, device: str) -> str:
    """Return the precision in force: bf16 on a GPU that has it or a CPU with AMX, else fp32.

    A CPU with AVX512-BF16 alone computes bf16 slower than fp32 with torch's kernels (measured on two cores
    of a Xeon of family 6, model 207: 155 against 250 GFLOPS at 2,048 x 576 x 1,536); ask for bf16 there
    to halve the base's memory.
    """
    if config.precision != "auto":
        return config.precision
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if device == "cpu" and torch.cpu._is_amx_tile_supported() else "fp32"


def load_tokenizer(base: Base) -> Any:
    """Return the base's tokenizer. Raises BackendError if it cannot be loaded or gives no offsets."""
    _, hf, _ = packages()
    tokenizer = _loaded(hf.AutoTokenizer, base, base.where())
    if not getattr(tokenizer, "is_fast", False):
        raise BackendError(
            f"{base.name} has no fast tokenizer, which cutting passages needs; take another base"
        )
    return tokenizer


def load_model(base: Base, config: TrainConfig, kind: str, device: str) -> Any:
    """Return the model on `device`, in the precision `kind`.

    Raises BackendError if it cannot be loaded, ConfigError or MissingExtra for qlora where it cannot run.
    """
    torch, hf, _ = packages()
    hf.utils.logging.disable_progress_bar()
    settings: dict[str, Any] = base.where() | {"dtype": torch.bfloat16 if kind == "bf16" else torch.float32}
    if config.method == "qlora":
        settings |= _quantised(base, torch, hf, device)
    elif not base.gguf:
        settings["use_safetensors"] = True
    else:
        _without_bar()
        if hasattr(hf, "GgufConfig"):
            # transformers 5 keeps GGUF weights packed unless told; packed ones cannot be trained through.
            settings["quantization_config"] = hf.GgufConfig(dequantize=True)
    model = _loaded(hf.AutoModelForCausalLM, base, settings)
    model.config.use_cache = False
    return model if config.method == "qlora" else model.to(device)


def _without_bar() -> None:
    """Turn off the bar that transformers draws while it unpacks GGUF: its own setting does not reach it."""
    module: Any = import_module("transformers.modeling_gguf_pytorch_utils")
    if hasattr(module, "tqdm"):
        module.tqdm = lambda tensors, **_: tensors


def _loaded(kind: Any, base: Base, settings: dict[str, Any]) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the checkpoint's own age; nothing the user can act on
            return kind.from_pretrained(base.place, **settings)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        line = " ".join(str(error).split())[:200]
        raise BackendError(f"the base model {base.name} cannot be loaded: {line}") from error


def _quantised(base: Base, torch: Any, hf: Any, device: str) -> dict[str, Any]:
    """Return the 4-bit settings of QLoRA (nf4, double quantisation: arXiv 2305.14314, section 3)."""
    if device != "cuda":
        raise ConfigError(
            "method qlora needs a CUDA GPU; take lora here (the weights are then not quantised)"
        )
    if base.gguf:
        raise ConfigError(
            "method qlora quantises by itself and takes no GGUF base; take lora or another base"
        )
    try:
        import bitsandbytes  # noqa: F401 - transformers imports it later, with a longer message
    except ImportError as error:
        raise MissingExtra("bitsandbytes", "train") from error
    quantised = hf.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"quantization_config": quantised, "device_map": {"": 0}, "use_safetensors": True}


def trainable(model: Any, base: Base, config: TrainConfig) -> Any:
    """Return the model ready to train: with an adapter on all linear layers, or itself for `full`.

    Draws the adapter's start from torch's generator: seed it before. All that is trained is fp32. Raises
    ConfigError for a model that no adapter fits (Mamba's layers).
    """
    torch, _, peft = packages()
    if config.gradient_checkpointing:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # transformers 5 renames it, transformers 4 has no other name
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if config.method == "full":
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        return model.to(torch.float32)
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        base_model_name_or_path=base.name,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft 0.21 calls names that transformers 5 deprecates
        if config.method == "qlora":
            model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        try:
            adapted = peft.get_peft_model(model, settings, autocast_adapter_dtype=True)
        except ValueError as error:
            line = " ".join(str(error).split())[:200]
            way = f"method {config.method} does not suit {base.name}"
            raise ConfigError(f"{way}: {line}; take full") from error
    adapted.peft_config["default"].base_model_name_or_path = base.name
    if config.init_adapter:
        _go_on_from(_adapter(config.init_adapter), adapted, base, config)
    return adapted


def _adapter(ref: str) -> Path:
    return adapter_folder(ref) if ref in ADAPTERS else Path(ref)


def adapter_digest(folder: str) -> str:
    """Return the SHA-256 of the weights of an adapter (a folder, or one of the package), "" for none.

    Raises ConfigError if there is no adapter in it.
    """
    if not folder:
        return ""
    try:
        with (_adapter(folder) / "adapter_model.safetensors").open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(
            f"init_adapter: {folder} holds no adapter ({error.strerror}); name a training's adapter folder"
        ) from None


def _go_on_from(folder: Path, adapted: Any, base: Base, config: TrainConfig) -> None:
    """Put the weights of an adapter in the place of the fresh ones.

    Raises ConfigError if it is of another base, rank or scale, or of other layers.
    """
    _, _, peft = packages()
    from safetensors.torch import load_file

    settings = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    own = {"base": base.name, "rank": config.rank, "alpha": config.alpha}
    its = {
        "base": settings.get("base_model_name_or_path"),
        "rank": settings.get("r"),
        "alpha": settings.get("lora_alpha"),
    }
    wrong = [f"{key} {its[key]!r}, here {own[key]!r}" for key in own if its[key] != own[key]]
    weights = load_file(folder / "adapter_model.safetensors")
    expected = peft.get_peft_model_state_dict(adapted, save_embedding_layers=False)
    if not wrong and {k: v.shape for k, v in weights.items()} != {k: v.shape for k, v in expected.items()}:
        wrong = ["other layers than this model has"]
    if wrong:
        raise ConfigError(
            f"init_adapter: {folder} does not fit: {'; '.join(wrong)}. Take the settings it was made with"
        )
    peft.set_peft_model_state_dict(adapted, weights)
