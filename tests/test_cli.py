"""The command line: words, exit codes, machine output, and what it never prints."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from taskmill import cli


def run(capsys, *words):
    """Run the command line in this process; return (exit code, standard output, standard error)."""
    with pytest.raises(SystemExit) as ended:
        cli.main([str(w) for w in words])
    out, err = capsys.readouterr()
    return ended.value.code, out, err


def synth(texts, out, *words):
    return ("synth", texts, "--task", "exqa,ynqa", "--model", "echo:", "--out", out, *words)


def test_version_is_instant_and_plain(capsys):
    code, out, _ = run(capsys, "--version")
    assert (code, out) == (0, "taskmill, version 0.1.0\n")


def test_python_dash_m():
    shown = subprocess.run([sys.executable, "-m", "taskmill", "--version"], capture_output=True, text=True)
    assert shown.stdout == "taskmill, version 0.1.0\n"


def test_synth_ends_with_the_funnel_the_report_and_the_reason(capsys, texts, tmp_path):
    code, out, _ = run(capsys, *synth(texts, tmp_path / "r"))
    assert code == 0
    lines = out.strip().splitlines()
    assert lines[0].split() == ["stage", "in", "kept", "dropped"]
    assert lines[-2] == f"report: {tmp_path / 'r' / 'report.html'}"
    assert lines[-1] == "done"


def test_json_is_one_object_on_standard_output(capsys, texts, tmp_path):
    code, out, err = run(capsys, *synth(texts, tmp_path / "r", "--json"))
    manifest = json.loads(out)
    assert (code, err) == (0, "")
    assert manifest["funnel"]["curate"]["kept"] == 12
    assert set(manifest) >= {"funnel", "calls", "tokens", "seed", "versions", "elapsed_s", "exit"}
    _, shown, _ = run(capsys, "inspect", tmp_path / "r", "--json")
    assert json.loads(shown)["calls"] == manifest["calls"]


def test_a_shortfall_exits_3_with_the_reason_last(capsys, texts, tmp_path):
    code, out, _ = run(capsys, *synth(texts, tmp_path / "r", "--target", 99, "--max-attempts", 1))
    assert code == 3
    assert out.strip().splitlines()[-1].startswith("fewer examples than asked for: exqa 6 of 99")
    assert json.loads((tmp_path / "r" / "manifest.json").read_text())["exit"]["code"] == 3


def test_a_budget_exits_3(capsys, texts, tmp_path):
    code, out, _ = run(capsys, *synth(texts, tmp_path / "r", "--max-calls", 4))
    assert code == 3
    assert "--max-calls 4" in out.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("synt",), "Did you mean 'synth'"),
        (("synth", "x", "--out", "r", "--tusk", "exqa"), "--task"),
        (("synth", "x"), "--out"),
        (("synth", ".", "--out", "r", "--task", "exq"), "Did you mean 'exqa'"),
        (("synth", ".", "--out", "r", "--seed", "x"), "seed: expected a whole number"),
        (("synth", ".", "--out", "r", "--labels", "x"), "KEY=A,B"),
        (("synth", ".", "--out", "r", "--resume"), "holds no run yet"),
        (("inspect", "nowhere"), "no run folder"),
        (("run", "absent.yaml"), "cannot read absent.yaml"),
    ],
)
def test_wrong_usage_exits_2_and_helps(capsys, tmp_path, monkeypatch, words, hint):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *words)
    assert code == 2
    assert hint in err
    assert out == ""


def test_failures_exit_1_without_a_traceback(capsys, tmp_path):
    code, _, err = run(capsys, *synth(tmp_path / "absent", tmp_path / "r"))
    assert code == 1
    assert "absent" in err
    assert "Traceback" not in err
    for words in (
        ("-v", *synth(tmp_path / "absent", tmp_path / "r2")),
        (*synth("absent", tmp_path / "r3"), "-v"),
    ):
        code, _, err = run(capsys, *words)
        assert code == 1
        assert "Traceback" in err


@pytest.mark.parametrize("word", sorted(cli.ALIASES))
def test_words_of_other_tools_are_understood(capsys, word):
    code, out, _ = run(capsys, word, "--help")
    assert code == 0
    assert cli.ALIASES[word] in out


@pytest.mark.parametrize("command", ["demo", "synth", "run", "inspect", "export", "doctor", "completion"])
def test_every_command_has_help_with_an_example(capsys, command):
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert "Example" in out


def test_a_recipe_file_and_overrides(capsys, texts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f"sources: [{texts}]\ntask: [exqa]\nmodel:\n  ref: 'echo:'\n")
    code, out, _ = run(capsys, "run", recipe, "seed=7", "task=[ynqa]", "--json")
    manifest = json.loads(out)
    assert (code, manifest["seed"], list(manifest["tasks"])) == (0, 7, ["ynqa"])
    assert (tmp_path / "runs" / "mine" / "manifest.json").exists()
    recipe.write_text("recipe: synht\n")
    assert "Did you mean 'synth'" in run(capsys, "run", recipe)[2]


def test_the_run_folders_own_configuration_is_a_recipe(capsys, texts, tmp_path):
    run(capsys, *synth(texts, tmp_path / "a"))
    code, _, _ = run(capsys, "run", tmp_path / "a" / "config.yaml", "--out", tmp_path / "b", "--json")
    assert code == 0
    a, b = (sorted((tmp_path / n).glob("3-curate/kept/*"))[0].read_bytes() for n in "ab")
    assert a == b


def test_labels_and_language_reach_the_prompt(capsys, texts, tmp_path):
    words = (
        "--task",
        "topic_class",
        "--labels",
        "topic_class=storage,network",
        "--answer-language",
        "German",
    )
    code, _, _ = run(capsys, "synth", texts, "--model", "echo:", "--out", tmp_path / "r", *words, "--json")
    assert code in (0, 3)
    import pyarrow.parquet as pq

    kept = pq.read_table(next((tmp_path / "r" / "3-curate" / "kept").glob("*")))
    assert kept.num_rows
    assert {tuple(o) for o in kept["options"].to_pylist()} <= {("storage", "network"), ("network", "storage")}


def test_dry_run_pays_at_most_twenty_calls_and_says_what_the_rest_costs(capsys, texts, tmp_path):
    prices = tmp_path / "prices.yaml"
    prices.write_text("'echo:': {prompt: 10, completion: 20}\n")
    words = synth(texts, tmp_path / "r", "--prices", prices)
    code, out, _ = run(capsys, *words, "--dry-run", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["sample"] == found["made"] == 12
    assert found["calls"]["expected"] == 12
    code, out, _ = run(capsys, *words, "--json")
    manifest = json.loads(out)
    assert manifest["calls"] == {"made": 0, "reused": 12, "failed": 0, "total": 12}
    for name in ("prompt", "completion"):
        figure = found[f"{name}_tokens"]
        assert figure["low"] <= manifest["tokens"][name] <= figure["high"]
    assert found["cost"]["low"] <= manifest["cost"] <= found["cost"]["high"]
    code, out, _ = run(capsys, *words, "--dry-run")
    assert "95 % interval" in out
    shown = json.loads((tmp_path / "r" / "manifest.json").read_text())
    assert shown == manifest, "an estimate leaves the manifest of a finished run as it was"
    assert not (tmp_path / "r" / ".estimate").exists()
    code, out, _ = run(capsys, *words, "--dry-run", "--json")
    assert json.loads(out)["calls"]["expected"] == 0, "nothing is left to pay"


def test_dry_run_counts_only_passages_that_suit(capsys, texts, tmp_path):
    words = ("synth", texts, "--task", "coref", "--model", "echo:", "--out", tmp_path / "r", "--json")
    estimated = json.loads(run(capsys, *words, "--dry-run")[1])["calls"]["expected"]
    manifest = json.loads(run(capsys, *words)[1])
    made = manifest["calls"]["made"] + manifest["calls"]["reused"]
    assert estimated == made
    assert manifest["funnel"]["synthesize"]["dropped"].get("not_applicable", 0) == 6 - made


def test_export_writes_what_was_kept(capsys, texts, tmp_path):
    run(capsys, *synth(texts, tmp_path / "r"))
    code, out, _ = run(
        capsys, "export", tmp_path / "r", "--format", "messages", "--out", tmp_path / "t.jsonl"
    )
    assert (code, out) == (0, f"12 rows → {tmp_path / 't.jsonl'}\n")
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert [m["role"] for m in rows[0]["messages"]] == ["user", "assistant"]
    code, _, err = run(capsys, "export", tmp_path / "r", "--commercial", "--out", tmp_path / "c")
    assert code == 3
    assert "licence" in err
    assert not (tmp_path / "c").exists()


def test_doctor_names_variables_but_never_their_values(capsys, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-value")
    for words in (("doctor",), ("doctor", "--json")):
        code, out, err = run(capsys, *words)
        assert code == 0
        assert "OPENAI_API_KEY" in out
        assert "sk-very" not in out + err


def test_completion_scripts(capsys):
    for shell in ("bash", "zsh", "fish"):
        code, out, _ = run(capsys, "completion", shell)
        assert code == 0
        assert "_TASKMILL_COMPLETE" in out


def test_ctrl_c_says_how_to_go_on(capsys, texts, tmp_path, monkeypatch):
    from taskmill.backends.echo import Echo

    def interrupted(self, requests):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(Echo, "generate", interrupted)
    code, _, err = run(capsys, *synth(texts, tmp_path / "r"))
    assert code == 130
    assert "the same command continues" in err
    manifest = json.loads((tmp_path / "r" / "manifest.json").read_text())
    assert (manifest["status"], manifest["exit"]["code"]) == ("stopped", 130)


def test_no_progress_bar_where_there_is_no_terminal(texts, tmp_path):
    words = [sys.executable, "-m", "taskmill", *map(str, synth(texts, tmp_path / "r"))]
    shown = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"})
    assert shown.returncode == 0
    assert shown.stderr == ""
    assert "\x1b" not in shown.stdout


def test_standard_input(texts, tmp_path):
    words = [sys.executable, "-m", "taskmill", *map(str, synth("-", tmp_path / "r", "--json"))]
    text = (texts / "0.txt").read_text()
    shown = subprocess.run(words, capture_output=True, text=True, input=text)
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["funnel"]["ingest"]["kept"] == 1


def test_two_processes_on_one_run_folder(capsys, texts, tmp_path):
    from taskmill.store import Run

    with Run(tmp_path / "r"):
        words = [sys.executable, "-m", "taskmill", *map(str, synth(texts, tmp_path / "r"))]
        shown = subprocess.run(words, capture_output=True, text=True)
    assert shown.returncode == 1
    assert "in use by another taskmill process" in shown.stderr
    assert not list(Path(tmp_path / "r").glob("*-*"))
