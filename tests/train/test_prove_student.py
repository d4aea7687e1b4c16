"""A proof from end to end with students that are trained: a tiny model, the echo as generator."""

import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taskmill.recipes.prove import of_mapping, prove

WORDS = ["river", "stone", "lamp", "road"]


def passage(number):
    chance = random.Random(number)
    return " ".join(f"the {chance.choice(WORDS)} {number} {i} is {chance.choice(WORDS)}." for i in range(12))


@pytest.mark.slow
def test_students_are_trained_asked_and_judged(folder, tmp_path):
    test = [
        {
            "context": passage(900 + i),
            "question": f"What is the {WORDS[i % 4]}?",
            "answers": ["stone", "lamp"],
        }
        for i in range(6)
    ]
    pq.write_table(pa.table({"text": [passage(i) for i in range(20)]}), tmp_path / "pool.parquet")
    pq.write_table(pa.Table.from_pylist(test), tmp_path / "test.parquet")
    config, targets = of_mapping(
        {
            "text": str(tmp_path / "pool.parquet"),
            "test": str(tmp_path / "test.parquet"),
            "arms": ["none", "tapt", "ours"],
            "seeds": 1,
            "answer_tokens": 4,
            "max_perplexity": 1000,
            "max_forgetting": 1.0,
            "model": {"ref": "echo:"},
            "train": {"base": str(folder), "rank": 4, "batch_tokens": 300},
        }
    )
    record = prove(config, tmp_path / "out", targets=targets)
    assert record["units"] == {"all": 3, "made": 3, "reused": 0}
    units = [json.loads(p.read_text()) for p in (tmp_path / "out" / "units").glob("*/unit.json")]
    trained = [unit for unit in units if unit["rows"]]
    assert len(trained) == 2
    for unit in trained:
        assert unit["record"]["tokens"] > 0
        assert len(unit["answers"]) == 30
        assert len(unit["losses"]) == 6
    losses = {tuple(map(tuple, unit["losses"])) for unit in units}
    assert len(losses) == 3  # every student is another one
    again = prove(config, tmp_path / "out", targets=targets)
    assert again["units"]["made"] == 0
    assert again["result"] == record["result"]
    assert not list((tmp_path / "out" / "units").glob("*/training"))
