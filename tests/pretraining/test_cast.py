"""Few-shot sequences: one dataset each, whole texts, true lengths, the loss on all pairs and on no text."""

import json
import random

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from word_tokenizer import count

from taskmill.errors import ConfigError, InputError, UsageError
from taskmill.recipes.cast import CastConfig, cast
from taskmill.synthesize.casting import from_row
from taskmill.synthesize.pair_format import Pair, Shown, parse, render, render_pairs, render_parts

WORDS = "river stone cloud apple tiny walks runs sleeps under over bridge market".split()  # noqa: SIM905


def record(dataset, i, rng):
    words = " ".join(rng.choice(WORDS) for _ in range(rng.randint(8, 60)))
    pairs = [{"Q": f"What is {k} of {i}?", "A": rng.choice(WORDS)} for k in range(rng.randint(1, 4))]
    return {"context": f"{dataset} {i}: {words}.", "QA_list": pairs, "rc_name": dataset}


def made(seed=0, size=60):
    rng = random.Random(seed)
    return [record(d, i, rng) for d in ("squid", "quack", "drum") for i in range(size)]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def config(source, **values):
    return CastConfig(sources=(source,), **{"against": ("none",), "length": 256, **values})


def sequences(out):
    return pq.read_table(out / "sequences.parquet").to_pylist()


def dropped(out):
    return [row["detail"] for row in pq.read_table(out / "dropped").to_pylist()]


def learned(row):
    """The parts of a sequence on which the loss is taken."""
    at, found = 0, ""
    for begin, end in row["unlearned"]:
        found += row["completion"][at:begin]
        at = end
    return found + row["completion"][at:]


def test_sequences_hold_whole_texts_of_one_dataset_and_are_nearly_full(tmp_path):
    rows = made(size=120)
    manifest = cast(config(write(tmp_path / "a.jsonl", rows)), tmp_path / "out")
    known = {row["context"]: from_row(row, "a") for row in rows}
    seen = []
    for row in sequences(tmp_path / "out"):
        examples = parse(row["prompt"] + row["completion"])
        assert len(examples) == len(row["records"])
        assert {known[e.context].dataset for e in examples} == {row["dataset"]}
        assert all(e.pairs == known[e.context].pairs for e in examples)
        assert row["tokens"] <= 256
        assert row["tokens"] == sum(count(part) for part, _ in render_parts(examples))
        assert learned(row) == "".join(render_pairs(e.pairs) + "</s>" for e in examples)
        seen += [e.context for e in examples]
    assert sorted(seen) == sorted(known)
    assert manifest["fill"] >= 0.95
    assert manifest["pairs"]["in"] == manifest["pairs"]["kept"] == sum(len(r["QA_list"]) for r in rows)


def test_a_few_pairs_more_than_the_cap_leave_the_texts_of_most_pairs(tmp_path):
    manifest = cast(config(write(tmp_path / "a.jsonl", made()), cap=20), tmp_path / "out")
    assert {own["texts"] for own in manifest["datasets"].values()} == {20}
    kept = pq.read_table(tmp_path / "out" / "records.parquet").to_pylist()
    lost = pq.read_table(tmp_path / "out" / "dropped").to_pylist()
    assert {row["reason"] for row in lost} == {"over_source_cap"}
    for dataset in manifest["datasets"]:
        least = min(len(r["QA_list"]) for r in kept if r["rc_name"] == dataset)
        own = [r for r in lost if r["source"]["dataset"] == dataset]
        assert max(sum(o["context"] == r["context"] for o in own) for r in own) <= least
    funnel = manifest["pairs"]
    assert funnel["in"] == funnel["kept"] + sum(funnel["dropped"].values())


def test_what_does_not_fit_or_is_not_wanted_is_dropped_with_its_reason(tmp_path):
    rows = [
        {"context": "w " * 400, "QA_list": [{"Q": "long?", "A": "a"}]},
        {"context": "", "QA_list": [{"Q": "none?", "A": "a"}]},
        {"context": "Short.", "QA_list": []},
        {"context": "A box.", "QA_list": [{"Q": "Is it?\nOptions:\n- yes\n- no", "A": "yes"}]},
        {"context": "A red box.", "QA_list": [{"Q": "What is red?", "A": "the box"}]},
        {"context": "A red box.", "QA_list": [{"Q": "What is red?", "A": "the box"}]},
    ]
    own = config(write(tmp_path / "a.jsonl", rows), formats=("free",))
    manifest = cast(own, tmp_path / "out")
    assert manifest["pairs"] == {
        "in": 6, "kept": 1,
        "dropped": {"duplicate": 1, "empty": 2, "not_applicable": 1, "over_context": 1},
    }  # fmt: skip
    assert manifest["formats"] == {"free": 1}


def test_a_pair_without_question_or_answer_is_counted(tmp_path):
    pairs = [{"Q": "What is red?", "A": "the box"}, {"Q": "Why?", "A": ""}, {"Q": "", "A": "x"}]
    rows = [{"context": "A red box.", "QA_list": pairs}, {"context": "A box.", "QA_list": pairs[:1]}]
    manifest = cast(config(write(tmp_path / "a.jsonl", rows)), tmp_path / "out")
    assert manifest["pairs"] == {"in": 4, "kept": 2, "dropped": {"empty": 2}}
    said = "row 0 (counted from 0) lacks question or answer in pair"
    assert sorted(dropped(tmp_path / "out")) == [f"{said} 1", f"{said} 2"]


def test_nothing_left_leaves_the_reasons_behind(tmp_path):
    rows = [{"context": "w " * 400, "QA_list": [{"Q": "long?", "A": "a"}]}]
    with pytest.raises(InputError, match="holds them with the reasons"):
        cast(config(write(tmp_path / "a.jsonl", rows)), tmp_path / "out")
    (detail,) = dropped(tmp_path / "out")
    assert "are over 256" in detail
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_questions_with_answers_are_cast_and_files_are_datasets_of_their_own(tmp_path):
    one = [
        {"context": f"Box {i} is red.", "question": f"Which is box {i}?", "answers": {"text": ["red", "the"]}}
        for i in range(5)
    ]
    one[4]["answers"]["text"] = []
    other = [{"context": f"Tree {i} is old.", "question": "Which?", "answer": "old"} for i in range(5)]
    sources = write(tmp_path / "boxes.jsonl", one), write(tmp_path / "trees.jsonl", other)
    manifest = cast(CastConfig(sources=sources, against=("none",), length=256), tmp_path / "out")
    assert {name: own["texts"] for name, own in manifest["datasets"].items()} == {"boxes": 4, "trees": 5}
    assert manifest["pairs"] == {"in": 10, "kept": 9, "dropped": {"empty": 1}}
    assert dropped(tmp_path / "out") == ["its question has no answer"]
    for row in sequences(tmp_path / "out"):
        whole = row["prompt"] + row["completion"]
        assert ("Box" in whole) != ("Tree" in whole)


def test_an_item_of_an_evaluation_set_is_in_no_sequence(tmp_path):
    rows = made(size=10)
    item = rows[3]["context"] + " " + " ".join(WORDS)
    rows[3]["context"] = item
    test = write(tmp_path / "test.jsonl", [{"question": item}])
    manifest = cast(config(write(tmp_path / "a.jsonl", rows), against=(test,)), tmp_path / "out")
    assert manifest["pairs"]["dropped"] == {"contaminated": len(rows[3]["QA_list"])}
    assert not any(item in row["prompt"] + row["completion"] for row in sequences(tmp_path / "out"))


def test_the_order_of_the_rows_changes_nothing(tmp_path):
    rows = made(size=20)
    cast(config(write(tmp_path / "a.jsonl", rows)), tmp_path / "a")
    (tmp_path / "t").mkdir()
    cast(config(write(tmp_path / "t" / "a.jsonl", rows[::-1])), tmp_path / "b")
    assert (tmp_path / "a" / "sequences.parquet").read_bytes() == (
        tmp_path / "b" / "sequences.parquet"
    ).read_bytes()


texts = st.text(max_size=30)


@given(st.lists(st.builds(Shown, texts, st.lists(st.builds(Pair, texts, texts), max_size=3).map(tuple))))
@settings(max_examples=60)
def test_the_parts_are_the_whole(examples):
    parts = render_parts(examples)
    assert "".join(part for part, _ in parts) == render(examples)
    assert [part for part, learned in parts if learned] == [render_pairs(e.pairs) + "</s>" for e in examples]


def test_what_cannot_work_is_refused(tmp_path):
    source = write(tmp_path / "a.jsonl", made(size=3))
    with pytest.raises(UsageError, match="no source"):
        CastConfig()
    with pytest.raises(ConfigError, match="formats: wild"):
        config(source, formats=("wild",))
    choice = [{"context": "A box.", "question": "Which?", "answers": ["no", "yes"], "correct_answer_id": 1}]
    with pytest.raises(InputError, match="no row has a `context` and pairs"):
        cast(config(write(tmp_path / "choice.jsonl", choice)), tmp_path / "choice")
    with pytest.raises(InputError, match="no annotated text is left"):
        cast(config(source, length=4), tmp_path / "short")


def test_the_command_and_its_rows_train(tmp_path, capsys):
    from taskmill.cli import main
    from taskmill.recipes.train import _corpus
    from taskmill.train import synthesizer_rows

    source = write(tmp_path / "a.jsonl", made(size=10))
    with pytest.raises(SystemExit) as end:
        main(f"cast {source} --against none --length 256 --out {tmp_path / 'out'}".split())
    assert end.value.code == 0
    assert "squid" in capsys.readouterr().out
    rows = list(synthesizer_rows(_corpus([str(tmp_path / "out")])))
    assert len(rows) == len(sequences(tmp_path / "out"))
    for row in rows:
        assert row.special
        assert row.prompt.startswith("<s> <CON> ")
        assert all(row.completion[a:b].startswith("<s> <CON> ") for a, b in row.unlearned)
