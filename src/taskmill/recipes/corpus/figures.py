"""What a corpus is made of, in numbers: what became of every source document, and what the pairs are like."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import log2
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from taskmill.recipes.corpus.rows import KINDS, Row
from taskmill.record import Example, Reason
from taskmill.store import parts
from taskmill.synthesize.pair_format import split_reasoning
from taskmill.synthesize.pretraining import pair_of
from taskmill.tasks.passage import words

__all__ = ["categories", "divergence", "documents", "of_rows", "shift", "suites"]

MOST_CATEGORIES = 50
MOST_WORDS = 12


def documents(
    ingested: Path, screened: Path, left_out: Path, rows: Sequence[Row]
) -> tuple[dict[str, int], dict[str, int]]:
    """Return what became of the source documents, and of the texts that were cut of them, as counts.

    A source document is a row or a file. It is `augmented` if one of its texts is in a chain, else `raw` if
    one is in the corpus at all; else what its texts were left out for counts: `contaminated`, `over_target`,
    or `dropped` when it was read. `lost` are those of which nothing is known: 0, or there is a fault here.
    """
    places: dict[str, str] = {}
    came: set[str] = set()
    texts = 0
    for kind in ("kept", "dropped"):
        for name, uri in _sources(ingested / kind):
            came.add(uri)
            if kind == "kept":
                places[name] = uri
                texts += 1
    augmented = {name for row in rows if row.kind == "augmented" for name in row.texts}
    raw = {name for row in rows if row.kind == "raw" for name in row.texts}
    fate: dict[str, set[str]] = {
        "augmented": augmented,
        "raw": raw,
        "contaminated": {name for name, _ in _sources(screened / "dropped")},
        "over_target": {name for name, _ in _sources(left_out)},
    }
    of_texts = {kind: len(names) for kind, names in fate.items()}
    counts, left = {"in": len(came)}, set(came)
    for kind, names in fate.items():
        own = {places[name] for name in names if name in places} & left
        counts[kind] = len(own)
        left -= own
    unread = {uri for _, uri in _sources(ingested / "dropped")} & left
    counts |= {"dropped": len(unread), "lost": len(left - unread)}
    return counts, {"cut": texts, **of_texts, "lost": texts - sum(of_texts.values())}


def _sources(folder: Path) -> Iterable[tuple[str, str]]:
    """Yield (id, place of the source document) of documents in a folder of parts."""
    for path in parts(folder):
        table = pq.read_table(path, columns=["id", "source"])
        for name, source in zip(table["id"].to_pylist(), table["source"].to_pylist(), strict=True):
            yield name, source["uri"]


def of_rows(
    rows: Sequence[Row], kept: Sequence[Example], counts: Callable[[Sequence[str]], list[int]]
) -> dict[str, Any]:
    """Return rows and tokens by kind, chains by length, pairs per text and tokens per pair."""
    of = {kind: [row for row in rows if row.kind == kind] for kind in KINDS}
    augmented = {name for row in of["augmented"] for name in row.texts}
    raw = {name for row in of["raw"] for name in row.texts}
    pairs = [pair_of(example)[1] for example in kept]
    tokens = sum(counts([f"{p.question} {p.answer}" for p in pairs])) if pairs else 0
    per_text = Counter(Counter(example.source.document for example in kept).values())
    return {
        "tokens": {kind: sum(row.tokens for row in of[kind]) for kind in KINDS},
        "rows": {kind: len(of[kind]) for kind in KINDS},
        "chains": dict(sorted(Counter(str(len(row.texts)) for row in of["augmented"]).items())),
        "augmented_share": round(len(augmented) / max(len(augmented) + len(raw), 1), 6),
        "pairs": len(pairs),
        "pairs_per_text": round(len(pairs) / len(augmented), 3) if augmented else 0.0,
        "texts_by_pairs": {str(n): count for n, count in sorted(per_text.items())},
        "tokens_per_pair": round(tokens / len(pairs), 3) if pairs else 0.0,
        **categories(kept),
    }


def categories(kept: Sequence[Example]) -> dict[str, Any]:
    """Return how often each kind of question (task type, first word) is asked, and the entropy in bits.

    `pairs_by_task` counts the task types, reasoned answers apart.
    """
    found: Counter[str] = Counter()
    tasks: Counter[str] = Counter()
    for example in kept:
        question, pair = pair_of(example)
        first = (question.split() or [""])[0].strip("\"'“”¿").casefold()
        found[f"{example.task}: {first}"] += 1
        tasks[f"{example.task}, reasoned" if split_reasoning(pair)[1] else example.task] += 1
    total = sum(found.values())
    entropy = sum(n / total * log2(total / n) for n in found.values()) if total else 0.0
    most = dict(sorted(found.items(), key=lambda c: (-c[1], c[0]))[:MOST_CATEGORIES])
    return {
        "pairs_by_task": dict(sorted(tasks.items())),
        "categories": most,
        "category_entropy": round(entropy, 4),
    }


def shift(kept: Sequence[Example]) -> dict[str, Any]:
    """Return how far the words of the pairs are from those of their texts: Jensen-Shannon, in bits (0 to 1).

    `halves` is the distance of two halves of the texts,
    taken by id: what the numbers of words alone make of it. `gained` and `less` are the words that are
    most more, and less, frequent in the pairs.
    """
    texts: Counter[str] = Counter()
    halves: list[Counter[str]] = [Counter(), Counter()]
    for name, text in {e.source.document: e.context for e in kept}.items():
        said = words(text)
        texts.update(said)
        halves[int(name[-1], 16) % 2].update(said)
    pairs: Counter[str] = Counter()
    for example in kept:
        pair = pair_of(example)[1]
        pairs.update(words(f"{pair.question} {pair.answer}"))
    if not texts or not pairs:
        return {}
    own, other = pairs.total(), texts.total()
    more = {word: pairs[word] / own - texts[word] / other for word in {*pairs, *texts}}
    ranked = sorted(more, key=lambda word: (-more[word], word))
    return {
        "measure": "Jensen-Shannon divergence of the words of pairs and texts, bits",
        "pairs_to_texts": round(divergence(pairs, texts), 4),
        "halves": round(divergence(*halves), 4),
        "words": {"texts": other, "pairs": own},
        "gained": ranked[:MOST_WORDS],
        "less": ranked[::-1][:MOST_WORDS],
    }


def divergence(one: Mapping[str, int], other: Mapping[str, int]) -> float:
    """Return the Jensen-Shannon divergence of two counts of words, in bits: 0 equal, 1 no word in common.

    Lin 1991: the entropy of the mean of two distributions less the mean of their entropies.
    """
    totals = sum(one.values()), sum(other.values())
    if not all(totals):
        return 0.0 if totals[0] == totals[1] else 1.0
    found = 0.0
    for word in sorted({*one, *other}):
        shares = one.get(word, 0) / totals[0], other.get(word, 0) / totals[1]
        middle = sum(shares) / 2
        found += sum(share * log2(share / middle) / 2 for share in shares if share)
    return max(found, 0.0)


def suites(folder: Path) -> dict[str, int]:
    """Return how many rows a stage dropped for an item of each evaluation set, by the evidence."""
    found: defaultdict[str, int] = defaultdict(int)
    for path in parts(folder / "dropped"):
        table = pq.read_table(path, columns=["reason", "detail"])
        for reason, detail in zip(*(column.to_pylist() for column in table.columns), strict=True):
            if reason == Reason.CONTAMINATED:
                found[detail.rpartition(" in ")[2].partition("/")[0]] += 1
    return dict(sorted(found.items()))
