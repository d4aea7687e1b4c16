"""Filters score, thresholds decide; a folder is decided on anew without scoring."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.curate.filters import FILTERS, decide, score, thresholds
from taskmill.errors import ConfigError, InputError, UsageError
from taskmill.recipes import tables
from taskmill.recipes.curate import CurateConfig, curate
from taskmill.record import Example, Reason
from taskmill.testing import PASSAGE


def example(response, instruction="{{context}}\n\nWho built the harbour?", context=PASSAGE, options=()):
    return Example("a", "", context, instruction, response, options)


def one(name, made):
    return score(made, [FILTERS.get(name)])[0]


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("length", example("Marta Quist"), example("…")),
        ("script", example("Marta Quist"), example("Марта Квист построила гавань")),
        ("leaked", example("Marta Quist"), example("who built the harbour of this old town now",
                           "Say who built the harbour of this old town now.")),
        ("echo", example("Marta Quist"), example("Who built the harbour?")),
        ("repetition", example("She built it."), example("it is so and " * 20)),
        ("refusal", example("Marta Quist"), example("I'm sorry, but I cannot help with that.")),
        ("label", example("Yes", options=("Yes", "No")), example("Perhaps", options=("Yes", "No"))),
        ("marker", example("Marta Quist"), example("Marta <|im_end|> Quist")),
    ],
)  # fmt: skip
def test_default_filters_keep_the_good_and_name_the_bad(name, good, bad):
    limits = thresholds({}, FILTERS.names())
    assert decide({name: one(name, good)}, limits) is None
    failed = decide({name: one(name, bad)}, limits)
    assert failed is not None
    assert failed[0].name == name
    assert isinstance(failed[0].reason, Reason)


def test_scores_that_depend_on_the_passage():
    assert one("grounded", example("the engineer Marta Quist")) == 1
    assert one("grounded", example("a purple elephant")) == 0
    assert one("grounded", example("x", context="")) is None
    assert one("span", example("Marta Quist")) == 1
    assert one("span", example("Quist Marta")) == 0
    assert one("copied", example(PASSAGE)) == 1
    assert one("label", example("B", options=("red", "green"))) == 1
    assert one("script", example("42")) is None


def test_an_unknown_filter_is_named():
    with pytest.raises(UsageError, match="Did you mean 'grounded'"):
        thresholds({"grounde": 1.0}, FILTERS.names())


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_row_passes_exactly_up_to_the_threshold(value, limit):
    assert (decide({"grounded": value}, {"grounded": limit}) is None) == (value >= limit)
    assert (decide({"copied": value}, {"copied": limit}) is None) == (value <= limit)


ROWS = [
    {"instruction": "Name a colour.", "input": "", "output": "Blue"},
    {"instruction": "Who built it?", "input": PASSAGE, "output": "Marta Quist"},
    {"instruction": "Who built it?", "input": PASSAGE, "output": "A purple elephant"},
    {"instruction": "Say it.", "input": "", "output": ""},
]


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(path)


def test_nothing_vanishes_and_every_drop_has_evidence(source, tmp_path):
    report = curate(CurateConfig((source,)), tmp_path / "out")
    kept, dropped = (pq.read_table(tmp_path / "out" / f"{n}.parquet") for n in ("kept", "dropped"))
    assert kept["id"].to_pylist() == ["0", "1", "2"]
    assert dropped.select(["id", "reason", "filter", "score"]).to_pylist() == [
        {"id": "3", "reason": "empty_reply", "filter": "length", "score": 0.0}
    ]
    assert report["funnel"] == {"in": 4, "kept": 3, "dropped": {"empty_reply": 1}}
    assert report["filters"]["grounded"]["scored"] == 2


def test_other_thresholds_decide_again_by_the_stored_scores(source, tmp_path, monkeypatch):
    curate(CurateConfig((source,)), tmp_path / "out")
    monkeypatch.setattr("taskmill.recipes.curate.score", lambda *_: pytest.fail("scored again"))
    strict = CurateConfig((str(tmp_path / "out"),), set={"grounded": ("0.9",)})
    report = curate(strict, tmp_path / "strict")
    assert report["funnel"]["dropped"] == {"empty_reply": 1, "ungrounded": 1}
    loose = CurateConfig((str(tmp_path / "strict"),), set={"length": ("0",)})
    assert curate(loose, tmp_path / "strict")["funnel"]["kept"] == 4
    table = pq.read_table(tmp_path / "strict" / "kept.parquet")
    assert table.column_names == ["id", "instruction", "input", "output"]
    assert table["id"].to_pylist() == ["0", "1", "2", "3"]


def test_wrong_settings_are_refused_before_the_work(source, tmp_path):
    with pytest.raises(ConfigError, match="a threshold is a number"):
        curate(CurateConfig((source,), set={"grounded": ("much",)}), tmp_path / "out")
    with pytest.raises(UsageError, match="no filter"):
        curate(CurateConfig((source,), set={"ground": ("1",)}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unfinished_folder_is_not_taken_for_whole(source, tmp_path):
    curate(CurateConfig((source,)), tmp_path / "out")
    (tmp_path / "out" / "report.json").unlink()
    with pytest.raises(InputError, match="unfinished"):
        curate(CurateConfig((str(tmp_path / "out"),)), tmp_path / "again")


@pytest.mark.parametrize(
    ("row", "layout", "context", "response"),
    [
        ({"prompt": "P?", "completion": "C"}, "prompt-completion", "", "C"),
        ({"question": "Q?", "answer": ["A", "B"]}, "question-answer", "", "A"),
        ({"instruction": "I", "input": "the passage", "output": "O"}, "alpaca", "the passage", "O"),
        ({"messages": [{"role": "user", "content": "U"}, {"role": "assistant", "content": "A"}]},
         "messages", "", "A"),
        ({"conversations": [{"from": "human", "value": "U"}, {"from": "gpt", "value": "A"}]},
         "sharegpt", "", "A"),
    ],
)  # fmt: skip
def test_common_layouts_are_read(row, layout, context, response):
    table = tables.with_ids(pa.Table.from_pylist([row]))
    assert tables.layout_of(table.column_names) == layout
    (made,) = tables.as_examples(table)
    assert (made.context, made.response) == (context, response)
    assert made.instruction.startswith("{{context}}") == bool(context)


def test_an_unknown_layout_names_the_known_ones():
    with pytest.raises(InputError, match="prompt, completion"):
        tables.layout_of(["a", "b"])
