"""Learning in stages with a real, tiny model: each stage begins with the adapter of the one before."""

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))

from taskmill.recipes.continual import ContinualConfig, continual
from taskmill.train import TrainConfig


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    for name in ("torch", "transformers", "peft", "tokenizers", "numba"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    import tiny

    return tiny.make(tmp_path_factory.mktemp("models") / "tiny")


def stage(path, tasks):
    rows = [
        {
            "id": f"{task}{i}",
            "task": task,
            "instruction": f"say {task}",
            "input": f"n {i}",
            "output": task * 2,
        }
        for task in tasks
        for i in range(5)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


def test_every_stage_goes_on_from_the_one_before(base, tmp_path):
    config = ContinualConfig(
        stages=tuple(stage(tmp_path / f"{i}.parquet", tasks) for i, tasks in enumerate(("ab", "cd", "ef"))),
        test=(stage(tmp_path / "test.parquet", "g"),),
        strategies=("none", "random"),
        seeds=1,
        holdout=2,
        test_rows=2,
        replay_tasks=1,
        budget="50%",
        embedder="hash",
        max_new_tokens=4,
        train=TrainConfig(base=str(base), rank=4, lr=1e-2, batch_tokens=200),
    )
    record = continual(config, tmp_path / "out")
    units = [json.loads(p.read_text()) for p in (tmp_path / "out" / "units").glob("*/unit.json")]
    assert (
        len(units) == record["units"]["all"] == 6
    )  # the base, one first stage, two strategies of two stages
    for unit in units:
        if unit["parent"] and unit["stage"] == 1:
            work = tmp_path / "out" / "units" / unit["key"][:16] / "training"
            before = (
                tmp_path / "out" / "units" / unit["parent"][:16] / "training" / "adapter" / "taskmill.json"
            )
            weights = json.loads(before.read_text())["weights"]["adapter_model.safetensors"]
            made = json.loads((work / "adapter" / "taskmill.json").read_text())
            assert made["recipe"]["init_adapter"] == weights
    assert not list((tmp_path / "out" / "units").glob("*/training/adapter.tmp"))
    again = continual(config, tmp_path / "out")
    assert again["units"]["made"] == 0
    assert again["strategies"] == record["strategies"]
