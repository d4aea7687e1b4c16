"""The registry: deltas, versions that never change, crashes, and that adding touches nothing else."""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill import cli
from taskmill.errors import ConfigError, RunFolderError, UsageError
from taskmill.export.folder import last_examples
from taskmill.grow.registry import Registry
from taskmill.recipes.grow import AddConfig, add, diff, listing, remove
from taskmill.recipes.tables import read_table

DRIVER = Path(__file__).with_name("registry_driver.py")


def reviews(path, word, rows=20, first=0):
    made = {
        "review": [
            f"the {word} number {i} was {'very good' if i % 2 else 'dull'} indeed"
            for i in range(first, first + rows)
        ],
        "label": [("negative", "positive")[i % 2] for i in range(first, first + rows)],
    }
    pq.write_table(pa.table(made), path)
    return str(path)


@pytest.fixture
def home(tmp_path):
    for word in ("film", "meal", "boat"):
        reviews(tmp_path / f"{word}.parquet", word)
    return tmp_path


def grown(home, *words, **more):
    sources = tuple(str(home / f"{word}.parquet") for word in words)
    return add(AddConfig(sources=sources, registry=str(home / "registry"), **more))


def files(version):
    """Every file of a version: (inode, time of writing, content)."""
    return {
        str(p.relative_to(version.folder)): (
            p.stat().st_ino,
            p.stat().st_mtime_ns,
            hashlib.sha256(p.read_bytes()).hexdigest(),
        )
        for p in sorted(version.folder.rglob("*"))
        if p.is_file()
    }


def ids(version, name):
    return {i for part in version.kept(name) for i in pq.read_table(part)["id"].to_pylist()}


def test_adding_one_dataset_touches_only_its_tasks(home):
    grown(home, "film", "meal")
    registry = Registry(home / "registry")
    before = files(registry.version(1))
    found = grown(home, "boat")
    after = files(registry.version(2))
    assert found["made"]
    assert set(found["changes"]) == {"boat"}
    own = set(registry.version(2).datasets["boat"].files())
    told = {"manifest.json", "1-grow/stage.json"}
    assert set(after) - set(before) == own
    for name in set(before) - told:
        assert after[name] == before[name]  # the same inode: linked, not written
    assert files(registry.version(1)) == before


def test_the_same_source_twice_is_no_new_version(home):
    first = grown(home, "film", "meal")
    again = grown(home, "film")
    assert (first["made"], again["made"]) == (True, False)
    assert again["version"] == 1
    assert again["unchanged"] == ["film"]
    assert again["changes"] == {}
    assert Registry(home / "registry").numbers() == [1]


def test_a_changed_source_is_a_delta_by_row(home):
    grown(home, "film", "meal")
    registry = Registry(home / "registry")
    old = registry.version()
    reviews(home / "film.parquet", "film", rows=20, first=4)  # four rows go, four come
    found = grown(home, "film", "meal")
    new = registry.version()
    change = found["changes"]["film"]
    assert set(found["changes"]) == {"film"}
    assert change["change"] == "changed"
    assert change["why"] == "its source changed"
    was, now = ids(old, "film"), ids(new, "film")
    assert change["rows"] == {"added": len(now - was), "removed": len(was - now), "same": len(now & was)}
    assert 0 < change["rows"]["added"] < len(now)
    assert new.datasets["meal"] == old.datasets["meal"]


def test_removing_retracts_every_row_and_the_old_version_keeps_them(home):
    grown(home, "film", "meal")
    registry = Registry(home / "registry")
    gone, before = ids(registry.version(1), "film"), files(registry.version(1))
    found = remove(str(home / "registry"), ["film"], "licence withdrawn")
    version = registry.version(2)
    assert found["changes"]["film"]["rows"] == {"added": 0, "removed": len(gone), "same": 0}
    assert found["changes"]["film"]["why"] == "removed: licence withdrawn"
    left = set(read_table([str(version.folder)])["id"].to_pylist())
    assert left == ids(version, "meal")
    assert not left & gone
    assert "film" not in (version.folder / "manifest.json").read_text().partition('"datasets"')[2]
    assert files(registry.version(1)) == before
    with pytest.raises(UsageError, match="no dataset 'film'"):
        remove(str(home / "registry"), ["film"])


def test_added_and_removed_it_is_as_before(home):
    grown(home, "film")
    registry = Registry(home / "registry")
    grown(home, "boat")
    remove(str(home / "registry"), ["boat"])
    one, three = registry.version(1), registry.version(3)
    assert one.datasets == three.datasets
    assert diff(str(home / "registry"), 1, 3)["datasets"] == {}


def test_a_diff_says_what_and_why_in_both_directions(home):
    grown(home, "film", "meal")
    grown(home, "boat")
    remove(str(home / "registry"), ["meal"], "too easy")
    reviews(home / "film.parquet", "film", rows=24)
    grown(home, "film")
    registry = Registry(home / "registry")
    found = diff(str(home / "registry"), 1, 4)
    assert {name: line["change"] for name, line in found["datasets"].items()} == {
        "boat": "added", "film": "changed", "meal": "removed",
    }  # fmt: skip
    assert found["datasets"]["meal"]["why"] == "removed: too easy"
    assert found["datasets"]["boat"]["why"].startswith("added from ")
    old = set().union(*(ids(registry.version(1), name) for name in ("film", "meal")))
    new = set().union(*(ids(registry.version(4), name) for name in ("film", "boat")))
    assert (found["rows added"], found["rows removed"]) == (len(new - old), len(old - new))
    back = diff(str(home / "registry"), 4, 1)
    assert (back["rows added"], back["rows removed"]) == (found["rows removed"], found["rows added"])
    assert (back["tasks added"], back["tasks removed"]) == (found["tasks removed"], found["tasks added"])


@settings(max_examples=12)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["film", "meal", "boat"]), st.integers(0, 3)), min_size=1, max_size=6
    )
)
def test_any_history_ends_in_what_is_there(tmp_path_factory, steps):
    """0: take out; else: have the dataset with that many rows times 10. A version depends on no history."""
    home = tmp_path_factory.mktemp("history")
    there = {}
    for word, size in steps:
        if size:
            reviews(home / f"{word}.parquet", word, rows=10 * size)
            grown(home, word)
            there[word] = size
        elif word in there:
            remove(str(home / "registry"), [word])
            del there[word]
    registry = Registry(home / "registry")
    if not there:
        assert registry.version().datasets == {}
        return
    fresh = AddConfig(
        sources=tuple(str(home / f"{word}.parquet") for word in sorted(there)), registry=str(home / "fresh")
    )
    add(fresh)
    assert registry.version().datasets == Registry(home / "fresh").version().datasets
    parts = [
        {p.name: p.read_bytes() for p in (one.version().folder / "1-grow" / "kept").iterdir()}
        for one in (registry, Registry(home / "fresh"))
    ]
    assert parts[0] == parts[1]


def test_killed_at_every_write_point_there_is_the_old_version_or_the_new(tmp_path):
    done = subprocess.run([sys.executable, str(DRIVER), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) > 20
    points = {r["point"] for r in results}
    assert {"version linked", "version written", "version renamed"} <= points
    assert {r["seen"] for r in results} == {"old", "middle", "new"}
    assert [r for r in results if not r["ended"]] == []
    order = ["old", "middle", "new"]
    seen = [order.index(r["seen"]) for r in results]
    assert seen == sorted(seen)


def test_a_second_process_is_refused_and_readers_are_not(home):
    grown(home, "film")
    with (home / "registry" / ".lock").open("a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(RunFolderError, match="in use"):
            grown(home, "boat")
        assert listing(str(home / "registry"))["version"] == 1


def test_a_version_is_read_by_the_other_commands(home, capsys):
    found = grown(home, "film", "meal")
    folder = found["folder"]
    assert last_examples(Path(folder)).name == "grow"
    for words, out in (
        (["select", folder, "--budget", "10", "--embedder", "hash"], home / "core.parquet"),
        (["export", folder, "--format", "messages"], home / "train.jsonl"),
        (["dedup", folder, "--mode", "exact"], home / "dedup"),
    ):
        with pytest.raises(SystemExit) as end:
            cli.main([*words, "--out", str(out)])
        assert end.value.code == 0, capsys.readouterr()
    assert len((home / "train.jsonl").read_text().splitlines()) == found["rows"]
    assert pq.read_metadata(home / "core.parquet").num_rows == 10


def test_selection_goes_on_from_what_was_selected_before(home, capsys):
    registry = str(home / "registry")
    grown(home, "film", "meal")

    def select(budget, out, *more):
        words = ["--registry", registry, "--budget", budget, "--embedder", "hash", "--json", *more]
        with pytest.raises(SystemExit) as end:
            cli.main(["grow", "select", "--out", str(home / out), *words])
        printed = capsys.readouterr()
        assert end.value.code == 0, printed
        return pq.read_table(home / out)["id"].to_pylist(), json.loads(printed.out)

    early, _ = select("6", "one.parquet")
    grown(home, "boat")
    late, told = select("12", "two.parquet", "--start", str(home / "one.parquet"))
    assert late[:6] == early
    assert told["retracted"] == 0
    assert ids(Registry(registry).version(), "boat") & set(late)
    # The plain command does the same on a version's folder.
    folder = str(home / "registry" / "versions" / "00000002")
    words = ["--budget", "12", "--embedder", "hash", "--start", str(home / "one.parquet")]
    with pytest.raises(SystemExit):
        cli.main(["select", folder, *words, "--out", str(home / "plain.parquet")])
    assert pq.read_table(home / "plain.parquet")["id"].to_pylist() == late
    capsys.readouterr()
    gone = ids(Registry(registry).version(), "film") & set(late)
    assert gone
    remove(registry, ["film"])
    last, told = select("12", "three.parquet", "--start", str(home / "two.parquet"))
    kept = [name for name in late if name not in gone]
    assert last[: len(kept)] == kept
    assert told["retracted"] == len(gone)
    assert len(last) == 12
    assert not gone & set(last)


def test_a_cap_on_rows_is_drawn_and_adds_up(home):
    found = grown(home, "film", instances=5)
    version = Registry(home / "registry").version()
    entry, record = version.datasets["film"], version.record("film")
    assert set(entry.tasks.values()) == {5}
    assert (
        found["dropped"]["rows"]["over_target"]
        == record["funnel"]["dropped"]["over_target"]
        == 15 * len(entry.tasks)
    )
    assert record["funnel"]["in"] == entry.rows + sum(record["funnel"]["dropped"].values())
    again = AddConfig(sources=(str(home / "film.parquet"),), registry=str(home / "other"), instances=5)
    add(again)
    assert Registry(home / "other").version().datasets["film"].kept == entry.kept


def test_rows_that_say_the_same_are_kept_once(home):
    table = pq.read_table(reviews(home / "twice.parquet", "film"))
    pq.write_table(pa.concat_tables([table, table.slice(0, 6)]), home / "twice.parquet")
    found = grown(home, "twice")
    version = Registry(home / "registry").version()
    for part in version.kept("twice"):
        names = pq.read_table(part)["id"].to_pylist()
        assert len(set(names)) == len(names)
    assert found["dropped"]["rows"]["duplicate"] >= 6
    assert version.rows == sum(version.datasets["twice"].tasks.values())


def test_another_way_of_making_tasks_is_another_version(home):
    grown(home, "film")
    found = grown(home, "film", instances=5)
    assert found["changes"]["film"]["why"] == "its tasks are made in another way"
    assert found["changes"]["film"]["rows"]["added"] == 0


def test_a_model_s_tasks_are_added_and_its_calls_are_paid_once(home):
    from taskmill.recipes.propose import TaskModel

    found = grown(home, "film", rules=False, model=TaskModel(ref="echo:"))
    assert found["rows"] > 0
    ledger = home / "registry" / "ledger"
    paid = sorted(p.read_bytes() for p in ledger.glob("*.ledger"))
    assert paid
    remove(str(home / "registry"), ["film"])
    again = grown(home, "film", rules=False, model=TaskModel(ref="echo:"))
    assert again["rows"] == found["rows"]
    assert sorted(p.read_bytes() for p in ledger.glob("*.ledger") if p.stat().st_size) == paid


def test_the_commands_print_and_exit(home, capsys):
    registry = str(home / "registry")

    def run(*words, code=0):
        with pytest.raises(SystemExit) as end:
            cli.main(["grow", *words, "--registry", registry])
        assert end.value.code == code
        return capsys.readouterr()

    assert "no registry" in run("list", code=2).err
    assert "version 1: 2 datasets" in run("add", str(home / "film.parquet"), str(home / "meal.parquet")).out
    assert "nothing has changed" in run("add", str(home / "film.parquet")).out
    listed = json.loads(run("list", "--json").out)
    assert set(listed["datasets"]) == {"film", "meal"}
    assert "film: removed" in run("remove", "film", "--why", "old").out
    assert "-40 rows" in run("diff", "1", "2").out
    assert set(json.loads(run("list", "--version", "1", "--json").out)["datasets"]) == {"film", "meal"}
    assert "there are: 1, 2" in run("list", "--version", "9", code=2).err
    assert "no source" in run("add", code=2).err


def test_a_diff_is_that_of_the_last_two_versions_if_none_are_named(home):
    registry = str(home / "registry")
    grown(home, "film")
    assert (diff(registry)["from"], diff(registry)["to"], diff(registry)["tasks removed"]) == (0, 1, 0)
    grown(home, "meal")
    assert diff(registry) == diff(registry, 1, 2)
    assert diff(registry, 0) == diff(registry, 0, 2)


def test_of_a_dataset_that_gave_nothing_it_is_said_why(home, capsys):
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), home / "nothing.parquet")
    numbers = {"text": [f"line {i} of it all" for i in range(40)], "kind": [i % 2 for i in range(40)]}
    pq.write_table(pa.table(numbers), home / "numbers.parquet")
    alike = {"question": [f"What is {i}?" for i in range(40)], "answer": ["no"] * 39 + ["a long yes"]}
    pq.write_table(pa.table(alike), home / "alike.parquet")
    registry = str(home / "registry")
    why = grown(home, "nothing", "numbers", "alike", "film")["empty"]
    assert set(why) == {"nothing", "numbers", "alike"}
    assert "no rows in it" in why["nothing"]
    assert "no field is fit" in why["numbers"]
    assert "constant-output" in why["alike"]
    with pytest.raises(SystemExit):
        cli.main(["grow", "list", "--registry", registry])
    assert why["numbers"] in capsys.readouterr().out


def test_tables_of_one_name_are_told_apart_or_the_change_says_where_from(home):
    for folder in ("shop", "inn"):
        (home / folder).mkdir()
        for name in ("train.parquet", "said.parquet"):
            text = [f"The {folder} was number {i} in {name}, they say" for i in range(40)]
            table = pa.table({"text": text, "mood": ["sad", "glad"] * 20})
            pq.write_table(table, home / folder / name)
    registry = str(home / "registry")
    for folder in ("shop", "inn"):
        add(AddConfig(sources=(str(home / folder / "train.parquet"),), registry=registry))
    assert set(listing(registry)["datasets"]) == {"shop", "inn"}
    for folder in ("shop", "inn"):
        found = add(AddConfig(sources=(str(home / folder / "said.parquet"),), registry=registry))
    assert str(home / "shop" / "said.parquet") in found["changes"]["said"]["why"]


def test_what_cannot_be_is_refused(home, tmp_path):
    with pytest.raises(UsageError, match="--registry"):
        AddConfig(sources=("x",))
    from taskmill.recipes.task_filters import Filters

    with pytest.raises(ConfigError, match="family_cap"):
        AddConfig(registry="r", filters=Filters(family_cap=3))
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "letter.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="no run folder"):
        add(AddConfig(sources=(str(home / "film.parquet"),), registry=str(foreign)))
    assert os.listdir(foreign) == ["letter.txt"]
