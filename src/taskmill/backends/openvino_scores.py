"""Exact log-probabilities of given texts from the model that OpenVINO GenAI generates with.

GenAI's batch can echo the log-probabilities of a prompt, but leaves out what it finds in its prefix cache
and computes a prompt again for each choice. So the graph is run directly: a prompt once, then all its
choices from the prompt's KV cache, in float32, with the vocabulary projected at the needed positions only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskmill.calls import ScoreRequest, Scores
from taskmill.errors import BackendError

__all__ = ["GraphScorer"]

BATCH = 8
"""Prompts that run together (chosen: on 2 cores the arithmetic, not the memory, is the limit)."""

WINDOW = 8
"""Batches' worth of requests that are sorted by length together (chosen: little padding, little wait)."""

CONTEXT = 8192
"""Longest prompt plus choice in tokens (SmolLM2's max_position_embeddings)."""

EXACT = {
    "INFERENCE_PRECISION_HINT": "f32",
    "KV_CACHE_PRECISION": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
}
"""Without these a CPU plugin rounds activations to bfloat16 or int8 and the cache to int8."""

Ids = list[int]


class GraphScorer:
    """A loaded graph with a KV cache in its state, run without the batching engine."""

    def __init__(self, genai: Any, path: Path, tokenizer: Any) -> None:
        """Load the model of `path`, a GGUF file or an OpenVINO folder. Raises BackendError if it cannot."""
        self._tokenizer = tokenizer
        try:
            self._run = _compile(genai, path).create_infer_request()
        except Exception as error:  # C++ errors arrive as RuntimeError and others
            line = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise BackendError(f"OpenVINO cannot load {path} to score with: {line}") from error

    def score(self, requests: Iterable[ScoreRequest]) -> Iterator[Scores]:
        """Yield the scores batch by batch, prompts of similar length together."""
        source = iter(requests)
        while window := list(islice(source, WINDOW * BATCH)):
            ready: list[tuple[ScoreRequest, Ids, list[Ids]]] = []
            for request in window:
                prompt, choices = self._encode(request)
                if why := _problem(request, prompt, choices):
                    yield Scores(request.key, error=why)
                else:
                    ready.append((request, prompt, choices))
            # Of prompts as long, as the line break before a text alone, those with long choices.
            ready.sort(key=lambda row: (-len(row[1]), -max(map(len, row[2])), row[0].key))
            for at in range(0, len(ready), BATCH):
                batch = ready[at : at + BATCH]
                sums = self._sums([(prompt, choices) for _, prompt, choices in batch])
                for (request, _, choices), found in zip(batch, sums, strict=True):
                    yield Scores(request.key, tuple(found), tuple(len(ids) for ids in choices))

    def _encode(self, request: ScoreRequest) -> tuple[Ids, list[Ids]]:
        text = request.prompt
        if request.messages:
            turns = [{"role": role, "content": content} for role, content in request.messages]
            text = str(self._tokenizer.apply_chat_template(turns, True))
        end = [int(self._tokenizer.get_eos_token_id())] if request.end else []
        return self._ids(text), [self._ids(choice) + end if choice else [] for choice in request.choices]

    def _ids(self, text: str) -> Ids:
        ids: Ids = (
            self._tokenizer.encode(text, add_special_tokens=False).input_ids.data[0].tolist() if text else []
        )
        return ids

    def _sums(self, rows: list[tuple[Ids, list[Ids]]]) -> list[list[float]]:
        """Return the summed log-probabilities of each row's choices."""
        self._run.reset_state()
        wide = max(len(prompt) for prompt, _ in rows)
        ids = np.zeros((len(rows), wide), np.int64)
        mask = np.zeros((len(rows), wide), np.int64)
        for row, (prompt, _) in enumerate(rows):  # padded on the left: all prompts end in the last column
            ids[row, wide - len(prompt) :] = prompt
            mask[row, wide - len(prompt) :] = 1
        first = self._logprobs(ids, mask, np.arange(len(rows)), np.array([wide - 1]))
        owner = [row for row, (_, choices) in enumerate(rows) for _ in choices]
        texts = [choice for _, choices in rows for choice in choices]
        sums = first[owner, 0, [choice[0] for choice in texts]].astype(float)
        if (most := max(len(choice) for choice in texts) - 1) > 0:
            # Each choice starts from its prompt's cache; what stands behind a choice's end is not read.
            ids = np.array([choice[:-1] + [0] * (most + 1 - len(choice)) for choice in texts], np.int64)
            mask = np.hstack([mask[owner], np.ones_like(ids)])
            later = self._logprobs(ids, mask, np.array(owner), np.arange(most))
            for at, choice in enumerate(texts):
                sums[at] += later[at, np.arange(len(choice) - 1), choice[1:]].sum(dtype=float)
        found = iter(sums.tolist())
        return [[next(found) for _ in choices] for _, choices in rows]

    def _logprobs(
        self, ids: NDArray[Any], mask: NDArray[Any], origin: NDArray[Any], columns: NDArray[Any]
    ) -> NDArray[np.float32]:
        """Run `ids` behind the state of rows `origin`; return rows × columns × vocabulary."""
        places = np.maximum(mask.cumsum(axis=1) - 1, 0)[:, -ids.shape[1] :]
        self._run.infer(
            {
                "input_ids": ids,
                "attention_mask": mask,
                "position_ids": places,
                "beam_idx": origin.astype(np.int32),
                "columns": columns.astype(np.int64),
            }
        )
        logits: NDArray[np.float32] = self._run.get_output_tensor(0).data
        top = logits.max(axis=-1, keepdims=True)
        logits = logits - top
        logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        return logits


def _problem(request: ScoreRequest, prompt: Ids, choices: list[Ids]) -> str:
    if not prompt:
        return "no prompt"
    if not choices:
        return "no choices"
    if not all(choices):
        return "a choice is empty"
    if (total := len(prompt) + max(map(len, choices))) > CONTEXT:
        return f"the prompt has {len(prompt)} tokens, over {CONTEXT} with the choice: {total}"
    return ""


def _compile(genai: Any, path: Path) -> Any:
    import openvino

    core = openvino.Core()
    if path.is_dir():
        return core.compile_model(_narrow(core.read_model(path / "openvino_model.xml")), "CPU", EXACT)
    with TemporaryDirectory(prefix="taskmill-") as folder:
        # GenAI builds the graph of a GGUF file and saves it next to the file's name, here a link.
        link = Path(folder) / "model.gguf"
        link.symlink_to(path.resolve())
        genai.LLMPipeline(str(link), "CPU", enable_save_ov_model=True)
        model = core.read_model(Path(folder) / "openvino_model.xml")
        return core.compile_model(_narrow(model), "CPU", EXACT)


def _narrow(model: Any) -> Any:
    """Give the graph an input `columns`: the positions at which the vocabulary is projected."""
    from openvino import opset13 as ops

    node = model.get_results()[0].input_value(0).get_node()
    while node.get_type_name() != "MatMul":
        node = node.input_value(0).get_node()
    columns = ops.parameter([-1], np.int64, name="columns")
    columns.output(0).get_tensor().set_names({"columns"})
    picked = ops.gather(node.input_value(0), columns, ops.constant(np.array(1, np.int64)))
    node.input(0).replace_source_output(picked.output(0))
    model.add_parameters([columns])
    model.validate_nodes_and_infer_types()
    return model
