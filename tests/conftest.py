"""Shared fixtures. The suite runs offline: a connection that leaves this machine is an error."""

import ast
import json
import os
import socket
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
# A busy machine is no failure. The same examples in every run: a change is judged by what it changes;
# `pytest --hypothesis-profile explore` draws new ones.
settings.register_profile("taskmill", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile("taskmill")

PASSAGES = [
    "The yield statement turns a function into a generator. Each call of next() runs it to the next yield.",
    "A tuple is an immutable sequence. It is often used for small groups of values that belong together.",
    "Decorators wrap a function in another one. They are written with an at sign above the definition.",
    "The garbage collector frees objects that nothing refers to. Reference counts are kept for each object.",
    "Import statements load a module once. Later imports find it in the table of loaded modules.",
    "An exception travels up the call stack until a handler matches it. Without a handler the program ends.",
]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test connects to {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def texts(tmp_path):
    """A folder of six short text files."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for i, passage in enumerate(PASSAGES):
        (folder / f"{i}.txt").write_text(passage)
    return folder


@pytest.fixture(scope="session")
def shared_data():
    """The folder of shared real datasets, or a skip with the reason."""
    places = [os.environ.get("TASKMILL_DATA"), Path(__file__).parents[2] / "shared" / "data"]
    for place in places:
        if place and (Path(place) / "CATALOG.json").exists():
            return Path(place)
    pytest.skip("no shared datasets here: set TASKMILL_DATA to their folder")


@pytest.fixture(scope="session")
def is_a_test():
    """Say whether `folder/test_file.py::test_name` stands in the suite: what maps of requirements name."""

    def stands(named):
        file, _, name = named.partition("::")
        tree = ast.parse((Path(__file__).parent / file).read_text("utf-8"))
        return name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}

    return stands


@pytest.fixture
def verdicts(tmp_path):
    """Six pairs, the label follows from the claim."""
    of = (("dry", "refutes"), ("wet", "supports"))
    rows = [{"premise": f"p{i}", "hypothesis": of[i % 2][0], "label": of[i % 2][1]} for i in range(6)]
    path = tmp_path / "nli.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path
