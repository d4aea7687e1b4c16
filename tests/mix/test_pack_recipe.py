"""`taskmill pack`: from rows to packed sequences, nothing cut and nothing lost."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from byte_tokens import END, TEMPLATE, Bytes

from taskmill import cli
from taskmill.errors import ConfigError, InputError, UsageError
from taskmill.mix.packed import Shards
from taskmill.recipes.pack import PackConfig, pack_rows
from taskmill.store import write_parquet


@pytest.fixture
def tokenizer(monkeypatch):
    """The tokenizer that every reference means."""
    made = Bytes()
    monkeypatch.setattr("taskmill.backends.tokenizer.load_text_tokenizer", lambda ref: made)
    return made


def write(place, rows, name="rows.parquet"):
    write_parquet(place / name, pa.Table.from_pylist(rows))
    return str(place / name)


def packed(place, rows, out="out", **settings):
    source = rows if isinstance(rows, str) else write(place, rows)
    manifest = pack_rows(PackConfig(source=source, tokenizer="bytes", **settings), place / out)
    table = pq.read_table(place / out / "data") if (place / out / "data").is_dir() else None
    return manifest, table


def pairs(count, seed=0):
    random = np.random.default_rng(seed)
    return [
        {"id": f"{i:04}", "prompt": "p" * random.integers(1, 30), "completion": "a" * random.integers(1, 30)}
        for i in range(count)
    ]


def test_every_row_is_there_once_token_by_token(tmp_path, tokenizer):
    rows = pairs(200)
    manifest, table = packed(tmp_path, rows, length=128)
    expected = {
        row["id"]: tokenizer.one(row["prompt"] + "<end>" + row["completion"] + "<end>") for row in rows
    }
    found = {}
    for sequence in table.to_pylist():
        assert len(sequence["input_ids"]) <= 128
        at = 0
        for name, length in zip(sequence["row_ids"], sequence["seq_lengths"], strict=True):
            assert name not in found
            found[name] = sequence["input_ids"][at : at + length]
            at += length
        assert at == len(sequence["input_ids"])
    assert found == expected
    tokens = sum(map(len, expected.values()))
    assert manifest["tokens"] == tokens
    assert manifest["bins"] == len(table)
    assert manifest["fill"] == pytest.approx(tokens / (128 * len(table)), abs=1e-6)
    assert manifest["truncated"] == 0
    assert manifest["funnel"] == {"in": 200, "kept": 200, "dropped": {}}
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == manifest


def test_the_loss_is_on_responses_and_their_end(tmp_path, tokenizer):
    _, table = packed(tmp_path, [{"prompt": "xy", "completion": "aba"}], length=16)
    (sequence,) = table.to_pylist()
    assert sequence["input_ids"] == [122, 123, END, 0, 100, 0, END]
    assert sequence["labels"] == [-100, -100, -100, 0, 100, 0, END]
    assert sequence["loss_weights"] == [0, 0, 0, 1, 1, 1, 1]
    assert sequence["position_ids"] == list(range(7))


@pytest.mark.parametrize(("eos", "expected"), [("both", 7), ("response", 6), ("none", 5)])
def test_where_end_tokens_stand(tmp_path, tokenizer, eos, expected):
    manifest, _ = packed(tmp_path, [{"prompt": "xy", "completion": "aba"}], length=16, eos=eos)
    assert manifest["tokens"] == expected


def test_tokens_that_the_vocabulary_lacks_are_counted_by_task(tmp_path, tokenizer):
    tokenizer.special_tokens["unk_token"] = "a"  # as if every a were one
    rows = [
        {"id": "0", "task": "one", "prompt": "xy", "completion": "aba"},
        {"id": "1", "task": "two", "prompt": "xy", "completion": "bbb"},
        {"id": "2", "task": "one", "prompt": "xyz", "completion": "bbb"},
        {"id": "3", "task": "two", "prompt": "a" * 40, "completion": "b"},  # too long: does not count
    ]
    manifest, _ = packed(tmp_path, rows, length=16)
    assert manifest["unknown_tokens"] == {"one": round(2 / 15, 6)}
    assert any("13.333% of the tokens of one are unknown to bytes" in said for said in manifest["warnings"])
    tokenizer.special_tokens["unk_token"] = "<end>"  # the end token, which no text becomes
    manifest, _ = packed(tmp_path, rows, length=16)
    assert manifest["unknown_tokens"] == {}


def test_end_tokens_in_a_text_stay_text(tmp_path, tokenizer):
    _, table = packed(tmp_path, [{"prompt": "x<end>y", "completion": "b"}], length=64)
    (sequence,) = table.to_pylist()
    assert sequence["input_ids"].count(END) == 2


def test_a_tokenizer_that_begins_texts_begins_rows(tmp_path, tokenizer):
    tokenizer.begin = (END,)
    _, table = packed(tmp_path, [{"prompt": "xy", "completion": "b"}], length=64)
    (sequence,) = table.to_pylist()
    assert sequence["input_ids"] == [END, 122, 123, END, 100, END]


def test_plain_text_is_learned_but_for_its_first_token(tmp_path, tokenizer):
    _, table = packed(tmp_path, [{"text": "bcd"}], length=16)
    (sequence,) = table.to_pylist()
    assert sequence["labels"] == [-100, 101, 102, END]


def test_all_turns_of_a_chat_are_learned(tmp_path, tokenizer):
    tokenizer.chat_template = TEMPLATE
    turns = [("user", "hi"), ("assistant", "yo"), ("user", "more"), ("assistant", "no")]
    rows = [{"messages": [{"role": role, "content": text} for role, text in turns]}]
    manifest, table = packed(tmp_path, rows, length=256)
    (sequence,) = table.to_pylist()
    learned = bytes(t - 2 for t in sequence["labels"] if t not in (-100, 0)).decode()
    assert learned == "yo<|im_end|>no<|im_end|>"
    whole = bytes(ord("a") if t == 0 else t - 2 for t in sequence["input_ids"]).decode()
    assert whole.startswith("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyo")
    assert manifest["layout"] == "chat"


def test_speakers_of_sharegpt_are_those_of_chats(tmp_path, tokenizer):
    tokenizer.chat_template = TEMPLATE
    rows = [{"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yo"}]}]
    _, table = packed(tmp_path, rows, length=256)
    whole = bytes(ord("a") if t == 0 else t - 2 for t in table["input_ids"][0].as_py()).decode()
    assert "<|im_start|>assistant\nyo<|im_end|>" in whole


def test_long_rows_are_dropped_with_the_reason(tmp_path, tokenizer):
    long = {"id": "long", "prompt": "p" * 100, "completion": "b"}
    rows = [*pairs(20), long, {"id": "no", "prompt": "p", "completion": ""}]
    manifest, _ = packed(tmp_path, rows, length=64)
    assert manifest["funnel"] == {"in": 22, "kept": 20, "dropped": {"empty": 1, "over_length": 1}}
    dropped = pq.read_table(tmp_path / "out" / "dropped.parquet").to_pylist()
    assert [(d["id"], d["reason"], d["tokens"]) for d in dropped] == [
        ("long", "over_length", 103),
        ("no", "empty", 2),
    ]
    assert dropped[0]["detail"] == "103 tokens, over 64"
    assert manifest["truncated"] == 0


def test_or_split_by_the_rule(tmp_path, tokenizer):
    rows = [{"id": "long", "prompt": "p" * 10, "completion": "b" * 88}, *pairs(5)]
    manifest, table = packed(tmp_path, rows, length=32, long="split")
    assert manifest["funnel"]["dropped"] == {}
    pieces = [
        (sequence["input_ids"], length, at)
        for sequence in table.to_pylist()
        for at, (name, length) in enumerate(zip(sequence["row_ids"], sequence["seq_lengths"], strict=True))
        if name == "long"
    ]
    assert sorted(length for _, length, _ in pieces) == [4, 32, 32, 32]
    record = pq.read_table(tmp_path / "out" / "rows.parquet")
    assert record["id"].to_pylist().count("long") == 4
    assert manifest["pieces"] == len(record) >= 9
    assert pa.compute.sum(record["tokens"]).as_py() == manifest["tokens"]


def test_rows_of_tokens_are_packed_as_they_are(tmp_path):
    rows = [
        {"id": "a", "input_ids": [0, 0, 0], "labels": [-100, 0, 0]},
        {"id": "b", "input_ids": [70000, 0], "labels": [-100, -100]},
        {"id": "c", "input_ids": [5, 0, 7, 0], "labels": [5, -100, 7, 0]},
    ]
    manifest = pack_rows(PackConfig(source=write(tmp_path, rows), length=8), tmp_path / "out")
    (sequence,) = pq.read_table(tmp_path / "out" / "data").to_pylist()
    found = dict(zip(sequence["row_ids"], sequence["seq_lengths"], strict=True))
    assert found == {"a": 3, "c": 4}
    assert sum(label != -100 for label in sequence["labels"]) == 4
    assert manifest["funnel"]["dropped"] == {"empty": 1}
    assert sorted(Shards(tmp_path / "out" / "shards")[0]["input_ids"]) == [0, 0, 0, 0, 0, 5, 7]
    wrong = [{"input_ids": [1, 2], "labels": [1]}]
    with pytest.raises(InputError, match="row '0': labels and input_ids differ"):
        pack_rows(PackConfig(source=write(tmp_path, wrong, "w.parquet"), length=8), tmp_path / "w")
    wrong = write(tmp_path, [{"input_ids": [-1, 2]}], "n.parquet")
    with pytest.raises(InputError, match="a token is a number of 0 or more"):
        pack_rows(PackConfig(source=wrong, length=8), tmp_path / "n")


def test_shards_and_tables_say_the_same(tmp_path, tokenizer):
    _, table = packed(tmp_path, pairs(60), length=64, loss="rows")
    shards = Shards(tmp_path / "out" / "shards")
    assert len(shards) == len(table)
    for i, sequence in enumerate(table.to_pylist()):
        for name, values in shards[i].items():
            assert values.tolist() == sequence[name]
    assert shards.about["tokenizer"] == "bytes"
    names = pq.read_table(tmp_path / "out" / "rows.parquet")["id"]
    assert [names[int(r)].as_py() for r in shards.rows[:3]] == table["row_ids"][0].as_py()[:3] + (
        table["row_ids"][1].as_py()[: max(0, 3 - len(table["row_ids"][0]))]
    )


def test_only_what_is_wanted_is_written(tmp_path, tokenizer):
    packed(tmp_path, pairs(5), length=64, write=("shards",))
    assert not (tmp_path / "out" / "data").exists()
    packed(tmp_path, pairs(5), length=64, write=("parquet",))
    assert not (tmp_path / "out" / "shards").exists()


def test_equal_rows_in_any_order_give_equal_bytes(tmp_path, tokenizer):
    rows = pairs(80)
    packed(tmp_path, write(tmp_path, rows, "x.parquet"), "one", length=64)
    packed(tmp_path, write(tmp_path, rows[::-1], "y.parquet"), "two", length=64)
    packed(tmp_path, write(tmp_path, rows, "z.parquet"), "other", length=64, seed=1)

    def files(out):
        return {
            str(p.relative_to(tmp_path / out)): p.read_bytes() for p in sorted((tmp_path / out).rglob("*.*"))
        }

    assert files("one") == files("two")
    assert files("one")["shards/tokens.npy"] != files("other")["shards/tokens.npy"]


def test_chunks_change_nothing(tmp_path, tokenizer, monkeypatch):
    packed(tmp_path, pairs(50), "one", length=64)
    monkeypatch.setattr("taskmill.recipes.token_rows.CHUNK", 7)
    packed(tmp_path, pairs(50), "two", length=64)
    name = "data/train-00000.parquet"
    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"length": 1}, UsageError, "2 tokens or more"),
        ({"write": ("arrow",)}, UsageError, "parquet, shards or both, not arrow"),
        ({"layout": "chat", "length": 64}, ConfigError, "bytes has no chat template"),
        (
            {"length": 2},
            InputError,
            r"no row can be packed \(3 over_length\); take a --length over 2, or --long",
        ),
    ],
)
def test_what_cannot_be_packed_is_said(tmp_path, tokenizer, settings, error, said):
    with pytest.raises(error, match=said):
        packed(tmp_path, pairs(3), **settings)


def test_why_no_row_is_packed_is_said(tmp_path, tokenizer):
    rows = [{"prompt": "p", "completion": ""}, {"prompt": "p", "completion": None}]
    with pytest.raises(InputError, match=r"no row can be packed \(2 empty\); give rows with text to learn"):
        packed(tmp_path, rows, length=64)
    with pytest.raises(InputError, match=r"\(2 empty, 1 over_length\); take a --length over 8"):
        packed(tmp_path, [*rows, {"prompt": "q", "completion": "b" * 20}], length=8)


@pytest.mark.parametrize("columns", [("id", "prompt", "completion"), ("id", "text"), ("input_ids",), ()])
def test_a_table_without_rows_says_so(tmp_path, tokenizer, columns):
    kinds = {"input_ids": pa.list_(pa.int64())}
    empty = pa.table({name: pa.array([], kinds.get(name, pa.string())) for name in columns})
    pq.write_table(empty, tmp_path / "empty.parquet")
    with pytest.raises(InputError, match=r"empty\.parquet: there are no rows; name another table"):
        packed(tmp_path, str(tmp_path / "empty.parquet"), length=64)


def test_rows_in_no_layout_hear_of_those_there_are(tmp_path, tokenizer):
    with pytest.raises(
        InputError, match=r"no known layout in the columns id, body.*Known: .*prompt, response;"
    ):
        packed(tmp_path, [{"body": "b"}], length=64)


def test_a_prompt_and_a_response_are_a_layout(tmp_path, tokenizer):
    _, table = packed(tmp_path, [{"prompt": "xy", "response": "aba"}], length=16)
    (sequence,) = table.to_pylist()
    assert sequence["labels"] == [-100, -100, -100, 0, 100, 0, END]


@pytest.mark.parametrize(
    "turns",
    [
        [],
        None,
        [{"role": "user", "content": "hi"}],
        [{"role": "user", "content": "hi"}, {"role": "assistant", "content": " "}],
    ],
)
def test_a_chat_in_which_nobody_answers_is_dropped(tmp_path, tokenizer, turns):
    tokenizer.chat_template = TEMPLATE
    whole = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
    rows = [{"id": "a", "messages": whole}, {"id": "b", "messages": turns}]
    manifest, table = packed(tmp_path, rows, length=256)
    assert manifest["funnel"] == {"in": 2, "kept": 1, "dropped": {"empty": 1}}
    assert table["row_ids"].to_pylist() == [["a"]]


def test_texts_that_are_not_packed_are_named(tmp_path, tokenizer):
    plain = {"id": "0", "prompt": "p", "completion": "b", "task": "t", "score": 1}
    manifest, _ = packed(tmp_path, [{**plain, "rationale": None}, {**plain, "id": "1", "rationale": "since"}])
    assert manifest["unused_columns"] == ["rationale"]
    assert manifest["warnings"] == ["not packed: the text of rationale"]
    manifest, _ = packed(tmp_path, [{**plain, "rationale": ""}])
    assert manifest["unused_columns"] == manifest["warnings"] == []
    manifest, _ = packed(tmp_path, [{"text": "bcd", "title": "e"}])
    assert manifest["unused_columns"] == ["title"]


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("input_ids", [1.5, 2.0]),
        ("input_ids", [1, None]),
        ("input_ids", None),
        ("input_ids", ["x", "y"]),
        ("input_ids", [1e30, 2.0]),
        ("labels", [1, None]),
        ("labels", None),
        ("labels", [0.5, 1]),
    ],
)
def test_a_row_of_odd_tokens_is_named(tmp_path, name, cell):
    columns = {"id": ["b", "a"], "input_ids": [[1, 2], [1, 2]], "labels": [[1, 2], [1, 2]]}
    columns[name] = [cell, []]  # the other row is fine, whatever the type
    write_parquet(tmp_path / "odd.parquet", pa.table(columns))
    with pytest.raises(InputError, match=f"row 'b': {name} must be a list of whole numbers, not "):
        pack_rows(PackConfig(source=str(tmp_path / "odd.parquet"), length=8), tmp_path / "out")


def test_a_tokenizer_is_asked_for(tmp_path):
    with pytest.raises(UsageError, match="--tokenizer is missing"):
        pack_rows(PackConfig(source=write(tmp_path, pairs(3))), tmp_path / "out")


def test_a_mixture_is_packed_with_the_share_of_each_task(tmp_path, tokenizer, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, pairs(30), "a.parquet")
    write(tmp_path, pairs(90, 1), "b.parquet")
    (tmp_path / "mixture.yaml").write_text("sources: {a: {path: a.parquet}, b: {path: b.parquet}}")
    for argv in (
        ["mix", "mixture.yaml", "--out", "mixed"],
        ["pack", "mixed", "--length", "128", "--tokenizer", "bytes", "--out", "packed", "--json"],
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main(argv)
        assert ended.value.code == 0
    manifest = json.loads(capsys.readouterr().out.partition("→ mixed\n")[2])
    assert {name: task["rows"] for name, task in manifest["tasks"].items()} == {"a": 30, "b": 90}
    assert sum(task["token_share"] for task in manifest["tasks"].values()) == pytest.approx(1, abs=1e-5)


def test_datasets_open_it(tmp_path, tokenizer):
    datasets = pytest.importorskip("datasets")
    manifest, _ = packed(tmp_path, pairs(40), length=64)
    loaded = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(loaded) == manifest["bins"]
    assert loaded.column_names[0] == "input_ids"
