"""Verification of finished data: stored scores, thresholds without calls, kills, budgets, estimates."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from taskmill import durable
from taskmill.backends import GENERATORS
from taskmill.backends.echo import Echo
from taskmill.budget import BudgetConfig
from taskmill.calls import Completion
from taskmill.errors import ConfigError, UsageError
from taskmill.recipes.curate import CurateConfig, curate
from taskmill.recipes.verify_table import JudgeConfig, VerifyTableConfig, estimate_table, verify_table
from taskmill.testing import PASSAGE

ROWS = 24
SAYS = {0: "Reason: wrong.\nScore: 1", 1: "I would rather not say.", 2: "Reason: fair.\nScore: 3"}
"""What the judge says of row i, by i modulo 4; of all others it gives a 5."""


class Judge(Echo):
    """Judges by the row's number; counts what it is asked, fails where told to."""

    calls = 0
    broken = ()

    def generate(self, requests):
        for request in requests:
            type(self).calls += 1
            row = int(request.payload.example.id)
            if row in self.broken:
                yield Completion(request.key, finish="error", error="503 from the server")
            else:
                yield Completion(request.key, SAYS.get(row % 4, "Reason: good.\nScore: 5"), "stop", 10, 5)


@pytest.fixture
def judge():
    kind = type("Judge", (Judge,), {"calls": 0})
    GENERATORS.register("judging", lambda name, revision, config: kind("judging"))
    yield kind
    GENERATORS.unregister("judging")


def write_rows(path, rows=ROWS):
    lines = [
        json.dumps({"instruction": f"Who built harbour {i}?", "input": PASSAGE, "output": f"Marta Quist {i}"})
        for i in range(rows)
    ]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture
def source(tmp_path):
    return write_rows(tmp_path / "rows.jsonl")


def config(source, **changes):
    return replace(VerifyTableConfig((source,), model=JudgeConfig(ref="judging:x")), **changes)


def ids(folder, name="kept"):
    return [int(i) for i in pq.read_table(folder / f"{name}.parquet")["id"].to_pylist()]


def test_every_row_is_judged_and_each_drop_has_its_reason(source, tmp_path, judge):
    report = verify_table(config(source), tmp_path / "out")
    assert judge.calls == ROWS
    assert report["exit"] == {"code": 0, "reason": "done"}
    assert report["funnel"] == {
        "in": ROWS, "kept": ROWS // 2, "dropped": {"low_score": ROWS // 4, "unreadable_verdict": ROWS // 4},
    }  # fmt: skip
    assert ids(tmp_path / "out") == [i for i in range(ROWS) if i % 4 in (2, 3)]
    assert sorted(ids(tmp_path / "out") + ids(tmp_path / "out", "dropped")) == list(range(ROWS))
    for row in pq.read_table(tmp_path / "out" / "dropped.parquet").to_pylist():
        assert row["filter"] == ("judge" if int(row["id"]) % 4 == 0 else "unreadable")
    answers = pq.read_table(tmp_path / "out" / "asked" / "answers.parquet").to_pylist()
    assert {a["id"]: a["answer"] for a in answers}["0"] == SAYS[0]
    assert report["calls"]["made"] == ROWS


def test_thresholds_decide_again_without_a_call(source, tmp_path, judge):
    verify_table(config(source), tmp_path / "out")
    strict = curate(CurateConfig((str(tmp_path / "out"),), set={"judge": ("4",)}), tmp_path / "strict")
    assert ids(tmp_path / "strict") == [i for i in range(ROWS) if i % 4 == 3]
    assert strict["funnel"]["dropped"] == {"low_score": ROWS // 2, "unreadable_verdict": ROWS // 4}
    again = {"judge": ("0",), "unreadable": ("1",)}  # in place, and unreadable ones only if that is said
    loose = curate(CurateConfig((str(tmp_path / "out"),), set=again), tmp_path / "out")
    assert loose["command"] == "curate"
    assert ids(tmp_path / "out") == list(range(ROWS))
    report = verify_table(config(source, set={"judge": ("4",)}), tmp_path / "out")
    assert judge.calls == ROWS
    assert report["command"] == "verify"
    assert json.loads((tmp_path / "out" / "report.json").read_text())["command"] == "verify"
    assert report["calls"] == {"made": 0, "reused": ROWS, "failed": 0, "total": ROWS}
    with pytest.raises(UsageError, match=r"report\.json of verify"):
        curate(CurateConfig((source,)), tmp_path / "out")
    assert ids(tmp_path / "out") == ids(tmp_path / "strict")


def test_failed_calls_are_no_pass_and_are_made_again(source, tmp_path, judge):
    judge.broken = (3, 7)
    first = verify_table(config(source), tmp_path / "out")
    assert first["exit"]["code"] == 3
    assert first["funnel"]["dropped"]["call_failed"] == 2
    loose = curate(CurateConfig((str(tmp_path / "out"),), set={"judge": ("0",)}), tmp_path / "loose")
    assert loose["funnel"]["dropped"]["call_failed"] == 2
    judge.broken, judge.calls = (), 0
    second = verify_table(config(source), tmp_path / "out")
    assert judge.calls == 2
    assert second["exit"]["code"] == 0
    assert second["funnel"]["kept"] == ROWS // 2


def test_a_budget_stops_and_the_same_command_goes_on(source, tmp_path, judge):
    short = verify_table(config(source, budget=BudgetConfig(max_calls=10)), tmp_path / "out")
    assert short["exit"]["code"] == 3
    assert "--max-calls 10" in short["exit"]["reason"]
    assert short["funnel"]["dropped"]["call_failed"] == ROWS - 10
    whole = verify_table(config(source), tmp_path / "out")
    assert judge.calls == ROWS
    assert whole["funnel"]["kept"] == ROWS // 2


def test_new_rows_and_new_checks_cost_only_themselves(source, tmp_path, judge):
    verify_table(config(source), tmp_path / "out")
    write_rows(Path(source), ROWS + 5)
    verify_table(config(source), tmp_path / "out")
    assert judge.calls == ROWS + 5
    report = verify_table(config(source, checks=("judge", "expected")), tmp_path / "out")
    assert judge.calls == 2 * (ROWS + 5)
    assert report["filters"]["expected"]["scored"] == sum(i % 4 != 1 for i in range(ROWS + 5))
    assert report["funnel"]["dropped"]["unreadable_verdict"] == 7


def test_an_estimate_counts_the_calls_and_its_sample_is_not_paid_again(source, tmp_path, judge):
    found = estimate_table(config(source), tmp_path / "out")
    assert found["calls"] == {"expected": ROWS, "low": ROWS, "high": ROWS}
    assert judge.calls == found["made"] == 20
    assert found["prompt_tokens"]["expected"] == 10 * ROWS
    assert not (tmp_path / "out" / "report.json").exists()
    verify_table(config(source), tmp_path / "out")
    assert judge.calls == ROWS
    assert estimate_table(config(source), tmp_path / "out")["calls"]["expected"] == 0


def test_order_of_rows_does_not_matter(source, tmp_path, judge):
    verify_table(config(source), tmp_path / "one")
    table = pq.read_table(tmp_path / "one" / "asked" / "scored" / "kept.parquet")
    pq.write_table(table.take(list(reversed(range(len(table))))), tmp_path / "turned.parquet")
    verify_table(config(str(tmp_path / "turned.parquet")), tmp_path / "two")
    assert sorted(ids(tmp_path / "one")) == sorted(ids(tmp_path / "two"))
    answers = [pq.read_table(tmp_path / n / "asked" / "answers.parquet") for n in ("one", "two")]
    assert answers[0].equals(answers[1])


KILLED = """
import os, signal, sys
sys.path.insert(0, {here!r})
from test_verify_table import Judge, config
from taskmill.backends import GENERATORS
from taskmill.recipes.verify_table import verify_table

class Dying(Judge):
    def generate(self, requests):
        for number, completion in enumerate(super().generate(requests)):
            if number == 9:
                os.kill(os.getpid(), signal.SIGKILL)
            yield completion

GENERATORS.register("judging", lambda name, revision, config: Dying("judging"))
verify_table(config({source!r}), {out!r})
"""


def test_a_killed_command_goes_on_and_ends_as_if_it_had_not_been(source, tmp_path, judge):
    code = KILLED.format(here=str(Path(__file__).parent), source=source, out=str(tmp_path / "out"))
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, env={**os.environ}, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert not (tmp_path / "out" / "report.json").exists()
    verify_table(config(source), tmp_path / "out")
    assert judge.calls == ROWS - 9
    judge.calls = 0
    verify_table(config(source), tmp_path / "whole")
    for name in ("kept", "dropped", "scores"):
        paths = [tmp_path / folder / f"{name}.parquet" for folder in ("out", "whole")]
        assert paths[0].read_bytes() == paths[1].read_bytes()


class Stopped(BaseException):
    """Stands for the end of the process at a write point."""


def test_stopped_at_any_write_point_it_ends_the_same_and_pays_one_call_more_at_most(tmp_path, judge):
    source = write_rows(tmp_path / "few.jsonl", 4)
    verify_table(config(source), tmp_path / "whole")
    expected = {name: (tmp_path / "whole" / f"{name}.parquet").read_bytes() for name in ("kept", "dropped")}
    stopped = 0
    for at in range(1, 200, 2):  # every other one: to save time
        folder, seen = tmp_path / f"at{at}", []

        def hook(point, at=at, seen=seen):
            seen.append(point)
            if len(seen) == at:
                raise Stopped(point)

        judge.calls = 0
        durable.on_write(hook)
        try:
            verify_table(config(source), folder)
            break
        except Stopped:
            stopped += 1
        finally:
            durable.on_write(None)
        verify_table(config(source), folder)
        assert {name: (folder / f"{name}.parquet").read_bytes() for name in expected} == expected, seen
        assert judge.calls <= 5, seen
    assert stopped > 15


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"checks": ("juge",)}, "Did you mean 'judge'"),
        ({"checks": ()}, "no check is given"),
        ({"set": {"judge": ("much",)}}, "finite number"),
        ({"set": {"grounded": ("1",)}}, "no filter 'grounded'"),
        ({"sources": ()}, "no source"),
        ({"model": JudgeConfig(ref="judging:x", temperature=1.0)}, "temperature"),
        ({"model": JudgeConfig(ref="judgin:x")}, "Did you mean 'judging'"),
        ({"model": JudgeConfig()}, "name it with --model"),
        ({"budget": BudgetConfig(max_cost=1.0)}, "--prices"),
    ],
)
def test_what_cannot_work_is_refused_before_a_call(source, tmp_path, judge, changes, error):
    with pytest.raises(UsageError, match=error):
        verify_table(config(source, **changes), tmp_path / "out")
    assert judge.calls == 0
    assert not (tmp_path / "out").exists()


def test_results_of_other_scores_are_not_written_over(source, tmp_path, judge):
    curate(CurateConfig((source,)), tmp_path / "curated")
    with pytest.raises(UsageError, match="choose another --out"):
        verify_table(config(source), tmp_path / "curated")
    with pytest.raises(ConfigError, match="no check"):
        verify_table(config(source, checks=("faithfull",)), tmp_path / "out")
    with pytest.raises(UsageError, match="task type or a passage"):
        verify_table(config(source, checks=("round-trip",)), tmp_path / "out")
    assert judge.calls == 0


def test_the_command_line_says_how_it_ended(source, tmp_path, judge, capsys):
    from taskmill import cli

    judge.broken = (3,)
    arguments = ["verify", source, "--model", "judging:x", "--set", "judge=4", "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 3
    assert "1 calls failed" in capsys.readouterr().out.splitlines()[-1]
    judge.broken = ()
    with pytest.raises(SystemExit) as ended:
        cli.main([*arguments, "--json"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["funnel"]["kept"] == ROWS // 4
    with pytest.raises(SystemExit):
        cli.main([*arguments, "--dry-run"])
    assert "calls" in capsys.readouterr().out
