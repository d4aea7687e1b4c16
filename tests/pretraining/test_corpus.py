"""The whole road, offline: texts → chains → corpus and shards, with every text and token accounted for."""

import json
import random

import pyarrow.parquet as pq
import pytest
from word_tokenizer import count

from taskmill.backends import GENERATORS, ModelConfig, echo
from taskmill.budget import BudgetConfig
from taskmill.calls import Completion
from taskmill.errors import ConfigError, InputError, UsageError
from taskmill.mix.packed import Shards
from taskmill.recipes.corpus import CorpusConfig, _format, _style, corpus
from taskmill.recipes.corpus.rows import KINDS

SUBJECTS = ["baker", "sailor", "farmer", "teacher", "painter", "doctor", "driver", "gardener"]
PLACES = ["harbour", "market", "valley", "village", "forest", "castle", "station", "museum"]
THINGS = ["lantern", "basket", "letter", "hammer", "mirror", "ladder", "candle", "bottle"]


COLOURS = ["red", "green", "blue", "white", "black", "brown", "yellow"]


def text(i):
    r = random.Random(i)
    subject, place, thing = r.choice(SUBJECTS), r.choice(PLACES), r.choice(THINGS)
    return (
        f"Number {i}: the old {subject} lived near the {place} for {i + 3} long years. "
        f"One morning the {subject} found a broken {thing} under the bridge of the {place}. "
        f"Nobody in the {place} could tell to whom the {thing} had belonged before that winter. "
        f"It was {' and '.join(COLOURS[: i % 7 + 1])}."
    )


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def source(tmp_path):
    return write(tmp_path / "texts.jsonl", [{"text": text(i)} for i in range(40)])


def config(*sources, ref="echo:", **values):
    values = {"against": ("none",), "length": 512, "model": ModelConfig(ref=ref), **values}
    return CorpusConfig(sources=sources, **values)


def rows(out):
    return [
        row for path in sorted((out / "data").glob("*.parquet")) for row in pq.read_table(path).to_pylist()
    ]


def data(out):
    return {p.name: p.read_bytes() for folder in ("data", "shards") for p in sorted((out / folder).iterdir())}


def test_every_text_and_token_is_accounted_for(source, tmp_path):
    manifest = corpus(config(source, rounds=3), tmp_path / "out")
    found = rows(tmp_path / "out")
    assert manifest["exit"] == {"code": 0, "reason": "done"}
    assert manifest["documents"]["in"] == 40
    assert (manifest["documents"]["augmented"], manifest["documents"]["raw"]) == (8, 32)
    assert manifest["documents"]["lost"] == 0
    names = [name for row in found for name in row["documents"]]
    assert len(names) == len(set(names)) == 40
    assert manifest["tokens"] == {k: sum(count(r["text"]) for r in found if r["kind"] == k) for k in KINDS}
    chains = [row for row in found if row["kind"] == "augmented"]
    assert sorted(len(row["documents"]) for row in chains) == [2, 3, 3]
    assert (
        manifest["pairs"]
        == sum(row["pairs"] for row in chains)
        == sum(len(row["examples"]) for row in chains)
    )
    assert manifest["pairs_per_text"] == manifest["pairs"] / 8
    assert manifest["tokens_per_pair"] > 5
    whole = {text(i) for i in range(40)}
    assert {row["text"] for row in found if row["kind"] == "raw"} <= whole
    assert all(sum(t in row["text"] for t in whole) == len(row["documents"]) for row in chains)


def test_shards_hold_each_row_once_with_its_end(source, tmp_path):
    corpus(config(source), tmp_path / "out")
    shards, found = Shards(tmp_path / "out" / "shards"), rows(tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["shards"]["truncated"] == 0
    assert len(shards.tokens) == sum(manifest["tokens"].values()) + len(found)
    assert int((shards.tokens == 0).sum()) == len(found)  # one end token a row
    assert all(len(shards[i]["input_ids"]) <= 512 for i in range(len(shards)))
    table = pq.read_table(tmp_path / "out" / "shards" / "train-00000.parquet")
    assert sorted(n for ids in table["row_ids"].to_pylist() for n in ids) == sorted(r["id"] for r in found)


def test_earlier_texts_of_a_chain_are_shown_with_their_pairs(source, tmp_path, monkeypatch):
    prompts = []
    answer = echo.Echo.generate

    def seen(self, requests):
        for request in requests:
            prompts.append(request)
            yield from answer(self, [request])

    monkeypatch.setattr(echo.Echo, "generate", seen)
    corpus(config(source, rounds=4, augment=1.0), tmp_path / "out")
    assert len(prompts) == 40
    shown = [request.prompt.count("<s> <CON>") - 1 for request in prompts]
    assert (
        sorted(shown)
        == sorted([request.payload.round for request in prompts])
        == [0, 1, 2, 3] * 0 + sorted(n for n in range(4) for _ in range(10))
    )
    for request in prompts:
        assert len(request.payload.shown) == request.payload.round
        assert request.prompt.endswith(f"<s> <CON> {request.payload.document.text} </CON>\n\n")
        assert request.prompt.count("</END>") == 3 * request.payload.round
        assert request.sampling.temperature == 0


def test_a_context_too_short_for_the_history_drops_the_oldest(source, tmp_path, monkeypatch):
    longest = []
    answer = echo.Echo.generate

    def seen(self, requests):
        for request in requests:
            longest.append(count(request.prompt))
            yield from answer(self, [request])

    monkeypatch.setattr(echo.Echo, "generate", seen)
    manifest = corpus(config(source, rounds=4, augment=1.0, context=650), tmp_path / "out")
    assert manifest["documents"]["augmented"] == 40
    assert max(longest) <= 250
    assert max(longest) > 130  # with some history


def test_texts_longer_than_the_context_stay_raw(source, tmp_path):
    long = write(tmp_path / "long.jsonl", [{"text": " ".join(text(i) for i in range(50, 56))}])
    manifest = corpus(config(source, long, augment=1.0, context=550), tmp_path / "out")
    assert manifest["dropped"] == {"over_context": 1}
    assert (manifest["documents"]["augmented"], manifest["documents"]["raw"]) == (40, 1)


@pytest.mark.parametrize(("texts", "rounds"), [(1, 5), (3, 5), (4, 3), (7, 3)])
def test_any_number_of_texts_in_any_number_of_rounds(texts, rounds, tmp_path):
    source = write(tmp_path / "t.jsonl", [{"text": text(i)} for i in range(texts)])
    manifest = corpus(config(source, rounds=rounds, augment=1.0, length=2048), tmp_path / "out")
    assert manifest["documents"]["augmented"] == texts
    assert max(map(int, manifest["chains"])) <= rounds


def test_no_input_order_changes_a_byte(tmp_path):
    own = [{"text": text(i)} for i in range(30)]
    one = write(tmp_path / "a.jsonl", own)
    corpus(config(one), tmp_path / "a")
    corpus(config(write(tmp_path / "b.jsonl", own[::-1])), tmp_path / "b")
    assert data(tmp_path / "a") == data(tmp_path / "b")
    corpus(config(one, seed=1), tmp_path / "c")
    assert data(tmp_path / "a") != data(tmp_path / "c")


def test_the_same_command_again_makes_nothing_again(source, tmp_path):
    first = corpus(config(source), tmp_path / "out")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.parquet")}
    again = corpus(config(source), tmp_path / "out")
    assert again["calls"]["made"] == 0
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.parquet")} == before
    same = ("documents", "tokens", "pairs", "dropped", "shards", "categories")
    assert {k: again[k] for k in same} == {k: first[k] for k in same}


GENERAL = [
    {"instruction": f"Count to {i}, please.", "output": "one, two, three " * (i % 4 + 1)} for i in range(25)
]
TUNING = [
    {"context": f"Box {i} is red.", "QA_list": [{"Q": f"What is box {i}?", "A": "red"}], "rc_name": "boxes"}
    for i in range(5)
]


def test_tuning_data_is_repeated_and_general_data_is_as_much_as_all_else(source, tmp_path):
    general, tuning = write(tmp_path / "g.jsonl", GENERAL), write(tmp_path / "t.jsonl", TUNING)
    own = config(source, general=(general,), tuning=(tuning,), tuning_repeat=4)
    manifest = corpus(own, tmp_path / "out")
    tokens, found = manifest["tokens"], rows(tmp_path / "out")
    assert abs(tokens["general"] / (sum(tokens.values()) - tokens["general"]) - 1) < 0.005
    assert manifest["general"]["epochs"] > 1
    assert manifest["general"]["distinct"] == 25
    said = [row["text"] for row in found if row["kind"] == "tuning"]
    assert all(sum(f"Box {i} is red." in t for t in said) == 4 for i in range(5))
    assert len({row["id"] for row in found}) == len(found)
    assert {row["text"] for row in found if row["kind"] == "general"} <= {
        f"{row['instruction']} {row['output']}".strip() for row in GENERAL
    }


def test_a_run_folder_of_examples_is_tuning_data(source, tmp_path):
    corpus(config(source, augment=1.0), tmp_path / "first")
    other = write(tmp_path / "other.jsonl", [{"text": text(i)} for i in range(100, 110)])
    own = config(other, tuning=(str(tmp_path / "first"),), tuning_repeat=2)
    manifest = corpus(own, tmp_path / "out")
    said = [row for row in rows(tmp_path / "out") if row["kind"] == "tuning"]
    assert all(sum(text(i) in row["text"] for row in said) == 2 for i in range(40))
    assert manifest["documents"]["in"] == 10


def test_a_number_of_tokens_is_met(source, tmp_path):
    general = write(tmp_path / "g.jsonl", GENERAL)
    manifest = corpus(config(source, general=(general,), general_ratio="1:2", tokens=1500), tmp_path / "out")
    assert abs(sum(manifest["tokens"].values()) - 1500) <= 7
    assert abs(manifest["tokens"]["general"] - 500) <= 3
    documents = manifest["documents"]
    assert documents["lost"] == 0
    assert documents["over_target"] == manifest["dropped"]["over_target"] > 10
    left = pq.read_table(tmp_path / "out" / "5-corpus" / "left_out")
    assert left.num_rows == documents["over_target"]
    assert manifest["calls"]["made"] <= 4  # nothing is paid for texts that are not needed


def test_tuning_data_over_the_number_of_tokens_is_a_closed_gate(source, tmp_path):
    tuning = write(tmp_path / "t.jsonl", TUNING)
    made = corpus(config(source, tuning=(tuning,), tuning_repeat=9, tokens=60), tmp_path / "out")
    assert made["tokens"]["tuning"] > 60
    assert made["exit"]["code"] == 3
    assert "of 60 tokens, which leaves no room for texts; lower --tuning-repeat" in made["exit"]["reason"]


def test_beside_much_tuning_data_the_texts_that_fit_still_get_pairs(source, tmp_path):
    tuning = write(tmp_path / "t.jsonl", TUNING)
    alone = corpus(config(source, tuning=(tuning,), tuning_repeat=50, augment=0.0), tmp_path / "alone")
    taken = alone["tokens"]["tuning"]
    own = config(source, tuning=(tuning,), tuning_repeat=50, augment=0.5, tokens=taken + 800)
    made = corpus(own, tmp_path / "out")
    assert made["tokens"]["tuning"] == taken > 2000
    assert abs(sum(made["tokens"].values()) - taken - 800) <= 4
    assert 0.3 <= made["augmented_share"] <= 0.7


def test_more_tokens_than_there_are_is_a_closed_gate(source, tmp_path):
    manifest = corpus(config(source, tokens=10**6), tmp_path / "out")
    assert manifest["exit"]["code"] == 3
    assert "of 1,000,000 tokens" in manifest["exit"]["reason"]
    assert "over_target" not in manifest["dropped"]
    assert manifest["documents"]["augmented"] == 8
    assert manifest["documents"]["raw"] == 32


class Faulty(echo.Echo):
    """Fails for texts with one word, and writes nothing, or half a pair, for those with others."""

    failing = "harbour"

    def generate(self, requests):
        for request in requests:
            words = request.payload.document.text
            if self.failing and self.failing in words:
                yield Completion(request.key, finish="error", error="no answer")
            elif "market" in words:
                yield Completion(request.key, "", "stop", 1, 0)
            elif "valley" in words:
                yield Completion(request.key, "<QUE> What is <ANS> cut", "length", 1, 5)
            else:
                yield from super().generate([request])


class Silent(echo.Echo):
    def generate(self, requests):
        for request in requests:
            yield Completion(request.key, "", "stop", 1, 0)


@pytest.fixture
def faulty():
    if "faulty" not in GENERATORS.names():
        GENERATORS.register("faulty", lambda name, revision, config: Faulty(name))
    Faulty.failing = "harbour"
    return "faulty:x"


def test_texts_without_pairs_stay_raw_and_failures_stay_apart(source, faulty, tmp_path):
    own = config(source, ref=faulty, augment=1.0, rounds=3, format="pairs")
    manifest = corpus(own, tmp_path / "out")
    of = {place: sum(place in text(i) for i in range(40)) for place in PLACES}
    none = of["harbour"] + of["market"] + of["valley"]
    assert manifest["exit"]["code"] == 3
    assert manifest["documents"]["raw"] == none > 2
    assert manifest["documents"]["augmented"] == 40 - none
    assert manifest["dropped"] == {
        "call_failed": of["harbour"], "empty_reply": of["market"], "truncated": of["valley"],
    }  # fmt: skip
    assert all(row["text"].strip() and row["documents"] for row in rows(tmp_path / "out"))
    Faulty.failing = ""
    again = corpus(own, tmp_path / "out")
    assert again["exit"]["code"] == 0
    assert again["documents"]["augmented"] == 40 - of["market"] - of["valley"]
    # The failed ones, and those behind them in a chain: their prompts now show more.
    assert of["harbour"] <= again["calls"]["made"] <= 3 * of["harbour"]


def test_other_texts_take_the_place_of_those_without_pairs(source, faulty, tmp_path):
    Faulty.failing = ""
    manifest = corpus(config(source, ref=faulty, augment=0.5, format="pairs"), tmp_path / "out")
    assert manifest["documents"]["augmented"] == 20
    assert manifest["texts"]["asked"] > 20


def test_a_budget_stops_and_the_same_command_goes_on(source, tmp_path):
    small = config(source, augment=1.0, rounds=3, budget=BudgetConfig(max_calls=7))
    manifest = corpus(small, tmp_path / "out")
    assert manifest["exit"]["code"] == 3
    assert manifest["calls"]["total"] == 7
    assert manifest["documents"]["lost"] == 0
    whole = corpus(config(source, augment=1.0, rounds=3), tmp_path / "out")
    assert whole["exit"]["code"] == 0
    assert whole["calls"]["total"] == 40
    corpus(config(source, augment=1.0, rounds=3), tmp_path / "other")
    assert data(tmp_path / "out") == data(tmp_path / "other")


@pytest.mark.parametrize("calls", [1, 4, 9])
def test_a_budget_stops_between_the_stages_of_a_reply(source, calls, tmp_path):
    """Two calls a reply: what waits for its second one, and what was not posed, is in no count."""
    values = {"format": "tasks", "task": ("exqa",), "pairs": 2, "augment": 0.3}
    values["model"] = ModelConfig(ref="echo:", protocol="bonito-attributes")
    manifest = corpus(config(source, **values, budget=BudgetConfig(max_calls=calls)), tmp_path / "out")
    assert manifest["exit"]["code"] == 3
    assert manifest["calls"]["total"] == calls
    whole = corpus(config(source, **values), tmp_path / "out")
    assert whole["exit"]["code"] == 0
    assert whole["calls"]["reused"] >= calls


def test_a_model_that_writes_nothing_gives_a_raw_corpus_and_a_closed_gate(source, tmp_path):
    if "silent" not in GENERATORS.names():
        GENERATORS.register("silent", lambda name, revision, config: Silent(name))
    manifest = corpus(config(source, ref="silent:", format="pairs"), tmp_path / "out")
    assert manifest["exit"] == {
        "code": 3,
        "reason": "no text has got a pair, see the reasons in the dropped parts",
    }
    assert manifest["documents"]["raw"] == len(rows(tmp_path / "out")) == 40
    assert manifest["dropped"] == {"empty_reply": 8}  # one wave: where all fail, no more are asked


def test_task_types_are_asked_in_turns(source, tmp_path):
    manifest = corpus(config(source, format="tasks", pairs=4), tmp_path / "out")
    assert manifest["texts"]["asked"] == 8
    assert manifest["calls"]["made"] >= 8 * 3
    chains = [row for row in rows(tmp_path / "out") if row["kind"] == "augmented"]
    assert sum(len(row["documents"]) for row in chains) == manifest["documents"]["augmented"] == 8
    assert {c.partition(":")[0] for c in manifest["categories"]} >= {"exqa", "mcqa"}


def test_an_item_of_an_evaluation_set_is_in_no_row(source, tmp_path):
    test = write(
        tmp_path / "test.jsonl", [{"question": text(5)}, {"question": GENERAL[3]["instruction"] * 6}]
    )
    manifest = corpus(config(source, against=(test,), augment=1.0), tmp_path / "out")
    assert manifest["documents"]["contaminated"] == 1
    assert manifest["dropped"] == {"contaminated": 1}
    assert manifest["contaminated"] == {"texts": {"test": 1}, "pairs": {}}
    assert manifest["documents"]["augmented"] == 39
    assert not any(text(5) in row["text"] for row in rows(tmp_path / "out"))


LEAK = "Which of the seven lighthouses of that winter did the captain see first from the bridge?"


def test_a_pair_that_is_an_item_of_an_evaluation_set_is_dropped(source, tmp_path):
    class Leaking(echo.Echo):
        def generate(self, requests):
            for request in requests:
                number = request.payload.document.text.split(":")[0]
                own = f"<QUE> How long did they live near {number}? <ANS> for long years </END>"
                leak = f"<QUE> {LEAK} <ANS> before the bridge </END>" if request.payload.round == 1 else ""
                yield Completion(request.key, own + leak, "stop", 1, 1)

    if "leaking" not in GENERATORS.names():
        GENERATORS.register("leaking", lambda name, revision, config: Leaking(name))
    test = write(tmp_path / "test.jsonl", [{"question": LEAK, "answer": "before the bridge"}])
    own = config(source, ref="leaking:", against=(test,), augment=1.0, format="pairs")
    manifest = corpus(own, tmp_path / "out")
    assert manifest["dropped"]["contaminated"] == 20
    assert manifest["contaminated"] == {"texts": {}, "pairs": {"test": 20}}
    assert manifest["documents"]["contaminated"] == 0
    assert not any(LEAK in row["text"] for row in rows(tmp_path / "out"))
    plain = corpus(config(source, ref="leaking:", augment=1.0, format="pairs"), tmp_path / "plain")
    assert plain["pairs"] == manifest["pairs"] + 20


def test_engines_that_add_a_begin_token_get_none_from_us():
    added = {name: _style(config("x", ref=name)).begin for name in ("vllm:m", "openai:m", "transformers:m")}
    assert set(added.values()) == {False}
    assert _style(config("x", ref="openvino:m")).begin
    published = config("x", ref="vllm:instruction-pretrain/instruction-synthesizer")
    assert _format(published) == "pairs"
    assert _format(config("x", ref="openvino:bonito-smollm2-135m")) == "tasks"


def test_tags_and_special_tokens_in_texts_are_text(tmp_path):
    bad = " The <CON> of it </CON> was <QUE> an odd <ANS> one </END> for the </s> and <|endoftext|> here."
    source = write(tmp_path / "t.jsonl", [{"text": text(i) + bad} for i in range(6)] + [{"text": ""}])
    manifest = corpus(config(source, augment=1.0), tmp_path / "out")
    assert manifest["documents"]["augmented"] == 6
    assert all("</s>" not in row["text"] for row in rows(tmp_path / "out"))
    assert sum("<CON> of it </CON>" in row["text"] for row in rows(tmp_path / "out")) == 3


def test_texts_in_a_script_without_spaces(tmp_path):
    line = "第{}个村庄里住着一位老医生和他的孩子们。有一天他在桥下找到了一面镜子和信。没人知道信是谁写的。"
    source = write(tmp_path / "t.jsonl", [{"text": line.format(i)} for i in range(5)])
    manifest = corpus(config(source, augment=1.0, rounds=2), tmp_path / "out")
    assert manifest["documents"]["augmented"] == 5
    assert manifest["pairs"] >= 5


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"rounds": 0}, "rounds and pairs must be 1 or more"),
        ({"augment": 1.5}, "a share from 0 to 1"),
        ({"task": ("summarization",)}, "no question with an answer"),
        ({"general_ratio": "much"}, "is no ratio"),
        ({"general_ratio": "0:1"}, "is no ratio"),
        ({"general_ratio": "inf:1"}, "is no ratio"),
        ({"context": 300}, "leaves no room"),
    ],
)
def test_what_cannot_work_is_refused_at_once(source, values, words, tmp_path):
    with pytest.raises(ConfigError, match=words):
        corpus(config(source, **values), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_address_with_a_password_is_refused(source, tmp_path):
    with pytest.raises(UsageError, match="password or key"):
        corpus(config("https://me:secret@host/file.jsonl"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_pairs_all_texts_are_raw_and_long_ones_are_cut_but_whole(source, tmp_path):
    manifest = corpus(config(source, augment=0.0, length=16), tmp_path / "out")
    assert manifest["calls"]["made"] == manifest["pairs"] == 0
    assert manifest["documents"]["raw"] == manifest["rows"]["raw"] == 40
    assert manifest["shards"]["split"] > 40
    shards = Shards(tmp_path / "out" / "shards")
    assert len(shards.tokens) == manifest["tokens"]["raw"] + 40


def test_files_without_what_is_needed_are_named(source, tmp_path):
    with pytest.raises(UsageError, match="no source"):
        corpus(config(), tmp_path / "none")
    with pytest.raises(InputError, match="QA_list"):
        corpus(config(source, tuning=(source,)), tmp_path / "out")


def test_the_command_prints_what_there_is(source, tmp_path, capsys):
    from taskmill.cli import main

    words = f"corpus {source} --model echo: --against none --rounds 3 --augment 0.2 --length 512"
    words += " --tokenizer x --seed 1"
    with pytest.raises(SystemExit) as end:
        main([*words.split(), "--out", str(tmp_path / "out")])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert "40 texts: 8 with pairs, 32 raw" in shown
    with pytest.raises(SystemExit) as end:
        main([*words.split(), "--tokens", "999999", "--out", str(tmp_path / "more"), "--json"])
    assert end.value.code == 3
    printed = capsys.readouterr()
    assert json.loads(printed.out)["documents"]["lost"] == 0
    assert "add sources or lower --tokens" in printed.err
