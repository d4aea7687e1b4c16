"""Likelihoods from a server that repeats a prompt with log-probabilities, against its own table."""

import math
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("aiohttp", reason="the openai extra is not installed")

from server import Act, Seen, Server, echoed, odds, openai, reply, tokens

from taskmill.backends.openai import OpenAI
from taskmill.backends.openai_scores import _echoed
from taskmill.calls import ScoreRequest
from taskmill.errors import BackendError
from taskmill.evaluate.ranking import Weigher, weigh, weighed


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OLLAMA_HOST"):
        monkeypatch.delenv(name, raising=False)


def scores(play, *requests, **options):
    with Server(play) as server:
        backend = OpenAI("m", base_url=server.url, **{"retries": 2, "backoff": 0.001} | options)
        found = {one.key: one for one in backend.score(requests)}
    return found, server.seen


def by_hand(prompt, choice):
    """The chain rule over the table, prompt and choice split apart."""
    values, before = [], prompt
    for token in tokens(choice):
        values.append(odds(before, token))
        before += token
    return math.fsum(values), len(values)


QUESTIONS = [
    ScoreRequest("a", (" yes", " no", " no way", " maybe so"), prompt="Is it? Answer:"),
    ScoreRequest("b", (" A", " (B)", " no way, never"), prompt="Which one is right? Answer:"),
    ScoreRequest("c", (" yés", " na\u00efve \u732b"), prompt="D\u00e9j\u00e0 vu \u2014 encore:"),
]


@pytest.mark.parametrize("start", ["", "<s>"])
@pytest.mark.parametrize("least", [0, 1])
def test_a_choice_is_the_sum_of_its_tokens_behind_the_prompt(start, least):
    def play(seen: Seen) -> Act:
        if seen.body["max_tokens"] < least:
            return reply({"error": {"message": "max_tokens must be at least 1, got 0."}}, 400)
        return reply(echoed(seen, start=start))

    found, seen = scores(play, *QUESTIONS)
    assert found["a"].logprobs == (-0.5, -1.25, -2.0, -8.0)
    assert found["a"].tokens == (1, 1, 2, 2)
    for one in QUESTIONS:
        hand = [by_hand(one.prompt, choice) for choice in one.choices]
        assert list(zip(found[one.key].logprobs, found[one.key].tokens, strict=True)) == hand
        paid = sum(len(tokens(one.prompt + c)) + bool(start) for c in one.choices)
        assert found[one.key].usage == (paid, least * len(one.choices))
    calls = sum(len(one.choices) for one in QUESTIONS)
    assert calls <= len(seen) <= calls * (1 + least)
    assert {one.path for one in seen} == {"/v1/completions"}
    assert seen[-1].body["max_tokens"] == least


def test_a_server_that_writes_a_token_unasked_and_counts_it():
    """vLLM's writes one for a `max_tokens` of 0, counts it and does not list it."""

    def play(seen: Seen) -> Act:
        found = echoed(seen)
        found["usage"]["completion_tokens"] = 1
        return reply(found)

    found, _ = scores(play, QUESTIONS[0])
    assert found["a"].logprobs == (-0.5, -1.25, -2.0, -8.0)
    assert found["a"].usage[1] == 4


def test_a_token_that_reaches_over_the_border_is_the_choices():
    found, _ = scores(
        lambda seen: reply(echoed(seen)), ScoreRequest("k", ("happy", "happy so"), prompt="a: un")
    )
    assert found["k"].logprobs == (-4.0, -8.0)  # " unhappy", and " so"
    assert found["k"].tokens == (1, 2)


def test_a_prompt_may_be_empty_only_behind_a_start_token():
    one = ScoreRequest("k", ("yes", "no"), prompt="")
    found, _ = scores(lambda seen: reply(echoed(seen, start="<s>")), one)
    assert (found["k"].logprobs, found["k"].tokens) == ((-4.0, -4.0), (1, 1))
    found, _ = scores(lambda seen: reply(echoed(seen)), one)
    assert "has no log-probability" in found["k"].error


def test_parts_of_a_character_are_found_by_their_offsets():
    def play(seen: Seen) -> Act:
        found = echoed(seen)
        found["choices"][0]["logprobs"] = {
            "tokens": ["é", ":", "bytes:\\xe7\\x8c", "bytes:\\xab"], "token_logprobs": [None, -1, -2, -0.25],
            "text_offset": [0, 1, 2, 2],
        }  # fmt: skip
        return reply(found)

    found, _ = scores(play, ScoreRequest("k", ("\u732b",), prompt="é:"))
    assert (found["k"].logprobs, found["k"].tokens) == ((-2.25,), (2,))


def without(seen: Seen, *, drop=(), **columns):
    found = echoed(seen)
    own = found["choices"][0]["logprobs"]
    for name in drop:
        del own[name]
    own |= {name: [value] * len(own["tokens"]) for name, value in columns.items()}
    return reply(found)


@pytest.mark.parametrize(
    "play",
    [
        lambda seen: reply({"error": {"message": "Setting 'echo' and 'logprobs' at once is not"}}, 400),
        lambda seen: reply({"error": {"code": 500, "message": "Only no echo is supported"}}, 500),
        lambda seen: reply({"error": {"message": "logprobs is not supported with this model"}}, 422),
        lambda seen: reply(openai(seen)),
        lambda seen: without(seen, drop=("text_offset",)),
        lambda seen: without(seen, text_offset=-1),
        lambda seen: without(seen, tokens=None),
    ],
)
def test_a_server_that_lists_no_likelihoods_ends_the_stream_at_once(play):
    with Server(play) as server:
        backend = OpenAI("m", base_url=server.url, retries=2, backoff=0.001)
        with pytest.raises(BackendError, match=r"echo with logprobs.*vllm:, transformers: or openvino:"):
            list(backend.score(QUESTIONS))
    assert len(server.seen) <= 16


def test_tokens_that_do_not_spell_the_choice_are_an_error_that_is_paid_for():
    def play(seen: Seen) -> Act:
        found = echoed(seen)
        if "猫" in seen.text:
            own = found["choices"][0]["logprobs"]
            own["tokens"] = [token.replace("猫", "\ufffd") for token in own["tokens"]]
        return reply(found)

    found, _ = scores(play, *QUESTIONS)
    assert "do not spell" in found["c"].error
    assert found["c"].logprobs == ()
    assert found["c"].usage == (sum(len(tokens(QUESTIONS[2].prompt + c)) for c in QUESTIONS[2].choices), 0)
    assert not found["a"].error


def test_what_cannot_be_asked_is_refused_without_a_call():
    chat = (("user", "Is it?"),)
    bad = [
        ScoreRequest("none", (), prompt="a"),
        ScoreRequest("hole", ("a", ""), prompt="a"),
        ScoreRequest("end", ("a",), prompt="a", end=True),
        ScoreRequest("label", ("(A)", "(B)"), messages=chat),
        ScoreRequest("words", ("yes it is", "no"), messages=chat),
        ScoreRequest("same", ("Yes", "yes"), messages=chat),
    ]
    found, seen = scores(lambda seen: reply(echoed(seen)), *bad, QUESTIONS[0])
    assert found["none"].error == "no choices"
    assert found["hole"].error == "a choice is empty"
    assert "end of a text" in found["end"].error
    assert all(
        "--protocol auto" in found[k].error.replace("at auto", "auto") for k in ("label", "words", "same")
    )
    assert not found["a"].error
    assert len(seen) == 4
    found, seen = scores(lambda seen: reply(echoed(seen)), *bad)
    assert len(found) == 6
    assert not seen


def chat_reply(seen: Seen, listed) -> Act:
    entries = [{"token": token, "logprob": math.log(p)} for token, p in listed.items()]
    return reply(openai(seen, "A") | {"choices": [
        {"index": 0, "message": {"role": "assistant", "content": "A"}, "finish_reason": "length",
         "logprobs": {"content": [{"token": "A", "logprob": -0.1, "top_logprobs": entries}]}}
    ]})  # fmt: skip


def test_a_chats_single_words_are_weighed_by_its_first_tokens():
    one = ScoreRequest("k", ("A", "B", "C"), messages=(("user", "Which one?"),))
    found, seen = scores(lambda seen: chat_reply(seen, {"A": 0.5, " A": 0.1, "B": 0.25, "The": 0.01}), one)
    assert found["k"].logprobs == pytest.approx([math.log(0.6), math.log(0.25), math.log(0.01)])
    assert (found["k"].tokens, found["k"].usage) == ((1, 1, 1), (11, 7))
    assert (seen[0].path, len(seen)) == ("/v1/chat/completions", 1)
    assert (seen[0].body["max_tokens"], seen[0].body["top_logprobs"]) == (1, 20)


def test_a_chat_says_which_words_its_first_tokens_cannot_tell():
    one = ScoreRequest("k", ("entailment", "neutral"), messages=(("user", "?"),))
    found, _ = scores(lambda seen: chat_reply(seen, {"ent": 0.5, "neutral": 0.2}), one)
    assert "'entailment' is several tokens long" in found["k"].error
    found, _ = scores(lambda seen: chat_reply(seen, {"The": 0.5}), one)
    assert "none of the choices" in found["k"].error
    assert found["k"].usage == (11, 7)


def test_a_chat_server_without_log_probabilities_ends_the_stream_and_may_rename_its_limit():
    one = ScoreRequest("k", ("A", "B"), messages=(("user", "?"),))
    complaint = {"error": {"message": "'logprobs' is not supported with this model"}}
    for play in (lambda seen: reply(complaint, 400), lambda seen: reply(openai(seen))):
        with pytest.raises(BackendError, match="ask for plain completions"):
            scores(play, one)

    def renamed(seen: Seen) -> Act:
        if "max_tokens" in seen.body:
            return reply({"error": {"message": "use 'max_completion_tokens' instead"}}, 400)
        return chat_reply(seen, {"A": 0.5, "B": 0.25})

    found, seen = scores(renamed, one)
    assert found["k"].logprobs == pytest.approx([math.log(0.5), math.log(0.25)])
    assert seen[-1].body["max_completion_tokens"] == 1


def test_ollama_cannot():
    with pytest.raises(BackendError, match="Ollama does not list"):
        list(OpenAI("m", base_url="http://127.0.0.1:11434").score(QUESTIONS))


def test_calls_are_paced_and_repeated_like_any_other():
    lock, troubles = threading.Lock(), iter([429, 503, 0, 500, 429])

    def play(seen: Seen) -> Act:
        with lock:
            trouble = next(troubles, None)
        if trouble is None:
            act = reply(echoed(seen))
            act.delay = 0.01
            return act
        return reply({"error": {"message": "later"}}, trouble) if trouble else Act(close=True)

    many = [ScoreRequest(str(i), (" yes", " no", " no way"), prompt=f"Is it {i}? Answer:") for i in range(20)]
    with Server(play) as server:
        backend = OpenAI("m", base_url=server.url, concurrency=3, retries=5, backoff=0.001)
        pulled = []
        found = list(backend.score(pulled.append(one) or one for one in many))
        assert server.peak <= 3
    assert sorted(one.key for one in found) == sorted(one.key for one in many)
    assert {one.logprobs for one in found} == {(-0.5, -1.25, -2.0)}
    assert len(server.seen) == 60 + 5


def test_a_choice_that_fails_fails_its_request_and_the_others_stay_paid():
    def play(seen: Seen) -> Act:
        if seen.text.endswith(" no way"):
            return reply({"error": {"message": "This model's maximum context length is 5 tokens"}}, 400)
        return reply(echoed(seen))

    found, _ = scores(play, *QUESTIONS[:2])
    assert "the prompt is too long" in found["a"].error
    assert found["a"].usage == (
        sum(len(tokens(QUESTIONS[0].prompt + c)) for c in (" yes", " no", " so so")),
        0,
    )
    assert not found["b"].error


def test_what_the_server_charges_is_what_the_call_cost():
    with Server(lambda seen: reply(echoed(seen))) as server:
        backend = OpenAI("m", base_url=server.url)
        asked = weigh(backend.model, QUESTIONS[0].choices, prompt=QUESTIONS[0].prompt)
        (answer,) = Weigher(backend).generate([asked])
    assert weighed(answer).logprobs == (-0.5, -1.25, -2.0, -8.0)
    paid = sum(len(tokens(QUESTIONS[0].prompt + choice)) for choice in QUESTIONS[0].choices)
    assert (answer.prompt_tokens, answer.completion_tokens) == (paid, 0)


def test_an_abandoned_stream_ends_its_thread():
    many = (ScoreRequest(str(i), (" yes",), prompt=f"Is it {i}? Answer:") for i in range(1000))
    with Server(lambda seen: reply(echoed(seen))) as server:
        stream = OpenAI("m", base_url=server.url).score(many)
        next(stream)
        stream.close()
        assert not [t for t in threading.enumerate() if t.name == "taskmill-http"]


CELLS = st.one_of(st.none(), st.integers(-1, 9), st.floats(-9, 1), st.sampled_from(["a", "aa"]))
WORDS = st.sampled_from(["a", "aa", "", "bytes:\\xe7"])


@given(st.lists(st.one_of(CELLS, WORDS)), st.lists(CELLS), st.lists(CELLS), st.integers(0, 1))
def test_any_lists_give_a_number_a_reason_or_nothing(words, logprobs, offsets, written):
    columns = {"tokens": words, "token_logprobs": logprobs, "text_offset": offsets}
    found = _echoed({"logprobs": columns}, "a", "aa", written)
    assert found is None or isinstance(found, str) or (found[0] <= 0 and found[1] > 0)


@given(st.lists(st.tuples(WORDS, st.floats(-9, 0), st.integers(0, 3)), min_size=1), st.integers(0, 1))
def test_any_offsets_give_a_number_a_reason_or_nothing(rows, written):
    words, logprobs, offsets = map(list, zip(*rows, strict=True))
    columns = {"tokens": words, "token_logprobs": logprobs, "text_offset": offsets}
    found = _echoed({"logprobs": columns}, "a", "aa", written)
    assert found is None or isinstance(found, str) or (found[0] <= 0 and 0 < found[1] <= len(rows))
