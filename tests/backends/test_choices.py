"""Closed requests among open ones: scored in windows, nothing lost, no more pulled than needed."""

from hypothesis import given
from hypothesis import strategies as st

from taskmill.backends import choices
from taskmill.backends.choices import with_choices
from taskmill.calls import Completion, Request, Sampling, Scores, key_of, request


def closed(i, labels=("Yes", "No")):
    return Request(f"c{i}", Sampling(temperature=0, choices=labels), prompt=str(i))


def opened(i):
    return Request(f"o{i}", Sampling(), prompt=str(i))


def generate(requests):
    for r in requests:
        yield Completion(r.key, f"said {r.prompt}")


def score(requests):
    for r in requests:
        assert r.end, "the end token is part of a choice"
        right = int(r.prompt) % len(r.choices)  # the likelier choice is the one at the prompt's parity
        yield Scores(r.key, tuple(-float(i != right) for i in range(len(r.choices))), (1, 1))


@given(st.lists(st.booleans(), max_size=200))
def test_every_request_is_answered_once(kinds):
    asked = [closed(i) if kind else opened(i) for i, kind in enumerate(kinds)]
    found = {c.key: c.text for c in with_choices(iter(asked), generate, score)}
    assert len(found) == len(asked)
    for i, kind in enumerate(kinds):
        assert found[asked[i].key] == (("Yes", "No")[i % 2] if kind else f"said {i}")


def test_the_stream_is_pulled_a_window_at_a_time():
    pulled = []

    def stream():
        for i in range(10 * choices.WINDOW):
            pulled.append(i)
            yield closed(i)

    answers = with_choices(stream(), generate, score)
    next(answers)
    assert len(pulled) == choices.WINDOW


def test_a_choice_that_cannot_be_scored_is_a_failed_call():
    def broken(requests):
        yield from (Scores(r.key, error="the prompt is too long") for r in requests)

    (found,) = with_choices(iter([closed(0)]), generate, broken)
    assert (found.finish, found.error) == ("error", "the prompt is too long")


def test_choices_are_part_of_a_calls_key_and_their_absence_changes_no_old_key():
    plain = request("m", Sampling(temperature=0), prompt="p")
    yes_no = request("m", Sampling(temperature=0, choices=("Yes", "No")), prompt="p")
    assert plain.key != yes_no.key
    assert yes_no.key != request("m", Sampling(temperature=0, choices=("No", "Yes")), prompt="p").key
    assert plain.key == key_of("m", "p", (), Sampling(temperature=0, seed=0), 0)
