"""Selectors by score, likeness or likelihood: each against a plain reading of its definition."""

from __future__ import annotations

import hashlib
import math
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba", reason="numba is not installed")

from taskmill.backends import GENERATORS
from taskmill.calls import Scores
from taskmill.errors import BackendError, ConfigError, InputError, UsageError
from taskmill.select import Budget, Pool, make
from taskmill.select.deita import spread
from taskmill.select.dsir import gumbel, log_weights, reference_weights
from taskmill.select.likelihood import ifd, losses
from taskmill.select.rds import herd, round_robin
from taskmill.select.semdedup import redundancy
from taskmill.select.simple import by_group

EXAMPLES = settings(max_examples=25, deadline=None, derandomize=True)
WORDS = ["law", "court", "judge", "goal", "match", "team", "the", "a", "of", "to"]


def clouds(seed, rows=40, width=6, twins=True):
    """Unit vectors in clusters; some rows are equal, one is zero."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(5, width))[rng.integers(0, 5, rows)] + 0.4 * rng.normal(size=(rows, width))
    if twins and rows > 8:
        vectors[3] = vectors[7] = vectors[1]
        vectors[5] = 0
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths, lengths, 1)).astype(np.float32)


def sentences(seed, rows=30, topic=None):
    rng = np.random.default_rng(seed)
    chosen = WORDS if topic is None else [*WORDS[topic : topic + 3], *WORDS[6:]]
    return [" ".join(rng.choice(chosen, rng.integers(1, 20))) for _ in range(rows)]


class Known:
    """A model of words: a word of the prompt has the probability 1/2, any other 1/8; "broken" is refused."""

    model = "known:"

    def __init__(self):
        self.asked = []

    def score(self, requests):
        for request in reversed(list(requests)):
            self.asked.append(request)
            (text,) = request.choices
            if "broken" in text:
                yield Scores(request.key, error="it is broken")
                continue
            seen = request.prompt.split()
            chances = [1 / 2 if word in seen else 1 / 8 for word in text.split()]
            yield Scores(request.key, (sum(map(math.log, chances)),), (len(chances),))


@pytest.fixture(autouse=True)
def known():
    GENERATORS.register("known", lambda *_: Known())
    yield
    GENERATORS.unregister("known")


def make_pool(seed=0, rows=40, start=(), **own):
    rng = np.random.default_rng(seed + 100)
    vectors = clouds(seed, rows)
    texts = sentences(seed, rows)
    table = pa.table(
        {
            "instruction": sentences(seed + 1, rows),
            "response": [*texts[:-1], "broken"],
            "score": rng.integers(0, 6, rows).astype(float),
            "quality": rng.random(rows),
        }
    )
    target = Pool(
        pa.array([f"q{i}" for i in range(6)]),
        np.ones(6, np.int64),
        clouds(seed + 2, 6, twins=False),
        pa.array(sentences(seed + 3, 6, topic=0)),
        pa.array(["b", "a", "b", "c", "a", "b"]),
    )
    given = {
        "ids": pa.array([f"r{i:03}" for i in rng.permutation(rows)]),
        "tokens": rng.integers(1, 9, rows),
        "embeddings": vectors,
        "texts": pa.array([*texts[:-1], "broken"]),
        "table": table,
        "start": np.array(start, np.int64),
        "target": target,
    }
    return Pool(**{**given, **own})


def chosen(pool, selection):
    return pool.ids.take(selection.rows).to_pylist()


SELECTORS = {
    "dsir": {},
    "score": {"scores": ["score", "quality"]},
    "deita": {"scores": ["score", "quality"], "threshold": 0.8},
    "semdedup": {},
    "rds": {},
    "herding": {},
    "ifd": {"model": "known:"},
    "perplexity": {"model": "known:", "band": "mid"},
}


# What holds for all


@pytest.mark.parametrize("name", SELECTORS)
@pytest.mark.parametrize("budget", ["1", "7", "25%", "60tok", "40"])
def test_the_order_of_the_pool_does_not_change_a_choice(name, budget):
    pool = make_pool()
    selector, wanted = make(name, SELECTORS[name]), Budget.parse(budget)
    first = selector.pick(pool, wanted, 3)
    order = np.random.default_rng(5).permutation(len(pool))
    second = selector.pick(pool.take(order), wanted, 3)
    assert chosen(pool, first) == chosen(pool.take(order), second)
    np.testing.assert_allclose(first.scores, second.scores, atol=1e-6)
    assert len(set(first.rows.tolist())) == len(first.rows)
    assert np.isfinite(first.scores).all()


@pytest.mark.parametrize("name", SELECTORS)
def test_a_smaller_budget_is_a_prefix_and_budgets_are_filled(name):
    pool, selector = make_pool(1), make(name, SELECTORS[name])
    whole = chosen(pool, selector.pick(pool, Budget(rows=40), 3))
    if name not in ("ifd", "perplexity"):
        assert sorted(whole) == sorted(pool.ids.to_pylist())
    for rows in (1, 2, 5, 13, 39):
        assert chosen(pool, selector.pick(pool, Budget(rows=rows), 3)) == whole[:rows]
    for tokens in (1, 10, 55, 1000):
        found = selector.pick(pool, Budget(tokens=tokens), 3)
        spent = int(pool.tokens[found.rows].sum())
        rest = [pool.tokens[row] for row, one in enumerate(pool.ids.to_pylist()) if one in whole]
        left = Counter(rest) - Counter(pool.tokens[found.rows].tolist())
        assert spent <= tokens < spent + min(left, default=math.inf)


@pytest.mark.parametrize("name", SELECTORS)
def test_what_is_chosen_already_comes_first(name):
    pool, selector = make_pool(2, start=(9, 4)), make(name, SELECTORS[name])
    found = selector.pick(pool, Budget(rows=8), 3)
    assert found.rows[:2].tolist() == [9, 4]
    assert len(set(found.rows.tolist())) == 8


@pytest.mark.parametrize("name", ["deita", "semdedup", "rds", "herding"])
def test_a_row_without_a_vector_comes_last(name):
    pool = make_pool(3)
    assert make(name, SELECTORS[name]).pick(pool, Budget(rows=40), 0).rows[-1] == 5


@pytest.mark.parametrize("name", SELECTORS)
def test_what_is_missing_is_named(name):
    bare = Pool(pa.array(["a", "b"]), np.array([1, 1]))
    with pytest.raises(UsageError, match=r"--(text|target|embeddings)|[Cc]olumns|embeddings"):
        make(name, SELECTORS[name]).pick(bare, Budget(rows=1), 0)


# DSIR


def plain_weights(raw, target, buckets, smoothing, length):
    """Dense count vectors, shares, dot products: DSIR as it is written down."""
    from taskmill.kernels.words import ngrams, words

    def features(text):
        found = words(pa.array([text]))
        row = np.zeros(buckets)
        for value in [*found.hashes.tolist(), *ngrams(found, 2)[0].tolist()]:
            row[(value >> 32) * buckets >> 32] += 1
        return row

    rows, wanted = [features(text) for text in raw], sum(features(text) for text in target)
    pool = sum(rows)
    p, q = ((c + smoothing) / (c.sum() + buckets * smoothing) for c in (wanted, pool))
    sums = np.array([row @ (np.log(p) - np.log(q)) for row in rows])
    sizes = np.array([row.sum() for row in rows])
    if length == "mean":
        sums = sums / np.maximum(sizes, 1) * np.median(sizes[sizes > 0])
    return np.where(sizes > 0, sums, -np.inf)


@pytest.mark.parametrize("length", ["mean", "sum"])
@pytest.mark.parametrize("buckets", [3, 10_000])
def test_log_weights_equal_dense_numpy(length, buckets):
    raw, target = [*sentences(0), "", "?"], sentences(1, 5, topic=0)
    found = log_weights(pa.array(raw), pa.array(target), buckets, 0.5, length)
    np.testing.assert_allclose(found, plain_weights(raw, target, buckets, 0.5, length), atol=1e-9)


def published(raw, target, buckets=10_000):
    """The published method in its own order of steps: nltk's word pattern by hand, SHA-256, dense vectors."""

    def split(text):
        found, kind = [], ""
        for sign in text.lower():
            now = "word" if sign.isalnum() or sign == "_" else "" if sign.isspace() else "other"
            if now and now == kind:
                found[-1] += sign
            elif now:
                found.append(sign)
            kind = now
        return found

    def features(text):
        row, found = np.zeros(buckets, int), split(text)
        for gram in [*found, *(" ".join(found[i : i + 2]) for i in range(len(found) - 1))]:
            row[int(hashlib.sha256(gram.encode()).hexdigest(), 16) % buckets] += 1
        return row

    rows = np.array([features(text) for text in raw])
    p, q = sum(features(text) for text in target), rows.sum(axis=0)
    return rows @ (np.log(p / p.sum() + 1e-8) - np.log(q / q.sum() + 1e-8))


def test_reference_mode_ranks_as_the_published_method():
    raw = [*(f"{text}, isn't it? {i}%" for i, text in enumerate(sentences(0))), "", "É_1 «x»…"]
    target = [f"{text}! It's_so." for text in sentences(1, 5, topic=0)]
    found, wanted = reference_weights(pa.array(raw), pa.array(target)), published(raw, target)
    np.testing.assert_allclose(found, wanted, atol=1e-9)
    pool = Pool(
        pa.array([f"{i:02}" for i in range(len(raw))]),
        np.ones(len(raw), np.int64),
        texts=pa.array(raw),
        target=Pool(pa.array(list("abcde")), np.ones(5, np.int64), texts=pa.array(target)),
    )
    ranked = make("dsir", {"length": "reference", "noise": False}).pick(pool, Budget(rows=len(raw)), 0)
    assert ranked.rows.tolist() == np.argsort(-np.round(wanted, 9), kind="stable").tolist()


def test_dsir_finds_the_topic_of_the_target_whatever_the_length_of_the_rows():
    law, sport = sentences(0, 50, topic=0), sentences(1, 50, topic=3)
    pool = Pool(
        pa.array([f"{i:03}" for i in range(101)]),
        np.ones(101, np.int64),
        texts=pa.array([*sport, *law, ""]),
        target=Pool(pa.array(["t"]), np.array([1]), texts=pa.array([" ".join(sentences(7, 20, topic=0))])),
    )
    found = make("dsir", {"noise": False}).pick(pool, Budget(rows=101), 0)
    of_law = [50 <= row < 100 for row in found.rows[:40]]
    assert sum(of_law) == 40
    assert found.rows[-1] == 100
    assert found.evidence["rows_without_words"] == 1


def test_gumbel_draws_in_proportion_to_the_weights():
    ids, shares = pa.array(list("abcd")), np.array([0.1, 0.2, 0.3, 0.4])
    first = Counter(int(np.argmax(np.log(shares) + gumbel(ids, seed))) for seed in range(4000))
    for row, share in enumerate(shares):  # five standard deviations
        assert abs(first[row] - 4000 * share) < 5 * math.sqrt(4000 * share * (1 - share))
    np.testing.assert_array_equal(gumbel(ids, 1)[::-1], gumbel(ids[::-1], 1))
    assert not np.array_equal(gumbel(ids, 1), gumbel(ids, 2))


def test_dsir_refuses_a_target_without_words():
    pool = make_pool(target=Pool(pa.array(["t"]), np.array([1]), texts=pa.array(["\n "])))
    for length in ("mean", "reference"):
        with pytest.raises(InputError, match="no text of the target holds a word"):
            make("dsir", {"length": length}).pick(pool, Budget(rows=1), 0)


# DEITA


def plain_spread(vectors, order, threshold, given):
    kept = []
    for at, row in enumerate(order):
        near = max((float(vectors[row].astype(float) @ vectors[other]) for other in kept), default=-1)
        if at < given or near < threshold:
            kept.append(row)
    return kept


@EXAMPLES
@given(
    seed=st.integers(0, 10_000),
    threshold=st.sampled_from([0.3, 0.7, 0.9, 0.99]),
    given=st.integers(0, 5),
    rows=st.integers(0, 60),
)
def test_spread_equals_the_plain_loop_at_every_batch_size(seed, threshold, given, rows):
    vectors = clouds(seed, rows)
    order = np.random.default_rng(seed).permutation(rows)
    wanted = plain_spread(vectors, order.tolist(), threshold, given)
    for batch in (1, 2, 7, 32, 1024):
        found = list(spread(vectors, order, threshold, given, batch))
        assert [row for row, _ in found] == order.tolist()
        assert [row for row, keep in found if keep] == wanted


def test_deita_keeps_the_best_of_each_neighbourhood_and_fills_up_by_score():
    pool = make_pool(4)
    scores = pool.table["score"].to_numpy() * pool.table["quality"].to_numpy()
    ranked = sorted((row for row in range(40) if row != 5), key=lambda row: (-scores[row], pool.rank[row]))
    kept = plain_spread(pool.embeddings, ranked, 0.8, 0)
    assert 3 < len(kept) < 30
    selector = make("deita", {"scores": "score,quality", "threshold": 0.8})
    found = selector.pick(pool, Budget(rows=len(kept)), 0)
    assert found.rows.tolist() == kept
    assert found.scores.tolist() == scores[kept].tolist()
    assert found.evidence["near_and_chosen"] == 0
    more = selector.pick(pool, Budget(rows=40), 0)
    assert more.rows.tolist() == [*kept, *(row for row in ranked if row not in kept), 5]
    assert more.evidence["near_and_chosen"] == 39 - len(kept)
    for batch in (1, 3, 50):
        again = make("deita", {"scores": "score,quality", "threshold": 0.8, "batch": batch})
        assert again.pick(pool, Budget(rows=40), 0).rows.tolist() == more.rows.tolist()


@pytest.mark.parametrize("keep", ["largest", "smallest"])
def test_rows_are_ranked_by_a_column_of_the_users(keep):
    pool = make_pool(6, start=(7,))
    values = pool.table["quality"].to_numpy()
    sign = 1 if keep == "smallest" else -1
    wanted = sorted((r for r in range(40) if r != 7), key=lambda r: (sign * values[r], pool.rank[r]))
    found = make("score", {"scores": "quality", "keep": keep}).pick(pool, Budget(rows=9), 0)
    assert found.rows.tolist() == [7, *wanted[:8]]
    assert found.scores.tolist() == values[found.rows].tolist()
    with pytest.raises(UsageError, match="score: no column 'entropy'"):
        make("score", {"scores": "entropy"}).pick(pool, Budget(rows=9), 0)


def test_deita_names_a_row_without_a_score():
    pool = make_pool()
    table = pool.table.set_column(2, "score", pa.array([*([1.0] * 39), None]))
    with pytest.raises(InputError, match=pool.ids[39].as_py()):
        make("deita").pick(make_pool(table=table), Budget(rows=1), 0)
    with pytest.raises(UsageError, match="no column 'merit'"):
        make("deita", {"scores": "merit"}).pick(pool, Budget(rows=1), 0)
    with pytest.raises(UsageError, match="not numbers"):
        make("deita", {"scores": "response"}).pick(pool, Budget(rows=1), 0)


# SemDeDup


@EXAMPLES
@given(seed=st.integers(0, 10_000), rows=st.integers(0, 40), block=st.sampled_from([1, 3, 1024]))
def test_redundancy_is_the_largest_product_with_an_earlier_row(seed, rows, block):
    vectors = clouds(seed, rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("taskmill.select.semdedup._ROWS", block)
        found = redundancy(vectors)
    products = np.tril(vectors.astype(float) @ vectors.T, -1) - 9 * np.triu(np.ones((rows, rows)))
    wanted = products.max(axis=1, initial=-9)
    np.testing.assert_allclose(found[1:], wanted[1:], atol=1e-6)
    assert not rows or found[0] == -np.inf


@EXAMPLES
@given(seed=st.integers(0, 10_000))
def test_what_semdedup_chooses_last_is_what_the_paper_drops(seed):
    vectors = clouds(seed)
    pool = make_pool(seed, embeddings=vectors)
    middle = vectors.astype(float)[np.arange(40) != 5].mean(axis=0)
    like = np.round(vectors.astype(float) @ middle, 9)
    order = [row for row in np.lexsort((pool.rank, like)) if row != 5]
    for epsilon in (0.01, 0.1, 0.5):
        kept = {
            row
            for at, row in enumerate(order)
            if max((vectors[row].astype(float) @ vectors[other] for other in order[:at]), default=-1)
            <= 1 - epsilon
        }
        found = make("semdedup", {"epsilon": epsilon}).pick(pool, Budget(rows=len(kept)), 0)
        assert set(found.rows.tolist()) == kept
        assert found.evidence["duplicates"] == 39 - len(kept)
        assert found.evidence["duplicates_chosen"] == 0


def test_semdedup_in_clusters_finds_copies_and_passes_them_over():
    vectors = np.repeat(clouds(0, 30, twins=False), 3, axis=0)
    pool = make_pool(0, 90, embeddings=vectors)
    found = make("semdedup", {"clusters": 4}).pick(pool, Budget(rows=30), 0)
    assert sorted(found.rows // 3) == list(range(30))
    assert found.evidence["duplicates"] >= 60
    firsts = [min(range(3 * i, 3 * i + 3), key=lambda row: pool.rank[row]) for i in range(30)]
    assert sorted(found.rows.tolist()) == firsts


# RDS+ and herding


@EXAMPLES
@given(
    seed=st.integers(0, 10_000), rows=st.integers(1, 30), tasks=st.integers(1, 4), count=st.integers(1, 30)
)
def test_round_robin_equals_the_plain_loop(seed, rows, tasks, count):
    rng = np.random.default_rng(seed)
    scores = [rng.integers(0, 4, rows).astype(np.float32) for _ in range(tasks)]
    rank, free, wanted = rng.permutation(rows), set(range(rows)), []
    while free and len(wanted) < count:
        own = scores[len(wanted) % tasks]
        row = min(free, key=lambda row: (-own[row], rank[row]))
        free.remove(row)
        wanted.append(row)
    found, turns = round_robin(scores, rank, count)
    assert found.tolist() == wanted
    assert turns.tolist() == [at % tasks for at in range(len(wanted))]


def test_rds_takes_the_nearest_rows_to_each_task_in_turn():
    pool = make_pool(6)
    target, names = pool.target.embeddings.astype(float), pool.target.groups.to_pylist()
    cosines = pool.embeddings.astype(float) @ target.T
    best = {name: cosines[:, [i for i, own in enumerate(names) if own == name]].max(axis=1) for name in "abc"}
    free, wanted, scores = set(range(40)) - {5}, [], []
    for at in range(39):
        own = np.round(best["abc"[at % 3]], 6)
        row = min(free, key=lambda row: (-own[row], pool.rank[row]))
        free.remove(row)
        wanted.append(row)
        scores.append(own[row])
    found = make("rds").pick(pool, Budget(rows=39), 0)
    assert found.rows.tolist() == wanted
    np.testing.assert_allclose(found.scores, scores, atol=2e-6)
    assert found.evidence == {"tasks": ["a", "b", "c"], "queries": 6}


def test_rds_refuses_targets_it_cannot_compare():
    narrow = Pool(pa.array(["q"]), np.array([1]), np.ones((1, 3), np.float32))
    with pytest.raises(InputError, match="another width"):
        make("rds").pick(make_pool(target=narrow), Budget(rows=1), 0)
    nothing = Pool(pa.array(["q"]), np.array([1]), np.zeros((1, 6), np.float32))
    with pytest.raises(InputError, match="no row of the target has a vector"):
        make("rds").pick(make_pool(target=nothing), Budget(rows=1), 0)


@EXAMPLES
@given(seed=st.integers(0, 10_000), rows=st.integers(1, 30), given=st.integers(0, 2))
def test_herding_follows_the_mean(seed, rows, given):
    vectors = clouds(seed, rows)
    wide, rank = vectors.astype(float), np.random.default_rng(seed).permutation(rows)
    first = list(range(min(given, rows)))
    chosen, total = [], np.zeros(wide.shape[1])
    for t in range(rows):
        gain = np.round(wide @ ((t + 1) * wide.mean(axis=0) - total), 6)
        free = [row for row in range(rows) if row not in chosen]
        row = first[t] if t < len(first) else min(free, key=lambda row: (-gain[row], rank[row]))
        chosen.append(row)
        total += wide[row]
    assert [row for row, _ in herd(vectors, rank, first)] == chosen


# IFD and perplexity


def test_ifd_is_the_ratio_of_what_the_answer_costs():
    prompts = ["a b\n", "x\n", "a\n", "\n"]
    answers = ["a b", "a b", "a", "a b c"]
    found = ifd(prompts, answers, Known())
    # Behind a prompt that holds the word, ln 2 a word; behind another, or alone, ln 8.
    np.testing.assert_allclose(found.values, [2 / 8, 1, 2 / 8, 1])
    assert found.errors == {}
    by_loss = ifd(prompts, answers, Known(), ratio="loss")
    np.testing.assert_allclose(by_loss.values, [1 / 3, 1, 1 / 3, 1])
    model = Known()
    ifd(["q"], ["one"], model, start="<s>")
    assert sorted((asked.prompt, asked.choices) for asked in model.asked) == [
        ("<s>", ("one",)),
        ("q", ("one",)),
    ]


def test_what_cannot_be_scored_is_reported_and_never_chosen():
    rows = {"instruction": ["a b", "a", "x", "b", "a b"], "response": ["a c", "broken", "y", " ", "a b"]}
    pool = Pool(pa.array(list("vwxyz")), np.ones(5, np.int64), table=pa.table(rows))
    found = make("ifd", {"model": "known:"}).pick(pool, Budget(rows=5), 0)
    assert chosen(pool, found) == ["v", "z"]
    np.testing.assert_allclose(found.scores, [1 / 2, 1 / 4])
    assert found.evidence == {
        "model": "known:",
        "not_below_1": 1,
        "not_scored": [
            {"id": "w", "why": "it is broken"},
            {"id": "y", "why": "there is no text to score"},
        ],
    }
    bad = Pool(
        pa.array(["a"]), np.ones(1, np.int64), table=pa.table({"instruction": ["q"], "response": [""]})
    )
    with pytest.raises(BackendError, match="no row could be scored"):
        make("ifd", {"model": "known:"}).pick(bad, Budget(rows=1), 0)


class Dying(Known):
    """Answers three texts, then the process is gone."""

    def score(self, requests):
        for at, scores in enumerate(super().score(requests)):
            if at == 3:
                raise KeyboardInterrupt
            yield scores


def test_a_killed_choice_goes_on_where_it_stood(own_cache):
    rows = pa.table({"instruction": ["a b", "a", "x", "b"], "response": ["a c", "a", "y", "b b"]})
    pool = Pool(pa.array(list("vwxy")), np.ones(4, np.int64), table=rows)
    model = Dying()
    GENERATORS.register("dying", lambda *_: model)
    try:
        with pytest.raises(KeyboardInterrupt):
            make("ifd", {"model": "dying:"}).pick(pool, Budget(rows=4), 0)
    finally:
        GENERATORS.unregister("dying")
    again = Known()  # of the same name, so its scores are those
    GENERATORS.register("dying", lambda *_: again)
    try:
        found = make("ifd", {"model": "dying:"}).pick(pool, Budget(rows=4), 0)
        assert len(again.asked) == 8 - 3
        make("ifd", {"model": "dying:", "ratio": "loss"}).pick(pool, Budget(rows=1), 0)
        assert len(again.asked) == 8 - 3
    finally:
        GENERATORS.unregister("dying")
    fresh = make("ifd", {"model": "known:"})
    assert found.scores.tolist() == fresh.pick(pool, Budget(rows=4), 0).scores.tolist()
    assert list((own_cache / "scores").rglob("*.ledger"))


def test_a_torn_score_is_computed_again(own_cache):
    pool = Pool(pa.array(list("ab")), np.ones(2, np.int64), texts=pa.array(["x", "y"]))
    first = make("perplexity", {"model": "known:"}).pick(pool, Budget(rows=2), 0)
    (path,) = (own_cache / "scores").rglob("*.ledger")
    path.write_bytes(path.read_bytes()[:-3])
    second = make("perplexity", {"model": "known:"}).pick(pool, Budget(rows=2), 0)
    assert second.scores.tolist() == first.scores.tolist()


def test_the_model_is_loaded_once_for_all_groups(own_cache):
    loaded = []

    def load(*_):
        loaded.append(1)
        return Known()

    GENERATORS.register("counted", load)
    try:
        rows = pa.table({"instruction": ["a b", "a", "x", "b"], "response": ["a c", "broken", "y", "b b"]})
        groups = pa.array(["one", "two", "one", "two"])
        pool = Pool(pa.array(list("vwxy")), np.ones(4, np.int64), groups=groups, table=rows)
        found = by_group(make("ifd", {"model": "counted:"}), pool, Budget(rows=4), 0)
    finally:
        GENERATORS.unregister("counted")
    assert len(loaded) == 1
    own = found.evidence["by group"]
    assert own["one"]["not_below_1"] == 1
    assert own["two"]["not_scored"] == [{"id": "w", "why": "it is broken"}]


def test_an_answer_that_never_comes_or_is_not_finite_is_an_error():
    class Silent:
        model = "silent"

        def score(self, requests):
            for request in requests:
                if request.choices[0] == "inf":
                    yield Scores(request.key, (-math.inf,), (1,))
                elif request.choices[0] == "none":
                    yield Scores(request.key, (0.0,), (0,))

    found = losses([("p", "inf"), ("p", "none"), ("p", "lost")], Silent())
    assert np.isnan(found.values).all()
    assert found.errors == {
        0: "the model gives no finite log-probability",
        1: "the model gives no finite log-probability",
        2: "the model sent no answer",
    }


def test_the_context_of_an_example_stands_in_its_prompt():
    rows = {"instruction": ["{{context}} say"], "context": ["law"], "response": ["law"]}
    pool = Pool(pa.array(["v"]), np.ones(1, np.int64), table=pa.table(rows))
    found = make("ifd", {"model": "known:"}).pick(pool, Budget(rows=1), 0)
    np.testing.assert_allclose(found.scores, [1 / 4])


def test_perplexity_bands():
    # The perplexity of a text is 8 to the share of its words that are not "x", times 2 to the share of "x".
    texts = ["x " * n + "y " * (4 - n) for n in (0, 4, 1, 3, 2)] + ["broken"]
    pool = Pool(pa.array(list("abcdef")), np.ones(6, np.int64), texts=pa.array(texts))
    low, mid, high = (
        make("perplexity", {"model": "known:", "start": "x", "band": band}).pick(pool, Budget(rows=6), 0)
        for band in ("low", "mid", "high")
    )
    assert chosen(pool, low) == ["b", "d", "e", "c", "a"]
    assert chosen(pool, high) == ["a", "c", "e", "d", "b"]
    assert chosen(pool, mid) == ["e", "d", "c", "b", "a"]
    np.testing.assert_allclose(low.scores, [2, 2 * 4**0.25, 4, 2 * 4**0.75, 8])
    assert low.evidence["not_scored"] == [{"id": "f", "why": "it is broken"}]


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="band"):
        make("perplexity", {"band": "top"})
    GENERATORS.register("mute", lambda *_: object())
    try:
        with pytest.raises(UsageError, match="cannot score given texts"):
            make("perplexity", {"model": "mute:"}).pick(make_pool(), Budget(rows=1), 0)
    finally:
        GENERATORS.unregister("mute")
    for name, wrong in {
        "deita": {"threshold": 1.5},
        "semdedup": {"epsilon": 2},
        "dsir": {"smoothing": 0},
    }.items():
        with pytest.raises(UsageError, match=name):
            make(name, wrong).pick(make_pool(), Budget(rows=1), 0)


@pytest.mark.slow
def test_the_embedded_model_scores_one_token_answers():
    pytest.importorskip("openvino_genai", reason="openvino-genai is not installed")
    from taskmill.backends import ModelConfig, load

    try:
        model = load(ModelConfig(ref="openvino:smollm2-135m"))
    except BackendError as error:
        pytest.skip(str(error))
    prompts = [
        "What is the capital of France? Answer: Paris. Again: the capital of France is\n",
        "Add 2 and 2.\n",
    ]
    found = ifd(prompts, ["Paris", "The moon is made of cheese."], model)
    assert found.errors == {}
    assert np.isfinite(found.values).all()
    assert found.values[0] < 0.5 < found.values[1]
