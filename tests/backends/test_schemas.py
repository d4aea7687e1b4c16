"""Replies held to a JSON schema, on the wire; and tasks proposed by a capable model behind a server."""

import csv
import json

import pytest

pytest.importorskip("aiohttp", reason="the openai extra is not installed")

import server as wire
from server import Seen, Server, ok, reply

from taskmill.backends.openai import OpenAI
from taskmill.calls import Request, Sampling, request
from taskmill.cli import main

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
HELD = Sampling(temperature=0.0, schema=json.dumps(SCHEMA))


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OLLAMA_HOST"):
        monkeypatch.delenv(name, raising=False)


def asked(server, count=1, **options):
    backend = OpenAI("m", base_url=server.url, retries=0, backoff=0.001, **options)
    return list(backend.generate(Request(f"k{i}", HELD, messages=(("user", "x"),)) for i in range(count)))


def test_a_server_is_sent_the_schema_in_the_form_of_its_protocol():
    with Server(ok) as server:
        asked(server)
    shape = server.seen[0].body["response_format"]
    assert shape["type"] == "json_schema"
    assert (shape["json_schema"]["strict"], shape["json_schema"]["schema"]) == (True, SCHEMA)
    with Server(lambda seen: reply(wire.ollama(seen))) as server:
        (answer,) = asked(server, num_ctx=4096)
    assert answer.finish == "stop"
    assert server.seen[0].body["format"] == SCHEMA
    assert request("m", HELD, prompt="p").key != request("m", Sampling(temperature=0.0), prompt="p").key


@pytest.mark.parametrize(
    "complaint",
    [
        "This response_format type is unavailable now",
        "model m does not support feature: structured-outputs",
        "Invalid schema for response_format 'reply'",
    ],
)
def test_a_server_that_refuses_schemas_answers_every_call_without(complaint):
    def play(seen: Seen):
        held = "response_format" in seen.body
        return reply({"error": {"message": complaint}}, 400) if held else ok(seen)

    with Server(play) as server:
        answers = asked(server, 8)
        again = len(server.seen)
    assert [answer.finish for answer in answers] == ["stop"] * 8, "also those under way at the first refusal"
    assert again <= 16
    assert "response_format" not in server.seen[-1].body


def test_a_server_may_refuse_one_field_after_the_other():
    def play(seen: Seen):
        for name, words in (
            ("max_tokens", "use max_completion_tokens"),
            ("response_format", "no json_schema"),
        ):
            if name in seen.body:
                return reply({"error": {"message": words}}, 400)
        return ok(seen)

    with Server(play) as server:
        answers = asked(server, 3)
    assert [answer.finish for answer in answers] == ["stop"] * 3


GOOD = [
    ("team", ["message"], "Decide which of the three teams ought to look after what this customer writes."),
    ("message", ["team"], "Write what a customer might say to the help desk for this team to take it on."),
    ("urgent", ["message"], "Does the message have to be answered today? Say yes or no."),
]


@pytest.fixture
def tickets(tmp_path):
    """A dataset with a card, 60 rows."""
    home = tmp_path / "tickets"
    home.mkdir()
    card = "---\nlicense: cc-by-4.0\n---\n## Summary\nMessages to a help desk, and who handles them.\n"
    (home / "README.md").write_text(card)
    with (home / "train.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["message", "team", "urgent"])
        for i in range(60):
            words = f"my {('lamp', 'door', 'sofa', 'desk')[i % 4]} of order {i} came broken, please help"
            writer.writerow([words, ("billing", "delivery", "repairs")[i % 3], ("yes", "no")[i % 2]])
    return home


@pytest.mark.parametrize("form", ["schema", "prose", "cut"])
def test_what_a_capable_model_proposes_is_kept(tickets, tmp_path, capsys, form):
    """Held to the schema; around the JSON, words and a fence; cut off in the third task."""
    tasks = [
        {"output_field": output, "input_fields": inputs, "task_name": f"t{i}", "instruction": words}
        for i, (output, inputs, words) in enumerate(GOOD)
    ]

    def play(seen: Seen):
        if form == "prose" and "response_format" in seen.body:
            return reply({"error": {"message": "response_format is not supported"}}, 400)
        text = json.dumps({"tasks": tasks}, indent=1)
        texts = {"schema": text, "prose": f"Here you are:\n```json\n{text}\n```\nEnjoy!", "cut": text[:-40]}
        found = wire.openai(seen, texts[form])
        found["choices"][0]["finish_reason"] = "length" if form == "cut" else "stop"
        return reply(found)

    command = ["grow", "propose", str(tickets), "--model", "openai:m", "--instances", "5", "--json"]
    with Server(play) as server, pytest.raises(SystemExit) as end:
        main([*command, "--base-url", server.url, "--out", str(tmp_path / "run")])
    assert end.value.code == 0
    modes = json.loads(capsys.readouterr().out)["modes"]
    whole = 2 if form == "cut" else 3
    assert modes["aware"] == {"proposed": whole + (form == "cut"), "kept": whole}
    assert modes["unaware"]["kept"] == 0, "the same tasks again"
    lines = (tmp_path / "run" / "proposals.jsonl").read_text().splitlines()
    kept = {row["instruction"] for row in map(json.loads, lines) if row["mode"] == "aware"}
    assert kept == {words for _, _, words in GOOD[:whole]}
    shown = [seen.body["messages"][-1]["content"] for seen in server.seen]
    assert any("Messages to a help desk" in text for text in shown), "aware"
    assert any("Messages to a help desk" not in text for text in shown), "unaware"
    assert all('"message", "team", "urgent"' in text for text in shown)


def test_examples_of_the_prompt_are_no_tasks(tickets, tmp_path, capsys):
    def play(seen: Seen):
        shown = json.loads(seen.body["messages"][2]["content"])["tasks"]
        for task in shown:
            task |= {"output_field": "team", "input_fields": ["message"]}
        return reply(wire.openai(seen, json.dumps({"tasks": shown})))

    command = ["grow", "propose", str(tickets), "--model", "openai:m", "--no-rules", "--json"]
    with Server(play) as server, pytest.raises(SystemExit) as end:
        main([*command, "--base-url", server.url, "--out", str(tmp_path / "run")])
    assert end.value.code == 3
    assert json.loads(capsys.readouterr().out)["funnel"]["propose"]["dropped"] == {"copy": 4}
