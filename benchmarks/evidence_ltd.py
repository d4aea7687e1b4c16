"""The part of docs/evidence.md about core-sets: what `taskmill ltd` found."""

from benchmarks.evidence_numbers import mean, points


def little_is_enough(results):
    """Yield the marks by method and share, the claims, and the command of each result of `ltd`."""
    found = {name: one for name, one in results.items() if one["command"] == "ltd"}
    if not found:
        return
    yield from ("## How little is enough (LTD, arXiv 2305.09246)", "")
    yield "The paper: less than 0.5 % of the data, chosen as a core-set, does 2 % better than all of the"
    yield "task's (abstract)."
    for name, one in found.items():
        region, config = one["region"], one["config"]
        yield from (
            "",
            f"`{name}`: {one['items']['scored']} questions, {config['seeds']} seeds; the task's region has "
            f"{region['rows']} rows,",
            f"{region['tokens']:,} tokens. A share is of these tokens, and each is read {times(config)}.",
            "Right answers in percent:",
            "",
        )
        yield from marks(one)
        yield from ("", "| claim | verdict | difference, in points | interval |", "|---|---|---|---|")
        for claim in one["claims"]:
            whole = claim["over_all"]
            cells = (
                f"{points(whole['mean'])} | {points(whole['low'])} to {points(whole['high'])}"
                if whole
                else " | "
            )
            yield f"| {claim['claim']} | {claim['verdict']} | {cells} |"
        for selector, enough in one["sufficient"].items():
            least = f"{enough['ratio']:g} %" if enough["ratio"] else "no tried share below 100 %"
            yield f"| enough by {selector} | {least} | | |"
        yield from ("", f"`{name}` is [the experiment on real rows](ltd.md#on-real-rows), with:", "")
        yield from ("```text", command(config), "```")
    yield ""


def times(config):
    epochs = config["train"].get("epochs") or 1
    return "once" if epochs == 1 else f"{epochs:g} times"


def marks(one):
    """Yield a table of the marks: methods by shares, with the rows of each."""
    arms = [arm for arm in one["arms"] if arm["scope"] == "target" and arm["ratio"] < 100]
    ratios = sorted({arm["ratio"] for arm in arms})
    yield f"| chosen by | 0 | {' | '.join(f'{ratio:g} %' for ratio in ratios)} | 100 % |"
    yield "|---" * (len(ratios) + 3) + "|"
    for selector in dict.fromkeys(arm["selector"] for arm in arms):
        own = {arm["ratio"]: arm for arm in arms if arm["selector"] == selector}
        cells = [f"{mean(own[r])}, {own[r]['rows']:.0f} rows" if r in own else "" for r in ratios]
        yield f"| {selector} | {mean(one['base'])} | {' | '.join(cells)} | {mean(one['full'])} |"


def command(config):
    """Return the command that makes a result of `ltd` again."""
    flags = {
        name: config[name] for name in ("labels", "ratios", "selectors", "seeds", "test_rows", "embedder")
    }
    flags |= {name: value for name, value in config["train"].items() if value}
    told = (
        f"--{name.replace('_', '-')} {','.join(map(str, v)) if isinstance(v, list) else v}"
        for name, v in flags.items()
    )
    return f"taskmill ltd ltd-data/pool.parquet --target ltd-data/target.parquet {' '.join(told)} --out ltd/"
