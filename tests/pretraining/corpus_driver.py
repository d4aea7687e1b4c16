"""Kills a corpus run at some of its write points and finishes it again, in forked children of one process.

    python corpus_driver.py SOURCE FOLDER STEP

Every STEP-th write point: a child is killed (SIGKILL) there, a second one runs the same command to its end.
Prints one JSON line each: {"n", "point", "same", "calls", "keys"}, as `tests/fault_driver.py` does.
"""

import hashlib
import json
import os
import signal
import sys
from pathlib import Path

import daft  # noqa: F401  imported once, before forking
import word_tokenizer

from taskmill import durable
from taskmill.backends import ModelConfig, echo, tokenizer
from taskmill.recipes.corpus import CorpusConfig, corpus

SOURCE, FOLDER, STEP = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
tokenizer.load_text_tokenizer = word_tokenizer.load


def digest(run):
    files = [
        *run.glob("*/kept/*"),
        *run.glob("*/dropped/*"),
        *(run / "data").iterdir(),
        *(run / "shards").iterdir(),
    ]
    return {str(f.relative_to(run)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files if f.is_file()}


def child(run, log, kill_at):
    """Run the journey in a fork; say whether it was killed."""
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
        return os.WIFSIGNALED(status)
    seen = 0

    def hook(point):
        nonlocal seen
        seen += 1
        if seen == kill_at:
            log.with_suffix(".point").write_text(point)
            os.kill(os.getpid(), signal.SIGKILL)

    durable.on_write(hook)
    answer = echo.Echo.generate

    def counting(self, requests):
        for completion in answer(self, requests):
            with log.open("a") as file:
                file.write(completion.key + "\n")
            yield completion

    echo.Echo.generate = counting
    try:
        own = CorpusConfig(
            (SOURCE,),
            rounds=3,
            augment=1.0,
            length=512,
            tokens=600,
            against=("none",),
            model=ModelConfig("echo:"),
        )
        corpus(own, run)
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(9)


def main():
    reference = FOLDER / "reference"
    child(reference, FOLDER / "reference.log", 0)
    expected = digest(reference)
    n = 1
    while child(FOLDER / str(n), FOLDER / f"{n}.log", n):
        run, log = FOLDER / str(n), FOLDER / f"{n}.log"
        child(run, log, 0)
        calls, point = log.read_text().split(), log.with_suffix(".point").read_text()
        counts = {"calls": len(calls), "keys": len(set(calls))}
        print(json.dumps({"n": n, "point": point, "same": digest(run) == expected, **counts}), flush=True)
        n += STEP


main()
