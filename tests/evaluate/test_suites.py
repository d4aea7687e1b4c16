"""Benchmarks are read from files; other files are refused by file, row and column; golds score 100 %."""

import json
import re
from collections import Counter, defaultdict

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taskmill.errors import InputError, UnknownName, UsageError
from taskmill.evaluate.averages import AVERAGES, chance
from taskmill.evaluate.extract import EXTRACTORS, Answer, extract, kind_of
from taskmill.evaluate.marks import METRICS, grade
from taskmill.evaluate.results import Mark, summary
from taskmill.recipes.evaluate.rows import load, subset
from taskmill.suites import SUITES, get, prompt
from taskmill.suites.arithmetic import languages
from taskmill.suites.base import Item
from taskmill.suites.bbh import options_of
from taskmill.suites.mmlu import mended

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
ROWS = {
    "bbh": {"task": "navigate", "input": "Back?\nOptions:\n- Yes\n- No", "target": "No"},
    "mmlu": {"subject": "anatomy", "question": "Which?", "choices": ["a", "b"], "answer": 1},
    "gsm8k": {"question": "How many?", "answer": "1 + 1 = <<1+1=2>>2\n#### 2"},
    "mgsm": {"lang": "de", "question": "Wie viele?", "answer": "2,125"},
    "squad": {"context": "It is red.", "question": "What is it?", "answers": ["red", "Red"]},
    "superni": {"task": "task1_x", "input": "hello", "outputs": ["hi"]},
    "nli": {"premise": "It rains.", "hypothesis": "It is wet.", "label": "Entailment"},
    "pubmedqa": {"contexts": ["a", "b"], "question": "So?", "final_decision": "maybe"},
    "strategyqa": {"question": "So?", "answer": True},
    "choice": {"question": "Which?", "options": ["x", "y"], "answer": "y"},
}
SAME = {"mmlu": "mmlu", "bbh": "bbh", "mgsm": "mgsm", "xquad": "squad", "tydiqa": "squad", "healthver": "nli"}


def row_of(name):
    return ROWS.get(name) or ROWS[SAME.get(name, SAME.get(name.partition("-")[0], ""))]


@pytest.mark.parametrize("name", SUITES.names())
def test_every_suite_reads_a_row_and_makes_every_wording_of_its_prompt(name):
    suite = get(name)
    (item,) = suite.read("rows.jsonl", [row_of(name)], [])
    words = prompt(suite.prompt)
    texts = {words.render(item, phrasing=i) for i in range(words.phrasings)}
    assert len(texts) == words.phrasings
    assert item.targets
    assert words.blank(item) not in texts
    assert all(suite.choice(item, i).strip() for i in range(len(item.options)))
    assert bool(item.options) or not suite.ranked
    assert EXTRACTORS.get(suite.extractor)
    assert METRICS.get(suite.metric)


@pytest.mark.parametrize("name", SUITES.names())
def test_a_missing_column_is_named_with_the_file(name):
    row = row_of(name)
    for column in [c for c in row if c not in ("contexts",)]:
        rest = {f"{k}_x" if k == column else k: v for k, v in row.items()}
        with pytest.raises(InputError, match=rf"rows\.jsonl: no column '\w+'.*{column}_x"):
            get(name).read("rows.jsonl", [rest], [])


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("mmlu", {"answer": 7}, "row 0 .* 'answer' is none, or two, of the 2 choices"),
        ("mmlu", {"choices": ["red", "red"], "answer": "red"}, "row 0 .* 'answer' is none, or two, of the 2"),
        ("choice", {"options": ["y", "y "], "answer": "y"}, "row 0 .* none, or two, of its 'options'"),
        ("mmlu", {"choices": "a or b"}, "'choices'"),
        ("mmlu", {"question": None}, "row 0 .* 'question'"),
        ("nli", {"label": "perhaps"}, "'perhaps'"),
        ("strategyqa", {"answer": "sure"}, "'sure' is none of yes, no"),
        ("choice", {"answer": "z"}, "none, or two, of its 'options'"),
        ("bbh", {"target": None}, "row 0 .* 'target'"),
        (
            "bbh",
            {"input": "Q\nOptions:\n(A) x\n(B) y", "target": "(C)"},
            r"row 0 .*'target' is \(C\), but .* 2",
        ),
        ("gsm8k", {"answer": "It is so.\n#### many"}, "row 0 .*'many', no number"),
        ("mgsm", {"answer": ""}, "row 0 .*no number"),
    ],
)
def test_a_cell_that_cannot_be_is_refused(name, change, said):
    with pytest.raises(InputError, match=said):
        get(name).read("rows.jsonl", [{**ROWS[name], **change}], [])


def test_an_unknown_suite_is_answered_with_the_nearest():
    with pytest.raises(UnknownName, match="'bbh-cot'"):
        get("bbh-cott")


def test_a_stop_sequence_is_never_a_bare_letter():
    for name in SUITES.names():
        for stop in prompt(get(name).prompt).stop:
            assert len(stop.strip()) > 1 or stop == "\n\n", name


def test_what_is_listed_as_options_counts():
    assert options_of("Q\nOptions:\n(A) x\n(B) y") == ("x", "y")
    assert options_of("Q\nOptions:\n- valid \n- invalid") == ("valid", "invalid")
    assert options_of("Options are good") == ()


def test_nested_squad_files_and_upstream_task_files_are_read(tmp_path):
    article = {"title": "t", "paragraphs": [{"context": "It is red.", "qas": [
        {"id": "q1", "question": "What?", "answers": [{"text": "red", "answer_start": 6}]}]}]}  # fmt: skip
    (item,) = get("xquad").read("xquad.de.json", [article], [])
    assert (item.targets, item.fields["context"]) == (("red",), "It is red.")
    task = (
        '{"Definition": ["Say hi."], "Categories": ["Word Analogy"], "Positive Examples": '
        '[{"input": "a", "output": "b"}], "Instances": [{"input": "x", "output": ["y"]}]}'
    )
    (tmp_path / "task001_x.json").write_text(task)
    bench = load(get("superni"), str(tmp_path))
    (item,) = bench.items
    assert (item.task, item.group, item.targets) == ("task001_x", "Word Analogy", ("y",))
    text = prompt("superni").render(item, bench.before(item, 2))
    assert text == "Definition: Say hi.\n\nInput: a\nOutput: b\n\nInput: x\nOutput:"
    (tmp_path / "task002_x.json").write_text("{}")
    with pytest.raises(InputError, match=r"task002_x\.json: none of 'examples'"):
        load(get("superni"), str(tmp_path))


def test_folders_are_read_as_their_authors_publish_them(tmp_path):
    (tmp_path / "bbh").mkdir()
    (tmp_path / "cot-prompts").mkdir()
    (tmp_path / "bbh" / "navigate.json").write_text(
        '{"canary": "c", "examples": [{"input": "Back?\\nOptions:\\n- Yes\\n- No", "target": "No"}]}'
    )
    (tmp_path / "cot-prompts" / "navigate.txt").write_text(
        "canary\n-----\nGo.\n\nQ: Left?\nA: Let's think step by step.\nWe turn. So the answer is Yes."
    )
    bench = load(get("bbh"), str(tmp_path))
    (item,) = bench.items
    text = prompt("bbh").render(item, bench.before(item, 3))
    assert text == "Go.\n\nQ: Left?\nA: Yes\n\nQ: Back?\nOptions:\n- Yes\n- No\nA:"
    for split in ("test", "dev"):
        (tmp_path / "mmlu" / split).mkdir(parents=True)
        (tmp_path / "mmlu" / split / f"anatomy_{split}.csv").write_text(f'"Is it, {split}?",a,b,c,d,B\n')
    bench = load(get("mmlu-hendrycks"), str(tmp_path / "mmlu"))
    (item,) = bench.items
    assert (item.task, item.group, item.targets) == ("anatomy", "test", ("(B)",))
    assert prompt("mmlu-hendrycks").render(item, bench.before(item, 5)) == (
        "The following are multiple choice questions (with answers) about  anatomy.\n\n"
        "Is it, dev?\nA. a\nB. b\nC. c\nD. d\nAnswer: B\n\nIs it, test?\nA. a\nB. b\nC. c\nD. d\nAnswer:"
    )
    (tmp_path / "mgsm_de.tsv").write_text("Wie viele?\t2,125\n")
    (item,) = load(get("mgsm"), str(tmp_path)).items
    assert (item.task, item.targets) == ("de", ("2,125",))
    (tmp_path / "mgsm_fr.tsv").write_text("no tab")
    with pytest.raises(InputError, match=r"mgsm_fr\.tsv: line 1"):
        load(get("mgsm"), str(tmp_path))
    one = {"paragraphs": [{"context": "Es ist rot.", "qas": [{"id": "q", "question": "?", "answers": []}]}]}
    for language in ("de", "el"):
        (tmp_path / f"xquad.{language}.json").write_text(json.dumps({"data": [one]}))
    assert [i.task for i in load(get("xquad"), str(tmp_path)).items] == ["de", "el"]


def test_a_benchmark_in_a_file_for_english_and_one_for_the_rest_is_read_whole(tmp_path):
    (tmp_path / "corpora").mkdir()
    for name, spoken in (("en", ["en"]), ("other_languages", ["de", "el"])):
        rows = [{"lang": one, "id": "q", "context": "c", "question": "q", "answers": ["a"]} for one in spoken]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "corpora" / f"xquad_{name}.parquet")
    bench = load(get("xquad"), str(tmp_path))
    assert [item.task for item in bench.items] == ["de", "el", "en"]
    assert len(bench.files) == 2


def test_a_solved_question_is_of_the_language_and_of_another_passage(tmp_path):
    rows = [
        {"lang": lang, "id": f"{lang}{at}", "context": f"c{at // 2} {lang}", "question": f"q{at} {lang}",
         "answers": [f"a{at} {lang}"]}
        for lang in ("de", "fi") for at in range(6)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "xquad.parquet")
    bench = load(get("xquad"), str(tmp_path))
    assert bench.suite.k == 1
    for item in bench.items:
        (shot,) = bench.before(item, 1)
        assert shot.fields["context"].endswith(item.task)
        assert shot.fields["context"] != item.fields["context"]
        text = prompt(bench.suite.prompt).render(item, [shot])
        assert text.index(shot.fields["answer"]) < text.index(item.fields["question"])
    train = [{**row, "context": "other " + row["context"]} for row in rows]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "tydiqa_goldp.parquet")
    pq.write_table(pa.Table.from_pylist(train), tmp_path / "tydiqa_goldp_train.parquet")
    bench = load(get("tydiqa"), str(tmp_path))
    assert all(bench.before(item, 1)[0].fields["context"].startswith("other") for item in bench.items)


def test_the_answer_among_choices_may_be_a_letter():
    (item,) = get("choice").read("a", [{"question": "q", "options": ["x", "y"], "answer": "(B)"}], [])
    assert (item.gold, item.targets) == ((1,), ("y",))
    (item,) = get("choice").read("a", [{"question": "q", "options": ["B", "A"], "answer": "A"}], [])
    assert item.gold == (1,)
    with pytest.raises(InputError, match="none, or two"):
        get("choice").read("a", [{"question": "q", "options": ["x", "y"], "answer": "C"}], [])


def test_tydiqa_says_the_language_in_its_ids():
    row = {
        "id": "telugu-12",
        "context": "c",
        "question": "q",
        "answers": {"text": ["a"], "answer_start": [0]},
    }
    (item,) = get("tydiqa").read("tydiqa_goldp.json", [row], [])
    assert (item.task, item.targets) == ("te", ("a",))


def test_data_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("TASKMILL_DATA", raising=False)
    with pytest.raises(UsageError, match=r"bbh\.parquet.*--data"):
        load(get("bbh"), "")
    with pytest.raises(UsageError, match=r"bbh\.parquet"):
        load(get("bbh"), str(tmp_path))
    with pytest.raises(InputError, match="no such file"):
        load(get("bbh"), str(tmp_path / "nowhere"))
    (tmp_path / "bbh.jsonl").write_bytes(b'{"task": "\xff"}\n')
    with pytest.raises(InputError, match=r"bbh\.jsonl"):
        load(get("bbh"), str(tmp_path / "bbh.jsonl"))


def test_a_limit_draws_evenly_over_tasks_whatever_the_order():
    items = [Item(f"s/{t}/{i}", t, {}, ("x",)) for t in "abc" for i in range(20)]
    drawn = subset(items, 7, 0)
    assert drawn == subset(items[::-1], 7, 0)
    assert sorted(Counter(i.task for i in drawn).values()) == [2, 2, 3]
    assert drawn != subset(items, 7, 1)
    assert len(subset(items, 0, 0)) == 60


def test_the_question_itself_never_stands_among_its_shots(tmp_path):
    rows = '{"question": "%s", "answer": "#### 2"}\n'
    (tmp_path / "gsm8k_test.jsonl").write_text(rows % "one")
    (tmp_path / "gsm8k_train.jsonl").write_text(rows % "one" + rows % "two")
    suite = get("gsm8k")
    bench = load(suite, str(tmp_path / "gsm8k_test.jsonl"), str(tmp_path / "gsm8k_train.jsonl"))
    (shot,) = bench.before(bench.items[0], 8)
    assert shot.fields["question"] == "two"


# on the benchmarks themselves


def table(shared_data, name):
    return pq.read_table(shared_data / "benchmarks" / name).to_pylist()


def test_gsm8k_gold_solutions_score_all(shared_data):
    rows = table(shared_data, "gsm8k_test.parquet")
    items = get("gsm8k").read("gsm8k", rows, [])
    assert len(items) == 1319
    for item, row in zip(items, rows, strict=True):
        found, marks = grade(
            row["answer"], item.targets, EXTRACTORS.get("number"), METRICS.get("exact"), Answer("number")
        )
        assert (found.rule, marks["accuracy"]) == ("cue: ####", 1.0), item.id


def test_mgsm_golds_score_all_in_every_language(shared_data):
    items = get("mgsm").read("mgsm", table(shared_data, "mgsm.parquet"), [])
    assert Counter(i.task for i in items) == dict.fromkeys(languages(), 250)
    assert Counter(i.task for i in items if "," in i.targets[0]) == dict.fromkeys(languages(), 4)
    for item in items:
        output = f"12 + 30 = 42. {languages()[item.task]['is'].format(item.targets[0])}"
        wanted = Answer("number", language=item.task)
        marks = grade(output, item.targets, EXTRACTORS.get("number"), METRICS.get("exact"), wanted)[1]
        assert marks["accuracy"] == 1, item


def test_mgsm_exemplars_end_in_their_answer(shared_data):
    shots = get("mgsm").shots("exemplars", table(shared_data, "mgsm_exemplars.parquet"), 0)
    for language, own in shots.items():
        assert len(own) == 8
        for shot in own:
            wanted = Answer("number", language=language)
            found = extract(shot.fields["rationale"], EXTRACTORS.get("number"), wanted)
            assert found.answer == shot.fields["answer"]


CHANCE = {  # evaluation of the 27 files: see docs/evaluate.md
    "date_understanding": 17.17, "disambiguation_qa": 33.23, "movie_recommendation": 24.62,
    "ruin_names": 24.93, "penguins_in_a_table": 20.03, "reasoning_about_colored_objects": 12.11,
    "geometric_shapes": 9.82, "snarks": 50.28, "salient_translation_error_detection": 16.67,
    "word_sorting": 0, "boolean_expressions": 50, "web_of_lies": 50, "formal_fallacies": 50,
}  # fmt: skip


def test_bbh_golds_score_all_and_chance_follows_from_the_options(shared_data):
    items = get("bbh").read(
        "bbh", table(shared_data, "bbh.parquet"), table(shared_data, "bbh_cot_prompts.parquet")
    )
    by_task = defaultdict(list)
    for item in items:
        by_task[item.task].append(item)
    assert (len(items), len(by_task)) == (6511, 27)
    means = {task: 100 * chance(own) for task, own in by_task.items()}
    assert sum(means.values()) / 27 == pytest.approx(26.63, abs=0.005)
    for task, value in CHANCE.items():
        assert means[task] == pytest.approx(value, abs=0.005)
    for own in by_task.values():
        wanted = kind_of([t for i in own for t in i.targets])
        for item in own:
            output = f"Some thoughts.\nSo the answer is {item.targets[0]}.\n\nQ: next (A)"
            looked = wanted._replace(options=item.options)
            for name in ("bbh", "bbh-cot"):
                assert grade(output, item.targets, EXTRACTORS.get(name), METRICS.get("exact"), looked)[1] == {
                    "accuracy": 1.0
                }, item.id


def test_bbh_has_three_solved_questions_before_each(shared_data):
    bench = load(get("bbh"), str(shared_data), limit=27)
    assert {len(bench.before(item, 3)) for item in bench.items} == {3}
    text = prompt("bbh").render(bench.items[0], bench.before(bench.items[0], 3))
    assert "canary" not in text
    assert text.count("\n\nQ: ") == 4
    assert text.endswith("\nA:")


def test_mmlu_exemplars_are_repaired_unless_asked_raw(shared_data):
    rows = table(shared_data, "mmlu_cot_prompts.parquet")
    assert sum(bool(CONTROL.search(row["prompt"])) for row in rows) == 3
    whole = [mended(row) for row in rows]
    assert not any(CONTROL.search(row["prompt"]) for row in whole)
    text = {row["subject"]: row["prompt"] for row in whole}
    assert r"\frac{1}{400}" in text["college_biology"]
    assert r"\factorial{n}" in text["abstract_algebra"]
    assert r"$f:S \rightarrow S$" in text["abstract_algebra"]
    shots = get("mmlu-cot").shots("dev", whole, 0)
    assert sum(map(len, shots.values())) == 282
    assert sum(len(own) == 4 for own in shots.values()) == 3


def test_mmlu_redux_has_labels_and_corrections(shared_data):
    items = get("mmlu").read("redux", table(shared_data, "mmlu_redux.parquet"), [])
    assert (len(items), len({i.task for i in items})) == (5700, 57)
    labels = Counter(i.label for i in items)
    assert labels["ok"] == 5330
    assert sum(bool(i.mended) for i in items) > 100
    assert all(i.label == "wrong groundtruth" for i in items if i.mended)


def test_super_natural_instructions_are_the_first_hundred_of_test_tasks(shared_data):
    bench = load(get("superni"), str(shared_data))
    counts = Counter(i.task for i in bench.items)
    assert len(counts) == 19
    assert max(counts.values()) == 100
    assert all(i.group and i.fields["definition"] for i in bench.items)
    marks = [
        Mark(i.id, i.task, "x", "whole", {"accuracy": 0.0, "rouge_l": 0.0}, group=i.group)
        for i in bench.items
    ]
    settings = {"confidence": 0.95, "seed": 0}
    found = summary(marks, METRICS.get("rouge"), AVERAGES.get("categories"), **settings)
    assert found["coverage"] == {"tasks": 19, "of": 119}
    assert {len(bench.before(i, 2)) for i in bench.items} <= {1, 2}
