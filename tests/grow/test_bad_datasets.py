"""Datasets as bad as they come, through the whole journey; and a process that is killed in the middle."""

import gzip
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taskmill.errors import InputError
from taskmill.ingest import hub_card
from taskmill.ingest.metadata import metadata
from taskmill.recipes.propose import ProposeConfig, TaskModel, propose

DRIVER = Path(__file__).with_name("kill_driver.py")
WORDS = ["river", "stone", "lamp", "cloud", "apple", "door", "song", "grass"]


def said(i):
    return " ".join(WORDS[(i * k + k) % 8] for k in range(1, 7)) + f" {i}"


COLUMNS = {
    "one-field": {"text": [said(i) for i in range(60)]},
    "nested": {
        "story": [said(i) for i in range(60)],
        "parts": [{"deep": [{"er": [i, None]}]} for i in range(60)],
        "mood": [("sad", "glad")[i % 2] for i in range(60)],
    },
    "nulls": {"text": pa.nulls(60, pa.string()), "mood": pa.nulls(60), "n": [None, "x"] * 30},
    "pictures": {
        "image": [{"bytes": b"\x89PNG", "path": None}] * 60,
        "caption": [said(i) for i in range(60)],
        "kind": [("cat", "dog")[i % 2] for i in range(60)],
    },
    "wide": {f"c{i}": pa.array([f"{i} {j}" for j in range(30)]) for i in range(2000)},
    "names": {
        "evidence": [said(i) for i in range(60)],
        "video_id": [f"a clip of the {said(i)}" for i in range(60)],
        "mood": [("sad", "glad")[i % 2] for i in range(60)],
    },
    "classes": {"text": [said(i) for i in range(60)], "label": [(-1, 0, 1)[i % 3] for i in range(60)]},
}
TORN = gzip.compress(b"text,label\na,b\n")[:-12]
CLASSES = "{name: label, dtype: {class_label: {names: ['no', 'yes']}}}"


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    """Each bad dataset in a folder with a card; two of the cards lie, one licence is a list."""
    home = tmp_path_factory.mktemp("bad")
    for name, columns in COLUMNS.items():
        folder = home / name
        folder.mkdir()
        pq.write_table(pa.table(columns), folder / "train.parquet")
        licence = "[cc-by-4.0, mit]" if name == "nested" else "mit"
        features = {"names": "{name: gone, dtype: string}", "classes": CLASSES}.get(name, "")
        info = f"dataset_info: {{features: [{features}]}}\n" if features else ""
        (folder / "README.md").write_text(f"---\nlicense: {licence}\n{info}---\n## Summary\nOf {name}.\n")
    folder = home / "twice"
    folder.mkdir()
    rows = "".join(f"{said(i)},{said(i + 9)},{('sad', 'glad')[i % 2]}\n" for i in range(60))
    (folder / "train.csv").write_text("text,text,mood\n" + rows)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    (home / "broken").mkdir()
    (home / "broken" / "train.parquet").write_bytes(b"PAR1 nothing")
    return home


def test_no_dataset_is_too_bad_for_the_others(bad, tmp_path):
    config = ProposeConfig(sources=(str(bad),), model=TaskModel(ref="echo:"), instances=3)
    found = propose(config, tmp_path / "run")
    assert found["exit"]["code"] == 0
    assert found["datasets"]["read"] == len(COLUMNS) + 1
    assert len(found["datasets"]["unread"]) == 1
    for stage in found["funnel"].values():
        assert stage["in"] == stage["kept"] + sum(stage["dropped"].values())
    tasks = [json.loads(line) for line in (tmp_path / "run" / "proposals.jsonl").read_text().splitlines()]
    of = {name: [task for task in tasks if task["dataset"] == name] for name in (*COLUMNS, "twice")}
    assert not of["one-field"]
    assert not of["nulls"]
    assert "image" not in {name for task in of["pictures"] for name in task["input_fields"]}
    assert "evidence" in {name for task in of["names"] for name in task["input_fields"]}
    assert {tuple(task["labels"]) for task in of["classes"] if task["output_field"] == "label"} == {
        ("no", "yes")
    }
    assert {"text", "text_2"} <= {name for task in of["twice"] for name in task["input_fields"]}
    shown = [json.loads(line) for line in (tmp_path / "run" / "metadata.jsonl").read_text().splitlines()]
    notes = {row["name"]: row["note"] for row in shown}
    (names,) = (row["fields"] for row in shown if row["name"] == "names")
    assert [(field["name"], field["hidden"]) for field in names][:2] == [("evidence", ""), ("video_id", "")]
    assert notes["names"] == "the card names fields that the rows lack: gone"
    assert {row["name"]: row["licence"] for row in shown}["nested"] == "cc-by-4.0 AND mit"


def test_no_prompt_names_more_fields_than_fit(bad):
    from taskmill.calls import Sampling
    from taskmill.synthesize.task_requests import MOST_FIELDS, requests_for

    (meta,) = metadata(str(bad / "wide"))
    (asked,) = requests_for(meta, "m", modes=("unaware",), count=3, sampling=Sampling(0))
    assert asked.messages[-1][1].count("(text)") == MOST_FIELDS
    assert sum(len(text) for _, text in asked.messages) < 12_000
    assert len(json.loads(asked.sampling.schema)["properties"]["tasks"]["items"]["required"]) == 4


@pytest.mark.parametrize(
    ("name", "held", "says"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"text":\n', r"line 2 is not valid JSON.*; mend or drop it"),
        ("a.jsonl", b"[1]\n", r"line 1 holds a list.*; mend it"),
        ("a.json", b"[{", r"not valid JSON.*; mend it"),
        ("a.csv", b"text,label\ncaf\xe9,x\n", r"no UTF-8 text \(.*\); write it in UTF-8"),
        ("a.csv", b"text,label\na,b\nc,d,e\n", r"row 1 \(counted from 0\) has more cells.*; quote its texts"),
        ("a.csv", b'text,label\n"a" b,c\n', r"line 2: .*; mend it"),
        ("a.csv.gz", TORN, r"cannot be read: .*; write or fetch it again"),
        ("a.jsonl.gz", b"no gzip", r"cannot be read: .*; write or fetch it again"),
        ("a.parquet", b"PAR1 torn", r"cannot be read: .*[^.]; write or fetch it again"),
    ],
)
def test_a_torn_file_is_an_error_that_names_the_place_and_the_next_step(tmp_path, name, held, says):
    (tmp_path / name).write_bytes(held)
    with pytest.raises(InputError, match=rf"{name}.*{says}$"):
        metadata(str(tmp_path / name))


def test_of_several_configurations_the_torn_one_is_listed_and_the_others_go_on(tmp_path):
    home = tmp_path / "set"
    home.mkdir()
    (home / "films.csv").write_text(
        "text,mood\n" + "".join(f"{said(i)},{('sad', 'glad')[i % 2]}\n" for i in range(40))
    )
    (home / "splits.json").write_text('{"train": ["a"]}')
    manifest = propose(ProposeConfig(sources=(str(home),)), tmp_path / "run")
    assert manifest["funnel"]["propose"]["kept"]
    assert manifest["datasets"]["read"] == 1
    (unread,) = manifest["datasets"]["unread"]
    assert unread.startswith("set:splits: ")
    assert "splits.json" in unread


@pytest.mark.parametrize("held", ["", "text,label\n", "text\na b c\n"])
def test_where_nothing_can_be_proposed_the_reason_says_what_to_do(tmp_path, held):
    (tmp_path / "a.csv").write_text(held)
    end = propose(ProposeConfig(sources=(str(tmp_path / "a.csv"),)), tmp_path / "run")["exit"]
    assert end["code"] == 3
    assert "no task was proposed" in end["reason"]
    assert "rename fields" in end["reason"]


def test_without_a_network_the_hub_is_an_error_in_one_sentence(monkeypatch):
    hub = pytest.importorskip("huggingface_hub")

    def refuse(*_, **__):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(hub.HfApi, "dataset_info", refuse)
    with pytest.raises(
        InputError, match=r"hf:owner/name cannot be described \(.*\); check name, revision and network"
    ):
        next(hub_card.hub_card("hf:owner/name"))


def test_killed_hard_after_any_call_the_same_command_makes_exactly_the_others(bad, tmp_path):
    def driven(answers):
        command = [sys.executable, str(DRIVER), str(bad / "names"), str(tmp_path / "run"), str(answers)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert driven(1).returncode == -signal.SIGKILL
    done = driven(-1)
    assert done.stdout.split() == ["1", "1"], done.stderr
