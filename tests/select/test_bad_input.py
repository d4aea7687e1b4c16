"""The bad input a pool may hold, through the command line: refused by name, or chosen from all the same."""

import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taskmill import cli
from taskmill.select import SELECTORS, Selector, fill

PLAIN = ["random", "length", "k-center", "k-center-robust", "k-means", "density", "facility-location"]
VECTORS = [*PLAIN, "semdedup", "herding"]


def run(capsys, source, out, *words):
    """Return (exit code, the report, what was printed as error)."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["select", str(source), "--out", str(out), "--json", *map(str, words)])
    shown, error = capsys.readouterr()
    return ended.value.code, json.loads(shown) if shown else {}, error


def write(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def vectors(rows):
    return pa.array([None if r is None else list(map(float, r)) for r in rows], pa.list_(pa.float32()))


def picked(out):
    return pq.read_table(out)["id"].to_pylist()


@pytest.mark.parametrize(("number", "says"), [(float("nan"), "not finite"), (float("inf"), "not finite")])
@pytest.mark.parametrize("words", [(), ("--parts", 2)])
def test_a_vector_that_is_not_finite_is_named_by_its_row(capsys, tmp_path, number, says, words):
    rows = write(tmp_path / "p.parquet", id=["a", "b", "c"], v=vectors([[1, 0], [number, 1], [0, 1]]))
    code, _, error = run(capsys, rows, tmp_path / "s.parquet", "--embeddings", "v", "--budget", 2, *words)
    assert code == 1
    assert "'b'" in error
    assert says in error
    assert not (tmp_path / "s.parquet").exists()


@pytest.mark.parametrize("method", VECTORS)
def test_zero_vectors_are_chosen_last_and_named(capsys, tmp_path, method):
    rows = [[0, 0], [1, 0], [0, 1], [0, 0], [1, 1]]
    pool = write(tmp_path / "p.parquet", id=list("edcba"), v=vectors(rows), text=["t"] * 5)
    words = ("--embeddings", "v", "--method", method, "--budget")
    code, record, _ = run(capsys, pool, tmp_path / "s.parquet", *words, 5)
    assert code == 0
    assert record["pool"]["zero_vector_ids"] == ["b", "e"]
    if method not in ("random", "length"):
        assert set(picked(tmp_path / "s.parquet")[3:]) == {"b", "e"}
    code, record, _ = run(capsys, pool, tmp_path / "s.parquet", *words, "100%")
    assert record["chosen"]["rows"] == 5


@pytest.mark.parametrize("method", VECTORS)
def test_more_rows_than_different_points_and_rows_that_are_all_alike(capsys, tmp_path, method):
    for rows, count in (([[1, 2]] * 9, 4), ([[1, 0], [0, 1], [1, 1]] * 4, 8)):
        pool = write(tmp_path / "p.parquet", v=vectors(rows), text=["same words"] * len(rows))
        words = ("--embeddings", "v", "--method", method, "--budget", count)
        code, record, _ = run(capsys, pool, tmp_path / "s.parquet", *words)
        assert code == 0
        assert len(set(picked(tmp_path / "s.parquet"))) == count == record["chosen"]["rows"]
        assert record["shortfall"] == ""
        if method == "k-center":
            assert record["measures"][method]["covering_radius"] == 0
            points = {tuple(rows[int(i)]) for i in picked(tmp_path / "s.parquet")[:3]}
            assert len(points) == min(3, len({tuple(r) for r in rows}))


def test_all_rows_alike_have_no_direction_to_whiten(capsys, tmp_path):
    pool = write(tmp_path / "p.parquet", v=vectors([[1, 2]] * 9))
    words = ("--embeddings", "v", "--budget", 2, "--whiten", 2)
    code, _, error = run(capsys, pool, tmp_path / "s.parquet", *words)
    assert (code, "leave out --whiten" in error) == (1, True)


@pytest.mark.parametrize("budget", ["0", "0%", "0tok", "-5", "none", "101%"])
def test_a_budget_of_nothing_is_refused(capsys, tmp_path, budget):
    pool = write(tmp_path / "p.parquet", text=["one", "two"])
    code, _, error = run(capsys, pool, tmp_path / "s.parquet", f"--budget={budget}")
    assert code == 2
    assert "budget" in error


@pytest.mark.parametrize("budget", ["10", "100%", "5000tok"])
@pytest.mark.parametrize("method", PLAIN)
def test_a_budget_above_all_chooses_all_and_says_so(capsys, tmp_path, method, budget):
    pool = write(tmp_path / "p.parquet", text=["one two", "three", "four five"])
    words = ("--method", method, "--budget", budget, "--embedder", "hash")
    code, record, _ = run(capsys, pool, tmp_path / "s.parquet", *words)
    assert code == 0
    assert sorted(picked(tmp_path / "s.parquet")) == ["0", "1", "2"]
    assert record["not_chosen"] == 0
    assert ("whole pool" in record["note"]) == (budget != "100%")
    assert record["shortfall"] == ""
    assert record["exit"] == {"code": 0, "reason": "done"}


@dataclass(frozen=True)
class Few(Selector):
    """Rejects all but two rows."""

    def pick(self, pool, budget, seed):
        return fill(pool, budget, pool.by_id[:2], np.zeros(2))


@pytest.fixture
def few():
    SELECTORS.register("few", Few)
    yield
    SELECTORS.unregister("few")


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("budget", ["6", "60tok", "100%"])
def test_rows_that_are_rejected_end_in_exit_3_with_the_reason(capsys, tmp_path, budget):
    pool = write(tmp_path / "p.parquet", v=vectors([[1, 0], [0, 1]] * 4), n=[10] * 8)
    words = ("--embeddings", "v", "--tokens", "n", "--method", "few", "--budget", budget)
    code, record, _ = run(capsys, pool, tmp_path / "s.parquet", *words)
    assert code == 3
    assert record["exit"] == {"code": 3, "reason": record["shortfall"]}
    assert "the selector rejects the 6 rows that fit" in record["shortfall"]
    assert len(picked(tmp_path / "s.parquet")) == record["chosen"]["rows"] == 2
    assert record["shortfall"] in (tmp_path / "s.report.html").read_text()
    kept = json.loads((tmp_path / "s.report.json").read_text())
    assert kept["exit"] == record["exit"]


@pytest.mark.parametrize(
    ("budget", "code"), [("2", 2), ("29tok", 2), ("1%", 2), ("3", 0), ("30tok", 0), ("4", 0)]
)
def test_rows_chosen_before_that_are_over_the_budget_are_refused(capsys, tmp_path, budget, code):
    pool = write(tmp_path / "p.parquet", v=vectors(np.eye(6)), n=[10] * 6)
    start = write(tmp_path / "start.parquet", id=["4", "0", "2"])
    words = ("--embeddings", "v", "--tokens", "n", "--budget", budget, "--start", start)
    found, record, error = run(capsys, pool, tmp_path / "s.parquet", *words)
    assert found == code
    if code:
        assert "holds 3" in error
        assert not (tmp_path / "s.parquet").exists()
        return
    assert picked(tmp_path / "s.parquet")[:3] == ["4", "0", "2"]
    assert any("nothing is added" in w for w in record["warnings"]) == (budget != "4")


def test_a_budget_below_the_shortest_row_is_refused_with_its_length(capsys, tmp_path):
    pool = write(tmp_path / "p.parquet", text=["many words in a row here"] * 3, n=[9, 7, 8])
    words = ("--budget", "5tok", "--tokens", "n", "--method", "random")
    code, _, error = run(capsys, pool, tmp_path / "s.parquet", *words)
    assert code == 1
    assert "7 tokens" in error


@pytest.mark.parametrize("quota", ["proportional", "equal"])
@pytest.mark.parametrize("budget", ["3", "50tok"])
def test_groups_of_one_row_and_rows_without_a_group(capsys, tmp_path, quota, budget):
    pool = write(
        tmp_path / "p.parquet",
        text=[f"text number {i}" for i in range(6)],
        g=["x", None, "x", "", "y", None],
    )
    words = ("--method", "k-center", "--embedder", "hash", "--group-by", "g", "--quota", quota)
    code, record, _ = run(capsys, pool, tmp_path / "s.parquet", *words, "--budget", budget)
    assert code == 0
    assert sum(g["rows"] for g in record["groups"].values()) == 6
    assert sum(g["chosen"] for g in record["groups"].values()) == record["chosen"]["rows"]
    assert set(record["groups"]) == {"", "x", "y"}
    if quota == "equal" and budget == "3":
        assert {g["chosen"] for g in record["groups"].values()} == {1}
    pq.write_table(pa.table({"text": ["a"], "g": pa.nulls(1, pa.string())}), tmp_path / "one.parquet")
    code, record, _ = run(capsys, tmp_path / "one.parquet", tmp_path / "s.parquet", *words, "--budget", "1")
    assert (code, record["groups"]) == (0, {"": {"rows": 1, "chosen": 1}})


@pytest.mark.parametrize("method", [*VECTORS, "dsir", "rds"])
def test_one_token_texts_rows_of_100k_characters_and_many_languages(capsys, tmp_path, method):
    texts = [
        "a",
        "是",
        "да",
        "نعم",
        "🙂",
        "",
        " ",
        "long " * 20_000,
        "長" * 100_000,
        "plain words here",
        "words",
    ]
    pool = write(tmp_path / "p.parquet", text=texts)
    words = ["--method", method, "--embedder", "hash", "--budget", 4]
    if method in ("dsir", "rds"):
        words += ["--target", write(tmp_path / "t.parquet", text=["plain words"])]
    code, record, error = run(capsys, pool, tmp_path / "s.parquet", *words)
    assert code == 0, error
    assert record["chosen"]["rows"] == 4
    words[words.index("--budget") + 1] = "30000tok"
    code, record, error = run(capsys, pool, tmp_path / "s.parquet", *words)
    assert code == 0, error
    assert record["chosen"]["tokens"] <= 30_000


def test_ids_that_repeat_and_results_over_a_source_are_refused(capsys, tmp_path):
    pool = write(tmp_path / "p.parquet", id=["a", "b", "a"], text=["one", "two", "three"])
    code, _, error = run(capsys, pool, tmp_path / "s.parquet", "--budget", 1, "--method", "random")
    assert code == 1
    assert "'a'" in error
    pool = write(tmp_path / "q.parquet", id=["a", "b"], text=["one", "two"])
    before = pool.read_bytes()
    code, _, error = run(capsys, pool, pool, "--budget", 1, "--method", "random")
    assert code == 2
    assert "--out" in error
    assert pool.read_bytes() == before


def test_a_budget_of_tokens_needs_something_to_count(capsys, tmp_path):
    pool = write(tmp_path / "p.parquet", v=vectors(np.eye(3)))
    words = ("--embeddings", "v", "--budget", "2tok")
    for more in ((), ("--parts", 2)):
        code, _, error = run(capsys, pool, tmp_path / "s.parquet", *words, *more)
        assert code == 2
        assert "--tokens" in error


def test_texts_that_are_all_empty_are_nothing_to_count(capsys, tmp_path):
    pool = write(tmp_path / "p.parquet", v=vectors(np.eye(3)), text=pa.array(["", None, ""]))
    words = ("--embeddings", "v", "--text", "text")
    for more in ((), ("--parts", 2)):
        code, _, error = run(capsys, pool, tmp_path / "s.parquet", *words, "--budget", "2tok", *more)
        assert code == 2
        assert "has no text to count them in" in error
        assert run(capsys, pool, tmp_path / "s.parquet", *words, "--budget", 2, *more)[0] == 0


def test_what_is_left_of_a_budget_of_tokens_is_said_truly(capsys, tmp_path):
    pool = write(tmp_path / "p.parquet", text=["x"] * 4, n=[5, 5, 5, 1], g=["a", "a", "b", "b"])
    words = ("--tokens", "n", "--method", "random", "--group-by", "g", "--budget", "14tok")
    code, record, _ = run(capsys, pool, tmp_path / "s.parquet", *words)
    assert code == 0
    assert record["chosen"]["tokens"] == 11
    assert record["note"] == "3 tokens of the budget are left: no row left over fits"
    assert set(record["selector"]["quotas"]) == {"a", "b"}


def test_repeated_and_zero_vectors_are_said_in_a_warning(capsys, tmp_path):
    pool = write(
        tmp_path / "p.parquet", id=list("abcde"), v=vectors([[1, 0], [1, 0], [1, 0], [0, 1], [0, 0]])
    )
    words = ("--embeddings", "v", "--method", "k-center", "--budget", "4")
    code, record, _ = run(capsys, pool, tmp_path / "s.parquet", *words)
    assert code == 0
    assert record["warnings"] == [
        "2 of the chosen rows repeat others: there are no more different ones",
        "1 rows have a vector of zeros and come last: e",
    ]
    code, record, _ = run(capsys, pool, tmp_path / "t.parquet", *words[:-1], "2")
    assert len(record["warnings"]) == 1


def test_a_column_to_cover_that_is_not_there_is_refused_before_the_work(capsys, tmp_path, monkeypatch):
    from taskmill.recipes import select as recipe

    monkeypatch.setattr(recipe, "_pick", None)
    pool = write(tmp_path / "p.parquet", text=["one", "two"])
    code, _, error = run(capsys, pool, tmp_path / "s.parquet", "--budget", 1, "--coverage", "nope")
    assert code == 2
    assert "'nope'" in error
