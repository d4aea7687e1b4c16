"""The rows of an LTD experiment: pool and target read apart, the task's region found, rows put in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taskmill.durable import cache_folder
from taskmill.errors import InputError, UsageError
from taskmill.ids import content_id, draw
from taskmill.recipes.layouts import as_examples, without_end_tokens
from taskmill.recipes.ltd.config import LtdConfig
from taskmill.recipes.pool import Columns, read_rows, strings
from taskmill.recipes.select import predict
from taskmill.recipes.tables import column
from taskmill.record import Example, Reason
from taskmill.render import answer, prompt
from taskmill.select import SELECTORS, Budget, Pool, make
from taskmill.train.student import Item

__all__ = ["Data", "Region", "beginning", "order", "read", "region"]

Array = np.ndarray[Any, Any]

Lengths = Callable[[Iterable[Example]], list[int | str]]
"""Examples → tokens of each as the student reads it, or why it cannot be trained on it."""

CHOICES = 20
"""Different answers of one template up to which they are a closed set (chosen: DBpedia has 14)."""

REPEATED = 5
"""Times each answer of a closed set must occur on average (chosen: free short answers repeat less)."""

_TASK = ("task", "dataset")
_TEMPLATE = ("template", "origin.template")


@dataclass(frozen=True)
class _Rows:
    """What was read of one table: all lists have one entry for each row. `own` says that it came with ids."""

    ids: list[str]
    own: bool
    examples: list[Example]
    tasks: list[str]
    templates: list[str]
    about: list[str]
    vectors: Array | None
    table: pa.Table


@dataclass(frozen=True)
class Data:
    """The experiment's rows. `pool` holds those that may be trained on (its groups: task and template).

    `probes` are the vectors that locate the task (float32 [n, d]); `digests` name the content of each row.
    """

    pool: Pool
    examples: list[Example]
    digests: list[str]
    tasks: list[str]
    templates: list[str]
    probes: Array
    items: list[Item]
    dropped: pa.Table
    counts: Mapping[str, Any]


def read(config: LtdConfig, lengths: Lengths) -> Data:
    """Read pool and target, drop what no student may see or can read, and embed the rest.

    Raises UsageError and InputError for what cannot be read, or if nothing is left.
    """
    own = _load(config.source, config, "")
    aims = _joined([_load(s, config, f"{i}:") for i, s in enumerate(config.target)])
    _check(own, config)
    probes, tests, unread = _divide(aims, config, lengths)
    tokens = lengths(own.examples)
    dropped = _dropped(own, aims, tests, tokens)
    kept = [i for i in range(len(own.ids)) if i not in dropped]
    if not kept:
        raise InputError(f"{config.source}: no row is left to train on; dropped.parquet would hold them all")
    vectors, probe_vectors, embedder = _vectors(own, aims, kept, probes, config)
    examples = [own.examples[i] for i in kept]
    names = [f"{own.tasks[i]} / {own.templates[i]}" for i in kept]
    lengths_kept = np.array([tokens[i] for i in kept], np.int64)
    target = Pool(pa.array([f"target {aims.ids[i]}" for i in probes]), np.ones(len(probes)), probe_vectors)
    pool = Pool(
        pa.array([own.ids[i] for i in kept]),
        lengths_kept,
        vectors,
        pa.array([_text(e) for e in examples], pa.large_string()) if _use("texts", config) else None,
        pa.array(names),
        own.table.take(kept),
        target=target,
    )
    items = _items(own, aims, probes, tests, config.labels)
    return Data(
        pool,
        examples,
        [content_id(prompt(e), answer(e), e.context) for e in examples],
        [own.tasks[i] for i in kept],
        [own.templates[i] for i in kept],
        target.vectors("ltd"),
        items,
        _table_of(own, dropped),
        {
            "pool": len(own.ids),
            "dropped": dict(Counter(str(reason) for reason, _ in dropped.values())),
            "embedder": embedder,
            "target": len(aims.ids),
            "probes": len(probes),
            "items": len(items),
            "target_rows_unread": unread,
        },
    )


def _check(own: _Rows, config: LtdConfig) -> None:
    """Refuse columns that are not there before rows are tokenised and embedded."""
    if set(config.templates) != {"all"} and not any(own.templates):
        raise UsageError("the pool has no column of templates; name it with --template-column")
    name, labelled, _ = config.region.partition("=")
    if labelled:
        column(own.table, name, config.source)


def _load(source: str, config: LtdConfig, numbered: str) -> _Rows:
    rows = read_rows(source, Columns(embeddings=config.embeddings), numbered)
    table = rows.table
    own = "id" in table.column_names
    bare, _ = without_end_tokens(table.drop_columns(["id"]) if own else table)
    examples = list(as_examples(bare.add_column(0, "id", rows.ids)))
    return _Rows(
        rows.ids.to_pylist(),
        own,
        examples,
        _named(table, config.task_column, source, "--task-column", _TASK),
        _named(table, config.template_column, source, "--template-column", _TEMPLATE),
        _named(table, config.item_column, source, "--item-column"),
        rows.vectors,
        table,
    )


def _named(table: pa.Table, wanted: str, source: str, flag: str, defaults: Sequence[str] = ()) -> list[str]:
    """Return a column of names, "" everywhere if none is wanted and no default is there."""
    for name in [wanted] if wanted else defaults:
        head, _, inner = name.partition(".")
        if head not in table.column_names and not wanted:
            continue
        found = column(table, head, source, flag)
        if inner and not pa.types.is_struct(found.type):
            continue
        return [
            value or "" for value in strings(pc.struct_field(found, inner) if inner else found).to_pylist()
        ]
    return [""] * table.num_rows


def _joined(parts: Sequence[_Rows]) -> _Rows:
    ids = [name for part in parts for name in part.ids]
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise InputError(f"the target has the id {twice[0]!r} twice; give every row an id of its own")
    widths = {part.vectors.shape[1] for part in parts if part.vectors is not None}
    if len(widths) > 1:
        raise InputError("the target's tables hold vectors of several widths; use one embedder for all")
    return _Rows(
        ids,
        all(part.own for part in parts),
        [e for part in parts for e in part.examples],
        [t for part in parts for t in part.tasks],
        [t for part in parts for t in part.templates],
        [a for part in parts for a in part.about],
        np.concatenate([p.vectors for p in parts if p.vectors is not None]) if widths else None,
        pa.table({}),
    )


def _divide(aims: _Rows, config: LtdConfig, lengths: Lengths) -> tuple[list[int], list[int], int]:
    """Return (rows that locate the task, rows that are scored, rows the student cannot read): by chance.

    What a locating row is about is not scored under another wording either.
    """
    by_chance = sorted(
        range(len(aims.ids)), key=lambda i: (draw(config.train.seed, aims.ids[i], "ltd probe"), aims.ids[i])
    )
    probes = by_chance[: config.probes]
    seen = {key for i in probes for key in _same(aims, i)}
    rest = [i for i in by_chance[config.probes :] if not seen & _same(aims, i)]
    readable = [isinstance(n, int) for n in lengths(aims.examples[i] for i in rest)]
    tests = [i for i, reads in zip(rest, readable, strict=True) if reads]
    if not tests:
        raise InputError(
            f"the target has {len(aims.ids)} rows and none is left to score; give more, or fewer --probes"
        )
    wanted = config.test_rows or len(tests)
    by_id = aims.ids.__getitem__  # not the order in which they came
    return sorted(probes, key=by_id), sorted(tests[:wanted], key=by_id), len(rest) - len(tests)


def _same(rows: _Rows, i: int) -> set[str]:
    """Return by what another row is recognised as the same one: its prompt, and what it is about."""
    found = {"prompt " + " ".join(prompt(rows.examples[i]).casefold().split())}
    return found | ({f"about {rows.tasks[i]}: {rows.about[i]}"} if rows.about[i] else set())


def _dropped(
    own: _Rows, aims: _Rows, tests: Sequence[int], tokens: Sequence[int | str]
) -> dict[int, tuple[Reason, str]]:
    """Return the pool's rows that no student may see, with the reason and the evidence."""
    scored = {key: aims.ids[i] for i in tests for key in _same(aims, i)}
    ids = {aims.ids[i] for i in tests} if own.own and aims.own else set()
    found: dict[int, tuple[Reason, str]] = {}
    for i, name in enumerate(own.ids):
        same = name if name in ids else next((scored[k] for k in sorted(_same(own, i)) if k in scored), "")
        count = tokens[i]
        if same:
            found[i] = Reason.CONTAMINATED, f"it is the scored row {same} of the target"
        elif not own.examples[i].response.strip():
            found[i] = Reason.EMPTY, "it has no response to learn"
        elif isinstance(count, str):
            found[i] = (
                Reason.TOO_LONG if "tokens" in count else Reason.EMPTY,
                f"the student cannot learn it: {count}",
            )
    return found


def _table_of(own: _Rows, dropped: Mapping[int, tuple[Reason, str]]) -> pa.Table:
    rows = sorted(dropped, key=lambda i: own.ids[i])
    columns = {
        "id": [own.ids[i] for i in rows],
        "reason": [str(dropped[i][0]) for i in rows],
        "detail": [dropped[i][1] for i in rows],
    }
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})


def _text(example: Example) -> str:
    return f"{prompt(example)}\n{answer(example)}"


def _vectors(
    own: _Rows, aims: _Rows, kept: Sequence[int], probes: Sequence[int], config: LtdConfig
) -> tuple[Array, Array, str]:
    """Return the vectors of the pool's kept rows, of the locating ones, and what made them."""
    if own.vectors is not None and aims.vectors is not None:
        if own.vectors.shape[1] != aims.vectors.shape[1]:
            raise InputError(
                f"the target's vectors are of {aims.vectors.shape[1]} numbers, the pool's of "
                f"{own.vectors.shape[1]}; both must come from one embedder"
            )
        return own.vectors[list(kept)], aims.vectors[list(probes)], config.embeddings
    from taskmill.select.embed import embedding

    texts = pa.array([_text(own.examples[i]) for i in kept], pa.large_string())
    found = embedding(texts, config.embedder, cache_folder())
    near = pa.array([_text(aims.examples[i]) for i in probes], pa.large_string())
    return found.vectors, embedding(near, config.embedder, cache_folder(), texts).vectors, found.name


def _use(what: str, config: LtdConfig) -> bool:
    """Say whether a selector takes this from the pool: what none needs is not held."""
    return any(what in SELECTORS.get(name).uses for name in config.selectors)


def _key(rows: _Rows, i: int) -> tuple[str, str]:
    return rows.tasks[i], rows.templates[i]


def _items(
    own: _Rows, aims: _Rows, probes: Sequence[int], tests: Sequence[int], labels: tuple[str, ...]
) -> list[Item]:
    """Return what is scored, with its choices.

    They are `labels`; a row's own options; or the answers of its task and template in the pool and among the
    locating rows, where these are few that repeat. The scored rows' answers play no part in that.
    """
    answers: dict[tuple[str, str], Counter[str]] = {_key(aims, i): Counter() for i in tests}
    for rows, chosen in ((own, range(len(own.ids))), (aims, probes)):
        for i in chosen:
            if _key(rows, i) in answers:
                answers[_key(rows, i)][rows.examples[i].response.strip()] += 1
    closed = {
        key: tuple(sorted(counts))
        if 2 <= len(counts) <= CHOICES and counts.total() >= REPEATED * len(counts)
        else ()
        for key, counts in answers.items()
    }
    items = []
    for i in tests:
        example = aims.examples[i]
        options = example.options if example.response in example.options else ()
        items.append(Item(example, labels or options or closed[_key(aims, i)]))
    return items


@dataclass(frozen=True)
class Region:
    """Where the target task lies: `rows` (bool), the cluster of each row (int64, -1: no vector), evidence."""

    rows: Array
    cluster: Array
    evidence: Mapping[str, Any]


def region(data: Data, config: LtdConfig) -> Region:
    """Find the rows of the pool that belong to the target task, from its locating rows alone.

    `clusters`: the fewest clusters that hold `share` of them; `radius`: rows as near to their mean as that
    share of them is; `COLUMN=VALUE`: as labelled. Raises InputError if there is no such row.
    """
    from taskmill.kernels.distances import nearest
    from taskmill.select.kmeans import cluster

    pool, vectors = data.pool, data.pool.vectors("ltd")
    count = config.clusters or max(1, round(len(pool) ** 0.5))
    found = cluster(pool, count, config.train.seed)
    evidence: dict[str, Any] = {"rule": config.region, "clusters": len(found.centres)}
    if config.region == "clusters":
        shift = 0.5 * np.einsum("kd,kd->k", found.centres, found.centres, dtype=np.float64)
        _, home = nearest(data.probes, found.centres, shift.astype(np.float32))
        votes = np.bincount(home[home >= 0], minlength=len(found.centres))
        ranked = np.argsort(-votes, kind="stable")
        needed = int(np.searchsorted(np.cumsum(votes[ranked]), config.share * votes.sum() - 1e-9)) + 1
        inside = np.isin(found.group, ranked[:needed])
        evidence["clusters_taken"] = needed
    elif config.region == "radius":
        mean = data.probes.astype(np.float64).mean(axis=0)
        least = float(np.quantile(data.probes @ mean, 1 - config.share, method="lower"))
        inside = vectors @ mean >= least
        evidence["least_product_with_mean"] = round(least, 6)
    else:
        name, _, value = config.region.partition("=")
        labelled = column(pool.table if pool.table is not None else pa.table({}), name, config.source)
        inside = np.array([found == value for found in strings(labelled).to_pylist()])
    if not inside.any():
        raise InputError(
            f"no row of {config.source} lies in the region {config.region}; give the pool rows of the task"
        )
    evidence |= {"rows": int(inside.sum()), "tokens": int(pool.tokens[inside].sum())}
    evidence["tasks"] = _composition(data.tasks, inside)
    return Region(inside, found.group, evidence)


def _composition(tasks: Sequence[str], inside: Array, most: int = 12) -> list[dict[str, Any]]:
    """Return the region's tasks, most rows first: how many of each task's rows it holds."""
    everywhere = Counter(tasks)
    here = Counter(task for task, is_in in zip(tasks, inside.tolist(), strict=True) if is_in)
    ranked = sorted(here, key=lambda task: (-here[task], task))[:most]
    return [{"task": task, "rows": here[task], "of": everywhere[task]} for task in ranked]


def order(
    data: Data, rows: Array, selector: str, seed: int, limit: int, clusters: Array
) -> tuple[Array, Array]:
    """Return (rows in the selector's order, their scores): as many as can be needed for `limit` tokens.

    `rows` are int64 indices into the pool, as is the order. Without tasks and templates to draw from
    alike, a stratified order takes the clusters for groups. Raises UsageError if memory does not suffice.
    """
    made = make(selector)
    whole = data.pool if "table" in made.uses else replace(data.pool, table=None)
    pool = whole.take(rows)
    if pool.groups is not None and len(pool.groups.unique()) == 1:
        pool = replace(pool, groups=pa.array([str(c) for c in clusters[rows].tolist()]))
    # No choice of that many tokens has more rows than the shortest rows make.
    most = int(np.searchsorted(np.cumsum(np.sort(pool.tokens)), limit, side="right")) + 1
    budget = Budget(rows=min(most, len(rows)))
    predict(made, pool, budget, selector)
    chosen = made.pick(pool, budget, seed)
    return rows[chosen.rows], chosen.scores


def beginning(ordered: Array, tokens: Array, limit: int) -> Array:
    """Return the longest beginning of an order whose tokens are within `limit`; it may be empty."""
    return ordered[: int(np.searchsorted(np.cumsum(tokens[ordered]), limit, side="right"))]
