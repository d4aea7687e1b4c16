"""The training journeys: what is read, which rows it makes, and where the result and its curve go."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from taskmill import frame
from taskmill.errors import InputError, UsageError
from taskmill.export.folder import last_examples
from taskmill.ingest import IngestConfig, read_sources
from taskmill.ingest.records import find_tables, read_records
from taskmill.recipes.session import OnProgress, Progress, ignore
from taskmill.record import EXAMPLE_SCHEMA, Document, examples
from taskmill.report.training import write_training_report
from taskmill.store import parts, read_json
from taskmill.train import TrainConfig, TrainRow, student_rows, synthesizer_rows, tapt_rows, train

__all__ = ["train_student", "train_synthesizer", "train_tapt"]

Rows = Callable[[Any], Iterator[TrainRow]]


def train_synthesizer(
    corpus: Sequence[str], config: TrainConfig, out: str | Path, on_progress: OnProgress | None = None
) -> dict[str, Any]:
    """Train a generator: on folders of `remix` or `cast`, or on tables with prompt and completion.

    Returns the record written beside the adapter. Raises InputError for what is no corpus.
    """
    return _train(lambda _: synthesizer_rows(_corpus(corpus)), config, Path(out), on_progress)


def train_tapt(
    sources: Sequence[str],
    config: TrainConfig,
    out: str | Path,
    *,
    ingest: IngestConfig | None = None,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Train on plain text by next-word prediction (task-adaptive pre-training, arXiv 2004.10964)."""
    reading = ingest or IngestConfig(chunk_tokens=1_000_000)
    if not sources:
        raise UsageError("no source is given; name a file, a folder, a URL or - for standard input")
    length = config.resolved().max_length

    def rows(tokenizer: Any) -> Iterator[TrainRow]:
        texts = (d for d in read_sources(sources, reading) if isinstance(d, Document))
        return tapt_rows(texts, length, tokenizer)

    return _train(rows, config, Path(out), on_progress)


def train_student(
    run: str | Path,
    config: TrainConfig,
    out: str | Path,
    *,
    layout: str = "chat",
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Fine-tune a student on the accepted examples of a run, in chat or in Bonito's student format."""
    stage = last_examples(Path(run))

    def rows(tokenizer: Any) -> Iterator[TrainRow]:
        with closing(frame.scan(parts(stage.folder / "kept"), EXAMPLE_SCHEMA)) as tables:
            yield from student_rows((e for table in tables for e in examples(table)), layout, tokenizer)

    return _train(rows, config, Path(out), on_progress)


def _train(rows: Rows, config: TrainConfig, out: Path, on_progress: OnProgress | None) -> dict[str, Any]:
    from taskmill.train.base import find, load_tokenizer

    report = on_progress or ignore
    report(Progress("read rows"))
    made = list(rows(load_tokenizer(find(config.base))))

    def on_step(step: int, total: int, loss: float, tokens_per_s: float, eta_s: float) -> None:
        note = f"loss {loss:.3f}, {tokens_per_s:.0f} tokens/s, {eta_s / 60:.0f} min left"
        report(Progress("train", step, total, note=note))

    record = train(made, config, out, on_step)
    write_training_report(out)
    return record


def _corpus(sources: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of remix runs, of cast annotated texts, and of table files."""
    if not sources:
        raise UsageError("no corpus is given; name a remix run folder, or a table with prompt and completion")
    for source in sources:
        if read_json(Path(source) / "manifest.json").get("kind") == "cast":
            source = str(Path(source) / "sequences.parquet")
        remixed = Path(source) / "3-ctga"
        if (Path(source) / "manifest.json").exists() and not (remixed / "stage.json").exists():
            raise InputError(f"{source} holds no finished corpus; run `taskmill remix` on it to the end")
        if remixed.is_dir():
            for part in parts(remixed / "kept"):
                for batch in pq.ParquetFile(part).iter_batches():
                    yield from batch.to_pylist()
        else:
            for table in find_tables([source]):
                yield from read_records(table)
