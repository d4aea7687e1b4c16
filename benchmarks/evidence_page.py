"""docs/evidence.md, written from kept results: what a paper claims, its number, ours, the command."""

from benchmarks.evidence_ltd import little_is_enough
from benchmarks.evidence_numbers import mean, points, said, versus
from benchmarks.evidence_summary import FLAN, PARTS, REPLAY, SETTINGS, summary
from taskmill.report.prove import rows_needed

PAPERS = {
    "ours-none": (
        "Rows made of a target's own passages help a student on it",
        "+22.1 F1, mean over 7 targets and 3 students of 7B (Bonito, arXiv 2402.18334, abstract)",
    ),
    "tapt-none": (
        "Next-word training on the same passages does not",
        "-0.8 F1, the same mean (Bonito, abstract)",
    ),
    "ours-tapt": (
        "The rows do more than the passages alone",
        "+22.9 F1 (Bonito, the difference of the two)",
    ),
    "ours-ours-unfiltered": (
        "The checks make the rows better, at as many rows",
        "not measured there: Bonito has no checks",
    ),
    "ours-random": (
        "The rows do more than general ones, of six labelled sets",
        "not measured there at equal tokens",
    ),
    "ours+replay-ours": (
        "A fifth of the rows given up for general ones",
        "no such arm in Bonito; Dynosaur replays within a collection, see [growing one](grow.md)",
    ),
}
"""Effects of `taskmill prove` that a paper makes a claim about: the claim, and the paper's number."""


READ_ON = (
    "taskmill corpus read_on/reddit_texts.jsonl read_on/pubmed_texts.jsonl "
    "--model openvino:bonito-smollm2-135m --rounds 2 --augment 1 --pairs 3 --length 1024 "
    "--against read_on/reddit_test.jsonl,read_on/pubmed_test.jsonl --out corpus"
)
"""The command that makes the corpus, in the folder of the recipes."""


def render(results):
    """Return the page of kept results (name → what `save` kept)."""
    proofs = {name: one for name, one in results.items() if one["command"] == "prove"}
    own = {name: one for name, one in proofs.items() if set(one["config"]["arms"]) <= OWN_ARMS}
    targets = {}
    for name, one in own.items():
        each = columns_of(one)
        mean = {f"mean of {len(each)}": one["result"]} if len(each) > 1 else {}
        for target, result in {**each, **mean}.items():
            called = f"{target} (of {name}.yaml)" if target in targets else target  # two results: both stand
            targets[called] = (target, name, result, one)
    lines = [
        HEAD,
        *summary(results, targets, PAPERS),
        *effects(targets),
        "",
        *arms(targets),
        "",
        *retention(targets),
        *curves(targets),
        *ablations({name: one for name, one in results.items() if one["command"] == "ablate"}),
        *matrices({name: one for name, one in proofs.items() if name not in own}),
        *little_is_enough(results),
        *pretrained(results),
        *replayed(results),
        *machines(results),
    ]
    return "\n".join(lines).rstrip() + "\n"


def columns_of(one):
    """Return a proof's results by target."""
    return one["result"].get("targets") or {next(iter(one["details"])): one["result"]}


OWN_ARMS = {"none", "tapt", "ours", "ours-unfiltered", "ours+replay", "random"}
"""Arms of `prove` that are no table of the user's."""


HEAD = """# Evidence

What the papers claim, tried with our own tools at the scale of a small machine: a student of 135M parameters,
rows by the embedded generator, some hundred of them, some dozens of questions. A claim that does not hold
here is shown as such. Numbers are read from kept results; each line can be run again with the command beside
it.

`python -m benchmarks …` is given in a clone of the repository, after `pip install -e ".[local,train]"`; it
writes tables and recipes, and the other commands are given in the folder that it writes:

```text
python -m benchmarks evidence --data DATA --out evidence/
python -m benchmarks ltd --data DATA --out evidence/ltd-data/
cd evidence && taskmill prove squadshifts_reddit.yaml --out runs/squadshifts_reddit
```

DATA holds public datasets as Parquet, in three folders. `targets/`: `pubmedqa` (pmid, question, contexts,
final_decision, split), `squadshifts_reddit`, `squadshifts_new_wiki` (id, title, context, question, answers),
`healthver_dev` and `healthver_test` (evidence, claim, label). `corpora/`: `policyqa_dev` and `policyqa_test`
(context, question, answers), `rotten_tomatoes` (id, text, label), and for the mixtures `boolq_train`,
`cad_nli_train`, `cad_imdb_train`, `sick_train` and `fairytaleqa_train` as published. `flan/`: `t0_rendered`
(dataset, template, row, prompt, completion), `cot_creak_train` and `cot_strategyqa_train` (question, answer,
rationale). Pools and questions of a target share no passage.
"""


def effects(targets):
    """Yield a table for each claim: the paper's number, ours for each target, and what it comes to."""
    for effect, (claim, paper) in PAPERS.items():
        own = once(
            (called, target, result["effects"][effect])
            for called, (target, _, result, _) in targets.items()
            if effect in result["effects"]
        )
        if not own:
            continue
        yield from (f"## {claim}", "", f"The paper: {paper}.", "")
        yield from ("| target | ours, in points | 95 % interval | |", "|---|---|---|---|")
        for target, line in own.items():
            low, high = line["interval"]
            interval = f"{points(low)} to {points(high)}"
            yield f"| {target} | {points(line['delta'])} | {interval} | {said(low, high)} |"
        yield ""


def once(lines):
    """Return the lines by name, those of the same students, target and numbers only once."""
    shown, kept = set(), {}
    for called, target, line in lines:
        told = (target, line["delta"], *line["interval"])
        if told not in shown:
            kept[called] = line
        shown.add(told)
    return kept


def arms(targets):
    yield from (
        "## Scores",
        "",
        "F1 over all gold answers, or macro-F1, in percent; in brackets the interval.",
        "",
    )
    names = list(dict.fromkeys(arm for _, _, result, _ in targets.values() for arm in result["arms"]))
    yield f"| target | {' | '.join(names)} | questions | rows | kept | minutes | command |"
    yield "|---" * (len(names) + 6) + "|"
    for called, (target, name, result, one) in targets.items():
        cells = [score(result["arms"].get(arm)) for arm in names]
        kept = (
            "yes" if result["retention"]["passed"] else ", ".join(result["retention"]["failed"]) + " forget"
        )
        about = one["details"].get(target)
        rest = of_target(about, names, one["config"]["seeds"]) if about else ("", "", "")
        cells += [rest[0], rest[1], kept, rest[2], f"`{command(name, one)}`"]
        yield f"| {called} | {' | '.join(map(str, cells))} |"


def of_target(about, names, seeds):
    """Return a target's questions, the rows of its first arm that has some, its students' minutes."""
    learned = about["learned"]
    rows = next((learned[arm]["rows"] for arm in ("ours", *names) if learned.get(arm, {}).get("rows")), 0)
    took = sum(line["seconds"] * (seeds if line["rows"] else 1) for line in learned.values()) / 60
    return about["questions"], f"{rows:.0f}", f"{took:.1f}"


def command(name, one):
    """Return the command that makes a result again, in the folder of the recipes."""
    config, sizes = one["config"], [target["sizes"] for target in one["targets"].values()]
    passages, questions = (max(own[what] for own in sizes) for what in ("passages", "questions"))
    return (
        f"taskmill prove {name}.yaml --arms {','.join(config['arms'])} --seeds {config['seeds']} "
        f"--passages {passages} --test-items {questions}"
        + (f" --sizes {','.join(config['sizes'])}" if config.get("sizes") else "")
        + (f" --reach {config['reach']:g}" if config.get("reach") else "")
        + f" --out runs/{name}"
    )


def score(line):
    if line is None:
        return ""
    low, high = line["interval"]
    return f"{100 * line['score']:.1f} ({100 * low:.1f}-{100 * high:.1f})"


def retention(targets):
    """Yield what the students still know of general things, each arm of a target once."""
    found = {}
    for target, _, result, _ in targets.values():
        for arm, line in result["retention"].get("arms", {}).items():
            found.setdefault(
                (target, arm), (result["retention"]["base"], line, result["retention"]["bounds"])
            )
    if not found:
        return
    base, _, bounds = next(iter(found.values()))
    yield from (
        "## What was kept",
        "",
        "General questions answered rightly, and the perplexity on general text, where less is better.",
        f"Bounds: {100 * bounds['max_forgetting']:g} of 100 questions lost, "
        f"a perplexity {bounds['max_perplexity']:g}-fold.",
        "",
    )
    arms = list(dict.fromkeys(arm for _, arm in found))
    yield f"| target | before | {' | '.join(arms)} |"
    yield "|---" * (len(arms) + 2) + "|"
    for target in dict.fromkeys(target for target, _ in found):
        if target.startswith("mean of "):
            continue  # there it is the worst of them
        cells = [known(found[target, arm][1]) if (target, arm) in found else "" for arm in arms]
        yield f"| {target} | {known(base)} | {' | '.join(cells)} |"
    yield ""


def known(line):
    return f"{100 * line['probe']:.0f} %, {line['perplexity']:.1f}"


def curves(targets):
    """Yield the score by the number of rows, where it was tried."""
    found = {
        called: whole
        for called, whole in targets.items()
        if whole[3]["details"].get(whole[0], {}).get("curve")
    }
    if not found:
        return
    yield from ("## Score by rows", "", "Each number of rows is read once, so fewer rows are fewer tokens.")
    for called, (target, _, result, one) in found.items():
        details = one["details"][target]
        yield from ("", f"| rows of {called} | score | interval |", "|---|---|---|")
        none = result["arms"].get("none")
        points = [{"rows": 0, **none}] if none else []
        for point in [*points, *details["curve"]]:
            low, high = point["interval"]
            yield f"| {point['rows']} | {100 * point['score']:.1f} | {100 * low:.1f} to {100 * high:.1f} |"
        enough = details["fit"].get("enough")
        if enough:
            least, most = (
                f"{value:.0f}" if value else "more than tried" for value in (enough["low"], enough["high"])
            )
            within = 100 * one["config"]["gain"]
            yield from (
                "",
                f"By the fitted power law {enough['value']:.0f} rows come within {within:g} points of all",
            )
            yield f"({least} to {most})."
            if details["fit"].get("needed"):
                yield rows_needed(details["fit"]["needed"], details["curve"][-1]["rows"])
        else:
            yield from ("", f"No curve is fitted: {details['fit']['why']}.")
    yield ""


def ablations(found):
    """Yield what a mixture is worth without each of its parts."""
    if not found:
        return
    yield from ("## Parts of a mixture (Flan, arXiv 2301.13688)", "")
    yield f"The paper, table 1, T5-XL on MMLU without exemplars: {FLAN['full']} with all,"
    told = (f"{FLAN[arm]} without {part}" for arm, part in PARTS.items())
    yield f"{', '.join(told)}."
    for name, one in found.items():
        drawn = one["arms"]
        yield from ("", f"`{name}`: {one['rows']} rows an arm, by the shares below; {learned(one)}.", "")
        yield "| arm | few-shot | chain of thought | tasks | largest source |"
        yield "|---|---|---|---|---|"
        for arm, told in drawn.items():
            shares = (f"{100 * told['shares'][part]:.0f} %" for part in ("few_shot", "cot"))
            largest = max(told["sources"].values()) / told["rows"]
            yield f"| {arm} | {' | '.join(shares)} | {told['tasks']} | {100 * largest:.0f} % |"
        yield from matrix(one, "full")
        flags = f"--arms {','.join(arm for arm in drawn if arm != 'full')} --rows {one['rows']}"
        command = f"taskmill ablate flan/mixture.yaml {flags} --train flan/proof.yaml --out runs/{name}"
        yield from ("", "```text", command, "```")
    yield ""


def matrices(found):
    """Yield which dataset gives which capability."""
    if not found:
        return
    yield from ("## Datasets by capabilities", "")
    yield "Students that learned one dataset each, equal tokens, asked the tests of all targets."
    for name, one in found.items():
        yield from ("", f"`{name}`: {learned(one)}.")
        arms = list(one["result"]["arms"])
        yield from matrix(one, "none" if "none" in arms else arms[-1])
        yield from ("", "```text", f"taskmill prove {name}.yaml --out runs/{name}", "```")
    yield ""


def matrix(one, against):
    """Yield scores of arms by targets, and what each arm has over the one named `against`."""
    result = one["result"]
    columns = columns_of(one) | ({"mean of all": result} if "targets" in result else {})
    yield from ("", f"| arm | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|")
    for arm in result["arms"]:
        yield f"| {arm} | " + " | ".join(score(column["arms"][arm]) for column in columns.values()) + " |"
    yield from ("", f"| against {against} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|")
    for arm in (arm for arm in result["arms"] if arm != against):
        cells = [against_it(column["effects"], arm, against) for column in columns.values()]
        yield f"| {arm} | {' | '.join(cells)} |"


def against_it(effects, arm, other):
    delta, low, high = versus(effects, arm, other)
    return f"{points(delta)} ({points(low)} to {points(high)}), {said(low, high)}"


def learned(one):
    """Return how much each student read, how many there were, and what they were asked."""
    details = one["details"].values()
    read = max(line["read"] for about in details for line in about["learned"].values())
    asked = ", ".join(f"{about['questions']}" for about in details)
    return f"{read:,.0f} tokens a student, {one['config']['seeds']} seeds, {asked} questions"


def pretrained(results):
    """Yield what pairs in a corpus are worth against its raw texts, and what was forgotten."""
    found = {name: one for name, one in results.items() if one["command"] == "pretrain"}
    if not found:
        return
    yield from ("## Pairs in the corpus (Instruction Pre-Training, arXiv 2406.14491)", "")
    told = ", ".join(f"{ours} against {raw} in {domain}" for domain, (ours, raw) in SETTINGS.items())
    yield "The paper: Llama3-8B that reads on in a domain scores more with pairs than on raw texts,"
    yield f"{told} (averages of 5 tasks); what is forgotten it does not say."
    for name, one in found.items():
        corpus, config = one["corpus"], one["config"]
        yield from (
            "",
            f"`{name}`: {corpus['documents']['in']:,} passages, {corpus['pairs']:,} pairs; each model reads",
        )
        asked = f"{config['test_rows']} questions a target (F1, or right)"
        yield f"{one['tokens']:,} tokens; {config['seeds']} seeds; {asked}."
        yield from ("", f"| target | {' | '.join(one['targets'][next(iter(one['targets']))])} |")
        yield "|---" * (len(next(iter(one["targets"].values()))) + 1) + "|"
        for target, lines in {**one["targets"], **one["retention"]["questions"]}.items():
            yield f"| {target} | " + " | ".join(mean(line) for line in lines.values()) + " |"
        perplexity = one["retention"]["perplexity"]
        if perplexity:
            cells = (f"{line['perplexity']:.1f}" for line in perplexity.values())
            yield f"| perplexity of general text | {' | '.join(cells)} |"
        yield from ("", "| claim | verdict | difference, in points | interval |", "|---|---|---|---|")
        for claim in one["claims"]:
            whole = claim["over_all"]
            bounds = f"{points(whole['low'])} to {points(whole['high'])}"
            yield f"| {claim['claim']} | {claim['verdict']} | {points(whole['mean'])} | {bounds} |"
        flags = f"--seeds {config['seeds']} --test-rows {config['test_rows']} --tokens {one['tokens']}"
        names = ",".join(f"read_on/{target}.jsonl" for target in one["targets"])
        yield from (
            "",
            "The [corpus](corpus.md) and the [comparison](train.md) are of",
            "",
            "```text",
            READ_ON,
        )
        yield from (f"taskmill train corpus corpus --target {names} {flags} --out worth", "```")
    yield ""


def replayed(results):
    """Yield where learning in stages stands, which has a page of its own."""
    found = [one for one in results.values() if one["command"] == "grow continual"]
    if not found:
        return
    yield from ("## Replay against forgetting (Dynosaur, arXiv 2305.14327)", "")
    none, some = REPLAY
    yield f"The paper, ROUGE-L after three stages: mean backward transfer {none} without replay, {some} with"
    yield "that of diverse instructions. [All strategies](grow.md#learning-in-stages) are of"
    yield from (
        "",
        "```text",
        "python -m benchmarks continual --data DATA/superni --out stages/ --holdout 20 --save",
    )
    yield from ("```", "")


def machines(results):
    yield from (
        "## Machines",
        "",
        "The hash behind a student's name is of its base's files, its settings and the wordings: compare",
    )
    yield from (
        "scores of one hash only.",
        "",
        "| result | student | machine | minutes |",
        "|---|---|---|---|",
    )
    for name, one in results.items():
        machine = one["machine"]
        about = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']:g} GB"
        yield f"| {name} | {one['student']} | {about} | {one['minutes']:g} |"
