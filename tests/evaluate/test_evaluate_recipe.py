"""A model is evaluated end to end: nothing is paid twice or lost, and the numbers are those by hand."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from taskmill import cli
from taskmill.backends import GENERATORS
from taskmill.backends.echo import Echo
from taskmill.budget import BudgetConfig
from taskmill.calls import Completion, Scores
from taskmill.errors import ConfigError, InputError, UsageError
from taskmill.recipes.evaluate import EvaluateConfig, EvaluatedModel, evaluate
from taskmill.recipes.evaluate.compare import compare_runs
from taskmill.recipes.evaluate.outputs import grade_outputs

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight"]


@pytest.fixture
def sums(tmp_path):
    """Eight word problems, the answers 1 to 8."""
    lines = [
        json.dumps({"question": f"How many is {w}?", "answer": f"#### {i}"}) for i, w in enumerate(WORDS, 1)
    ]
    path = tmp_path / "gsm8k_test.jsonl"
    path.write_text("\n".join(lines))
    return path


class Knowing:
    """Knows the word problems but two, says one of those wrong and one not at all; weighs claims by "wet"."""

    batch_invariant = True

    def __init__(self, name="", wrong=("seven",)):
        self.model = f"knowing:{name}"
        self.wrong = wrong
        self.calls = 0

    def generate(self, requests):
        for request in requests:
            self.calls += 1
            asked = (
                (request.prompt or request.messages[-1][1]).rpartition("How many is ")[2].partition("?")[0]
            )
            value = WORDS.index(asked) + 1 + (asked in self.wrong)
            text = "I cannot say" if asked == "eight" else f"Well. The answer is {value}."
            yield Completion(request.key, text, "stop", 5, 5)

    def score(self, requests):
        for request in requests:
            self.calls += 1
            wet = "wet" in request.prompt
            sums = tuple(-1.0 if (c.strip() == "Yes") == wet else -2.0 for c in request.choices)
            yield Scores(request.key, sums, (1,) * len(sums))


@pytest.fixture
def backend():
    made = Knowing()
    GENERATORS.register("knowing", lambda name, revision, config: made)
    yield made
    GENERATORS.unregister("knowing")


def config(path, suite="gsm8k", **more):
    model = {"ref": "knowing:", **more.pop("model", {})}
    return EvaluateConfig((suite,), str(path), model=EvaluatedModel(**model), **more)


def test_a_models_answers_are_graded_and_logged(sums, backend, tmp_path):
    results = evaluate(config(sums), tmp_path / "out")
    own = results["suites"]["gsm8k"]
    assert own["tasks"]["gsm8k"]["accuracy"] == own["overall"] == 6 / 8
    assert (own["tasks"]["gsm8k"]["n"], own["tasks"]["gsm8k"]["extraction_failures"]) == (8, 1)
    assert own["extraction_failure_rate"] == 1 / 8
    assert own["rules"] == {"cue: answer is": 7, "none": 1}
    assert own["first_prompt"] == "Question: How many is one?\nAnswer:"
    assert set(own["versions"]) == {"suite", "extractor", "metric", "average", "prompt"}
    assert (own["shots"], own["shots_asked"]) == (0, 8)
    assert results == json.loads((tmp_path / "out" / "results.json").read_text())
    rows = pq.read_table(tmp_path / "out" / "items.parquet").to_pylist()
    assert [row["answer"] for row in rows] == ["1", "2", "3", "4", "5", "6", "8", ""]
    assert rows[6]["rule"] == "cue: answer is"
    assert rows[6]["span"] == "8"
    assert rows[6]["target"] == ["7"]
    assert "75.0" in (tmp_path / "out" / "report.html").read_text()


def test_a_stopped_run_goes_on_and_ends_as_if_it_had_not_been(sums, backend, tmp_path):
    whole = evaluate(config(sums), tmp_path / "whole")
    calls = backend.calls
    short = evaluate(config(sums, budget=BudgetConfig(max_calls=3)), tmp_path / "parts")
    assert short["exit"]["code"] == 3
    assert short["suites"]["gsm8k"]["unanswered"] == 5
    assert short["suites"]["gsm8k"]["n"] == 3
    done = evaluate(config(sums), tmp_path / "parts")
    assert done["exit"]["code"] == 0
    assert backend.calls == 2 * calls == 16
    assert done["suites"] == whole["suites"]
    one, two = ((tmp_path / name / "items.parquet").read_bytes() for name in ("whole", "parts"))
    assert one == two


def test_a_killed_run_has_lost_no_answer(sums, backend, tmp_path):
    class Killed(Exception):
        pass

    def die(progress):
        if progress.stage == "gsm8k":
            raise Killed

    with pytest.raises(Killed):
        evaluate(config(sums), tmp_path / "out", die)
    made = backend.calls
    assert made >= 1
    assert evaluate(config(sums), tmp_path / "out")["exit"]["code"] == 0
    assert backend.calls <= 8 + 1  # at most the call under way when it died


def test_failed_calls_are_in_no_average_and_are_asked_again(sums, backend, tmp_path):
    generate = backend.generate

    def failing(requests):
        for completion in generate(requests):
            yield (
                Completion(completion.key, finish="error", error="no")
                if "3." in completion.text
                else completion
            )

    backend.generate = failing
    results = evaluate(config(sums), tmp_path / "out")
    assert results["exit"]["code"] == 3
    assert "1 of gsm8k (no)" in results["exit"]["reason"]
    assert results["suites"]["gsm8k"]["n"] == 7
    backend.generate = generate
    assert evaluate(config(sums), tmp_path / "out")["suites"]["gsm8k"]["n"] == 8


def test_wordings_give_mean_worst_and_spread(sums, backend, tmp_path):
    results = evaluate(config(sums, phrasings=2), tmp_path / "out")
    assert results["suites"]["gsm8k"]["robustness"] == {
        "mark": "accuracy", "phrasings": 2, "each": [0.75, 0.75], "mean": 0.75, "worst": 0.75, "spread": 0.0,
    }  # fmt: skip
    assert backend.calls == 16
    with pytest.raises(UsageError, match="has 3 wordings"):
        evaluate(config(sums, phrasings=4), tmp_path / "more")


def test_samples_vote(sums, backend, tmp_path):
    results = evaluate(config(sums, samples=5, model={"temperature": 0.7}), tmp_path / "out")
    votes = results["suites"]["gsm8k"]["votes"]
    assert {k for k in votes if k.startswith("maj")} == {"maj@1", "maj@2", "maj@4", "maj@5"}
    assert votes["maj@1"] == votes["maj@5"] == results["suites"]["gsm8k"]["overall"] == 0.75
    assert len(pq.read_table(tmp_path / "out" / "items.parquet")) == 40
    with pytest.raises(ConfigError, match="temperature"):
        config(sums, samples=5)


def test_options_are_ranked_by_likelihood(verdicts, backend, tmp_path):
    results = evaluate(config(verdicts, "nli"), tmp_path / "out")
    own = results["suites"]["nli"]
    assert own["tasks"]["nli"]["accuracy"] == own["tasks"]["nli"]["macro_f1"] == 1
    assert own["by_normalisation"]["sum"] == {"accuracy": 1.0, "ties": 0}
    # Behind cue and blank prompt "No" is likelier: what is subtracted makes dry claims ties, the first wins.
    assert own["by_normalisation"]["unconditional"] == {"accuracy": 0.5, "ties": 3}
    assert own["tasks"]["nli"]["chance"] == 0.5
    assert own["tasks"]["nli"]["auc"] == 1
    assert "auc" in (tmp_path / "out" / "report.html").read_text()
    calls = backend.calls
    assert calls == 6 + 2  # one cue and one blank prompt for all
    again = evaluate(config(verdicts, "nli", normalise="mean"), tmp_path / "out")
    assert again["suites"]["nli"]["normalise"] == "mean"
    assert backend.calls == calls


def test_a_backend_that_cannot_score_is_refused_for_ranked_suites(verdicts, tmp_path):
    class Mute(Echo):
        score = property()

    GENERATORS.register("mute", lambda name, revision, config: Mute())
    try:
        with pytest.raises(UsageError, match="cannot score"):
            evaluate(config(verdicts, "nli", model={"ref": "mute:"}), tmp_path / "out")
    finally:
        GENERATORS.unregister("mute")


def test_two_runs_are_compared_on_the_same_items(sums, backend, tmp_path):
    evaluate(config(sums), tmp_path / "one")
    backend.model, backend.wrong = "knowing:worse", ("one", "two", "seven")
    evaluate(config(sums, limit=7), tmp_path / "two")
    found = compare_runs(str(tmp_path / "one"), str(tmp_path / "two"))["suites"]["gsm8k"]
    assert (found["n"], found["only_one"], found["only_two"]) == (7, 1, 0)
    assert (found["wins"], found["losses"]) == (0, found["tasks"]["gsm8k"]["losses"])
    assert found["difference"] == pytest.approx(-found["losses"] / 7, abs=1e-6)
    with pytest.raises(InputError, match="no finished evaluation"):
        compare_runs(str(tmp_path / "one"), str(tmp_path))


def test_graded_outputs_are_compared_by_task_and_id_in_every_mark(tmp_path, capsys):
    rows = [
        {"task": task, "id": i, "output": "", "target": ["red roses", "roses"]}
        for task in "ab"
        for i in (0, 1)
    ]
    said = (("red roses", "blue", "tall roses", "x"), ("red roses", "roses", "roses", "x"))
    for name, texts in zip(("one", "two"), said, strict=True):
        path = outputs_of(
            tmp_path / f"{name}.parquet", [{**r, "output": t} for r, t in zip(rows, texts, strict=True)]
        )
        assert run("--outputs", path, "--suite", "squad", "--out", tmp_path / name) == 0
    capsys.readouterr()
    found = compare_runs(str(tmp_path / "one"), str(tmp_path / "two"))["suites"]["squad"]
    assert (found["n"], found["wins"], found["losses"], found["difference"]) == (4, 2, 0, 0.5)
    assert (found["f1"]["wins"], found["f1"]["difference"]) == (2, round((1 + 1 / 3) / 4, 6))
    assert found["tasks"]["a"]["wins"] == found["tasks"]["b"]["wins"] == 1
    assert run("--compare", tmp_path / "one", tmp_path / "two") == 0
    assert "squad, f1" in capsys.readouterr().out


@pytest.mark.parametrize("suite", ["mmlu-rank", "mmlu-cloze"])
def test_a_corrected_gold_is_held_against_the_option_chosen(suite, tmp_path):
    rows = [
        {"subject": "s", "question": "Which?", "choices": ["no", "wet", "no no"], "answer": 0,
         "error_type": label, "correct_answer": right}
        for label, right in (("wrong_groundtruth", "B"), ("wrong_groundtruth", "C"), ("ok", None))
    ]  # fmt: skip
    path = outputs_of(tmp_path / "mmlu.parquet", rows)
    evaluate(config(path, suite, shots=0, model={"ref": "echo:"}), tmp_path / "out")
    chosen = {row["answer"] for row in pq.read_table(tmp_path / "out" / "items.parquet").to_pylist()}
    labels = json.loads((tmp_path / "out" / "results.json").read_text())["suites"][suite]["labels"]
    right = sum(chosen == {text} for text in ("wet", "no no", "no"))  # one of the three says what is chosen
    assert (len(chosen), right, labels["error_aware_n"]) == (1, 1, 3)
    assert labels["error_aware"] == pytest.approx(1 / 3, abs=1e-6)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"limit": -1}, "limit"), ({"confidence": 1.0}, "confidence"), ({"normalise": "best"}, "normalise"),
        ({"model": {"protocol": "bonito"}}, "protocol"),
    ],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused(more, said):
    with pytest.raises(ConfigError, match=said):
        config("x", **more)


# outputs made elsewhere


def run(*argv):
    with pytest.raises(SystemExit) as ended:
        cli.main(["evaluate", *map(str, argv)])
    return ended.value.code


def outputs_of(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


BBH = [
    ("navigate", "We turn. So the answer is Yes.", "Yes"),
    ("navigate", "We turn. So the answer is No.", "Yes"),
    ("navigate", "We turn and turn and", "No"),
    ("navigate", "So the answer is No.", "No"),
    ("snarks", "So the answer is (B).\n\nQ: more?\nA: So the answer is (A).", "(B)"),
    ("snarks", "", "(A)"),
]


def test_outputs_are_graded_by_task_and_overall(tmp_path, capsys):
    rows = [dict(zip(("task", "output", "target"), row, strict=True)) for row in BBH]
    path = outputs_of(tmp_path / "outputs.parquet", rows)
    assert run("--outputs", path, "--suite", "bbh-cot", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert {k: found["tasks"]["navigate"][k] for k in ("accuracy", "n", "extraction_failures")} == {
        "accuracy": 0.5, "n": 4, "extraction_failures": 1}  # fmt: skip
    assert found["tasks"]["snarks"]["accuracy"] == 0.5
    assert found["tasks"]["snarks"]["extraction_failures"] == 1
    assert found["overall"] == 0.5
    assert found["averages"]["micro"]["accuracy"]["mean"] == 0.5
    assert run("--outputs", path, "--suite", "bbh-cot", "--out", tmp_path / "graded") == 0
    assert "navigate" in capsys.readouterr().out
    assert len(pq.read_table(tmp_path / "graded" / "items.parquet")) == 6


@pytest.mark.parametrize("target", ["(B)", "B", "heart", "Heart", 1, "1", 1.0])
def test_a_gold_of_letters_may_be_the_text_or_the_index_of_an_option(target, tmp_path):
    said = ("So the answer is (B).", "So the answer is heart.", "So the answer is (A).")
    rows = [
        {"task": "t", "output": one, "target": target, "options": ["lung", "heart", "eye"]} for one in said
    ]
    for suite in ("bbh", "bbh-cot", "mmlu-cot"):
        results, trace = grade_outputs(str(outputs_of(tmp_path / "o.parquet", rows)), suite)
        assert trace["accuracy"].to_pylist() == [1.0, 1.0, 0.0]
        assert results["chance"] == pytest.approx(1 / 3, abs=1e-6)


def test_words_among_options_stay_words(tmp_path):
    rows = [
        {
            "task": "t",
            "output": f"So the answer is {own}.",
            "target": "valid",
            "options": ["valid", "invalid"],
        }
        for own in ("valid", "invalid")
    ]
    _, trace = grade_outputs(str(outputs_of(tmp_path / "o.parquet", rows)), "bbh-cot")
    assert trace["accuracy"].to_pylist() == [1.0, 0.0]
    assert trace["answer"].to_pylist() == ["valid", "invalid"]


CODE_002 = {  # Chung et al. 2022 (2210.11416), Tables 17 to 19: code-davinci-002 with CoT
    "boolean_expressions": 92.8, "causal_judgement": 54.0, "date_understanding": 87.2,
    "disambiguation_qa": 76.0, "dyck_languages": 56.8, "formal_fallacies": 50.4, "geometric_shapes": 54.4,
    "hyperbaton": 66.4, "logical_deduction_five_objects": 54.8, "logical_deduction_seven_objects": 38.8,
    "logical_deduction_three_objects": 87.6, "movie_recommendation": 90.4, "multistep_arithmetic_two": 47.6,
    "navigate": 96.4, "object_counting": 93.2, "penguins_in_a_table": 79.5,
    "reasoning_about_colored_objects": 91.6, "ruin_names": 68.4, "salient_translation_error_detection": 60.8,
    "snarks": 59.6, "sports_understanding": 97.6, "temporal_sequences": 96.8,
    "tracking_shuffled_objects_five_objects": 89.6, "tracking_shuffled_objects_seven_objects": 85.6,
    "tracking_shuffled_objects_three_objects": 78.4, "web_of_lies": 95.2, "word_sorting": 40.4,
}  # fmt: skip


def test_published_outputs_give_the_published_accuracies(shared_data, tmp_path):
    folder = shared_data / "benchmarks" / "code-davinci-002-cot"
    if not folder.is_dir():
        pytest.skip(
            "no published outputs here: lay BIG-Bench-Hard's code-davinci-002-cot beside the benchmarks"
        )
    rows = [
        {"task": path.name.partition("_few_shot")[0], "output": row["prediction"], "target": row["target"]}
        for path in sorted(folder.glob("*.json"))
        for row in json.loads(path.read_text())["outputs"]
    ]
    results, _ = grade_outputs(str(outputs_of(tmp_path / "outputs.parquet", rows)), "bbh-cot")
    found = {task: 100 * own["accuracy"] for task, own in results["tasks"].items()}
    assert found == pytest.approx(CODE_002, abs=0.5)


@pytest.mark.parametrize(
    ("suite", "output", "target", "right"),
    [
        ("mmlu", "(B)", "B", 1), ("mmlu", "B", "(B)", 1), ("mmlu", "The answer is (C).", 2, 1),
        ("gsm8k", "So 3.\n#### 1,000", "text\n#### 1000", 1), ("mgsm", "উত্তর হল 11।", "11", 1),
        ("squad", "the red house", ["a red house", "x"], 1), ("bbh", "valid", "invalid", 0),
        ("strategyqa", "Yes.", True, 1), ("superni", "hello there", ["Hello there."], 1),
    ],
)  # fmt: skip
def test_each_suite_takes_targets_as_they_come(tmp_path, suite, output, target, right):
    path = outputs_of(tmp_path / "o.parquet", [{"task": "bn", "output": output, "target": target}])
    assert grade_outputs(str(path), suite)[0]["overall"] == right


@pytest.mark.parametrize(
    ("suite", "output", "target", "options", "right"),
    [
        ("mmlu", "(C)", 2.0, None, 1), ("mmlu", "(C)", "2", None, 1),
        ("mmlu", "(B)", "blue", ["red", "blue"], 1),
        ("mmlu", "(B)", "b.", ["red", "blue"], 1), ("mmlu", "(B)", ["A", "1"], ["red", "blue"], 1),
        ("mmlu", "(B)", "7", ["6", "7"], 1), ("mmlu", "(A)", 0, ["x", "x"], 1),
        ("nli", "Maybe", 1, ["Yes", "Maybe", "No"], 1), ("nli", "No", "2", ["Yes", "Maybe", "No"], 1),
        ("nli", "no", "NO", ["Yes", "Maybe", "No"], 1), ("strategyqa", "Yes", True, ["Yes", "No"], 1),
        ("gsm8k", "The answer is 18", 18.0, None, 1), ("gsm8k", "The answer is $1,250", "$1250", None, 1),
        ("bbh", "(B)", "(B)", ["x", "y"], 1), ("squad", "A", "A", ["x"], 1),
        ("squad", "b", {"text": ["a", "b"]}, None, 1), ("gsm8k", "4", [[3], [4, None]], None, 1),
        ("mmlu", "(B)", "x", ["y", "x"], 1),
    ],
)  # fmt: skip
def test_usual_forms_of_a_right_target_are_taken(tmp_path, suite, output, target, options, right):
    row = {"task": "t", "output": output, "target": target, "options": options}
    results, _ = grade_outputs(str(outputs_of(tmp_path / "o.parquet", [row])), suite)
    assert results["overall"] == right


@pytest.mark.parametrize(
    ("suite", "target", "options", "said"),
    [
        ("mmlu", "E", ["x", "y"], "'E', none of its 2 'options'"),
        ("mmlu", 7, ["x", "y"], "'7', none of its 2"),
        ("mmlu", -1, None, "'-1', but the row has no"), ("mmlu", "-1", ["x", "y"], "'-1', none of its 2"),
        ("mmlu", 1.5, ["x", "y"], "'1.5', none of its 2"), ("mmlu", True, ["x", "y"], "'True', none of"),
        ("mmlu", "green", None, "'green', but the row has no 'options'"),
        ("mmlu", "x", ["x", "x "], "'x', which stands 2 times"),
        ("mmlu", float("nan"), None, "has no 'target'"),
        ("mmlu", "1", ["1", "2"], "'1', the text of one option and the index of another"),
        ("gsm8k", "abc", None, "'abc', no number"), ("gsm8k", float("nan"), None, "has no 'target'"),
        ("gsm8k", float("inf"), None, "'inf', no number"), ("gsm8k", ["3", "x"], None, "'x', no number"),
        ("gsm8k", "text ####", None, "has no 'target'"),
        ("nli", 1, None, "'1', but the row has no 'options'"),
        ("nli", -1, ["Yes", "No"], "'-1', none of its 2"),
        ("nli", "entailment", ["Yes", "No"], "none of its 2"),
        ("bbh", "(E)", ["x", "y"], r"'\(E\)', but there are 2 'options'"),
        ("squad", [], None, "has no 'target'"),
    ],
)  # fmt: skip
def test_a_target_that_no_output_could_match_is_refused(tmp_path, suite, target, options, said):
    first = {"task": "t", "output": "x", "target": target, "options": options}
    path = outputs_of(tmp_path / "o.parquet", [first])
    with pytest.raises(InputError, match=rf"o\.parquet: row 0 \(counted from 0\).*{said}"):
        grade_outputs(str(path), suite)


def test_options_that_stand_twice_are_counted(tmp_path, backend):
    rows = [{"task": "t", "output": "(A)", "target": "(A)", "options": o} for o in (["x", "y"], ["x", "x "])]
    assert grade_outputs(str(outputs_of(tmp_path / "o.parquet", rows)), "mmlu")[0]["duplicate_options"] == 1
    asked = [{"question": "wet?", "options": o, "answer": 0} for o in (["Yes", "No"], ["Yes", "No", "No"])]
    (tmp_path / "choice.jsonl").write_text("\n".join(map(json.dumps, asked)))
    results = evaluate(config(tmp_path / "choice.jsonl", "choice"), tmp_path / "out")
    assert results["suites"]["choice"]["duplicate_options"] == 1


@pytest.mark.parametrize("suite", ["mmlu", "mmlu-cot", "bbh", "bbh-cot", "gsm8k", "mgsm", "squad", "superni"])
def test_an_output_may_end_anywhere(tmp_path, suite):
    whole = "We weigh both. So the final answer is (B), 1,234 of them.\n\nQ: next\n\\boxed{7"
    target = "1234" if suite in ("gsm8k", "mgsm") else "(B)"
    rows = [{"task": "t", "output": whole[:at], "target": target} for at in range(len(whole) + 1)]
    results, trace = grade_outputs(str(outputs_of(tmp_path / "o.parquet", rows)), suite)
    assert results["n"] == len(trace) == len(rows)
    assert trace["rule"][0].as_py() == ""


def test_options_ranked_may_have_several_right_ones(tmp_path, backend):
    row = {"question": "wet?", "options": ["Yes", "No", "Of course"], "answer": ["No", "Of course"]}
    (tmp_path / "choice.jsonl").write_text(json.dumps(row))
    own = evaluate(config(tmp_path / "choice.jsonl", "choice"), tmp_path / "out")["suites"]["choice"]
    assert (own["overall"], own["chance"]) == (1, pytest.approx(2 / 3, abs=1e-6))


def test_chance_of_outputs_is_known_where_their_options_are(tmp_path):
    def chance(suite, target, options=None):
        row = {"task": "t", "output": "x", "target": target, "options": options}
        return grade_outputs(str(outputs_of(tmp_path / "o.parquet", [row])), suite)[0]["chance"]

    assert chance("mmlu", "A", ["x", "y", "z", "u"]) == 0.25
    assert chance("mmlu", ["A", "B"], ["x", "y", "z", "u"]) == 0.5
    assert chance("mmlu", "A") is None
    assert chance("bbh", "Yes") == chance("bbh", "valid") == chance("bbh", False) == 0.5
    assert chance("bbh", "12") == chance("gsm8k", "12") == chance("squad", "x") == 0


def test_outputs_that_are_empty_or_no_utf8_are_failures_not_crashes(tmp_path):
    raw = pa.array([b"The answer is (A).\xff\xfe", b"", None, b"\xff"], pa.binary())
    table = pa.table({"task": ["t"] * 4, "output": raw, "target": ["(A)"] * 4})
    pq.write_table(table, tmp_path / "binary.parquet")
    pq.write_table(table.set_column(1, "output", raw.view(pa.string())), tmp_path / "text.parquet")
    for name in ("binary", "text"):
        results, trace = grade_outputs(str(tmp_path / f"{name}.parquet"), "mmlu")
        assert results["tasks"]["t"]["accuracy"] == 0.25
        assert results["tasks"]["t"]["extraction_failures"] == 3
        assert trace["rule"].to_pylist() == ["cue: answer is", "", "", ""]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"task": "t", "outputs": "x", "target": "y"}], "no column 'output'"),
        ([{"task": "t", "output": "x", "target": None}], "row 0 .*'target'"),
        ([{"task": "t", "output": "x", "target": " "}], "row 0 .*'target'"),
        ([{"task": "t", "output": "x", "target": "y"}, {"output": "x", "target": "y"}], "row 1 .*'task'"),
        ([{"task": " ", "output": "x", "target": "y"}], "row 0 .*'task'"),
    ],
)
def test_a_table_that_is_none_of_outputs_is_refused(tmp_path, rows, said, capsys):
    path = tmp_path / "o.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert run("--outputs", path, "--suite", "bbh") in (1, 2)
    assert re.search(rf"o\.jsonl.*{said}", capsys.readouterr().err)


def test_a_suite_becomes_a_task_of_lm_eval(sums, verdicts, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("--suite", "gsm8k", "--data", sums, "--lm-eval", "harness") == 0
    made = yaml.safe_load(Path(capsys.readouterr().out.strip()).read_text())
    assert made["output_type"] == "generate_until"
    (step, _) = made["filter_list"][0]["filter"]
    assert (
        re.findall(step["regex_pattern"], "3 + 4 = 7. The answer is 1,250.")[step["group_select"]] == "1,250"
    )
    rows = [
        json.loads(line)
        for line in Path(made["dataset_kwargs"]["data_files"]["test"]).read_text().splitlines()
    ]
    assert len(rows) == 8
    assert (rows[0]["prompt"], rows[0]["target"]) == ("Question: How many is one?\nAnswer:", "1")
    assert run("--suite", "nli", "--data", verdicts, "--lm-eval", "harness") == 0
    made = yaml.safe_load(Path(capsys.readouterr().out.strip()).read_text())
    assert made["output_type"] == "multiple_choice"
    row = json.loads(Path(made["dataset_kwargs"]["data_files"]["test"]).read_text().splitlines()[1])
    assert (row["choices"], row["gold"]) == ([" Yes", " No"], 0)


def test_a_suite_of_several_kinds_becomes_a_group_of_tasks(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = [
        {"task": "object_counting", "input": "How many?", "target": "7"},
        {"task": "navigate", "input": "Back?", "target": "Yes"},
        {"task": "snarks", "input": "Which?\nOptions:\n(A) x\n(B) y", "target": "(B)"},
        {"task": "dyck_languages", "input": "Close [ (", "target": ") ]"},
        {"task": "word_sorting", "input": "b a", "target": "a b"},
    ]
    Path("bbh.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert run("--suite", "bbh", "--data", "bbh.jsonl", "--lm-eval", "harness") == 0
    first, *others = [yaml.safe_load(Path(p).read_text()) for p in capsys.readouterr().out.split()]
    assert first["group"] == "taskmill_bbh"
    assert first["task"] == [one["task"] for one in others]
    assert {one["task"].removeprefix("taskmill_bbh_") for one in others} == {
        "brackets", "label", "letter", "number", "words"}  # fmt: skip
    said = {
        "brackets": " ) ]\nQ:",
        "label": " Yes, so",
        "letter": " (B) y",
        "number": " 7.",
        "words": " a b\n",
    }
    for one in others:
        step, _ = one["filter_list"][0]["filter"]
        (row,) = map(json.loads, Path(one["dataset_kwargs"]["data_files"]["test"]).read_text().splitlines())
        found = re.findall(step["regex_pattern"], said[one["task"].rpartition("_")[2]])
        assert found[step["group_select"]] == row["target"]


def test_a_run_without_any_answer_says_so(sums, backend, tmp_path):
    backend.generate = lambda requests: (Completion(r.key, finish="error", error="no") for r in requests)
    results = evaluate(config(sums), tmp_path / "out")
    assert (results["exit"]["code"], results["suites"]["gsm8k"]["overall"]) == (3, None)
    assert (tmp_path / "out" / "report.html").exists()


def test_the_command_asks_echo_and_compares(sums, tmp_path, capsys):
    common = ("--suite", "gsm8k", "--data", sums, "--model", "echo:", "--limit", "3")
    assert run(*common, "--out", tmp_path / "a", "--json") == 0
    assert json.loads(capsys.readouterr().out)["suites"]["gsm8k"]["n"] == 3
    assert run(*common, "--out", tmp_path / "b") == 0
    assert "gsm8k" in capsys.readouterr().out
    assert run("--compare", tmp_path / "a", tmp_path / "b", "--json") == 0
    assert json.loads(capsys.readouterr().out)["suites"]["gsm8k"]["p"] == 1
    assert run("--suite", "gsm8k", "--data", sums) == 2
    assert "--out" in capsys.readouterr().err
