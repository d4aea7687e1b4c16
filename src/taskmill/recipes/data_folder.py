"""A folder of training rows: `data/` in parts, dropped.parquet, README.md, and manifest.json, written last.

Until then `.unfinished.json` says whose folder it is and what its parts are of: the same command goes on
behind the parts that are there.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from taskmill.durable import atomic_write
from taskmill.errors import UsageError
from taskmill.recipes.tables import UNFINISHED, check_out, command_of
from taskmill.store import code_version, read_json

__all__ = ["begin", "file_record", "finish", "own_folder", "part_names"]

_OF_RESULTS = ("data", "dropped.parquet", "README.md")


def own_folder(out: Path, files: Sequence[str], command: str) -> Path:
    """Return where results with a manifest go; raises UsageError where they would destroy something else.

    Results of the same command are written over, anything else is not: neither a source in `files` nor rows
    and cards that `command` did not write.
    """
    finished = out.is_dir() and (out / "manifest.json").exists()
    if not finished:
        check_out(out, files, command)
    elif command_of(out / "manifest.json") != command:
        raise UsageError(f"{out} holds a manifest.json that {command} did not write; choose another --out")
    for name in files:
        real = Path(name).resolve()
        if (finished and out.resolve() in real.parents) or (out / "data").resolve() in real.parents:
            raise UsageError(f"--out {out} would write into the source {name}; choose a place of its own")
    if not finished and command_of(out / UNFINISHED) != command:
        there = next((name for name in _OF_RESULTS if (out / name).exists()), "")
        if there:
            raise UsageError(f"{out} holds a {there} that {command} did not write; choose another --out")
    return out


def begin(folder: Path, command: str, made_of: Any = None, *, also: Sequence[str] = ()) -> None:
    """Make the folder ready: parts made of the same by the same code stay, any other result of ours goes.

    `made_of`: what the parts follow from, as JSON; None: nothing is taken up again. `also`: other folders of
    results beside `data`.
    """
    said = json.dumps([made_of, code_version()], default=str).encode()
    mark = {"command": command, "made_of": hashlib.blake2b(said, digest_size=16).hexdigest()}
    folder.mkdir(parents=True, exist_ok=True)
    if made_of is not None and read_json(folder / UNFINISHED) == mark:
        (folder / "manifest.json").unlink(missing_ok=True)
        return
    atomic_write(folder / UNFINISHED, json.dumps({"command": command}).encode())
    for name in ("manifest.json", "dropped.parquet", "README.md"):
        (folder / name).unlink(missing_ok=True)
    for name in ("data", *also):
        shutil.rmtree(folder / name, ignore_errors=True)
    atomic_write(folder / UNFINISHED, json.dumps(mark).encode())


def finish(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest: the folder is whole."""
    atomic_write(folder / "manifest.json", json.dumps(manifest, indent=1, ensure_ascii=False).encode())
    (folder / UNFINISHED).unlink()


def part_names(parts: int, suffix: str = ".parquet") -> list[str]:
    """Return the names of the parts, of which there is one at least."""
    of = max(parts, 1)
    return [f"train-{at:05}-of-{of:05}{suffix}" for at in range(of)]


def file_record(name: str, **about: Any) -> dict[str, Any]:
    """Return what a manifest says of a file that was read: its name, what is known `about` it, its hash."""
    found = {**about, "file": Path(name).name}
    if Path(name).is_file():
        with Path(name).open("rb") as file:
            found["blake2b"] = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    return found
