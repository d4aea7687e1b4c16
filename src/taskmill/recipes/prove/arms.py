"""What each arm learns: passages, rows that were made of them or are given, and equal tokens for all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from taskmill.errors import InputError
from taskmill.export.folder import stages
from taskmill.ids import content_id, draw
from taskmill.ingest import IngestConfig, read_sources
from taskmill.recipes.evaluation_sets import SHIPPED
from taskmill.recipes.layouts import as_examples, with_answer, without_end_tokens
from taskmill.recipes.prove.config import ProveConfig, Target
from taskmill.recipes.prove.items import Test
from taskmill.recipes.prove.overlap import Guard
from taskmill.recipes.session import OnProgress
from taskmill.recipes.students import Row
from taskmill.recipes.synth import SynthConfig, synth
from taskmill.recipes.tables import read_table
from taskmill.record import Document, Dropped, Example, Reason, examples
from taskmill.render import answer, prompt
from taskmill.store import parts, write_parquet

__all__ = [
    "Lost",
    "Passages",
    "Portion",
    "Stock",
    "make",
    "passages",
    "portions",
    "sized",
    "stocks",
]

CHUNK = 384
"""Tokens (estimated) of a passage (chosen: those of reading tests stay whole, and a row fits the student)."""

Lost = tuple[str, str, str, str]
"""(arm, id, reason, detail) of a row that no arm may learn or can learn."""

Lengths = Callable[[Iterable[Row]], list[int | str]]
"""Rows → tokens of each as the student reads it, or why it cannot be trained on it."""


@dataclass(frozen=True)
class Passages:
    """The pool: its passages in an order by chance, what was removed, and how many were read."""

    kept: list[Document]
    lost: list[Lost]
    read: int
    overlap: Mapping[str, int]


def passages(target: Target, guard: Guard, seed: int) -> Passages:
    """Read the passages and remove those that overlap with the test's. Raises InputError if none is left."""
    kept: dict[str, Document] = {}
    lost: list[Lost] = []
    overlap = {"exact": 0, "n-gram": 0}
    read = 0
    for one in read_sources([target.text], IngestConfig(chunk_tokens=CHUNK)):
        read += 1
        if isinstance(one, Dropped):
            lost.append(("pool", one.row.id, str(one.reason), one.detail))
        elif one.id in kept:
            lost.append(("pool", one.id, str(Reason.DUPLICATE), "equal text is kept from another place"))
        elif found := guard.overlap(one.text):
            overlap[found] += 1
            lost.append(
                ("pool", one.id, str(Reason.CONTAMINATED), f"{found} overlap with a passage of the test")
            )
        else:
            kept[one.id] = one
    if not kept and not sum(overlap.values()):
        why = lost[0][3].rstrip(".") if lost else "nothing is in it"
        raise InputError(f"{target.text} has no passage ({why}); give a table with a column text, or files")
    if not kept:
        raise InputError(
            f"{target.text}: none of {read} passages is left, {sum(overlap.values())} overlap with the "
            "test; give passages that the test is not made of"
        )
    by_chance = sorted(kept.values(), key=lambda d: (draw(seed, d.id, "prove passage"), d.id))
    return Passages(by_chance, lost, read, overlap)


# the rows that the generator makes


def make(
    pool: Sequence[Document],
    config: ProveConfig,
    target: Target,
    test: Test,
    folder: Path,
    ledger: Path,
    report: OnProgress,
) -> tuple[list[Example], list[Example]]:
    """Have rows made of the passages, in `folder`; return (the accepted ones, all that could be read at all).

    Calls go through the ledger, so that what was asked once is not asked again.
    """
    table = pa.table({"text": pa.array([d.text for d in pool], pa.large_string())})
    folder.mkdir(parents=True, exist_ok=True)
    write_parquet(folder / "pool.parquet", table)
    settings = SynthConfig(
        sources=(str(folder / "pool.parquet"),),
        task=(target.task,),
        per_passage=config.per_passage,
        seed=config.train.seed,
        labels={target.task: test.labels} if test.labels else {},
        against=(SHIPPED,),
        ledger=str(ledger),
        ingest=IngestConfig(chunk_tokens=1_000_000, min_chars=1),
        model=config.model,
    )
    synth(settings, folder / "synth", update=True, on_progress=report)
    by_name = {stage.name: stage for stage in stages(folder / "synth")}
    kept, drafts = (_examples(parts(by_name[n].folder / "kept")) for n in ("curate", "synthesize"))
    return kept, drafts


def _examples(files: Sequence[Path]) -> list[Example]:
    return [e for file in files for e in examples(pq.read_table(file))]


# what may be learned of each arm's rows


@dataclass(frozen=True)
class Stock:
    """The rows an arm may learn, with their tokens and a digest of each row's content."""

    rows: list[Row]
    tokens: list[int]
    keys: list[str]

    def order(self, seed: int) -> list[int]:
        """Return the rows' numbers in an order by chance, which does not depend on theirs."""
        return sorted(
            range(len(self.rows)), key=lambda i: (draw(seed, self.keys[i], "prove row"), self.keys[i])
        )


def _key(row: Row) -> str:
    if isinstance(row, Document):
        return content_id("document", row.text)
    return content_id(prompt(row), answer(row), row.context)


def stocks(
    pool: Sequence[Document],
    made: tuple[list[Example], list[Example]] | None,
    config: ProveConfig,
    guard: Guard,
    lengths: Lengths,
) -> tuple[dict[str, Stock], list[Lost], dict[str, dict[str, int]]]:
    """Return the rows of each source of rows: passages, what was made, replay, tables of the user's own.

    Also every row that is left out with its reason, and for each source what was looked at, found to hold
    something of the test, and left. Raises InputError for a source without a row.
    """
    given: dict[str, Sequence[Row]] = {}
    if "tapt" in config.names:
        given["tapt"] = pool
    if made is not None:
        given |= {"ours": made[0], "ours-unfiltered": made[1]}
    if config.replays:
        given["replay"] = _table(config.replay)
    for arm in config.arms:
        name, equals, table = arm.partition("=")
        if equals:
            given[name] = _table(table)
    found, lost, looked = {}, [], {}
    for name, rows in given.items():
        stock, dropped = _stock(name, rows, guard, lengths)
        if not stock.rows:
            raise InputError(f"the arm {name} has no row left to learn: {_why(dropped)}; give it other rows")
        reasons = [reason for _, _, reason, _ in dropped]
        of_the_test = reasons.count(str(Reason.CONTAMINATED))
        looked[name] = {"rows": len(rows), "of_the_test": of_the_test, "left": len(stock.rows)}
        found[name] = stock
        lost += dropped
    return found, lost, looked


def _why(lost: Sequence[Lost]) -> str:
    """Return in words why rows were left out, the first of each reason in full."""
    reasons = Counter(reason for _, _, reason, _ in lost)
    first = {reason: detail for _, _, reason, detail in reversed(lost)}
    told = (f"{count:,} {reason} ({first[reason]})" for reason, count in sorted(reasons.items()))
    return ", ".join(told) or "there was none"


def _table(source: str) -> list[Example]:
    table, _ = without_end_tokens(with_answer(read_table([source])))
    return list(as_examples(table))


def _stock(name: str, rows: Sequence[Row], guard: Guard, lengths: Lengths) -> tuple[Stock, list[Lost]]:
    keys, seen = [_key(row) for row in rows], set[str]()
    stock, lost = Stock([], [], []), list[Lost]()
    for row, key, wrong, tokens in zip(rows, keys, guard.wrong(rows), lengths(rows), strict=True):
        if wrong:
            lost.append((name, row.id, str(Reason.CONTAMINATED), wrong))
        elif isinstance(row, Example) and not row.response.strip():
            lost.append((name, row.id, str(Reason.EMPTY), "it has no response to learn"))
        elif isinstance(tokens, str):
            reason = Reason.TOO_LONG if "tokens" in tokens else Reason.EMPTY
            lost.append((name, row.id, str(reason), f"the student cannot learn it: {tokens}"))
        elif key in seen:
            lost.append((name, row.id, str(Reason.DUPLICATE), "an equal row is kept"))
        else:
            seen.add(key)
            stock.rows.append(row)
            stock.tokens.append(tokens)
            stock.keys.append(key)
    return stock, lost


# equal tokens


@dataclass(frozen=True)
class Portion:
    """What one student learns: rows, their tokens, and how often it reads them. `keys` name their content."""

    rows: tuple[Row, ...] = ()
    keys: tuple[str, ...] = ()
    tokens: int = 0
    times: float = 1.0


def portions(config: ProveConfig, found: Mapping[str, Stock], seed: int, rows: int = 0) -> dict[str, Portion]:
    """Return what each arm's student of one seed learns: as many tokens in all as every other's.

    The tokens are those of the arm ours (else ours-unfiltered, else the table with the fewest): rows by
    chance, each read once. Other arms take rows by chance up to that many tokens, ours-unfiltered as many
    rows, and read theirs a little more or less than once, so that they come out even. `rows`: how many of
    the table with the fewest tokens there is time for (0: all).
    """
    orders = {name: stock.order(seed) for name, stock in found.items()}
    limited = {name: orders[name][: config.rows or None] for name in orders if name not in ("tapt", "replay")}
    sums = {name: sum(found[name].tokens[i] for i in order) for name, order in limited.items()}
    if "replay" in found and "random" in config.names:
        sums["replay"] = sum(found["replay"].tokens)
    first = next((name for name in ("ours", "ours-unfiltered") if name in sums and config.makes), "")
    first = first or min(sums, key=lambda name: (sums[name], name), default="tapt")
    if rows:
        limited[first] = limited.get(first, orders[first])[:rows]
        sums[first] = sum(found[first].tokens[i] for i in limited[first])
    budget = sums[first] if first in sums else sum(found["tapt"].tokens)
    count = len(limited.get("ours", ()))

    def part(name: str, order: Sequence[int], limit: int) -> list[int]:
        taken, total = [], 0
        for i in order:
            if total + found[name].tokens[i] > limit:
                break
            taken.append(i)
            total += found[name].tokens[i]
        return taken or list(order[:1])

    made: dict[str, Portion] = {}
    for arm in config.names:
        if arm == "none":
            made[arm] = Portion()
        elif arm == "ours":
            made[arm] = _portion([(found[arm], limited[arm])], budget)
        elif arm == "ours-unfiltered":
            made[arm] = _portion([(found[arm], limited[arm][: count or None])], budget)
        elif arm == "ours+replay":
            general = part("replay", orders["replay"], int(config.replay_share * budget))
            own = part("ours", limited["ours"], int((1 - config.replay_share) * budget))
            made[arm] = _portion([(found["ours"], own), (found["replay"], general)], budget)
        else:
            name = "replay" if arm == "random" else arm
            made[arm] = _portion([(found[name], part(name, limited.get(name, orders[name]), budget))], budget)
    return made


def _portion(taken: Sequence[tuple[Stock, Sequence[int]]], budget: int) -> Portion:
    chosen = sorted(
        (stock.keys[i], stock.tokens[i], n, i) for n, (stock, own) in enumerate(taken) for i in own
    )
    rows = tuple(taken[n][0].rows[i] for _, _, n, i in chosen)
    tokens = sum(count for _, count, _, _ in chosen)
    return Portion(rows, tuple(key for key, _, _, _ in chosen), tokens, round(budget / tokens, 6))


def sized(config: ProveConfig, found: Mapping[str, Stock], seed: int, rows: int) -> Portion:
    """Return the first `rows` rows of the arm ours, in the order in which it takes them, each read once."""
    stock = found["ours"]
    order = stock.order(seed)[: config.rows or None][:rows]
    return _portion([(stock, order)], sum(stock.tokens[i] for i in order))
