"""Every selector against its plain algorithm, and what holds for all of them."""

from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pools import blobs, facility_location, ids, k_center, make, pools, shuffled, within

from taskmill.errors import ConfigError, InputError, UnknownName, UsageError
from taskmill.kernels.distances import (
    COVERED,
    covariance,
    means,
    nearest,
    nearest_distance,
    neighbours,
)
from taskmill.kernels.greedy import all_pairs
from taskmill.select import SELECTORS, Budget, Pool, Selector, fill, generator, interleave
from taskmill.select import make as selector
from taskmill.select.kmeans import cluster
from taskmill.select.simple import by_group

NAMES = ["random", "stratified", "length", "k-center", "k-center-robust", "k-means", "density"]
NAMES.append("facility-location")
few = settings(max_examples=25, deadline=None)
methods = st.sampled_from(NAMES)


# What holds for all


@few
@given(pools(), methods, st.integers(1, 50), st.integers(0, 9))
def test_a_budget_of_rows_is_filled_exactly_and_no_row_comes_twice(pool, name, count, seed):
    chosen = selector(name).pick(pool, Budget(rows=count), seed)
    assert len(chosen.rows) == min(count, len(pool)) == len(set(chosen.rows.tolist()))
    assert len(chosen.scores) == len(chosen.rows)
    assert np.isfinite(chosen.scores).all()


@few
@given(pools(), methods, st.integers(1, 200), st.integers(0, 9))
def test_a_budget_of_tokens_leaves_no_row_out_that_would_fit(pool, name, count, seed):
    chosen = selector(name).pick(pool, Budget(tokens=count), seed)
    left = count - pool.tokens[chosen.rows].sum()
    assert left >= 0
    others = np.setdiff1d(np.arange(len(pool)), chosen.rows)
    assert (pool.tokens[others] > left).all()


@few
@given(pools(), methods, st.integers(0, 9), st.integers(1, 40))
def test_a_smaller_budget_is_a_prefix(pool, name, seed, count):
    whole = selector(name).pick(pool, Budget(rows=len(pool)), seed)
    part = selector(name).pick(pool, Budget(rows=count), seed)
    assert part.rows.tolist() == whole.rows[:count].tolist()
    assert part.scores.tolist() == whole.scores[:count].tolist()


@few
@given(pools(), methods, st.integers(0, 9), st.integers(1, 60), st.randoms())
def test_the_order_of_the_pool_plays_no_part(pool, name, seed, count, random):
    other = shuffled(pool, np.random.default_rng(random.randrange(2**32)))
    for budget in (Budget(rows=count), Budget(tokens=count)):
        one, two = (selector(name).pick(p, budget, seed) for p in (pool, other))
        assert ids(pool, one) == ids(other, two)
        assert one.scores == pytest.approx(two.scores, rel=1e-12)


@few
@given(pools(), methods, st.integers(0, 9), st.integers(1, 40), st.integers(1, 40))
def test_what_is_chosen_already_comes_first_and_the_rest_follows_as_if_it_were_the_prefix(
    pool, name, seed, early, count
):
    first = selector(name).pick(pool, Budget(rows=min(early, count)), seed)
    whole = selector(name).pick(pool, Budget(rows=count), seed)
    again = selector(name).pick(_started(pool, first.rows), Budget(rows=count), seed)
    assert again.rows.tolist() == whole.rows.tolist()


def _started(pool, rows):
    return Pool(pool.ids, pool.tokens, pool.embeddings, pool.texts, pool.groups, start=rows)


@pytest.mark.parametrize("name", [*NAMES, "semdedup", "herding"])
def test_the_number_of_cores_changes_no_choice(name, monkeypatch):
    rng = np.random.default_rng(6)
    pool = make(blobs(1200, 24, rng), rng)
    monkeypatch.setattr("taskmill.kernels.distances._SMALL", 0)  # rows are shared out among the cores
    found = []
    for cores in (1, 2, 7):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        found.append(selector(name).pick(pool, Budget(rows=60), 3))
    for other in found[1:]:
        assert other.rows.tolist() == found[0].rows.tolist()
        assert other.scores.tolist() == found[0].scores.tolist()


@pytest.mark.parametrize("name", ["random", "k-means", "density", "k-center"])
def test_the_seed_decides(name):
    pool = make(blobs(200, 8, np.random.default_rng(1)), np.random.default_rng(2))
    settings = {"first": "random"} if name == "k-center" else {}
    picked = [ids(pool, selector(name, settings).pick(pool, Budget(rows=20), seed)) for seed in (1, 1, 2)]
    assert picked[0] == picked[1] != picked[2]


@pytest.mark.parametrize("name", NAMES)
def test_a_pool_of_equal_rows_is_chosen_from_like_any_other(name):
    pool = make(np.ones((9, 3)), np.random.default_rng(0))
    assert len(selector(name).pick(pool, Budget(rows=4), 0).rows) == 4


@pytest.mark.parametrize("name", NAMES)
def test_a_pool_of_zero_vectors_and_of_one_row(name):
    rng = np.random.default_rng(0)
    assert len(selector(name).pick(make(np.zeros((5, 3)), rng), Budget(rows=3), 0).rows) == 3
    assert len(selector(name).pick(make(np.ones((1, 3)), rng), Budget(rows=3), 0).rows) == 1


# Budgets, pools, quotas


@pytest.mark.parametrize(
    ("text", "rows"),
    [("500", 200), ("7", 7), ("0.5%", 1), ("0.1%", 1), ("12.5%", 25), ("0.75%", 2), ("100%", 200)],
)
def test_budgets_of_rows_and_shares(text, rows):
    pool = make(np.ones((200, 2)), np.random.default_rng(0))
    assert len(fill(pool, Budget.parse(text), pool.by_id, np.zeros(200)).rows) == rows


@pytest.mark.parametrize("text", ["0", "0%", "0tok", "-3", "1.5", "101%", "many", "", "5 rows", "1.5tok"])
def test_what_is_no_budget_is_refused(text):
    with pytest.raises(UsageError, match="budget"):
        Budget.parse(text)


@given(st.lists(st.integers(1, 9), max_size=60), st.integers(1, 200))
def test_filling_passes_over_what_does_not_fit(costs, limit):
    names = pa.array([f"{i:02}" for i in range(len(costs))])
    pool = Pool(names, np.array(costs, np.int64))
    rows = fill(pool, Budget(tokens=limit), np.arange(len(costs)), np.zeros(len(costs))).rows
    assert rows.tolist() == within(range(len(costs)), costs, limit)


def test_bad_pools_are_refused_by_name():
    good = np.ones((2, 2), np.float32)
    with pytest.raises(InputError, match="'b'"):
        Pool(pa.array(["a", "b"]), np.ones(2), np.array([[1, 0], [np.nan, 1]], np.float32))
    with pytest.raises(InputError, match="'a' occurs twice"):
        Pool(pa.array(["a", "a"]), np.ones(2), good)
    with pytest.raises(InputError, match="tokens has 3"):
        Pool(pa.array(["a", "b"]), np.ones(3), good)
    with pytest.raises(UsageError, match="--embeddings"):
        selector("k-center").pick(Pool(pa.array(["a"]), np.ones(1)), Budget(rows=1), 0)


def test_vectors_are_made_unit_without_touching_the_given_ones():
    given_rows = np.array([[3, 4], [0, 0], [1, 0]], np.float32)
    pool = Pool(pa.array(["a", "b", "c"]), np.ones(3), given_rows)
    assert pool.embeddings.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0, 0], [1, 0]]
    assert given_rows[0].tolist() == [3, 4]
    assert pool.empty.tolist() == [False, True, False]


def test_settings_and_names_are_checked():
    with pytest.raises(UnknownName, match="k-center"):
        selector("k-centre")
    with pytest.raises(ConfigError, match="first"):
        selector("k-center", {"frist": "medoid"})
    with pytest.raises(ConfigError, match="trim"):
        selector("k-center-robust", {"trim": 1.0})


@given(st.lists(st.integers(0, 4), max_size=40), st.booleans())
def test_turns_keep_to_the_shares_in_every_prefix(groups, equal):
    groups = np.array(groups, np.int64)
    order = interleave(groups, equal)
    assert sorted(order.tolist()) == list(range(len(groups)))
    sizes = np.bincount(groups, minlength=5)
    for count in range(1, len(groups) + 1):
        taken = np.bincount(groups[order[:count]], minlength=5)
        if equal:
            open_ = [t for t, s in zip(taken, sizes, strict=True) if t < s]
            assert not open_ or max(taken) - min(open_) <= 1 or max(taken) == max(open_) + 1
        else:  # Webster: no transfer of a seat between two groups brings their ratios closer
            for i in range(5):
                for j in range(5):
                    if taken[i] and taken[j] < sizes[j] and sizes[i]:
                        assert (2 * taken[i] - 1) / sizes[i] <= (2 * taken[j] + 1) / sizes[j]
    for group in range(5):
        own = [i for i in order.tolist() if groups[i] == group]
        assert own == sorted(own)


@few
@given(pools(), st.sampled_from(["random", "k-center", "k-means"]), st.integers(1, 50), st.booleans())
def test_quotas_give_each_group_its_share_with_prefixes(pool, name, count, equal):
    method = selector(name)
    groups = np.array(pool.groups.to_pylist())
    number = np.unique(groups, return_inverse=True)[1]
    chosen = by_group(method, pool, Budget(rows=count), 3, equal)
    expected = interleave(number[pool.by_id], equal)[:count]
    assert sorted(groups[chosen.rows]) == sorted(groups[pool.by_id][expected])
    for group in set(groups[chosen.rows]):
        rows = np.flatnonzero(groups == group)
        own = [r for r in chosen.rows.tolist() if groups[r] == group]
        sub = pool.take(rows)
        assert rows[method.pick(sub, Budget(rows=len(own)), 3).rows].tolist() == own
    whole = by_group(method, pool, Budget(rows=len(pool)), 3, equal)
    if name != "k-means":  # the number of clusters follows the group, not the budget: holds there too
        assert chosen.rows.tolist() == whole.rows[:count].tolist()


@few
@given(pools(), st.integers(1, 150), st.booleans())
def test_quotas_of_tokens_stay_within_the_budget(pool, count, equal):
    chosen = by_group(selector("random"), pool, Budget(tokens=count), 3, equal)
    assert pool.tokens[chosen.rows].sum() <= count
    assert len(set(chosen.rows.tolist())) == len(chosen.rows)
    if count >= pool.tokens.sum():
        assert len(chosen.rows) == len(pool)
    left = count - pool.tokens[chosen.rows].sum()
    others = np.setdiff1d(np.arange(len(pool)), chosen.rows)
    assert (pool.tokens[others] > left).all()


@few
@given(pools(), st.sampled_from(["random", "k-center"]), st.integers(1, 150), st.booleans(), st.randoms())
def test_quotas_of_tokens_do_not_depend_on_the_order_of_rows(pool, name, count, equal, random):
    other = shuffled(pool, np.random.default_rng(random.randrange(2**32)))
    one, two = (by_group(selector(name), p, Budget(tokens=count), 3, equal) for p in (pool, other))
    assert ids(pool, one) == ids(other, two)


class _Picky(Selector):
    """Takes rows by id, and never those whose text ends in an even number: what IFD does to easy rows."""

    def pick(self, pool, budget, seed):
        odd = np.array([int(text[-1]) % 2 == 1 for text in pool.texts.to_pylist()], bool)
        order = pool.by_id[odd[pool.by_id]]
        return fill(pool, budget, order, np.zeros(len(order)), {"odd": int(odd.sum())})


@few
@given(pools(), st.integers(1, 60), st.booleans(), st.booleans())
def test_what_a_group_rejects_goes_to_the_others_and_the_evidence_of_each_is_kept(
    pool, count, equal, by_tokens
):
    budget = Budget(tokens=count) if by_tokens else Budget(rows=count)
    chosen = by_group(_Picky(), pool, budget, 0, equal)
    odd = np.array([int(text[-1]) % 2 == 1 for text in pool.texts.to_pylist()])
    assert odd[chosen.rows].all()
    costs, limit = budget.costs(pool)
    left = limit - costs[chosen.rows].sum()
    others = np.setdiff1d(np.flatnonzero(odd), chosen.rows)
    assert (costs[others] > left).all()
    groups = np.array(pool.groups.to_pylist())
    for name, evidence in chosen.evidence["by group"].items():
        assert evidence == {"odd": int(odd[groups == name].sum())}
    if not by_tokens:
        whole = by_group(_Picky(), pool, Budget(rows=len(pool)), 0, equal)
        assert chosen.rows.tolist() == whole.rows[:count].tolist()


# k-center


@settings(max_examples=150, deadline=None)
@given(pools(), st.integers(1, 60), st.booleans())
def test_k_center_chooses_what_the_plain_algorithm_chooses(pool, count, by_tokens):
    budget = Budget(tokens=count) if by_tokens else Budget(rows=count)
    costs, limit = budget.costs(pool)
    assert selector("k-center").pick(pool, budget, 0).rows.tolist() == k_center(pool, costs, limit)


@pytest.mark.parametrize(("size", "width", "count"), [(1500, 24, 200), (9000, 512, 60)])
def test_k_center_equals_the_plain_algorithm_on_larger_pools(size, width, count):
    rng = np.random.default_rng(size)
    vectors = np.concatenate([blobs(size // 2, width, rng), rng.normal(size=(size // 4, width))])
    vectors = np.concatenate([vectors, vectors[: size // 4]])  # every fourth row is there twice
    pool = make(vectors, rng)
    chosen = selector("k-center").pick(pool, Budget(rows=count), 0)
    assert chosen.rows.tolist() == k_center(pool, np.ones(len(pool), np.int64), count)
    x = pool.embeddings.astype(np.float64)
    for i in (1, count // 2, count - 1):
        like = (x[chosen.rows[:i]] @ x[chosen.rows[i]]).max()
        assert chosen.scores[i] == pytest.approx(np.sqrt(2 - 2 * like), abs=1e-5)
    assert (np.diff(chosen.scores[1:]) <= 1e-5).all()


@few
@given(pools(most=14, zeros=False), st.integers(1, 5))
def test_the_covering_radius_is_at_most_twice_the_best(pool, count):
    x = pool.embeddings.astype(np.float64)
    distance = np.sqrt(np.maximum(2 - 2 * x @ x.T, 0))
    count = min(count, len(pool))
    best = min(distance[list(c)].min(axis=0).max() for c in combinations(range(len(pool)), count))
    rows = selector("k-center").pick(pool, Budget(rows=count), 0).rows
    assert distance[rows].min(axis=0).max() <= 2 * best + 0.002  # rows nearer than 0.0014 are one


@few
@given(pools(), st.integers(1, 40))
def test_no_row_is_chosen_again_in_another_guise_while_a_different_one_is_left(pool, count):
    rows = selector("k-center").pick(pool, Budget(rows=count), 0).rows
    x = pool.embeddings.astype(np.float64)
    covered = [
        not x[row].any() or (i > 0 and (x[rows[:i]] @ x[row]).max() >= COVERED) for i, row in enumerate(rows)
    ]
    if any(covered):
        early = rows[: covered.index(True)]
        like = (x[early] @ x.T).max(axis=0) if len(early) else np.zeros(len(x))
        assert all(like[i] >= COVERED or not x[i].any() for i in range(len(x)))


@pytest.mark.parametrize("first", ["farthest", "random"])
def test_other_first_rows(first):
    rng = np.random.default_rng(5)
    pool = make(blobs(300, 6, rng), rng)
    rows = selector("k-center", {"first": first}).pick(pool, Budget(rows=12), 7).rows
    x = pool.embeddings.astype(np.float64)
    if first == "farthest":
        assert rows[0] == np.argmin(x @ x.mean(axis=0))
    assert rows.tolist() == k_center(pool, np.ones(300, np.int64), 12, first=rows[:1])


def test_rows_given_before_are_kept_in_their_order():
    rng = np.random.default_rng(6)
    pool = make(blobs(300, 6, rng), rng)
    start = np.array([17, 4, 250])
    chosen = selector("k-center").pick(_started(pool, start), Budget(rows=20), 0)
    assert chosen.rows.tolist() == k_center(pool, np.ones(300, np.int64), 20, first=start)


def test_planted_outliers_take_a_twentieth_of_the_robust_choice_at_most():
    rng = np.random.default_rng(10)
    vectors = np.concatenate([blobs(5000, 32, rng, 20, 0.15), 3 * rng.normal(size=(50, 32))])
    pool = make(vectors, rng)
    plain = selector("k-center").pick(pool, Budget(rows=100), 0).rows
    robust = selector("k-center-robust").pick(pool, Budget(rows=100), 0)
    assert (plain >= 5000).sum() >= 45
    assert (robust.rows >= 5000).sum() <= 5
    assert robust.evidence["trimmed"] == 101
    assert len(selector("k-center-robust").pick(pool, Budget(rows=5050), 0).rows) == 5050


# Kernels


@few
@given(pools(), pools())
def test_nearest_centres_and_neighbours_are_those_of_all_pairs(pool, other):
    x = pool.embeddings
    y = np.resize(other.embeddings, (len(other), x.shape[1]))
    products = x.astype(np.float64) @ y.T.astype(np.float64)
    best, index = nearest(x, y)
    assert best == pytest.approx(products.max(axis=1), abs=1e-6)
    assert products[np.arange(len(x)), index] == pytest.approx(products.max(axis=1), abs=1e-6)
    found, values = neighbours(x, None, None, pool.rank, 3)
    own = x.astype(np.float64) @ x.T.astype(np.float64)
    np.fill_diagonal(own, -np.inf)
    expected = -np.sort(-own, axis=1)[:, :3]
    assert values[:, : expected.shape[1]] == pytest.approx(expected, abs=1e-6)
    for i in range(len(x)):
        names = [n for n in found[i].tolist() if n >= 0]
        assert len(names) == len(set(names)) == min(3, len(x) - 1)
        assert i not in names


@few
@given(pools(zeros=False), pools(zeros=False))
def test_distances_to_the_nearest_centre_are_exact(pool, other):
    x = np.concatenate([pool.embeddings, -pool.embeddings])
    y = Pool(other.ids, other.tokens, np.resize(other.embeddings, (len(other), x.shape[1])) + 0.01).embeddings
    y = np.concatenate([y, x[:3]])
    wide = np.linalg.norm(x[:, None].astype(np.float64) - y[None], axis=2).min(axis=1)
    assert nearest_distance(x, y) == pytest.approx(wide, abs=1e-6)
    assert (nearest_distance(x, y)[:3] == 0).all()


def test_the_covariance_is_numpys_in_any_order_of_rows():
    rng = np.random.default_rng(3)
    x = Pool(pa.array(map(str, range(500))), np.ones(500), rng.normal(size=(500, 20)) + 0.5).embeddings
    middle, spread = covariance(x)
    assert middle == pytest.approx(x.mean(axis=0), abs=1e-6)
    assert spread == pytest.approx(np.cov(x.T, bias=True), abs=1e-6)
    order = rng.permutation(500)
    assert (covariance(np.ascontiguousarray(x[order]))[1] == spread).all()


def test_products_have_the_same_bits_in_any_order_of_rows():
    rng = np.random.default_rng(8)
    x = rng.normal(size=(301, 77)).astype(np.float32)
    order = rng.permutation(301)
    one, two = all_pairs(x), all_pairs(np.ascontiguousarray(x[order]))
    assert (one[np.ix_(order, order)] == two).all()
    assert (one == one.T).all()
    groups = rng.integers(-1, 4, 301)
    centres, sizes = means(x, groups, 5)
    assert (centres == means(x[order], groups[order], 5)[0]).all()
    for g in range(4):
        assert centres[g] == pytest.approx(x[groups == g].mean(axis=0), abs=1e-6)
    assert sizes.tolist() == [int((groups == g).sum()) for g in range(5)]


# k-means


@few
@given(pools(), st.integers(1, 12), st.integers(0, 5))
def test_clusters_are_the_nearest_centres_and_none_is_empty(pool, count, seed):
    found = cluster(pool, count, seed, iterations=100)
    x = pool.embeddings.astype(np.float64)
    placed = ~pool.empty
    assert (found.group[pool.empty] == -1).all()
    if not placed.any():
        return
    sizes = np.bincount(found.group[placed], minlength=len(found.centres))
    distance = np.linalg.norm(x[:, None] - found.centres[None].astype(np.float64), axis=2)
    own = distance[np.arange(len(x)), found.group]
    assert own[placed] == pytest.approx(found.distance[placed], abs=2e-3)
    assert (own[placed] <= distance[placed].min(axis=1) + 2e-3).all()
    different = len(np.unique(np.round(x[placed], 4), axis=0))
    if different >= count:
        assert (sizes > 0).all()
        assert len(sizes) == count
    for g in np.flatnonzero(sizes):
        assert found.centres[g] == pytest.approx(x[found.group == g].mean(axis=0), abs=1e-5)


def test_equal_turns_take_the_row_nearest_to_each_centre():
    rng = np.random.default_rng(3)
    pool = make(blobs(400, 8, rng), rng)
    chosen = selector("k-means", {"clusters": 20, "quota": "equal"}).pick(pool, Budget(rows=20), 1)
    found = cluster(pool, 20, 1)
    expected = set()
    for g in range(20):
        own = np.flatnonzero(found.group == g)
        expected.add(int(own[np.lexsort((pool.rank[own], found.distance[own]))[0]]))
    assert set(chosen.rows.tolist()) == expected


def test_proportional_turns_follow_the_sizes_of_the_clusters():
    rng = np.random.default_rng(4)
    pool = make(blobs(500, 8, rng), rng)
    chosen = selector("k-means", {"clusters": 10, "within": "random"}).pick(pool, Budget(rows=100), 1)
    found = cluster(pool, 10, 1)
    share = np.bincount(found.group[chosen.rows], minlength=10) / 100
    assert share == pytest.approx(np.bincount(found.group, minlength=10) / 500, abs=0.011)


# density


def test_densities_are_the_counts_of_the_sketch():
    rng = np.random.default_rng(9)
    pool = make(np.concatenate([blobs(200, 6, rng), np.zeros((3, 6))]), rng)
    method = selector("density", {"sketches": 20, "planes": 5})
    planes = generator(4, "density planes").standard_normal((100, 6)).astype(np.float32)
    sides = (pool.embeddings.astype(np.float64) @ planes.T.astype(np.float64) > 0).reshape(203, 20, 5)
    codes = [[tuple(s) for s in row] for row in sides]
    density = method.densities(pool, 4)
    for i in range(0, 200, 17):
        shared = np.mean([[codes[i][r] == codes[j][r] for j in range(200)] for r in range(20)])
        assert density[i] == pytest.approx(shared)
    order = method.pick(pool, Budget(rows=203), 4).rows
    assert set(order[-3:].tolist()) == {200, 201, 202}


def test_rows_of_crowded_places_are_chosen_less_often():
    rng = np.random.default_rng(11)
    crowd = np.array([1, 0, 0, 0]) + 0.01 * rng.normal(size=(900, 4))
    pool = make(np.concatenate([crowd, rng.normal(size=(100, 4))]), rng)
    rows = [r for seed in range(5) for r in selector("density").pick(pool, Budget(rows=100), seed).rows]
    assert np.mean(np.array(rows) >= 900) > 0.4  # 0.1 by chance alone


# facility location


@settings(max_examples=80, deadline=None)
@given(pools(), st.integers(1, 60), st.booleans())
def test_facility_location_chooses_what_the_plain_algorithm_chooses(pool, count, by_tokens):
    budget = Budget(tokens=count) if by_tokens else Budget(rows=count)
    costs, limit = budget.costs(pool)
    likeness = all_pairs(pool.embeddings).astype(np.float64)
    rows, _ = facility_location(likeness, ~pool.empty, costs, limit, pool.rank)
    chosen = selector("facility-location").pick(pool, budget, 0).rows.tolist()
    assert chosen[: len(rows)] == rows


def test_the_value_of_facility_location_is_that_of_the_plain_algorithm():
    rng = np.random.default_rng(12)
    pool = make(blobs(900, 48, rng), rng)
    x = pool.embeddings.astype(np.float64)
    rows, best = facility_location(np.maximum(x @ x.T, 0), ~pool.empty, np.ones(900, np.int64), 60, pool.rank)
    chosen = selector("facility-location").pick(pool, Budget(rows=60), 0)
    assert chosen.evidence["value"] == pytest.approx(best.sum(), rel=1e-6)
    assert chosen.rows.tolist() == rows
    assert chosen.scores.sum() == pytest.approx(best.sum(), rel=1e-6)


@pytest.mark.parametrize("spread", [0.05, 1.0])
def test_gains_kept_up_to_date_are_those_computed_anew(spread):
    rng = np.random.default_rng(14)
    pool = make(blobs(700, 12, rng, centres=40, spread=spread), rng)
    likeness = all_pairs(pool.embeddings).astype(np.float64)
    rows, _ = facility_location(likeness, ~pool.empty, np.ones(700, np.int64), 300, pool.rank)
    chosen = selector("facility-location").pick(pool, Budget(rows=300), 0)
    best = np.zeros(700)
    for row, gain in zip(chosen.rows.tolist(), chosen.scores.tolist(), strict=True):
        assert gain == pytest.approx(np.maximum(likeness[row] - best, 0).sum(), abs=1e-9)
        best = np.maximum(best, likeness[row])
    assert chosen.rows[: len(rows)].tolist() == rows


def test_facility_location_on_a_graph_of_neighbours():
    rng = np.random.default_rng(13)
    pool = make(blobs(600, 16, rng), rng)
    chosen = selector("facility-location", {"neighbours": 32}).pick(pool, Budget(rows=30), 0)
    x = pool.embeddings.astype(np.float64)
    near = np.maximum(x @ x.T, 0)
    kept = np.zeros_like(near)
    np.fill_diagonal(near, 2)
    for i in range(600):
        nearest_rows = np.argsort(-near[i], kind="stable")[:33]
        kept[nearest_rows, i] = np.minimum(near[i, nearest_rows], 1)
    rows, _ = facility_location(kept, ~pool.empty, np.ones(600, np.int64), 30, pool.rank)
    assert chosen.rows.tolist() == rows
    np.fill_diagonal(near, 1)
    whole = selector("facility-location").pick(pool, Budget(rows=30), 0)
    assert chosen.evidence["value"] == pytest.approx(near[:, chosen.rows].max(axis=1).sum(), rel=1e-6)
    assert chosen.evidence["value"] >= 0.95 * whole.evidence["value"]


def test_every_name_has_a_selector_with_defaults():
    for name in NAMES:
        made = SELECTORS.get(name)()
        assert made.needs(1000, 64, 10).operations > 0
