"""Where models live: one file per backend, each behind `taskmill.calls.Generator`.

A model reference reads `backend:name[@revision]`: `openvino:bonito-smollm2-135m`, `openai:gpt-4.1-mini`,
`vllm:BatsResearch/bonito-v1`, `transformers:name@revision`, `echo:`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from taskmill.calls import Generator
from taskmill.errors import UsageError
from taskmill.registry import Registry

__all__ = ["ADAPTERS", "GENERATORS", "ModelConfig", "load", "protocol_of", "split_reference"]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Which model answers, where, and how it samples."""

    ref: str = field(
        default="openvino:bonito-smollm2-135m",
        metadata={"help": "backend:name[@revision], e.g. openai:gpt-4.1-mini, echo:", "flag": "model"},
    )
    base_url: str = field(default="", metadata={"help": "address of an OpenAI-compatible server"})
    protocol: str = field(
        default="auto",
        metadata={
            "help": "prompt format; auto: bonito for Bonito models, with attributes for ours, else chat",
            "choices": ("auto", "bonito", "bonito-attributes", "chat"),
        },
    )
    temperature: float = field(default=0.5, metadata={"help": "sampling temperature; 0 is greedy"})
    top_p: float = field(default=0.95, metadata={"help": "nucleus sampling share"})
    max_new_tokens: int = field(
        default=0, metadata={"help": "longest reply in tokens; 0: the task type's own"}
    )
    concurrency: int = field(default=64, metadata={"help": "most calls under way at once"})
    timeout: float = field(default=120.0, metadata={"help": "seconds until a call is given up and retried"})
    retries: int = field(default=6, metadata={"help": "tries after the first for errors that may pass"})
    api_key_env: str = field(
        default="OPENAI_API_KEY", metadata={"help": "environment variable that holds the API key"}
    )
    answers_as: str = field(
        default="",
        metadata={"help": "name under which the server may answer, * for any; default: the model's"},
    )
    num_ctx: int = field(default=0, metadata={"help": "context length to ask of Ollama; 0: 8192 there"})
    deterministic: bool = field(
        default=False,
        metadata={"help": "exact reruns on the embedded engine: batches of one, no prefix cache"},
    )


ADAPTERS = ("bonito-smollm2-135m",)
"""Synthesizers the package carries (`taskmill/adapters/`)."""

Factory = Callable[[str, str, ModelConfig], Generator]
"""(name, revision, configuration) → a loaded backend."""

GENERATORS: Registry[Factory] = Registry(
    "backend",
    {
        "echo": "taskmill.backends.echo:create",
        "openvino": "taskmill.backends.openvino:create",
        "openai": "taskmill.backends.openai:create",
        "transformers": "taskmill.backends.transformers:create",
        "vllm": "taskmill.backends.vllm:create",
    },
)


def split_reference(ref: str) -> tuple[str, str, str]:
    """Return (backend, name, revision) of a model reference.

    Raises UsageError if it names no backend. Only the first colon separates (`openai:llama3:8b`).
    """
    backend, colon, rest = ref.partition(":")
    if not colon:
        known = ", ".join(GENERATORS.names())
        raise UsageError(f"model {ref!r} names no backend; write backend:name with one of: {known}")
    name, _, revision = rest.partition("@")
    return backend, name, revision


def load(config: ModelConfig) -> Generator:
    """Load the backend a configuration names. Raises UnknownName, MissingExtra or BackendError."""
    backend, name, revision = split_reference(config.ref)
    return GENERATORS.get(backend)(name, revision, config)


def protocol_of(config: ModelConfig) -> str:
    """Return the protocol in force: the one asked for, else by the model.

    The embedded adapters and a user's own (`openvino:BASE+ADAPTER`) are trained on attributes; other
    models with Bonito in their name speak v1's format, and the rest is chatted with.
    """
    if config.protocol != "auto":
        return config.protocol
    backend, name, _ = split_reference(config.ref)
    if backend == "openvino" and (name in ADAPTERS or "+" in name):
        return "bonito-attributes"
    return "bonito" if "bonito" in name.lower() else "chat"
