"""Filling a page's template: escaped throughout, but for our own style and script."""

from __future__ import annotations

from importlib.resources import files

import minijinja

from taskmill.report.words import compact, duration, thousands

__all__ = ["render"]


def render(template: str, slots: dict[str, object]) -> str:
    """Return `template` (a file of this folder) filled with the slots, `css` and `js`."""
    folder = files("taskmill.report")
    # A template whose name ends in .html is escaped.
    environment = minijinja.Environment(
        templates={"page.html": folder.joinpath(template).read_text("utf-8")},
        filters={"compact": compact, "thousands": thousands, "duration": duration},
        trim_blocks=True,
        lstrip_blocks=True,
    )
    own = {name: minijinja.safe(folder.joinpath(f"page.{name}").read_text("utf-8")) for name in ("css", "js")}
    return environment.render_template("page.html", **slots, **own)
