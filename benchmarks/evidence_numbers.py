"""Numbers as docs/evidence.md writes them."""


def points(value):
    return f"{100 * value:+.1f}"


def mean(line):
    return f"{100 * line['mean']:.1f} ({100 * line['low']:.1f}-{100 * line['high']:.1f})"
