"""Geometry of the charts, in numbers; the template draws them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["histogram", "stacked"]

_BINS = 30
_STEPS = (1, 2, 5)


def stacked(entry: Mapping[str, Any], colours: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return a bar's segments: kept first, then reasons by frequency, widths in percent of the whole."""
    parts = [("kept", entry["kept"], "kept")]
    parts += [(reason, n, colours[reason]) for reason, n in entry["dropped"].items()]
    total = sum(n for _, n, _ in parts) or 1
    return [
        {"label": label, "count": n, "percent": round(100 * n / total, 2), "colour": colour}
        for label, n, colour in parts
        if n
    ]


def histogram(name: str, values: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Return a histogram of lengths: round bin widths up to the 99th percentile, the rest in the last bin."""
    top = max(1.0, float(np.percentile(values, 99)))
    width = next(step * 10**e for e in range(12) for step in _STEPS if step * 10**e * _BINS >= top)
    bins = int(top // width) + 1
    counts = np.bincount(np.minimum(values // width, bins - 1), minlength=bins)
    peak = int(counts.max()) or 1
    return {
        "name": name,
        "width": width,
        "end": bins * width,
        "more": int((values >= bins * width).sum()),
        "median": int(np.median(values)),
        "p95": int(np.percentile(values, 95)),
        "longest": int(values.max()),
        "peak": peak,
        "bars": [
            {
                "x": round(100 * i / bins, 3),
                "w": round(100 / bins, 3),
                "h": round(100 * int(n) / peak, 2),
                "from": i * width,
                "to": (i + 1) * width - 1,
                "count": int(n),
                "last": i == bins - 1,
            }
            for i, n in enumerate(counts)
        ],
    }
