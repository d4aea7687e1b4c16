"""The run folder: sorted parts, nothing half-written, one process at a time."""

import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill import durable, store
from taskmill.durable import atomic_write
from taskmill.errors import RunFolderError
from taskmill.record import DOCUMENT_SCHEMA, Document, Dropped, Reason, Span, content_id, documents
from taskmill.store import Run, SortedParts, StageWriter, parts


def docs(n, size=50):
    return [Document(content_id(str(i)), f"{i} " + "x" * size, Span("f", i, i + 1)) for i in range(n)]


def rows_of(folder):
    return [d for p in parts(folder) for d in documents(pq.read_table(p))]


@given(
    count=st.integers(0, 300),
    chunk=st.integers(1, 50),
    spill=st.sampled_from([100, 2000, 1 << 26]),
    seed=st.integers(),
)
@settings(max_examples=25, deadline=None)
def test_parts_are_the_sorted_rows_however_they_arrive(tmp_path_factory, count, chunk, spill, seed):
    import random

    rows = docs(count)
    random.Random(seed).shuffle(rows)
    folder = tmp_path_factory.mktemp("parts")
    old, store.SPILL_BYTES = store.SPILL_BYTES, spill
    old_buffer, store._BUFFER_ROWS = store._BUFFER_ROWS, chunk
    try:
        writer = SortedParts(folder, DOCUMENT_SCHEMA, ("id",))
        for start in range(0, count, chunk):
            writer.add(rows[start : start + chunk])
        assert writer.finish() == count
    finally:
        store.SPILL_BYTES, store._BUFFER_ROWS = old, old_buffer
    assert rows_of(folder) == sorted(rows, key=lambda d: d.id)
    assert not list(folder.glob(".*"))


def test_bytes_do_not_depend_on_the_order_of_arrival(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SPILL_BYTES", 1500)
    for name, rows in (("a", docs(200)), ("b", docs(200)[::-1])):
        writer = SortedParts(tmp_path / name, DOCUMENT_SCHEMA, ("id",))
        for row in rows:
            writer.add([row])
        writer.finish()
    a, b = parts(tmp_path / "a"), parts(tmp_path / "b")
    assert len(a) == store.BUCKETS
    assert [p.read_bytes() for p in a] == [p.read_bytes() for p in b]


def test_kept_plus_dropped_must_be_in(tmp_path):
    writer = StageWriter(tmp_path / "1-x", DOCUMENT_SCHEMA, ("id",))
    writer.count(3)
    writer.keep(docs(2))
    with pytest.raises(RunFolderError, match="3 rows came in but 2 were kept and 0 dropped"):
        writer.finish("key")
    assert not (tmp_path / "1-x" / "stage.json").exists()


def test_a_stage_counts_its_reasons(tmp_path):
    writer = StageWriter(tmp_path / "1-x", DOCUMENT_SCHEMA, ("id",))
    writer.count(3)
    writer.keep(docs(1))
    writer.drop([Dropped(d, "f", Reason.EMPTY, "nothing there") for d in docs(2)])
    assert writer.finish("key")["funnel"] == {"in": 3, "kept": 1, "dropped": {"empty": 2}}
    table = pq.read_table(parts(tmp_path / "1-x" / "dropped")[0])
    assert table["reason"].to_pylist() == ["empty", "empty"]
    assert table.schema.names[-4:] == ["filter", "reason", "detail", "score"]


def test_a_failed_write_leaves_the_old_content(tmp_path):
    path = tmp_path / "f"
    atomic_write(path, b"old")

    def full(point):
        if point.startswith("write"):
            raise OSError(28, "No space left on device")

    durable.on_write(full)
    try:
        with pytest.raises(OSError, match="No space"):
            atomic_write(path, b"new")
    finally:
        durable.on_write(None)
    assert path.read_bytes() == b"old"


def test_a_second_process_is_refused(tmp_path):
    code = (
        "import sys; from pathlib import Path; from taskmill.store import Run\n"
        "from taskmill.errors import RunFolderError\n"
        "try: Run(Path(sys.argv[1]))\n"
        "except RunFolderError as e: print(e)"
    )
    with Run(tmp_path / "run"):
        shown = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "run")], capture_output=True, text=True, check=True
        )
    assert "in use by another taskmill process" in shown.stdout
    Run(tmp_path / "run").close()


def test_a_foreign_folder_is_refused(tmp_path):
    (tmp_path / "holiday.jpg").write_text("")
    with pytest.raises(RunFolderError, match="no run folder"):
        Run(tmp_path)


def test_a_damaged_manifest_is_named(tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"manifest\.json is damaged"):
        store.read_json(tmp_path / "manifest.json")


def test_spilling_keeps_dropped_columns(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SPILL_BYTES", 10)
    writer = StageWriter(tmp_path / "1-x", DOCUMENT_SCHEMA, ("id",))
    rows = docs(30)
    writer.count(30)
    writer.drop([Dropped(d, "f", Reason.BINARY, d.id) for d in rows])
    writer.finish("k")
    found = pa.concat_tables([pq.read_table(p) for p in parts(tmp_path / "1-x" / "dropped")])
    assert found["detail"].to_pylist() == sorted(d.id for d in rows)
