"""Kills a run at every write point and finishes it again, in forked children of one process.

    python fault_driver.py SOURCE FOLDER [torn | full]

For N = 1, 2, …: a child runs the journey and is killed (SIGKILL) at its Nth write point; a second
child runs the same command to its end. Prints one JSON line per N: {"n", "point", "same", "calls"}.
`same` says whether kept, dropped and export bytes equal those of an undisturbed run; `calls` is how
many calls the backend answered in both children together. With `torn`, the last bytes of the newest
ledger segment are cut off between the two. With `full`, the first child is not killed: from its Nth
write point on, every write fails as on a full disk (every third N, to save time).
"""

import errno
import hashlib
import json
import os
import signal
import sys
from pathlib import Path

import daft  # noqa: F401  imported once, before forking

from taskmill import durable
from taskmill.backends import echo
from taskmill.errors import LedgerError
from taskmill.export import export_run
from taskmill.recipes import SynthConfig, synth
from taskmill.recipes.evaluation_sets import HeldOut
from taskmill.recipes.synth import ModelConfig
from taskmill.record import Example

SOURCE, FOLDER = Path(sys.argv[1]), Path(sys.argv[2])
TORN = "torn" in sys.argv[3:]
FULL = "full" in sys.argv[3:]


def journey(run):
    config = SynthConfig(sources=(str(SOURCE),), task=("exqa", "ynqa"), model=ModelConfig(ref="echo:"))
    synth(config, run)
    export_run(run, run / "export", "messages")


def digest(run):
    files = [*run.glob("*/kept/*"), *run.glob("*/dropped/*"), *(run / "export").rglob("*")]
    sums = {str(f.relative_to(run)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files if f.is_file()}
    return json.dumps(sums, sort_keys=True)


def child(run, log, kill_at):
    """Run the journey in a fork; return (whether it was killed, the name of the point it died at)."""
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status) or (kill_at and os.WEXITSTATUS(status) == 7):
            return True
        assert os.WEXITSTATUS(status) == 0, f"a child failed with {os.WEXITSTATUS(status)}"
        return False
    seen = 0

    def hook(point):
        nonlocal seen
        seen += 1
        if seen == kill_at:
            log.with_suffix(".point").write_text(point)
            if not FULL:
                os.kill(os.getpid(), signal.SIGKILL)
        if kill_at and seen >= kill_at:
            raise OSError(errno.ENOSPC, "No space left on device")

    durable.on_write(hook)
    answer = echo.Echo.generate

    def counting(self, requests):
        for completion in answer(self, requests):
            with log.open("a") as file:
                file.write(completion.key + "\n")
            yield completion

    echo.Echo.generate = counting
    try:
        journey(run)
        os._exit(0)
    except (OSError, LedgerError) as error:
        os._exit(7 if "No space left" in str(error) else 8)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(9)


def main():
    HeldOut(("shipped",)).match(Example("", "", "", "", ""))  # read once, before forking
    reference = FOLDER / "reference" / "run"
    child(reference, FOLDER / "reference.log", 0)
    expected = digest(reference)
    n, step = 1 - (3 if FULL else 1), 3 if FULL else 1
    while True:
        n += step
        run, log = FOLDER / f"{n}" / "run", FOLDER / f"{n}.log"
        killed = child(run, log, n)
        if not killed:
            return
        if TORN and not log.with_suffix(".point").read_text().startswith("ledger"):
            continue
        if TORN:
            segments = sorted((run / "ledger").glob("*.ledger"), key=lambda p: p.stat().st_mtime)
            if segments and segments[-1].stat().st_size > 9:
                os.truncate(segments[-1], segments[-1].stat().st_size - 9)
        child(run, log, 0)
        calls = log.read_text().split()
        point = log.with_suffix(".point").read_text()
        same = digest(run) == expected
        if not same:
            print(sorted(set(json.loads(digest(run)).items()) ^ set(json.loads(expected).items())))
        counts = {"calls": len(calls), "keys": len(set(calls))}
        print(json.dumps({"n": n, "point": point, "same": same, **counts}))


main()
