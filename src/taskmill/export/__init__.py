"""Run folder → training data: one JSONL or Parquet file, or a folder that `datasets.load_dataset` opens.

A folder is complete when its README.md is there: the card is taken away first and written last, and
every other file is written under a temporary name, fsynced and renamed. While there may be no card, the
marker `.taskmill-export` says that the folder is ours. Rows stream through in
batches, so memory does not grow with the run. Equal runs give equal bytes.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from taskmill.durable import atomic_write, sync_directory, write_point
from taskmill.errors import UsageError
from taskmill.export import trainers
from taskmill.export.card import Card, is_ours, slug
from taskmill.export.files import DataFiles, clear_leftovers
from taskmill.export.folder import last_examples
from taskmill.export.licences import check_commercial, count_licences
from taskmill.export.rows import Rows
from taskmill.store import read_json

__all__ = ["ExportResult", "export_run", "is_single_file"]

_SUFFIXES = (".jsonl", ".parquet")
_MARKER = ".taskmill-export"


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What an export wrote: rows in all and per split, the files, and refused rows by reason."""

    rows: int
    files: tuple[Path, ...]
    dropped: dict[str, int] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)


def export_run(
    run: Path,
    out: Path,
    format: str = "messages",
    *,
    licence: str = "",
    commercial: bool = False,
    allow_unknown_licence: bool = False,
    split: float = 0.0,
    thinking: bool = False,
) -> ExportResult:
    """Write the examples of a run's last stage to `out` in a training format.

    Args:
        run: the run folder.
        out: a file ending in .jsonl or .parquet, or a folder for data, card and trainer configurations.
        format: messages, prompt-completion, alpaca, sharegpt, bonito or text (`render.FORMATS`).
        licence: the licence you declare for rows whose source names none.
        commercial: refuse to export (LicenceUnknown) unless the licences of all rows and of the model are
            known to allow commercial use.
        allow_unknown_licence: let unknown licences (not non-commercial ones) pass that gate, on your word.
        split: share of passages for a `test` split, 0 to 0.9 (folders only); no passage is in both.
        thinking: put a row's rationale before its response in `<think>` tags.

    Raises:
        UsageError: an unknown format or an `out` that is not ours to write to.
        RunFolderError: the run holds no examples or was not finished.
        LicenceUnknown: the commercial gate is closed; nothing was written.
    """
    single = is_single_file(out)
    if not 0 <= split <= 0.9 or (single and split):
        raise UsageError("--split is a share from 0 to 0.9 and needs a folder as output, not a single file")
    stage = last_examples(run)
    rows = Rows(stage.kept, format, thinking=thinking, test_share=split)
    if commercial:
        model = (read_json(run / "manifest.json").get("model") or {}).get("licence") or ""
        check_commercial(count_licences(stage, licence), model, allow_unknown_licence)
    return _write_file(rows, out) if single else _write_folder(rows, run, out, format, licence)


def is_single_file(out: Path) -> bool:
    """Say whether rows go to one file (.jsonl, .parquet), else to a folder; raises UsageError for neither."""
    single = out.suffix in _SUFFIXES
    if out.suffix and not single and not out.is_dir():
        raise UsageError(
            f"{out} ends in {out.suffix}, which is no format; give a name that ends in .jsonl or .parquet, "
            "or a folder (make it first if its name shall have a dot in it)"
        )
    return single


def _write_file(rows: Rows, out: Path) -> ExportResult:
    if out.is_dir():
        raise UsageError(f"{out} is a folder; give another name")
    as_parquet = out.suffix == ".parquet"
    with DataFiles(
        rows.schema, parquet=out if as_parquet else None, jsonl=None if as_parquet else out
    ) as data:
        for batch in rows:
            data.add(batch["train"])
        data.finish()
        files = data.commit()
    return ExportResult(data.rows, tuple(files), dict(rows.refused), {"train": data.rows})


def _write_folder(rows: Rows, run: Path, out: Path, format: str, licence: str) -> ExportResult:
    _check_ours(out)
    out.mkdir(parents=True, exist_ok=True)
    atomic_write(out / _MARKER, b"An unfinished taskmill export; the same command finishes it.\n")
    clear_leftovers(out)
    with ExitStack() as stack:
        data = {
            split: stack.enter_context(
                DataFiles(
                    rows.schema,
                    parquet=out / "data" / f"{split}.parquet",
                    jsonl=out / f"{split}.jsonl",
                    shards=True,
                )
            )
            for split in rows.splits
        }
        for batch in rows:
            for split, taken in batch.items():
                data[split].add(taken)
        for files in data.values():
            files.finish()
        _retract(out)
        placed = {split: files.commit() for split, files in data.items()}
    counts = {split: files.rows for split, files in data.items()}
    # Each split's Parquet files: `data/train.parquet`, or `data/train-*.parquet` for shards.
    patterns = {
        split: f"data/{split}{'' if len(paths) == 2 else '-*'}.parquet" for split, paths in placed.items()
    }
    name = slug(str(read_json(run / "manifest.json").get("name") or run.resolve().name))
    card = Card(run, name, format, rows, counts, patterns, licence)
    texts = {**trainers.configs(name, format, patterns, rows.layout_columns), "README.md": card.text()}
    for file, text in texts.items():
        atomic_write(out / file, text.encode())
    (out / _MARKER).unlink()
    sync_directory(out)
    write_point("export unmarked")
    written = (*(path for paths in placed.values() for path in paths), *(out / file for file in texts))
    return ExportResult(sum(counts.values()), written, dict(rows.refused), counts)


def _check_ours(out: Path) -> None:
    """Refuse a folder that holds anything and is neither an export of ours nor an unfinished one."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; name a folder, or a file ending in .jsonl or .parquet")
    if not out.is_dir() or (out / _MARKER).is_file():
        return
    card = out / "README.md"
    if card.is_file() and is_ours(card.read_text("utf-8", "replace")):
        return
    # Killed while it wrote the marker: only the marker's temporary file is there.
    if any(path.name != f".{_MARKER}.tmp" for path in out.iterdir()):
        raise UsageError(
            f"{out} holds files that are not an export's; nothing was changed. Choose an empty or new folder"
        )


def _retract(out: Path) -> None:
    """Take away an earlier export's card, then its files: other formats and shard counts would linger."""
    (out / "README.md").unlink(missing_ok=True)
    for split in ("train", "test"):
        for pattern in (f"{split}.jsonl", f"data/{split}.parquet", f"data/{split}-?????-of-?????.parquet"):
            for path in out.glob(pattern):
                path.unlink()
    (out / "trl.yaml").unlink(missing_ok=True)
