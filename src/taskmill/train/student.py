"""A student from rows to marks: it learns rows, answers held-out ones, and the answers are graded.

An item with choices is answered by the choice of the highest log-likelihood (rank classification, as the
papers on instruction data score), any other one by what the student writes greedily. Prompts are laid out as
in training. All choices count their end, so that one which begins like a longer one does not win by that.
A row may also be a document: it is read word by word, as in task-adaptive pre-training.
"""

from __future__ import annotations

import json
import shutil
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from taskmill.config import to_mapping
from taskmill.errors import UnknownName
from taskmill.ids import content_id
from taskmill.record import Document, Example
from taskmill.tasks import TaskType, get
from taskmill.tasks.metrics import squad_f1
from taskmill.train import arithmetic
from taskmill.train.base import (
    adapter_digest,
    find,
    load_model,
    load_tokenizer,
    packages,
    precision,
)
from taskmill.train.config import TrainConfig
from taskmill.train.encode import Encoded, Encoder
from taskmill.train.loop import OnStep, train
from taskmill.train.loss import Supervised
from taskmill.train.prefix import lay_out
from taskmill.train.rows import TrainRow, student_rows, tapt_rows
from taskmill.train.tree import Tree, pad, trees

__all__ = ["Item", "Outcome", "Student", "grade", "metric"]

FORMAT = "2"
"""Enters a student's name; raised when the way it learns, answers or is graded changes."""

TOGETHER = 32
"""Answers written side by side at most (chosen: a step reads all weights once, for one answer or many)."""

TOGETHER_TOKENS = 8192
"""Tokens of their prompts at most, padding included (chosen: under 1 GB of keys and values, small models)."""

_ELSEWHERE = ("base", "init_adapter", "seed", "checkpoint_minutes", "evaluations", "valid_share")
"""Settings that do not enter a student's name: held in another form there, without effect, or not used."""


class Item(NamedTuple):
    """A held-out example to answer; `choices` is the closed set its answer comes from, () for a free one."""

    example: Example
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What became of one student: an answer and its mark (0 to 1) for each item, in their order.

    `train_s`, `answer_s` and `all_s` are seconds; `record` is what training says of itself. `losses`: for
    each text that was asked about, its summed loss in nats and the number of its tokens.
    """

    answers: list[str]
    marks: list[float]
    train_s: float
    answer_s: float
    all_s: float
    record: Mapping[str, Any] = field(default_factory=dict)
    losses: list[tuple[float, int]] = field(default_factory=list)


@lru_cache(maxsize=256)
def _task(name: str) -> TaskType | None:
    """Return the task type of that name, or None: looking for plug-ins takes its time."""
    try:
        return get(name)
    except UnknownName:
        return None


def metric(item: Item) -> str:
    """Return what an item is graded by: its task type's own metric, else accuracy or token F1."""
    task = _task(item.example.task)
    return task.metric if task is not None else "accuracy" if item.choices else "token F1"


def grade(item: Item, answer: str) -> float:
    """Return the mark of an answer, 0 to 1, by the item's metric."""
    task = _task(item.example.task)
    if task is not None:
        return task.grade(answer, item.example)
    if item.choices:
        return float(answer.strip() == item.example.response.strip())
    return squad_f1(answer, [item.example.response])


class Student:
    """A base model and a recipe of training. `name` says all that decides what it becomes, but rows and seed.

    `norm` "mean" divides a choice's log-likelihood by its tokens; "sum" does not.
    """

    def __init__(
        self, config: TrainConfig, layout: str = "chat", norm: str = "sum", max_new_tokens: int = 64
    ) -> None:
        """Load the tokenizer. Raises MissingExtra, BackendError or ConfigError if the base cannot be used."""
        self.config = replace(config, valid_share=0.0, evaluations=0).resolved()
        self.layout, self.norm, self.max_new_tokens = layout, norm, max_new_tokens
        self._base = find(config.base)
        self._kept: Any = None
        self._tried, self._shares = 0, False
        self._tokenizer = load_tokenizer(self._base)
        settings = {k: v for k, v in to_mapping(self.config).items() if k not in _ELSEWHERE}
        begun = [adapter_digest(config.init_adapter)] if config.init_adapter else []
        how = json.dumps([layout, norm, max_new_tokens, settings, *begun], sort_keys=True)
        self.name = f"{self._base.name}#{content_id(FORMAT, self._base.identity, how)[:12]}"

    def lengths(self, rows: Iterable[Example | Document]) -> list[int | str]:
        """Return the tokens of each row as it is trained on, or why it cannot be."""
        encoder = Encoder(self._tokenizer, self.config.max_length)
        owners: list[int] = []
        count = 0

        def parts() -> Iterator[TrainRow]:
            nonlocal count
            for count, row in enumerate(rows, 1):
                for part in self._rows([row]):
                    owners.append(count - 1)
                    yield part

        found = [len(row.ids) for row in encoder.encode(parts())]
        lengths: list[int | str] = ["there is no text"] * count
        refused = {r.index: r.why for r in encoder.refused}
        kept = iter(found)
        for i, owner in enumerate(owners):
            have, more = lengths[owner], refused[i] if i in refused else next(kept)
            lengths[owner] = have + more if isinstance(have, int) and isinstance(more, int) else more
        return lengths

    def learn(
        self,
        rows: Sequence[Example | Document],
        items: Sequence[Item],
        seed: int,
        times: float,
        folder: Path,
        on_step: OnStep | None = None,
        begin: Path | None = None,
        texts: Sequence[str] = (),
    ) -> Outcome:
        """Train on the rows (`times` the recipe's epochs) in `folder`, then answer and grade the items.

        Without rows the base answers as it is. The same call continues a training that was stopped. `begin`:
        the folder of an earlier training whose adapter it goes on from. `texts`: what its loss is taken on.
        """
        begun, trained, record = time.monotonic(), 0.0, {}
        if rows:
            config = replace(self.config, seed=seed, epochs=times * self.config.epochs)
            if begin is not None:
                config = replace(config, init_adapter=str(begin / "adapter"))
            made = train(self._rows(rows), config, folder, on_step)
            record = {key: made[key] for key in ("steps", "tokens", "loss", "counts", "precision", "device")}
            trained = float(made["elapsed_s"])
        outcome = self._asked(folder if rows else None, items, texts)
        now = time.monotonic()
        return replace(outcome, train_s=trained, all_s=now - begun, record=record)

    def merged(
        self, folder: Path, instruct: str, scale: float, items: Sequence[Item], texts: Sequence[str] = ()
    ) -> Outcome:
        """Answer with an instruct model to which `scale` times what was learned in `folder` is added.

        Raises ConfigError if the two have other weights, or where the sum cannot be written.
        """
        sum_of = folder / "merged"
        other = self
        if instruct != self.config.base:
            config = replace(self.config, base=instruct)
            other = Student(config, self.layout, self.norm, self.max_new_tokens)
        if (folder / "model").is_dir():
            instruct_at, base_at = Path(other._base.place), Path(self._base.place)
            arithmetic.add_residual(folder / "model", instruct_at, base_at, sum_of / "model", scale)
        else:
            arithmetic.scaled_adapter(folder / "adapter", sum_of / "adapter", scale)
        outcome = other._asked(sum_of, items, texts)
        shutil.rmtree(sum_of, ignore_errors=True)
        return outcome

    def _asked(self, folder: Path | None, items: Sequence[Item], texts: Sequence[str]) -> Outcome:
        """Answer and grade the items, and take the loss of the texts, with what was trained in a folder."""
        begun = time.monotonic()
        with self._ready(folder) as model:
            asked = time.monotonic()
            supervised = Supervised(model, model.get_output_embeddings(), packages()[0])
            answers = self._answers(model, supervised, items)
            losses = [self._loss(supervised, text, model.device) for text in texts]
        now = time.monotonic()
        marks = [grade(item, answer) for item, answer in zip(items, answers, strict=True)]
        return Outcome(answers, marks, 0.0, now - asked, now - begun, {}, losses)

    def _rows(self, rows: Iterable[Example | Document]) -> Iterator[TrainRow]:
        for plain, own in groupby(rows, lambda row: isinstance(row, Document)):
            if plain:
                texts = (row for row in own if isinstance(row, Document))
                yield from tapt_rows(texts, self.config.max_length, self._tokenizer)
            else:
                examples = (row for row in own if isinstance(row, Example))
                yield from student_rows(examples, self.layout, self._tokenizer)

    def _loss(self, supervised: Supervised, text: str, device: Any) -> tuple[float, int]:
        """Return the summed loss of a text read by itself (nats) and its tokens."""
        torch, _, _ = packages()
        encoder = Encoder(self._tokenizer, self.config.max_length)
        summed, tokens = 0.0, 0
        with torch.no_grad():
            for row in encoder.encode(self._rows([Document("", text)])):
                summed += float(supervised.loss(pad([Tree((row,))], torch, device)))
                tokens += row.supervised
        return summed, tokens

    def _answers(self, model: Any, supervised: Supervised, items: Sequence[Item]) -> list[str]:
        torch, _, _ = packages()
        free = [i for i, item in enumerate(items) if not item.choices]
        with torch.no_grad():
            written = dict(zip(free, self._written(model, [items[i] for i in free]), strict=True))
            return [
                self._chosen(model, supervised, item) if item.choices else written[i]
                for i, item in enumerate(items)
            ]

    @contextmanager
    def _ready(self, folder: Path | None) -> Iterator[Any]:
        """Give the trained model of a folder, or the base, ready to answer.

        On a CPU the base stays loaded between students, since unpacking a GGUF file takes longer than a small
        training; a GPU's memory is left to the training.
        """
        torch, _, peft = packages()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        kind = precision(self.config, torch, device)
        if folder is not None and (folder / "model").is_dir():
            yield load_model(find(str(folder / "model")), self.config, kind, device).eval()
            return
        base = self._kept
        if base is None:
            base = load_model(self._base, self.config, kind, device).eval()
        self._kept = base if device == "cpu" else None
        if folder is None:
            yield base
            return
        before = [(p, p.detach().clone()) for p in base.parameters()] if self._kept is not None else []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft 0.21 calls names that transformers 5 deprecates
            adapted = peft.PeftModel.from_pretrained(base, str(folder / "adapter")).eval()
        adapted.merge_adapter()  # two small products fewer in each layer
        try:
            yield adapted.get_base_model()
        finally:
            adapted.unload()
            with torch.no_grad():  # taking the sum apart again would leave other last bits than the base's
                for parameter, value in before:
                    parameter.copy_(value)

    def _chosen(self, model: Any, supervised: Supervised, item: Item) -> str:
        """Return the likeliest choice, the first of equal ones. One that is too long cannot be chosen."""
        torch, _, _ = packages()
        encoded = [(c, self._encoded(replace(item.example, response=c))) for c in item.choices]
        rows = [(choice, row) for choice, row in encoded if row is not None]
        if not rows:
            return item.choices[0]
        batch = pad(self._side_by_side(model, supervised, [row for _, row in rows]), torch, model.device)
        targets = batch.ids.roll(-1, dims=1)[batch.wanted]
        logits = supervised.logits(batch).float()
        losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        parts = losses.split([row.supervised for _, row in rows])
        sums = [float(p.mean() if self.norm == "mean" else p.sum()) for p in parts]
        return min(zip(sums, range(len(rows)), rows, strict=True))[2][0]

    def _side_by_side(self, model: Any, supervised: Supervised, rows: Sequence[Encoded]) -> list[Tree]:
        """Return an item's choices behind one prompt read once, if the model takes that; else one by one.

        Whether it does is told as in training, at each longer item: by rule, then by trying.
        """
        longest, apart = sum(len(row.ids) for row in rows), [Tree((row,)) for row in rows]
        rows = [replace(row, group="") for row in rows]
        together = list(trees(rows, longest))
        if not any(tree.shared for tree in together):
            return apart
        if longest > self._tried:
            kind = "bf16" if model.dtype.itemsize < 4 else "fp32"
            found = lay_out(rows, [], model, supervised, self.config.prefix, longest, kind)
            self._tried, self._shares = longest, found.prefix == "shared"
        return together if self._shares else apart

    def _encoded(self, example: Example) -> Encoded | None:
        encoder = Encoder(self._tokenizer, self.config.max_length)
        return next(encoder.encode(self._rows([example])), None)

    def _written(self, model: Any, items: Sequence[Item]) -> list[str]:
        """Return what the student writes behind each prompt, greedily, up to where its answers end."""
        torch, hf, _ = packages()
        rows = [self._encoded(item.example) for item in items]
        special, end = set(self._tokenizer.all_special_ids), self._tokenizer.eos_token_id
        stops = {int(row.ids[-1]) for row in rows if row is not None} & special | ({end} - {None})
        settings = hf.GenerationConfig(
            do_sample=False,
            max_new_tokens=self.max_new_tokens,
            eos_token_id=sorted(stops) or None,
            pad_token_id=min(stops, default=0),
            use_cache=True,
        )
        found = [""] * len(items)
        order = sorted(
            (i for i, row in enumerate(rows) if row is not None), key=lambda i: (_start(rows[i]), i)
        )
        for batch in _batches(order, [_start(row) for row in rows]):
            longest = _start(rows[batch[-1]])
            ids = torch.zeros((len(batch), longest), dtype=torch.long)
            mask = torch.zeros_like(ids)
            for place, i in enumerate(batch):  # padded on the left: all answers begin in one column
                prompt = rows[i].ids[: rows[i].start].astype("int64")  # type: ignore[union-attr]
                ids[place, longest - len(prompt) :] = torch.from_numpy(prompt)
                mask[place, longest - len(prompt) :] = 1
            asked = {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}
            out = model.generate(**asked, generation_config=settings)
            texts = self._tokenizer.batch_decode(out[:, longest:], skip_special_tokens=True)
            for i, text in zip(batch, texts, strict=True):
                found[i] = text.strip()
        return found


def _start(row: Encoded | None) -> int:
    return row.start if row is not None else 0


def _batches(order: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """Cut indices, sorted by length, into batches of at most TOGETHER prompts and TOGETHER_TOKENS tokens."""
    batch: list[int] = []
    for i in order:
        if batch and (len(batch) == TOGETHER or (len(batch) + 1) * lengths[i] > TOGETHER_TOKENS):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
