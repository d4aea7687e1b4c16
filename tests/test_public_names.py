"""What a user may import: every module says it in `__all__`, and the lists hold what they say."""

import pkgutil
import subprocess
import sys
from importlib import import_module

import taskmill

PUBLIC = {
    "taskmill": ["__version__"],
    "taskmill.bonito": ["Bonito", "SamplingParams"],
    "taskmill.recipes": ["RECIPES", "SynthConfig", "synth"],
}
SKIPPED = {"taskmill.__main__"}


def modules():
    for found in pkgutil.walk_packages(taskmill.__path__, "taskmill."):
        if found.name not in SKIPPED:
            yield found.name


def test_every_module_lists_its_public_names():
    wrong = []
    for name in modules():
        module = import_module(name)
        listed = getattr(module, "__all__", None)
        if listed is None:
            wrong.append(f"{name} has no __all__")
            continue
        wrong += [f"{name}.{n} does not exist" for n in listed if not hasattr(module, n)]
    assert wrong == []


def test_the_front_door_is_exactly_this():
    for name, names in PUBLIC.items():
        assert sorted(import_module(name).__all__) == sorted(names), name


def test_importing_is_light_silent_and_offline():
    code = (
        "import sys, socket\n"
        "def no(*a, **k): raise AssertionError('network at import')\n"
        "socket.socket.connect = no; socket.getaddrinfo = no\n"
        "import taskmill\n"
        "heavy = {'daft', 'pyarrow', 'torch', 'openvino', 'aiohttp', 'numpy', 'rich', 'datasets'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (shown.stdout, shown.stderr) == ("[]\n", "")


def test_the_engine_is_imported_without_its_telemetry():
    code = (
        "import sys, socket\n"
        "seen = []\n"
        "socket.getaddrinfo = lambda *a, **k: (seen.append(a), (_ for _ in ()).throw(OSError('cut')))[1]\n"
        "import pyarrow as pa, pyarrow.parquet as pq, tempfile, pathlib\n"
        "from taskmill import frame\n"
        "p = pathlib.Path(tempfile.mkdtemp()) / 'part-0.parquet'\n"
        "pq.write_table(pa.table({'a': [1, 2]}), p)\n"
        "print([t.num_rows for t in frame.scan([p], pa.schema([('a', pa.int64())]))], seen, flush=True)\n"
        "import os; os._exit(0)  # as the command line does: see taskmill.cli.run"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "[2] []\n", shown.stdout + shown.stderr
