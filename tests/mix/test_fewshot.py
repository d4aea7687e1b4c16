"""Few-shot assembly: one test for each promise, against plain Python where there is an oracle."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.errors import ConfigError
from taskmill.mix.fewshot import (
    Rows,
    bases,
    chained,
    choose,
    counts,
    distribution,
    drawn,
    nearest_texts,
    strung,
    within,
)

IDS = [f"row-{i:03}" for i in range(60)]


def rows(ids=IDS, keys=None, labels=()):
    return Rows(ids, keys or [f"key of {i}" for i in ids], labels)


# how many


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("5", {5: 1.0}),
        ("1-3", {1: 1.0, 2: 1.0, 3: 1.0}),
        ("0:1,2:3", {0: 1.0, 2: 3.0}),
        ("0:1,1-2:2", {0: 1.0, 1: 2.0, 2: 2.0}),
    ],
)
def test_distributions(text, found):
    assert distribution(text) == found


@pytest.mark.parametrize("text", ["", "x", "5-1", "1:", "1:-2", "0:0", "65", "-1", "1-100"])
def test_bad_distributions_are_refused(text):
    with pytest.raises(ConfigError, match="shots"):
        distribution(text)


def test_numbers_come_as_often_as_their_weights_say():
    found = Counter(
        counts(bases([str(i) for i in range(8000)], 0, "x"), distribution("0:1,2:1,5:2")).tolist()
    )
    expected = {0: 2000, 2: 2000, 5: 4000}
    assert set(found) == set(expected)
    assert sum((found[k] - n) ** 2 / n for k, n in expected.items()) < 13.82  # 99.9 %, 2 degrees of freedom


def test_drawn_numbers_are_uniform_and_differ_by_purpose():
    base = bases([str(i) for i in range(6000)], 0, "x")
    one, other = drawn(base, "a", 6), drawn(base, "b", 6)
    for values in (one, other, one * 6 + other):
        found = np.bincount(values)
        expected = 6000 / len(found)
        chi = ((found - expected) ** 2 / expected).sum()
        assert chi < 20.5 if len(found) == 6 else chi < 66.6  # 99.9 % of 5 and of 35 degrees of freedom


# which


def test_every_place_is_filled_and_no_exemplar_is_the_query_or_stands_twice():
    chosen = choose(rows(), rows(), np.full(60, 8), seed=1)
    assert (chosen >= 0).all()
    for query, row in enumerate(chosen.tolist()):
        assert query not in row
        assert len(set(row)) == len(row)


def test_duplicates_of_the_query_are_never_exemplars():
    keys = [f"key {i % 4}" for i in range(60)]  # fifteen copies of each of four
    chosen = choose(rows(keys=keys), rows(keys=keys), np.full(60, 5), seed=1)
    for query, row in enumerate(chosen.tolist()):
        own = [keys[i] for i in row if i >= 0]
        assert keys[query] not in own
        assert len(own) == len(set(own)) == 3  # there are only three others; the gap is on the far side
        assert row[:2] == [-1, -1]


@given(st.permutations(range(20)), st.integers(0, 3))
def test_the_order_of_rows_changes_nothing(order, seed):
    ids = [f"id {i}" for i in range(20)]
    wanted = np.arange(20) % 4
    straight = choose(rows(ids), rows(ids), wanted, seed)
    mixed_ids = [ids[i] for i in order]
    mixed = choose(rows(mixed_ids), rows(mixed_ids), wanted[list(order)], seed)
    for place, i in enumerate(order):
        width = max(straight.shape[1], mixed.shape[1])
        one = [ids[j] for j in straight[i] if j >= 0]
        other = [mixed_ids[j] for j in mixed[place] if j >= 0]
        assert one == other, width


def test_a_batch_of_queries_gets_what_all_would_get():
    whole = choose(rows(), rows(), np.full(60, 4), seed=3)
    part = choose(rows(IDS[20:30]), rows(), np.full(10, 4), seed=3)
    assert (part == whole[20:30]).all()


def test_exemplars_are_drawn_evenly():
    chosen = choose(rows([f"q{i}" for i in range(6000)]), rows(), np.full(6000, 3), seed=0)
    found = np.bincount(chosen.ravel(), minlength=60)
    assert ((found - 300) ** 2 / 300).sum() < 98.3  # 99.9 % of chi-squared with 59 degrees of freedom


def test_another_seed_or_epoch_chooses_and_orders_anew():
    same = choose(rows(), rows(), np.full(60, 5), seed=0)
    assert (same == choose(rows(), rows(), np.full(60, 5), seed=0)).all()
    assert (same != choose(rows(), rows(), np.full(60, 5), seed=1)).any(axis=1).all()
    epoch = choose(rows(), rows(), np.full(60, 5), seed=0, epoch=1)
    assert (same != epoch).any(axis=1).all()
    # Whole pool as exemplars: only the order is left to draw.
    few = IDS[:6]
    first, second = (choose(rows(few), rows(few), np.full(6, 5), 0, epoch=e) for e in (0, 1))
    assert (np.sort(first) == np.sort(second)).all()
    assert (first != second).any()


def test_labels_take_turns():
    labels = ["yes" if i < 50 else "no" if i < 57 else "maybe" for i in range(60)]
    chosen = choose(rows(), rows(labels=labels), np.full(60, 6), seed=0, balance=True)
    for query, row in enumerate(chosen.tolist()):
        found = Counter(labels[i] for i in row)
        if labels[query] != "maybe":  # of which there are three, so the query's own needs another label
            assert found == {"yes": 2, "no": 2, "maybe": 2}
        assert query not in row
    unbalanced = choose(rows(), rows(labels=labels), np.full(60, 6), seed=0)
    assert Counter(labels[i] for i in unbalanced.ravel())["yes"] > 200


def test_a_label_without_another_row_gives_its_place_to_others():
    labels = ["a"] * 9 + ["b"]
    ids = IDS[:10]
    chosen = choose(rows(ids), rows(ids, labels=labels), np.full(10, 4), seed=0, balance=True)
    assert (chosen >= 0).all()


def test_pools_that_are_too_small_leave_gaps():
    assert choose(rows(IDS[:1]), rows(IDS[:1]), np.full(1, 3), 0).tolist() == [[-1, -1, -1]]
    assert choose(rows(IDS[:2]), rows([]), np.full(2, 3), 0).tolist() == [[-1, -1, -1]] * 2
    assert choose(rows(IDS[:2]), rows(), np.zeros(2, np.int64), 0).shape == (2, 0)


# what fits


@given(
    st.lists(st.lists(st.integers(0, 30), min_size=4, max_size=4), min_size=1, max_size=20),
    st.integers(0, 80),
)
def test_the_budget_drops_whole_exemplars_from_the_far_end(lengths, budget):
    tokens = np.array(lengths)
    chosen = np.arange(tokens.size).reshape(tokens.shape)
    left = within(chosen, tokens, budget)
    for row, kept, lens in zip(chosen.tolist(), left.tolist(), lengths, strict=True):
        number = max(k for k in range(5) if sum(lens[4 - k :]) <= budget)
        assert [i for i in kept if i >= 0] == row[4 - number :]


def test_missing_exemplars_cost_nothing():
    chosen = np.array([[-1, 3, 4]])
    assert within(chosen, np.array([[99, 5, 5]]), 10).tolist() == [[-1, 3, 4]]
    assert within(chosen, np.array([[0, 5, 5]]), 9).tolist() == [[-1, -1, 4]]
    assert within(chosen, np.array([[0, 5, 5]]), 4).tolist() == [[-1, -1, -1]]


# how it is written


def test_prompts_hold_exemplars_in_order_and_the_query_last():
    shots = np.array([2, 0, 1])
    base = bases(["a", "b", "c"], 0, "m")
    made = strung(
        pa.array(["in 1", "in 2", "in 3"]), pa.array(["out 1", "out 2", "out 3"]), shots,
        pa.array(["query a", "query b", "query c"]), base,
    )  # fmt: skip
    one, two, three = made.prompts.to_pylist()
    places = [one.index(text) for text in ("in 1", "out 1", "in 2", "out 2", "query a")]
    assert places == sorted(places)
    assert two == "query b"  # a row without exemplars is as it was
    assert three.index("in 3") < three.index("out 3") < three.index("query c")
    assert not one.endswith((" ", "\n"))


def test_marks_are_drawn_for_each_prompt_and_do_not_depend_on_the_batch(monkeypatch):
    from taskmill.mix import fewshot

    count = 600
    ids = [str(i) for i in range(count)]
    base, shots = bases(ids, 0, "m"), np.full(count, 1)
    texts = [pa.array([f"{kind}{i}" for i in range(count)]) for kind in ("in ", "out ", "query ")]
    made = strung(texts[0], texts[1], shots, texts[2], base)
    assert len(set(made.marks.tolist())) > 150
    monkeypatch.setattr(fewshot, "_TOGETHER", 7)
    assert strung(texts[0], texts[1], shots, texts[2], base).prompts.equals(made.prompts)


def test_a_text_that_ends_in_a_cue_gets_no_second_one():
    count = 200
    base = bases([str(i) for i in range(count)], 0, "m")
    cued = pa.array(["Question?\nAnswer:"] * count)
    made = strung(cued, pa.array(["yes"] * count), np.full(count, 1), cued, base)
    assert all(p.startswith("Question?") and p.endswith("Answer:") for p in made.prompts.to_pylist())
    assert all(p.count("Answer:") == 2 for p in made.prompts.to_pylist())


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=20), min_size=3, max_size=3))
def test_texts_survive_as_they_are(texts):
    made = strung(
        pa.array(texts[:1]), pa.array(texts[1:2]), np.array([1]), pa.array(texts[2:]), bases(["x"], 0, "m")
    )
    (prompt,) = made.prompts.to_pylist()
    first = prompt.index(texts[0])
    second = prompt.index(texts[1], first + len(texts[0]))
    assert texts[2] in prompt[second + len(texts[1]) :]


# from raw text


def test_neighbours_are_those_of_brute_force_with_the_nearest_last():
    vectors = np.random.Generator(np.random.PCG64(0)).standard_normal((40, 6))
    keys = [f"text {i:02}" for i in range(40)]
    keys[7] = keys[3]  # a duplicate: never the neighbour of its twin
    vectors[7] = vectors[3]
    found = nearest_texts(keys, vectors, 4)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for i, row in enumerate(found.tolist()):
        ranked = sorted(range(40), key=lambda j, i=i: (-(unit[i] @ unit[j]), keys[j]))
        best = []
        for j in ranked:
            if keys[j] != keys[i] and keys[j] not in {keys[b] for b in best}:
                best.append(j)
        assert [keys[j] for j in row] == [keys[j] for j in best[:4][::-1]]


def test_few_texts_leave_gaps_on_the_far_side():
    found = nearest_texts(["a", "b"], np.eye(2), 3)
    assert found.tolist() == [[-1, -1, 1], [-1, -1, 0]]
    assert chained(["one", "two"], found) == ["two\n\none", "one\n\ntwo"]
