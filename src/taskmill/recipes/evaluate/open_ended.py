"""A model answers open-ended prompts; of several samples of each, the one that stands for it is kept.

    OUT/  outputs.parquet (one output a prompt, for --pairs)  samples.parquet (all, and which are repetitive)
          results.json  manifest.json  config.yaml  ledger/

With --samples K and a temperature, the samples' log-likelihoods drop those that repeat themselves and choose
among the others, as in the open-ended evaluation of Flan (Chung et al. 2022: 5 samples at 0.7).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from taskmill.caller import Caller
from taskmill.calls import Request, Sampling, request
from taskmill.config import to_mapping
from taskmill.durable import atomic_write
from taskmill.errors import InputError, UsageError
from taskmill.evaluate.pairs import best_sample
from taskmill.evaluate.ranking import weigh, weighed
from taskmill.ids import content_id, draw
from taskmill.ingest.records import read_records
from taskmill.recipes.evaluate.asking import scoring_caller, sent
from taskmill.recipes.evaluate.config import EvaluateConfig
from taskmill.recipes.evaluate.pairs import open_prompt
from taskmill.recipes.session import OnProgress, Progress, Session
from taskmill.recipes.stages import ModelAccess
from taskmill.recipes.tables import table_files
from taskmill.store import Run, write_parquet

__all__ = ["answer_openly"]

_MAX_TOKENS = 512
"""New tokens unless --max-new-tokens says otherwise (chosen: a letter or a short essay)."""


class _Asked(NamedTuple):
    id: str
    prompt: str
    category: str


class _Sample(NamedTuple):
    number: int
    text: str
    finish: str


_OUTPUTS = pa.schema([(n, pa.string()) for n in ("id", "category", "prompt", "output", "finish")])
_SAMPLES = pa.schema(
    [
        ("id", pa.string()), ("sample", pa.int32()), ("output", pa.string()), ("finish", pa.string()),
        ("logprob", pa.float64()), ("repetitive", pa.bool_()), ("kept", pa.bool_()),
    ]
)  # fmt: skip


def answer_openly(
    config: EvaluateConfig, prompts: str, out: str | Path, on_progress: OnProgress | None = None
) -> dict[str, Any]:
    """Ask the model the prompts of a file and write what `OUT` holds; return results.json's content.

    A row has `prompt`, `instruction` (with `input`), `question` or `turns`, and may have `id` and `category`.
    `["exit"]` is 3 where a budget or failed calls left prompts unanswered. Raises InputError for a file
    that is none, UsageError if samples are to be chosen and the backend cannot score given texts.
    """
    asked = _prompts(prompts, config)
    with Run(Path(out)) as run:
        session = Session.open(run, to_mapping(config), free=(), update=True, report=on_progress)
        try:
            (run.path / "results.json").unlink(missing_ok=True)
            caller = ModelAccess(config.model, config.budget, config.ledger).open(session, writes=False)
            with caller.ledger:
                scoring = _chooser(caller, config) if config.samples > 1 else None  # before a call is paid
                found = _sampled(session, caller, asked, config)
                likely = _likelihoods(session, caller, scoring, asked, found, config) if scoring else {}
                caller.ledger.sync()
                session.book(caller)
            outputs, samples = _chosen(asked, found, likely, config.samples)
            left = len(asked) - len(outputs)
            end = (
                (3, f"{left} prompts are unanswered; the same command asks them again")
                if left
                else (0, "done")
            )
            results = {
                "model": caller.backend.model,
                "prompts": len(asked),
                "answered": len(outputs),
                "samples": config.samples,
                "repetitive": sum(bool(row["repetitive"]) for row in samples),
                "empty": sum(not row["output"].strip() for row in outputs),
                "cut_off": sum(row["finish"] == "length" for row in outputs),
                "calls": session.manifest["calls"],
                "exit": {"code": end[0], "reason": end[1]},
            }
            write_parquet(run.path / "outputs.parquet", pa.Table.from_pylist(outputs, schema=_OUTPUTS))
            write_parquet(run.path / "samples.parquet", pa.Table.from_pylist(samples, schema=_SAMPLES))
            text = json.dumps(results, indent=1, ensure_ascii=False)
            atomic_write(run.path / "results.json", text.encode())
        except BaseException as error:
            session.fail(error)
            raise
        session.end(*end)
        return results


def _prompts(source: str, config: EvaluateConfig) -> list[_Asked]:
    """Return the prompts of a file in the order of their ids, at most `config.limit`, drawn by the seed."""
    found: dict[str, _Asked] = {}
    for file in table_files(source):
        for number, row in enumerate(read_records(file)):
            where = f"{file}: row {number} (counted from 0)"
            own, text, category = open_prompt(row, where)
            one = _Asked(own or content_id(text)[:16], text, category)
            if one.id in found:
                raise InputError(f"{where} is there twice ({one.id}); leave one of them out")
            found[one.id] = one
    if not found:
        raise InputError(f"{source}: no rows in it; name a file with prompts")
    drawn = sorted(found.values(), key=lambda one: (draw(config.seed, one.id, "evaluation subset"), one.id))
    return sorted(drawn[: config.limit or None])


def _sampled(
    session: Session, caller: Caller, asked: Sequence[_Asked], config: EvaluateConfig
) -> dict[str, list[_Sample]]:
    """Return the samples of each prompt, as far as the budget goes."""
    model = config.model
    sampling = Sampling(model.temperature, model.top_p, model.max_new_tokens or _MAX_TOKENS)
    requests = (
        request(
            caller.backend.model, sampling, **sent(one.prompt, config), seed=config.seed, sample=sample,
            payload=(one.id, sample),
        )
        for one in asked
        for sample in range(config.samples)
    )  # fmt: skip
    found: dict[str, list[_Sample]] = defaultdict(list)
    total = len(asked) * config.samples
    for done, (posed, completion) in enumerate(caller.answers(requests), 1):
        if completion.finish != "error":
            item, sample = posed.payload
            found[item].append(_Sample(sample, completion.text, completion.finish))
        session.tick(Progress("answer", done, total, made=caller.made, reused=caller.reused))
    return {item: sorted(own) for item, own in found.items()}


def _chooser(caller: Caller, config: EvaluateConfig) -> Caller:
    """Return what weighs samples. Raises UsageError where nothing can."""
    if config.model.protocol == "chat" and config.model.ref.startswith("openai:"):
        raise UsageError(
            "a server does not say how likely a chat's whole replies are, by which samples are chosen; leave "
            "out --samples or --protocol chat, or load the model with vllm:, transformers: or openvino:"
        )
    return scoring_caller(caller, config)


def _likelihoods(
    session: Session,
    caller: Caller,
    scoring: Caller,
    asked: Sequence[_Asked],
    found: dict[str, list[_Sample]],
    config: EvaluateConfig,
) -> dict[str, dict[str, float]]:
    """Return the log-likelihood of each different text a prompt was answered with."""

    def requests() -> Iterator[Request]:
        for one in asked:
            texts = tuple(sorted({s.text for s in found.get(one.id, ()) if s.text}))
            if texts:
                made = weigh(caller.backend.model, texts, **sent(one.prompt, config))
                yield replace(made, payload=(one.id, texts))

    likely: dict[str, dict[str, float]] = {}
    for done, (posed, completion) in enumerate(scoring.answers(requests()), 1):
        item, texts = posed.payload
        if (scores := weighed(completion)) is not None:
            likely[item] = dict(zip(texts, scores.logprobs, strict=True))
        session.tick(Progress("weigh", done, len(found), made=scoring.made, reused=scoring.reused))
    caller.include(scoring)
    return likely


def _chosen(
    asked: Sequence[_Asked],
    found: dict[str, list[_Sample]],
    likely: dict[str, dict[str, float]],
    samples: int,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows of outputs.parquet and samples.parquet; a prompt that lacks a sample has no output."""
    outputs, rows = [], []
    for one in asked:
        own = found.get(one.id, [])
        known = likely.get(one.id, {})
        said = [s for s in own if s.text]
        best: _Sample | None = own[0] if own else None
        repetitive: dict[int, bool] = {}
        if samples > 1 and said:
            values = [known[s.text] for s in said if s.text in known]
            best = None
            if len(values) == len(said):
                at, dropped = best_sample(values)
                best = said[at]
                repetitive = {s.number: out for s, out in zip(said, dropped, strict=True)}
        whole = best is not None and len(own) == samples
        if best is not None and whole:
            outputs.append(
                {"id": one.id, "category": one.category, "prompt": one.prompt, "output": best.text,
                 "finish": best.finish}
            )  # fmt: skip
        rows += [
            {"id": one.id, "sample": s.number, "output": s.text, "finish": s.finish,
             "logprob": known.get(s.text), "repetitive": repetitive.get(s.number, False),
             "kept": whole and s is best}
            for s in own
        ]  # fmt: skip
    return outputs, rows
