"""Rendered rows on the disk: one file or a folder, in parts that a kill leaves whole."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from taskmill.durable import on_write
from taskmill.errors import InputError, UsageError
from taskmill.recipes.data_card import mixture_card, rendered_card
from taskmill.recipes.mix import MixConfig, mix
from taskmill.recipes.templating import RenderConfig, render

LANGUAGES = ("en", "de", "")


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("taskmill.recipes.rendered.PART", 8)
    rows = [
        {
            "id": f"r{i:02}",
            "context": f"Text {i} tells of a thing.",
            "question": f"What does text {i} tell of?" if i % 10 else " ",
            "answer": "a thing" if i % 2 else "something",
            "licence": "MIT" if i % 3 else "CC-BY-4.0",
            "language": LANGUAGES[i % 3],
        }
        for i in range(33)
    ]
    pq.write_table(pa.Table.from_pylist(rows), "rows.parquet")
    return tmp_path


def made(out, **settings):
    return render(RenderConfig(**{"source": "rows.parquet", "templates": "qa", **settings}), out)


def files(folder, name=""):
    """Return the bytes of all files of a folder, or of a file and what stands beside it."""
    found = [p for p in Path(folder).rglob("*") if p.is_file() and not p.name.endswith(".tmp")]
    return {str(p.relative_to(folder)): p.read_bytes() for p in found if p.name.startswith(name)}


# the same rows in every form


def test_a_file_of_either_kind_and_a_folder_hold_the_same_rows(place):
    report = made("one.parquet")
    assert made("two.jsonl") == report == made("three")
    table = pq.read_table("one.parquet")
    assert table["id"].to_pylist() == pq.read_table("three/data")["id"].to_pylist()
    assert table.to_pylist() == [json.loads(line) for line in Path("two.jsonl").read_bytes().splitlines()]
    assert report["funnel"] == {"in": 33, "kept": 29, "dropped": {"null_text": 4}}
    assert [p.name for p in sorted(Path("three/data").iterdir())] == [
        f"train-{i:05}-of-00004.parquet" for i in range(4)
    ]
    for name in ("one.dropped.parquet", "two.dropped.parquet", "three/dropped.parquet"):
        assert pq.read_table(name)["id"].to_pylist() == ["r00", "r10", "r20", "r30"]
    for name in ("one.report.json", "two.report.json", "three/manifest.json"):
        assert json.loads(Path(name).read_text("utf-8")) == report
    assert not [p for p in place.iterdir() if p.name.startswith(".")]


def test_datasets_open_a_folder(place, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", place / "cache")
    made("out")
    loaded = datasets.load_dataset(str(place / "out"), split="train", cache_dir=str(place / "cache"))
    assert loaded["prompt"] == pq.read_table("out/data")["prompt"].to_pylist()


def test_a_folder_is_a_source_of_a_mixture(place):
    made("out")
    Path("mixture.yaml").write_text(yaml.safe_dump({"sources": {"r": "out"}}))
    manifest = mix(MixConfig(source="mixture.yaml"), "mixed")
    (task,) = manifest["sources"]["r"]["tasks"].values()
    assert (task["count"], task["categories"]) == (29, {"qa": 29})
    assert task["languages"] == {"": 10, "de": 10, "en": 9}


# kills


def killed_at(number, call):
    """Call until the write point of this number, where the process dies; say whether it did."""
    seen = []

    def hook(name):
        seen.append(name)
        if len(seen) == number:
            raise KeyboardInterrupt

    on_write(hook)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        on_write(None)
    return False


@pytest.mark.parametrize("out", ["out.parquet", "out.jsonl", "out"])
def test_killed_at_a_write_point_the_same_command_ends_in_the_same_bytes(place, out, monkeypatch):
    from taskmill.recipes import rendered

    made(f"whole{Path(out).suffix}", style="fs", shots="2")
    whole = files("whole") if out == "out" else files(".", "whole.")
    written = []
    write = rendered.Parts.write

    def counting(self, number, *more):
        written.append(number)
        write(self, number, *more)

    monkeypatch.setattr(rendered.Parts, "write", counting)
    for number in (4, 19, 33, 42, 46):
        written.clear()
        broken = killed_at(number, lambda: made(out, style="fs", shots="2"))
        first = list(written)
        made(out, style="fs", shots="2")
        found = files("out") if out == "out" else files(".", "out.")
        assert {name.replace("out.", "whole.", 1): one for name, one in found.items()} == whole, number
        # Of what was begun, all but the last was finished, and is not made again.
        again = written[len(first) :]
        assert again in ([*first[-1:], *range(len(first), 4)], [*range(len(first), 4)]) or not broken, number
        for path in Path(".").glob("out*"):  # the next begins anew
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize("other", ["seed", "style", "source", "templates"])
def test_what_another_command_left_is_not_taken(place, other):
    assert killed_at(30, lambda: made("out"))
    assert list(Path("out/data").glob("*.parquet"))
    settings = {"seed": {"seed": 1}, "style": {"style": "fs"}, "templates": {"templates": "qg"}}
    if other == "source":
        table = pq.read_table("rows.parquet")
        turned = [text.upper() for text in table["context"].to_pylist()]
        pq.write_table(table.set_column(1, "context", pa.array(turned)), "rows.parquet")
    made("out", **settings.get(other, {}))
    made("whole", **settings.get(other, {}))
    assert files("out") == files("whole")


RUN = """
import os, signal, sys
from taskmill.durable import on_write
from taskmill.recipes import rendered
from taskmill.recipes.templating import RenderConfig, render
rendered.PART = 8
seen = []
def hook(name):
    seen.append(name)
    if len(seen) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
on_write(hook)
render(RenderConfig(source="rows.parquet", templates="qa"), sys.argv[1])
"""


@pytest.mark.parametrize("out", ["out.parquet", "out"])
def test_kill_9(place, out):
    made("whole" + Path(out).suffix)
    done = subprocess.run([sys.executable, "-c", RUN, out, "33"], env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL
    assert not Path("out/manifest.json").exists()
    assert not Path("out.report.json").exists()
    made(out)
    if out == "out":
        assert files("out") == files("whole")
    else:
        assert Path(out).read_bytes() == Path("whole.parquet").read_bytes()
        assert not Path(".out.parquet.parts").exists()


# nothing of others is destroyed


@pytest.mark.parametrize("command", ["render", "mix"])
@pytest.mark.parametrize("theirs", ["data/mine.parquet", "README.md", "dropped.parquet"])
def test_a_folder_with_other_peoples_files_is_refused(place, command, theirs):
    path = place / "project" / theirs
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    Path("mixture.yaml").write_text(yaml.safe_dump({"sources": {"r": "rows.parquet"}}))
    with pytest.raises(UsageError, match=rf"holds a {Path(theirs).parts[0]} that {command} did not write"):
        made("project") if command == "render" else mix(MixConfig(source="mixture.yaml"), "project")
    assert path.read_text() == "mine"


def test_a_source_below_the_folder_is_never_removed(place):
    (place / "data").mkdir()
    (place / "rows.parquet").rename("data/rows.parquet")
    Path("mixture.yaml").write_text(yaml.safe_dump({"sources": {"r": "data/rows.parquet"}}))
    before = Path("data/rows.parquet").read_bytes()
    for run in (
        lambda: made(".", source="data/rows.parquet"),
        lambda: mix(MixConfig(source="mixture.yaml"), Path(".")),
    ):
        with pytest.raises(UsageError, match="would write into the source"):
            run()
    assert Path("data/rows.parquet").read_bytes() == before


def test_results_of_another_command_are_refused_and_unfinished_ones_are_no_source(place):
    Path("mixture.yaml").write_text(yaml.safe_dump({"sources": {"r": "rows.parquet"}}))
    mix(MixConfig(source="mixture.yaml"), "mixed")
    with pytest.raises(UsageError, match="that render did not write"):
        made("mixed")
    assert killed_at(30, lambda: made("out"))
    with pytest.raises(UsageError, match="that mix did not write"):
        mix(MixConfig(source="mixture.yaml"), "out")
    with pytest.raises(InputError, match="is unfinished"):
        made("again", source="out")
    with pytest.raises(UsageError, match="which is no format"):
        made("out.csv")


# the card


def front_of(path):
    _, head, body = Path(path).read_text("utf-8").split("---\n", 2)
    return yaml.safe_load(head), body


def test_the_card_of_rendered_rows_follows_from_the_manifest(place):
    manifest = made("out", licence="CC0-1.0")
    assert Path("out/README.md").read_text("utf-8") == rendered_card(json.loads(json.dumps(manifest)))
    front, body = front_of("out/README.md")
    assert front == {
        "license": "other",
        "license_name": "mixed",
        "license_link": "README.md#licences",
        "language": ["de", "en"],
        "task_categories": ["text-generation", "question-answering"],
        "size_categories": ["n<1K"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/*.parquet"}]}],
    }
    assert "| rows | qa | unknown, de, en | CC-BY-4.0, MIT | 29 |" in body
    assert body.endswith(
        "## Licences\n\n| licence | rows |\n| --- | --- |\n| MIT | 20 |\n| CC-BY-4.0 | 9 |\n"
    )
    templates = [line for line in body.splitlines() if line.startswith("| qa/")]
    assert sum(int(line.split("|")[2]) for line in templates) == 29


def test_the_card_of_a_mixture_names_tasks_licences_languages_categories_and_sizes(place):
    made("rendered")
    other = [{"prompt": f"p{i}", "completion": "c", "task": "t|x", "lang": "fr"} for i in range(7)]
    pq.write_table(pa.Table.from_pylist(other), "other.parquet")
    Path("mixture.yaml").write_text(
        yaml.safe_dump({"sources": {"r": "rendered", "o": {"path": "other.parquet", "cap": 5}}})
    )
    manifest = mix(MixConfig(source="mixture.yaml"), "out")
    assert Path("out/README.md").read_text("utf-8") == mixture_card(
        json.loads(Path("out/manifest.json").read_text())
    )
    front, body = front_of("out/README.md")
    assert front["language"] == ["de", "en", "fr"]
    assert front["license_name"] == "mixed"
    assert front["size_categories"] == ["n<1K"]
    assert front["task_categories"] == ["text-generation", "question-answering"]
    assert "| t\\|x | o | unknown | fr | unknown | 7 | 5 |" in body
    assert "| rows | r | qa | unknown, de, en | CC-BY-4.0, MIT | 29 | 29 |" in body
    for name, one in manifest["sources"].items():
        for task in one["tasks"].values():
            assert sum(task["licences"].values()) == sum(task["languages"].values()) == task["rows"], name
