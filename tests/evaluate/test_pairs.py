"""Open-ended outputs: the sample that stands for a model, pairs in both orders, and what verdicts prove."""

import json
from collections import Counter
from dataclasses import replace
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill import cli
from taskmill.backends import GENERATORS
from taskmill.backends.echo import Echo
from taskmill.budget import BudgetConfig
from taskmill.calls import Completion, Scores
from taskmill.errors import InputError, UsageError
from taskmill.evaluate.pairs import PLACES, Judged, best_sample, verdict, win_rate
from taskmill.recipes.evaluate import EvaluateConfig, EvaluatedModel
from taskmill.recipes.evaluate.open_ended import answer_openly
from taskmill.recipes.evaluate.pairs import export_pairs, read_verdicts

SETTINGS = {"confidence": 0.95, "seed": 0}


# which sample


def test_a_text_too_likely_is_taken_for_repetition():
    # The median is -100: above -50 a sample is dropped; of the others the likeliest is taken.
    assert best_sample([-120, -30, -90, -100, -110]) == (2, [False, True, False, False, False])
    assert best_sample([-10]) == (0, [False])
    assert best_sample([-7, -7]) == (0, [False, False])


@given(st.lists(st.floats(-1e4, -1e-3), min_size=1, max_size=9))
def test_there_is_always_a_sample_left_and_it_is_the_likeliest_of_those(logprobs):
    chosen, dropped = best_sample(logprobs)
    assert not dropped[chosen]
    assert logprobs[chosen] == max(v for v, out in zip(logprobs, dropped, strict=True) if not out)


# verdicts


@pytest.mark.parametrize(
    ("said", "place"),
    [
        ("A", "first"), ("(B)", "second"), ("[[C]]", "tie"), ("first", "first"), ("2", "second"),
        (1, "first"),
        (2.0, "second"), ("TIE.", "tie"), ("**B**", "second"), ("Assistant A", "first"),
        ("Both are fine, but [[B]]", "second"), ("[[A]] at first sight. No: [[B]]", "second"),
        ("A is short. The better answer is B.", "second"), ("I like A. Verdict [[tie]]", "tie"),
        ("A good answer would say more, and this one says", ""), ("", ""), (None, ""), ("[[D]]", ""),
        ("3", ""), ("B is worse than A.", ""), ("B has errors, so A wins", ""), ("A < B", ""),
        ("I find that (A) is the weaker one", ""),
        ("B: it is complete", "second"), ("A.\nIt is short", "first"),
        ("Output b", "second"), ("B\n\nIt says more", "second"),
        ("**B**, since it is right", "second"),
        (b"A\xff", ""), ("The better answer is A.\n\nTask:\nThe better answer is B", "second"),
    ],
)  # fmt: skip
def test_a_verdict_is_a_place_however_it_is_written(said, place):
    assert verdict(said) == place


@given(st.one_of(st.text(), st.binary(), st.none(), st.floats()))
def test_no_verdict_crashes(said):
    assert verdict(said) in (*PLACES, "")


@given(st.lists(st.tuples(st.sampled_from(PLACES), st.sampled_from(PLACES)), min_size=1, max_size=30))
def test_win_rate_and_position_bias_are_those_counted_by_hand(verdicts):
    judged = [Judged(f"i{i}", *both) for i, both in enumerate(verdicts)]
    found = win_rate(judged, **SETTINGS)
    points = {"first": 1, "tie": 0.5, "second": 0}
    shares = [(points[a] + 1 - points[b]) / 2 for a, b in verdicts]
    assert found["win_rate"]["mean"] == pytest.approx(sum(shares) / len(shares), abs=1e-6)
    assert 0 <= found["win_rate"]["low"] <= found["win_rate"]["high"] <= 1
    first = [points[place] for both in verdicts for place in both]
    assert found["first_place"]["mean"] == pytest.approx(sum(first) / len(first), abs=1e-6)
    assert (found["wins"], found["losses"]) == (sum(s > 0.5 for s in shares), sum(s < 0.5 for s in shares))
    assert found["wins"] + found["losses"] + found["ties"] == found["items"] == len(verdicts)
    # The two models' names exchanged: each verdict stands, what was forth is back.
    other = win_rate([Judged(j.item, j.back, j.forth) for j in judged], **SETTINGS)
    assert other["win_rate"]["mean"] == pytest.approx(1 - found["win_rate"]["mean"], abs=1e-6)
    assert other["first_place"] == found["first_place"]
    assert win_rate(judged[::-1], **SETTINGS) == found


def test_a_judge_who_always_names_the_first_gives_each_model_a_half():
    found = win_rate([Judged(str(i), "first", "first") for i in range(20)], **SETTINGS)
    assert found["win_rate"]["mean"] == 0.5
    assert (found["first_place"]["mean"], found["same_place"], found["ties"], found["p"]) == (1, 1, 20, 1)


# the files


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def outputs(tmp_path):
    rows = [
        {"id": i, "instruction": "Write", "input": f"of {i}", "category": ["even", "odd"][i % 2]}
        for i in range(8)
    ]
    one = write(tmp_path / "one.jsonl", [{**row, "output": f"good {row['id']}"} for row in rows])
    two = write(tmp_path / "two.jsonl", [{**row, "output": f"bad {row['id']}"} for row in rows[2:]])
    return one, two


def test_pairs_are_written_in_both_orders_and_tell_nothing_of_the_models(outputs, tmp_path):
    found = export_pairs(*outputs, tmp_path / "pairs")
    assert (found["items"], found["pairs"], found["only_one"], found["only_two"]) == (6, 12, 2, 0)
    lines = [json.loads(line) for line in (tmp_path / "pairs" / "pairs.jsonl").read_text().splitlines()]
    assert Counter((line["first"], line["second"]) for line in lines) == Counter(
        pair for i in range(2, 8) for pair in ((f"good {i}", f"bad {i}"), (f"bad {i}", f"good {i}"))
    )
    for line in lines:
        assert line["prompt"] == f"Write\n\nof {line['first'][-1]}"
        assert f"Answer A:\n{line['first']}\n\nAnswer B:\n{line['second']}\n" in line["request"]
        assert not {"order", "one", "two", "item"} & set(line)
    firsts = [line["first"].startswith("good") for line in lines]
    assert firsts not in ([True, False] * 6, [False, True] * 6, sorted(firsts), sorted(firsts, reverse=True))
    again = export_pairs(*outputs, tmp_path / "again")
    assert again == found
    for name in ("pairs.jsonl", "key.parquet"):
        assert (tmp_path / "pairs" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    with pytest.raises(UsageError, match="holds something already"):
        export_pairs(*outputs, tmp_path / "pairs")


def test_verdicts_are_read_back_into_a_win_rate(outputs, tmp_path):
    out = tmp_path / "pairs"
    export_pairs(*outputs, out)
    lines = [json.loads(line) for line in (out / "pairs.jsonl").read_text().splitlines()]
    said = [{"id": line["id"], "verdict": "A" if line["first"].startswith("good") else "B"} for line in lines]
    said[0]["verdict"] = "no idea"
    found = read_verdicts(write(tmp_path / "v.jsonl", said[:-1]), out)
    assert (found["one"], found["two"]) == ("one", "two")
    assert (found["unread"], found["missing"]) == (1, 1)
    assert found["items"] + found["unswapped"] == 6
    assert found["win_rate"]["mean"] == 1
    assert found["win_rate"]["low"] < 1
    assert found["first_place"]["mean"] == 0.5
    assert sum(own["items"] for own in found["categories"].values()) == found["items"]
    assert found == json.loads((out / "results.json").read_text())


def test_a_model_judges_by_answering_the_requests(outputs, tmp_path):
    class Judge(Echo):
        def generate(self, requests):
            for request in requests:
                first = request.prompt.partition("Answer A:\n")[2].partition("\n")[0]
                good = "A" if first.startswith("good") else "B"
                yield Completion(request.key, f" {good}, as it does what is asked", "stop", 5, 5)

    GENERATORS.register("judge", lambda name, revision, config: Judge())
    try:
        export_pairs(*outputs, tmp_path / "pairs")
        answer_openly(config(1, ref="judge:"), str(tmp_path / "pairs" / "pairs.jsonl"), tmp_path / "judge")
        found = read_verdicts(str(tmp_path / "judge" / "outputs.parquet"), tmp_path / "pairs")
    finally:
        GENERATORS.unregister("judge")
    assert (found["items"], found["win_rate"]["mean"], found["first_place"]["mean"]) == (6, 1, 0.5)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"id": "x", "verdict": "A"}], "row 0 .*'x' is no id of these pairs"),
        ([{"verdict": "A"}], "no columns 'id' and 'verdict'"),
        ([{"id": "KNOWN", "verdict": "A"}] * 2, "row 1 .*is judged twice"),
    ],
)
def test_verdicts_on_other_pairs_are_refused(outputs, tmp_path, rows, said):
    export_pairs(*outputs, tmp_path / "pairs")
    known = pq.read_table(tmp_path / "pairs" / "key.parquet")["id"][0].as_py()
    rows = [{k: known if v == "KNOWN" else v for k, v in row.items()} for row in rows]
    with pytest.raises(InputError, match=said):
        read_verdicts(write(tmp_path / "v.jsonl", rows), tmp_path / "pairs")
    with pytest.raises(UsageError, match="holds no pairs"):
        read_verdicts(write(tmp_path / "v.jsonl", rows), tmp_path / "none")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"id": 1, "output": "x"}], "row 0 .*none of the columns request, prompt"),
        ([{"prompt": "p"}], "no column 'output'"),
        ([{"prompt": "p", "output": "x"}] * 2, "row 1 .*asked twice"),
        ([{"id": 2, "prompt": "p", "output": "x"}], "other things under the id '2'"),
        ([{"prompt": "p", "output": "x"}], "no prompt in common"),
    ],
)
def test_tables_that_make_no_pairs_are_refused(outputs, tmp_path, rows, said):
    with pytest.raises(InputError, match=said):
        export_pairs(outputs[0], write(tmp_path / "o.jsonl", rows), tmp_path / "pairs")
    assert not (tmp_path / "pairs").exists()


def test_outputs_that_are_no_utf8_are_shown_as_far_as_they_go(tmp_path):
    raw = pa.array([b"caf\xff"], pa.binary())
    pq.write_table(pa.table({"prompt": ["p"], "output": raw}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"prompt": ["p"], "output": [None]}), tmp_path / "b.parquet")
    export_pairs(str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet"), tmp_path / "pairs")
    assert "caf\ufffd" in (tmp_path / "pairs" / "pairs.jsonl").read_text()


# a model answers


class Babbling:
    """Answers each prompt in five ways; the third repeats itself and is far too likely."""

    batch_invariant = True
    SAID = ("so", "well then", "la la la la", "fine", "")
    LIKELY: ClassVar = {"so": -60.0, "well then": -50.0, "la la la la": -2.0, "fine": -55.0}

    def __init__(self):
        self.model = "babbling:"
        self.calls = 0

    def generate(self, requests):
        for request in requests:
            self.calls += 1
            sample = request.payload[1] if request.payload else 0
            yield Completion(request.key, self.SAID[sample], "stop", 5, 5)

    def score(self, requests):
        for request in requests:
            yield Scores(
                request.key, tuple(self.LIKELY[c] for c in request.choices), (1,) * len(request.choices)
            )


@pytest.fixture
def backend():
    made = Babbling()
    GENERATORS.register("babbling", lambda name, revision, config: made)
    yield made
    GENERATORS.unregister("babbling")


def config(samples, **more):
    model = EvaluatedModel(ref=more.pop("ref", "babbling:"), temperature=0.7)
    return EvaluateConfig(samples=samples, model=model, **more)


def test_the_likeliest_sample_that_does_not_repeat_itself_is_the_output(backend, tmp_path):
    rows = [
        {"question_id": 7, "turns": ["Say.", "More."], "category": "talk"},
        {"instruction": "Go", "input": "on"},
    ]
    prompts = write(tmp_path / "prompts.jsonl", rows)
    found = answer_openly(config(5), prompts, tmp_path / "out")
    assert (found["prompts"], found["answered"], found["repetitive"], found["exit"]["code"]) == (2, 2, 2, 0)
    first, second = sorted(
        pq.read_table(tmp_path / "out" / "outputs.parquet").to_pylist(), key=lambda r: r["prompt"]
    )
    assert (first["prompt"], second["prompt"]) == ("Go\n\non", "Say.")
    assert (second["id"], second["category"], second["output"]) == ("7", "talk", "well then")
    samples = pq.read_table(tmp_path / "out" / "samples.parquet").to_pylist()
    assert len(samples) == 10
    assert [s["output"] for s in samples if s["repetitive"]] == ["la la la la"] * 2
    assert [s["output"] for s in samples if s["kept"]] == ["well then"] * 2
    calls = backend.calls
    assert answer_openly(config(5), prompts, tmp_path / "out")["answered"] == 2
    assert backend.calls == calls
    # What it wrote is what pairs are made of.
    made = export_pairs(*[str(tmp_path / "out" / "outputs.parquet")] * 2, tmp_path / "pairs")
    assert made["items"] == 2


def test_a_budget_leaves_prompts_for_the_next_time(backend, tmp_path):
    prompts = write(tmp_path / "prompts.jsonl", [{"prompt": f"p{i}"} for i in range(4)])
    short = answer_openly(config(1, budget=BudgetConfig(max_calls=3)), prompts, tmp_path / "out")
    assert (short["answered"], short["exit"]["code"]) == (3, 3)
    assert answer_openly(config(1), prompts, tmp_path / "out")["exit"]["code"] == 0
    assert backend.calls == 4


def test_samples_need_a_backend_that_weighs_them(tmp_path):
    class Mute(Echo):
        score = property()

        def generate(self, requests):
            raise AssertionError("a sample was paid that cannot be chosen among")

    GENERATORS.register("mute", lambda name, revision, config: Mute())
    prompts = write(tmp_path / "prompts.jsonl", [{"prompt": "p"}])
    try:
        with pytest.raises(UsageError, match="cannot score"):
            answer_openly(config(2, ref="mute:"), prompts, tmp_path / "out")
    finally:
        GENERATORS.unregister("mute")
    chat = replace(config(2).model, ref="openai:any", base_url="http://127.0.0.1:9/v1", protocol="chat")
    with pytest.raises(UsageError, match="how likely a chat's whole replies are"):
        answer_openly(replace(config(2), model=chat), prompts, tmp_path / "chat")


def run(*argv):
    with pytest.raises(SystemExit) as ended:
        cli.main(["evaluate", *map(str, argv)])
    return ended.value.code


def test_the_command_asks_pairs_and_reads_verdicts(outputs, tmp_path, capsys):
    prompts = write(tmp_path / "prompts.jsonl", [{"prompt": "p"}])
    assert run("--open", prompts, "--model", "echo:", "--out", tmp_path / "open") == 0
    assert "1 of 1 prompts answered" in capsys.readouterr().out
    out = tmp_path / "pairs"
    assert run("--pairs", ",".join(outputs), "--out", out) == 0
    assert "6 prompts in both orders" in capsys.readouterr().out
    ids = [json.loads(line)["id"] for line in (out / "pairs.jsonl").read_text().splitlines()]
    verdicts = write(tmp_path / "v.jsonl", [{"id": own, "verdict": "A"} for own in ids])
    assert run("--verdicts", verdicts, "--out", out) == 0
    assert "shown first" in capsys.readouterr().out
    assert run("--verdicts", verdicts, "--out", out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["first_place"]["mean"] == 1
    assert run("--pairs", "one", "--out", out) == 2
    assert "name two tables" in capsys.readouterr().err
    assert run("--pairs", "a,b", "--verdicts", verdicts, "--out", out) == 2
    assert "--pairs and --verdicts" in capsys.readouterr().err
