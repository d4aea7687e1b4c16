"""Pools and plain algorithms that the selectors are held against."""

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from taskmill.kernels.distances import COVERED, TIE
from taskmill.select import Pool


@st.composite
def pools(draw, most=40, zeros=True):
    """Few dimensions and whole numbers: many rows are equal, parallel, tied, or zero."""
    size, width = draw(st.integers(1, most)), draw(st.integers(1, 4))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-2, 3, (size, width)) if draw(st.booleans()) else rng.normal(size=(size, width))
    if not zeros:
        vectors = np.where(vectors.any(axis=1, keepdims=True), vectors, 1)
    return make(vectors, rng)


def make(vectors, rng, names=3):
    size = len(vectors)
    ids = [f"r{i:03}" for i in rng.permutation(size)]
    groups = [f"g{g}" for g in rng.integers(0, names, size)]
    return Pool(
        pa.array(ids),
        rng.integers(1, 9, size),
        np.asarray(vectors, np.float32),
        pa.array([f"text {i}" for i in ids]),
        pa.array(groups),
    )


def blobs(size, width, rng, centres=8, spread=0.4):
    """Rows in clusters, as embeddings are."""
    middles = rng.normal(size=(centres, width))
    return middles[rng.integers(0, centres, size)] + spread * rng.normal(size=(size, width))


def ids(pool, selection):
    return pool.ids.take(selection.rows).to_pylist()


def shuffled(pool, rng):
    return pool.take(rng.permutation(len(pool)))


def within(order, costs, limit):
    """Rows of an order that fit, tried one after another."""
    taken = []
    for row in order:
        if costs[row] <= limit:
            limit -= costs[row]
            taken.append(int(row))
    return taken


def k_center(pool, costs, limit, first=None, live=None):
    """The plain greedy algorithm in float64: one pass over the whole pool for each row chosen."""
    x = pool.embeddings.astype(np.float64)
    live = x.any(axis=1) if live is None else live.copy()
    chosen, left = [], limit
    like = np.full(len(x), -np.inf)
    if first is None:
        first = []
        able = live & (costs <= left)
        if able.any():
            towards = np.where(able, x @ x[live].mean(axis=0), -np.inf)
            first = [min(np.flatnonzero(towards >= towards.max() - TIE), key=lambda r: pool.rank[r])]
    for row in first:
        chosen.append(int(row))
        left -= costs[row]
        like = np.maximum(like, x @ x[row])
    while chosen:
        able = live & (costs <= left) & (like < COVERED)
        able[chosen] = False
        if not able.any():
            break
        least = like[able].min()
        row = min(np.flatnonzero(able & (like <= least + TIE)), key=lambda r: pool.rank[r])
        chosen.append(int(row))
        left -= costs[row]
        like = np.maximum(like, x @ x[row])
    rest = [r for r in pool.by_id if r not in chosen]
    rest = [r for r in rest if live[r]] + [r for r in rest if not live[r]]
    return chosen + within(rest, costs, left)


def facility_location(likeness, live, costs, limit, rank):
    """The plain greedy algorithm: every gain anew for each row chosen."""
    best = np.where(live, 0.0, 1.0)
    chosen, left = [], limit
    while True:
        gains = np.maximum(likeness - best, 0).sum(axis=1)
        able = live & (costs <= left)
        able[chosen] = False
        if not able.any() or gains[able].max() <= TIE:
            return chosen, best
        most = gains[able].max()
        close = np.flatnonzero(able & (gains >= most - TIE * max(1.0, most)))
        row = min(close, key=lambda r: rank[r])
        chosen.append(int(row))
        left -= costs[row]
        best = np.maximum(best, likeness[row])
