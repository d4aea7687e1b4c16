"""The same command on a Ray cluster of this machine gives the same bytes."""

import json
import random
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest


@pytest.mark.slow
def test_ray_and_native_give_the_same_bytes(texts, tmp_path):
    pytest.importorskip("ray", reason='needs pip install "taskmill[cluster]"')
    for runner in ("native", "ray"):
        words = ["synth", texts, "--task", "exqa,ynqa", "--model", "echo:", "--runner", runner]
        command = [sys.executable, "-m", "taskmill", *words, "--out", tmp_path / runner]
        shown = subprocess.run([str(w) for w in command], capture_output=True, text=True)
        assert shown.returncode == 0, shown.stderr
    native, ray = (sorted((tmp_path / r).glob("*/kept/*")) for r in ("native", "ray"))
    assert len(native) == 3
    assert [p.read_bytes() for p in native] == [p.read_bytes() for p in ray]


@pytest.mark.slow
def test_a_choice_in_parts_is_the_same_on_ray(tmp_path):
    pytest.importorskip("ray", reason='needs pip install "taskmill[cluster]"')
    vectors = np.random.default_rng(0).normal(size=(3000, 16)).astype(np.float32)
    pq.write_table(pa.table({"vector": list(vectors)}), tmp_path / "pool.parquet")
    for runner in ("native", "ray"):
        words = ["select", tmp_path / "pool.parquet", "--embeddings", "vector", "--budget", "50"]
        words += ["--parts", "6", "--runner", runner, "--out", tmp_path / f"{runner}.parquet"]
        command = [sys.executable, "-m", "taskmill", *words]
        shown = subprocess.run([str(w) for w in command], capture_output=True, text=True)
        assert shown.returncode == 0, shown.stderr
    assert (tmp_path / "native.parquet").read_bytes() == (tmp_path / "ray.parquet").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("words", [["dedup", "--threshold", "0.5", "--ngram", "2"], ["decontaminate"]])
def test_tables_are_looked_through_the_same_on_ray(tmp_path, words):
    pytest.importorskip("ray", reason='needs pip install "taskmill[cluster]"')
    item = "Which of the following is the capital of the land beside the long river in the far north?"
    draw = random.Random(0)
    texts = [" ".join(draw.choices("abcdefgh", k=draw.randrange(1, 9))) for _ in range(300)]
    pq.write_table(pa.table({"text": [*texts, item]}), tmp_path / "rows.parquet", row_group_size=40)
    (tmp_path / "items.jsonl").write_text(json.dumps({"question": item}))
    against = ["--against", tmp_path / "items.jsonl"] if words[0] == "decontaminate" else []
    for runner in ("native", "ray"):
        command = [
            sys.executable,
            "-m",
            "taskmill",
            words[0],
            tmp_path / "rows.parquet",
            *words[1:],
            *against,
        ]
        command += ["--runner", runner, "--out", tmp_path / runner]
        shown = subprocess.run([str(w) for w in command], capture_output=True, text=True)
        assert shown.returncode == 0, shown.stderr
    for name in ("kept.parquet", "dropped.parquet"):
        assert (tmp_path / "native" / name).read_bytes() == (tmp_path / "ray" / name).read_bytes()
    assert pq.read_metadata(tmp_path / "ray" / "dropped.parquet").num_rows
