"""How good is a synthesizer? Its pairs against those of annotated texts, and its answers to their questions.

    OUT/  result.json  pairs.parquet (each text: right and written pairs)  answers.parquet  report.html
          manifest.json  config.yaml  ledger/

Every finished call is in the ledger: the same command goes on where it was killed.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from taskmill.config import to_mapping
from taskmill.durable import atomic_write
from taskmill.errors import ConfigError
from taskmill.evaluate.intervals import bootstrap, paired
from taskmill.evaluate.matching import pair_set
from taskmill.recipes.corpus import begins, format_of_model, questions
from taskmill.recipes.corpus.extras import Extra, read_annotated
from taskmill.recipes.corpus.pairs import counter
from taskmill.recipes.evaluation_sets import HeldOut
from taskmill.recipes.examine.asking import Said, ask_answers, ask_pairs, ask_tasks, by_chance
from taskmill.recipes.examine.config import ExamineConfig
from taskmill.recipes.session import OnProgress, Session
from taskmill.recipes.stages import ModelAccess
from taskmill.registry import nearest
from taskmill.report.examine import write_examine_report
from taskmill.store import Run, read_json, write_parquet
from taskmill.synthesize.casting import Annotated
from taskmill.synthesize.pair_format import Pair, split_reasoning
from taskmill.tasks.metrics import squad_f1

__all__ = ["ExamineConfig", "examine"]

_PAIR = pa.list_(pa.struct([("question", pa.string()), ("answer", pa.string())]))
PAIRS_SCHEMA = pa.schema(
    [("dataset", pa.string()), ("split", pa.string()), ("text", pa.string()), ("way", pa.string()),
     ("right", _PAIR), ("written", _PAIR), ("precision", pa.float64()), ("recall", pa.float64()),
     ("f1", pa.float64())]
)  # fmt: skip
ANSWERS_SCHEMA = pa.schema(
    [("dataset", pa.string()), ("split", pa.string()), ("text", pa.string()), ("way", pa.string()),
     ("number", pa.int32()), ("question", pa.string()), ("right", pa.string()), ("answer", pa.string()),
     ("f1", pa.float64())]
)  # fmt: skip

Marks = dict[str, list[float]]
"""dataset → marks of its texts, or of its questions, in one order."""


def examine(config: ExamineConfig, out: str | Path, on_progress: OnProgress | None = None) -> dict[str, Any]:
    """Examine a synthesizer and write what `OUT` holds; return result.json's content.

    `["exit"]` holds code and reason: 3 where a budget or failed calls left texts without a reply (in no mean;
    the same command asks them again). Raises InputError for sources without annotated texts, ConfigError for
    a `seen` dataset that is not there, BackendError, LedgerError or RunFolderError.
    """
    extra = Extra()
    # No cap: texts are taken by chance, not those of most pairs.
    records = read_annotated(config.sources, HeldOut(("none",)), extra, cap=0)
    seen = _seen(config.seen, {record.dataset for record in records})
    pool, shared = _apart(records, seen)
    chosen = _drawn(pool, config)
    with Run(Path(out)) as run:
        session = Session.open(run, to_mapping(config), free=(), update=True, report=on_progress)
        try:
            (run.path / "result.json").unlink(missing_ok=True)  # none of this session yet
            said = Said.nothing()
            caller = ModelAccess(config.model, config.budget, config.ledger).open(session, writes=False)
            form = format_of_model(config.format, config.model.ref)
            with caller.ledger:
                if form == "pairs":
                    begin, count = begins(config.model.ref), counter(config.tokenizer)
                    ask_pairs(session, caller, chosen, pool, config, count, said, begin)
                    ask_answers(session, caller, chosen, config, said, count, begin)
                else:
                    how = questions(config.model, config.task, config.seed)
                    ask_tasks(session, caller, chosen, how, config.pairs, said)
                caller.ledger.sync()
                session.book(caller)
            pairs, answers = _pair_rows(chosen, seen, said), _answer_rows(chosen, seen, said)
            code, reason = (
                (3, "calls failed or a budget was reached; the same command asks the rest")
                if (caller.stopped or caller.failed)
                else (0, "done")
            )
            result = {
                "command": "examine",
                "config": to_mapping(config),
                "model": caller.backend.model,
                "format": form,
                "datasets": _datasets(chosen, pool, seen),
                "shared_texts": shared,
                "left_out": extra.funnel(),
                "malformed": said.malformed,
                "over_context": said.over,
                **_scores(pairs, answers, config),
                "calls": session.manifest["calls"],
                "exit": {"code": code, "reason": reason},
            }
            write_parquet(run.path / "pairs.parquet", pa.Table.from_pylist(pairs, schema=PAIRS_SCHEMA))
            write_parquet(run.path / "answers.parquet", pa.Table.from_pylist(answers, schema=ANSWERS_SCHEMA))
            text = json.dumps(result, indent=1, ensure_ascii=False)
            atomic_write(run.path / "result.json", f"{text}\n".encode())
            write_examine_report(run.path / "report.html", result)
        except BaseException as error:
            session.fail(error)
            raise
        session.end(code, reason)
        return result


def _seen(given: Sequence[str], there: set[str]) -> set[str]:
    """Return the datasets the synthesizer was tuned on. Raises ConfigError for one that is not there."""
    found: set[str] = set()
    for name in given:
        if Path(name).is_dir():
            cast = read_json(Path(name) / "manifest.json").get("datasets")
            if not cast:
                raise ConfigError(
                    f"seen: {name} is no folder that `taskmill cast` wrote; name one, or a dataset"
                )
            found |= set(cast) & there
        elif name in there:
            found.add(name)
        else:
            known = ", ".join(sorted(there))
            raise ConfigError(
                f"seen: no dataset {name!r} in the sources.{nearest(name, there)} They have: {known}"
            )
    return found


def _apart(records: Sequence[Annotated], seen: set[str]) -> tuple[list[Annotated], int]:
    """Return the records without texts of unseen datasets that a seen one has, and how many those are."""
    known = {record.context for record in records if record.dataset in seen}
    kept = [r for r in records if r.dataset in seen or r.context not in known]
    return kept, len(records) - len(kept)


def _drawn(pool: Sequence[Annotated], config: ExamineConfig) -> list[Annotated]:
    of: dict[str, list[Annotated]] = defaultdict(list)
    for record in pool:
        of[record.dataset].append(record)
    return [r for name in sorted(of) for r in by_chance(of[name], config.texts, config.seed, "examined")]


def _datasets(chosen: Sequence[Annotated], pool: Sequence[Annotated], seen: set[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for record in pool:
        split = "seen" if record.dataset in seen else "unseen"
        found.setdefault(record.dataset, {"split": split, "texts": 0, "examined": 0})["texts"] += 1
    for record in chosen:
        found[record.dataset]["examined"] += 1
    return dict(sorted(found.items()))


# marks


def _plain(pairs: Sequence[Pair]) -> list[tuple[str, str]]:
    return [(pair.question, pair.answer) for pair in pairs]


def _pair_rows(chosen: Sequence[Annotated], seen: set[str], said: Said) -> list[dict[str, Any]]:
    rows = []
    for record in chosen:
        for way in ("zero", "few"):
            written = said.pairs.get((record.id, way))
            if written is None:
                continue
            marks = pair_set(_plain(written), _plain(record.pairs))
            rows.append(
                {
                    "dataset": record.dataset, "split": "seen" if record.dataset in seen else "unseen",
                    "text": record.id, "way": way, "right": _shown(record.pairs), "written": _shown(written),
                    **marks._asdict(),
                }
            )  # fmt: skip
    return rows


def _shown(pairs: Sequence[Pair]) -> list[dict[str, str]]:
    return [{"question": pair.question, "answer": pair.answer} for pair in pairs]


def _answer_rows(chosen: Sequence[Annotated], seen: set[str], said: Said) -> list[dict[str, Any]]:
    """Return a row for each answer; of reasoned ones only the conclusion is graded."""
    of = {record.id: record for record in chosen}
    rows = []
    for (text, way, number), answer in sorted(said.answers.items()):
        record = of[text]
        pair = record.pairs[number]
        right = split_reasoning(pair)[2]
        given = split_reasoning(Pair(pair.question, answer))[2]
        rows.append(
            {
                "dataset": record.dataset, "split": "seen" if record.dataset in seen else "unseen",
                "text": text, "way": way, "number": number, "question": pair.question, "right": right,
                "answer": given, "f1": squad_f1(given, [right]),
            }
        )  # fmt: skip
    return rows


def _scores(
    pairs: Sequence[Mapping[str, Any]], answers: Sequence[Mapping[str, Any]], config: ExamineConfig
) -> dict[str, Any]:
    """Return pair-set F1 and response accuracy by split and dataset, and what the conditions differ by."""
    found: dict[str, Any] = {
        "pair_f1": {},
        "pair_f1_by_dataset": [],
        "answers": {},
        "helpfulness": {},
        "few": {},
    }
    for split in ("seen", "unseen"):
        own = [row for row in pairs if row["split"] == split]
        asked = [row for row in answers if row["split"] == split]
        ways = {way: _marks(own, way, ("text",)) for way in ("zero", "few")}
        found["pair_f1"][split] = {way: _mean(_of(m), config) for way, m in ways.items() if m}
        found["few"][split] = _difference(ways["zero"], ways["few"], config)
        given = {way: _marks(asked, way, ("text", "number")) for way in ("alone", "random", "ours")}
        found["answers"][split] = {way: _mean(_of(m), config) for way, m in given.items() if m}
        found["helpfulness"][split] = {
            "ours_less_alone": _difference(given["alone"], given["ours"], config),
            "ours_less_random": _difference(given["random"], given["ours"], config),
        }
    for dataset in sorted({row["dataset"] for row in pairs}):
        own = [row for row in pairs if row["dataset"] == dataset]
        line: dict[str, Any] = {"dataset": dataset, "split": own[0]["split"]}
        for way in ("zero", "few"):
            marks = _of(_marks(own, way, ("text",)))
            if marks:
                line[way] = _mean(marks, config)
        found["pair_f1_by_dataset"].append(line)
    return found


Keyed = dict[tuple[Any, ...], float]


def _marks(rows: Sequence[Mapping[str, Any]], way: str, key: tuple[str, ...]) -> Keyed:
    return {(row["dataset"], *(row[k] for k in key)): row["f1"] for row in rows if row["way"] == way}


def _of(marks: Keyed) -> Marks:
    found: Marks = defaultdict(list)
    for key in sorted(marks):
        found[key[0]].append(marks[key])
    return dict(found)


def _mean(marks: Marks, config: ExamineConfig) -> dict[str, float]:
    """Return the mean over datasets, all weighing the same, with its interval."""
    weights = {dataset: 1 / len(marks) for dataset in marks}
    found = bootstrap(marks, weights, confidence=config.confidence, seed=config.seed)
    shown = {key: round(value, 6) for key, value in found._asdict().items()}
    return {**shown, "n": sum(map(len, marks.values()))}


def _difference(one: Keyed, two: Keyed, config: ExamineConfig) -> dict[str, Any]:
    """Return how two ways differ on what was asked both ways; empty where nothing was."""
    both = set(one) & set(two)
    if not both:
        return {}
    first, second = ({k: marks[k] for k in both} for marks in (one, two))
    datasets = _of(first)
    weights = {dataset: 1 / len(datasets) for dataset in datasets}
    return paired(datasets, _of(second), weights, confidence=config.confidence, seed=config.seed)
