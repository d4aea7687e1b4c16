"""Kills `grow add` and `grow remove` at every write point, in forked children of one process.

    python registry_driver.py FOLDER

For N = 1, 2, …: a child adds a changed dataset and a new one to a copy of a registry, takes one out, and is
killed (SIGKILL) at its Nth write point. What the registry's reader then sees must be a whole version; then
the same command runs to its end. Prints one JSON line per N: {"n", "point", "seen", "ended"}: `seen` is
"old", "middle", "new" or "broken", `ended` whether the finished registry has the bytes of one never killed.
"""

import hashlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from taskmill import durable
from taskmill.grow.registry import Registry
from taskmill.recipes.grow import AddConfig, add, remove

FOLDER = Path(sys.argv[1])


def table(path, word, rows):
    made = {
        "review": [
            f"the {word} number {i} was {'very good' if i % 2 else 'dull'} indeed" for i in range(rows)
        ],
        "label": [("negative", "positive")[i % 2] for i in range(rows)],
    }
    pq.write_table(pa.table(made), path)
    return str(path)


def digest(registry):
    """What a reader sees of a registry: every file of the last version, by name and content."""
    version = registry.version()
    files = sorted(p for p in version.folder.rglob("*") if p.is_file())
    sums = {str(p.relative_to(registry.path)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    for name, entry in version.datasets.items():
        rows = sum(pq.read_metadata(part).num_rows for part in version.kept(name))
        assert rows == entry.rows
        assert set(entry.tasks) == {task["id"] for task in version.record(name)["tasks"]}
    return json.dumps(sums, sort_keys=True)


def child(path, sources, kill_at, log):
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            return True
        assert os.WEXITSTATUS(status) == 0
        return False
    seen = 0

    def hook(point):
        nonlocal seen
        seen += 1
        if seen == kill_at:
            log.write_text(point)
            os.kill(os.getpid(), signal.SIGKILL)

    durable.on_write(hook)
    try:
        add(AddConfig(sources=tuple(sources), registry=str(path)))
        if "gone" in Registry(path).version().datasets:
            remove(str(path), ["gone"], "test")
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(9)


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    first = [table(FOLDER / f"{word}.parquet", word, 20) for word in ("film", "meal", "gone")]
    begun = FOLDER / "begun"
    add(AddConfig(sources=tuple(first), registry=str(begun)))
    old = digest(Registry(begun))
    table(FOLDER / "film.parquet", "film", 26)
    later = [first[0], table(FOLDER / "boat.parquet", "boat", 20)]
    whole = FOLDER / "whole"
    shutil.copytree(begun, whole, copy_function=os.link)
    child(whole, later, 0, FOLDER / "log")
    ends = {2: None, 3: None}
    for number in ends:
        keep = [p for p in (whole / "versions").iterdir() if int(p.name) <= number]
        part = FOLDER / f"whole-{number}"
        for p in keep:
            shutil.copytree(p, part / "versions" / p.name, copy_function=os.link)
        ends[number] = digest(Registry(part))
    n = 0
    while True:
        n += 1
        path = FOLDER / f"{n}"
        shutil.copytree(begun, path, copy_function=os.link)
        if not child(path, later, n, FOLDER / "log"):
            return
        seen = digest(Registry(path))
        names = {old: "old", ends[2]: "middle", ends[3]: "new"}
        child(path, later, 0, FOLDER / "log")
        ended = digest(Registry(path)) == ends[3]
        point = (FOLDER / "log").read_text()
        print(json.dumps({"n": n, "point": point, "seen": names.get(seen, "broken"), "ended": ended}))


main()
