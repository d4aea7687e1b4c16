"""Rows read in pieces give the same bytes, however they are split and wherever they are hashed."""

import errno
import json
import os
import random
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill import frame
from taskmill.config import build
from taskmill.curate.decontaminate import Rule
from taskmill.curate.dedup import exact_duplicates, near_duplicates, preference
from taskmill.errors import InputError, UsageError
from taskmill.kernels import near, rivals
from taskmill.recipes import pieces
from taskmill.recipes.decontaminate import DecontaminateConfig, decontaminate
from taskmill.recipes.dedup import DedupConfig, dedup
from taskmill.recipes.pieces import Piecewise, opened
from taskmill.recipes.tables import read_table
from taskmill.store import write_parquet

SPANS = pa.list_(pa.struct([("start", pa.int64())]))
NAMES = ("kept.parquet", "dropped.parquet")


def corpus(seed, rows=60):
    """Texts of which about half repeat others, wholly or nearly."""
    draw = random.Random(seed)
    words = [f"word{i}" for i in range(30)]
    base = [" ".join(draw.choices(words, k=draw.randrange(0, 25))) for _ in range(rows // 2)]
    texts = []
    for _ in range(rows):
        own = draw.choice(base).split()
        if own and draw.random() < 0.5:
            own[draw.randrange(len(own))] = "other"
        texts.append(" ".join(own))
    return texts


def table_of(texts, seed=0):
    ids = [f"{random.Random(f'{seed} {i}').random():.9f}" for i in range(len(texts))]
    return pa.table({"id": ids, "text": texts, "source": [f"s{len(t) % 3}" for t in texts]})


def split(folder, table, cuts, group):
    """Write a table as Parquet files cut at some rows, in row groups of some size."""
    folder.mkdir(exist_ok=True)
    bounds = [0, *sorted(cuts), len(table)]
    for i, (a, b) in enumerate(pairwise(bounds)):
        pq.write_table(table.slice(a, b - a), folder / f"{i:03}.parquet", row_group_size=group)
    return (str(folder),)


def results(out):
    return [(out / name).read_bytes() for name in NAMES]


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_neither_files_nor_pieces_nor_batches_change_a_byte(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("rows")
    table = table_of(corpus(data.draw(st.integers(0, 99))))
    choice = data.draw(
        st.sampled_from(
            [
                {"mode": "exact"},
                {"mode": "exact", "source_cap": 5, "keep": "longest"},
                {"threshold": 0.4, "ngram": 2},
                {"threshold": 0.7, "ngram": 3, "keep": "longest", "source_cap": 9},
            ]
        )
    )
    whole = split(folder / "whole", table, [], 1000)
    wanted = dedup(build(DedupConfig, {"sources": whole, **choice}), folder / "wanted")
    assert wanted["funnel"]["kept"] < len(table) - 5
    cuts = data.draw(st.lists(st.integers(0, len(table)), max_size=4))
    parts = split(folder / "parts", table, cuts, data.draw(st.integers(1, 40)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "_PIECE", data.draw(st.integers(1, 30)))
        patch.setattr(rivals, "BATCH", data.draw(st.integers(1, 2000)))
        patch.setattr(rivals, "SORTED", data.draw(st.integers(1, 200)))
        patch.setattr(near, "BLOCK", data.draw(st.integers(50, 5000)))
        got = dedup(build(DedupConfig, {"sources": parts, **choice}), folder / "got")
    assert results(folder / "got") == results(folder / "wanted")
    assert {**got, "settings": None} == {**wanted, "settings": None}
    assert not list(folder.glob(".*"))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.sampled_from(["exact", "near"]), st.randoms(use_true_random=False))
def test_pieces_give_what_is_found_in_memory_and_order_does_not_count(tmp_path_factory, seed, mode, shuffle):
    folder = tmp_path_factory.mktemp("rows")
    texts = corpus(seed)
    table = table_of(texts, seed)
    order = preference(table["id"], near.in_one_piece(table["text"]))
    if mode == "exact":
        found = exact_duplicates(table["text"], order)
    else:
        found = near_duplicates(table["text"], 0.5, ngram=2, order=order)
    ids = table["id"].to_pylist()
    gone = [i for i in np.flatnonzero(~found.keep) if (texts[i] or "").strip()]  # nothing repeats nothing
    wanted = {ids[i]: ids[found.duplicate_of[i]] for i in gone}
    choice = {"mode": mode} | ({"threshold": 0.5, "ngram": 2} if mode == "near" else {})
    rows = list(range(len(texts)))
    shuffle.shuffle(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "_PIECE", 7)
        sources = split(folder / "in", table.take(rows), [13], 10)
        dedup(build(DedupConfig, {"sources": sources, **choice}), folder / "out")
    kept, dropped = (pq.read_table(folder / "out" / name) for name in NAMES)
    assert dict(zip(*(dropped[n].to_pylist() for n in ("id", "duplicate_of")), strict=True)) == wanted
    assert kept["id"].to_pylist() == [ids[r] for r in rows if ids[r] not in wanted]


@pytest.mark.parametrize("choice", [{"mode": "exact", "on": "pair", "skeleton_cap": 4}, {"threshold": 0.5}])
def test_tasks_of_a_cluster_answer_what_this_process_does(tmp_path, monkeypatch, choice):
    rows = [
        {"instruction": f"Name the capital of land {i % 9}.", "context": "", "response": f"city {i % 5}"}
        for i in range(70)
    ]
    sources = split(tmp_path / "in", pa.Table.from_pylist(rows), [30], 11)
    config = {"sources": sources, "source_cap": 40, "source_column": "response", **choice}
    dedup(build(DedupConfig, config), tmp_path / "here")
    monkeypatch.setattr(frame, "use_runner", lambda name: None)  # tasks run in this process
    monkeypatch.setattr(pieces, "_PIECE", 4)
    report = dedup(build(DedupConfig, {**config, "runner": "ray"}), tmp_path / "there")
    assert report["funnel"]["kept"] < 60
    assert results(tmp_path / "there") == results(tmp_path / "here")


ITEM = "the tide table of the harbour lists every high water of the year with its height in metres"


def held_out(folder):
    """Write an evaluation file of one item and return its path."""
    (folder / "items.jsonl").write_text(json.dumps({"id": "q", "question": ITEM}))
    return str(folder / "items.jsonl")


def training(rows=60):
    """Rows of which every seventh holds the item and every tenth is a task made from a benchmark."""
    draw = random.Random(4)
    words = [f"word{i}" for i in range(30)]
    texts = [" ".join(draw.choices(words, k=12)) for _ in range(rows)]
    texts = [f"{t} {ITEM.upper()}, {t}" if i % 7 == 0 else t for i, t in enumerate(texts)]
    tasks = [
        "task685_mmmlu_answer_generation_clinical_knowledge" if i % 10 == 0 else "own" for i in range(rows)
    ]
    return pa.table({"text": texts, "task": tasks})


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_decontamination_gives_the_same_bytes_however_rows_come(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("rows")
    against, table = (held_out(folder),), training()
    rule = Rule(data.draw(st.sampled_from(["13gram", "8gram50", "exact", "decon"])), frequent=3)
    (whole,) = split(folder / "whole", table, [], 1000)
    report = decontaminate(DecontaminateConfig((whole,), against, rule=rule), folder / "wanted")
    assert report["funnel"]["kept"] == sum(i % 7 > 0 and i % 10 > 0 for i in range(60))
    cuts = data.draw(st.lists(st.integers(0, 60), max_size=4))
    (parts,) = split(folder / "parts", table, cuts, data.draw(st.integers(1, 40)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "_PIECE", data.draw(st.integers(1, 30)))
        patch.setattr(frame, "use_runner", lambda name: None)  # tasks run in this process
        runner = data.draw(st.sampled_from(["native", "ray"]))
        config = DecontaminateConfig((parts,), against, rule=rule, runner=runner)
        assert decontaminate(config, folder / "got") == report
    assert results(folder / "got") == results(folder / "wanted")
    assert not list(folder.glob(".*"))


def test_a_changed_evaluation_file_is_read_again(tmp_path):
    (source,) = split(tmp_path / "in", training(), [], 1000)
    config = DecontaminateConfig((source,), (held_out(tmp_path),), keep_benchmark_tasks=True)
    assert decontaminate(config, tmp_path / "out")["funnel"]["kept"] == 51
    (tmp_path / "items.jsonl").write_text(json.dumps({"question": ITEM.replace("a", "e")}))
    assert decontaminate(config, tmp_path / "out")["funnel"]["kept"] == 60


def test_vectors_are_not_hashed_on_a_cluster(tmp_path):
    config = {"sources": ["in.parquet"], "mode": "semantic", "runner": "ray"}
    with pytest.raises(UsageError, match="semantic"):
        dedup(build(DedupConfig, config), tmp_path / "out")


@pytest.mark.parametrize("null", [False, True])
def test_a_null_in_another_piece_decides_how_examples_are_read(tmp_path, null):
    """Rows are examples of our own if all of them are: whether a passage is quoted depends on it."""
    from taskmill.record import EXAMPLE_SCHEMA

    texts = {"instruction": ["Sum up.", "Sum up.", None if null else "x", "{{context}}\n\nSum up."]}
    columns = {field.name: pa.nulls(4, field.type) for field in EXAMPLE_SCHEMA}
    columns |= {"id": pa.array(list("abcd")), "instruction": pa.array(texts["instruction"])}
    columns |= {"context": pa.array(["one", "two", "y", "one"]), "response": pa.array(["r"] * 4)}
    table = pa.table({name: columns[name] for name in EXAMPLE_SCHEMA.names})
    kept = []
    for name, group in (("whole", 4), ("rows", 1)):
        sources = split(tmp_path / name, table, [], group)
        config = {"sources": sources, "mode": "exact", "on": "instruction"}
        dedup(build(DedupConfig, config), tmp_path / f"{name}-out")
        kept.append(pq.read_table(tmp_path / f"{name}-out" / "kept.parquet")["id"].to_pylist())
    assert kept[0] == kept[1] == ["a", "c", "d"]


# rows in pieces


def test_pieces_are_the_rows_of_the_table_whatever_files_they_come_from(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    pq.write_table(pa.table({"n": [1, 2], "tags": [["a"], None]}), tmp_path / "one" / "a.parquet")
    (tmp_path / "one" / "b.jsonl").write_text(
        '{"id": "x", "n": 1.5, "tags": ["b"]}\n{"id": "y", "late": {"k": 1}}\n'
    )
    pq.write_table(pa.table({"id": ["x", "z"]}), tmp_path / "two" / "c.parquet")
    pq.write_table(pa.table({"id": pa.array([], pa.string())}), tmp_path / "two" / "d.parquet")
    for sources in (["one"], ["one", "two"], ["two", "one"], ["two"], ["one/b.jsonl"]):
        named = [str(tmp_path / source) for source in sources]
        whole = read_table(named)
        with opened(named, tmp_path / "scratch") as rows:
            held = [table for _, table in rows.pieces()]
            assert rows.schema.equals(whole.schema)
            assert [first for first, _ in rows.pieces()] == [0, *np.cumsum([len(t) for t in held])[:-1]]
            assert pa.concat_tables(held).cast(rows.schema).equals(whole)
            assert rows.names(np.arange(len(rows))) == [str(i) for i in whole["id"].to_pylist()]
        assert not (tmp_path / "scratch").exists()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 9000), max_size=6), st.booleans())
def test_a_file_written_piece_by_piece_has_the_bytes_of_one_written_at_once(tmp_path_factory, sizes, nested):
    folder = tmp_path_factory.mktemp("written")
    rows = sum(sizes)
    columns = {"id": [f"{i}" for i in range(rows)], "text": [f"text {i % 97}" for i in range(rows)]}
    if nested:
        columns["spans"] = pa.array([[{"start": i}] * (i % 3) for i in range(rows)], SPANS)
    table = pa.table({k: pa.array(v, pa.string()) if isinstance(v, list) else v for k, v in columns.items()})
    write_parquet(folder / "whole.parquet", table)
    with Piecewise(folder / "pieces.parquet", table.schema) as file:
        at = 0
        for size in sizes:
            file.add(table.slice(at, size))
            at += size
    assert (folder / "pieces.parquet").read_bytes() == (folder / "whole.parquet").read_bytes()


def test_a_value_that_does_not_fit_is_named_and_nothing_is_written(tmp_path):
    pq.write_table(pa.table({"text": ["a"], "n": pa.array([2**60 + 1])}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": ["a"], "n": [0.5]}), tmp_path / "b.parquet")
    with pytest.raises(InputError, match=r"a\.parquet: column 'n'"):
        dedup(DedupConfig(sources=(str(tmp_path / "*.parquet"),), mode="exact"), tmp_path / "out")
    assert not (tmp_path / "out" / "report.json").exists()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("rows", [3, 5])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, rows):
    pq.write_table(pa.table({"text": list("abcd")}), tmp_path / "a.parquet")
    with opened([str(tmp_path / "a.parquet")], tmp_path / "scratch") as found:
        pq.write_table(pa.table({"text": list("abcdefgh")[:rows]}), tmp_path / "a.parquet")
        with pytest.raises(InputError, match=r"a\.parquet changed while it was read"):
            list(found.pieces())


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="room is taken as files grow on this system")
def test_a_full_disk_ends_the_command_and_not_the_process(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    sources = split(tmp_path / "in", table_of(corpus(5)), [], 20)
    config = build(DedupConfig, {"sources": sources, "threshold": 0.5})
    dedup(config, tmp_path / "out")
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        dedup(config, tmp_path / "again")
    assert not (tmp_path / "again").exists()
    assert not list(tmp_path.glob(".*"))


# vectors


def pool_of_vectors(path, rows=300, width=6):
    rng = np.random.default_rng(4)
    made = rng.normal(size=(rows, width))
    made[rows // 2 :] = made[: rows - rows // 2] + 0.01 * rng.normal(size=(rows - rows // 2, width))
    made[[7, 40, 290]] = 0
    ids = [f"r{i:03}" for i in rng.permutation(rows)]
    pq.write_table(pa.table({"id": ids, "v": made.tolist()}), path, row_group_size=64)
    return ids, made


def test_vectors_in_a_file_give_the_same_bytes_as_in_memory(tmp_path, monkeypatch):
    from taskmill.curate.semantic import semantic_duplicates
    from taskmill.recipes import duplicates

    ids, made = pool_of_vectors(tmp_path / "in.parquet")
    config = build(
        DedupConfig,
        {"sources": [str(tmp_path / "in.parquet")], "mode": "semantic", "embeddings": "v", "threshold": 0.95},
    )
    report = dedup(config, tmp_path / "held")
    mapped = []
    numbers = duplicates.numbers
    monkeypatch.setattr(duplicates, "HELD", 0)
    monkeypatch.setattr(duplicates, "numbers", lambda *given: mapped.append(given) or numbers(*given))
    assert dedup(config, tmp_path / "mapped") == report
    assert mapped
    for name in ("kept", "dropped"):
        one, two = (tmp_path / folder / f"{name}.parquet" for folder in ("held", "mapped"))
        assert one.read_bytes() == two.read_bytes()
    order = np.argsort(ids)
    found = semantic_duplicates(made.astype(np.float32), 0.95, order=order)
    kept = pq.read_table(tmp_path / "held" / "kept.parquet")["id"].to_pylist()
    assert kept == [name for name, keep in zip(ids, found.keep, strict=True) if keep]
    dropped = pq.read_table(tmp_path / "held" / "dropped.parquet").to_pylist()
    assert {r["id"]: r["duplicate_of"] for r in dropped} == {
        ids[i]: ids[of] for i, of in enumerate(found.duplicate_of) if of >= 0
    }
    assert report["zero_vectors"] == 3
    assert report["zero_vector_ids"] == sorted(ids[i] for i in (7, 40, 290))
    assert "3 rows have a vector of zeros" in report["warnings"][-1]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("vector", "says"), [([1.0, float("nan")], "not finite"), ([1.0], "1 numbers where others have 2")]
)
def test_a_vector_that_is_none_is_named_by_its_row(tmp_path, vector, says):
    rows = pa.table({"id": ["a", "b", "c"], "v": [[1.0, 0.0], vector, [0.0, 1.0]]})
    pq.write_table(rows, tmp_path / "in.parquet")
    given = {"sources": [str(tmp_path / "in.parquet")], "mode": "semantic", "embeddings": "v"}
    with pytest.raises(InputError, match=f"'b'.*{says}"):
        dedup(build(DedupConfig, given), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# killed

DRIVER = """
import os, signal, sys
from pathlib import Path
import pyarrow as pa
from taskmill import durable
from taskmill.curate.dedup import near_duplicates
from taskmill.recipes.dedup import DedupConfig, dedup
from taskmill.recipes.decontaminate import DecontaminateConfig, decontaminate
from taskmill.recipes.tables import table_files
from taskmill.errors import InputError

near_duplicates(pa.array(["a b", "a b c"]), 0.5, ngram=2)  # loads the kernels, once for all children
source, folder, against = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
points = []

def child(out, kill_at=0):
    pid = os.fork()
    if pid:
        return os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    def hook(name):
        points.append(name)
        if len(points) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
    durable.on_write(hook)
    if against:
        decontaminate(DecontaminateConfig((source,), tuple(against)), out)
    else:
        dedup(DedupConfig(sources=(source,), threshold=0.5, ngram=2), out)
    os._exit(0)

def digest(out):
    return [(out / name).read_bytes() for name in ("kept.parquet", "dropped.parquet", "report.json")]

assert not child(folder / "whole")
wanted = digest(folder / "whole")
number = 0
while True:
    number += 1
    out = folder / f"{number}"
    if not child(out, number):
        break
    whole = (out / "report.json").exists()
    if whole:
        assert digest(out) == wanted, number
    elif (out / "kept.parquet").exists():
        try:
            table_files(str(out))
        except InputError as error:
            assert "unfinished" in str(error)
        else:
            raise AssertionError(number)
    if number % 4 == 1:
        assert not child(out)
        assert digest(out) == wanted, number
        assert not (folder / f".{number}.parts").exists(), number
print(number - 1)
"""


@pytest.mark.parametrize(("command", "least"), [("dedup", 14), ("decontaminate", 12)])
def test_killed_at_any_write_the_same_command_finishes(tmp_path, command, least):
    table = table_of(corpus(5)) if command == "dedup" else training()
    against = [] if command == "dedup" else [held_out(tmp_path)]
    sources = split(tmp_path / "in", table, [], 20)
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, *sources, str(tmp_path), *against],
        capture_output=True, text=True, env=os.environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= least
