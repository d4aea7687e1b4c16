"""Replay: every strategy's scores against whole matrices of cosines, ties by id, both kinds of budgets."""

import itertools
import json
from math import log

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill import cli
from taskmill.errors import ConfigError, InputError, UsageError
from taskmill.grow.replay import STRATEGIES, Tasks, complexity, order, score, spend, wasserstein
from taskmill.recipes.grow import AddConfig, add
from taskmill.recipes.replay import ReplayConfig, ordered, replay

WIDTH = 6


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def tasks(count, seed, prefix="p", wordings=1):
    rng = np.random.default_rng(seed)
    words = ["sort", "name", "count", "list", "of", "the", "a", "rhyme"]
    return Tasks(
        [f"{prefix}{i:02}" for i in range(count)],
        [unit(rng.normal(size=(wordings, WIDTH))) for _ in range(count)],
        [" ".join(rng.choice(words, 4)) for _ in range(count)],
        rng.normal(size=(count, WIDTH)).astype(np.float32),
    )


def cosines(a, b):
    a, b = (
        x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True) for x in (a, b)
    )
    return a @ b.T


def plain(strategy, earlier, new):
    """The scores from the whole matrices S_cp [K, L] and S_pp [L, L], as the strategies are defined."""
    s_cp = cosines(new.instructions, earlier.instructions)
    if strategy == "instruction-diverse":
        return -s_cp.sum(axis=0)
    if strategy == "instruction-similar":
        return s_cp.sum(axis=0)
    if strategy == "instruction-support":
        return cosines(earlier.instructions, earlier.instructions).sum(axis=1)
    if strategy == "data-diverse":
        return -cosines(new.data, earlier.data).sum(axis=0)
    told = [
        sum(log(len(earlier.texts) / sum(w in t.split() for t in earlier.texts)) for w in set(text.split()))
        for text in earlier.texts
    ]
    return (1 - s_cp).mean(axis=0) * np.array(told) / np.mean(told)


@pytest.mark.parametrize(
    "strategy", ["instruction-diverse", "instruction-similar", "instruction-support", "data-diverse", "inscl"]
)
@given(count=st.integers(1, 12), other=st.integers(1, 9), seed=st.integers(0, 999))
def test_scores_are_those_of_the_whole_matrices(strategy, count, other, seed):
    earlier, new = tasks(count, seed), tasks(other, seed + 1, "c")
    expected = plain(strategy, earlier, new) if strategy != "inscl" or len(set(earlier.texts)) > 1 else None
    if expected is None or not np.isfinite(expected).all():
        return  # one text tells nothing of itself
    assert score(strategy, earlier, new, 0) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("strategy", [s for s in STRATEGIES if s != "none"])
def test_the_order_of_tasks_does_not_matter_and_ties_go_by_id(strategy):
    earlier, new = tasks(9, 3), tasks(4, 4, "c")
    twin = 4  # a task with the very instruction, data and words of the first one
    wordings, texts, data = list(earlier.wordings), list(earlier.texts), earlier.data.copy()
    wordings[twin], texts[twin], data[twin] = wordings[0], texts[0], data[0]
    earlier = Tasks(earlier.ids, wordings, texts, data)
    first = [earlier.ids[i] for i in ordered(strategy, earlier, new, 7).order]
    assert sorted(first) == list(earlier.ids)
    for seed in range(3):
        p, c = np.random.default_rng(seed).permutation(9), np.random.default_rng(seed).permutation(4)

        def moved(t, by):
            return Tasks(
                [t.ids[i] for i in by], [t.wordings[i] for i in by], [t.texts[i] for i in by], t.data[by]
            )

        again = moved(earlier, p)
        assert [again.ids[i] for i in ordered(strategy, again, moved(new, c), 7).order] == first
    if strategy.startswith(("instruction", "data", "inscl")):
        assert abs(first.index("p00") - first.index("p04")) == 1
        assert first.index("p00") < first.index("p04")


def test_the_paper_s_strategies_pick_what_their_names_say():
    east, north, between = unit(np.array([[1.0, 0], [0, 1.0], [1.0, 1.0]]))
    earlier = Tasks(["east", "north"], [east[None], north[None]], ["a", "b"])
    new = Tasks(["c"], [unit(np.array([[1.0, 0.2]]))], ["c"])
    assert order(earlier.ids, score("instruction-diverse", earlier, new, 0)) == [1, 0]
    assert order(earlier.ids, score("instruction-similar", earlier, new, 0)) == [0, 1]
    three = Tasks(["a", "b", "c"], [east[None], north[None], between[None]], ["a", "b", "c"])
    assert order(three.ids, score("instruction-support", three, new, 0))[0] == 2


def test_chance_is_the_seed_s_and_even():
    earlier, new = tasks(8, 0), tasks(2, 1, "c")
    firsts = [ordered("random", earlier, new, seed).order[0] for seed in range(400)]
    assert ordered("random", earlier, new, 5).order == ordered("random", earlier, new, 5).order
    assert set(firsts) == set(range(8))
    assert max(firsts.count(i) for i in range(8)) < 90  # 50 each, and 5 standard deviations


def test_none_and_unknown_strategies():
    earlier, new = tasks(3, 0), tasks(2, 1, "c")
    assert ordered("none", earlier, new, 0).order == []
    with pytest.raises(UsageError, match="instruction-diverse"):
        score("instruction-divers", earlier, new, 0)
    with pytest.raises(UsageError, match="take another"):
        score("data-diverse", Tasks(["a"], [unit(np.ones((1, 2)))], ["a"]), new, 0)


def test_k_center_takes_the_farthest_from_the_new_tasks_and_from_each_other():
    earlier, new = tasks(10, 5), tasks(3, 6, "c")
    found = ordered("k-center", earlier, new, 0)
    chosen = [*new.instructions.astype(np.float64)]
    vectors = earlier.instructions.astype(np.float64)
    for i in found.order:
        nearest = np.array([min(np.linalg.norm(v - c) for c in chosen) for v in vectors])
        assert nearest[i] == pytest.approx(nearest.max(), abs=1e-6)
        assert found.scores[i] == pytest.approx(nearest[i], abs=1e-4)
        chosen.append(vectors[i])


def test_herding_keeps_the_running_mean_near_the_mean():
    earlier = tasks(10, 8)
    found = ordered("herding", earlier, tasks(2, 9, "c"), 0)
    vectors = earlier.instructions.astype(np.float64)
    mean, total, left = vectors.mean(axis=0), np.zeros(WIDTH), set(range(10))
    for step, i in enumerate(found.order):
        values = {j: vectors[j] @ ((step + 1) * mean - total) for j in left}
        assert values[i] == pytest.approx(max(values.values()), abs=1e-6)
        total += vectors[i]
        left.remove(i)


# Wasserstein


@given(size=st.integers(2, 5), seed=st.integers(0, 500))
def test_the_distance_is_within_its_blur_of_the_best_assignment(size, seed):
    rng = np.random.default_rng(seed)
    a, b = unit(rng.normal(size=(size, WIDTH))), unit(rng.normal(size=(size, WIDTH)))
    cost = 1 - cosines(a, b)
    best = min(np.mean([cost[i, p[i]] for i in range(size)]) for p in itertools.permutations(range(size)))
    assert best - 0.01 <= wasserstein(a, b) <= best + 0.01 * log(size) + 0.01


def test_of_one_point_it_is_the_mean_distance_and_of_equal_sets_nothing():
    rng = np.random.default_rng(1)
    a, b = unit(rng.normal(size=(1, WIDTH))), unit(rng.normal(size=(7, WIDTH)))
    assert wasserstein(a, b) == pytest.approx(float((1 - cosines(a, b)).mean()))
    assert wasserstein(b, a) == pytest.approx(wasserstein(a, b))
    assert wasserstein(b, b[::-1]) < 0.01 * log(7)
    twice = np.concatenate([a, a])
    assert wasserstein(twice, b) == pytest.approx(wasserstein(a, b), abs=0.02)


def test_rare_words_tell_more():
    told = complexity(["sort the list", "sort the words", "sort the xylophones by Octave"])
    assert told[2] == pytest.approx(3 * log(3))
    assert told[0] == pytest.approx(log(3))
    assert complexity(["same", "same"]).tolist() == [0, 0]


# budgets


@given(
    tokens=st.lists(st.lists(st.integers(0, 50), max_size=8), max_size=6),
    count=st.none() | st.integers(1, 7),
    limit=st.none() | st.integers(1, 200),
    per_task=st.integers(0, 4),
)
def test_no_budget_is_overspent_and_nothing_that_fits_is_left(tokens, count, limit, per_task):
    chosen = spend(tokens, tasks=count, limit=limit, per_task=per_task)
    assert len(chosen) == (len(tokens) if count is None else min(count, len(tokens)))
    spent = sum(max(1, tokens[i][at]) for i, own in enumerate(chosen) for at in own)
    for i, own in enumerate(chosen):
        assert own == sorted(set(own))
        assert not per_task or len(own) <= per_task
        if limit is None:
            assert own == list(range(len(tokens[i][: per_task or None])))
    if limit is not None:
        assert spent <= limit
        rest = [
            max(1, cost)
            for i, own in enumerate(chosen)
            for at, cost in enumerate(tokens[i][: per_task or None])
            if at not in own
        ]
        assert all(cost > limit - spent for cost in rest)


def test_tokens_alone_go_to_one_task_after_the_other_and_with_tasks_evenly():
    tokens = [[10] * 5, [10] * 5, [10] * 5]
    assert [len(own) for own in spend(tokens, limit=70)] == [5, 2, 0]
    assert [len(own) for own in spend(tokens, limit=60, tasks=3)] == [2, 2, 2]
    assert [len(own) for own in spend(tokens, limit=60, tasks=2, per_task=1)] == [1, 1]
    assert [len(own) for own in spend(tokens, limit=80, tasks=3, shares=[5.0, 2.0, 1.0])] == [5, 2, 1]


# the command


def reviews(path, word, rows=24):
    table = pa.table(
        {
            "review": [
                f"the {word} was number {i} of many, and {'very good' if i % 2 else 'dull'}"
                for i in range(rows)
            ],
            "label": [("negative", "positive")[i % 2] for i in range(rows)],
        }
    )
    pq.write_table(table, path)
    return str(path)


@pytest.fixture
def registry(tmp_path):
    sources = tuple(reviews(tmp_path / f"{word}.parquet", word) for word in ("film", "meal", "train"))
    add(AddConfig(sources=sources, registry=str(tmp_path / "registry")))
    return tmp_path / "registry"


@pytest.fixture
def new(tmp_path):
    path = tmp_path / "new.jsonl"
    lines = [
        {
            "task_name": "a",
            "instruction": "Write a review of the given label.",
            "input_fields": ["label"],
            "output_field": "review",
        },
        {
            "task_name": "b",
            "instruction": "Count the words of the text.",
            "input_fields": ["review"],
            "output_field": "n",
        },
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_command_replays_rows_of_the_registry(registry, new, tmp_path, capsys, strategy):
    out = tmp_path / "out.parquet"
    words = [
        "grow",
        "replay",
        "--registry",
        str(registry),
        "--new",
        new,
        "--strategy",
        strategy,
        "--embedder",
        "hash",
    ]
    with pytest.raises(SystemExit) as end:
        cli.main([*words, "--budget", "3", "--out", str(out), "--json"])
    assert end.value.code == 0
    found = json.loads(capsys.readouterr().out)
    lines = found["replayed"]
    assert len(lines) == (0 if strategy == "none" else 3)
    rows = pq.read_table(out)
    assert len(rows) == found["rows"] == sum(line["rows"] for line in lines)
    assert rows["id"].to_pylist() == sorted(rows["id"].to_pylist())
    there = {
        name
        for part in (registry / "versions" / "00000001" / "1-grow" / "kept").glob("*")
        for name in pq.read_table(part)["id"].to_pylist()
    }
    assert set(rows["id"].to_pylist()) <= there
    if strategy not in ("none", "random"):
        scores = [line["score"] for line in lines]
        assert strategy in ("k-center", "herding") or scores == sorted(scores, reverse=True)


def test_most_and_least_alike_are_at_opposite_ends(registry, new):
    def first(strategy, budget="1"):
        config = ReplayConfig(
            registry=str(registry), new=new, strategy=strategy, budget=budget, embedder="hash"
        )
        return [line["task"] for line in replay(config)["replayed"]]

    whole = first("instruction-similar", "100")
    assert first("instruction-similar")[0] == whole[0]
    least = ReplayConfig(
        registry=str(registry), new=new, strategy="instruction-diverse", budget="100", embedder="hash"
    )
    scores = {line["task"]: line["score"] for line in replay(least)["replayed"]}
    alike = ReplayConfig(
        registry=str(registry), new=new, strategy="instruction-similar", budget="100", embedder="hash"
    )
    for line in replay(alike)["replayed"]:
        assert scores[line["task"]] == pytest.approx(-line["score"])


def test_token_budgets_and_rows_a_task(registry, new):
    def found(budget, **more):
        return replay(ReplayConfig(registry=str(registry), new=new, budget=budget, embedder="hash", **more))

    assert found("200tok")["tokens"] <= 200
    both = found("2,200tok")
    assert both["tokens"] <= 200
    assert len(both["replayed"]) == 2
    assert all(line["rows"] == 3 for line in found("3", per_task=3)["replayed"])
    for wrong in ("", "0", "many", "10%"):
        with pytest.raises(ConfigError, match="2000tok"):
            found(wrong)


def test_a_version_is_ranked_against_the_next_and_shared_tasks_are_not_earlier(registry, tmp_path):
    add(AddConfig(sources=(reviews(tmp_path / "boat.parquet", "boat"),), registry=str(registry)))
    newer = str(registry / "versions" / "00000002")
    config = ReplayConfig(registry=str(registry), version=1, new=newer, budget="5", embedder="hash")
    found = replay(config)
    assert (found["earlier_tasks"], found["new_tasks"]) == (0, 8)  # version 2 has all tasks of version 1
    only = tmp_path / "only.parquet"
    rows = pq.read_table(sorted((registry / "versions" / "00000002" / "1-grow" / "kept").glob("*")))
    datasets = [source["dataset"] for source in rows["source"].to_pylist()]
    pq.write_table(rows.filter(pa.array([name == "boat" for name in datasets])), only)
    config = ReplayConfig(registry=str(registry), new=str(only), budget="5", embedder="hash")
    found = replay(config)
    assert (found["earlier_tasks"], found["new_tasks"]) == (6, 2)
    assert "boat" not in {line["dataset"] for line in found["replayed"]}


@pytest.mark.parametrize("budget", ["3,4", "5tok,6tokens"])
def test_a_budget_says_each_kind_once(budget):
    with pytest.raises(ConfigError, match="twice"):
        ReplayConfig(registry="r", new="n", budget=budget)


def test_proposals_may_be_spelt_as_other_tools_do(registry, tmp_path):
    listed = [
        {"instruction": "Write two lines that rhyme.", "input_fields": ["a"], "output_field": ["poem"]},
        {"instruction": "Say it shorter.", "input_fields": "a", "output_field": "short"},
        {"instruction": "Give both.", "input_fields": ["a", "b"], "output_field": ["c", "d"]},
    ]
    forms = {
        "lines.jsonl": "".join(json.dumps(one) + "\n" for one in listed),
        "list.json": json.dumps(listed, indent=1),
        "reply.jsonl": json.dumps({f"task{i}": one for i, one in enumerate(listed)}),
    }
    found = []
    for name, text in forms.items():
        (tmp_path / name).write_text(text)
        config = ReplayConfig(registry=str(registry), new=str(tmp_path / name), budget="3", embedder="hash")
        found.append(replay(config))
    assert found[0]["new_tasks"] == 3
    assert found[0] == found[1] == found[2]
    (tmp_path / "none.jsonl").write_text(json.dumps(listed[0] | {"instruction": ""}))
    with pytest.raises(InputError, match=r"row 0 .* no instruction"):
        replay(ReplayConfig(registry=str(registry), new=str(tmp_path / "none.jsonl"), budget="3"))


def test_what_is_missing_is_said(registry, new, tmp_path):
    with pytest.raises(UsageError, match="no registry"):
        replay(ReplayConfig(registry=str(tmp_path / "none"), new=new, budget="2"))
    with pytest.raises(UsageError, match="no version 7"):
        replay(ReplayConfig(registry=str(registry), new=new, budget="2", version=7))
    (tmp_path / "odd.jsonl").write_text('{"words": 3}\n')
    with pytest.raises(InputError, match="no column instruction"):
        replay(ReplayConfig(registry=str(registry), new=str(tmp_path / "odd.jsonl"), budget="2"))
