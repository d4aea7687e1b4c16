"""DSIR: rows that look like the target, by importance weights of hashed n-grams (arXiv 2302.03169).

Words and word pairs fall into 10,000 buckets; a row's log weight is the sum of log p_target − log p_raw over
its n-grams, and Gumbel top-k draws rows without replacement in proportion to the weights.

The published code (PyPI `data-selection`) adds 1e-8 to shares instead of smoothing, weighs by the plain sum,
so that short rows of an unlike pool win, and then drops rows under 100 tokens. Here shares are smoothed
(Laplace) and weights are means over n-grams. `reference_weights` computes what the published code computes.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from taskmill.errors import InputError, UsageError
from taskmill.ids import draw
from taskmill.select import Budget, Needs, Pool, Selection, Selector, fill

__all__ = ["Dsir", "gumbel", "log_weights", "reference_weights"]

Array = np.ndarray[Any, Any]

BUCKETS = 10_000
"""Buckets of hashed n-grams (2302.03169, section 4)."""

_TINY = 1e-8
"""What the published code adds to every share (`hashed_ngram_dsir.py`, data-selection 1.0.3)."""


def log_weights(
    raw: pa.Array | pa.ChunkedArray,
    target: pa.Array | pa.ChunkedArray,
    buckets: int = BUCKETS,
    smoothing: float = 1.0,
    length: str = "mean",
) -> Array:
    """Return the log importance weight of each raw text (float64 [n]); -inf for a text without words.

    A bucket's share is (count + smoothing) / (total + buckets · smoothing). `length` "sum" adds up the log
    ratios of a text's n-grams. "mean" divides the sum by the text's own number of n-grams and multiplies it
    by the median number of all raw texts: texts are ranked by their mean, and a text of the usual length
    weighs against the draw what its sum would.

    Raises InputError if no target text holds a word.
    """
    from taskmill.kernels.hashed import counts, grams, sums

    wanted, pool = grams(target, buckets), grams(raw, buckets)
    if not len(wanted.buckets):
        raise InputError("no text of the target holds a word; give texts like those you want with --target")
    shares = [
        np.log(counts(found, buckets) + smoothing) - np.log(len(found.buckets) + buckets * smoothing)
        for found in (wanted, pool)
    ]
    weights = sums(pool, shares[0] - shares[1])
    sizes = np.diff(pool.rows)
    if length == "mean":
        usual = float(np.median(sizes[sizes > 0])) if sizes.any() else 1.0
        weights *= usual / np.maximum(sizes, 1)
    weights[sizes == 0] = -np.inf
    return weights


def reference_weights(raw: pa.Array, target: pa.Array, buckets: int = BUCKETS) -> Array:
    """Return the log weights (float64 [n]) that `data-selection` 1.0.3 gives, to the last bits.

    Its words are runs of letters, digits and _, or of other signs, lower-cased (nltk's WordPunctTokenizer;
    in nltk 3.10 a combining mark belongs to the word before it, here it is a sign); a bucket is SHA-256
    modulo `buckets`; shares are raised by 1e-8. Plain Python, for comparison.
    """
    known: dict[str, int] = {}

    def bucket(gram: str) -> int:
        if gram not in known:
            known[gram] = int.from_bytes(hashlib.sha256(gram.encode()).digest(), "big") % buckets
        return known[gram]

    def features(text: str | None) -> list[int]:
        found = re.findall(r"\w+|[^\w\s]+", (text or "").lower())
        pairs = (f"{a} {b}" for a, b in pairwise(found))
        return [bucket(gram) for gram in (*found, *pairs)]

    rows = [features(text) for text in raw.to_pylist()]
    wanted = [at for text in target.to_pylist() for at in features(text)]
    if not wanted:
        raise InputError("no text of the target holds a word; give texts like those you want with --target")
    pool = np.bincount([at for row in rows for at in row], minlength=buckets)
    goal = np.bincount(wanted, minlength=buckets)
    table = np.log(goal / goal.sum() + _TINY) - np.log(pool / max(1, pool.sum()) + _TINY)
    return np.array([table[row].sum() for row in rows])


def gumbel(ids: pa.Array, seed: int) -> Array:
    """Return a standard Gumbel number for each id (float64 [n]), a function of seed and id alone.

    Adding it to log weights and taking the k largest draws k rows without replacement in proportion to the
    weights (Gumbel top-k: Vieira 2014, Kool et al. 2019).
    """
    # 52 bits and a half step: strictly between 0 and 1, so that both logarithms are finite.
    drawn = np.array([draw(seed, str(name), "dsir") >> 11 for name in ids.to_pylist()], np.float64)
    return np.asarray(-np.log(-np.log((drawn + 0.5) * 2.0**-52)), np.float64)


@dataclass(frozen=True)
class Dsir(Selector):
    """Rows whose words are distributed as the target's."""

    uses: ClassVar[tuple[str, ...]] = ("texts", "target")

    length: str = field(
        default="mean",
        metadata={
            "help": "a row's weight: mean or sum of its n-grams', or reference: as the published code",
            "choices": ("mean", "sum", "reference"),
        },
    )
    noise: bool = field(
        default=True, metadata={"help": "draw in proportion to the weights; false takes the largest"}
    )
    buckets: int = field(default=BUCKETS, metadata={"help": "buckets of hashed n-grams"})
    smoothing: float = field(default=1.0, metadata={"help": "added to each bucket's count (not: reference)"})

    def pick(self, pool: Pool, budget: Budget, seed: int) -> Selection:
        """Return rows by weight times chance; a score is the row's log weight.

        Rows without words come last, with the lowest weight of the others. Raises UsageError if pool or
        target have no texts.
        """
        texts = pool.texts
        target = pool.target.texts if pool.target is not None else None
        if texts is None or target is None:
            missing = (
                "--text COLUMN"
                if texts is None
                else "--target FILE, with the texts the choice shall resemble"
            )
            raise UsageError(f"dsir compares texts with a target; give {missing}")
        if self.buckets < 1 or self.smoothing <= 0:
            raise UsageError("dsir: buckets and smoothing must be above 0")
        if self.length == "reference":
            weights = reference_weights(texts, target, self.buckets)
        else:
            weights = log_weights(texts, target, self.buckets, self.smoothing, self.length)
        silent = np.isneginf(weights)
        chance = weights + gumbel(pool.ids, seed) if self.noise else weights
        order = np.lexsort((pool.rank, -chance))
        scores = np.where(silent, weights[~silent].min(initial=0.0), weights)
        evidence = {"rows_without_words": int(silent.sum()), "weights": self.length, "drawn": self.noise}
        return fill(pool, budget, order, scores[order], evidence)

    def needs(self, rows: int, width: int, picks: int) -> Needs:
        """Two bytes for each n-gram of a row of 100 words, and the draws."""
        return Needs(450.0 * rows + 1.5e8, 500.0 * rows)
