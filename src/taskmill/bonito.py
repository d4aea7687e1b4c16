"""The drop-in for `bonito-llm`: the same class, method and columns, on any backend.

from taskmill.bonito import Bonito, SamplingParams
bonito = Bonito("openvino:bonito-smollm2-135m")
tasks = bonito.generate_tasks(dataset, context_col="text", task_type="exqa",
sampling_params=SamplingParams(max_tokens=256, top_p=0.95, temperature=0.5, n=1))
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from taskmill import backends
from taskmill.backends import ModelConfig
from taskmill.calls import Completion, Generator, Request, Sampling
from taskmill.errors import BackendError, MissingExtra, UnknownName
from taskmill.record import Document, Dropped, Example, Span, content_id
from taskmill.render import fill
from taskmill.synthesize.bonito import Synthesis, examples, pose
from taskmill.tasks import get

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["Bonito", "SamplingParams"]


@dataclass(slots=True)
class SamplingParams:
    """Stands in for `vllm.SamplingParams`, which is accepted as well."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 16
    n: int = 1
    seed: int | None = None


class Bonito:
    """Turns a dataset column of passages into a dataset of tasks."""

    def __init__(self, model: str = "openvino:bonito-smollm2-135m", **settings: Any) -> None:
        """Load a model by reference; `settings` are fields of ModelConfig (`base_url=`, `protocol=`).

        A reference without a backend (`BatsResearch/bonito-v1`) is loaded by vLLM, as bonito-llm does.
        """
        ref = model if ":" in model else f"vllm:{model}"
        self.config = ModelConfig(ref=ref, **settings)
        self.backend: Generator = backends.load(self.config)

    def generate_tasks(
        self,
        text_dataset: Dataset,
        context_col: str,
        task_type: str,
        sampling_params: Any,
        *,
        num_proc: int | None = None,
    ) -> Dataset:
        """Return a dataset with the columns `input` and `output`, passages in their order.

        As in bonito-llm, replies that are not an instruction and a response are left out and nothing
        else is checked; `taskmill.recipes.synth` keeps count and checks. Rows without text are
        passed over. `num_proc` is accepted for compatibility and has no use here. Raises ValueError
        for an unknown task type or column, BackendError if any call failed.
        """
        del num_proc
        try:
            from datasets import Dataset
        except ImportError as error:
            raise MissingExtra("datasets", "hf") from error
        try:
            task = get(task_type).name
        except UnknownName as error:
            raise ValueError(f"Task type {task_type} not recognized. {error}") from error
        if context_col not in text_dataset.column_names:
            raise ValueError(f"no column {context_col!r}; there are {', '.join(text_dataset.column_names)}")
        replies = self._replies(text_dataset[context_col], task, sampling_params)
        pairs = [pair for asked, completion in replies for pair in self._pairs(asked, completion)]
        return Dataset.from_dict({"input": [p[0] for p in pairs], "output": [p[1] for p in pairs]})

    def _replies(self, texts: Any, task: str, params: Any) -> list[tuple[Request, Completion]]:
        sampling = Sampling(float(params.temperature), float(params.top_p))
        seed = getattr(params, "seed", None) or 0
        how = Synthesis((task,), backends.protocol_of(self.config), sampling, int(params.max_tokens), seed)
        copies = int(getattr(params, "n", 1) or 1)
        asked = [
            pose(how, self.backend.model, _document(text), task, sample)
            for text in texts
            if text and text.strip()
            for sample in range(copies)
        ]
        wanted = [a for a in asked if not isinstance(a, Dropped)]
        distinct = {r.key: r for r in wanted}
        answers = {c.key: c for c in self.backend.generate(distinct.values())}
        failed = [c.error for c in answers.values() if c.finish == "error"]
        if failed:
            raise BackendError(f"{len(failed)} of {len(distinct)} calls failed: {failed[0]}")
        return [(r, answers[r.key]) for r in wanted]

    def _pairs(self, asked: Request, completion: Completion) -> Iterator[tuple[str, str]]:
        if asked.payload.protocol.startswith("bonito"):
            context = asked.payload.document.text.strip()
            parts = completion.text.split("<|pipe|>")
            if len(parts) == 2:
                yield fill(parts[0].strip(), context), fill(parts[1].strip(), context)
            return
        for outcome in examples(self.backend.model, asked, completion):
            if isinstance(outcome, Example):
                yield fill(outcome.instruction, outcome.context), outcome.response


def _document(text: str) -> Document:
    return Document(content_id(text), text, Span(end=len(text)))
