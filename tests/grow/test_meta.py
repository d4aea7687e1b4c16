"""Metadata: one record for each configuration, whatever the source, and what is no content is hidden."""

import json
import random
import socket
import uuid

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from taskmill.errors import InputError, UsageError
from taskmill.ingest import hub_card
from taskmill.ingest.metadata import metadata, metadata_of, read_rows

WORDS = [
    "river",
    "stone",
    "lamp",
    "cloud",
    "apple",
    "door",
    "song",
    "grass",
    "wheel",
    "night",
    "paper",
    "glass",
]


def rows(n=120, seed=1):
    draw = random.Random(seed)
    return [
        {
            "id": str(uuid.UUID(int=draw.getrandbits(128))),
            "row": i,
            "video_id": f"vid{i:04}x",
            "evidence": " ".join(draw.choices(WORDS, k=8)),
            "side": draw.choice(["left", "right"]),
            "image_caption": " ".join(draw.choices(WORDS, k=6)),
            "idea": draw.choice(WORDS) + str(i % 7),
            "version": "1.0",
            "checksum": draw.randbytes(16).hex(),
            "label": draw.choice([0, 1]),
        }
        for i in range(n)
    ]


def by_name(meta):
    return {field.name: field for field in meta.fields}


def write(path, listed):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in listed))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(listed), path)
    elif path.suffix == ".arrow":
        pyarrow.feather.write_feather(pa.Table.from_pylist(listed), path, compression="uncompressed")
    else:
        import csv

        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, listed[0])
            writer.writeheader()
            writer.writerows(listed)
    return path


def test_fields_are_hidden_by_their_values_never_by_a_part_of_their_name():
    fields = by_name(metadata_of("clips", rows()))
    hidden = {name for name, field in fields.items() if field.hidden}
    assert hidden == {"id", "row", "video_id", "version", "checksum"}
    shown = [{"video_id": f"clip of the {row['idea']}", "text": row["evidence"]} for row in rows()]
    assert not by_name(metadata_of("clips", shown))["video_id"].hidden


def test_all_formats_tell_the_same_fields(tmp_path):
    wanted = [(f.name, f.labels, f.hidden) for f in metadata_of("d", rows()).fields]
    for suffix in ("jsonl", "parquet", "arrow", "csv"):
        (meta,) = metadata(str(write(tmp_path / f"d.{suffix}", rows())))
        assert [(f.name, f.labels, f.hidden) for f in meta.fields] == wanted, suffix
        assert meta.rows == 120
        assert sum(len(batch) for _, batch in read_rows(meta, ["side"])) == 120


def test_a_sql_table_is_a_dataset(tmp_path):
    duckdb = pytest.importorskip("duckdb")
    table = pa.Table.from_pylist(rows())
    with duckdb.connect(str(tmp_path / "shop.db")) as connection:
        connection.register("given", table)
        connection.execute('create table "odd ""name" as select * from given')
        connection.execute("create table other as select 1 as a, 'x' as b")
    found = metadata(f"duckdb:{tmp_path}/shop.db")
    assert [meta.name for meta in found] == ['odd "name', "other"]
    wanted = [(f.name, f.labels, f.hidden) for f in metadata_of("d", rows()).fields]
    assert [(f.name, f.labels, f.hidden) for f in found[0].fields] == wanted
    assert next(batch for _, batch in read_rows(found[0], ["side", "label"]))[0].keys() == {"side", "label"}
    with duckdb.connect(str(tmp_path / "shop.db")) as connection:
        connection.execute("insert into other values (2, 'y')")
    again = metadata(f"duckdb:{tmp_path}/shop.db")
    assert again[0].digest == found[0].digest
    assert again[1].digest != found[1].digest
    with pytest.raises(InputError, match="no table 'orders'; it has: odd"):
        metadata(f"duckdb:{tmp_path}/shop.db#orders")


CARD = """---
license: [cc-by-sa-4.0, mit]
language: [en, no]
source_datasets: [squad]
task_categories: [text-classification]
configs:
  - config_name: plain
    data_files: [{split: train, path: "plain/train-*.parquet"}, {split: test, path: "plain/test.parquet"}]
  - config_name: hard
    data_files: hard/*.jsonl
dataset_info:
  - config_name: plain
    features:
      - {name: text, dtype: string}
      - {name: label, dtype: {class_label: {names: {'0': bad, '1': good, '2': never}}}}
      - {name: stars, dtype: int32}
---
# Reviews
## Dataset Summary
Reviews of *lamps*, <b>read</b> by [two people](https://x.example).
## Other
"""


@pytest.fixture
def folder(tmp_path):
    home = tmp_path / "reviews"
    (home / "plain").mkdir(parents=True)
    (home / "hard").mkdir()
    (home / "README.md").write_text(CARD)
    own = [{"text": f"{WORDS[i % 12]} {i}", "label": [0, 1, -1][i % 3]} for i in range(60)]
    write(home / "plain" / "train-00000.parquet", own[:40])
    write(home / "plain" / "train-00001.parquet", own[40:])
    write(home / "plain" / "test.parquet", [{"text": "t", "label": 2}] * 9)
    write(home / "hard" / "a.jsonl", [{"q": "x?", "n": {"a": [1]}}] * 8)
    return home


def test_a_folder_with_a_card_gives_all_its_configurations_at_once(folder):
    hard, plain = metadata(str(folder))
    assert (plain.key, hard.key) == ("reviews:plain", "reviews:hard")
    assert plain.licence == "cc-by-sa-4.0 AND mit"
    assert plain.summary == "Reviews of lamps, read by two people."
    assert plain.languages == ("en", "no")
    assert plain.lineage == ("squad",)
    assert plain.rows == 60, "the test split is left alone"
    assert plain.note == "the card names fields that the rows lack: stars"
    assert by_name(plain)["label"].labels == ("bad", "good", "never"), "by number"
    assert by_name(hard)["n"].type == "struct<a: list<int>>"


def test_a_card_that_lies_is_noted(folder):
    lie = "{name: text, dtype: {class_label: {names: [red, blue]}}}"
    (folder / "README.md").write_text(CARD.replace("{name: text, dtype: string}", lie))
    _, plain = metadata(str(folder))
    assert plain.note == "the card names fields that the rows lack: stars"
    assert (by_name(plain)["text"].type, by_name(plain)["text"].labels) == ("text", ())
    (folder / "README.md").write_text("---\na: [1\n---\n")
    with pytest.raises(InputError, match=r"README.md: the card's head is not YAML"):
        metadata(str(folder))


def test_splits_and_shards_in_file_names_make_one_configuration(tmp_path):
    home = tmp_path / "set"
    home.mkdir()
    for name in (
        "boolq_train-00000-of-00002",
        "boolq_train-00001-of-00002",
        "boolq_dev",
        "boolq_test",
        "rte",
    ):
        write(home / f"{name}.parquet", rows(30))
    boolq, rte = metadata(str(home))
    assert (boolq.key, boolq.rows, rte.key, rte.rows) == ("set:boolq", 90, "set:rte", 30)
    assert {split for split, _ in boolq.files} == {"train", "validation", "test"}
    assert boolq.role == "own"


def test_a_folder_of_folders_lists_what_cannot_be_read(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    write(tmp_path / "a" / "x.jsonl", rows(5))
    (tmp_path / "b" / "x.parquet").write_bytes(b"PAR1 nothing")
    a, b = metadata(str(tmp_path))
    assert (a.rows, b.fields) == (5, ())
    assert "x.parquet cannot be read" in b.note


def test_class_names_in_the_file_are_used(tmp_path):
    features = {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}, "text": {"dtype": "string"}}
    table = pa.Table.from_pylist([{"text": f"t{i}", "label": i % 2} for i in range(20)])
    noted = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(noted), tmp_path / "x.parquet")
    (meta,) = metadata(str(tmp_path / "x.parquet"))
    assert by_name(meta)["label"].labels == ("no", "yes")
    assert by_name(meta)["label"].type == "label"


def test_odd_tables(tmp_path):
    (one,) = metadata(str(write(tmp_path / "one.jsonl", [{"text": "a"}, {"text": "b"}])))
    assert [f.name for f in one.fields] == ["text"]
    twice = pa.Table.from_arrays([pa.array(["a", "b"]), pa.array(["c", "d"])], names=["text", "text"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    (meta,) = metadata(str(tmp_path / "twice.parquet"))
    assert [f.name for f in meta.fields] == ["text", "text_2"]
    (tmp_path / "twice.csv").write_text("text,text,n\na,c,1\nb,d,2\n")
    (meta,) = metadata(str(tmp_path / "twice.csv"))
    assert [(f.name, f.type) for f in meta.fields] == [("text", "text"), ("text_2", "text"), ("n", "int")]
    empty = metadata_of("nulls", pa.table({"a": pa.nulls(5), "b": ["x", None, "", "y", None]}))
    assert [(f.type, bool(f.hidden)) for f in empty.fields] == [("null", True), ("text", False)]
    pictures = pa.table({"img": [{"bytes": b"x", "path": None}], "raw": [b"\xff"], "caption": ["a lamp"]})
    assert [f.hidden for f in metadata_of("p", pictures).fields] == ["holds image", "holds bytes", ""]
    with pytest.raises(InputError, match="no file or folder"):
        metadata(str(tmp_path / "none"))


def test_ten_thousand_columns(tmp_path):
    wide = pa.table({f"c{i}": pa.array([f"{i} {j}" for j in range(30)]) for i in range(10_000)})
    pq.write_table(wide, tmp_path / "wide.parquet")
    (meta,) = metadata(str(tmp_path / "wide.parquet"))
    assert len(meta.fields) == 10_000
    assert len(json.loads(meta.samples[0])) == 64


def test_closed_sets_are_told_from_all_rows():
    listed = [
        {"text": f"{i}", "topic": "early" if i < 1500 else "Late " if i % 3 == 0 else "late"}
        for i in range(3000)
    ]
    field = by_name(metadata_of("d", listed))["topic"]
    assert field.labels == ("early", "late"), "the commonest spelling, seen after the head too"
    names = [{"name": f"person {i}"} for i in range(40)]
    assert by_name(metadata_of("d", names))["name"].labels == ()


def test_the_digest_is_of_content_not_of_place(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "set").mkdir(parents=True)
        write(tmp_path / name / "set" / "x.jsonl", rows(20))
    one, two = (metadata(str(tmp_path / name / "set"))[0] for name in ("a", "b"))
    assert one.digest == two.digest
    write(tmp_path / "b" / "set" / "x.jsonl", rows(20, seed=2))
    assert metadata(str(tmp_path / "b" / "set"))[0].digest != one.digest
    (tmp_path / "a" / "set" / "README.md").write_text("---\nlicense: mit\n---\n")
    assert metadata(str(tmp_path / "a" / "set"))[0].digest != one.digest


def test_a_catalogue_gives_each_file_its_card(tmp_path):
    (tmp_path / "c").mkdir()
    write(tmp_path / "c" / "x.parquet", rows(20))
    entry = {"name": "x", "folder": "c", "file": "x.parquet", "licence": "MIT", "role": "train", "title": "X"}
    tests = entry | {"name": "y", "role": "benchmark", "nc": True, "language": "en"}
    gone = entry | {"name": "z", "file": "gone.parquet"}
    (tmp_path / "CATALOG.json").write_text(json.dumps({"files": [entry, tests, gone]}))
    x, y, z = metadata(str(tmp_path))
    assert (x.licence, x.role, x.summary) == ("MIT", "", "X")
    assert (y.licence, y.role) == ("MIT (non-commercial)", "benchmark")
    assert "gone.parquet" in z.note
    (tmp_path / "CATALOG.json").write_text("[1]")
    with pytest.raises(InputError, match="is not a catalogue"):
        metadata(str(tmp_path / "CATALOG.json"))


API = {
    "id": "owner/reviews",
    "sha": "abc123",
    "gated": False,
    "description": "Reviews of lamps.",
    "cardData": {
        "license": "mit",
        "language": ["en"],
        "dataset_info": {
            "config_name": "plain",
            "features": [
                {"name": "text", "dtype": "string"},
                {"name": "label", "dtype": {"class_label": {"names": {"0": "bad", "1": "good"}}}},
            ],
            "splits": [{"name": "train", "num_bytes": 900, "num_examples": 70}],
        },
        "configs": [{"config_name": "plain", "data_files": [{"split": "train", "path": "train.parquet"}]}],
    },
}


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


def test_the_hub_is_asked_through_its_api(monkeypatch, no_network):
    monkeypatch.setattr(hub_card, "_api", lambda path, revision: API)
    table = pa.table({"text": ["a", "b"], "label": [0, 1]})
    monkeypatch.setattr("taskmill.ingest.records.open_hub", lambda source, split: (table, iter(())))
    (meta,) = metadata("hf:owner/reviews")
    assert (meta.key, meta.licence, meta.rows, meta.bytes) == ("owner/reviews:plain", "mit", 70, 900)
    assert meta.files == (("train", "hf:owner/reviews:plain@abc123"),)
    assert by_name(meta)["label"].labels == ("bad", "good")
    assert meta.summary == "Reviews of lamps."
    monkeypatch.setattr(hub_card, "_api", lambda path, revision: API | {"gated": "manual"})
    with pytest.raises(InputError, match="gated: ask for access"):
        metadata("hf:owner/reviews")
    with pytest.raises(UsageError, match="not of the form"):
        metadata("hf:a:b:c")


def test_local_sources_open_no_socket(tmp_path, no_network):
    (meta,) = metadata(str(write(tmp_path / "d.parquet", rows())))
    assert meta.rows == 120
