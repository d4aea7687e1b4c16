"""Continual pre-training: equal tokens, the same questions, nothing trained twice, and honest verdicts."""

import itertools
import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from test_corpus import GENERAL, text, write
from test_corpus import config as corpus_config

from taskmill.config import build
from taskmill.errors import ConfigError, InputError, UsageError
from taskmill.ids import draw
from taskmill.recipes import pretrain as recipe
from taskmill.recipes.corpus import corpus
from taskmill.recipes.general import probes
from taskmill.recipes.pretrain import PretrainConfig, pretrain
from taskmill.recipes.pretrain.rows import (
    general_texts,
    questions,
    read_corpus,
    reading,
)
from taskmill.recipes.pretrain.scores import marks_of
from taskmill.record import Document
from taskmill.train.student import Outcome, grade


class Stub:
    """A reader without a model: right with a chance that grows with the pairs it read; reading costs loss."""

    name = "stub"

    def __init__(self, stop_at=-1, kill=False, gain=0.5):
        self.learned, self.merges, self.stop_at, self.kill, self.gain = [], [], stop_at, kill, gain

    def lengths(self, rows):
        counts = [len(row.text.split()) + 1 for row in rows]
        return [n if n < 2000 else "too long" for n in counts]

    def learn(self, rows, items, seed, times, folder, on_step=None, *, texts=()):
        if len(self.learned) == self.stop_at:
            folder.mkdir(parents=True)
            (folder / "log.jsonl").write_text("half a li")
            if self.kill:
                os._exit(9)
            raise KeyboardInterrupt
        self.learned.append([row.text for row in rows])
        folder.mkdir(parents=True, exist_ok=True)
        asked = sum("?" in row.text for row in rows) / max(1, len(rows))
        return self._said(rows, items, texts, seed, 0.3 + self.gain * asked)

    def merged(self, folder, instruct, scale, items, texts=()):
        assert folder.is_dir()
        self.merges.append((instruct, scale))
        return self._said([], items, texts, 0, 0.3 + 0.2 * scale)

    def _said(self, rows, items, texts, seed, chance):
        answers = []
        for item in items:
            luck = draw(seed, item.example.id, f"luck {chance}") / 2**63
            wrong = next((c for c in item.choices if c != item.example.response), "?")
            answers.append(item.example.response if luck < chance else wrong)
        marks = [grade(item, answer) for item, answer in zip(items, answers, strict=True)]
        losses = [(2.0 * len(t.split()) * (1.1 if rows else 1.0), len(t.split())) for t in texts]
        cost = 1e-3 * sum(n for n in self.lengths(rows) if isinstance(n, int))
        return Outcome(answers, marks, cost, 1e-4, cost + 0.01, {"steps": 1}, losses)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A corpus of 24 texts, all with pairs, and general instructions of half as many tokens."""
    import word_tokenizer

    from taskmill.backends import tokenizer

    place = tmp_path_factory.mktemp("corpus")
    source = write(place / "texts.jsonl", [{"text": text(i)} for i in range(24)])
    general = write(place / "general.jsonl", GENERAL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "load_text_tokenizer", word_tokenizer.load)
        own = corpus_config(source, augment=1.0, general=(general,), general_ratio="1:2")
        corpus(own, place / "out")
    return place / "out"


@pytest.fixture
def test_rows(tmp_path):
    rows = [
        {
            "id": f"q{i}",
            "context": f"Box {i} is red.",
            "question": f"What colour has box {i}?",
            "answer": "red",
            "answers": ["red", "it is red"],
        }
        for i in range(30)
    ]
    return write(tmp_path / "boxes.jsonl", rows)


def settings(made, target, **changed):
    return build(PretrainConfig, {"source": str(made), "target": [target], **changed})


def units(out):
    return [json.loads(path.read_text()) for path in sorted(out.glob("units/*/unit.json"))]


# what is read


def test_both_arms_read_as_many_tokens_and_the_same_general_instructions(made, test_rows, tmp_path):
    stub = Stub()
    record = pretrain(settings(made, test_rows, seeds=2), tmp_path / "out", reader=stub)
    whole = record["tokens"]
    for arm in ("raw", "augmented"):
        assert abs(record["arms"][arm]["read"] - whole) <= 0.005 * whole
    held = read_corpus(str(made))
    said = {row.text for row in held.general}
    parts = [sum(len(t.split()) + 1 for t in texts if t in said) for texts in stub.learned[2:]]
    assert len(set(parts)) == 1
    raw = {row.text for row in held.rows["raw"]}
    assert raw == {text(i) for i in range(24)}
    arms = {unit["key"]: unit for unit in units(tmp_path / "out")}
    assert sorted(unit["arm"] for unit in arms.values()) == ["augmented", "augmented", "base", "raw", "raw"]
    assert record["arms"]["raw"]["passes"] > 1.2  # it has fewer, and is read again
    raw_read = [texts for texts in stub.learned[2:] if texts and raw & set(texts)]
    assert raw_read
    assert not any("?" in t for t in raw_read[0] if t in raw)


def test_rows_are_read_in_whole_passes_and_a_part():
    rows = [Document(f"d{i}", "w " * (i + 1)) for i in range(10)]
    lengths = lambda own: [len(row.text.split()) for row in own]  # noqa: E731
    for tokens, seed in itertools.product((1, 30, 55, 56, 110, 149), (0, 1)):
        found, total = reading(rows, lengths, tokens, seed)
        assert total == tokens == sum(lengths(found))
        counts = {row.id: found.count(row) for row in rows}
        assert max(counts.values()) - min(counts.values()) <= 1
        assert reading(rows[::-1], lengths, tokens, seed) == (found, total)
    assert reading([], lengths, 10, 0) == ([], 0)
    assert reading(rows, lambda own: ["too long"] * len(own), 10, 0) == ([], 0)


def test_the_corpus_must_be_one(made, test_rows, tmp_path):
    with pytest.raises(UsageError, match="holds no corpus"):
        pretrain(settings(tmp_path / "none", test_rows), tmp_path / "out", reader=Stub())
    with pytest.raises(UsageError, match="no target"):
        build(PretrainConfig, {"source": str(made)})
    for wrong in (
        {"seeds": 0},
        {"arms": ["cooked"]},
        {"instruct": "x", "scales": ["much"]},
        {"budget": "soon"},
    ):
        with pytest.raises(ConfigError):
            settings(made, test_rows, **wrong)


# what is asked


def test_questions_that_a_pair_of_the_corpus_asks_are_not_scored(made, tmp_path):
    held = read_corpus(str(made))
    assert len(held.asked) > 20
    met = sorted(held.asked)[0].strip()
    rows = [{"question": f"{met}?", "answer": "x"}, {"question": "Which box is red?", "answer": "x"}]
    (found,) = questions([write(tmp_path / "t.jsonl", rows)], 0, 0, held.asked)
    assert (len(found.probes), found.met) == (1, 1)
    with pytest.raises(UsageError, match="no question is left"):
        questions([write(tmp_path / "u.jsonl", rows[:1])], 0, 0, held.asked)
    with pytest.raises(InputError, match="has no answer"):
        questions([write(tmp_path / "v.jsonl", [{"question": "Which?", "answer": " "}])], 0, 0)
    with pytest.raises(UsageError, match="two targets"):
        questions([write(tmp_path / "v.jsonl", rows)] * 2, 0, 0)


def test_questions_of_general_instructions_and_tuning_data_are_not_scored(made, tmp_path):
    held = read_corpus(str(made))
    long = " ".join(held.general[0].text.split()[:7])
    rows = [{"question": q, "answer": "x"} for q in (long.upper(), "Which of the seven boxes is it?", "a")]
    (found,) = questions([write(tmp_path / "t.jsonl", rows)], 0, 0, held.asked, held.told)
    assert found.met == 1
    assert long.upper() not in {probe.item.example.instruction for probe in found.probes}


def test_answers_may_be_a_list_or_squads(tmp_path):
    rows = [
        {
            "context": "A red box.",
            "question": "Which?",
            "answers": {"text": ["red", "the red"], "start": [1]},
        },
        {"context": "A blue box.", "question": "Which one?", "answers": {"text": ["blue"], "at": [1]}},
    ]
    for number, own in enumerate((rows, [{**r, "answers": r["answers"]["text"]} for r in rows])):
        (found,) = questions([write(tmp_path / f"{number}.jsonl", own)], 0, 0)
        assert {p.golds for p in found.probes} == {("red", "the red"), ("blue",)}
        assert {p.item.example.response for p in found.probes} == {"red", "blue"}


def test_a_benchmark_is_read_by_its_suite(tmp_path):
    rows = [{"context": "A red box.", "question": f"Is box {i} red?", "answer": "yes"} for i in range(5)]
    file = write(tmp_path / "strategyqa.jsonl", rows)
    (found,) = questions([f"strategyqa={file}"], 3, 0)
    assert len(found.probes) == 3
    assert {probe.item.choices for probe in found.probes} == {("Yes", "No")}
    assert all("A red box." in probe.item.example.instruction for probe in found.probes)


def test_the_best_of_all_right_answers_counts(test_rows):
    (found,) = questions([test_rows], 2, 0)
    assert marks_of(found.probes, ["it is red", "blue"]) == [1.0, 0.0]


def test_the_package_brings_general_questions_with_one_right_answer_each():
    found = probes("", 0)
    assert len(found.items) == 40
    assert len(found.texts) == len(set(found.texts)) == 6
    for example, choices in found.items:
        assert len(set(choices)) == 4
        assert choices.count(example.response) == 1


def test_general_texts_are_drawn_by_their_ids(tmp_path):
    own = [{"text": text(i)} for i in range(100)]
    one = general_texts([write(tmp_path / "a.jsonl", own)], 0)
    assert len(one) == 64
    assert one == general_texts([write(tmp_path / "b.jsonl", own[::-1])], 0)


# what comes out


def test_the_arms_are_held_against_each_other(made, test_rows, tmp_path):
    record = pretrain(settings(made, test_rows, seeds=3), tmp_path / "out", reader=Stub(gain=2.0))
    own = record["targets"]["boxes"]
    assert own["augmented"]["mean"] > own["raw"]["mean"]
    first = record["claims"][0]
    assert first["claim"] == "augmented beats raw on boxes"
    assert first["verdict"] == "holds"
    assert first["over_all"]["mean"] == pytest.approx(own["augmented"]["mean"] - own["raw"]["mean"], abs=1e-5)
    fair = pretrain(settings(made, test_rows, seeds=3), tmp_path / "fair", reader=Stub(gain=0.0))
    assert fair["claims"][0]["verdict"] != "holds"
    rise = record["retention"]["perplexity"]
    assert rise["base"]["rise"]["mean"] == 0.0
    assert rise["raw"]["rise"]["mean"] == pytest.approx(0.2)
    assert set(record["retention"]["questions"]) == {"of the package"}
    assert any(claim["claim"].startswith("raw keeps what the base knows") for claim in record["claims"])
    page = (tmp_path / "out" / "report.html").read_text()
    HTMLParser().feed(page)
    assert "augmented beats raw on boxes" in page


def test_what_was_learned_is_added_to_an_instruct_model(made, test_rows, tmp_path):
    stub = Stub()
    own = settings(made, test_rows, instruct="other", scales=["0.5", "1"], keep=False)
    record = pretrain(own, tmp_path / "out", reader=stub)
    assert sorted(stub.merges) == [("other", 0.5)] * 2 + [("other", 1.0)] * 2
    assert set(record["targets"]["boxes"]) == {
        "base", "raw", "raw @ 0.5", "raw @ 1", "augmented", "augmented @ 0.5", "augmented @ 1",
    }  # fmt: skip
    assert not list((tmp_path / "out" / "units").glob("*/training"))


def test_the_same_command_again_trains_nothing(made, test_rows, tmp_path):
    first, stub = pretrain(settings(made, test_rows), tmp_path / "out", reader=Stub()), Stub()
    again = pretrain(settings(made, test_rows), tmp_path / "out", reader=stub)
    assert not stub.learned
    assert again["units"] == {"all": 3, "made": 0, "reused": 3}
    assert again["targets"] == first["targets"]
    more = pretrain(settings(made, test_rows, seeds=2), tmp_path / "out", reader=stub)
    assert more["units"] == {"all": 5, "made": 2, "reused": 3}


@pytest.mark.parametrize("stop_at", [0, 1, 2, 3])
def test_a_run_that_was_stopped_goes_on(made, test_rows, tmp_path, stop_at):
    own = settings(made, test_rows)
    with pytest.raises(KeyboardInterrupt):
        pretrain(own, tmp_path / "out", reader=Stub(stop_at))
    assert not (tmp_path / "out" / "result.json").exists()
    found = pretrain(own, tmp_path / "out", reader=Stub())
    whole = pretrain(own, tmp_path / "whole", reader=Stub())
    for key in ("targets", "retention", "claims", "arms", "tokens"):
        assert found[key] == whole[key]


KILLED = """
import sys; sys.path.insert(0, {here!r})
from test_pretrain import Stub, settings
from taskmill.recipes.pretrain import pretrain
pretrain(settings({made!r}, {target!r}), {out!r}, reader=Stub(2, kill=True))
"""


def test_a_killed_run_goes_on(made, test_rows, tmp_path):
    out = tmp_path / "out"
    code = KILLED.format(here=str(Path(__file__).parent), made=str(made), target=test_rows, out=str(out))
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    stub = Stub()
    found = pretrain(settings(made, test_rows), out, reader=stub)
    assert found["units"]["reused"] == 1
    whole = pretrain(settings(made, test_rows), tmp_path / "whole", reader=Stub())
    assert found["targets"] == whole["targets"]


def test_a_time_limit_lowers_the_tokens_of_all_models_alike(made, test_rows, tmp_path):
    free = pretrain(settings(made, test_rows), tmp_path / "a", reader=Stub(), dry_run=True)
    assert "targets" not in free
    batch = {"train": {"batch_tokens": 100}}
    own = settings(made, test_rows, budget="4s", **batch)
    tight = pretrain(own, tmp_path / "b", reader=Stub())
    assert 400 <= tight["tokens"] < free["tokens"]
    assert tight["estimate_s"] <= 4
    assert all(abs(arm["read"] - tight["tokens"]) <= 0.01 * tight["tokens"] for arm in tight["arms"].values())
    with pytest.raises(UsageError, match="larger --budget"):
        pretrain(settings(made, test_rows, budget="0.2s", **batch), tmp_path / "c", reader=Stub())


def test_a_foreign_folder_is_left_alone(made, test_rows, tmp_path):
    with pytest.raises(UsageError, match="choose"):
        pretrain(settings(made, test_rows), made / "inside", reader=Stub())


def test_the_command_prints_what_it_found(made, test_rows, tmp_path, monkeypatch, capsys):
    from taskmill.cli import main

    monkeypatch.setattr(recipe, "_student", lambda config: Stub())
    line = f"train corpus {made} --target {test_rows} --seeds 2 --out {tmp_path / 'out'}"
    with pytest.raises(SystemExit) as end:
        main(line.split())
    assert end.value.code == 0
    assert "augmented beats raw on boxes" in capsys.readouterr().out
