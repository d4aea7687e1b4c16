"""Rows of a data set → prompts and completions through templates: one journey, every style.

Zero-shot or few-shot, with answer options or without, with a chain of thought or without, forward or
inverted. What a row becomes is drawn from its id; its place in the file plays no part (Flan requirements
R6 and R8 to R14).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taskmill.backends.tokenizer import TextTokenizer, load_text_tokenizer
from taskmill.config import to_mapping
from taskmill.ids import content_id
from taskmill.ingest.fingerprint import fingerprint
from taskmill.ingest.tokens import count_tokens
from taskmill.mix import fewshot
from taskmill.recipes.data_folder import file_record
from taskmill.recipes.phrasing import Phrasings, Stock, Style, Written, beside_of, rows_of, stock_of, write
from taskmill.recipes.rendered import Faults, Parts, counted, dropped_rows, out_of, total
from taskmill.recipes.session import OnProgress, Progress, ignore
from taskmill.recipes.tables import table_files
from taskmill.recipes.wording import RenderConfig, Words, choice_of, cluster_of, words_of
from taskmill.templates.lint import lint
from taskmill.templates.schema import Cluster, shipped
from taskmill.templates.sets import DataSet, find, from_columns

__all__ = ["COLUMNS", "RenderConfig", "render"]

Array = np.ndarray[Any, Any]

COLUMNS = pa.schema(
    [
        ("id", pa.string()),
        ("task", pa.string()),
        ("cluster", pa.string()),
        ("source", pa.string()),
        ("upstream_id", pa.string()),
        ("licence", pa.string()),
        ("language", pa.string()),
        ("template", pa.string()),
        ("style", pa.string()),
        ("shots", pa.int32()),
        ("with_options", pa.bool_()),
        ("cot", pa.bool_()),
        ("inverted", pa.bool_()),
        ("exemplars", pa.list_(pa.string())),
        ("options", pa.list_(pa.string())),
        ("gold", pa.list_(pa.int32())),
        ("option_style", pa.string()),
        ("ending", pa.string()),
        ("marks", pa.int32()),
        ("answer", pa.string()),
        ("prompt", pa.large_string()),
        ("completion", pa.large_string()),
    ]
)
"""The columns of rendered rows: what each is of, how it was made, and the text that is learned from."""


class _Setup(NamedTuple):
    """What holds for a whole rendering."""

    config: RenderConfig
    cluster: Cluster
    dataset: DataSet
    words: Words
    style: Style
    tokenizer: TextTokenizer | None


class _Prompts(NamedTuple):
    """The prompts of some rows: their text, the ids of the exemplars, the marks, how many fell back."""

    prompts: pa.Array
    exemplars: list[list[str]]
    shots: Array
    marks: Array
    short: int


def render(config: RenderConfig, out: str | Path, on_progress: OnProgress | None = None) -> dict[str, Any]:
    """Write the rows of `config.source` as prompts and completions to `out`; return the report.

    `out` is FILE.parquet or FILE.jsonl, beside which stand `.dropped.parquet` (rows that cannot be phrased,
    with the reason) and `.report.json`; or a folder with data/, dropped.parquet, manifest.json and a card.
    The same call continues what a kill broke off, part by part. Raises UsageError for a style that the set or
    its templates lack, and for an `out` that is not this command's to write.
    """
    say = on_progress or ignore
    given = [one for one in (config.source, config.pool) if one]
    files = [file for one in given for file in table_files(one)]
    path = out_of(out, given, files)
    say(Progress("read rows"))
    setup, table = _setup(config)
    stock = stock_of(table, setup.dataset, config.licence, options=config.options)
    pool = _pool(setup, stock)
    at = stock.fit()
    base = fewshot.bases([stock.ids[i] for i in at], config.seed, f"phrasing {config.epoch}")
    rows = Phrasings(at, choice_of(setup.words, base, config.bare), base)
    chosen = _chosen(setup, rows, stock, pool)
    records = [file_record(file) for file in (*files, *beside_of(config.source, setup.dataset))]
    parts = Parts(path, COLUMNS, len(at), _made_of(setup, records))
    for number, places in parts:
        dropped: Faults = {}
        own = np.array(places, np.int64)
        part, short = _part(setup, stock, pool, rows.take(own), chosen[own], dropped)
        tokens, unknown = _unknown(setup, part)
        parts.write(number, part, counted(part, dropped, short=short, tokens=tokens, unknown=unknown))
        say(Progress("phrase", places.stop, len(at)))
    counts = total(parts.counts(), stock.unfit)
    report = _report(setup, counts, table.num_rows, records)
    parts.finish(report, dropped_rows(table, counts["dropped"]))
    return report


def _made_of(setup: _Setup, records: list[dict[str, Any]]) -> Any:
    """Return what rendered rows follow from, as JSON; None where sources cannot be told from other ones."""
    if not all("blake2b" in one for one in records):
        return None  # a dataset of the Hub
    tokenizer = setup.config.tokenizer
    own = fingerprint([tokenizer]) if tokenizer and Path(tokenizer).exists() else ""
    return [to_mapping(setup.config), records, file_record(str(setup.cluster.file)), own]


def _setup(config: RenderConfig) -> tuple[_Setup, pa.Table]:
    """Return what holds for all rows, and the rows of the source."""
    dataset = find(config.set, "" if config.fields else config.source)
    table = rows_of(config.source, dataset)
    cluster = cluster_of(config, dataset)
    if dataset is None:
        name = Path(config.source).name.partition(".")[0]
        dataset = from_columns(name, table.column_names, config.fields, cluster.name, config.licence)
    words = words_of(config, cluster, dataset.has)
    style = Style(config.options, config.cot and not config.invert, config.target, config.seed)
    tokenizer = load_text_tokenizer(config.tokenizer) if config.tokenizer else None
    return _Setup(config, cluster, dataset, words, style, tokenizer), table


def _part(
    setup: _Setup, stock: Stock, pool: Stock, rows: Phrasings, chosen: Array, dropped: Faults
) -> tuple[pa.Table, int]:
    """Return some rows as they are written, and how many fell back; what cannot be written is dropped."""
    written = _write(setup, stock, rows)
    for place, fault in written.faults.items():
        dropped[int(rows.row[place])] = fault
    good = np.flatnonzero(~written.failed)
    rows, written = rows.take(good), written.take(good)
    if setup.config.style != "fs":
        none = np.zeros(len(good), np.int64)
        made = _Prompts(written.inputs, [[]] * len(good), none, none - 1, 0)
        return _table(setup, stock, rows, written, made), 0
    made = _fewshot(setup, rows, written, pool, chosen[good])
    rows, written = _without_bare(setup, stock, rows, written, made.shots)
    alone = pa.array(made.shots == 0)
    prompts = pc.if_else(alone, written.inputs.cast(pa.large_string()), made.prompts)
    return _table(setup, stock, rows, written, made._replace(prompts=prompts)), made.short


def _write(setup: _Setup, stock: Stock, rows: Phrasings) -> Written:
    return write(stock, rows, setup.words.texts, setup.words.templates, setup.style)


# few-shot


def _pool(setup: _Setup, stock: Stock) -> Stock:
    config = setup.config
    if config.style == "fs" and config.pool:
        table = rows_of(config.pool, setup.dataset)
        stock = stock_of(table, setup.dataset, config.licence, options=config.options)
    return stock.take(stock.fit())


def _chosen(setup: _Setup, rows: Phrasings, stock: Stock, pool: Stock) -> Array:
    """Return the places in the pool of each row's exemplars (N, K), farthest first; -1 for none."""
    config = setup.config
    if config.style != "fs":
        return np.empty((len(rows.row), 0), np.int64)
    wanted = fewshot.counts(rows.base, fewshot.distribution(config.shots))
    queries = stock.take(rows.row)
    others = pool.known_by(setup.cluster, labels=config.balance)
    asked = others if queries is pool else queries.known_by(setup.cluster)
    return fewshot.choose(asked, others, wanted, config.seed, balance=config.balance, epoch=config.epoch)


def _fewshot(setup: _Setup, queries: Phrasings, texts: Written, pool: Stock, chosen: Array) -> _Prompts:
    """Return the prompts of queries whose own texts are written; their exemplars are rows of `pool`."""
    config = setup.config
    wanted = fewshot.counts(queries.base, fewshot.distribution(config.shots)) > 0
    place, column = np.nonzero(chosen >= 0)
    picked = chosen[place, column]
    base, template = queries.base[place], queries.template[place]
    if config.mixed:
        base = base ^ fewshot.bases([pool.ids[i] for i in picked], config.seed, "mixed")
        template = choice_of(setup.words, base, config.bare)
    written = _write(setup, pool, Phrasings(picked, template, base))
    chosen[place[written.failed], column[written.failed]] = -1
    tokens = np.zeros(chosen.shape, np.int64)
    tokens[place, column] = _lengths(setup, written.input_list()) + _lengths(setup, written.target_list())
    left = fewshot.within(chosen, tokens, config.max_tokens)
    kept = pa.array(np.flatnonzero(left[place, column] >= 0))
    shots = (left >= 0).sum(axis=1)
    made = fewshot.strung(
        written.inputs.take(kept), written.targets.take(kept), shots, texts.inputs, queries.base
    )
    exemplars = [[pool.ids[i] for i in row if i >= 0] for row in left.tolist()]
    return _Prompts(made.prompts, exemplars, shots, made.marks, int(((shots == 0) & wanted).sum()))


def _lengths(setup: _Setup, texts: list[str]) -> Array:
    """Return the tokens of each text (N,): counted where a tokenizer is named, else estimated."""
    if setup.tokenizer is None:
        return np.array([count_tokens(text) for text in texts], np.int64)
    _, offsets = setup.tokenizer.encode(texts)
    return np.diff(offsets)


def _without_bare(
    setup: _Setup, stock: Stock, rows: Phrasings, written: Written, shots: Array
) -> tuple[Phrasings, Written]:
    """Give rows that are left without exemplars a wording with an instruction."""
    alone = np.flatnonzero((shots == 0) & (rows.template >= setup.words.regular))
    if not len(alone):
        return rows, written
    template = rows.template.copy()
    template[alone] = fewshot.drawn(rows.base[alone], "template", setup.words.regular)
    rows = rows._replace(template=template)
    return rows, _write(setup, stock, rows)


# what is written


def _style_name(config: RenderConfig, shots: int) -> str:
    parts = ["fs" if shots else "zs", "opt" if config.options else "noopt"]
    return "_".join([*parts, *(["cot"] if config.cot else []), *(["inv"] if config.invert else [])])


def _table(setup: _Setup, stock: Stock, rows: Phrasings, written: Written, made: _Prompts) -> pa.Table:
    config, count = setup.config, len(rows.row)
    shots, prompts = made.shots.tolist(), made.prompts
    upstream = [stock.ids[i] for i in rows.row]
    versions = [f"{setup.cluster.name}/{t.version}" for t in setup.words.templates]
    texts = zip(upstream, prompts.to_pylist(), written.target_list(), strict=True)
    columns: dict[str, Any] = {
        "id": [content_id(setup.dataset.name, one, prompt, target) for one, prompt, target in texts],
        "task": [setup.dataset.name] * count,
        "cluster": [setup.cluster.name] * count,
        "source": [Path(config.source).name] * count,
        "upstream_id": upstream,
        "licence": [stock.licences[i] for i in rows.row],
        "language": [stock.languages[i] for i in rows.row],
        "template": [versions[i] for i in rows.template],
        "style": [_style_name(config, n) for n in shots],
        "shots": shots,
        "with_options": [config.options] * count,
        "cot": [config.cot] * count,
        "inverted": [config.invert] * count,
        "exemplars": made.exemplars,
        "options": written.options,
        "gold": written.gold,
        "option_style": written.option_style,
        "ending": written.ending,
        "marks": np.where(made.shots > 0, made.marks, -1),
        "answer": written.answer,
        "prompt": prompts.cast(pa.large_string()),
        "completion": written.targets.cast(pa.large_string()),
    }
    made_of = ((columns[f.name], f.type) for f in COLUMNS)
    arrays = [one if isinstance(one, pa.Array) else pa.array(one, kind) for one, kind in made_of]
    return pa.table(arrays, schema=COLUMNS)


def _unknown(setup: _Setup, part: pa.Table) -> tuple[int, int]:
    """Return the tokens of prompts and completions, and how many of them the tokenizer does not know."""
    if setup.tokenizer is None:
        return 0, 0
    ids, _ = setup.tokenizer.encode([*part["prompt"].to_pylist(), *part["completion"].to_pylist()])
    mark = setup.tokenizer.special_tokens.get("unk_token")
    # Of byte-level vocabularies the mark is often the end token, which no text becomes.
    unknown, _ = setup.tokenizer.encode([mark] if mark else [])
    return len(ids), int((ids == unknown[0]).sum()) if len(unknown) == 1 else 0


def _report(
    setup: _Setup, counts: dict[str, Any], rows: int, records: list[dict[str, Any]]
) -> dict[str, Any]:
    reasons = Counter(str(reason) for reason, _ in counts["dropped"].values())
    source, tokenizer = setup.config.source, setup.tokenizer
    warnings = [] if counts["kept"] else [f"no row of {source} can be phrased; see the dropped rows"]
    if Path(setup.cluster.file).parent != shipped():
        warnings += [str(fault) for fault in lint(setup.cluster.file)]
    unknown = counts["unknown"] / max(1, counts["tokens"]) if tokenizer else None
    if unknown and tokenizer:
        share = f"{unknown:.3%} of the tokens of {setup.dataset.name} are unknown to {tokenizer.name}"
        warnings.append(f"{share}; take a tokenizer that knows its script")
    by = ("styles", "templates", "shots", "licences", "languages", "categories")
    return {
        "command": "render",
        "config": to_mapping(setup.config),
        "set": setup.dataset.name,
        "cluster": setup.cluster.name,
        "funnel": {"in": rows, "kept": counts["kept"], "dropped": dict(sorted(reasons.items()))},
        **{name: counts[name] for name in by},
        "fallback_to_zero_shot": counts["short"],
        "unknown_tokens": unknown,
        "files": records,
        "warnings": warnings,
    }
