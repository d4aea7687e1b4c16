"""The recipe: a table in, a selection with its report out."""

import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pools import blobs

from taskmill.config import build, options
from taskmill.errors import ConfigError, InputError, UsageError
from taskmill.recipes import select as recipe
from taskmill.recipes.pool import Columns, matrix, read_rows
from taskmill.recipes.select import SelectConfig, select
from taskmill.record import EXAMPLE_SCHEMA, Example, content_id, to_table
from taskmill.select import Needs


def table(size=200, width=8, seed=0, **columns):
    rng = np.random.default_rng(seed)
    vectors = blobs(size, width, rng).astype(np.float32)
    return pa.table(
        {
            "id": [f"row-{i:04}" for i in range(size)],
            "text": [f"text number {i} " * (1 + i % 5) for i in range(size)],
            "label": [f"l{i % 4}" for i in range(size)],
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), width),
            **columns,
        }
    )


@pytest.fixture
def pool(tmp_path):
    path = tmp_path / "pool.parquet"
    pq.write_table(table(), path, row_group_size=64)
    return path


def run(pool, out, **settings):
    return select(
        build(SelectConfig, {"source": str(pool), "columns": {"embeddings": "vector"}, **settings}), out
    )


def test_a_selection_with_its_report(pool, tmp_path):
    out = tmp_path / "made" / "core.parquet"
    seen = []
    config = build(
        SelectConfig,
        {"source": str(pool), "budget": "5%", "columns": {"embeddings": "vector", "group": "label"}},
    )
    record = select(config, out, seen.append)
    chosen = pq.read_table(out)
    assert chosen.schema == pa.schema([("id", pa.string()), ("rank", pa.int64()), ("score", pa.float64())])
    assert chosen["rank"].to_pylist() == list(range(10))
    assert len(set(chosen["id"].to_pylist())) == 10
    assert json.loads((tmp_path / "made" / "core.report.json").read_text()) == json.loads(json.dumps(record))
    assert record["pool"]["rows"] == record["chosen"]["rows"] + record["not_chosen"] == 200
    assert sum(g["chosen"] for g in record["groups"].values()) == 10
    assert {g["chosen"] for g in record["groups"].values()} <= {2, 3}
    assert record["measures"]["k-center"]["coverage: label"] == 1.0
    assert record["shortfall"] == ""
    assert any("needed" in progress.note for progress in seen)
    page = (tmp_path / "made" / "core.report.html").read_text()
    assert page.count("<svg") == 2
    assert "http" not in page.replace("http-equiv", "")
    assert _balanced(page)


class _Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.fine = [], True

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "path"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        self.fine = self.fine and bool(self.open) and self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        pass


def _balanced(page):
    tags = _Tags()
    tags.feed(page)
    return tags.fine and not tags.open


def test_the_same_rows_in_another_order_and_layout_give_the_same_bytes(pool, tmp_path):
    one = tmp_path / "one.parquet"
    run(pool, one, budget="300tok", method="k-center")
    rows = pq.read_table(pool)
    shuffled = rows.take(np.random.default_rng(3).permutation(200))
    wide = shuffled["vector"].combine_chunks().cast(pa.list_(pa.float64()))
    other = tmp_path / "other.parquet"
    pq.write_table(shuffled.set_column(3, "vector", wide), other, row_group_size=50)
    two = tmp_path / "two.parquet"
    run(other, two, budget="300tok", method="k-center")
    assert one.read_bytes() == two.read_bytes()


def test_json_lines_and_rows_without_ids(tmp_path):
    rows = table(30).drop_columns(["id"]).to_pylist()
    path = tmp_path / "pool.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    record = run(path, tmp_path / "out.parquet", budget="3", method="length")
    assert record["chosen"]["rows"] == 3
    read = read_rows(str(path), Columns())
    assert read.ids.to_pylist() == [str(i) for i in range(30)]
    longest = sorted(range(30), key=lambda i: (-read.tokens[i], str(i)))[:3]
    assert pq.read_table(tmp_path / "out.parquet")["id"].to_pylist() == [str(i) for i in longest]


def test_a_selection_goes_on_from_an_earlier_one(pool, tmp_path):
    run(pool, tmp_path / "few.parquet", budget="5")
    run(pool, tmp_path / "all.parquet", budget="12")
    run(pool, tmp_path / "more.parquet", budget="12", start=str(tmp_path / "few.parquet"))
    assert (tmp_path / "more.parquet").read_bytes() == (tmp_path / "all.parquet").read_bytes()
    pq.write_table(pa.table({"id": ["row-0001", "nobody"]}), tmp_path / "foreign.parquet")
    with pytest.raises(InputError, match="'nobody'"):
        run(pool, tmp_path / "x.parquet", budget="5", start=str(tmp_path / "foreign.parquet"))
    assert not (tmp_path / "x.parquet").exists()


def test_text_is_embedded_where_no_column_has_vectors(tmp_path):
    words = ["garbage collector frees objects", "tuples are sequences", "imports load a module once"]
    rows = pa.table({"text": [f"{words[i % 3]} number {i}" for i in range(30)]})
    pq.write_table(rows, tmp_path / "pool.parquet")
    config = build(
        SelectConfig, {"source": str(tmp_path / "pool.parquet"), "budget": "3", "embedder": "hash"}
    )
    record = select(config, tmp_path / "out.parquet")
    assert record["embedder"].startswith("hash")
    names = [int(i) % 3 for i in pq.read_table(tmp_path / "out.parquet")["id"].to_pylist()]
    assert sorted(names) == [0, 1, 2]


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"budget": "0"}, UsageError, "above 0"),
        ({"budget": "5", "columns": {"embeddings": "vektor"}}, UsageError, "Did you mean 'vector'"),
        ({"budget": "5", "columns": {"group": "lable"}}, UsageError, "Did you mean 'label'"),
        ({"budget": "5", "columns": {"embeddings": "label"}}, InputError, "lists of numbers"),
        ({"budget": "5", "columns": {"tokens": "text"}}, InputError, "whole numbers"),
        ({"budget": "5", "settings": {"frist": "medoid"}}, ConfigError, "first"),
        ({"budget": "5", "coverage": ["nothing"]}, UsageError, "no column 'nothing'"),
        ({"budget": "1tok"}, InputError, "no row fits"),
        ({"budget": "5", "draws": 0}, ConfigError, "draws"),
    ],
)
def test_wrong_usage_is_refused_with_the_way_out(pool, tmp_path, settings, error, words):
    with pytest.raises(error, match=words):
        run(pool, tmp_path / "out.parquet", **settings)
    assert not (tmp_path / "out.parquet").exists()


def test_wrong_files_are_refused(pool, tmp_path):
    with pytest.raises(UsageError, match="parquet"):
        run(pool, tmp_path / "out.json", budget="5")
    with pytest.raises(UsageError, match="budget"):
        run(pool, tmp_path / "out.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(InputError, match="cannot be read"):
        run(tmp_path / "bad.parquet", tmp_path / "out.parquet", budget="5")
    pq.write_table(pa.table({"vector": pa.array([], pa.list_(pa.float32()))}), tmp_path / "none.parquet")
    with pytest.raises(InputError, match="no rows"):
        run(tmp_path / "none.parquet", tmp_path / "out.parquet", budget="5")


@pytest.mark.parametrize("vector", [None, [1.0], [1.0, float("nan")], [1.0, None]])
def test_a_vector_that_is_none_is_named(tmp_path, vector):
    rows = pa.table({"id": ["a", "b", "c"], "vector": pa.array([[1.0, 0.0], vector, [0.0, 1.0]])})
    pq.write_table(rows, tmp_path / "pool.parquet")
    with pytest.raises(InputError, match=r"row 1 |'b'"):
        run(tmp_path / "pool.parquet", tmp_path / "out.parquet", budget="2")


def test_vectors_of_several_batches_become_one_matrix():
    batches = [pa.array([[1, 2], [3, 4]]), pa.array([[5, 6], [7, 8]])[1:]]
    assert matrix(batches, 3).tolist() == [[1, 2], [3, 4], [7, 8]]


def test_what_does_not_fit_into_memory_is_refused_beforehand(pool, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "_free_memory", lambda: 1000.0)
    with pytest.raises(UsageError, match="--method random"):
        run(pool, tmp_path / "out.parquet", budget="5")
    assert recipe.seconds(Needs(0, 0)) == 0


def test_flags_follow_from_the_configuration():
    flags = {option.flag for option in options(SelectConfig)}
    assert {
        "method",
        "budget",
        "seed",
        "embeddings",
        "text",
        "start",
        "target",
        "group-by",
        "quota",
        "set",
    } <= flags


def test_our_own_examples_and_run_folders_are_pools(tmp_path):
    rows = [
        Example(content_id(str(i)), "qa", f"passage {i}", "{{context}}\n\nWhat is it?", f"number {i}")
        for i in range(6)
    ]
    run_folder = tmp_path / "run"
    stage = run_folder / "3-curate"
    (stage / "kept").mkdir(parents=True)
    pq.write_table(to_table(rows, EXAMPLE_SCHEMA), stage / "kept" / "part-00000.parquet")
    (stage / "stage.json").write_text("{}")
    (run_folder / "manifest.json").write_text('{"status": "done"}')
    read = read_rows(str(run_folder), Columns(group="task"))
    assert read.texts[0].as_py() == "passage 0\n\nWhat is it?\nnumber 0"
    assert read.ids.to_pylist() == [row.id for row in rows]
    assert read.groups.to_pylist() == ["qa"] * 6
    config = build(SelectConfig, {"source": str(run_folder), "budget": "50%", "method": "random"})
    record = select(replace(config, embedder="hash"), tmp_path / "out.parquet")
    assert record["chosen"]["rows"] == 3
    assert record["measures"]["random"]["coverage: task"] == 1.0


def test_a_target_must_be_there_and_of_the_same_width(pool, tmp_path):
    with pytest.raises(UsageError, match="--target"):
        run(pool, tmp_path / "out.parquet", budget="5", method="rds")
    pq.write_table(table(10, width=4), tmp_path / "target.parquet")
    with pytest.raises(InputError, match="one embedder"):
        run(pool, tmp_path / "out.parquet", budget="5", target=str(tmp_path / "target.parquet"))
