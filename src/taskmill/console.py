"""What the command line shows people: the funnel, estimates, the state of the machine."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["examine", "show_estimate", "show_health", "show_manifest", "show_training"]

_VARIABLES = (
    "OPENAI_API_KEY", "OPENAI_BASE_URL", "OLLAMA_HOST",
    "HF_TOKEN", "HF_HOME", "HF_HUB_OFFLINE", "HTTPS_PROXY", "CUDA_VISIBLE_DEVICES",
)  # fmt: skip

_BACKEND_NEEDS = {
    "echo": ("", ""),
    "openvino": ("openvino_genai", "local"),
    "openai": ("aiohttp", "openai"),
    "transformers": ("transformers", "train"),
    "vllm": ("vllm", "vllm"),
}


def _reasons(dropped: Mapping[str, int]) -> str:
    ordered = sorted(dropped.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{reason} {n}" for reason, n in ordered)


def show_manifest(manifest: Mapping[str, Any], run: Path) -> None:
    """Print the funnel, the yield per task type, what it took, where the report is and how it ended."""
    console = Console(highlight=False, soft_wrap=not os.isatty(1))
    console.print(_funnel(manifest.get("funnel", {})))
    if manifest.get("tasks"):
        console.print()
        console.print(_task_table(manifest["tasks"]))
    calls = manifest.get("calls", {})
    tokens = manifest.get("call_tokens") or manifest.get("tokens", {})  # a corpus counts its own
    console.print()
    console.print(
        f"calls: {calls.get('made', 0)} made, {calls.get('reused', 0)} reused, "
        f"{calls.get('failed', 0)} failed"
        f" · tokens: {tokens.get('prompt', 0)} in, {tokens.get('completion', 0)} out"
        + (f" · cost: {manifest['cost']:.4g}" if manifest.get("cost") is not None else "")
        + f" · {manifest.get('elapsed_s', 0):.1f} s"
    )
    report = run / "report.html"
    if report.exists():
        console.print(f"report: {report}")
    console.print(str(manifest.get("exit", {}).get("reason", "")))


def show_table_report(stage: str, report: Mapping[str, Any], out: Path) -> None:
    """Print what a command over a table kept and dropped, its warnings, and where the result is."""
    console = Console(highlight=False, soft_wrap=not os.isatty(1))
    console.print(_funnel({stage: report["funnel"]}))
    for warning in report.get("warnings", ()):
        console.print(f"warning: {warning}")
    console.print(f"kept, dropped and report: {out}")


def show_selection(record: Mapping[str, Any], out: Path) -> None:
    """Print what was chosen and how it stands against chance and length."""
    console = Console(highlight=False, soft_wrap=not os.isatty(1))
    pool, chosen = record["pool"], record["chosen"]
    console.print(
        f"{chosen['rows']} of {pool['rows']} rows, {chosen['tokens']} of {pool['tokens']} tokens "
        f"in {record['seconds']['select']:.2f} s" + (f" · {record['note']}" if record["note"] else "")
    )
    for warning in record["warnings"]:
        console.print(f"warning: {warning}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    measures = record["measures"]
    table.add_column("measure")
    for name in measures:
        table.add_column(name, justify="right")
    table.add_column("beats every draw by chance")
    for key in next(iter(measures.values())):
        cells = [measures[name].get(key) for name in measures]
        if all(value is None for value in cells):
            continue
        better = {True: "yes", False: "no", None: ""}[record["beats_every_draw"].get(key)]
        shown = ["–" if v is None else f"{v:.4g}" if isinstance(v, float) else str(v) for v in cells]
        table.add_row(key.replace("_", " "), *shown, better)
    console.print(table)
    console.print(f"selection: {out} · report: {out.with_suffix('.report.html')}")


def _funnel(stages: Mapping[str, Any]) -> Table:
    funnel = Table(title=None, box=None, pad_edge=False, header_style="bold")
    for name in ("stage", "in", "kept", "dropped"):
        funnel.add_column(name, justify="left" if name in ("stage", "dropped") else "right")
    for stage, entry in stages.items():
        lost = sum(entry["dropped"].values())
        text = f"{lost}  ({_reasons(entry['dropped'])})" if lost else "0"
        funnel.add_row(stage, str(entry["in"]), str(entry["kept"]), text)
    return funnel


def _task_table(tasks: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("task type", "requests", "drafts", "accepted", "dropped"):
        table.add_column(name, justify="left" if name in ("task type", "dropped") else "right")
    for task, entry in tasks.items():
        accepted = str(entry.get("accepted", ""))
        if entry.get("asked"):
            accepted += f"/{entry['asked']}"
        table.add_row(
            task, str(entry["requests"]), str(entry["drafts"]), accepted, _reasons(entry.get("dropped", {}))
        )
    return table


def show_training(record: Mapping[str, Any], out: Path) -> None:
    """Print what was trained, on how much, how the loss went and where the result is."""
    console = Console(highlight=False, soft_wrap=not os.isatty(1))
    counts, loss = record["counts"], record["loss"]
    console.print(
        f"{counts['train']} rows with {counts['supervised']} tokens to learn, {counts['cut']} passages cut, "
        f"{counts['refused']} rows refused · {record['tokens']} tokens read in {record['steps']} steps"
    )
    valid = (
        f", held-out rows {loss['valid_first']:.3f} → {loss['valid_last']:.3f}"
        if "valid_last" in loss
        else ""
    )
    console.print(f"loss {loss['train_first']:.3f} → {loss['train_last_tenth']:.3f}{valid}")
    console.print(f"{record['elapsed_s'] / 60:.1f} min, {record['tokens_per_s']} tokens/s")
    prefix = record.get("prefix", {"used": "", "why": ""})  # records of earlier versions have none
    if prefix["used"] == "own" and record["recipe"]["prefix"] == "shared":
        console.print(f"rows passed through the model one by one: {prefix['why']}", markup=False)
    made = "model" if (out / "model").is_dir() else "adapter"
    console.print(f"{made}: {out / made} · curve: {out / 'report.html'}")


def show_ltd(record: Mapping[str, Any], out: Path) -> None:
    """Print what an LTD experiment found, or, of a plan, what it would train and how long that takes."""
    console = Console(highlight=False, soft_wrap=not os.isatty(1))
    region, thinned = record["region"], record["thinned"]
    less = f", thinned to {100 * thinned['share']:.1f} % of the pool" if thinned["share"] < 1 else ""
    console.print(
        f"region: {region['rows']} of {record['rows']['pool']} rows, {region['tokens']} tokens{less} · "
        f"{record['items']['scored']} rows scored"
    )
    console.print(f"{record['units']['all']} students, about {record['estimate_s'] / 60:.1f} min in all")
    if "arms" not in record:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("rows of", "templates", "selector", "ratio", "rows", "tokens", "mark", "interval"):
        table.add_column(name, justify="left" if name in ("rows of", "templates", "selector") else "right")
    for a in record["arms"]:
        interval = f"{a['low']:.3f} – {a['high']:.3f}"
        table.add_row(
            a["scope"], a["templates"], a["selector"], f"{a['ratio']:g} %", f"{a['rows']:.0f}",
            f"{a['tokens']:.0f}", f"{a['mean']:.3f}", interval,
        )  # fmt: skip
    console.print(table)
    console.print(f"all rows {record['full']['mean']:.3f}, not trained {record['base']['mean']:.3f}")
    for claim in record["claims"]:
        console.print(f"  {claim['verdict']:10} {claim['claim']}", markup=False)
    first = record["config"]["selectors"][0]
    if first in record["curves"]:
        console.print(f"learning curve of {first}: {record['curves'][first]['says']}", markup=False)
    ratio = record["sufficient"][first]["ratio"]
    within = f"within {record['config']['epsilon']:g} of all rows"
    console.print(
        f"{ratio:g} % by {first} is {within}" if ratio else f"no tried ratio below 100 % is {within}"
    )
    console.print(f"report: {out / 'report.html'}")


def show_pretraining(record: Mapping[str, Any], out: Path) -> None:
    """Print what continual pre-training on a corpus gained and cost, or, of a plan, what it would train."""
    console = Console(highlight=False, soft_wrap=not os.isatty(1))
    models = record["units"]["all"] - 1
    console.print(
        f"{models} models of {record['tokens']} tokens each ({record['method']}), "
        f"about {record['estimate_s'] / 60:.1f} min in all"
    )
    if "targets" not in record:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("questions", "model", "mark", "interval", "n"):
        table.add_column(name, justify="left" if name in ("questions", "model") else "right")
    for title, arms in (record["targets"] | record["retention"]["questions"]).items():
        for arm, own in arms.items():
            interval = f"{own['low']:.3f} – {own['high']:.3f}"
            table.add_row(title, arm, f"{own['mean']:.3f}", interval, str(own["n"]))
    console.print(table)
    for arm, own in record["retention"]["perplexity"].items():
        console.print(f"general texts, {arm}: perplexity {own['perplexity']:.2f}", markup=False)
    for claim in record["claims"]:
        console.print(f"  {claim['verdict']:10} {claim['claim']}", markup=False)
    console.print(f"report: {out / 'report.html'}")


def show_examination(result: Mapping[str, Any], out: Path) -> None:
    """Print what a synthesizer's pairs and answers are worth, on seen and on unseen datasets."""
    console = Console(highlight=False, soft_wrap=not os.isatty(1))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("datasets", "what", "asked", "F1", "interval", "items"):
        table.add_column(name, justify="right" if name in ("F1", "interval", "items") else "left")
    for title, key in (("pairs", "pair_f1"), ("answers", "answers")):
        for split, ways in result[key].items():
            for way, own in ways.items():
                interval = f"{own['low']:.3f} – {own['high']:.3f}"
                table.add_row(split, title, way, f"{own['mean']:.3f}", interval, str(own["n"]))
    console.print(table)
    console.print(f"report: {out / 'report.html'}")


def show_examinations(compared: Mapping[str, Any]) -> None:
    """Print how the pairs of the second synthesizer differ from those of the first, in points of 100."""
    lines = {
        f"{split}, {way} against {own['against']}": own
        for split, ways in compared["pair_f1"].items()
        for way, own in ways.items()
    }
    _show_differences("pair F1", lines)


def show_proof(record: Mapping[str, Any], out: Path) -> None:
    """Print what a proof found, or, of a plan, what it would do and how long that takes."""
    console = Console(highlight=False, soft_wrap=not os.isatty(1))
    for name, plan in record["targets"].items():
        sizes = plan["sizes"]
        console.print(
            f"{name}: {sizes['passages']} passages, {sizes['questions']} questions in {plan['wordings']} "
            f"wordings, about {plan['estimate_s'] / 60:.1f} min",
            markup=False,
        )
    if "result" not in record:
        return
    result = record["result"]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("arm", "score", "interval", "by seed"):
        table.add_column(name, justify="left" if name == "arm" else "right")
    for arm, line in result["arms"].items():
        low, high = line["interval"]
        seeds = " ".join(f"{value:.3f}" for value in line["seeds"])
        table.add_row(arm, f"{line['score']:.3f}", f"{low:.3f} – {high:.3f}", seeds)
    console.print(table)
    for name, line in result["effects"].items():
        low, high = line["interval"]
        console.print(f"  {name:28} {line['delta']:+.3f}  {low:+.3f} – {high:+.3f}", markup=False)
    console.print(f"report: {out / 'report.html'}", markup=False)
    console.print(result["verdict"], markup=False)
    if record["exit"]["code"]:
        console.print(record["exit"]["reason"], markup=False)


def show_evaluation(results: Mapping[str, Any], out: Path | None) -> None:
    """Print the score of each task and the averages of each suite, with intervals, in percent."""
    console = Console(highlight=False, soft_wrap=not os.isatty(1))
    for name, suite in results["suites"].items():
        table = Table(box=None, pad_edge=False, header_style="bold")
        for head in (name, "accuracy", "interval", "items", "not read"):
            table.add_column(head, justify="left" if head == name else "right")
        for task, own in suite["tasks"].items():
            table.add_row(
                task, f"{100 * own['accuracy']:.1f}", f"{100 * own['low']:.1f} – {100 * own['high']:.1f}",
                str(own["n"]), str(own["extraction_failures"]),
            )  # fmt: skip
            for mark, title in (("macro_f1", "macro-F1"), ("auc", "AUC")):
                if mark in own:
                    table.add_row(f"  {title}", f"{100 * own[mark]:.1f}", "", "", "")
        for kind, marks in suite.get("averages", {}).items():
            for mark, own in marks.items():
                interval = f"{100 * own['low']:.1f} – {100 * own['high']:.1f}"
                table.add_row(f"= {kind}: {mark}", f"{100 * own['mean']:.1f}", interval, "", "")
        console.print(table)
        if suite.get("coverage"):
            console.print(f"{suite['coverage']['tasks']} of {suite['coverage']['of']} tasks of the benchmark")
        if suite.get("shots", 0) < suite.get("shots_asked", 0):
            console.print(
                f"{suite['shots']} of {suite['shots_asked']} solved questions were found; "
                "give their file with --exemplars"
            )
    if results.get("normalised_average") is not None:
        console.print(f"normalised average: {results['normalised_average']:.2f}")
    if out is not None:
        console.print(f"results and items: {out}")


def show_comparison(compared: Mapping[str, Any]) -> None:
    """Print how the second run differs from the first in each suite, in points of 100: accuracy, then F1."""
    lines: dict[str, Any] = {}
    for name, own in compared["suites"].items():
        lines |= {name: own, **{f"{name}, {mark}": own[mark] for mark in ("f1", "rouge_l") if mark in own}}
    _show_differences("suite", lines)


def _show_differences(title: str, lines: Mapping[str, Any]) -> None:
    console = Console(highlight=False, soft_wrap=not os.isatty(1))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in (title, "difference", "interval", "p", "better", "worse", "items"):
        table.add_column(head, justify="left" if head == title else "right")
    for name, own in lines.items():
        table.add_row(
            name, f"{100 * own['difference']:+.1f}", f"{100 * own['low']:+.1f} – {100 * own['high']:+.1f}",
            f"{own['p']:.3g}", str(own["wins"]), str(own["losses"]), str(own["n"]),
        )  # fmt: skip
    console.print(table)


def show_pairs(results: Mapping[str, Any], out: Path) -> None:
    """Print where pairs lie that are to be judged, or what the verdicts on them say, in percent."""
    console = Console(highlight=False, soft_wrap=not os.isatty(1))
    if "pairs" in results:
        alone = results["only_one"] + results["only_two"]
        console.print(
            f"{results['items']} prompts in both orders: {out / 'pairs.jsonl'}; {alone} in one table only"
        )
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("", "share", "interval", "won", "lost", "tied"):
        table.add_column(head, justify="left" if not head else "right")
    for name, own in {results["one"]: results, **results["categories"]}.items():
        if own["win_rate"] is None:
            continue
        for title, share in ((name, own["win_rate"]), ("  shown first", own["first_place"])):
            counts = [str(own[n]) for n in ("wins", "losses", "ties")] if title == name else ["", "", ""]
            interval = f"{100 * share['low']:.1f} – {100 * share['high']:.1f}"
            table.add_row(title, f"{100 * share['mean']:.1f}", interval, *counts)
    console.print(table)
    console.print(
        f"{results['items']} prompts judged in both orders against {results['two']}; "
        f"{results['unread']} verdicts not read, {results['missing']} missing"
    )


def show_estimate(result: Mapping[str, Any]) -> None:
    """Print what a run would take, each figure with its interval."""
    console = Console(highlight=False)
    console.print(
        f"{result['sample']} answers looked at ({result['made']} new calls, kept in the ledger: "
        "the run will not pay them again)"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "expected", "95 % interval"):
        table.add_column(name, justify="left" if not name else "right")
    for name in ("calls", "prompt_tokens", "completion_tokens", "cost", "seconds"):
        figure = result.get(name)
        if figure is None:
            table.add_row(name.replace("_", " "), "unknown", "give --prices FILE" if name == "cost" else "")
            continue
        table.add_row(
            name.replace("_", " "), f"{figure['expected']:g}", f"{figure['low']:g} – {figure['high']:g}"
        )
    console.print(table)
    if "verify" in result:
        more = result["verify"]["calls"]
        console.print(
            f"and {more['expected']:g} calls of the verifying model ({more['low']:g} – {more['high']:g})"
        )


def examine() -> dict[str, Any]:
    """Return the state of the machine: versions, backends, embedded model, names of variables set."""
    from taskmill.backends.openvino import embedded_model
    from taskmill.errors import BackendError
    from taskmill.tasks import TASKS

    versions = {}
    for name in (
        "taskmill",
        "daft",
        "pyarrow",
        "openvino-genai",
        "aiohttp",
        "datasets",
        "ray",
        "vllm",
        "torch",
    ):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = ""
    missing = {
        name: f'pip install "taskmill[{extra}]"' if module and find_spec(module) is None else ""
        for name, (module, extra) in _BACKEND_NEEDS.items()
    }
    try:
        model = str(embedded_model("smollm2-135m"))
        problem = ""
    except BackendError as error:
        model, problem = "", str(error)
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "disk_free_gb": round(shutil.disk_usage(".").free / 1e9, 1),
        "versions": versions,
        "backends": {name: {"ready": not hint, "install": hint} for name, hint in missing.items()},
        "embedded_model": {"path": model, "problem": problem},
        "variables_set": [name for name in _VARIABLES if os.environ.get(name)],
        "task_types": TASKS.names(),
    }


def show_health(health: Mapping[str, Any]) -> None:
    """Print the state of the machine."""
    console = Console(highlight=False)
    console.print(
        f"Python {health['python']} on {health['platform']}, {health['cores']} cores, "
        f"{health['disk_free_gb']} GB free here"
    )
    for name, state in health["backends"].items():
        console.print(f"  {name:13} {'ready' if state['ready'] else state['install']}", markup=False)
    model = health["embedded_model"]
    console.print(f"embedded model: {model['path'] or model['problem']}")
    console.print("variables set: " + (", ".join(health["variables_set"]) or "none"))
    console.print("task types: " + ", ".join(health["task_types"]))
    console.print(
        "versions: " + ", ".join(f"{n} {v or '(not installed)'}" for n, v in health["versions"].items())
    )
