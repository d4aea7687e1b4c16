"""`taskmill ablate`: each arm is a mixture of its own, and its rows are what it says."""

import json
import sys
import types

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from taskmill import cli
from taskmill.errors import ConfigError, InputError, UsageError
from taskmill.recipes.ablation import AblationConfig, ablate
from taskmill.recipes.mix import MixConfig, mix


def rendered(name, count, *, cot=False, tasks=3):
    """Rows as `render` writes them: a third inverted, half with exemplars."""
    return [
        {
            "id": f"{name}{i:04}",
            "task": f"{name}{i % tasks}",
            "cot": cot,
            "inverted": i % 3 == 0,
            "shots": i % 2 * 2,
            "prompt": f"{name} question {i}",
            "completion": f"{name} answer {i}",
        }
        for i in range(count)
    ]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, count, cot in (("muffin", 600, False), ("reasons", 60, True)):
        pq.write_table(pa.Table.from_pylist(rendered(name, count, cot=cot)), tmp_path / f"{name}.parquet")
    plain = [{"id": f"p{i}", "prompt": f"plain {i}", "completion": "yes"} for i in range(300)]
    pq.write_table(pa.Table.from_pylist(plain), tmp_path / "plain.parquet")
    sources = {
        "muffin": {"path": "muffin.parquet", "weight": 50},
        "reasons": {"path": "reasons.parquet", "weight": 20, "repeat": 3},
        "plain": {"path": "plain.parquet", "weight": 30},
    }
    (tmp_path / "mixture.yaml").write_text(yaml.safe_dump({"sources": sources}))
    return tmp_path


ALL = ("full", "no-cot", "no-inversion", "no-few-shot", "no-balancing", "tasks=4", "few-shot=0.5")


def run(place, arms=ALL, rows=200, **more):
    return ablate(AblationConfig("mixture.yaml", arms, rows, **more), place / "out")


def test_each_arm_lacks_what_it_says_and_no_row_is_lost(place):
    result = run(place)
    arms = result["arms"]
    assert result["exit"] == {"code": 0, "reason": "done"}
    assert {name: arm["rows"] for name, arm in arms.items()} == dict.fromkeys(ALL, 200)
    assert arms["full"]["sources"] == {"muffin": 100, "plain": 60, "reasons": 40}
    assert min(arms["full"]["shares"].values()) > 0
    for name, share in (("no-cot", "cot"), ("no-inversion", "inverted"), ("no-few-shot", "few_shot")):
        assert arms[name]["shares"][share] == 0
        column = {"cot": "cot", "inverted": "inverted", "few_shot": "shots"}[share]
        cells = pq.read_table(place / "out/arms" / name / "data")[column].to_pylist()
        assert not any(cells)
    assert arms["no-cot"]["sources"] == {"muffin": 125, "plain": 75}  # 50 to 30
    assert arms["few-shot=0.5"]["shares"]["few_shot"] == 0.5
    assert arms["tasks=4"]["tasks"] == 4
    held = {"muffin": 600, "plain": 300, "reasons": 60}
    for name, count in held.items():
        assert abs(arms["no-balancing"]["sources"][name] - 200 * count / 960) <= 1
    assert all(check["ok"] for check in result["checks"].values())
    assert json.loads((place / "out/result.json").read_text()) == result


def test_tasks_of_a_smaller_arm_are_in_the_larger_one(place):
    run(place, ("tasks=2", "tasks=5"), rows=50)
    few, many = (
        set(pq.read_table(place / f"out/arms/tasks={k}/data")["mix_task"].to_pylist()) for k in (2, 5)
    )
    assert len(few) == 2
    assert few < many


def test_an_arm_is_a_mixture_that_mix_makes_again(place):
    run(place, ("no-cot",))
    own = place / "out/arms/no-cot"
    mix(MixConfig(str(own / "mixture.yaml"), rows=200), place / "again")
    for path in (own / "data").iterdir():
        assert path.read_bytes() == (place / "again/data" / path.name).read_bytes()


def test_the_same_command_gives_the_same_bytes(place):
    run(place)
    first = {p.name: p.read_bytes() for p in place.glob("out/arms/*/data/*.parquet")}
    result = (place / "out/result.json").read_bytes()
    run(place)
    assert {p.name: p.read_bytes() for p in place.glob("out/arms/*/data/*.parquet")} == first
    assert (place / "out/result.json").read_bytes() == result


def test_an_arm_that_changes_nothing_is_said(place):
    (place / "mixture.yaml").write_text("sources: {plain: plain.parquet}\n")
    result = run(place, ("no-cot",), rows=20)
    assert result["exit"]["code"] == 3
    assert "no-cot" in result["exit"]["reason"]
    assert result["checks"]["no-cot"]["ok"] is False


def test_too_few_rows_are_said(place):
    result = run(place, ("no-inversion",), rows=950)
    assert result["exit"]["code"] == 3
    assert "fewer than 950 rows" in result["exit"]["reason"]


@pytest.mark.parametrize(
    ("arms", "error", "said"),
    [
        (("no-cots",), UsageError, "Did you mean 'no-cot'"),
        (("tasks=0",), UsageError, "no arm 'tasks=0'"),
        (("tasks=many",), UsageError, "no arm 'tasks=many'"),
        (("few-shot",), UsageError, "no arm 'few-shot'"),
        (("few-shot=1.5",), UsageError, "no arm 'few-shot=1.5'"),
        (("tasks=99",), UsageError, "draws from 7 tasks"),
    ],
)
def test_arms_that_are_none(place, arms, error, said):
    with pytest.raises(error, match=said):
        run(place, arms, rows=20)


def test_a_file_without_rows_among_those_of_a_source_is_none_of_an_arm(place):
    pq.write_table(pq.read_table("muffin.parquet").slice(0, 0), "0.parquet")
    files = ["0.parquet", "muffin.parquet", "reasons.parquet"]
    (place / "mixture.yaml").write_text(yaml.safe_dump({"sources": {"both": {"path": files}}}))
    assert run(place, ("no-cot",), rows=20)["arms"]["no-cot"]["shares"]["cot"] == 0


def test_columns_that_say_nothing_of_the_style_are_refused(place):
    rows = pq.read_table("muffin.parquet")
    rows = rows.set_column(rows.column_names.index("cot"), "cot", pa.array(["no"] * len(rows)))
    pq.write_table(rows, "words.parquet")
    (place / "mixture.yaml").write_text("sources: {words: words.parquet}\n")
    with pytest.raises(InputError, match="column cot of the mixture's rows is of string"):
        run(place, ("full",), rows=20)


def test_an_arm_without_any_row_is_refused(place):
    (place / "mixture.yaml").write_text("sources: {reasons: reasons.parquet}\n")
    with pytest.raises(ConfigError, match="no source of the mixture has a row with cot == false"):
        run(place, ("no-cot",), rows=20)


def test_students_learn_the_arms_rows_by_the_recipe(place, monkeypatch):
    """What `prove` is given: its own recipe, and a table for each arm."""
    given = {}
    stand_in = types.ModuleType("taskmill.recipes.prove")
    stand_in.of_mapping = lambda mapping: (given.update(mapping), ["target"])
    stand_in.prove = lambda config, out, report, targets: {"result": {"out": out.name, "targets": targets}}
    monkeypatch.setitem(sys.modules, "taskmill.recipes.prove", stand_in)
    (place / "proof.yaml").write_text("test: test.parquet\nseeds: 2\n")
    result = run(place, ("no-cot", "few-shot=0.5"), rows=40, train="proof.yaml")
    assert result["students"] == {"out": "students", "targets": ["target"]}
    assert given["test"] == "test.parquet"
    names = [arm.partition("=")[0] for arm in given["arms"]]
    assert names == ["none", "full", "no-cot", "few-shot-0.5"]
    assert all((place / arm.partition("=")[2]).is_dir() for arm in given["arms"][1:])
    (place / "proof.yaml").write_text("arms: [none]\n")
    with pytest.raises(ConfigError, match="leave `arms` out"):
        run(place, ("no-cot",), rows=40, train="proof.yaml")


def test_the_command(place, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["ablate", "mixture.yaml", "--rows", "60", "--arms", "no-cot", "--out", "out"])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert "no-cot" in printed
    assert "cot 0.0%" in printed
