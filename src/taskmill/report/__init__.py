"""Run folder → report.html: one page that says what came out, what was dropped and why.

The page is self-contained (no network, no font, no script from elsewhere) and shows samples, never
all rows: its size does not grow with the run. Equal runs give equal bytes.
"""

from __future__ import annotations

from pathlib import Path

from taskmill.durable import atomic_write
from taskmill.export.urls import hide_secrets, hide_secrets_within
from taskmill.report.charts import histogram, stacked
from taskmill.report.figures import figures, funnel, reason_colours, yields
from taskmill.report.page import render
from taskmill.report.samples import dropped_samples, scan_kept
from taskmill.store import read_json

__all__ = ["write_report"]


def write_report(run: Path) -> Path:
    """Write RUN/report.html from whatever the run has so far, and return its path."""
    manifest = hide_secrets_within(read_json(run / "manifest.json"))
    kept = scan_kept(run)
    dropped = dropped_samples(run)
    stages = funnel(run, manifest)
    tasks = yields(manifest, kept, dropped)
    sampled = [{"dropped": {group["reason"]: 0}} for group in dropped.groups]
    colours = reason_colours(stages, tasks, sampled)
    config = run / "config.yaml"
    slots = {
        "name": str(manifest.get("name") or run.resolve().name),
        "manifest": manifest,
        "figures": figures(manifest, kept.rows),
        "stages": [{**stage, "bar": stacked(stage, colours)} for stage in stages],
        "tasks": [{**task, "bar": stacked(task, colours)} for task in tasks],
        "colours": colours,
        "task_reasons": [r for r in colours if any(r in task["dropped"] for task in tasks)],
        "lengths": [histogram(name, values) for name, values in kept.lengths.items() if len(values)],
        "rows": kept.rows,
        "samples": kept.samples,
        # Greet with an example whose answer can be shown in its passage, if there is one.
        "opened": next((i for i, sample in enumerate(kept.samples) if sample["span"]), 0),
        "sample_tasks": sorted({sample["task"] for sample in kept.samples}),
        "dropped": [{**group, "colour": colours[group["reason"]]} for group in dropped.groups],
        "config": hide_secrets(config.read_text("utf-8", "replace")) if config.exists() else "",
    }
    out = run / "report.html"
    atomic_write(out, render("page.html.j2", slots).encode())
    return out
