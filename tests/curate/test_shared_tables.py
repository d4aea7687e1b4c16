"""What commands over finished data share: one schema over files, ids, places to write, evidence."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.errors import InputError, UsageError
from taskmill.ingest.tokens import count_tokens
from taskmill.recipes import tables
from taskmill.recipes.pool import Columns, read_rows
from taskmill.recipes.tables import check_out, joined, read_file, read_table, unified, with_ids


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def parquet(path, **columns):
    pq.write_table(pa.table(columns), path)
    return str(path)


# one schema

CELLS = {
    "int": st.none() | st.integers(-(2**40), 2**40),
    "float": st.none() | st.floats(-1e9, 1e9),
    "text": st.none() | st.text(max_size=3),
    "list": st.none() | st.lists(st.text(max_size=2), max_size=2),
    "struct": st.none()
    | st.fixed_dictionaries({"a": st.text(max_size=2)}, optional={"b": st.integers(0, 9)}),
}
ROWS = st.lists(st.fixed_dictionaries({"row": st.just(0)}, optional=CELLS), max_size=4)


def plain(value):
    """Return a value without what is null in it: what a missing key is in another file's schema."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if v is not None}
    return value


@given(st.lists(ROWS, min_size=1, max_size=4))
def test_no_column_and_no_value_of_any_file_is_lost(files):
    keys = [dict.fromkeys(key for row in rows for key in row) for rows in files]
    found = joined(
        {
            str(i): pa.table({key: [row.get(key) for row in rows] for key in keys[i]})
            for i, rows in enumerate(files)
        }
    )
    assert found.column_names == list(dict.fromkeys(key for own in keys for key in own))
    assert [plain(row) for row in found.to_pylist()] == [plain(row) for rows in files for row in rows]


def test_later_columns_and_text_in_dictionaries_are_kept(tmp_path):
    parquet(tmp_path / "a.parquet", text=pa.array(["x"]).dictionary_encode(), n=pa.array([1], pa.int8()))
    parquet(tmp_path / "b.parquet", late=[True], text=["y"], n=[0.5])
    found = read_table([str(tmp_path)])
    assert found.to_pylist() == [
        {"id": "0", "text": "x", "n": 1.0, "late": None},
        {"id": "1", "text": "y", "n": 0.5, "late": True},
    ]
    assert found.schema.metadata is None


def test_kinds_that_clash_are_named_by_file_and_column(tmp_path):
    parquet(tmp_path / "a.parquet", n=[1], text=["x"])
    lines(tmp_path / "b.jsonl", [{"text": "y", "n": "one"}])
    with pytest.raises(InputError, match=r"b.jsonl: column 'n' holds string, in the files before it int64"):
        read_table([str(tmp_path)])
    schemas = {name: pa.schema([("x", kind)]) for name, kind in (("one", pa.bool_()), ("two", pa.int64()))}
    with pytest.raises(InputError, match="two: column 'x'"):
        unified(schemas)


def test_a_value_the_common_kind_cannot_hold_is_named(tmp_path):
    parquet(tmp_path / "a.parquet", n=[2**53 + 1])
    parquet(tmp_path / "b.parquet", n=[0.5])
    with pytest.raises(InputError, match=r"a.parquet: column 'n'"):
        read_table([str(tmp_path)])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b"", "no rows"),
        ("a.jsonl", b"\n\n", "no rows"),
        ("a.json", b"[]", "no rows"),
        ("a.csv", b"", "no rows"),
        ("a.csv", b"text\n", "no rows"),
        ("a.jsonl", b"{}\n", "no rows"),
        ("a.parquet", b"", "cannot be read"),
        ("a.arrow", b"", "cannot be read"),
    ],
)
def test_empty_files_are_named(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{name}.*{said}"):
        read_table([str(path)])


def test_two_columns_of_one_name_are_refused(tmp_path):
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match="two columns 'x'"):
        read_file(str(tmp_path / "a.parquet"))


# ids


def test_rows_without_ids_are_numbered_by_source(tmp_path):
    one = lines(tmp_path / "one.jsonl", [{"text": "a"}, {"text": "b"}])
    two = lines(tmp_path / "two.jsonl", [{"text": "c"}])
    assert read_table([one])["id"].to_pylist() == ["0", "1"]
    assert read_table([one, two])["id"].to_pylist() == ["one/0", "one/1", "two/0"]
    assert read_table([two, one])["id"].to_pylist() == ["two/0", "one/0", "one/1"]


def test_an_id_of_several_sources_is_told_apart_in_each(tmp_path):
    (tmp_path / "x").mkdir()
    one = parquet(tmp_path / "one.parquet", id=["a", "b"])
    two = parquet(tmp_path / "x" / "one.parquet", id=["b", "c"])
    found = read_table([one, two])["id"].to_pylist()
    assert found == ["a", f"{one}/b", f"{two}/b", "c"]
    assert sorted(read_table([two, one])["id"].to_pylist()) == sorted(found)


def test_numbers_stay_numbers_unless_other_ids_are_text(tmp_path):
    one, two = parquet(tmp_path / "one.parquet", id=[1, 2]), parquet(tmp_path / "two.parquet", id=[3])
    three = parquet(tmp_path / "three.parquet", id=["x"])
    assert read_table([one, two])["id"].to_pylist() == [1, 2, 3]
    assert read_table([one, three])["id"].to_pylist() == ["1", "2", "x"]


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (["a", "b", "a"], r"rows 0 and 2 \(counted from 0\) both have the id 'a'"),
        ([1, None, 2], r"row 1 \(counted from 0\) has no 'id'"),
        ([1.5, 2.0, 3.0], "texts or whole numbers, not double"),
        ([True, False, None], "texts or whole numbers, not bool"),
        ([None, None, None], "row 0"),
    ],
)
def test_ids_that_do_not_name_a_row_are_refused(tmp_path, ids, said):
    path = parquet(tmp_path / "a.parquet", id=ids)
    with pytest.raises(InputError, match=rf"a.parquet: .*{said}"):
        read_table([path])
    with pytest.raises(InputError, match=said):
        read_rows(path, Columns())


def test_a_source_is_named_once(tmp_path):
    path = parquet(tmp_path / "a.parquet", id=["a"])
    with pytest.raises(UsageError, match="given twice"):
        read_table([path, path])


def test_numbers_go_on_where_they_are_told_to():
    table = with_ids(pa.table({"text": ["a", "b"]}), name="row", prefix="p-", first=7)
    assert table.to_pylist() == [{"row": "p-7", "text": "a"}, {"row": "p-8", "text": "b"}]


# where results go


@pytest.fixture
def places(tmp_path):
    for name in ("data/sub", "run/3-curate/kept", "curated", "foreign", "made", "web/out"):
        (tmp_path / name).mkdir(parents=True)
    parquet(tmp_path / "data" / "a.parquet", text=["x"])
    parquet(tmp_path / "alone.parquet", text=["x"])
    parquet(tmp_path / "run" / "3-curate" / "kept" / "part-00000.parquet", text=["x"])
    (tmp_path / "run" / "3-curate" / "stage.json").write_text("{}")
    (tmp_path / "run" / "config.yaml").write_text("")
    parquet(tmp_path / "curated" / "kept.parquet", text=["x"])
    (tmp_path / "curated" / "report.json").write_text('{"command": "curate"}')
    (tmp_path / "foreign" / "report.json").write_text("[]")
    for name in ("run", "web"):
        (tmp_path / name / "manifest.json").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    return tmp_path


@pytest.mark.parametrize(
    ("out", "source", "said"),
    [
        ("data", "data", "would write into the source"),
        ("data/sub", "data", "would write into the source"),
        ("data/new", "link", "would write into the source"),
        ("link", "data/a.parquet", "would write into the source"),
        ("data", "data/*.parquet", "would write into the source"),
        ("run/new", "run", "would write into the source"),
        ("run", "alone.parquet", "run folder"),
        ("run/new", "alone.parquet", "run folder"),
        ("curated", "alone.parquet", "report.json of curate"),
        ("curated", "curated", "would write into the source"),
        ("foreign", "alone.parquet", "no command of this version"),
        ("alone.parquet", "data", "is a file"),
    ],
)
def test_nothing_of_others_is_overwritten(places, out, source, said):
    with pytest.raises(UsageError, match=said):
        check_out(places / out, [str(places / source)], "dedup")


@pytest.mark.parametrize(
    ("out", "source", "command", "again"),
    [
        ("made", "data", "dedup", False),
        ("new", "run", "dedup", False),
        ("new", "curated", "dedup", False),
        ("curated", "data", "curate", False),
        ("curated", "curated", "curate", True),
        ("web/out", "data", "dedup", False),  # a manifest.json of another tool
    ],
)
def test_a_place_of_its_own_is_accepted(places, out, source, command, again):
    source = str(places / source)
    assert check_out(places / out, [source], command, again=again) == places / out


def test_files_may_stand_beside_their_source_but_not_among_results(places):
    source = [str(places / "data" / "a.parquet")]
    assert check_out(places / "data" / "b.parquet", source, "select", file=True).name == "b.parquet"
    for out, said in (
        ("data/a.parquet", "source"),
        ("curated/b.parquet", "report.json"),
        ("run/b.parquet", "run folder"),
        ("made", "is a folder"),
    ):
        with pytest.raises(UsageError, match=said):
            check_out(places / out, source, "select", file=True)


# evidence


@given(
    st.lists(
        st.sampled_from(["id", "reason", "reason_in", "reason_in_in", "score"]), min_size=1, unique=True
    ),
    st.lists(st.sampled_from(["reason", "score", "reason_in"]), unique=True),
)
def test_evidence_stands_beside_the_input_and_can_be_taken_back(names, added):
    table = pa.table({name: [name] for name in names})
    judged = tables.with_evidence(table, {name: pa.array(["evidence"]) for name in added})
    assert judged.column_names[len(names) :] == added
    assert len(set(judged.column_names)) == len(names) + len(added)
    assert tables.without_evidence(judged, table.schema) == table
    kept = [name for name in names if name not in added]
    assert [name for name in judged.column_names if name in kept] == kept


# pools


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"prompt": "P?", "completion": "C"}, "P?\nC"),
        ({"instruction": "I", "input": "the passage", "output": "O"}, "the passage\n\nI\nO"),
        ({"instruction": "I", "context": "the passage", "response": "R"}, "the passage\n\nI\nR"),
        ({"inputs": "I", "targets": "T"}, "I\nT"),
        ({"question": "{{context}}?", "answer": "A"}, "{{context}}?\nA"),
        ({"messages": [{"role": "user", "content": "U"}, {"role": "assistant", "content": "A"},
                       {"role": "user", "content": "V"}, {"role": "assistant", "content": "B"}]},
         "U\n\nA\n\nV\nB"),
        ({"conversations": [{"from": "human", "value": "U"}, {"from": "gpt", "value": "A"}]}, "U\nA"),
        ({"text": "T", "prompt": "P?", "completion": "C"}, "T"),
    ],
)  # fmt: skip
def test_pools_of_every_layout_have_text_and_tokens(tmp_path, row, text):
    found = read_rows(lines(tmp_path / "pool.jsonl", [row]), Columns())
    assert found.texts.to_pylist() == [text]
    assert found.tokens[0] == count_tokens(text)


def test_tokens_are_not_counted_where_there_is_no_text(tmp_path):
    path = parquet(tmp_path / "pool.parquet", n=[3, 4], v=[[1.0], [2.0]])
    assert read_rows(path, Columns(embeddings="v")).tokens.tolist() == [1, 1]
    with pytest.raises(UsageError, match=r"--budget 5tok counts tokens, and .* has no text"):
        read_rows(path, Columns(embeddings="v"), counted="--budget 5tok")
    assert read_rows(path, Columns(tokens="n"), counted="--budget 5tok").tokens.tolist() == [3, 4]


def test_pools_keep_the_columns_of_later_files(tmp_path):
    parquet(tmp_path / "a.parquet", id=["a"], v=[[1.0, 0.0]])
    parquet(tmp_path / "b.parquet", v=[[0.0, 1.0]], group=["g"], id=["b"])
    lines(tmp_path / "c.jsonl", [{"id": "c", "v": [1.0, 1.0], "text": "x"}])
    found = read_rows(str(tmp_path), Columns(embeddings="v", group="group"))
    assert found.table.to_pylist() == [
        {"id": "a", "group": None, "text": None},
        {"id": "b", "group": "g", "text": None},
        {"id": "c", "group": None, "text": "x"},
    ]
    assert found.vectors.tolist() == [[1, 0], [0, 1], [1, 1]]
    assert found.groups.to_pylist() == [None, "g", None]


def test_a_column_of_ids_that_is_not_there_is_no_reason_to_number_rows(tmp_path):
    path = parquet(tmp_path / "pool.parquet", text=["a"], key=["b"])
    assert read_rows(path, Columns(id="key")).ids.to_pylist() == ["b"]
    with pytest.raises(UsageError, match=r"no column 'kye'.*'key'"):
        read_rows(path, Columns(id="kye"))
