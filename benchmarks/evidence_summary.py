"""The first table of docs/evidence.md: a line for each claim, the paper's number beside ours."""

from benchmarks.evidence_numbers import points, said, versus

FLAN = {"full": 50.3, "no-cot": 47.5, "no-balancing": 45.4, "no-few-shot": 47.3}
"""MMLU without exemplars, T5-XL (arXiv 2301.13688, table 1)."""

PARTS = {"no-few-shot": "few-shot templates", "no-cot": "chains of thought", "no-balancing": "balancing"}

SETTINGS = {"medicine": (61.3, 58.4), "finance": (74.7, 72.0)}
"""Domain → (with pairs, raw): Llama3-8B, averages of 5 tasks (arXiv 2406.14491)."""

REPLAY = (-3.16, -0.72)
"""Mean backward transfer, ROUGE-L: without replay, with that of diverse instructions (arXiv 2305.14327)."""


def summary(results, targets, papers):
    """Yield the table. `targets`: what the page calls a result → (target, name, result, what is kept)."""
    yield from ("| claim | the paper | here, in points | interval | | where | minutes |", "|---" * 7 + "|")
    found = proved(targets, papers), parts(results), core_sets(results), pairs(results), replay(results)
    for lines in found:
        for claim, paper, numbers, where, minutes in lines:
            delta, low, high = numbers
            here = f"{points(delta)} | {points(low)} to {points(high)} | {said(low, high)}"
            yield f"| {claim} | {paper} | {here} | {where} | {minutes:g} |"
    yield from (
        "",
        "Minutes are those of all students together. Intervals are at 95 %, each for itself: of",
    )
    yield from ("twenty claims without anything to them one would look proved.", "")


def proved(targets, papers):
    """Yield the effects that a paper speaks of, each of the result that has it on the most targets."""
    for effect, (claim, paper) in papers.items():
        own = [
            (len(one["targets"]), called, result["effects"][effect], name, one)
            for called, (_, name, result, one) in targets.items()
            if effect in result["effects"]
            and (called.startswith("mean of ") or "targets" not in one["result"])
        ]
        if own:
            _, called, line, name, one = max(own, key=lambda found: found[0])
            where = f"{called}, [{name}](#scores)"
            yield claim, first(paper), (line["delta"], *line["interval"]), where, one["minutes"]


def first(paper):
    """Return the beginning of what is said of a paper: its number."""
    return paper.partition(",")[0].partition(" (")[0].partition(":")[0]


def parts(results):
    for name, one in of(results, "ablate"):
        result = one["result"]
        for arm, part in PARTS.items():
            if arm in result["arms"]:
                claim = f"A mixture is better with {part}"
                where = f"[{name}](#parts-of-a-mixture-flan-arxiv-230113688)"
                numbers = versus(result["effects"], "full", arm)
                yield claim, f"{FLAN['full'] - FLAN[arm]:+.1f}", numbers, where, one["minutes"]


def core_sets(results):
    for name, one in of(results, "ltd"):
        where = f"[{name}](#how-little-is-enough-ltd-arxiv-230509246)"
        for claim in one["claims"]:
            whole = claim["over_all"]
            if whole:
                yield capital(claim["claim"]), "not told", ends(whole), where, one["minutes"]
        for line in one["sufficient"].get("k-center", {}).get("tested", []):
            claim = f"A core-set of {line['ratio']:g} % does better than all of it"
            yield claim, "+2, with less than 0.5 %", ends(line), where, one["minutes"]


def pairs(results):
    for name, one in of(results, "pretrain"):
        paper = ", ".join(f"{ours - raw:+.1f} in {domain}" for domain, (ours, raw) in SETTINGS.items())
        for claim in one["claims"]:
            if claim["claim"].startswith("augmented beats raw"):
                where = f"[{name}](#pairs-in-the-corpus-instruction-pre-training-arxiv-240614491)"
                told = claim["claim"].replace("augmented beats raw", "Pairs in a corpus beat its raw texts")
                yield told, paper, ends(claim["over_all"]), where, one["minutes"]


def replay(results):
    for name, one in of(results, "grow continual"):
        for pair in one["contrasts"]["bwt"]:
            if (pair["one"], pair["two"]) == ("none", "instruction-diverse"):
                mean, low, high = ends(pair)
                claim = "Replay of diverse instructions forgets less than none"
                where = f"[{name}](#replay-against-forgetting-dynosaur-arxiv-230514327)"
                yield (
                    claim,
                    f"{REPLAY[1] - REPLAY[0]:+.1f} ROUGE-L",
                    (-mean, -high, -low),
                    where,
                    one["minutes"],
                )


def ends(line):
    return line["mean"], line["low"], line["high"]


def of(results, command):
    return [(name, one) for name, one in results.items() if one["command"] == command]


def capital(text):
    return text[:1].upper() + text[1:]
