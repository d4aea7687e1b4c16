"""Folders, links, URLs, standard input: which files are read, in which order, under which name."""

import gzip
import io
import os
import stat

import fsspec
import pytest

from taskmill.errors import InputError, UsageError
from taskmill.ingest import READERS, Fault, IngestConfig, Text, read_sources
from taskmill.record import Reason, content_id


def uris(items):
    return [item.source.uri for item in items]


def test_a_folder_is_read_sorted_and_hidden_files_are_passed_over(tmp_path, read):
    root = tmp_path / "notes"
    for name in ("b.txt", "a/z.md", "a/c.rst", ".hidden.txt", ".git/config.txt", "x.txt/inner.txt"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text of {name}")
    kept, dropped = read(root)
    assert uris(kept) == ["notes/a/c.rst", "notes/a/z.md", "notes/b.txt", "notes/x.txt/inner.txt"]
    assert dropped == []
    assert uris(read(f"{root}/")[0]) == uris(kept)


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("*.md", ["d/a.md", "d/s/b.md"]),
        ("**/*.md", ["d/a.md", "d/s/b.md"]),
        ("s/*", ["d/s/b.md", "d/s/c.txt"]),
        ("s/?.txt", ["d/s/c.txt"]),
        ("**", ["d/a.md", "d/s/b.md", "d/s/c.txt"]),
    ],
)
def test_glob(tmp_path, read, glob, expected):
    for name in ("a.md", "s/b.md", "s/c.txt"):
        (tmp_path / "d/s").mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name).write_text("text")
    assert uris(read(tmp_path / "d", glob=glob)[0]) == expected


def test_an_empty_folder_says_so(tmp_path, fault):
    assert fault(tmp_path).reason == Reason.EMPTY
    (tmp_path / "a.txt").write_text("text")
    assert "'*.md'" in fault(tmp_path, glob="*.md").detail


def test_a_file_keeps_the_name_the_user_typed(tmp_path, read, monkeypatch):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.txt").write_text("some text")
    monkeypatch.chdir(tmp_path)
    assert uris(read("sub/a.txt")[0]) == ["sub/a.txt"]
    assert uris(read(tmp_path / "sub/a.txt")[0]) == ["a.txt"]
    assert uris(read(f"file://{tmp_path}/sub/a.txt")[0]) == ["a.txt"]
    assert uris(read("sub")[0]) == ["sub/a.txt"]


def test_offsets_and_parent_of_chunks(tmp_path, read):
    text = "\n\n".join(f"Paragraph {i} has a sentence. And one more." for i in range(40)) + "\r\nEnd.\n"
    path = tmp_path / "a.txt"
    path.write_text(text, newline="")
    kept, _ = read(path, chunk_tokens=40, overlap=10)
    assert len(kept) > 10
    for document in kept:
        assert text[document.source.start : document.source.end] == document.text
        assert document.source.parent == content_id(text)


def test_declared_licence_and_language_fill_in(tmp_path, read):
    (tmp_path / "a.txt").write_text("text")
    (document,), _ = read(tmp_path, licence="CC0-1.0", language="en")
    assert (document.licence, document.language) == ("CC0-1.0", "en")


def test_limit_counts_documents(tmp_path, read):
    for i in range(5):
        (tmp_path / f"{i}.txt").write_text(f"text {i}" if i != 1 else "")
    kept, dropped = read(tmp_path, limit=3)
    assert len(kept) == 3
    assert len(dropped) == 1


def test_short_documents_are_dropped_with_their_text(tmp_path, fault):
    (tmp_path / "a.txt").write_text("short")
    drop = fault(tmp_path, min_chars=6)
    assert drop.reason == Reason.TOO_SHORT
    assert drop.row.text == "short"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("港口建于一八七四年，由玛丽亚霍尔姆设计，至今保护四十艘渔船。", True),
        ("항구는 1874년에 지어졌다고 한다.", True),
        ("ท่าเรือสร้างขึ้นในปีนั้น", True),
        ("港口很老。", False),
        ("The harbour is rather old today.", False),
        ("Гавань построили в 1874 году.", False),
    ],
)
def test_a_character_of_a_dense_script_weighs_three(tmp_path, read, text, kept):
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    found, dropped = read(tmp_path, min_chars=40)
    assert [d.text for d in found] == [text] * kept
    assert [d.reason for d in dropped] == [Reason.TOO_SHORT] * (not kept)


def test_missing_sources_name_the_nearest(tmp_path):
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(InputError, match=r"Did you mean 'notes.txt'"):
        read_sources([str(tmp_path / "note.txt")], IngestConfig())
    with pytest.raises(InputError, match="Check the path"):
        read_sources([str(tmp_path / "no/such/place")], IngestConfig())


@pytest.mark.parametrize(
    "options", [{"chunk_tokens": 0}, {"overlap": 256}, {"limit": -1}, {"text_column": ""}, {"max_line_mb": 0}]
)
def test_unusable_options(options):
    with pytest.raises(UsageError, match=next(iter(options))):
        IngestConfig(**options)


def test_links(tmp_path, read):
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "real.txt").write_text("a text")
    (tmp_path / "secret.txt").write_text("a secret")
    (root / "a_inside.txt").symlink_to(root / "real.txt")
    (root / "b_outside.txt").symlink_to(tmp_path / "secret.txt")
    (root / "c_loop.txt").symlink_to("c_loop.txt")
    (root / "d_broken.txt").symlink_to("nothing.txt")
    (root / "sub/e_parent").symlink_to("..")
    (root / "f_folder").symlink_to(tmp_path)
    kept, dropped = read(root)
    assert uris(kept) == ["root/a_inside.txt", "root/real.txt"]
    assert {drop.row.source.uri: drop.reason for drop in dropped} == {
        "root/b_outside.txt": Reason.OUTSIDE_ROOT,
        "root/c_loop.txt": Reason.UNREADABLE,
        "root/d_broken.txt": Reason.UNREADABLE,
        "root/f_folder": Reason.OUTSIDE_ROOT,
        "root/sub/e_parent": Reason.UNREADABLE,
    }


def test_pipes_and_unknown_formats_are_not_opened(tmp_path, read):
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8")
    (tmp_path / "README").write_text("text")
    kept, dropped = read(tmp_path)
    assert kept == []
    assert [drop.reason for drop in dropped] == [Reason.UNREADABLE] * 3
    assert ".jsonl" in dropped[0].detail


def test_permissions(tmp_path, read, monkeypatch):
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "sub").mkdir()
    (tmp_path / "z.txt").write_text("text")
    scandir, opened = os.scandir, open

    def refuse(path, *args):  # the tests may run as root, whom permissions do not stop
        if str(path).endswith(("a.txt", "sub")):
            raise PermissionError(13, "Permission denied")
        return (scandir if stat.S_ISDIR(os.stat(path).st_mode) else opened)(path, *args)

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr("builtins.open", refuse)
    kept, dropped = read(tmp_path)
    assert len(kept) == 1
    assert [drop.reason for drop in dropped] == [Reason.UNREADABLE] * 2
    assert all("ermission" in drop.detail for drop in dropped)


def test_a_name_that_is_no_unicode_can_be_recorded(tmp_path, read):
    try:
        with open(os.fsencode(tmp_path) + b"/caf\xe9.txt", "w") as file:
            file.write("text")
    except OSError:
        pytest.skip("this file system refuses such names")
    assert uris(read(tmp_path)[0])[0].endswith("/caf\\xe9.txt")


def test_fsspec_urls(read, fault):
    memory = fsspec.filesystem("memory")
    memory.pipe("/box/b.txt", b"text b")
    memory.pipe("/box/a/r.jsonl.gz", gzip.compress(b'{"text": "row"}\n'))
    memory.pipe("/box/.hidden/c.txt", b"hidden")
    kept, dropped = read("memory://box")
    assert uris(kept) == ["memory://box/a/r.jsonl.gz#row=0", "memory://box/b.txt"]
    assert dropped == []
    assert uris(read("memory://box/b.txt")[0]) == ["memory://box/b.txt"]
    for source in ("memory://nothing/here", "nosuchprotocol://x/y.txt"):
        with pytest.raises(InputError, match="://"):
            read(source)


def test_secrets_in_urls_are_not_recorded(read):
    fsspec.filesystem("memory").pipe("/user:key@host/a.txt", b"text")
    assert "key" not in str(read("memory://user:key@host/a.txt")[0])


def test_gzip(tmp_path, read, fault):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("a täxt".encode()))
    (document,), _ = read(tmp_path)
    assert document.text == "a täxt"
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"a text" * 1000)[:-20])
    assert fault(tmp_path).reason == Reason.UNREADABLE
    (tmp_path / "a.txt.gz").write_bytes(b"no gzip")
    assert fault(tmp_path).reason == Reason.UNREADABLE
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"a" * 3_000_000))
    assert fault(tmp_path, max_file_mb=2).reason == Reason.TOO_LARGE


def test_a_gzip_bomb_is_left_early(tmp_path, fault, monkeypatch):
    monkeypatch.setattr("taskmill.ingest.walk.MEGABYTE", 1)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"\n" * 5_000_000))
    assert fault(tmp_path).reason == Reason.TOO_LARGE


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"plain text", [("-", "plain text")]),
        (b' \n{"text": "row"}\n{"text": "two"}', [("-#row=1", "row"), ("-#row=2", "two")]),
        (b'\xef\xbb\xbf{"text": "row"}', [("-#row=0", "row")]),
    ],
)
def test_standard_input(monkeypatch, read, data, expected):
    stdin = io.TextIOWrapper(io.BytesIO(data))
    monkeypatch.setattr("sys.stdin", stdin)
    assert [(d.source.uri, d.text) for d in read("-")[0]] == expected
    assert not stdin.buffer.closed


def test_empty_standard_input(monkeypatch, fault):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    assert fault("-").reason == Reason.EMPTY


def test_a_third_party_reader(tmp_path, read):
    def read_pairs(file, config):
        with file.open() as stream:
            yield Text(stream.read().decode(), "#part=1", title="A title")
        yield Fault(Reason.EMPTY, "part 2 is empty", "#part=2")
        raise KeyError("a bug")

    READERS.register(".pairs", read_pairs)
    try:
        (tmp_path / "a.pairs").write_text("text")
        (document,), dropped = read(tmp_path)
    finally:
        READERS.unregister(".pairs")
    assert document.title == "A title"
    assert [drop.reason for drop in dropped] == [Reason.EMPTY, Reason.UNREADABLE]
    assert "KeyError" in dropped[1].detail


def test_bad_hub_sources_are_refused_before_anything_is_read():
    with pytest.raises(UsageError, match="owner/name"):
        read_sources(["hf:a:b:c@d"], IngestConfig())


def test_hub_folder(tmp_path, read, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"text": "one"}\n{"text": null}\n')
    (folder / "test.jsonl").write_text('{"text": "two"}\n')
    monkeypatch.chdir(tmp_path)
    kept, dropped = read("hf:./data")
    assert [(d.source.uri, d.text, d.meta) for d in kept] == [
        ("hf:./data#row=0", "one", '{"split": "train"}')
    ]
    assert [drop.reason for drop in dropped] == [Reason.NULL_TEXT]
    assert [d.text for d in read("hf:./data", split="test")[0]] == ["two"]
    (drop,) = read("hf:./data", text_column="txet")[1]
    assert drop.reason == Reason.MISSING_COLUMN
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
    for source, options in (("hf:./data", {"split": "dev"}), ("hf:./nothing", {})):
        with pytest.raises(InputError, match="cannot be opened"):
            read(source, **options)


def test_hub_without_the_package(monkeypatch, read):
    from taskmill.errors import MissingExtra

    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"taskmill\[hf\]"):
        read("hf:owner/name")
