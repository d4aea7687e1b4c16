"""Template rows to Arrow: 10 templates mixed in the order of the rows, beside the ways one would write it.

    python -m benchmarks templating [--rows 1000000] [--rounds 3] [--fewshot 0] [--save]

Every arm gets the same columns (question and context, about 60 words), the same templates and the same choice
for each row, and returns one Arrow column; the texts must be equal. Arms: ours (slots only), ours with one
template that has logic, str.format, MiniJinja and Jinja2 in a loop, pyarrow a template at a time with a
filter, and where they are installed polars (a template at a time, then back in order) and DuckDB (CASE over
the choice).
`--fewshot N` assembles N five-shot prompts as `render` does, a batch at a time. Goal: 1.8M rows/s on 2 cores.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import minijinja
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks import machine
from taskmill.mix import fewshot
from taskmill.templates.columns import fill

GOAL = 1_800_000
TEMPLATES = [
    "{{ context }}\n\nQuestion: {{ question }}",
    "Read the text, then answer.\n\n{{ context }}\n\n{{ question }}",
    "Text: {{ context }}\nQ: {{ question }}\nA:",
    "{{ question }}\n\nThe text says:\n{{ context }}",
    "Answer from the text.\n{{ context }}\n{{ question }}",
    "Here is a text.\n\n{{ context }}\n\nTell me: {{ question }}",
    "Question: {{ question }}\nText: {{ context }}\nAnswer:",
    "{{ context }}\n\nWhat is the answer? {{ question }}",
    "Source: {{ context }}\n\nAsked: {{ question }}",
    "Task: {{ question }}\nUse this.\n{{ context }}",
]
LOGIC = "{% if question %}{{ context }}\n\n{{ question | upper }}{% endif %}"


def data(rows: int, seed: int = 0) -> tuple[dict[str, pa.Array], np.ndarray[Any, Any]]:
    """Return the columns, and the template of each row."""
    draw = random.Random(seed)
    words = ["".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 9))) for _ in range(5000)]
    pool = draw.choices(words, k=100_000)
    contexts, questions = [], []
    for _ in range(rows):
        at = draw.randrange(len(pool) - 70)
        contexts.append(" ".join(pool[at : at + 50]))
        questions.append(" ".join(pool[at + 50 : at + 60]) + "?")
    choice = np.random.Generator(np.random.PCG64(seed)).integers(0, len(TEMPLATES), rows)
    return {"context": pa.array(contexts), "question": pa.array(questions)}, choice


def by_fstring(columns: dict[str, pa.Array], choice: Any) -> pa.Array:
    """Fill by str.format, a row at a time."""
    forms = [t.replace("{{ ", "{").replace(" }}", "}").format for t in TEMPLATES]
    both = zip(choice.tolist(), columns["context"].to_pylist(), columns["question"].to_pylist(), strict=True)
    return pa.array([forms[t](context=c, question=q) for t, c, q in both])


def by_minijinja(columns: dict[str, pa.Array], choice: Any) -> pa.Array:
    """Fill by MiniJinja, a row at a time."""
    environment = minijinja.Environment(keep_trailing_newline=True)
    for i, text in enumerate(TEMPLATES):
        environment.add_template(str(i), text)
    render = environment.render_template
    both = zip(choice.tolist(), columns["context"].to_pylist(), columns["question"].to_pylist(), strict=True)
    return pa.array([render(str(t), context=c, question=q) for t, c, q in both])


def by_jinja2(columns: dict[str, pa.Array], choice: Any) -> pa.Array:
    """Fill by compiled Jinja2 templates, a row at a time."""
    import jinja2

    environment = jinja2.Environment(keep_trailing_newline=True)
    renders = [environment.from_string(text).render for text in TEMPLATES]
    both = zip(choice.tolist(), columns["context"].to_pylist(), columns["question"].to_pylist(), strict=True)
    return pa.array([renders[t](context=c, question=q) for t, c, q in both])


def by_polars(columns: dict[str, pa.Array], choice: Any) -> pa.Array:
    """Fill by polars, a template at a time, and sort back."""
    import polars as pl

    frame = pl.DataFrame(
        {name: pl.from_arrow(values) for name, values in columns.items()}
        | {"choice": choice, "at": np.arange(len(choice))}
    )
    parts = []
    for i, text in enumerate(TEMPLATES):
        pieces = [
            pl.col(piece.strip()) if n % 2 else pl.lit(piece)
            for n, piece in enumerate(text.replace("}}", "{{").split("{{"))
        ]
        own = frame.filter(pl.col("choice") == i)
        parts.append(own.select(pl.concat_str(pieces).alias("text"), "at"))
    return pl.concat(parts).sort("at")["text"].to_arrow()


def by_duckdb(columns: dict[str, pa.Array], choice: Any) -> pa.Array:
    """Fill by DuckDB: concat within CASE over the template's number."""
    import duckdb

    given = pa.table({**columns, "choice": choice})  # noqa: F841 - DuckDB finds it by its name
    cases = []
    for i, text in enumerate(TEMPLATES):
        pieces = [
            piece.strip() if n % 2 else "'" + piece.replace("'", "''") + "'"
            for n, piece in enumerate(text.replace("}}", "{{").split("{{"))
            if piece
        ]
        cases.append(f"WHEN {i} THEN concat({', '.join(pieces)})")
    found = duckdb.sql(f"SELECT CASE choice {' '.join(cases)} END AS text FROM given").arrow()
    return (found.read_all() if hasattr(found, "read_all") else found)["text"]


def by_filter(columns: dict[str, pa.Array], choice: Any) -> pa.Array:
    """Fill by pyarrow, a template at a time, on one core, and put the rows back in order."""
    made, order = [], []
    for i, text in enumerate(TEMPLATES):
        rows = np.flatnonzero(choice == i)
        parts: list[Any] = []
        for n, piece in enumerate(text.replace("}}", "{{").split("{{")):
            own = columns[piece.strip()].take(pa.array(rows)) if n % 2 else piece
            parts.append(own)
        made.append(pc.binary_join_element_wise(*parts, ""))
        order.append(rows)
    back = np.empty(len(choice), np.int64)
    back[np.concatenate(order)] = np.arange(len(choice))
    return pa.concat_arrays(made).take(pa.array(back))


def ours(columns: dict[str, pa.Array], choice: Any) -> pa.Array:
    """Fill by what `taskmill render` uses."""
    return fill(TEMPLATES, choice, columns)


def with_logic(columns: dict[str, pa.Array], choice: Any) -> pa.Array:
    """Fill as `ours`, one template of ten with logic."""
    return fill([*TEMPLATES[:-1], LOGIC], choice, columns)


def few(rows: int, seed: int = 0) -> dict[str, float]:
    """Assemble `rows` five-shot prompts from texts; the choice and the writing timed apart."""
    columns, choice = data(rows, seed)
    inputs = fill(TEMPLATES, choice, columns).combine_chunks()
    ids = [f"{i:08}" for i in range(rows)]
    begin = time.perf_counter()
    known = fewshot.Rows(ids, ids)
    chosen = fewshot.choose(known, known, np.full(rows, 5), seed)
    chose = time.perf_counter()
    base = fewshot.bases(ids, seed, "marks")
    targets, size = columns["question"], 0
    for start in range(0, rows, BATCH):
        own = chosen[start : start + BATCH]
        at = pa.array(own.ravel())
        made = fewshot.strung(
            inputs.take(at), targets.take(at), (own >= 0).sum(axis=1), inputs.slice(start, len(own)),
            base[start : start + BATCH],
        )  # fmt: skip
        assert len(made.prompts) == len(own)
        size += made.prompts.nbytes
    end = time.perf_counter()
    return {
        "prompts": rows, "choose_s": round(chose - begin, 3), "write_s": round(end - chose, 3),
        "per_s": round(rows / (end - begin)), "mb": round(size / 1e6),
        "peak_mb": round(machine.peak_mb()),
    }  # fmt: skip


ARMS: dict[str, Callable[..., pa.Array]] = {
    "taskmill": ours,
    "taskmill, one of ten with logic": with_logic,
    "pyarrow, filter and take": by_filter,
    "str.format": by_fstring,
    "minijinja": by_minijinja,
    "jinja2": by_jinja2,
    "polars": by_polars,
    "duckdb": by_duckdb,
}

MODULES = ("jinja2", "polars", "duckdb")
"""Arms that are left out where the package is not installed."""

BATCH = 1 << 15
"""Prompts written at a time, as in `taskmill render`."""


def main(options: list[str]) -> None:
    """Run the arms in turn and print the median of the rounds."""
    parser = argparse.ArgumentParser(prog="benchmarks templating")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fewshot", type=int, default=0)
    parser.add_argument("--save", action="store_true")
    given = parser.parse_args(options)
    columns, choice = data(given.rows)
    ours(columns, choice)
    peak = round(machine.peak_mb())  # of ours with its input: the others come later
    expected = by_fstring(columns, choice)
    arms = {name: arm for name, arm in ARMS.items() if name not in MODULES or find_spec(name)}
    runs: dict[str, list[float]] = {name: [] for name in arms}
    loads = []
    for _ in range(given.rounds):
        for name, arm in arms.items():
            loads.append(machine.load())
            begin = time.perf_counter()
            made = arm(columns, choice)
            runs[name].append(time.perf_counter() - begin)
            whole = made.combine_chunks() if isinstance(made, pa.ChunkedArray) else made
            assert arm is with_logic or whole.cast(pa.string()).equals(expected), name
            del made, whole
    medians = {name: statistics.median(taken) for name, taken in runs.items()}
    result: dict[str, Any] = {
        "rows": given.rows,
        "seconds": {name: machine.summary(taken, 3) for name, taken in runs.items()},
        "rows_per_s": {name: round(given.rows / taken) for name, taken in medians.items()},
        "times_slower": {name: round(taken / medians["taskmill"], 2) for name, taken in medians.items()},
        "goal": GOAL,
        "peak_mb": peak,
        "packages": machine.versions(("taskmill", "pyarrow", *MODULES, "minijinja")),
        "load": loads,
    }
    if given.fewshot:
        result["fewshot"] = few(given.fewshot)
    print(json.dumps(result, indent=1))
    if given.save:
        print(machine.save("templating", result))
