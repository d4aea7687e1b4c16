"""The OpenAI backend against a loopback server that imitates, in turn, good and bad ones."""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
import time
from datetime import UTC, datetime
from importlib import import_module

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("aiohttp", reason="the openai extra is not installed")

import server as bad
from server import Act, Seen, Server, ok, reply

from taskmill.backends import ModelConfig, load
from taskmill.backends.openai import OpenAI, _base, _is_ollama, _Server, retry_after
from taskmill.backends.pacing import Gate
from taskmill.backends.wire_formats import quoted, same_model
from taskmill.calls import Completion, Request, Sampling
from taskmill.errors import BackendError, ConfigError, MissingExtra

KEY = "sk-test-abcdefghijklmnop"
GREEDY = Sampling(temperature=0.0)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("OPENAI_BASE_URL", "OLLAMA_HOST", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def model(url: str, **options) -> OpenAI:
    return OpenAI("m", **{"base_url": url, "retries": 3, "backoff": 0.001, "timeout": 5} | options)


def chat(key: str, text: str = "", sampling: Sampling = GREEDY) -> Request:
    return Request(key, sampling, messages=(("user", text or key),))


def run(play, count: int = 1, **options) -> tuple[list[Completion], Server]:
    """Send `count` chats to a server that plays `play`."""
    with Server(play) as server:
        answers = list(model(server.url, **options).generate(chat(f"k{i}") for i in range(count)))
    assert sorted(a.key for a in answers) == sorted(f"k{i}" for i in range(count))
    return answers, server


def first_then(act: Act):
    """Play `act` for the first request, then answer well."""
    return lambda seen: act if seen.number == 0 else ok(seen)


def no_thread_left() -> bool:
    return not [t for t in threading.enumerate() if t.name == "taskmill-http"]


# --- what is sent ---


def test_a_chat_sends_every_parameter():
    sampling = Sampling(0.5, 0.9, 77, ("\n\n", "END"), seed=1234)
    with Server(ok) as server:
        (answer,) = model(server.url).generate([chat("k", "Où? 河", sampling)])
    (seen,) = server.seen
    assert seen.path == "/v1/chat/completions"
    assert seen.body == {
        "model": "m",
        "messages": [{"role": "user", "content": "Où? 河"}],
        "max_tokens": 77,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 1234,
        "stream": False,
        "stop": ["\n\n", "END"],
    }
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert answer == Completion("k", "answer to Où? 河", "stop", 11, 7)


def test_a_prompt_goes_to_completions_without_an_empty_stop():
    with Server(ok) as server:
        (answer,) = model(server.url + "/v1/").generate([Request("k", GREEDY, prompt="Once")])
    assert server.seen[0].path == "/v1/completions"
    assert server.seen[0].body["prompt"] == "Once"
    assert "stop" not in server.seen[0].body
    assert answer.text == "answer to Once"


def test_extra_body_adds_and_removes_fields_and_enters_the_identity():
    with Server(ok) as server:
        changed = model(server.url, extra_body={"top_k": 5, "seed": None})
        list(changed.generate([chat("k")]))
    assert server.seen[0].body["top_k"] == 5
    assert "seed" not in server.seen[0].body
    assert changed.model.startswith("openai:m?")
    assert model(server.url).model == "openai:m"


def test_max_completion_tokens_is_learned_once():
    complaint = {
        "error": {"message": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."}
    }

    def play(seen: Seen) -> Act:
        return reply(complaint, 400) if "max_tokens" in seen.body else ok(seen)

    with Server(play) as server:
        backend = model(server.url, concurrency=1, retries=0)
        answers = list(backend.generate(chat(f"k{i}") for i in range(4)))
    assert [a.finish for a in answers] == ["stop"] * 4
    assert ["max_tokens" in seen.body for seen in server.seen] == [True, False, False, False, False]


def test_text_that_is_not_unicode_is_a_failed_call():
    (answer, fine), server = sorted_answers(ok, [chat("a", "\ud800"), chat("b")])
    assert answer.finish == "error"
    assert "cannot be sent" in answer.error
    assert fine.finish == "stop"
    assert len(server.seen) == 1


def sorted_answers(play, requests, **options) -> tuple[list[Completion], Server]:
    with Server(play) as server:
        answers = sorted(model(server.url, **options).generate(requests), key=lambda a: a.key)
    return answers, server


# --- what real servers answer ---


@pytest.mark.parametrize(
    "shape", [bad.openai, bad.vllm, bad.llama_cpp, bad.lm_studio], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("protocol", ["chat", "prompt"])
def test_reply_shapes(shape, protocol):
    request = chat("k", "hi") if protocol == "chat" else Request("k", GREEDY, prompt="hi")
    (answer,), _ = sorted_answers(lambda seen: reply(shape(seen)), [request])
    assert answer == Completion("k", "answer to hi", "stop", 11, 7)


def test_ollama_is_spoken_to_in_its_own_protocol():
    requests = [chat("a", "hi", Sampling(0.5, 0.9, 77, ("END",), 9)), Request("b", GREEDY, prompt="Once")]
    (a, b), server = sorted_answers(lambda seen: reply(bad.ollama(seen)), requests, num_ctx=16384)
    assert a == Completion("a", "answer to hi", "stop", 11, 7)
    assert b == Completion("b", "answer to Once", "stop", 11, 7)
    by_path = {seen.path: seen.body for seen in server.seen}
    options = {
        "num_ctx": 16384,
        "num_predict": 77,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 9,
        "stop": ["END"],
    }
    assert by_path["/api/chat"]["options"] == options
    assert by_path["/api/chat"]["truncate"] is False
    assert by_path["/api/generate"]["raw"] is True
    assert by_path["/api/generate"]["options"]["num_ctx"] == 16384
    assert "stop" not in by_path["/api/generate"]["options"]


def test_ollama_says_when_the_prompt_does_not_fit():
    body = {
        "error": "request (8889 tokens) exceeds the available context size (4096 tokens), try increasing it"
    }
    (answer,), server = run(lambda _: reply(body, 400), num_ctx=4096)
    assert "too long" in answer.error
    assert "8889" in answer.error
    assert len(server.seen) == 1


def test_ollama_without_the_model_says_how_to_get_it():
    with pytest.raises(BackendError, match="ollama pull m"):
        run(lambda _: reply({"error": "model 'm' not found"}, 404), num_ctx=4096)


@pytest.mark.parametrize(
    ("url", "host", "expected"),
    [
        ("http://localhost:11434/v1", "", True),
        ("http://localhost:8000/v1", "", False),
        ("http://gpu:9000/v1", "gpu:9000", True),
        ("http://localhost:9000/v1", "0.0.0.0:9000", True),
        ("http://other:9000/v1", "gpu:9000", False),
    ],
)
def test_ollama_is_recognised(monkeypatch, url, host, expected):
    monkeypatch.setenv("OLLAMA_HOST", host)
    assert _is_ollama(_base(url)) is expected


def test_a_refusal_is_an_answer_without_text():
    (answer,), _ = run(
        lambda seen: reply(bad.openai(seen) | _choice({"content": None, "refusal": "I cannot."}))
    )
    assert (answer.text, answer.finish, answer.error) == ("", "stop", "the model refused: I cannot.")


def _choice(message: dict, finish: str | None = "stop") -> dict:
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish}]}


@pytest.mark.parametrize(
    ("finish", "tokens", "expected"),
    [
        ("stop", 7, "stop"),
        ("length", 7, "length"),
        (None, 256, "length"),
        (None, 7, "stop"),
        ("content_filter", 7, "length"),
    ],
)
def test_finish_reasons(finish, tokens, expected):
    usage = {"usage": {"prompt_tokens": 1, "completion_tokens": tokens}}
    (answer,), _ = run(lambda seen: reply(bad.openai(seen) | _choice({"content": "x"}, finish) | usage))
    assert answer.finish == expected


def test_all_tokens_spent_on_thinking_is_an_empty_cut_off_answer():
    message = {"content": None, "reasoning_content": "Hm, let me"}
    (answer,), _ = run(lambda seen: reply(bad.openai(seen) | _choice(message, "length")))
    assert (answer.text, answer.finish) == ("", "length")


def test_typed_content_parts_are_joined():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    (answer,), _ = run(lambda seen: reply(bad.openai(seen) | _choice({"content": parts})))
    assert answer.text == "ab"


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None, "completion_tokens": None}])
def test_missing_usage_counts_zero_and_is_flagged(usage):
    with Server(lambda seen: reply(bad.openai(seen) | {"usage": usage})) as server:
        backend = model(server.url)
        (answer,) = backend.generate([chat("k")])
    assert (answer.prompt_tokens, answer.completion_tokens, answer.finish) == (0, 0, "stop")
    assert backend.uncounted == 1


@pytest.mark.parametrize(
    ("asked", "got", "same"),
    [
        ("gpt-4.1-mini", "gpt-4.1-mini-2025-04-14", True),
        ("gpt-4.1", "gpt-4.1-mini", False),
        ("gpt-4", "gpt-4o", False),
        ("llama3", "llama3:latest", True),
        ("smollm2", "/models/SmolLM2.Q4_K_M.gguf", True),
        ("SmolLM2-135M-Instruct", "C:\\models\\smollm2-135m-instruct-q8_0.gguf", True),
        ("BatsResearch/bonito-v1", "bonito-v1", True),
        ("qwen", "llama", False),
        ("m", "", False),
    ],
)
def test_same_model(asked, got, same):
    assert same_model(asked, got) is same


def test_the_wrong_model_is_a_failed_call_and_not_asked_again():
    def play(seen: Seen) -> Act:
        return reply(bad.openai(seen) | {"model": "other"})

    (answer,), server = run(play)
    assert answer.finish == "error"
    assert "server answered as model 'other'" in answer.error
    assert len(server.seen) == 1
    assert run(play, answers_as="other")[0][0].finish == "stop"
    assert run(play, answers_as="*")[0][0].finish == "stop"


# --- faults that pass ---

HTML = b"<html><body>502 Bad Gateway</body></html>"
HALF = Act(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"choices"', close=True)
PASSING = {
    "429 with seconds": reply({"error": {"message": "slow down"}}, 429, Retry_After="0.01"),
    "429 with a date": reply({}, 429, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"),
    "429 with milliseconds": reply({}, 429, retry_after_ms="10"),
    "408": reply(b"", 408),
    "409": reply({}, 409),
    "425": reply({}, 425),
    "500": reply({"error": "boom"}, 500),
    "502 HTML": reply(HTML, 502),
    "503 loading": reply({"error": {"code": 503, "message": "Loading model"}}, 503),
    "504": reply(HTML, 504),
    "529": reply({}, 529),
    "empty body": reply(b""),
    "half a body": HALF,
    "half a chunked body": Act(
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"mod', close=True
    ),
    "not JSON": reply(b"{'choices': []}"),
    "HTML": reply(HTML),
    "a list": reply(b"[1]"),
    "no choices": reply({"model": "m", "choices": []}),
    "choices is null": reply({"model": "m", "choices": None}),
    "no message": reply({"model": "m", "choices": [{"finish_reason": "stop"}]}),
    "an error with status 200": reply({"error": {"message": "upstream", "code": 502}}),
    "aborted": reply({"model": "m", "choices": [{"message": {"content": "x"}, "finish_reason": "abort"}]}),
    "accept and close": Act(close=True),
    "not HTTP": Act(b"hello\r\n\r\n", close=True),
}


@pytest.mark.parametrize("act", PASSING.values(), ids=PASSING.keys())
def test_a_passing_fault_is_tried_again(act):
    (answer,), server = run(first_then(act))
    assert answer == Completion("k0", "answer to k0", "stop", 11, 7)
    assert len(server.seen) == 2


def test_a_connection_closed_between_requests():
    def play(seen: Seen) -> Act:
        return Act(ok(seen).data, close=True)

    # The product's own number of tries: with fewer, and none of them apart, all may meet closing connections.
    answers, _ = run(play, 20, concurrency=2, retries=6, backoff=0.01)
    assert {a.finish for a in answers} == {"stop"}


def test_a_hang_is_a_timeout():
    (answer,), server = run(first_then(Act(delay=60)), timeout=0.1)
    assert answer.finish == "stop"
    assert len(server.seen) == 2
    (answer,), _ = run(lambda _: Act(delay=60), timeout=0.05, retries=1)
    assert answer.finish == "error"
    assert "no answer within 0.05 s" in answer.error


def test_a_slow_server_is_waited_for():
    (answer,), server = run(lambda seen: Act(ok(seen).data, delay=0.3))
    assert answer.finish == "stop"
    assert len(server.seen) == 1


def test_503_forever_is_an_error_after_the_retries():
    (answer,), server = run(lambda _: reply({"error": {"message": "overloaded"}}, 503), retries=2)
    assert (answer.text, answer.finish, answer.error) == ("", "error", "HTTP 503: overloaded")
    assert len(server.seen) == 3


def test_a_pause_beyond_patience_is_not_waited_for():
    (answer,), server = run(lambda _: reply({}, 429, Retry_After="86400"))
    assert "next try in 86400 s" in answer.error
    assert len(server.seen) == 1


def test_everyone_waits_when_the_server_asks_for_a_pause():
    times: list[float] = []

    def play(seen: Seen) -> Act:
        times.append(asyncio.get_running_loop().time())
        return reply({}, 429, Retry_After="0.2") if seen.number == 0 else ok(seen)

    run(play, 6, concurrency=1)
    assert times[1] - times[0] >= 0.2  # not a speed limit: the pause is the behaviour


def test_retry_after_forms():
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert retry_after({"Retry-After": "7"}, now) == 7
    assert retry_after({"Retry-After": "1.5"}, now) == 1.5
    assert retry_after({"Retry-After": "Thu, 01 Jan 2026 00:00:30 GMT"}, now) == 30
    assert retry_after({"Retry-After": "Thu, 01 Jan 2026 00:00:30 -0000"}, now) == 30
    assert retry_after({"Retry-After": "Wed, 31 Dec 2025 00:00:00 GMT"}, now) == 0
    assert retry_after({"retry-after-ms": "250", "Retry-After": "1"}, now) == 0.25
    assert retry_after({"Retry-After": "soon"}, now) == retry_after({}, now) == 0


# --- faults that stay ---


def test_a_400_is_not_tried_again():
    body = {"error": {"message": "This model's maximum context length is 4096 tokens. You asked for 5000."}}
    (answer,), server = run(lambda _: reply(body, 400))
    assert answer.error.startswith("the prompt is too long for the model; HTTP 400: This model's maximum")
    assert len(server.seen) == 1


def test_one_refused_request_does_not_disturb_the_others():
    answers, _ = run(lambda seen: reply({}, 400) if seen.text == "k3" else ok(seen), 8)
    assert {a.key for a in answers if a.finish == "error"} == {"k3"}


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (reply({"error": {"message": "bad key"}}, 401), "check the key in OPENAI_API_KEY"),
        (reply({"detail": "no access"}, 403), "check the key in OPENAI_API_KEY"),
        (reply({"object": "error", "message": "The model `m` does not exist."}, 404), "does not exist"),
        (reply(b"", 405), "base_url"),
        (reply(b"", 307, Location="http://elsewhere.example/v1"), "http://elsewhere.example/v1"),
        (reply({"error": {"code": "insufficient_quota", "message": "quota"}}, 429), "credit is used up"),
    ],
)
def test_when_nothing_can_succeed_it_raises(act, says):
    with Server(lambda _: act) as server, pytest.raises(BackendError, match=says.replace("(", r"\(")):
        list(model(server.url).generate(chat(f"k{i}") for i in range(100)))
    assert len(server.seen) <= 16
    assert no_thread_left()


def test_a_401_after_answers_is_a_failed_call():
    (a, b), _ = sorted_answers(
        lambda seen: reply({}, 401) if seen.number else ok(seen), [chat("a"), chat("b")], concurrency=1
    )
    assert (a.finish, b.finish) == ("stop", "error")


def test_a_server_that_dies_for_good_ends_the_run():
    def play(seen: Seen) -> Act:
        return ok(seen) if seen.number < 5 else reply({}, 500)

    with Server(play) as server:
        answers: list[Completion] = []
        stream = model(server.url, retries=0).generate(chat(f"k{i}") for i in range(10_000))
        with pytest.raises(BackendError, match="run the same command again"):
            answers.extend(stream)
    assert sum(a.finish == "stop" for a in answers) == 5
    assert len(server.seen) < 300


def test_connection_refused_names_the_address_and_the_next_step():
    with Server(ok) as server:
        url = server.url
    with pytest.raises(BackendError, match=r"cannot connect to http://127.0.0.1:\d+/v1.*base_url"):
        list(model(url, retries=1).generate([chat("k")]))
    assert no_thread_left()


def test_a_body_of_20_mb_is_refused_whether_announced_or_not():
    big = b'{"choices": "' + b"x" * (20 << 20)
    (answer,), server = run(lambda _: reply(big))
    assert "larger than 16 MB" in answer.error
    assert len(server.seen) == 1
    (answer,), _ = run(lambda _: Act(b"HTTP/1.1 200 OK\r\n\r\n" + big, close=True))
    assert "larger than 16 MB" in answer.error


# --- the key ---


def test_the_key_is_shown_nowhere():
    echo = {"error": {"message": f"no such key {KEY}"}}
    cut = {"error": {"message": "x" * 190 + KEY}}
    errors = [
        run(lambda _, e=e, s=s: reply(e, s), retries=0)[0][0].error for e in (echo, cut) for s in (400, 500)
    ]
    errors += [
        run(lambda _, b=b: reply(b), retries=0)[0][0].error
        for b in (KEY.encode(), b'{"model":"%b"}' % KEY.encode())
    ]
    with Server(lambda _: reply(echo, 401)) as server:
        backend = model(server.url)
        with pytest.raises(BackendError) as caught:
            list(backend.generate([chat("k")]))
    errors += [
        str(caught.value),
        repr(caught.value),
        repr(backend),
        repr(vars(backend)),
        repr(vars(backend._server)),
    ]
    assert len(errors) == 11
    for error in errors:
        assert KEY[:9] not in error, error


def test_the_key_is_read_when_calls_start(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with Server(ok) as server:
        backend = model(server.url, api_key_env="OTHER_KEY")
        list(backend.generate([chat("a")]))
        monkeypatch.setenv("OTHER_KEY", "later")
        list(backend.generate([chat("b")]))
    assert [seen.headers.get("authorization") for seen in server.seen] == [None, "Bearer later"]


def test_a_key_that_cannot_be_sent_is_named_not_quoted(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-one\ntwo")
    with pytest.raises(BackendError, match="OPENAI_API_KEY holds") as caught:
        run(ok)
    assert "sk-one" not in str(caught.value)


def test_openai_itself_needs_a_key_unless_nothing_is_asked(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    backend = OpenAI("gpt-4.1-mini")
    assert list(backend.generate([])) == []
    with pytest.raises(BackendError, match="set OPENAI_API_KEY"):
        list(backend.generate([chat("k")]))


# --- addresses ---


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", "https://api.openai.com/v1"),
        ("localhost:8000", "http://localhost:8000/v1"),
        ("http://h:1/", "http://h:1/v1"),
        ("http://h:1/v1", "http://h:1/v1"),
        ("http://h:1/v1/", "http://h:1/v1"),
        ("http://h:1/v1/chat/completions", "http://h:1/v1"),
        ("https://openrouter.ai/api", "https://openrouter.ai/api/v1"),
        ("https://g.example/v1beta/openai/", "https://g.example/v1beta/openai"),
    ],
)
def test_base_url_forms(given, expected):
    assert str(_base(given)) == expected


def test_base_url_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://h:1")
    assert OpenAI("m").base_url == "http://h:1/v1"


@pytest.mark.parametrize("wrong", ["ftp://h", "http://", "http://me:secret@h/v1", "http://h:port"])
def test_wrong_addresses_are_refused_without_quoting_a_password(wrong):
    with pytest.raises(ConfigError) as caught:
        OpenAI("m", base_url=wrong)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("wrong", [{"concurrency": 0}, {"timeout": 0}, {"retries": -1}, {"num_ctx": -1}])
def test_wrong_numbers_are_refused(wrong):
    with pytest.raises(ConfigError):
        OpenAI("m", **wrong)


def test_the_registry_makes_one_from_a_reference():
    backend = load(ModelConfig(ref="openai:@cf/meta/llama-3", base_url="http://h:1", concurrency=3))
    assert backend.model == "openai:@cf/meta/llama-3"
    assert backend.batch_invariant is True


def test_proxies_of_the_environment_are_used_but_not_for_this_machine(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "inside.example")

    def proxy(url: str) -> str | None:
        backend = OpenAI("m", base_url=url)
        return _Server(_base(url), backend._format, "OPENAI_API_KEY").proxy()

    assert proxy("http://far.example") == "http://proxy:3128"
    assert proxy("http://inside.example") is None
    assert proxy("http://127.0.0.1:8000") is None
    monkeypatch.setenv("http_proxy", "socks5://proxy:1080")
    with pytest.raises(BackendError, match="no_proxy"):
        proxy("http://far.example")


def test_without_the_package_the_extra_is_named(monkeypatch):
    for name in ("aiohttp", "yarl"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("openai", "http_client", "wire_formats"):
        monkeypatch.delitem(sys.modules, f"taskmill.backends.{name}")
    with pytest.raises(MissingExtra, match=r"taskmill\[openai\]"):
        import_module("taskmill.backends.openai")


# --- many at once ---


def test_concurrency_never_exceeds_the_limit():
    answers, server = run(lambda seen: Act(ok(seen).data, delay=0.005), 200, concurrency=7)
    assert len(answers) == 200
    assert server.peak == 7


def test_it_pulls_no_more_than_can_run():
    pulled, got, ahead = 0, 0, 0

    def requests():
        nonlocal pulled
        for i in range(300):
            pulled += 1
            yield chat(f"k{i}")

    with Server(lambda seen: Act(ok(seen).data, delay=0.001)) as server:
        for _ in model(server.url, concurrency=20).generate(requests()):
            ahead = max(ahead, pulled - got)
            got += 1
    # A batch just handed back (at most 20) stands beside the 20 that run meanwhile.
    assert ahead <= 40


def test_calls_start_while_the_stream_is_still_being_pulled():
    started = threading.Event()

    def play(seen: Seen) -> Act:
        started.set()
        return ok(seen)

    def requests():
        yield chat("a")
        time.sleep(0.01)  # a slow source, e.g. one that reads documents
        yield chat("b")
        assert started.wait(10), "calls must not wait until all that may run are pulled"
        yield chat("c")

    with Server(play) as server:
        assert len(list(model(server.url).generate(requests()))) == 3


def test_the_gate_halves_once_per_generation_and_grows_back():
    gate = Gate(64)
    start = gate.limit
    for _ in range(200):
        gate.good()
    assert gate.limit == 64 > start
    for _ in range(64):
        gate.busy(0)
    assert gate.limit == 32
    gate.busy(gate.generation)
    assert gate.limit == 16
    for _ in range(16):
        gate.good()
    assert gate.limit == 17
    for _ in range(100):
        gate.busy(gate.generation)
    assert gate.limit == 1


def test_it_backs_off_from_an_overloaded_server():
    """A server that takes 4 calls at once: the calls in flight settle near that, retries included."""
    at_once: list[int] = []

    def play(seen: Seen) -> Act:
        at_once.append(server.running)
        return Act(reply({}, 429).data if server.running > 4 else ok(seen).data, delay=0.002)

    with Server(play) as server:
        backend = model(server.url, concurrency=64, retries=50, backoff=0.002)
        answers = list(backend.generate(chat(f"k{i}") for i in range(400)))
    assert {a.finish for a in answers} == {"stop"}
    assert max(at_once) > 8
    assert max(at_once[-200:]) <= 8


def test_closing_early_cancels_what_is_under_way_and_ends_the_thread():
    with Server(lambda seen: ok(seen) if seen.number < 3 else Act(delay=60)) as server:
        stream = model(server.url).generate(chat(f"k{i}") for i in range(100))
        next(stream)
        stream.close()
        assert no_thread_left()
    assert len(server.seen) <= 64


def test_an_exception_in_the_request_stream_comes_after_the_answers_under_way():
    def requests():
        yield from (chat(f"k{i}") for i in range(5))
        raise RuntimeError("budget")

    with Server(lambda seen: Act(ok(seen).data, delay=0.02)) as server:
        got: list[Completion] = []
        with pytest.raises(RuntimeError, match="budget"):
            got.extend(model(server.url).generate(requests()))
    assert len(got) == 5
    assert no_thread_left()


def test_an_exception_in_the_loop_thread_reaches_the_caller(monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("bug")

    with Server(ok) as server:
        backend = model(server.url)
        monkeypatch.setattr(backend._server, "read", broken)
        with pytest.raises(ZeroDivisionError, match="bug"):
            list(backend.generate([chat("k")]))
    assert no_thread_left()


def test_it_works_inside_a_running_event_loop():
    async def notebook() -> list[Completion]:
        with Server(ok) as server:
            return list(model(server.url).generate(chat(f"k{i}") for i in range(5)))

    assert len(asyncio.run(notebook())) == 5


def test_requests_are_pulled_in_the_callers_thread():
    threads = set()

    def requests():
        for i in range(50):
            threads.add(threading.get_ident())
            yield chat(f"k{i}")

    with Server(ok) as server:
        list(model(server.url).generate(requests()))
    assert threads == {threading.get_ident()}


def test_two_streams_of_one_backend_may_overlap():
    with Server(ok) as server:
        backend = model(server.url)
        a = backend.generate(chat(f"a{i}") for i in range(20))
        b = backend.generate(chat(f"b{i}") for i in range(20))
        keys = [x.key for pair in itertools.zip_longest(a, b) for x in pair if x]
    assert len(set(keys)) == 40


FAULTS = [ok, *(lambda seen, act=act: act for act in PASSING.values()), lambda _: reply({}, 400)]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, len(FAULTS) - 1), max_size=60), st.integers(1, 12), st.integers(1, 20))
def test_every_request_gets_exactly_one_completion(script, concurrency, count):
    def play(seen: Seen) -> Act:
        return FAULTS[script[seen.number]](seen) if seen.number < len(script) else ok(seen)

    answers, server = run(play, count, concurrency=concurrency, backoff=0.0)
    assert server.peak <= concurrency
    for answer in answers:
        assert answer.error or answer.text == f"answer to {answer.key}"


def test_quoted_is_one_short_line():
    assert quoted("a\n b\t c") == "a b c"
    assert len(quoted("x" * 10_000)) == 200
    assert quoted(b"\xff\xfe") == "��"
