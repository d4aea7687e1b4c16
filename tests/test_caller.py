"""Calling: through the ledger, within the budget, each key at most once."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill.budget import Budget, BudgetConfig, Price
from taskmill.caller import _HITS, Caller
from taskmill.calls import Completion, Sampling, key_of, request
from taskmill.errors import BackendError
from taskmill.ledger import Ledger

WARM = Sampling(temperature=0.5)


class Counting:
    """Answers after holding up to `width` requests, last first; counts the prompts it saw."""

    model = "counting:"
    batch_invariant = True

    def __init__(self, width=3):
        self.width = width
        self.seen = []

    def generate(self, requests):
        held = []
        for r in requests:
            self.seen.append(r.prompt)
            held.append(r)
            if len(held) >= self.width:
                yield self.answer(held.pop())
        while held:
            yield self.answer(held.pop())

    def answer(self, r):
        return Completion(r.key, f"re {r.prompt}", "stop", 10, 5)


def caller(tmp_path, backend=None, **limits):
    ledger = Ledger(tmp_path / "ledger", "r")
    return Caller(backend or Counting(), ledger, Budget(BudgetConfig(**limits)))


def asks(n, prefix="p"):
    return [request("counting:", WARM, prompt=f"{prefix}{i}", payload=i) for i in range(n)]


@given(prompts=st.lists(st.integers(0, 20), max_size=60), width=st.integers(1, 9), known=st.integers(0, 20))
@settings(max_examples=50, deadline=None)
def test_every_request_gets_its_answer_and_no_key_is_called_twice(tmp_path_factory, prompts, width, known):
    folder = tmp_path_factory.mktemp("c")
    backend = Counting(width)
    first = caller(folder, backend)
    list(first.answers(asks(known)))
    first.ledger.close()
    backend.seen.clear()
    second = caller(folder, backend)
    wanted = [request("counting:", WARM, prompt=f"p{i}", payload=n) for n, i in enumerate(prompts)]
    got = list(second.answers(wanted))
    second.ledger.close()
    assert sorted(r.payload for r, _ in got) == list(range(len(prompts)))
    assert all(c.text == f"re {r.prompt}" for r, c in got)
    assert sorted(backend.seen) == sorted({f"p{i}" for i in prompts if i >= known})
    assert second.made + second.reused == len(prompts)


def test_hits_come_in_bounded_batches(tmp_path):
    many = _HITS * 2 + 5
    one = caller(tmp_path)
    assert sum(1 for _ in one.answers(asks(many))) == many
    two = Caller(Counting(), one.ledger, Budget())
    pulled = 0

    def counted():
        nonlocal pulled
        for r in asks(many):
            pulled += 1
            yield r

    stream = two.answers(counted())
    next(stream)
    assert pulled <= _HITS
    assert sum(1 for _ in stream) == many - 1
    assert (two.made, two.reused) == (0, many)


def test_max_calls_is_exact_with_calls_under_way(tmp_path):
    backend = Counting(width=8)
    c = caller(tmp_path, backend, max_calls=5)
    assert len(list(c.answers(asks(20)))) == 5
    assert len(backend.seen) == 5
    assert c.stopped


@pytest.mark.parametrize("width", [1, 8, 64])
def test_a_token_limit_is_overshot_by_one_call_at_most(tmp_path, width):
    c = caller(tmp_path, Counting(width), max_tokens=1500)
    answered = len(list(c.answers(asks(400))))
    assert c.budget.reason == "--max-tokens 1500"
    assert 1500 <= c.budget.prompt_tokens + c.budget.completion_tokens < 1500 + 15
    assert answered == 100


def test_a_limit_with_room_again_goes_on(tmp_path):
    """What was reserved for calls under way is given back when they end smaller."""
    c = caller(tmp_path, Counting(width=64), max_tokens=5000)
    assert len(list(c.answers(asks(200)))) == 200
    assert not c.stopped


def test_a_backend_that_leaves_requests_out_is_found_out(tmp_path):
    class Lossy(Counting):
        def generate(self, requests):
            for i, r in enumerate(requests):
                if i % 3:
                    yield self.answer(r)

    c = caller(tmp_path, Lossy())
    got = list(c.answers(asks(9)))
    assert sorted(r.payload for r, _ in got) == list(range(9))
    lost = [x for _, x in got if x.finish == "error"]
    assert [x.error for x in lost] == ["the backend gave no answer"] * 3
    assert c.failed == 3


def test_a_backend_that_answers_what_nobody_asked_is_refused(tmp_path):
    class Wrong(Counting):
        def answer(self, r):
            return Completion("f" * 32, "x", "stop", 1, 1)

    c = caller(tmp_path, Wrong())
    with pytest.raises(BackendError, match="was not made"):
        list(c.answers(asks(2)))
    assert c.ledger.get("f" * 32) is None


def test_failed_calls_count_in_every_session(tmp_path):
    class Down(Counting):
        def answer(self, r):
            return Completion(r.key, finish="error", error="503")

    made = 0
    for _ in range(4):
        ledger = Ledger(tmp_path / "ledger", "r")
        backend = Down()
        c = Caller(backend, ledger, Budget(BudgetConfig(max_calls=10), calls=ledger.spent_calls))
        list(c.answers(asks(6)))
        ledger.close()
        made += len(backend.seen)
    assert made == 10


def test_a_limit_spent_earlier_allows_nothing(tmp_path):
    budget = Budget(BudgetConfig(max_cost=1.0), price=Price(1e6, 0), prompt_tokens=1, completion_tokens=0)
    assert not budget.allow(1, 1)
    assert budget.reason == "--max-cost 1"


def test_failed_calls_are_yielded_and_tried_again_next_time(tmp_path):
    class Down(Counting):
        def answer(self, r):
            return Completion(r.key, finish="error", error="503")

    down = caller(tmp_path, Down())
    assert [c.finish for _, c in down.answers(asks(3))] == ["error"] * 3
    assert (down.made, down.failed, down.fault) == (0, 3, "503")
    up = Caller(Counting(), down.ledger, Budget())
    assert [c.finish for _, c in up.answers(asks(3))] == ["stop"] * 3


def test_what_is_in_the_key_and_what_is_not():
    base = ("m", "prompt", (), Sampling(), 0)
    assert key_of(*base) == key_of(*base)
    others = [
        ("m2", "prompt", (), Sampling(), 0),
        ("m", "prompt2", (), Sampling(), 0),
        ("m", "", (("user", "prompt"),), Sampling(), 0),
        ("m", "prompt", (), Sampling(temperature=0.6), 0),
        ("m", "prompt", (), Sampling(top_p=0.9), 0),
        ("m", "prompt", (), Sampling(max_tokens=9), 0),
        ("m", "prompt", (), Sampling(stop=("x",)), 0),
        ("m", "prompt", (), Sampling(seed=1), 0),
        ("m", "prompt", (), Sampling(), 1),
    ]
    assert len({key_of(*o) for o in [base, *others]}) == 10
    assert request("m", WARM, prompt="x", payload=1).key == request("m", WARM, prompt="x", payload=2).key


def test_greedy_calls_ignore_seed_and_sample():
    greedy = Sampling(temperature=0)
    keys = {request("m", greedy, prompt="x", seed=s, sample=n).key for s in range(3) for n in range(3)}
    assert len(keys) == 1
    warm = {request("m", WARM, prompt="x", seed=s, sample=n).key for s in range(3) for n in range(3)}
    assert len(warm) == 9


@pytest.mark.parametrize("finish", ["stop", "length"])
def test_finish_reasons_survive_the_ledger(tmp_path, finish):
    class Short(Counting):
        def answer(self, r):
            return Completion(r.key, "x", finish, 1, 1)

    c = caller(tmp_path, Short())
    list(c.answers(asks(1)))
    again = Caller(Counting(), c.ledger, Budget())
    assert [x.finish for _, x in again.answers(asks(1))] == [finish]
