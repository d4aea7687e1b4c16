"""A student from rows to marks: it learns rows, answers held-out ones, and the answers are graded.

An item with choices is answered by the choice of the highest log-likelihood (rank classification, as the
papers on instruction data score), any other one by what the student writes greedily. Prompts are laid out as
in training. All choices count their end, so that one which begins like a longer one does not win by that.
A row may also be a document: it is read word by word, as in task-adaptive pre-training.
"""

from __future__ import annotations

import json
import math
import shutil
import time
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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
from taskmill.train.answers import batches, likelihoods, prompt, written
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
from taskmill.train.memory import reused_memory
from taskmill.train.prefix import forbidden, lay_out
from taskmill.train.rows import TrainRow, student_rows, tapt_rows
from taskmill.train.tree import Tree, pad, trees

__all__ = ["Item", "Outcome", "Student", "grade", "metric"]

FORMAT = "3"
"""Enters a student's name; raised when the way it learns, answers or is graded changes."""

_ELSEWHERE = ("base", "init_adapter", "seed", "checkpoint_minutes", "evaluations", "valid_share")
"""Settings that do not enter a student's name: held in another form there, without effect, or not used."""


Ending = tuple[int, int, Encoded]
"""(number of an item, number of one of its choices, the row of both)."""


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
        with reused_memory(), self._ready(folder) as model:
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
        closed = [i for i, item in enumerate(items) if item.choices]
        found = [""] * len(items)
        with torch.no_grad():
            for part, answered in ((free, self._written), (closed, self._chosen)):
                for i, answer in zip(
                    part, answered(model, supervised, [items[i] for i in part]), strict=True
                ):
                    found[i] = answer
        return found

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

    def _chosen(self, model: Any, supervised: Supervised, items: Sequence[Item]) -> list[str]:
        """Return each item's likeliest choice, the first of equal ones. One that is too long is never chosen.

        A prompt is read once for all its choices, and for all that begin alike, if the model takes that.
        """
        prompts: dict[bytes, Encoded] = {}
        ends: dict[bytes, list[Ending]] = {}
        for i, item in enumerate(items):
            for number, choice in enumerate(item.choices):
                row = self._encoded(replace(item.example, response=choice))
                if row is not None:
                    own = prompt(row)
                    key = own.group.encode() + own.ids.tobytes()
                    prompts.setdefault(key, own)
                    ends.setdefault(key, []).append((i, number, row))
        best: list[tuple[float, int]] = [(math.inf, 0)] * len(items)
        asked = [(own, ends[key]) for key, own in prompts.items()]
        for i, number, losses in self._scored(model, supervised, asked):
            best[i] = min(best[i], (float(losses.mean() if self.norm == "mean" else losses.sum()), number))
        return [item.choices[number] for item, (_, number) in zip(items, best, strict=True)]

    def _scored(
        self, model: Any, supervised: Supervised, asked: Sequence[tuple[Encoded, list[Ending]]]
    ) -> Iterator[tuple[int, int, Any]]:
        """Yield (item, number of its choice, losses of the choice's tokens) of prompts with their ends."""
        found = self._together(model, supervised, [own for own, _ in asked])
        if found is None:
            for _, ends in asked:
                yield from ((i, number, self._losses(supervised, row, model)) for i, number, row in ends)
            return
        behind = {id(own): ends for own, ends in asked}
        for batch in batches(found):
            part = [found[i] for i in batch]
            ends_of = [[behind[id(row)] for row in tree.rows] for tree in part]
            tokens = [[[row.ids[row.start :].tolist() for _, _, row in e] for e in tree] for tree in ends_of]
            scored = likelihoods(supervised, part, self._cache(), model.device, tokens)
            for tree, of_tree in zip(ends_of, scored, strict=True):
                for ends, likely in zip(tree, of_tree, strict=True):
                    for (i, number, _), one in zip(ends, likely, strict=True):
                        yield i, number, -one

    def _losses(self, supervised: Supervised, row: Encoded, model: Any) -> Any:
        """Return the loss of each token of a row's completion, the row read by itself."""
        batch = pad([Tree((row,))], supervised.torch, model.device)
        targets = batch.ids.roll(-1, dims=1)[batch.wanted]
        logits = supervised.logits(batch).float()
        return supervised.torch.nn.functional.cross_entropy(logits, targets, reduction="none")

    def _cache(self) -> Any:
        _, hf, _ = packages()
        return hf.DynamicCache()

    def _together(self, model: Any, supervised: Supervised, rows: Sequence[Encoded]) -> list[Tree] | None:
        """Return prompts as trees, or None for a model that must read each by itself.

        Which it is is told as in training, at each longer tree: by rule, then by trying.
        """
        longest = self.config.max_length
        found = list(trees(rows, longest))
        largest = max(found, key=len, default=None)
        if largest is not None and len(largest) > self._tried:
            tried = largest.rows if len(largest.rows) > 1 else (largest.rows[0],) * 2
            kind = "bf16" if model.dtype.itemsize < 4 else "fp32"
            laid_out = lay_out(tried, [], model, supervised, self.config.prefix, 2 * longest, kind)
            ruled_out = forbidden(model, longest + self.max_new_tokens)
            self._tried, self._shares = len(largest), laid_out.prefix == "shared" and not ruled_out
        return found if self._shares else None

    def _encoded(self, example: Example) -> Encoded | None:
        encoder = Encoder(self._tokenizer, self.config.max_length)
        return next(encoder.encode(self._rows([example])), None)

    def _written(self, model: Any, supervised: Supervised, items: Sequence[Item]) -> list[str]:
        """Return what the student writes behind each prompt, greedily, up to where its answers end."""
        rows = [self._encoded(item.example) for item in items]
        special, end = set(self._tokenizer.all_special_ids), self._tokenizer.eos_token_id
        stops = {int(row.ids[-1]) for row in rows if row is not None} & special | ({end} - {None})
        asked = {i: prompt(row) for i, row in enumerate(rows) if row is not None}
        texts = [""] * len(items)
        found = self._together(model, supervised, list(asked.values()))
        if found is None:
            ids = self._generated(model, [row.ids for row in asked.values()], stops)
            for i, text in zip(asked, ids, strict=True):
                texts[i] = self._tokenizer.decode(text, skip_special_tokens=True).strip()
            return texts
        places = {id(row): i for i, row in asked.items()}
        for batch in batches(found):
            own = [found[i] for i in batch]
            tokens = written(supervised, own, self._cache(), model.device, stops, self.max_new_tokens)
            for tree, of_tree in zip(own, tokens, strict=True):
                for row, text in zip(tree.rows, of_tree, strict=True):
                    texts[places[id(row)]] = self._tokenizer.decode(text, skip_special_tokens=True).strip()
        return texts

    def _generated(self, model: Any, prompts: Sequence[Any], stops: Collection[int]) -> list[list[int]]:
        """Return what the model's own generation writes, for models whose prompts are read one by one."""
        torch, hf, _ = packages()
        settings = hf.GenerationConfig(
            do_sample=False,
            max_new_tokens=self.max_new_tokens,
            eos_token_id=sorted(stops) or None,
            pad_token_id=min(stops, default=0),
            use_cache=True,
        )
        found: list[list[int]] = [[] for _ in prompts]
        for i, ids in enumerate(prompts):
            given = torch.from_numpy(ids.astype("int64"))[None].to(model.device)
            out = model.generate(input_ids=given, attention_mask=given * 0 + 1, generation_config=settings)
            found[i] = out[0, len(ids) :].tolist()
        return found
