"""Export: formats, cards, trainer files, licences, refusals, atomic and deterministic folders."""

import json
import os
import shutil
from itertools import count

import pyarrow.parquet as pq
import pytest
import yaml

from taskmill import render
from taskmill.durable import on_write
from taskmill.errors import LicenceUnknown, RunFolderError, UnknownName, UsageError
from taskmill.export import export_run, files
from taskmill.export.licences import (
    front_matter,
    is_commercial,
    is_non_commercial,
    is_share_alike,
    is_unknown,
)
from taskmill.export.urls import hide_secrets
from taskmill.record import (
    DOCUMENT_SCHEMA,
    EXAMPLE_SCHEMA,
    Document,
    Dropped,
    Example,
    Origin,
    Reason,
    Source,
    Span,
    content_id,
    dropped_schema,
    to_table,
)

OWN = ["id", "task_type", "source", "meta"]
COLUMNS = {
    "messages": ["messages"],
    "prompt-completion": ["prompt", "completion"],
    "alpaca": ["instruction", "input", "output"],
    "sharegpt": ["conversations"],
    "bonito": ["input", "output"],
    "text": ["text"],
}


def make_example(i, task="exqa", licence="PSF-2.0", **more):
    context = more.pop("context", f"Né à Paris, le numéro {i} vit à Genève. |x| `y` <b>")
    values = {
        "instruction": "{{context}}\n\nWhere does the person live?",
        "response": "Genève",
        "source": Source(content_id(context), 3, 40, licence=licence, url="https://example.org/a.html"),
        "origin": Origin("bonito", f"{task}/0#abcd1234", "m@1", f"call{i}", 7, ("p",)),
        **more,
    }
    return Example(content_id(task, context, str(i)), task, context, **values)


def write_stage(run, stage, schema, kept, dropped=()):
    def key(row):
        return getattr(row, "row", row).id

    for kind, rows, own in (("kept", kept, schema), ("dropped", dropped, dropped_schema(schema))):
        folder = run / stage / kind
        folder.mkdir(parents=True)
        pq.write_table(to_table(sorted(rows, key=key), own), folder / "part-00000.parquet")
    (run / stage / "stage.json").write_text("{}")


def make_run(run, examples, manifest=None, dropped=()):
    run.mkdir()
    passage = Document("d1", "A passage.", Span("a.txt", 0, 10), language="fr", licence="PSF-2.0")
    short = Dropped(Document("d2", "x"), "length", Reason.TOO_SHORT, "1 character")
    write_stage(run, "1-ingest", DOCUMENT_SCHEMA, [passage], [short])
    write_stage(
        run, "2-synthesize", EXAMPLE_SCHEMA, [*examples, make_example(999, response="not the last stage")]
    )
    write_stage(run, "3-curate", EXAMPLE_SCHEMA, examples, dropped)
    default = {
        "name": "my run|<b>",
        "taskmill": "0.1.0",
        "command": ["taskmill", "run", "--in", "a b"],
        "seed": 7,
        "model": {"ref": "echo", "licence": "Apache-2.0", "protocol": "chat", "batch_invariant": True},
        "funnel": {"ingest": {"in": 2, "kept": 1, "dropped": {"too_short": 1}}},
        "versions": {"python": "3.11"},
    }
    (run / "manifest.json").write_text(json.dumps(default if manifest is None else manifest))
    (run / "config.yaml").write_text("seed: 7\nnote: '```'\n")
    return run


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", [make_example(i, task) for i in range(20) for task in ("exqa", "nli")])


def front(folder):
    return yaml.safe_load((folder / "README.md").read_text("utf-8").split("---\n")[1])


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("format", COLUMNS)
def test_parquet_and_jsonl_hold_the_same_rows_in_order(run, tmp_path, format):
    result = export_run(run, tmp_path / "a.parquet", format)
    export_run(run, tmp_path / "a.jsonl", format)
    table = pq.read_table(tmp_path / "a.parquet")
    assert result.rows == table.num_rows == 40
    assert table.column_names == [*COLUMNS[format], *OWN]
    rows = table.to_pylist()
    assert rows == lines(tmp_path / "a.jsonl")
    assert [row["id"] for row in rows] == sorted(row["id"] for row in rows)
    assert "Genève" in (tmp_path / "a.jsonl").read_text("utf-8")
    assert "not the last stage" not in (tmp_path / "a.jsonl").read_text("utf-8")


def test_rows_are_the_layouts_and_carry_their_provenance(tmp_path):
    example = make_example(1, "mcqa", options=("Genève", "Bâle"), answer_index=0, meta='{"k":1}')
    run = make_run(tmp_path / "r", [example])
    export_run(run, tmp_path / "a.jsonl")
    (row,) = lines(tmp_path / "a.jsonl")
    assert row["messages"] == render.messages(example)
    assert row["task_type"] == "mcqa"
    assert row["source"] == "https://example.org/a.html#char=3,40"
    meta = json.loads(row["meta"])
    assert meta["source"]["licence"] == "PSF-2.0"
    assert meta["origin"] == {
        "method": "bonito",
        "template": "mcqa/0#abcd1234",
        "model": "m@1",
        "call": "call1",
        "seed": 7,
        "parents": ["p"],
    }
    assert meta["options"] == ["Genève", "Bâle"]
    assert meta["answer_index"] == 0
    assert meta["meta"] == {"k": 1}


def test_a_dataset_row_is_located_by_its_name_and_number(tmp_path):
    source = Source(dataset="squad", config="plain", split="train", row=0, licence="MIT")
    run = make_run(tmp_path / "r", [make_example(1, source=source), make_example(2)])
    export_run(run, tmp_path / "a.jsonl", "alpaca")
    found = {row["source"]: json.loads(row["meta"])["source"] for row in lines(tmp_path / "a.jsonl")}
    assert found["squad/plain/train/0"]["row"] == 0
    assert "row" not in found["https://example.org/a.html#char=3,40"]


def test_thinking_is_a_choice(tmp_path):
    run = make_run(tmp_path / "r", [make_example(1, rationale="He says so.")])
    export_run(run, tmp_path / "a.jsonl", "bonito", thinking=True)
    assert lines(tmp_path / "a.jsonl")[0]["output"] == "<think>\nHe says so.\n</think>\n\nGenève"


@pytest.mark.parametrize("format", COLUMNS)
def test_load_dataset_opens_the_folder(run, tmp_path, format, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    out = tmp_path / "out"
    result = export_run(run, out, format, split=0.25)
    loaded = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert {name: part.num_rows for name, part in loaded.items()} == result.splits
    assert sum(result.splits.values()) == result.rows == 40
    assert 0 < result.splits["test"] < 20
    assert loaded["train"].column_names == [*COLUMNS[format], *OWN]
    single = datasets.load_dataset(
        "json", data_files=str(out / "train.jsonl"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert single.to_list() == loaded["train"].to_list()


def test_no_passage_is_in_both_splits(tmp_path):
    examples = [make_example(i, context=f"passage {i % 30}") for i in range(120)]
    run = make_run(tmp_path / "r", examples)
    export_run(run, tmp_path / "out", split=0.3)
    documents = {
        split: {
            json.loads(row["meta"])["source"]["document"] for row in lines(tmp_path / f"out/{split}.jsonl")
        }
        for split in ("train", "test")
    }
    assert not documents["train"] & documents["test"]
    assert len(documents["train"] | documents["test"]) == 30


def test_card_front_matter_and_body(run, tmp_path):
    out = tmp_path / "out"
    export_run(run, out, split=0.25)
    head = front(out)
    assert head["license"] == "other"
    assert head["license_name"] == "psf-2.0"
    assert head["language"] == ["fr"]
    assert head["task_categories"] == ["text-generation", "question-answering", "text-classification"]
    assert head["size_categories"] == ["n<1K"]
    assert head["tags"] == ["synthetic", "taskmill"]
    assert head["configs"][0]["data_files"] == [
        {"split": "train", "path": "data/train.parquet"},
        {"split": "test", "path": "data/test.parquet"},
    ]
    body = (out / "README.md").read_text("utf-8")
    for part in (
        "taskmill run --in 'a b'",
        "| echo | Apache-2.0 |",
        "too_short 1",
        "exqa/0#abcd1234",
        "````\nseed",
    ):
        assert part in body
    assert "<b>" not in body


def test_card_survives_an_empty_manifest(tmp_path):
    run = make_run(tmp_path / "r", [make_example(1, licence="")], manifest={})
    (run / "config.yaml").unlink()
    export_run(run, tmp_path / "out")
    assert front(tmp_path / "out")["license"] == "unknown"
    assert "(unknown)" in (tmp_path / "out/README.md").read_text("utf-8")


def test_licences_are_rolled_up():
    assert front_matter({"Apache-2.0": 3}) == {"license": "apache-2.0"}
    assert front_matter({"GPL-3.0-only": 3}) == {"license": "gpl-3.0"}
    assert front_matter({"Apache-2.0": 3, "MIT": 1})["license"] == "other"
    assert front_matter({"": 3}) == {"license": "unknown"}
    assert front_matter({"My Own: licence": 1})["license_name"] == "my-own-licence"


@pytest.mark.parametrize(
    "name", ["CC-BY-NC-4.0", "cc-by-nc-sa-3.0", "Research only", "non-commercial", "noncommercial"]
)
def test_non_commercial_names(name):
    assert is_non_commercial(name)
    assert not is_unknown(name)


def test_commercial_names():
    for name in ("NCSA", "Apache-2.0", "CC-BY-4.0", "MIT", ""):
        assert not is_non_commercial(name)
    assert is_unknown("")
    assert is_unknown("NOASSERTION")


COMMERCIAL = """Apache-2.0|apache 2|Apache 2.0|Apache License 2.0|Apache License, Version 2.0|apache2|MIT
MIT License|The MIT License|mit|BSD-2-Clause|BSD-3-Clause|BSD 3-Clause License|new BSD|ISC|PSF-2.0|Python-2.0
CC0-1.0|CC0|CC0 1.0 Universal|Creative Commons Zero v1.0 Universal|CC-BY-4.0|cc by 4.0|CC BY 3.0|cc-by4.0
CC-BY-3.0-US|Creative Commons Attribution 4.0 International License|(CC BY 4.0)|ODC-BY|ODC-By-1.0|PDDL-1.0
https://creativecommons.org/licenses/by/4.0/|https://www.apache.org/licenses/LICENSE-2.0|Unlicense
https://creativecommons.org/publicdomain/zero/1.0/|https://opensource.org/licenses/MIT|license: mit
public domain|Public Domain|US-GOV|US Government Work|public-domain|US-PD|CDLA-Permissive-2.0|OGL-UK-3.0|OGL
Open Government Licence v3.0|etalab-2.0|Zlib|BSL-1.0|0BSD|MIT OR CC-BY-NC-4.0|MIT AND Apache-2.0"""
SHARE_ALIKE = """CC-BY-SA-4.0|cc by sa 3.0|Creative Commons Attribution-ShareAlike 4.0|ODbL|ODbL-1.0|MPL-2.0
Mozilla Public License 2.0|GPL-3.0|GPL-3.0-only|GPL-2.0-or-later|GPLv3|gpl v2+|LGPL-2.1|AGPL-3.0-or-later
GNU General Public License v3.0|GNU Affero General Public License v3.0|EPL-2.0|EUPL-1.2|GFDL-1.3
GPL-2.0-only WITH Classpath-exception-2.0|https://creativecommons.org/licenses/by-sa/3.0/deed.en"""
NON_COMMERCIAL = """No commercial use|academic use only|personal use only|evaluation only|cc-by-nc4.0|BUSL-1.1
CC-BY-NC-4.0|cc_by_nc_sa|CC BY-NC-ND 4.0|cc-bync-4.0|not for commercial use|Research only|all rights reserved
https://creativecommons.org/licenses/by-nc/4.0/|MIT AND CC-BY-NC-4.0|MIT, no commercial use|cc by 4.0 nc"""
NOT_KNOWN = """|unknown licence|unspecified|TBD|see website|custom|Unlicensed|copyrighted|©2024 Elsevier|n/a|?
CC-BY-ND-4.0|cc by 4.0 nd|MITRE|MIT-ish|Apache-2.0-modified|LicenseRef-1|proprietor|llama3|None|Other|pdf
https://example.org/MIT|my MIT License|MIT AND custom|MIT OR Apache-2.0 AND custom|commercial"""


def names(listed):
    return [name for line in listed.split("\n") for name in line.split("|")]


@pytest.mark.parametrize("name", names(COMMERCIAL))
def test_licences_that_allow_commercial_use(name):
    assert is_commercial(name)
    assert not is_share_alike(name)
    assert not is_non_commercial(name)
    assert not is_unknown(name)


@pytest.mark.parametrize("name", names(SHARE_ALIKE))
def test_share_alike_licences_allow_commercial_use_and_are_noted(name):
    assert is_commercial(name)
    assert is_share_alike(name)


@pytest.mark.parametrize("name", names(NON_COMMERCIAL))
def test_the_gate_is_closed_to_non_commercial_licences_on_any_word(tmp_path, name):
    assert is_non_commercial(name)
    run = make_run(tmp_path / "r", [make_example(0, licence=name), make_example(1, licence="MIT")])
    for word in (False, True):
        with pytest.raises(LicenceUnknown, match="1 of 2 rows forbid commercial use"):
            export_run(run, tmp_path / "out", commercial=True, allow_unknown_licence=word)


@pytest.mark.parametrize("name", names(NOT_KNOWN))
def test_the_gate_is_closed_to_what_is_not_known(tmp_path, name):
    run = make_run(tmp_path / "r", [make_example(0, licence=name), make_example(1, licence="MIT")])
    with pytest.raises(LicenceUnknown, match=r"1 of 2 rows have .*--allow-unknown-licence"):
        export_run(run, tmp_path / "out", commercial=True)
    assert not (tmp_path / "out").exists()
    assert export_run(run, tmp_path / "out", commercial=True, allow_unknown_licence=True).rows == 2


@pytest.mark.parametrize("model", [{}, {"licence": ""}, {"licence": None}, {"licence": "llama3"}])
def test_a_model_of_unknown_licence_closes_the_gate_and_is_in_the_card(tmp_path, model):
    run = make_run(tmp_path / "r", [make_example(0)], manifest={"model": {"ref": "api:m", **model}})
    with pytest.raises(
        LicenceUnknown, match=r"model's licence is unknown.*provider's terms.*--allow-unknown"
    ):
        export_run(run, tmp_path / "out", commercial=True)
    export_run(run, tmp_path / "out", commercial=True, allow_unknown_licence=True)
    card = (tmp_path / "out/README.md").read_text("utf-8")
    assert ("The model's licence is unknown" in card) is (model.get("licence") != "llama3")


def test_the_commercial_gate_is_closed_before_anything_is_written(tmp_path):
    licences = ["MIT", "", "", "CC-BY-NC-4.0"]
    run = make_run(tmp_path / "r", [make_example(i, licence=name) for i, name in enumerate(licences)])
    with pytest.raises(LicenceUnknown) as error:
        export_run(run, tmp_path / "out", commercial=True)
    assert "2 of 4 rows have no known licence" in str(error.value)
    assert "CC-BY-NC-4.0: 1" in str(error.value)
    assert not (tmp_path / "out").exists()
    with pytest.raises(LicenceUnknown, match="forbid commercial use"):
        export_run(run, tmp_path / "out", commercial=True, allow_unknown_licence=True)
    assert export_run(run, tmp_path / "out").rows == 4


def test_the_commercial_gate_opens_on_the_users_word(tmp_path):
    run = make_run(tmp_path / "r", [make_example(0, licence="MIT"), make_example(1, licence="")])
    with pytest.raises(LicenceUnknown):
        export_run(run, tmp_path / "a.jsonl", commercial=True)
    export_run(run, tmp_path / "a.jsonl", commercial=True, allow_unknown_licence=True)
    export_run(run, tmp_path / "out", commercial=True, licence="MIT")
    assert front(tmp_path / "out")["license"] == "mit"
    assert "as declared at export" in (tmp_path / "out/README.md").read_text("utf-8")


def test_a_models_licence_can_close_the_gate(tmp_path):
    run = make_run(tmp_path / "r", [make_example(0)], manifest={"model": {"licence": "CC-BY-NC-4.0"}})
    with pytest.raises(LicenceUnknown, match="model's licence"):
        export_run(run, tmp_path / "a.jsonl", commercial=True)


@pytest.mark.parametrize("format", COLUMNS)
def test_rows_that_trainers_skip_are_refused_and_counted(tmp_path, format):
    rows = [
        make_example(0),
        make_example(1, response=" \n"),
        make_example(2, instruction="{{context}}", context=" "),
    ]
    run = make_run(tmp_path / "r", rows)
    result = export_run(run, tmp_path / "out", format)
    if format != "text":
        assert result.rows == 1
        assert result.dropped == {"empty_reply": 1, "empty": 1}
        assert "Refused at export" in (tmp_path / "out/README.md").read_text("utf-8")


def check_dataset_info(folder):
    """Hold dataset_info.json against LLaMA-Factory's documented keys, and its rows against its converter."""
    common = {
        "file_name",
        "hf_hub_url",
        "formatting",
        "columns",
        "tags",
        "subset",
        "split",
        "folder",
        "num_samples",
    }
    columns = {"prompt", "query", "response", "history", "system", "tools", "messages"}
    tags = {
        "role_tag",
        "content_tag",
        "user_tag",
        "assistant_tag",
        "observation_tag",
        "function_tag",
        "system_tag",
    }
    info = json.loads((folder / "dataset_info.json").read_text("utf-8"))
    for entry in info.values():
        assert set(entry) <= common
        assert entry["formatting"] in ("alpaca", "sharegpt")
        assert set(entry["columns"]) <= columns
        assert set(entry.get("tags", {})) <= tags
        for row in lines(folder / entry["file_name"]):
            assert set(entry["columns"].values()) <= set(row)
            if entry["formatting"] == "sharegpt":
                tag, turns = entry["tags"], row[entry["columns"]["messages"]]
                roles = [turn[tag["role_tag"]] for turn in turns]
                assert roles == [tag["user_tag"], tag["assistant_tag"]]
                assert all(turn[tag["content_tag"]] for turn in turns)
    return info


@pytest.mark.parametrize("format", COLUMNS)
def test_trainer_files_fit_the_rows(run, tmp_path, format, monkeypatch):
    datasets = pytest.importorskip("datasets")
    out = tmp_path / "out"
    export_run(run, out, format, split=0.25)
    assert list(check_dataset_info(out)) == ["my-run-b", "my-run-b_test"]
    axolotl = yaml.safe_load((out / "axolotl.yaml").read_text("utf-8"))
    (block,) = axolotl["datasets"]
    assert block["path"] == "train.jsonl"
    assert block["type"] != "sharegpt"
    assert axolotl["test_datasets"][0]["path"] == "test.jsonl"
    row = lines(out / "train.jsonl")[0]
    if format in ("messages", "sharegpt"):
        assert block["type"] == "chat_template"
        keys = block["message_property_mappings"].values()
        assert all(set(turn) == set(keys) for turn in row[block["field_messages"]])
    if format in ("alpaca", "bonito"):
        assert not (out / "trl.yaml").exists()
        return
    trl = yaml.safe_load((out / "trl.yaml").read_text("utf-8"))
    assert trl.get("assistant_only_loss", False) is (format in ("messages", "sharegpt"))
    (source,) = trl["datasets"]
    monkeypatch.chdir(out)
    loaded = datasets.load_dataset(
        source["path"],
        data_files=source["data_files"],
        split=source["split"],
        cache_dir=str(tmp_path / "cache"),
    )
    assert loaded.num_rows == len(lines(out / "train.jsonl"))
    assert source["columns"] == COLUMNS[format]


def test_folders_are_byte_identical_and_free_of_leftovers(run, tmp_path):
    def contents(folder):
        return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    export_run(run, tmp_path / "a", split=0.25)
    export_run(run, tmp_path / "b", split=0.25)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    export_run(run, tmp_path / "b", "alpaca")
    export_run(run, tmp_path / "c", "alpaca")
    assert contents(tmp_path / "b") == contents(tmp_path / "c")


def test_large_folders_are_sharded(run, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "SHARD_ROWS", 15)
    out = tmp_path / "out"
    result = export_run(run, out)
    shards = [path for path in result.files if path.suffix == ".parquet"]
    assert [path.name for path in shards] == [f"train-0000{i}-of-00003.parquet" for i in range(3)]
    assert [pq.read_metadata(path).num_rows for path in shards] == [15, 15, 10]
    assert front(out)["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*.parquet"}]
    monkeypatch.setattr(files, "SHARD_ROWS", 100)
    export_run(run, out)
    assert [path.name for path in (out / "data").iterdir()] == ["train.parquet"]


def test_an_empty_run_exports_an_empty_folder(tmp_path):
    run = make_run(tmp_path / "r", [])
    assert export_run(run, tmp_path / "out").rows == 0
    assert pq.read_table(tmp_path / "out/data/train.parquet").column_names == ["messages", *OWN]


class Killed(BaseException):
    pass


def test_a_kill_at_any_write_point_leaves_no_complete_looking_folder(run, tmp_path):
    whole = tmp_path / "whole"
    export_run(run, whole, split=0.25)
    out = tmp_path / "out"
    try:
        for point in count(1):
            steps = count(1)

            def kill(name, point=point, steps=steps):
                if next(steps) == point:
                    raise Killed(name)

            on_write(kill)
            try:
                export_run(run, out, split=0.25)
                break
            except Killed:
                if (out / "README.md").exists():
                    assert (out / "README.md").read_bytes() == (whole / "README.md").read_bytes()
                    assert {p.name for p in whole.iterdir()} <= {p.name for p in out.iterdir()}
            finally:
                on_write(None)
        assert point > 5
    finally:
        on_write(None)
    assert {p.name for p in out.iterdir()} == {p.name for p in whole.iterdir()}


def test_a_failed_single_file_leaves_the_old_one(run, tmp_path, monkeypatch):
    out = tmp_path / "a.jsonl"
    out.write_text("old")

    def fail(*_args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        export_run(run, out)
    assert out.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_wrong_requests_name_the_next_step(run, tmp_path):
    with pytest.raises(UnknownName, match="Did you mean 'sharegpt'"):
        export_run(run, tmp_path / "out", "sharegtp")
    with pytest.raises(UsageError, match="needs a folder"):
        export_run(run, tmp_path / "a.jsonl", split=0.1)
    with pytest.raises(RunFolderError, match="no run folder"):
        export_run(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/README.md").write_text("# Mine")
    with pytest.raises(UsageError, match="not an export's"):
        export_run(run, tmp_path / "foreign")
    for name in ("x.csv", "x.json", "x.jsonl.gz", "x.JSONL"):
        with pytest.raises(UsageError, match=r"\.jsonl or \.parquet, or a folder"):
            export_run(run, tmp_path / name)
        assert not (tmp_path / name).exists()
    (tmp_path / "v1.2").mkdir()
    assert export_run(run, tmp_path / "v1.2").rows
    assert (tmp_path / "foreign/README.md").read_text() == "# Mine"
    (run / "3-curate/stage.json").unlink()
    with pytest.raises(RunFolderError, match="unfinished"):
        export_run(run, tmp_path / "out")
    for stage in ("2-synthesize", "3-curate"):
        shutil.rmtree(run / stage)
    with pytest.raises(RunFolderError, match="no examples yet"):
        export_run(run, tmp_path / "out")


@pytest.mark.parametrize(
    "name", ["train.jsonl", "data/train.parquet", "notes.txt", "trl.yaml", ".README.md.tmp", "README.md"]
)
def test_a_folder_of_other_peoples_files_is_left_alone(run, tmp_path, name):
    path = tmp_path / "mine" / name
    path.parent.mkdir(parents=True)
    text = "---\ntitle: mine\n---\nTools:\n- taskmill\n"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"mine holds files.*empty or new folder"):
        export_run(run, tmp_path / "mine")
    assert path.read_text() == text
    assert [p for p in (tmp_path / "mine").rglob("*") if p.is_file()] == [path]


def test_an_export_killed_at_any_point_is_finished_with_the_same_bytes(run, tmp_path):
    def contents(folder):
        return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    export_run(run, tmp_path / "whole", split=0.25)
    seen = []
    for point in count(1):
        out, steps = tmp_path / f"out-{point}", count(1)

        def kill(name, point=point, steps=steps):
            if next(steps) == point:
                seen.append(name)
                raise Killed(name)

        on_write(kill)
        try:
            export_run(run, out, split=0.25)
            break
        except Killed:
            pass
        finally:
            on_write(None)
        export_run(run, out, split=0.25)
        assert contents(out) == contents(tmp_path / "whole")
    assert {"write .taskmill-export", "export renamed", "rename README.md", "export unmarked"} <= set(seen)


def test_stale_rows_of_an_unfinished_run_are_refused(run, tmp_path):
    (run / "2-synthesize/stage.json").unlink()
    with pytest.raises(RunFolderError, match=r"2-synthesize .* unfinished; run the same command again"):
        export_run(run, tmp_path / "out")
    (run / "2-synthesize/stage.json").write_text("{}")
    for status in ("running", "stopped"):
        (run / "manifest.json").write_text(json.dumps({"status": status}))
        with pytest.raises(RunFolderError, match=rf"status is {status}\); run the same command again"):
            export_run(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    for status in ("short", "done"):
        (run / "manifest.json").write_text(json.dumps({"status": status}))
        assert export_run(run, tmp_path / status).rows == 40
    (run / "manifest.json").unlink()
    assert export_run(run, tmp_path / "bare").rows == 40


SECRETS = [
    ("https://user:secret@h.org/a?key=secret", "https://h.org/a"),
    ("s3://h.org:9000/a.txt?secret#x", "s3://h.org:9000/a.txt"),
    ("'https://h.org/?a=secret'", "'https://h.org/'"),
    ("see https://secret@h.org, then", "see https://h.org, then"),
    ("https://h.org/x,https://u:secret@i.org", "https://h.org/x,https://i.org"),
    ("https://h.org/?to=https://i.org&sig=secret", "https://h.org/"),
    ("https://u:secret@b@h.org/", "https://h.org/"),
    ("https://u:secret?b@h.org/", "https://…"),
    ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
    ("what? a/b?c=1 user@h.org", "what? a/b?c=1 user@h.org"),
]


@pytest.mark.parametrize(("text", "shown"), SECRETS)
def test_urls_are_shown_without_secrets(text, shown):
    assert hide_secrets(text) == shown


def test_the_card_shows_no_secrets(tmp_path):
    url = "https://user:secret@h.org/a?key=secret"
    manifest = {"command": ["taskmill", "synth", url], "model": {"ref": url}, "inputs": [url]}
    run = make_run(tmp_path / "r", [make_example(1)], manifest)
    (run / "config.yaml").write_text(yaml.safe_dump({"sources": [url], "model": {"base_url": url}}))
    export_run(run, tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text("utf-8")
    assert card.count("https://h.org/a") == 4
    assert "secret" not in card
