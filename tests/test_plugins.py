"""A 17th task type, a backend and a reader from outside, through the entry-point group."""

import json
import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from taskmill.errors import UnknownName, UsageError
from taskmill.registry import Registry

PLUGIN = '''
from taskmill.backends import GENERATORS
from taskmill.calls import Completion
from taskmill.ingest import READERS, Text
from taskmill.record import Reason
from taskmill.tasks import TASKS
from taskmill.tasks.base import Draft, Rejected, TaskType
from taskmill.templates import words


class Title(TaskType):
    """Give the passage a title."""

    name = "title"
    title = "title generation"
    parts = ("title",)
    metric = "exact_match"

    def build(self, reply, ask):
        text = reply.get("title", "")
        instruction, template = self.instruction(ask)
        return Draft(instruction, text, template=template) if text else Rejected(Reason.MALFORMED, "no title")

    def check(self, example):
        return Rejected(Reason.TOO_LONG, "over ten words") if len(example.response.split()) > 10 else None

    def grade(self, prediction, example):
        return float(prediction == example.response)

    def sample(self, ask):
        return {"title": " ".join(ask.document.text.split()[:4])}


class Shout:
    """Answers every request in capitals."""

    model = "shout:"
    batch_invariant = True

    def generate(self, requests):
        for r in requests:
            yield Completion(r.key, "Title: " + r.payload.document.text[:12].upper(), "stop", 1, 1)


def read_log(file, config):
    with file.open() as stream:
        for line in stream:
            yield Text(line.decode().strip())


def register():
    TASKS.register("title", Title())
    words.register("title", "Passage:\\n{{ passage }}\\n\\nWrite a title.", ["Title this:\\n{{context}}"])
    GENERATORS.register("shout", lambda name, revision, config: Shout())
    READERS.register(".log", read_log)
'''


@pytest.fixture
def installed(tmp_path):
    """An installed third-party package, as pip would leave it."""
    site = tmp_path / "site"
    (site / "acme-1.0.dist-info").mkdir(parents=True)
    (site / "acme_tasks.py").write_text(PLUGIN)
    (site / "acme-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (site / "acme-1.0.dist-info" / "entry_points.txt").write_text(
        "[taskmill.plugins]\nacme = acme_tasks:register\n"
    )
    return site


def run(installed, *words):
    environment = {**os.environ, "PYTHONPATH": f"{installed}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-m", "taskmill", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_a_task_type_a_backend_and_a_reader_from_outside(installed, tmp_path):
    (tmp_path / "app.log").write_text("The pump stopped at noon because its filter was full of sand.\n" * 1)
    for model in ("echo:", "shout:"):
        out = tmp_path / model[:-1]
        words = (tmp_path / "app.log", "--task", "title", "--model", model, "--out", out, "--json")
        shown = run(installed, "synth", *words)
        assert shown.returncode == 0, shown.stderr
        assert json.loads(shown.stdout)["tasks"]["title"]["accepted"] == 1
        (row,) = pq.read_table(next((out / "3-curate" / "kept").glob("*"))).to_pylist()
        assert row["instruction"] == "Title this:\n{{context}}"
        assert row["response"] == ("The pump stopped at" if model == "echo:" else "THE PUMP STO")


def test_without_the_package_the_name_is_unknown(tmp_path):
    (tmp_path / "a.txt").write_text("The pump stopped at noon because its filter was full of sand.")
    words = ("synth", tmp_path / "a.txt", "--task", "title", "--model", "echo:", "--out", tmp_path / "r")
    shown = run(tmp_path, *words)
    assert shown.returncode == 2
    assert "no task type is called 'title'" in shown.stderr


def test_doctor_lists_it(installed):
    assert "title" in run(installed, "doctor").stdout


def test_names_are_taken_once_and_near_ones_suggested():
    registry = Registry("colour")
    registry.register("green", 1)
    with pytest.raises(UsageError, match="colour 'green' is already registered"):
        registry.register("green", 2)
    with pytest.raises(UnknownName, match=r"no colour is called 'gren'\. Did you mean 'green'"):
        registry.get("gren")
