"""An examination: what is right scores 1, what is wrong less; seen and unseen apart; nothing paid twice."""

import json

import pyarrow.parquet as pq
import pytest
from word_tokenizer import count

from taskmill.backends import GENERATORS, echo
from taskmill.budget import BudgetConfig
from taskmill.calls import Completion
from taskmill.errors import ConfigError, InputError, UsageError
from taskmill.recipes.examine import ExamineConfig, examine
from taskmill.recipes.examine.compare import compare_examinations
from taskmill.recipes.examine.config import Examined

PLACES = ["harbour", "market", "valley", "village", "forest", "castle"]
THINGS = ["lantern", "basket", "letter", "hammer", "mirror", "ladder"]


def record(dataset, i, pairs=3):
    place, thing = PLACES[i % 6], THINGS[(i + i // 6) % 6]
    context = (
        f"Number {i} of {dataset}: the {thing} of the baker was found in the {place} after {i + 3} years."
    )
    listed = [
        {"Q": f"What was found in place {i}?", "A": f"the {thing}"},
        {"Q": f"Where was number {i} found?", "A": f"in the {place}"},
        {"Q": f"After how long was {i} found?", "A": f"{i + 3} years"},
    ]
    return {"context": context, "QA_list": listed[:pairs], "rc_name": dataset}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def source(tmp_path):
    return write(tmp_path / "a.jsonl", [record(d, i) for d in ("old", "new") for i in range(8)])


def config(source, ref="echo:", **values):
    return ExamineConfig(sources=(source,), model=Examined(ref=ref), **{"seen": ("old",), **values})


def rows(out, name):
    return pq.read_table(out / f"{name}.parquet").to_pylist()


def test_a_flawless_synthesizer_has_full_marks_everywhere(source, tmp_path):
    result = examine(config(source), tmp_path / "out")
    assert result["exit"] == {"code": 0, "reason": "done"}
    for split in ("seen", "unseen"):
        assert {way: own["mean"] for way, own in result["pair_f1"][split].items()} == {
            "zero": 1.0,
            "few": 1.0,
        }
        assert {way: own["mean"] for way, own in result["answers"][split].items()} == dict.fromkeys(
            ("alone", "random", "ours"), 1.0
        )
        assert result["pair_f1"][split]["zero"]["n"] == 8
    assert (tmp_path / "out" / "report.html").read_text().count("zero-shot") >= 2


def test_datasets_are_seen_or_unseen_by_their_ids_and_texts_of_both_are_only_seen(source, tmp_path):
    shared = write(tmp_path / "b.jsonl", [{**record("old", 3), "rc_name": "new"}, record("third", 1)])
    result = examine(ExamineConfig((source, shared), ("old",), model=Examined(ref="echo:")), tmp_path / "out")
    assert {name: own["split"] for name, own in result["datasets"].items()} == {
        "new": "unseen", "old": "seen", "third": "unseen",
    }  # fmt: skip
    assert result["shared_texts"] == 1
    contexts = [row["text"] for row in rows(tmp_path / "out", "pairs") if row["way"] == "zero"]
    assert len(contexts) == len(set(contexts)) == 17
    with pytest.raises(ConfigError, match="Did you mean 'old'"):
        examine(config(source, seen=("olt",)), tmp_path / "typo")


class Half(echo.Echo):
    """Writes the first right pair of each text only, and answers that it does not know."""

    def generate(self, requests):
        for request in requests:
            asked = request.payload
            if asked.way in ("zero", "few"):
                text = asked.said.partition("</END>")[0] + "</END>\n\n<QUE> a broken <ANS>"
            else:
                text = asked.said if asked.way == "ours" else "unknown"
            yield Completion(request.key, text, "stop", 1, 1)


@pytest.fixture
def half():
    if "half" not in GENERATORS.names():
        GENERATORS.register("half", lambda name, revision, config: Half(name))
    return "half:"


def test_marks_and_differences_are_those_of_the_replies(source, half, tmp_path):
    result = examine(config(source, half, format="pairs"), tmp_path / "out")
    for row in rows(tmp_path / "out", "pairs"):
        assert (row["precision"], row["recall"], row["f1"]) == (1.0, pytest.approx(1 / 3), 0.5)
        assert len(row["right"]) == 3
        assert len(row["written"]) == 1
    assert result["malformed"] == 32  # one broken pair in each of 16 texts, both ways
    helps = result["helpfulness"]["unseen"]
    assert helps["ours_less_alone"]["difference"] == helps["ours_less_random"]["difference"] == 1.0
    assert helps["ours_less_alone"]["low"] > 0.5
    assert result["few"]["seen"]["difference"] == 0.0


def test_few_shot_prompts_hold_texts_of_the_same_dataset_and_never_the_text_itself(
    source, tmp_path, monkeypatch
):
    prompts = []
    answer = echo.Echo.generate

    def seen(self, requests):
        for request in requests:
            prompts.append((request.payload, request.prompt))
            yield from answer(self, [request])

    monkeypatch.setattr(echo.Echo, "generate", seen)
    examine(config(source, shots=2), tmp_path / "out")
    few = [(asked, text) for asked, text in prompts if asked.way == "few"]
    assert len(few) == 16
    for _, text in few:
        names = [part.partition(":")[0] for part in text.split("<CON> ")[1:]]
        assert len(set(names)) == len(names) == 3
        assert len({name.rpartition(" ")[2] for name in names}) == 1
    ours = [(asked, text) for asked, text in prompts if asked.way == "ours"]
    assert ours
    for asked, text in ours:
        question = text.rpartition("<QUE> ")[2].removesuffix(" <ANS>")
        assert text.count(question) == 1  # its own answer is not handed over
        assert asked.said not in text.partition("</CON>")[2]


def test_prompts_over_the_context_are_counted(source, tmp_path):
    result = examine(config(source, context=430), tmp_path / "out")  # 30 tokens: one text alone at best
    assert result["over_context"] >= 16
    assert all(row["way"] == "zero" for row in rows(tmp_path / "out", "pairs"))
    assert count("Number 1") == 2


def test_a_budget_stops_and_the_same_command_goes_on(source, tmp_path):
    result = examine(config(source, budget=BudgetConfig(max_calls=9)), tmp_path / "out")
    assert result["exit"]["code"] == 3
    assert result["calls"]["total"] == 9
    assert result["pair_f1"]["unseen"]
    whole = examine(config(source), tmp_path / "out")
    assert whole["exit"]["code"] == 0
    assert whole["calls"]["reused"] == 9
    other = examine(config(source), tmp_path / "other")
    assert {**whole, "calls": 0} == {**other, "calls": 0}
    for name in ("pairs.parquet", "answers.parquet"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_the_order_of_the_rows_changes_nothing(source, tmp_path):
    own = [record(d, i) for d in ("old", "new") for i in range(8)]
    turned = write(tmp_path / "t.jsonl", own[::-1])
    one, two = (examine(config(s, texts=5), tmp_path / str(i)) for i, s in enumerate((source, turned)))
    assert one["pair_f1"] == two["pair_f1"]
    assert (tmp_path / "0" / "pairs.parquet").read_bytes() == (tmp_path / "1" / "pairs.parquet").read_bytes()


def test_a_generator_of_tasks_is_examined_by_its_pairs(source, tmp_path):
    result = examine(config(source, format="tasks", pairs=3), tmp_path / "out")
    assert result["answers"] == {"seen": {}, "unseen": {}}
    assert 0 < result["pair_f1"]["unseen"]["zero"]["mean"] < 1


def test_two_examinations_are_compared_text_by_text(source, half, tmp_path):
    one, two, tasks = (str(tmp_path / name) for name in ("half", "whole", "tasks"))
    examine(config(source, half, format="pairs"), one)
    examine(config(source, texts=5), two)
    examine(config(source, format="tasks", pairs=3), tasks)
    found = compare_examinations(one, two)
    assert (found["only_one"], found["only_two"]) == (6, 0)
    for split, dataset in (("seen", "old"), ("unseen", "new")):
        for way in ("zero", "few"):  # a third of the right pairs each: F1 0.5 against 1
            own = found["pair_f1"][split][way]
            assert (own["against"], own["difference"], own["wins"], own["n"]) == (way, 0.5, 5, 5)
            assert own["datasets"][dataset]["difference"] == 0.5
    # A generator of tasks has no few-shot prompt: its pairs are held against both ways of the other.
    found = compare_examinations(tasks, two)
    marks = {row["text"]: row["f1"] for row in rows(tmp_path / "tasks", "pairs")}
    unseen = [
        r["text"] for r in rows(tmp_path / "whole", "pairs") if (r["split"], r["way"]) == ("unseen", "few")
    ]
    expected = sum(1 - marks[text] for text in unseen) / len(unseen)
    own = found["pair_f1"]["unseen"]["few"]
    assert (own["against"], own["n"]) == ("zero", 5)
    assert own["difference"] == pytest.approx(expected, abs=1e-6)


def test_what_cannot_be_compared_is_refused(source, tmp_path):
    examine(config(source), tmp_path / "one")
    other = write(tmp_path / "o.jsonl", [record("old", i) for i in range(20, 24)])
    examine(config(other), tmp_path / "two")
    with pytest.raises(InputError, match="no text in common"):
        compare_examinations(str(tmp_path / "one"), str(tmp_path / "two"))
    with pytest.raises(InputError, match="no finished examination"):
        compare_examinations(str(tmp_path / "one"), str(tmp_path))


def test_what_cannot_work_is_refused(source, tmp_path):
    with pytest.raises(UsageError, match="no source"):
        ExamineConfig()
    with pytest.raises(ConfigError, match="no room"):
        config(source, context=300)
    with pytest.raises(InputError, match="QA_list"):
        examine(config(write(tmp_path / "n.jsonl", [{"text": "none"}])), tmp_path / "out")


def test_the_command(source, tmp_path, capsys):
    from taskmill.cli import main

    with pytest.raises(SystemExit) as end:
        main(f"examine {source} --seen old --model echo: --texts 3 --out {tmp_path / 'out'}".split())
    assert end.value.code == 0
    assert "unseen" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        main(f"examine --compare {tmp_path / 'out'} {tmp_path / 'out'}".split())
    assert end.value.code == 0
    assert "unseen, few against few" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        main(f"examine {source} --model echo:".split())
    assert end.value.code == 2
    assert "no --out is given" in capsys.readouterr().err
