"""Weights of closed answers from what servers list: in both protocols, and done without where refused."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("aiohttp", reason="the openai extra is not installed")

from server import Act, Seen, Server, ok, reply

from taskmill.backends.openai import OpenAI
from taskmill.backends.top_logprobs import weights
from taskmill.calls import Request, Sampling
from taskmill.curate.judge import SCALE, mean_score, yes_share

WEIGHED = Sampling(temperature=0, max_tokens=4, choices=("Yes", "No"), weighed=True)
LISTED = {"Yes": 0.5, " yes": 0.1, "No": 0.2, "Maybe": 0.15, "the": 0.01}


def chat_choice(listed):
    entries = [{"token": t, "logprob": math.log(p), "bytes": None} for t, p in listed.items()]
    content = [{"token": "Yes", "logprob": -0.1, "top_logprobs": entries}]
    return {"index": 0, "message": {"role": "assistant", "content": "Yes"}, "finish_reason": "stop",
            "logprobs": {"content": content}}  # fmt: skip


def plain_choice(listed):
    logprobs = {"tokens": ["Yes"], "top_logprobs": [{t: math.log(p) for t, p in listed.items()}]}
    return {"index": 0, "text": "Yes", "finish_reason": "stop", "logprobs": logprobs}


def body(choice):
    return {
        "id": "x",
        "model": "m",
        "choices": [choice],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1},
    }


def ask(play, request):
    with Server(play) as server:
        (answer,) = OpenAI("m", base_url=server.url, retries=0, backoff=0.001).generate([request])
    return answer, server.seen


@pytest.mark.parametrize("chat", [True, False])
def test_spellings_add_up_and_the_share_of_yes_is_read(chat, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    choice = (chat_choice if chat else plain_choice)(LISTED)
    where = {"messages": (("user", "?"),)} if chat else {"prompt": "?"}
    answer, seen = ask(lambda _: reply(body(choice)), Request("k", WEIGHED, **where))
    assert yes_share(answer.text) == pytest.approx(0.6 / 0.8)
    assert json.loads(answer.text) == pytest.approx([math.log(0.6), math.log(0.2)])
    assert (answer.prompt_tokens, answer.completion_tokens) == (3, 1)
    assert seen[0].body["logprobs"] is True if chat else seen[0].body["logprobs"] == 5
    assert seen[0].body.get("top_logprobs") == (20 if chat else None)


def test_an_unweighed_call_asks_for_no_weights(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    plain = Sampling(temperature=0, choices=("Yes", "No"))
    answer, seen = ask(
        lambda _: reply(body(chat_choice(LISTED))), Request("k", plain, messages=(("user", "?"),))
    )
    assert answer.text == "Yes"
    assert "logprobs" not in seen[0].body


def test_a_server_that_refuses_weights_is_asked_without_once_and_for_all(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    complaint = {"error": {"message": "'logprobs' is not supported with this model"}}

    def play(seen: Seen) -> Act:
        return reply(complaint, 400) if "logprobs" in seen.body else ok(seen)

    with Server(play) as server:
        backend = OpenAI("m", base_url=server.url, concurrency=1, retries=0, backoff=0.001)
        requests = [Request(f"k{i}", WEIGHED, messages=(("user", "No"),)) for i in range(3)]
        answers = list(backend.generate(requests))
    assert [a.finish for a in answers] == ["stop"] * 3
    assert ["logprobs" in seen.body for seen in server.seen] == [True, False, False, False]


def test_a_choice_that_is_not_listed_counts_as_the_least_listed():
    found = weights(chat_choice({"5": 0.9, "4": 0.06, "x": 0.001}), SCALE)
    assert found == pytest.approx([math.log(v) for v in (0.001, 0.001, 0.001, 0.06, 0.9)])
    assert 4.8 < mean_score(json.dumps(found)) < 5


@pytest.mark.parametrize(
    "choice",
    [{}, {"logprobs": None}, {"logprobs": {}}, {"logprobs": {"content": []}},
     {"logprobs": {"content": [None]}},
     {"logprobs": {"content": [{"top_logprobs": None}]}}, {"logprobs": {"top_logprobs": [None]}},
     {"logprobs": {"content": [{"top_logprobs": [{"token": 3, "logprob": "x"}]}]}},
     chat_choice({"The": 0.9, "It": 0.1})],
)  # fmt: skip
def test_a_reply_that_lists_no_choice_is_taken_as_written(choice):
    assert weights(choice, ("Yes", "No")) is None


@given(st.dictionaries(st.sampled_from([*SCALE, " 5", "x", "▁4"]), st.floats(-30, 0), min_size=1))
def test_any_list_gives_readable_weights_or_none(listed):
    entries = [{"token": t, "logprob": v} for t, v in listed.items()]
    found = weights({"logprobs": {"content": [{"top_logprobs": entries}]}}, SCALE)
    assert (found is None) == (not {t.strip(" ▁") for t in listed} & set(SCALE))
    assert found is None or 1 <= mean_score(json.dumps(found)) <= 5
