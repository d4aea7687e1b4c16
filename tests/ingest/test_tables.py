"""Formats made of rows: JSON Lines, JSON, CSV, TSV, Parquet, Arrow; and every way a row can be bad."""

import csv
import json
import tracemalloc

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from taskmill.ingest import IngestConfig, read_sources
from taskmill.record import Reason

ROWS = [
    {"text": "First row, with «signs».", "title": "One", "lang": "en", "lic": "MIT"},
    {"text": "שורה בעברית 👩‍👧", "title": "Two", "lang": "he", "lic": ""},
]
TABLE = pa.Table.from_pylist(ROWS)


def write_csv(path, delimiter=",", encoding="utf-8"):
    with open(path, "w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, ROWS[0], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(ROWS)


def write_stream(path):
    with pa.ipc.new_stream(path, TABLE.schema) as writer:
        writer.write_table(TABLE)


WRITERS = {
    "a.jsonl": lambda path: path.write_text("\n".join(json.dumps(row) for row in ROWS)),
    "a.ndjson": lambda path: path.write_text(
        "".join(json.dumps(r, ensure_ascii=False) + "\r\n" for r in ROWS)
    ),
    "a.json": lambda path: path.write_text(json.dumps(ROWS)),
    "b.json": lambda path: path.write_text(json.dumps({"version": 1, "data": ROWS, "more": []})),
    "c.json": lambda path: path.write_text(json.dumps({"version": 1, "rows": ROWS}), "utf-8-sig"),
    "a.csv": write_csv,
    "b.csv": lambda path: write_csv(path, encoding="utf-8-sig"),
    "c.csv": lambda path: write_csv(path, encoding="utf-16"),
    "a.tsv": lambda path: write_csv(path, "\t"),
    "a.parquet": lambda path: pq.write_table(TABLE, path),
    "b.parquet": lambda path: pq.write_table(TABLE, path, use_dictionary=False, row_group_size=1),
    "c.parquet": lambda path: pq.write_table(
        TABLE.set_column(0, "text", TABLE["text"].cast(pa.binary()).dictionary_encode()), path
    ),
    "a.feather": lambda path: pyarrow.feather.write_feather(TABLE, path),
    "a.arrow": write_stream,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_documents(tmp_path, read, name):
    WRITERS[name](tmp_path / name)
    kept, dropped = read(tmp_path / name, language_column="lang", licence_column="lic", licence="CC0-1.0")
    assert dropped == []
    assert [(d.text, d.title, d.language, d.licence) for d in kept] == [
        (ROWS[0]["text"], "One", "en", "MIT"),
        (ROWS[1]["text"], "Two", "he", "CC0-1.0"),
    ]
    assert [d.source.uri for d in kept] == [f"{name}#row=0", f"{name}#row=1"]


@pytest.mark.parametrize("name", WRITERS)
def test_a_missing_column_names_the_nearest(tmp_path, read, name):
    WRITERS[name](tmp_path / name)
    kept, dropped = read(tmp_path / name, text_column="texts")
    assert kept == []
    assert {drop.reason for drop in dropped} == {Reason.MISSING_COLUMN}
    assert all("'title', 'lang'" in drop.detail and "Did you mean 'text'?" in drop.detail for drop in dropped)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("share", [0, 0.6])
def test_truncated_files(tmp_path, read, name, share):
    path = tmp_path / name
    WRITERS[name](path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    kept, dropped = read(path)
    assert len(kept) + len(dropped) >= 1
    if share == 0:
        assert [drop.reason for drop in dropped] == [Reason.EMPTY]


def reasons(dropped):
    return {drop.row.source.uri.partition("#row=")[2]: drop.reason for drop in dropped}


def test_bad_lines_of_jsonl(tmp_path, read):
    lines = [
        b'{"text": "good"}',
        b'{"text": "broken"',
        b'{"text": null}',
        b'{"txt": "other key"}',
        b'{"text": 7}',
        b'["a list"]',
        b'{"text": "\xff"}',
        b'{"text": "half \\ud800"}',
        b'{"text": ""}',
        b"",
        b"[" * 100_000,
        b'{"text": "NaN is common", "score": NaN, "title": "half \\ud800"}',
        b'{"text": "' + b"x" * 1_000_000 + b'"}',
        b'{"text": "last"}',
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    kept, dropped = read(tmp_path, max_line_mb=1)
    assert [d.text for d in kept] == ["good", "NaN is common", "last"]
    assert kept[1].title == "half ?"
    assert reasons(dropped) == {
        "1": Reason.UNREADABLE,
        "2": Reason.NULL_TEXT,
        "3": Reason.MISSING_COLUMN,
        "4": Reason.UNREADABLE,
        "5": Reason.UNREADABLE,
        "6": Reason.UNDECODABLE,
        "7": Reason.UNDECODABLE,
        "8": Reason.EMPTY,
        "10": Reason.UNREADABLE,
        "12": Reason.TOO_LARGE,
    }
    assert "line 2" in dropped[0].detail


def test_a_huge_line_costs_no_memory(tmp_path, read):
    with open(tmp_path / "a.jsonl", "wb") as file:
        file.write(b'{"text": "')
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(b'"}\n{"text": "next"}\n')
    tracemalloc.start()
    kept, dropped = read(tmp_path, max_line_mb=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [d.text for d in kept] == ["next"]
    assert reasons(dropped) == {"0": Reason.TOO_LARGE}
    assert peak < 12_000_000


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_memory_does_not_grow_with_rows(tmp_path, name):
    rows = [{"text": f"Row {i} holds some words that differ from those of the others."} for i in range(8_000)]
    if name == "a.parquet":
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
    else:
        lines = [json.dumps(r) for r in rows] if name == "a.jsonl" else ["text", *(r["text"] for r in rows)]
        (tmp_path / name).write_text("\n".join(lines))
    tracemalloc.start()
    assert sum(1 for _ in read_sources([str(tmp_path / name)], IngestConfig())) == 8_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_500_000


@pytest.mark.parametrize(
    "text", ['{"text": "a"}\n{"text": "b"}', '{"a": 1}', "3", "[" * 100_000, "{", '{"a": [], "b": []}']
)
def test_json_of_another_shape(tmp_path, fault, text):
    (tmp_path / "a.json").write_text(text)
    assert fault(tmp_path).reason == Reason.UNREADABLE


def test_bad_rows_of_json(tmp_path, read):
    (tmp_path / "a.json").write_text('[{"text": "good"}, "no object", {"text": null}, {"text": "\\udc00"}]')
    kept, dropped = read(tmp_path)
    assert len(kept) == 1
    assert reasons(dropped) == {"1": Reason.UNREADABLE, "2": Reason.NULL_TEXT, "3": Reason.UNDECODABLE}


def test_bad_rows_of_csv(tmp_path, read):
    lines = [
        b"id,text",
        b"0,good",
        b"1",
        b"2,",
        b"3,caf\xe9",
        b'4,"two\nlines"',
        b"",
        b"5," + b"x" * 1_000_001,
        b'6,"a quote" inside',
        b"7,last,extra",
        b'8,"never closed',
        b"9,swallowed",
    ]
    (tmp_path / "a.csv").write_bytes(b"\n".join(lines))
    before = csv.field_size_limit()
    kept, dropped = read(tmp_path, max_line_mb=1)
    assert csv.field_size_limit() == before
    assert [d.text for d in kept] == ["good", "two\nlines", "last"]
    assert reasons(dropped) == {
        "1": Reason.NULL_TEXT,
        "2": Reason.EMPTY,
        "3": Reason.UNDECODABLE,
        "5": Reason.TOO_LARGE,
        "6": Reason.UNREADABLE,
        "8": Reason.UNREADABLE,
    }
    assert "line 12" in dropped[-1].detail


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json"])
def test_binary_files(tmp_path, fault, name):
    (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40)
    assert fault(tmp_path).reason == Reason.BINARY


def test_a_header_without_rows(tmp_path, fault):
    (tmp_path / "a.csv").write_text("text,title\n")
    assert fault(tmp_path).reason == Reason.EMPTY
    assert fault(tmp_path, text_column="texts").reason == Reason.MISSING_COLUMN


def test_bad_rows_of_parquet(tmp_path, read, fault):
    values = pa.array([b"good", None, b"caf\xe9", b" "], pa.binary())
    pq.write_table(pa.table({"text": values}), tmp_path / "a.parquet")
    unchecked = pa.StringArray.from_buffers(4, *values.buffers()[1:], values.buffers()[0])
    pq.write_table(pa.table({"text": unchecked}), tmp_path / "b.parquet")
    expected = {"1": Reason.NULL_TEXT, "2": Reason.UNDECODABLE, "3": Reason.EMPTY}
    for name in ("a.parquet", "b.parquet"):
        kept, dropped = read(tmp_path / name)
        assert [d.text for d in kept] == ["good"]
        assert reasons(dropped) == expected
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "c.parquet")
    assert "int64" in fault(tmp_path / "c.parquet").detail
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "c.parquet")
    assert fault(tmp_path / "c.parquet").reason == Reason.EMPTY


def test_damage_within_parquet(tmp_path, read):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"row {i}" * 9 for i in range(9000)]}), path, row_group_size=3000)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = b"\xaa" * 2000
    path.write_bytes(data)
    kept, dropped = read(path)
    assert kept or dropped
