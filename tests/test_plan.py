"""Planning: exactly N where it can be had, never more calls than the yield says, always an end."""

from math import ceil

from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill.record import DOCUMENT_SCHEMA, Document, Span, content_id, draw
from taskmill.store import SortedParts, parts
from taskmill.synthesize.plan import PROOF, Passages, TargetPlan


def play(plan, tasks, rate, seed):
    """Carry a plan out with replies accepted at a known rate; return the candidates asked."""
    asked = []
    while wave := list(plan.wave()):
        for passage, task, sample in wave:
            asked.append((passage, task, sample))
            plan.candidate(task)
            if draw(seed, f"{passage} {task} {sample}", "accept") / 2**63 < rate:
                plan.accept(task, f"{passage} {sample}")
    return asked


@given(
    passages=st.integers(1, 60),
    target=st.integers(1, 60),
    attempts=st.integers(1, 6),
    rate=st.sampled_from([0.0, 0.05, 0.3, 0.9, 1.0]),
    seed=st.integers(0, 999),
)
@settings(max_examples=150, deadline=None)
def test_n_or_a_reason(passages, target, attempts, rate, seed):
    plan = TargetPlan(["a", "b"], passages, target, attempts=attempts, min_yield=0.02)
    asked = play(plan, ["a", "b"], rate, seed)
    assert len(asked) == len(set(asked)), "no candidate is asked twice"
    for task in ("a", "b"):
        tried = sum(t == task for _, t, _ in asked)
        assert tried <= passages * attempts
        if plan.accepted(task) < target:
            assert plan.shortfall(task)
            assert tried == passages * attempts or tried >= PROOF
        else:
            assert plan.shortfall(task) is None


@given(target=st.integers(1, 500))
def test_a_flawless_model_is_asked_exactly_n_times(target):
    plan = TargetPlan(["a"], 1000, target, attempts=1, min_yield=0.02)
    assert len(play(plan, ["a"], 1.0, 0)) == target


def test_over_generation_stays_near_what_the_yield_needs():
    spent = []
    for seed in range(20):
        plan = TargetPlan(["a"], 100_000, 1000, attempts=1, min_yield=0.02)
        spent.append(len(play(plan, ["a"], 0.4, seed)))
    # 1000 / 0.4 = 2500; the last wave's surplus is a few standard deviations of its size.
    assert 2400 < sum(spent) / 20 < ceil(2500 * 1.05)


def test_passages_are_all_there_once_in_an_order_the_seed_turns(tmp_path):
    rows = [Document(content_id(str(i)), str(i), Span()) for i in range(100)]
    writer = SortedParts(tmp_path, DOCUMENT_SCHEMA, ("id",))
    writer.add(rows)
    writer.finish()
    orders = []
    for seed in range(3):
        passages = Passages(parts(tmp_path), seed)
        found = [passages[i].id for i in range(len(passages))]
        assert sorted(found) == sorted(r.id for r in rows)
        orders.append(found)
    assert orders[0] != orders[1] != orders[2]
    again = Passages(parts(tmp_path), 0)
    assert [again[i].id for i in range(100)] == orders[0]
