"""`taskmill mix`: from files to files, with a manifest that explains the counts."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from taskmill import cli
from taskmill.durable import on_write
from taskmill.errors import ConfigError, InputError, UsageError
from taskmill.recipes.mix import MixConfig, inspect_mixture, mix
from taskmill.store import write_parquet


def rows_of(name, count, **more):
    return [
        {"prompt": f"{name} question {i}", "completion": f"{name} answer {i} " * (1 + i % 3), **more}
        for i in range(count)
    ]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for name, count in (("a", 10), ("b", 300)):
        lines = (json.dumps(row) for row in rows_of(name, count, licence="MIT"))
        (tmp_path / "data" / f"{name}.jsonl").write_text("\n".join(lines))
    many = [row for t in range(4) for row in rows_of(f"t{t}", 20 * (t + 1), task=f"task{t}")]
    for i, row in enumerate(many):
        row["id"] = f"row{i:03}"
    pq.write_table(pa.Table.from_pylist(many), tmp_path / "data" / "many.parquet")
    return tmp_path


def written(place, mixture, name="mixture.yaml"):
    path = place / name
    path.write_text(yaml.safe_dump(mixture))
    return str(path)


def made(place, mixture, out="out", **asked):
    manifest = mix(MixConfig(source=written(place, mixture), **asked), place / out)
    return manifest, pq.read_table(place / out / "data")


HALF = {"sources": {"a": {"path": "data/a.jsonl", "weight": 1}, "b": {"path": "data/b.jsonl", "weight": 1}}}


def test_counts_are_the_shares_and_the_manifest_says_so(place):
    manifest, table = made(place, HALF, rows=20, seed=3)
    assert len(table) == 20
    assert {n: s["count"] for n, s in manifest["sources"].items()} == {"a": 10, "b": 10}
    assert pa.compute.value_counts(table["mix_source"]).to_pylist() in (
        [{"values": "a", "counts": 10}, {"values": "b", "counts": 10}],
        [{"values": "b", "counts": 10}, {"values": "a", "counts": 10}],
    )
    assert json.loads((place / "out" / "manifest.json").read_text()) == manifest
    assert manifest["effective_families"] == 2
    assert manifest["files"][0]["rows"] == 10
    assert sum(s["token_share"] for s in manifest["sources"].values()) == pytest.approx(1)


def test_rows_keep_their_columns_and_say_where_they_are_from(place):
    mixture = {"sources": {"a": "data/a.jsonl", "many": "data/many.parquet"}}
    manifest, table = made(place, mixture, epochs=1)
    rows = table.to_pylist()
    assert len(rows) == 210
    assert len({row["id"] for row in rows}) == 210
    for row in rows:
        if row["source"] == "a":
            assert (row["licence"], row["task"], row["mix_task"]) == ("MIT", "a", "a")
            assert row["prompt"] == f"a question {row['id'].partition('/')[2]}"
        else:
            assert row["source"] == "many"
            assert row["id"].startswith("row")
            assert row["task"] == row["mix_task"] == f"task{row['prompt'][1]}"
    tasks = manifest["sources"]["many"]["tasks"]
    assert {name: t["count"] for name, t in tasks.items()} == {f"task{i}": 20 * (i + 1) for i in range(4)}
    assert manifest["licences"] == {"a": ["MIT"], "many": []}


def test_a_row_that_comes_again_has_an_id_of_its_own(place):
    mixture = {"sources": {"a": {"path": "data/a.jsonl", "repeat": 3}}}
    manifest, table = made(place, mixture, rows=25)
    ids = table["id"].to_pylist()
    assert len(set(ids)) == 25
    assert sorted(i for i in ids if "#" not in i) == sorted(f"a/{i}" for i in range(10))
    assert sum(i.endswith("#2") for i in ids) == 10
    assert set(table["mix_row"].to_pylist()) == {f"a/{i}" for i in range(10)}
    assert (manifest["repeats"], manifest["sources"]["a"]["repeats"]) == (15, 15)
    assert manifest["sources"]["a"]["epochs"] == 2.5


def test_ids_that_sources_share_are_told_apart(place):
    for name in ("x", "y"):
        write_parquet(place / f"{name}.parquet", pa.Table.from_pylist([{"id": "1", "text": name}]))
    _, table = made(place, {"sources": {"x": "x.parquet", "y": "y.parquet"}})
    assert sorted(table["id"].to_pylist()) == ["x/1", "y/1"]


def test_once_is_every_row_exactly_once(place):
    mixture = {"sources": {"a": {"path": "data/a.jsonl", "policy": "once"}, "b": {"path": "data/b.jsonl"}}}
    _, table = made(place, mixture, rows=60)
    ids = table["mix_row"].to_pylist()
    assert sorted(i for i in ids if i.startswith("a/")) == sorted(f"a/{i}" for i in range(10))
    assert len(set(ids)) == 60


def test_stop_names_the_task_that_ended_it(place):
    mixture = {"policy": "stop", **HALF}
    manifest, table = made(place, mixture, rows=100)
    assert len(table) == manifest["rows"] == 20
    assert manifest["exhaustion_point"] == {"source": "a", "task": "", "draws": 20, "ends": True}
    assert manifest["exit"]["code"] == 3
    assert "20 of 100 rows: a has no rows left" in manifest["exit"]["reason"]


def test_the_default_goes_on_without_a_source_and_says_where(place):
    manifest, table = made(place, HALF, rows=100)
    assert len(table) == 100
    assert manifest["exhaustion_point"] == {"source": "a", "task": "", "draws": 20, "ends": False}
    assert manifest["sources"]["a"]["exhaustion_point"] == 20
    assert manifest["sources"]["b"]["exhaustion_point"] is None
    assert manifest["exit"] == {"code": 0, "reason": "done"}


def test_fewer_rows_than_asked_for_is_exit_code_3(place, capsys):
    path = written(place, HALF)
    with pytest.raises(SystemExit) as ended:
        cli.main(["mix", path, "--rows", "1000", "--out", "out"])
    assert ended.value.code == 3
    assert capsys.readouterr().out.splitlines()[-1].startswith("310 of 1,000 rows: all sources are used up")


def test_equal_commands_give_equal_bytes_and_another_seed_does_not(place):
    def files(out):
        return {p.name: p.read_bytes() for p in (place / out).rglob("*") if p.is_file()}

    made(place, HALF, "one", rows=200, seed=5)
    made(place, HALF, "two", rows=200, seed=5)
    made(place, HALF, "other", rows=200, seed=6)
    assert files("one") == files("two")
    name = "train-00000-of-00001.parquet"
    assert files("one")[name] != files("other")[name]


def test_the_order_of_rows_and_of_sources_in_their_files_changes_nothing(place):
    table = pq.read_table(place / "data" / "many.parquet")
    write_parquet(place / "data" / "turned.parquet", table.take(list(range(len(table)))[::-1]))
    sources = {"many": {"path": "data/many.parquet", "weight": 2}, "b": {"path": "data/b.jsonl", "weight": 1}}
    turned = {"b": sources["b"], "many": {"path": "data/turned.parquet", "weight": 2}}
    _, one = made(place, {"sources": sources}, "one", rows=120)
    _, other = made(place, {"sources": turned}, "two", rows=120)
    assert one["id"].to_pylist() == other["id"].to_pylist()


def test_parts_do_not_change_the_rows(place, monkeypatch):
    _, whole = made(place, HALF, "one", rows=250)
    monkeypatch.setattr("taskmill.recipes.mix.PART", 64)
    _, parted = made(place, HALF, "two", rows=250)
    assert len(list((place / "two" / "data").iterdir())) == 4
    assert parted.equals(whole)


def test_an_earlier_mixture_is_written_over_and_nothing_else_is(place):
    made(place, HALF, rows=20)
    manifest, table = made(place, HALF, rows=10)
    assert len(table) == manifest["rows"] == 10
    (place / "other").mkdir()
    (place / "other" / "manifest.json").write_text("{}")
    with pytest.raises(UsageError, match="that mix did not write"):
        made(place, HALF, "other", rows=10)
    with pytest.raises(UsageError, match="would write into the source"):
        made(place, HALF, "data", rows=10)


def test_a_mixture_is_a_source(place):
    made(place, HALF, "first", rows=20)
    manifest, _ = made(place, {"sources": {"first": {"path": "first", "tasks": "mix_source"}}}, "second")
    assert {n: t["count"] for n, t in manifest["sources"]["first"]["tasks"].items()} == {"a": 10, "b": 10}


def test_tasks_of_files_and_of_columns(place):
    every = {"sources": {"all": {"path": "data/*.jsonl", "tasks": "file", "cap": 50}}}
    manifest, _ = made(place, every)
    assert {n: t["count"] for n, t in manifest["sources"]["all"]["tasks"].items()} == {"a": 10, "b": 50}
    one = {"sources": {"many": {"path": "data/many.parquet", "tasks": "none", "cap": 50}}}
    manifest, _ = made(place, one, "second")
    assert manifest["rows"] == 50
    with pytest.raises(UsageError, match="no column 'taks'"):
        made(place, {"sources": {"many": {"path": "data/many.parquet", "tasks": "taks"}}}, "third")


def test_tokens_are_weighed_and_may_be_given(place):
    rows = [{"text": "x", "n": 100 if i < 10 else 1} for i in range(20)]
    for name, part in (("long", rows[:10]), ("short", rows[10:])):
        write_parquet(place / f"{name}.parquet", pa.Table.from_pylist(part))
    mixture = {
        "weights": "tokens",
        "policy": "repeat",
        "tokens": "n",
        "sources": {n: {"path": f"{n}.parquet", "weight": 1} for n in ("long", "short")},
    }
    manifest, _ = made(place, mixture, rows=1010)
    assert {n: s["count"] for n, s in manifest["sources"].items()} == {"long": 10, "short": 1000}
    assert manifest["sources"]["long"]["token_share"] == 0.5


def test_what_is_inspected_is_what_is_mixed_and_nothing_is_written(place):
    before = sorted(place.rglob("*"))
    path = written(place, HALF)
    one = inspect_mixture(MixConfig(source=path, rows=60, samples=2))
    assert sorted(place.rglob("*")) == sorted([*before, place / "mixture.yaml"])
    assert json.dumps(one, default=str) == json.dumps(
        inspect_mixture(MixConfig(source=path, rows=60, samples=2)), default=str
    )
    manifest, table = made(place, HALF, rows=60)
    for name, record in one["sources"].items():
        samples = record["tasks"][""].pop("samples")
        own = [row["prompt"] for row in table.to_pylist() if row["mix_source"] == name]
        assert len(samples) == 2
        assert {row["prompt"] for row in samples} <= set(own)
    assert one == manifest


def test_commands_print_json(place, capsys):
    path = written(place, HALF)
    with pytest.raises(SystemExit) as ended:
        cli.main(["mix", path, "--rows", "20", "--inspect", "--json"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 20
    with pytest.raises(SystemExit) as ended:
        cli.main(["mix", path, "--rows", "20"])
    assert ended.value.code == 2


def test_empty_and_missing_sources_are_named(place):
    (place / "data" / "empty.jsonl").write_text("")
    with pytest.raises(InputError, match="empty: no rows in"):
        made(place, {"sources": {"empty": "data/empty.jsonl", "a": "data/a.jsonl"}})
    with pytest.raises(InputError, match=r"data/gone\.jsonl: there is no such file"):
        made(place, {"sources": {"gone": "data/gone.jsonl"}})
    assert not (place / "out").exists()


def test_a_source_that_is_named_twice_is_refused(place):
    (place / "twice.yaml").write_text(
        "sources:\n  a: data/a.jsonl\n  b: data/b.jsonl\n  a: data/many.parquet\n"
    )
    with pytest.raises(ConfigError, match=r"twice\.yaml, line 4: the key 'a' is in line 2 already"):
        mix(MixConfig(source=str(place / "twice.yaml")), place / "out")


def test_a_source_of_many_tasks_gives_its_share(place):
    mixture = {
        "sources": {name: {"path": f"data/{name}", "weight": 1} for name in ("b.jsonl", "many.parquet")}
    }
    manifest, _ = made(place, mixture, rows=6)
    assert {n: s["count"] for n, s in manifest["sources"].items()} == {"b.jsonl": 3, "many.parquet": 3}


def test_a_killed_mixture_has_no_manifest(place, monkeypatch):
    made(place, HALF, rows=20)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("taskmill.recipes.mix.write_parquet", killed)
    with pytest.raises(KeyboardInterrupt):
        made(place, HALF, rows=20)
    assert not (place / "out" / "manifest.json").exists()


def killed_at(writes):
    """Let `mix` die at the write point of this number."""
    seen = []

    def hook(name):
        seen.append(name)
        if len(seen) == writes:
            raise KeyboardInterrupt

    on_write(hook)
    return seen


@pytest.mark.parametrize("writes", [1, 4, 5, 8, 11, 14, 18, 30])
def test_a_killed_mixture_goes_on_part_by_part_with_the_same_bytes(place, monkeypatch, writes):
    monkeypatch.setattr("taskmill.recipes.mix.PART", 4)
    made(place, HALF, out="whole", rows=20)
    whole = {p.name: p.read_bytes() for p in (place / "whole").rglob("*") if p.is_file()}
    killed_at(writes)
    try:
        with pytest.raises(KeyboardInterrupt):
            made(place, HALF, rows=20)
    finally:
        on_write(None)
    assert not (place / "out" / "manifest.json").exists()
    before = {p.name: p.stat().st_ino for p in (place / "out" / "data").glob("*.parquet")}
    made(place, HALF, rows=20)
    found = {p.name: p.read_bytes() for p in (place / "out").rglob("*") if p.is_file()}
    assert {n: b for n, b in found.items() if not n.endswith(".tmp")} == whole
    kept = {p.name: p.stat().st_ino for p in (place / "out" / "data").glob("*.parquet") if p.name in before}
    assert kept == before  # what was finished is not written again


@pytest.mark.parametrize("other", [{"seed": 1}, {"rows": 16}])
def test_parts_of_another_mixture_are_not_taken(place, monkeypatch, other):
    monkeypatch.setattr("taskmill.recipes.mix.PART", 4)
    asked = {"rows": 20, "seed": 0} | other
    made(place, HALF, out="whole", **asked)
    killed_at(14)
    try:
        with pytest.raises(KeyboardInterrupt):
            made(place, HALF, rows=20)
    finally:
        on_write(None)
    assert any((place / "out" / "data").glob("*.parquet"))
    made(place, HALF, **asked)
    for path in (place / "whole" / "data").iterdir():
        assert path.read_bytes() == (place / "out" / "data" / path.name).read_bytes()
    assert len(list((place / "out" / "data").glob("*.parquet"))) == len(
        list((place / "whole/data").iterdir())
    )


def licensed(place):
    rows = rows_of("l", 30)
    for i, row in enumerate(rows):
        row |= {"id": f"l{i:02}", "licence": ("MIT", "CC BY-NC 4.0", "")[i % 3]}
    pq.write_table(pa.Table.from_pylist(rows), place / "data" / "licensed.parquet")
    nested = pa.table(
        {
            "id": ["n0", "n1"],
            "prompt": ["a", "b"],
            "completion": ["c", "d"],
            "source": [{"licence": "mit license"}, {"licence": "GPL-3.0"}],
        }
    )
    pq.write_table(nested, place / "data" / "nested.parquet")
    return {"sources": {"l": "data/licensed.parquet", "n": "data/nested.parquet"}}


def test_only_admitted_licences_are_mixed_and_the_rest_is_written_with_the_reason(place):
    manifest, table = made(place, licensed(place), licences=("mit",))
    assert len(table) == 11
    assert set(table["licence"].to_pylist()) == {"MIT", None}  # null: the row that states it in `source`
    assert manifest["funnel"] == {"in": 32, "kept": 11, "left_out": 0, "dropped": {"licence": 21}}
    assert manifest["licences"] == {"l": ["MIT"], "n": ["mit license"]}
    dropped = pq.read_table(place / "out" / "dropped.parquet").to_pylist()
    assert len(dropped) == 21
    assert {row["reason"] for row in dropped} == {"licence"}
    assert {row["detail"] for row in dropped} == {"it is CC BY-NC 4.0", "it is GPL-3.0", "it states none"}
    kept = set(table["mix_row"].to_pylist())
    assert not kept & {row["id"] for row in dropped}


def test_rows_without_a_licence_are_admitted_by_name(place):
    manifest, table = made(place, {"sources": {"l": licensed(place)["sources"]["l"]}}, licences=("unknown",))
    assert len(table) == 10
    assert manifest["licences"] == {"l": []}
    assert made(place, licensed(place))[0]["funnel"]["dropped"] == {}
    assert not (place / "out" / "dropped.parquet").exists()


def test_a_source_without_an_admitted_row_is_named(place):
    with pytest.raises(InputError, match=r"n: no row is licensed as CC BY-NC 4\.0; leave it out"):
        made(place, licensed(place), licences=("CC BY-NC 4.0",))


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ({"task": "task1"}, 40),
        ({"task": "!= task1"}, 160),
        ({"task": "> task1"}, 140),
        ({"other": 0}, 200),  # a column that is not there: 0, false, empty
        ({"other": "> 0"}, 0),
        ({"other": False}, 200),
        ({"id": "< row005", "task": "task0"}, 5),
    ],
)
def test_conditions_say_which_rows_a_source_has(place, where, rows):
    mixture = {"sources": {"many": {"path": "data/many.parquet", "where": where}}}
    if not rows:
        with pytest.raises(InputError, match="no row is as `where` and `only` want it"):
            made(place, mixture)
        return
    manifest, table = made(place, mixture)
    assert len(table) == rows
    assert manifest["funnel"] == {"in": 200, "kept": rows, "left_out": 200 - rows, "dropped": {}}


def test_conditions_of_a_source_hold_beside_those_above_it(place):
    many = {"path": "data/many.parquet", "where": {"id": "< row030"}}
    mixture = {"where": {"task": "!= task0"}, "sources": {"many": many}}
    assert len(made(place, mixture)[1]) == 10


def test_only_some_tasks_are_drawn(place):
    many = {"path": "data/many.parquet", "only": ["task1", "task3"]}
    manifest, table = made(place, {"sources": {"many": many}})
    assert set(table["mix_task"].to_pylist()) == {"task1", "task3"}
    assert manifest["funnel"]["left_out"] == 80
    with pytest.raises(ConfigError, match=r"only: no task 'task9'\. Did you mean 'task"):
        made(place, {"sources": {"many": {**many, "only": "task9"}}})


def test_a_condition_of_another_kind_is_named(place):
    mixture = {"sources": {"many": {"path": "data/many.parquet", "where": {"task": "> 3"}}}}
    with pytest.raises(ConfigError, match="where: task is of string, which does not compare with 3"):
        made(place, mixture)


def test_datasets_open_it(place, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", place / "cache")
    made(place, HALF, rows=20)
    loaded = datasets.load_dataset(str(place / "out"), split="train", cache_dir=str(place / "cache"))
    assert len(loaded) == 20
    assert "mix_source" in loaded.column_names


def test_a_file_of_another_tool_is_mixed(place):
    given = {"datasets": [{"path": str(place / "data" / "a.jsonl"), "type": "completion"}], "micro_batch": 1}
    manifest, table = made(place, given)
    assert (manifest["imported"], len(table)) == ("axolotl", 10)
    assert manifest["notes"]


@pytest.mark.parametrize(
    ("preset", "weights", "drawn"),
    [
        ("flan-2022-a", {"t0_sf": 15, "cot": 3, "niv2": 30}, (6250, 1250, 12500)),
        ("flan-2022-b", {"t0_sf": 27.9, "cot": 1.8, "niv2": 24.2}, (10352, 668, 8980)),
    ],
)
def test_the_papers_proportions_hold_on_real_sources(shared_data, place, preset, weights, drawn):
    """Muffin is not there: the other three keep their proportions; docs/mix.md has the table."""
    sources = {
        "muffin": {"weight": 0},
        "t0_sf": {"path": str(shared_data / "flan" / "t0_rendered.parquet"), "tasks": "template_file"},
        "cot": {"path": str(shared_data / "flan" / "cot_*.parquet"), "tasks": "file"},
        "niv2": {"path": str(shared_data / "superni" / "instances.parquet"), "tasks": "task"},
    }
    source = written(place, {"preset": preset, "sources": sources})
    manifest = inspect_mixture(MixConfig(source=source, rows=20_000))
    counts = {name: record["count"] for name, record in manifest["sources"].items()}
    assert sum(counts.values()) == 20_000
    assert tuple(counts[name] for name in weights) == drawn
    for name, weight in weights.items():
        tasks = manifest["sources"][name]["tasks"]
        share = weight / sum(weights.values())
        assert abs(counts[name] - 20_000 * share) < len(tasks)  # a rounding of less than one row a task
        held = sum(task["available"] for task in tasks.values())
        for task in tasks.values():
            assert abs(task["count"] - 20_000 * share * task["available"] / held) < 1
    assert manifest["repeats"] == 0
    assert manifest["exit"]["code"] == 0
    assert len(manifest["sources"]["cot"]["tasks"]) == 7
