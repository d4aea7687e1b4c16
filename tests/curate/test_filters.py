"""Filters score, thresholds decide; a folder is decided on anew without scoring."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.backends.echo import Echo
from taskmill.curate.checks import check
from taskmill.curate.filters import FILTERS, Filter, decide, score, thresholds
from taskmill.durable import on_write
from taskmill.errors import ConfigError, InputError, UsageError
from taskmill.recipes import layouts, tables
from taskmill.recipes.curate import CurateConfig, curate
from taskmill.recipes.tables import read_table
from taskmill.record import Document, Example, Reason, content_id
from taskmill.synthesize.bonito import Synthesis, examples, pose, respond
from taskmill.tasks import TASKS
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


def test_a_response_that_is_to_be_found_in_its_prompt_is_no_leak():
    said = "The harbour of Lindale was built in 1874 by the engineer Marta Quist."
    listed = f"{{{{context}}}}\n\nWhat is said of it?\nA. {said}\nB. Four men dredged it after a storm."
    options = (said, "Four men dredged it after a storm.")
    assert one("leaked", example(said, listed, options=options)) is None
    assert one("leaked", example(said, f"{PASSAGE}\n\nWho built it?", context="")) is None
    assert one("leaked", example(said, f"{{{{context}}}}\n\nIs it true? {said}")) == 1


def test_dialogue_is_no_refusal_and_a_refusal_stands_first():
    for spoken in ("Can I help you?", "May I help you?", "He sat down. I am sorry for the mistake, he said."):
        assert one("refusal", example(spoken)) == 0
    assert one("refusal", example("I cannot help with that. The harbour is old.")) == 1


@pytest.mark.parametrize("protocol", ["chat", "bonito-attributes"])
@pytest.mark.parametrize("task", TASKS.names())
def test_what_a_run_accepts_passes_the_filters_of_finished_data(task, protocol):
    """A flawless reply, begun for the generator or not: no check and no filter takes it for a fault."""
    document, echo = Document(content_id(PASSAGE), PASSAGE), Echo()
    limits = thresholds({}, FILTERS.names())
    for stages in ("auto", "no", "yes"):
        for sample in range(4):
            asked = pose(Synthesis((task,), protocol, two_stage=stages), "m", document, task, sample)
            (said,) = echo.generate([asked])
            second = respond("m", asked, said)
            if second is not None:
                asked, (said,) = second, echo.generate([second])
            (made,) = examples("m", asked, said)
            assert isinstance(made, Example), made
            assert check(made) is None
            scores = {n: one(n, made) for n in FILTERS.names() if FILTERS.get(n).by_default}
            assert decide(scores, limits) is None


@pytest.mark.parametrize(
    ("response", "count", "passes"),
    [("K", 12, 1), ("(z)", 26, 1), ("Z", 25, 0), ("C. choice 2", 30, 0), ("3", 30, 1), ("31", 30, 0),
     ("C. choice 2", 5, 1), ("choice 29", 30, 1), ("3", 5, 0)],
)  # fmt: skip
def test_an_option_is_named_by_letter_or_number_if_there_are_more_than_letters(response, count, passes):
    assert one("label", example(response, options=tuple(f"choice {i}" for i in range(count)))) == passes


def test_options_without_words_are_compared_as_they_are():
    assert one("label", example(" + ", options=("+", "-"))) == 1
    assert one("label", example("*", options=("+", "-"))) == 0


def test_a_score_that_is_no_number_is_an_error():
    broken = Filter("broken", lambda _: float("nan"), Reason.TRIVIAL, True, 0.5, "nothing")
    with pytest.raises(InputError, match="row a: the filter 'broken' gave nan"):
        score(example("x"), [broken])


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


@pytest.mark.parametrize("wrong", ["much", "nan", "inf", "-inf", ""])
def test_wrong_settings_are_refused_before_the_work(source, tmp_path, wrong):
    with pytest.raises(ConfigError, match="a finite number"):
        curate(CurateConfig((source,), set={"grounded": (wrong,)}), tmp_path / "out")
    with pytest.raises(UsageError, match="no filter"):
        curate(CurateConfig((source,), set={"ground": ("1",)}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def by_id(folder):
    kept, dropped = (pq.read_table(folder / f"{name}.parquet").to_pylist() for name in ("kept", "dropped"))
    return {row["id"]: row for row in kept}, {row["id"]: row for row in dropped}


def broken_at(name, work):
    """Run `work` until a file is to be written."""

    def hook(point):
        if point == f"open {name}":
            raise KeyboardInterrupt

    on_write(hook)
    try:
        with pytest.raises(KeyboardInterrupt):
            work()
    finally:
        on_write(None)


@pytest.mark.parametrize("name", ["dropped.parquet", "kept.parquet", "report.json"])
def test_a_killed_second_decision_in_place_loses_no_row(source, tmp_path, name):
    out = tmp_path / "out"
    curate(CurateConfig((source,)), out)
    strict = CurateConfig((str(out),), set={"grounded": ("0.9",)})
    curate(strict, tmp_path / "strict")
    broken_at(name, lambda: curate(strict, out))
    assert not (out / "report.json").exists()
    with pytest.raises(InputError, match="unfinished"):
        read_table([str(out)])
    curate(strict, out)
    assert by_id(out) == by_id(tmp_path / "strict")


@pytest.mark.parametrize("name", ["scores.parquet", "kept.parquet", "dropped.parquet"])
def test_rows_of_earlier_data_never_stand_beside_new_scores(source, tmp_path, name):
    out, other = tmp_path / "out", tmp_path / "other.jsonl"
    curate(CurateConfig((source,)), out)
    other.write_text("".join(json.dumps({**row, "output": "Another"}) + "\n" for row in ROWS))
    broken_at(name, lambda: curate(CurateConfig((str(other),)), out))
    with pytest.raises(InputError, match="unfinished"):
        curate(CurateConfig((str(out),)), out)


def test_the_second_decision_takes_back_nothing_but_its_own_columns(tmp_path):
    """Columns of the input may have the names of the evidence; ids of several sources are told apart."""
    rows = [
        {**row, "id": f"{i}", "score": i, "reason": "mine", "reason_in": "too"} for i, row in enumerate(ROWS)
    ]
    for name in ("one", "two"):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
    sources = tuple(str(tmp_path / f"{name}.parquet") for name in ("one", "two"))
    curate(CurateConfig(sources, set={"grounded": ("0.9",)}), tmp_path / "out")
    _, dropped = by_id(tmp_path / "out")
    assert sorted(dropped) == ["one/2", "one/3", "two/2", "two/3"]
    assert dropped["two/3"]["reason"] == "empty_reply"
    assert (dropped["two/3"]["reason_in_in"], dropped["two/3"]["reason_in"]) == ("mine", "too")
    assert dropped["two/3"]["score_in"] == 3
    loose = {"grounded": ("0",), "length": ("0",)}
    curate(CurateConfig((str(tmp_path / "out"),), set=loose), tmp_path / "all")
    everything, none = by_id(tmp_path / "all")
    assert none == {}
    assert everything == {
        f"{name}/{row['id']}": {**row, "id": f"{name}/{row['id']}"} for name in ("one", "two") for row in rows
    }
    again = curate(CurateConfig((str(tmp_path / "out" / "dropped.parquet"),)), tmp_path / "dropped")
    assert again["funnel"]["in"] == 4


def test_an_unfinished_folder_is_not_taken_for_whole(source, tmp_path):
    curate(CurateConfig((source,)), tmp_path / "out")
    (tmp_path / "out" / "report.json").unlink()
    with pytest.raises(InputError, match="unfinished"):
        curate(CurateConfig((str(tmp_path / "out"),)), tmp_path / "again")


@pytest.mark.parametrize(
    ("row", "layout", "context", "response"),
    [
        ({"prompt": "P?", "completion": "C"}, "prompt-completion", "", "C"),
        ({"inputs": "I", "targets": "T"}, "inputs-targets", "", "T"),
        ({"inputs": [1, 2], "targets": [3], "inputs_pretokenized": "I", "targets_pretokenized": "T"},
         "p3", "", "T"),
        ({"instruction": "I", "response": "R"}, "instruction-response", "", "R"),
        ({"input": "I", "output": "O"}, "bonito", "", "O"),
        ({"instruction": "I", "context": "the passage", "response": "R"}, "examples", "the passage", "R"),
        ({"prompt": [{"role": "user", "content": "P"}],
          "completion": [{"role": "assistant", "content": "C"}]},
         "prompt-completion", "", "C"),
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
    assert layouts.layouts_of(table.column_names)[0] == layout
    (made,) = layouts.as_examples(table)
    assert (made.context, made.response) == (context, response)
    assert made.instruction.startswith("{{context}}") == bool(context)


@pytest.mark.parametrize(
    ("response", "left", "end"),
    [("No<|endoftext|>", "No", "<|endoftext|>"), ("No \n</s> <|im_end|>\n", "No", " \n</s> <|im_end|>\n"),
     ("No", "No", None), ("<|im_end|> No ", "<|im_end|> No ", None), ("</s>", "", "</s>"),
     (None, None, None)],
)  # fmt: skip
@pytest.mark.parametrize("form", ["prompt-completion", "messages", "sharegpt"])
def test_tokens_that_end_a_text_are_taken_off_and_noted(form, response, left, end):
    row = {
        "prompt-completion": lambda text: {"prompt": "P</s>", "completion": text},
        "messages": lambda text: {"messages": [{"role": "user", "content": "P</s>"},
                                               {"role": "assistant", "content": text}]},
        "sharegpt": lambda text: {"conversations": [{"from": "human", "value": "P</s>"},
                                                    {"from": "gpt", "value": text}]},
    }[form]  # fmt: skip
    table = pa.Table.from_pylist([row("Yes"), row(response)])
    bare, ends = layouts.without_end_tokens(table)
    assert bare.to_pylist() == [row("Yes"), row(left)]
    assert ends.to_pylist() == [None, end]
    assert bare.schema == table.schema


def test_curation_says_what_it_took_off_and_warns_of_a_filter_that_takes_half(tmp_path):
    rows = [{"prompt": f"Say {i}.", "completion": f"{i}</s>" if i < 4 else "<s> no"} for i in range(10)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = curate(CurateConfig((str(tmp_path / "rows.jsonl"),)), tmp_path / "out")
    assert report["funnel"] == {"in": 10, "kept": 4, "dropped": {"marker": 6}}
    assert report["end_tokens"] == {"</s>": 4}
    assert report["warnings"][0] == "4 responses ended in </s>; it is taken off"
    assert report["warnings"][1].startswith("marker dropped 6 of 10 rows; ")
    assert pq.read_table(tmp_path / "out" / "kept.parquet")["completion"].to_pylist() == list("0123")
    scores = pq.read_table(tmp_path / "out" / "scores.parquet")
    assert scores["end_token"].to_pylist() == ["</s>"] * 4 + [None] * 6
    again = curate(CurateConfig((str(tmp_path / "out"),), set={"marker": ("1",)}), tmp_path / "all")
    assert again["funnel"]["kept"] == 10
    assert again["end_tokens"] == {"</s>": 4}


def test_a_chat_is_an_example_by_its_last_exchange_or_whole():
    turns = [("user", "A?"), ("assistant", "a"), ("user", "B?"), ("assistant", "b")]
    table = pa.Table.from_pylist([{"messages": [{"role": r, "content": c} for r, c in turns]}])
    (last,), (whole,) = layouts.as_examples(table), layouts.as_examples(table, whole=True)
    assert (last.instruction, last.response) == ("B?", "b")
    assert (whole.instruction, whole.response) == ("A?\n\na\n\nB?", "b")


def test_files_of_several_layouts_are_each_read_by_their_own(tmp_path):
    for name, rows in {
        "a.jsonl": [{"question": "Q?", "answer": "A</s>", "rationale": "R"}],
        "b.jsonl": [{"prompt": "P", "completion": "C</s>"}, {"prompt": "P2", "completion": ""}],
        "c.jsonl": [{"id": "own", "instruction": "I", "input": "the passage", "output": "O"}],
    }.items():
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    table, ends = layouts.without_end_tokens(read_table([str(tmp_path)]))
    made = list(layouts.as_examples(table))
    assert [(e.id, e.instruction, e.context, e.response) for e in made] == [
        ("a/0", "Q?", "", "A"),
        ("b/0", "P", "", "C"),
        ("b/1", "P2", "", ""),
        ("own", "{{context}}\n\nI", "the passage", "O"),
    ]
    assert ends.to_pylist() == ["</s>", "</s>", None, None]
    assert layouts.as_parts(table)["response"].to_pylist() == ["A", "C", "", "O"]


_TEXTS = st.none() | st.sampled_from(
    ["", "a", "{{context}}", "b {{ context }}", "<|pipe|> c", "{\u2060{context}}"]
)


@pytest.mark.parametrize(
    "names",
    [("instruction", "context", "response"), ("instruction", "input", "output"), ("prompt", "completion"),
     ("question", "context", "answer"), ("question", "answer", "inputs", "targets")],
)  # fmt: skip
@given(data=st.data())
def test_whole_columns_are_read_as_row_by_row(names, data):
    rows = data.draw(st.lists(st.tuples(*[_TEXTS] * len(names)), min_size=1, max_size=4))
    table = pa.table([pa.array(column, pa.string()) for column in zip(*rows, strict=True)], list(names))
    found = layouts.as_parts(table).to_pylist()
    assert found == [
        {"instruction": e.instruction, "context": e.context, "response": e.response}
        for e in layouts.as_examples(table, whole=True)
    ]


def test_an_unknown_layout_names_the_known_ones():
    with pytest.raises(InputError, match="prompt, completion"):
        layouts.layouts_of(["a", "b"])
