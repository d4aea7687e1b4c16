"""The remix: annotated datasets → examples → checked → balanced rows that train a synthesizer (CTGA)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from importlib.resources import files
from itertools import chain, islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from taskmill import frame
from taskmill.config import to_mapping
from taskmill.errors import ConfigError, InputError, LicenceUnknown, UsageError
from taskmill.export.licences import is_commercial, is_non_commercial, is_unknown
from taskmill.ingest.records import find_tables, read_records
from taskmill.recipes.evaluation_sets import AGAINST, SHIPPED, HeldOut
from taskmill.recipes.session import OnProgress, Progress, Session
from taskmill.recipes.stages import EXAMPLE_KEYS, settle, stage_key
from taskmill.record import EXAMPLE_SCHEMA, Dropped, Example, content_id, examples
from taskmill.store import Run, StageWriter, parts
from taskmill.synthesize.ctga import CTGA_SCHEMA, Balance, Entry, compose, counts, select
from taskmill.synthesize.declaration import Declaration, OwnTemplate, load_declarations
from taskmill.synthesize.remix import Remix
from taskmill.tasks import get
from taskmill.templates.promptsource import known_configs, read_collection

__all__ = ["RemixConfig", "remix"]

CATALOG = "catalog"

_ROWS = 256
FREE = ("workers",)


@dataclass(frozen=True, slots=True)
class RemixConfig:
    """Annotated datasets in, training rows for a synthesizer out."""

    sources: tuple[str, ...] = field(
        default=(), metadata={"help": "declaration files (YAML), or `catalog` for the built-in ones"}
    )
    data: str = field(default="", metadata={"help": "folder in which the declared files lie"})
    only: tuple[str, ...] = field(default=(), metadata={"help": "datasets of the declarations to take"})
    skip: tuple[str, ...] = field(default=(), metadata={"help": "datasets of the declarations to leave out"})
    task: tuple[str, ...] = field(default=(), metadata={"help": "task types to keep; default: all"})
    prompts: str = field(
        default="", metadata={"help": "folder of promptsource templates for datasets it knows by name"}
    )
    licence: str = field(
        default="permissive",
        metadata={
            "help": "permissive admits no row that forbids commercial use; any admits every known licence",
            "choices": ("permissive", "any"),
        },
    )
    allow_licence: tuple[str, ...] = field(
        default=(), metadata={"help": "licence names to admit besides, `unknown` for rows that name none"}
    )
    against: tuple[str, ...] = field(
        default=(SHIPPED,), metadata={"help": f"examples that hold items of these are dropped: {AGAINST}"}
    )
    seed: int = field(default=0, metadata={"help": "every draw depends on it"})
    limit: int = field(default=0, metadata={"help": "most rows read of one dataset; 0: all"})
    workers: int = field(default=1, metadata={"help": "processes; the corpus does not depend on it"})
    balance: Balance = field(default_factory=Balance)


def remix(
    config: RemixConfig, out: str | Path, *, update: bool = False, on_progress: OnProgress | None = None
) -> dict[str, Any]:
    """Build the corpus in a run folder (`3-ctga/kept` holds the rows) and return the manifest.

    Raises LicenceUnknown before anything is read if a dataset's licence is not admitted.
    """
    declared = declarations(config)
    for task in config.task:
        get(task)
    held = HeldOut(config.against)
    with Run(Path(out)) as run:
        session = Session.open(run, to_mapping(config), free=FREE, update=update, report=on_progress)
        session.manifest.update(kind="remix", seed=config.seed, inputs=list(config.sources), against=held.key)
        try:
            recast = _remix(session, config, declared)
            checked = _check(session, recast, held)
            session.manifest["corpus"] = _compose(session, checked, config, declared)
        except BaseException as error:
            session.fail(error)
            raise
        rows = session.manifest["funnel"]["ctga"]["kept"]
        session.end(*((0, "done") if rows else (3, "no row was kept, see the reasons in the dropped parts")))
        return session.manifest


def declarations(config: RemixConfig) -> list[Declaration]:
    """Return the declarations in force, each with a licence that is admitted.

    Raises ConfigError for names that no declaration has, LicenceUnknown for licences.
    """
    if not config.sources:
        raise UsageError("no declaration is given; name a YAML file, or `catalog` for the built-in ones")
    found: list[Declaration] = []
    for source in config.sources:
        path = Path(str(files("taskmill.templates") / "catalog.yaml")) if source == CATALOG else Path(source)
        found += load_declarations(path, config.data)
    names = {d.name for d in found} | {d.key for d in found}
    for name in (*config.only, *config.skip):
        if name not in names:
            raise ConfigError(f"no declaration is named {name!r}; there are: {', '.join(sorted(names))}")
    found = [d for d in found if not config.only or d.name in config.only or d.key in config.only]
    found = [d for d in found if d.name not in config.skip and d.key not in config.skip]
    if len({d.key for d in found}) < len(found):
        twice = next(k for k, n in Counter(d.key for d in found).items() if n > 1)
        raise ConfigError(f"two declarations are named {twice!r}; give them different names or a config")
    for declaration in found:
        _admit(declaration, config)
    return found


def _admit(declaration: Declaration, config: RemixConfig) -> None:
    """Raise LicenceUnknown unless the declared licence is admitted."""
    licence, allowed = declaration.licence, {name.lower() for name in config.allow_licence}
    if licence.lower() in allowed or (is_unknown(licence) and "unknown" in allowed):
        return
    if is_unknown(licence):
        raise LicenceUnknown(
            f"{declaration.key} declares no licence; add `licence:` to it, or --allow-licence unknown"
        )
    if config.licence == "any" and not is_commercial(licence) and not is_non_commercial(licence):
        raise LicenceUnknown(
            f"{declaration.key}: nobody here knows the licence {licence!r}; admit it by name with "
            f"--allow-licence {licence!r}"
        )
    if config.licence == "permissive" and not is_commercial(licence):
        raise LicenceUnknown(
            f"{declaration.key}: {licence!r} is not a licence known to allow commercial use; leave it out "
            f"with --skip {declaration.key}, or admit it by name with --allow-licence {licence!r}"
        )


# 1: rows → examples


def _remix(session: Session, config: RemixConfig, declared: Sequence[Declaration]) -> str:
    folder = session.run.stage(1, "remix")
    tables = {d.key: find_tables(d.files, d.root) for d in declared}
    stamps = {key: [_stamp(name) for name in names] for key, names in tables.items()}
    settings = {k: v for k, v in to_mapping(config).items() if k not in ("workers", "balance", "against")}
    prompts = [(d.key, t.name, t.text) for d in declared for t in _collected(d, config)]
    key = stage_key("remix", settings, [to_mapping(d) for d in declared], stamps, prompts)
    marker = session.run.finished(folder, key)
    if marker is None:
        session.run.begin(folder)
        writer = StageWriter(folder, EXAMPLE_SCHEMA, EXAMPLE_KEYS)
        credits = {d.key: {"licence": d.licence, "credit": d.credit, "split": d.split} for d in declared}
        with _pool(config.workers) as mapped:
            for declaration in declared:
                jobs = _jobs(declaration, tables[declaration.key], config)
                for made in mapped(_work, jobs):
                    _store(session, writer, made, config)
        marker = writer.finish(key, credits=credits)
    session.manifest["funnel"]["remix"] = marker["funnel"]
    session.manifest["credits"] = marker["credits"]
    return str(marker["digest"])


def _stamp(name: str) -> list[Any]:
    if name.startswith("hf:"):
        return [name]
    stat = Path(name).stat()
    return [name, stat.st_size, stat.st_mtime_ns]


class _pool:  # noqa: N801 - used as a function
    """Gives a `map` over jobs: in this process for one worker, else in spawned ones, in order."""

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise UsageError("--workers must be 1 or more")
        self._executor = (
            ProcessPoolExecutor(workers, mp_context=get_context("spawn")) if workers > 1 else None
        )
        self._ahead = 4 * workers

    def __enter__(self) -> Callable[[Callable[[Any], Any], Iterator[Any]], Iterator[Any]]:
        return self._map

    def __exit__(self, *_: object) -> None:
        if self._executor:
            self._executor.shutdown(cancel_futures=True)

    def _map(self, function: Callable[[Any], Any], jobs: Iterator[Any]) -> Iterator[Any]:
        if self._executor is None:
            yield from map(function, jobs)
            return
        # A bounded number of jobs ahead: a table is never in memory as a whole.
        waiting = [self._executor.submit(function, job) for job in islice(jobs, self._ahead)]
        while waiting:
            first = waiting.pop(0)
            yield first.result()
            waiting += [self._executor.submit(function, job) for job in islice(jobs, 1)]


Job = tuple[Declaration, tuple[OwnTemplate, ...], int, str, int, list[dict[str, Any]]]


def _jobs(declaration: Declaration, names: Sequence[str], config: RemixConfig) -> Iterator[Job]:
    """Yield batches of rows with what is needed to remix them."""
    templates = _collected(declaration, config)
    remixer = Remix(replace(declaration, templates=()), config.seed)
    siblings = _siblings(remixer, names, config) if declaration.siblings else {}
    left = config.limit or None
    for name in names:
        rows = enumerate(islice(read_records(name, declaration.split), left))
        uri = name if name.startswith("hf:") else Path(name).name
        while batch := list(islice(rows, _ROWS)):
            found = [row for _, row in batch]
            for row in found if declaration.siblings else ():
                row["siblings"] = siblings.get(remixer.group(row), [])
            yield declaration, templates, config.seed, uri, batch[0][0], found
            if left is not None:
                left -= len(found)


def _collected(declaration: Declaration, config: RemixConfig) -> tuple[OwnTemplate, ...]:
    """Return the prompt collection's templates for a dataset it knows, with their task types."""
    name, _, sub = declaration.prompts.partition(":")
    if not name:
        return ()
    if not config.prompts:
        raise UsageError(f"{declaration.key} takes prompts of {name}: name their folder with --prompts")
    known = known_configs().get((name, sub))
    if known is None:
        raise ConfigError(f"{declaration.key}: prompts: {declaration.prompts!r} is no known configuration")
    return tuple(
        OwnTemplate(known.task_of(p.name), p.name, p.jinja, p.answer_choices)
        for p in read_collection(Path(config.prompts), name, sub)
        if known.task_of(p.name)
    )


def _siblings(remixer: Remix, names: Sequence[str], config: RemixConfig) -> dict[str, list[Any]]:
    """Return, for each group of rows, what its rows have in common to show."""
    found: dict[str, list[Any]] = defaultdict(list)
    rows = chain.from_iterable(read_records(name, remixer.declaration.split) for name in names)
    for row in islice(rows, config.limit or None):
        value = remixer.sibling(row)
        if value is not None:
            found[remixer.group(row)].append(value)
    return found


_last: tuple[Any, Remix] | None = None


def _work(job: Job) -> list[Example | Dropped]:
    """Remix one batch of rows (runs in a worker; templates are compiled once per dataset there)."""
    global _last
    declaration, templates, seed, uri, first, rows = job
    made = (declaration, seed, templates)
    if _last is None or _last[0] != made:
        _last = (made, Remix(declaration, seed, templates))
    remixer = _last[1]
    return [o for i, row in enumerate(rows) for o in remixer.examples(row, first + i, uri)]


def _store(session: Session, writer: StageWriter, made: Sequence[Any], config: RemixConfig) -> None:
    wanted = {get(task).name for task in config.task}
    kept = [o for o in made if isinstance(o, Example) and (not wanted or o.task in wanted)]
    lost = [o for o in made if isinstance(o, Dropped)]
    writer.count(len(kept) + len(lost))
    writer.keep(kept)
    writer.drop(lost)
    done = writer.counted
    session.tick(Progress("remix", done, None, done - sum(writer.reasons.values())))


# 2: the task types' own checks


def _check(session: Session, recast: str, held: HeldOut) -> str:
    source, folder = session.run.stage(1, "remix"), session.run.stage(2, "curate")
    key = stage_key("curate", recast, held.key)
    marker = session.run.finished(folder, key)
    if marker is None:
        marker = settle(session, source, folder, key, held)
    session.manifest["funnel"]["curate"] = marker["funnel"]
    if not marker["funnel"]["kept"]:
        raise InputError("no example passed its task type's checks; see 2-curate/dropped for the reasons")
    return str(marker["digest"])


# 3: balance and wire rows


def _compose(
    session: Session, checked: str, config: RemixConfig, declared: Sequence[Declaration]
) -> dict[str, Any]:
    source, folder = session.run.stage(2, "curate"), session.run.stage(3, "ctga")
    caps = {d.key: d.cap for d in declared if d.cap}
    key = stage_key("ctga", checked, to_mapping(config.balance), caps, config.seed)
    marker = session.run.finished(folder, key)
    if marker is None:
        session.run.begin(folder)
        chosen = select(_entries(source), config.balance, caps, config.seed)
        by_passage: dict[tuple[str, ...], list[Example]] = defaultdict(list)
        seen = 0
        with closing(frame.scan(parts(source / "kept"), EXAMPLE_SCHEMA)) as tables:
            for table in tables:
                for example in examples(table):
                    seen += 1
                    if example.id in chosen:
                        s = example.source
                        by_passage[example.context, s.dataset, s.config, s.split, s.licence].append(example)
        rows = [r for own in by_passage.values() for r in compose(own, config.balance, config.seed)]
        writer = StageWriter(folder, CTGA_SCHEMA, ("id",))
        writer.count(len(rows))
        writer.keep(rows)
        realised = {name: dict(sorted(c.items())) for name, c in counts(rows).items()}
        marker = writer.finish(key, examples={"checked": seen, "chosen": len(chosen)}, realised=realised)
    session.manifest["funnel"]["ctga"] = marker["funnel"]
    return {"examples": marker["examples"], **marker["realised"]}


def _entries(source: Path) -> Iterator[Entry]:
    with closing(frame.scan(parts(source / "kept"), EXAMPLE_SCHEMA)) as tables:
        for table in tables:
            datasets = [
                f"{s['dataset']}:{s['config']}" if s["config"] else s["dataset"]
                for s in table["source"].to_pylist()
            ]
            columns = (table[c].to_pylist() for c in ("id", "task", "response", "context"))
            for name, task, response, context, dataset in zip(*columns, datasets, strict=True):
                yield Entry(name, task, dataset, response[:40], content_id(context), len(context))
