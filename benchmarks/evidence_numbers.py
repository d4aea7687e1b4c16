"""Numbers as docs/evidence.md writes them."""


def points(value):
    return f"{100 * value:+.1f}"


def mean(line):
    return f"{100 * line['mean']:.1f} ({100 * line['low']:.1f}-{100 * line['high']:.1f})"


def said(low, high):
    if low == high == 0:
        return "the same"
    return "more" if low > 0 else "less" if high < 0 else "undecided"


def versus(effects, arm, other):
    """Return what an arm has over another, and the interval's ends, whichever of the two is named first."""
    if f"{arm}-{other}" in effects:
        line = effects[f"{arm}-{other}"]
        return line["delta"], *line["interval"]
    line = effects[f"{other}-{arm}"]
    low, high = line["interval"]
    return -line["delta"], -high, -low
