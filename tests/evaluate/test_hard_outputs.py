"""Outputs as models write them: right, wrong and unreadable ones are told apart in every suite."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taskmill.config import load_yaml
from taskmill.recipes.evaluate.outputs import grade_outputs

HARD = load_yaml(Path(__file__).parent / "hard_outputs.yaml")


def cases(suite):
    """Return (row, what a reader makes of it) of all outputs of a suite."""
    found = []
    for block in HARD[suite]:
        row = {"task": block["task"], "target": block["target"], "options": block.get("options")}
        for said in ("right", "wrong", "failed"):
            found += [({**row, "output": output}, said) for output in block.get(said, ())]
    return found


def test_there_are_enough_of_them():
    assert sum(len(cases(suite)) for suite in HARD) >= 150
    assert set(HARD) == {
        "mmlu", "mmlu-cot", "gsm8k", "mgsm", "bbh", "bbh-cot", "squad", "strategyqa", "superni",
    }  # fmt: skip


@pytest.mark.parametrize("suite", HARD)
def test_hard_outputs_are_read_as_a_careful_reader_does(suite, tmp_path):
    rows, said = zip(*cases(suite), strict=True)
    # Of one column, targets are all lists, all texts or all truth values: each of these is a table.
    kinds = sorted({type(row["target"]).__name__ for row in rows})
    for kind in kinds:
        own = [(row, s) for row, s in zip(rows, said, strict=True) if type(row["target"]).__name__ == kind]
        path = tmp_path / f"{kind}.parquet"
        pq.write_table(pa.Table.from_pylist([row for row, _ in own]), path)
        results, trace = grade_outputs(str(path), suite)
        found = [
            "right" if row["accuracy"] else "wrong" if row["rule"] else "failed" for row in trace.to_pylist()
        ]
        apart = [
            (row["output"], f"{reads}, is {should}")
            for (row, should), reads in zip(own, found, strict=True)
            if reads != should
        ]
        assert not apart
        for task, one in results["tasks"].items():
            outcomes = [s for row, s in own if row["task"] == task]
            assert (one["n"], one["extraction_failures"]) == (len(outcomes), outcomes.count("failed"))
            assert one["accuracy"] == pytest.approx(outcomes.count("right") / len(outcomes), abs=1e-6)
