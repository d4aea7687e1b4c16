"""Suites that rank options by likelihood, end to end against a server that lists the likelihoods of texts."""

import json
import math

import pytest

pytest.importorskip("aiohttp", reason="the openai extra is not installed")

import pyarrow.parquet as pq
from server import Act, Seen, Server, echoed, openai, reply, tokens

from taskmill.backends import GENERATORS
from taskmill.budget import BudgetConfig
from taskmill.calls import Scores
from taskmill.cli import main
from taskmill.recipes.evaluate import EvaluateConfig, EvaluatedModel, evaluate


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OLLAMA_HOST"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def letters(tmp_path):
    """Five questions of four options; the server below knows the first four."""
    rows = [
        {
            "question": f"Which is q{i}?",
            "choices": [f"q{j}" for j in range(4)],
            "answer": (0, 1, 2, 3, 2)[i],
            "subject": "x",
        }
        for i in range(5)
    ]
    path = tmp_path / "mmlu.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def likely(before: str, token: str) -> float:
    """What the server's model finds: a verdict by "wet", a letter by the number in the last question."""
    if token.strip() in ("Yes", "No"):
        return -1.0 if (token.strip() == "Yes") == ("wet" in before) else -2.0
    if token.strip() in set("ABCD"):
        _, found, asked = before.rpartition("Which is q")
        return -0.5 if found and asked[0] == str("ABCD".index(token.strip())) else -1.75
    return -3.0


def play(seen: Seen) -> Act:
    return reply(echoed(seen, likely))


class Local:
    """The same model in this process."""

    batch_invariant = True
    model = "local:"

    def score(self, requests):
        for one in requests:
            sums, counts = [], []
            for choice in one.choices:
                listed, before = tokens(choice), one.prompt
                for token in listed:
                    sums.append(likely(before, token))
                    before += token
                counts.append(len(listed))
            ends = [sum(counts[: i + 1]) for i in range(len(counts))]
            parts = tuple(math.fsum(sums[e - n : e]) for e, n in zip(ends, counts, strict=True))
            yield Scores(one.key, parts, tuple(counts))


def config(path, suite, server=None, **more):
    model = {"ref": "openai:m", "base_url": server.url, "retries": 0} if server else {"ref": "local:"}
    return EvaluateConfig((suite,), str(path), shots=0, model=EvaluatedModel(**model), **more)


@pytest.mark.parametrize("suite", ["nli", "mmlu-rank", "mmlu-hendrycks", "mmlu-cloze"])
def test_a_server_ranks_as_the_same_model_does_in_this_process(suite, verdicts, letters, tmp_path):
    GENERATORS.register("local", lambda name, revision, config: Local())
    path = verdicts if suite == "nli" else letters
    try:
        here = evaluate(config(path, suite), tmp_path / "here")["suites"][suite]
    finally:
        GENERATORS.unregister("local")
    with Server(play) as server:
        results = evaluate(config(path, suite, server), tmp_path / "there")
        there = results["suites"][suite]
        again = len(server.seen)
        evaluate(config(path, suite, server), tmp_path / "there")
        assert len(server.seen) == again, "nothing is paid twice"
    for name in ("tasks", "overall", "by_normalisation", "n"):
        assert there[name] == here[name]
    one, two = (pq.read_table(tmp_path / where / "items.parquet").to_pylist() for where in ("here", "there"))
    assert [(r["id"], r["answer"]) for r in one] == [(r["id"], r["answer"]) for r in two]
    right = {"nli": 1, "mmlu-rank": 0.8, "mmlu-hendrycks": 0.8}
    if suite in right:
        assert there["overall"] == right[suite]
    spent = json.loads((tmp_path / "there" / "manifest.json").read_text())["tokens"]
    paid = sum(len(tokens(seen.text)) for seen in server.seen)
    assert spent == {"prompt": paid, "completion": 0}


def test_a_stopped_run_goes_on_and_pays_no_choice_twice(verdicts, tmp_path):
    with Server(play) as server:
        whole = evaluate(config(verdicts, "nli", server), tmp_path / "whole")
        calls = len(server.seen)
        short = evaluate(
            config(verdicts, "nli", server, budget=BudgetConfig(max_calls=3)), tmp_path / "parts"
        )
        assert (short["exit"]["code"], len(server.seen) - calls) == (3, 6)
        done = evaluate(config(verdicts, "nli", server), tmp_path / "parts")
    assert (done["suites"], len(server.seen)) == (whole["suites"], 2 * calls)
    one, two = ((tmp_path / name / "items.parquet").read_bytes() for name in ("whole", "parts"))
    assert one == two


def test_prompt_tokens_of_weighed_choices_count_towards_the_limit(verdicts, tmp_path):
    with Server(play) as server:
        limit = BudgetConfig(max_tokens=200)
        short = evaluate(config(verdicts, "nli", server, budget=limit), tmp_path / "out")
        spent = [len(tokens(seen.text)) for seen in server.seen]
    assert short["exit"]["code"] == 3
    assert 200 <= sum(spent) < 200 + 2 * max(spent)


def command(letters, server, suite, out, *more):
    common = ["evaluate", "--suite", suite, "--data", str(letters), "--shots", "0", "--model", "openai:m"]
    with pytest.raises(SystemExit) as end:
        main([*common, "--base-url", server.url, "--retries", "0", "--out", str(out), *more])
    return end.value.code


def test_the_command_ranks_by_a_server(letters, tmp_path, capsys):
    with Server(play) as server:
        assert command(letters, server, "mmlu-rank", tmp_path / "out", "--json") == 0
    assert json.loads(capsys.readouterr().out)["suites"]["mmlu-rank"]["overall"] == 0.8


def test_a_server_that_gives_no_prompt_back_ends_the_command(letters, tmp_path, capsys):
    with Server(lambda seen: reply(openai(seen))) as server:
        assert command(letters, server, "mmlu-rank", tmp_path / "out") == 1
    assert "echo with logprobs" in " ".join(capsys.readouterr().err.split())


def test_letters_are_ranked_in_a_chat_and_labels_are_not(letters, tmp_path, capsys):
    def chat(seen: Seen) -> Act:
        entries = [{"token": c, "logprob": likely(seen.text, c)} for c in "ABCD"]
        found = openai(seen, "A")
        found["choices"][0]["logprobs"] = {"content": [{"token": "A", "top_logprobs": entries}]}
        return reply(found)

    with Server(chat) as server:
        own = ("--protocol", "chat", "--json")
        assert command(letters, server, "mmlu-hendrycks", tmp_path / "a", *own) == 0
        assert json.loads(capsys.readouterr().out)["suites"]["mmlu-hendrycks"]["overall"] == 0.8
        asked = len(server.seen)
        assert command(letters, server, "mmlu-rank", tmp_path / "b", *own) == 3
        assert len(server.seen) == asked
    assert "different single words" in capsys.readouterr().out
