"""A model answers benchmarks: results with intervals, and a log of every item.

    OUT/  results.json  items.parquet (prompt, output, extraction, verdict)  report.html
          manifest.json  config.yaml  ledger/

Every finished call is in the ledger: the same command goes on where it was killed; another extractor, more
items or another way to normalise pay for what is new only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from taskmill.caller import Caller
from taskmill.config import to_mapping
from taskmill.durable import atomic_write
from taskmill.errors import UsageError
from taskmill.evaluate.averages import AVERAGES, normalised_average
from taskmill.evaluate.results import doubled, robustness, summary
from taskmill.recipes.evaluate.asking import replies, shots
from taskmill.recipes.evaluate.config import EvaluateConfig, EvaluatedModel
from taskmill.recipes.evaluate.judging import ITEM_SCHEMA, judge
from taskmill.recipes.evaluate.lm_eval import export_lm_eval
from taskmill.recipes.evaluate.outputs import metric_of, versions
from taskmill.recipes.evaluate.rows import Bench, load
from taskmill.recipes.session import OnProgress, Session
from taskmill.recipes.stages import ModelAccess
from taskmill.report.evaluation import write_evaluation_report
from taskmill.store import Run, write_parquet
from taskmill.suites import get, prompt

__all__ = ["EvaluateConfig", "EvaluatedModel", "evaluate", "export"]


def evaluate(
    config: EvaluateConfig, out: str | Path, on_progress: OnProgress | None = None
) -> dict[str, Any]:
    """Ask the model all suites and write what `OUT` holds; return results.json's content.

    `["exit"]` holds code and reason: 3 where a budget or failed calls left items unanswered (counted,
    in no average, asked again by the same command). Raises UsageError before any call for settings that
    cannot work, InputError for benchmark files that are none, BackendError, LedgerError or RunFolderError.
    """
    if not config.suite:
        raise UsageError("no suite is given; write --suite with one or more of those on docs/evaluate.md")
    benches = [_bench(name, config) for name in dict.fromkeys(config.suite)]
    with Run(Path(out)) as run:
        session = Session.open(run, to_mapping(config), free=(), update=True, report=on_progress)
        try:
            (run.path / "results.json").unlink(missing_ok=True)  # none of this session yet
            caller = ModelAccess(config.model, config.budget, config.ledger).open(session, writes=False)
            suites, tables = {}, []
            with caller.ledger:
                for bench in benches:
                    suites[bench.suite.name], rows = _one(session, caller, bench, config)
                    tables.append(pa.Table.from_pylist(rows, schema=ITEM_SCHEMA))
                caller.ledger.sync()
                session.book(caller)
            end = _gate(caller, suites)
            results = {
                "model": caller.backend.model,
                "suites": suites,
                "normalised_average": normalised_average(suites),
                "calls": session.manifest["calls"],
                "exit": {"code": end[0], "reason": end[1]},
            }
            write_parquet(run.path / "items.parquet", pa.concat_tables(tables))
            atomic_write(
                run.path / "results.json", json.dumps(results, indent=1, ensure_ascii=False).encode()
            )
            write_evaluation_report(run.path, results)
        except BaseException as error:
            session.fail(error)
            raise
        session.end(*end)
        return results


def export(config: EvaluateConfig, folder: str | Path) -> list[Path]:
    """Write the suites as tasks of the lm-eval harness; return the configurations' paths."""
    benches = [_bench(name, config) for name in dict.fromkeys(config.suite)]
    return [path for bench in benches for path in export_lm_eval(bench, shots(bench, config), Path(folder))]


def _bench(name: str, config: EvaluateConfig) -> Bench:
    bench = load(
        get(name), config.data, config.exemplars,
        limit=config.limit, seed=config.seed, split=config.split, raw=config.raw_exemplars,
    )  # fmt: skip
    there = prompt(bench.suite.prompt).phrasings
    if config.phrasings > there:
        raise UsageError(f"suite {name} has {there} wordings; write --phrasings {there} or fewer")
    return bench


def _one(
    session: Session, caller: Caller, bench: Bench, config: EvaluateConfig
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ask one suite; return its results and the rows of its log."""
    suite = bench.suite
    found = replies(session, caller, bench, config)
    judged = [judge(bench, found, phrasing, config) for phrasing in range(config.phrasings)]
    k = shots(bench, config)
    words = prompt(suite.prompt)
    head = {
        "title": suite.title,
        "versions": {**versions(suite), "prompt": f"{words.name}@{words.version}"},
        "shots": max((len(bench.before(item, k)) for item in bench.items), default=0),
        "shots_asked": k,
        "first_prompt": words.render(bench.items[0], bench.before(bench.items[0], k)),
        "files": [Path(file).name for file in bench.files],
        "items": len(bench.items),
        "items_in_file": bench.whole,
        "duplicate_options": sum(bool(doubled(item.options)) for item in bench.items),
        "unanswered": len(bench.items) - len(judged[0][0]),
    }
    metric, average = metric_of(suite), AVERAGES.get(suite.average)
    settings = {"confidence": config.confidence, "seed": config.seed}
    if not all(marks for marks, _, _ in judged):
        return {**head, "tasks": {}, "overall": None, "n": 0}, []
    summaries = [summary(marks, metric, average, **settings) for marks, _, _ in judged]  # type: ignore[arg-type]
    results = {**head, **summaries[0], **judged[0][2]}
    if config.phrasings > 1:
        heads = [one["headline"] for one in summaries]
        results["robustness"] = {"mark": heads[0]["mark"], **robustness([one["mean"] for one in heads])}
    return results, [row for _, rows, _ in judged for row in rows]


def _gate(caller: Caller, suites: dict[str, dict[str, Any]]) -> tuple[int, str]:
    left: Sequence[str] = [
        f"{one['unanswered']} of {name}" for name, one in suites.items() if one["unanswered"]
    ]
    if caller.stopped:
        return 3, f"budget reached: {caller.budget.reason}; raise it and run the same command to continue"
    if left:
        why = f" ({caller.fault})" if caller.fault else ""
        return 3, f"items without an answer: {', '.join(left)}{why}; the same command asks them again"
    return 0, "done"
