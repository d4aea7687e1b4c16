"""The whole journey against an HTTP server: kills, faults and secrets."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from taskmill.backends import ModelConfig
from taskmill.recipes import SynthConfig, synth
from tests.backends.server import Act, Server, ok, openai, reply

KEY = "sk-test-never-write-this-anywhere"
INSTRUCTION = "{{context}}\n\nWhich words does the text begin with?"


def bonito(seen):
    """Answer like a trained generator: a question whose answer is the passage's first four words."""
    passage = seen.body["prompt"].split("<|context|>\n")[1].split("\n<|task|>")[0]
    return reply(openai(seen, f"{INSTRUCTION}\n<|pipe|>\n{' '.join(passage.split()[:4])}"))


def config(texts, server, **changes):
    model = ModelConfig(ref="openai:bonito-test", base_url=server.url, retries=0, concurrency=4, timeout=5)
    return replace(SynthConfig(sources=(str(texts),), task=("exqa",), model=model), **changes)


def digest(run):
    return {str(p.relative_to(run)): p.read_bytes() for p in sorted(run.glob("*/kept/*"))}


def test_the_bonito_protocol_is_spoken_exactly(texts, tmp_path):
    with Server(bonito) as server:
        manifest = synth(config(texts, server), tmp_path / "run")
    assert manifest["funnel"]["curate"]["kept"] == 6
    assert {s.path for s in server.seen} == {"/v1/completions"}
    wanted = {
        f"<|tasktype|>\nextractive question answering\n<|context|>\n{p.read_text()}\n<|task|>\n"
        for p in texts.iterdir()
    }
    assert {s.body["prompt"] for s in server.seen} == wanted
    assert manifest["tokens"] == {"prompt": 66, "completion": 42}


def many(texts, count):
    for i in range(count):
        (texts / f"more{i}.txt").write_text(
            f"Part {i} of the machine turns slowly. It is number {i} of all parts."
        )


def start(texts, server, run):
    words = [sys.executable, "-m", "taskmill", "synth", texts, "--task", "exqa", "--model", "openai:bonito-x",
             "--base-url", server.url, "--concurrency", 2, "--out", run, "--json"]  # fmt: skip
    return subprocess.Popen(
        [str(w) for w in words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_killed_in_the_middle_and_run_again(texts, tmp_path):
    """The acceptance probe of the field: kill -9 mid-run, run again, count what the server saw."""
    many(texts, 60)

    def slowly(seen):
        act = bonito(seen)
        act.delay = 0.02
        return act

    with Server(slowly) as server:
        process = start(texts, server, tmp_path / "run")
        while len(server.seen) < 30:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        first = len(server.seen)
        assert first < 66
        out, err = start(texts, server, tmp_path / "run").communicate()
        total = len(server.seen)
        undisturbed = start(texts, server, tmp_path / "other")
        undisturbed.communicate()
    manifest = json.loads(out)
    assert manifest["exit"]["code"] == 0, err
    # At most the calls under way when the kill came (concurrency 2) were made twice.
    assert 66 <= total <= 66 + 2
    assert manifest["calls"]["made"] == total - first
    assert manifest["calls"]["made"] + manifest["calls"]["reused"] == 66
    assert manifest["calls"]["total"] == 66
    assert digest(tmp_path / "run") == digest(tmp_path / "other")


FAULTS = {
    "429": lambda seen: reply(b"{}", 429),
    "500": lambda seen: reply(b"oops", 500),
    "503": lambda seen: reply(b"", 503),
    "empty": lambda seen: reply(b""),
    "half": lambda seen: Act(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{", close=True),
    "not json": lambda seen: reply(b"word salad"),
    "html": lambda seen: reply(b"<html><body>gateway</body></html>"),
    "wrong model": lambda seen: reply({**openai(seen), "model": "another-one"}),
    "nothing": lambda seen: Act(close=True),
    "hang": lambda seen: Act(delay=60),
}


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_a_server_with_one_fault_in_three_ends_with_reasons(texts, tmp_path, fault):
    def play(seen):
        return FAULTS[fault](seen) if seen.number % 3 == 1 else bonito(seen)

    with Server(play) as server:
        c = config(texts, server)
        manifest = synth(replace(c, model=replace(c.model, timeout=1.0, concurrency=1)), tmp_path / "run")
    funnel = manifest["funnel"]["synthesize"]
    assert funnel["in"] == 6
    assert funnel["dropped"] == {"call_failed": 2}
    assert funnel["kept"] == 4
    assert manifest["calls"]["failed"] == 2
    assert "2 calls failed (most often: " in manifest["exit"]["reason"]
    assert manifest["exit"]["code"] == 3


def test_passing_faults_are_tried_again(texts, tmp_path):
    with Server(lambda seen: FAULTS["503"](seen) if seen.number == 2 else bonito(seen)) as server:
        c = config(texts, server)
        manifest = synth(replace(c, model=replace(c.model, retries=2)), tmp_path / "run")
    assert manifest["funnel"]["synthesize"]["kept"] == 6
    assert len(server.seen) == 7


def test_the_key_is_in_no_file_log_or_traceback(texts, tmp_path):
    def play(seen):
        assert seen.headers["authorization"] == f"Bearer {KEY}"
        if seen.number == 1:
            return reply(f"no such thing: {seen.headers['authorization']}".encode(), 400)
        return ok(seen) if seen.number < 3 else reply(b"denied: " + KEY.encode(), 401)

    with Server(play) as server:
        words = [
            *(sys.executable, "-m", "taskmill", "-v", "synth", texts, "--task", "exqa,qg", "--retries", 0),
            *("--model", "openai:some-model", "--base-url", server.url, "--out", tmp_path / "run"),
        ]
        shown = subprocess.run(
            [str(w) for w in words], capture_output=True, text=True, env={**os.environ, "OPENAI_API_KEY": KEY}
        )
    assert server.seen
    secret = KEY.encode()
    files = [p for p in (tmp_path / "run").rglob("*") if p.is_file()]
    assert len(files) > 4
    assert [p for p in files if secret in p.read_bytes()] == []
    import pyarrow.parquet as pq

    for path in files:
        if path.suffix == ".parquet":
            assert KEY not in str(pq.read_table(path).to_pylist())
    assert KEY not in shown.stdout + shown.stderr


@pytest.mark.parametrize("words", [(), ("--base-url", "http://127.0.0.1:9/v1", "--retries", "0")])
def test_the_command_ends_when_the_model_cannot_be_used(texts, tmp_path, words):
    """In a process of its own, because engine threads left open would keep it from ending."""
    environment = {k: v for k, v in os.environ.items() if k != "OPENAI_API_KEY"}
    command = [sys.executable, "-m", "taskmill", "synth", texts, "--task", "qg", "--model", "openai:m"]
    shown = subprocess.run(
        [*map(str, command), "--out", str(tmp_path / "run"), *words],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
    )
    assert shown.returncode == 1
    assert shown.stderr.startswith("error: ")


def test_a_server_that_is_not_there_is_named(texts, tmp_path):
    c = SynthConfig(
        sources=(str(texts),),
        task=("exqa",),
        model=ModelConfig(ref="openai:m", base_url="http://127.0.0.1:9/v1", retries=0),
    )
    from taskmill.errors import BackendError

    with pytest.raises(BackendError, match=r"127\.0\.0\.1:9"):
        synth(c, tmp_path / "run")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["exit"]["code"] == 1
    assert Path(tmp_path / "run" / "1-ingest" / "stage.json").exists(), "what was done stays done"
