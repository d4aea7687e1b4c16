"""k-center of a pool that is larger than the memory: in each part of it, then among what the parts chose.

The rows chosen in the parts are composable core-sets (Indyk, Mahabadi, Mahdian & Mirrokni 2014): with k rows
of each part, the k rows chosen among them cover the pool within four times the smallest radius that any k
rows can (Malkomes et al. 2015). Why: farthest-first traversal leaves each part within 2 · best of its rows,
since k + 1 rows that far apart cannot share k centres, and these within 2 · best of the choice, for the same
reason. The distances met on the way bound the radius of this choice and the best possible one: they are
reported. More rows of each part would bring the factor to 2 + ε (Ceccarello, Pietracaprina & Pucci 2019), and
four times as many made next to no difference where we looked; a test holds the radius within 1.1 times that
of plain k-center.

A part is a task of its own (`frame.map_rows`): on this machine one after another, on a cluster side by side.
Which rows are in which part is a hash of their ids, so neither workers nor order change the choice.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from taskmill import frame
from taskmill.kernels.distances import COVERED
from taskmill.select import Budget, Needs, Pool, Selection, fill
from taskmill.select.kcenter import LAZY, KCenter
from taskmill.store import write_parquet

__all__ = ["core_set", "in_parts", "needs", "part_of"]

Array = np.ndarray[Any, Any]

SAME = float(np.sqrt(2.0 - 2.0 * COVERED))
"""Distance below which rows count as the same one: what a radius of 0 may hide."""

_TASK = pa.schema([("task", pa.string())])
_CHOSEN = pa.schema([("rows", pa.list_(pa.int64())), ("scores", pa.list_(pa.float64()))])


def part_of(ids: pa.Array, parts: int) -> Array:
    """Return the part of each id (int64), a number below `parts`: a hash, as even as chance."""
    drawn = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in ids.to_pylist())
    return (np.frombuffer(b"".join(drawn), ">u8") % np.uint64(parts)).astype(np.int64)


def core_set(task: pa.Table) -> pa.Table:
    """Return the rows that k-center chooses in one part (numbers within the part) and their scores.

    `task`: one row, the JSON of what `in_parts` asks. Reads the part's vectors into memory.
    """
    asked = json.loads(task["task"][0].as_py())
    begin, end, width = asked["begin"], asked["end"], asked["width"]
    vectors = np.fromfile(asked["vectors"], np.float32, (end - begin) * width, offset=4 * begin * width)
    rows = pq.read_table(asked["rows"])
    start = np.array(asked["start"], np.int64)
    ids = rows["id"].combine_chunks()
    pool = Pool(ids, rows["tokens"].to_numpy(), vectors.reshape(-1, width), start=start)
    chosen = KCenter(asked["first"]).pick(pool, Budget(**asked["budget"]), asked["seed"])
    return pa.table({"rows": [chosen.rows], "scores": [chosen.scores]}, schema=_CHOSEN)


def in_parts(
    selector: KCenter, pool: Pool, vectors: Path, bounds: Array, budget: Budget, seed: int
) -> Selection:
    """Return the choice; `pool` is sorted by part, part i being the rows `bounds[i]` to `bounds[i + 1]`.

    `vectors`: the file of the pool's vectors, float32 in order of its rows; files of the parts are written
    beside it. With one part the choice is that of plain k-center. The evidence has the guarantee (for rows;
    a budget of tokens has none).
    """
    opening = selector.opening(pool, budget, seed)
    _, limit = budget.costs(pool)
    whole = budget.tokens is None
    asked = [
        _task(selector, pool, vectors, begin, end, opening, limit, whole, seed)
        for begin, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
        if end > begin
    ]
    tasks = pa.table({"task": [json.dumps(task) for task in asked]}, schema=_TASK)
    cores, inside = [], 0.0
    answers = (answer for table in frame.map_rows(tasks, core_set, _CHOSEN) for answer in table.to_pylist())
    for task, answer in zip(asked, answers, strict=True):
        rows, scores = answer["rows"], answer["scores"]
        cores.append(task["begin"] + np.array(rows[:limit] if whole else rows, np.int64))
        inside = max(inside, *scores[limit : limit + 1], 0.0)
    union = np.concatenate(cores)
    chosen, radius = _among(selector, pool, union, opening, budget, seed)
    evidence: dict[str, Any] = {"parts": len(asked), "rows of the parts": len(union)}
    if whole:
        evidence |= _guarantee(radius, inside, given=bool(len(pool.start)))
    left = np.setdiff1d(np.arange(len(pool)), chosen.rows)
    left = left[np.lexsort((pool.rank[left], pool.empty[left]))]
    order = np.concatenate([chosen.rows, left])
    return fill(pool, budget, order, np.concatenate([chosen.scores, np.zeros(len(left))]), evidence)


def _task(
    selector: KCenter, pool: Pool, vectors: Path, begin: int, end: int, opening: Array, limit: int,
    whole: bool, seed: int,
) -> dict[str, Any]:  # fmt: skip
    """Write the rows of a part and return what is asked of it: one row more than it gives says how far."""
    path = vectors.with_name(f"rows-{begin}.parquet")
    write_parquet(path, pa.table({"id": pool.ids[begin:end], "tokens": pool.tokens[begin:end]}))
    own = opening[(opening >= begin) & (opening < end)] - begin
    return {
        "vectors": str(vectors.absolute()), "width": pool.vectors("k-center").shape[1],
        "begin": begin, "end": end, "rows": str(path.absolute()), "start": own.tolist(),
        "first": selector.first, "seed": seed,
        "budget": {"rows": limit + 1} if whole else {"tokens": limit},
    }  # fmt: skip


def _among(
    selector: KCenter, pool: Pool, union: Array, opening: Array, budget: Budget, seed: int
) -> tuple[Selection, float]:
    """Return (the choice among the rows of the parts, the distance of the farthest of them to it)."""
    _, limit = budget.costs(pool)
    place = np.full(len(pool), -1, np.int64)
    place[union] = np.arange(len(union))
    start = place[opening]
    few = Pool(pool.ids.take(union), pool.tokens[union], pool.vectors("k-center")[union], start=start)
    more = Budget(rows=limit + 1) if budget.tokens is None else budget
    found = selector.pick(few, more, seed)
    radius = float(found.scores[limit]) if budget.tokens is None and len(found.rows) > limit else 0.0
    rows = found.rows if budget.tokens is not None else found.rows[:limit]
    return Selection(union[rows], found.scores[: len(rows)]), radius


def _guarantee(radius: float, inside: float, given: bool) -> dict[str, Any]:
    """Return bounds on the covering radius; where rows were given, the best possible is not bounded."""
    most = radius + inside + SAME
    bounds: dict[str, Any] = {"covering radius at most": round(most, 6)}
    # k + 1 rows at least so far apart: two of them have the same nearest centre, whatever the k centres.
    least = max(radius, inside) / 2
    if not given and least:
        bounds |= {
            "any choice of as many at least": round(least, 6),
            "times the best at most": round(most / least, 3),
        }
    return bounds


def needs(rows: int, width: int, picks: int, parts: int) -> Needs:
    """Return what it takes beside ids and lengths: the largest part whole, and the rows of all parts."""
    part = 1.1 * rows / parts  # hashes fill parts unevenly
    core = min(picks, part)
    union = core * parts
    held = max(part * (4.0 * width + 120.0) + 4.0 * width * core, union * (8.0 * width + 120.0))
    work = rows * width * (4 + LAZY * core) + union * width * (2 + LAZY * picks)
    return Needs(64.0 * rows + held, work)
