"""The three commands from files to an adapter: remixed rows, plain text, accepted examples."""

import json

import pytest
import tiny

from taskmill import cli
from taskmill.backends import ModelConfig
from taskmill.recipes import SynthConfig, synth

SMALL = ["--max-steps", "2", "--rank", "2", "--batch-tokens", "300", "--evaluations", "0"]


def run(capsys, *argv, code=0):
    with pytest.raises(SystemExit) as ended:
        cli.main([str(a) for a in argv])
    said = capsys.readouterr()
    assert ended.value.code == code, said.err
    return said


def result(out):
    record = json.loads((out / "adapter" / "taskmill.json").read_text())
    assert (out / "adapter" / "adapter_model.safetensors").stat().st_size > 1000
    assert "<svg" in (out / "report.html").read_text()
    return record


def test_a_corpus_becomes_an_adapter_and_the_same_command_finds_it_done(folder, tmp_path, capsys):
    rows = [
        {"prompt": r.prompt, "completion": r.completion, "passage": r.passage, "group": r.group}
        for r in tiny.rows(40)
    ]
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["train", "synthesizer", corpus, "--base", folder, "--out", tmp_path / "out", *SMALL]
    said = run(capsys, *command)
    assert "2 steps" in said.out
    record = result(tmp_path / "out")
    assert record["counts"]["rows"] == 40
    again = json.loads(run(capsys, *command, "--json").out)
    assert again["sha256"] == record["sha256"] if "sha256" in record else again["steps"] == 2


def test_a_remix_run_is_a_corpus(folder, tmp_path, capsys):
    (tmp_path / "d.yaml").write_text(
        "name: d\nfiles: d.jsonl\nlicence: MIT\npassage: '{{ text }}'\ntasks: {qg: {response: question}}\n"
    )
    lines = [
        {
            "text": f"The harbour of Tarn has {i} piers and a lighthouse.",
            "question": f"How many piers has Tarn, {i} or more?",
        }
        for i in range(12)
    ]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run(capsys, "remix", tmp_path / "d.yaml", "--out", tmp_path / "ctga")
    run(
        capsys, "train", "synthesizer", tmp_path / "ctga", "--base", folder, "--out", tmp_path / "out", *SMALL
    )
    assert result(tmp_path / "out")["counts"]["rows"] == 12
    said = run(
        capsys,
        "train",
        "synthesizer",
        tmp_path / "missing",
        "--base",
        folder,
        "--out",
        tmp_path / "x",
        code=1,
    )
    assert "missing" in said.err


def test_plain_text_is_learned_token_by_token(folder, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("the river runs under the stone. " * 30)
    run(capsys, "train", "tapt", tmp_path / "a.txt", "--base", folder, "--out", tmp_path / "out", *SMALL)
    counts = result(tmp_path / "out")["counts"]
    assert counts["supervised"] >= counts["tokens"] - counts["rows"]


@pytest.mark.parametrize("layout", ["chat", "bonito"])
def test_a_student_learns_the_accepted_examples(folder, tmp_path, capsys, layout):
    texts = tmp_path / "texts"
    texts.mkdir()
    for i in range(12):
        (texts / f"{i}.txt").write_text(
            f"The harbour of Tarn has {i} piers and one tall lighthouse by the sea."
        )
    config = SynthConfig(sources=(str(texts),), task=("exqa",), model=ModelConfig(ref="echo:"))
    manifest = synth(config, tmp_path / "run")
    out = tmp_path / "out"
    run(
        capsys,
        "train",
        "student",
        tmp_path / "run",
        "--layout",
        layout,
        "--base",
        folder,
        "--out",
        out,
        *SMALL,
    )
    assert result(out)["counts"]["rows"] == manifest["funnel"]["curate"]["kept"]
