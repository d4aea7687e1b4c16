"""What a mixture's manifest says: of every source and task its weights, counts, repeats, end and tokens."""

from __future__ import annotations

from math import isinf
from typing import TYPE_CHECKING, Any

import taskmill
from taskmill.mix.source import Mixture, Source, leaves
from taskmill.recipes.mixing import Pool

if TYPE_CHECKING:
    from taskmill.mix.order import Order
    from taskmill.mix.plan import Plan

__all__ = ["manifest_of", "shown"]


def manifest_of(seed: int, mixture: Mixture, pool: Pool, plan: Plan, order: Order) -> dict[str, Any]:
    """Return the manifest of a mixture: what each source gave, and why so much."""
    import numpy as np

    from taskmill.mix.weights import effective

    drawn_tokens = _drawn_tokens(pool, order)
    tokens = int(drawn_tokens.sum())
    sources: dict[str, Any] = {}
    of = {leaf.name: leaf for leaf in leaves(mixture.root)}
    for name in of:
        own = pool.of_source[name]
        record = _record(own, pool, plan, drawn_tokens, tokens)
        record["policy"] = _policy(of[name])
        record["tasks"] = {
            pool.tasks[i].name: _record([i], pool, plan, drawn_tokens, tokens)
            | {fact: of_tasks[i] for fact, of_tasks in pool.facts.items()}
            for i in own
        }
        sources[name] = record
    families = [plan.counts[pool.of_source[name]].sum() for name in of]
    before = [plan.before[pool.of_source[name]].sum() for name in of]
    return {
        "command": "mix",
        "taskmill": taskmill.__version__,
        "mixture": shown(mixture.root),
        "preset": mixture.preset or None,
        "imported": mixture.imported or None,
        "weights": mixture.weights,
        "stratified": mixture.stratified,
        "seed": seed,
        "asked": plan.asked,
        "rows": plan.rows,
        "tokens": tokens,
        "repeats": int(np.maximum(plan.counts - pool.sizes, 0).sum()),
        "exhaustion_point": _exhaustion(pool, plan),
        "effective_families": _number(effective(families)),
        "effective_families_before": _number(effective(before)),
        "effective_tasks": _number(effective(plan.counts)),
        "exit": _exit(mixture, pool, plan),
        "notes": list(mixture.notes),
        "sources": sources,
        "funnel": _funnel(pool),
        "licences": {
            name: sorted({one for i in pool.of_source[name] for one in pool.facts["licences"][i]} - {""})
            for name in of
        },
        "files": pool.files,
    }


def _funnel(pool: Pool) -> dict[str, Any]:
    """Return how many rows the files have, and what became of them; `left_out`: by `where` and `only`."""
    reasons = {row["values"]: row["counts"] for row in pool.dropped["reason"].value_counts().to_pylist()}
    kept = len(pool.table)
    whole = sum(one["rows"] for one in pool.files)
    left_out = whole - kept - len(pool.dropped)
    return {"in": whole, "kept": kept, "left_out": left_out, "dropped": dict(sorted(reasons.items()))}


def _record(own: list[int], pool: Pool, plan: Plan, drawn_tokens: Any, tokens: int) -> dict[str, Any]:
    """Return what the manifest says of a source, or of one task: sums over the tasks `own`."""
    sizes = pool.sizes[own]
    counts = plan.counts[own]
    points = plan.exhausted[own]
    last = float(points.max())
    return {
        "rows": int(sizes.sum()),
        "available": int(plan.available[own].sum()),
        "weight_before": _number(plan.before[own].sum()),
        "weight": _number(plan.shares[own].sum()),
        "count": int(counts.sum()),
        "share": _number(counts.sum() / max(plan.rows, 1)),
        "epochs": _number(counts.sum() / max(int(sizes.sum()), 1)),
        "repeats": int((counts - sizes).clip(0).sum()),
        "exhaustion_point": None if isinf(last) else round(last),
        "tokens": int(drawn_tokens[own].sum()),
        "token_share": _number(drawn_tokens[own].sum() / max(tokens, 1)),
    }


def _drawn_tokens(pool: Pool, order: Order) -> Any:
    """Return the tokens that are drawn of each task: whole passes, and what the last one took."""
    import numpy as np

    from taskmill.mix.order import Order as Alone

    found = np.zeros(len(pool.tasks), np.int64)
    for i, (task, rows) in enumerate(zip(pool.tasks, pool.rows, strict=True)):
        passes, rest = divmod(int(order.counts[i]), len(rows))
        found[i] = passes * int(pool.tokens[rows].sum())
        if rest:
            alone = Alone([order.counts[i]], [len(rows)], [task.key], 0)
            alone.keys[0] = order.keys[i]
            last = alone.at(np.arange(passes * len(rows), int(order.counts[i])))
            found[i] += int(pool.tokens[rows[last.row]].sum())
    return found


def _exhaustion(pool: Pool, plan: Plan) -> dict[str, Any] | None:
    """Return the task that runs out first, and after how many draws; None if all last."""
    if not len(plan.exhausted) or isinf(plan.exhausted.min()):
        return None
    at = plan.ended if plan.ended >= 0 else int(plan.exhausted.argmin())
    task = pool.tasks[at]
    return {
        "source": task.source,
        "task": task.name,
        "draws": round(float(plan.exhausted[at])),
        "ends": plan.ended >= 0,
    }


def _exit(mixture: Mixture, pool: Pool, plan: Plan) -> dict[str, Any]:
    if plan.rows >= plan.asked:
        return {"code": 0, "reason": "done"}
    short = f"{plan.rows:,} of {plan.asked:,} rows"
    if plan.ended >= 0:
        task = pool.tasks[plan.ended]
        why = f"{task.key} has no rows left and its policy is stop; give it drop or repeat for more"
    else:
        why = "all sources are used up; give some of them `policy: repeat`, or ask for fewer"
    return {"code": 3, "reason": f"{short}: {why}"}


def _policy(source: Source) -> str:
    return f"count: {source.count}" if source.count is not None else str(source.policy)


def shown(source: Source) -> dict[str, Any]:
    """Return a source as it may be written again; paths as they were given."""
    found: dict[str, Any] = {}
    for name in ("path", "weight", "count", "cap", "unimax", "only"):
        if getattr(source, name) not in (None, ()):
            value = getattr(source, name)
            found[name] = list(value) if isinstance(value, tuple) else value
    for name, default in (("scale", 1.0), ("temperature", 1.0), ("tasks", "auto"), ("tokens", "")):
        if getattr(source, name) != default:
            found[name] = getattr(source, name)
    if source.where:
        found["where"] = {name: str(condition) for name, condition in source.where.items()}
    found["policy"] = str(source.policy)
    if source.sources:
        found["sources"] = {child.name.rpartition("/")[2]: shown(child) for child in source.sources}
    return found


def _number(value: float) -> float:
    """Round so that sums in another order print the same (chosen: 12 digits after the point)."""
    return round(float(value), 12)
