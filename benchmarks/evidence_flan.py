"""Tables for three more experiments of `benchmarks evidence`: Flan's ablations, capabilities, replay.

    cd DIR && taskmill ablate flan/mixture.yaml --arms … --train flan/proof.yaml --out runs/flan
    cd DIR && taskmill prove datasets.yaml --out runs/datasets
    cd DIR && taskmill prove replay.yaml --out runs/replay

Short rows of public training sets are phrased by the package's templates: zero-shot, with one or two
exemplars, and, where a set has rationales, with a chain of thought. All students are asked the tests of two
targets that hold none of these sets.
"""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from taskmill.ids import draw
from taskmill.recipes.templating import RenderConfig, render

LONGEST = 420
"""Most characters of a row (chosen: about 110 tokens, so that two exemplars fit a student's 512)."""

SETS = {
    "boolq_train": ("corpora", 900),
    "cad_nli_train": ("corpora", 2400),
    "cad_imdb_train": ("corpora", 300),
    "sick_train": ("corpora", 600),
    "cot_creak_train": ("flan", 1500),
    "cot_strategyqa_train": ("flan", 300),
}
"""Set → (its folder, rows taken by chance). They differ in size, so that there is something to balance."""

PLAIN = ["id", "task", "prompt", "completion"]
"""Columns of a rendered row that a student's rows need."""

RATIONALES = ("cot_creak_train", "cot_strategyqa_train")

CAPABILITIES = {
    "yes_no": "boolq_train",
    "inference": "cad_nli_train",
    "reading": "fairytaleqa_train",
}
"""Arm of datasets.yaml → the set its rows are of."""

TESTS = (("healthver", "nli"), ("squadshifts_reddit", "exqa"))
SHARED = {
    "seeds": 2,
    "test_items": 20,
    "targets": [{"name": name, "test": f"{name}/test.parquet", "task": task} for name, task in TESTS],
}


def make(data: Path, out: Path) -> None:
    """Write the rendered sets, flan/mixture.yaml, flan/proof.yaml and datasets.yaml into `out`."""
    rendered = out / "rendered"
    for name, (folder, count) in SETS.items():
        short(data / folder / f"{name}.parquet", rendered / f"{name}.parquet", LONGEST, count)
    short(data / "corpora" / "fairytaleqa_train.parquet", rendered / "fairytaleqa_train.parquet", 900, 600)
    for name in {*SETS, *CAPABILITIES.values()}:
        style(rendered, name, "zero-shot", RenderConfig(options=name in SETS))
    for name in SETS:
        style(rendered, name, "few-shot", RenderConfig(style="fs", shots="1-2", options=True))
    for name in RATIONALES:
        style(rendered, name, "reasoned", RenderConfig(cot=True, options=True))
    (out / "flan").mkdir(exist_ok=True)
    write(out / "flan" / "mixture.yaml", mixture())
    # Tables are named as seen from the folder where the command is given.
    write(out / "flan" / "proof.yaml", SHARED)
    arms = [f"{arm}=rendered/{name}-zero-shot.parquet" for arm, name in CAPABILITIES.items()]
    write(out / "datasets.yaml", {"arms": ["none", *arms], "rows": 120, **SHARED})
    general = [pq.read_table(rendered / f"{name}-zero-shot.parquet", columns=PLAIN) for name in SETS]
    pq.write_table(pa.concat_tables(general), out / "replay.parquet")


def short(source: Path, to: Path, longest: int, count: int) -> None:
    """Write `count` rows by chance that have no more than `longest` characters."""
    rows = pq.read_table(source).to_pylist()
    kept = [(draw(0, f"{i}", "evidence row"), i) for i, row in enumerate(rows) if len(said(row)) <= longest]
    to.parent.mkdir(parents=True, exist_ok=True)
    chosen = sorted(i for _, i in sorted(kept)[:count])
    pq.write_table(pa.Table.from_pylist([rows[i] for i in chosen]), to)


def said(row: dict[str, object]) -> str:
    return " ".join(str(value) for value in row.values())


def style(rendered: Path, name: str, called: str, config: RenderConfig) -> None:
    made = replace(config, source=str(rendered / f"{name}.parquet"))
    render(made, rendered / f"{name}-{called}.parquet")


def mixture() -> dict[str, object]:
    """Return half of the rows zero-shot, a quarter few-shot, a quarter reasoned; the sets of each alike."""
    styles = {"zero-shot": (2, tuple(SETS)), "few-shot": (1, tuple(SETS)), "reasoned": (1, RATIONALES)}
    return {
        "sources": {
            called: {
                "weight": weight,
                "sources": {
                    name: {"path": f"../rendered/{name}-{called}.parquet", "weight": 1} for name in names
                },
            }
            for called, (weight, names) in styles.items()
        }
    }


def write(path: Path, recipe: dict[str, object]) -> None:
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
