"""Numbers and texts as people read them."""

from __future__ import annotations

__all__ = ["compact", "cut", "duration", "highlight", "thousands"]

_PASSAGE = 1200
_BEFORE_SPAN = 400


def thousands(value: float | None) -> str:
    """Write an integer with thin separators: 12,345; nothing known is a dash."""
    return "–" if value is None else f"{value:,.0f}"


def compact(value: float | None) -> str:
    """Write a number in at most four characters and a unit: 950, 1.2k, 34k, 5.6M."""
    if value is None:
        return "–"
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            scaled = value / size
            return f"{scaled:.1f}{unit}" if scaled < 10 else f"{scaled:.0f}{unit}"
    return f"{value:.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def duration(seconds: float | None) -> str:
    """Write a time: 4.2 s, 3 min 10 s, 2 h 5 min."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def cut(text: str, limit: int) -> str:
    """Cut text for display, with an ellipsis where something is missing."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def highlight(passage: str, answer: str) -> tuple[str, str, str]:
    """Return the passage before, in and after the answer's span, cut for display around it."""
    wanted = answer.strip()
    at = passage.find(wanted) if wanted else -1
    if at < 0:
        return cut(passage, _PASSAGE), "", ""
    start = max(0, at - _BEFORE_SPAN) if at + len(wanted) > _PASSAGE else 0
    before, span = passage[start:at], cut(wanted, _PASSAGE)
    after = passage[at + len(wanted) :]
    return ("…" if start else "") + before, span, cut(after, max(200, _PASSAGE - len(before) - len(span)))
