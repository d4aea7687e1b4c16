"""What a selection is worth: measures of it, held against rows by chance and by length of as many tokens.

Later studies found that many selectors do not beat chance (arXiv 2410.09335, 2503.01807), so no choice is
reported without these two beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taskmill.kernels.distances import nearest_distance, neighbours
from taskmill.select import Budget, Pool, Selection, generator
from taskmill.select.simple import Length, Random

__all__ = ["MEASURES", "compare", "flat", "measure", "plane"]

Array = np.ndarray[Any, Any]

MEASURES = {
    "rows": "rows chosen",
    "tokens": "tokens chosen",
    "covering_radius": "largest distance of a row to the nearest chosen one; less is better",
    "mean_distance": "mean distance of a row to the nearest chosen one; less is better",
    "near_duplicates": "share of chosen rows that have another at a cosine above 0.95; less is better",
    "coverage": "share of the different values of a column that the choice has; more is better",
}
"""Name of a measure → what it says. Distances are those of unit vectors, 0 to 2."""

NEAR = 0.95
"""Cosine above which two chosen rows are near duplicates."""

ROWS = 20_000
"""Rows for which distances to the choice are computed, drawn by seed where the pool has more (chosen: a mean
over them is within 1 % of the pool's)."""

WORK = 2e10
"""Multiply-adds one measurement may take (chosen: about half a second on two cores; there are seven)."""

POINTS = 3000
"""Points drawn of the pool, and of each choice: more hide each other."""


def measure(pool: Pool, rows: Array, columns: Mapping[str, pa.Array], look: Array) -> dict[str, Any]:
    """Return the measures of a choice of `rows`; `look`: the rows whose distance to it counts.

    Distances are None without embeddings. `columns`: names of groups, one entry for each row of the pool.
    """
    found: dict[str, Any] = {"rows": len(rows), "tokens": int(pool.tokens[rows].sum())}
    found |= {"covering_radius": None, "mean_distance": None, "near_duplicates": None}
    found["coverage"] = {
        name: round(
            pc.count_distinct(column.take(rows)).as_py() / max(1, pc.count_distinct(column).as_py()), 6
        )
        for name, column in columns.items()
    }
    placed = rows[~pool.empty[rows]]
    if pool.embeddings is None or not len(placed) or not len(look):
        return found
    chosen = np.ascontiguousarray(pool.embeddings[placed])
    others = look[~np.isin(look, placed)]
    distance = np.zeros(len(look))
    distance[: len(others)] = nearest_distance(np.ascontiguousarray(pool.embeddings[others]), chosen)
    found["covering_radius"] = round(float(distance.max()), 6)
    found["mean_distance"] = round(float(distance.mean()), 6)
    some = placed[: max(1000, int(WORK / (chosen.size or 1)))]
    _, values = neighbours(pool.embeddings, some, placed, pool.rank, 1)
    found["near_duplicates"] = round(float((values[:, 0] > NEAR).mean()), 6)
    return found


def compare(
    pool: Pool, name: str, selection: Selection, columns: Mapping[str, pa.Array], seed: int, draws: int = 5
) -> tuple[dict[str, Any], Selection]:
    """Return (the evidence, the first choice by chance) for a selection called `name`.

    `draws` choices by chance and the longest rows are given as many tokens as the selection has. The
    evidence has the measures of each (of chance: the mean, with the least and the largest), the rows two
    choices share as a share of all rows of both, and for each measure whether every draw is beaten.
    """
    budget = Budget(tokens=max(1, int(np.maximum(pool.tokens[selection.rows], 1).sum())))
    bare = Pool(pool.ids, pool.tokens)  # baselines owe nothing to rows chosen before
    # Other seeds than the selection's own, which may be one by chance itself.
    chance = [Random().pick(bare, budget, seed + 1 + i) for i in range(draws)]
    longest = Length().pick(bare, budget, seed)
    name = f"{name} (chosen)" if name in ("random", "length") else name
    look = _looked_at(pool, max(len(s.rows) for s in (selection, longest, *chance)), seed)
    own = measure(pool, selection.rows, columns, look)
    drawn = [measure(pool, s.rows, columns, look) for s in chance]
    spread = {key: _spread([flat(d).get(key) for d in drawn]) for key in flat(own)}
    evidence = {
        "rows_measured": len(look),
        "measures": {
            name: flat(own),
            "random": {key: value["mean"] if value else None for key, value in spread.items()},
            "length": flat(measure(pool, longest.rows, columns, look)),
        },
        "random_draws": spread,
        "beats_every_draw": {
            key: _beats(key, value, spread[key]) for key, value in flat(own).items() if spread[key]
        },
        "overlap": {
            f"{name} / random": _mean([_overlap(selection.rows, s.rows) for s in chance]),
            f"{name} / length": _overlap(selection.rows, longest.rows),
            "random / length": _mean([_overlap(longest.rows, s.rows) for s in chance]),
        },
    }
    return evidence, chance[0]


def plane(pool: Pool, choices: Mapping[str, Array], seed: int) -> dict[str, Array]:
    """Return points of the pool and of each choice on the plane in which the pool spreads most.

    The first two principal directions of a sample; coordinates 0 to 1, float64 [n, 2], at most 3,000 rows
    by chance of each. Empty without embeddings.
    """
    placed = pool.by_id[~pool.empty[pool.by_id]]
    if pool.embeddings is None or len(placed) < 3:
        return {}
    stream = generator(seed, "evidence plane")
    shown = {"pool": _some(placed, POINTS, stream)}
    for name, rows in choices.items():
        shown[name] = _some(rows[~pool.empty[rows]], POINTS, stream)
    sample = pool.embeddings[shown["pool"][:1000]].astype(np.float64)
    middle = sample.mean(axis=0)
    axes = np.linalg.svd(sample - middle, full_matrices=False)[2][:2]
    if len(axes) < 2:
        axes = np.vstack([axes, np.zeros_like(axes[0])])
    axes *= np.sign(axes[np.arange(2), np.abs(axes).argmax(axis=1)] + 1e-30)[:, None]  # one sign for all
    flat_points = {name: (pool.embeddings[rows] - middle) @ axes.T for name, rows in shown.items()}
    low = flat_points["pool"].min(axis=0)
    size = np.maximum(flat_points["pool"].max(axis=0) - low, 1e-9)
    return {name: np.clip((points - low) / size, 0, 1) for name, points in flat_points.items()}


def _some(rows: Array, most: int, stream: np.random.Generator) -> Array:
    if len(rows) <= most:
        return rows
    return rows[np.sort(stream.permutation(len(rows))[:most])]


def flat(measures: Mapping[str, Any]) -> dict[str, float | None]:
    """Return measures as one line of numbers, the coverage of each column under a name of its own."""
    plain = {key: value for key, value in measures.items() if key != "coverage"}
    return plain | {f"coverage: {column}": value for column, value in measures["coverage"].items()}


def _looked_at(pool: Pool, picks: int, seed: int) -> Array:
    """Return the rows to measure: all that have a vector, or as many by chance as there is time for."""
    placed = pool.by_id[~pool.empty[pool.by_id]]
    if pool.embeddings is None:
        return placed[:0]
    most = min(ROWS, max(1000, int(WORK / max(1, picks * pool.embeddings.shape[1]))))
    if len(placed) <= most:
        return placed
    return placed[np.sort(generator(seed, "evidence").permutation(len(placed))[:most])]


def _spread(values: list[Any]) -> dict[str, float] | None:
    known = [float(v) for v in values if v is not None]
    if not known:
        return None
    return {"mean": round(float(np.mean(known)), 6), "least": min(known), "largest": max(known)}


def _beats(key: str, value: float | None, spread: Mapping[str, float] | None) -> bool | None:
    """Return whether a value is better than that of every draw; None for what is no merit."""
    if value is None or spread is None or key in ("rows", "tokens"):
        return None
    return value > spread["largest"] if key.startswith("coverage") else value < spread["least"]


def _overlap(one: Array, two: Array) -> float:
    shared = len(np.intersect1d(one, two))
    return round(shared / max(1, len(one) + len(two) - shared), 6)


def _mean(values: list[float]) -> float:
    return round(float(np.mean(values)), 6) if values else 0.0
