"""What judging models write, read back: scores, yes and no, weights; and what a judge's questions hold."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.backends.choices import with_choices
from taskmill.calls import Completion, Sampling, Scores, key_of, request
from taskmill.curate.filters import FILTERS
from taskmill.curate.judge import SCALE, mean_score, read_score, read_weights, read_yes, yes_share
from taskmill.curate.verify import CHECKS, STORED, Score, Thresholds, applies, decide, questions, score
from taskmill.errors import UsageError
from taskmill.record import Example, Reason
from taskmill.testing import PASSAGE


@pytest.mark.parametrize(
    ("reply", "wanted"),
    [
        ("Reason: it names her.\nScore: 4", 4),
        ("**Reason:** fine\n\n**Score:** 4", 4),
        ("Score: 3\nReason: a score of 5 would need the date.", 3),
        ("Reason: I would not give a score of 5 here.\nScore: 2", 2),
        ('{"reason": "short", "score": 4}', 4),
        ('{\n  "reason": "short",\n  "score": 4.5\n}', 4.5),
        ("Rating = 3/5", 3),
        ("Score: 3 out of 5.", 3),
        ("I give it a score of 2.", 2),
        ("The score is 5", 5),
        ("- Score: **5**", 5),
        ("SCORE:4", 4),
        ("4", 4),
        ("**4/5**", 4),
        ("It is right.\n\n5", 5),
        ("Score: 3,5", 3.5),
        ("<think>Score: 1? No.</think>\nScore: 5", 5),
        ("Score: 4\nScore: 4", 4),
    ],
)
def test_a_score_is_read_however_a_model_writes_it(reply, wanted):
    assert read_score(reply) == wanted


@pytest.mark.parametrize(
    "reply",
    [
        "", "I cannot judge this.", "Score:", "Score: …", "Score: 1, 2, 3, 4 or 5.", "Score: 8/10",
        "Score: 0", "Score: 7", "Score: 1/2/3", "Score: high", "Score: 3 to 4", "Score: 1,2,3",
        "Score: 2\nScore: 4", "It has 4 legs and 2 wings.",
        "Reason: the harbour was built in 1902", "<think>Score: 5", "42", "[-0.1, -2.3]", "Score: 4-5",
    ],
)  # fmt: skip
def test_what_states_no_single_score_on_the_scale_is_unreadable(reply):
    assert read_score(reply) is None


@given(st.integers(1, 5), st.text(st.characters(exclude_categories=["N", "Cs"]), max_size=60))
def test_a_labelled_last_line_is_read_behind_any_reason_without_numbers(value, reason):
    assert read_score(f"Reason: {reason}\nScore: {value}") == value


@given(st.text(max_size=200))
def test_any_reply_gives_a_score_on_the_scale_or_none(reply):
    assert read_score(reply) is None or 1 <= read_score(reply) <= 5
    assert read_yes(reply) in (None, 0.0, 1.0)
    assert yes_share(reply) is None or 0 <= yes_share(reply) <= 1
    assert mean_score(reply) is None or 1 <= mean_score(reply) <= 5


@pytest.mark.parametrize(
    ("reply", "wanted"),
    [("Yes", 1), ("yes.", 1), ("**No**", 0), ("No, the date is wrong.", 0), ("Yes, it follows.", 1),
     ("", None), ("It depends.", None), ("Yes and no", None), ("<think>No</think> Yes", 1)],
)  # fmt: skip
def test_yes_and_no_are_told_from_neither(reply, wanted):
    assert read_yes(reply) == wanted


@given(st.lists(st.floats(-50, 0), min_size=5, max_size=5))
def test_the_expected_score_is_the_mean_by_the_normalised_probabilities(logs):
    total = math.fsum(math.exp(v) for v in logs)
    wanted = math.fsum(int(s) * math.exp(v) for s, v in zip(SCALE, logs, strict=True)) / total
    assert mean_score(json.dumps(logs)) == pytest.approx(wanted, rel=1e-9)
    assert sum(read_weights(json.dumps(logs), SCALE)) == pytest.approx(1)


def test_without_weights_the_written_answer_counts():
    assert mean_score("4") == 4
    assert yes_share("No.") == 0
    assert yes_share(json.dumps([math.log(0.3), math.log(0.1)])) == pytest.approx(0.75)
    for broken in ("[-1]", "[-1, 2]", '[-1, "a"]', "[-1, null]", "{}", "[NaN, -1]"):
        assert read_weights(broken, ("Yes", "No")) is None


def test_weights_come_through_choices_and_are_another_call_than_the_choice():
    sampling = Sampling(temperature=0, choices=("Yes", "No"))
    weighed = replace(sampling, weighed=True)
    asked = [request("m", s, prompt="?") for s in (sampling, weighed)]
    assert asked[0].key != asked[1].key
    assert asked[0].key == key_of("m", "?", (), sampling, 0)
    ends = {}

    def scored(requests):
        for r in requests:
            ends[r.key] = r.end
            yield Scores(r.key, (-0.25, -1.5), (1, 1))

    found = {c.key: c.text for c in with_choices(asked, lambda open_ones: list(open_ones), scored)}
    assert found == {asked[0].key: "Yes", asked[1].key: "[-0.25, -1.5]"}
    assert ends == {asked[0].key: True, asked[1].key: False}


def example(context=PASSAGE, **more):
    instruction = "{{context}}\n\nWho built the harbour?" if context else "Name a harbour."
    return Example("a", "", context, instruction, "Marta Quist {{x}} Score: 5", **more)


def asked_of(check, row):
    (found,) = questions("m", (check,), row)
    return found


def answered(check, text, row=None, finish="stop"):
    asked = asked_of(check, row or example())
    return score(asked, Completion(asked.key, text, finish))


def test_the_questions_show_all_parts_once_and_nothing_of_the_templates():
    for check in ("judge", "expected", "ask-llm", "toxic", "faithful"):
        text = asked_of(check, example()).messages[0][1]
        assert text.count(PASSAGE) == 1, check
        assert text.count("Marta Quist {{x}} Score: 5") == 1
        assert "{{context}}" not in text
        assert "{%" not in text
        bare = asked_of(check, example("")).messages[0][1] if check != "faithful" else ""
        assert "assage" not in bare
    assert asked_of("expected", example()).sampling.choices == SCALE
    assert asked_of("ask-llm", example()).sampling.weighed
    assert not asked_of("faithful", example()).sampling.weighed


def test_rows_without_a_task_type_are_for_the_judge_alone():
    assert [c for c in CHECKS if applies(c, example())] == [
        "faithful",
        "judge",
        "expected",
        "ask-llm",
        "toxic",
    ]
    assert [c for c in CHECKS if applies(c, example(""))] == ["judge", "expected", "ask-llm", "toxic"]


def test_an_unreadable_verdict_is_a_reason_of_its_own_and_never_a_pass():
    for check in ("judge", "expected", "ask-llm", "toxic", "faithful"):
        found = answered(check, "Well, who knows.")
        assert (found.score, found.unreadable, found.failed) == (None, True, False)
        lost = decide(example(), {check: found}, Thresholds(judge=0, expected=0, ask_llm=0, toxic=9))
        assert lost[0] == Reason.UNREADABLE_VERDICT
        assert "who knows" in lost[1]
        failed = answered(check, "", finish="error")
        assert decide(example(), {check: failed}, Thresholds())[0] == Reason.CALL_FAILED


@pytest.mark.parametrize(
    ("check", "bad", "good", "reason"),
    [
        ("judge", "Score: 2", "Score: 3", Reason.LOW_SCORE),
        ("expected", json.dumps([0, -9, -9, -9, -9]), json.dumps([-9, -9, -9, 0, -9]), Reason.LOW_SCORE),
        ("ask-llm", json.dumps([-2, -0.2]), json.dumps([-0.2, -2]), Reason.LOW_SCORE),
        ("toxic", json.dumps([-0.2, -2]), json.dumps([-2, -0.2]), Reason.TOXIC),
        ("faithful", "No", "Yes", Reason.UNFAITHFUL),
    ],
)
def test_a_judge_decides_by_threshold_and_names_score_and_answer(check, bad, good, reason):
    lost = decide(example(), {check: answered(check, bad)}, Thresholds())
    assert lost[0] == reason
    assert check in lost[1]
    assert decide(example(), {check: answered(check, good)}, Thresholds()) is None


def test_the_reason_stays_beside_the_score():
    found = answered("judge", "Reason: the date is missing.\nScore: 2")
    assert found.answer == "Reason: the date is missing.\nScore: 2"
    assert answered("ask-llm", "[-0.1, -2.5]").answer == "Yes 0.917, No 0.083"


def test_stored_filters_have_the_thresholds_of_the_flags_and_ask_nobody():
    limits = Thresholds()
    for one in STORED:
        assert FILTERS.get(one.name) is one
        assert not one.by_default
        assert one.default == getattr(limits, one.name.replace("-", "_"), 0)
        with pytest.raises(UsageError, match="taskmill verify"):
            one.score(example())
    assert [s.name for s in STORED][2:] == list(CHECKS)


def test_the_command_knows_the_filters_that_are_asked_for_by_name_and_loads_no_extra():
    code = (
        "import sys, taskmill.recipes.curate; from taskmill.curate.filters import FILTERS\n"
        "print(*FILTERS.names()); print({'py3langid', 'phonenumbers', 'stdnum'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    names, loaded = shown.splitlines()
    wanted = {"language", "email", "phone", "account", "address", "unanswered", "unreadable", *CHECKS}
    assert wanted <= set(names.split())
    assert loaded == "set()"


def test_a_score_without_a_value_failed_unless_it_was_unreadable():
    assert Score("a", "judge", None, "", "").failed
    assert not Score("a", "judge", None, "", "", True).failed
    assert not Score("a", "judge", 1.0, "", "").failed
